//! Two services of one vendor: what is one's is nothing to the other. Each id of the one is sent to the other's every route with
//! the other's every token, and has to be answered as an id that never was, byte for byte.

use std::collections::BTreeMap;

use attestation_service::api::{CreatedToken, Role};
use attestation_service::openapi;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jose::jwe::EphemeralKey;
use reqwest::Method;
use serde_json::{Value, json};

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{Answer, KEY_PATH, MANIFEST, PRODUCT, Rig};

/// A product of the first tenant's alone, and one that nobody has.
const PRODUCTS: [&str; 2] = ["alpha", "gamma"];
const KEYS: [&str; 2] = ["key-alpha", "key-gamma"];
const TAGS: [&str; 2] = ["database", "datasets"];

/// The first tenant's id of one kind, and one of the same form that never was.
type Pair = [String; 2];

/// What the parts of paths are called in the OpenAPI document, with a pair for each.
async fn pairs(owner: &Rig) -> BTreeMap<&'static str, Pair> {
    let pair = |[own, never]: [&str; 2]| [own.to_owned(), never.to_owned()];
    owner.create_product(PRODUCTS[0]).await;
    owner.add_reference(PRODUCTS[0], &owner.guest).await;
    owner.register_key(PRODUCTS[0], KEYS[0], &[]).await;
    let secret = format!("/api/v1/products/{}/secrets/config/{}", PRODUCTS[0], TAGS[0]);
    let token = Some(owner.admin_token.as_str());
    let put = owner.send(Method::PUT, &secret, token, None, Some(b"secret".to_vec())).await;
    assert_eq!(put.status, 204);
    let references: Vec<Value> = owner.admin_get(&format!("/products/{}/references", PRODUCTS[0])).await;
    let license = owner.issue(|_| {}).await;
    let guest = Guest::new(owner, &license.token);
    guest.start(owner).await;
    let newest = owner.audit().await.last().unwrap().sequence;
    let resource = |place: usize| format!("{}/image-key/{}", PRODUCTS[place], KEYS[place]);
    BTreeMap::from([
        ("product", pair(PRODUCTS)),
        ("key", pair(KEYS)),
        ("tag", pair(TAGS)),
        ("type", pair(["config", "models"])),
        ("reference", other_of(references[0]["id"].as_str().unwrap())),
        ("license", other_of(&license.id)),
        ("lease", [guest.lease_id().0, EphemeralKey::generate().unwrap().thumbprint()]),
        // Entries are numbered: the other has fewer.
        ("entry", [newest.to_string(), (newest + 1000).to_string()]),
        ("path", [resource(0), resource(1)]),
    ])
}

/// The id, and the one whose last digit is another.
fn other_of(id: &str) -> Pair {
    let (rest, last) = id.split_at(id.len() - 1);
    [id.to_owned(), format!("{rest}{}", if last == "0" { "1" } else { "0" })]
}

/// A body that the operation would take of its own tenant, about the first or the second of each pair.
fn body(operation: &str, pairs: &BTreeMap<&str, Pair>, place: usize) -> Option<Value> {
    let reason = json!({"reason": "tried"});
    let manifest = json!({"digest": MANIFEST, "platform": "linux/amd64"});
    Some(match operation {
        "retireReference" | "resumeLicense" | "suspendLicense" | "revokeLicense" => reason,
        "renewLicense" => json!({"seats": 2, "reason": "tried"}),
        "transferLicense" => json!({"customer": "another", "reason": "tried"}),
        "addReference" => json!({"kind": "id-key", "id_key_digest": "11".repeat(48), "min_svn": 1, "label": "a"}),
        "registerKey" => {
            json!({"id": "new", "kek": STANDARD.encode([7; 32]), "image": "image", "manifests": [manifest]})
        }
        "putSecret" => json!("secret"),
        "bindKey" => json!({"image": "image", "manifests": [manifest]}),
        "rewrapKeys" => json!({"id": "new", "image": "image", "packets": [packet(place)]}),
        "exportKeys" => json!({"image": "image", "packets": [packet(place)], "recipient": recipient()}),
        "importKeys" => {
            let import_key = &pairs["lease"][place];
            json!({"id": "new", "image": "image", "import_key": import_key, "messages": ["e30="]})
        }
        _ => return None,
    })
}

/// What a layer of the image carries that a key of the product wraps.
fn packet(place: usize) -> String {
    let (product, key) = (PRODUCTS[place], KEYS[place]);
    let packet = json!({
        "kid": format!("kbs://127.0.0.1:8443/{product}/image-key/{key}"),
        "wrapped_data": STANDARD.encode([1; 64]), "iv": STANDARD.encode([2; 12]), "wrap_type": "A256GCM",
    });
    STANDARD.encode(packet.to_string())
}

fn recipient() -> String {
    jose::signing::SigningKey::generate().unwrap().verifying_key().to_spki_pem().unwrap()
}

/// A token of every role, administrators' first.
async fn tokens(rig: &Rig) -> Vec<(Role, String)> {
    let mut tokens = vec![(Role::Admin, rig.admin_token.to_string())];
    for role in [Role::Publisher, Role::Licensing, Role::Auditor] {
        let new = json!({"name": format!("the-{role}"), "role": role});
        let created: CreatedToken = rig.admin(Method::POST, "/tokens", &new).await.ok();
        tokens.push((role, created.token.to_string()));
    }
    tokens
}

/// The first tenant, with more of everything than the second.
async fn two() -> (Rig, Rig, BTreeMap<&'static str, Pair>) {
    let (owner, other) = (Rig::start().await, Rig::start().await);
    for number in 0..40 {
        owner.create_product(&format!("filler-{number}")).await;
    }
    let pairs = pairs(&owner).await;
    (owner, other, pairs)
}

/// An operation of the OpenAPI document.
struct Operation {
    method: Method,
    path: String,
    id: String,
    roles: Vec<String>,
}

fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(openapi()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let security = operation["security"].as_array().unwrap().iter();
            operations.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                id: operation["operationId"].as_str().unwrap().to_owned(),
                roles: security.filter_map(|way| Some(way.get("token")?[0].as_str().unwrap().to_owned())).collect(),
            });
        }
    }
    operations
}

/// The operation's path with the first or the second of each pair in it; `None` where none goes into it.
fn filled(path: &str, pairs: &BTreeMap<&str, Pair>, place: usize) -> Option<(String, Vec<String>)> {
    let (mut filled, mut ids) = (path.to_owned(), Vec::new());
    for (name, pair) in pairs {
        let part = format!("{{{name}}}");
        if filled.contains(&part) {
            // A tile that the first tenant's log has and the second one's has not.
            let tile = [format!("0/000.p/{}", pairs["entry"][0]), "0/000.p/255".to_owned()];
            let id = if path.contains("/log/tile/") { &tile[place] } else { &pair[place] };
            filled = filled.replace(&part, id);
            ids.push(id.clone());
        }
    }
    (!ids.is_empty()).then_some((filled, ids))
}

/// What an answer says, with `ID` where it says the id back, and without what tells each request from all others.
fn said(answer: &Answer, ids: &[String]) -> (u16, Option<u64>, String) {
    let mut text = String::from_utf8(answer.body.clone()).unwrap();
    if let Ok(mut document) = serde_json::from_str::<Value>(&text)
        && let Some(members) = document.as_object_mut()
    {
        for name in ["request_id", "entry"] {
            if members.contains_key(name) {
                members.insert(name.to_owned(), Value::Null);
            }
        }
        text = document.to_string();
    }
    let mut ids: Vec<&String> = ids.iter().collect();
    ids.sort_by_key(|id| std::cmp::Reverse(id.len()));
    for id in ids {
        text = text.replace(id.as_str(), "ID");
    }
    (answer.status, answer.retry_after, text)
}

async fn ask(rig: &Rig, operation: &Operation, path: &str, token: &str, body: Option<&Value>) -> Answer {
    let body = body.map(|body| body.to_string().into_bytes());
    rig.send(operation.method.clone(), path, Some(token), None, Some(body.unwrap_or_default())).await
}

#[tokio::test]
async fn every_id_of_one_tenant_is_to_every_token_of_another_an_id_that_never_was() {
    let (_owner, other, pairs) = Box::pin(two()).await;
    let tokens = tokens(&other).await;
    let own = BTreeMap::from([("product", [PRODUCT.to_owned(), PRODUCT.to_owned()])]);
    let own: BTreeMap<_, _> = pairs.iter().map(|(name, pair)| (*name, own.get(name).unwrap_or(pair).clone())).collect();
    let mut asked = 0;
    for operation in operations().iter().filter(|operation| !operation.roles.is_empty()) {
        // Below a product that it has itself, too.
        for (pairs, needs_two) in [(&pairs, false), (&own, true)] {
            let Some((path, ids)) = filled(&operation.path, pairs, 0) else { continue };
            let (never, never_ids) = filled(&operation.path, pairs, 1).unwrap();
            // Whoever has the product may put secrets of any name there.
            if needs_two && (ids.len() < 2 || operation.id == "putSecret") {
                continue;
            }
            for (role, token) in &tokens {
                let bodies = [0, 1].map(|place| body(&operation.id, pairs, place));
                let secrets =
                    [&ids, &never_ids].map(|ids| [ids.as_slice(), &echoed(pairs, ids == &never_ids)].concat());
                let real = said(&ask(&other, operation, &path, token, bodies[0].as_ref()).await, &secrets[0]);
                let absent = said(&ask(&other, operation, &never, token, bodies[1].as_ref()).await, &secrets[1]);
                assert_eq!(real, absent, "{role} {} {path}", operation.method);
                let may = operation.roles.contains(&role.to_string());
                let may = may && (operation.id != "exportKeys" || *role == Role::Admin);
                let expected = if may { 404 } else { 403 };
                assert_eq!(real.0, expected, "{role} {} {path}: {}", operation.method, real.2);
                asked += 2;
            }
        }
    }
    assert!(asked > 200, "{asked}");
}

/// What a body names besides the path.
fn echoed(pairs: &BTreeMap<&str, Pair>, is_second: bool) -> Vec<String> {
    let place = usize::from(is_second);
    vec![PRODUCTS[place].to_owned(), KEYS[place].to_owned(), pairs["lease"][place].clone()]
}

#[tokio::test]
async fn a_token_of_one_tenant_is_to_another_a_token_that_never_was() {
    let (owner, other, pairs) = Box::pin(two()).await;
    let mut asked = 0;
    for (role, token) in tokens(&owner).await {
        let [_, never] = other_of(&token);
        for operation in operations().iter().filter(|operation| !operation.roles.is_empty()) {
            let path = filled(&operation.path, &pairs, 0).map_or_else(|| operation.path.clone(), |(path, _)| path);
            let body = body(&operation.id, &pairs, 0);
            let real = said(&ask(&other, operation, &path, &token, body.as_ref()).await, &[]);
            let absent = said(&ask(&other, operation, &path, &never, body.as_ref()).await, &[]);
            assert_eq!(real, absent, "{role} {} {path}", operation.method);
            assert_eq!(real.0, 401, "{role} {} {path}", operation.method);
            asked += 1;
        }
    }
    assert!(asked > 150, "{asked}");
    assert!(other.audit_of("role_refused").await.is_empty(), "it is nobody's token there");
}

#[tokio::test]
async fn names_in_bodies_and_queries_of_another_tenant_are_none_either() {
    let (owner, other, pairs) = Box::pin(two()).await;
    owner.admin(Method::POST, "/tokens", &json!({"name": "alpha", "role": "auditor"})).await.ok::<Value>();
    let license = |product: &str| json!({"products": [product], "customer": "a", "seats": 1, "valid_until": "+8h", "lease_seconds": 600, "grace_seconds": 60});
    for [own, never] in [
        PRODUCTS
            .map(|name| (Method::POST, "/tokens/revoke".to_owned(), json!({"name": name, "reason": "tried"}), name)),
        PRODUCTS.map(|name| (Method::POST, "/licenses".to_owned(), license(name), name)),
        PRODUCTS.map(|name| (Method::POST, "/licenses/batch".to_owned(), json!([license(name)]), name)),
    ] {
        let mut answers = Vec::new();
        for (method, path, body, name) in [own, never] {
            let answer = other.admin(method, &path, &body).await;
            assert_eq!(answer.status, 404, "{path}: {}", String::from_utf8_lossy(&answer.body));
            answers.push(said(&answer, &[name.to_owned()]));
        }
        assert_eq!(answers[0], answers[1]);
    }
    let mut answers = Vec::new();
    for id in &pairs["lease"] {
        let token = Some(other.admin_token.as_str());
        let answer = other.send(Method::GET, &format!("/api/v1/leases?after={id}"), token, None, None).await;
        answers.push(said(&answer, std::slice::from_ref(id)));
    }
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn a_guest_with_what_another_tenant_gave_it_is_a_guest_with_nothing() {
    let (owner, other, _) = Box::pin(two()).await;
    // Of one name at both, so that nothing but the keys tells them apart.
    let license = owner.issue(|_| {}).await;
    let guest = Guest::new(&owner, &license.token);
    let attested = guest.start(&owner).await;
    let [_, unsigned] = altered(&license.token);
    let mut answers = Vec::new();
    for license in [&license.token, &unsigned] {
        let stranger = Guest { license: Some(license.clone()), ..Guest::new(&other, license) };
        let proof = prove(&other.guest, &stranger.runtime_data(&challenge(&other).await));
        answers.push(said(&attest(&other, &proof).await, &[]));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].0, 403, "{}", answers[0].2);

    let nonce = challenge(&owner).await;
    let own = other.issue(|_| {}).await;
    let mut answers = Vec::new();
    for nonce in altered(&nonce) {
        let proof = prove(&other.guest, &Guest::new(&other, &own.token).runtime_data(&nonce));
        answers.push(said(&attest(&other, &proof).await, &[]));
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0].0, 401, "{}", answers[0].2);

    for (method, path) in [
        (Method::GET, format!("/kbs/v0/resource/{KEY_PATH}")),
        (Method::GET, format!("/kbs/v0/resource/{}/image-key/{}", PRODUCTS[0], KEYS[0])),
        (Method::POST, "/kbs/v0/lease/end".to_owned()),
        (Method::GET, "/kbs/v0/lease/watch".to_owned()),
    ] {
        let mut answers = Vec::new();
        for token in altered(&attested.token) {
            answers.push(said(&other.send(method.clone(), &path, Some(&token), None, None).await, &[]));
            let cookie = format!("kbs-session-id={token}");
            answers.push(said(&other.send(method.clone(), &path, None, Some(&cookie), None).await, &[]));
        }
        assert!(answers.iter().all(|answer| answer == &answers[0] && answer.0 == 401), "{path}: {answers:?}");
    }
    // At home all of it is good.
    guest.open(&owner, &attested.token).await;
}

/// The text, and the one with another character in its midst of its last part: signed or sealed by nobody.
fn altered(text: &str) -> Pair {
    let at = text.len() - 12;
    let other = if &text[at..=at] == "A" { "B" } else { "A" };
    [text.to_owned(), format!("{}{other}{}", &text[..at], &text[at + 1..])]
}

/// Ids in places where others belong, and spelt in other ways. The seed is printed when it fails.
#[tokio::test]
async fn no_id_of_one_tenant_is_something_to_another_wherever_it_is_put() {
    let (_owner, other, pairs) = Box::pin(two()).await;
    let tokens = tokens(&other).await;
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let mut state = seed;
    let mut draw = |below: usize| {
        // SplitMix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
    };
    let operations: Vec<_> =
        operations().into_iter().filter(|one| !one.roles.is_empty() && one.path.contains('{')).collect();
    let all: Vec<&Pair> = pairs.values().collect();
    for round in 0..400 {
        let operation = &operations[draw(operations.len())];
        let (role, token) = &tokens[draw(tokens.len())];
        let spelling = draw(5);
        let spelt = |id: &str| match spelling {
            0 => id.to_uppercase(),
            1 => format!("{id}%20"),
            2 => format!("%2e%2e%2f{id}"),
            3 => id.replace('-', "%2D"),
            _ => id.to_owned(),
        };
        let (mut paths, mut ids) = ([operation.path.clone(), operation.path.clone()], [Vec::new(), Vec::new()]);
        while let Some((before, rest)) = paths[0].clone().split_once('{') {
            let (name, _) = rest.split_once('}').unwrap();
            let pair = all[draw(all.len())];
            // Numbers stand for entries of one's own, too.
            let pair = if pair == &pairs["entry"] { &pairs["license"] } else { pair };
            for place in [0, 1] {
                paths[place] = paths[place].replacen(&format!("{{{name}}}"), &spelt(&pair[place]), 1);
                ids[place].extend([pair[place].clone(), spelt(&pair[place]), pair[place].to_uppercase()]);
            }
            assert!(paths[0].starts_with(before));
        }
        let bodies = [0, 1].map(|place| body(&operation.id, &pairs, place));
        for place in [0, 1] {
            ids[place].extend(echoed(&pairs, place == 1));
        }
        let answers = [
            said(&ask(&other, operation, &paths[0], token, bodies[0].as_ref()).await, &ids[0]),
            said(&ask(&other, operation, &paths[1], token, bodies[1].as_ref()).await, &ids[1]),
        ];
        let what = format!("seed {seed}, round {round}: {role} {} {}", operation.method, paths[0]);
        // Each names its own id, of which the one may be spelt as the other is not.
        assert_eq!(answers[0].0, answers[1].0, "{what}: {answers:?}");
        assert!([400, 403, 404, 405].contains(&answers[0].0), "{what}: {answers:?}");
        if answers[0].0 != 400 {
            assert_eq!(answers[0], answers[1], "{what}");
        }
    }
}
