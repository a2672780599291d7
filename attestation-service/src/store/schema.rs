//! A schema of a PostgreSQL database that holds one service's tables beside those of others. Its name comes to the server as
//! every connection's `search_path`, so that no statement names it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::{AnyConnection, AssertSqlSafe, Executor as _};

use super::StoreError;

/// The name of a schema: 1 to 63 of `a-z`, `0-9` and `_`, not beginning with a digit or with `pg_`; not `public`, which is
/// everybody's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct SchemaName(String);

/// A text that names no schema of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "a schema is named by 1 to 63 of `a-z`, `0-9` and `_`, not beginning with a digit or with `pg_`, and not `public`"
)]
pub struct SchemaNameError;

impl SchemaName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SchemaName {
    type Err = SchemaNameError;

    fn from_str(text: &str) -> Result<Self, SchemaNameError> {
        let is_known = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_first = |byte: &u8| !byte.is_ascii_digit();
        let is_own = text != "public" && !text.starts_with("pg_");
        if text.len() > 63 || !text.bytes().all(is_known) || !text.as_bytes().first().is_some_and(is_first) || !is_own {
            return Err(SchemaNameError);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SchemaName {
    type Error = SchemaNameError;

    fn try_from(text: String) -> Result<Self, SchemaNameError> {
        text.parse()
    }
}

impl From<SchemaName> for String {
    fn from(name: SchemaName) -> Self {
        name.0
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes the schema where it is absent. A role that may make none uses one that was made for it.
pub(super) async fn make(connection: &mut AnyConnection, schema: &SchemaName) -> Result<(), StoreError> {
    if !exists(connection, schema).await? {
        connection.execute(AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS \"{schema}\""))).await?;
    }
    Ok(())
}

/// Drops the schema with all that is in it; one that is not there is no failure.
pub(crate) async fn drop(connection: &mut AnyConnection, schema: &SchemaName) -> Result<(), StoreError> {
    connection.execute(AssertSqlSafe(format!("DROP SCHEMA IF EXISTS \"{schema}\" CASCADE"))).await?;
    Ok(())
}

async fn exists(connection: &mut AnyConnection, schema: &SchemaName) -> Result<bool, StoreError> {
    let found = sqlx::query("SELECT 1 FROM pg_namespace WHERE nspname::text = $1")
        .bind(schema.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

/// Whether a service has tables in the schema.
pub(crate) async fn is_used(connection: &mut AnyConnection, schema: &SchemaName) -> Result<bool, StoreError> {
    let found = sqlx::query("SELECT 1 FROM pg_tables WHERE schemaname::text = $1 LIMIT 1")
        .bind(schema.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(found.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_has_a_plain_name_that_is_nobody_elses() {
        for name in ["tenant_a", "_", "user", &"a".repeat(63)] {
            assert_eq!(name.parse::<SchemaName>().unwrap().as_str(), name);
        }
        for name in ["", "public", "pg_catalog", "1a", "a-b", "A", "a\"b", "a,b", "a b", "é", &"a".repeat(64)] {
            assert_eq!(name.parse::<SchemaName>(), Err(SchemaNameError), "{name}");
        }
    }
}
