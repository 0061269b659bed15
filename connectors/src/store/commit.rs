//! Making a checkpoint durable, apart from the lane that goes on meanwhile.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use avouch_engine::lane::Snapshot;
use avouch_engine::log::{root as root_of, stored_hash_count};
use avouch_engine::verdict::Hash32;
use tokio::sync::watch;

use super::checkpoint::{self, Committed, Saved};
use super::chunks::{self, PackNames, StateTable};
use super::high_water::HighWater;
use super::lock::LaneLock;
use super::publish::{Publisher, StoredHashes};
use super::reader::Shared;
use super::remote::manifest::ManifestKind;
use super::remote::{Mirror, Put};
use super::replay::{Replay, Until};
use super::stream::Unsynced;
use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// One checkpoint to be made durable. Everything it covers has been handed to the operating system.
#[derive(Debug)]
pub(super) struct Job {
    pub committed: Committed,
    pub state: Snapshot,
    pub unsynced: Unsynced,
}

/// What making checkpoints durable needs; it travels between the lane's thread and the committing one.
#[derive(Debug)]
pub(super) struct Committer {
    pub dir: PathBuf,
    /// At least 2: the next checkpoint refers to what the last but one wrote.
    pub keep: usize,
    pub names: PackNames,
    pub lock: LaneLock,
    /// Where the states of the last checkpoint but one, and of the last, lie.
    pub tables: [StateTable; 2],
    /// The packs that each kept checkpoint refers to.
    pub packs: BTreeMap<u64, Vec<String>>,
    /// Size and root that readers have been shown beyond the last checkpoint.
    pub shown: Vec<(u64, Hash32)>,
    /// What a checkpoint must cover before `replay` can go.
    pub replay_until: Until,
    /// Size that `public/` stands at.
    pub published: u64,
    pub publisher: Publisher,
    pub shared: Arc<Shared>,
    pub tell: watch::Sender<Arc<Committed>>,
    /// The copy in an object store, if there is one.
    pub mirror: Option<Mirror>,
}

pub(super) fn hex(hash: &Hash32) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

impl Committer {
    /// Makes a checkpoint durable, then shows it.
    pub fn run(&mut self, job: Job) -> Result<Arc<Committed>> {
        self.lock.still_ours()?;
        let Job { mut committed, state, unsynced } = job;
        let (seq, log_size, root) = (committed.seq, committed.log_size, committed.root);

        // 1. The data, durably.
        unsynced.sync(&self.dir)?;

        // 2. It must not contradict what was shown before a fall-back.
        let hashes = StoredHashes { stream: &self.shared.hashes, count: stored_hash_count(log_size) };
        for (size, shown) in &self.shown {
            if *size <= log_size {
                let now = root_of(*size, &hashes)?;
                if now != *shown {
                    let (shown, now) = (hex(shown), hex(&now));
                    return Err(StoreError::Fork { dir: self.dir.clone(), size: *size, shown, now });
                }
            }
        }

        // 3. What is new of the state.
        let written = chunks::write(&self.dir, &state, &self.tables[0], self.names, seq)?;
        drop(state);
        if !written.new.is_empty() {
            io::sync_dir(&self.dir)?;
        }
        committed.new_state_bytes = written.new_bytes();
        let committed = Arc::new(committed);
        let saved = Saved { committed: Arc::clone(&committed), table: written.table };

        // 4. The copy. Where there is one, a checkpoint stands once its manifest is there.
        if let Some(mirror) = &mut self.mirror
            && let Put::Lost { by, .. } = mirror.put(ManifestKind::Commit, &saved)?
        {
            return Err(StoreError::Fenced { dir: self.dir.clone(), ours: self.lock.generation, found: by });
        }

        // 5. The checkpoint: from here on it stands.
        checkpoint::write(&self.dir, seq, &saved.to_bytes())?;
        self.packs.insert(seq, saved.table.packs.iter().map(|p| p.name.clone()).collect());
        self.tables = [std::mem::take(&mut self.tables[1]), saved.table];

        // 6. Show it.
        let before = self.shown.len();
        self.shown.retain(|(size, _)| *size > log_size);
        if self.shown.len() < before && self.shown.is_empty() {
            HighWater::clear(&self.dir)?;
        }
        if self.replay_until.is_reached(&committed) {
            Replay::default().keep(&self.dir)?;
            self.replay_until = Until::default();
        }
        if log_size > self.published && self.shown.is_empty() {
            self.publisher.advance(self.published, log_size, &root, &hashes, &self.shared.entries)?;
            self.published = log_size;
        }
        self.tell.send_replace(Arc::clone(&committed));
        self.prune()?;
        Ok(committed)
    }

    /// Deletes all but the newest checkpoints, and then the packs that only they referred to.
    fn prune(&mut self) -> Result<()> {
        let old: Vec<u64> = checkpoint::list(&self.dir)?.into_iter().skip(self.keep).collect();
        if old.is_empty() {
            return Ok(());
        }
        for seq in &old {
            io::remove(&checkpoint::path(&self.dir, *seq))?;
        }
        // A pack must not go before the checkpoints that need it are gone for good.
        io::sync_dir(&self.dir)?;
        for seq in &old {
            let Some(names) = self.packs.remove(seq) else { continue };
            for name in names {
                if !self.packs.values().flatten().any(|n| *n == name) {
                    io::remove(&self.dir.join(name))?;
                }
            }
        }
        Ok(())
    }
}
