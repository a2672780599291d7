//! What the guests that wait have to hear of: the newest entries of the log after which leases may not go on, or have to be
//! judged again, and whom each of them concerns. Kept beside the log, so that every replica knows what another one wrote. The
//! number of the newest entry that changed what decisions rest on stands there, too (`rules.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};
use tokio::sync::{Notify, watch};

use super::audit::AuditKind;
use super::log::place;
use super::{Store, StoreError, count};

/// What is known of the news; 0 where there are none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// The newest entry after which leases may have come to an end.
    pub(crate) changed: u64,
    /// The newest entry after which leases have to be judged by evidence and policy again.
    pub(crate) judged_again: u64,
    /// The newest items, oldest first.
    items: Arc<VecDeque<Item>>,
    /// Of entries up to this one, not all items are here.
    forgotten: u64,
    /// Whether the database has been asked.
    is_known: bool,
}

/// What one entry is about: the first of lease, licence and product that is named, else every guest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Item {
    entry: u64,
    judged_again: bool,
    lease: Option<String>,
    license: Option<String>,
    product: Option<String>,
}

/// Who wants to hear.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    pub(crate) lease: String,
    pub(crate) license: Option<String>,
    pub(crate) product: Option<String>,
}

impl Item {
    fn concerns(&self, listener: &Listener) -> bool {
        match (&self.lease, &self.license, &self.product) {
            (Some(lease), ..) => *lease == listener.lease,
            // Of a session that does not say, it is not known.
            (None, Some(license), _) => listener.license.as_ref().is_none_or(|own| own == license),
            (None, None, Some(product)) => listener.product.as_ref().is_none_or(|own| own == product),
            (None, None, None) => true,
        }
    }
}

impl Told {
    /// Whether anything after the entry `seen` may have ended the listener's lease.
    pub(crate) fn may_end(&self, listener: &Listener, seen: u64) -> bool {
        seen < self.changed && (seen < self.forgotten || self.after(seen).any(|item| item.concerns(listener)))
    }

    /// Whether the listener's lease has to be judged again for what came after the entry `since`.
    pub(crate) fn judges_again(&self, listener: &Listener, since: u64) -> bool {
        // What is not known here is another log's: before a database was restored.
        since > self.judged_again
            || since < self.judged_again
                && (since < self.forgotten
                    || self.after(since).any(|item| item.judged_again && item.concerns(listener)))
    }

    fn after(&self, entry: u64) -> impl Iterator<Item = &Item> {
        self.items.iter().rev().take_while(move |item| item.entry > entry)
    }

    /// Takes up items that came after those that are here; gives whether there were some.
    fn add(&mut self, new: Vec<Item>) -> bool {
        let before = self.changed;
        let items = Arc::make_mut(&mut self.items);
        for item in new.into_iter().filter(|item| item.entry > before) {
            self.changed = item.entry;
            if item.judged_again {
                self.judged_again = item.entry;
            }
            items.push_back(item);
        }
        while items.len() > KEPT {
            self.forgotten = items.pop_front().map_or(self.forgotten, |item| item.entry);
        }
        self.changed > before
    }

    /// Takes up what the database says: its newest entries, and the items after `seen`, of which there may be more than were
    /// read.
    fn learn(&mut self, seen: u64, newest: (u64, u64), items: Vec<Item>) -> bool {
        if !self.is_known || items.len() >= KEPT {
            let unread = items.first().map_or(newest.0, |item| item.entry.saturating_sub(1));
            self.forgotten = self.forgotten.max(unread);
        }
        let before = (self.changed, std::mem::replace(&mut self.is_known, true));
        if self.changed >= seen {
            self.add(items);
        }
        (self.changed, self.judged_again) = (self.changed.max(newest.0), self.judged_again.max(newest.1));
        before != (self.changed, true)
    }
}

/// How many items are kept in memory. Guests that have not asked since the oldest of them look for themselves.
const KEPT: usize = 1024;

/// The news of one transaction.
#[derive(Debug, Default)]
pub(super) struct News {
    items: Vec<Item>,
    rules: u64,
}

impl News {
    /// Takes note of an entry.
    pub(super) fn note(&mut self, kind: AuditKind, entry: u64, body: &Value, by_vendor: bool) {
        let judged_again = match kind {
            // That a workload stopped is no news to others, and it happens often.
            AuditKind::LeaseEnded if !by_vendor => None,
            AuditKind::LeaseEnded | AuditKind::LicenseRevoked | AuditKind::LicenseSuspended => Some(false),
            // A licence that is changed is another one for those who hold leases: they renew and see.
            AuditKind::LicenseRenewed
            | AuditKind::LicenseTransferred
            | AuditKind::PlatformAllowed
            | AuditKind::PlatformDenied
            | AuditKind::PolicyChanged
            | AuditKind::ReferenceAdded
            | AuditKind::ReferenceRemoved
            | AuditKind::ReferenceRetired => Some(true),
            _ => None,
        };
        if let Some(judged_again) = judged_again {
            let named = |name: &str| body[name].as_str().map(str::to_owned);
            let (lease, license, product) = (named("lease"), named("license"), named("product"));
            self.items.push(Item { entry, judged_again, lease, license, product });
        }
        match kind {
            AuditKind::KeyBound
            | AuditKind::KeyRegistered
            | AuditKind::LicenseRenewed
            | AuditKind::LicenseResumed
            | AuditKind::LicenseRevoked
            | AuditKind::LicenseSuspended
            | AuditKind::LicenseTransferred
            // Keys are kept in mind as they were sealed; what is under a retired master key opens no more.
            | AuditKind::MasterKeyRetired
            | AuditKind::PlatformAllowed
            | AuditKind::PlatformDenied
            | AuditKind::PolicyChanged
            | AuditKind::ProductCreated
            | AuditKind::ReferenceAdded
            | AuditKind::ReferenceRemoved
            | AuditKind::ReferenceRetired => self.note_rules(entry),
            // Of licences, only those that are there are kept in mind; secrets are read anew each time.
            AuditKind::LicenseIssued
            | AuditKind::Denied
            | AuditKind::KeyReleased
            | AuditKind::KeysExported
            | AuditKind::LeaseEnded
            | AuditKind::LeaseGranted
            | AuditKind::LeaseRenewed
            | AuditKind::MasterKeyChanged
            | AuditKind::RoleRefused
            | AuditKind::SecretRemoved
            | AuditKind::SecretStored
            | AuditKind::TokenCreated
            | AuditKind::TokenRevoked => {}
        }
    }

    /// Takes note of an entry that changes what decisions rest on.
    pub(super) fn note_rules(&mut self, entry: u64) {
        self.rules = entry;
    }

    pub(super) fn is_none(&self) -> bool {
        self.items.is_empty() && self.rules == 0
    }

    /// Keeps the news with what they are about.
    pub(super) async fn keep(&self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        let newest = |judged_again: bool| {
            self.items.iter().rev().find(|item| !judged_again || item.judged_again).map_or(0, |item| item.entry)
        };
        sqlx::query(
            "UPDATE news SET changed = CASE WHEN changed < $1 THEN $1 ELSE changed END, \
             judged_again = CASE WHEN judged_again < $2 THEN $2 ELSE judged_again END, \
             rules = CASE WHEN rules < $3 THEN $3 ELSE rules END",
        )
        .bind(place(newest(false))?)
        .bind(place(newest(true))?)
        .bind(place(self.rules)?)
        .execute(&mut *connection)
        .await?;
        for Item { entry, judged_again, lease, license, product } in &self.items {
            sqlx::query(
                "INSERT INTO news_item (entry, judged_again, lease, license, product) VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(place(*entry)?)
            .bind(i64::from(*judged_again))
            .bind(lease)
            .bind(license)
            .bind(product)
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}

/// Tells those who wait in this process.
#[derive(Clone, Debug)]
pub(super) struct Teller {
    told: watch::Sender<Told>,
    /// Where others write, too: has the database asked.
    ask: Option<Arc<Notify>>,
}

impl Teller {
    pub(super) fn new(is_shared: bool) -> Self {
        Self { told: watch::Sender::new(Told::default()), ask: is_shared.then(Arc::default) }
    }

    pub(super) fn tell(&self, news: News) {
        match &self.ask {
            _ if news.items.is_empty() => {}
            // Others' may come between: all are read in their order.
            Some(ask) => ask.notify_one(),
            None => {
                self.told.send_if_modified(|told| told.add(news.items));
            }
        }
    }
}

fn item(row: &AnyRow) -> Result<Item, StoreError> {
    Ok(Item {
        entry: count(row, "entry")?,
        judged_again: row.try_get::<i64, _>("judged_again")? != 0,
        lease: row.try_get("lease")?,
        license: row.try_get("license")?,
        product: row.try_get("product")?,
    })
}

impl Store {
    /// Hears of news in this process as they are written, and of other replicas' once they were asked for.
    pub(crate) fn news(&self) -> watch::Receiver<Told> {
        self.writer.teller.told.subscribe()
    }

    /// Returns once this process has written news that have to be asked for.
    pub(crate) async fn has_news(&self) {
        match &self.writer.teller.ask {
            Some(ask) => ask.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Asks the database for news.
    pub(crate) async fn ask_for_news(&self) -> Result<(), StoreError> {
        let told = &self.writer.teller.told;
        let (seen, is_known) = {
            let told = told.borrow();
            (told.changed, told.is_known)
        };
        let mut reader = self.reader().await?;
        let row = sqlx::query("SELECT changed, judged_again FROM news").fetch_one(reader.sql()).await?;
        let newest: (u64, u64) = (count(&row, 0)?, count(&row, 1)?);
        let mut items = Vec::new();
        if newest.0 > seen {
            let rows = sqlx::query("SELECT * FROM news_item WHERE entry > $1 ORDER BY entry DESC LIMIT $2")
                .bind(place(seen)?)
                .bind(i64::try_from(KEPT).unwrap_or(i64::MAX))
                .fetch_all(reader.sql())
                .await?;
            items = rows.iter().rev().map(item).collect::<Result<_, _>>()?;
        }
        reader.keep();
        if newest.0 > seen || !is_known {
            told.send_if_modified(|told| told.learn(seen, newest, items));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(entry: u64, license: &str) -> Item {
        Item { entry, judged_again: true, lease: None, license: Some(license.to_owned()), product: None }
    }

    fn listener(license: &str) -> Listener {
        Listener { lease: "lease".to_owned(), license: Some(license.to_owned()), product: Some("shop".to_owned()) }
    }

    #[test]
    fn only_whom_an_item_concerns_hears_of_it_and_only_after_it_was_seen() {
        let mut told = Told { is_known: true, ..Told::default() };
        assert!(told.add(vec![item(3, "a"), item(5, "b")]));
        assert!(!told.add(vec![item(5, "b")]), "known already");
        for (license, since, hears) in
            [("a", 2, true), ("a", 3, false), ("b", 3, true), ("b", 5, false), ("c", 0, false)]
        {
            assert_eq!(told.judges_again(&listener(license), since), hears, "{license} since {since}");
            assert_eq!(told.may_end(&listener(license), since), hears, "{license} since {since}");
        }
        assert!(told.judges_again(&listener("a"), 6), "from another log");
        let unknown = Listener { license: None, ..listener("a") };
        assert!(told.judges_again(&unknown, 3), "who does not say whose it is hears all");
    }

    #[test]
    fn the_first_thing_that_is_named_says_whom_it_concerns() {
        let of = |body: Value| {
            let mut news = News::default();
            news.note(AuditKind::PolicyChanged, 1, &body, true);
            news.items.remove(0).concerns(&listener("a"))
        };
        assert!(of(json!({"product": "shop"})) && !of(json!({"product": "bank"})));
        assert!(of(json!({"lease": "lease", "license": "b"})) && !of(json!({"lease": "other", "license": "a"})));
        assert!(of(json!({"rule": "Milan"})));
    }

    #[test]
    fn who_has_not_asked_for_too_long_looks_for_himself() {
        let mut told = Told { is_known: true, ..Told::default() };
        let count = KEPT as u64 + 10;
        told.add((1..=count).map(|entry| item(entry, "a")).collect());
        assert!(told.judges_again(&listener("b"), 9) && !told.judges_again(&listener("b"), 10));
        // Of a database that was there before, what came before its oldest item is not known.
        let mut told = Told::default();
        assert!(told.learn(0, (7, 7), vec![item(7, "a")]));
        assert!(told.judges_again(&listener("b"), 5) && !told.judges_again(&listener("b"), 6));
    }
}
