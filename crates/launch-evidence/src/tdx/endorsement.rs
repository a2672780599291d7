//! What Intel says of a quote's platform: collateral, the PCK chain, the quoting enclave, TCB levels. The
//! `dcap-qvl` crate judges; nothing outside this file names it.

use dcap_qvl::configs::RustCryptoConfig;
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{QuoteClaims, QuoteCollateralV3, QuotePolicy};
use jiff::Timestamp;
use serde_json::Value;

use super::quote::Quote;
use super::status::TcbStatus;
use crate::check::{CheckName, Checks};
use crate::verifier::Expected;

/// The largest collateral, in bytes of JSON; real one has about 20 KiB.
const COLLATERAL_LEN: usize = 512 * 1024;

/// Intel's word on one kind of platform: TCB levels, the quoting enclave's identity, and revocation lists,
/// each signed. What a provisioning certificate caching service hands out, in the JSON form of the
/// `dcap-qvl` crate.
#[derive(Clone, Debug)]
pub struct Collateral {
    given: QuoteCollateralV3,
    fmspc: String,
}

/// Why a text is no [`Collateral`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollateralError {
    /// Not JSON of the members that collateral has.
    #[error("no collateral")]
    Malformed(#[source] serde_json::Error),
    /// Larger than any real one.
    #[error("collateral of {0} bytes, the limit is {COLLATERAL_LEN}")]
    TooLarge(usize),
}

impl Collateral {
    /// Reads JSON, as a file has it. Signatures and dates are judged at each verification.
    ///
    /// # Errors
    /// [`CollateralError`] when it is none.
    pub fn from_json(json: &[u8]) -> Result<Self, CollateralError> {
        if json.len() > COLLATERAL_LEN {
            return Err(CollateralError::TooLarge(json.len()));
        }
        Self::new(serde_json::from_slice(json).map_err(CollateralError::Malformed)?)
    }

    /// Reads the member of evidence.
    pub(crate) fn from_value(value: &Value) -> Result<Self, CollateralError> {
        let text_len: usize = value
            .as_object()
            .into_iter()
            .flat_map(|members| members.values())
            .filter_map(Value::as_str)
            .map(str::len)
            .sum();
        if text_len > COLLATERAL_LEN {
            return Err(CollateralError::TooLarge(text_len));
        }
        Self::new(serde::Deserialize::deserialize(value).map_err(CollateralError::Malformed)?)
    }

    fn new(mut given: QuoteCollateralV3) -> Result<Self, CollateralError> {
        // The quote's own chain is the one that is judged.
        given.pck_certificate_chain = None;
        // Read only to find the collateral by; `dcap-qvl` compares it with the verified certificate's.
        let info: Value = serde_json::from_str(&given.tcb_info).map_err(CollateralError::Malformed)?;
        let fmspc = info.get("fmspc").and_then(Value::as_str).unwrap_or_default().to_lowercase();
        Ok(Self { given, fmspc })
    }

    /// The kind of platform that it is about: FMSPC, 12 hexadecimal digits.
    pub fn fmspc(&self) -> &str {
        &self.fmspc
    }
}

/// What Intel says of the platform.
#[derive(Clone, Debug)]
pub(crate) struct Endorsement {
    pub(crate) status: TcbStatus,
    pub(crate) advisory_ids: Vec<String>,
    pub(crate) evaluation: u32,
    pub(crate) fmspc: [u8; 6],
    pub(crate) ppid: Vec<u8>,
}

impl Endorsement {
    /// Nothing that Intel said: for claims that drop these members.
    pub(crate) fn unknown() -> Self {
        Self { status: TcbStatus::OutOfDate, advisory_ids: Vec::new(), evaluation: 0, fmspc: [0; 6], ppid: Vec::new() }
    }
}

/// The FMSPC in the certificate of a quote's platform, before anything is verified: to find collateral by.
pub(crate) fn fmspc(quote: &Quote<'_>) -> Option<String> {
    let pck = dcap_qvl::intel::parse_pck_extension_from_pem_with::<RustCryptoConfig>(quote.chain).ok()?;
    Some(hex::encode(pck.fmspc))
}

/// Checks collateral, chain and TCB.
pub(crate) fn check(
    quote: &Quote<'_>,
    collateral: &Collateral,
    expected: &Expected,
    checks: &mut Checks,
) -> Option<Endorsement> {
    const CHAIN: &str = "a quoting enclave and a platform that Intel vouches for";
    check_dates(collateral, expected.now, checks);
    let now = u64::try_from(expected.now.as_second()).unwrap_or_default();
    // Debugging and service TDs have been judged beside this, with names of their own; the crate's policy is
    // left open, for the status is judged below, by requirement.
    let verifier = QuoteVerifier::new_prod().with_config::<RustCryptoConfig>().allow_debug(true).allow_service_td(true);
    let open = QuotePolicy::claims_only(now);
    match verifier.verify_with_policy(quote.bytes, collateral.given.clone(), now, &open) {
        Ok(claims) => {
            checks.note(CheckName::QuoteEndorsement, true, CHAIN, CHAIN);
            check_status(&claims, expected, checks)
        }
        Err(error) => {
            let found: Vec<String> = error.chain().map(ToString::to_string).collect();
            let found = found.join(": ").chars().take(200).collect::<String>();
            if is_about_tcb(&found) {
                checks.skip(CheckName::QuoteEndorsement, "the TCB was refused first");
                checks.note(CheckName::TcbStatus, false, accepted(expected), found);
            } else {
                if is_said_already(&found) && !checks.all_hold() {
                    checks.skip(CheckName::QuoteEndorsement, found);
                } else {
                    checks.note(CheckName::QuoteEndorsement, false, CHAIN, found);
                }
                checks.skip(CheckName::TcbStatus, "the platform is not vouched for");
            }
            None
        }
    }
}

/// Whether the crate's refusal is one of the level and not of the chain. The words decide only which of two
/// checks fails.
fn is_about_tcb(found: &str) -> bool {
    found.contains("No matching TCB level") || found.contains("Revoked")
}

/// Whether the crate's refusal repeats one of the checks beside it, on attributes or dates. Looked at only
/// where one of them has failed.
fn is_said_already(found: &str) -> bool {
    const WORDS: [&str; 5] = ["TD attributes", "TD migration", "SEPT_VE_DISABLE", "expired", "issue date"];
    WORDS.iter().any(|words| found.contains(words))
}

fn check_status(claims: &QuoteClaims, expected: &Expected, checks: &mut Checks) -> Option<Endorsement> {
    let accepted_statuses = &expected.requirements.tdx.tcb_statuses;
    let name = claims.tcb.status.to_string();
    let status = TcbStatus::named(&name);
    // A TD of 1.5 tells the TCB of now beside that of its launch.
    let current = claims.platform.current_tcb_level.as_ref().map(|level| level.tcb_status.to_string());
    let is_accepted = |name: &str| TcbStatus::named(name).is_some_and(|status| accepted_statuses.contains(&status));
    let holds = is_accepted(&name) && current.as_deref().is_none_or(is_accepted);
    let advisories = claims.tcb.advisory_ids.join(", ");
    let found = match (current.filter(|current| *current != name), advisories.as_str()) {
        (Some(current), "") => format!("{name}, now {current}"),
        (Some(current), advisories) => format!("{name}, now {current} ({advisories})"),
        (None, "") => name,
        (None, advisories) => format!("{name} ({advisories})"),
    };
    checks.note(CheckName::TcbStatus, holds, accepted(expected), found);
    Some(Endorsement {
        status: status?,
        advisory_ids: claims.tcb.advisory_ids.clone(),
        evaluation: claims.tcb.eval_data_number,
        fmspc: claims.platform.pck.fmspc,
        ppid: claims.platform.pck.ppid.clone(),
    })
}

fn accepted(expected: &Expected) -> String {
    let names: Vec<String> = expected.requirements.tdx.tcb_statuses.iter().map(ToString::to_string).collect();
    if names.is_empty() { "no status".to_owned() } else { names.join(" or ") }
}

/// The dates that collateral says of itself; `dcap-qvl` judges those of its lists and certificates, too.
fn check_dates(collateral: &Collateral, now: Timestamp, checks: &mut Checks) {
    let expected = format!("collateral current at {now}");
    let offence = [("TCB levels", &collateral.given.tcb_info), ("enclave identity", &collateral.given.qe_identity)]
        .into_iter()
        .find_map(|(name, json)| date_offence(name, json, now));
    checks.note(CheckName::CollateralDates, offence.is_none(), expected.clone(), offence.unwrap_or(expected));
}

fn date_offence(name: &str, json: &str, now: Timestamp) -> Option<String> {
    let parsed: Value = serde_json::from_str(json).unwrap_or_default();
    let date = |member: &str| parsed.get(member)?.as_str()?.parse::<Timestamp>().ok();
    match (date("issueDate"), date("nextUpdate")) {
        (Some(from), _) if now < from => Some(format!("{name} of {from}")),
        (_, Some(until)) if now > until => Some(format!("{name} that expired at {until}")),
        (Some(_), Some(_)) => None,
        _ => Some(format!("{name} without dates")),
    }
}
