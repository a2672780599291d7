//! The loops that carry the bytes, by themselves, for `tests/instruction-counts`: `hot_loop seal|open MIB`.

use ocicrypt::cipher::{AES_256_CTR_HMAC_SHA256, CipherError, Digest, LayerCipher, by_name};
use sha256_lanes::{Sha256, update_together};

/// Bytes of a chunk: those of the pipelines.
const CHUNK: usize = 256 * 1024;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (what, mib) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let chunks = mib.parse::<usize>()? * (1 << 20) / CHUNK;
    let cipher = by_name(AES_256_CTR_HMAC_SHA256)?;
    match what.as_str() {
        "seal" => seal(cipher, chunks)?,
        "open" => open(cipher, chunks)?,
        _ => return Err("usage: hot_loop seal|open MIB".into()),
    }
    Ok(())
}

/// As `sealift pack` does it: encrypted in a second buffer, then three hashes at once.
fn seal(cipher: &dyn LayerCipher, chunks: usize) -> Result<(), CipherError> {
    let (mut ctr, mut seal) = cipher.encryptor()?.split();
    let (mut found, mut digest) = (Sha256::new(), Sha256::new());
    let (plain, mut ciphertext) = (vec![0x5a; CHUNK], vec![0; CHUNK]);
    for _ in 0..chunks {
        ctr.apply_to(&plain, &mut ciphertext)?;
        update_together(&mut [found.lane(&plain), seal.lane(&ciphertext), digest.lane(&ciphertext)]);
    }
    std::hint::black_box((found.finish(), digest.finish()));
    Ok(())
}

/// As `sealift-shim` does it where a layer is compressed: decrypted in a second buffer, then three hashes at once.
fn open(cipher: &dyn LayerCipher, chunks: usize) -> Result<(), CipherError> {
    let (public, private) = cipher.encryptor()?.finish(Digest::of(b""));
    let (mut ctr, mut check) = cipher.decryptor(&public, private)?.split();
    let (mut blob, mut found) = (Sha256::new(), Sha256::new());
    let (ciphertext, mut plain) = (vec![0x5a; CHUNK], vec![0; CHUNK]);
    for _ in 0..chunks {
        ctr.apply_to(&ciphertext, &mut plain)?;
        update_together(&mut [blob.lane(&ciphertext), check.lane(&ciphertext), found.lane(&plain)]);
    }
    std::hint::black_box((check.finish().is_ok(), blob.finish(), found.finish()));
    Ok(())
}
