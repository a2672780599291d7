//! Signing, appending and verifying together.

use jose::jws::{SigningKey, VerifyingKey};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const OTHER: &str = "sha256:f3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const NAME: &str = "registry.example/app";

fn public(key: &SigningKey) -> VerifyingKey {
    key.verifying_key().clone()
}

fn check(manifest: &[u8], blobs: &[Blob], digest: &str, keys: &[VerifyingKey]) -> Result<Vec<Signer>, VerifyError> {
    verify(manifest, blobs.iter().map(|blob| blob.bytes.as_slice()), digest, keys)
}

fn not_signed(result: &Result<Vec<Signer>, VerifyError>) -> bool {
    matches!(result, Err(VerifyError::NotSigned { .. }))
}

#[test]
fn a_signature_names_its_signer() {
    let (key, stranger) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let artifact = sign(DIGEST, NAME, &key).unwrap();
    let signers = check(&artifact.manifest, &artifact.payloads, DIGEST, &[public(&stranger), public(&key)]).unwrap();
    let signer = Signer { thumbprint: key.verifying_key().thumbprint(), docker_reference: NAME.to_owned() };
    assert_eq!(signers, [signer]);
    assert!(not_signed(&check(&artifact.manifest, &artifact.payloads, DIGEST, &[public(&stranger)])));
    assert!(not_signed(&check(&artifact.manifest, &artifact.payloads, DIGEST, &[])));
    assert!(not_signed(&check(&artifact.manifest, &artifact.payloads, OTHER, &[public(&key)])));
    assert!(not_signed(&check(&artifact.manifest, &[], DIGEST, &[public(&key)])));
}

#[test]
fn the_manifest_has_the_shape_that_cosign_gives_it() {
    let artifact = sign(DIGEST, NAME, &SigningKey::generate().unwrap()).unwrap();
    let manifest: Value = serde_json::from_slice(&artifact.manifest).unwrap();
    let [payload] = &artifact.payloads[..] else { panic!("one payload") };
    let signature = &manifest["layers"][0]["annotations"][SIGNATURE_ANNOTATION];
    assert_eq!(
        manifest,
        json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "config": {
                "mediaType": CONFIG_MEDIA_TYPE,
                "size": artifact.config.bytes.len(),
                "digest": artifact.config.digest,
            },
            "layers": [{
                "mediaType": PAYLOAD_MEDIA_TYPE,
                "size": payload.bytes.len(),
                "digest": payload.digest,
                "annotations": { SIGNATURE_ANNOTATION: signature },
            }],
        })
    );
    let config: Value = serde_json::from_slice(&artifact.config.bytes).unwrap();
    assert_eq!(config["rootfs"], json!({ "type": "layers", "diff_ids": [payload.digest] }));
    let descriptor = PayloadDescriptor { digest: payload.digest.clone(), size: payload.bytes.len() as u64 };
    assert_eq!(payload_descriptors(&artifact.manifest).unwrap(), [descriptor]);
}

#[test]
fn a_second_signer_comes_beside_the_first() {
    let keys = [SigningKey::generate().unwrap(), SigningKey::generate().unwrap()];
    let first = sign(DIGEST, NAME, &keys[0]).unwrap();
    let Appended::Signed(second) = append(&first.manifest, DIGEST, "mirror.example/app", &keys[1]).unwrap() else {
        panic!("a new signature")
    };
    let blobs = [&first.payloads[..], &second.payloads].concat();
    let signers = check(&second.manifest, &blobs, DIGEST, &keys.each_ref().map(public)).unwrap();
    let expected = keys.each_ref().map(|key| key.verifying_key().thumbprint());
    assert_eq!(signers.iter().map(|signer| signer.thumbprint.clone()).collect::<Vec<_>>(), expected);
    assert_eq!(signers[1].docker_reference, "mirror.example/app");
    let config: Value = serde_json::from_slice(&second.config.bytes).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"], json!([first.payloads[0].digest, second.payloads[0].digest]));
}

#[test]
fn two_keys_may_sign_the_same_payload() {
    let keys = [SigningKey::generate().unwrap(), SigningKey::generate().unwrap()];
    let first = sign(DIGEST, NAME, &keys[0]).unwrap();
    let Appended::Signed(second) = append(&first.manifest, DIGEST, NAME, &keys[1]).unwrap() else {
        panic!("a new signature")
    };
    assert_eq!(second.payloads, first.payloads);
    let signers = check(&second.manifest, &second.payloads, DIGEST, &keys.each_ref().map(public)).unwrap();
    assert_eq!(signers.len(), 2);
    for key in &keys {
        assert_eq!(append(&second.manifest, DIGEST, NAME, key).unwrap(), Appended::AlreadySigned);
    }
}

#[test]
fn a_key_that_signed_twice_or_is_known_twice_counts_once() {
    let key = SigningKey::generate().unwrap();
    let first = sign(DIGEST, NAME, &key).unwrap();
    let Appended::Signed(second) = append(&first.manifest, DIGEST, "mirror.example/app", &key).unwrap() else {
        panic!("another name is another payload")
    };
    let blobs = [&first.payloads[..], &second.payloads].concat();
    let signers = check(&second.manifest, &blobs, DIGEST, &[public(&key), public(&key)]).unwrap();
    assert_eq!(signers.len(), 1);
}

#[test]
fn what_other_tools_put_there_is_kept() {
    let key = SigningKey::generate().unwrap();
    let mut manifest: Value = serde_json::from_slice(&sign(DIGEST, NAME, &key).unwrap().manifest).unwrap();
    manifest["annotations"] = json!({ "a": "b" });
    manifest["layers"][0]["annotations"]["dev.sigstore.cosign/bundle"] = json!("{}");
    manifest["layers"][0]["urls"] = json!(["https://example"]);
    let attestation = json!({ "mediaType": "application/vnd.dsse.envelope.v1+json", "size": 1, "digest": OTHER });
    manifest["layers"].as_array_mut().unwrap().push(attestation);
    let appended = append(manifest.to_string().as_bytes(), DIGEST, NAME, &SigningKey::generate().unwrap()).unwrap();
    let Appended::Signed(artifact) = appended else { panic!("a new signature") };
    let after: Value = serde_json::from_slice(&artifact.manifest).unwrap();
    assert_eq!(after["annotations"], manifest["annotations"]);
    assert_eq!(after["layers"].as_array().unwrap()[..2], manifest["layers"].as_array().unwrap()[..]);
    assert_eq!(payload_descriptors(&artifact.manifest).unwrap().len(), 2);
}

/// Changes the manifest and the payload of a good signature.
fn changed(change: impl FnOnce(&mut Value, &mut Vec<u8>)) -> Result<Vec<Signer>, VerifyError> {
    let key = SigningKey::generate().unwrap();
    let artifact = sign(DIGEST, NAME, &key).unwrap();
    let mut manifest = serde_json::from_slice(&artifact.manifest).unwrap();
    let mut payload = artifact.payloads[0].bytes.clone();
    change(&mut manifest, &mut payload);
    verify(manifest.to_string().as_bytes(), [payload.as_slice()], DIGEST, &[public(&key)])
}

#[test]
fn a_forged_signature_is_no_signature() {
    assert!(changed(|_, _| {}).is_ok());
    let signature = format!("/layers/0/annotations/{}", SIGNATURE_ANNOTATION.replace('/', "~1"));
    for other in [json!("AAAA"), json!("?"), json!(1), json!(null)] {
        assert!(not_signed(&changed(|manifest, _| *manifest.pointer_mut(&signature).unwrap() = other)));
    }
    assert!(not_signed(&changed(|manifest, _| manifest["layers"][0]["annotations"] = json!({}))));
    assert!(not_signed(&changed(|manifest, _| manifest["layers"][0]["mediaType"] = json!("text/plain"))));
    assert!(not_signed(&changed(|manifest, _| manifest["layers"] = json!([]))));
    // A payload in other bytes, under its own digest.
    assert!(not_signed(&changed(|manifest, payload| {
        payload.push(b' ');
        manifest["layers"][0]["digest"] = digest::of(payload).into();
    })));
    assert!(not_signed(&changed(|_, payload| payload.push(b' '))));
    // The signature of another image, moved here.
    assert!(not_signed(&changed(|manifest, payload| {
        *payload = String::from_utf8(payload.clone()).unwrap().replace("e3b0", "f3b0").into_bytes();
        manifest["layers"][0]["digest"] = digest::of(payload).into();
    })));
}

#[test]
fn manifests_that_are_none_are_refused() {
    let error = |change: fn(&mut Value)| match changed(|manifest, _| change(manifest)) {
        Err(VerifyError::Manifest(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(error(|m| m["schemaVersion"] = json!(1)), ManifestError::MediaType));
    let index = |m: &mut Value| m["mediaType"] = json!("application/vnd.oci.image.index.v1+json");
    assert!(matches!(error(index), ManifestError::MediaType));
    assert!(matches!(error(|m| m["layers"] = json!({})), ManifestError::Json(_)));
    assert!(matches!(error(|m| m["config"] = json!(null)), ManifestError::Json(_)));
    let many = |m: &mut Value| m["layers"] = vec![m["layers"][0].clone(); 129].into();
    assert!(matches!(error(many), ManifestError::TooLong));
    let twice = br#"{"schemaVersion":2,"schemaVersion":2}"#;
    assert!(matches!(payload_descriptors(twice), Err(ManifestError::Json(_))));
    assert!(matches!(payload_descriptors(&vec![b' '; 1024 * 1024 + 1]), Err(ManifestError::TooLong)));
    let key = SigningKey::generate().unwrap();
    assert!(matches!(verify(b"{}", [], "sha256:", &[public(&key)]), Err(VerifyError::Digest(_))));
    assert!(matches!(sign("sha256:", NAME, &key), Err(SignError::Payload(_))));
    assert!(matches!(append(b"{}", DIGEST, NAME, &key), Err(SignError::Manifest(_))));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = payload_descriptors(&bytes);
    }

    #[test]
    fn no_changed_payload_is_signed(index: prop::sample::Index, flip in 1u8..) {
        let result = changed(|manifest, payload| {
            let index = index.index(payload.len());
            payload[index] ^= flip;
            manifest["layers"][0]["digest"] = digest::of(payload).into();
        });
        prop_assert!(not_signed(&result));
    }
}
