//! Rows that a transaction adds. PostgreSQL takes those of all tables in one statement, as JSON: each statement is a turn, and
//! on a busy machine each turn waits twice for a processor while the write lock is held. `SQLite`, which takes no turns, has no
//! such statement.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sqlx::any::AnyArguments;
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe};

use super::StoreError;

/// The most rows of one statement of `SQLite`.
const MOST_ROWS: usize = 256;

/// A table that rows are added to.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
    /// What becomes of rows that are there; empty where that is an error.
    pub(super) on_conflict: &'static str,
}

/// What a column holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Number,
    Text,
    Bytes,
}

/// A value of a row.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Number(Option<i64>),
    Text(Option<String>),
    Bytes(Vec<u8>),
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Number(Some(number))
    }
}

impl From<Option<i64>> for Cell {
    fn from(number: Option<i64>) -> Self {
        Self::Number(number)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Cell {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

/// The rows of a table that these are.
pub(super) fn rows_of<T>(
    things: &[T],
    row: impl Fn(&T) -> Result<Vec<Cell>, StoreError>,
) -> Result<Vec<Vec<Cell>>, StoreError> {
    things.iter().map(row).collect()
}

/// Rows that are not written yet, by table.
#[derive(Debug, Default)]
pub(super) struct Rows(Vec<(&'static Table, Vec<Vec<Cell>>)>);

impl Rows {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn holds(&self, table: &'static Table) -> bool {
        self.0.iter().any(|(of, _)| std::ptr::eq(*of, table))
    }

    /// Adds rows of a table that has none here.
    pub(super) fn add(&mut self, table: &'static Table, rows: Vec<Vec<Cell>>) {
        if !rows.is_empty() {
            self.0.push((table, rows));
        }
    }

    /// Writes them to PostgreSQL, in one statement.
    pub(super) async fn write_at_once(self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        if self.is_empty() {
            return Ok(());
        }
        let tables: Vec<_> = self.0.iter().map(|(table, _)| *table).collect();
        let mut query = sqlx::query(AssertSqlSafe(at_once(&tables)));
        for (_, rows) in self.0 {
            let rows: Vec<Value> =
                rows.into_iter().map(|row| row.into_iter().map(Value::from).collect::<Vec<_>>().into()).collect();
            query = query.bind(Value::from(rows).to_string());
        }
        query.execute(connection).await?;
        Ok(())
    }

    /// Writes them to `SQLite`, many to a statement. Their number is a power of two each time, so that there are few
    /// different statements to prepare.
    pub(super) async fn write_one_by_one(self, connection: &mut AnyConnection) -> Result<(), StoreError> {
        for (table, rows) in self.0 {
            let mut left = rows.into_iter();
            while left.len() > 0 {
                let now = (1 << left.len().ilog2()).min(MOST_ROWS);
                let mut query = sqlx::query(AssertSqlSafe(table.insert_values(now)));
                for cell in left.by_ref().take(now).flatten() {
                    query = cell.bind(query);
                }
                query.execute(&mut *connection).await?;
            }
        }
        Ok(())
    }
}

impl From<Cell> for Value {
    fn from(cell: Cell) -> Self {
        match cell {
            Cell::Number(number) => number.into(),
            Cell::Text(text) => text.into(),
            Cell::Bytes(bytes) => STANDARD.encode(bytes).into(),
        }
    }
}

impl Cell {
    fn bind(self, query: Query<'_, Any, AnyArguments>) -> Query<'_, Any, AnyArguments> {
        match self {
            Self::Number(number) => query.bind(number),
            Self::Text(text) => query.bind(text),
            Self::Bytes(bytes) => query.bind(bytes),
        }
    }
}

impl Table {
    fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    fn insert_values(&self, rows: usize) -> String {
        let Self { name, columns, on_conflict } = self;
        format!("INSERT INTO {name} ({}) VALUES {} {on_conflict}", self.names(), places(rows, columns.len()))
    }

    /// Rows are arrays of an array, parameter `number`.
    fn insert_json(&self, number: usize) -> String {
        let value = |(place, (_, kind)): (usize, &(&str, Kind))| match kind {
            Kind::Number => format!("(r ->> {place})::bigint"),
            Kind::Text => format!("r ->> {place}"),
            Kind::Bytes => format!("decode(r ->> {place}, 'base64')"),
        };
        let values = self.columns.iter().enumerate().map(value).collect::<Vec<_>>().join(", ");
        format!(
            "INSERT INTO {} ({}) SELECT {values} FROM jsonb_array_elements(${number}::jsonb) AS r {}",
            self.name,
            self.names(),
            self.on_conflict
        )
    }
}

/// One statement of PostgreSQL that adds rows to all these tables. Foreign keys are looked at when all of it is done.
fn at_once(tables: &[&Table]) -> String {
    let mut sql = String::new();
    for (place, table) in tables.iter().enumerate() {
        let before = if place == 0 { "WITH " } else { ", " };
        // A string takes all that is written to it.
        let _ = write!(sql, "{before}added_{place} AS ({})", table.insert_json(place + 1));
    }
    sql + " SELECT 1"
}

/// `($1, $2), ($3, $4)` for two rows of two columns.
pub(super) fn places(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let names: Vec<_> = (1..=columns).map(|column| format!("${}", row * columns + column)).collect();
        format!("({})", names.join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// These, and the last of them again until their number is a power of two, so that there are few different statements to
/// prepare.
pub(super) fn few_lengths<T: Copy>(things: &[T]) -> Vec<T> {
    let mut all = things.to_vec();
    if let Some(last) = all.last().copied() {
        all.resize(all.len().next_power_of_two(), last);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELF: Table = Table {
        name: "shelf",
        columns: &[("id", Kind::Number), ("name", Kind::Text), ("hash", Kind::Bytes)],
        on_conflict: "ON CONFLICT (id) DO NOTHING",
    };

    #[test]
    fn places_are_numbered_through_all_rows() {
        assert_eq!(
            SHELF.insert_values(2),
            "INSERT INTO shelf (id, name, hash) VALUES ($1, $2, $3), ($4, $5, $6) ON CONFLICT (id) DO NOTHING"
        );
    }

    #[test]
    fn rows_of_all_tables_make_one_statement() {
        let insert = |number| {
            format!(
                "INSERT INTO shelf (id, name, hash) SELECT (r ->> 0)::bigint, r ->> 1, decode(r ->> 2, 'base64') \
                 FROM jsonb_array_elements(${number}::jsonb) AS r ON CONFLICT (id) DO NOTHING"
            )
        };
        let expected = format!("WITH added_0 AS ({}), added_1 AS ({}) SELECT 1", insert(1), insert(2));
        assert_eq!(at_once(&[&SHELF, &SHELF]), expected);
    }
}
