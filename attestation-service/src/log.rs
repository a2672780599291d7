//! The audit log as others see it: checkpoints, receipts, proofs, tiles. How it grows stands in `store/log.rs`.

use transparency_log::{
    Checkpoint, CompactRange, ConsistencyProof, LeafIndex, Receipt, SignedCheckpoint, TileKind, TilePath, TreeSize,
    VerifierKey, encode_bundle, hash_leaf,
};

use crate::log_head::LogHeadError;
use crate::service::{Service, ServiceError};
use crate::store::{Grown, StoreError};

impl Service {
    /// The key that checkpoints are verified with.
    pub fn log_verifier_key(&self) -> VerifierKey {
        self.log_signer.verifier_key()
    }

    /// The log as it is now, signed.
    pub async fn log_checkpoint(&self) -> Result<SignedCheckpoint, ServiceError> {
        // Before the log is read, since others may sign meanwhile.
        let signed = self.log_head.signed();
        let range = self.store.log_range().await?;
        let found = range.size().get();
        if found < signed {
            return Err(LogHeadError::Shrunk { found, signed }.into());
        }
        let checkpoint = self.sign_checkpoint(&range)?;
        self.log_head.note(&checkpoint)?;
        Ok(checkpoint)
    }

    /// The receipt of an entry that was just written; `grown` is what the log grew by with it.
    pub(crate) async fn receipt_of(&self, entry: u64, grown: Option<&Grown>) -> Result<Receipt, ServiceError> {
        let index = entry.checked_sub(1).and_then(|number| LeafIndex::try_from(number).ok());
        let proved = match (index, grown) {
            (Some(index), Some(grown)) => grown.proof(index)?.map(|proved| (index, grown, proved)),
            _ => None,
        };
        // One that is repeated has been written before, and may have been cosigned meanwhile.
        let Some((index, grown, (entry, proof))) = proved else { return self.receipt(entry).await };
        let checkpoint = grown.checkpoint(|range| {
            let checkpoint = self.sign_checkpoint(range)?;
            self.log_head.note(&checkpoint)?;
            Ok::<_, ServiceError>(checkpoint)
        })?;
        Ok(Receipt { entry, index, proof, checkpoint })
    }

    fn sign_checkpoint(&self, range: &CompactRange) -> Result<SignedCheckpoint, ServiceError> {
        Ok(Checkpoint::new(self.log_signer.name().clone(), range.size(), range.root())?.sign(&self.log_signer)?)
    }

    /// The newest checkpoint that enough witnesses cosigned.
    pub fn cosigned_checkpoint(&self) -> Result<SignedCheckpoint, ServiceError> {
        let unknown = || StoreError::Unknown { kind: "checkpoint", name: "cosigned".to_owned() };
        Ok(self.witnessing.newest().ok_or_else(unknown)?)
    }

    /// The receipt of the entry with this number; under the checkpoint that witnesses cosigned, where the entry is in that.
    pub async fn receipt(&self, entry: u64) -> Result<Receipt, ServiceError> {
        let unknown = || StoreError::Unknown { kind: "audit entry", name: entry.to_string() };
        // Entries are counted from 1, leaves from 0.
        let number = entry.checked_sub(1).ok_or_else(unknown)?;
        let index = LeafIndex::try_from(number).map_err(|_| unknown())?;
        let checkpoint = self.log_checkpoint().await?;
        let head = checkpoint.unverified();
        if index.get() >= head.size.get() {
            return Err(unknown().into());
        }
        let bytes = self.store.log_entries(index, 1).await?.pop().ok_or_else(unknown)?;
        if let Some(cosigned) =
            self.witnessing.newest().filter(|cosigned| index.get() < cosigned.unverified().size.get())
        {
            match self.receipt_under(bytes.clone(), index, cosigned).await {
                Ok(receipt) => return Ok(receipt),
                Err(error) => tracing::error!(%error, entry, "the log is not the one that witnesses cosigned"),
            }
        }
        self.receipt_under(bytes, index, checkpoint).await
    }

    async fn receipt_under(
        &self,
        entry: Vec<u8>,
        index: LeafIndex,
        checkpoint: SignedCheckpoint,
    ) -> Result<Receipt, ServiceError> {
        let head = checkpoint.unverified();
        let proof = self.store.inclusion_proof(index, head.size).await?;
        // An entry that somebody changed in the database proves nothing, and must not look as if it did.
        proof.verify(hash_leaf(&entry), index, head.size, &head.root).map_err(StoreError::from)?;
        Ok(Receipt { entry, index, proof, checkpoint })
    }

    /// The proof that the log of `new` entries extends that of `old`.
    pub async fn log_consistency(&self, old: u64, new: u64) -> Result<ConsistencyProof, ServiceError> {
        let refused = || ServiceError::BadRequest(format!("the log has no proof from {old} to {new} entries"));
        let (old, new) =
            TreeSize::try_from(old).and_then(|old| Ok((old, TreeSize::try_from(new)?))).map_err(|_| refused())?;
        if old > new || new > self.store.log_range().await?.size() {
            return Err(refused());
        }
        Ok(self.store.consistency_proof(old, new).await?)
    }

    /// The bytes of a tile or of a bundle of entries, as wide as its path says.
    pub async fn log_tile(&self, path: &str) -> Result<Vec<u8>, ServiceError> {
        let unknown = || StoreError::Unknown { kind: "tile", name: path.chars().take(80).collect() };
        let tile: TilePath = path.parse().map_err(|_| unknown())?;
        let width = usize::from(tile.width());
        if let TileKind::Hashes(_) = tile.kind() {
            let first = tile.nodes().and_then(|nodes| nodes.first().copied()).ok_or_else(unknown)?;
            let hashes = self.store.log_hashes(first, tile.width()).await?;
            return if hashes.len() == width {
                Ok(hashes.iter().flat_map(|hash| *hash.as_bytes()).collect())
            } else {
                Err(unknown().into())
            };
        }
        let first = LeafIndex::try_from(tile.start()).map_err(|_| unknown())?;
        let entries = self.store.log_entries(first, tile.width()).await?;
        if entries.len() != width {
            return Err(unknown().into());
        }
        Ok(encode_bundle(entries.iter().map(Vec::as_slice)).map_err(|_| StoreError::Value("audit entry"))?)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::home::{Home, ServiceSettings};
    use crate::service::ServiceOptions;
    use crate::store::AuditKind;

    #[tokio::test]
    async fn an_entry_that_was_changed_in_the_database_gets_no_receipt() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::at(directory.path().join("home"));
        home.create(&["localhost".to_owned()]).unwrap();
        let settings = ServiceSettings::new("127.0.0.1:0".parse().unwrap(), "https://localhost:1".parse().unwrap());
        let options = ServiceOptions { settings, simulated_roots: Vec::new(), clock: Timestamp::now };
        let service = Service::open(&home, options).await.unwrap();
        for reason in ["one", "two", "three"] {
            service.store.record(AuditKind::Denied, &json!({"reasons": [reason]}), service.now()).await.unwrap();
        }
        service.receipt(2).await.unwrap().verify(&service.log_verifier_key()).unwrap();

        let mut transaction = service.store.write().await.unwrap();
        for statement in ["DROP TRIGGER audit_entry_stays", "UPDATE audit_entry SET body = '{}' WHERE sequence = 2"] {
            sqlx::query(statement).execute(transaction.sql()).await.unwrap();
        }
        transaction.commit().await.unwrap();
        assert!(matches!(service.receipt(2).await, Err(ServiceError::Store(StoreError::Log(_)))));
        service.receipt(3).await.unwrap();
    }
}
