//! API tokens: kept as hashes, shown once, good for one role until they expire or are revoked.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::any::AnyRow;
use sqlx::{Any, Executor, Row as _};
use zeroize::Zeroizing;

use super::audit::{Actor, AuditKind, append};
use super::{Store, StoreError, is_unique_violation, millis, timestamp};
use crate::api::{NewToken, Role, TokenStatus};

const ONE: &str = "token";

impl Store {
    /// Makes the first token of a home, an administrator's: there is nobody yet who could ask for it.
    pub async fn create_api_token(&self, name: &str, now: Timestamp) -> Result<Zeroizing<String>, StoreError> {
        let new = NewToken { name: name.to_owned(), role: Role::Admin, expires_at: None };
        insert(&self.pool, &new, now).await
    }

    /// Keeps an administrator's token that was made before the database, if the database knows of none.
    pub async fn adopt_api_token(&self, name: &str, token: &str, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.write().await?;
        let known = sqlx::query("SELECT 1 FROM api_token LIMIT 1").fetch_optional(transaction.sql()).await?;
        if known.is_none() {
            let new = NewToken { name: name.to_owned(), role: Role::Admin, expires_at: None };
            keep(transaction.sql(), token, &new, now).await?;
        }
        transaction.commit().await.map(drop)
    }

    /// Makes a token that somebody asked for.
    pub(crate) async fn issue_api_token(
        &self,
        new: &NewToken,
        now: Timestamp,
    ) -> Result<Zeroizing<String>, StoreError> {
        let mut transaction = self.write().await?;
        let token = insert(transaction.sql(), new, now).await?;
        append(&mut transaction, AuditKind::TokenCreated, &json!(new), now).await?;
        transaction.commit().await?;
        Ok(token)
    }

    /// Ends a token. The last administrator's that is good for ever stays: nobody could make another.
    pub(crate) async fn revoke_api_token(
        &self,
        name: &str,
        reason: &str,
        now: Timestamp,
    ) -> Result<TokenStatus, StoreError> {
        let mut transaction = self.write().await?;
        let row = sqlx::query(
            "UPDATE api_token SET revoked_at = $2, revoke_reason = $3 WHERE name = $1 AND revoked_at IS NULL
             RETURNING *",
        )
        .bind(name)
        .bind(millis(now))
        .bind(reason)
        .fetch_optional(transaction.sql())
        .await?
        .ok_or_else(|| StoreError::Unknown { kind: "token that is not revoked", name: name.to_owned() })?;
        let revoked = status(&row, now)?;
        let others = sqlx::query(
            "SELECT count(*) FROM api_token WHERE role = 'admin' AND revoked_at IS NULL AND expires_at IS NULL",
        )
        .fetch_one(transaction.sql())
        .await?;
        if revoked.role == Role::Admin && revoked.expires_at.is_none() && others.try_get::<i64, _>(0)? == 0 {
            let why = format!("`{name}` is the last admin token that does not expire; make another one first");
            return Err(StoreError::Conflict(why));
        }
        let body = json!({"name": revoked.name, "role": revoked.role, "reason": reason});
        append(&mut transaction, AuditKind::TokenRevoked, &body, now).await?;
        transaction.commit().await?;
        Ok(revoked)
    }

    /// All tokens, oldest first.
    pub(crate) async fn api_tokens(&self, now: Timestamp) -> Result<Vec<TokenStatus>, StoreError> {
        let rows = sqlx::query("SELECT * FROM api_token ORDER BY created_at, name").fetch_all(&self.pool).await?;
        rows.iter().map(|row| status(row, now)).collect()
    }

    /// Whose token it is, if it is one of ours and still good. The hash is looked up, so no comparison of secrets leaks
    /// through its timing.
    pub(crate) async fn api_token(&self, token: &str, now: Timestamp) -> Result<Option<Actor>, StoreError> {
        let mut reader = self.reader().await?;
        let row = sqlx::query(
            "SELECT name, role FROM api_token
             WHERE hash = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
        )
        .bind(Sha256::digest(token.as_bytes()).as_slice())
        .bind(millis(now))
        .fetch_optional(reader.sql())
        .await?;
        reader.keep();
        row.map(|row| Ok(Actor { token: row.try_get("name")?, role: role(&row)? })).transpose()
    }
}

/// Makes a token of 256 random bits and keeps its hash.
async fn insert<'e>(
    executor: impl Executor<'e, Database = Any>,
    new: &NewToken,
    now: Timestamp,
) -> Result<Zeroizing<String>, StoreError> {
    let mut random = Zeroizing::new([0; 32]);
    rand::fill(random.as_mut_slice()).map_err(|_| StoreError::Value("random source"))?;
    let token = Zeroizing::new(format!("sealift_{}", URL_SAFE_NO_PAD.encode(random.as_slice())));
    keep(executor, &token, new, now).await?;
    Ok(token)
}

/// Keeps a token's hash.
async fn keep<'e>(
    executor: impl Executor<'e, Database = Any>,
    token: &str,
    new: &NewToken,
    now: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO api_token (id, hash, name, role, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(uuid::Uuid::now_v7().to_string())
        .bind(Sha256::digest(token.as_bytes()).as_slice())
        .bind(&new.name)
        .bind(new.role.name())
        .bind(millis(now))
        .bind(new.expires_at.map(millis))
        .execute(executor)
        .await
        .map_err(|error| {
            if is_unique_violation(&error) {
                StoreError::Exists { kind: ONE, name: new.name.clone() }
            } else {
                error.into()
            }
        })?;
    Ok(())
}

fn role(row: &AnyRow) -> Result<Role, StoreError> {
    row.try_get::<&str, _>("role")?.parse().map_err(|_| StoreError::Value("role"))
}

fn status(row: &AnyRow, now: Timestamp) -> Result<TokenStatus, StoreError> {
    let time = |column| row.try_get::<Option<i64>, _>(column)?.map(timestamp).transpose();
    let (expires_at, revoked_at): (Option<Timestamp>, Option<Timestamp>) = (time("expires_at")?, time("revoked_at")?);
    let state = match (revoked_at, expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(at)) if at <= now => "expired",
        (None, _) => "live",
    };
    Ok(TokenStatus {
        name: row.try_get("name")?,
        role: role(row)?,
        state: state.to_owned(),
        created_at: timestamp(row.try_get("created_at")?)?,
        expires_at,
        revoked_at,
        revoke_reason: row.try_get("revoke_reason")?,
    })
}

#[cfg(test)]
mod tests {
    use super::super::database::Database;
    use super::super::old::database_before;
    use super::*;

    #[tokio::test]
    async fn tokens_from_before_roles_are_administrators_by_names_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let old = database_before(6, &path).await;
        for (id, label) in [("1", "first"), ("2", "twice"), ("3", "twice")] {
            sqlx::query("INSERT INTO api_token (id, hash, label, created_at) VALUES ($1, $2, $3, 0)")
                .bind(id)
                .bind(Sha256::digest(id).as_slice())
                .bind(label)
                .execute(&old)
                .await
                .unwrap();
        }
        old.close().await;
        let store = Store::open(&Database::Sqlite(path)).await.unwrap();
        for (token, name) in [("1", "first"), ("2", "twice 2"), ("3", "twice 3")] {
            let actor = store.api_token(token, Timestamp::UNIX_EPOCH).await.unwrap().unwrap();
            assert_eq!((actor.token.as_str(), actor.role), (name, Role::Admin));
        }
    }
}
