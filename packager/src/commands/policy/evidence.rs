//! The evidence that a policy is tried on: claims as JSON, or a raw report. Nothing is verified here.

use command_line::{ExitCode, Failure, FailureContext as _};
use launch_evidence::ChipId;
use launch_evidence::snp::claims::unverified;
use serde_json::{Map, Value, json};

/// The length of a raw SEV-SNP report, in bytes.
const REPORT_LEN: usize = 1184;

/// The members of the input that evidence makes.
#[derive(Debug)]
pub(super) struct StatedEvidence {
    pub(super) tee: Value,
    pub(super) platform: Value,
    pub(super) checks: Value,
}

impl StatedEvidence {
    /// Reads a raw report, the claims as JSON, or a document that has them as `tee` or `claims`.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Failure> {
        if bytes.len() == REPORT_LEN
            && let Some(claims) = unverified(bytes)
        {
            return Self::of(claims, None, None);
        }
        let document: Value = serde_json::from_slice(bytes)
            .or_fail(ExitCode::BadInput, || "the evidence is neither a raw SEV-SNP report nor JSON".to_owned())?;
        let Value::Object(mut members) = document else {
            return Err(Failure::bad_input("the evidence is JSON, but no object"));
        };
        let (platform, checks) = (members.remove("platform"), members.remove("checks"));
        match ["tee", "claims"].into_iter().find(|name| members.get(*name).is_some_and(Value::is_object)) {
            Some(name) => Self::of(members.remove(name).unwrap_or_default(), platform, checks),
            None => Self::of(Value::Object(members), platform, checks),
        }
    }

    fn of(tee: Value, platform: Option<Value>, checks: Option<Value>) -> Result<Self, Failure> {
        let Value::Object(mut tee) = tee else { return Err(Failure::bad_input("the claims are no object")) };
        let Some(name) = tee.get("tee").and_then(Value::as_str) else {
            return Err(Failure::bad_input("the claims do not say which TEE they are of")
                .hint("give the claims as `sealift evidence show --output json` prints them, or a raw report"));
        };
        let platform = platform.unwrap_or_else(|| if name == "tdx" { tdx_platform(&tee) } else { snp_platform(&tee) });
        // What only a verifier can say: policies read `simulated`, and never `verified`.
        tee.remove("verified");
        tee.entry("simulated").or_insert(Value::Bool(false));
        let checks = checks.map_or_else(|| json!([]), only_names_and_verdicts);
        Ok(Self { tee: Value::Object(tee), platform, checks })
    }
}

/// As the service makes it of the same claims.
fn snp_platform(tee: &Map<String, Value>) -> Value {
    let of = |name: &str| tee.get(name).filter(|value| !value.is_null()).cloned();
    let members = [
        ("product", of("product")),
        ("reported_tcb", of("reported_tcb")),
        ("cpuid_model", of("cpuid").and_then(|cpuid| cpuid.get("model").cloned())),
        ("chip_id", of("chip_id").filter(|_| tee.get("signing_key").is_none_or(|kind| kind == "vcek"))),
        ("csp_id", of("csp_id")),
    ];
    members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn tdx_platform(tee: &Map<String, Value>) -> Value {
    let ppid = tee.get("ppid").and_then(Value::as_str).unwrap_or_default();
    json!({"product": "TDX", "fmspc": tee.get("fmspc"), "chip_id": format!("{ppid:0<width$}", width = 2 * ChipId::LEN)})
}

fn only_names_and_verdicts(checks: Value) -> Value {
    let Value::Array(checks) = checks else { return checks };
    checks.iter().map(|check| json!({"name": check.get("name"), "verdict": check.get("verdict")})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_stand_alone_or_in_a_document() {
        let claims =
            json!({"tee": "snp", "product": "Milan", "chip_id": "ab", "signing_key": "vcek", "simulated": true});
        for document in [claims.clone(), json!({"tee": claims}), json!({"claims": claims, "verdict": "x"})] {
            let evidence = StatedEvidence::read(document.to_string().as_bytes()).unwrap();
            assert_eq!((&evidence.tee, &evidence.checks), (&claims, &json!([])));
            assert_eq!(evidence.platform, json!({"product": "Milan", "chip_id": "ab"}));
        }
        let check = json!({"name": "vmpl", "verdict": "passed", "found": "0"});
        let document = json!({"tee": claims, "platform": {"product": "Genoa"}, "checks": [check]});
        let evidence = StatedEvidence::read(document.to_string().as_bytes()).unwrap();
        assert_eq!(evidence.platform, json!({"product": "Genoa"}));
        assert_eq!(evidence.checks, json!([{"name": "vmpl", "verdict": "passed"}]));
    }

    #[test]
    fn the_platform_of_a_td_is_its_ppid() {
        let evidence = StatedEvidence::read(br#"{"tee": "tdx", "ppid": "abcd", "fmspc": "00"}"#).unwrap();
        let chip: ChipId = evidence.platform["chip_id"].as_str().unwrap().parse().unwrap();
        assert_eq!(chip.as_bytes()[..3], [0xAB, 0xCD, 0]);
    }

    #[test]
    fn what_is_no_evidence_is_refused() {
        for bytes in [&b""[..], b"[]", b"{}", b"{\"tee\": 1}", b"{\"tee\": {}}", &[0; REPORT_LEN], b"\"snp\""] {
            assert_eq!(StatedEvidence::read(bytes).unwrap_err().code, ExitCode::BadInput);
        }
    }
}
