//! A code as a picture: PNG with one bit for each pixel, which every viewer shows and every scanner program reads. SVG would take
//! as little code and sixty times the bytes, and `zbarimg` reads it only where its image library has another one for it.

use std::io::{self, Write as _};

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};
use qrcode::{EcLevel, QrCode};

#[cfg(test)]
mod tests;

/// The lowest correction, as `qrencode` has it: what is on a screen or on fresh paper has no holes, and a code that is not read is
/// taken again. More of it would make more codes, or finer ones.
///
/// The finest code is of version 25 (`LINE_MAX`): 117 modules a side, 125 with the margin. A camera or hand scanner with 720 rows has
/// five pixels for each, twice what decoders need. The largest code there is (version 40, 177 modules) would halve their number,
/// and ask for a good camera and a calm hand.
const CORRECTION: EcLevel = EcLevel::L;
/// White around the code, in modules (ISO/IEC 18004).
const MARGIN: usize = 4;
/// Pixels a module, one for each bit of a byte: a thousand a side at the most, which a screen shows as they are.
const SCALE: usize = 8;

/// The PNG of a line.
pub(crate) fn png(line: &str) -> io::Result<Vec<u8>> {
    let code = QrCode::with_error_correction_level(line, CORRECTION).map_err(io::Error::other)?;
    let width = code.width() + 2 * MARGIN;
    let white = vec![0xff; width];
    let mut rows = vec![white; width];
    for (row, modules) in rows[MARGIN..].iter_mut().zip(code.to_colors().chunks(code.width())) {
        for (pixels, module) in row[MARGIN..].iter_mut().zip(modules) {
            *pixels = module.select(0x00, 0xff);
        }
    }
    // A zero before each row: no filter.
    let lines = rows.iter().flat_map(|row| [&[0], row.as_slice()].concat().repeat(SCALE));
    encode(width * SCALE, &lines.collect::<Vec<u8>>())
}

/// PNG (W3C, third edition): grey, one bit, rows of whole bytes.
fn encode(side: usize, rows: &[u8]) -> io::Result<Vec<u8>> {
    let side = size(side)?;
    let header = [&side[..], &side, &[1, 0, 0, 0, 0]].concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    chunk(&mut file, *b"IHDR", &header)?;
    chunk(&mut file, *b"IDAT", &compressed(rows)?)?;
    chunk(&mut file, *b"IEND", &[])?;
    Ok(file)
}

fn compressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn chunk(file: &mut Vec<u8>, kind: [u8; 4], data: &[u8]) -> io::Result<()> {
    let mut check = Crc::new();
    check.update(&kind);
    check.update(data);
    file.extend(size(data.len())?);
    file.extend(kind);
    file.extend(data);
    file.extend(check.sum().to_be_bytes());
    Ok(())
}

fn size(size: usize) -> io::Result<[u8; 4]> {
    u32::try_from(size).map(u32::to_be_bytes).map_err(io::Error::other)
}
