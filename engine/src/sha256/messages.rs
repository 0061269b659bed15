//! Whole messages, one after another in one run of bytes.

use super::{Block, INITIAL, State, bytes, compress, padded};
use crate::verdict::Hash32;

/// Messages to be hashed together. Written with the room that a codec's [`crate::codec::Writer`] offers: append to `bytes`,
/// then call [`Messages::end`].
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// All messages so far, and what is written of the next one.
    pub bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Messages {
    /// Forgets all messages, and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// What was appended since the last message is a message.
    pub fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// The same for bytes that a codec's writer holds meanwhile: the next message ends where `len` bytes do.
    pub fn end_at(&mut self, len: usize) {
        self.ends.push(len);
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The `i`-th.
    pub fn get(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start..self.ends[i]]
    }

    /// Their hashes, in order.
    pub fn digests(&self) -> Vec<Hash32> {
        self.digests_after(&INITIAL, 0)
    }

    /// Their hashes as if before each stood `before` bytes, a whole number of blocks, that lead to `state`.
    pub fn digests_after(&self, state: &State, before: u64) -> Vec<Hash32> {
        let mut out = Vec::with_capacity(self.len());
        #[cfg(target_arch = "x86_64")]
        if super::is_wide() {
            while self.len() - out.len() >= super::WORTH_IT {
                self.side_by_side(state, before, &mut out);
            }
        }
        out.extend((out.len()..self.len()).map(|i| digest_after(state, before, self.get(i))));
        out
    }

    /// The next messages, as many as fit.
    #[cfg(target_arch = "x86_64")]
    fn side_by_side(&self, state: &State, before: u64, out: &mut Vec<Hash32>) {
        use super::LANES;

        let first = out.len();
        let n = LANES.min(self.len() - first);
        let mut tails = [[[0; 64]; 2]; LANES];
        // Whole blocks of each, and blocks in all.
        let mut counts = [(0, 0); LANES];
        for lane in 0..n {
            let message = self.get(first + lane);
            let (whole, tail) = message.as_chunks::<64>();
            let last = padded(tail, before + message.len() as u64, &mut tails[lane]);
            counts[lane] = (whole.len(), whole.len() + last);
        }
        let longest = counts.iter().map(|c| c.1).max().unwrap_or(0);
        let mut states = super::wide::States::all(state);
        for b in 0..longest {
            let mut blocks: [&Block; LANES] = [&tails[0][0]; LANES];
            let mut active = 0u16;
            for lane in 0..n {
                let (whole, all) = counts[lane];
                if b < all {
                    active |= 1 << lane;
                    blocks[lane] = match b.checked_sub(whole) {
                        Some(of_tail) => &tails[lane][of_tail],
                        None => &self.get(first + lane).as_chunks::<64>().0[b],
                    };
                }
            }
            // SAFETY: `digests_after` has asked whether the processor can do it.
            unsafe { states.compress(&blocks, active) };
        }
        out.extend((0..n).map(|lane| bytes(&states.lane(lane))));
    }
}

fn digest_after(state: &State, before: u64, message: &[u8]) -> Hash32 {
    let mut state = *state;
    let (whole, tail) = message.as_chunks::<64>();
    sha2::block_api::compress256(&mut state, whole);
    let mut last = [[0; 64]; 2];
    let n = padded(tail, before + message.len() as u64, &mut last);
    last[..n].iter().for_each(|block| compress(&mut state, block));
    bytes(&state)
}
