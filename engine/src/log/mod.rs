//! The verdict log: an append-only Merkle tree of verdicts (RFC 6962 / RFC 9162, SHA-256), and what is said about it.
//!
//! | what | bytes hashed |
//! | --- | --- |
//! | entry | the 32-byte EIP-712 struct hash of a verdict ([`crate::verdict::Verdict::struct_hash`]) |
//! | leaf | SHA-256(`00` ‖ entry) |
//! | node | SHA-256(`01` ‖ left ‖ right) |
//! | root of the empty log | SHA-256 of nothing, [`EMPTY_ROOT`] |
//! | data commitment of a checkpoint | SHA-256 of [`Coverage::to_bytes`] |
//!
//! The tree itself (which hashes are stored in which order, proofs, tiles) is that of the `tlog_tiles` crate, so that
//! existing monitors and witnesses of transparency logs work on ours. A log of `n` entries has
//! [`stored_hash_count`]`(n)` stored hashes in the order of [`stored_hash_index`]; they are only ever appended.
//!
//! On chain the first checkpoint of a log has `oldSize` 0 and an all-zero `oldRoot`, not [`EMPTY_ROOT`]:
//! [`verify_consistency`] takes either for size 0.
//!
//! Everything here is a pure function of its arguments; stored hashes are read through [`HashReader`].

mod coverage;
mod entries;
mod note;
mod published;
mod tiles;
mod tree;
mod witness;

#[cfg(test)]
mod tests;

pub use coverage::{Coverage, coverage_commitment};
pub use entries::entries;
pub use note::{NoteSigner, TreeHead, checkpoint_text, parse_checkpoint_text, read_note_unverified, verify_note};
pub use published::{Lack, PublishedLog};
pub use tiles::{TILE_WIDTH, TileRef, entry_bundle, tiles_between};
pub use tree::{
    EMPTY_ROOT, HashReader, TreeAppender, consistency_proof, inclusion_proof, leaf_hash, node_hash, root,
    stored_hash_count, stored_hash_index, verify_consistency, verify_inclusion,
};
pub use witness::{AddCheckpoint, Cosigner, Judgement, Witnessed, cosigned, judge};

use thiserror::Error;

/// What can go wrong with a log, its proofs and its notes.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum LogError {
    /// A stored hash lies beyond those at hand.
    #[error(
        "verdict log: stored hash {index} is asked for but only {have} are there; ask for a size the log has reached, or reopen the store so that it rebuilds its hashes"
    )]
    MissingHash {
        /// Place in the stored order.
        index: u64,
        /// How many there are.
        have: u64,
    },
    /// The stored hashes could not be read.
    #[error("verdict log: its stored hashes could not be read: {0}")]
    Read(String),
    /// A proof was asked for that does not exist.
    #[error("verdict log: {0}")]
    NoSuchProof(String),
    /// An inclusion proof does not lead to the root.
    #[error("inclusion refused: the proof does not lead from entry {index} to the root of the log of size {size}")]
    NotIncluded {
        /// Index of the entry.
        index: u64,
        /// Size of the log.
        size: u64,
    },
    /// A consistency proof does not connect two roots.
    #[error(
        "consistency refused: the proof does not show that the log of size {new} begins with the log of size {old}"
    )]
    Inconsistent {
        /// Size of the older log.
        old: u64,
        /// Size of the newer log.
        new: u64,
    },
    /// A checkpoint text or signed note is malformed, or its signature is wrong.
    #[error("checkpoint note: {0}")]
    Note(String),
}
