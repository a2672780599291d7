//! Working keys: they seal what is sealed often, in this process. Each rotation of the master key adds one; older ones stay,
//! for what they have sealed.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::CustodyError;
use super::sealer::{HeldKey, Sealer};
use crate::challenge::{ChallengeError, Challenger};

/// A working key that was opened.
#[derive(Debug)]
pub(crate) struct WorkingKey {
    made_at: Timestamp,
    challenger: Challenger,
    evidence: Sealer,
    imports: Sealer,
}

impl WorkingKey {
    pub(crate) fn new(bytes: &[u8], made_at: Timestamp) -> Result<Self, CustodyError> {
        let key = HeldKey::from_bytes(bytes)?;
        let challenger = Challenger::new(key.sealer("challenge")?);
        Ok(Self { made_at, challenger, evidence: key.sealer("evidence")?, imports: key.sealer("import keys")? })
    }
}

/// All working keys, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct WorkingKeys(Arc<[Arc<WorkingKey>]>);

/// By then every replica knows of a new key: challenges are made by it from then on.
const KNOWN_AFTER: SignedDuration = SignedDuration::from_secs(15);
/// How long after that the one before counts for challenges: they live that long, and clocks differ.
const OUTLIVED_AFTER: SignedDuration = SignedDuration::from_secs(Challenger::LIFETIME_SECONDS + 60);

impl WorkingKeys {
    /// None, before the database was looked at.
    pub(crate) fn none() -> Self {
        Self(Arc::default())
    }

    /// These, oldest first.
    pub(crate) fn of(keys: Vec<Arc<WorkingKey>>) -> Self {
        Self(keys.into())
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// A fresh nonce.
    pub(crate) fn challenge(&self, now: Timestamp) -> Result<String, CustodyError> {
        let known = self.0.iter().rev().find(|key| now.duration_since(key.made_at) >= KNOWN_AFTER);
        known.or(self.0.first()).ok_or(CustodyError::Library)?.challenger.issue(now)
    }

    /// When the nonce was issued, once it is seen to be ours and fresh.
    pub(crate) fn recognise(&self, nonce: &str, now: Timestamp) -> Result<Timestamp, ChallengeError> {
        let newest = self.0.len().saturating_sub(1);
        let counts = |at: usize| {
            at == newest
                || self
                    .0
                    .get(at + 1)
                    .is_some_and(|next| now.duration_since(next.made_at) < KNOWN_AFTER.saturating_add(OUTLIVED_AFTER))
        };
        let counting = self.0.iter().enumerate().rev().filter(|(at, _)| counts(*at));
        counting
            .map(|(_, key)| key.challenger.recognise(nonce, now))
            .find(|told| *told != Err(ChallengeError::Foreign))
            .unwrap_or(Err(ChallengeError::Foreign))
    }

    /// Seals what a decision rested on.
    pub(crate) fn seal_evidence(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, CustodyError> {
        self.0.last().ok_or(CustodyError::Library)?.evidence.seal(plain, context)
    }

    /// Seals the private half of a key that others encrypt layers' keys to.
    pub(crate) fn seal_import_key(&self, plain: &[u8], context: &[u8]) -> Result<Vec<u8>, CustodyError> {
        self.0.last().ok_or(CustodyError::Library)?.imports.seal(plain, context)
    }

    /// Opens what [`Self::seal_import_key`] made, by whichever key.
    pub(crate) fn open_import_key(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        let opened = self.0.iter().rev().find_map(|key| key.imports.open(sealed, context).ok());
        opened.ok_or(CustodyError::Open)
    }

    /// Opens what [`Self::seal_evidence`] made, by whichever key.
    pub(crate) fn open_evidence(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        let opened = self.0.iter().rev().find_map(|key| key.evidence.open(sealed, context).ok());
        opened.ok_or(CustodyError::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::super::new_working_key;
    use super::*;

    fn key(second: i64) -> Arc<WorkingKey> {
        Arc::new(WorkingKey::new(&new_working_key().unwrap(), Timestamp::from_second(second).unwrap()).unwrap())
    }

    #[test]
    fn a_new_key_makes_challenges_once_all_know_it_and_the_one_before_counts_until_its_own_are_stale() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let alone = WorkingKeys::of(vec![key(0)]);
        let foreign = WorkingKeys::of(vec![key(0)]);
        let before = alone.challenge(at(1000)).unwrap();
        let keys = WorkingKeys::of(vec![Arc::clone(&alone.0[0]), key(1000)]);
        let by_old = keys.challenge(at(1014)).unwrap();
        let by_new = keys.challenge(at(1015)).unwrap();
        let old_alone = |nonce: &str, now| keys.0[0].challenger.recognise(nonce, now).is_ok();
        assert!(old_alone(&by_old, at(1016)) && !old_alone(&by_new, at(1016)));
        for nonce in [&before, &by_old, &by_new] {
            assert!(keys.recognise(nonce, at(1020)).is_ok());
            assert_eq!(foreign.recognise(nonce, at(1020)), Err(ChallengeError::Foreign));
        }
        assert_eq!(keys.recognise(&before, at(1301)), Err(ChallengeError::Stale { age_seconds: 301 }));
        // Whoever has the old key makes challenges of any time by it.
        let forged = keys.0[0].challenger.issue(at(2000)).unwrap();
        assert_eq!(keys.recognise(&forged, at(2000)), Err(ChallengeError::Foreign));
    }

    #[test]
    fn what_an_older_key_sealed_is_opened_and_the_newest_seals() {
        let alone = WorkingKeys::of(vec![key(0)]);
        let old = alone.seal_evidence(b"basis", b"lease").unwrap();
        let keys = WorkingKeys::of(vec![Arc::clone(&alone.0[0]), key(1)]);
        let new = keys.seal_evidence(b"basis", b"lease").unwrap();
        assert!(keys.0[0].evidence.open(&new, b"lease").is_err());
        for sealed in [&old, &new] {
            assert_eq!(keys.open_evidence(sealed, b"lease").unwrap().as_slice(), b"basis");
            assert!(matches!(keys.open_evidence(sealed, b"other"), Err(CustodyError::Open)));
        }
        assert!(WorkingKeys::none().is_none() && WorkingKeys::none().seal_evidence(b"basis", b"lease").is_err());
    }
}
