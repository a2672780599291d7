//! The three stages of sealing a layer (read and encrypt, hash, write) and the threads that run them.
//!
//! Each stage has to see the chunks in order, so one thread at a time is in it. Threads belong to no stage: whoever is free
//! takes one that has work, and sleeps only when there is none. So two cores are busy to the end, however unequal the stages.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use command_line::ByteProgress;
use image_store::{BlobWriter, BlockingBlob, Chunk, Hasher, Pool};
use ocicrypt::cipher::{CipherError, CtrStream, EncryptionSeal};
use sha256_lanes::update_together;
use tokio::runtime::Handle;

/// Why a layer did not arrive.
pub(super) enum SealError {
    Check(image_store::Error),
    Cipher(CipherError),
    Read(io::Error),
    Write(image_store::Error),
}

/// A layer on its way through the stages.
pub(super) struct Stages {
    line: Mutex<Line>,
    changed: Condvar,
    progress: ByteProgress,
}

/// Where the chunks are. A stage is missing while a thread is in it.
///
/// The first two are in boxes: what is keyed stays in its place, where it is wiped.
struct Line {
    reading: Option<Box<Reading>>,
    hashing: Option<Box<Hashing>>,
    writing: Option<Writing>,
    to_hash: VecDeque<Pair>,
    to_write: VecDeque<Chunk>,
    /// Chunks that were begun and are not yet written.
    under_way: usize,
    /// The layer has been read.
    ended: bool,
    /// A thread has failed.
    failed: bool,
}

/// What a thread does next, with the stage that it takes away.
enum Step {
    Read(Box<Reading>),
    Hash(Box<Hashing>, Pair),
    Write(Writing, Chunk),
}

/// A chunk, and what became of it.
struct Pair {
    plain: Chunk,
    ciphertext: Chunk,
}

/// Reads and encrypts.
pub(super) struct Reading {
    pub(super) blob: BlockingBlob,
    pub(super) ctr: CtrStream,
    pub(super) pool: Pool,
}

/// The three hashes.
pub(super) struct Hashing {
    /// Of the layer as it was found.
    pub(super) found: Hasher,
    pub(super) seal: EncryptionSeal,
    pub(super) digest: Hasher,
}

/// Passes the ciphertext on.
pub(super) struct Writing {
    pub(super) writer: BlobWriter,
    pub(super) runtime: Handle,
}

impl Stages {
    pub(super) fn new(reading: Reading, hashing: Hashing, writing: Writing, progress: ByteProgress) -> Self {
        let line = Line {
            reading: Some(Box::new(reading)),
            hashing: Some(Box::new(hashing)),
            writing: Some(writing),
            to_hash: VecDeque::new(),
            to_write: VecDeque::new(),
            under_way: 0,
            ended: false,
            failed: false,
        };
        Self { line: Mutex::new(line), changed: Condvar::new(), progress }
    }

    /// Runs the stages on `threads` threads, the caller's among them.
    ///
    /// # Errors
    /// The first one of any thread. What was written may be a part of the layer.
    pub(super) fn run(self, threads: usize) -> Result<(Hashing, BlobWriter), SealError> {
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| self.work())).collect();
            let own = self.work();
            others.into_iter().fold(own, |result, other| result.and(other.join().unwrap_or_else(|_| Err(lost()))))
        })?;
        let line = self.line.into_inner().unwrap_or_else(PoisonError::into_inner);
        match (line.hashing, line.writing) {
            (Some(hashing), Some(writing)) => Ok((*hashing, writing.writer)),
            _ => Err(lost()),
        }
    }

    /// Takes step after step until there are no more.
    fn work(&self) -> Result<(), SealError> {
        // Of the others too, whatever becomes of this thread.
        let stopping = Stopping(self);
        while let Some(step) = self.next() {
            match step {
                Step::Read(mut reading) => {
                    let pair = reading.next()?;
                    self.change(|line| {
                        line.reading = Some(reading);
                        line.ended |= pair.is_none();
                        line.under_way -= usize::from(pair.is_none());
                        line.to_hash.extend(pair);
                    });
                }
                Step::Hash(mut hashing, Pair { plain, ciphertext }) => {
                    hashing.take(&plain, &ciphertext);
                    self.progress.add(plain.bytes().len() as u64);
                    self.change(|line| {
                        line.hashing = Some(hashing);
                        line.to_write.push_back(ciphertext);
                    });
                }
                Step::Write(mut writing, ciphertext) => {
                    writing.take(ciphertext)?;
                    self.change(|line| {
                        line.writing = Some(writing);
                        line.under_way -= 1;
                    });
                }
            }
        }
        std::mem::forget(stopping);
        Ok(())
    }

    /// Waits for something to do; `None` when the layer is written, or another thread has failed.
    fn next(&self) -> Option<Step> {
        let mut line = self.lock();
        loop {
            if line.failed || (line.ended && line.under_way == 0) {
                return None;
            }
            if let Some(step) = line.step() {
                return Some(step);
            }
            line = self.changed.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Line)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Takes away a stage that is free and has work: hashing first, which is the longest, so that it never waits for a thread
    /// that has to wake up for it; then the one that frees buffers.
    fn step(&mut self) -> Option<Step> {
        if let Some(pair) = self.to_hash.pop_front_if(|_| self.hashing.is_some()) {
            return self.hashing.take().map(|hashing| Step::Hash(hashing, pair));
        }
        if let Some(ciphertext) = self.to_write.pop_front_if(|_| self.writing.is_some()) {
            return self.writing.take().map(|writing| Step::Write(writing, ciphertext));
        }
        if self.ended || self.under_way == UNDER_WAY_MAX {
            return None;
        }
        let reading = self.reading.take()?;
        self.under_way += 1;
        Some(Step::Read(reading))
    }
}

/// Sends the other threads home when it goes.
struct Stopping<'a>(&'a Stages);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.change(|line| line.failed = true);
    }
}

impl Reading {
    /// `None` at the layer's end.
    fn next(&mut self) -> Result<Option<Pair>, SealError> {
        let (mut plain, mut ciphertext) = (self.pool.take(), self.pool.take());
        if plain.fill(&mut self.blob).map_err(SealError::Read)? == 0 {
            return Ok(None);
        }
        ciphertext.lengthen_to(&plain);
        self.ctr.apply_to(plain.bytes(), ciphertext.bytes_mut()).map_err(SealError::Cipher)?;
        Ok(Some(Pair { plain, ciphertext }))
    }
}

impl Hashing {
    fn take(&mut self, plain: &Chunk, ciphertext: &Chunk) {
        let bytes = ciphertext.bytes();
        update_together(&mut [self.found.lane(plain.bytes()), self.seal.lane(bytes), self.digest.lane(bytes)]);
    }
}

impl Writing {
    fn take(&mut self, ciphertext: Chunk) -> Result<(), SealError> {
        self.writer.write_blocking(ciphertext.into_bytes(), &self.runtime).map_err(SealError::Write)
    }
}

fn lost() -> SealError {
    SealError::Read(io::Error::other("a thread that seals has failed"))
}

/// How many threads can be at work at once.
pub(super) const STAGES: usize = 3;
/// Chunks that are begun ahead of what is written, at two buffers each.
const UNDER_WAY_MAX: usize = 6;
