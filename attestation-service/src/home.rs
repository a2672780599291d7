//! The service's files below a vendor home: master key, token and licence keys, certificates, database, settings.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jiff::SignedDuration;
use jose::KeyError;
use jose::signing::SigningKey;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use serde::{Deserialize, Serialize};
use url::Url;
use zeroize::Zeroizing;

use launch_evidence::Requirements;

use crate::custody::{self, CustodyError, CustodySettings, MasterKeyUri};
use crate::endorsement::EndorsementSettings;
use crate::limits::LimitSettings;
use crate::store::{Database, DatabaseUrl, SchemaName};
use crate::witness::LogSettings;

/// Why a home cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HomeError {
    /// There is something at that place already.
    #[error("`{}` exists already", .0.display())]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A secret's file can be read by others.
    #[error("`{}` holds a secret and has mode {mode:04o}; it must be 0600", path.display())]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The master key could not be made.
    #[error("the master key cannot be made")]
    MasterKey(#[source] CustodyError),
    /// A signing key is malformed or could not be made.
    #[error("a signing key cannot be used")]
    SigningKey(#[source] KeyError),
    /// The audit log's key is malformed, or not the one that its public file names.
    #[error("the audit log's key cannot be used")]
    LogKey(#[source] transparency_log::KeyError),
    /// A certificate could not be made.
    #[error("a certificate could not be made")]
    Certificate(#[source] rcgen::Error),
    /// The settings are malformed.
    #[error("the settings are malformed: {0}")]
    Settings(String),
}

/// What the settings file says of the service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSettings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// How customers reach it; licences carry it.
    pub url: Url,
    /// How the vendor's own commands reach it, where that is another way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_url: Option<Url>,
    /// The PostgreSQL database; without one, `SQLite` in the home.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseUrl>,
    /// The schema of that database that holds this service's tables and nobody else's; the connection's own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_schema: Option<SchemaName>,
    /// The master key of a database that knows of none; the file `master.key` in the home by default. It is changed by
    /// `sealift key rotate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master_key: Option<MasterKeyUri>,
    /// How the stores of master keys are reached.
    #[serde(default, skip_serializing_if = "is_default")]
    pub custody: CustodySettings,
    /// How launch evidence is judged.
    #[serde(default, skip_serializing_if = "is_default")]
    pub evidence: EvidenceSettings,
    /// How much anybody may ask.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: LimitSettings,
    /// Who witnesses the audit log.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log: LogSettings,
    /// How far from now, in seconds, a request for renewal that comes by file may have been made.
    #[serde(default = "renewal_window_seconds", skip_serializing_if = "is_renewal_window_seconds")]
    pub renewal_window_seconds: u32,
}

/// Seven days.
fn renewal_window_seconds() -> u32 {
    7 * 24 * 3600
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_renewal_window_seconds(seconds: &u32) -> bool {
    *seconds == renewal_window_seconds()
}

impl ServiceSettings {
    /// The settings of a service that listens at `listen` and is reached at `url`; everything else as by default.
    pub fn new(listen: SocketAddr, url: Url) -> Self {
        Self {
            listen,
            url,
            admin_url: None,
            database: None,
            database_schema: None,
            master_key: None,
            custody: CustodySettings::default(),
            evidence: EvidenceSettings::default(),
            limits: LimitSettings::default(),
            log: LogSettings::default(),
            renewal_window_seconds: renewal_window_seconds(),
        }
    }

    /// How far from now a request for renewal by file may have been made.
    pub(crate) fn renewal_window(&self) -> SignedDuration {
        SignedDuration::from_secs(i64::from(self.renewal_window_seconds))
    }
}

/// How launch evidence is judged.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvidenceSettings {
    /// What every guest must show, whatever its workload: minimum TCB, revocation lists and more.
    pub requirements: Requirements,
    /// Where endorsements come from that evidence does not bring.
    pub endorsements: EndorsementSettings,
}

fn is_default<T: Default + PartialEq>(settings: &T) -> bool {
    *settings == T::default()
}

/// The service's part of a vendor home.
#[derive(Clone, Debug)]
pub struct Home {
    directory: PathBuf,
}

impl Home {
    /// The home at `directory`; nothing is read yet.
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Makes keys, certificate authority and server certificate. `host_names` are the names and addresses that the
    /// certificate is for.
    pub fn create(&self, host_names: &[String]) -> Result<(), HomeError> {
        self.create_under(host_names, &MasterKeyUri::default())
    }

    /// Like [`Self::create`], with this master key, which is made where it is a file and is not there.
    pub fn create_under(&self, host_names: &[String], master_key: &MasterKeyUri) -> Result<(), HomeError> {
        let service = self.service_directory();
        if service.exists() {
            return Err(HomeError::Exists(service));
        }
        create_private_directory(&service)?;
        if let MasterKeyUri::File(name) = master_key {
            custody::make(self, name)?;
        }
        for (secret, public) in [
            (self.license_key_path(), self.license_public_key_path()),
            (self.token_key_path(), service.join("token.pub")),
        ] {
            let key = SigningKey::generate().map_err(HomeError::SigningKey)?;
            write_secret(&secret, key.to_pkcs8_pem().map_err(HomeError::SigningKey)?.as_bytes())?;
            let pem = key.verifying_key().to_spki_pem().map_err(HomeError::SigningKey)?;
            write_file(&public, pem.as_bytes())?;
        }
        self.make_log_key(host_names.first().map_or("localhost", String::as_str))?;
        self.create_certificates(host_names)
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The certificate authority that licences carry, PEM.
    pub fn ca_path(&self) -> PathBuf {
        self.service_directory().join("ca.pem")
    }

    /// The database in the home.
    pub fn database_path(&self) -> PathBuf {
        self.service_directory().join("sealift.db")
    }

    /// The database that the settings name, or else that in the home.
    pub fn database(&self, settings: &ServiceSettings) -> Database {
        let schema = settings.database_schema.clone();
        match settings.database.clone() {
            Some(url) => Database::Postgres { url, schema },
            None => Database::Sqlite(self.database_path()),
        }
    }

    /// The server's certificate chain, PEM.
    pub fn certificate_path(&self) -> PathBuf {
        self.service_directory().join("tls.pem")
    }

    /// The server's private key, PEM.
    pub fn certificate_key_path(&self) -> PathBuf {
        self.service_directory().join("tls.key")
    }

    /// The root certificate (DER) of the simulated platform that belongs to this home.
    pub fn simulated_platform_path(&self) -> PathBuf {
        self.directory.join("simulated-platform")
    }

    /// The key that signs licences.
    pub fn license_key(&self) -> Result<SigningKey, HomeError> {
        SigningKey::from_pkcs8_pem(&read_secret(&self.license_key_path())?).map_err(HomeError::SigningKey)
    }

    /// The key that signs tokens.
    pub fn token_key(&self) -> Result<SigningKey, HomeError> {
        SigningKey::from_pkcs8_pem(&read_secret(&self.token_key_path())?).map_err(HomeError::SigningKey)
    }

    /// The certificate authority, PEM.
    pub fn ca_pem(&self) -> Result<String, HomeError> {
        let path = self.ca_path();
        fs::read_to_string(&path).map_err(|source| HomeError::File { action: "read", path, source })
    }

    /// Where fetched endorsements are kept.
    pub fn endorsements_path(&self) -> PathBuf {
        self.service_directory().join("endorsements")
    }

    pub(crate) fn service_directory(&self) -> PathBuf {
        self.directory.join("service")
    }

    /// The key that verifies licences, PEM.
    pub fn license_public_key_path(&self) -> PathBuf {
        self.service_directory().join("license.pub")
    }

    fn license_key_path(&self) -> PathBuf {
        self.service_directory().join("license.key")
    }

    fn token_key_path(&self) -> PathBuf {
        self.service_directory().join("token.key")
    }

    fn create_certificates(&self, host_names: &[String]) -> Result<(), HomeError> {
        let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(HomeError::Certificate)?;
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "Sealift vendor CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_certificate = ca.self_signed(&ca_key).map_err(HomeError::Certificate)?;
        let server_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(HomeError::Certificate)?;
        let mut server = CertificateParams::new(host_names.to_vec()).map_err(HomeError::Certificate)?;
        server.distinguished_name.push(DnType::CommonName, "Sealift attestation service");
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_params(&ca, &ca_key);
        let server_certificate = server.signed_by(&server_key, &issuer).map_err(HomeError::Certificate)?;
        write_file(&self.ca_path(), ca_certificate.pem().as_bytes())?;
        write_secret(&self.service_directory().join("ca.key"), Zeroizing::new(ca_key.serialize_pem()).as_bytes())?;
        write_file(&self.certificate_path(), server_certificate.pem().as_bytes())?;
        write_secret(&self.certificate_key_path(), Zeroizing::new(server_key.serialize_pem()).as_bytes())
    }
}

/// Makes `directory` and its parents; it is the owner's alone.
pub(crate) fn create_private_directory(directory: &Path) -> Result<(), HomeError> {
    let failed = |source| HomeError::File { action: "write", path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(failed)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)
}

pub(crate) fn write_file(path: &Path, contents: &[u8]) -> Result<(), HomeError> {
    write_new(path, contents, 0o644)
}

pub(crate) fn write_secret(path: &Path, contents: &[u8]) -> Result<(), HomeError> {
    write_new(path, contents, 0o600)
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> Result<(), HomeError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(contents))
        .map_err(|source| HomeError::File { action: "write", path: path.to_owned(), source })
}

pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, HomeError> {
    let failed = |source| HomeError::File { action: "read", path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    let mode = metadata.mode() & 0o7777;
    if !is_kept(mode, metadata.uid(), rustix::process::geteuid().as_raw()) {
        return Err(HomeError::Mode { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(failed)
}

/// Whether a secret's file of this mode and owner is kept from others. A service that is not root may be given one of root's
/// by its group, as PostgreSQL has it with its keys: so does Kubernetes with Secrets (`fsGroup`).
pub(crate) fn is_kept(mode: u32, owner: u32, user: u32) -> bool {
    let by_group = owner == 0 && user != 0;
    mode & if by_group { 0o037 } else { 0o077 } == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_master_key_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().join("home"));
        home.create(&["localhost".to_owned()]).unwrap();
        let settings = ServiceSettings::new(([127, 0, 0, 1], 0).into(), "https://localhost".parse().unwrap());
        crate::try_master_key(&home, &settings).await.unwrap();
        let path = home.service_directory().join("master.key");
        fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        let Err(CustodyError::NoKey { source, .. }) = crate::try_master_key(&home, &settings).await else {
            panic!("anybody's key was taken");
        };
        assert!(matches!(source.downcast_ref(), Some(HomeError::Mode { mode: 0o640, .. })));
    }

    #[test]
    fn a_group_may_read_roots_secret_and_no_other() {
        for (mode, owner, user, is_fine) in [
            (0o600, 1000, 1000, true),
            (0o640, 1000, 1000, false),
            (0o440, 0, 65532, true),
            (0o640, 0, 65532, true),
            (0o640, 0, 0, false),
            (0o460, 0, 65532, false),
            (0o444, 0, 65532, false),
            (0o440, 1000, 65532, false),
        ] {
            assert_eq!(is_kept(mode, owner, user), is_fine, "{mode:o} of {owner} for {user}");
        }
    }

    #[test]
    fn a_home_is_not_made_twice() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path());
        home.create(&["localhost".to_owned()]).unwrap();
        let before = fs::read(home.ca_path()).unwrap();
        assert!(matches!(home.create(&["localhost".to_owned()]), Err(HomeError::Exists(_))));
        assert_eq!(fs::read(home.ca_path()).unwrap(), before);
    }
}
