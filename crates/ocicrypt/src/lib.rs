//! The ocicrypt image encryption format: layer cipher, key wrap, annotations; no network, no TEE.
