//! Two services of one vendor: what is one's is nothing to the other. Each id of the one is sent to the other's every route with
//! the other's every token, and has to be answered as an id that never was, byte for byte.

use std::collections::BTreeMap;

use attestation_service::api::{CreatedToken, Role};
use attestation_service::openapi;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jose::jwe::EphemeralKey;
use ocicrypt::cipher::{KeyEncryptionKey, LayerKey};
use reqwest::Method;
use serde_json::{Value, json};

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{Answer, KEY_ID, PRODUCT, Rig};

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
    let manifest = json!({"digest": crate::rig::MANIFEST, "platform": "linux/amd64"});
    Some(match operation {
        "retireReference" | "resumeLicense" | "suspendLicense" | "revokeLicense" => reason,
        "renewLicense" => json!({"seats": 2, "reason": "tried"}),
        "transferLicense" => json!({"customer": "another", "reason": "tried"}),
        "addReference" => json!({"kind": "id-key", "id_key_digest": "11".repeat(48), "min_svn": 1, "label": "a"}),
        "registerKey" => {
            json!({"id": "new", "kek": STANDARD.encode([7; 32]), "image": "image", "manifests": [manifest]})
        }
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

/// What a layer of the image has that the key of the product wraps.
fn packet(place: usize) -> String {
    use ocicrypt::packet::{BrokerPacket, Kid};
    let kid = Kid::new("127.0.0.1:8443", [PRODUCTS[place], "image-key", KEYS[place]]).unwrap();
    let private = ocicrypt::options::PrivateOptions::new(LayerKey::generate().unwrap(), [0; 32]);
    BrokerPacket::seal(&kid, &KeyEncryptionKey::generate().unwrap(), &private).unwrap().to_annotation()
}

fn recipient() -> String {
    jose::signing::SigningKey::generate().unwrap().verifying_key().to_spki_pem().unwrap()
}
