//! The licence: a compact JWS (`typ: sealift-license+jwt`, ES256) that any JWT tool can read.
//!
//! The service's database is the truth; the file is how a licence travels. A shim reads it without believing it: the
//! service that it names decides, and only for a token that it signed itself.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jose::jws::{self, JwsError};
use jose::signing::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use transparency_log::VerifierKey;
use url::Url;

use crate::name::ProductName;

/// The JWS header's `typ`.
pub const LICENSE_TYP: &str = "sealift-license+jwt";

/// Why a licence cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LicenseError {
    /// The claims are not those of a licence.
    #[error("the licence's claims are malformed")]
    Claims(#[source] JwsError),
    /// It could not be signed, or its signature does not verify.
    #[error("the licence's signature does not verify")]
    Signature(#[source] JwsError),
    /// Larger than [`LicenseFile::MAX_LEN`].
    #[error("the licence has {found} bytes, at most {} are read", LicenseFile::MAX_LEN)]
    TooLong {
        /// Its length in bytes.
        found: usize,
    },
}

/// The identity of a licence, `lic-` and a UUID.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct LicenseId(pub String);

impl fmt::Display for LicenseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where the vendor's service is and which certificate authority its certificate comes from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServiceAddress {
    /// `https://HOST:PORT`.
    pub url: Url,
    /// The certificate authority in PEM; no other is trusted.
    pub ca_pem: String,
    /// The key that verifies the service's audit log; a guest then wants a receipt for what it is granted. Licences from
    /// before there was a log have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_key: Option<VerifierKey>,
}

/// The claims of a licence.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct License {
    /// The licence's identity.
    #[serde(rename = "jti")]
    pub id: LicenseId,
    /// Who was licensed.
    #[serde(rename = "sub")]
    pub customer: String,
    /// What may run.
    pub products: Vec<ProductName>,
    /// When it was issued, in seconds since 1970-01-01T00:00:00Z.
    #[serde(rename = "iat")]
    pub issued_at: i64,
    /// From when it holds, likewise.
    #[serde(rename = "nbf")]
    pub valid_from: i64,
    /// Until when it holds, likewise.
    #[serde(rename = "exp")]
    pub valid_until: i64,
    /// How many instances may run at once.
    pub seats: u32,
    /// How long a lease lives, in seconds.
    pub lease_seconds: u64,
    /// How long a workload may go on past its lease's end while the service is out of reach, in seconds.
    pub grace_seconds: u64,
    /// How long a guest that keeps its keys sealed may start and run without the service, in seconds; absent: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline_seconds: Option<u64>,
    /// Chip ids (hexadecimal) that it is bound to; empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Names and values that the release policy and the workload may read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub features: BTreeMap<String, String>,
    /// How often it went to another customer: a file of an earlier generation opens nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u32,
    /// Whether it starts no workload, but lets one relay hand its seats on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub relay: bool,
    /// The service that decides.
    pub service: ServiceAddress,
    /// The vendor's image signing keys, SPKI PEM; one of them must have signed an image.
    pub signers: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl License {
    /// Signs the licence.
    pub fn sign(&self, key: &SigningKey) -> Result<LicenseFile, LicenseError> {
        let token = jws::sign(LICENSE_TYP, self, key).map_err(LicenseError::Signature)?;
        token.parse()
    }

    /// Whether `now` lies in its validity.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        (self.valid_from..self.valid_until).contains(&now.as_second())
    }
}

/// A licence as it travels: the compact JWS, not yet believed.
#[derive(Clone, Eq, PartialEq)]
pub struct LicenseFile {
    token: String,
    claims: License,
}

impl LicenseFile {
    /// The largest licence that is read, in bytes.
    pub const MAX_LEN: usize = 64 * 1024;

    /// What it claims. Nobody has checked it.
    pub fn unverified(&self) -> &License {
        &self.claims
    }

    /// The compact JWS.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Its claims, once one of `keys` is seen to have signed it. Validity and revocation are the caller's to judge.
    pub fn verify(self, keys: &[VerifyingKey]) -> Result<License, LicenseError> {
        jws::verify(&self.token, LICENSE_TYP, keys).map_err(LicenseError::Signature)?;
        Ok(self.claims)
    }
}

impl FromStr for LicenseFile {
    type Err = LicenseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > Self::MAX_LEN {
            return Err(LicenseError::TooLong { found: text.len() });
        }
        let token = text.trim();
        let decoded = jws::decode_unverified(token, LICENSE_TYP).map_err(LicenseError::Signature)?;
        let claims = decoded.claims().map_err(LicenseError::Claims)?;
        Ok(Self { token: token.to_owned(), claims })
    }
}

/// The token is a bearer's: it is not printed.
impl fmt::Debug for LicenseFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LicenseFile").field("id", &self.claims.id).finish_non_exhaustive()
    }
}
