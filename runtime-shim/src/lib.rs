//! The customer's side as a library: from verified blobs to a running workload. The program `sealift-shim` adds the
//! command line, attestation and the lease.

pub mod bundle;
pub mod launcher;
pub mod pidfd;
pub mod runtime;
pub mod unpack;
