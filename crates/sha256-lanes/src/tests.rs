use proptest::prelude::*;
use sha2::Digest as _;

use super::*;
use crate::compress::{Lanes, one_by_one};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn reference(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

/// Bytes that differ from lane to lane.
fn stream(lane: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 31 + lane * 101 + at / 251) % 256).unwrap()).collect()
}

/// The examples of FIPS 180-2, appendix B, and of NIST's example values: one block, two blocks, a million bytes, nothing.
#[test]
fn digests_are_the_known_answers() {
    let million = vec![b'a'; 1_000_000];
    let answers: [(&[u8], &str); 4] = [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
        ),
        (&million, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ];
    for (message, answer) in answers {
        // Alone, and as each of several lanes.
        for lanes in 1..=4 {
            let mut streams = vec![Sha256::new(); lanes];
            let mut together: Vec<_> = streams.iter_mut().map(|stream| stream.lane(message)).collect();
            update_together(&mut together);
            for stream in streams {
                assert_eq!(stream.bytes(), message.len() as u64);
                assert_eq!(hex(&stream.finish()), answer, "{lanes} lanes");
            }
        }
    }
}

/// Every split of two streams at once: each length of what is pending meets each length of what comes.
#[test]
fn every_split_point_of_two_lanes_gives_the_digest_of_the_whole() {
    let (a, b) = (stream(0, 150), stream(1, 200));
    let wanted = (reference(&a), reference(&b));
    for at in 0..=a.len() {
        let (mut first, mut second) = (Sha256::new(), Sha256::new());
        update_together(&mut [first.lane(&a[..at]), second.lane(&b[..200 - at])]);
        update_together(&mut [first.lane(&a[at..]), second.lane(&b[200 - at..])]);
        assert_eq!((first.finish(), second.finish()), wanted, "{at}");
    }
}

/// The interleaved rounds against `sha2`'s own, from states that are no beginnings.
#[test]
#[cfg(target_arch = "x86_64")]
fn interleaved_rounds_are_those_of_one_stream_after_the_other() {
    fn lanes<'a, const N: usize>(states: &'a mut [State; N], bytes: &'a [Vec<u8>; N]) -> Lanes<'a, N> {
        let mut bytes = bytes.iter();
        states.each_mut().map(|state| (state, bytes.next().unwrap().as_chunks().0))
    }
    fn compare<const N: usize, const SAME: usize>() {
        for blocks in [0, 1, 2, 3, 17] {
            let message = |lane: usize| if lane < SAME { 0 } else { lane };
            let bytes: [Vec<u8>; N] = std::array::from_fn(|lane| stream(message(lane), blocks * Sha256::BLOCK));
            let before: [State; N] =
                std::array::from_fn(|lane| INITIAL.map(|word| word ^ u32::try_from(lane + 1).unwrap()));
            let (mut ours, mut theirs) = (before, before);
            let has_instructions = crate::sha_ni::compress::<N, SAME>(lanes(&mut ours, &bytes)).is_ok();
            one_by_one(lanes(&mut theirs, &bytes));
            if has_instructions {
                assert_eq!(ours, theirs, "{N} lanes of {blocks} blocks, {SAME} of the same");
            } else {
                assert_eq!(ours, before, "lanes that are given back are as they were");
            }
        }
    }
    compare::<2, 1>();
    compare::<2, 2>();
    compare::<3, 1>();
    compare::<3, 2>();
    compare::<3, 3>();
}

/// Two of three lanes are of the same memory, wherever they stand; what is pending in one of them does not shift the other.
#[test]
fn lanes_over_the_same_memory_give_what_each_alone_gives() {
    let (twice, once) = (stream(0, 300), stream(1, 300));
    for pending in [0, 1, 63, 64] {
        let before = stream(2, pending);
        for order in [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]] {
            let chunks = order.map(|which| if which == 0 { &twice } else { &once });
            let mut streams = [const { Sha256::new() }; 3];
            streams[0].update(&before);
            let mut lanes: Vec<_> = streams.iter_mut().zip(chunks).map(|(stream, chunk)| stream.lane(chunk)).collect();
            update_together(&mut lanes);
            let [first, second, third] = streams.map(Sha256::finish);
            let wanted =
                [reference(&[before.as_slice(), chunks[0]].concat()), reference(chunks[1]), reference(chunks[2])];
            assert_eq!([first, second, third], wanted, "{order:?} behind {pending} bytes");
        }
    }
}

#[test]
fn a_state_is_not_printed() {
    let mut stream = Sha256::new();
    stream.update(&[0xab; 100]);
    assert_eq!(format!("{stream:?}"), "Sha256 { bytes: 100, .. }");
}

proptest! {
    #[test]
    fn lanes_of_any_number_and_any_pieces_give_what_sha2_gives(
        pieces in proptest::collection::vec(proptest::collection::vec(0usize..300, 0..12), 1..6)
    ) {
        let all: Vec<Vec<u8>> =
            pieces.iter().enumerate().map(|(lane, pieces)| stream(lane, pieces.iter().sum())).collect();
        let mut streams = vec![Sha256::new(); pieces.len()];
        let mut rests: Vec<&[u8]> = all.iter().map(Vec::as_slice).collect();
        for step in 0..12 {
            let mut lanes = Vec::new();
            for (lane, stream) in streams.iter_mut().enumerate() {
                let (piece, rest) = rests[lane].split_at(pieces[lane].get(step).copied().unwrap_or(0));
                rests[lane] = rest;
                lanes.push(stream.lane(piece));
            }
            update_together(&mut lanes);
        }
        for (stream, bytes) in streams.into_iter().zip(&all) {
            prop_assert_eq!(stream.finish(), reference(bytes));
        }
    }
}
