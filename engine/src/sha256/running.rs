//! Hashes that go on: many messages to which bytes are appended in turn, as rows come.

use super::{Block, INITIAL, LANES, State, bytes, compress, compress_each, padded};
use crate::verdict::Hash32;

/// Not in the queue.
const NONE: u8 = u8::MAX;

/// One message so far. Its last whole block may wait in a [`Queue`] to be taken together with those of others.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    state: State,
    length: u64,
    tail: Block,
    waiting: u8,
}

impl Default for Running {
    fn default() -> Self {
        Self { state: INITIAL, length: 0, tail: [0; 64], waiting: NONE }
    }
}

/// Whole blocks that wait for company, and whose they are.
#[derive(Debug)]
pub(crate) struct Queue {
    blocks: [Block; LANES],
    owners: [u32; LANES],
    len: usize,
    most: usize,
}

impl Default for Queue {
    fn default() -> Self {
        // Where hashing side by side is not to be had, a block is better taken at once.
        Self::of(if super::is_wide() { LANES } else { 1 })
    }
}

impl Queue {
    /// In which so many blocks wait at most.
    pub(super) fn of(most: usize) -> Self {
        Self { blocks: [[0; 64]; LANES], owners: [0; LANES], len: 0, most }
    }

    /// Appends to the message of `owner`, which `of` finds among `all`.
    #[inline]
    pub fn append<T>(&mut self, all: &mut [T], owner: usize, of: impl Fn(&mut T) -> &mut Running, data: &[u8]) {
        let message = of(&mut all[owner]);
        let filled = (message.length % 64) as usize;
        if filled + data.len() < 64 {
            message.tail[filled..filled + data.len()].copy_from_slice(data);
            message.length += data.len() as u64;
            return;
        }
        self.append_blocks(all, owner, of, data);
    }

    fn append_blocks<T>(&mut self, all: &mut [T], owner: usize, of: impl Fn(&mut T) -> &mut Running, data: &[u8]) {
        let mut rest = data;
        loop {
            let message = of(&mut all[owner]);
            let filled = (message.length % 64) as usize;
            let n = rest.len().min(64 - filled);
            let (now, later) = rest.split_at(n);
            message.tail[filled..filled + n].copy_from_slice(now);
            message.length += n as u64;
            rest = later;
            if filled + n < 64 {
                return;
            }
            if message.waiting != NONE {
                self.flush(all, &of);
            }
            let message = of(&mut all[owner]);
            self.blocks[self.len] = message.tail;
            self.owners[self.len] = owner as u32;
            message.waiting = self.len as u8;
            self.len += 1;
            if self.len == self.most {
                self.flush(all, &of);
            }
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Takes the blocks that wait.
    pub fn flush<T>(&mut self, all: &mut [T], of: impl Fn(&mut T) -> &mut Running) {
        let n = std::mem::take(&mut self.len);
        let mut states = [[0; 8]; LANES];
        for (state, owner) in states.iter_mut().zip(&self.owners[..n]) {
            *state = of(&mut all[*owner as usize]).state;
        }
        let blocks: [&Block; LANES] = std::array::from_fn(|i| &self.blocks[i]);
        compress_each(&mut states[..n], &blocks[..n]);
        for (state, owner) in states.iter().zip(&self.owners[..n]) {
            let message = of(&mut all[*owner as usize]);
            message.state = *state;
            message.waiting = NONE;
        }
    }

    /// The state of a message after its whole blocks.
    fn state(&self, message: &Running) -> State {
        let mut state = message.state;
        if message.waiting != NONE {
            compress(&mut state, &self.blocks[message.waiting as usize]);
        }
        state
    }

    /// The hash of a message so far.
    pub fn digest(&self, message: &Running) -> Hash32 {
        let mut state = self.state(message);
        let mut last = [[0; 64]; 2];
        let n = padded(message.tail(), message.length, &mut last);
        last[..n].iter().for_each(|block| compress(&mut state, block));
        bytes(&state)
    }

    /// The hashes of many messages, all of whose blocks were taken ([`Queue::flush`]).
    pub fn digests<'a>(&self, messages: impl Iterator<Item = &'a Running>) -> Vec<Hash32> {
        let mut out = Vec::new();
        let mut states = [[0; 8]; LANES];
        let mut last = [[[0; 64]; 2]; LANES];
        let mut two = [false; LANES];
        let mut n = 0;
        let mut group = |states: &mut [State; LANES], last: &[[Block; 2]; LANES], two: &[bool; LANES], n: usize| {
            let first: [&Block; LANES] = std::array::from_fn(|i| &last[i][0]);
            compress_each(&mut states[..n], &first[..n]);
            let (mut more, mut second, mut whose) = ([[0; 8]; LANES], [&last[0][1]; LANES], [0; LANES]);
            let mut m = 0;
            for lane in (0..n).filter(|lane| two[*lane]) {
                (more[m], second[m], whose[m]) = (states[lane], &last[lane][1], lane);
                m += 1;
            }
            compress_each(&mut more[..m], &second[..m]);
            for (state, lane) in more[..m].iter().zip(whose) {
                states[lane] = *state;
            }
            out.extend(states[..n].iter().map(bytes));
        };
        for message in messages {
            states[n] = self.state(message);
            two[n] = padded(message.tail(), message.length, &mut last[n]) == 2;
            n += 1;
            if n == LANES {
                group(&mut states, &last, &two, n);
                n = 0;
            }
        }
        group(&mut states, &last, &two, n);
        out
    }

    /// What has to be kept of a message to go on with it: state, length, and the bytes after its last whole block.
    pub fn kept<'m>(&self, message: &'m Running) -> (State, u64, &'m [u8]) {
        (self.state(message), message.length, message.tail())
    }
}

impl Running {
    fn tail(&self) -> &[u8] {
        &self.tail[..(self.length % 64) as usize]
    }

    /// Goes on from what [`Queue::kept`] gave; `None` if the parts do not fit together.
    pub fn resume(state: State, length: u64, tail: &[u8]) -> Option<Self> {
        // What is hashed on top of it must stay within the 2⁶⁴ bits that SHA-256 counts.
        if length % 64 != tail.len() as u64 || length > 1 << 56 {
            return None;
        }
        let mut message = Self { state, length, ..Self::default() };
        message.tail[..tail.len()].copy_from_slice(tail);
        Some(message)
    }
}
