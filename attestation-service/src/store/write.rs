//! A transaction that writes: it holds the write lock from its start, and what it appends to the audit log is written when it
//! is committed, in as few statements as can be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Row as _, Transaction};
use transparency_log::{CompactRange, Hash, NodeId, ProofError, hash_leaf};

use super::audit::{AuditEntry, AuditKind};
use super::database::Database;
use super::grown::Grown;
use super::log::{place, read_range};
use super::news::{News, Teller};
use super::{StoreError, count, millis};

/// Begins transactions that write.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    database: Database,
    pool: AnyPool,
    pub(super) teller: Teller,
    /// How many entries of the log have been signed: a database that holds fewer is an older copy.
    pub(super) signed: Arc<AtomicU64>,
}

impl Writer {
    pub(super) fn new(database: Database, pool: AnyPool) -> Self {
        let teller = Teller::new(database.is_shared());
        Self { database, pool, teller, signed: Arc::default() }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.database.is_shared()
    }

    pub(super) async fn begin(&self) -> Result<Write<'static>, StoreError> {
        let signed = self.signed.load(Ordering::Acquire);
        let transaction = self.pool.begin_with(self.database.begin_write()).await?;
        Ok(self.write(transaction, signed))
    }

    /// The same on a connection of the caller's own.
    pub(super) async fn begin_on<'c>(&self, connection: &'c mut AnyConnection) -> Result<Write<'c>, StoreError> {
        let signed = self.signed.load(Ordering::Acquire);
        let transaction = connection.begin_with(self.database.begin_write()).await?;
        Ok(self.write(transaction, signed))
    }

    fn write<'c>(&self, transaction: Transaction<'c, Any>, signed: u64) -> Write<'c> {
        Write { transaction, signed, growth: None, news: News::default(), teller: self.teller.clone() }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Write<'c> {
    transaction: Transaction<'c, Any>,
    /// How many entries had been signed before it began.
    signed: u64,
    growth: Option<Growth>,
    news: News,
    teller: Teller,
}

/// What the log grows by in a transaction.
#[derive(Clone, Debug)]
struct Growth {
    before: CompactRange,
    range: CompactRange,
    entries: Vec<AuditEntry>,
    leaves: Vec<Vec<u8>>,
    nodes: Vec<(NodeId, Hash)>,
    /// See [`Write::rules`].
    rules: u64,
}

impl Write<'_> {
    /// Where statements of the transaction are executed.
    pub(crate) fn sql(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }

    /// The number that the next entry of the log will have.
    pub(super) async fn next_entry(&mut self) -> Result<u64, StoreError> {
        let size = self.growth().await?.range.size().get();
        size.checked_add(1).ok_or(StoreError::Value("audit sequence"))
    }

    /// Appends an entry that has [`Self::next_entry`]'s number.
    pub(super) async fn append(&mut self, entry: AuditEntry) -> Result<(), StoreError> {
        let leaf = entry.leaf()?;
        let growth = self.growth().await?;
        growth.nodes.extend(growth.range.append(hash_leaf(&leaf)).map_err(ProofError::from)?);
        growth.entries.push(entry);
        growth.leaves.push(leaf);
        Ok(())
    }

    /// The newest entry that changed what decisions rest on, as it is under the lock.
    pub(super) async fn rules(&mut self) -> Result<u64, StoreError> {
        Ok(self.growth().await?.rules)
    }

    /// Takes note of an entry that guests may have to hear of, or that changes what decisions rest on.
    pub(super) fn note(&mut self, kind: AuditKind, entry: u64, body: &Value, by_vendor: bool) {
        self.news.note(kind, entry, body, by_vendor);
    }

    /// Takes note of an entry that changes what decisions rest on, and that nobody has to hear of.
    pub(super) fn note_rules(&mut self, entry: u64) {
        self.news.note_rules(entry);
    }

    async fn growth(&mut self) -> Result<&mut Growth, StoreError> {
        if self.growth.is_none() {
            let row = sqlx::query(
                "SELECT size, edge, (SELECT coalesce(max(sequence), 0) FROM audit_entry) AS newest, \
                 (SELECT rules FROM news) AS rules FROM log_edge",
            )
            .fetch_one(self.sql())
            .await?;
            // Entry N is leaf N - 1; a number too few or too many is an entry that somebody took away or slipped in.
            if row.try_get::<i64, _>("size")? != row.try_get::<i64, _>("newest")? {
                return Err(StoreError::Value("audit sequence"));
            }
            let range = read_range(&row)?;
            let (found, signed) = (range.size().get(), self.signed);
            if found < signed {
                return Err(StoreError::Shrunk { found, signed });
            }
            self.growth = Some(Growth {
                before: range.clone(),
                range,
                entries: Vec::new(),
                leaves: Vec::new(),
                nodes: Vec::new(),
                rules: count(&row, "rules")?,
            });
        }
        self.growth.as_mut().ok_or(StoreError::Value("edge of the log"))
    }

    /// Writes what was appended, and commits. Gives what the log grew by, where it grew.
    pub(crate) async fn commit(mut self) -> Result<Option<Grown>, StoreError> {
        let growth = self.growth.take().filter(|growth| !growth.entries.is_empty());
        if let Some(Growth { range, entries, nodes, .. }) = &growth {
            self.insert("audit_entry (sequence, at, kind, body, salt)", 5, entries, |query, entry| {
                Ok(query
                    .bind(place(entry.sequence)?)
                    .bind(millis(entry.at))
                    .bind(entry.kind.clone())
                    .bind(entry.body.to_string())
                    .bind(entry.salt.clone()))
            })
            .await?;
            self.insert("log_node (level, idx, hash)", 3, nodes, |query, (node, hash)| {
                Ok(query.bind(i64::from(node.level)).bind(place(node.index)?).bind(hash.as_bytes().to_vec()))
            })
            .await?;
            write_range(self.sql(), range).await?;
        }
        let news = std::mem::take(&mut self.news);
        if !news.is_none() {
            news.keep(self.sql()).await?;
        }
        self.transaction.commit().await?;
        self.teller.tell(news);
        Ok(growth.map(|growth| Grown::new(&growth.before, growth.range, growth.leaves, growth.nodes)))
    }

    /// Undoes everything.
    pub(crate) async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.transaction.rollback().await?)
    }

    /// Inserts rows, many to a statement. Their number is a power of two each time, so that there are few different
    /// statements to prepare.
    pub(super) async fn insert<T>(
        &mut self,
        into: &str,
        columns: usize,
        rows: &[T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Result<Bound<'q>, StoreError>,
    ) -> Result<(), StoreError> {
        self.upsert(into, columns, "", rows, bind).await
    }

    /// The same; `on_conflict` says what becomes of rows that are there.
    pub(super) async fn upsert<T>(
        &mut self,
        into: &str,
        columns: usize,
        on_conflict: &str,
        rows: &[T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Result<Bound<'q>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut left = rows;
        while !left.is_empty() {
            let (now, later) = left.split_at((1 << left.len().ilog2()).min(MOST_ROWS));
            left = later;
            let sql = format!("INSERT INTO {into} VALUES {}{on_conflict}", places(now.len(), columns));
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for row in now {
                query = bind(query, row)?;
            }
            query.execute(self.sql()).await?;
        }
        Ok(())
    }
}

/// A query that is being given its values.
pub(super) type Bound<'q> = Query<'q, Any, AnyArguments>;

/// The most rows of one statement.
const MOST_ROWS: usize = 256;

/// `($1, $2), ($3, $4)` for two rows of two columns.
pub(super) fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let names: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", names.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

pub(super) async fn write_range(connection: &mut AnyConnection, range: &CompactRange) -> Result<(), StoreError> {
    let edge: Vec<u8> = range.edge().iter().flat_map(|hash| *hash.as_bytes()).collect();
    sqlx::query("UPDATE log_edge SET size = $1, edge = $2")
        .bind(place(range.size().get())?)
        .bind(edge)
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn places_are_numbered_through_all_rows() {
        assert_eq!(super::places(2, 3), "($1, $2, $3), ($4, $5, $6)");
    }
}
