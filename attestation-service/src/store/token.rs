//! API tokens: kept as hashes, shown once.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use zeroize::Zeroizing;

use super::{Store, StoreError, millis};

impl Store {
    /// Makes a token of 256 random bits and keeps its hash.
    pub async fn create_api_token(&self, label: &str, now: Timestamp) -> Result<Zeroizing<String>, StoreError> {
        let mut random = Zeroizing::new([0; 32]);
        rand::fill(random.as_mut_slice()).map_err(|_| StoreError::Value("random source"))?;
        let token = Zeroizing::new(format!("sealift_{}", URL_SAFE_NO_PAD.encode(random.as_slice())));
        sqlx::query("INSERT INTO api_token (id, hash, label, created_at) VALUES ($1, $2, $3, $4)")
            .bind(uuid::Uuid::now_v7().to_string())
            .bind(Sha256::digest(token.as_bytes()).as_slice())
            .bind(label)
            .bind(millis(now))
            .execute(&self.pool)
            .await?;
        Ok(token)
    }

    /// Whether the token is one of ours and has not expired. The hash is looked up, so no comparison of secrets leaks
    /// through its timing.
    pub(crate) async fn api_token_is_good(&self, token: &str, now: Timestamp) -> Result<bool, StoreError> {
        let row =
            sqlx::query("SELECT count(*) FROM api_token WHERE hash = $1 AND (expires_at IS NULL OR expires_at > $2)")
                .bind(Sha256::digest(token.as_bytes()).as_slice())
                .bind(millis(now))
                .fetch_one(&self.pool)
                .await?;
        Ok(row.try_get::<i64, _>(0)? == 1)
    }
}
