//! Platforms that the vendor denies: by product, by chip, or by a reported TCB below a level. How a denial is written, and
//! whom it concerns; where denials are kept stands in the store.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use launch_evidence::{ChipId, Claims, ParseHexError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::finding::Finding;

/// What stands before a provider's name.
const PROVIDER: &str = "csp:";
/// The longest name of a provider, in bytes.
const PROVIDER_MAX: usize = 64;

/// Why a text is no [`PlatformRule`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePlatformRuleError {
    /// Neither a product, nor a chip, nor a product with a TCB.
    #[error("`{0}` is no product: there are Milan, Genoa, Turin and TDX (a provider is written `csp:NAME`)")]
    Product(String),
    /// As long as a chip id, and none.
    #[error("this is no chip id")]
    Chip(#[source] ParseHexError),
    /// What platforms that mask their chip's id report.
    #[error("the zero chip id is no chip: every platform that masks its id reports it")]
    ZeroChip,
    /// No name of a provider behind `csp:`.
    #[error("a provider's name has 1 to {PROVIDER_MAX} printable characters")]
    Provider,
    /// The part behind the colon.
    #[error("`{0}` is not of the form `COMPONENT<NUMBER`")]
    Bound(String),
    /// No component of the product's TCB.
    #[error("the TCB of {product} has no component `{component}`")]
    Component {
        /// The product.
        product: PlatformProduct,
        /// What was named.
        component: String,
    },
    /// Named twice.
    #[error("component {0} is named twice")]
    Twice(TcbComponent),
    /// No level, or one that nothing is below.
    #[error("`{0}` is no level: they go from 1 to 255")]
    Level(String),
}

/// A processor generation.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ToSchema)]
#[non_exhaustive]
pub enum PlatformProduct {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004.
    Genoa,
    /// EPYC 9005.
    Turin,
    /// Intel processors with TDX, all of them.
    #[serde(rename = "TDX")]
    Tdx,
}

impl PlatformProduct {
    const ALL: [Self; 4] = [Self::Milan, Self::Genoa, Self::Turin, Self::Tdx];

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|product| product.to_string() == name)
    }

    fn components(self) -> &'static [TcbComponent] {
        match self {
            Self::Milan | Self::Genoa => &TcbComponent::ALL[..4],
            Self::Turin => &TcbComponent::ALL,
            Self::Tdx => &[],
        }
    }
}

impl fmt::Display for PlatformProduct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
            Self::Tdx => "TDX",
        })
    }
}

/// A component of an SEV-SNP platform's TCB version.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TcbComponent {
    /// The PSP bootloader.
    Bootloader,
    /// The PSP operating system.
    Tee,
    /// The SNP firmware.
    Snp,
    /// The microcode.
    Microcode,
    /// The FMC firmware; Turin only.
    Fmc,
}

impl TcbComponent {
    /// FMC last: the others are every product's.
    const ALL: [Self; 5] = [Self::Bootloader, Self::Tee, Self::Snp, Self::Microcode, Self::Fmc];

    fn name(self) -> &'static str {
        match self {
            Self::Bootloader => "bootloader",
            Self::Tee => "tee",
            Self::Snp => "snp",
            Self::Microcode => "microcode",
            Self::Fmc => "fmc",
        }
    }
}

impl fmt::Display for TcbComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Levels by component.
pub type TcbLevels = BTreeMap<TcbComponent, u8>;

/// What is known of a platform that a lease runs on, beside its chip.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
pub struct Platform {
    /// The processor generation.
    pub product: PlatformProduct,
    /// The TCB that the evidence reported; a TD's does not have these components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, u8>>)]
    pub reported_tcb: Option<TcbLevels>,
    /// The cloud provider whose key signed (`CSP_ID` of a VLEK).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csp_id: Option<String>,
}

impl Platform {
    /// The platform of verified evidence; `None` of a TEE that has no rules.
    pub(crate) fn of(claims: &Claims) -> Option<Self> {
        let Some(claims) = claims.snp() else {
            return claims.tdx().map(|_| Self { product: PlatformProduct::Tdx, reported_tcb: None, csp_id: None });
        };
        let product = PlatformProduct::named(claims.product.as_str())?;
        let tcb = claims.reported_tcb;
        let levels = [
            (TcbComponent::Bootloader, Some(tcb.bootloader)),
            (TcbComponent::Tee, Some(tcb.tee)),
            (TcbComponent::Snp, Some(tcb.snp)),
            (TcbComponent::Microcode, Some(tcb.microcode)),
            (TcbComponent::Fmc, tcb.fmc),
        ];
        let reported_tcb = levels.into_iter().filter_map(|(component, level)| Some((component, level?))).collect();
        Some(Self { product, reported_tcb: Some(reported_tcb), csp_id: claims.csp_id.clone() })
    }
}

/// Which platforms a denial concerns. Written `PRODUCT`, `CHIP` (128 hexadecimal digits), `csp:NAME` or
/// `PRODUCT:COMPONENT<N[,…]`; the
/// spelling is one: components are in the order of [`TcbComponent`].
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum PlatformRule {
    /// All of a processor generation.
    Product(PlatformProduct),
    /// One processor. It does not see one that masks its id.
    Chip(ChipId),
    /// Those whose reports a cloud provider's key signed (VLEK).
    Provider(String),
    /// Those of a generation whose reported TCB is below one of the levels.
    Tcb {
        /// The generation.
        product: PlatformProduct,
        /// The lowest levels that are not denied; at least one.
        below: TcbLevels,
    },
}

impl PlatformRule {
    /// What it says against a platform: one finding a claim, none where it does not concern the platform.
    pub(crate) fn findings(&self, chip_id: &str, platform: Option<&Platform>, reason: &str) -> Vec<Finding> {
        match self {
            Self::Product(denied) if platform.is_some_and(|platform| platform.product == *denied) => vec![finding(
                format!("platforms of product {denied} are denied by the vendor: {reason}"),
                "platform.product",
                json!(format!("not {denied}")),
                json!(denied),
                "run on another processor generation".to_owned(),
            )],
            Self::Chip(denied) if denied.to_string() == chip_id => vec![finding(
                format!("chip {denied} is denied by the vendor: {reason}"),
                "platform.chip_id",
                json!("another chip"),
                json!(chip_id),
                "run on another machine".to_owned(),
            )],
            Self::Provider(denied)
                if platform.and_then(|platform| platform.csp_id.as_ref()).is_some_and(|id| id == denied) =>
            {
                vec![finding(
                    format!("platforms of the provider {denied} are denied by the vendor: {reason}"),
                    "platform.csp_id",
                    json!("another provider"),
                    json!(denied),
                    "run at another provider, or where the chip's own key signs".to_owned(),
                )]
            }
            Self::Tcb { product, below } => {
                let reported = platform
                    .filter(|platform| platform.product == *product)
                    .and_then(|platform| platform.reported_tcb.as_ref());
                let level = |component| reported.and_then(|reported| reported.get(component)).copied();
                below
                    .iter()
                    .filter_map(|(component, lowest)| Some((component, lowest, level(component)?)))
                    .filter(|(_, lowest, level)| level < lowest)
                    .map(|(component, lowest, level)| {
                        finding(
                            format!(
                                "{component} level {level} of the reported TCB is denied by the vendor on {product}, where it is \
                                 below {lowest}: {reason}"
                            ),
                            &format!("platform.reported_tcb.{component}"),
                            json!(lowest),
                            json!(level),
                            format!("bring the host's firmware to {component} level {lowest} or a higher one"),
                        )
                    })
                    .collect()
            }
            Self::Product(_) | Self::Chip(_) | Self::Provider(_) => Vec::new(),
        }
    }
}

fn finding(message: String, claim: &str, expected: Value, found: Value, fix: String) -> Finding {
    Finding { message, claim: Some(claim.to_owned()), expected: Some(expected), found: Some(found), fix: Some(fix) }
}

impl fmt::Display for PlatformRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Product(product) => product.fmt(f),
            Self::Chip(chip) => chip.fmt(f),
            Self::Provider(name) => write!(f, "{PROVIDER}{name}"),
            Self::Tcb { product, below } => {
                let bounds: Vec<_> = below.iter().map(|(component, level)| format!("{component}<{level}")).collect();
                write!(f, "{product}:{}", bounds.join(","))
            }
        }
    }
}

impl FromStr for PlatformRule {
    type Err = ParsePlatformRuleError;

    fn from_str(text: &str) -> Result<Self, ParsePlatformRuleError> {
        if let Some(name) = text.strip_prefix(PROVIDER) {
            let is_name =
                (1..=PROVIDER_MAX).contains(&name.len()) && name.bytes().all(|byte| (0x21..0x7F).contains(&byte));
            return if is_name { Ok(Self::Provider(name.to_owned())) } else { Err(ParsePlatformRuleError::Provider) };
        }
        if text.len() == 2 * ChipId::LEN {
            let chip: ChipId = text.parse().map_err(ParsePlatformRuleError::Chip)?;
            if chip.as_bytes().iter().all(|byte| *byte == 0) {
                return Err(ParsePlatformRuleError::ZeroChip);
            }
            return Ok(Self::Chip(chip));
        }
        let (name, bounds) = match text.split_once(':') {
            None => (text, None),
            Some((name, bounds)) => (name, Some(bounds)),
        };
        let product = PlatformProduct::named(name).ok_or_else(|| ParsePlatformRuleError::Product(shortened(name)))?;
        let Some(bounds) = bounds else { return Ok(Self::Product(product)) };
        let mut below = TcbLevels::new();
        for bound in bounds.split(',') {
            let (component, level) = parse_bound(product, bound)?;
            if below.insert(component, level).is_some() {
                return Err(ParsePlatformRuleError::Twice(component));
            }
        }
        Ok(Self::Tcb { product, below })
    }
}

fn parse_bound(product: PlatformProduct, text: &str) -> Result<(TcbComponent, u8), ParsePlatformRuleError> {
    let (name, digits) = text.split_once('<').ok_or_else(|| ParsePlatformRuleError::Bound(shortened(text)))?;
    let component = product.components().iter().find(|component| component.name() == name).copied();
    let component =
        component.ok_or_else(|| ParsePlatformRuleError::Component { product, component: shortened(name) })?;
    // A sign or a zero in front would be a second spelling.
    let level = digits.parse().ok().filter(|level: &u8| *level > 0 && level.to_string() == digits);
    Ok((component, level.ok_or_else(|| ParsePlatformRuleError::Level(shortened(digits)))?))
}

/// As much of a text as an error repeats.
fn shortened(text: &str) -> String {
    text.chars().take(32).collect()
}

impl Serialize for PlatformRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PlatformRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
