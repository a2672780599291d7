//! GNU tar's sparse files in PAX archives: formats 0.0, 0.1 and 1.0. (The tar crate reads the old GNU form itself.)
//!
//! Format: <https://www.gnu.org/software/tar/manual/html_section/Sparse-Formats.html>

use std::io::{self, Read};

use super::error::UnpackError;

/// The most stretches of data in one sparse file.
const STRETCHES_MAX: usize = 1 << 20;

/// A sparse file's shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SparseMap {
    /// Name, where the archive's own is a stand-in.
    pub(super) name: Option<Vec<u8>>,
    /// Logical size in bytes.
    pub(super) size: u64,
    /// (offset, bytes) of each stretch of data, in order.
    pub(super) stretches: Vec<(u64, u64)>,
    /// The map stands before the data (format 1.0).
    map_in_data: bool,
}

impl SparseMap {
    /// Reads the PAX records of an entry; `None` when it is no sparse file.
    pub(super) fn from_records(records: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<Self>, UnpackError> {
        let mut map = Self::default();
        let mut found = false;
        let mut offset = None;
        for (key, value) in records {
            let Some(key) = key.strip_prefix(b"GNU.sparse.") else { continue };
            found = true;
            match key {
                b"major" => map.map_in_data = number(value)? >= 1,
                b"name" => map.name = Some(value.clone()),
                b"size" | b"realsize" => map.size = number(value)?,
                b"offset" => offset = Some(number(value)?),
                b"numbytes" => {
                    let offset = offset.take().ok_or_else(malformed)?;
                    map.push(offset, number(value)?)?;
                }
                b"map" => {
                    let mut numbers = value.split(|byte| *byte == b',');
                    while let Some(offset) = numbers.next() {
                        let bytes = numbers.next().ok_or_else(malformed)?;
                        map.push(number(offset)?, number(bytes)?)?;
                    }
                }
                _ => {}
            }
        }
        Ok(found.then_some(map))
    }

    /// Reads the map that stands before the data, where it does.
    pub(super) fn read_map(&mut self, data: &mut dyn Read) -> Result<(), UnpackError> {
        if !self.map_in_data {
            return self.check();
        }
        let mut lines = Lines { data, read: 0 };
        let count = lines.number()?;
        for _ in 0..count {
            let (offset, bytes) = (lines.number()?, lines.number()?);
            self.push(offset, bytes)?;
        }
        lines.skip_padding()?;
        self.check()
    }

    fn push(&mut self, offset: u64, bytes: u64) -> Result<(), UnpackError> {
        if self.stretches.len() >= STRETCHES_MAX {
            return Err(UnpackError::Limit { what: "stretches of a sparse file", limit: STRETCHES_MAX as u64 });
        }
        self.stretches.push((offset, bytes));
        Ok(())
    }

    fn check(&self) -> Result<(), UnpackError> {
        let mut end = 0;
        for &(offset, bytes) in &self.stretches {
            let next = offset.checked_add(bytes).ok_or_else(malformed)?;
            if offset < end || next > self.size {
                return Err(malformed());
            }
            end = next;
        }
        Ok(())
    }
}

struct Lines<'a> {
    data: &'a mut dyn Read,
    read: usize,
}

impl Lines<'_> {
    fn number(&mut self) -> Result<u64, UnpackError> {
        let mut digits = Vec::new();
        loop {
            let mut byte = [0];
            self.data.read_exact(&mut byte).map_err(|_| malformed())?;
            self.read += 1;
            match byte {
                [b'\n'] => return number(&digits),
                [byte] if digits.len() < 20 => digits.push(byte),
                _ => return Err(malformed()),
            }
        }
    }

    fn skip_padding(&mut self) -> Result<(), UnpackError> {
        let padding = (512 - self.read % 512) % 512;
        let skipped = io::copy(&mut self.data.take(padding as u64), &mut io::sink()).map_err(|_| malformed())?;
        if skipped == padding as u64 { Ok(()) } else { Err(malformed()) }
    }
}

fn number(digits: &[u8]) -> Result<u64, UnpackError> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or_else(malformed)
}

fn malformed() -> UnpackError {
    UnpackError::Archive("a sparse file's map is malformed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
        (key.as_bytes().to_vec(), value.as_bytes().to_vec())
    }

    #[test]
    fn the_map_of_format_0_1_is_read_from_the_records() {
        let records = [record("GNU.sparse.size", "100"), record("GNU.sparse.map", "0,10,50,5")];
        let mut map = SparseMap::from_records(&records).unwrap().unwrap();
        map.read_map(&mut io::empty()).unwrap();
        assert_eq!(map.stretches, [(0, 10), (50, 5)]);
    }

    #[test]
    fn the_map_of_format_1_0_is_read_from_the_data_up_to_its_block() {
        let records = [record("GNU.sparse.major", "1"), record("GNU.sparse.realsize", "4096")];
        let mut map = SparseMap::from_records(&records).unwrap().unwrap();
        let mut block = b"1\n1024\n3\n".to_vec();
        block.resize(512, 0);
        block.extend_from_slice(b"abc");
        let mut data = block.as_slice();
        map.read_map(&mut data).unwrap();
        assert_eq!((map.stretches.as_slice(), data), ([(1024, 3)].as_slice(), b"abc".as_slice()));
    }

    #[test]
    fn stretches_beyond_the_size_or_out_of_order_are_refused() {
        for map in ["0,101", "50,5,0,10", "18446744073709551615,2"] {
            let records = [record("GNU.sparse.size", "100"), record("GNU.sparse.map", map)];
            let mut map = SparseMap::from_records(&records).unwrap().unwrap();
            assert!(map.read_map(&mut io::empty()).is_err());
        }
    }
}
