//! Where a guest gets evidence about itself.

use std::fmt;
use std::path::PathBuf;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use serde_json::Value;
use zeroize::Zeroizing;

/// A source of launch evidence inside a guest, one implementation a TEE or transport.
pub trait Attester: Send + Sync {
    /// The TEE's name as the key broker protocol spells it, for example `snp`.
    fn tee(&self) -> &'static str;

    /// Whether the evidence is that of a simulated platform, which proves nothing about hardware.
    fn is_simulated(&self) -> bool;

    /// Asks for evidence over `report_data`; the answer is the protocol's `primary_evidence` in our raw form.
    fn evidence(&self, report_data: &[u8; 64]) -> Result<Value, AttesterError>;

    /// A key that the platform derives for this launch: the same after a restart of the same guest (measurement and policy)
    /// on the same chip, another one for every other guest. `context` says what it is for.
    ///
    /// # Errors
    /// [`AttesterError::NoDerivedKey`] where the platform has none, and what [`Self::evidence`] gives.
    fn derived_key(&self, context: &'static str) -> Result<DerivedKey, AttesterError> {
        let _ = context;
        Err(AttesterError::NoDerivedKey { tee: self.tee() })
    }
}

/// A key that only one measured guest on one chip gets. Wiped on drop, never printed.
pub struct DerivedKey(Zeroizing<[u8; DerivedKey::LEN]>);

impl DerivedKey {
    /// The length, in bytes.
    pub const LEN: usize = 32;

    /// The key for `context` out of what the platform derived: HKDF with SHA-256 (RFC 5869), so that keys for one purpose
    /// tell nothing of those for another.
    pub fn expand(platform: &[u8; Self::LEN], context: &str) -> Result<Self, AttesterError> {
        let failed = |_| AttesterError::Malformed("the derived key could not be expanded".to_owned());
        let mut key = Zeroizing::new([0; Self::LEN]);
        let prk = Salt::new(HKDF_SHA256, b"sealift derived key").extract(platform);
        let info = [context.as_bytes()];
        prk.expand(&info, HKDF_SHA256).and_then(|okm| okm.fill(&mut key[..])).map_err(failed)?;
        Ok(Self(key))
    }

    /// The raw bytes. Every caller is a place to review: `grep expose`.
    pub fn expose(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Debug for DerivedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DerivedKey([redacted])")
    }
}

/// Why no evidence could be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttesterError {
    /// The interface is not there: no confidential guest, or a kernel without it.
    #[error("`{path}` is missing: {hint}")]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// What that means, and the next step.
        hint: &'static str,
    },
    /// A file or socket could not be used.
    #[error("`{path}` could not be {operation}")]
    Io {
        /// Which file or socket.
        path: PathBuf,
        /// What was tried, in the past participle: `read`, `written`.
        operation: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Another TEE answers here.
    #[error("the evidence here comes from `{found}`, not from `{expected}`")]
    Provider {
        /// What was asked for.
        expected: &'static str,
        /// What the interface says it is.
        found: String,
    },
    /// Another process used the same entry at the same time.
    #[error("another request got in between {attempts} times")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The platform derives no key that is bound to the guest.
    #[error(
        "a guest with `{tee}` evidence gets no key of its own from its platform, only SEV-SNP guests do (`/dev/sev-guest`)"
    )]
    NoDerivedKey {
        /// What the evidence is of.
        tee: &'static str,
    },
    /// The answer is not what the interface promises.
    #[error("the answer is malformed: {0}")]
    Malformed(String),
    /// The other side refused.
    #[error("the simulated guest refused: {0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_for_different_purposes_differ_and_none_is_printed() {
        let of = |platform: u8, context| DerivedKey::expand(&[platform; 32], context).unwrap();
        let key = of(0xab, "one");
        assert_eq!(key.expose(), of(0xab, "one").expose());
        assert_ne!(key.expose(), of(0xab, "two").expose());
        assert_ne!(key.expose(), of(0xac, "one").expose());
        assert_eq!(format!("{key:?} {key:#?}"), "DerivedKey([redacted]) DerivedKey([redacted])");
    }
}
