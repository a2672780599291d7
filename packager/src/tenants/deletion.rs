//! A tenant's end, step by step. What was done stands in a journal beside its home, written before each step that cannot be
//! taken back: whoever deletes it again goes on from there, and whoever serves it stops.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::PathBuf;

use attestation_service::{CustodyError, Erasure, MasterKeyUri, StoreError, wipe};
use command_line::{ExitCode, Failure, FailureContext as _, whole_file};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{TenantName, beside, home_of};
use crate::home::{VendorHome, cannot_open, custody_failure};

/// What a journal's file is called after the tenant.
pub(super) const JOURNAL: &str = ".deletion.json";
/// Those that were deleted, one a line, in the vendor's home.
const RECORDS: &str = "deleted-tenants.jsonl";

/// What became of a master key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeyState {
    /// Nothing yet.
    Intact,
    /// Its store may have been told to destroy it.
    Destroying,
    /// By this program.
    Destroyed,
    /// As the operator said.
    DestroyedByOperator,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct DeletedKey {
    pub(crate) name: String,
    pub(crate) state: KeyState,
}

impl KeyState {
    fn is_over(self) -> bool {
        matches!(self, Self::Destroyed | Self::DestroyedByOperator)
    }
}

impl DeletedKey {
    fn named(&self) -> Result<(MasterKeyUri, KeyState), Failure> {
        let uri = self.name.parse();
        let uri = uri.or_fail(ExitCode::BadInput, || format!("the journal names no master key: `{}`", self.name))?;
        Ok((uri, self.state))
    }
}

/// What is known of a deletion, in its journal and in the end in the vendor's records.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct DeletedTenant {
    pub(crate) tenant: String,
    pub(crate) url: String,
    pub(crate) asked_at: Timestamp,
    #[serde(default)]
    pub(crate) deleted_at: Option<Timestamp>,
    /// `None` before the database was asked.
    #[serde(default)]
    pub(crate) master_keys: Option<Vec<DeletedKey>>,
    /// The newest checkpoint of its audit log, for those who hold receipts.
    #[serde(default)]
    pub(crate) checkpoint: Option<String>,
    #[serde(default)]
    tables_dropped: bool,
}

/// A deletion that goes on.
pub(crate) struct Deletion {
    vendor: VendorHome,
    home: VendorHome,
    name: TenantName,
    known: DeletedTenant,
    _alone: File,
}

/// Whether the home is one that is being deleted: nothing may serve it.
pub(crate) fn is_being_deleted(home: &VendorHome) -> bool {
    beside(home.directory(), JOURNAL).exists()
}

/// Those that were deleted, oldest first.
pub(crate) fn deleted(vendor: &VendorHome) -> Result<Vec<DeletedTenant>, Failure> {
    let path = vendor.directory().join(RECORDS);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.or_fail(ExitCode::BadInput, || format!("cannot read `{}`", path.display()))?,
    };
    let unreadable = || format!("`{}` is malformed", path.display());
    // A line without an end was not written whole: its tenant's journal is there still.
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    whole.map(|line| serde_json::from_str(line).or_fail(ExitCode::BadInput, unreadable)).collect()
}

impl Deletion {
    /// Begins, or goes on with what was begun. From now on the tenant is not served.
    pub(crate) fn begin(vendor: &VendorHome, name: &TenantName) -> Result<Self, Failure> {
        let alone = alone(vendor)?;
        let home = home_of(vendor, name);
        let journal = beside(home.directory(), JOURNAL);
        if let Ok(text) = fs::read_to_string(&journal) {
            let known = serde_json::from_str(&text)
                .or_fail(ExitCode::BadInput, || format!("the journal `{}` is malformed", journal.display()))?;
            return Ok(Self { vendor: vendor.clone(), home, name: name.clone(), known, _alone: alone });
        }
        super::existing(vendor, name)?;
        let settings = home.settings()?.service;
        if settings.database.is_some() && settings.database_schema.is_none() {
            return Err(Failure::bad_input(format!("the tables of `{name}` are in no schema of their own"))
                .hint("they cannot be told from others': move them to one, and name that by `database_schema`"));
        }
        let known = DeletedTenant {
            tenant: name.to_string(),
            url: settings.url.to_string(),
            asked_at: Timestamp::now(),
            deleted_at: None,
            master_keys: None,
            checkpoint: None,
            tables_dropped: false,
        };
        let deletion = Self { vendor: vendor.clone(), home, name: name.clone(), known, _alone: alone };
        deletion.write()?;
        Ok(deletion)
    }

    pub(crate) fn home(&self) -> &VendorHome {
        &self.home
    }

    /// Takes the home from whoever serves it; `None` where somebody still does.
    pub(crate) fn take(&self) -> Result<Option<Erasure>, Failure> {
        match Erasure::begin(&self.home.service(), &self.home.settings()?.service) {
            Err(StoreError::InUse) => Ok(None),
            taken => taken
                .map(Some)
                .map_err(|error| cannot_open(format!("cannot take the tenant's database: `{}`", self.name), &error)),
        }
    }

    /// Whether nothing but files is left to be removed.
    pub(crate) fn is_erased(&self) -> bool {
        self.known.tables_dropped
    }

    /// Does all that was not done before.
    pub(crate) async fn complete(
        mut self,
        erasure: Option<Erasure>,
        by_operator: bool,
    ) -> Result<DeletedTenant, Failure> {
        if let Some(erasure) = &erasure {
            self.learn(erasure).await?;
            self.destroy_keys(erasure, by_operator).await?;
            if !self.known.tables_dropped {
                erasure
                    .drop_tables()
                    .await
                    .map_err(|error| self.again(cannot_open("cannot drop the tenant's schema".to_owned(), &error)))?;
                self.known.tables_dropped = true;
                self.write()?;
            }
        }
        let directory = self.home.directory();
        wipe(directory).or_fail(ExitCode::Other, || format!("cannot remove `{}`", directory.display()))?;
        self.record()
    }

    /// Asks the database which master keys there are, and notes it with the log's last checkpoint.
    async fn learn(&mut self, erasure: &Erasure) -> Result<(), Failure> {
        if self.known.master_keys.is_some() {
            return Ok(());
        }
        let keys = erasure.master_keys().await.map_err(|error| {
            self.again(cannot_open("the database does not say which master keys there are".to_owned(), &error))
        })?;
        let intact = |key: MasterKeyUri| DeletedKey { name: key.to_string(), state: KeyState::Intact };
        self.known.master_keys = Some(keys.into_iter().map(intact).collect());
        self.known.checkpoint = erasure.checkpoint();
        self.write()
    }

    /// Destroying a key that others have, too, would be their end as well. Asked each time that keys are to be destroyed: they
    /// may have taken it up since it was noted.
    async fn refuse_shared(&self, keys: &[(MasterKeyUri, KeyState)]) -> Result<(), Failure> {
        for (key, _) in keys.iter().filter(|(_, state)| !state.is_over()) {
            if let Some(other) = super::master_key_holder(&self.vendor, &self.name, key).await? {
                return Err(Failure::bad_input(format!("the master key `{key}` is also that of {other}"))
                    .hint("have one of them rotated to a key of its own first: `sealift key rotate --to KEY`"));
            }
        }
        Ok(())
    }

    async fn destroy_keys(&mut self, erasure: &Erasure, by_operator: bool) -> Result<(), Failure> {
        let mut keys = self.known.master_keys.clone().unwrap_or_default();
        let named = keys.iter().map(DeletedKey::named).collect::<Result<Vec<_>, _>>()?;
        self.refuse_shared(&named).await?;
        for (place, (uri, state)) in named.into_iter().enumerate() {
            let Some(key) = keys.get_mut(place).filter(|_| !state.is_over()) else { continue };
            let again = key.state == KeyState::Destroying;
            key.state = KeyState::Destroying;
            self.known.master_keys = Some(keys.clone());
            self.write()?;
            let state = match erasure.destroy(&uri, again).await {
                Ok(()) => KeyState::Destroyed,
                Err(_) if by_operator => KeyState::DestroyedByOperator,
                Err(error) => {
                    // What the store refused has not begun.
                    if !again && !matches!(error, CustodyError::Unavailable { .. }) {
                        self.note(&mut keys, place, KeyState::Intact)?;
                    }
                    return Err(refused(&uri, &error));
                }
            };
            self.note(&mut keys, place, state)?;
        }
        Ok(())
    }

    fn note(&mut self, keys: &mut [DeletedKey], place: usize, state: KeyState) -> Result<(), Failure> {
        if let Some(key) = keys.get_mut(place) {
            key.state = state;
        }
        self.known.master_keys = Some(keys.to_vec());
        self.write()
    }

    fn again(&self, failure: Failure) -> Failure {
        failure.hint(format!("`sealift tenant delete {} --yes` goes on from here", self.name))
    }

    /// Writes the vendor's record, and the journal is done.
    fn record(mut self) -> Result<DeletedTenant, Failure> {
        self.known.deleted_at = Some(Timestamp::now());
        let mut records = deleted(&self.vendor)?;
        // Whoever was interrupted before the journal was gone wrote it down once already.
        records.retain(|record| (&record.tenant, record.asked_at) != (&self.known.tenant, self.known.asked_at));
        records.push(self.known.clone());
        let path = self.vendor.directory().join(RECORDS);
        let mut text = Vec::new();
        for record in &records {
            let line = serde_json::to_vec(record);
            text.extend(line.or_fail(ExitCode::Other, || format!("cannot write `{}`", path.display()))?);
            text.push(b'\n');
        }
        whole_file::write_durably(&path, &text)?;
        let journal = self.journal();
        fs::remove_file(&journal).or_fail(ExitCode::BadInput, || format!("cannot remove `{}`", journal.display()))?;
        Ok(self.known)
    }

    fn journal(&self) -> PathBuf {
        beside(self.home.directory(), JOURNAL)
    }

    /// The journal as it is now, whole or as it was before.
    fn write(&self) -> Result<(), Failure> {
        let path = self.journal();
        let text = serde_json::to_vec_pretty(&self.known);
        let text = text.or_fail(ExitCode::Other, || format!("cannot write `{}`", path.display()))?;
        whole_file::write_durably(&path, &text)
    }
}

/// One deletion at a time: each goes on from its journal and rewrites the records. Whoever dies lets go of the lock.
fn alone(vendor: &VendorHome) -> Result<File, Failure> {
    let directory = vendor.directory();
    let cannot = || format!("cannot lock `{}`", directory.display());
    let lock = File::open(directory).or_fail(ExitCode::BadInput, cannot)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Failure::unavailable("another `sealift tenant delete` is at work here")
            .hint("repeat the command when that one has ended")),
        Err(TryLockError::Error(error)) => Err(Failure::new(ExitCode::BadInput, cannot()).caused_by(&error)),
    }
}

/// A key that its store did not destroy, and what it takes.
fn refused(uri: &MasterKeyUri, error: &CustodyError) -> Failure {
    let hint = match uri {
        MasterKeyUri::Pkcs11(_) => "the token must let the user destroy it (CKA_DESTROYABLE)",
        MasterKeyUri::Transit(_) => {
            "the token needs `update` on `keys/KEY/config` and `delete` on `keys/KEY` of the Transit engine"
        }
        _ => "clear it where it is kept",
    };
    let failure = custody_failure(format!("the master key `{uri}` was not destroyed"), error);
    failure.hint(format!(
        "{hint}; then repeat the command, which goes on from here. If it is destroyed already, say so by `--key-destroyed`"
    ))
}
