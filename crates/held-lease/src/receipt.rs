//! The service's receipts: each is verified, held against what was seen of the service's audit log before, and kept where
//! the customer wants that. A service whose log has shrunk or forked is refused.

use std::fs;
use std::path::{Path, PathBuf};

use command_line::{Answerer, ExitCode, Failure, FailureContext as _, whole_file};
use jiff::Timestamp;
use release_protocol::LeaseId;
use serde::Deserialize;
use transparency_log::{ConsistencyProof, Receipt, SeenError, SeenLog, VerifierKey};

use crate::refused::Refused;

/// What is remembered of one service's log.
#[derive(Debug)]
pub struct ReceiptBook {
    seen: SeenLog,
    /// Where receipts and the last checkpoint are kept.
    directory: Option<PathBuf>,
    keeps: Keeps,
}

/// What of a log is written down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Keeps {
    /// Its newest checkpoint, so that a later start knows its history.
    Checkpoint,
    /// Every receipt as well.
    Receipts,
}

impl ReceiptBook {
    /// The book of the log with this key; what an earlier run kept in `directory` counts.
    ///
    /// # Errors
    /// When that cannot be read, or is of another key.
    pub fn open(key: &VerifierKey, directory: Option<&Path>) -> Result<Self, Failure> {
        Self::keeping(key, directory, Keeps::Receipts)
    }

    /// The same for whoever renews for years: only the newest checkpoint is kept, not each receipt.
    ///
    /// # Errors
    /// When what was kept cannot be read, or is of another key.
    pub fn of_log(key: &VerifierKey, directory: &Path) -> Result<Self, Failure> {
        Self::keeping(key, Some(directory), Keeps::Checkpoint)
    }

    fn keeping(key: &VerifierKey, directory: Option<&Path>, keeps: Keeps) -> Result<Self, Failure> {
        let mut book = Self { seen: SeenLog::new(key.clone()), directory: directory.map(Path::to_owned), keeps };
        if let Some(directory) = directory {
            fs::create_dir_all(directory)
                .or_fail(ExitCode::BadInput, || format!("cannot make the directory `{}`", directory.display()))?;
            book.reload()?;
        }
        Ok(book)
    }

    /// The key of the log.
    pub fn log_key(&self) -> &VerifierKey {
        self.seen.key()
    }

    /// Accepts the receipt of a grant or renewal of `lease`, and gives the time at which it was decided; or refuses the
    /// service. `prove` asks it for the proof that its log of so many entries is the beginning of that of so many.
    ///
    /// # Errors
    /// When the receipt is missing or proves something else, the log has another history than before, or the service could
    /// not be asked for the proof.
    pub async fn accept<F>(
        &mut self,
        receipt: Option<Receipt>,
        lease: &LeaseId,
        prove: impl FnOnce(u64, u64) -> F + Send,
    ) -> Result<Timestamp, Refused>
    where
        F: Future<Output = Result<ConsistencyProof, Refused>> + Send,
    {
        let receipt = receipt.ok_or_else(|| refused("the service gave no receipt for what it granted"))?;
        let verified = receipt
            .verify(self.seen.key())
            .map_err(|error| refused("the service's receipt proves nothing").caused_by(&error))?;
        let decided = decision(verified.entry, lease)?;
        // Another holder of a lease on this machine may have seen more meanwhile.
        self.reload()?;
        let (seen, offered) = (self.seen.size(), verified.checkpoint.size);
        if offered < seen {
            // An answer that took longer than a newer one is no shrunk log, if it proves so.
            let shrunk = || history(&SeenError::Shrunk { seen, offered });
            let proof = prove(offered.get(), seen.get()).await.map_err(|error| no_proof(error, shrunk))?;
            let newest = self.seen.checkpoint().map(|newest| newest.unverified().root);
            let root = newest.ok_or_else(|| refused("what was seen of the log is gone"))?;
            proof.verify(offered, &verified.checkpoint.root, seen, &root).map_err(|_| shrunk())?;
        } else {
            let proof = match seen.get() {
                0 => None,
                seen if seen == offered.get() => None,
                known => {
                    let unproven = || history(&SeenError::Unproven { seen, offered, source: None });
                    let proof = prove(known, offered.get()).await;
                    Some(proof.map_err(|error| no_proof(error, unproven))?)
                }
            };
            self.seen.advance(&receipt.checkpoint, proof.as_ref()).map_err(|error| history(&error))?;
        }
        self.keep(&receipt)?;
        Ok(decided)
    }

    fn log_file(&self) -> Option<PathBuf> {
        let name: String = self.seen.key().name().to_string();
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        Some(self.directory.as_ref()?.join(format!("{name}.log.json")))
    }

    fn reload(&mut self) -> Result<(), Failure> {
        let Some(path) = self.log_file().filter(|path| path.exists()) else { return Ok(()) };
        let unusable = || format!("cannot read what was seen of the service's log, `{}`", path.display());
        let kept: SeenLog = fs::read(&path)
            .or_fail(ExitCode::BadInput, unusable)
            .and_then(|text| serde_json::from_slice(&text).or_fail(ExitCode::BadInput, unusable))?;
        if kept.key() != self.seen.key() {
            return Err(Failure::verification("the licence names another log key than the one seen before")
                .hint(format!("if the vendor has set its service up anew, move `{}` away", path.display())));
        }
        if kept.size() >= self.seen.size() {
            self.seen = kept;
        }
        Ok(())
    }

    fn keep(&self, receipt: &Receipt) -> Result<(), Failure> {
        let (Some(directory), Some(log)) = (&self.directory, self.log_file()) else { return Ok(()) };
        if self.keeps == Keeps::Receipts {
            let stem =
                log.file_stem().and_then(|stem| stem.to_str()).unwrap_or("log").trim_end_matches(".log").to_owned();
            let file = directory.join(format!("{stem}.{}.receipt.json", receipt.index));
            whole_file::write(
                &file,
                &serde_json::to_vec_pretty(receipt).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?,
            )?;
        }
        whole_file::write(
            &log,
            &serde_json::to_vec_pretty(&self.seen).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?,
        )
    }
}

/// The members that count of the entry of a grant or renewal.
#[derive(Deserialize)]
struct Decision {
    at: Timestamp,
    kind: String,
    body: DecisionBody,
}

#[derive(Deserialize)]
struct DecisionBody {
    lease: LeaseId,
}

/// When the service decided, by the entry that proves that it did.
///
/// # Errors
/// When the entry is of no grant or renewal of `lease`.
pub fn decision(entry: &[u8], lease: &LeaseId) -> Result<Timestamp, Failure> {
    let entry: Decision = serde_json::from_slice(entry)
        .map_err(|error| refused("the service's receipt is of no lease").caused_by(&error))?;
    if entry.body.lease != *lease {
        return Err(refused("the service's receipt is of another lease"));
    }
    match entry.kind.as_str() {
        "lease_granted" | "lease_renewed" => Ok(entry.at),
        other => {
            Err(refused("the service's receipt is of no grant").cause(format!("its entry is of the kind `{other}`")))
        }
    }
}

fn refused(message: &str) -> Failure {
    Failure::verification(message)
        .from_answerer(Answerer::Service)
        .hint("ask the vendor; what runs without a receipt cannot be proven later")
}

/// A service that says no to a proof has none; one that is out of reach may have it.
fn no_proof(error: Refused, history: impl FnOnce() -> Failure) -> Refused {
    match error {
        Refused::Final(_) => Refused::Final(history()),
        unavailable @ Refused::Unavailable(_) => unavailable,
    }
}

/// What a log is refused for that has another history than before.
pub fn history(error: &SeenError) -> Failure {
    Failure::verification(
        "the service's audit log is not what it was: its history was rewritten, or an old copy restored",
    )
    .caused_by(error)
    .from_answerer(Answerer::Service)
    .hint("keep the receipts, they are the evidence, and ask the vendor")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn decided(change: impl FnOnce(&mut Value)) -> Result<Timestamp, Failure> {
        let mut entry = json!({
            "at": "2026-10-01T08:09:10.123Z", "kind": "lease_renewed", "body": {"lease": "own"}, "salt": "00", "sequence": 7,
        });
        change(&mut entry);
        decision(entry.to_string().as_bytes(), &LeaseId("own".to_owned()))
    }

    #[test]
    fn the_time_of_a_renewal_is_that_of_its_own_entry() {
        assert_eq!(decided(|_| {}).unwrap().to_string(), "2026-10-01T08:09:10.123Z");
        decided(|entry| entry["kind"] = "lease_granted".into()).unwrap();
    }

    #[test]
    fn a_receipt_of_another_lease_or_of_something_else_is_no_grant() {
        for (change, said) in [
            ((|entry| entry["body"]["lease"] = "other".into()) as fn(&mut Value), "another lease"),
            (|entry| entry["kind"] = "denied".into(), "of no grant"),
            (|entry| entry["kind"] = "lease_ended".into(), "of no grant"),
            (|entry| entry["body"] = json!({}), "of no lease"),
            (|entry| drop(entry.as_object_mut().unwrap().remove("at")), "of no lease"),
        ] {
            let failure = decided(change).unwrap_err();
            assert!(failure.message.contains(said), "{failure}");
        }
    }
}
