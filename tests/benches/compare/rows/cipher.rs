//! The layer cipher over chunks in cache, against the library's own counter mode and SHA-256, one after the other.

use std::hint::black_box;

use ocicrypt::cipher::{AES_256_CTR_HMAC_SHA256, LayerCipher, by_name};

use crate::contest::{Bar, Contest, Side};

/// Bytes in one chunk: those of the pipelines.
const CHUNK: usize = 256 * 1024;
/// How many of them: 1 GiB.
const CHUNKS: usize = 4096;

pub(crate) fn contest() -> Contest<'static> {
    let ours = Side::work("layer cipher, HMAC", || {
        let mut chunk = vec![0x5a; CHUNK];
        let mut encryptor = by_name(AES_256_CTR_HMAC_SHA256).and_then(LayerCipher::encryptor).expect("cipher");
        for _ in 0..CHUNKS {
            encryptor.apply(&mut chunk).expect("cipher");
        }
        black_box(&chunk);
    });
    let theirs = Side::work("AES-256-CTR, SHA-256", || {
        let mut chunk = vec![0x5a; CHUNK];
        let key = aws_lc_rs::cipher::UnboundCipherKey::new(&aws_lc_rs::cipher::AES_256, &[0x11; 32]).expect("key");
        let key = aws_lc_rs::cipher::EncryptingKey::ctr(key).expect("key");
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for _ in 0..CHUNKS {
            key.encrypt(&mut chunk).expect("cipher");
            digest.update(&chunk);
        }
        black_box(digest.finish());
    });
    // At least nine tenths of the rate.
    Contest {
        what: "layer cipher in memory, 1 GiB".to_owned(),
        bar: Bar::Ratio { cpu: None, wall: 1.0 / 0.9 },
        ours,
        theirs,
    }
}
