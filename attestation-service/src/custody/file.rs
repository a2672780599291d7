//! A master key that is a file of this machine, or a variable of the service's environment: the base64 of 32 bytes.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::sealer::{HeldKey, Sealer};
use super::settings::secret_text;
use super::uri::FileName;
use super::{CustodyError, no_key};
use crate::home::{Home, HomeError, read_secret};

/// A master key in this process's memory.
#[derive(Debug)]
pub(crate) struct FileKey {
    key: HeldKey,
    /// Seals image keys and secrets.
    sealer: Sealer,
}

impl FileKey {
    /// Reads the file, which must be the owner's alone.
    pub(super) fn open(home: &Home, name: &FileName) -> Result<Self, CustodyError> {
        let text = read_secret(&path(home, name)).map_err(no_key(name))?;
        Self::new(HeldKey::from_text(&text).map_err(no_key(name))?)
    }

    /// Reads the variable.
    pub(super) fn from_environment(variable: &str) -> Result<Self, CustodyError> {
        let name = format!("env://{variable}");
        let text = secret_text(std::env::var_os(variable)).map_err(no_key(&name))?;
        Self::new(HeldKey::from_text(&text).map_err(no_key(&name))?)
    }

    fn new(key: HeldKey) -> Result<Self, CustodyError> {
        let sealer = key.sealer("image keys")?;
        Ok(Self { key, sealer })
    }

    pub(super) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// The key itself: the working key of homes from before there were others.
    pub(super) fn key(&self) -> &HeldKey {
        &self.key
    }
}

/// Makes the file of a new master key, unless there is one. It is there whole or not at all: half a key would be in the way of
/// every later one of this name.
pub(crate) fn make(home: &Home, name: &FileName) -> Result<(), HomeError> {
    let path = path(home, name);
    if path.exists() {
        return Ok(());
    }
    let key = HeldKey::generate().map_err(HomeError::MasterKey)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    // Before anything is sealed under it.
    let made = tempfile::NamedTempFile::new_in(folder).and_then(|mut staged| {
        staged.write_all(key.to_text().as_bytes())?;
        staged.as_file().sync_all()?;
        staged.persist_noclobber(&path)?;
        File::open(folder)?.sync_all()
    });
    made.map_err(|source| HomeError::File { action: "write", path, source })
}

/// Where the file is.
pub(crate) fn path(home: &Home, name: &FileName) -> PathBuf {
    home.service_directory().join(name.path())
}
