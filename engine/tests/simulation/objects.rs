//! An object store: put if absent, get, list, delete. What is put is there for good; only answers get lost.

use std::collections::BTreeMap;

use avouch_engine::control::reload::Version;

use super::disk::{Checkpoint, not_older};

/// What was appended since the part before, and the state by then.
#[derive(Debug, Clone)]
pub struct Part {
    pub log: Vec<u64>,
    pub dead: Vec<u64>,
}

/// A checkpoint, or the opening of a generation.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The writer's random number: tells its own put from another's.
    pub writer: u64,
    pub checkpoint: Checkpoint,
    pub parts: Vec<u64>,
}

/// The objects of one lane.
#[derive(Debug, Default)]
pub struct Bucket {
    pub manifests: BTreeMap<u64, Manifest>,
    /// Their names are the writer's generation, then a number.
    pub parts: BTreeMap<u64, Part>,
    /// The largest log and generation that a manifest at the end of the chain ever had.
    pub best: (usize, u64),
    /// The version of the pipeline that it was made under.
    pub version: Option<Version>,
    /// Writers whose manifest got a number below the newest one, free only because it had been deleted: such a commit must
    /// not count.
    pub void: Vec<u64>,
}

impl Bucket {
    /// Puts a manifest unless there is one of this number; returns whose it is that is there now. With `over` it is put
    /// whatever is there, as no writer should.
    pub fn put_manifest(&mut self, number: u64, manifest: Manifest, over: bool) -> Result<u64, String> {
        if over || !self.manifests.contains_key(&number) {
            if self.newest().is_some_and(|(newest, _)| newest > number) {
                self.void.push(manifest.writer);
            }
            self.manifests.insert(number, manifest);
        }
        if let Some(newest) = self.newest() {
            let (size, generation) = (newest.1.checkpoint.log_size, newest.1.checkpoint.generation);
            if size < self.best.0 {
                return Err(format!(
                    "the newest manifest covers {size} entries, one before it covered {}",
                    self.best.0
                ));
            }
            if generation < self.best.1 {
                let (old, new) = (generation, self.best.1);
                return Err(format!("generation {old} has committed after generation {new} had begun"));
            }
            let version = newest.1.checkpoint.version;
            not_older(self.version, version)?;
            self.version = version;
            self.best = (size, generation);
        }
        Ok(self.manifests.get(&number).map_or(0, |m| m.writer))
    }

    pub fn newest(&self) -> Option<(u64, &Manifest)> {
        self.manifests.last_key_value().map(|(n, m)| (*n, m))
    }

    /// The whole log and all dead letters under a manifest.
    pub fn fetch(&self, manifest: &Manifest) -> Result<(Vec<u64>, Vec<u64>), String> {
        let (mut log, mut dead) = (Vec::new(), Vec::new());
        for id in &manifest.parts {
            let part = self.parts.get(id).ok_or("the newest manifest refers to a part that is not there")?;
            log.extend_from_slice(&part.log);
            dead.extend_from_slice(&part.dead);
        }
        Ok((log, dead))
    }

    /// Deletes all but the newest manifests, then the parts that none of them refers to.
    pub fn prune(&mut self, keep: usize) {
        while self.manifests.len() > keep {
            self.manifests.pop_first();
        }
    }

    /// Deletes parts of generations before `generation` that no manifest refers to: nobody can refer to them any more. Those
    /// of a later writer may be waiting for their manifest.
    pub fn delete_parts_of_nobody(&mut self, generation: u64) {
        let manifests = &self.manifests;
        self.parts.retain(|id, _| id >> 32 >= generation || manifests.values().any(|m| m.parts.contains(id)));
    }
}
