//! Guests that may do without the service for a while: what is granted, whose seat stays taken, and renewals that come by file.

use attestation_service::AuditEntry;
use attestation_service::api::{LeaseStatus, Revoked};
use launch_evidence::simulated::SimulatedGuest;
use release_protocol::{
    AttestAnswer, FileRenewal, Obligations, RENEWAL_REQUEST_FORMAT, RenewalAnswer, RenewalByFile, RenewalRequest,
    RuntimeData, request_digest,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{Answer, GRACE_SECONDS, KEY_PATH, LEASE_SECONDS, Rig, advance, now};

const DAY: i64 = 24 * 3600;
const OFFLINE: i64 = 3 * DAY;

/// A guest with a licence for one seat and three days without the service.
async fn edge(rig: &Rig) -> (Guest, String) {
    let license = rig
        .issue(|license| {
            license.offline_seconds = Some(OFFLINE.unsigned_abs());
            license.valid_until = now().checked_add(jiff::SignedDuration::from_hours(24 * 90)).unwrap().into();
        })
        .await;
    (Guest::new(rig, &license.token), license.id)
}

async fn start(rig: &Rig, guest: &Guest) -> AttestAnswer {
    let runtime_data = RuntimeData { offline: true, ..guest.runtime_data(&challenge(rig).await) };
    attest(rig, &prove(&rig.guest, &runtime_data)).await.ok()
}

fn entry_of(answer: &AttestAnswer) -> u64 {
    answer.receipt.as_ref().unwrap().index.get() + 1
}

/// What a guest states to renew by file, based on the entry that it knows.
fn statement(guest: &Guest, entry: u64) -> RuntimeData {
    RuntimeData {
        lease: Some(guest.lease_id()),
        offline: true,
        renewal: Some(FileRenewal { made_at: now(), entry, log_size: entry }),
        ..guest.runtime_data(&uuid::Uuid::new_v4().to_string())
    }
}

async fn bring(rig: &Rig, by: &SimulatedGuest, statement: &RuntimeData) -> Answer {
    let request = RenewalRequest { format: RENEWAL_REQUEST_FORMAT.to_owned(), attestation: prove(by, statement) };
    rig.admin(Method::POST, "/leases/renew", &request).await
}

fn read(rig: &Rig, answer: &RenewalAnswer) -> (AuditEntry, RenewalByFile) {
    let verified = answer.receipt.verify(&rig.service.log_verifier_key()).unwrap();
    let entry: AuditEntry = serde_json::from_slice(verified.entry).unwrap();
    let granted = serde_json::from_value(entry.body.clone()).unwrap();
    (entry, granted)
}

#[tokio::test]
async fn an_allowance_is_for_a_licence_that_has_one_and_a_guest_that_asks() {
    let rig = Rig::start().await;
    let (guest, _) = edge(&rig).await;
    let answer = start(&rig, &guest).await;
    let expected = Obligations { offline_seconds: Some(OFFLINE.unsigned_abs()), ..Obligations::default() };
    assert_eq!(answer.obligations.unwrap().offline_seconds, expected.offline_seconds);
    advance(1);
    // A shim that knows of none is not told of one: it would refuse what it does not know.
    assert_eq!(guest.renew(&rig).await.ok::<AttestAnswer>().obligations.unwrap().offline_seconds, None);

    let plain = rig.issue(|_| {}).await;
    let plain = Guest::new(&rig, &plain.token);
    assert_eq!(start(&rig, &plain).await.obligations.unwrap().offline_seconds, None);
    let leases: Vec<LeaseStatus> = rig.admin_get("/leases").await;
    let until = |id: &str| leases.iter().find(|lease| lease.id == id).unwrap().offline_until;
    assert_eq!(until(&plain.lease_id().0), None);
    assert_eq!(until(&guest.lease_id().0).unwrap().as_second(), now().as_second() - 1 + OFFLINE);
}

#[tokio::test]
async fn a_policy_shortens_the_allowance_or_forbids_it_and_no_more_than_the_licence_says_is_granted() {
    let rig = Rig::start().await;
    let (guest, _) = edge(&rig).await;
    let policy = |seconds: &str| {
        format!("package sealift.release\nallow if input.offline\nobligations := {{\"offline_seconds\": {seconds}}}\n")
    };
    let cases =
        [("60", Some(60)), ("input.license.offline_seconds / 3", Some(86400)), ("9999999", Some(259_200)), ("0", None)];
    for (seconds, granted) in cases {
        assert_eq!(rig.set_policy(&policy(seconds)).await.status, 204);
        advance(1);
        assert_eq!(start(&rig, &guest).await.obligations.unwrap().offline_seconds, granted, "{seconds}");
    }
    let short = rig.issue(|license| license.offline_seconds = Some(OFFLINE.unsigned_abs())).await;
    assert_eq!(rig.set_policy("").await.status, 204);
    let short = start(&rig, &Guest::new(&rig, &short.token)).await;
    let left = short.obligations.unwrap().offline_seconds.unwrap();
    assert!(left <= DAY.unsigned_abs(), "it ends with the licence: {left}");
    for wrong in [0, 94 * DAY.unsigned_abs()] {
        let new = crate::rig::new_license(|license| license.offline_seconds = Some(wrong));
        let problem = rig.admin(Method::POST, "/licenses", &new).await.problem(400, "malformed");
        assert!(problem.detail.contains("93 days"), "{problem:?}");
    }
}

#[tokio::test]
async fn the_seat_stays_taken_until_the_allowance_is_over_and_a_revocation_says_so() {
    let rig = Rig::start().await;
    let (guest, id) = edge(&rig).await;
    let license = guest.license.clone().unwrap();
    start(&rig, &guest).await;
    advance(LEASE_SECONDS + GRACE_SECONDS);
    Guest::new(&rig, &license).attest(&rig).await.problem(409, "seats-exhausted");
    advance(OFFLINE - LEASE_SECONDS - GRACE_SECONDS - 1);
    Guest::new(&rig, &license).attest(&rig).await.problem(409, "seats-exhausted");
    let reason = json!({"reason": "contract ended"});
    let revoked: Revoked = rig.admin(Method::POST, &format!("/licenses/{id}/revoke"), &reason).await.ok();
    assert_eq!((revoked.running, revoked.offline), (1, 1));
    assert_eq!(revoked.stopped_by.unwrap().as_second(), now().as_second() + 1);

    let (guest, _) = edge(&rig).await;
    start(&rig, &guest).await;
    advance(OFFLINE);
    Guest::new(&rig, &guest.license.clone().unwrap()).start(&rig).await;
    assert_eq!(rig.audit_of("lease_granted").await[0]["offline_seconds"], OFFLINE);
}

#[tokio::test]
async fn an_allowance_that_is_taken_away_keeps_its_seat_for_as_long_as_the_guest_may_have_kept_it() {
    let rig = Rig::start().await;
    let (guest, _) = edge(&rig).await;
    start(&rig, &guest).await;
    assert_eq!(
        rig.set_policy("package sealift.release\nallow := true\nobligations := {\"offline_seconds\": 0}").await.status,
        204
    );
    advance(60);
    start(&rig, &guest).await;
    advance(OFFLINE - 61);
    let license = guest.license.clone().unwrap();
    Guest::new(&rig, &license).attest(&rig).await.problem(409, "seats-exhausted");
    advance(1);
    Guest::new(&rig, &license).start(&rig).await;
}

#[tokio::test]
async fn a_lease_that_the_vendor_ends_keeps_its_seat_until_the_allowance_is_over_and_one_that_its_guest_gives_back_does_not()
 {
    let rig = Rig::start().await;
    let (guest, _) = edge(&rig).await;
    let license = guest.license.clone().unwrap();
    let token = start(&rig, &guest).await.token;
    let path = format!("/leases/{}/end", guest.lease_id());
    for _ in 0..2 {
        assert_eq!(rig.admin(Method::POST, &path, &()).await.status, 204);
    }
    assert_eq!(rig.audit_of("lease_ended").await.len(), 1);
    advance(1);
    assert_eq!(guest.renew(&rig).await.denied(), ["the lease has ended"]);
    let entry = rig.audit_of("lease_ended").await[0]["previous"].as_u64().unwrap();
    assert_eq!(bring(&rig, &rig.guest, &statement(&guest, entry)).await.denied(), ["the lease has ended"]);
    assert_eq!(rig.resource(Some(&token), KEY_PATH).await.denied(), ["the lease has ended"]);
    let leases: Vec<LeaseStatus> = rig.admin_get("/leases").await;
    assert_eq!((leases[0].state.as_str(), leases[0].end_reason.as_deref()), ("ended", Some("ended by the vendor")));
    Guest::new(&rig, &license).attest(&rig).await.problem(409, "seats-exhausted");
    advance(OFFLINE - 1);
    let (next, token) = (Guest::new(&rig, &license), start(&rig, &Guest::new(&rig, &license)).await.token);
    rig.send(Method::POST, "/kbs/v0/lease/end", Some(&token), None, None).await;
    next.start(&rig).await;
    let licenses: Vec<Value> = rig.admin_get("/licenses").await;
    assert_eq!(licenses[0]["seats_in_use"], 1);
}

#[tokio::test]
async fn a_request_by_file_renews_once_and_its_entry_says_what_was_granted() {
    let rig = Rig::start().await;
    let (guest, _) = edge(&rig).await;
    let entry = entry_of(&start(&rig, &guest).await);
    advance(2 * DAY);
    let asked = statement(&guest, entry);
    advance(8 * 3600);
    let (renewed, granted) = read(&rig, &bring(&rig, &rig.guest, &asked).await.ok());
    let digest = request_digest(&asked.to_members().unwrap()).unwrap();
    assert_eq!(granted, RenewalByFile { request: digest, offline_seconds: OFFLINE.unsigned_abs() });
    assert_eq!((renewed.kind.as_str(), renewed.body["by"]["token"].as_str()), ("lease_renewed", Some("test")));
    assert_eq!(renewed.body["previous"], entry);

    let twice = bring(&rig, &rig.guest, &asked).await.denied();
    assert_eq!(twice, [format!("this request was answered already, by audit entry {}", renewed.sequence)]);
    // Had the answer been lost, the guest would ask again from where it was; it is no way to an older request.
    advance(1);
    let again = statement(&guest, entry);
    let (second, _) = read(&rig, &bring(&rig, &rig.guest, &again).await.ok());
    assert!(bring(&rig, &rig.guest, &asked).await.denied()[0].contains("answered already"));
    // Its seat is taken from the decision on.
    let leases: Vec<LeaseStatus> = rig.admin_get("/leases").await;
    assert_eq!((leases.len(), leases[0].offline_until.unwrap().as_second()), (1, now().as_second() + OFFLINE));

    // After a renewal by the service itself, what was based on earlier ones is void.
    advance(1);
    let late = statement(&guest, second.sequence);
    start(&rig, &guest).await;
    let void = bring(&rig, &rig.guest, &late).await.denied();
    assert!(void[0].contains("was renewed after this request was made"), "{void:?}");
}

#[tokio::test]
async fn what_a_service_would_refuse_is_refused_by_file_too() {
    let rig = Rig::start().await;
    let (guest, id) = edge(&rig).await;
    let entry = entry_of(&start(&rig, &guest).await);
    advance(60);
    let other = rig.launch(b"another shim");
    assert!(bring(&rig, &other, &statement(&guest, entry)).await.denied()[0].contains("measurement"));

    let mut foreign = statement(&Guest::new(&rig, &guest.license.clone().unwrap()), entry);
    foreign.lease = Some(guest.lease_id());
    let reasons = bring(&rig, &rig.guest, &foreign).await.denied();
    assert_eq!(reasons, ["the lease to renew belongs to another guest key"]);

    let mut request = prove(&rig.guest, &statement(&guest, entry));
    request.runtime_data.insert("nonce".to_owned(), "another".into());
    let request = RenewalRequest { format: RENEWAL_REQUEST_FORMAT.to_owned(), attestation: request };
    rig.admin(Method::POST, "/leases/renew", &request).await.problem(403, "evidence-rejected");

    let never = Guest::new(&rig, &guest.license.clone().unwrap());
    assert_eq!(bring(&rig, &rig.guest, &statement(&never, entry)).await.denied(), ["there is no lease to renew"]);

    for seconds in [7 * DAY + 1, -7 * DAY - 1] {
        let mut old = statement(&guest, entry);
        old.renewal.as_mut().unwrap().made_at = now().checked_sub(jiff::SignedDuration::from_secs(seconds)).unwrap();
        let reasons = bring(&rig, &rig.guest, &old).await.denied();
        assert!(reasons[0].contains("within 168 h it is answered"), "{reasons:?}");
    }
    // What answers a challenge is no request, and a request is no answer to a challenge.
    let online = RuntimeData { lease: Some(guest.lease_id()), ..guest.runtime_data(&challenge(&rig).await) };
    bring(&rig, &rig.guest, &online).await.problem(400, "malformed");
    attest(&rig, &prove(&rig.guest, &statement(&guest, entry))).await.problem(401, "not-attested");
    let form =
        json!({"format": "sealift-renewal-request/9", "attestation": prove(&rig.guest, &statement(&guest, entry))});
    let problem = rig.admin(Method::POST, "/leases/renew", &form).await.problem(400, "malformed");
    assert!(problem.detail.contains("only `sealift-renewal-request/1` is known"), "{problem:?}");

    let mut ahead = statement(&guest, entry);
    ahead.renewal.as_mut().unwrap().log_size = 10_000;
    let problem = bring(&rig, &rig.guest, &ahead).await.problem(400, "malformed");
    assert!(problem.detail.contains("it is another one, or an old copy"), "{problem:?}");

    let asked = statement(&guest, entry);
    rig.revoke(&id).await;
    assert!(bring(&rig, &rig.guest, &asked).await.denied()[0].contains("was revoked"));
    assert!(rig.audit_of("lease_renewed").await.is_empty());
}

#[tokio::test]
async fn a_licence_without_an_allowance_is_not_renewed_by_file_and_an_auditor_renews_nothing() {
    let rig = Rig::start().await;
    let plain = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &plain.token);
    let entry = entry_of(&guest.start(&rig).await);
    advance(1);
    let reasons = bring(&rig, &rig.guest, &statement(&guest, entry)).await.denied();
    assert_eq!(reasons, ["neither licence nor policy let this guest do without the service"]);
    let auditor: Value = rig.admin(Method::POST, "/tokens", &json!({"name": "a", "role": "auditor"})).await.ok();
    let token = auditor["token"].as_str().unwrap();
    let body = Some(b"{}".to_vec());
    rig.send(Method::POST, "/api/v1/leases/renew", Some(token), None, body).await.problem(403, "denied");
}
