//! Erasing records: of a device, of a period, or single ones.
//!
//! ```text
//!   choose ─► `erasing`, durable ─► the secret without these records' keys ─► tombstones ─► reasons deleted ─► `erasing` deleted
//! ```
//!
//! `<state>/erasing` says what is being erased until all of it is. While it is there the pipeline does not start; `avouch erase` does
//! every step again, each of which may be done twice. What is erased is out of the lanes' files, and its salt can be made by nobody any
//! more, so that the entry in the log, on which proofs and anchors rest, leads back to nothing.

mod carry_out;
mod choose;
mod intent;

pub use carry_out::{Done, Lanes, Step, carry_out};
pub use choose::{Chosen, What, choose, waiting_sinks};
pub use intent::{Erasing, OfLane};

use std::path::PathBuf;

use avouch_connectors::store::StoreError;
use thiserror::Error;

use crate::runtime::RuntimeError;

/// Why nothing was erased, or not all of it.
#[derive(Debug, Error)]
pub enum EraseError {
    /// A lane's store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The secret, or the state.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// `erasing` is not what it should be.
    #[error(
        "{path}: {why}; it says which records are being erased. If it cannot be restored, delete it and erase the same records again"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It cannot be done, or not like this.
    #[error("{0}")]
    Refused(String),
}

fn file_failed(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> EraseError {
    let path = path.to_path_buf();
    move |source| EraseError::File { path, source }
}
