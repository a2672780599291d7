//! The table of GUIDs at the end of an OVMF image, checked before the `sev` crate reads it without bounds.
//!
//! The table grows downwards from 32 bytes below the end; each entry is data, its whole length (2 bytes) and
//! a GUID. One entry points at the SEV metadata: the sections of guest memory that are measured besides the
//! firmware (EDK2, `OvmfPkg/ResetVector`).

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// The largest firmware image, in bytes; QEMU maps no larger.
const IMAGE_LEN: u64 = 64 * 1024 * 1024;
/// The distance of the table from the image's end.
const BELOW_END: usize = 32;
/// A table entry's length and GUID.
const ENTRY: usize = 18;
/// The header of the metadata: signature, length, version, number of sections.
const METADATA_HEADER: usize = 16;
/// A section: address, length, type.
const SECTION: usize = 12;
/// The most sections.
const SECTIONS: usize = 256;
/// The most memory that one section may have measured, in bytes.
const SECTION_LEN: u32 = 64 * 1024 * 1024;
/// The type of the section that takes the kernel's hashes.
const KERNEL_HASHES: u32 = 0x10;
/// A page of guest memory, in bytes.
const PAGE: usize = 4096;

/// GUIDs as they stand in the image, little-endian in their first three groups.
pub(crate) mod guid {
    /// `96b582de-1fb2-45f7-baea-a366c55a082d`: the table's footer.
    pub(crate) const FOOTER: [u8; 16] =
        [0xDE, 0x82, 0xB5, 0x96, 0xB2, 0x1F, 0xF7, 0x45, 0xBA, 0xEA, 0xA3, 0x66, 0xC5, 0x5A, 0x08, 0x2D];
    /// `dc886566-984a-4798-a75e-5585a7bf67cc`: where the SEV metadata is, counted from the end.
    pub(crate) const SEV_METADATA: [u8; 16] =
        [0x66, 0x65, 0x88, 0xDC, 0x4A, 0x98, 0x98, 0x47, 0xA7, 0x5E, 0x55, 0x85, 0xA7, 0xBF, 0x67, 0xCC];
    /// `7255371f-3a3b-4b04-927b-1da6efa8d454`: where the hashes of kernel, initrd and command line go.
    pub(crate) const SEV_HASH_TABLE: [u8; 16] =
        [0x1F, 0x37, 0x55, 0x72, 0x3B, 0x3A, 0x04, 0x4B, 0x92, 0x7B, 0x1D, 0xA6, 0xEF, 0xA8, 0xD4, 0x54];
    /// `00f771de-1a7e-4fcb-890e-68c77e2fb44e`: where vCPUs other than the first start.
    pub(crate) const SEV_ES_RESET: [u8; 16] =
        [0xDE, 0x71, 0xF7, 0x00, 0x7E, 0x1A, 0xCB, 0x4F, 0x89, 0x0E, 0x68, 0xC7, 0x7E, 0x2F, 0xB4, 0x4E];
}

/// Why a file is no firmware for SNP.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FirmwareError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// Larger than any firmware.
    #[error("it is larger than {IMAGE_LEN} bytes")]
    TooLarge,
    /// Not whole pages of 4096 bytes.
    #[error("its {found} bytes are not whole pages")]
    NotPages {
        /// The length of the file.
        found: usize,
    },
    /// No table of GUIDs at its end.
    #[error("it has no table of GUIDs at its end: is it an OVMF image?")]
    NoTable,
    /// An entry that SNP needs is missing.
    #[error("its table has no entry for {what}: it is not built for SEV-SNP")]
    Missing {
        /// Which.
        what: &'static str,
    },
    /// The table or the metadata is broken.
    #[error("its {what} is malformed")]
    Malformed {
        /// Which part.
        what: &'static str,
    },
}

/// What the table says, as far as it is needed here.
#[derive(Debug)]
pub(crate) struct Firmware {
    len: usize,
    kernel_hashes: bool,
}

impl Firmware {
    pub(crate) fn read(path: &Path) -> Result<Self, FirmwareError> {
        let mut image = Vec::new();
        let file = File::open(path).map_err(FirmwareError::Read)?;
        file.take(IMAGE_LEN + 1).read_to_end(&mut image).map_err(FirmwareError::Read)?;
        if u64::try_from(image.len()).is_ok_and(|len| len > IMAGE_LEN) {
            return Err(FirmwareError::TooLarge);
        }
        Self::parse(&image)
    }

    pub(crate) fn parse(image: &[u8]) -> Result<Self, FirmwareError> {
        let table = Table::find(image)?;
        let metadata = table.entry(&guid::SEV_METADATA)?.ok_or(FirmwareError::Missing { what: "SEV metadata" })?;
        table.entry(&guid::SEV_ES_RESET)?.ok_or(FirmwareError::Missing { what: "the vCPUs' reset" })?;
        let hash_table = table.entry(&guid::SEV_HASH_TABLE)?;
        let sections = sections(image, metadata)?;
        let mut hashes = sections.iter().filter(|section| section.kind == KERNEL_HASHES).peekable();
        let kernel_hashes = hashes.peek().is_some() && hash_table.is_some();
        if hashes.any(|section| usize::try_from(section.len) != Ok(PAGE)) {
            return Err(FirmwareError::Malformed { what: "kernel hashes section" });
        }
        Ok(Self { len: image.len(), kernel_hashes })
    }

    /// Refuses an image that is no whole number of pages.
    pub(crate) fn whole_pages(&self) -> Result<(), FirmwareError> {
        if self.len.is_multiple_of(PAGE) { Ok(()) } else { Err(FirmwareError::NotPages { found: self.len }) }
    }

    /// Whether it measures a kernel that the host passes.
    pub(crate) fn measures_kernel(&self) -> bool {
        self.kernel_hashes
    }
}

/// The entries of the table, without its footer.
struct Table<'a>(&'a [u8]);

impl<'a> Table<'a> {
    fn find(image: &'a [u8]) -> Result<Self, FirmwareError> {
        let (body, _) = image.split_at_checked(image.len().wrapping_sub(BELOW_END)).ok_or(FirmwareError::NoTable)?;
        let (_, len, guid) = last_entry(body).ok_or(FirmwareError::NoTable)?;
        if guid != guid::FOOTER {
            return Err(FirmwareError::NoTable);
        }
        let whole = body.len().checked_sub(len).and_then(|start| body.get(start..body.len() - ENTRY));
        whole.map(Self).ok_or(FirmwareError::Malformed { what: "table of GUIDs" })
    }

    /// The data of an entry, of which every one that is asked for has at least four bytes.
    fn entry(&self, wanted: &[u8; 16]) -> Result<Option<&'a [u8]>, FirmwareError> {
        const MALFORMED: FirmwareError = FirmwareError::Malformed { what: "table of GUIDs" };
        let mut rest = self.0;
        let mut found = None;
        while rest.len() >= ENTRY {
            let (before, len, guid) = last_entry(rest).ok_or(MALFORMED)?;
            let start = rest.len().checked_sub(len).ok_or(MALFORMED)?;
            let data = before.get(start..).ok_or(MALFORMED)?;
            if guid == wanted {
                // A second entry would be read as the first by one reader and as the last by another.
                if found.replace(data).is_some() || data.len() < 4 {
                    return Err(MALFORMED);
                }
            }
            rest = rest.get(..start).ok_or(MALFORMED)?;
        }
        Ok(found)
    }
}

/// What stands before the last entry's length and GUID, its whole length, its GUID.
fn last_entry(bytes: &[u8]) -> Option<(&[u8], usize, &[u8])> {
    let (before, entry) = bytes.split_at_checked(bytes.len().checked_sub(ENTRY)?)?;
    let (len, guid) = entry.split_at_checked(2)?;
    let len = usize::from(u16::from_le_bytes(len.try_into().ok()?));
    (len >= ENTRY).then_some((before, len, guid))
}

struct Section {
    kind: u32,
    len: u32,
}

fn sections(image: &[u8], entry: &[u8]) -> Result<Vec<Section>, FirmwareError> {
    const MALFORMED: FirmwareError = FirmwareError::Malformed { what: "SEV metadata" };
    let from_end = number(entry, 0).ok_or(MALFORMED)?;
    let start =
        usize::try_from(from_end).ok().and_then(|from_end| image.len().checked_sub(from_end)).ok_or(MALFORMED)?;
    let metadata = image.get(start..).ok_or(MALFORMED)?;
    let (Some(b"ASEV"), Some(len), Some(version), Some(count)) =
        (metadata.get(..4), number(metadata, 4), number(metadata, 8), number(metadata, 12))
    else {
        return Err(MALFORMED);
    };
    let (len, count) = (usize::try_from(len).map_err(|_| MALFORMED)?, usize::try_from(count).map_err(|_| MALFORMED)?);
    if version != 1 || count > SECTIONS || len < METADATA_HEADER + count * SECTION {
        return Err(MALFORMED);
    }
    let items = metadata.get(METADATA_HEADER..len).ok_or(MALFORMED)?;
    let section = |item: &[u8]| Some(Section { len: number(item, 4)?, kind: number(item, 8)? });
    let sections: Option<Vec<Section>> = items.chunks_exact(SECTION).take(count).map(section).collect();
    let sections = sections.ok_or(MALFORMED)?;
    // The sev crate reads a type's low byte only.
    if sections.iter().any(|section| section.len > SECTION_LEN || section.kind > 0xFF) {
        return Err(MALFORMED);
    }
    Ok(sections)
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::simulated;

    proptest! {
        #[test]
        fn no_image_makes_it_panic(image in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Firmware::parse(&image);
        }

        #[test]
        fn what_is_accepted_the_sev_crate_reads(offset in 0_usize..2048, byte in any::<u8>()) {
            let mut image = simulated::firmware();
            let at = image.len() - 1 - offset;
            image[at] = byte;
            if Firmware::parse(&image).is_ok() {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("firmware");
                std::fs::write(&path, &image).unwrap();
                // An answer or an error; never a panic.
                let _ = sev::measurement::ovmf::OVMF::new(path);
            }
        }
    }

    #[test]
    fn the_simulated_firmware_measures_kernels() {
        let firmware = Firmware::parse(&simulated::firmware()).unwrap();
        assert!(firmware.measures_kernel());
        firmware.whole_pages().unwrap();
    }

    #[test]
    fn a_second_entry_of_one_guid_is_refused() {
        let entry = |guid: &[u8; 16], data: &[u8]| {
            let len = u16::try_from(data.len() + ENTRY).unwrap().to_le_bytes();
            [data, &len, guid].concat()
        };
        let reset = entry(&guid::SEV_ES_RESET, &[0; 4]);
        let entries = [&reset[..], &reset[..], &entry(&guid::SEV_METADATA, &[0; 4])].concat();
        let footer = u16::try_from(entries.len() + ENTRY).unwrap().to_le_bytes();
        let image = [&entries[..], &footer, &guid::FOOTER, &[0; BELOW_END]].concat();
        assert!(matches!(Firmware::parse(&image), Err(FirmwareError::Malformed { what: "table of GUIDs" })));
    }
}
