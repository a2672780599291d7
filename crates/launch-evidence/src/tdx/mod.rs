//! TDX: quotes of versions 4 and 5, Intel's word on their platform, and the verifier that judges both.
//!
//! Sources: Intel TDX DCAP Quoting Library API (quote formats), Intel TDX Module ABI (TD attributes), Intel PCS
//! API version 4 (collateral). Fetching collateral is not done here: it is a parameter.

pub(crate) mod body;
pub mod claims;
pub(crate) mod endorsement;
pub(crate) mod quote;
pub(crate) mod status;
#[cfg(test)]
mod tests;
pub mod wanted;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

pub use endorsement::{Collateral, CollateralError};
pub use status::{TcbStatus, TdxRequirements};

use crate::check::{CheckName, Checks};
use crate::form::{Offence, base64, kind, member_names};
use crate::verifier::{Binding, EvidenceRejected, Expected, HostData, VerifiedEvidence, Verifier};
use claims::Claims;
use quote::{QUOTE_LEN, Quote};

/// The name of this TEE in the key broker protocol.
pub const TEE: &str = "tdx";

/// Judges TDX evidence against Intel's root and collateral.
#[derive(Debug, Default)]
pub struct TdxVerifier {
    collateral: Vec<Collateral>,
}

impl TdxVerifier {
    /// A verifier without collateral of its own: evidence has to bring it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds collateral for one kind of platform. It is used before what evidence brings: a guest may hold on to
    /// an older one that is still within its dates.
    #[must_use]
    pub fn with_collateral(mut self, collateral: Collateral) -> Self {
        self.collateral.push(collateral);
        self
    }

    /// Judges a quote. `collateral` is what comes with it.
    ///
    /// # Errors
    /// [`EvidenceRejected`] with every check that was made when at least one failed.
    ///
    /// # Security
    /// As [`Verifier::verify`] says; RTMRs are claims only, and a policy has to judge them with MRTD.
    pub fn verify_quote(
        &self,
        quote: &[u8],
        collateral: Option<&Collateral>,
        expected: &Expected,
    ) -> Result<VerifiedEvidence, EvidenceRejected> {
        let mut checks = Checks::default();
        let quote = match Quote::parse(quote) {
            Ok(quote) => quote,
            Err(offence) => return Err(offence.reject(checks)),
        };
        checks.note(CheckName::TeeType, true, "a TD, TEE type 0x81", "a TD, TEE type 0x81");
        checks.note(CheckName::Version, true, "4 or 5", quote.version.to_string());
        checks.note(CheckName::QuoteForm, true, "a whole quote", format!("{} bytes", quote.bytes.len()));
        body::check(&quote, expected, &mut checks);

        let fmspc = endorsement::fmspc(&quote).unwrap_or_default();
        // The last one given counts: a newer file replaces an older one.
        let own = self.collateral.iter().rev().find(|own| own.fmspc() == fmspc);
        let wanted = format!("collateral for FMSPC {fmspc}");
        let endorsement = if let Some(collateral) = own.or(collateral.filter(|given| given.fmspc() == fmspc)) {
            let found = if own.is_some() { "given here" } else { "with the evidence" };
            checks.note(CheckName::Collateral, true, wanted, found);
            endorsement::check(&quote, collateral, expected, &mut checks)
        } else {
            let found = collateral.map_or("none".to_owned(), |other| format!("for {}", shown(other.fmspc())));
            checks.note(CheckName::Collateral, false, wanted, found);
            for name in [CheckName::CollateralDates, CheckName::QuoteEndorsement, CheckName::TcbStatus] {
                checks.skip(name, "there is no collateral");
            }
            None
        };
        match endorsement {
            Some(endorsement) if checks.all_hold() => {
                let evidence_digest = hex::encode(digest(&SHA256, quote.bytes));
                Ok(VerifiedEvidence::new(Claims::new(&quote, endorsement), checks.into_list(), evidence_digest))
            }
            _ => Err(EvidenceRejected { checks: checks.into_list() }),
        }
    }
}

impl Verifier for TdxVerifier {
    fn tee(&self) -> &'static str {
        TEE
    }

    fn recognises(&self, primary: &Value) -> bool {
        primary.get("quote").is_some_and(Value::is_string)
    }

    fn binding(&self, primary: &Value) -> Option<Binding> {
        let (bytes, _) = parse(primary).ok()?;
        let quote = Quote::parse(&bytes).ok()?;
        let host_data = HostData::from_report(quote.array(quote::MR_CONFIG_ID));
        Some(Binding { report_data: quote.array(quote::REPORT_DATA), host_data: Some(host_data) })
    }

    /// Reads `{"quote", "collateral"?}`, both ours and Confidential Containers' form; an event log beside them
    /// is not looked at.
    fn verify(&self, primary: &Value, expected: &Expected) -> Result<VerifiedEvidence, EvidenceRejected> {
        let (quote, collateral) = match parse(primary) {
            Ok(parsed) => parsed,
            Err(offence) => return Err(offence.reject(Checks::default())),
        };
        self.verify_quote(&quote, collateral.as_ref(), expected)
    }
}

/// Evidence in our raw form: a quote, and collateral where it is at hand (JSON as [`Collateral::from_json`]
/// reads it).
pub fn evidence_json(quote: &[u8], collateral: Option<Value>) -> Value {
    let mut members = Map::new();
    members.insert("quote".to_owned(), Value::from(STANDARD.encode(quote)));
    members.extend(collateral.map(|collateral| ("collateral".to_owned(), collateral)));
    Value::Object(members)
}

/// What a quote says, before anything of it is verified: the claims without what only Intel's chain can say.
pub(crate) fn unverified(primary: &Value) -> Option<Value> {
    const OF_THE_CHAIN: [&str; 6] =
        ["simulated", "tcb_status", "advisory_ids", "tcb_evaluation_data_number", "fmspc", "ppid"];
    let (bytes, _) = parse(primary).ok()?;
    let claims = Claims::new(&Quote::parse(&bytes).ok()?, endorsement::Endorsement::unknown());
    let mut claims = serde_json::to_value(claims).ok()?;
    let members = claims.as_object_mut()?;
    for name in OF_THE_CHAIN {
        members.remove(name);
    }
    members.insert("verified".to_owned(), false.into());
    Some(claims)
}

fn parse(primary: &Value) -> Result<(Vec<u8>, Option<Collateral>), Offence> {
    let Value::Object(members) = primary else {
        return Err(Offence::form("a JSON object", kind(primary)));
    };
    let Some(quote) = members.get("quote") else {
        return Err(Offence::form("`quote`", member_names(members)));
    };
    let quote =
        base64(quote, QUOTE_LEN).ok_or_else(|| Offence::form("`quote` as base64, at most 16 KiB", kind(quote)))?;
    let collateral = match members.get("collateral") {
        None | Some(Value::Null) => None,
        Some(value) => Some(Collateral::from_value(value).map_err(|error| {
            Offence::new(CheckName::Collateral, "`collateral` as Intel's services hand it out", error.to_string())
        })?),
    };
    Ok((quote, collateral))
}

/// Foreign text for a reader.
fn shown(text: &str) -> String {
    text.chars().take(24).collect::<String>().escape_debug().to_string()
}
