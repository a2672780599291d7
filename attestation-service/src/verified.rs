//! Texts whose signatures were verified before, by their SHA-256: what they say need not be read again. Nothing that depends on
//! the time or on anything else than the text and our own key is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

/// How many are kept; then it begins anew.
const MOST: usize = 1024;

/// What verified texts say.
#[derive(Debug)]
pub(crate) struct Verified<T>(Mutex<HashMap<[u8; 32], Arc<T>>>);

impl<T> Default for Verified<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Verified<T> {
    /// What the text says: kept, or read by `verify`. What that refuses is not kept.
    pub(crate) fn read<E>(&self, text: &str, verify: impl FnOnce(&str) -> Result<T, E>) -> Result<Arc<T>, E> {
        let digest = Sha256::digest(text.as_bytes()).into();
        let kept = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept().get(&digest) {
            return Ok(Arc::clone(known));
        }
        let read = Arc::new(verify(text)?);
        let mut kept = kept();
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(digest, Arc::clone(&read));
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_is_not_verified_again_and_what_was_refused_is() {
        let verified = Verified::default();
        let refuse = |_: &str| Err::<usize, _>("refused");
        assert_eq!(verified.read("a", refuse), Err("refused"));
        assert_eq!(verified.read("a", |text| Ok::<_, &str>(text.len())), Ok(Arc::new(1)));
        assert_eq!(verified.read("a", refuse), Ok(Arc::new(1)));
        assert_eq!(verified.read("b", refuse), Err("refused"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let verified = Verified::default();
        for number in 0..=MOST {
            verified.read(&number.to_string(), |_| Ok::<_, ()>(number)).unwrap();
        }
        assert_eq!(verified.0.lock().unwrap().len(), 1);
    }
}
