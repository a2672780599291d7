//! The stage between a layer's plain bytes and its tar: inflate or zstd, bounded.

use std::io::{BufRead as _, Read};
use std::sync::atomic::Ordering;

use image_store::{Chunk, Pool};

use super::chunk::ChunkReader;
use super::error::{UnpackError, What};
use super::limits::Expansion;
use super::pipeline::StageError;

/// The largest window of a zstd stream that is accepted, as a power of two: 128 MiB, what `zstd --long` makes.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How a plain layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerCompression {
    /// RFC 1952, one member or several.
    Gzip,
    /// A plain tar.
    None,
    /// RFC 8878, one frame or several.
    Zstd,
}

/// Decompresses everything that comes and passes it on in whole chunks.
pub(super) fn decompress(
    input: &mut ChunkReader,
    compression: LayerCompression,
    expansion: &mut Expansion<'_>,
    pool: &Pool,
    mut pass_on: impl FnMut(Chunk) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let compressed_bytes = input.count();
    let damaged = |_| UnpackError::Check(What::Compression);
    {
        let mut plain: Box<dyn Read + '_> = match compression {
            LayerCompression::None => Box::new(&mut *input),
            LayerCompression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(&mut *input)),
            LayerCompression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut *input).map_err(damaged)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(damaged)?;
                Box::new(decoder)
            }
        };
        loop {
            let mut chunk = pool.take();
            let length = chunk.fill(&mut plain).map_err(damaged)?;
            if length == 0 {
                break;
            }
            expansion.add(length as u64, compressed_bytes.load(Ordering::Relaxed))?;
            pass_on(chunk)?;
        }
    }
    // A decoder may stop before its input does: what is behind it belongs to nobody.
    if !input.fill_buf().map_err(damaged)?.is_empty() {
        return Err(UnpackError::Check(What::Compression).into());
    }
    Ok(())
}
