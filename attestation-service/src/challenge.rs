//! Challenges: stateless nonces that only this service (or a replica with its working keys) can have made.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::custody::{CustodyError, Sealer};

/// Why an answer's nonce is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ChallengeError {
    /// Nobody who holds a working key made it.
    #[error("the nonce is not one of this service's")]
    Foreign,
    /// Too old.
    #[error("the nonce is {age_seconds} s old, an answer is accepted within {} s", Challenger::LIFETIME_SECONDS)]
    Stale {
        /// Its age in seconds; negative when it comes from the future.
        age_seconds: i64,
    },
}

/// Makes and recognises challenges.
#[derive(Debug)]
pub(crate) struct Challenger(Sealer);

impl Challenger {
    /// How long a challenge may be answered, in seconds.
    pub(crate) const LIFETIME_SECONDS: i64 = 300;
    const CONTEXT: &[u8] = b"kbs challenge";

    /// Makes them by this sealer, which seals nothing else.
    pub(crate) fn new(sealer: Sealer) -> Self {
        Self(sealer)
    }

    /// A fresh nonce, base64 of 60 bytes: IV, sealed issue time and 24 random bytes, tag.
    pub(crate) fn issue(&self, now: Timestamp) -> Result<String, CustodyError> {
        let mut plain = [0; 32];
        let (time, random) = plain.split_at_mut(8);
        time.copy_from_slice(&now.as_millisecond().to_be_bytes());
        rand::fill(random).map_err(|_| CustodyError::Library)?;
        Ok(STANDARD.encode(self.0.seal(&plain, Self::CONTEXT)?))
    }

    /// When the nonce was issued, once it is seen to be ours and fresh.
    pub(crate) fn recognise(&self, nonce: &str, now: Timestamp) -> Result<Timestamp, ChallengeError> {
        let sealed = STANDARD.decode(nonce).map_err(|_| ChallengeError::Foreign)?;
        let plain = self.0.open(&sealed, Self::CONTEXT).map_err(|_| ChallengeError::Foreign)?;
        let (time, _) = plain.split_first_chunk::<8>().ok_or(ChallengeError::Foreign)?;
        let issued = Timestamp::from_millisecond(i64::from_be_bytes(*time)).map_err(|_| ChallengeError::Foreign)?;
        let age_seconds = now.as_second() - issued.as_second();
        // Replicas' clocks may differ by a few seconds.
        if !(-5..=Self::LIFETIME_SECONDS).contains(&age_seconds) {
            return Err(ChallengeError::Stale { age_seconds });
        }
        Ok(issued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::HeldKey;

    fn challenger() -> Challenger {
        Challenger::new(HeldKey::generate().unwrap().sealer("challenge").unwrap())
    }

    #[test]
    fn a_fresh_nonce_is_recognised_and_a_stale_or_foreign_one_is_not() {
        let (challenger, other) = (challenger(), challenger());
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let nonce = challenger.issue(now).unwrap();
        assert_eq!(challenger.recognise(&nonce, now), Ok(now));
        let later = Timestamp::from_second(1_800_000_301).unwrap();
        assert_eq!(challenger.recognise(&nonce, later), Err(ChallengeError::Stale { age_seconds: 301 }));
        assert_eq!(other.recognise(&nonce, now), Err(ChallengeError::Foreign));
        assert_eq!(challenger.recognise("AAAA", now), Err(ChallengeError::Foreign));
    }

    #[test]
    fn no_two_nonces_are_equal() {
        let challenger = challenger();
        assert_ne!(challenger.issue(Timestamp::UNIX_EPOCH).unwrap(), challenger.issue(Timestamp::UNIX_EPOCH).unwrap());
    }
}
