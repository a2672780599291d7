//! Images that the vendor itself sealed wrongly: encrypted, registered and signed like any other, with one thing wrong, so
//! that the one check behind all the others is seen to hold.

use image_store::{Descriptor, Manifest, Place, media_type};
use ocicrypt::cipher::{self, AES_256_CTR_HMAC_SHA256, KeyEncryptionKey};
use ocicrypt::layer::LayerAnnotations;
use ocicrypt::packet::Kid;
use serde_json::json;

use crate::image::{create, manifest, open};
use crate::scene::{PRODUCT, Scene};

/// The largest layer of the scene's images, in bytes.
const LAYER_MAX: usize = 64 << 20;
/// What every forgery is called.
const NAME: &str = "localhost/recipe:forged";

/// What is done to a sealed layer's descriptor before it is signed; the number is its position.
pub type Change<'a> = &'a dyn Fn(usize, &mut Descriptor);

/// Seals the image again with `change` made; gives its reference.
///
/// # Panics
/// When anything fails.
pub async fn forge(scene: &Scene, source: &str, change: Change<'_>) -> String {
    let reference = format!("oci:{}:v1", scene.scratch.path().join("forged").display());
    let (from, to) = (open(source).await, create(&reference).await);
    let service = scene.vendor.service_url();
    let authority = service.strip_prefix("https://").expect("https").trim_end_matches('/');
    let kid = Kid::new(authority, [PRODUCT, "image-key", "forged"]).expect("key id");
    // Test keys: what opens a forgery is no secret.
    let bytes = [7_u8; 32];
    let kek = KeyEncryptionKey::try_init(|key| -> Result<(), ()> {
        key.copy_from_slice(&bytes);
        Ok(())
    })
    .expect("key");

    let mut forged = manifest(&from).await;
    to.copy_blob(&from, &forged.config).await.expect("config");
    for (position, layer) in forged.layers.iter_mut().enumerate() {
        let mut bytes = from.small_blob(layer, LAYER_MAX).await.expect("layer").to_vec();
        let mut encryptor =
            cipher::by_name(AES_256_CTR_HMAC_SHA256).and_then(cipher::LayerCipher::encryptor).expect("cipher");
        encryptor.apply(&mut bytes).expect("cipher");
        let (public, private) = encryptor.finish(cipher::Digest::from_bytes(*layer.digest.hash()));
        let kind = ocicrypt::media_type::encrypted(&layer.media_type).expect("media type");
        let mut sealed = to.put_blob(&kind, bytes.into()).await.expect("layer");
        let annotations = LayerAnnotations::new(public, &private).with_kek(&kid, &kek).expect("annotations");
        sealed.annotations = annotations.build().expect("annotations");
        change(position, &mut sealed);
        *layer = sealed;
    }
    forged.annotations.insert("io.sealift.product".to_owned(), PRODUCT.to_owned());
    publish(scene, &reference, &forged).await;
    register(scene, &forged, &bytes).await;
    reference
}

async fn publish(scene: &Scene, reference: &str, manifest: &Manifest) {
    let store = create(reference).await;
    let bytes = manifest.to_bytes().expect("manifest");
    let digest = image_store::Digest::of(&bytes).to_string();
    let key = std::fs::read_to_string(scene.vendor.home().join("signing.key")).expect("key");
    let key = jose::signing::SigningKey::from_pem(&key).expect("key");
    let signature = image_signature::sign(&digest, NAME, &key).expect("signature");
    for payload in signature.payloads {
        store.put_blob(image_signature::PAYLOAD_MEDIA_TYPE, payload.bytes.into()).await.expect("payload");
    }
    let config = signature.config.bytes.into();
    store.put_blob(image_signature::CONFIG_MEDIA_TYPE, config).await.expect("config");
    let place = Place::Tag(image_signature::signature_tag(&digest).expect("tag"));
    let kind = image_signature::MANIFEST_MEDIA_TYPE;
    store.put_manifest(signature.manifest.into(), kind, place).await.expect("signature");
    store.put_image(bytes, media_type::OCI_MANIFEST).await.expect("manifest");
    store.commit().await.expect("commit");
}

/// Tells the service of the key, as `sealift pack` does.
async fn register(scene: &Scene, manifest: &Manifest, key: &[u8; 32]) {
    let digest = image_store::Digest::of(&manifest.to_bytes().expect("manifest")).to_string();
    let body = json!({
        "id": "forged", "kek": base64(key), "image": NAME,
        "manifests": [{"digest": digest, "platform": "linux/amd64"}],
    });
    let client = scene.vendor.client();
    let url = format!("{}/api/v1/products/{PRODUCT}/keys", scene.vendor.service_url().trim_end_matches('/'));
    let answer = client.post(url).bearer_auth(scene.vendor.admin_token()).json(&body).send().await.expect("service");
    let status = answer.status();
    assert!(status.is_success(), "{status}: {}", answer.text().await.unwrap_or_default());
}

/// Base64 of bytes or text, with padding.
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// What [`base64`] wrote.
///
/// # Panics
/// When it did not.
pub fn unbase64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
}
