//! Where the members of a tar file lie, found by reading headers only.
//!
//! The `tar` crate reads extension headers of any length into memory; this scan bounds them. It knows ustar, the PAX
//! records `path`, `linkpath` and `size` ([POSIX pax]), and GNU long names. Sparse members are refused: no tool writes
//! images with them.
//!
//! [POSIX pax]: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html#tag_20_92_13

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The members of a tar file that hold bytes, by their normalised path.
#[derive(Debug, Default)]
pub(super) struct TarIndex {
    members: HashMap<String, Member>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Member {
    File { offset: u64, bytes: u64 },
    Link { target: String },
}

/// Why a file is not a tar archive that this crate reads.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error("it is compressed, unpack it first")]
    Compressed,
    #[error("two members have the path `{path}`")]
    Doubled { path: String },
    #[error("the header at byte {offset} is not one of a tar archive")]
    Header { offset: u64 },
    #[error("it has more than {MEMBERS} members")]
    Members,
    #[error("the extension header at byte {offset} is too long")]
    Extension { offset: u64 },
    #[error("the member at byte {offset} is sparse, which is not supported")]
    Sparse { offset: u64 },
    #[error("it ends inside a member")]
    Truncated,
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

impl TarIndex {
    /// Reads all headers.
    pub(super) fn scan(file: &File) -> Result<Self, ScanError> {
        let end = file.metadata().map_err(ScanError::Read)?.len();
        let mut index = Self::default();
        let mut extension = Extension::default();
        let mut offset = 0;
        let mut members = 0_usize;
        while offset < end {
            let mut header = [0; BLOCK];
            read_exact(file, &mut header, offset)?;
            if offset == 0 && (header.starts_with(&[0x1f, 0x8b]) || header.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])) {
                return Err(ScanError::Compressed);
            }
            if header == [0; BLOCK] {
                break;
            }
            let broken = ScanError::Header { offset };
            if !checksum_is_right(&header) {
                return Err(broken);
            }
            let kind = header[156];
            let is_extension = matches!(kind, b'x' | b'g' | b'L' | b'K');
            let size = match extension.size {
                Some(size) if !is_extension => size,
                _ => number(&header[124..136]).ok_or(broken)?,
            };
            let data = offset + BLOCK as u64;
            let next = size
                .checked_next_multiple_of(BLOCK as u64)
                .and_then(|padded| data.checked_add(padded))
                .ok_or(ScanError::Truncated)?;
            if data + size > end {
                return Err(ScanError::Truncated);
            }
            members += 1;
            if members > MEMBERS {
                return Err(ScanError::Members);
            }
            if is_extension {
                if size > EXTENSION_BYTES {
                    return Err(ScanError::Extension { offset });
                }
                let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
                read_exact(file, &mut bytes, data)?;
                extension.read(kind, &bytes).ok_or(ScanError::Header { offset })?;
            } else {
                let extension = std::mem::take(&mut extension);
                if kind == b'S' || extension.is_sparse {
                    return Err(ScanError::Sparse { offset });
                }
                let path = extension.path.unwrap_or_else(|| header_path(&header));
                let link = extension.link.unwrap_or_else(|| text(&header[157..257]));
                index.add(&path, kind, &link, data, size)?;
            }
            offset = next;
        }
        Ok(index)
    }

    /// Offset and size of a file; links are followed, a few of them.
    pub(super) fn find(&self, path: &str) -> Option<(u64, u64)> {
        let mut path = normalized(path)?;
        for _ in 0..LINKS {
            match self.members.get(&path)? {
                Member::File { offset, bytes } => return Some((*offset, *bytes)),
                Member::Link { target } => path.clone_from(target),
            }
        }
        None
    }

    /// The paths of all members that hold bytes or link to some.
    pub(super) fn files(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    fn add(&mut self, path: &str, kind: u8, link: &str, offset: u64, bytes: u64) -> Result<(), ScanError> {
        let Some(path) = normalized(path) else { return Ok(()) };
        let member = match kind {
            b'0' | 0 | b'7' => Some(Member::File { offset, bytes }),
            b'1' => normalized(link).map(|target| Member::Link { target }),
            b'2' => {
                let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
                normalized(&format!("{directory}/{link}")).map(|target| Member::Link { target })
            }
            _ => None,
        };
        let Some(member) = member else { return Ok(()) };
        match self.members.insert(path.clone(), member) {
            Some(_) => Err(ScanError::Doubled { path: path.chars().take(200).collect() }),
            None => Ok(()),
        }
    }
}

/// What extension headers say about the member after them.
#[derive(Debug, Default)]
struct Extension {
    path: Option<String>,
    link: Option<String>,
    size: Option<u64>,
    is_sparse: bool,
}

impl Extension {
    fn read(&mut self, kind: u8, bytes: &[u8]) -> Option<()> {
        match kind {
            b'L' => self.path = Some(text(bytes)),
            b'K' => self.link = Some(text(bytes)),
            b'x' => self.read_records(bytes)?,
            // Global records hold comments such as git's commit id.
            _ => {}
        }
        Some(())
    }

    /// `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
    fn read_records(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.path = Some(String::from_utf8_lossy(value).into_owned()),
                b"linkpath" => self.link = Some(String::from_utf8_lossy(value).into_owned()),
                b"size" => self.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                key if key.starts_with(b"GNU.sparse") => self.is_sparse = true,
                _ => {}
            }
            bytes = &bytes[length..];
        }
        Some(())
    }
}

fn read_exact(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), ScanError> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ScanError::Truncated,
        _ => ScanError::Read(error),
    })
}

fn checksum_is_right(header: &[u8; BLOCK]) -> bool {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { u64::from(b' ') } else { u64::from(*byte) })
        .sum();
    number(&header[148..156]) == Some(sum)
}

/// Octal digits, or GNU's big-endian binary where the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if *first & 0x80 != 0 {
        return rest.iter().try_fold(u64::from(first & 0x7f), |value, byte| {
            value.checked_mul(256).map(|value| value | u64::from(*byte))
        });
    }
    let digits = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

fn header_path(header: &[u8; BLOCK]) -> String {
    let name = text(&header[..100]);
    let prefix = text(&header[345..500]);
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() { format!("{prefix}/{name}") } else { name }
}

fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// A path without `.`, `..` and doubled slashes; none for one that leaves the archive.
fn normalized(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() { None } else { Some(parts.join("/")) }
}

const BLOCK: usize = 512;
const EXTENSION_BYTES: u64 = 1024 * 1024;
const LINKS: usize = 8;
const MEMBERS: usize = 200_000;

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn scan(bytes: &[u8]) -> Result<TarIndex, ScanError> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        TarIndex::scan(&file)
    }

    fn header(kind: tar::EntryType, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header
    }

    #[test]
    fn files_and_links_are_found() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/layer.tar", "d".repeat(150));
        builder.append_data(&mut header(tar::EntryType::Regular, 5), &long, &b"layer"[..]).unwrap();
        builder.append_link(&mut header(tar::EntryType::Symlink, 0), "b/layer.tar", format!("../{long}")).unwrap();
        builder.append_link(&mut header(tar::EntryType::Link, 0), "c", "b/layer.tar").unwrap();
        builder.append_link(&mut header(tar::EntryType::Symlink, 0), "loop", "loop").unwrap();
        builder.append_link(&mut header(tar::EntryType::Symlink, 0), "out", "../../etc/passwd").unwrap();
        let bytes = builder.into_inner().unwrap();
        let index = scan(&bytes).unwrap();
        for path in [long.as_str(), "b/layer.tar", "./c"] {
            let (offset, size) = index.find(path).unwrap();
            let offset = usize::try_from(offset).unwrap();
            assert_eq!((&bytes[offset..offset + 5], size), (&b"layer"[..], 5));
        }
        assert_eq!(index.find("loop"), None);
        assert_eq!(index.find("out"), None);
        assert_eq!(index.find("absent"), None);
    }

    #[test]
    fn pax_path_and_size_win_over_the_header() {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("path", &b"real"[..]), ("size", b"3")]).unwrap();
        let mut wrong = header(tar::EntryType::Regular, 0);
        wrong.set_path("wrong").unwrap();
        wrong.set_cksum();
        builder.append(&wrong, &b""[..]).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(bytes.len() - 1024);
        bytes.extend_from_slice(b"abc");
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        assert_eq!(scan(&bytes).unwrap().find("real").unwrap().1, 3);
    }

    #[test]
    fn doubled_members_are_refused() {
        let mut builder = tar::Builder::new(Vec::new());
        for content in [b"a", b"b"] {
            builder.append_data(&mut header(tar::EntryType::Regular, 1), "index.json", &content[..]).unwrap();
        }
        assert!(
            matches!(scan(&builder.into_inner().unwrap()), Err(ScanError::Doubled { path }) if path == "index.json")
        );
    }

    #[test]
    fn what_is_no_tar_is_refused() {
        assert!(matches!(scan(&[0x1f, 0x8b, 8, 0].repeat(200)), Err(ScanError::Compressed)));
        assert!(matches!(scan(&[b'x'; 1024]), Err(ScanError::Header { offset: 0 })));
        assert!(matches!(scan(b"short"), Err(ScanError::Truncated)));
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header(tar::EntryType::Regular, 5_000), "a", &[1; 5_000][..]).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        bytes.truncate(2_000);
        assert!(matches!(scan(&bytes), Err(ScanError::Truncated)));
    }

    #[test]
    fn long_extension_and_sparse_members_are_refused() {
        let mut long = header(tar::EntryType::GNULongName, EXTENSION_BYTES + 1);
        long.set_cksum();
        let mut bytes = long.as_bytes().to_vec();
        bytes.resize(bytes.len() + usize::try_from(EXTENSION_BYTES).unwrap() + 512, b'a');
        assert!(matches!(scan(&bytes), Err(ScanError::Extension { offset: 0 })));
        let mut sparse = header(tar::EntryType::GNUSparse, 0);
        sparse.set_cksum();
        assert!(matches!(scan(sparse.as_bytes()), Err(ScanError::Sparse { offset: 0 })));
    }

    #[test]
    fn size_that_overflows_is_refused() {
        let mut large = header(tar::EntryType::Regular, 0);
        large.as_mut_bytes()[124..136].copy_from_slice(&[0x80, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        large.set_cksum();
        assert!(matches!(scan(large.as_bytes()), Err(ScanError::Truncated)));
    }

    proptest! {
        #[test]
        fn broken_archives_are_scanned_or_refused_without_panic(
            changes in prop::collection::vec((0..2_048_usize, any::<u8>()), 0..6),
            fix_checksum: bool,
        ) {
            let mut builder = tar::Builder::new(Vec::new());
            builder.append_pax_extensions([("path", &b"some/path"[..]), ("size", b"3")]).unwrap();
            builder.append_data(&mut header(tar::EntryType::Regular, 3), "x", &b"abc"[..]).unwrap();
            let mut bytes = builder.into_inner().unwrap();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            if fix_checksum {
                let mut first = tar::Header::new_old();
                first.as_mut_bytes().copy_from_slice(&bytes[..512]);
                first.set_cksum();
                bytes[..512].copy_from_slice(first.as_bytes());
            }
            let _ = scan(&bytes);
        }
    }
}
