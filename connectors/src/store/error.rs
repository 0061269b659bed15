//! What can go wrong with a store.

use std::path::PathBuf;

use avouch_engine::log::LogError;
use thiserror::Error;

/// Why a store could not be opened, written or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("{}: cannot {doing}: {source}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// Another process writes this lane.
    #[error(
        "{}: another writer has this lane ({holder}); a lane has one writer: stop that one, or give this one a state directory of its own",
        dir.display()
    )]
    Locked {
        /// The lane's directory.
        dir: PathBuf,
        /// What the lock file says of the other.
        holder: String,
    },
    /// Another process took the lane over while this one had it.
    #[error(
        "{}: this writer, of generation {ours}, no longer has the lane: {found}; another one may have taken it over, so this one must stop",
        dir.display()
    )]
    Fenced {
        /// The lane's directory.
        dir: PathBuf,
        /// Our generation.
        ours: u64,
        /// What the lock file, or the object store, says.
        found: String,
    },
    /// A file of another version of this program.
    #[error(
        "{place}: written in version {found} of the format, this program reads version {expected}; run the version of avouch that wrote it, or move it aside to start the lane from the beginning"
    )]
    Version {
        /// Which file or object.
        place: String,
        /// Its version.
        found: char,
        /// Ours.
        expected: char,
    },
    /// The object store refused or did not answer.
    #[error("{place}: cannot {doing}: {why}")]
    Remote {
        /// Its URL.
        place: String,
        /// What was attempted.
        doing: String,
        /// What it said.
        why: String,
    },
    /// The directory holds another log.
    #[error("{}: holds the log {found}, not {expected}; check the state directory and the pipeline's name", dir.display())]
    WrongLog {
        /// The lane's directory.
        dir: PathBuf,
        /// Origin of the log in it.
        found: String,
        /// Origin asked for.
        expected: String,
    },
    /// Every checkpoint is damaged, or covers data that is.
    #[error(
        "{}: no checkpoint can be used:{reasons}\nnothing was changed; restore the directory from a backup, or move it aside to start the lane from the beginning",
        dir.display()
    )]
    NoUsableCheckpoint {
        /// The lane's directory.
        dir: PathBuf,
        /// One line for each, newest first.
        reasons: String,
    },
    /// There are data files but no checkpoint at all.
    #[error(
        "{}: has {found} but no checkpoint; they were deleted or not restored. Bring the checkpoint files back, or move the directory aside to start the lane from the beginning",
        dir.display()
    )]
    MissingCheckpoints {
        /// The lane's directory.
        dir: PathBuf,
        /// A file that should not be alone.
        found: String,
    },
    /// There is no store here to read.
    #[error("{}: there is no store here; check the state directory, the pipeline's name and the partition", dir.display())]
    NoStore {
        /// The directory asked for.
        dir: PathBuf,
    },
    /// A verdict was appended out of order.
    #[error(
        "verdict {got} was appended where {expected} comes next; the lane and its store disagree: restart from the checkpoint"
    )]
    OutOfOrder {
        /// Index that comes next.
        expected: u64,
        /// Index of the record.
        got: u64,
    },
    /// A commit is not a successor of the last one.
    #[error("this commit cannot follow the last one: {why}")]
    BadCommit {
        /// What is wrong with it.
        why: String,
    },
    /// What was asked for was erased.
    #[error(
        "record {index} of {log} was erased: the log has its entry, which stays valid, and nothing of what was decided"
    )]
    Erased {
        /// The log's origin.
        log: String,
        /// The record's index.
        index: u64,
    },
    /// Records cannot be erased here, or not now.
    #[error("{}: nothing was erased: {why}", dir.display())]
    CannotErase {
        /// The lane's directory.
        dir: PathBuf,
        /// What stands in the way.
        why: String,
    },
    /// The log would contradict what it has shown before.
    #[error(
        "{}: the log would fork: at size {size} it had root {shown}, now it has {now}. The pipeline, a model or the input differs from the run that wrote it; bring those back, nothing was committed",
        dir.display()
    )]
    Fork {
        /// The lane's directory.
        dir: PathBuf,
        /// Size that was shown.
        size: u64,
        /// Root that was shown, hex.
        shown: String,
        /// Root it has now, hex.
        now: String,
    },
    /// A write failed before.
    #[error("this store failed before ({why}) and does not go on; open it again")]
    Failed {
        /// The first failure.
        why: String,
    },
    /// A file is not as it was written.
    #[error("{file}: damaged: {why}; open the store for writing so that it mends what it can, or restore the file")]
    Damaged {
        /// Which, and where.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Something was asked for that no durable checkpoint covers.
    #[error("{what} is not covered by a durable checkpoint (the log has {have}); wait for the next commit")]
    NotCommitted {
        /// What was asked for.
        what: String,
        /// How much there is.
        have: u64,
    },
    /// No checkpoint gave the log this size.
    #[error(
        "no checkpoint of this lane had log size {size}, so the readings it covers are not known; ask for a size out of the checkpoints' history"
    )]
    NoSuchSize {
        /// Size asked for.
        size: u64,
    },
    /// A name that cannot be a file's.
    #[error("{name:?} cannot name a cursor: use letters, digits, '-', '_' and '.'")]
    BadName {
        /// The name.
        name: String,
    },
    /// The log's hashes or notes.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl StoreError {
    /// Whether the environment failed (a full disk, missing rights), rather than the store being damaged.
    pub fn is_io(&self) -> bool {
        matches!(self, StoreError::Io { .. })
    }
}
