//! The key that signs the audit log's checkpoints, in the home: `log.key` (PKCS#8, the owner's alone) and `log.pub`, the
//! verifier key that auditors and shims are given. The log's name stands in the latter and never changes.

use std::fs;
use std::path::PathBuf;

use transparency_log::{KeyName, NoteSigner, VerifierKey};
use url::Url;

use crate::home::{Home, HomeError, read_secret, write_file, write_secret};

impl Home {
    /// The audit log's verifier key, `NAME+ID+BASE64` in one line.
    pub fn log_verifier_path(&self) -> PathBuf {
        self.service_directory().join("log.pub")
    }

    /// The newest checkpoint that witnesses cosigned.
    pub(crate) fn cosigned_checkpoint_path(&self) -> PathBuf {
        self.service_directory().join("log.cosigned")
    }

    /// The audit log's verifier key.
    pub fn log_verifier_key(&self) -> Result<VerifierKey, HomeError> {
        let path = self.log_verifier_path();
        let text = fs::read_to_string(&path).map_err(|source| HomeError::File { action: "read", path, source })?;
        text.trim_end().parse().map_err(HomeError::LogKey)
    }

    /// The key that signs the audit log. A home from before there was a log gets one, named after the service's address.
    pub(crate) fn log_signer(&self, service: &Url) -> Result<NoteSigner, HomeError> {
        if !self.log_verifier_path().exists() {
            self.make_log_key(service.host_str().unwrap_or("localhost"))?;
        }
        let public = self.log_verifier_key()?;
        let signer = self.read_log_key(public.name().clone())?;
        if signer.verifier_key() == public {
            Ok(signer)
        } else {
            Err(HomeError::LogKey(transparency_log::KeyError::Id))
        }
    }

    /// Makes the key of a log at `host`. The public file is written last and is the sign that the work was done.
    pub(crate) fn make_log_key(&self, host: &str) -> Result<(), HomeError> {
        // The brackets of an IPv6 address may stand in a name; what else is no host may not.
        let name: KeyName = format!("{host}/sealift-audit").parse().map_err(HomeError::LogKey)?;
        let signer = if self.log_key_path().exists() {
            self.read_log_key(name)?
        } else {
            let signer = NoteSigner::generate(name).map_err(HomeError::LogKey)?;
            write_secret(&self.log_key_path(), signer.to_pkcs8_pem().map_err(HomeError::LogKey)?.as_bytes())?;
            signer
        };
        write_file(&self.log_verifier_path(), format!("{}\n", signer.verifier_key()).as_bytes())
    }

    fn read_log_key(&self, name: KeyName) -> Result<NoteSigner, HomeError> {
        NoteSigner::from_pkcs8_pem(name, &read_secret(&self.log_key_path())?).map_err(HomeError::LogKey)
    }

    /// The newest checkpoint that was signed here.
    pub(crate) fn log_head_path(&self) -> PathBuf {
        self.service_directory().join("log.head")
    }

    fn log_key_path(&self) -> PathBuf {
        self.service_directory().join("log.key")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn home(directory: &tempfile::TempDir) -> Home {
        let home = Home::at(directory.path().join("home"));
        home.create(&["sealift.example".to_owned()]).unwrap();
        home
    }

    #[test]
    fn the_log_keeps_its_name_and_key_wherever_the_service_moves() {
        let directory = tempfile::tempdir().unwrap();
        let home = home(&directory);
        let mode = fs::metadata(home.log_key_path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let signer = home.log_signer(&"https://elsewhere.example:8443".parse().unwrap()).unwrap();
        assert_eq!(signer.name().as_str(), "sealift.example/sealift-audit");
        assert_eq!(signer.verifier_key(), home.log_verifier_key().unwrap());
    }

    #[test]
    fn an_old_home_gets_a_key_once_even_if_the_first_try_was_cut_short() {
        let directory = tempfile::tempdir().unwrap();
        let home = home(&directory);
        let url = "https://[::1]:8443".parse().unwrap();
        fs::remove_file(home.log_key_path()).unwrap();
        fs::remove_file(home.log_verifier_path()).unwrap();
        let made = home.log_signer(&url).unwrap().verifier_key();
        assert_eq!(made.name().as_str(), "[::1]/sealift-audit");
        fs::remove_file(home.log_verifier_path()).unwrap();
        assert_eq!(home.log_signer(&url).unwrap().verifier_key(), made);
    }

    #[test]
    fn a_key_that_is_not_the_published_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let home = home(&directory);
        let other = NoteSigner::generate("sealift.example/sealift-audit".parse().unwrap()).unwrap();
        fs::write(home.log_key_path(), other.to_pkcs8_pem().unwrap().as_bytes()).unwrap();
        let refused = home.log_signer(&"https://sealift.example".parse().unwrap());
        assert!(matches!(refused, Err(HomeError::LogKey(_))));
    }
}
