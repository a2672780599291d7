//! The text of a series of codes: one line for each.
//!
//! ```text
//! SEALIFT1 RENEWAL REQUEST 2 OF 5 K7Q2MWD3ZJ5A6TLX GEZDGNBVGY3TQOJQGEZDGNBVGY3T…
//! ```
//!
//! What it is, which part of how many, the first 80 bits of the content's SHA-256, and the part's share of the content, compressed
//! (RFC 1951), with the first 32 bits of the SHA-256 of all that in the end, so that a part that was misread is known by itself.
//!
//! Digests and shares are in base 32 (RFC 4648, section 6, without padding). Base 45 (RFC 9285) would save one code in sixteen, but
//! has spaces, which are lost at the ends of lines, and signs that a scanner that types puts elsewhere on another country's
//! keyboard. Letters, digits and single spaces survive both, and all of them are in the alphanumeric mode of QR codes.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};

use data_encoding::BASE32_NOPAD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use sha2::{Digest as _, Sha256};

#[cfg(test)]
mod tests;

/// The most parts that a series has: nobody scans more.
pub const PARTS_MAX: u8 = 99;

/// The longest line: the alphanumeric capacity of the largest code that is drawn (`picture.rs`).
pub(crate) const LINE_MAX: usize = 1853;

/// The first word of each line, with the version of this form.
const MARK: &str = "SEALIFT1";
/// By which lines of any version are known.
const ANY_MARK: &[u8] = b"SEALIFT";
/// What `zbarimg` puts before a line unless it is told `--raw`.
const SCANNER_PREFIX: &[u8] = b"QR-Code:";

/// Bytes of the content's digest in a line.
const DIGEST_BYTES: usize = 10;
/// Bytes of a line's own digest.
const CHECK_BYTES: usize = 4;
/// The longest share in bytes, so that line, digests and the longest head fit in [`LINE_MAX`].
const SHARE_MAX: usize = (LINE_MAX - HEAD_MAX) / 8 * 5 - CHECK_BYTES;
/// `SEALIFT1 RENEWAL REQUEST 98 OF 99 `, the digest's sixteen characters and a space.
const HEAD_MAX: usize = 34 + 17;

/// What is carried.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content {
    /// A guest's request for the renewal of its lease.
    RenewalRequest,
    /// The answer to one.
    RenewalAnswer,
}

impl Content {
    const ALL: [Self; 2] = [Self::RenewalRequest, Self::RenewalAnswer];

    /// The words that a line has for it.
    fn words(self) -> [&'static str; 2] {
        match self {
            Self::RenewalRequest => ["RENEWAL", "REQUEST"],
            Self::RenewalAnswer => ["RENEWAL", "ANSWER"],
        }
    }

    /// The words that errors have for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RenewalRequest => "a request for a renewal",
            Self::RenewalAnswer => "an answer to a request for a renewal",
        }
    }
}

/// Why lines are no series, or not all of one. Lines are counted from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeriesError {
    /// A line that was never one of a series.
    #[error("line {line} does not begin with `{MARK}` as the codes of a series do")]
    Other {
        /// The line.
        line: usize,
    },
    /// A line that begins as one of a series and is of another form.
    #[error("line {line} is not of the form `{MARK} RENEWAL … 1 OF 5 …`")]
    Form {
        /// The line.
        line: usize,
    },
    /// A line that is not what it was.
    #[error("line {line}, part {number} of {total}, was misread or changed on the way")]
    Damaged {
        /// The line.
        line: usize,
        /// Which part it says that it is.
        number: u8,
        /// Of how many.
        total: u8,
    },
    /// A line of something else.
    #[error("line {line} is of {}, where {} is wanted", found.name(), wanted.name())]
    Content {
        /// The line.
        line: usize,
        /// What it is.
        found: Content,
        /// What it should be.
        wanted: Content,
    },
    /// A line of another file than the lines before.
    #[error("line {line} is of another file than the first line")]
    Mixed {
        /// The line.
        line: usize,
    },
    /// Two parts of the same number.
    #[error("line {line} says something else than an earlier line of part {number}")]
    Differing {
        /// The line.
        line: usize,
        /// The part's number.
        number: u8,
    },
    /// Not all parts are there.
    #[error("{}", missing(numbers, *total))]
    Missing {
        /// Those that are not.
        numbers: Vec<u8>,
        /// How many there should be.
        total: u8,
    },
    /// The parts together are no compressed file.
    #[error("the parts together are nothing that can be decompressed")]
    Compression(#[source] std::io::Error),
    /// More than whoever reads it allows.
    #[error("the parts together are more than {max} bytes")]
    TooLong {
        /// The most bytes.
        max: u64,
    },
    /// The parts together are not what each of them says.
    #[error("the parts together are not the file that their digest says")]
    Digest,
    /// A file that is too long for a series.
    #[error("it takes {needed} codes, and a series has {PARTS_MAX} at the most")]
    TooManyParts {
        /// How many it would take.
        needed: usize,
    },
}

fn missing(numbers: &[u8], total: u8) -> String {
    let words: Vec<String> = numbers.iter().map(u8::to_string).collect();
    match words.as_slice() {
        [] => "there is no part at all".to_owned(),
        [one] => format!("part {one} of {total} is missing"),
        [first @ .., last] => format!("parts {} and {last} of {total} are missing", first.join(", ")),
    }
}

/// The lines of a file, the codes of which are all of about the same size.
pub fn lines(content: Content, bytes: &[u8]) -> Result<Vec<String>, SeriesError> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    let compressed = encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(SeriesError::Compression)?;
    let needed = compressed.len().div_ceil(SHARE_MAX);
    let shares = compressed.chunks(compressed.len().div_ceil(needed));
    let total = u8::try_from(shares.len()).ok().filter(|total| *total <= PARTS_MAX);
    let head = Head { content, total: total.ok_or(SeriesError::TooManyParts { needed })?, digest: digest(bytes) };
    let part = |(number, share): (u8, &[u8])| Part { head: head.clone(), number, share: share.to_vec() }.line();
    Ok((1..).zip(shares).map(part).collect())
}

/// Whether what was read is meant as a series: one of its lines begins as they do.
pub fn is_series(text: &[u8]) -> bool {
    text.split(|byte| matches!(byte, b'\n' | b'\r')).any(|line| is_marked(without_prefix(line.trim_ascii())))
}

fn is_marked(line: &[u8]) -> bool {
    line.get(..ANY_MARK.len()).is_some_and(|start| start.eq_ignore_ascii_case(ANY_MARK))
}

/// The parts of one file, taken up line by line in any order.
#[derive(Debug)]
pub struct Series {
    wanted: Content,
    head: Option<Head>,
    shares: BTreeMap<u8, Vec<u8>>,
    lines: usize,
}

impl Series {
    /// None yet, of what is wanted.
    pub fn new(wanted: Content) -> Self {
        Self { wanted, head: None, shares: BTreeMap::new(), lines: 0 }
    }

    /// Takes up one line. Empty ones and repetitions change nothing; after an error the series is as it was before.
    pub fn add(&mut self, line: &[u8]) -> Result<(), SeriesError> {
        self.lines += 1;
        let line = without_prefix(line.trim_ascii());
        if line.is_empty() {
            return Ok(());
        }
        if !is_marked(line) {
            return Err(SeriesError::Other { line: self.lines });
        }
        let part = Part::read(line, self.lines)?;
        if part.head.content != self.wanted {
            return Err(SeriesError::Content { line: self.lines, found: part.head.content, wanted: self.wanted });
        }
        if self.head.as_ref().is_some_and(|head| *head != part.head) {
            return Err(SeriesError::Mixed { line: self.lines });
        }
        let known = self.shares.get(&part.number);
        if known.is_some_and(|share| *share != part.share) {
            return Err(SeriesError::Differing { line: self.lines, number: part.number });
        }
        self.shares.insert(part.number, part.share);
        self.head = Some(part.head);
        Ok(())
    }

    /// The file, which may have `max` bytes, once all parts are there.
    pub fn join(&self, max: u64) -> Result<Vec<u8>, SeriesError> {
        let Some(head) = &self.head else { return Err(SeriesError::Missing { numbers: Vec::new(), total: 0 }) };
        let numbers: Vec<u8> = (1..=head.total).filter(|number| !self.shares.contains_key(number)).collect();
        if !numbers.is_empty() {
            return Err(SeriesError::Missing { numbers, total: head.total });
        }
        let compressed: Vec<u8> = self.shares.values().flatten().copied().collect();
        let mut bytes = Vec::new();
        let decoder = DeflateDecoder::new(compressed.as_slice());
        decoder.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(SeriesError::Compression)?;
        if bytes.len() as u64 > max {
            return Err(SeriesError::TooLong { max });
        }
        if digest(&bytes) != head.digest {
            return Err(SeriesError::Digest);
        }
        Ok(bytes)
    }
}

/// What all parts of a file say alike.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Head {
    content: Content,
    total: u8,
    digest: String,
}

#[derive(Debug)]
struct Part {
    head: Head,
    number: u8,
    share: Vec<u8>,
}

impl Part {
    fn line(&self) -> String {
        let share = [self.share.as_slice(), &self.check()].concat();
        format!("{} {}", self.start(), BASE32_NOPAD.encode(&share))
    }

    /// The line before the share.
    fn start(&self) -> String {
        let Head { content, total, digest } = &self.head;
        format!("{MARK} {} {} OF {total} {digest}", content.words().join(" "), self.number)
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        let digest = Sha256::new().chain_update(self.start()).chain_update(&self.share).finalize();
        std::array::from_fn(|index| digest[index])
    }

    /// Reads the `line`th line, in capitals or not.
    fn read(text: &[u8], line: usize) -> Result<Self, SeriesError> {
        Self::parse(text).ok_or(SeriesError::Form { line }).and_then(|(part, check)| {
            let (number, total) = (part.number, part.head.total);
            if part.check() == *check { Ok(part) } else { Err(SeriesError::Damaged { line, number, total }) }
        })
    }

    /// A part and what it says as its digest.
    fn parse(text: &[u8]) -> Option<(Self, Vec<u8>)> {
        if text.len() > LINE_MAX {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?.to_ascii_uppercase();
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let [MARK, first, second, number, "OF", total, digest, share] = words.as_slice() else { return None };
        let content = Content::ALL.into_iter().find(|content| content.words() == [*first, *second])?;
        let (number, total) = (part_number(number)?, part_number(total)?);
        if number > total || BASE32_NOPAD.decode(digest.as_bytes()).ok()?.len() != DIGEST_BYTES {
            return None;
        }
        let mut share = BASE32_NOPAD.decode(share.as_bytes()).ok()?;
        let check = share.split_off(share.len().checked_sub(CHECK_BYTES)?);
        Some((Self { head: Head { content, total, digest: (*digest).to_owned() }, number, share }, check))
    }
}

fn part_number(text: &str) -> Option<u8> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())??;
    (1..=PARTS_MAX).contains(&number).then_some(number)
}

fn digest(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(&Sha256::digest(bytes)[..DIGEST_BYTES])
}

fn without_prefix(line: &[u8]) -> &[u8] {
    line.strip_prefix(SCANNER_PREFIX).unwrap_or(line)
}
