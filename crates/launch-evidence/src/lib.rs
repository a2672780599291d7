//! TEE launch evidence: reports, endorsements, checks, launch measurement, the simulated platform.
