//! Renewal by file: a guest that does not reach the service has its request carried to the licensing desk, and the answer
//! back. It is judged as an attestation is, but for its freshness: it answers no challenge. Instead it names the last decision
//! that the guest knows of, says when it was made, and is answered once (`store/renewal.rs`).

use jiff::SignedDuration;
use release_protocol::{
    LeaseId, RENEWAL_ANSWER_FORMAT, RENEWAL_REQUEST_FORMAT, RenewalAnswer, RenewalRequest, RuntimeData, StatedBy,
    request_digest,
};

use crate::decision::{Asked, Subject};
use crate::release::{Refusal, chain, guest};
use crate::service::{Service, SharedService};
use crate::store::{ByFile, StoreError};

impl Service {
    /// Answers `POST /api/v1/leases/renew`.
    pub(crate) async fn renew_by_file(self: SharedService, request: RenewalRequest) -> Result<RenewalAnswer, Refusal> {
        let RenewalRequest { format, attestation } = request;
        if format != RENEWAL_REQUEST_FORMAT {
            let found: String = format.chars().take(40).collect();
            return Err(Refusal::Malformed(format!(
                "the request is of the form `{found}`, only `{RENEWAL_REQUEST_FORMAT}` is known"
            )));
        }
        let now = self.now();
        let digest = request_digest(&attestation.runtime_data).map_err(|error| Refusal::Malformed(chain(&error)))?;
        let runtime_data =
            RuntimeData::read(&attestation.runtime_data).map_err(|error| Refusal::Malformed(chain(&error)))?;
        let (Some(renewal), Some(workload), Some(_), true) =
            (&runtime_data.renewal, &runtime_data.workload, &runtime_data.lease, runtime_data.offline)
        else {
            let why = "the request names no lease to renew by file: a guest makes it by `sealift-shim renewal request`";
            return Err(Refusal::Malformed(why.to_owned()));
        };
        let (seen, size) = (renewal.log_size, self.store.log_range().await?.size().get());
        if seen > size {
            return Err(Refusal::Malformed(format!(
                "the guest has seen {seen} entries of the log, this service has {size}: it is another one, or an old copy"
            )));
        }
        let by_file = ByFile { digest, base: renewal.entry, made_at: renewal.made_at };
        let key = guest(&runtime_data.tee_pubkey)?;
        let (evidence, attestation) = self.clone().verify_evidence(attestation, now).await?;
        let asked = Asked {
            runtime_data: &runtime_data,
            subject: Subject::Workload(workload),
            stated_by: StatedBy::Guest,
            lease: LeaseId::of(StatedBy::Guest, key.key().thumbprint(), evidence.guest_id()),
            evidence: &evidence,
            attestation,
            challenge_at: now,
            by_file: Some(by_file),
            now,
        };
        let granted = self.decide(&asked).await?;
        let entry = granted.entry.ok_or(StoreError::Value("entry of a renewal"))?;
        let receipt = self.receipt_of(entry, granted.grown.as_ref()).await?;
        let size = receipt.checkpoint.unverified().size.get();
        let consistency = self.log_consistency(seen, size).await?;
        Ok(RenewalAnswer { format: RENEWAL_ANSWER_FORMAT.to_owned(), receipt, consistency })
    }

    /// Why a request that came by file is too old, or from too far in the future.
    pub(crate) fn stale(&self, asked: &Asked<'_>) -> Option<String> {
        let made_at = asked.by_file.as_ref()?.made_at;
        let age = asked.now.duration_since(made_at);
        if age.abs() <= self.renewal_window {
            return None;
        }
        let hours = |time: SignedDuration| time.as_hours();
        Some(format!(
            "the request was made at {made_at} by the guest's clock, {} h from now; within {} h it is answered",
            hours(age),
            hours(self.renewal_window)
        ))
    }
}
