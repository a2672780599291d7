//! An archive as Linux unpacks it into its first root file system: cpio in the format `newc`
//! (<https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>). The same content makes the same bytes.

use std::collections::BTreeMap;
use std::io::{self, Write};

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// What the archive holds, by path without a leading slash. Everything belongs to root and is of the year 1970.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

/// One entry's content and permission bits.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A character device by major and minor number.
    CharacterDevice { permissions: u32, major: u32, minor: u32 },
    /// A directory.
    Directory { permissions: u32 },
    /// A regular file.
    File { permissions: u32, content: Vec<u8> },
}

impl Archive {
    /// Adds an entry, and the directories above it where there are none yet; replaces one of the same path.
    pub(crate) fn add(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (at, _) in path.match_indices('/') {
            let parent = path.get(..at).unwrap_or_default().to_owned();
            self.entries.entry(parent).or_insert(Entry::Directory { permissions: 0o755 });
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Every entry, a directory before what is in it.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// What the writer says; an entry that the format cannot hold.
    pub(crate) fn write(&self, output: &mut impl Write) -> io::Result<()> {
        for (position, (path, entry)) in (1u32..).zip(self.entries()) {
            let header = match entry {
                Entry::CharacterDevice { permissions, major, minor } => {
                    Header { mode: CHARACTER_DEVICE | permissions, device: (*major, *minor), ..Header::new(position) }
                }
                Entry::Directory { permissions } => {
                    Header { mode: DIRECTORY | permissions, links: 2, ..Header::new(position) }
                }
                Entry::File { permissions, content } => {
                    let length = u32::try_from(content.len())
                        .map_err(|_| io::Error::other(format!("`{path}` is longer than the format can hold")))?;
                    Header { mode: FILE | permissions, length, ..Header::new(position) }
                }
            };
            let content = if let Entry::File { content, .. } = entry { content.as_slice() } else { &[] };
            header.write(path, content, output)?;
        }
        Header::new(0).write(TRAILER, &[], output)
    }
}

/// The members of a header that are not always zero.
struct Header {
    inode: u32,
    mode: u32,
    links: u32,
    length: u32,
    device: (u32, u32),
}

impl Header {
    fn new(inode: u32) -> Self {
        Self { inode, mode: 0, links: 1, length: 0, device: (0, 0) }
    }

    /// Header, name and content, the latter two filled up to a multiple of four.
    fn write(&self, name: &str, content: &[u8], output: &mut impl Write) -> io::Result<()> {
        let name_length =
            u32::try_from(name.len() + 1).map_err(|_| io::Error::other("a name is too long for the format"))?;
        let (major, minor) = self.device;
        // inode, mode, user, group, links, time, length, device (2), device node (2), name's length, check sum
        let members = [self.inode, self.mode, 0, 0, self.links, 0, self.length, 0, 0, major, minor, name_length, 0];
        let mut head = MAGIC.as_bytes().to_vec();
        for member in members {
            write!(head, "{member:08x}")?;
        }
        head.extend_from_slice(name.as_bytes());
        head.push(0);
        output.write_all(&head)?;
        output.write_all(filling(head.len()))?;
        output.write_all(content)?;
        output.write_all(filling(content.len()))
    }
}

fn filling(length: usize) -> &'static [u8] {
    const ZEROES: [u8; 3] = [0; 3];
    ZEROES.get(..(4 - length % 4) % 4).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads an archive as the kernel does: header, name and content, each at a multiple of four.
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&bytes[at..at + 6], MAGIC.as_bytes());
            let member = |number: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * number..][..8]).unwrap();
                usize::try_from(u32::from_str_radix(text, 16).unwrap()).unwrap()
            };
            let (mode, length, name_length) = (member(1), member(6), member(11));
            let name = &bytes[at + 110..][..name_length];
            assert_eq!(name.last(), Some(&0));
            let name = String::from_utf8(name[..name_length - 1].to_vec()).unwrap();
            let content = (at + 110 + name_length).next_multiple_of(4);
            at = (content + length).next_multiple_of(4);
            if name == TRAILER {
                assert_eq!(at, bytes.len());
                return entries;
            }
            entries.push((name, u32::try_from(mode).unwrap(), bytes[content..][..length].to_vec()));
        }
    }

    fn written(archive: &Archive) -> Vec<u8> {
        let mut bytes = Vec::new();
        archive.write(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_only_once() {
        let mut archive = Archive::default();
        for path in ["/etc/sealift/guest.json", "etc-like", "/etc/hosts", "/init"] {
            archive.add(path, Entry::File { permissions: 0o644, content: b"x".to_vec() });
        }
        archive.add("/dev/console", Entry::CharacterDevice { permissions: 0o600, major: 5, minor: 1 });
        let names: Vec<String> = read(&written(&archive)).into_iter().map(|(name, _, _)| name).collect();
        let expected =
            ["dev", "dev/console", "etc", "etc-like", "etc/hosts", "etc/sealift", "etc/sealift/guest.json", "init"];
        assert_eq!(names, expected);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_and_the_order_of_adding_does_not_show(
            mut files in prop::collection::btree_map("[a-z]{1,12}", prop::collection::vec(any::<u8>(), 0..50), 0..12)
                .prop_map(|files| files.into_iter().collect::<Vec<_>>()),
            permissions in 0u32..0o7777,
        ) {
            let archive = |files: &[(String, Vec<u8>)]| {
                let mut archive = Archive::default();
                for (name, content) in files {
                    archive.add(name, Entry::File { permissions, content: content.clone() });
                }
                written(&archive)
            };
            let bytes = archive(&files);
            let expected: Vec<_> =
                files.iter().map(|(name, content)| (name.clone(), FILE | permissions, content.clone())).collect();
            prop_assert_eq!(read(&bytes), expected);
            files.reverse();
            prop_assert_eq!(archive(&files), bytes);
        }
    }
}
