//! What the guests that wait have to hear of: the newest entries of the log after which leases may not go on, or have to be
//! judged again. Kept beside the log, so that every replica knows what another one wrote.

use sqlx::{AnyConnection, AnyPool};
use tokio::sync::watch;

use super::audit::AuditKind;
use super::log::place;
use super::{Store, StoreError, count};

/// The newest entries that matter to guests; 0 where there is none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct News {
    /// After which leases may have come to an end.
    pub(crate) changed: u64,
    /// After which leases have to be judged by evidence and policy again.
    pub(crate) judged_again: u64,
}

impl News {
    /// Takes note of an entry.
    pub(super) fn note(&mut self, kind: AuditKind, entry: u64, by_vendor: bool) {
        match kind {
            // That a workload stopped is no news to others, and it happens often.
            AuditKind::LeaseEnded if !by_vendor => {}
            AuditKind::LeaseEnded | AuditKind::LicenseRevoked | AuditKind::LicenseSuspended => self.changed = entry,
            // A licence that is changed is another one for those who hold leases: they renew and see.
            AuditKind::LicenseRenewed
            | AuditKind::LicenseTransferred
            | AuditKind::PlatformAllowed
            | AuditKind::PlatformDenied
            | AuditKind::PolicyChanged
            | AuditKind::ReferenceAdded
            | AuditKind::ReferenceRemoved
            | AuditKind::ReferenceRetired => (self.changed, self.judged_again) = (entry, entry),
            _ => {}
        }
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }

    fn newest(self, other: Self) -> Self {
        Self { changed: self.changed.max(other.changed), judged_again: self.judged_again.max(other.judged_again) }
    }
}

/// Tells those who wait in this process.
#[derive(Clone, Debug)]
pub(super) struct Teller(watch::Sender<News>);

impl Teller {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(News::default()))
    }

    pub(super) fn tell(&self, news: News) {
        self.0.send_if_modified(|told| {
            let newest = told.newest(news);
            std::mem::replace(told, newest) != newest
        });
    }
}

/// Keeps the news with what they are about.
pub(super) async fn keep(connection: &mut AnyConnection, news: News) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE news SET changed = CASE WHEN changed < $1 THEN $1 ELSE changed END, \
         judged_again = CASE WHEN judged_again < $2 THEN $2 ELSE judged_again END",
    )
    .bind(place(news.changed)?)
    .bind(place(news.judged_again)?)
    .execute(connection)
    .await?;
    Ok(())
}

async fn read(pool: &AnyPool) -> Result<News, StoreError> {
    let row = sqlx::query("SELECT changed, judged_again FROM news").fetch_one(pool).await?;
    Ok(News { changed: count(&row, 0)?, judged_again: count(&row, 1)? })
}

impl Store {
    /// Hears of news in this process as they are written, and of other replicas' once they were asked for.
    pub(crate) fn news(&self) -> watch::Receiver<News> {
        self.writer.teller.0.subscribe()
    }

    /// Asks the database for news.
    pub(crate) async fn ask_for_news(&self) -> Result<News, StoreError> {
        self.writer.teller.tell(read(&self.pool).await?);
        Ok(*self.writer.teller.0.borrow())
    }
}
