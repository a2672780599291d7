//! Verifies launch evidence, decides on release, keeps licences, leases and the audit log.
