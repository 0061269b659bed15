//! A reference of RFC 9162's trees for these tests, after its definition; the engine has its own, written apart from this.

use avouch_engine::verdict::Hash32;
use sha2::{Digest, Sha256};

/// A log of entries with the hashes of all its full subtrees.
#[derive(Default, Clone)]
pub struct MerkleLog {
    /// `levels[k][i]` is the root of entries `i·2^k .. (i+1)·2^k`.
    levels: Vec<Vec<Hash32>>,
    size: u64,
}

fn node(left: &Hash32, right: &Hash32) -> Hash32 {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Largest power of two below `n`.
fn split(n: u64) -> u64 {
    1 << (63 - (n - 1).leading_zeros())
}

/// An entry for each index.
pub fn entry(index: u64) -> Hash32 {
    Sha256::digest(index.to_be_bytes()).into()
}

impl MerkleLog {
    pub fn grow_to(&mut self, size: u64) {
        while self.size < size {
            self.push(&entry(self.size));
        }
    }

    pub fn push(&mut self, entry: &Hash32) {
        let mut hash: Hash32 = Sha256::new().chain_update([0]).chain_update(entry).finalize().into();
        for k in 0.. {
            if self.levels.len() == k {
                self.levels.push(Vec::new());
            }
            let level = &mut self.levels[k];
            level.push(hash);
            if level.len() % 2 == 1 {
                break;
            }
            hash = node(&level[level.len() - 2], &level[level.len() - 1]);
        }
        self.size += 1;
    }

    /// MTH(D[start : start + n]), with `start` a multiple of the first full subtree's size.
    fn mth(&self, start: u64, n: u64) -> Hash32 {
        if n.is_power_of_two() {
            return self.levels[n.trailing_zeros() as usize][(start / n) as usize];
        }
        let k = split(n);
        node(&self.mth(start, k), &self.mth(start + k, n - k))
    }

    /// The root at a size; zero at size 0, as checkpoints have it.
    pub fn root(&self, size: u64) -> Hash32 {
        if size == 0 { [0; 32] } else { self.mth(0, size) }
    }

    /// PATH(index, D_size), leaf to root.
    pub fn inclusion(&self, index: u64, size: u64) -> Vec<Hash32> {
        inclusion(|start, n| self.mth(start, n), index, size)
    }

    /// PROOF(old, D_new); empty from size 0.
    pub fn consistency(&self, old: u64, new: u64) -> Vec<Hash32> {
        consistency(|start, n| self.mth(start, n), old, new)
    }
}

/// A log whose entries are all [`entry`] 0, so that logs of any size have their roots and proofs at once.
pub struct UniformLog {
    /// `perfect[k]` is the root of 2^k entries.
    perfect: Vec<Hash32>,
}

impl UniformLog {
    pub fn new() -> Self {
        let mut perfect = vec![Sha256::new().chain_update([0]).chain_update(entry(0)).finalize().into()];
        for k in 0..63 {
            perfect.push(node(&perfect[k], &perfect[k]));
        }
        Self { perfect }
    }

    fn mth(&self, n: u64) -> Hash32 {
        if n.is_power_of_two() {
            return self.perfect[n.trailing_zeros() as usize];
        }
        let k = split(n);
        node(&self.mth(k), &self.mth(n - k))
    }

    pub fn root(&self, size: u64) -> Hash32 {
        self.mth(size)
    }

    pub fn inclusion(&self, index: u64, size: u64) -> Vec<Hash32> {
        inclusion(|_, n| self.mth(n), index, size)
    }

    pub fn consistency(&self, old: u64, new: u64) -> Vec<Hash32> {
        consistency(|_, n| self.mth(n), old, new)
    }
}

fn inclusion(mth: impl Fn(u64, u64) -> Hash32, index: u64, size: u64) -> Vec<Hash32> {
    let mut path = Vec::new();
    let (mut start, mut n) = (0, size);
    while n > 1 {
        let k = split(n);
        if index < start + k {
            path.push(mth(start + k, n - k));
            n = k;
        } else {
            path.push(mth(start, k));
            start += k;
            n -= k;
        }
    }
    path.reverse();
    path
}

fn consistency(mth: impl Fn(u64, u64) -> Hash32, old: u64, new: u64) -> Vec<Hash32> {
    let mut proof = Vec::new();
    if old == 0 || old == new {
        return proof;
    }
    let (mut start, mut m, mut n, mut whole) = (0, old, new, true);
    while m != n {
        let k = split(n);
        if m <= k {
            proof.push(mth(start + k, n - k));
            n = k;
        } else {
            proof.push(mth(start, k));
            (start, m, n, whole) = (start + k, m - k, n - k, false);
        }
    }
    if !whole {
        proof.push(mth(start, n));
    }
    proof.reverse();
    proof
}
