//! How the stores of master keys are reached from this machine: what the settings say, or else the environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};
use zeroize::Zeroizing;

use super::uri::TransitKind;
use crate::home::{Home, HomeError, read_secret};

/// What `[service.custody]` says.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CustodySettings {
    /// Tokens behind PKCS#11.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pkcs11: Option<Pkcs11Settings>,
    /// The `OpenBao` server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openbao: Option<TransitSettings>,
    /// The Vault server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vault: Option<TransitSettings>,
}

/// How a token is reached.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pkcs11Settings {
    /// The library that speaks to it; else `SEALIFT_PKCS11_MODULE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<PathBuf>,
    /// Where its user's PIN is; else in `SEALIFT_PKCS11_PIN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<SecretSource>,
}

/// How a Transit engine is reached.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransitSettings {
    /// The server; else `BAO_ADDR` or `VAULT_ADDR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Url>,
    /// The certificate authority (PEM) that it is verified by, instead of the system's; else `BAO_CACERT` or `VAULT_CACERT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The namespace; else `BAO_NAMESPACE` or `VAULT_NAMESPACE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Where the token is, read anew whenever it is needed; else in `BAO_TOKEN` or `VAULT_TOKEN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretSource>,
}

/// Where a secret is: `env://NAME`, or a file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum SecretSource {
    /// A variable of the environment.
    Environment(String),
    /// A file that is the owner's alone; below the home where its path is relative.
    File(PathBuf),
}

impl From<String> for SecretSource {
    fn from(text: String) -> Self {
        match text.strip_prefix("env://") {
            Some(name) => Self::Environment(name.to_owned()),
            None => Self::File(PathBuf::from(text.strip_prefix("file:").unwrap_or(&text))),
        }
    }
}

impl From<SecretSource> for String {
    fn from(source: SecretSource) -> Self {
        match source {
            SecretSource::Environment(name) => format!("env://{name}"),
            SecretSource::File(path) => path.display().to_string(),
        }
    }
}

/// What is missing or wrong on this machine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessError {
    /// Neither the settings nor the environment say it.
    #[error("neither `{setting}` in `[service.custody.{table}]` nor {variable} is set")]
    Unset { table: &'static str, setting: &'static str, variable: String },
    /// A variable's or setting's value is of no use.
    #[error("{what} cannot be used: {why}")]
    Value { what: String, why: String },
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] HomeError),
}

impl SecretSource {
    pub(crate) fn read(&self, home: &Home) -> Result<Zeroizing<String>, AccessError> {
        let text = match self {
            Self::Environment(name) => secret_text(std::env::var_os(name)).map_err(|why| AccessError::Value {
                what: format!("the environment variable {name}"),
                why: why.to_owned(),
            })?,
            Self::File(path) => read_secret(&home.directory().join(path))?,
        };
        Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

/// The text of a variable that has a secret; or why there is none, without a word of what it holds.
pub(super) fn secret_text(value: Option<OsString>) -> Result<Zeroizing<String>, &'static str> {
    let bytes = Zeroizing::new(value.ok_or("it is not set")?.into_vec());
    str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| "it is no UTF-8 text")
}

/// A setting, or else a variable of the environment.
fn or_variable<T>(given: Option<&T>, variable: &str) -> Result<Option<T>, AccessError>
where
    T: Clone + FromStr<Err: ToString>,
{
    if let Some(given) = given {
        return Ok(Some(given.clone()));
    }
    let Some(text) = std::env::var(variable).ok().filter(|text| !text.is_empty()) else { return Ok(None) };
    let unusable = |error: T::Err| AccessError::Value { what: variable.to_owned(), why: error.to_string() };
    text.parse().map(Some).map_err(unusable)
}

/// The secret's place that the settings name, or else the variable.
fn secret(given: Option<&SecretSource>, variable: &str) -> Option<SecretSource> {
    let by_variable = || std::env::var_os(variable).map(|_| SecretSource::Environment(variable.to_owned()));
    given.cloned().or_else(by_variable)
}

/// A module and its PIN's place.
pub(super) struct Pkcs11Access {
    pub(super) module: PathBuf,
    pub(super) pin: SecretSource,
}

/// A server and all that it takes to speak to it.
#[derive(Debug)]
pub(super) struct TransitAccess {
    pub(super) address: Url,
    pub(super) is_loopback: bool,
    pub(super) ca: Option<PathBuf>,
    pub(super) namespace: Option<String>,
    pub(super) token: SecretSource,
}

impl CustodySettings {
    pub(super) fn pkcs11_access(&self) -> Result<Pkcs11Access, AccessError> {
        let settings = self.pkcs11.clone().unwrap_or_default();
        let unset =
            |setting, variable: &str| AccessError::Unset { table: "pkcs11", setting, variable: variable.to_owned() };
        let (module, pin) = ("SEALIFT_PKCS11_MODULE", "SEALIFT_PKCS11_PIN");
        Ok(Pkcs11Access {
            module: or_variable(settings.module.as_ref(), module)?.ok_or_else(|| unset("module", module))?,
            pin: secret(settings.pin.as_ref(), pin).ok_or_else(|| unset("pin", pin))?,
        })
    }

    pub(super) fn transit_access(&self, kind: TransitKind) -> Result<TransitAccess, AccessError> {
        let (settings, prefix) = match kind {
            TransitKind::OpenBao => (&self.openbao, "BAO"),
            TransitKind::Vault => (&self.vault, "VAULT"),
        };
        let settings = settings.clone().unwrap_or_default();
        let variable = |name: &str| format!("{prefix}_{name}");
        let unset = |setting, variable: String| AccessError::Unset { table: kind.scheme(), setting, variable };
        let address: Url = or_variable(settings.address.as_ref(), &variable("ADDR"))?
            .ok_or_else(|| unset("address", variable("ADDR")))?;
        let is_loopback = match address.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        // A token and keys travel over it.
        if address.scheme() != "https" && !(address.scheme() == "http" && is_loopback) {
            let what = format!("the address of the {} server", kind.scheme());
            return Err(AccessError::Value { what, why: "it is not https".to_owned() });
        }
        let by_variable = secret(settings.token.as_ref(), &variable("TOKEN"));
        Ok(TransitAccess {
            address,
            is_loopback,
            ca: or_variable(settings.ca.as_ref(), &variable("CACERT"))?,
            namespace: or_variable(settings.namespace.as_ref(), &variable("NAMESPACE"))?,
            token: by_variable.ok_or_else(|| unset("token", variable("TOKEN")))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn openbao(address: &str) -> CustodySettings {
        let address = Some(address.parse().unwrap());
        let token = Some(SecretSource::from("token".to_owned()));
        CustodySettings {
            openbao: Some(TransitSettings { address, token, ..TransitSettings::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn a_token_goes_to_others_by_tls_only() {
        for (address, is_fine) in [
            ("https://bao.example:8200", true),
            ("http://bao.example:8200", false),
            ("http://127.0.0.1:8200", true),
            ("http://[::1]:8200", true),
            ("http://localhost:8200", true),
            ("http://localhost.example:8200", false),
            ("ftp://127.0.0.1", false),
        ] {
            assert_eq!(openbao(address).transit_access(TransitKind::OpenBao).is_ok(), is_fine, "{address}");
        }
    }

    #[test]
    fn what_is_not_set_is_named_with_where_it_may_be_set() {
        let Err(error) = CustodySettings::default().pkcs11_access() else { panic!("a module from nowhere") };
        assert_eq!(
            error.to_string(),
            "neither `module` in `[service.custody.pkcs11]` nor SEALIFT_PKCS11_MODULE is set"
        );
    }

    #[test]
    fn why_a_variable_has_no_secret_says_nothing_of_what_it_holds() {
        assert_eq!(secret_text(Some("1234".into())).unwrap().as_str(), "1234");
        let raw = OsString::from_vec(b"secret\xFF".to_vec());
        for (value, why) in [(None, "it is not set"), (Some(raw), "it is no UTF-8 text")] {
            assert_eq!(secret_text(value).unwrap_err(), why);
        }
    }

    #[test]
    fn a_secret_is_in_a_file_or_a_variable() {
        for (text, source) in [
            ("env://PIN", SecretSource::Environment("PIN".to_owned())),
            ("file:/run/pin", SecretSource::File("/run/pin".into())),
            ("pin", SecretSource::File("pin".into())),
        ] {
            assert_eq!(SecretSource::from(text.to_owned()), source);
        }
    }
}
