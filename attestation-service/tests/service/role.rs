//! Roles of API tokens: what each may do, how tokens end, and that the audit log says who did what.

use attestation_service::api::{CreatedToken, Role};
use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{PRODUCT, Rig, advance, new_license, now};

async fn token(rig: &Rig, role: Role) -> String {
    let new = json!({"name": format!("the-{role}"), "role": role});
    let created: CreatedToken = rig.admin(Method::POST, "/tokens", &new).await.ok();
    created.token.to_string()
}

/// What each role may do of each part of the API, besides administrators.
fn requests() -> Vec<(Method, String, &'static [Role])> {
    use Role::{Auditor, Licensing, Publisher};
    let below = |path: &str| format!("/api/v1{path}");
    vec![
        (Method::GET, below("/products"), &[Publisher, Auditor]),
        (Method::POST, below("/products"), &[Publisher]),
        (Method::PUT, below("/products/other/policy"), &[Publisher]),
        (Method::GET, below("/products/other/references"), &[Publisher, Auditor]),
        (Method::POST, below("/products/other/references"), &[Publisher]),
        (Method::DELETE, below("/products/other/references/ref-1"), &[Publisher]),
        (Method::POST, below("/references/ref-1/retire"), &[Publisher]),
        (Method::POST, below("/products/other/keys"), &[Publisher]),
        (Method::GET, below("/platforms"), &[Publisher, Auditor]),
        (Method::POST, below("/platforms/deny"), &[Publisher]),
        (Method::GET, below("/licenses"), &[Licensing, Auditor]),
        (Method::POST, below("/licenses"), &[Licensing]),
        (Method::POST, below("/licenses/batch"), &[Licensing]),
        (Method::POST, below("/licenses/lic-1/revoke"), &[Licensing]),
        (Method::GET, below("/leases"), &[Licensing, Auditor]),
        (Method::POST, below("/leases/any/end"), &[Licensing]),
        (Method::GET, below("/audit"), &[Auditor]),
        (Method::GET, below("/audit/1"), &[Auditor]),
        (Method::GET, below("/log/checkpoint"), &[Auditor]),
        (Method::GET, below("/log/receipts/1"), &[Auditor]),
        (Method::GET, below("/tokens"), &[Auditor]),
        (Method::POST, below("/tokens"), &[]),
        (Method::POST, below("/tokens/revoke"), &[]),
        (Method::GET, "/metrics".to_owned(), &[Auditor]),
    ]
}

#[tokio::test]
async fn every_role_may_do_its_own_work_and_nothing_else() {
    let rig = Rig::start().await;
    let mut tokens = vec![(Role::Admin, rig.admin_token.to_string())];
    for role in [Role::Publisher, Role::Licensing, Role::Auditor] {
        tokens.push((role, token(&rig, role).await));
    }
    for (method, path, roles) in requests() {
        for (role, token) in &tokens {
            let answer = rig.send(method.clone(), &path, Some(token), None, Some(b"[".to_vec())).await;
            if *role == Role::Admin || roles.contains(role) {
                assert!(![401, 403].contains(&answer.status), "{role} {method} {path}: {}", answer.status);
            } else {
                let reasons = answer.denied();
                let needed: Vec<_> = roles.iter().chain(&[Role::Admin]).map(Role::to_string).collect();
                let expected = format!("the token's role is {role}; this needs {}", needed.join(" or "));
                assert_eq!(reasons, [expected], "{role} {method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_audit_log_says_whose_token_did_what() {
    let rig = Rig::start().await;
    let created = &rig.audit_of("product_created").await[0];
    assert_eq!(created["by"], json!({"token": "test", "role": "admin"}));
    let licensing = token(&rig, Role::Licensing).await;
    let body = serde_json::to_vec(&new_license(|_| {})).unwrap();
    let send = |method, path: &'static str, body| rig.send(method, path, Some(&licensing), None, Some(body));
    send(Method::POST, "/api/v1/licenses", body).await.ok::<Value>();
    let by = json!({"token": "the-licensing", "role": "licensing"});
    assert_eq!(rig.audit_of("license_issued").await[0]["by"], by);
    let path = "/api/v1/products/shop/keys";
    send(Method::POST, path, b"{}".to_vec()).await.denied();
    let refused = &rig.audit_of("role_refused").await[0];
    assert_eq!((&refused["by"], &refused["method"]), (&by, &json!("POST")));
    let path = refused["path"].as_str().unwrap();
    assert!(path.ends_with(&format!("/products/{PRODUCT}/keys")), "{path}");
}

#[tokio::test]
async fn a_token_ends_when_it_expires_or_is_revoked() {
    let rig = Rig::start().await;
    let until = now().checked_add(jiff::SignedDuration::from_secs(60)).unwrap();
    let new = json!({"name": "short", "role": "auditor", "expires_at": until});
    let short: CreatedToken = rig.admin(Method::POST, "/tokens", &new).await.ok();
    rig.admin(Method::POST, "/tokens", &new).await.problem(409, "conflict");
    let long = token(&rig, Role::Auditor).await;
    let list = |token: String| {
        let rig = &rig;
        async move { rig.send(Method::GET, "/api/v1/audit", Some(&token), None, None).await }
    };
    list(short.token.to_string()).await.ok::<Value>();
    advance(60);
    list(short.token.to_string()).await.problem(401, "not-attested");
    list(long.clone()).await.ok::<Value>();
    let revocation = json!({"name": "the-auditor", "reason": "left the company"});
    rig.admin(Method::POST, "/tokens/revoke", &revocation).await.ok::<Value>();
    list(long.clone()).await.problem(401, "not-attested");
    rig.admin(Method::POST, "/tokens/revoke", &revocation).await.problem(404, "unknown");
    assert_eq!(rig.audit_of("token_revoked").await[0]["reason"], "left the company");

    let tokens: Vec<Value> = rig.admin_get("/tokens").await;
    let states: Vec<_> = tokens.iter().map(|token| (token["name"].as_str(), token["state"].as_str())).collect();
    let expected = [("test", "live"), ("short", "expired"), ("the-auditor", "revoked")];
    assert_eq!(states.len(), expected.len());
    assert!(expected.iter().all(|(name, state)| states.contains(&(Some(name), Some(state)))), "{states:?}");
    let shown = serde_json::to_string(&(tokens, rig.audit().await)).unwrap();
    assert!(!shown.contains(&long), "a token is shown once");
}

#[tokio::test]
async fn the_last_administrator_cannot_be_locked_out() {
    let rig = Rig::start().await;
    let revocation = json!({"name": "test", "reason": "rotated"});
    rig.admin(Method::POST, "/tokens/revoke", &revocation).await.problem(409, "conflict");
    let second = token(&rig, Role::Admin).await;
    let body = serde_json::to_vec(&revocation).unwrap();
    rig.send(Method::POST, "/api/v1/tokens/revoke", Some(&second), None, Some(body)).await.ok::<Value>();
    rig.admin(Method::POST, "/products", &json!({})).await.problem(401, "not-attested");
}

#[tokio::test]
async fn a_token_needs_a_plain_name_a_known_role_and_an_end_to_come() {
    let rig = Rig::start().await;
    for new in [
        json!({"name": "", "role": "admin"}),
        json!({"name": "Two Words", "role": "admin"}),
        json!({"name": "a".repeat(65), "role": "admin"}),
        json!({"name": "a", "role": "root"}),
        json!({"name": "a", "role": "admin", "expires_at": now()}),
    ] {
        rig.admin(Method::POST, "/tokens", &new).await.problem(400, "malformed");
    }
    let why = json!({"name": "test", "reason": " "});
    rig.admin(Method::POST, "/tokens/revoke", &why).await.problem(400, "malformed");
}
