//! Image signatures in cosign's simple signing form (ECDSA P-256).
