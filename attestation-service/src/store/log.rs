//! The tree over the audit log: grown in the transaction of each entry, and read for proofs and tiles.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row as _};
use transparency_log::{
    CompactRange, ConsistencyProof, HASH_BYTES, Hash, InclusionProof, LeafIndex, NodeId, ProofError, TreeSize,
    consistency_nodes, hash_leaf, inclusion_nodes, root_nodes,
};

use super::audit::entry;
use super::rows::{Cell, Kind, Table, places, rows_of};
use super::{Store, StoreError, count};

/// Reads that many nodes, by level and index. An outer join is not reordered: each node is looked up by its key, where `IN`
/// would read the whole table.
fn look_up(nodes: usize) -> String {
    let wanted = places(nodes, 2);
    format!(
        "WITH wanted (level, idx) AS (VALUES {wanted}) \
         SELECT level, idx, hash FROM wanted LEFT JOIN log_node USING (level, idx)"
    )
}

/// How many old entries are read at a time.
const BATCH: i64 = 1000;

/// The hashes of the tree's complete subtrees.
pub(super) static NODES: Table = Table {
    name: "log_node",
    columns: &[("level", Kind::Number), ("idx", Kind::Number), ("hash", Kind::Bytes)],
    on_conflict: "",
};

/// The tree's right edge: one row.
pub(super) static EDGE: Table = Table {
    name: "log_edge",
    columns: &[("id", Kind::Number), ("size", Kind::Number), ("edge", Kind::Bytes)],
    on_conflict: "ON CONFLICT (id) DO UPDATE SET size = excluded.size, edge = excluded.edge",
};

pub(super) fn node_row((node, hash): &(NodeId, Hash)) -> Result<Vec<Cell>, StoreError> {
    Ok(vec![i64::from(node.level).into(), place(node.index)?.into(), hash.as_bytes().to_vec().into()])
}

pub(super) fn edge_row(range: &CompactRange) -> Result<Vec<Cell>, StoreError> {
    let edge: Vec<u8> = range.edge().iter().flat_map(|hash| *hash.as_bytes()).collect();
    Ok(vec![1.into(), place(range.size().get())?.into(), edge.into()])
}

impl Store {
    /// Adds the leaves of entries that were written before there was a tree.
    pub(super) async fn hash_old_entries(&self) -> Result<(), StoreError> {
        let newest = sqlx::query("SELECT coalesce(max(sequence), 0) FROM audit_entry").fetch_one(&self.pool).await?;
        if place(self.log_range().await?.size().get())? >= newest.try_get::<i64, _>(0)? {
            return Ok(());
        }
        let mut transaction = self.write().await?;
        let row = sqlx::query("SELECT size, edge FROM log_edge").fetch_one(transaction.sql()).await?;
        let mut range = read_range(&row)?;
        loop {
            let rows = sqlx::query("SELECT * FROM audit_entry WHERE sequence > $1 ORDER BY sequence LIMIT $2")
                .bind(place(range.size().get())?)
                .bind(BATCH)
                .fetch_all(transaction.sql())
                .await?;
            if rows.is_empty() {
                break;
            }
            let mut nodes = Vec::new();
            for row in &rows {
                let entry = entry(row)?;
                // Entry N is leaf N - 1; a number that was left out is an entry that somebody took away.
                if range.size().get().checked_add(1) != Some(entry.sequence) {
                    return Err(StoreError::Value("audit sequence"));
                }
                nodes.extend(range.append(hash_leaf(&entry.leaf()?)).map_err(ProofError::from)?);
            }
            transaction.add(&NODES, rows_of(&nodes, node_row)?).await?;
            transaction.flush().await?;
        }
        transaction.add(&EDGE, vec![edge_row(&range)?]).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Hashes every entry again and holds the tree that they make against the one that is kept.
    pub(crate) async fn verify_log(&self) -> Result<CompactRange, StoreError> {
        let kept = self.log_range().await?;
        let mut range = CompactRange::default();
        while range.size() < kept.size() {
            let first = LeafIndex::try_from(range.size().get()).map_err(|_| StoreError::Value("audit sequence"))?;
            let leaves = self.log_entries(first, u16::MAX >> 6).await?;
            if leaves.is_empty() {
                return Err(StoreError::Value("audit sequence"));
            }
            for leaf in leaves {
                range.append(hash_leaf(&leaf)).map_err(ProofError::from)?;
            }
        }
        if range == kept { Ok(range) } else { Err(StoreError::Value("audit entry")) }
    }

    /// The tree as it is: its size and what its root is made of.
    pub(crate) async fn log_range(&self) -> Result<CompactRange, StoreError> {
        read_range(&sqlx::query("SELECT size, edge FROM log_edge").fetch_one(&self.pool).await?)
    }

    /// The leaves from `first` on, at most `count`.
    pub(crate) async fn log_entries(&self, first: LeafIndex, count: u16) -> Result<Vec<Vec<u8>>, StoreError> {
        let rows = sqlx::query("SELECT * FROM audit_entry WHERE sequence > $1 ORDER BY sequence LIMIT $2")
            .bind(place(first.get())?)
            .bind(i64::from(count))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| entry(row)?.leaf()).collect()
    }

    /// The hashes of the node `first` and those to its right, at most `count`.
    pub(crate) async fn log_hashes(&self, first: NodeId, count: u16) -> Result<Vec<Hash>, StoreError> {
        let start = place(first.index)?;
        let rows = sqlx::query("SELECT hash FROM log_node WHERE level = $1 AND idx >= $2 AND idx < $3 ORDER BY idx")
            .bind(i64::from(first.level))
            .bind(start)
            .bind(start.saturating_add(i64::from(count)))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| hash(row.try_get(0)?)).collect()
    }

    /// The proof that the leaf at `index` is in the tree of `size` leaves.
    pub(crate) async fn inclusion_proof(&self, index: LeafIndex, size: TreeSize) -> Result<InclusionProof, StoreError> {
        let nodes = self.log_nodes(&inclusion_nodes(index, size)?).await?;
        Ok(InclusionProof::new(&nodes, index, size)?)
    }

    /// The proof that the tree of `new` leaves extends that of `old`.
    pub(crate) async fn consistency_proof(&self, old: TreeSize, new: TreeSize) -> Result<ConsistencyProof, StoreError> {
        let nodes = self.log_nodes(&consistency_nodes(old, new)?).await?;
        Ok(ConsistencyProof::new(&nodes, old, new)?)
    }

    /// The root of the tree as it was at this size.
    pub(crate) async fn log_root(&self, size: TreeSize) -> Result<Hash, StoreError> {
        let nodes = self.log_nodes(&root_nodes(size)).await?;
        Ok(transparency_log::root(&nodes, size).map_err(ProofError::from)?)
    }

    async fn log_nodes(&self, nodes: &[NodeId]) -> Result<HashMap<NodeId, Hash>, StoreError> {
        if nodes.is_empty() {
            return Ok(HashMap::new());
        }
        let wanted = nodes
            .iter()
            .map(|node| Ok((i64::from(node.level), place(node.index)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        let mut query = sqlx::query(AssertSqlSafe(look_up(wanted.len())));
        for (level, index) in wanted {
            query = query.bind(level).bind(index);
        }
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| Ok((NodeId { level: count(row, 0)?, index: count(row, 1)? }, hash(row.try_get(2)?)?)))
            .collect()
    }
}

pub(super) fn read_range(row: &AnyRow) -> Result<CompactRange, StoreError> {
    let damaged = || StoreError::Value("edge of the log");
    let size = u64::try_from(row.try_get::<i64, _>("size")?).map_err(|_| damaged())?;
    let (hashes, rest) = row.try_get::<&[u8], _>("edge")?.as_chunks::<HASH_BYTES>();
    if !rest.is_empty() {
        return Err(damaged());
    }
    let size = TreeSize::try_from(size).map_err(ProofError::from)?;
    Ok(CompactRange::new(size, hashes.iter().copied().map(Hash::new).collect()).map_err(ProofError::from)?)
}

fn hash(bytes: &[u8]) -> Result<Hash, StoreError> {
    Hash::from_slice(bytes).ok_or(StoreError::Value("hash of the log"))
}

pub(super) fn place(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Value("audit sequence"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use jiff::Timestamp;
    use serde_json::json;
    use sqlx::AssertSqlSafe;
    use transparency_log::MemoryTree;

    use super::super::audit::append;
    use super::super::old::database_before;
    use super::super::{AuditKind, Database};
    use super::*;

    async fn store(directory: &tempfile::TempDir, entries: u64) -> Store {
        let store = Store::open(&Database::Sqlite(directory.path().join("db"))).await.unwrap();
        for number in 0..entries {
            store.record(AuditKind::Denied, &json!({"number": number}), Timestamp::UNIX_EPOCH).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn entries_from_before_there_was_a_tree_are_hashed_when_the_database_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let old = database_before(4, &path).await;
        let mut before = old.begin().await.unwrap();
        for number in 1..=2100 {
            sqlx::query("INSERT INTO audit_entry (at, kind, body) VALUES (0, 'denied', $1)")
                .bind(format!("{{\"number\": {number}}}"))
                .execute(&mut *before)
                .await
                .unwrap();
        }
        before.commit().await.unwrap();
        old.close().await;

        let new = Store::open(&Database::Sqlite(path)).await.unwrap();
        let range = new.log_range().await.unwrap();
        let entries = new.audit_entries(3000).await.unwrap();
        let mut tree = MemoryTree::default();
        for entry in &entries {
            assert_eq!(entry.salt.len(), 32);
            tree.append(&entry.leaf().unwrap()).unwrap();
        }
        assert_eq!((range.size().get(), range.root()), (2100, tree.root().unwrap()));
        assert_ne!(entries[0].salt, entries[1].salt);
        new.record(AuditKind::Denied, &json!({}), Timestamp::UNIX_EPOCH).await.unwrap();
        let grown = new.log_range().await.unwrap();
        let proof = new.consistency_proof(range.size(), grown.size()).await.unwrap();
        proof.verify(range.size(), &range.root(), grown.size(), &grown.root()).unwrap();
    }

    #[tokio::test]
    async fn an_entry_whose_transaction_fails_leaves_no_leaf() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory, 3).await;
        let before = store.log_range().await.unwrap();
        let mut transaction = store.write().await.unwrap();
        append(&mut transaction, AuditKind::Denied, &json!({}), Timestamp::UNIX_EPOCH).await.unwrap();
        transaction.rollback().await.unwrap();
        assert_eq!(store.log_range().await.unwrap(), before);
        assert_eq!(store.record(AuditKind::Denied, &json!({}), Timestamp::UNIX_EPOCH).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn entries_and_hashes_are_neither_changed_nor_taken_away() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory, 3).await;
        for statement in [
            "UPDATE audit_entry SET body = '{}' WHERE sequence = 2",
            "DELETE FROM audit_entry",
            "UPDATE log_node SET idx = 9 WHERE idx = 0",
            "DELETE FROM log_node",
        ] {
            let refused = sqlx::query(statement).execute(&store.pool).await.unwrap_err();
            assert!(refused.to_string().contains("stays"), "{statement}: {refused}");
        }
    }

    #[tokio::test]
    async fn nothing_is_appended_after_an_entry_that_was_taken_away() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory, 3).await;
        for statement in ["DROP TRIGGER audit_entry_remains", "DELETE FROM audit_entry WHERE sequence = 3"] {
            sqlx::query(statement).execute(&store.pool).await.unwrap();
        }
        let refused = store.record(AuditKind::Denied, &json!({}), Timestamp::UNIX_EPOCH).await;
        assert!(matches!(refused, Err(StoreError::Value("audit sequence"))));
        assert_eq!(store.audit_entries(9).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn nothing_is_appended_to_fewer_entries_than_were_signed() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory, 3).await;
        store.signed().store(4, Ordering::Release);
        let refused = store.record(AuditKind::Denied, &json!({}), Timestamp::UNIX_EPOCH).await;
        assert!(matches!(refused, Err(StoreError::Shrunk { found: 3, signed: 4 })), "{refused:?}");
        store.signed().store(3, Ordering::Release);
        assert_eq!(store.record(AuditKind::Denied, &json!({}), Timestamp::UNIX_EPOCH).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn proofs_read_no_more_of_the_table_than_they_need() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory, 1).await;
        let query = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", look_up(2)));
        let rows = sqlx::query(query).bind(0).bind(1).bind(1).bind(0).fetch_all(&store.pool).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|step| step.starts_with("SEARCH log_node USING PRIMARY KEY")), "{plan:?}");
    }
}
