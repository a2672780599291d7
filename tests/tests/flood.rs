//! Whoever can reach the service can ask it for challenges, as many and as large as the limits let through. What that takes
//! of its memory does not grow with it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use end_to_end::process::memory;
use end_to_end::vendor::Vendor;
use futures_util::stream::{self, StreamExt as _};
use reqwest::{Client, StatusCode};
use serde_json::json;

/// The largest body that is read, in bytes.
const BODY_MAX: usize = 1 << 20;
/// How many requests are made at once.
const AT_ONCE: usize = 64;
/// By how much the peak may differ, in KiB. One in a hundred of what the flood brings: 300 MiB of bodies, and 30,000 requests
/// of at least some KiB each.
const MARGIN_KIB: u64 = 8 << 10;

fn challenge(extra_bytes: usize) -> String {
    json!({"version": "0.4.0", "tee": "snp", "extra-params": "x".repeat(extra_bytes)}).to_string()
}

/// Makes `count` requests and asserts that each is answered by `expected`.
async fn flood(client: &Client, url: &str, body: &str, count: usize, expected: StatusCode) {
    let requests = (0..count).map(|_| client.post(format!("{url}/kbs/v0/auth")).body(body.to_owned()).send());
    let mut answers = stream::iter(requests).buffer_unordered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), expected);
        answer.bytes().await.unwrap();
    }
}

async fn floods(client: &Client, url: &str, small: usize, large: usize) {
    flood(client, url, &challenge(0), small, StatusCode::OK).await;
    let whole = challenge(BODY_MAX - challenge(0).len());
    assert_eq!(whole.len(), BODY_MAX);
    flood(client, url, &whole, large / 2, StatusCode::OK).await;
    flood(client, url, &challenge(BODY_MAX), large / 2, StatusCode::PAYLOAD_TOO_LARGE).await;
}

#[tokio::test]
async fn a_flood_of_challenges_takes_no_more_memory_than_a_tenth_of_it() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut vendor = Vendor::prepare(scratch.path());
    // All of it is let through: what the rate limit of an address refuses costs less.
    vendor.add_settings("[service.limits]\nrequests_per_second = 0");
    vendor.serve();
    let (client, url) = (vendor.client(), vendor.service_url());
    // The peak is compared: what is resident afterwards is what the allocator happens to keep of it, anything between.
    floods(&client, &url, 3000, 300).await;
    let before = memory(vendor.service_pid());
    floods(&client, &url, 30_000, 300).await;
    floods(&client, &url, 0, 300).await;
    let after = memory(vendor.service_pid());
    assert!(before.peak_kib > 0, "the service runs");
    assert!(
        after.peak_kib <= before.peak_kib + MARGIN_KIB,
        "a peak of {} KiB after a tenth of the flood, {} KiB after all of it",
        before.peak_kib,
        after.peak_kib
    );
    flood(&client, &url, &challenge(0), 1, StatusCode::OK).await;
}
