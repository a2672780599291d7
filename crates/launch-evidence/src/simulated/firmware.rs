//! A firmware image and a kernel that boot nothing, laid out so that a launch digest over them means what a
//! real one does.

use crate::measure::firmware_guid as guid;

/// The length of the image, in bytes: 16 pages.
const LEN: usize = 64 * 1024;
/// The distance of the SEV metadata from the image's end.
const METADATA_FROM_END: u32 = 0x554;
/// Where the kernel's hashes go, in guest memory: address and length.
const HASH_TABLE: (u32, u32) = (0x0081_0C00, 0x400);
/// Where vCPUs other than the first start, in guest memory.
const RESET: u32 = 0x0080_B004;

/// The measured sections of guest memory as OVMF's `AmdSev` build has them: address, length, type.
const SECTIONS: [(u32, u32, u32); 6] = [
    (0x0080_0000, 0x9000, 1),  // zeroed memory
    (0x0080_A000, 0x3000, 1),  // zeroed memory
    (0x0080_D000, 0x1000, 2),  // secrets
    (0x0080_E000, 0x1000, 3),  // CPUID
    (0x0081_0000, 0x1000, 16), // kernel hashes
    (0x0081_1000, 0xF000, 1),  // zeroed memory
];

/// A firmware image with OVMF's table of GUIDs, SEV metadata and SNP kernel hashes. The same bytes every time.
pub fn firmware() -> Vec<u8> {
    let mut image: Vec<u8> = b"SIMULATED firmware, boots nothing. ".iter().copied().cycle().take(LEN).collect();

    let mut metadata = Vec::from(*b"ASEV");
    let sections = SECTIONS.iter().flat_map(|(address, len, kind)| [*address, *len, *kind]);
    let numbers: Vec<u32> = [0, 1, 6].into_iter().chain(sections).collect();
    metadata.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    let whole = length(&metadata);
    overwrite(&mut metadata, 4, &u32::from(whole).to_le_bytes());
    let at = LEN.saturating_sub(usize::try_from(METADATA_FROM_END).unwrap_or(LEN));
    overwrite(&mut image, at, &metadata);

    let mut table = Vec::new();
    entry(&mut table, &METADATA_FROM_END.to_le_bytes(), &guid::SEV_METADATA);
    entry(&mut table, &[HASH_TABLE.0.to_le_bytes(), HASH_TABLE.1.to_le_bytes()].concat(), &guid::SEV_HASH_TABLE);
    entry(&mut table, &RESET.to_le_bytes(), &guid::SEV_ES_RESET);
    table.extend_from_slice(&(length(&table) + 18).to_le_bytes());
    table.extend_from_slice(&guid::FOOTER);
    // 16 bytes that OVMF leaves empty, and the reset vector: `cli; hlt; jmp $-3`.
    table.extend_from_slice(&[0; 16]);
    table.extend_from_slice(&[0xFA, 0xF4, 0xEB, 0xFD]);
    table.extend_from_slice(&[0x90; 12]);
    let at = LEN.saturating_sub(table.len());
    overwrite(&mut image, at, &table);
    image
}

/// A kernel image with a boot header's two magic numbers, and nothing to run. The same bytes every time.
pub fn kernel() -> Vec<u8> {
    let mut image: Vec<u8> = b"SIMULATED kernel, runs nothing. ".iter().copied().cycle().take(4096).collect();
    overwrite(&mut image, 0x1FE, &[0x55, 0xAA]);
    overwrite(&mut image, 0x202, b"HdrS");
    image
}

/// An entry: data, its whole length, GUID.
fn entry(table: &mut Vec<u8>, data: &[u8], guid: &[u8; 16]) {
    table.extend_from_slice(data);
    table.extend_from_slice(&(length(data) + 18).to_le_bytes());
    table.extend_from_slice(guid);
}

fn length(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}

fn overwrite(image: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in image.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}
