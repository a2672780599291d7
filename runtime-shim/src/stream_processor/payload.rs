//! What containerd says on file descriptor 3: the layer's descriptor, in a protobuf `Any`.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use command_line::{ExitCode, Failure, FailureContext as _};
use image_store::Descriptor;
use prost::Message as _;
use serde::Deserialize;

use crate::agent::protocol::ImageHint;

/// Where the payload comes, as the kernel names it: opened anew, since it is nobody's to close here.
const DESCRIPTOR: &str = "/proc/self/fd/3";
/// The longest payload that is read, in bytes. Real ones have some 2 KiB.
const PAYLOAD_MAX: u64 = 1024 * 1024;
/// The type that containerd's plugin registers; a prefix with a slash may stand before it.
const TYPE: &str = "io.containerd.ocicrypt.v1.Payload";
/// What CRI calls the image, where snapshot annotations are not turned off.
const IMAGE_REFERENCE: &str = "containerd.io/snapshot/cri.image-ref";
/// The platform's manifest, beside it.
const MANIFEST_DIGEST: &str = "containerd.io/snapshot/cri.manifest-digest";

/// `io.containerd.ocicrypt.v1.Payload`, as far as it is ours: the keys in it are for ocicrypt's own providers.
#[derive(Debug, Deserialize)]
pub(crate) struct Payload {
    /// The layer.
    #[serde(rename = "Descriptor")]
    pub(crate) layer: Descriptor,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Reads the payload, if there is one. Call it before anything opens descriptors.
pub(crate) fn receive() -> Result<Option<Payload>, Failure> {
    let path = Path::new(DESCRIPTOR);
    let is_pipe = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
    if !is_pipe {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(PAYLOAD_MAX + 1).read_to_end(&mut bytes))
        .or_fail(ExitCode::Other, || "cannot read the payload on file descriptor 3".to_owned())?;
    parse(&bytes).map(Some)
}

/// What to do where containerd sends none.
pub(super) fn missing() -> Failure {
    Failure::bad_input("containerd sent no payload on file descriptor 3, so that the layer has no key").hint(
        "set `use_local_image_pull = true` in [plugins.'io.containerd.cri.v1.images'] and pull by CRI; containerd 2.0, \
         2.1.0 to 2.1.6, and 2.2.0 and 2.2.1 send none whatever is set: use 2.1.7, 2.2.2, 2.3 or later, or 1.7",
    )
}

fn parse(bytes: &[u8]) -> Result<Payload, Failure> {
    let cannot = || "the payload on file descriptor 3 is not containerd's".to_owned();
    if bytes.is_empty() {
        return Err(missing());
    }
    if bytes.len() as u64 > PAYLOAD_MAX {
        return Err(Failure::bad_input(cannot()).cause("it is too long"));
    }
    let any = Any::decode(bytes).or_fail(ExitCode::BadInput, cannot)?;
    if any.type_url.rsplit('/').next() != Some(TYPE) {
        return Err(Failure::bad_input(cannot()).cause(format!("it is of the type {:?}", any.type_url)));
    }
    serde_json::from_slice(&any.value).or_fail(ExitCode::BadInput, cannot)
}

impl Payload {
    /// The image that containerd pulls, where CRI says so.
    pub(crate) fn image(&self) -> Option<ImageHint> {
        let annotation = |name: &str| self.layer.annotations.get(name).cloned();
        let reference = annotation(IMAGE_REFERENCE)?;
        Some(ImageHint { reference, manifest_digest: annotation(MANIFEST_DIGEST) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn payload(type_url: &str, value: &Value) -> Vec<u8> {
        Any { type_url: type_url.to_owned(), value: value.to_string().into_bytes() }.encode_to_vec()
    }

    /// As containerd 1.7 and 2.3 send it.
    fn real() -> Value {
        json!({
            "DecryptConfig": {"Parameters": null},
            "Descriptor": {
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
                "digest": format!("sha256:{}", "1".repeat(64)),
                "size": 1234,
                "annotations": {IMAGE_REFERENCE: "registry.example/shop:1", MANIFEST_DIGEST: "sha256:2"},
            },
        })
    }

    #[test]
    fn the_layer_and_its_image_are_read_with_and_without_a_prefix() {
        for type_url in [TYPE.to_owned(), format!("types.containerd.io/{TYPE}")] {
            let payload = parse(&payload(&type_url, &real())).unwrap();
            assert_eq!(payload.layer.size, 1234);
            let image = payload.image().unwrap();
            assert_eq!(image.reference, "registry.example/shop:1");
            assert_eq!(image.manifest_digest.as_deref(), Some("sha256:2"));
        }
        let mut bare = real();
        bare["Descriptor"]["annotations"] = json!(null);
        assert_eq!(parse(&payload(TYPE, &bare)).unwrap().image(), None);
    }

    #[test]
    fn what_is_not_containerds_is_refused() {
        assert!(parse(b"").unwrap_err().hint.unwrap().contains("use_local_image_pull = true"));
        let refused = |bytes: &[u8]| parse(bytes).unwrap_err().message.contains("is not containerd's");
        assert!(refused(b"{}"));
        assert!(refused(&payload("io.containerd.other", &real())));
        assert!(refused(&payload(&format!("{TYPE}x"), &real())));
        assert!(refused(&payload(TYPE, &json!({}))));
        assert!(refused(&vec![0; 1024 * 1024 + 1]));
        let whole = payload(TYPE, &real());
        assert!(refused(&whole[..whole.len() - 1]));
    }
}
