//! Whoever can reach the service can ask it for challenges, as many and as large as the limits let through. What that takes
//! of its memory does not grow with it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::{Duration, Instant};

use end_to_end::process::memory;
use end_to_end::vendor::Vendor;
use futures_util::stream::{self, StreamExt as _};
use reqwest::{Client, StatusCode};
use serde_json::json;

/// The largest body of most requests, in bytes, and that of a request for a challenge.
const BODY_MAX: usize = 1 << 20;
const AUTH_MAX: usize = 64 << 10;
/// How many requests are made at once.
const AT_ONCE: usize = 64;
/// By how much the peak may differ, in KiB. One in a hundred of what the flood brings: 300 MiB of bodies, and 30,000 requests
/// of at least some KiB each.
const PEAK_MARGIN_KIB: u64 = 8 << 10;
/// By how much what stays resident may differ, in KiB: as much as eight of the 1,500 large bodies.
const MARGIN_KIB: u64 = 8 << 10;
/// How long the service may take to give memory back; it does so every few seconds.
const PATIENCE: Duration = Duration::from_secs(30);

fn challenge(extra_bytes: usize) -> String {
    json!({"version": "0.4.0", "tee": "snp", "extra-params": "x".repeat(extra_bytes)}).to_string()
}

/// Makes `count` requests and asserts that each is answered by `expected`.
async fn flood(client: &Client, url: &str, body: &str, count: usize, expected: StatusCode) {
    let requests = (0..count).map(|_| client.post(url).body(body.to_owned()).send());
    let mut answers = stream::iter(requests).buffer_unordered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), expected);
        answer.bytes().await.unwrap();
    }
}

async fn floods(client: &Client, url: &str, small: usize, large: usize) {
    let (auth, attest) = (format!("{url}/kbs/v0/auth"), format!("{url}/kbs/v0/attest"));
    flood(client, &auth, &challenge(0), small, StatusCode::OK).await;
    flood(client, &auth, &challenge(AUTH_MAX - challenge(0).len()), large, StatusCode::OK).await;
    let whole = challenge(BODY_MAX - challenge(0).len());
    assert_eq!(whole.len(), BODY_MAX);
    flood(client, &auth, &whole, large, StatusCode::PAYLOAD_TOO_LARGE).await;
    flood(client, &attest, &whole, large, StatusCode::BAD_REQUEST).await;
    flood(client, &attest, &challenge(BODY_MAX), large, StatusCode::PAYLOAD_TOO_LARGE).await;
}

/// What is resident once it is no more than `at_most`, or once the service has had its time, in KiB.
async fn resident(vendor: &Vendor, at_most: u64) -> u64 {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = memory(vendor.service_pid()).resident_kib;
        if now <= at_most || Instant::now() > until {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_flood_of_requests_leaves_the_memory_where_it_was() {
    let scratch = tempfile::tempdir().expect("scratch");
    let mut vendor = Vendor::prepare(scratch.path());
    // All of it is let through: what the rate limit of an address refuses costs less.
    vendor.add_settings("[service.limits]\nrequests_per_second = 0");
    vendor.serve();
    let (client, url) = (vendor.client(), vendor.service_url());
    // What is made at the first requests and stays is there.
    floods(&client, &url, AT_ONCE, AT_ONCE).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = memory(vendor.service_pid());
    assert!(before.resident_kib > 0, "the service runs");

    floods(&client, &url, 30_000, 300).await;
    let after = resident(&vendor, before.resident_kib + MARGIN_KIB).await;
    assert!(
        after <= before.resident_kib + MARGIN_KIB,
        "{} KiB were resident before the flood, {after} KiB after it",
        before.resident_kib
    );
    let peak = memory(vendor.service_pid()).peak_kib;
    assert!(
        peak <= before.peak_kib + PEAK_MARGIN_KIB,
        "a peak of {} KiB after a little of the flood, {peak} KiB after all of it",
        before.peak_kib
    );
    flood(&client, &format!("{url}/kbs/v0/auth"), &challenge(0), 1, StatusCode::OK).await;
}
