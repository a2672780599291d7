//! Judging what ran under a relay, offline. The vendor's log has the relay's lease; the evidence of that lease states the keys
//! of the relay's own log and licences; and by these the lease is judged that the relay gave to a guest.

use std::time::Duration;

use jiff::Timestamp;
use jose::signing::VerifyingKey;
use release_protocol::{EvidenceBundle, RelayStatement};
use transparency_log::{VerifierKey, Witnesses};

use super::bundle::{Believed, BundleError, Proven, moment, verify};

/// What is proven of a lease that a relay gave.
pub(crate) struct ProvenRelayed {
    /// The lease that it gave.
    pub(crate) below: Proven,
    /// Its own at the vendor's, one or more after each other.
    pub(crate) above: Vec<Proven>,
    pub(crate) relay: RelayStatement,
}

/// Judges the lease that a relay gave: `below` by the keys that the relay stated in `above`, and those by `believed`.
pub(crate) fn verify_relayed(
    below: &EvidenceBundle,
    above: &[EvidenceBundle],
    believed: &Believed<'_>,
) -> Result<ProvenRelayed, BundleError> {
    let above = above.iter().map(|bundle| verify(bundle, believed)).collect::<Result<Vec<_>, _>>();
    let above = above.map_err(|error| BundleError::Above(Box::new(error)))?;
    let relay = the_relay(&above)?;
    let (log, license) = keys(&relay)?;
    // Witnesses are the vendor's log's: what they saw of the relay's is what stands in that.
    let witnesses = Witnesses::default();
    let stated = Believed { log: &log, license: &license, witnesses: &witnesses, trust: believed.trust };
    let below = verify(below, &stated)?;
    bears(&above, &below)?;
    Ok(ProvenRelayed { below, above, relay })
}

/// The one relay that all these leases are of.
fn the_relay(above: &[Proven]) -> Result<RelayStatement, BundleError> {
    let refused = |why: &str| BundleError::Relay(why.to_owned());
    let mut relays = above.iter().map(|proven| proven.relay.as_ref());
    let first = relays.next().flatten().ok_or_else(|| refused("it is of a workload, no relay's"))?;
    let is_same = |other: Option<&RelayStatement>| {
        other.is_some_and(|other| (&other.log_key, &other.license_key) == (&first.log_key, &first.license_key))
    };
    if relays.all(is_same) { Ok(first.clone()) } else { Err(refused("the leases are of several relays")) }
}

fn keys(relay: &RelayStatement) -> Result<(VerifierKey, VerifyingKey), BundleError> {
    let refused = |why: &str| BundleError::Relay(why.to_owned());
    let unnamed = || refused("the relay did not state its keys, as those from before there was this did not");
    let license = relay.license_key.as_deref().ok_or_else(unnamed)?;
    let license = VerifyingKey::from_spki_pem(license).map_err(|_| refused("the relay's licence key is malformed"))?;
    Ok((relay.log_key.clone().ok_or_else(unnamed)?, license))
}

/// Whether the relay held a lease of the vendor's for this, whenever it decided.
fn bears(above: &[Proven], below: &Proven) -> Result<(), BundleError> {
    for entry in below.entries.iter().filter(|entry| is_decision(&entry.kind)) {
        let number = entry.sequence;
        let product = entry.body["product"].as_str().unwrap_or_default();
        let is_delegated = |proven: &&Proven| {
            let of = &proven.license;
            of.customer == below.license.customer && of.products.iter().any(|name| name.as_str() == product)
        };
        if !above.iter().any(|proven| is_delegated(&proven)) {
            return Err(BundleError::Relay(format!(
                "entry {number} is about product {product} for {}, which is not what the vendor licensed to the relay",
                below.license.customer
            )));
        }
        if !above.iter().filter(is_delegated).any(|proven| span(proven).is_some_and(|span| span.contains(&entry.at))) {
            return Err(BundleError::Relay(format!(
                "entry {number} is of {}, when the relay held none of the leases that were given",
                moment(entry.at)
            )));
        }
    }
    Ok(())
}

/// From when until when a relay could go on by its lease. Its clock is the vendor's, carried on by its own, which may go wrong
/// by a thousandth between two answers, as a guest's may.
fn span(proven: &Proven) -> Option<std::ops::RangeInclusive<Timestamp>> {
    let mut decisions = proven.entries.iter().filter(|entry| is_decision(&entry.kind)).map(|entry| entry.at);
    let granted = decisions.next()?;
    let newest = decisions.next_back().unwrap_or(granted);
    let bound = proven.license.lease_seconds.saturating_add(proven.license.grace_seconds);
    let until = newest.checked_add(Duration::from_secs(bound.saturating_add(bound / 1_000))).ok()?;
    Some(granted..=until)
}

fn is_decision(kind: &str) -> bool {
    matches!(kind, "lease_granted" | "lease_renewed")
}
