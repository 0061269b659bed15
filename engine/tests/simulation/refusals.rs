//! What the transactional sink of a lane refuses: kept beside the log, and delivered from there to a topic for dead letters.

use std::collections::BTreeSet;

use super::disk::Stream;
use super::lanes::Truth;

/// Whether a record is of those that the transactional sink takes at all: its `where` holds.
pub fn is_taken(word: u64) -> bool {
    !word.is_multiple_of(7)
}

/// Whether a record is refused, whatever happens, when it is offered.
pub fn is_refused(word: u64) -> bool {
    is_taken(word) && word.is_multiple_of(11)
}

/// The refusals of one lane's sink, as far as they are kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// Indices, in the lane's directory.
    pub file: Stream,
    /// … and in an object store, a piece each.
    pub pieces: BTreeSet<u64>,
}

impl Kept {
    /// A process opens the file: what a crash left unfinished is no refusal.
    pub fn open(&mut self, log_size: usize) {
        let lines = &self.file.cached;
        let whole = (0..lines.len()).take_while(|i| {
            (lines[*i] as usize) < log_size && i.checked_sub(1).is_none_or(|before| lines[before] < lines[*i])
        });
        let whole = whole.count();
        self.file.truncate(whole);
    }

    /// How many are of indices below `next`.
    pub fn below(&self, objects: bool, next: u64) -> u64 {
        let n =
            if objects { self.pieces.range(..next).count() } else { self.file.cached.partition_point(|i| *i < next) };
        n as u64
    }

    /// Those below `next`.
    pub fn list(&self, objects: bool, next: u64) -> Vec<u64> {
        if objects {
            self.pieces.range(..next).copied().collect()
        } else {
            self.file.cached.iter().copied().take_while(|i| *i < next).collect()
        }
    }

    /// Whether no crash takes this one away.
    pub fn is_durable(&self, objects: bool, index: u64) -> bool {
        if objects { self.pieces.contains(&index) } else { self.file.has_durable(index) }
    }
}

/// Where they go: each at least once, and none before those before it.
#[derive(Default)]
pub struct DeadTopic {
    pub delivered: usize,
}

impl DeadTopic {
    pub fn produce(&mut self, from: usize, indices: &[u64], truth: &Truth) -> Result<(), String> {
        let mut all = (0..truth.verdicts.len()).filter(|i| is_refused(truth.verdicts[*i])).skip(from);
        if indices.iter().any(|index| all.next() != Some(*index as usize)) {
            return Err(format!("refusals {from}.. were delivered as {indices:?}, which they are not"));
        }
        if from > self.delivered {
            return Err(format!("refusals {}..{from} were left out", self.delivered));
        }
        self.delivered = self.delivered.max(from + indices.len());
        Ok(())
    }
}
