//! What a device signs, to the byte.

use sha2::{Digest, Sha256};

use crate::verdict::Hash32;

const READING: &[u8; 16] = b"avouch/reading/1";
const BATCH: &[u8; 16] = b"avouch/batches/1";

/// What a signature is over: 120 bytes for one reading, 124 for a batch. Numbers are unsigned and big-endian.
///
/// | bytes | what |
/// | --- | --- |
/// | 16 | ASCII `avouch/reading/1`, or `avouch/batches/1` |
/// | 32 | the fleet's domain: [`chain_domain`](super::chain_domain) or [`file_domain`](super::file_domain) |
/// | 32 | SHA-256 of the device's name in UTF-8 |
/// | 8 | `seq` of the reading, or of the batch's first |
/// | 32 | the content of the reading, or the root of the batch |
/// | 4 | how many readings the batch has; not there for one reading |
///
/// Ed25519 signs these bytes; P-256 (ES256) and secp256k1 sign their SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Statement {
    bytes: [u8; 124],
    len: u8,
}

impl Statement {
    /// Of one reading.
    pub fn reading(domain: &Hash32, device: &Hash32, seq: u64, content: &Hash32) -> Self {
        Self::new(READING, domain, device, seq, content, None)
    }

    /// Of `count` readings that begin at `first`.
    pub fn batch(domain: &Hash32, device: &Hash32, first: u64, root: &Hash32, count: u32) -> Self {
        Self::new(BATCH, domain, device, first, root, Some(count))
    }

    fn new(tag: &[u8; 16], domain: &Hash32, device: &Hash32, seq: u64, hash: &Hash32, count: Option<u32>) -> Self {
        let mut bytes = [0; 124];
        bytes[..16].copy_from_slice(tag);
        bytes[16..48].copy_from_slice(domain);
        bytes[48..80].copy_from_slice(device);
        bytes[80..88].copy_from_slice(&seq.to_be_bytes());
        bytes[88..120].copy_from_slice(hash);
        bytes[120..].copy_from_slice(&count.unwrap_or(0).to_be_bytes());
        Self { bytes, len: if count.is_some() { 124 } else { 120 } }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Their SHA-256.
    pub fn digest(&self) -> Hash32 {
        Sha256::digest(self.as_bytes()).into()
    }
}

/// SHA-256 of a device's name.
pub fn device_hash(name: &[u8]) -> Hash32 {
    Sha256::digest(name).into()
}

/// The content of a reading whose signature stands beside it: SHA-256(`00` ‖ the value's bytes).
pub fn value_content(value: &[u8]) -> Hash32 {
    Sha256::new().chain_update([0]).chain_update(value).finalize().into()
}

/// A leaf of a batch: SHA-256(`00` ‖ `seq` ‖ content), RFC 6962's hash of the 40 bytes of `seq` and content.
pub fn leaf(seq: u64, content: &Hash32) -> Hash32 {
    Sha256::new().chain_update([0]).chain_update(seq.to_be_bytes()).chain_update(content).finalize().into()
}

fn node(left: &Hash32, right: &Hash32) -> Hash32 {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// RFC 6962's tree over the leaves of a batch.
#[derive(Debug, Clone)]
pub struct BatchTree {
    /// From the leaves up; a node without a sibling goes up as it is.
    levels: Vec<Vec<Hash32>>,
}

impl BatchTree {
    /// Over these leaves.
    pub fn new(leaves: Vec<Hash32>) -> Self {
        let mut levels = vec![leaves];
        while let Some(below) = levels.last().filter(|l| l.len() > 1) {
            let (pairs, rest) = below.as_chunks::<2>();
            levels.push(pairs.iter().map(|[left, right]| node(left, right)).chain(rest.iter().copied()).collect());
        }
        Self { levels }
    }

    /// The root; of no leaves, SHA-256 of nothing.
    pub fn root(&self) -> Hash32 {
        self.levels.last().and_then(|top| top.first()).copied().unwrap_or_else(|| Sha256::digest([]).into())
    }

    /// The path of leaf `index` (RFC 6962, §2.1.1), from the leaf's sibling upwards.
    pub fn path(&self, index: usize) -> Vec<Hash32> {
        let sibling = |(height, level): (usize, &Vec<Hash32>)| level.get((index >> height) ^ 1).copied();
        self.levels.iter().enumerate().filter_map(sibling).collect()
    }
}

/// How many hashes the path of leaf `index` has in a batch of `count`, which is more than `index`.
pub fn path_length(mut index: u32, count: u32) -> usize {
    // RFC 9162, §2.1.3.2, without the hashes.
    let (mut last, mut n) = (count - 1, 0);
    while last > 0 {
        if index & 1 == 1 || index != last {
            n += 1;
        }
        index >>= 1;
        last >>= 1;
    }
    n
}

/// The root that a leaf and its path lead to; the path has [`path_length`] hashes.
pub(super) fn root_of(leaf: Hash32, mut index: u32, count: u32, path: impl Iterator<Item = Hash32>) -> Hash32 {
    let (mut last, mut hash, mut path) = (count - 1, leaf, path);
    while last > 0 {
        if index & 1 == 1 {
            if let Some(sibling) = path.next() {
                hash = node(&sibling, &hash);
            }
        } else if index != last
            && let Some(sibling) = path.next()
        {
            hash = node(&hash, &sibling);
        }
        index >>= 1;
        last >>= 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_of_every_small_batch_leads_to_its_root_by_a_path_of_the_length_told() {
        for count in 1..70u32 {
            let leaves: Vec<Hash32> = (0..count).map(|i| leaf(u64::from(i), &[i as u8; 32])).collect();
            let tree = BatchTree::new(leaves.clone());
            let root = tree.root();
            for index in 0..count {
                let path = tree.path(index as usize);
                assert_eq!(path.len(), path_length(index, count), "{index} of {count}");
                assert_eq!(root_of(leaves[index as usize], index, count, path.iter().copied()), root);
                let other = (index + 1) % count;
                if other != index && path_length(other, count) == path.len() {
                    assert_ne!(root_of(leaves[index as usize], other, count, path.iter().copied()), root);
                }
            }
        }
    }

    #[test]
    fn the_tree_is_that_of_the_verdict_log() {
        // The same hashes of the same RFC, over entries of another length: the inner nodes agree.
        let entries: Vec<Hash32> = (0..13u8).map(|i| [i; 32]).collect();
        let leaves: Vec<Hash32> = entries.iter().map(crate::log::leaf_hash).collect();
        let (mut tree, mut stored) = (crate::log::TreeAppender::new(), Vec::new());
        assert_eq!(BatchTree::new(Vec::new()).root(), tree.root());
        for (n, entry) in entries.iter().enumerate() {
            tree.append(entry, &mut stored);
            assert_eq!(BatchTree::new(leaves[..=n].to_vec()).root(), tree.root());
        }
    }
}
