//! The service's master keys and working keys as this process knows them: opened when they are needed, looked up anew when
//! another replica has changed them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;
use zeroize::Zeroizing;

use crate::custody::{self, CustodyError, CustodySettings, MasterKey, MasterKeyUri, WorkingKey, WorkingKeys};
use crate::home::{Home, HomeError, ServiceSettings};
use crate::service::ServiceError;
use crate::store::{MasterKeyRecord, Sealed, SealedName, Store, StoreError};

/// See the module's text.
pub(crate) struct Custodian {
    home: Home,
    settings: CustodySettings,
    store: Store,
    known: Mutex<Arc<Known>>,
    /// Master keys that were opened, by their numbers.
    opened: Mutex<HashMap<i64, Arc<MasterKey>>>,
    /// Working keys that were opened, by their numbers.
    working: Mutex<HashMap<i64, Arc<WorkingKey>>>,
    /// When a master key could last not be opened.
    failed: Mutex<HashMap<i64, Instant>>,
    /// The master key was changed by this process.
    pub(crate) changed: Notify,
    /// Why what is under former master keys is not being sealed anew.
    trouble: Mutex<Option<String>>,
}

/// What was in the database when it was last looked at.
#[derive(Debug)]
struct Known {
    /// Oldest first; the last one is the master key.
    masters: Vec<MasterKeyRecord>,
    working: WorkingKeys,
}

/// How long a master key that could not be opened is left alone: stores lock out who tries too often.
const LEFT_ALONE: Duration = Duration::from_secs(2);

/// How often tokens are renewed at least: one that came under another one's name may be a new one.
const TOKENS_EVERY: Duration = Duration::from_mins(1);

impl Custodian {
    /// Opens the master key, which a database that knows none is told, and all working keys.
    pub(crate) async fn open(
        home: &Home,
        settings: &ServiceSettings,
        store: &Store,
        now: Timestamp,
    ) -> Result<Self, ServiceError> {
        if store.master_keys().await?.is_empty() {
            adopt(home, settings, store, now).await?;
        }
        let unread = Known { masters: store.master_keys().await?, working: WorkingKeys::none() };
        let custodian = Self {
            home: home.clone(),
            settings: settings.custody.clone(),
            store: store.clone(),
            known: Mutex::new(Arc::new(unread)),
            opened: Mutex::default(),
            working: Mutex::default(),
            failed: Mutex::default(),
            changed: Notify::new(),
            trouble: Mutex::default(),
        };
        custodian.refresh().await?;
        custodian.set_aside_retired();
        let name = custodian.newest()?.name;
        if settings.master_key.as_ref().is_some_and(|given| given.to_string() != name) {
            tracing::info!(master_key = name, "the master key was changed since the settings were written");
        }
        Ok(custodian)
    }

    /// Looks up which keys there are, and opens what is new.
    pub(crate) async fn refresh(&self) -> Result<(), ServiceError> {
        let masters = self.store.master_keys().await?;
        let before = lock(&self.known).masters.clone();
        if before != masters || lock(&self.known).working.is_none() {
            let mut working = Vec::new();
            for key in self.store.working_keys().await? {
                working.push(self.working_key(key.number, &key.sealed, key.made_at).await?);
            }
            let is_retired = |number: &i64| masters.iter().any(|key| key.number == *number && key.retired_at.is_some());
            lock(&self.opened).retain(|number, _| !is_retired(number));
            *lock(&self.known) = Arc::new(Known { masters, working: WorkingKeys::of(working) });
        }
        Ok(())
    }

    async fn working_key(
        &self,
        number: i64,
        sealed: &Sealed,
        made_at: Timestamp,
    ) -> Result<Arc<WorkingKey>, ServiceError> {
        if let Some(opened) = lock(&self.working).get(&number) {
            return Ok(Arc::clone(opened));
        }
        let bytes =
            self.master(sealed.master).await?.unwrap(&sealed.bytes, &SealedName::WorkingKey(number).context()).await?;
        let opened = Arc::new(WorkingKey::new(&bytes, made_at)?);
        lock(&self.working).insert(number, Arc::clone(&opened));
        Ok(opened)
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&lock(&self.known))
    }

    /// The working keys.
    pub(crate) fn working(&self) -> WorkingKeys {
        self.known().working.clone()
    }

    /// The master key that seals what is new.
    pub(crate) fn newest(&self) -> Result<MasterKeyRecord, StoreError> {
        self.known().masters.last().cloned().ok_or(StoreError::Value("master key"))
    }

    /// Whether there is, or may be, something under former master keys.
    pub(crate) fn is_rotating(&self) -> bool {
        self.known().masters.iter().rev().skip(1).any(|key| key.retired_at.is_none())
    }

    /// Seals by the master key.
    pub(crate) async fn wrap(&self, plain: &[u8], context: &str) -> Result<Sealed, ServiceError> {
        let number = self.newest()?.number;
        Ok(Sealed { master: number, bytes: self.master(number).await?.wrap(plain, context).await? })
    }

    /// Opens what some master key sealed.
    pub(crate) async fn unwrap(&self, sealed: &Sealed, context: &str) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
        Ok(self.master(sealed.master).await?.unwrap(&sealed.bytes, context).await?)
    }

    /// The master key of this number, opened.
    async fn master(&self, number: i64) -> Result<Arc<MasterKey>, ServiceError> {
        if let Some(opened) = lock(&self.opened).get(&number) {
            return Ok(Arc::clone(opened));
        }
        let known = |known: &Known| known.masters.iter().find(|key| key.number == number).map(|key| key.name.clone());
        let mut name = known(&self.known());
        if name.is_none() {
            // Another replica has changed it.
            let masters = self.store.master_keys().await?;
            name = masters.iter().find(|key| key.number == number).map(|key| key.name.clone());
        }
        let name = name.ok_or(StoreError::Value("master key's number"))?;
        if lock(&self.failed).get(&number).is_some_and(|at| at.elapsed() < LEFT_ALONE) {
            return Err(CustodyError::Unavailable { name, source: "it could not be opened just now".into() }.into());
        }
        let uri: MasterKeyUri = name.parse().map_err(|_| StoreError::Value("master key's name"))?;
        match MasterKey::open(&self.home, &uri, &self.settings).await {
            Ok(opened) => {
                let opened = Arc::new(opened);
                lock(&self.opened).insert(number, Arc::clone(&opened));
                Ok(opened)
            }
            Err(error) => {
                lock(&self.failed).insert(number, Instant::now());
                Err(error.into())
            }
        }
    }

    /// Lengthens the lives of tokens by which master keys are reached, for ever: nobody else does where no agent is set up.
    pub(crate) async fn keep_tokens(&self) {
        let mut said = None;
        loop {
            let opened: Vec<_> = lock(&self.opened).values().cloned().collect();
            let mut wait = TOKENS_EVERY;
            for key in opened {
                match key.renew_token().await {
                    Ok(Some(life)) => wait = wait.min(life / 3),
                    Ok(None) => {}
                    // One that may not be renewed is its operator's to replace; what fails by it says so.
                    Err(error) => {
                        let why = error.to_string();
                        if said.as_ref() != Some(&why) {
                            let error = &error as &dyn std::error::Error;
                            tracing::info!(error, "the token of a master key's store is not renewed");
                            said = Some(why);
                        }
                    }
                }
            }
            tokio::time::sleep(wait.max(Duration::from_secs(1))).await;
        }
    }

    /// Why what is under former master keys is not being sealed anew, as far as this process knows.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    /// Takes note of it, and says it once.
    pub(crate) fn troubled(&self, why: &str) {
        let before = lock(&self.trouble).replace(why.to_owned());
        if before.as_deref() != Some(why) {
            tracing::warn!(why, "what is under the former master key is not sealed anew now; it will be tried again");
        }
    }

    /// Nothing is in the way any more.
    pub(crate) fn is_well(&self) {
        lock(&self.trouble).take();
    }

    /// Opens a key that is to become the master key, and tries it out.
    pub(crate) async fn candidate(&self, uri: &MasterKeyUri) -> Result<MasterKey, ServiceError> {
        Ok(MasterKey::try_out(&self.home, uri, &self.settings).await?)
    }

    /// Whether it is a file of another service's home.
    pub(crate) fn is_foreign(&self, uri: &MasterKeyUri) -> bool {
        uri.is_in_foreign_home(&self.home)
    }

    /// Makes the file of a new master key in the home.
    pub(crate) fn make_file(&self, uri: &MasterKeyUri) -> Result<(), HomeError> {
        match uri {
            MasterKeyUri::File(name) => custody::make(&self.home, name),
            _ => Ok(()),
        }
    }

    /// Where a retired master key's file in the home is now, and was.
    pub(crate) fn set_aside(&self, key: &MasterKeyRecord) -> Option<(std::path::PathBuf, std::path::PathBuf)> {
        let retired = key.retired_at?;
        let Ok(MasterKeyUri::File(name)) = key.name.parse() else { return None };
        if !name.is_homes() {
            return None;
        }
        let path = custody::path(&self.home, &name);
        let aside = format!("{}.retired-{}", path.display(), retired.strftime("%Y%m%dT%H%M%SZ"));
        Some((aside.into(), path))
    }

    /// Moves the files of retired master keys aside, where they are in the home. What is restored from an old copy of the
    /// database may need them: it is the operator who destroys them.
    pub(crate) fn set_aside_retired(&self) {
        let masters = self.known().masters.clone();
        let is_used = |name: &str| masters.iter().any(|key| key.retired_at.is_none() && key.name == name);
        for key in masters.iter().filter(|key| !is_used(&key.name)) {
            let Some((aside, path)) = self.set_aside(key) else { continue };
            // Another replica on this home may be faster.
            if !aside.exists() && path.exists() && std::fs::rename(&path, &aside).is_err() {
                tracing::warn!(file = %path.display(), "the file of a retired master key cannot be moved aside");
            }
        }
    }
}

impl fmt::Debug for Custodian {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custodian").field("known", &self.known()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in them is ever half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells a database that knows of no master key which one this home has.
async fn adopt(home: &Home, settings: &ServiceSettings, store: &Store, now: Timestamp) -> Result<(), ServiceError> {
    const FIRST: i64 = 1;
    let uri = settings.master_key.clone().unwrap_or_default();
    let master = MasterKey::try_out(home, &uri, &settings.custody).await?;
    // What was sealed before is under this key, or this is not the home's database.
    if let Some((name, sealed)) = store.any_image_key().await? {
        master.unwrap(&sealed.bytes, &name.context()).await?;
    }
    let working = master.wrap(&master.first_working_key()?, &SealedName::WorkingKey(FIRST).context()).await?;
    Ok(store.adopt_master_key(&uri.to_string(), &working, now).await?)
}

/// Sees that the master key that the settings name can be used from here.
pub async fn try_master_key(home: &Home, settings: &ServiceSettings) -> Result<(), CustodyError> {
    let uri = settings.master_key.clone().unwrap_or_default();
    MasterKey::try_out(home, &uri, &settings.custody).await.map(drop)
}
