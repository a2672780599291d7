use std::cell::RefCell;

use super::*;
use crate::series::lines;

const CONTENT: Content = Content::RenewalAnswer;

/// Bytes of which a series of three is made.
fn three_parts() -> (Vec<u8>, Vec<String>) {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    let bytes: Vec<u8> = (0..3000).map(|_| next()).collect();
    let lines = lines(CONTENT, &bytes).unwrap();
    assert_eq!(lines.len(), 3);
    (bytes, lines)
}

fn whole(text: &[u8], max: u64) -> Result<Vec<u8>, Failure> {
    read_whole(text, Path::new("file"), CONTENT, max)
}

#[test]
fn a_file_is_read_as_it_is_or_from_its_lines_however_these_end() {
    assert_eq!(whole(b"{}", 2).unwrap(), b"{}");
    assert_eq!(whole(b"", 0).unwrap(), b"");
    let (bytes, lines) = three_parts();
    for end in ["\n", "\r\n", "\r", "\n\n"] {
        assert_eq!(whole(lines.join(end).as_bytes(), 4096).unwrap(), bytes, "{end:?}");
    }
    let noise = ["DataBar:0108900251130063", &lines[0], &lines[2], "0108900251130063", &lines[1]].join("\n");
    assert_eq!(whole(noise.as_bytes(), 4096).unwrap(), bytes);
}

#[test]
fn more_than_is_wanted_is_refused_in_either_form() {
    let (_, lines) = three_parts();
    assert_eq!(whole(b"{}", 1).unwrap_err().to_string(), "error: `file` has more than 1 bytes");
    let long = whole(lines.join("\n").as_bytes(), 2999).unwrap_err();
    assert!(long.to_string().contains("more than 2999 bytes"), "{long}");
    let endless = lines[0].clone() + &"\n".repeat(1 << 20);
    assert_eq!(whole(endless.as_bytes(), 1).unwrap_err().to_string(), "error: `file` has more than 1048576 bytes");
}

#[test]
fn each_failure_has_its_code_and_the_next_step() {
    let (_, lines) = three_parts();
    let refused = |lines: &[&str]| whole(lines.join("\n").as_bytes(), 4096).unwrap_err();
    let [one, two, three] = [0, 1, 2].map(|index| lines[index].as_str());
    let missing = refused(&[one, three]);
    assert_eq!(missing.code, ExitCode::BadInput);
    assert_eq!(
        missing.to_string(),
        "error: the codes in `file` do not make an answer to a request for a renewal\n  caused by: part 2 of 3 is \
         missing\n\nhint: scan what is missing, too; order and repetitions do not matter"
    );
    let damaged = refused(&[one, &two.replace(" 2 OF 3 ", " 1 OF 3 ")]);
    assert_eq!(damaged.code, ExitCode::VerificationFailed);
    assert!(damaged.to_string().contains("line 2, part 1 of 3, was misread"), "{damaged}");
    let other = refused(&[one, "SEALIFT2 ANYTHING"]);
    assert_eq!(other.code, ExitCode::BadInput);
    assert!(other.to_string().contains("line 2 is not of the form"), "{other}");
}

#[test]
fn what_is_typed_ends_with_the_last_part_and_a_bad_line_is_not_the_end() {
    let (bytes, lines) = three_parts();
    let said = RefCell::new(Vec::new());
    let typed = |text: &str| {
        let say = |line| said.borrow_mut().push(line);
        read_typed(text.as_bytes(), Path::new("-"), CONTENT, 4096, say)
    };
    let all = [lines[2].as_str(), "nonsense", &lines[0], &lines[2], "", &lines[1], "not read any more"].join("\n");
    assert_eq!(typed(&all).unwrap(), bytes);
    let heard = said.take();
    assert_eq!(heard[1], "parts 1 and 2 of 3 are missing");
    assert!(heard[2].starts_with("not taken: line 2 does not begin with `SEALIFT1`"), "{heard:?}");
    assert_eq!(heard[3..], ["part 2 of 3 is missing"; 3]);

    let ended = typed(&lines[1]).unwrap_err();
    assert_eq!(ended.code, ExitCode::BadInput);
    assert!(ended.to_string().contains("parts 1 and 3 of 3 are missing"), "{ended}");
}
