//! A transaction that writes: it holds the write lock from its start, and what it appends to the audit log is written when it
//! is committed, in as few statements as can be.

use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AnyPool, AssertSqlSafe, Row as _, Transaction};
use transparency_log::{CompactRange, Hash, NodeId, ProofError, hash_leaf};

use super::audit::{AuditEntry, AuditKind};
use super::database::Database;
use super::log::{place, read_range};
use super::news::{News, Teller, keep};
use super::{StoreError, millis};

/// Begins transactions that write.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    database: Database,
    pool: AnyPool,
    pub(super) teller: Teller,
}

impl Writer {
    pub(super) fn new(database: Database, pool: AnyPool) -> Self {
        Self { database, pool, teller: Teller::new() }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.database.is_shared()
    }

    pub(super) async fn begin(&self) -> Result<Write, StoreError> {
        let transaction = self.pool.begin_with(self.database.begin_write()).await?;
        Ok(Write { transaction, growth: None, news: News::default(), teller: self.teller.clone() })
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Write {
    transaction: Transaction<'static, Any>,
    growth: Option<Growth>,
    news: News,
    teller: Teller,
}

/// What the log grows by in a transaction.
#[derive(Clone, Debug)]
struct Growth {
    range: CompactRange,
    entries: Vec<AuditEntry>,
    nodes: Vec<(NodeId, Hash)>,
}

impl Write {
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
        Ok(())
    }

    /// Takes note of an entry that guests have to hear of.
    pub(super) fn note(&mut self, kind: AuditKind, entry: u64, by_vendor: bool) {
        self.news.note(kind, entry, by_vendor);
    }

    async fn growth(&mut self) -> Result<&mut Growth, StoreError> {
        if self.growth.is_none() {
            let row = sqlx::query(
                "SELECT size, edge, (SELECT coalesce(max(sequence), 0) FROM audit_entry) AS newest FROM log_edge",
            )
            .fetch_one(self.sql())
            .await?;
            // Entry N is leaf N - 1; a number too few or too many is an entry that somebody took away or slipped in.
            if row.try_get::<i64, _>("size")? != row.try_get::<i64, _>("newest")? {
                return Err(StoreError::Value("audit sequence"));
            }
            self.growth = Some(Growth { range: read_range(&row)?, entries: Vec::new(), nodes: Vec::new() });
        }
        self.growth.as_mut().ok_or(StoreError::Value("edge of the log"))
    }

    /// Writes what was appended, and commits.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        if let Some(Growth { range, entries, nodes }) = self.growth.take() {
            self.insert("audit_entry (sequence, at, kind, body, salt)", 5, &entries, |query, entry| {
                Ok(query
                    .bind(place(entry.sequence)?)
                    .bind(millis(entry.at))
                    .bind(entry.kind.clone())
                    .bind(entry.body.to_string())
                    .bind(entry.salt.clone()))
            })
            .await?;
            self.insert("log_node (level, idx, hash)", 3, &nodes, |query, (node, hash)| {
                Ok(query.bind(i64::from(node.level)).bind(place(node.index)?).bind(hash.as_bytes().to_vec()))
            })
            .await?;
            write_range(self.sql(), &range).await?;
        }
        let news = self.news;
        if !news.is_none() {
            keep(self.sql(), news).await?;
        }
        self.transaction.commit().await?;
        self.teller.tell(news);
        Ok(())
    }

    /// Undoes everything.
    pub(crate) async fn rollback(self) -> Result<(), StoreError> {
        Ok(self.transaction.rollback().await?)
    }

    /// Inserts rows, many to a statement. Their number is a power of two each time, so that there are few different
    /// statements to prepare.
    async fn insert<T>(
        &mut self,
        into: &str,
        columns: usize,
        rows: &[T],
        bind: impl for<'q> Fn(Bound<'q>, &T) -> Result<Bound<'q>, StoreError>,
    ) -> Result<(), StoreError> {
        let mut left = rows;
        while !left.is_empty() {
            let (now, later) = left.split_at((1 << left.len().ilog2()).min(MOST_ROWS));
            left = later;
            let sql = format!("INSERT INTO {into} VALUES {}", places(now.len(), columns));
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
