//! `sample`: what clients of Confidential Containers send where there is no TEE. It proves nothing at all: whoever asks writes
//! it. Only a service that accepts simulated platforms has this verifier, and everything that rests on it is simulated.
//!
//! Source: guest-components, `attester/src/sample`: `{"svn": TEXT, "report_data": BASE64}`.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::attester::{Attester, AttesterError};
use crate::check::{CheckName, Checks};
use crate::form::{Offence, base64, kind, member_names};
use crate::identity::{ChipId, Measurement};
use crate::verifier::{Binding, EvidenceRejected, Expected, HostData, VerifiedEvidence, Verifier};

/// The name of this TEE in the key broker protocol.
pub const TEE: &str = "sample";

/// What the protocol binds: a SHA-384, in bytes.
const SHA384_LEN: usize = 48;
/// The longest report data, in bytes: a SHA-512.
const REPORT_DATA_MAX: usize = 64;
/// The longest `svn`, in bytes.
const SVN_MAX: usize = 64;

/// What a client says of itself. There is no measurement, no chip and no host's data.
#[derive(Clone, Debug, Serialize)]
pub struct Claims {
    /// `sample`.
    pub tee: &'static str,
    /// True.
    pub simulated: bool,
    /// As the client says.
    pub svn: String,
    /// The 64 bytes that the client bound itself to, in hexadecimal.
    pub report_data: String,
}

impl Claims {
    /// That of nothing.
    pub(crate) fn measurement() -> Measurement {
        Measurement([0; 48])
    }

    /// That of no chip.
    pub(crate) fn chip_id() -> ChipId {
        ChipId([0; 64])
    }
}

/// What a guest without a TEE says of itself, for evaluation.
#[derive(Clone, Copy, Debug, Default)]
pub struct SampleAttester;

impl Attester for SampleAttester {
    fn tee(&self) -> &'static str {
        TEE
    }

    fn is_simulated(&self) -> bool {
        true
    }

    /// Verifiers compare with the SHA-384 alone, without zeros behind it.
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Value, AttesterError> {
        let (digest, _) = report_data.split_at(SHA384_LEN);
        Ok(json!({"svn": "1", "report_data": STANDARD.encode(digest)}))
    }
}

/// Sees that a client that has no TEE is bound to its key and challenge.
#[derive(Clone, Copy, Debug, Default)]
pub struct SampleVerifier;

impl Verifier for SampleVerifier {
    fn tee(&self) -> &'static str {
        TEE
    }

    fn recognises(&self, primary: &Value) -> bool {
        primary.as_object().is_some_and(is_sample)
    }

    fn binding(&self, primary: &Value) -> Option<Binding> {
        let (_, report_data) = parse(primary).ok()?;
        Some(Binding { report_data, host_data: None })
    }

    fn verify(&self, primary: &Value, expected: &Expected) -> Result<VerifiedEvidence, EvidenceRejected> {
        let mut checks = Checks::default();
        let (svn, report_data) = match parse(primary) {
            Ok(parsed) => parsed,
            Err(offence) => return Err(offence.reject(checks)),
        };
        let (wanted, found) = (hex::encode(expected.report_data), hex::encode(report_data));
        checks.note(CheckName::ReportData, wanted == found, wanted, found.clone());
        if expected.host_data == HostData::Zero {
            checks.skip(CheckName::HostData, "a sample says nothing of its launch");
        } else {
            checks.skip(CheckName::HostData, "a sample says nothing of its launch: anybody may have written these");
        }
        checks.skip(CheckName::TrustRoot, "a sample has no signature: nothing is proven");
        if !checks.all_hold() {
            return Err(EvidenceRejected { checks: checks.into_list() });
        }
        let evidence_digest = hex::encode(digest(&SHA256, &report_data));
        let claims = Claims { tee: TEE, simulated: true, svn, report_data: found };
        Ok(VerifiedEvidence::new(claims, checks.into_list(), evidence_digest))
    }
}

/// What a sample says, which nothing verifies.
pub(crate) fn unverified(primary: &Value) -> Option<Value> {
    let (svn, report_data) = parse(primary).ok()?;
    Some(json!({"tee": TEE, "svn": svn, "report_data": hex::encode(report_data), "verified": false}))
}

fn is_sample(members: &Map<String, Value>) -> bool {
    members.len() == 2 && ["svn", "report_data"].iter().all(|name| members.get(*name).is_some_and(Value::is_string))
}

/// The `svn`, and the report data with zeros behind them.
fn parse(primary: &Value) -> Result<(String, [u8; 64]), Offence> {
    let Value::Object(members) = primary else {
        return Err(Offence::form("a JSON object", kind(primary)));
    };
    if !is_sample(members) {
        return Err(Offence::form("`svn` and `report_data`, two texts", member_names(members)));
    }
    let svn = members["svn"].as_str().filter(|svn| svn.len() <= SVN_MAX);
    let svn = svn.ok_or_else(|| Offence::form("`svn` of at most 64 bytes", "a longer one"))?;
    let given = base64(&members["report_data"], REPORT_DATA_MAX);
    let given =
        given.ok_or_else(|| Offence::form("`report_data` as base64, at most 64 bytes", "a text that is not it"))?;
    let mut report_data = [0; REPORT_DATA_MAX];
    report_data.iter_mut().zip(given).for_each(|(place, byte)| *place = byte);
    Ok((svn.to_owned(), report_data))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::verifier::Requirements;

    fn expected(report_data: [u8; 64], host_data: HostData) -> Expected {
        Expected { report_data, host_data, requirements: Requirements::default(), now: Timestamp::UNIX_EPOCH }
    }

    /// As the stock client sent it.
    const CAPTURED: &str =
        r#"{"report_data":"LtCEbgaASSZ3HTuMvhFUklUJxptHZ+wQlzGm+dGj4GRpHqZizXpGvCoUYzPqLTbI","svn":"1"}"#;

    #[test]
    fn what_a_stock_client_sends_is_bound_to_its_report_data_and_simulated() {
        let primary: Value = serde_json::from_str(CAPTURED).unwrap();
        let mut bound = [0; 64];
        bound[..48].copy_from_slice(&STANDARD.decode(primary["report_data"].as_str().unwrap()).unwrap());
        let evidence = SampleVerifier.verify(&primary, &expected(bound, HostData::Zero)).unwrap();
        assert!(evidence.is_simulated());
        let claims = serde_json::to_value(evidence.claims()).unwrap();
        assert_eq!(
            (&claims["tee"], &claims["svn"], &claims["simulated"]),
            (&json!("sample"), &json!("1"), &json!(true))
        );
        assert!(claims.get("measurement").is_none() && claims.get("chip_id").is_none());

        let mut other = bound;
        other[0] ^= 1;
        let rejected = SampleVerifier.verify(&primary, &expected(other, HostData::Zero)).unwrap_err();
        assert_eq!(rejected.failures().map(|check| check.name).collect::<Vec<_>>(), [CheckName::ReportData]);
    }

    #[test]
    fn the_attester_says_what_the_verifier_reads() {
        let mut bound = [0; 64];
        bound[..48].fill(7);
        let primary = SampleAttester.evidence(&bound).unwrap();
        assert!(SampleVerifier.verify(&primary, &expected(bound, HostData::Zero)).unwrap().is_simulated());
    }

    #[test]
    fn evidence_of_a_tee_is_no_sample() {
        for other in [json!({"svn": "1"}), json!({"svn": 1, "report_data": ""}), json!({"quote": "AAAA"}), json!([])] {
            assert!(!SampleVerifier.recognises(&other), "{other}");
            assert!(SampleVerifier.verify(&other, &expected([0; 64], HostData::Zero)).is_err());
        }
        let long = json!({"svn": "1", "report_data": STANDARD.encode([0; 65])});
        assert!(SampleVerifier.verify(&long, &expected([0; 64], HostData::Zero)).is_err());
    }

    proptest! {
        #[test]
        fn any_sample_holds_for_its_own_binding_and_for_no_other(svn in ".{0,70}", data in prop::collection::vec(any::<u8>(), 0..70)) {
            let primary = json!({"svn": svn, "report_data": STANDARD.encode(&data)});
            match SampleVerifier.binding(&primary) {
                Some(own) => {
                    prop_assert!(data.len() <= 64 && svn.len() <= 64);
                    let accepted = |bound| SampleVerifier.verify(&primary, &expected(bound, HostData::Zero)).is_ok();
                    prop_assert!(accepted(own.report_data));
                    prop_assert!(!accepted(own.report_data.map(|byte| !byte)));
                }
                None => prop_assert!(data.len() > 64 || svn.len() > 64),
            }
        }
    }
}
