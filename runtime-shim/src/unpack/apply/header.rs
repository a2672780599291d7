//! An entry's header, read into checked values.

use std::io::{self, Read};

use rustix::fs::{Mode, Timespec, Timestamps};
use tar::EntryType;

use crate::unpack::error::UnpackError;
use crate::unpack::limits::Limits;
use crate::unpack::root::InnerPath;
use crate::unpack::sparse::SparseMap;

/// What stands before an attribute's name in PAX records.
const XATTR: &[u8] = b"SCHILY.xattr.";
/// Attributes that belong to the host, not to an image.
pub(super) const FOREIGN_XATTRS: [&[u8]; 2] = [b"security.selinux", b"system.nfs4_acl"];
/// A PAX record: key and value.
type Record = (Vec<u8>, Vec<u8>);

/// An entry's header, checked.
pub(super) struct Header {
    pub(super) path: InnerPath,
    pub(super) kind: EntryType,
    pub(super) link: Vec<u8>,
    pub(super) mode: Mode,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) times: Timestamps,
    pub(super) size: u64,
    pub(super) device: (u32, u32),
    pub(super) xattrs: Vec<Record>,
    pub(super) sparse: Option<SparseMap>,
}

impl Header {
    pub(super) fn read<R: Read>(entry: &mut tar::Entry<'_, R>, limits: &Limits) -> Result<Self, UnpackError> {
        let records = records(entry)?;
        let sparse = SparseMap::from_records(&records)?;
        let raw_name = match sparse.as_ref().and_then(|sparse| sparse.name.clone()) {
            Some(name) => name,
            None => entry.path_bytes().into_owned(),
        };
        let path = InnerPath::parse(&raw_name, limits)?;
        let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
        if link.len() > limits.path_bytes || link.contains(&0) {
            return Err(UnpackError::entry(&raw_name, "its link is too long or has a NUL byte"));
        }
        let header = entry.header();
        let absurd = |_: io::Error| UnpackError::entry(&raw_name, "its header has numbers that are none");
        let mut kind = header.entry_type();
        // Archives older than POSIX mark directories by the name alone.
        if kind == EntryType::Regular && raw_name.ends_with(b"/") {
            kind = EntryType::Directory;
        }
        let find = |key: &[u8]| records.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_slice());
        let id = |key: &[u8], field: io::Result<u64>| -> Result<u32, UnpackError> {
            let value = match find(key) {
                Some(text) => decimal(text).ok_or(()),
                None => field.map_err(|_| ()),
            };
            value
                .and_then(|id| u32::try_from(id).map_err(|_| ()))
                .map_err(|()| UnpackError::entry(&raw_name, "its owner is no number of 32 bits"))
        };
        let size = sparse.as_ref().map_or_else(|| entry.size(), |sparse| sparse.size);
        if size > limits.file_bytes {
            return Err(UnpackError::Limit { what: "bytes in one file", limit: limits.file_bytes });
        }
        let mtime = match find(b"mtime").map(pax_time) {
            Some(Some(time)) => time,
            Some(None) => return Err(UnpackError::entry(&raw_name, "its time is none")),
            None => {
                let seconds = i64::try_from(header.mtime().map_err(absurd)?).unwrap_or(i64::MAX);
                Timespec { tv_sec: seconds, tv_nsec: 0 }
            }
        };
        let device = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or_default();
        Ok(Self {
            path,
            kind,
            link,
            mode: Mode::from_raw_mode(header.mode().map_err(absurd)? & 0o7777),
            uid: id(b"uid", header.uid())?,
            gid: id(b"gid", header.gid())?,
            times: Timestamps { last_access: mtime, last_modification: mtime },
            size,
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs: xattrs(&records, &raw_name, limits)?,
            sparse,
        })
    }
}

fn records<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<Vec<Record>, UnpackError> {
    let Some(extensions) = entry.pax_extensions().map_err(|error| super::malformed(&error))? else {
        return Ok(Vec::new());
    };
    extensions
        .map(|extension| {
            let extension = extension.map_err(|error| super::malformed(&error))?;
            Ok((extension.key_bytes().to_vec(), extension.value_bytes().to_vec()))
        })
        .collect()
}

fn xattrs(records: &[Record], name: &[u8], limits: &Limits) -> Result<Vec<Record>, UnpackError> {
    let xattrs: Vec<Record> = records
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_vec(), value.clone())))
        .filter(|(key, _)| !FOREIGN_XATTRS.contains(&key.as_slice()))
        .collect();
    if xattrs.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > limits.xattr_bytes {
        return Err(UnpackError::entry(name, "its extended attributes are too long"));
    }
    Ok(xattrs)
}

fn decimal(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `SECONDS[.FRACTION]`, negative before 1970.
fn pax_time(text: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Timespec { tv_sec: seconds.checked_sub(1)?, tv_nsec: 1_000_000_000 - nanoseconds });
    }
    Some(Timespec { tv_sec: seconds, tv_nsec: nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_times_keep_nanoseconds_and_the_past() {
        let time = |text: &str| pax_time(text.as_bytes()).map(|time| (time.tv_sec, time.tv_nsec));
        assert_eq!(time("12.000000345"), Some((12, 345)));
        assert_eq!(time("12.5"), Some((12, 500_000_000)));
        assert_eq!(time("-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("x"), None);
        assert_eq!(time("1.x"), None);
    }
}
