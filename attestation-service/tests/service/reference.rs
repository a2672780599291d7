//! Reference values: by measurement, by ID key, and until when they count.

use attestation_service::api::Reference;
use jiff::{SignedDuration, Timestamp};
use launch_evidence::KeyDigest;
use reqwest::Method;
use serde_json::{Value, json};

use crate::guest::Guest;
use crate::rig::{Answer, PRODUCT, Rig, advance, now};

const ID_KEY: KeyDigest = KeyDigest([0x1D; 48]);

async fn references(rig: &Rig) -> Vec<Reference> {
    rig.admin_get(&format!("/products/{PRODUCT}/references")).await
}

async fn add(rig: &Rig, reference: Value) -> Answer {
    rig.admin(Method::POST, &format!("/products/{PRODUCT}/references"), &reference).await
}

fn id_key(min_svn: u32) -> Value {
    json!({"kind": "id-key", "id_key_digest": ID_KEY, "min_svn": min_svn, "label": "release key"})
}

async fn retire(rig: &Rig, id: &str, at: Option<Timestamp>) -> Answer {
    rig.admin(Method::POST, &format!("/references/{id}/retire"), &json!({"at": at, "reason": "the shim leaks"})).await
}

fn later(seconds: i64) -> Timestamp {
    now().checked_add(SignedDuration::from_secs(seconds)).unwrap()
}

#[tokio::test]
async fn a_guest_is_known_by_the_key_of_its_id_block() {
    let mut rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 9).await;
    rig.guest = rig.launch_with_id_key(ID_KEY, 3);
    let reasons = Guest::new(&rig, &license.token).attest(&rig).await.denied();
    assert!(reasons[0].contains("is no reference value"), "{reasons:?}");

    add(&rig, id_key(4)).await.ok::<Reference>();
    let reasons = Guest::new(&rig, &license.token).attest(&rig).await.denied();
    assert_eq!(
        reasons,
        [format!("guest SVN 3 is below 4, the lowest that product shop accepts under ID key {ID_KEY}")]
    );
    rig.guest = rig.launch_with_id_key(ID_KEY, 4);
    Guest::new(&rig, &license.token).start(&rig).await;
    rig.guest = rig.launch_with_id_key(KeyDigest([0x2D; 48]), 9);
    Guest::new(&rig, &license.token).attest(&rig).await.denied();
}

#[tokio::test]
async fn a_retired_reference_opens_nothing_from_its_date_on() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    let id = references(&rig).await.remove(0).id;
    let retired: Reference = retire(&rig, &id, Some(later(60))).await.ok();
    assert_eq!((retired.retired_at, retired.retire_reason.as_deref()), (Some(later(60)), Some("the shim leaks")));
    advance(59);
    guest.renew(&rig).await.ok::<Value>();
    advance(1);
    let measurement = rig.guest.measurement();
    let expected = format!(
        "launch measurement {measurement} is no reference value of product shop any more, it was retired at {}: \
         the shim leaks",
        now()
    );
    assert_eq!(guest.renew(&rig).await.denied(), [expected]);
    assert_eq!(references(&rig).await, [retired], "it is still listed");
    assert_eq!(rig.audit_of("reference_retired").await[0]["measurement"], json!(measurement));
}

/// A policy that looks at `references` alone, as all did before there was a date.
#[tokio::test]
async fn a_policy_that_knows_of_no_retirement_accepts_no_retired_one() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 9).await;
    let source = "package sealift.release\nimport rego.v1\n\
        allow if input.references[_].measurement == input.tee.measurement\n";
    assert_eq!(rig.set_policy(source).await.status, 204);
    Guest::new(&rig, &license.token).start(&rig).await;
    let id = references(&rig).await.remove(0).id;
    retire(&rig, &id, None).await.ok::<Reference>();
    Guest::new(&rig, &license.token).attest(&rig).await.denied();
}

#[tokio::test]
async fn a_retirement_is_moved_until_it_has_come() {
    let rig = Rig::start().await;
    let id = references(&rig).await.remove(0).id;
    retire(&rig, &id, Some(later(-1))).await.problem(409, "conflict");
    retire(&rig, "ref-none", None).await.problem(404, "unknown");
    let path = format!("/references/{id}/retire");
    rig.admin(Method::POST, &path, &json!({"reason": " "})).await.problem(400, "malformed");
    retire(&rig, &id, Some(later(60))).await.ok::<Reference>();
    let moved: Reference = retire(&rig, &id, Some(later(120))).await.ok();
    assert_eq!(moved.retired_at, Some(later(120)));
    advance(120);
    retire(&rig, &id, Some(later(60))).await.problem(409, "conflict");

    // Adding it again would be silent otherwise; once removed, it is a new one.
    let again = json!({"kind": "measurement", "measurement": rig.guest.measurement()});
    add(&rig, again.clone()).await.problem(409, "conflict");
    let path = format!("/products/{PRODUCT}/references/{id}");
    assert_eq!(rig.admin(Method::DELETE, &path, &()).await.status, 204);
    assert_ne!(add(&rig, again).await.ok::<Reference>().id, id);
}

#[tokio::test]
async fn a_reference_value_is_kept_once() {
    let rig = Rig::start().await;
    let source = json!({"vcpus": 4, "ovmf": {"name": "OVMF.fd", "sha256": "ab"}});
    let mut first = id_key(4);
    first["source"] = source.clone();
    let first: Reference = add(&rig, first).await.ok();
    assert_eq!(first.source, source);
    assert_eq!(add(&rig, id_key(4)).await.ok::<Reference>(), first);
    assert_ne!(add(&rig, id_key(5)).await.ok::<Reference>().id, first.id);
    assert_eq!(references(&rig).await.len(), 3);
    assert_eq!(rig.audit_of("reference_added").await.len(), 3);
}

#[tokio::test]
async fn a_malformed_reference_value_is_refused() {
    let rig = Rig::start().await;
    let digest = "ab".repeat(48);
    for reference in [
        json!({"measurement": digest}),
        json!({"kind": "measurement", "measurement": "ab"}),
        json!({"kind": "measurement", "measurement": digest.to_uppercase()}),
        json!({"kind": "measurement", "id_key_digest": digest, "min_svn": 0}),
        json!({"kind": "id-key", "id_key_digest": digest}),
        json!({"kind": "id-key", "id_key_digest": digest, "min_svn": -1}),
        json!({"kind": "id-key", "id_key_digest": "00".repeat(48), "min_svn": 0}),
    ] {
        add(&rig, reference).await.problem(400, "malformed");
    }
    assert_eq!(references(&rig).await.len(), 1);
}
