//! What is decided about: who asks, for what, and what it showed.

use jiff::Timestamp;
use launch_evidence::VerifiedEvidence;
use release_protocol::{Attestation, LeaseId, RelayStatement, RuntimeData, StatedBy, Workload, host_data};

use crate::store::ByFile;

/// What a lease is for.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    /// A guest that runs an image.
    Workload(&'a Workload),
    /// A service that hands the licence's seats on.
    Relay(&'a RelayStatement),
}

impl Subject<'_> {
    pub(super) fn manifest_digest(&self) -> &str {
        match self {
            Self::Workload(workload) => &workload.manifest_digest,
            Self::Relay(_) => RelayStatement::IN_PLACE_OF_MANIFEST,
        }
    }

    pub(super) fn workload(&self) -> Option<&Workload> {
        match self {
            Self::Workload(workload) => Some(workload),
            Self::Relay(_) => None,
        }
    }

    pub(super) fn relay(&self) -> Option<&RelayStatement> {
        match self {
            Self::Workload(_) => None,
            Self::Relay(relay) => Some(relay),
        }
    }
}

/// What one attested guest asks for.
pub(crate) struct Asked<'a> {
    pub(crate) runtime_data: &'a RuntimeData,
    pub(crate) subject: Subject<'a>,
    /// Who said so.
    pub(crate) stated_by: StatedBy,
    /// The lease that its key would hold.
    pub(crate) lease: LeaseId,
    pub(crate) evidence: &'a VerifiedEvidence,
    /// What it showed.
    pub(crate) attestation: Attestation,
    /// When the challenge that it answered had been issued.
    pub(crate) challenge_at: Timestamp,
    /// Where it was carried by file, and answers no challenge.
    pub(crate) by_file: Option<ByFile>,
    pub(crate) now: Timestamp,
}

impl Asked<'_> {
    pub(super) fn renews(&self) -> bool {
        self.runtime_data.lease.is_some()
    }

    /// Why a relay may not take up the lease of an earlier start.
    pub(super) fn cannot_resume(&self) -> Option<String> {
        let resumes = self.subject.relay().is_some_and(|relay| relay.resumes);
        (resumes && self.evidence.guest_id().is_none()).then(|| {
            "this TEE's evidence does not tell one guest from another: no relay takes up the lease of an earlier start there"
                .to_owned()
        })
    }

    /// A client that is not ours keeps nothing sealed, whatever it says.
    pub(super) fn asks_for_offline(&self) -> bool {
        self.runtime_data.offline && self.stated_by == StatedBy::Guest
    }

    pub(super) fn chip_id(&self) -> String {
        self.evidence.chip_id().to_string()
    }

    /// The digest of the launch's initialisation data, as the report binds it.
    pub(super) fn init_data(&self) -> Option<String> {
        self.attestation.init_data.as_ref().map(|data| hex::encode(host_data(data.body.as_bytes())))
    }
}
