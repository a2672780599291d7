//! What a guest keeps sealed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use command_line::{ExitCode, Failure, FailureContext as _};
use jose::jwe::EphemeralKey;
use ocicrypt::options::PrivateOptions;
use release_protocol::{Lease, Obligations, Workload};
use serde::{Deserialize, Serialize};
use transparency_log::{Receipt, VerifierKey};
use zeroize::Zeroizing;

use super::allowance::Allowance;

/// See the module's text. Secrets are base64, so that no copy of them is made while they are read: JSON escapes none of it.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// What was attested to run; nothing else does without the service.
    pub(super) workload: Workload,
    pub(super) obligations: Obligations,
    pub(super) lease: Lease,
    /// What the service wants to hear with the next request for news.
    pub(super) since: Option<u64>,
    /// The token of the newest attestation.
    pub(super) token: Zeroizing<String>,
    /// The lease's own key: a restart is the same lease.
    pub(super) key: Zeroizing<String>,
    /// The private options of each layer; none of a plain one.
    pub(super) layers: Vec<Option<Zeroizing<String>>>,
    /// What verifies the service's receipts.
    pub(super) log_key: Option<VerifierKey>,
    /// The newest.
    pub(super) receipt: Option<Receipt>,
    pub(super) allowance: Allowance,
    /// A request for renewal by file that has not been answered.
    pub(super) pending: Option<Pending>,
}

/// See [`Record::pending`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    /// Which ([`release_protocol::request_digest`]).
    pub(super) request: String,
    /// When it was made, in milliseconds of the wall clock.
    pub(super) asked_at: i64,
    /// How much of the allowance had been run by then, in milliseconds.
    pub(super) used: u64,
}

impl Record {
    /// The lease's own key.
    pub(super) fn lease_key(&self) -> Result<EphemeralKey, Failure> {
        let failed = || "the sealed state has no key of a lease".to_owned();
        let der = STANDARD.decode(&*self.key).map(Zeroizing::new).or_fail(ExitCode::BadInput, failed)?;
        EphemeralKey::from_der(&der).or_fail(ExitCode::BadInput, failed)
    }

    /// The layers' keys.
    pub(super) fn layer_keys(&self) -> Result<Vec<Option<PrivateOptions>>, Failure> {
        let failed = || "the sealed state has no key of a layer".to_owned();
        let read = |text: &Zeroizing<String>| {
            let json = STANDARD.decode(text.as_bytes()).map(Zeroizing::new).or_fail(ExitCode::BadInput, failed)?;
            PrivateOptions::from_json(&json).or_fail(ExitCode::BadInput, failed)
        };
        self.layers.iter().map(|layer| layer.as_ref().map(read).transpose()).collect()
    }

    /// As they are kept.
    pub(super) fn encoded(layers: &[Option<PrivateOptions>]) -> Vec<Option<Zeroizing<String>>> {
        let encode = |options: &PrivateOptions| Zeroizing::new(STANDARD.encode(options.to_json().as_bytes()));
        layers.iter().map(|layer| layer.as_ref().map(encode)).collect()
    }

    /// The key of a lease as it is kept.
    pub(super) fn encoded_key(key: &EphemeralKey) -> Result<Zeroizing<String>, Failure> {
        let der = key.to_der().or_fail(ExitCode::Other, || "cannot keep the guest's key".to_owned())?;
        Ok(Zeroizing::new(STANDARD.encode(&*der)))
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("lease", &self.lease.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A record of a made-up lease.
    pub(in super::super) fn record() -> Record {
        Record {
            workload: serde_json::from_value(json!({"manifest_digest": "sha256:11"})).unwrap(),
            obligations: Obligations::default(),
            lease: serde_json::from_value(json!({
                "id": "own", "license": "lic", "expires_at": "2026-10-01T08:09:10Z", "ttl_seconds": 6, "grace_seconds": 2,
            }))
            .unwrap(),
            since: None,
            token: Zeroizing::new("the token of an attestation".to_owned()),
            key: Zeroizing::new("the key of a lease".to_owned()),
            layers: vec![None],
            log_key: None,
            receipt: None,
            allowance: Allowance::granted(60, 0, 0),
            pending: None,
        }
    }

    #[test]
    fn a_record_prints_no_secret() {
        let text = format!("{:?} {:#?}", record(), record());
        assert!(text.contains("own") && !text.contains("token") && !text.contains("key"), "{text}");
    }

    #[test]
    fn keys_come_back_as_they_were() {
        let json = format!(
            r#"{{"symkey":"{}","digest":"sha256:{}","cipheroptions":{{"nonce":"{}"}}}}"#,
            STANDARD.encode([7; 32]),
            "ab".repeat(32),
            STANDARD.encode([9; 16])
        );
        let options = PrivateOptions::from_json(json.as_bytes()).unwrap();
        let key = EphemeralKey::generate().unwrap();
        let kept = Record {
            layers: Record::encoded(&[None, Some(options)]),
            key: Record::encoded_key(&key).unwrap(),
            ..record()
        };
        let read: Record = serde_json::from_slice(&serde_json::to_vec(&kept).unwrap()).unwrap();
        let layers = read.layer_keys().unwrap();
        assert!(layers[0].is_none());
        assert_eq!(*layers[1].as_ref().unwrap().to_json(), json);
        assert_eq!(read.lease_key().unwrap().thumbprint(), key.thumbprint());
        assert!(record().lease_key().is_err());
    }
}
