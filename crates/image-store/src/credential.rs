//! Registry credentials from the auth files of Podman and Docker and from credential helpers.
//!
//! [containers-auth.json(5)]: <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md>

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::error::{Error, UsageError};
use crate::reference::RegistryReference;

/// A password or token. Wiped on drop, never printed.
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself, for the header or body that carries it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// What a registry may be shown.
#[derive(Debug)]
pub(crate) enum Credential {
    Anonymous,
    Basic { user: String, password: Secret },
    IdentityToken(Secret),
}

/// The type of `docker_credential` derives `Debug` over its passwords: it lives no longer than this call.
impl From<DockerCredential> for Credential {
    fn from(credential: DockerCredential) -> Self {
        match credential {
            DockerCredential::IdentityToken(token) => Self::IdentityToken(Secret::new(token)),
            DockerCredential::UsernamePassword(user, password) => Self::Basic { user, password: Secret::new(password) },
        }
    }
}

/// The auth files to search, in order.
#[derive(Clone, Debug)]
pub(crate) struct AuthFiles {
    files: Vec<PathBuf>,
    /// Whether a file that is not there is an error: it is when the user named it.
    is_named: bool,
}

impl AuthFiles {
    /// The one file that was named, else `$REGISTRY_AUTH_FILE`, else the usual places.
    pub(crate) fn new(named: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let named = named.map(Path::to_owned).or_else(|| variable("REGISTRY_AUTH_FILE").map(PathBuf::from));
        if let Some(file) = named {
            return Self { files: vec![file], is_named: true };
        }
        let runtime = variable("XDG_RUNTIME_DIR").map_or_else(default_runtime_directory, |directory| {
            Some(PathBuf::from(directory).join("containers/auth.json"))
        });
        let home = variable("HOME").map(PathBuf::from);
        let configuration = variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| home.join(".config")))
            .map(|directory| directory.join("containers/auth.json"));
        let docker = variable("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| home.map(|home| home.join(".docker")))
            .map(|directory| directory.join("config.json"));
        Self { files: [runtime, configuration, docker].into_iter().flatten().collect(), is_named: false }
    }

    /// The credential for a repository: the first file that has one for it, its most specific key. Blocks; may run a
    /// credential helper.
    pub(crate) fn find(&self, repository: &RegistryReference) -> Result<Credential, Error> {
        for path in &self.files {
            let bytes = match std::fs::read(path) {
                Ok(bytes) => Zeroizing::new(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.is_named => continue,
                Err(error) => return Err(Error::io("read", path)(error)),
            };
            let unusable = |problem: String| UsageError::Credentials { path: path.clone(), problem };
            // The parser's own message could quote what it found.
            let file: Value = serde_json::from_slice(&bytes).map_err(|_| unusable("it is not JSON".to_owned()))?;
            for key in keys(repository) {
                match look_up(&bytes, &file, &key) {
                    Ok(Some(credential)) => {
                        tracing::debug!(file = %path.display(), key = key.name, "found a credential");
                        return Ok(credential);
                    }
                    Ok(None) => {}
                    Err(problem) => return Err(unusable(problem).into()),
                }
            }
        }
        Ok(Credential::Anonymous)
    }
}

/// A key of an auth file.
struct Key {
    name: String,
    /// Helpers know hosts only.
    is_host: bool,
}

/// `host/a/b`, `host/a`, `host`; Docker Hub also under Docker's own key.
fn keys(repository: &RegistryReference) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut name = repository.name();
    while let Some((parent, _)) = name.rsplit_once('/').map(|(parent, last)| (parent.to_owned(), last.to_owned())) {
        keys.push(Key { name, is_host: false });
        name = parent;
    }
    keys.push(Key { name, is_host: true });
    if repository.host() == "docker.io" {
        keys.push(Key { name: "https://index.docker.io/v1/".to_owned(), is_host: true });
    }
    keys
}

fn look_up(bytes: &[u8], file: &Value, key: &Key) -> Result<Option<Credential>, String> {
    let helper = file["credHelpers"][&key.name].as_str().or_else(|| file["credsStore"].as_str()).unwrap_or_default();
    let found = if key.is_host {
        docker_credential::get_credential_from_reader(bytes, &key.name)
    } else if file["auths"].get(&key.name).is_some() {
        let auths = Zeroizing::new(serde_json::json!({ "auths": file["auths"] }).to_string());
        docker_credential::get_credential_from_reader(auths.as_bytes(), &key.name)
    } else {
        return Ok(None);
    };
    match found {
        Ok(DockerCredential::UsernamePassword(user, password)) if user.is_empty() && password.is_empty() => Ok(None),
        Ok(credential) => Ok(Some(credential.into())),
        // A helper that has no entry fails too; its output may hold anything and is not shown.
        Err(CredentialRetrievalError::NoCredentialConfigured | CredentialRetrievalError::HelperFailure { .. }) => {
            Ok(None)
        }
        Err(CredentialRetrievalError::HelperCommunicationError) => {
            Err(format!("cannot run `docker-credential-{helper}`"))
        }
        Err(CredentialRetrievalError::MalformedHelperResponse) => {
            Err(format!("`docker-credential-{helper}` gave no credential"))
        }
        Err(_) => Err(format!("the entry for `{}` cannot be read", key.name)),
    }
}

/// Podman's place for users without `XDG_RUNTIME_DIR`, root among them.
fn default_runtime_directory() -> Option<PathBuf> {
    let user = std::fs::metadata("/proc/self").ok()?.uid();
    Some(PathBuf::from(format!("/run/containers/{user}/auth.json")))
}

#[cfg(test)]
mod tests;
