//! The attestation token: an EAR in compact JWS form, signed by the service, short-lived, bound to the guest's key.

mod appraisal;

use std::sync::Arc;

use jiff::Timestamp;
use jose::jws::{self, JwsError};
use jose::signing::SigningKey;
use release_protocol::{LeaseId, ProductName, TeePubKey, Workload};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use appraisal::appraisal;

use crate::verified::Verified;

/// The JWS header's `typ`, as stock clients see it.
const TYP: &str = "JWT";
const PROFILE: &str = "tag:github.com,2024:confidential-containers/Trustee";
const ISSUER: &str = "sealift";

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TokenError {
    /// Not signed by this service, or malformed.
    #[error("the token is not one of this service's")]
    Signature(#[source] JwsError),
    /// Past its end.
    #[error("the token has expired")]
    Expired,
}

/// What a session may ask for: our own claims in the token.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Session {
    /// The guest's ephemeral key; answers are encrypted to it.
    pub(crate) tee_pubkey: TeePubKey,
    /// The lease, once there is one.
    pub(crate) lease: Option<LeaseId>,
    /// The licence.
    pub(crate) license: Option<String>,
    /// The product that was decided on.
    pub(crate) product: Option<String>,
    /// Of a relay: the products that it may hand on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delegated: Option<Vec<ProductName>>,
    /// What was attested to run.
    pub(crate) workload: Option<Workload>,
    /// Whether the platform is simulated.
    pub(crate) simulated: bool,
}

#[derive(Debug, Deserialize)]
struct Claims {
    exp: i64,
    sealift: Session,
}

/// Makes and checks tokens.
pub(crate) struct TokenIssuer {
    key: SigningKey,
    /// Tokens that were issued or checked here.
    known: Verified<Claims>,
}

impl TokenIssuer {
    /// How long a token is good for, in seconds.
    pub(crate) const LIFETIME_SECONDS: i64 = 300;

    pub(crate) fn new(key: SigningKey) -> Self {
        Self { key, known: Verified::default() }
    }

    /// Signs a token over the evidence's claims. `policy` is the digest of the release policy that allowed, where one was asked.
    pub(crate) fn issue(
        &self,
        session: &Session,
        claims: &Value,
        runtime_data: &Value,
        policy: Option<&str>,
        now: Timestamp,
    ) -> Result<String, JwsError> {
        let iat = now.as_second();
        let exp = iat + Self::LIFETIME_SECONDS;
        let payload = json!({
            "eat_profile": PROFILE,
            "iss": ISSUER,
            "iat": iat,
            "exp": exp,
            "ear.verifier-id": {"developer": "sealift", "build": concat!("attestation-service ", env!("CARGO_PKG_VERSION"))},
            "submods": {"cpu0": appraisal(claims, runtime_data, policy)},
            "sealift": session,
        });
        let token = jws::sign(TYP, &payload, &self.key)?;
        self.known.read(&token, |_| Ok::<_, JwsError>(Claims { exp, sealift: session.clone() }))?;
        Ok(token)
    }

    /// The session of a token that this service signed and that has not expired.
    pub(crate) fn check(&self, token: &str, now: Timestamp) -> Result<Session, TokenError> {
        let claims = self.read(token)?;
        if now.as_second() >= claims.exp {
            return Err(TokenError::Expired);
        }
        Ok(claims.sealift.clone())
    }

    /// The session of a token that this service signed, however long ago: good for giving something back, nothing else.
    pub(crate) fn check_for_return(&self, token: &str) -> Result<Session, TokenError> {
        Ok(self.read(token)?.sealift.clone())
    }

    fn read(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        self.known.read(token, |token| {
            jws::verify(token, TYP, std::slice::from_ref(self.key.verifying_key()))
                .and_then(|verified| verified.claims())
                .map_err(TokenError::Signature)
        })
    }
}
