//! How a report is bound to a conversation: report data and host data.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384};

/// Why no report data could be computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// RFC 8785 has no form for this value (a number outside IEEE 754 doubles).
    #[error("runtime data cannot be written as canonical JSON")]
    Canonical(#[source] serde_json::Error),
}

/// The 64 bytes of `REPORT_DATA`: SHA-384 over the RFC 8785 canonical JSON of the runtime data with the member
/// `additional-evidence` (KBS 0.4.0), padded with zero bytes.
///
/// Hashes every member as it was received, so that ours are bound as well and absent ones change nothing.
pub fn report_data(runtime_data: &Map<String, Value>, additional_evidence: &str) -> Result<[u8; 64], BindingError> {
    let mut bound = runtime_data.clone();
    bound.insert("additional-evidence".to_owned(), Value::String(additional_evidence.to_owned()));
    let canonical = serde_json_canonicalizer::to_vec(&bound).map_err(BindingError::Canonical)?;
    let mut padded = [0; 64];
    padded[..48].copy_from_slice(&Sha384::digest(canonical));
    Ok(padded)
}

/// The challenge that reports of devices beside the CPU answer: the first 32 bytes of SHA-384 over the RFC 8785 canonical JSON of
/// the runtime data alone, since the devices' evidence is in what the CPU's report binds.
pub fn device_nonce(runtime_data: &Map<String, Value>) -> Result<[u8; 32], BindingError> {
    let canonical = serde_json_canonicalizer::to_vec(runtime_data).map_err(BindingError::Canonical)?;
    let mut nonce = [0; 32];
    nonce.copy_from_slice(&Sha384::digest(canonical)[..32]);
    Ok(nonce)
}

/// The 32 bytes of `HOST_DATA` that a launch with this init-data carries: its SHA-256.
pub fn host_data(init_data: &[u8]) -> [u8; 32] {
    Sha256::digest(init_data).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn captured() -> Map<String, Value> {
        let runtime_data = json!({
            "tee-pubkey": {
                "kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW",
                "x": "NHKj6Q8rr_zAuuMfBP-nYrXVdF_Id0Aa4cccXPZy3bA",
                "y": "VytMTjbKDUOAfGL4Q7fiFrHC-XRUVhJIvy4IOHHL0W8"
            },
            "nonce": "dvhcIo0krgmuZnW2GPv6YkhsgAuKLvL7MTzVU3E4Vm4="
        });
        runtime_data.as_object().unwrap().clone()
    }

    /// The exchange of a stock client with a stock key broker, captured on the wire.
    #[test]
    fn report_data_equals_that_of_a_stock_client() {
        let expected = "LtCEbgaASSZ3HTuMvhFUklUJxptHZ+wQlzGm+dGj4GRpHqZizXpGvCoUYzPqLTbI";
        let data = report_data(&captured(), "").unwrap();
        assert_eq!(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &data[..48]), expected);
        assert_eq!(data[48..], [0; 16]);
    }

    #[test]
    fn an_added_member_changes_the_report_data() {
        let mut with_license = captured();
        with_license.insert("license".to_owned(), json!("token"));
        assert_ne!(report_data(&captured(), "").unwrap(), report_data(&with_license, "").unwrap());
    }
}
