//! SHA-256 (FIPS 180-4) of many messages side by side.
//!
//! A lane hashes small things in great numbers: every row into its pane, every window, evidence, salt and leaf. One after
//! the other, each hash waits for its own sixty-four rounds; side by side, sixteen of them go through the rounds together
//! (AVX-512), at a third to a quarter of the cost. The result is that of [`sha2`] on every processor; where the processor
//! has no AVX-512, or there are too few messages to fill it, it is made by `sha2`, one message after the other.

mod messages;
mod running;
#[cfg(target_arch = "x86_64")]
mod wide;

pub(crate) use messages::Messages;
pub(crate) use running::{Queue, Running};

use sha2::block_api::compress256;

/// Words of a state.
pub(crate) type State = [u32; 8];
/// What is compressed at a time.
pub(crate) type Block = [u8; 64];

/// The state before the first block (FIPS 180-4, §5.3.3).
pub(crate) const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// Messages that are hashed side by side.
pub(crate) const LANES: usize = 16;
/// With fewer messages than this, one after the other is faster.
#[cfg(target_arch = "x86_64")]
const WORTH_IT: usize = 5;

/// The 32 bytes of a state.
pub(crate) fn bytes(state: &State) -> [u8; 32] {
    let mut out = [0; 32];
    for (four, word) in out.chunks_exact_mut(4).zip(state) {
        four.copy_from_slice(&word.to_be_bytes());
    }
    out
}

/// One block into one state.
pub(crate) fn compress(state: &mut State, block: &Block) {
    compress256(state, std::slice::from_ref(block));
}

/// Whether this processor can hash side by side.
pub(crate) fn is_wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// At most [`LANES`] blocks, each into a state of its own.
pub(crate) fn compress_each(states: &mut [State], blocks: &[&Block]) {
    #[cfg(target_arch = "x86_64")]
    if blocks.len() >= WORTH_IT && is_wide() {
        let mut wide = wide::States::of(states);
        // SAFETY: the processor has AVX-512F and AVX-512BW, which is all that the function asks for.
        unsafe { wide.compress(blocks, u16::MAX) };
        wide.give(states);
        return;
    }
    for (state, block) in states.iter_mut().zip(blocks) {
        compress(state, block);
    }
}

/// The last block or two of a message of `length` bytes that ends with `tail` (fewer than 64 bytes). Returns how many.
pub(crate) fn padded(tail: &[u8], length: u64, out: &mut [Block; 2]) -> usize {
    let flat = out.as_flattened_mut();
    flat.fill(0);
    flat[..tail.len()].copy_from_slice(tail);
    flat[tail.len()] = 0x80;
    let blocks = if tail.len() < 56 { 1 } else { 2 };
    flat[64 * blocks - 8..64 * blocks].copy_from_slice(&(length * 8).to_be_bytes());
    blocks
}

#[cfg(test)]
mod tests;
