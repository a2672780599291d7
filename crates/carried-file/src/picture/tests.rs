use std::io::Read as _;

use flate2::read::ZlibDecoder;
use qrcode::Version;

use super::*;
use crate::series::LINE_MAX;

#[test]
fn the_longest_line_is_exactly_what_the_finest_code_holds() {
    let version = |length| QrCode::with_error_correction_level("A".repeat(length), CORRECTION).unwrap().version();
    assert_eq!(version(LINE_MAX), Version::Normal(25));
    assert_eq!(version(LINE_MAX + 1), Version::Normal(26));
}

/// The chunks by their kinds, each checked.
fn chunks(mut png: &[u8]) -> Vec<([u8; 4], Vec<u8>)> {
    png = png.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap();
    let mut found = Vec::new();
    while !png.is_empty() {
        let (length, rest) = png.split_first_chunk::<4>().unwrap();
        let (checked, rest) = rest.split_at(4 + u32::from_be_bytes(*length) as usize);
        let (check, rest) = rest.split_first_chunk::<4>().unwrap();
        let mut crc = Crc::new();
        crc.update(checked);
        assert_eq!(crc.sum(), u32::from_be_bytes(*check));
        let (kind, data) = checked.split_first_chunk::<4>().unwrap();
        found.push((*kind, data.to_vec()));
        png = rest;
    }
    found
}

#[test]
fn a_picture_is_a_png_of_the_codes_modules_with_its_margin() {
    let line = "SEALIFT";
    let code = QrCode::with_error_correction_level(line, CORRECTION).unwrap();
    let side = (code.width() + 8) * 8;
    let [(header, size), (data, pixels), (end, nothing)] = <[_; 3]>::try_from(chunks(&png(line).unwrap())).unwrap();
    assert_eq!((header, data, end, nothing.len()), (*b"IHDR", *b"IDAT", *b"IEND", 0));
    let width = u32::try_from(side).unwrap().to_be_bytes();
    assert_eq!(size, [&width[..], &width, &[1, 0, 0, 0, 0]].concat());
    let mut rows = Vec::new();
    ZlibDecoder::new(pixels.as_slice()).read_to_end(&mut rows).unwrap();
    assert_eq!(rows.len(), side * (1 + side / 8));
    let dark = |row: usize, column: usize| rows[row * 8 * (1 + side / 8) + 1 + column] == 0;
    for row in 0..code.width() + 8 {
        for column in 0..code.width() + 8 {
            let inside = (4..code.width() + 4).contains(&row) && (4..code.width() + 4).contains(&column);
            let expected = inside && code[(column - 4, row - 4)] == qrcode::Color::Dark;
            assert_eq!(dark(row, column), expected, "row {row}, column {column}");
        }
    }
}
