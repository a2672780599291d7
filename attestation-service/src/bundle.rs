//! Evidence bundles: put together from the log and from what was kept with a lease.

use release_protocol::{BundledAttestation, EVIDENCE_BUNDLE_FORMAT, EvidenceBundle, LeaseId};
use transparency_log::{Checkpoint, LeafIndex, Receipt, SignedCheckpoint, TreeSize};

use crate::policy::DEFAULT_POLICY;
use crate::service::{Service, ServiceError};
use crate::store::{AuditEntry, StoreError, policy_digest};

impl Service {
    /// Seals what a decision rests on, a `DecisionBasis` in JSON.
    pub(crate) fn seal_basis(&self, lease: &LeaseId, basis: &[u8]) -> Result<Vec<u8>, ServiceError> {
        Ok(self.custodian.working().seal_evidence(basis, lease.0.as_bytes())?)
    }

    /// Everything that a lease rests on.
    pub async fn evidence_bundle(&self, lease: &LeaseId) -> Result<EvidenceBundle, ServiceError> {
        let kept = self.store.lease_evidence(lease).await?;
        let first = kept.entries.first().ok_or(StoreError::Value("audit sequence"))?.sequence;
        let newest = self.log_checkpoint().await?;
        let granted = TreeSize::try_from(first).map_err(|_| StoreError::Value("audit sequence"))?;
        let consistency = self.store.consistency_proof(granted, newest.unverified().size).await?;
        let mut entries = Vec::with_capacity(kept.entries.len());
        for entry in &kept.entries {
            entries.push(self.receipt_by(entry, &newest).await?);
        }
        // What another replica has sealed by a key that is not known here yet.
        self.custodian.refresh().await?;
        let working = self.custodian.working();
        let mut attestations = Vec::with_capacity(kept.bases.len());
        for (entry, sealed) in &kept.bases {
            let basis = working.open_evidence(sealed, lease.0.as_bytes())?;
            let basis = serde_json::from_slice(&basis).map_err(StoreError::from)?;
            attestations.push(BundledAttestation { entry: *entry, basis });
        }
        Ok(EvidenceBundle {
            format: EVIDENCE_BUNDLE_FORMAT.to_owned(),
            lease: lease.clone(),
            log_key: self.log_verifier_key(),
            license_key: self.license_key.verifying_key().to_spki_pem()?,
            granted: self.checkpoint_at(granted).await?,
            consistency,
            entries,
            signer_keys: self.signers_of(&attestations).await?,
            signatures: Vec::new(),
            attestations,
            policies: self.policies_of(&kept.entries).await?,
        })
    }

    async fn receipt_by(&self, entry: &AuditEntry, newest: &SignedCheckpoint) -> Result<Receipt, ServiceError> {
        let index = entry.sequence.checked_sub(1).and_then(|number| LeafIndex::try_from(number).ok());
        let index = index.ok_or(StoreError::Value("audit sequence"))?;
        let proof = self.store.inclusion_proof(index, newest.unverified().size).await?;
        Ok(Receipt { entry: entry.leaf()?, index, proof, checkpoint: newest.clone() })
    }

    /// The log as it was at this size, signed now.
    async fn checkpoint_at(&self, size: TreeSize) -> Result<SignedCheckpoint, ServiceError> {
        let root = self.store.log_root(size).await?;
        Ok(Checkpoint::new(self.log_signer.name().clone(), size, root)?.sign(&self.log_signer)?)
    }

    /// The keys that guests named, of those that their products have.
    async fn signers_of(&self, attestations: &[BundledAttestation]) -> Result<Vec<String>, ServiceError> {
        let mut keys = Vec::new();
        for input in attestations.iter().map(|attestation| &attestation.basis.policy_input) {
            let Some(product) = input["product"].as_str().and_then(|name| name.parse().ok()) else { continue };
            let named = |thumbprint: &str| {
                input["workload"]["signers"].as_array().is_some_and(|named| named.iter().any(|one| one == thumbprint))
            };
            let signers = self.store.signers(&product).await?;
            keys.extend(signers.into_iter().filter(|signer| named(&signer.thumbprint)).map(|signer| signer.pem));
        }
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }

    async fn policies_of(&self, entries: &[AuditEntry]) -> Result<Vec<String>, ServiceError> {
        let mut digests: Vec<&str> = entries.iter().filter_map(|entry| entry.body["policy"].as_str()).collect();
        digests.sort_unstable();
        digests.dedup();
        let mut sources = Vec::with_capacity(digests.len());
        for digest in digests {
            if digest == policy_digest(DEFAULT_POLICY) {
                sources.push(DEFAULT_POLICY.to_owned());
            } else if let Some(source) = self.store.policy_source(digest).await? {
                sources.push(source);
            }
        }
        Ok(sources)
    }
}
