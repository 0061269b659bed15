//! What is being erased, durably, until it is.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{EraseError, file_failed};
use crate::runtime::{ERASING, put_durably};

const FORMAT: &str = "avouch/erasing/1";

/// The records of one lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfLane {
    /// The source partition.
    pub lane: i32,
    /// Runs of records: first and last of each, in order.
    pub records: Vec<(u64, u64)>,
}

impl OfLane {
    /// Of these indices, in order.
    pub fn new(lane: i32, indices: &[u64]) -> Self {
        let mut records: Vec<(u64, u64)> = Vec::new();
        for &index in indices {
            match records.last_mut() {
                Some((_, last)) if *last + 1 == index => *last = index,
                _ => records.push((index, index)),
            }
        }
        Self { lane, records }
    }

    /// Each of them.
    pub fn indices(&self) -> impl Iterator<Item = u64> + '_ {
        self.records.iter().flat_map(|&(first, last)| first..=last)
    }
}

/// What is being erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasing {
    format: String,
    /// Of which lanes what.
    pub lanes: Vec<OfLane>,
    /// The hashes of reasons whose labels are among it, hexadecimal.
    pub reasons: Vec<String>,
    /// Where the secret goes that is left, if it is not kept beside the lanes.
    pub secret_out: Option<PathBuf>,
}

impl Erasing {
    /// Of these records.
    pub fn new(lanes: Vec<OfLane>, reasons: Vec<String>, secret_out: Option<PathBuf>) -> Self {
        Self { format: FORMAT.to_owned(), lanes, reasons, secret_out }
    }

    /// What was begun and not finished, if anything.
    ///
    /// # Errors
    /// When the file cannot be read, or is not one.
    pub fn read(state: &Path) -> Result<Option<Self>, EraseError> {
        let path = state.join(ERASING);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(file_failed(&path)(e)),
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(erasing) if erasing.format == FORMAT => Ok(Some(erasing)),
            Ok(other) => Err(EraseError::Malformed { path, why: format!("its format is {:?}", other.format) }),
            Err(e) => Err(EraseError::Malformed { path, why: e.to_string() }),
        }
    }

    /// Makes it durable.
    pub(super) fn begin(&self, state: &Path) -> Result<(), EraseError> {
        let path = state.join(ERASING);
        // Invariant: it is plain data, which is always JSON.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        put_durably(&path, &bytes).map_err(file_failed(&path))
    }

    /// Forgets it, once all is erased.
    pub(super) fn end(state: &Path) -> Result<(), EraseError> {
        let path = state.join(ERASING);
        let removed = std::fs::remove_file(&path).and_then(|()| std::fs::File::open(state)?.sync_all());
        removed.map_err(file_failed(&path))
    }
}
