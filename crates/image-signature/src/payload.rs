//! The simple signing payload: which manifest is signed, and under which name
//! (containers/image `docs/containers-signature.5.md`; cosign `specs/SIGNATURE_SPEC.md`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::{DigestError, hex_part};

/// The value of `critical.type`.
pub const TYPE: &str = "cosign container image signature";

/// The longest payload that is read, in bytes.
pub const PAYLOAD_MAX: usize = 64 * 1024;

/// Why bytes are no payload.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PayloadError {
    /// The digest in it is none.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// Not the JSON of a payload; a member that is not known in its critical part; one twice.
    #[error("the signed payload is not what it should be")]
    Json(#[source] serde_json::Error),
    /// More than 64 KiB.
    #[error("the signed payload is too long")]
    TooLong,
    /// Another type.
    #[error("the signed payload is none of a container image")]
    Type,
}

/// What a signature says.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    /// The name of the image when it was signed, as the signer knew it.
    pub docker_reference: String,
    /// The digest of the signed manifest.
    pub manifest_digest: String,
    /// Anything else; none of it is required to be understood.
    pub optional: Option<Map<String, Value>>,
}

impl Payload {
    /// A payload without optional members.
    pub fn new(manifest_digest: &str, docker_reference: &str) -> Result<Self, PayloadError> {
        hex_part(manifest_digest)?;
        Ok(Self {
            docker_reference: docker_reference.to_owned(),
            manifest_digest: manifest_digest.to_owned(),
            optional: None,
        })
    }

    /// Reads a payload. Nothing in it may be believed before its signature was checked.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PayloadError> {
        if bytes.len() > PAYLOAD_MAX {
            return Err(PayloadError::TooLong);
        }
        let raw: Raw = jose::strict_json::from_slice(bytes).map_err(PayloadError::Json)?;
        if raw.critical.kind != TYPE {
            return Err(PayloadError::Type);
        }
        hex_part(&raw.critical.image.manifest_digest)?;
        Ok(Self {
            docker_reference: raw.critical.identity.docker_reference,
            manifest_digest: raw.critical.image.manifest_digest,
            optional: raw.optional,
        })
    }

    /// The bytes to sign, in cosign's member order.
    pub fn to_json(&self) -> Result<Vec<u8>, PayloadError> {
        let raw = Raw {
            critical: Critical {
                identity: Identity { docker_reference: self.docker_reference.clone() },
                image: Image { manifest_digest: self.manifest_digest.clone() },
                kind: TYPE.to_owned(),
            },
            optional: self.optional.clone(),
        };
        serde_json::to_vec(&raw).map_err(PayloadError::Json)
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    critical: Critical,
    /// cosign writes `null` when there is nothing.
    optional: Option<Map<String, Value>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    docker_reference: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    manifest_digest: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// As in cosign's `pkg/cosign/obsolete_test.go`, with another name and digest.
    #[test]
    fn is_written_byte_for_byte_as_cosign_does() {
        let payload = Payload::new(DIGEST, "registry.example/app").unwrap();
        let expected = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"registry.example/app"}},"image":{{"docker-manifest-digest":"{DIGEST}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        assert_eq!(payload.to_json().unwrap(), expected.as_bytes());
        assert_eq!(Payload::from_json(expected.as_bytes()).unwrap(), payload);
    }

    #[test]
    fn what_skopeo_writes_is_read() {
        let text = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"registry.example/app:1"}},"image":{{"docker-manifest-digest":"{DIGEST}"}},"type":"cosign container image signature"}},"optional":{{"creator":"containers/image 5","timestamp":1700000000}}}}"#
        );
        let payload = Payload::from_json(text.as_bytes()).unwrap();
        assert_eq!(payload.docker_reference, "registry.example/app:1");
        assert_eq!(payload.optional.unwrap()["timestamp"], 1_700_000_000);
    }

    #[test]
    fn other_documents_are_refused() {
        let good = String::from_utf8(Payload::new(DIGEST, "app").unwrap().to_json().unwrap()).unwrap();
        for (from, to) in [
            (r#""type""#, r#""kind""#),
            (r#""type""#, r#""more":1,"type""#),
            (r#""type""#, r#""image":{"docker-manifest-digest":""},"type""#),
            (r#""optional":null"#, r#""optional":[]"#),
            (r#""optional":null"#, r#""optional":null,"optional":null"#),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            let error = Payload::from_json(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, PayloadError::Json(_)), "{bad}: {error:?}");
        }
        let other = good.replace("cosign container", "atomic container");
        assert!(matches!(Payload::from_json(other.as_bytes()), Err(PayloadError::Type)));
        let other = good.replace("sha256:e3", "sha256:E3");
        assert!(matches!(Payload::from_json(other.as_bytes()), Err(PayloadError::Digest(_))));
        let long = vec![b' '; PAYLOAD_MAX + 1];
        assert!(matches!(Payload::from_json(&long), Err(PayloadError::TooLong)));
    }

    proptest! {
        #[test]
        fn any_reference_survives(reference in ".{0,60}") {
            let payload = Payload::new(DIGEST, &reference).unwrap();
            prop_assert_eq!(Payload::from_json(&payload.to_json().unwrap()).unwrap(), payload);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Payload::from_json(&bytes);
        }
    }
}
