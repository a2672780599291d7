//! Layers' keys from one service to another: only to a key that the other one made, for one import, and by administrators.

use attestation_service::api::{CreatedToken, ExportedKeys, ImageKey, ImportKey, Rewrapped};
use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::{BrokerPacket, Kid, Packet};
use reqwest::Method;
use serde_json::{Value, json};

use crate::rig::{KEK, KEY_ID, PRODUCT, Rig, advance};

const PRIVATE: &str = r#"{"symkey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","digest":"sha256:1111111111111111111111111111111111111111111111111111111111111111","cipheroptions":{"nonce":"AAAAAAAAAAAAAAAAAAAAAA=="}}"#;

/// The packet of a layer that the rig's image key wraps.
fn packet() -> String {
    let kid = Kid::new("127.0.0.1:8443", [PRODUCT, "image-key", KEY_ID]).unwrap();
    let private = PrivateOptions::from_json(PRIVATE.as_bytes()).unwrap();
    BrokerPacket::seal(&kid, &KeyEncryptionKey::try_from(&KEK[..]).unwrap(), &private).unwrap().to_annotation()
}

async fn import_key(rig: &Rig) -> ImportKey {
    rig.admin(Method::POST, "/products/shop/keys/import-key", &()).await.ok()
}

fn export_to(key: &ImportKey) -> Value {
    json!({"image": "image", "packets": [packet()], "recipient": key.public_key})
}

fn import_of(key: &ImportKey, messages: &[String]) -> Value {
    json!({"id": "brought", "image": "image", "import_key": key.id, "messages": messages})
}

#[tokio::test]
async fn a_layers_key_goes_to_the_other_service_under_a_key_of_its_own_and_both_logs_say_so() {
    let (from, to) = (Rig::start().await, Rig::start().await);
    let key = import_key(&to).await;
    let exported: ExportedKeys = from.admin(Method::POST, "/products/shop/keys/export", &export_to(&key)).await.ok();
    let import = import_of(&key, &exported.messages);
    let brought: Rewrapped = to.admin(Method::POST, "/products/shop/keys/import", &import).await.ok();
    let [layer] = brought.layers.as_slice() else { panic!("{brought:?}") };
    let Packet::Broker(packet) = Packet::from_annotation(&layer.packet).unwrap() else { panic!("{layer:?}") };
    assert_eq!(packet.kid().to_string(), "kbs://127.0.0.1:8443/shop/image-key/brought");
    assert!(packet.open(&KeyEncryptionKey::try_from(&KEK[..]).unwrap()).is_none(), "under another key than at home");
    let keys: Vec<ImageKey> = to.admin_get("/products/shop/keys").await;
    assert!(keys.iter().any(|kept| kept.id == "brought" && kept.manifests.is_empty()), "pending");

    let sent = &from.audit_of("keys_exported").await[0];
    assert_eq!(sent["rewrapped"], json!({"from": [KEY_ID], "recipients": [key.id]}));
    assert_eq!(sent["by"]["role"], "admin");
    let taken = to.audit_of("key_registered").await;
    assert_eq!(taken.last().unwrap()["rewrapped"], json!({"from": [], "import_key": key.id}));

    // What is sealed again by the new one, from the inside, is the same.
    let second = import_key(&from).await;
    let back = json!({"image": "image", "packets": [layer.packet], "recipient": second.public_key});
    let back: ExportedKeys = to.admin(Method::POST, "/products/shop/keys/export", &back).await.ok();
    let import = import_of(&second, &back.messages);
    from.admin(Method::POST, "/products/shop/keys/import", &import).await.ok::<Rewrapped>();
}

#[tokio::test]
async fn an_import_key_is_good_once_soon_and_for_its_product() {
    let (from, to) = (Rig::start().await, Rig::start().await);
    to.create_product("other").await;
    let key = import_key(&to).await;
    let exported: ExportedKeys = from.admin(Method::POST, "/products/shop/keys/export", &export_to(&key)).await.ok();
    let import = import_of(&key, &exported.messages);
    to.admin(Method::POST, "/products/other/keys/import", &import).await.problem(404, "unknown");
    to.admin(Method::POST, "/products/shop/keys/import", &import).await.ok::<Rewrapped>();
    let again = json!({"id": "again", "image": "image", "import_key": key.id, "messages": exported.messages});
    to.admin(Method::POST, "/products/shop/keys/import", &again).await.problem(404, "unknown");

    let late = import_key(&to).await;
    let exported: ExportedKeys = from.admin(Method::POST, "/products/shop/keys/export", &export_to(&late)).await.ok();
    advance(600);
    let import = json!({"id": "late", "image": "image", "import_key": late.id, "messages": exported.messages});
    to.admin(Method::POST, "/products/shop/keys/import", &import).await.problem(404, "unknown");
    // What is over is forgotten when the next is made.
    let fresh = import_key(&to).await;
    let kept = to.all_that_is_kept().await.concat();
    assert!(memchr::memmem::find(&kept, fresh.id.as_bytes()).is_some());
}

#[tokio::test]
async fn a_message_to_another_key_or_that_is_none_brings_nothing() {
    let (from, to) = (Rig::start().await, Rig::start().await);
    let (key, another) = (import_key(&to).await, import_key(&to).await);
    let exported: ExportedKeys =
        from.admin(Method::POST, "/products/shop/keys/export", &export_to(&another)).await.ok();
    for messages in [exported.messages, vec!["e30=".to_owned()], vec!["no base64".to_owned()], Vec::new()] {
        let import = import_of(&key, &messages);
        to.admin(Method::POST, "/products/shop/keys/import", &import).await.problem(400, "malformed");
    }
    let keys: Vec<ImageKey> = to.admin_get("/products/shop/keys").await;
    assert!(keys.iter().all(|kept| kept.id != "brought"));
    for recipient in ["", "no key"] {
        let export = json!({"image": "image", "packets": [packet()], "recipient": recipient});
        from.admin(Method::POST, "/products/shop/keys/export", &export).await.problem(400, "malformed");
    }
}

#[tokio::test]
async fn only_an_administrator_hands_keys_out_and_a_publisher_takes_them_in() {
    let (from, to) = (Rig::start().await, Rig::start().await);
    let publisher = async |rig: &Rig| {
        let new = json!({"name": "build", "role": "publisher"});
        rig.admin(Method::POST, "/tokens", &new).await.ok::<CreatedToken>().token
    };
    let post = async |rig: &Rig, token: &str, path: &str, body: &Value| {
        let body = Some(body.to_string().into_bytes());
        rig.send(Method::POST, &format!("/api/v1/products/shop/keys/{path}"), Some(token), None, body).await
    };
    let (sender, taker) = (publisher(&from).await, publisher(&to).await);
    let key: ImportKey = post(&to, &taker, "import-key", &Value::Null).await.ok();
    let refused = post(&from, &sender, "export", &export_to(&key)).await.problem(403, "denied");
    assert!(refused.detail.contains("only admin"), "{refused:?}");
    assert!(from.audit_of("keys_exported").await.is_empty());
    let exported: ExportedKeys = from.admin(Method::POST, "/products/shop/keys/export", &export_to(&key)).await.ok();
    post(&to, &taker, "import", &import_of(&key, &exported.messages)).await.ok::<Rewrapped>();
}
