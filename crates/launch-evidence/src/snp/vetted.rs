//! Certificates whose place below a pinned root was verified before: two RSA signatures that need not be
//! verified again for every report of a processor.
//!
//! Nothing of a report is kept, and no verdict: names, flags, dates, revocation and what the certificate
//! endorses are judged each time. Nobody but AMD, or a simulated root that was given, can make an entry.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

use super::certificate::Certificate;

/// How many certificates are kept; the oldest goes first. One has about 5 KiB in memory.
const CAPACITY: usize = 1024;

/// A certificate's SHA-256.
pub(crate) type Digest = [u8; 32];

/// The SHA-256 of a certificate in DER.
pub(crate) fn fingerprint(der: &[u8]) -> Digest {
    let mut fingerprint = [0; 32];
    for (to, from) in fingerprint.iter_mut().zip(digest(&SHA256, der).as_ref()) {
        *to = *from;
    }
    fingerprint
}

/// The certificates kept.
#[derive(Debug, Default)]
pub(crate) struct Vetted(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    by_fingerprint: HashMap<Digest, Entry>,
    order: VecDeque<Digest>,
}

#[derive(Debug)]
struct Entry {
    certificate: Arc<Certificate>,
    /// Whose key made its signature.
    issuer: Digest,
}

impl Vetted {
    /// Parses a certificate, unless it is kept.
    pub(crate) fn parse(&self, der: &[u8]) -> Result<Arc<Certificate>, String> {
        let fingerprint = fingerprint(der);
        let kept = self.with(|kept| kept.by_fingerprint.get(&fingerprint).map(|entry| Arc::clone(&entry.certificate)));
        kept.map_or_else(|| Certificate::parse(der).map(Arc::new), Ok)
    }

    /// Whether `issuer`'s key made the certificate's signature, by an entry or by verifying it.
    pub(crate) fn is_signed_by(&self, certificate: &Certificate, issuer: &Certificate) -> bool {
        let known = self.with(|kept| {
            let entry = kept.by_fingerprint.get(certificate.fingerprint());
            entry.is_some_and(|entry| entry.issuer == *issuer.fingerprint())
        });
        known || certificate.is_signed_by(issuer)
    }

    /// Keeps a certificate that was verified up to a pinned root.
    pub(crate) fn keep(&self, certificate: &Arc<Certificate>, issuer: &Certificate) {
        let fingerprint = *certificate.fingerprint();
        self.with(|kept| {
            let entry = Entry { certificate: Arc::clone(certificate), issuer: *issuer.fingerprint() };
            if kept.by_fingerprint.insert(fingerprint, entry).is_some() {
                return;
            }
            kept.order.push_back(fingerprint);
            if kept.order.len() > CAPACITY
                && let Some(oldest) = kept.order.pop_front()
            {
                kept.by_fingerprint.remove(&oldest);
            }
        });
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.with(|kept| kept.by_fingerprint.len())
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        // A panic inside leaves nothing half done that would count: an entry is whole or not there.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
