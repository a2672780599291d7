//! Fills the store by the service's own interface, whatever its database: leases by attestations with a licence, entries of
//! the log by requests of a token whose role may not make them, the cheapest decision that is recorded.

use futures_util::future::join_all;

use crate::guest::{Ask, Guest};
use crate::stage::Stage;

const AT_ONCE: u64 = 64;

/// Returns once there are so many.
pub(crate) async fn fill(stage: &Stage, leases: u64, entries: u64) {
    let (have, _) = stage.stored().await;
    eprintln!("filling up to {leases} leases, {have} are there");
    let each = leases.saturating_sub(have).div_ceil(AT_ONCE);
    join_all((0..AT_ONCE).map(|_| take_leases(stage, each))).await;
    let (_, have) = stage.stored().await;
    eprintln!("filling up to {entries} entries, {have} are there");
    let each = entries.saturating_sub(have).div_ceil(AT_ONCE);
    let token = stage.auditor_token().await;
    join_all((0..AT_ONCE).map(|_| be_refused(stage, &token, each))).await;
}

async fn take_leases(stage: &Stage, count: u64) {
    let client = stage.client();
    for _ in 0..count {
        Guest::new().ask(stage, &client, Ask::Lease).await;
    }
}

async fn be_refused(stage: &Stage, token: &str, count: u64) {
    let client = stage.client();
    let url = format!("{}/api/v1/products/bench/policy", stage.url);
    for _ in 0..count {
        let answer = client.put(&url).bearer_auth(token).send().await.expect("service");
        assert_eq!(answer.status(), reqwest::StatusCode::FORBIDDEN);
        answer.bytes().await.expect("answer");
    }
}
