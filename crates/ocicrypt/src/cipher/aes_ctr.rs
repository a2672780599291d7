//! AES-256 in counter mode as Go's `cipher.NewCTR` runs it: the 16-byte nonce is the first counter
//! block, counted up big-endian over all 128 bits. In place at any position, or from one buffer into
//! another from the start on; chunks of any length.

use std::fmt;

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use zeroize::Zeroizing;

use super::CipherError;
use crate::secret::{LayerKey, Nonce, scrub_stack};

/// The key stream of one layer. Applying it encrypts and decrypts alike.
pub struct CtrStream {
    key: Box<EncryptingKey>,
    /// The library's way from one buffer into another, which counts by itself, and how far it has come.
    copying: StreamingEncryptingKey,
    copied: u64,
    first: u128,
    /// Bytes since the start of the layer.
    position: u64,
    /// The key stream of the block that `position` is in, when it is not at its start.
    block: Zeroizing<[u8; BLOCK]>,
}

impl CtrStream {
    /// Starts at the beginning of a layer.
    pub fn new(key: &LayerKey, nonce: &Nonce) -> Result<Self, CipherError> {
        let keys = schedules(key, nonce);
        scrub_stack();
        let (key, copying) = keys?;
        let first = u128::from_be_bytes(*nonce.expose());
        Ok(Self { key, copying, copied: 0, first, position: 0, block: Zeroizing::new([0; BLOCK]) })
    }

    /// Exclusive-ors the next bytes of the key stream into `chunk`.
    pub fn apply(&mut self, chunk: &mut [u8]) -> Result<(), CipherError> {
        let used = self.used();
        let head_len = if used == 0 { 0 } else { BLOCK - used };
        let (head, body) = chunk.split_at_mut(head_len.min(chunk.len()));
        self.apply_within_block(head);

        let (whole, tail) = body.split_at_mut(body.len() - body.len() % BLOCK);
        // The library takes the length as a C int.
        for piece in whole.chunks_mut(PIECE_MAX) {
            self.run(piece)?;
            self.advance(piece.len());
        }
        if !tail.is_empty() {
            let mut block = Zeroizing::new([0; BLOCK]);
            self.run(&mut block[..])?;
            self.block = block;
            self.apply_within_block(tail);
        }
        Ok(())
    }

    /// Writes `from`, exclusive-ored with the next bytes of the key stream, to `to`. From the start of a layer on, in chunks of
    /// whole blocks but for the last, this spares a copy.
    ///
    /// # Errors
    /// [`CipherError::Internal`] where the two are not of one length, too.
    pub fn apply_to(&mut self, from: &[u8], to: &mut [u8]) -> Result<(), CipherError> {
        if from.len() != to.len() {
            return Err(CipherError::Internal);
        }
        let is_there = self.copied == self.position && self.used() == 0;
        let whole = if is_there { from.len() - from.len() % BLOCK } else { 0 };
        let ((from, from_rest), (to, to_rest)) = (from.split_at(whole), to.split_at_mut(whole));
        for (from, to) in from.chunks(PIECE_MAX).zip(to.chunks_mut(PIECE_MAX)) {
            self.copying.less_safe_update(from, to).map_err(|_| CipherError::Internal)?;
            self.advance(from.len());
            self.copied = self.position;
        }
        to_rest.copy_from_slice(from_rest);
        self.apply(to_rest)
    }

    /// Bytes of the layer that went through so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to any place of the layer, in bytes from its start: a resumed download, or several
    /// threads on one layer.
    pub fn seek(&mut self, position: u64) -> Result<(), CipherError> {
        self.position = position;
        if self.used() != 0 {
            let mut block = Zeroizing::new([0; BLOCK]);
            self.run(&mut block[..])?;
            self.block = block;
        }
        Ok(())
    }

    /// Runs the cipher over whole blocks, from the block that `position` is in.
    fn run(&self, blocks: &mut [u8]) -> Result<(), CipherError> {
        let counter = self.first.wrapping_add(u128::from(self.position / BLOCK as u64));
        let iv = FixedLength::from(counter.to_be_bytes());
        self.key.less_safe_encrypt(blocks, EncryptionContext::Iv128(iv)).map(drop).map_err(|_| CipherError::Internal)
    }

    /// `bytes` end in the same block as they start.
    fn apply_within_block(&mut self, bytes: &mut [u8]) {
        let used = self.used();
        for (byte, key) in bytes.iter_mut().zip(self.block.iter().skip(used)) {
            *byte ^= key;
        }
        self.advance(bytes.len());
    }

    /// Bytes used of the block that `position` is in.
    #[expect(clippy::cast_possible_truncation, reason = "less than a block")]
    fn used(&self) -> usize {
        (self.position % BLOCK as u64) as usize
    }

    fn advance(&mut self, len: usize) {
        self.position = self.position.wrapping_add(len as u64);
    }
}

/// The key's schedules, which begin with the key itself, in their places on the heap.
#[inline(never)]
fn schedules(key: &LayerKey, nonce: &Nonce) -> Result<(Box<EncryptingKey>, StreamingEncryptingKey), CipherError> {
    let unbound = || UnboundCipherKey::new(&AES_256, key.expose());
    let first = EncryptionContext::Iv128(FixedLength::from(*nonce.expose()));
    let in_place = unbound().and_then(EncryptingKey::ctr);
    let copying = unbound().and_then(|key| StreamingEncryptingKey::less_safe_ctr(key, first));
    match (in_place.map(Box::new), copying) {
        (Ok(in_place), Ok(copying)) => Ok((in_place, copying)),
        _ => Err(CipherError::Internal),
    }
}

impl fmt::Debug for CtrStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CtrStream").field("position", &self.position).finish_non_exhaustive()
    }
}

const BLOCK: usize = 16;
const PIECE_MAX: usize = 1 << 30;
