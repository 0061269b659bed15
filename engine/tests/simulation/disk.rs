//! A disk that loses what was not fsynced.
//!
//! Every file has two contents: what processes see (the page cache) and what is on the platters. A kill leaves the first;
//! a power cut leaves the second, mixed with any part of what was written since, whole or garbled, and names that
//! were created or renamed without an fsync of their directory may or may not be there.

use avouch_engine::control::reload::Version;

use super::lanes::{Input, Snapshot, grow_root};
use super::random::Random;
use super::versions::Config;

/// An append-only run of words.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    pub cached: Vec<u64>,
    durable: Vec<u64>,
    /// Its name is durable.
    named: bool,
}

impl Stream {
    pub fn append(&mut self, words: &[u64]) {
        self.cached.extend_from_slice(words);
    }

    pub fn truncate(&mut self, len: usize) {
        self.cached.truncate(len);
    }

    pub fn sync(&mut self) {
        self.durable.clone_from(&self.cached);
    }

    /// Its directory is fsynced.
    pub fn sync_dir(&mut self) {
        self.named = true;
    }

    /// Whether no power cut takes this word away.
    pub fn has_durable(&self, word: u64) -> bool {
        self.named && self.durable.contains(&word)
    }

    pub fn power_cut(&mut self, random: &mut Random) {
        if !self.named && random.one_in(2) {
            *self = Self::default();
            return;
        }
        let same = self.cached.iter().zip(&self.durable).take_while(|(a, b)| a == b).count();
        let (low, high) = (self.cached.len().min(self.durable.len()), self.cached.len().max(self.durable.len()));
        let len = low + random.below(high - low + 1);
        let mut after: Vec<u64> = self.durable[..same].to_vec();
        for i in same..len {
            // Old, new, or torn.
            let seen = match random.below(3) {
                0 => self.durable.get(i),
                1 => self.cached.get(i),
                _ => None,
            };
            after.push(seen.copied().unwrap_or_else(|| random.word()));
        }
        *self = Self { durable: after.clone(), cached: after, named: true };
    }
}

/// What a checkpoint file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub seq: u64,
    pub generation: u64,
    pub next_offset: usize,
    pub log_size: usize,
    pub root: u64,
    pub dead: usize,
    /// The version of the pipeline it was made under; none where nothing was.
    pub version: Option<Version>,
    /// The pipeline that the lane began with.
    pub first: Config,
    pub inputs: Vec<Input>,
    pub state: Snapshot,
}

#[derive(Debug, Clone)]
struct File {
    content: Checkpoint,
    synced: bool,
    named: bool,
    garbled: bool,
}

/// A small file that is replaced as a whole: written beside, fsynced, renamed, its directory fsynced.
#[derive(Debug, Clone, Copy, Default)]
pub struct Small {
    cached: u64,
    durable: u64,
}

impl Small {
    pub fn get(&self) -> u64 {
        self.cached
    }

    pub fn replace(&mut self, value: u64) {
        self.cached = value;
    }

    pub fn sync(&mut self) {
        self.durable = self.cached;
    }

    fn power_cut(&mut self, random: &mut Random) {
        if random.one_in(2) {
            self.cached = self.durable;
        }
        self.durable = self.cached;
    }
}

/// The directory of one lane.
#[derive(Debug, Default)]
pub struct LaneDir {
    pub log: Stream,
    pub dead: Stream,
    pub generation: Small,
    /// A copy a sink.
    pub cursors: [Small; 4],
    checkpoints: Vec<File>,
    temporary: Option<File>,
    /// Who holds the operating system's lock: process and incarnation.
    pub lock: Option<(usize, u32)>,
}

impl LaneDir {
    pub fn write_temporary(&mut self, content: Checkpoint) {
        self.temporary = Some(File { content, synced: false, named: false, garbled: false });
    }

    pub fn sync_temporary(&mut self) {
        if let Some(file) = &mut self.temporary {
            file.synced = true;
        }
    }

    /// Gives a checkpoint its name. `Err` when it is of an older version of the pipeline than the one before.
    pub fn rename(&mut self) -> Result<(), String> {
        let Some(file) = self.temporary.take() else { return Ok(()) };
        let before = self.recover().ok().flatten().and_then(|c| c.version);
        let checked = not_older(before, file.content.version);
        self.checkpoints.push(file);
        checked
    }

    pub fn sync_dir(&mut self) {
        for file in &mut self.checkpoints {
            file.named = true;
        }
        self.log.named = true;
        self.dead.named = true;
    }

    pub fn prune(&mut self, keep: usize) {
        let old = self.checkpoints.len().saturating_sub(keep);
        self.checkpoints.drain(..old);
    }

    pub fn remove_temporary(&mut self) {
        self.temporary = None;
    }

    pub fn power_cut(&mut self, random: &mut Random) {
        self.log.power_cut(random);
        self.dead.power_cut(random);
        self.generation.power_cut(random);
        for cursor in &mut self.cursors {
            cursor.power_cut(random);
        }
        self.checkpoints.retain_mut(|file| {
            let there = file.named || random.one_in(2);
            file.garbled |= !file.synced && random.one_in(2);
            (file.named, file.synced) = (true, true);
            there
        });
        self.temporary = None;
        self.lock = None;
    }

    /// The newest checkpoint that can be used, as recovery chooses it; `None` in an empty directory. `Err` when there are
    /// some but none can be used.
    pub fn recover(&self) -> Result<Option<&Checkpoint>, String> {
        if self.checkpoints.is_empty() {
            return Ok(None);
        }
        let good = |f: &&File| !f.garbled && covers(&self.log.cached, self.dead.cached.len(), &f.content);
        match self.checkpoints.iter().rev().find(good) {
            Some(file) => Ok(Some(&file.content)),
            None => Err(format!("none of {} checkpoints can be used", self.checkpoints.len())),
        }
    }

    pub fn has_checkpoints(&self) -> bool {
        !self.checkpoints.is_empty()
    }

    /// Whether there is a file that belongs to no checkpoint.
    pub fn has_data(&self) -> bool {
        !self.log.cached.is_empty() || !self.dead.cached.is_empty()
    }

    /// How much of the log is durable whatever happens now: what the newest checkpoint covers that a power cut cannot take.
    pub fn durable_size(&self) -> Option<usize> {
        let safe = |f: &&File| {
            f.named
                && f.synced
                && !f.garbled
                && self.log.named
                && covers(&self.log.durable, self.dead.durable.len(), &f.content)
                && self.log.cached.len() >= f.content.log_size
        };
        self.checkpoints.iter().rev().find(safe).map(|f| f.content.log_size)
    }
}

/// A lane never goes back to an older version, and one number never names two pipelines.
pub fn not_older(before: Option<Version>, now: Option<Version>) -> Result<(), String> {
    match (before, now) {
        (Some(before), Some(now)) if now.number < before.number => {
            Err(format!("a lane went back from version {} to {}", before.number, now.number))
        }
        (Some(before), Some(now)) if now.number == before.number && now.config != before.config => {
            Err(format!("version {} names two pipelines", now.number))
        }
        (Some(before), None) => Err(format!("a lane of version {} begins anew", before.number)),
        _ => Ok(()),
    }
}

fn covers(log: &[u64], dead: usize, c: &Checkpoint) -> bool {
    log.len() >= c.log_size
        && dead >= c.dead
        && log[..c.log_size].iter().fold(0, |root, word| grow_root(root, *word)) == c.root
}
