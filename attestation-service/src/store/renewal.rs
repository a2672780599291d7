//! Requests for renewal that came by file: each is answered once, and only while nothing newer than it was based on is known of
//! its lease.

use release_protocol::LeaseId;
use sqlx::Row as _;

use super::StoreError;
use super::lease::ByFile;
use super::log::place;
use super::write::Write;

/// Why a request is not answered; `newest` is the entry of the lease's last grant or renewal.
pub(super) async fn refusal(
    transaction: &mut Write<'_>,
    request: &ByFile,
    lease: &LeaseId,
    newest: Option<i64>,
) -> Result<Option<String>, StoreError> {
    let answered = sqlx::query("SELECT entry FROM renewal WHERE request = $1")
        .bind(&request.digest)
        .fetch_optional(transaction.sql())
        .await?;
    if let Some(row) = answered {
        let entry: i64 = row.try_get(0)?;
        return Ok(Some(format!("this request was answered already, by audit entry {entry}")));
    }
    let base = place(request.base)?;
    if newest == Some(base) {
        return Ok(None);
    }
    // An answer that never came to the guest leaves it where it was: it may ask again.
    let lost = sqlx::query("SELECT 1 FROM renewal WHERE lease_id = $1 AND base = $2 AND entry = $3")
        .bind(&lease.0)
        .bind(base)
        .bind(newest)
        .fetch_optional(transaction.sql())
        .await?;
    let why = || match newest {
        Some(entry) => format!("the lease was renewed after this request was made, by audit entry {entry}"),
        None => "the lease is not the one that this request knows".to_owned(),
    };
    Ok(lost.is_none().then(why))
}

/// Keeps in mind that a request was answered.
pub(super) async fn keep(
    transaction: &mut Write<'_>,
    request: &ByFile,
    lease: &LeaseId,
    entry: u64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO renewal (request, lease_id, base, entry) VALUES ($1, $2, $3, $4)")
        .bind(&request.digest)
        .bind(&lease.0)
        .bind(place(request.base)?)
        .bind(place(entry)?)
        .execute(transaction.sql())
        .await?;
    Ok(())
}
