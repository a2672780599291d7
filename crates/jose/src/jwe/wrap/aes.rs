//! AES key wrap (RFC 3394). The cryptographic library has it for keys of 128 and 256 bits; the
//! 192-bit one, which go-jose may write, is built here from its AES block.

use aws_lc_rs::cipher::{AES_192, DecryptingKey, DecryptionContext, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::key_wrap::{AES_128, AES_256, AesKek, KeyWrap};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The default initial value (§2.2.3.1).
const INITIAL: [u8; 8] = [0xa6; 8];

/// Wraps `key`, a multiple of 8 bytes, at least 16.
pub(super) fn wrap(kek: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    let Some(library) = library_kek(kek) else {
        return wrap_192(kek, key);
    };
    let mut output = vec![0; key.len().checked_add(8)?];
    let len = library.wrap(key, &mut output).ok()?.len();
    output.truncate(len);
    Some(output)
}

/// Unwraps what [`wrap`] gave; `None` when it was made with another key.
pub(super) fn unwrap(kek: &[u8], wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if wrapped.len() < 24 || wrapped.len() > WRAPPED_MAX || !wrapped.len().is_multiple_of(8) {
        return None;
    }
    let Some(library) = library_kek(kek) else {
        return unwrap_192(kek, wrapped);
    };
    let mut output = Zeroizing::new(vec![0; wrapped.len()]);
    let len = library.unwrap(wrapped, &mut output).ok()?.len();
    output.truncate(len);
    Some(output)
}

fn library_kek(kek: &[u8]) -> Option<AesKek> {
    let cipher = match kek.len() {
        16 => &AES_128,
        32 => &AES_256,
        _ => return None,
    };
    AesKek::new(cipher, kek).ok()
}

/// §2.2.1, index based: `t` counts from 1 to 6n.
fn wrap_192(kek: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    if key.len() < 16 || !key.len().is_multiple_of(8) {
        return None;
    }
    let cipher = EncryptingKey::ecb(UnboundCipherKey::new(&AES_192, kek).ok()?).ok()?;
    let mut state = INITIAL;
    let mut output = [&INITIAL[..], key].concat();
    let mut block = Zeroizing::new([0; 16]);
    let mut t = 0_u64;
    for _ in 0..6 {
        for register in output.chunks_exact_mut(8).skip(1) {
            t += 1;
            block[..8].copy_from_slice(&state);
            block[8..].copy_from_slice(register);
            cipher.encrypt(&mut block[..]).ok()?;
            state.copy_from_slice(&block[..8]);
            xor(&mut state, t);
            register.copy_from_slice(&block[8..]);
        }
    }
    output.get_mut(..8)?.copy_from_slice(&state);
    Some(output)
}

/// §2.2.2, index based.
fn unwrap_192(kek: &[u8], wrapped: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let cipher = DecryptingKey::ecb(UnboundCipherKey::new(&AES_192, kek).ok()?).ok()?;
    let (head, tail) = wrapped.split_at_checked(8)?;
    let mut state: [u8; 8] = head.try_into().ok()?;
    let mut key = Zeroizing::new(tail.to_vec());
    let mut block = Zeroizing::new([0; 16]);
    let mut t = u64::try_from(key.len() / 8 * 6).ok()?;
    for _ in 0..6 {
        for register in key.chunks_exact_mut(8).rev() {
            xor(&mut state, t);
            block[..8].copy_from_slice(&state);
            block[8..].copy_from_slice(register);
            cipher.decrypt(&mut block[..], DecryptionContext::None).ok()?;
            state.copy_from_slice(&block[..8]);
            register.copy_from_slice(&block[8..]);
            t -= 1;
        }
    }
    bool::from(state.ct_eq(&INITIAL)).then_some(key)
}

fn xor(state: &mut [u8; 8], t: u64) {
    *state = (u64::from_be_bytes(*state) ^ t).to_be_bytes();
}

/// A content key has 64 bytes at most.
const WRAPPED_MAX: usize = 72;

#[cfg(test)]
mod tests {
    use super::*;

    fn counting(start: u8, len: u8) -> Vec<u8> {
        (0..len).map(|n| start.wrapping_add(n)).collect()
    }

    fn kek(len: u8) -> Vec<u8> {
        counting(0, len)
    }

    /// 00112233445566778899AABBCCDDEEFF0001…0F, cut to `len`.
    fn key_data(len: usize) -> Vec<u8> {
        let mut data: Vec<u8> = (0..16).map(|n| n * 0x11).collect();
        data.extend(0..16);
        data.truncate(len);
        data
    }

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02X}").unwrap();
            text
        })
    }

    /// RFC 3394 §4.1, §4.2, §4.4, §4.6.
    #[test]
    fn wraps_as_the_vectors_of_rfc_3394() {
        for (kek_len, data_len, expected) in [
            (16, 16, "1FA68B0A8112B447AEF34BD8FB5A7B829D3E862371D2CFE5"),
            (24, 16, "96778B25AE6CA435F92B5B97C050AED2468AB8A17AD84E5D"),
            (24, 24, "031D33264E15D33268F24EC260743EDCE1C6C7DDEE725A936BA814915C6762D2"),
            (32, 32, "28C9F404C4B810F4CBCCB35CFB87F8263F5786E2D80ED326CBC7F0E71A99F43BFB988B9B7A02DD21"),
        ] {
            let (kek, data) = (kek(kek_len), key_data(data_len));
            let wrapped = wrap(&kek, &data).unwrap();
            assert_eq!(hex(&wrapped), expected);
            assert_eq!(unwrap(&kek, &wrapped).unwrap().as_slice(), data);
        }
    }

    #[test]
    fn a_changed_wrap_or_another_key_is_refused() {
        for len in [16, 24, 32] {
            let mut wrapped = wrap(&kek(len), &key_data(32)).unwrap();
            assert!(unwrap(&counting(1, len), &wrapped).is_none());
            wrapped[9] ^= 1;
            assert!(unwrap(&kek(len), &wrapped).is_none());
            assert!(unwrap(&kek(len), &wrapped[..39]).is_none());
            assert!(unwrap(&kek(len), &[]).is_none());
        }
    }
}
