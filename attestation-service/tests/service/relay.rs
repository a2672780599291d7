//! Relays, as the service above them sees them: who may hold a licence's seats, what it gets, and how it ends.

use std::time::Duration;

use attestation_service::api::Delegation;
use attestation_service::boot_time;
use jose::jwe::Jwe;
use launch_evidence::simulated::SimulatedGuest;
use release_protocol::{AttestAnswer, LeaseId, RelayStatement};
use reqwest::Method;
use serde_json::json;

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{Answer, GRACE_SECONDS, KEK, KEY_ID, KEY_PATH, LEASE_SECONDS, PRODUCT, Rig, advance};

const ANY_GUEST: &str = "package sealift.release\nimport rego.v1\ndefault allow := true\n";

/// Attests as a relay.
async fn relay(rig: &Rig, guest: &Guest) -> Answer {
    relay_in(rig, &rig.guest, guest, None).await
}

/// The same in this machine; with a lease as one that was started again.
async fn relay_in(rig: &Rig, machine: &SimulatedGuest, guest: &Guest, lease: Option<&LeaseId>) -> Answer {
    let mut runtime_data = guest.runtime_data(&challenge(rig).await);
    runtime_data.workload = None;
    runtime_data.lease = lease.cloned();
    let (url, resumes) = ("https://relay.example".parse().unwrap(), lease.is_some());
    runtime_data.relay =
        Some(RelayStatement { url, log_key: Some(rig.service.log_verifier_key()), license_key: None, resumes });
    attest(rig, &prove(machine, &runtime_data)).await
}

async fn delegation(rig: &Rig, token: &str) -> Answer {
    rig.send(Method::GET, "/kbs/v0/delegation", Some(token), None, None).await
}

/// A service whose product relays may hold.
async fn rig() -> Rig {
    let rig = Rig::start().await;
    assert_eq!(rig.set_policy(ANY_GUEST).await.status, 204);
    rig
}

#[tokio::test]
async fn a_relay_gets_what_it_may_hand_on_and_the_log_says_so() {
    let rig = rig().await;
    let license = rig.issue(|license| (license.relay, license.seats) = (true, 3)).await;
    let guest = Guest::new(&rig, &license.token);
    let answer: AttestAnswer = relay(&rig, &guest).await.ok();
    assert!(answer.receipt.is_some() && answer.lease.is_some());
    let granted = rig.audit_of("lease_granted").await.remove(0);
    assert_eq!((&granted["manifest_digest"], &granted["relay"]), (&json!("relay"), &json!("https://relay.example/")));
    assert_eq!(granted["relay_log"], json!(rig.service.log_verifier_key()));
    let delegation: Delegation = delegation(&rig, &answer.token).await.ok();
    assert_eq!((delegation.license.seats, delegation.license.customer.as_str()), (3, "customer"));
    let [product] = delegation.products.as_slice() else { panic!("{delegation:?}") };
    assert_eq!((product.name.as_str(), product.policy.as_str()), (PRODUCT, ANY_GUEST));
    assert_eq!((product.references.len(), product.keys[0].id.as_str()), (1, KEY_ID));
    let key = rig.resource(Some(&answer.token), KEY_PATH).await;
    assert_eq!(guest.key.decrypt(&Jwe::parse(&key.body).unwrap()).unwrap().as_slice(), KEK);
    assert_eq!(rig.audit_of("key_released").await.len(), 1);
}

#[tokio::test]
async fn a_relay_gets_keys_of_its_licences_products_and_nothing_else() {
    let rig = rig().await;
    rig.create_product("bank").await;
    rig.register_key("bank", "key-2", &["sha256:2222222222222222222222222222222222222222222222222222222222222222"])
        .await;
    rig.register_key(PRODUCT, "pending", &[]).await;
    let path = "/api/v1/products/shop/secrets/model/weights";
    let put = rig.send(Method::PUT, path, Some(&rig.admin_token), None, Some(b"secret".to_vec())).await;
    assert!(put.status < 300, "{put:?}");
    let license = rig.issue(|license| license.relay = true).await;
    let token = relay(&rig, &Guest::new(&rig, &license.token)).await.ok::<AttestAnswer>().token;
    let denied = async |path| rig.resource(Some(&token), path).await.denied().remove(0);
    assert_eq!(denied("bank/image-key/key-2").await, "the relay's licence does not cover product bank");
    assert!(denied("shop/image-key/pending").await.contains("nothing else"));
    assert!(denied("shop/model/weights").await.contains("nothing else"));
}

#[tokio::test]
async fn a_relays_licence_starts_no_workload_and_a_workloads_licence_delegates_nothing() {
    let rig = rig().await;
    let of_relay = rig.issue(|license| license.relay = true).await;
    let denied = Guest::new(&rig, &of_relay.token).attest(&rig).await.denied();
    assert!(denied[0].contains("is a relay's, it starts no workload"), "{denied:?}");
    let ordinary = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &ordinary.token);
    let denied = relay(&rig, &guest).await.denied();
    assert!(denied[0].contains("is for workloads, no relay may hand it on"), "{denied:?}");
    let token = guest.start(&rig).await.token;
    let denied = delegation(&rig, &token).await.denied();
    assert!(denied[0].contains("this session is no relay's"), "{denied:?}");
    assert_eq!(delegation(&rig, "none").await.status, 401);
}

#[tokio::test]
async fn the_default_policy_delegates_nothing() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.relay = true).await;
    let denied = relay(&rig, &Guest::new(&rig, &license.token)).await.denied();
    assert_eq!(denied, ["the default policy delegates nothing of product shop to relays"]);
}

#[tokio::test]
async fn each_product_of_the_licence_is_asked() {
    let rig = rig().await;
    rig.create_product("bank").await;
    let license = rig.issue(|license| {
        license.relay = true;
        license.products.push("bank".parse().unwrap());
    });
    let denied = relay(&rig, &Guest::new(&rig, &license.await.token)).await.denied();
    assert!(denied.iter().any(|reason| reason.contains("nothing of product bank to relays")), "{denied:?}");
}

#[tokio::test]
async fn one_relay_holds_a_licence_whatever_its_seats() {
    let rig = rig().await;
    let license = rig.issue(|license| (license.relay, license.seats) = (true, 5)).await;
    let first = Guest::new(&rig, &license.token);
    relay(&rig, &first).await.ok::<AttestAnswer>();
    let second = Guest::new(&rig, &license.token);
    let denied = relay(&rig, &second).await.denied();
    assert!(denied[0].contains("another relay holds licence"), "{denied:?}");
    advance(LEASE_SECONDS + GRACE_SECONDS);
    relay(&rig, &second).await.ok::<AttestAnswer>();
    let denied = relay(&rig, &first).await.denied();
    assert!(denied[0].contains("another relay holds licence"), "{denied:?}");
}

#[tokio::test]
async fn a_relay_that_crashed_goes_on_with_its_lease_in_its_own_guest_alone() {
    let rig = rig().await;
    let license = rig.issue(|license| (license.relay, license.seats) = (true, 5)).await;
    let guest = Guest::new(&rig, &license.token);
    let lease = relay(&rig, &guest).await.ok::<AttestAnswer>().lease.unwrap().id;
    // A copy of its home in a guest that was launched of the same files.
    let copy = rig.launch(b"the shim");
    assert_eq!(copy.measurement(), rig.guest.measurement());
    let denied = relay_in(&rig, &copy, &guest, Some(&lease)).await.denied();
    assert_eq!(denied, ["the lease to renew belongs to another guest key"]);
    let denied = relay_in(&rig, &copy, &guest, None).await.denied();
    assert!(denied[0].contains("another relay holds licence"), "{denied:?}");
    advance(1);
    let again: AttestAnswer = relay_in(&rig, &rig.guest, &guest, Some(&lease)).await.ok();
    assert_eq!(again.lease.unwrap().id, lease);
    let (granted, renewed) = (rig.audit_of("lease_granted").await, rig.audit_of("lease_renewed").await);
    assert_eq!((granted.len(), renewed.len()), (1, 1), "one lease, gone on with");
}

#[tokio::test]
async fn a_revoked_relay_gets_nothing_any_more() {
    let rig = rig().await;
    let license = rig.issue(|license| license.relay = true).await;
    let guest = Guest::new(&rig, &license.token);
    let token = relay(&rig, &guest).await.ok::<AttestAnswer>().token;
    rig.revoke(&license.id).await;
    for answer in
        [delegation(&rig, &token).await, rig.resource(Some(&token), KEY_PATH).await, relay(&rig, &guest).await]
    {
        assert!(answer.denied()[0].contains("was revoked"));
    }
}

#[tokio::test]
async fn a_relay_hands_nothing_on_to_another_relay() {
    let rig = rig().await;
    let license = rig.issue(|license| license.relay = true).await;
    rig.service.act_as_relay();
    let denied = relay(&rig, &Guest::new(&rig, &license.token)).await.denied();
    assert_eq!(denied, ["this service is a relay itself: it hands nothing on to another one"]);
}

#[tokio::test]
async fn a_guests_lease_and_grace_end_with_the_relays_authority() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 1).await;
    rig.service.act_as_relay();
    let guest = Guest::new(&rig, &license.token);
    let denied = guest.attest(&rig).await.denied();
    assert_eq!(denied, ["this service is a relay, and has no authority of the vendor's now"]);
    let (lease_seconds, grace_seconds) = (LEASE_SECONDS.unsigned_abs(), GRACE_SECONDS.unsigned_abs());
    for (left, most) in [(lease_seconds - 1, lease_seconds - 1), (lease_seconds + grace_seconds - 1, lease_seconds)] {
        advance(1);
        rig.service.has_authority_until(boot_time() + Duration::from_secs(left));
        let lease = guest.start(&rig).await.lease.unwrap();
        assert!(lease.ttl_seconds <= most && lease.ttl_seconds + lease.grace_seconds <= left, "{lease:?}");
    }
    // Its seat is free when it is over.
    let other = Guest::new(&rig, &license.token);
    other.attest(&rig).await.problem(409, "seats-exhausted");
    advance(LEASE_SECONDS + GRACE_SECONDS - 1);
    other.start(&rig).await;
    rig.service.has_authority_until(boot_time());
    assert_eq!(other.attest(&rig).await.denied(), denied);
}

#[tokio::test]
async fn what_is_delegated_is_taken_up_anew_each_time_and_given_up_whole() {
    let (parent, relay_rig) = (rig().await, Rig::start().await);
    // The relay's rig has a product of another vendor: of that, nothing may be taken for the parent's.
    let license = parent.issue(|license| (license.relay, license.seats) = (true, 3)).await;
    let token = relay(&parent, &Guest::new(&parent, &license.token)).await.ok::<AttestAnswer>().token;
    let mut delegated: Delegation = delegation(&parent, &token).await.ok();
    let conflict = relay_rig.service.take_up(&delegated).await.unwrap_err().to_string();
    assert!(conflict.contains("other signers here"), "{conflict}");
    delegated.products[0].name = "site".parse().unwrap();
    let relay = &relay_rig.service;
    relay.take_up(&delegated).await.unwrap();
    let missing = relay.missing_keys(&delegated).await.unwrap();
    assert_eq!(missing.len(), 1);
    relay.take_up_key(&missing[0].0, missing[0].1, &KEK).await.unwrap();
    assert!(relay.missing_keys(&delegated).await.unwrap().is_empty());
    let first = relay.child_license(&delegated).await.unwrap();
    delegated.license.seats = 2;
    let renewed = relay.child_license(&delegated).await.unwrap();
    assert_eq!(renewed.id, first.id, "the files that are out there go on serving");
    relay.give_up("test").await.unwrap();
    assert_eq!(relay.missing_keys(&delegated).await.unwrap().len(), 1, "no key is left");
    let guest = Guest::new(&relay_rig, &renewed.token);
    let denied = guest.attest(&relay_rig).await.denied();
    assert!(denied[0].contains("was revoked"), "{denied:?}");
}
