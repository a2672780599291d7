//! A directory tree as text, so that two of them can be compared: kind, mode, owner, times, attributes, content.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// What of owners is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Everything belongs to whom the image says.
    Compared,
    /// The tree was made by an ordinary user.
    Ignored,
}

/// Describes every entry below `root` by its path.
///
/// # Panics
/// When the tree cannot be read.
pub fn describe(root: &Path, owners: Owners) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    let mut first_of_inode = BTreeMap::new();
    walk(root, root, owners, &mut entries, &mut first_of_inode);
    entries
}

fn walk(
    root: &Path,
    path: &Path,
    owners: Owners,
    entries: &mut BTreeMap<String, String>,
    first_of_inode: &mut BTreeMap<u64, String>,
) {
    let metadata = path.symlink_metadata().expect("metadata");
    let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
    let kind = metadata.file_type();
    let content = if kind.is_file() {
        format!("file {} {}", metadata.len(), hex::encode(Sha256::digest(fs::read(path).expect("content"))))
    } else if kind.is_symlink() {
        format!("link {}", fs::read_link(path).expect("link").display())
    } else if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        format!("device {} {:x}", if kind.is_char_device() { "c" } else { "b" }, metadata.rdev())
    };
    let owner = match owners {
        Owners::Compared => format!("{}:{}", metadata.uid(), metadata.gid()),
        Owners::Ignored => String::new(),
    };
    let links = if kind.is_dir() {
        String::new()
    } else {
        let first = first_of_inode.entry(metadata.ino()).or_insert_with(|| name.clone());
        format!("same as {first}, {} links", metadata.nlink())
    };
    entries.insert(
        name,
        format!(
            "{content} mode {:o} owner {owner} mtime {}.{:09} {links} xattrs {}",
            metadata.mode(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            xattrs(path)
        ),
    );
    if kind.is_dir() {
        let mut children: Vec<_> =
            fs::read_dir(path).expect("directory").map(|entry| entry.expect("entry").path()).collect();
        children.sort();
        for child in children {
            walk(root, &child, owners, entries, first_of_inode);
        }
    }
}

fn xattrs(path: &Path) -> String {
    let mut names = vec![0; 64 * 1024];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or_default();
    let mut xattrs: Vec<String> = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 * 1024];
            let length = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value).expect("attribute");
            format!("{}={}", String::from_utf8_lossy(name), hex::encode(&value[..length]))
        })
        .collect();
    xattrs.sort();
    xattrs.join(",")
}
