//! Manifests and indexes: what is read, what is refused, and that nothing is lost on the way through.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(size: &Value) -> Value {
    json!({ "mediaType": media_type::OCI_LAYER, "digest": DIGEST, "size": size })
}

fn manifest() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(&json!(2)),
        "layers": [descriptor(&json!(7))],
    })
}

fn index() -> Value {
    json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [descriptor(&json!(7))] })
}

fn parse(value: &Value) -> Result<Document, ManifestError> {
    parse_text(&value.to_string())
}

fn parse_text(text: &str) -> Result<Document, ManifestError> {
    RawManifest::new(Bytes::copy_from_slice(text.as_bytes()), None)?.parse()
}

#[test]
fn unknown_fields_are_kept() {
    let mut value = manifest();
    value["later"] = json!({ "a": [1] });
    value["layers"][0]["data"] = json!("e30=");
    value["layers"][0]["platform"] =
        json!({ "architecture": "arm64", "os": "linux", "variant": "v8", "os.version": "1" });
    let Ok(Document::Manifest(read)) = parse(&value) else { panic!("{value}") };
    assert_eq!(serde_json::from_slice::<Value>(&read.to_bytes().unwrap()).unwrap(), value);
}

#[test]
fn docker_manifest_and_list_are_read() {
    let mut value = manifest();
    value["mediaType"] = json!(media_type::DOCKER_MANIFEST);
    assert!(matches!(parse(&value), Ok(Document::Manifest(_))));
    let mut value = index();
    value["mediaType"] = json!(media_type::DOCKER_MANIFEST_LIST);
    assert!(matches!(parse(&value), Ok(Document::Index(_))));
}

#[test]
fn media_type_is_told_from_the_shape_when_it_is_absent() {
    let mut value = index();
    value.as_object_mut().unwrap().remove("mediaType");
    let raw = RawManifest::new(value.to_string().into(), Some("application/json")).unwrap();
    assert_eq!(raw.media_type, media_type::OCI_INDEX);
}

#[test]
fn manifest_that_is_also_an_index_is_refused() {
    let mut value = manifest();
    value["manifests"] = json!([]);
    assert!(matches!(parse(&value), Err(ManifestError::Kind)));
    assert!(matches!(Manifest::parse(value.to_string().as_bytes()), Err(ManifestError::Kind)));
    assert!(matches!(Index::parse(value.to_string().as_bytes()), Err(ManifestError::Kind)));
    let mut value = manifest();
    value["mediaType"] = json!(media_type::OCI_INDEX);
    assert!(matches!(parse(&value), Err(ManifestError::Kind)));
}

#[test]
fn media_type_inside_must_be_the_announced_one() {
    let raw = RawManifest::new(manifest().to_string().into(), Some(media_type::DOCKER_MANIFEST));
    assert!(matches!(raw, Err(ManifestError::MediaType { .. })));
}

#[test]
fn foreign_media_type_and_schema_are_refused() {
    let mut value = manifest();
    value["mediaType"] = json!("application/vnd.example+json");
    assert!(matches!(parse(&value), Err(ManifestError::UnknownMediaType { .. })));
    let mut value = manifest();
    value["schemaVersion"] = json!(1);
    assert!(matches!(parse(&value), Err(ManifestError::SchemaVersion { found: 1 })));
}

#[test]
fn absurd_sizes_are_refused() {
    for size in [json!(limits::BLOB_BYTES + 1), json!(limits::BLOB_BYTES), json!(u64::MAX)] {
        let mut value = manifest();
        value["layers"][0] = descriptor(&size);
        assert!(matches!(parse(&value), Err(ManifestError::TooLarge { .. })), "{size}");
    }
    for size in [json!(-1), json!(1.5), json!("7"), json!(1e300), json!(null)] {
        let mut value = manifest();
        value["layers"][0] = descriptor(&size);
        assert!(matches!(parse(&value), Err(ManifestError::Json(_))), "{size}");
    }
    let mut value = index();
    value["manifests"] = json!([descriptor(&json!(u64::MAX)), descriptor(&json!(u64::MAX))]);
    assert!(matches!(parse(&value), Err(ManifestError::TooLarge { .. })));
}

#[test]
fn too_many_layers_and_bytes_are_refused() {
    let mut value = manifest();
    value["layers"] = json!(vec![descriptor(&json!(1)); limits::LAYERS + 1]);
    assert!(matches!(parse(&value), Err(ManifestError::Entries { found: 1_001, limit: 1_000 })));
    let mut value = index();
    value["manifests"] = json!(vec![descriptor(&json!(1)); limits::ENTRIES + 1]);
    assert!(matches!(parse(&value), Err(ManifestError::Entries { found: 10_001, .. })));
    let large = Bytes::from(vec![b' '; limits::MANIFEST_BYTES + 1]);
    assert!(matches!(RawManifest::new(large, None), Err(ManifestError::Size { .. })));
}

#[test]
fn doubled_and_respelled_fields_are_refused() {
    let doubled = manifest().to_string().replacen("\"layers\"", "\"layers\":[],\"layers\"", 1);
    assert!(matches!(parse_text(&doubled), Err(ManifestError::Json(_))));
    let mut value = manifest();
    value["Layers"] = json!([]);
    assert!(matches!(parse(&value), Err(ManifestError::Spelling { field }) if field == "Layers"));
    let mut value = index();
    value["manifests"][0]["Digest"] = json!(DIGEST);
    assert!(matches!(parse(&value), Err(ManifestError::Spelling { field }) if field == "Digest"));
}

#[test]
fn go_nulls_are_read_as_empty() {
    let mut value = index();
    value["manifests"] = json!(null);
    value["annotations"] = json!(null);
    assert!(matches!(Index::parse(value.to_string().as_bytes()), Ok(index) if index.manifests.is_empty()));
}

#[test]
fn deep_nesting_is_refused() {
    let deep = format!("{{\"schemaVersion\":2,\"manifests\":[],\"x\":{}{}}}", "[".repeat(1_000), "]".repeat(1_000));
    assert!(matches!(parse_text(&deep), Err(ManifestError::Json(_))));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused_without_panic(bytes: Vec<u8>) {
        let _ = RawManifest::new(bytes.into(), None).and_then(|raw| raw.parse());
    }

    #[test]
    fn broken_manifests_are_read_or_refused_without_panic(at: prop::sample::Index, byte: u8) {
        let mut bytes = manifest().to_string().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = RawManifest::new(bytes.into(), None).and_then(|raw| raw.parse());
    }

    #[test]
    fn manifests_survive_a_round_trip(
        sizes in prop::collection::vec(0..1_u64 << 40, 0..20),
        annotations in prop::collection::btree_map("[a-z.]{1,20}", "\\PC{0,20}", 0..4),
    ) {
        let layers = sizes.iter().map(|size| {
            let mut layer = Descriptor::new(media_type::OCI_LAYER, Digest::of(&size.to_be_bytes()), *size);
            layer.annotations = annotations.clone();
            layer
        });
        let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
        let mut manifest = Manifest::new(config, layers.collect());
        manifest.annotations = annotations.clone();
        let bytes = manifest.to_bytes().unwrap();
        prop_assert_eq!(RawManifest::new(bytes, None).unwrap().parse().unwrap(), Document::Manifest(manifest));
    }
}
