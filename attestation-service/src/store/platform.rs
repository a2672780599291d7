//! Denied platforms: kept, lifted, and asked for. Whom a denial concerns stands in `crate::platform`.

use jiff::Timestamp;
use serde_json::json;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::audit::{AuditKind, append};
use super::lease_list::live_leases;
use super::{Store, StoreError, is_unique_violation, millis, timestamp};
use crate::api::{LeaseStatus, NewPlatformDenial, PlatformDenial};
use crate::platform::PlatformRule;

const ONE: &str = "denial of platforms";

impl Store {
    /// Denies platforms from now on, and gives the live leases that run on them. A dry run only gives those.
    pub(crate) async fn deny_platform(
        &self,
        new: &NewPlatformDenial,
        now: Timestamp,
    ) -> Result<Vec<LeaseStatus>, StoreError> {
        let NewPlatformDenial { rule, reason, dry_run } = new;
        let mut transaction = self.write().await?;
        let mut leases = live_leases(transaction.sql(), now).await?;
        leases.retain(|lease| !rule.findings(&lease.chip_id, lease.platform.as_ref(), reason).is_empty());
        if *dry_run {
            return Ok(leases);
        }
        sqlx::query("INSERT INTO platform_denial (rule, reason, denied_at) VALUES ($1, $2, $3)")
            .bind(rule.to_string())
            .bind(reason)
            .bind(millis(now))
            .execute(transaction.sql())
            .await
            .map_err(|error| {
                if is_unique_violation(&error) {
                    StoreError::Exists { kind: ONE, name: rule.to_string() }
                } else {
                    error.into()
                }
            })?;
        let concerned: Vec<_> = leases.iter().map(|lease| &lease.id).collect();
        let body = json!({"rule": rule, "reason": reason, "leases": concerned});
        append(&mut transaction, AuditKind::PlatformDenied, &body, now).await?;
        transaction.commit().await?;
        Ok(leases)
    }

    /// Lifts a denial.
    pub(crate) async fn allow_platform(
        &self,
        rule: &PlatformRule,
        reason: &str,
        now: Timestamp,
    ) -> Result<PlatformDenial, StoreError> {
        let mut transaction = self.write().await?;
        let lifted = sqlx::query("DELETE FROM platform_denial WHERE rule = $1 RETURNING *")
            .bind(rule.to_string())
            .fetch_optional(transaction.sql())
            .await?
            .ok_or_else(|| StoreError::Unknown { kind: ONE, name: rule.to_string() })?;
        let lifted = from_row(&lifted)?;
        let body = json!({"rule": rule, "reason": reason, "denied_for": lifted.reason, "denied_at": lifted.denied_at});
        append(&mut transaction, AuditKind::PlatformAllowed, &body, now).await?;
        transaction.commit().await?;
        Ok(lifted)
    }

    /// What is denied, oldest first.
    pub(crate) async fn platform_denials(&self) -> Result<Vec<PlatformDenial>, StoreError> {
        let rows = sqlx::query("SELECT * FROM platform_denial ORDER BY denied_at, rule").fetch_all(&self.pool).await?;
        rows.iter().map(from_row).collect()
    }
}

fn from_row(row: &AnyRow) -> Result<PlatformDenial, StoreError> {
    Ok(PlatformDenial {
        rule: row.try_get::<&str, _>("rule")?.parse().map_err(|_| StoreError::Value("denial of platforms"))?,
        reason: row.try_get("reason")?,
        denied_at: timestamp(row.try_get("denied_at")?)?,
    })
}
