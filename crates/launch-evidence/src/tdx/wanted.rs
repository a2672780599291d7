//! Which collateral a quote needs when its evidence brings none. Fetching is not done here.

use serde_json::Value;

use super::quote::Quote;
use super::{endorsement, parse};
use crate::form::certificates_der;

/// The collateral of a kind of platform.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WantedCollateral {
    /// The kind of platform: FMSPC, 12 hexadecimal digits.
    pub fmspc: String,
    /// The authority that issued the platform's certificate, as Intel's services name it: `platform` or `processor`.
    pub authority: &'static str,
}

impl WantedCollateral {
    /// What is wanted; none where `primary` is no quote, or brings collateral.
    pub fn of(primary: &Value) -> Option<Self> {
        let (bytes, collateral) = parse(primary).ok()?;
        if collateral.is_some() {
            return None;
        }
        let quote = Quote::parse(&bytes).ok()?;
        let chain = certificates_der(quote.chain)?;
        let leaf = chain.first()?;
        let names = |name: &[u8]| leaf.windows(name.len()).any(|window| window == name);
        // The issuer's common name stands in the certificate as it is.
        let authority = if names(b"Intel SGX PCK Platform CA") { "platform" } else { "processor" };
        Some(Self { fmspc: endorsement::fmspc(&quote)?, authority })
    }
}

/// Adds collateral to evidence that came without. What is no JSON object stays as it is.
#[must_use]
pub fn with_collateral(mut primary: Value, collateral: Value) -> Value {
    if let Value::Object(members) = &mut primary {
        members.insert("collateral".to_owned(), collateral);
    }
    primary
}
