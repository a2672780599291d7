//! The master key changed under a service that runs: releases go on, a restart goes on where it was, and what the former one
//! sealed comes under the new one without exception.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use attestation_service::api::{CustodyStatus, ImageKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::json;

use crate::guest::Guest;
use crate::rig::{Answer, KEY_ID, MANIFEST, PRODUCT, Rig, advance};

/// So many keys take several transactions.
const KEYS: usize = 120;

/// Puts a new master key's file into the home.
pub(crate) fn make_file(rig: &Rig, name: &str, byte: u8) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = rig.home.directory().join("service").join(name);
    std::fs::write(&path, STANDARD.encode([byte; 32])).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) async fn rotate(rig: &Rig, to: &str) -> Answer {
    rig.admin(Method::POST, "/custody/rotate", &json!({"to": to})).await
}

async fn status(rig: &Rig) -> CustodyStatus {
    rig.admin_get("/custody").await
}

/// Waits until nothing is under a former master key.
pub(crate) async fn all_done(rig: &Rig) -> CustodyStatus {
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        let status = status(rig).await;
        if status.rotation.is_none() {
            return status;
        }
        assert!(Instant::now() < until, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn register_many(rig: &Rig) {
    for number in 0..KEYS {
        rig.register_key(PRODUCT, &format!("more-{number}"), &[MANIFEST]).await;
    }
}

#[tokio::test]
async fn releases_and_registrations_go_on_while_the_master_key_is_changed() {
    let rig = Arc::new(Rig::start().await);
    register_many(&rig).await;
    make_file(&rig, "next.key", 9);
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let started = guest.start(&rig).await;
    let released = Arc::new(AtomicU64::new(0));
    let others = async {
        let begun: CustodyStatus = rotate(&rig, "file:next.key").await.ok();
        assert!(begun.rotation.is_some_and(|rotation| rotation.left > 0), "it was over before it began");
        // At once under the new one.
        rig.register_key(PRODUCT, "newest", &[MANIFEST]).await;
        let keys: Vec<ImageKey> = rig.admin_get(&format!("/products/{PRODUCT}/keys")).await;
        let newest = keys.iter().find(|key| key.id == "newest").unwrap();
        assert_eq!(newest.master_key, "file:next.key");
        let during = released.load(Ordering::Relaxed);
        let status = all_done(&rig).await;
        assert!(released.load(Ordering::Relaxed) > during, "nothing was released meanwhile");
        status
    };
    let releases = async {
        loop {
            guest.open(&rig, &started.token).await;
            released.fetch_add(1, Ordering::Relaxed);
        }
    };
    let status = tokio::select! { status = others => status, () = releases => unreachable!() };
    let [new, old] = status.master_keys.try_into().unwrap();
    assert_eq!((new.name.as_str(), new.retired_at.is_none()), ("file:next.key", true));
    // All keys, those of the rig and of this test, and two working keys.
    assert_eq!(new.sealed, KEYS as u64 + 4);
    assert_eq!((old.name.as_str(), old.sealed, old.retired_at.is_some()), ("file:master.key", 0, true));
    let aside = old.set_aside.unwrap();
    assert!(!rig.home.directory().join("service/master.key").exists() && std::path::Path::new(&aside).exists());
    guest.open(&rig, &started.token).await;
    let [changed] = rig.audit_of("master_key_changed").await.try_into().unwrap();
    assert_eq!((&changed["master_key"], &changed["replaces"]), (&json!("file:next.key"), &json!(["file:master.key"])));
    assert_eq!(changed["by"]["token"], "test");
    assert_eq!(rig.audit_of("master_key_retired").await.len(), 1);
}

#[tokio::test]
async fn a_service_that_is_stopped_in_the_middle_goes_on_when_it_starts() {
    let mut rig = Rig::start().await;
    register_many(&rig).await;
    make_file(&rig, "next.key", 9);
    let begun: CustodyStatus = rotate(&rig, "file:next.key").await.ok();
    assert!(begun.rotation.is_some());
    rig.restart().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let token = guest.start(&rig).await.token;
    guest.open(&rig, &token).await;
    let status = all_done(&rig).await;
    assert_eq!(status.master_keys[0].sealed, KEYS as u64 + 3);
    // Without the former key.
    rig.restart().await;
    guest.open(&rig, &token).await;
    rig.register_key(PRODUCT, KEY_ID, &[MANIFEST]).await;
}

#[tokio::test]
async fn what_a_lease_rests_on_is_opened_after_the_master_key_was_changed() {
    let mut rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    make_file(&rig, "next.key", 9);
    assert_eq!(rotate(&rig, "file:next.key").await.status, 200);
    all_done(&rig).await;
    rig.restart().await;
    advance(60);
    guest.renew(&rig).await.ok::<serde_json::Value>();
    let bundle = rig.service.evidence_bundle(&guest.lease_id()).await.unwrap();
    assert_eq!(bundle.attestations.len(), 2);
}

#[tokio::test]
async fn a_master_key_that_cannot_be_used_changes_nothing() {
    let rig = Rig::start().await;
    make_file(&rig, "short.key", 9);
    std::fs::write(rig.home.directory().join("service/short.key"), "c2hvcnQ=").unwrap();
    for (to, words) in [
        ("file:absent.key", "is not there or cannot be used"),
        ("file:short.key", "is the base64 of 32 bytes"),
        ("file:master.key", "is the master key already"),
        ("file:../admin.token", "absolute or below"),
        ("nonsense", "a master key is named by"),
        ("openbao://transit/key", "cannot be reached from here"),
        ("pkcs11:object=a?module-path=/tmp/a.so", "says how the token is reached"),
    ] {
        let problem = rotate(&rig, to).await.problem(400, "malformed");
        assert!(problem.detail.contains(words), "{to}: {}", problem.detail);
    }
    let [only] = status(&rig).await.master_keys.try_into().unwrap();
    assert_eq!((only.name.as_str(), only.sealed), ("file:master.key", 2));
    assert!(rig.audit_of("master_key_changed").await.is_empty());
}

#[tokio::test]
async fn one_change_at_a_time() {
    let rig = Rig::start().await;
    register_many(&rig).await;
    make_file(&rig, "next.key", 9);
    make_file(&rig, "other.key", 8);
    let (first, second) = tokio::join!(rotate(&rig, "file:next.key"), rotate(&rig, "file:other.key"));
    let mut told = [first.status, second.status];
    told.sort_unstable();
    assert_eq!(told[0], 200);
    assert!([409, 503].contains(&told[1]), "{told:?}");
    let status = all_done(&rig).await;
    assert_eq!(status.master_keys.len(), 2);
}
