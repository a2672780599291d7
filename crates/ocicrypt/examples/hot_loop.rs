//! The loops that carry the bytes, by themselves, for tests/instruction-counts: `hot_loop seal|open MIB`.

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

/// As `sealift pack` does it: three hashes at once over two chunks.
fn seal(cipher: &dyn LayerCipher, chunks: usize) -> Result<(), CipherError> {
    let (mut ctr, mut seal) = cipher.encryptor()?.split();
    let (mut plain, mut digest) = (Sha256::new(), Sha256::new());
    let (mut next, mut encrypted) = (vec![0x5a; CHUNK], vec![0xa5; CHUNK]);
    for _ in 0..chunks {
        update_together(&mut [plain.lane(&next), seal.lane(&encrypted), digest.lane(&encrypted)]);
        ctr.apply(&mut next)?;
        std::mem::swap(&mut next, &mut encrypted);
    }
    std::hint::black_box((plain.finish(), digest.finish()));
    Ok(())
}

/// As a layer is opened: HMAC and digest of the ciphertext at once, then the key stream, then the plain digest.
fn open(cipher: &dyn LayerCipher, chunks: usize) -> Result<(), CipherError> {
    let (public, private) = cipher.encryptor()?.finish(Digest::of(b""));
    let (mut ctr, mut check) = cipher.decryptor(&public, private)?.split();
    let (mut blob, mut plain) = (Sha256::new(), Sha256::new());
    let mut chunk = vec![0x5a; CHUNK];
    for _ in 0..chunks {
        update_together(&mut [check.lane(&chunk), blob.lane(&chunk)]);
        ctr.apply(&mut chunk)?;
        plain.update(&chunk);
    }
    std::hint::black_box((check.finish().is_ok(), blob.finish(), plain.finish()));
    Ok(())
}
