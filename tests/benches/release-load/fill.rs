//! Fills the store by the service's own interface, whatever its database: leases by attestations with a licence, entries of
//! the log by fetching one key again and again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::guest::{Ask, Guest, fetch_key};
use crate::stage::{Stage, text};

const AT_ONCE: u64 = 64;
/// A token is good for five minutes.
const TOKEN_LIFE: Duration = Duration::from_secs(200);

/// Returns once there are so many.
pub(crate) async fn fill(stage: &Stage, leases: u64, entries: u64) {
    let (have, _) = stage.stored().await;
    eprintln!("filling up to {leases} leases, {have} are there");
    let each = leases.saturating_sub(have).div_ceil(AT_ONCE);
    join_all((0..AT_ONCE).map(|_| take_leases(stage, each))).await;
    let (_, have) = stage.stored().await;
    eprintln!("filling up to {entries} entries, {have} are there");
    let each = entries.saturating_sub(have).div_ceil(AT_ONCE);
    join_all((0..AT_ONCE).map(|_| fetch_keys(stage, each))).await;
}

async fn take_leases(stage: &Stage, count: u64) {
    let client = stage.client();
    for _ in 0..count {
        Guest::new().ask(stage, &client, Ask::Lease).await;
    }
}

async fn fetch_keys(stage: &Stage, count: u64) {
    let client = stage.client();
    let mut token: Option<(String, Instant)> = None;
    for _ in 0..count {
        let good = token.take().filter(|(_, since)| since.elapsed() < TOKEN_LIFE);
        let (text, since) = match good {
            Some(good) => good,
            None => (text(&Guest::new().ask(stage, &client, Ask::Lease).await, "token"), Instant::now()),
        };
        fetch_key(stage, &client, &text).await;
        token = Some((text, since));
    }
}
