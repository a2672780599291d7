//! Whose copy it is: a small layer on top that names the customer, to be read by the vendor alone. It tells whose copy a tree was
//! extracted from; who knows of it and may change the tree can take it out.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use attestation_service::HeldKey;
use command_line::{ExitCode, Failure, FailureContext as _};
use jiff::Timestamp;
use release_protocol::ProductName;
use serde::{Deserialize, Serialize};

use crate::home::{VendorHome, write_new};

/// Whose copy it is.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Mark {
    pub(crate) customer: String,
    pub(crate) product: ProductName,
    /// What people call the image.
    pub(crate) image: String,
    pub(crate) packed_at: Timestamp,
}

/// The home's key, which marks are sealed under.
pub(crate) struct MarkKey(HeldKey);

/// Bytes of every mark: nothing else is looked at.
const LEN: usize = 1024;
/// What sealing adds: an IV and a tag.
const OVERHEAD: usize = 28;
/// The longest name of a customer, in bytes.
const CUSTOMER_MAX: usize = 256;
const CONTEXT: &[u8] = b"watermark";

impl MarkKey {
    /// The home's key, made where there is none yet.
    pub(crate) fn create(home: &VendorHome) -> Result<Self, Failure> {
        if !home.watermark_key_path().exists() {
            let key = HeldKey::generate().or_fail(ExitCode::Other, || "cannot make the watermark's key".to_owned())?;
            write_new(&home.watermark_key_path(), key.to_text().as_bytes(), 0o600)?;
        }
        Self::read(home)
    }

    /// The home's key.
    pub(crate) fn read(home: &VendorHome) -> Result<Self, Failure> {
        let path = home.watermark_key_path();
        let text = std::fs::read_to_string(&path)
            .map(zeroize::Zeroizing::new)
            .or_fail(ExitCode::BadInput, || format!("cannot read the watermark's key `{}`", path.display()))
            .map_err(|failure| failure.hint("a home has one once it has packed an image by `--watermark`"))?;
        HeldKey::from_text(&text)
            .map(Self)
            .or_fail(ExitCode::BadInput, || format!("`{}` is no key of a watermark", path.display()))
    }

    /// A plain tar with the mark in it, under a name that tells nothing.
    pub(crate) fn layer(&self, mark: &Mark) -> Result<Vec<u8>, Failure> {
        if mark.customer.is_empty() || mark.customer.len() > CUSTOMER_MAX {
            return Err(Failure::usage(format!("a customer's name has 1 to {CUSTOMER_MAX} bytes")));
        }
        let cannot = || "cannot make the watermark".to_owned();
        let mut json = serde_json::to_vec(mark).or_fail(ExitCode::Other, cannot)?;
        if json.len() > LEN - OVERHEAD {
            return Err(Failure::usage("the watermark has no room for the name of the image"));
        }
        json.resize(LEN - OVERHEAD, b' ');
        let sealed =
            self.0.sealer(PURPOSE).and_then(|sealer| sealer.seal(&json, CONTEXT)).or_fail(ExitCode::Other, cannot)?;
        let name = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("usr/lib/.{}", name.get(..8).unwrap_or(&name));
        let mut header = tar::Header::new_ustar();
        header.set_size(LEN as u64);
        header.set_mode(0o444);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_data(&mut header, name, sealed.as_slice()).or_fail(ExitCode::Other, cannot)?;
        archive.into_inner().or_fail(ExitCode::Other, cannot)
    }

    /// The mark in the file; `None` where it holds none of this home.
    fn open(&self, path: &Path) -> Option<Mark> {
        let mut sealed = Vec::with_capacity(LEN + 1);
        std::fs::File::open(path).ok()?.take(LEN as u64 + 1).read_to_end(&mut sealed).ok()?;
        let json = self.0.sealer(PURPOSE).ok()?.open(&sealed, CONTEXT).ok()?;
        serde_json::from_slice(&json).ok()
    }

    /// The marks in a tree, wherever they were moved to, and how many files there are. Links are not followed.
    pub(crate) fn trace(&self, root: &Path) -> Result<(Vec<(PathBuf, Mark)>, u64), Failure> {
        let (mut found, mut files, mut directories) = (Vec::new(), 0, vec![root.to_owned()]);
        while let Some(directory) = directories.pop() {
            let cannot = || format!("cannot read `{}`", directory.display());
            for entry in std::fs::read_dir(&directory).or_fail(ExitCode::BadInput, cannot)? {
                let entry = entry.or_fail(ExitCode::BadInput, cannot)?;
                let metadata = entry.metadata().or_fail(ExitCode::BadInput, cannot)?;
                if metadata.is_dir() {
                    directories.push(entry.path());
                } else if metadata.is_file() {
                    files += 1;
                    if metadata.len() == LEN as u64 {
                        found.extend(self.open(&entry.path()).map(|mark| (entry.path(), mark)));
                    }
                }
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok((found, files))
    }
}

const PURPOSE: &str = "watermark";

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(customer: &str) -> Mark {
        Mark {
            customer: customer.to_owned(),
            product: "models".parse().unwrap(),
            image: "registry.example/models:1".to_owned(),
            packed_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_mark_is_found_in_an_unpacked_tree_wherever_it_went_and_by_its_own_home_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (home, other) =
            (VendorHome::at(Some(directory.path().join("a"))), VendorHome::at(Some(directory.path().join("b"))));
        for home in [&home, &other] {
            std::fs::create_dir(home.directory()).unwrap();
        }
        let key = MarkKey::create(&home).unwrap();
        let layer = key.layer(&mark("customer-7")).unwrap();
        assert!(!String::from_utf8_lossy(&layer).contains("customer-7"));
        let tree = directory.path().join("tree");
        tar::Archive::new(layer.as_slice()).unpack(&tree).unwrap();
        std::fs::rename(tree.join("usr/lib"), tree.join("moved")).unwrap();
        std::fs::write(tree.join("decoy"), vec![0; LEN]).unwrap();
        std::os::unix::fs::symlink("/", tree.join("elsewhere")).unwrap();

        let (found, files) = MarkKey::read(&home).unwrap().trace(&tree).unwrap();
        assert_eq!(files, 2);
        assert_eq!(found.into_iter().map(|(_, mark)| mark).collect::<Vec<_>>(), [mark("customer-7")]);
        assert!(MarkKey::create(&other).unwrap().trace(&tree).unwrap().0.is_empty());
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let key = MarkKey::create(&VendorHome::at(Some(directory.path().to_owned()))).unwrap();
        for customer in ["", &"x".repeat(CUSTOMER_MAX + 1)] {
            assert!(key.layer(&mark(customer)).is_err());
        }
        assert!(key.layer(&Mark { image: "x".repeat(LEN), ..mark("a") }).is_err());
    }
}
