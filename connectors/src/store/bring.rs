//! A lane's files brought from its object store to those who only read.

use std::path::Path;

use avouch_engine::verdict::LogOrigin;

use super::lock::LaneLock;
use super::remote::{self, RemoteLane};
use super::{StoreError, io};

/// Brings a lane's directory to the newest checkpoint that its object store has, for those who only read; whether there is one.
/// Only what is not there or differs is downloaded. Nothing is put, so whoever writes the lane is not disturbed; and a
/// directory that a process of this machine works in is left as it is, since it has no less than the object store.
///
/// # Errors
/// [`StoreError::Remote`] when the object store does not answer; [`StoreError::NoUsableCheckpoint`], [`StoreError::WrongLog`],
/// [`StoreError::Io`].
pub fn bring(dir: &Path, origin: &LogOrigin, lane: &RemoteLane) -> Result<bool, StoreError> {
    io::create_dir_all(dir)?;
    match LaneLock::take(dir) {
        Ok(lock) => Ok(remote::fetch(dir, origin.as_str(), lane, lock.generation)?.manifest.is_some()),
        Err(StoreError::Locked { .. }) => Ok(true),
        Err(e) => Err(e),
    }
}
