//! A transaction that writes: it holds the write lock from its start, and what it appends to the audit log is written when it
//! is committed, in as few statements as can be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Row as _, Transaction};
use transparency_log::{CompactRange, Hash, NodeId, ProofError, hash_leaf};

use super::audit::{AuditEntry, AuditKind, ENTRIES, entry_row};
use super::database::Database;
use super::grown::Grown;
use super::log::{EDGE, NODES, edge_row, node_row, read_range};
use super::news::{News, Teller};
use super::rows::{Cell, Rows, Table, rows_of};
use super::{StoreError, count};

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
        Write {
            transaction,
            is_shared: self.is_shared(),
            signed,
            growth: None,
            rows: Rows::default(),
            news: News::default(),
            teller: self.teller.clone(),
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Write<'c> {
    transaction: Transaction<'c, Any>,
    is_shared: bool,
    /// How many entries had been signed before it began.
    signed: u64,
    growth: Option<Growth>,
    /// What is written before the next statement.
    rows: Rows,
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
    /// Where statements of the transaction are executed. What [`Self::add`] was given has to be written before.
    pub(crate) fn sql(&mut self) -> &mut AnyConnection {
        debug_assert!(self.rows.is_empty(), "rows wait");
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
            let row = sqlx::query(AssertSqlSafe(format!("SELECT {EDGE_COLUMNS} FROM log_edge")))
                .fetch_one(self.sql())
                .await?;
            self.learn_edge(&row)?;
        }
        self.growth.as_mut().ok_or(StoreError::Value("edge of the log"))
    }

    /// Reads what the log grows from in a row that has [`EDGE_COLUMNS`].
    pub(super) fn learn_edge(&mut self, row: &AnyRow) -> Result<(), StoreError> {
        // Entry N is leaf N - 1; a number too few or too many is an entry that somebody took away or slipped in.
        if row.try_get::<i64, _>("size")? != row.try_get::<i64, _>("newest")? {
            return Err(StoreError::Value("audit sequence"));
        }
        let range = read_range(row)?;
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
            rules: count(row, "rules")?,
        });
        Ok(())
    }

    /// Adds rows to a table, at the next [`Self::flush`] or when it is committed.
    pub(super) async fn add(&mut self, table: &'static Table, rows: Vec<Vec<Cell>>) -> Result<(), StoreError> {
        // One statement changes a row once.
        if self.rows.holds(table) {
            self.flush().await?;
        }
        self.rows.add(table, rows);
        Ok(())
    }

    /// Writes what was added.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        let rows = std::mem::take(&mut self.rows);
        if self.is_shared { rows.write_at_once(self.sql()).await } else { rows.write_one_by_one(self.sql()).await }
    }

    /// Writes what was appended, and commits. Gives what the log grew by, where it grew.
    pub(crate) async fn commit(mut self) -> Result<Option<Grown>, StoreError> {
        let growth = self.growth.take().filter(|growth| !growth.entries.is_empty());
        if let Some(Growth { range, entries, nodes, .. }) = &growth {
            self.add(&ENTRIES, rows_of(entries, entry_row)?).await?;
            self.add(&NODES, rows_of(nodes, node_row)?).await?;
            self.add(&EDGE, vec![edge_row(range)?]).await?;
        }
        self.flush().await?;
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
}

/// What [`Write::learn_edge`] reads, of `log_edge`.
pub(super) const EDGE_COLUMNS: &str = "log_edge.size, log_edge.edge, \
                               (SELECT coalesce(max(sequence), 0) FROM audit_entry) AS newest, \
                               (SELECT rules FROM news) AS rules";
