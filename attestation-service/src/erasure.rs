//! The end of a home: its master keys destroyed, so that nothing that was sealed under them opens again, wherever copies of it
//! are; then its tables, its files, itself. Each step may be done again after it was interrupted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sqlx::{AnyConnection, Row as _};

use crate::custody::{self, CustodyError, MasterKey, MasterKeyUri};
use crate::home::{Home, HomeError, ServiceSettings};
use crate::store::{Database, StoreError, drop_schema, schema_is_used};

/// A home at its end. While it lives, no service opens a database that is a file of the home.
#[derive(Debug)]
pub struct Erasure {
    home: Home,
    settings: ServiceSettings,
    database: Database,
    _lock: Option<File>,
}

impl Erasure {
    /// Begins, once no service runs on the home's database.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while one does. Of a PostgreSQL database that is not known here.
    pub fn begin(home: &Home, settings: &ServiceSettings) -> Result<Self, StoreError> {
        let database = home.database(settings);
        let lock = database.lock()?;
        Ok(Self { home: home.clone(), settings: settings.clone(), database, _lock: lock })
    }

    /// The names of all master keys that the home's database has known.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn master_keys(&self) -> Result<Vec<MasterKeyUri>, StoreError> {
        master_keys(&self.home, &self.settings).await
    }

    /// The newest checkpoint of the audit log that was signed, as it was given out.
    pub fn checkpoint(&self) -> Option<String> {
        fs::read_to_string(self.home.log_head_path()).ok().filter(|text| !text.is_empty())
    }

    /// Destroys a master key. One that is not there is taken for destroyed only where this was tried before, or where it is a
    /// file.
    ///
    /// # Errors
    /// When its store refuses or does not answer, and of one that only the operator can destroy.
    pub async fn destroy(&self, uri: &MasterKeyUri, again: bool) -> Result<(), CustodyError> {
        if let MasterKeyUri::File(name) = uri {
            let path = custody::path(&self.home, name);
            return copies(&path)
                .iter()
                .try_for_each(|path| shred(path))
                .map_err(|source| CustodyError::NoKey { name: uri.to_string(), source: source.into() });
        }
        match MasterKey::open(&self.home, uri, &self.settings.custody).await {
            Ok(key) => key.destroy().await,
            Err(error) if again && error.is_absence() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Drops what the home has in a PostgreSQL database. Only a schema of its own can be dropped.
    ///
    /// # Errors
    /// When the database does not answer or does not let it.
    pub async fn drop_tables(&self) -> Result<(), StoreError> {
        match &self.database {
            Database::Postgres { schema: Some(schema), .. } => {
                drop_schema(&mut self.database.connect().await?, schema).await
            }
            _ => Ok(()),
        }
    }
}

/// Overwrites every file below a folder, and removes it; one that is not there is no failure.
///
/// # Errors
/// When a file cannot be written.
pub fn wipe(directory: &Path) -> Result<(), HomeError> {
    if !directory.exists() {
        return Ok(());
    }
    let failed = |source| HomeError::File { action: "write", path: directory.to_owned(), source };
    shred_below(directory).map_err(failed)?;
    fs::remove_dir_all(directory).map_err(failed)
}

/// The names of all master keys that the database of a home has known, and of the one that the settings name. A service may be
/// running on it; nothing is brought up to date.
///
/// # Errors
/// When the database does not answer.
pub async fn master_keys(home: &Home, settings: &ServiceSettings) -> Result<Vec<MasterKeyUri>, StoreError> {
    let database = home.database(settings);
    let mut uris = vec![settings.master_key.clone().unwrap_or_default()];
    if matches!(&database, Database::Sqlite(path) if !path.exists()) {
        return Ok(uris);
    }
    let mut connection = database.connect().await?;
    // A home whose service never ran has noted none. Of one that does not let it be read nothing is known.
    if !database.has_table(&mut connection, "master_key").await? {
        return Ok(uris);
    }
    for row in sqlx::query("SELECT name FROM master_key ORDER BY number").fetch_all(&mut connection).await? {
        let uri = row.try_get::<&str, _>("name")?.parse().map_err(|_| StoreError::Value("master key's name"))?;
        if !uris.contains(&uri) {
            uris.push(uri);
        }
    }
    Ok(uris)
}

/// Whether somebody has tables already where the settings want a service's to be.
///
/// # Errors
/// When the database does not answer.
pub async fn is_taken(home: &Home, settings: &ServiceSettings) -> Result<bool, StoreError> {
    match home.database(settings) {
        database @ Database::Postgres { .. } => {
            let mut connection: AnyConnection = database.connect().await?;
            match &settings.database_schema {
                Some(schema) => schema_is_used(&mut connection, schema).await,
                None => Ok(false),
            }
        }
        Database::Sqlite(path) => Ok(path.exists()),
    }
}

/// The file of a master key, and those that were moved aside when it was retired.
fn copies(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return found };
    let retired = format!("{}.retired-", name.display());
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    found.extend(
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&retired)).map(|entry| entry.path()),
    );
    found
}

/// Overwrites a file and removes it. What its storage keeps of it elsewhere, nobody here can say.
fn shred(path: &Path) -> io::Result<()> {
    overwrite(path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed?,
    }
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn shred_below(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            shred_below(&entry.path())?;
        } else if kind.is_file() {
            overwrite(&entry.path())?;
        }
    }
    Ok(())
}

fn overwrite(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut left = file.metadata()?.len();
    let nothing = vec![0; 64 * 1024];
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(nothing.len()).min(nothing.len());
        file.write_all(nothing.get(..part).unwrap_or(&nothing))?;
        left -= part as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_master_key_that_is_a_file_is_gone_with_its_retired_copies_and_once_more_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home"));
        home.create(&["localhost".to_owned()]).unwrap();
        let service = folder.path().join("home/service");
        let retired = service.join("master.key.retired-20260101T000000Z");
        // A second name of the same file shows what became of its bytes.
        let (key, kept) = (service.join("master.key"), folder.path().join("kept"));
        fs::hard_link(&key, &kept).unwrap();
        fs::copy(&key, &retired).unwrap();
        let settings = ServiceSettings::new(([127, 0, 0, 1], 0).into(), "https://localhost".parse().unwrap());
        let erasure = Erasure::begin(&home, &settings).unwrap();
        let keys = erasure.master_keys().await.unwrap();
        assert_eq!(keys, [MasterKeyUri::default()]);
        for again in [false, true] {
            erasure.destroy(&keys[0], again).await.unwrap();
            assert!(!key.exists() && !retired.exists());
        }
        assert!(fs::read(&kept).unwrap().iter().all(|byte| *byte == 0));
        assert!(matches!(Erasure::begin(&home, &settings), Err(StoreError::InUse)));
        wipe(home.directory()).unwrap();
        wipe(home.directory()).unwrap();
        assert!(!home.directory().exists());
    }

    #[tokio::test]
    async fn a_database_that_does_not_say_which_master_keys_there_are_is_not_taken_for_one_that_knows_none() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home"));
        home.create(&["localhost".to_owned()]).unwrap();
        let settings = ServiceSettings::new(([127, 0, 0, 1], 0).into(), "https://localhost".parse().unwrap());
        assert_eq!(master_keys(&home, &settings).await.unwrap(), [MasterKeyUri::default()], "no database yet");
        fs::write(home.database_path(), vec![b'x'; 4096]).unwrap();
        let refused = master_keys(&home, &settings).await.unwrap_err();
        assert!(matches!(refused, StoreError::Database(_)), "{refused}");
    }

    #[tokio::test]
    async fn a_key_of_the_environment_is_the_operators_to_destroy() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home"));
        home.create(&["localhost".to_owned()]).unwrap();
        let settings = ServiceSettings::new(([127, 0, 0, 1], 0).into(), "https://localhost".parse().unwrap());
        let erasure = Erasure::begin(&home, &settings).unwrap();
        // Any variable that is there has a value that is no key.
        let refused = erasure.destroy(&"env://PATH".parse().unwrap(), false).await.unwrap_err();
        assert!(matches!(refused, CustodyError::NoKey { .. }), "{refused}");
    }
}
