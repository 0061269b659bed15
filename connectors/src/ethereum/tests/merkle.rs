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
        let mut path = Vec::new();
        let (mut start, mut n) = (0, size);
        while n > 1 {
            let k = split(n);
            if index < start + k {
                path.push(self.mth(start + k, n - k));
                n = k;
            } else {
                path.push(self.mth(start, k));
                start += k;
                n -= k;
            }
        }
        path.reverse();
        path
    }

    /// PROOF(old, D_new); empty from size 0.
    pub fn consistency(&self, old: u64, new: u64) -> Vec<Hash32> {
        let mut proof = Vec::new();
        if old == 0 || old == new {
            return proof;
        }
        let (mut start, mut m, mut n, mut whole) = (0, old, new, true);
        while m != n {
            let k = split(n);
            if m <= k {
                proof.push(self.mth(start + k, n - k));
                n = k;
            } else {
                proof.push(self.mth(start, k));
                (start, m, n, whole) = (start + k, m - k, n - k, false);
            }
        }
        if !whole {
            proof.push(self.mth(start, n));
        }
        proof.reverse();
        proof
    }
}
