//! JSON signatures, encryption and keys (RFC 7515, 7516, 7517) in the few forms that the product
//! speaks: ES256 tokens, JWE for one or several recipients as Go's ocicrypt and Confidential
//! Containers' key broker exchange them, and the P-256 keys behind both. No network, no files.
#![forbid(unsafe_code)]

pub mod jwe;
pub mod jwk;
pub mod jws;
mod pem;
pub mod signing;
pub mod strict_json;

pub use jwk::{Curve, Jwk, KeyError, PublicKey};
