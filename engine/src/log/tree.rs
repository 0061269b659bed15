//! Hashes, proofs, and the appender that keeps the right edge of the tree in memory.

use std::cell::RefCell;

use tlog_tiles::tlog;

use super::LogError;
use crate::sha256::Messages;
use crate::verdict::Hash32;

/// Root of the log without entries: SHA-256 of nothing.
pub const EMPTY_ROOT: Hash32 = tlog::EMPTY_HASH.0;

/// SHA-256(`00` ‖ entry).
pub fn leaf_hash(entry: &Hash32) -> Hash32 {
    tlog::record_hash(entry).0
}

/// SHA-256(`01` ‖ left ‖ right).
pub fn node_hash(left: &Hash32, right: &Hash32) -> Hash32 {
    tlog::node_hash(tlog::Hash(*left), tlog::Hash(*right)).0
}

/// Where the hash of the `n`-th complete subtree of 2^`level` leaves is stored.
pub fn stored_hash_index(level: u8, n: u64) -> u64 {
    tlog::stored_hash_index(level, n)
}

/// How many hashes are stored for a log of `size` entries (just under two an entry).
pub fn stored_hash_count(size: u64) -> u64 {
    tlog::stored_hash_count(size)
}

/// Reads stored hashes by their place in the stored order ([`stored_hash_index`]).
pub trait HashReader {
    /// The hashes at `indexes`, in that order and of that number. Indexes come in increasing order.
    ///
    /// # Errors
    /// [`LogError::MissingHash`] beyond the end, [`LogError::Read`] when they cannot be read.
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash32>, LogError>;
}

impl HashReader for [Hash32] {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash32>, LogError> {
        let at = |&index: &u64| {
            let missing = LogError::MissingHash { index, have: self.len() as u64 };
            usize::try_from(index).ok().and_then(|i| self.get(i)).copied().ok_or(missing)
        };
        indexes.iter().map(at).collect()
    }
}

impl HashReader for Vec<Hash32> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash32>, LogError> {
        self.as_slice().read_hashes(indexes)
    }
}

/// Passes our reader to `tlog_tiles`, whose error type has no room for why a read failed; we keep that aside.
pub(super) struct Through<'a, R: ?Sized> {
    reader: &'a R,
    failure: RefCell<Option<LogError>>,
}

impl<R: HashReader + ?Sized> tlog::HashReader for Through<'_, R> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog::Error> {
        let refuse = |e| {
            *self.failure.borrow_mut() = Some(e);
            tlog::Error::IndexesNotInTree
        };
        let hashes = self.reader.read_hashes(indexes).map_err(refuse)?;
        if hashes.len() != indexes.len() {
            // `tlog_tiles` would panic on it.
            return Err(refuse(LogError::Read(format!("{} hashes came for {}", hashes.len(), indexes.len()))));
        }
        Ok(hashes.into_iter().map(tlog::Hash).collect())
    }
}

pub(super) fn with_reader<R: HashReader + ?Sized, T>(
    reader: &R,
    f: impl FnOnce(&Through<'_, R>) -> Result<T, tlog::Error>,
) -> Result<T, LogError> {
    let through = Through { reader, failure: RefCell::new(None) };
    let outcome = f(&through);
    outcome.map_err(|e| through.failure.into_inner().unwrap_or_else(|| LogError::NoSuchProof(e.to_string())))
}

/// The root of the first `size` entries. Reads at most 1 + log2(size) stored hashes.
///
/// # Errors
/// Those of the reader.
pub fn root<R: HashReader + ?Sized>(size: u64, reader: &R) -> Result<Hash32, LogError> {
    with_reader(reader, |r| tlog::tree_hash(size, r)).map(|h| h.0)
}

/// The RFC 9162 inclusion proof of entry `index` in the log of `size`, from the leaf's sibling upwards.
///
/// # Errors
/// [`LogError::NoSuchProof`] when `index >= size`, else those of the reader.
pub fn inclusion_proof<R: HashReader + ?Sized>(index: u64, size: u64, reader: &R) -> Result<Vec<Hash32>, LogError> {
    if index >= size {
        return Err(LogError::NoSuchProof(format!("a log of size {size} has no entry {index}; its last is size - 1")));
    }
    with_reader(reader, |r| tlog::prove_record(size, index, r)).map(plain)
}

/// The RFC 9162 consistency proof between the logs of size `old` and `new`. Empty when `old` is 0 or equals `new`.
///
/// # Errors
/// [`LogError::NoSuchProof`] when `old > new`, else those of the reader.
pub fn consistency_proof<R: HashReader + ?Sized>(old: u64, new: u64, reader: &R) -> Result<Vec<Hash32>, LogError> {
    if old > new {
        return Err(LogError::NoSuchProof(format!("no proof leads from size {old} back to the smaller size {new}")));
    }
    if old == 0 {
        return Ok(Vec::new());
    }
    with_reader(reader, |r| tlog::prove_tree(new, old, r)).map(plain)
}

/// Checks that `entry` is entry `index` of the log of `size` with `root`.
///
/// # Errors
/// [`LogError::NotIncluded`] whenever it is not shown, whatever the reason. Never panics.
pub fn verify_inclusion(
    entry: &Hash32,
    index: u64,
    size: u64,
    proof: &[Hash32],
    root: &Hash32,
) -> Result<(), LogError> {
    let refused = LogError::NotIncluded { index, size };
    // A path is at most 64 hashes long; more is refused before anything is copied.
    if index >= size || proof.len() > 64 {
        return Err(refused);
    }
    let proof: Vec<tlog::Hash> = proof.iter().copied().map(tlog::Hash).collect();
    let leaf = tlog::Hash(leaf_hash(entry));
    tlog::check_record(&proof, size, tlog::Hash(*root), index, leaf).map_err(|_| refused)
}

/// Checks that the log of size `new` and `new_root` begins with the log of size `old` and `old_root`. For `old` 0 the
/// proof must be empty and `old_root` either [`EMPTY_ROOT`] or all zero, as the contract has it.
///
/// # Errors
/// [`LogError::Inconsistent`] whenever it is not shown, whatever the reason. Never panics.
pub fn verify_consistency(
    old: u64,
    new: u64,
    proof: &[Hash32],
    old_root: &Hash32,
    new_root: &Hash32,
) -> Result<(), LogError> {
    let refused = LogError::Inconsistent { old, new };
    if old > new || proof.len() > 65 {
        return Err(refused);
    }
    if old == 0 {
        let nothing = *old_root == EMPTY_ROOT || *old_root == [0; 32];
        let still_nothing = new != 0 || *new_root == EMPTY_ROOT || *new_root == [0; 32];
        return if nothing && still_nothing && proof.is_empty() { Ok(()) } else { Err(refused) };
    }
    let proof: Vec<tlog::Hash> = proof.iter().copied().map(tlog::Hash).collect();
    tlog::check_tree(&proof, new, tlog::Hash(*new_root), old, tlog::Hash(*old_root)).map_err(|_| refused)
}

fn plain(hashes: Vec<tlog::Hash>) -> Vec<Hash32> {
    hashes.into_iter().map(|h| h.0).collect()
}

/// Appends entries, holding only the right edge of the tree: the roots of its complete subtrees, one for every 1 bit
/// of the size. An append costs two hashes on average and reads nothing.
///
/// ```
/// use avouch_engine::log::{TreeAppender, inclusion_proof, verify_inclusion};
/// let (mut tree, mut stored) = (TreeAppender::new(), Vec::new());
/// for n in 0..10u8 {
///     tree.append(&[n; 32], &mut stored);
/// }
/// let hashes: Vec<[u8; 32]> = stored.chunks_exact(32).map(|h| h.try_into().unwrap()).collect();
/// let proof = inclusion_proof(3, 10, &hashes)?;
/// verify_inclusion(&[3; 32], 3, 10, &proof, &tree.root())?;
/// # Ok::<(), avouch_engine::log::LogError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeAppender {
    size: u64,
    /// Largest subtree first.
    edge: Vec<Hash32>,
}

impl TreeAppender {
    /// The empty log.
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on with a log of `size` whose hashes are stored.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn resume<R: HashReader + ?Sized>(size: u64, reader: &R) -> Result<Self, LogError> {
        if size == 0 {
            return Ok(Self::new());
        }
        let edge = reader.read_hashes(&tlog::sub_tree_index(0, size, Vec::new()))?;
        if edge.len() != size.count_ones() as usize {
            return Err(LogError::Read(format!("{} hashes came for {}", edge.len(), size.count_ones())));
        }
        Ok(Self { size, edge })
    }

    /// Appends one entry and pushes onto `stored` the bytes of the hashes to be stored for it (32 each): its leaf,
    /// then the subtrees it completes, smallest first. They belong at [`stored_hash_index`]`(0, size)`, which is where
    /// the earlier ones end.
    pub fn append(&mut self, entry: &Hash32, stored: &mut Vec<u8>) {
        let mut hash = leaf_hash(entry);
        stored.extend_from_slice(&hash);
        for _ in 0..self.size.trailing_ones() {
            // Invariant: the edge holds a subtree for every 1 bit of the size, smallest last.
            if let Some(left) = self.edge.pop() {
                hash = node_hash(&left, &hash);
                stored.extend_from_slice(&hash);
            }
        }
        self.edge.push(hash);
        self.size += 1;
    }

    /// [`TreeAppender::append`] for many entries: the same hashes in the same order, made side by side.
    pub fn append_all(&mut self, entries: &[Hash32], stored: &mut Vec<u8>) {
        let mut messages = Messages::default();
        for entry in entries {
            messages.bytes.push(0);
            messages.bytes.extend_from_slice(entry);
            messages.end();
        }
        // The new complete subtrees of each height, from left to right.
        let mut levels = vec![messages.digests()];
        // How many there were of the height before, and the one of them that has no sibling yet.
        let (mut before, mut edge) = (self.size, self.edge.clone());
        while let Some(below) = levels.last() {
            let waiting = if before % 2 == 1 { edge.pop() } else { None };
            let children: Vec<&Hash32> = waiting.iter().chain(below).collect();
            let pairs = children.as_chunks::<2>().0;
            if pairs.is_empty() {
                break;
            }
            messages.clear();
            for [left, right] in pairs {
                messages.bytes.push(1);
                messages.bytes.extend_from_slice(*left);
                messages.bytes.extend_from_slice(*right);
                messages.end();
            }
            before /= 2;
            levels.push(messages.digests());
        }
        let mut next = vec![0; levels.len()];
        for _ in entries {
            let completed = self.size.trailing_ones() as usize;
            self.edge.truncate(self.edge.len() - completed);
            for (level, next) in levels.iter().zip(&mut next).take(completed + 1) {
                stored.extend_from_slice(&level[*next]);
                *next += 1;
            }
            // Invariant: an entry completes a subtree of each height up to the last.
            self.edge.push(levels[completed][next[completed] - 1]);
            self.size += 1;
        }
    }

    /// How many entries were appended.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of all entries appended.
    pub fn root(&self) -> Hash32 {
        let mut smallest_first = self.edge.iter().rev();
        match smallest_first.next() {
            None => EMPTY_ROOT,
            Some(&last) => smallest_first.fold(last, |right, left| node_hash(left, &right)),
        }
    }
}
