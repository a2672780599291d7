use proptest::prelude::*;

use super::*;

const MAX: u64 = 4096;
const CONTENT: Content = Content::RenewalRequest;

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    (0u32..).flat_map(|block| Sha256::digest(block.to_be_bytes())).take(length).collect()
}

fn joined<'a>(lines: impl IntoIterator<Item = &'a String>) -> Result<Vec<u8>, SeriesError> {
    let mut series = Series::new(CONTENT);
    lines.into_iter().try_for_each(|line| series.add(line.as_bytes()))?;
    series.join(MAX)
}

/// RFC 4648, section 10.
#[test]
fn base_32_is_that_of_the_rfc() {
    let vectors = [
        ("", ""),
        ("f", "MY"),
        ("fo", "MZXQ"),
        ("foo", "MZXW6"),
        ("foob", "MZXW6YQ"),
        ("fooba", "MZXW6YTB"),
        ("foobar", "MZXW6YTBOI"),
    ];
    for (plain, encoded) in vectors {
        assert_eq!(BASE32_NOPAD.encode(plain.as_bytes()), encoded);
        assert_eq!(BASE32_NOPAD.decode(encoded.as_bytes()).unwrap(), plain.as_bytes());
    }
}

#[test]
fn lines_are_of_letters_digits_and_single_spaces_and_say_what_they_are() {
    let lines = lines(CONTENT, &noise(3000)).unwrap();
    assert_eq!(lines.len(), 3);
    for (index, line) in lines.iter().enumerate() {
        assert!(line.starts_with(&format!("SEALIFT1 RENEWAL REQUEST {} OF 3 ", index + 1)), "{line}");
        assert!(line.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b' ')), "{line}");
        assert!(!line.contains("  ") && line.trim() == line);
    }
    let lengths = lines.iter().map(String::len);
    assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() < 10, "the codes are of about the same size");
}

/// The form is what other versions read: the deflated form of nothing is `03 00` (RFC 1951), digests are of SHA-256.
#[test]
fn the_line_of_an_empty_file_is_known() {
    let start = format!("SEALIFT1 RENEWAL ANSWER 1 OF 1 {}", BASE32_NOPAD.encode(&Sha256::digest(b"")[..10]));
    let check = &Sha256::digest([start.as_bytes(), &[3, 0]].concat())[..4];
    let share = BASE32_NOPAD.encode(&[&[3, 0], check].concat());
    assert_eq!(lines(Content::RenewalAnswer, b"").unwrap(), [format!("{start} {share}")]);
}

#[test]
fn the_longest_line_fits_and_wastes_no_group() {
    let head = Head { content: CONTENT, total: 99, digest: digest(b"") };
    let line = Part { head, number: 98, share: vec![0; SHARE_MAX] }.line();
    assert!((LINE_MAX - 8..=LINE_MAX).contains(&line.len()), "{}", line.len());
}

#[test]
fn a_file_that_is_too_long_is_not_split() {
    let most = usize::from(PARTS_MAX) * SHARE_MAX;
    // Deflate stores what it cannot compress, with some bytes for each block.
    assert_eq!(lines(CONTENT, &noise(most - 100)).unwrap().len(), 99);
    let refused = lines(CONTENT, &noise(most + 1));
    assert!(matches!(refused, Err(SeriesError::TooManyParts { needed: 100 })), "{refused:?}");
}

#[test]
fn missing_parts_are_named() {
    let all = lines(CONTENT, &noise(4096)).unwrap();
    let error = joined([&all[0], &all[2]]).unwrap_err();
    assert!(matches!(&error, SeriesError::Missing { numbers, total: 4 } if *numbers == [2, 4]));
    assert_eq!(error.to_string(), "parts 2 and 4 of 4 are missing");
    assert_eq!(joined([&all[3]]).unwrap_err().to_string(), "parts 1, 2 and 3 of 4 are missing");
    assert_eq!(joined(&all[1..]).unwrap_err().to_string(), "part 1 of 4 is missing");
    assert_eq!(joined([&String::new()]).unwrap_err().to_string(), "there is no part at all");
}

#[test]
fn parts_of_two_files_do_not_mix() {
    let (one, other) = (lines(CONTENT, &noise(3000)).unwrap(), lines(CONTENT, &noise(2999)).unwrap());
    let mixed = joined([&one[0], &other[1], &one[2]]);
    assert!(matches!(mixed, Err(SeriesError::Mixed { line: 2 })), "{mixed:?}");
    let answer = lines(Content::RenewalAnswer, &noise(3000)).unwrap();
    let mixed = joined([&one[0], &answer[1]]);
    let (found, wanted) = (Content::RenewalAnswer, CONTENT);
    assert!(
        matches!(mixed, Err(SeriesError::Content { line: 2, found: is, wanted: was }) if is == found && was == wanted)
    );
}

#[test]
fn a_part_that_was_misread_is_known_by_itself() {
    let all = lines(CONTENT, &noise(3000)).unwrap();
    let swapped = |line: &str, from: char, to: char| {
        let (start, share) = line.rsplit_once(' ').unwrap();
        format!("{start} {}", share.replacen(from, &to.to_string(), 1))
    };
    let wrong = joined([&all[0], &swapped(&all[1], 'Y', 'Z')]);
    assert!(matches!(wrong, Err(SeriesError::Damaged { line: 2, number: 2, total: 3 })), "{wrong:?}");
    // Its number is part of what is checked.
    let renumbered = all[1].replacen("2 OF", "3 OF", 1);
    assert!(matches!(joined([&renumbered]), Err(SeriesError::Damaged { line: 1, number: 3, total: 3 })));
}

/// Whoever makes the checks, too, makes lines that hold each by itself.
#[test]
fn parts_that_were_made_to_hold_are_held_against_the_whole() {
    let head = Head { content: CONTENT, total: 1, digest: digest(b"said") };
    let part = |head: &Head, bytes: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        Part { head: head.clone(), number: 1, share: encoder.finish().unwrap() }.line()
    };
    assert_eq!(joined([&part(&head, b"said")]).unwrap(), b"said");
    assert!(matches!(joined([&part(&head, b"is")]), Err(SeriesError::Digest)));
    let differing = joined([&part(&head, b"said"), &part(&head, b"is")]);
    assert!(matches!(differing, Err(SeriesError::Differing { line: 2, number: 1 })), "{differing:?}");
    let garbage = Part { head: head.clone(), number: 1, share: vec![0xff; 9] }.line();
    assert!(matches!(joined([&garbage]), Err(SeriesError::Compression(_))));

    let long = vec![0; 1 << 20];
    let bomb = part(&Head { digest: digest(&long), ..head }, &long);
    assert!(bomb.len() < 2000 && matches!(joined([&bomb]), Err(SeriesError::TooLong { max: MAX })));
}

#[test]
fn lines_of_another_form_are_refused_by_their_number() {
    let good = lines(CONTENT, b"content").unwrap().remove(0);
    let refused = |text: &str| {
        let error = joined([&good, &String::new(), &text.to_owned()]);
        assert!(matches!(error, Err(SeriesError::Form { line: 3 })), "`{text}`: {error:?}");
    };
    refused(&good.replace("SEALIFT1", "SEALIFT2"));
    refused(&good.replace("REQUEST", "REQUESTS"));
    for numbers in ["0 OF 1", "2 OF 1", "1 OF 0", "+1 OF 1", "1 OF 100", "1 OF 257", "-1 OF 1", "1 1", "1 OF OF 1"] {
        refused(&good.replace("1 OF 1", numbers));
    }
    refused(&good.replace(&digest(b"content"), "MZXW6"));
    refused(&good.replace(&digest(b"content"), "MZXW6YTBOI000000"));
    refused(&good[..good.rfind(' ').unwrap()]);
    refused(&format!("{} MY", &good[..good.rfind(' ').unwrap()]));
    refused(&format!("{good} MY"));
    refused(&format!("{good}{}", "A".repeat(LINE_MAX)));
}

#[test]
fn lines_that_were_never_of_a_series_are_told_apart() {
    for text in ["https://shop.example/", "0108900251130063", "SEALIF", "1 OF 5"] {
        let error = joined([&text.to_owned()]);
        assert!(matches!(error, Err(SeriesError::Other { line: 1 })), "`{text}`: {error:?}");
    }
}

#[test]
fn what_scanners_add_or_change_does_no_harm() {
    let all = lines(CONTENT, &noise(3000)).unwrap();
    let scanned = [
        format!("QR-Code:{}", all[2]),
        String::new(),
        format!("  {}\t\r", all[0].to_ascii_lowercase()),
        all[2].clone(),
        all[1].replace(' ', "  "),
    ];
    assert_eq!(joined(&scanned).unwrap(), noise(3000));
}

#[test]
fn a_series_is_known_by_one_of_its_lines() {
    for text in ["SEALIFT1 RENEWAL", "\r\n \nsealift1 renewal", "QR-Code:SEALIFT9", "SEALIFT", "01089\rSEALIFT1"] {
        assert!(is_series(text.as_bytes()), "{text}");
    }
    for text in ["", "{\"format\":\"sealift-renewal-request/1\"}", "SEALIF", "a SEALIFT1", "QR-Code:", "\u{feff}"] {
        assert!(!is_series(text.as_bytes()), "{text}");
    }
}

/// Lines that are nearly ones.
fn near() -> impl Strategy<Value = Vec<u8>> {
    let line = lines(CONTENT, &noise(64)).unwrap().remove(0).into_bytes();
    (0..line.len(), any::<u8>(), 0..line.len()).prop_map(move |(at, byte, end)| {
        let mut line = line.clone();
        line[at] = byte;
        line.truncate(line.len() - end);
        line
    })
}

proptest! {
    #[test]
    fn no_bytes_panic_and_none_are_a_file(lines in proptest::collection::vec(prop_oneof![any::<Vec<u8>>(), near()], 0..8)) {
        let mut series = Series::new(CONTENT);
        for line in &lines {
            let _ = is_series(line);
            let _ = series.add(line);
        }
        if let Ok(bytes) = series.join(MAX) {
            // Changed in nothing that counts.
            prop_assert_eq!(bytes, noise(64));
        }
    }

    #[test]
    fn what_is_split_joins_in_any_order_and_with_repetitions(
        bytes in proptest::collection::vec(any::<u8>(), 0..4096),
        order in any::<proptest::sample::Index>(),
        shuffled in Just((0..16usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let lines = lines(CONTENT, &bytes).unwrap();
        let repeated = order.get(&lines);
        let mixed = shuffled.iter().filter_map(|index| lines.get(*index)).chain([repeated]);
        prop_assert_eq!(joined(mixed).unwrap(), bytes);
    }

    #[test]
    fn without_one_part_nothing_is_joined(bytes in proptest::collection::vec(any::<u8>(), 1200..4096), left in any::<proptest::sample::Index>()) {
        let mut lines = lines(CONTENT, &bytes).unwrap();
        let left = left.index(lines.len());
        lines.remove(left);
        let missing = matches!(
            joined(&lines),
            Err(SeriesError::Missing { numbers, .. }) if numbers.iter().map(|number| usize::from(*number)).eq([left + 1])
        );
        prop_assert!(missing);
    }
}
