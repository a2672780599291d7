//! Several streams in turns through the SHA instructions of x86-64.
//!
//! `sha256rnds2` gives its result four cycles after it began, and another one can begin every second cycle (Zen 4; Ice Lake
//! alike): one stream, in which each waits for the one before, gets half of what the unit can do.
#![expect(
    unsafe_code,
    reason = "code for instructions that not every processor has may be called only once they were found, and 16 bytes are \
              loaded into a register by their address"
)]

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_loadu_si128, _mm_set_epi32, _mm_set_epi64x,
    _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32,
};

use crate::Block;
use crate::compress::Lanes;

/// Runs the lanes, or gives them back where the processor lacks the instructions.
///
/// Where the first `SAME` lanes, one at least, take in the same blocks, their words are made once.
pub(crate) fn compress<const N: usize, const SAME: usize>(lanes: Lanes<'_, N>) -> Result<(), Lanes<'_, N>> {
    if is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3") {
        // SAFETY: the processor has just been asked for all that the function is compiled for.
        unsafe { run::<N, SAME>(lanes) };
        Ok(())
    } else {
        Err(lanes)
    }
}

#[target_feature(enable = "sha,sse4.1,ssse3")]
fn run<const N: usize, const SAME: usize>(lanes: Lanes<'_, N>) {
    let blocks = lanes.iter().map(|(_, blocks)| blocks.len()).min().unwrap_or(0);
    // The instructions take the state in this order, from the highest word down.
    let (mut abef, mut cdgh) = ([_mm_setzero_si128(); N], [_mm_setzero_si128(); N]);
    for (lane, (state, _)) in lanes.iter().enumerate() {
        let word = state.map(u32::cast_signed);
        abef[lane] = _mm_set_epi32(word[0], word[1], word[4], word[5]);
        cdgh[lane] = _mm_set_epi32(word[2], word[3], word[6], word[7]);
    }
    for block in 0..blocks {
        let before = (abef, cdgh);
        let mut words = [[_mm_setzero_si128(); 4]; N];
        for lane in SAME - 1..N {
            words[lane] = load(&lanes[lane].1[block]);
        }
        // Four rounds of every lane, and the words of sixteen rounds later (FIPS 180-4, section 6.2.2). Written out, so that
        // all words stay in registers.
        macro_rules! four_rounds {
            ($($group:literal)*) => {$(
                for lane in SAME - 1..N {
                    let sum = _mm_add_epi32(words[lane][$group % 4], constants::<$group>());
                    // The states that take in these words: several behind the first ones, else one.
                    let first = if lane == SAME - 1 { 0 } else { lane };
                    for state in first..=lane {
                        cdgh[state] = _mm_sha256rnds2_epu32(cdgh[state], abef[state], sum);
                    }
                    let sum = _mm_shuffle_epi32(sum, 0x0e);
                    for state in first..=lane {
                        abef[state] = _mm_sha256rnds2_epu32(abef[state], cdgh[state], sum);
                    }
                    if $group < 12 {
                        let words = &mut words[lane];
                        let last = words[($group + 3) % 4];
                        let next = _mm_sha256msg1_epu32(words[$group % 4], words[($group + 1) % 4]);
                        let next = _mm_add_epi32(next, _mm_alignr_epi8(last, words[($group + 2) % 4], 4));
                        words[$group % 4] = _mm_sha256msg2_epu32(next, last);
                    }
                }
            )*};
        }
        four_rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        for lane in 0..N {
            abef[lane] = _mm_add_epi32(abef[lane], before.0[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], before.1[lane]);
        }
    }
    for (lane, (state, _)) in lanes.into_iter().enumerate() {
        let (abef, cdgh) = (words(abef[lane]), words(cdgh[lane]));
        *state = [abef[0], abef[1], cdgh[0], cdgh[1], abef[2], abef[3], cdgh[2], cdgh[3]];
    }
}

/// A block's sixteen words, which are big-endian.
#[inline]
#[target_feature(enable = "ssse3")]
fn load(block: &Block) -> [__m128i; 4] {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let load = |quarter: &[u8; 16]| {
        // SAFETY: the reference is to 16 bytes, and this load asks for no alignment.
        let bytes = unsafe { _mm_loadu_si128(quarter.as_ptr().cast()) };
        _mm_shuffle_epi8(bytes, swap)
    };
    let (quarters, _) = block.as_chunks();
    [load(&quarters[0]), load(&quarters[1]), load(&quarters[2]), load(&quarters[3])]
}

/// The constants of four rounds.
#[inline]
#[target_feature(enable = "sse2")]
fn constants<const GROUP: usize>() -> __m128i {
    let [a, b, c, d] = const { ROUND_CONSTANTS[GROUP] };
    _mm_set_epi32(d.cast_signed(), c.cast_signed(), b.cast_signed(), a.cast_signed())
}

/// The four words of a register, from the highest down.
#[inline]
#[target_feature(enable = "sse4.1")]
fn words(register: __m128i) -> [u32; 4] {
    [
        _mm_extract_epi32(register, 3).cast_unsigned(),
        _mm_extract_epi32(register, 2).cast_unsigned(),
        _mm_extract_epi32(register, 1).cast_unsigned(),
        _mm_extract_epi32(register, 0).cast_unsigned(),
    ]
}

/// FIPS 180-4, section 4.2.2, four in a row.
const ROUND_CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];
