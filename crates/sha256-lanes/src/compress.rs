//! Which code runs the rounds: found out once, by the processor.

use sha2::block_api::compress256;

use crate::{Block, State};

/// States and the blocks that each takes in.
pub(crate) type Lanes<'a, const N: usize> = [(&'a mut State, &'a [Block]); N];

/// Takes as many blocks into each state; all lanes have the same number, and the first `SAME` of them (one at least) the same
/// blocks.
pub(crate) fn compress<const N: usize, const SAME: usize>(lanes: Lanes<'_, N>) {
    #[cfg(target_arch = "x86_64")]
    let lanes = if N == 1 {
        lanes
    } else {
        match crate::sha_ni::compress::<N, SAME>(lanes) {
            Ok(()) => return,
            Err(lanes) => lanes,
        }
    };
    one_by_one(lanes);
}

/// Without the instructions, nothing is gained by taking turns.
pub(crate) fn one_by_one<const N: usize>(lanes: Lanes<'_, N>) {
    for (state, blocks) in lanes {
        compress256(state, blocks);
    }
}
