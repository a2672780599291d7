//! Denied platforms: nothing new on them, no renewal, no key; until they are allowed again.

use attestation_service::api::{LeaseStatus, PlatformDenial, PlatformDenied};
use attestation_service::{AuditEntry, TcbComponent};
use release_protocol::AttestAnswer;
use reqwest::Method;
use serde_json::{Value, json};

use crate::guest::Guest;
use crate::rig::{Answer, KEY_PATH, Rig, advance};

async fn ask(rig: &Rig, what: &str, rule: &str, dry_run: bool) -> Answer {
    let body = json!({"rule": rule, "reason": "the advisory of June", "dry_run": dry_run});
    rig.admin(Method::POST, &format!("/platforms/{what}"), &body).await
}

async fn deny(rig: &Rig, rule: &str) -> PlatformDenied {
    ask(rig, "deny", rule, false).await.ok()
}

async fn allow(rig: &Rig, rule: &str) {
    ask(rig, "allow", rule, false).await.ok::<PlatformDenial>();
}

/// The rules that concern the rig's platform.
async fn rules(rig: &Rig) -> [String; 3] {
    let [lease] = rig.admin_get::<Vec<LeaseStatus>>("/leases").await.try_into().unwrap();
    let platform = lease.platform.unwrap();
    let level = platform.reported_tcb.unwrap()[&TcbComponent::Snp];
    [platform.product.to_string(), lease.chip_id, format!("{}:snp<{}", platform.product, level + 1)]
}

#[tokio::test]
async fn a_denied_platform_gets_no_lease_no_renewal_and_no_key_until_it_is_allowed() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 9).await;
    let guest = Guest::new(&rig, &license.token);
    let token = guest.start(&rig).await.token;
    for rule in rules(&rig).await {
        let denied = deny(&rig, &rule).await;
        assert_eq!(denied.leases.iter().map(|lease| &lease.id).collect::<Vec<_>>(), [&guest.lease_id().0], "{rule}");
        for answer in [
            Guest::new(&rig, &license.token).attest(&rig).await,
            guest.renew(&rig).await,
            rig.resource(Some(&token), KEY_PATH).await,
        ] {
            let reasons = answer.denied();
            assert!(
                reasons[0].contains("denied by the vendor") && reasons[0].ends_with("advisory of June"),
                "{reasons:?}"
            );
        }
        allow(&rig, &rule).await;
        guest.renew(&rig).await.ok::<AttestAnswer>();
        guest.open(&rig, &token).await;
    }
    let finding = rig.audit_of("denied").await.remove(0);
    assert_eq!((&finding["stage"], &finding["findings"][0]["claim"]), (&json!("platform"), &json!("platform.product")));
}

#[tokio::test]
async fn denials_of_other_platforms_change_nothing() {
    let rig = Rig::start().await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    guest.start(&rig).await;
    let [product, chip, tcb] = rules(&rig).await;
    let other = if product == "Milan" { "Genoa" } else { "Milan" };
    let flipped = if chip.starts_with('0') { "1" } else { "0" };

    let level: u8 = tcb.rsplit('<').next().unwrap().parse().unwrap();
    let reached = tcb.replace(&format!("<{level}"), &format!("<{}", level.saturating_sub(1).max(1)));
    for rule in [other, "TDX", &format!("{flipped}{}", &chip[1..]), &reached, &tcb.replace(&product, other)] {
        assert!(deny(&rig, rule).await.leases.is_empty(), "{rule}");
    }
    advance(1);
    guest.renew(&rig).await.ok::<AttestAnswer>();
}

#[tokio::test]
async fn a_dry_run_lists_leases_and_denies_nothing() {
    let rig = Rig::start().await;
    let license = rig.issue(|license| license.seats = 9).await;
    let (guest, ended) = (Guest::new(&rig, &license.token), Guest::new(&rig, &license.token));
    guest.start(&rig).await;
    let [product, ..] = rules(&rig).await;
    ended.start(&rig).await;
    let end = format!("/leases/{}/end", ended.lease_id());
    assert_eq!(rig.admin(Method::POST, &end, &Value::Null).await.status, 204);
    let denied: PlatformDenied = ask(&rig, "deny", &product, true).await.ok();
    assert!(denied.dry_run);
    let [lease] = denied.leases.try_into().unwrap();
    assert_eq!((lease.id, lease.state.as_str()), (guest.lease_id().0, "live"));
    guest.renew(&rig).await.ok::<AttestAnswer>();
    assert!(rig.admin_get::<Vec<PlatformDenial>>("/platforms").await.is_empty());
    assert!(rig.audit_of("platform_denied").await.is_empty());
}

#[tokio::test]
async fn denials_are_listed_recorded_and_kept_over_a_restart() {
    let mut rig = Rig::start().await;
    deny(&rig, "Turin:fmc<2,snp<3").await;
    rig.restart().await;
    let [denial] = rig.admin_get::<Vec<PlatformDenial>>("/platforms").await.try_into().unwrap();
    assert_eq!(
        (denial.rule.to_string().as_str(), denial.reason.as_str()),
        ("Turin:snp<3,fmc<2", "the advisory of June")
    );
    ask(&rig, "deny", "Turin:snp<3,fmc<2", false).await.problem(409, "conflict");
    ask(&rig, "allow", "Turin:snp<3", false).await.problem(404, "unknown");
    allow(&rig, "Turin:fmc<2,snp<3").await;
    assert!(rig.admin_get::<Vec<PlatformDenial>>("/platforms").await.is_empty());
    let by = json!({"token": "test", "role": "admin"});
    let body = json!({"rule": "Turin:snp<3,fmc<2", "reason": "the advisory of June", "leases": [], "by": by});
    assert_eq!(rig.audit_of("platform_denied").await, [body]);
    assert_eq!(rig.audit_of("platform_allowed").await[0]["rule"], "Turin:snp<3,fmc<2");
}

#[tokio::test]
async fn a_malformed_denial_is_refused() {
    let rig = Rig::start().await;
    for rule in ["Rome", "Milan:fmc<2", "TDX:snp<1", &"0".repeat(128)] {
        ask(&rig, "deny", rule, false).await.problem(400, "malformed");
    }
    for reason in [" ".to_owned(), "x".repeat(513)] {
        let body = json!({"rule": "Milan", "reason": reason});
        rig.admin(Method::POST, "/platforms/deny", &body).await.problem(400, "malformed");
    }
}

#[tokio::test]
async fn one_audit_entry_can_be_asked_for() {
    let rig = Rig::start().await;
    deny(&rig, "Milan").await;
    let all = rig.audit().await;
    let last = all.last().unwrap();
    let entry: AuditEntry = rig.admin_get(&format!("/audit/{}", last.sequence)).await;
    assert_eq!((entry.sequence, &entry.kind, &entry.body), (last.sequence, &last.kind, &last.body));
    for (number, status, code) in
        [("99999", 404, "unknown"), ("18446744073709551615", 404, "unknown"), ("x", 400, "malformed")]
    {
        let path = format!("/api/v1/audit/{number}");
        rig.send(Method::GET, &path, Some(&rig.admin_token), None, None).await.problem(status, code);
    }
}
