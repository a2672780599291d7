//! The file in which a guest keeps what it needs to start without the service: sealed by AES-256-GCM under a key that the platform
//! derives for this very guest, and bound to licence and manifest.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 16 | [`MAGIC`], which has the format's version |
//! | 16 | 12 | nonce |
//! | 28 | | the record in JSON, encrypted, and its tag (16) |

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use command_line::{ExitCode, Failure, FailureContext as _, whole_file};
use launch_evidence::{Attester, DerivedKey};
use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use super::record::Record;

/// What the file begins with.
const MAGIC: &[u8; 16] = b"sealift-offline1";
/// What the derived key is for.
const CONTEXT: &str = "sealift offline state 1";
/// The longest file that is read, in bytes.
const FILE_MAX: usize = 1 << 20;

/// The sealed file of one licence and one image. The key is wiped by the cryptographic library when this is dropped.
pub(super) struct SealedFile {
    path: PathBuf,
    key: LessSafeKey,
    bound: Vec<u8>,
}

impl SealedFile {
    /// The file in `directory`, which is made; it need not exist. Asks the platform for the key.
    pub(super) fn at(
        directory: &Path,
        attester: &dyn Attester,
        license: &str,
        manifest: &str,
    ) -> Result<Self, Failure> {
        let key = attester.derived_key(CONTEXT).map_err(|error| {
            Failure::verification("this guest cannot keep its keys sealed")
                .caused_by(&error)
                .hint("run without `--offline-state`, or in a guest whose platform derives keys")
        })?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.or_fail(ExitCode::BadInput, || format!("cannot make the directory `{}`", directory.display()))
            .map_err(|failure| failure.hint("name another place by `--offline-state`"))?;
        Self::under(&key, directory, license, manifest)
    }

    fn under(key: &DerivedKey, directory: &Path, license: &str, manifest: &str) -> Result<Self, Failure> {
        // Neither has a line feed in it.
        let bound = [&MAGIC[..], license.as_bytes(), b"\n", manifest.as_bytes()].concat();
        let name = hex::encode(digest(&SHA256, &bound));
        let key = UnboundKey::new(&AES_256_GCM, key.expose())
            .or_fail(ExitCode::Other, || "the derived key cannot be used".to_owned())?;
        Ok(Self { path: directory.join(format!("{name}.offline")), key: LessSafeKey::new(key), bound })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds; `None` where there is none.
    pub(super) fn read(&self) -> Result<Option<Record>, Failure> {
        let cannot = || format!("cannot read the sealed state `{}`", self.path.display());
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened.or_fail(ExitCode::BadInput, cannot)?,
        };
        let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX));
        file.take(FILE_MAX as u64).read_to_end(&mut bytes).or_fail(ExitCode::BadInput, cannot)?;
        let plain = self.open(&mut bytes).ok_or_else(|| self.foreign())?;
        serde_json::from_slice(plain).map(Some).or_fail(ExitCode::BadInput, cannot)
    }

    /// Puts a record in the place of the one before: whole and on the disk when this returns, or not at all.
    pub(super) fn write(&self, record: &Record) -> Result<(), Failure> {
        // Grown once: a reallocation would leave a copy behind.
        let mut plain = Zeroizing::new(Vec::with_capacity(FILE_MAX));
        serde_json::to_writer(&mut *plain, record).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?;
        if plain.len() > FILE_MAX - 64 {
            return Err(Failure::bad_input("the image has too many layers for its keys to be kept sealed"));
        }
        let library = || "the cryptographic library cannot seal".to_owned();
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).or_fail(ExitCode::Other, library)?;
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(&self.bound), &mut *plain)
            .or_fail(ExitCode::Other, library)?;
        whole_file::write_durably(&self.path, &[&MAGIC[..], &nonce, &plain].concat())
    }

    /// Removes the file, where there is one.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)
                .or_fail(ExitCode::Other, || format!("cannot remove the sealed state `{}`", self.path.display())),
            _ => Ok(()),
        }
    }

    /// Keeps other processes of this guest from changing the file until the lock is dropped.
    pub(super) fn lock(&self) -> Result<File, Failure> {
        self.locked("lock", FlockOperation::LockExclusive)
    }

    /// Keeps other instances from starting from this file until the lock is dropped: they would share one seat.
    pub(super) fn instance_lock(&self) -> Result<File, Failure> {
        self.locked("instance", FlockOperation::NonBlockingLockExclusive).map_err(|failure| {
            failure.hint("another instance may run from it: they would share one seat; name another folder")
        })
    }

    fn locked(&self, extension: &str, operation: FlockOperation) -> Result<File, Failure> {
        let path = self.path.with_extension(extension);
        let cannot = || format!("cannot lock the sealed state by `{}`", path.display());
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.or_fail(ExitCode::BadInput, cannot)?;
        flock(&file, operation).or_fail(ExitCode::BadInput, cannot)?;
        Ok(file)
    }

    fn open<'b>(&self, bytes: &'b mut [u8]) -> Option<&'b [u8]> {
        let (magic, rest) = bytes.split_at_mut_checked(MAGIC.len())?;
        if magic != MAGIC {
            return None;
        }
        let (nonce, sealed) = rest.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        self.key.open_in_place(nonce, Aad::from(&self.bound), sealed).ok().map(|plain| &*plain)
    }

    fn foreign(&self) -> Failure {
        Failure::verification(format!("the sealed state `{}` does not open", self.path.display()))
            .cause("it was sealed by another guest (measurement, policy, chip), or was changed")
            .hint("start once where the service can be reached: the guest then gets its keys anew")
    }
}

#[cfg(test)]
mod tests {
    use launch_evidence::SampleAttester;

    use super::super::record::tests::record;
    use super::*;

    /// Stands for a platform; each number is another guest.
    struct Guest(u8);

    impl Attester for Guest {
        fn tee(&self) -> &'static str {
            "snp"
        }

        fn is_simulated(&self) -> bool {
            true
        }

        fn evidence(&self, _: &[u8; 64]) -> Result<serde_json::Value, launch_evidence::AttesterError> {
            Ok(serde_json::Value::Null)
        }

        fn derived_key(&self, context: &'static str) -> Result<DerivedKey, launch_evidence::AttesterError> {
            DerivedKey::expand(&[self.0; DerivedKey::LEN], context)
        }
    }

    fn file(directory: &Path, guest: u8, license: &str) -> SealedFile {
        SealedFile::at(directory, &Guest(guest), license, "sha256:11").unwrap()
    }

    #[test]
    fn what_a_guest_seals_it_alone_opens_and_for_that_licence_alone() {
        let directory = tempfile::tempdir().unwrap();
        let own = file(directory.path(), 1, "lic-a");
        assert!(own.read().unwrap().is_none());
        own.write(&record()).unwrap();
        assert_eq!(own.read().unwrap().unwrap().lease, record().lease);
        assert_eq!(file(directory.path(), 1, "lic-a").read().unwrap().unwrap().lease, record().lease);

        let failure = file(directory.path(), 2, "lic-a").read().unwrap_err();
        assert!(failure.message.contains("does not open"), "{failure}");
        let other = file(directory.path(), 1, "lic-b");
        assert!(other.read().unwrap().is_none());
        fs::copy(own.path(), other.path()).unwrap();
        assert!(other.read().is_err());
    }

    #[test]
    fn a_changed_byte_a_cut_file_and_another_version_do_not_open() {
        let directory = tempfile::tempdir().unwrap();
        let own = file(directory.path(), 1, "lic");
        own.write(&record()).unwrap();
        let whole = fs::read(own.path()).unwrap();
        for position in [0, 15, 16, 28, 40, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[position] ^= 1;
            fs::write(own.path(), changed).unwrap();
            assert!(own.read().is_err(), "byte {position}");
        }
        for length in [0, 15, 20, 28, whole.len() - 1] {
            fs::write(own.path(), &whole[..length]).unwrap();
            assert!(own.read().is_err(), "{length} bytes");
        }
    }

    #[test]
    fn the_file_holds_no_secret_in_the_clear_and_is_its_owners() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let own = file(directory.path(), 1, "lic");
        own.write(&record()).unwrap();
        let bytes = fs::read(own.path()).unwrap();
        let kept = record();
        for secret in [kept.token.as_bytes(), kept.key.as_bytes()] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
        assert_eq!(fs::metadata(own.path()).unwrap().permissions().mode() & 0o777, 0o600);
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 1, "no staging file stays: {left:?}");
    }

    #[test]
    fn one_instance_runs_from_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let first = file(directory.path(), 1, "lic").instance_lock().unwrap();
        assert!(file(directory.path(), 1, "lic").instance_lock().unwrap_err().hint.unwrap().contains("one seat"));
        drop(first);
        file(directory.path(), 1, "lic").instance_lock().unwrap();
    }

    #[test]
    fn a_platform_that_derives_no_key_is_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let Err(failure) = SealedFile::at(directory.path(), &SampleAttester, "lic", "sha256:11") else {
            panic!("a sample sealed something");
        };
        assert!(failure.causes[0].contains("no key of its own"), "{failure}");
    }
}
