//! The master key changed while the service runs: new keys come under the new one at once, and what is under the former one
//! is sealed anew in the background, a few at a time. Every replica takes part; whoever is killed goes on when it starts.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use tokio::task::JoinSet;

use crate::api::{CustodyStatus, MasterKeyChange, MasterKeyStatus, Rotation};
use crate::custody::{CustodyError, MasterKeyUri, new_working_key};
use crate::release::chain;
use crate::service::{Service, ServiceError, SharedService};
use crate::store::{MasterKeyRecord, Resealed, SealedName, StoreError, TRIES};

/// How many keys are sealed anew in one transaction, and how many at once at their store.
const TOGETHER: usize = 16;
/// Between two transactions: releases are written meanwhile.
const PAUSE: Duration = Duration::from_millis(10);
/// How often the database is asked whether another replica has changed the master key.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// When it is tried again after a failure.
const TRY_AGAIN: Duration = Duration::from_secs(5);

impl Service {
    /// Which master keys there are, and how far their change is.
    pub(crate) async fn custody_status(&self) -> Result<CustodyStatus, ServiceError> {
        let unread = self.custodian.refresh().await.err().map(|error| chain(&error));
        let counts = self.store.sealed_counts().await?;
        let sealed = |number| counts.iter().find(|(of, _)| *of == number).map_or(0, |(_, sealed)| *sealed);
        let masters = self.store.master_keys().await?;
        let newest = masters.last().ok_or(StoreError::Value("master key"))?.clone();
        let left = counts.iter().filter(|(number, _)| *number != newest.number).map(|(_, sealed)| sealed).sum();
        let is_rotating = masters.iter().any(|key| key.number != newest.number && key.retired_at.is_none());
        let rotation = is_rotating.then(|| Rotation {
            started_at: newest.added_at,
            done: sealed(newest.number),
            left,
            trouble: unread.or_else(|| self.custodian.trouble()),
        });
        let status = |key: &MasterKeyRecord| MasterKeyStatus {
            name: key.name.clone(),
            added_at: key.added_at,
            retired_at: key.retired_at,
            sealed: sealed(key.number),
            set_aside: self
                .custodian
                .set_aside(key)
                .filter(|(aside, _)| aside.exists())
                .map(|(aside, _)| aside.display().to_string()),
        };
        Ok(CustodyStatus { master_keys: masters.iter().rev().map(status).collect(), rotation })
    }

    /// Makes another key the master key.
    pub(crate) async fn change_master_key(&self, change: MasterKeyChange) -> Result<CustodyStatus, ServiceError> {
        self.custodian.refresh().await?;
        let newest = self.custodian.newest()?;
        let number = newest.number + 1;
        let uri = self.next_master_key(&newest, change)?;
        let refused = |error| match error {
            ServiceError::Custody(
                error @ (CustodyError::NoKey { .. }
                | CustodyError::Unreachable { .. }
                | CustodyError::Refused { .. }
                | CustodyError::Open),
            ) => ServiceError::BadRequest(chain(&error)),
            error => error,
        };
        let master = self.custodian.candidate(&uri).await.map_err(refused)?;
        let context = SealedName::WorkingKey(number).context();
        let working = master.wrap(&new_working_key()?, &context).await?;
        self.store.change_master_key(number, &uri.to_string(), &working, self.now()).await?;
        self.custodian.changed.notify_one();
        self.custody_status().await
    }

    fn next_master_key(&self, newest: &MasterKeyRecord, change: MasterKeyChange) -> Result<MasterKeyUri, ServiceError> {
        let bad = |why: String| ServiceError::BadRequest(why);
        let present: MasterKeyUri = newest.name.parse().map_err(|_| StoreError::Value("master key's name"))?;
        if let Some(to) = change.to {
            let uri: MasterKeyUri = to.parse().map_err(|error| bad(format!("`{to}`: {error}")))?;
            // A Transit key has versions, of which the newest seals.
            if uri == present && !matches!(uri, MasterKeyUri::Transit(_)) {
                return Err(bad(format!("`{uri}` is the master key already: name another one")));
            }
            if self.custodian.is_foreign(&uri) {
                return Err(bad(format!(
                    "`{uri}` is in the home of another service: name a key that no other one has"
                )));
            }
            return Ok(uri);
        }
        match &present {
            MasterKeyUri::Transit(_) => Ok(present),
            MasterKeyUri::File(name) if name.is_homes() && !self.store.is_shared() => {
                let next: MasterKeyUri = format!("file:master-{}.key", newest.number + 1)
                    .parse()
                    .map_err(|_| StoreError::Value("master key's name"))?;
                self.custodian.make_file(&next)?;
                Ok(next)
            }
            _ => Err(bad("name the new master key, which every replica of the service has to reach".to_owned())),
        }
    }

    /// Seals what is under former master keys anew whenever there is some, for ever.
    pub(crate) async fn keep_rotating(self: Arc<Self>) {
        loop {
            let wait = match Arc::clone(&self).rotate().await {
                Ok(true) => TRY_AGAIN,
                Ok(false) => ASK_EVERY,
                Err(error) => {
                    self.custodian.troubled(&chain(&error));
                    TRY_AGAIN
                }
            };
            let is_alone = !self.store.is_shared() && !self.custodian.is_rotating();
            tokio::select! {
                () = tokio::time::sleep(wait), if !is_alone => {}
                () = self.custodian.changed.notified() => {}
            }
        }
    }

    /// Seals all that is under former master keys anew; gives whether some is left that could not be.
    async fn rotate(self: SharedService) -> Result<bool, ServiceError> {
        self.custodian.refresh().await?;
        if !self.custodian.is_rotating() {
            return Ok(false);
        }
        let newest = self.custodian.newest()?;
        let mut names = self.store.sealed_elsewhere(newest.number).await?;
        // Replicas do not begin at the same place.
        let mut start = [0; 8];
        rand::fill(&mut start).map_err(|_| CustodyError::Library)?;
        let length = names.len().max(1);
        names.rotate_left(usize::from_ne_bytes(start) % length);
        let mut damaged = Vec::new();
        for some in names.chunks(TOGETHER) {
            let mut tasks = JoinSet::new();
            for name in some.iter().cloned() {
                let service = Arc::clone(&self);
                tasks.spawn(async move { (name.context(), service.sealed_anew(name, newest.number).await) });
            }
            let mut resealed = Vec::with_capacity(TOGETHER);
            while let Some(done) = tasks.join_next().await {
                match done? {
                    (_, Ok(done)) => resealed.extend(done),
                    // The others are not to wait for it.
                    (context, Err(ServiceError::Custody(CustodyError::Open))) => damaged.push(context),
                    (_, Err(error)) => return Err(error),
                }
            }
            self.store.reseal(&resealed).await?;
            tokio::time::sleep(PAUSE).await;
        }
        if let Some(first) = damaged.first() {
            let count = damaged.len();
            self.custodian.troubled(&format!("{count} of the keys cannot be opened, the first is `{first}`"));
            return Ok(true);
        }
        if self.store.retire_master_keys(&newest, self.now()).await? {
            tracing::info!(master_key = newest.name, "all is under the new master key");
        }
        self.custodian.refresh().await?;
        self.custodian.set_aside_retired();
        self.custodian.is_well();
        Ok(self.custodian.is_rotating())
    }

    async fn sealed_anew(&self, name: SealedName, newest: i64) -> Result<Option<Resealed>, ServiceError> {
        for _ in 0..TRIES {
            let Some(before) = self.store.sealed(&name).await? else { return Ok(None) };
            if before.master == newest {
                return Ok(None);
            }
            let context = name.context();
            let plain = self.custodian.unwrap(&before, &context).await?;
            let after = self.custodian.wrap(&plain, &context).await?;
            if after.master == newest {
                return Ok(Some(Resealed { name, before: before.bytes, after }));
            }
        }
        Err(StoreError::Outdated.into())
    }
}
