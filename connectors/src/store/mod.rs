//! The durable store of one lane: its verdict log, its dead letters, its checkpoints, its sinks' cursors.
//!
//! ```text
//! <state>/<pipeline>/<partition>/
//!   lock                    held by the one writer; its generation and process
//!   checkpoint-<seq>        the last checkpoints (five, unless told otherwise); each ends in the SHA-256 of what is before
//!   pack-<generation>-<seq>-<piece>-<writer>   chunks of the lanes' state, which checkpoints refer to (see chunks.rs)
//!   records-<n>, offsets-<n>            verdict records in frames, and where each ends
//!   entries-<n>, hashes-<n>             the log: 32 bytes an entry, and its stored hashes (avouch_engine::log)
//!   dead-<n>, dead-offsets-<n>          dead letters in frames, and where each ends
//!   events-<n>, event-offsets-<n>       ticks, reference switches and evictions in frames, and where each ends
//!   history-<n>             for every size a checkpoint gave the log: the offset it had read up to, and the root
//!   cursor-<sink>           how far a sink has got
//!   refused-<sink>          which verdicts it refused
//!   high-water              only after a fall-back: what readers had been shown (see below)
//!   erasures                only while records are being erased: which, and where (see erase.rs)
//!   replay                  only after a fall-back: ticks and reference switches to be taken again (see replay.rs)
//!   public/checkpoint, public/tile/…    the log as tlog-tiles publishes it; this directory may be served as it is
//!   public/key              the key of the note in public/checkpoint, for monitors and witnesses
//! ```
//!
//! A numbered file is a 64 MiB segment of one long run of bytes, and is only ever appended to; but erasing a record overwrites it in
//! place, with a tombstone of the same length.
//!
//! # Invariants
//!
//! 1. **Only what a durable checkpoint covers is ever returned by a reader or published.** A checkpoint is written
//!    (to a temporary name, fsynced, renamed, directory fsynced) after the data it covers is fsynced, and readers look
//!    no further than the newest one.
//! 2. **`kill -9` at any write leaves a recoverable store.** What lies beyond the newest checkpoint is cut off when the
//!    store is opened; the lane reads those rows again and, being deterministic, appends the same bytes.
//! 3. **A log never forks.** If the newest checkpoint or the data it covers is damaged, an earlier one is used and
//!    the damage reported (log at level error, [`Recovery`]); since readers may have been shown more, `high-water` and
//!    `public/checkpoint` keep what they were shown, and a commit that would contradict it fails before it is durable.
//!    Until the log has regrown that far, nothing is published. Inputs that only the store has, ticks and switches of
//!    reference tables, are kept in `replay` and taken again at their places, so that it regrows to the same bytes.
//! 4. **Nothing starts from scratch silently.** The first act in an empty directory is checkpoint 0 of the empty log,
//!    so files without a checkpoint mean that checkpoints were lost, and that is an error.
//! 5. **One writer a lane.** An exclusive file lock, and a generation that grows with every opening and is looked up
//!    again at every commit.
//! 6. **What can be derived is mended.** `entries`, `hashes`, `offsets` and `public/` follow from `records`, the other
//!    tables of offsets from their frames; on opening they are compared against the checkpoint's root and rebuilt where they differ, which is reported.
//! 7. **What is erased stays erased**, and what is derived from it stays as it was: every checkpoint that is kept covers it, so that no
//!    fall-back makes the lane append it again.
//! 8. After any failed write the store refuses to go on: what the disk holds is then known only by opening it again.

mod bring;
mod checkpoint;
mod chunks;
mod commit;
mod cursor;
mod erase;
mod error;
mod frame;
mod high_water;
mod history;
mod inspect;
mod io;
mod lane;
mod lock;
mod note_key;
mod publish;
mod reader;
mod recover;
mod refused;
mod remote;
mod replay;
mod stream;

#[cfg(test)]
mod tests;

pub use bring::bring;
pub use checkpoint::{Checkpoint, Commit, Committed};
pub use cursor::Cursor;
pub use error::StoreError;
#[cfg(feature = "mqtt")]
pub(crate) use frame::crc32;
pub use history::HistoryRow;
pub use inspect::{CheckpointReport, Contents, SectionReport, inspect_dir, inspect_remote};
pub use lane::LaneStore;
#[cfg(feature = "http")]
pub(crate) use note_key::hash_of_hex;
pub use note_key::load_or_create_note_signer;
pub use reader::LaneReader;
pub use recover::{Damage, Recovery};
pub use refused::{Refusal, Refusals};
pub use remote::{ObjectError, Objects, RemoteLane, RemoteStats};
#[cfg(feature = "object-store")]
pub use remote::{ObjectStoreOptions, ObjectStoreRoot, open_object_store};

use std::path::{Path, PathBuf};

use avouch_engine::log::NoteSigner;

/// How a lane's store behaves.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Signs the published checkpoint note. Without one, nothing is published under `public/`.
    pub signer: Option<NoteSigner>,
    /// How many checkpoints are kept; less than 2 is taken for 2.
    pub keep_checkpoints: usize,
    /// Bytes of a segment. Only a new store takes it; afterwards the one it was made with stands.
    pub segment_bytes: u64,
    /// Where every checkpoint is copied to before it counts, and where the lane is taken from when it is opened.
    pub remote: Option<RemoteLane>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { signer: None, keep_checkpoints: 5, segment_bytes: 64 << 20, remote: None }
    }
}

/// Where a lane's store lies: `<state>/<pipeline>/<partition>`.
pub fn lane_dir(state: &Path, pipeline: &str, partition: i32) -> PathBuf {
    state.join(pipeline).join(partition.to_string())
}
