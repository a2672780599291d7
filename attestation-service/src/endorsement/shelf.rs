//! Certificates and lists as files in a directory. A certificate that cannot be read is as good as none, a list is not. What
//! they say is judged by the verifier.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use launch_evidence::snp::Product;

/// The largest file that is read, in bytes: a certificate has under 2 KiB, a list may grow.
const FILE_MAX: u64 = 256 * 1024;

/// A directory of endorsements.
#[derive(Clone, Debug)]
pub struct Shelf(PathBuf);

impl Shelf {
    /// The folder of collateral for TDX.
    pub(super) const TDX: &str = "tdx";

    /// The directory; it need not exist.
    pub fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The file at `relative`.
    pub fn read(&self, relative: &Path) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.0.join(relative)).ok()?;
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).ok()?;
        (!bytes.is_empty() && bytes.len() as u64 <= FILE_MAX).then_some(bytes)
    }

    /// The file at `relative`; nothing where it is there and cannot be read.
    pub(super) fn read_present(&self, relative: &Path) -> Option<Vec<u8>> {
        let is_missing = matches!(fs::exists(self.0.join(relative)), Ok(false));
        (!is_missing).then(|| self.read(relative).unwrap_or_default())
    }

    /// The files of one extension in a folder of it, by name.
    pub(super) fn files(&self, folder: &str, extension: &str) -> Vec<(String, Vec<u8>)> {
        let listed = fs::read_dir(self.0.join(folder)).into_iter().flatten().flatten();
        let mut names: Vec<PathBuf> = listed.map(|entry| Path::new(folder).join(entry.file_name())).collect();
        names.retain(|name| name.extension().is_some_and(|found| found == extension));
        names.sort();
        names.iter().filter_map(|name| Some((name.display().to_string(), self.read(name)?))).collect()
    }

    /// The files that have the form of endorsements, each with its name, whatever else lies there.
    pub fn endorsements(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = self.files(Self::TDX, "json");
        for product in Product::ALL {
            found.extend(self.files(product.as_str(), "der"));
            let chips = fs::read_dir(self.0.join(product.as_str())).into_iter().flatten().flatten();
            let chips = chips.filter_map(|chip| Some(format!("{product}/{}", chip.file_name().to_str()?)));
            for chip in chips {
                found.extend(self.files(&chip, "der"));
            }
        }
        found.retain(|(name, _)| Self::is_endorsement(name));
        found.sort();
        found
    }

    /// Whether a file of this name is a certificate (`<product>/<chip id>/<tcb>.der`), a revocation list
    /// (`<product>/crl.der`) or collateral for TDX (`tdx/*.json`).
    pub fn is_endorsement(name: &str) -> bool {
        let is_hex = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        let is_plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let is_product = |name: &str| Product::ALL.iter().any(|product| product.as_str() == name);
        match *name.split('/').collect::<Vec<_>>() {
            [Self::TDX, file] => file.strip_suffix(".json").is_some_and(is_plain),
            [product, "crl.der"] => is_product(product),
            [product, chip, file] => {
                let tcb = file.strip_suffix(".der");
                is_product(product) && is_hex(chip, 128) && tcb.is_some_and(|tcb| is_hex(tcb, 16))
            }
            _ => false,
        }
    }

    /// Puts a file there, whole or not at all.
    ///
    /// # Errors
    /// When it is too long to be read again, or cannot be written.
    pub fn put(&self, relative: &str, bytes: &[u8]) -> std::io::Result<()> {
        if bytes.is_empty() || bytes.len() as u64 > FILE_MAX {
            let why = format!("an endorsement has 1 to {FILE_MAX} bytes, this has {}", bytes.len());
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
        }
        self.try_write(Path::new(relative), bytes)
    }

    /// How long ago it was written.
    pub(super) fn age(&self, relative: &Path, now: Timestamp) -> Option<Duration> {
        let written = fs::metadata(self.0.join(relative)).ok()?.modified().ok()?;
        let written = Timestamp::try_from(written).ok()?;
        Some(Duration::from_secs(u64::try_from(now.as_second() - written.as_second()).unwrap_or_default()))
    }

    /// Writes the file whole or not at all. A store that cannot be written costs a fetch next time, nothing else.
    pub(super) fn write(&self, relative: &Path, bytes: &[u8]) {
        if let Err(error) = self.try_write(relative, bytes) {
            tracing::warn!(%error, path = %self.0.join(relative).display(), "an endorsement could not be kept");
        }
    }

    fn try_write(&self, relative: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.0.join(relative);
        let directory = path.parent().unwrap_or(&self.0);
        fs::create_dir_all(directory)?;
        let temporary = directory.join(format!(".{}.partial", uuid::Uuid::new_v4().simple()));
        let written = fs::File::create_new(&temporary)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&temporary, &path));
        if written.is_err() {
            // It may not have come into being.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(directory.path().join("store"));
        let path = Path::new("Milan/00/11.der");
        assert_eq!(shelf.read(path), None);
        shelf.write(path, b"certificate");
        assert_eq!(shelf.read(path).as_deref(), Some(&b"certificate"[..]));
        let left = fs::read_dir(directory.path().join("store/Milan/00")).unwrap().count();
        assert_eq!(left, 1, "no temporary file stays");
    }

    #[test]
    fn only_names_of_endorsements_are_taken() {
        let chip = "ab".repeat(64);
        for name in [
            format!("Milan/{chip}/00000000000000ff.der"),
            "Genoa/crl.der".to_owned(),
            "tdx/00806F050000.json".to_owned(),
        ] {
            assert!(Shelf::is_endorsement(&name), "{name}");
        }
        for name in [
            "",
            "/etc/passwd",
            "../crl.der",
            "Milan/../crl.der",
            "Milan/crl.pem",
            "Rome/crl.der",
            "tdx/../a.json",
            "tdx/.json",
            "Milan//crl.der",
            "Milan/ab/00000000000000ff.der",
            "tdx/ab/cd.json",
            "tdx/a b.json",
        ] {
            assert!(!Shelf::is_endorsement(name), "{name}");
        }
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(directory.path().to_owned());
        let certificate = format!("Turin/{chip}/0011223344556677.der");
        shelf.put(&certificate, b"certificate").unwrap();
        shelf.put("Milan/crl.der", b"list").unwrap();
        shelf.put("Milan/readme.der", b"something else").unwrap();
        let names: Vec<_> = shelf.endorsements().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Milan/crl.der", certificate.as_str()]);
        assert!(shelf.put("Milan/crl.der", &[]).is_err());
    }

    #[test]
    fn a_file_above_the_limit_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::at(directory.path().to_owned());
        shelf.write(Path::new("large"), &vec![0; usize::try_from(FILE_MAX).unwrap() + 1]);
        assert_eq!(shelf.read(Path::new("large")), None);
    }
}
