//! An archive in an object store: files of ranges of the log, and a cursor that is compared before it is written.

use std::collections::BTreeMap;

use super::lanes::Truth;

/// How far an archive has got, and what it is writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Index of the first verdict not in it yet.
    pub next: usize,
    /// The end of the range that is being written; `next` when none is.
    pub until: usize,
    /// The log's root at `next`.
    pub note: u64,
}

/// The archive of one lane's sink.
#[derive(Default)]
pub struct Archive {
    place: Option<Place>,
    version: u64,
    /// By range.
    files: BTreeMap<(usize, usize), Vec<u64>>,
}

impl Archive {
    /// The cursor, and its version.
    pub fn read(&self) -> (Option<Place>, u64) {
        (self.place, self.version)
    }

    pub fn delivered(&self) -> usize {
        self.place.map_or(0, |p| p.next)
    }

    /// Sets the cursor if it is still of this version. Gives the new one; `None` if somebody else has set it.
    pub fn set(&mut self, place: Place, version: u64) -> Result<Option<u64>, String> {
        if version != self.version {
            // Our own write may have arrived although its answer did not.
            return Ok((self.place == Some(place)).then_some(self.version));
        }
        let before = self.place.unwrap_or_default();
        if place.next > before.next && !self.files.contains_key(&(before.next, place.next)) {
            return Err(format!("the archive's cursor passed {}..{}, which has no file", before.next, place.next));
        }
        (self.place, self.version) = (Some(place), version + 1);
        Ok(Some(self.version))
    }

    /// Writes a file, over one of the same name.
    pub fn put(&mut self, from: usize, words: Vec<u64>, truth: &Truth) -> Result<(), String> {
        let to = from + words.len();
        if truth.verdicts.get(from..to) != Some(&words) {
            return Err(format!("verdicts {from}..{to} were archived, but not as readers were shown them"));
        }
        if let Some((a, b)) = self.files.keys().find(|(a, b)| *a < to && from < *b && (*a, *b) != (from, to)) {
            return Err(format!("verdicts are archived twice: in {a}..{b} and in {from}..{to}"));
        }
        self.files.insert((from, to), words);
        Ok(())
    }
}
