//! The writing side.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::log::{TreeAppender, entries, root as root_of, stored_hash_count};
use avouch_engine::verdict::{Hash32, LogOrigin, VerdictRecord};
use tokio::sync::watch;

use super::checkpoint::{self, Checkpoint, Commit, Committed};
use super::frame::FrameWriter;
use super::history::{self, HistoryRow};
use super::lock::LaneLock;
use super::publish::{Publisher, StoredHashes};
use super::reader::{LaneReader, Shared};
use super::recover::{self, HighWater, Recovery};
use super::stream::StreamWriter;
use super::{StoreError, StoreOptions, io};

type Result<T> = std::result::Result<T, StoreError>;

/// The one writer of a lane's store. What is appended becomes durable, and visible to readers, at [`LaneStore::commit`];
/// dropping the store without one loses it, as a kill would.
#[derive(Debug)]
pub struct LaneStore {
    dir: PathBuf,
    keep_checkpoints: usize,
    lock: LaneLock,
    records: FrameWriter,
    dead: FrameWriter,
    entries: StreamWriter,
    hashes: StreamWriter,
    history: StreamWriter,
    appender: TreeAppender,
    last: Arc<Committed>,
    /// Log size of the last history row.
    last_row: Option<u64>,
    /// Size and root that readers have been shown beyond the last checkpoint.
    shown: Vec<(u64, Hash32)>,
    /// Size that `public/` stands at.
    published: u64,
    publisher: Publisher,
    shared: Arc<Shared>,
    tell: watch::Sender<Arc<Committed>>,
    recovery: Recovery,
    failed: Option<String>,
}

fn hex(hash: &Hash32) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

impl LaneStore {
    /// Opens a lane's directory for writing, creating it. Returns the checkpoint the lane is to be restored from, or
    /// `None` when there has been none but the empty one; the log is cut back to it (see the module's invariants).
    ///
    /// Reads the whole of `entries` to recompute the root, and `public/` to mend it.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another writer has the lane; [`StoreError::NoUsableCheckpoint`] and
    /// [`StoreError::MissingCheckpoints`] when it cannot be recovered (nothing is changed then);
    /// [`StoreError::WrongLog`], [`StoreError::Fork`], [`StoreError::Io`].
    pub fn open(dir: &Path, origin: &LogOrigin, options: StoreOptions) -> Result<(Self, Option<Checkpoint>)> {
        io::create_dir_all(dir)?;
        let mut lock = LaneLock::take(dir)?;
        let opened = recover::open(dir, origin.as_str(), &mut lock, options.segment_bytes)?;
        let recover::Opened { checkpoint, appender, files, mut recovery } = opened;
        let last = Arc::clone(&checkpoint.committed);
        let shared = Arc::new(Shared::new(dir, &files));
        let (tell, _) = watch::channel(Arc::clone(&last));

        let mut publisher = Publisher::new(dir, origin, options.signer);
        let mut shown: Vec<_> = recovery.high_water.into_iter().collect();
        let hashes = StoredHashes { stream: &shared.hashes, count: stored_hash_count(last.log_size) };
        let mut published = 0;
        let mut note_damaged = None;
        match publisher.head()? {
            None => {}
            Some(Ok(head)) if head.size > last.log_size => {
                shown.push((head.size, head.root));
                published = head.size;
            }
            Some(Ok(head)) => {
                let now = root_of(head.size, &hashes)?;
                if now != head.root {
                    return Err(StoreError::Fork {
                        dir: dir.to_path_buf(),
                        size: head.size,
                        shown: hex(&head.root),
                        now: hex(&now),
                    });
                }
                published = head.size;
            }
            Some(Err(why)) => note_damaged = Some(why),
        }
        if publisher.is_on() && published <= last.log_size && last.log_size > 0 {
            let mended = publisher.mend(published, last.log_size, &last.root, &hashes, &shared.entries)?;
            let why = "it was not what the log gives".to_owned();
            let mut rebuilt: Vec<_> =
                mended.into_iter().map(|file| recover::Damage { file, why: why.clone() }).collect();
            rebuilt.extend(note_damaged.map(|why| recover::Damage { file: "public/checkpoint".into(), why }));
            for d in &rebuilt {
                tracing::error!(dir = %dir.display(), file = d.file, why = d.why, "a published file was wrong and is replaced");
            }
            recovery.rebuilt.extend(rebuilt);
            published = last.log_size;
        }

        recovery.high_water = shown.iter().copied().max();
        let last_row = match last.history_rows {
            0 => None,
            rows => Some(shared.history_row(rows - 1)?.log_size),
        };
        let recover::Files { records, dead, entries, hashes, history } = files;
        let store = Self {
            dir: dir.to_path_buf(),
            keep_checkpoints: options.keep_checkpoints,
            lock,
            records: FrameWriter::new(records.0, records.1, last.log_size, last.records_len),
            dead: FrameWriter::new(dead.0, dead.1, last.dead_count, last.dead_len),
            entries: StreamWriter::new(entries, last.log_size * 32),
            hashes: StreamWriter::new(hashes, stored_hash_count(last.log_size) * 32),
            history: StreamWriter::new(history, last.history_rows * history::ROW),
            appender,
            last_row,
            shown,
            published,
            publisher,
            shared,
            tell,
            recovery,
            failed: None,
            last: Arc::clone(&last),
        };
        let restore = (last.seq > 0).then_some(checkpoint);
        Ok((store, restore))
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// The writer's generation: larger than that of every writer before.
    pub fn generation(&self) -> u64 {
        self.lock.generation
    }

    /// Entries of the log, committed or not.
    pub fn size(&self) -> u64 {
        self.appender.size()
    }

    /// Root of the log, committed or not.
    pub fn root(&self) -> Hash32 {
        self.appender.root()
    }

    /// Dead letters kept, committed or not.
    pub fn dead_count(&self) -> u64 {
        self.dead.count
    }

    /// What the last durable checkpoint covers.
    pub fn committed(&self) -> Arc<Committed> {
        Arc::clone(&self.last)
    }

    fn usable(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(StoreError::Failed { why: why.clone() }),
        }
    }

    /// After a failed write nobody knows what the disk holds: the store must be opened again.
    fn noting<T>(&mut self, outcome: Result<T>) -> Result<T> {
        if let Err(e) = &outcome {
            self.failed = Some(e.to_string());
        }
        outcome
    }

    /// Appends a verdict. Buffered. Where there are many, [`LaneStore::append_all`] is several times faster.
    ///
    /// # Errors
    /// [`StoreError::OutOfOrder`] when its index is not the log's size; [`StoreError::Io`]; [`StoreError::Failed`].
    pub fn append(&mut self, record: &VerdictRecord) -> Result<()> {
        self.append_all(std::slice::from_ref(record))
    }

    /// Appends verdicts, in order. Buffered; about 1.5 µs each.
    ///
    /// # Errors
    /// As [`LaneStore::append`]; on [`StoreError::OutOfOrder`] nothing of these has been appended.
    pub fn append_all(&mut self, records: &[VerdictRecord]) -> Result<()> {
        self.usable()?;
        for (expected, record) in (self.appender.size()..).zip(records) {
            if record.index != expected {
                return Err(StoreError::OutOfOrder { expected, got: record.index });
            }
        }
        // Entries are made for a few hundred at once, so that a large batch needs no second copy of itself.
        for group in records.chunks(512) {
            let verdicts: Vec<_> = group.iter().map(|r| &r.verdict).collect();
            for (entry, record) in entries(&verdicts).iter().zip(group) {
                let outcome = self.append_entry(entry, &record.to_bytes());
                self.noting(outcome)?;
            }
        }
        Ok(())
    }

    fn append_entry(&mut self, entry: &Hash32, bytes: &[u8]) -> Result<()> {
        self.records.append(bytes)?;
        self.entries.append(entry)?;
        let appender = &mut self.appender;
        self.hashes.append_with(|b| appender.append(entry, b))
    }

    /// Appends a dead letter. Buffered.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Failed`].
    pub fn append_dead(&mut self, letter: &DeadLetter) -> Result<()> {
        self.usable()?;
        let outcome = self.dead.append(&letter.to_bytes());
        self.noting(outcome)
    }

    /// Makes everything appended durable together with the lane's state and offset, then publishes it. When this
    /// returns, readers see it and no crash undoes it.
    ///
    /// Commit once before the first record is read (log size 0): coverage of the first anchor starts there.
    ///
    /// # Errors
    /// [`StoreError::BadCommit`] when the offset goes back (the store stays usable); [`StoreError::Fork`],
    /// [`StoreError::Fenced`] and [`StoreError::Io`], after which it must be opened again.
    pub fn commit(&mut self, commit: Commit<'_>) -> Result<Arc<Committed>> {
        self.usable()?;
        if self.last.seq > 0 && commit.next_offset < self.last.next_offset {
            let why = format!("its next offset {} is before {}", commit.next_offset, self.last.next_offset);
            return Err(StoreError::BadCommit { why });
        }
        if u32::try_from(commit.lane_state.len()).is_err() {
            let why = format!("a lane state of {} bytes is more than 4 GiB", commit.lane_state.len());
            return Err(StoreError::BadCommit { why });
        }
        let outcome = self.commit_now(commit);
        self.noting(outcome)
    }

    fn commit_now(&mut self, commit: Commit<'_>) -> Result<Arc<Committed>> {
        self.lock.still_ours()?;
        let (log_size, root) = (self.appender.size(), self.appender.root());
        let seq = self.last.seq + 1;

        // 1. The data, durably.
        if self.last_row.is_none_or(|size| size < log_size) {
            let row = HistoryRow { seq, log_size, next_offset: commit.next_offset, root };
            self.history.append(&row.to_bytes())?;
            self.last_row = Some(log_size);
        }
        let mut created = false;
        for stream in [
            &mut self.records.data,
            &mut self.records.rows,
            &mut self.dead.data,
            &mut self.dead.rows,
            &mut self.entries,
            &mut self.hashes,
            &mut self.history,
        ] {
            created |= stream.sync()?;
        }
        if created {
            io::sync_dir(&self.dir)?;
        }

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

        // 3. The checkpoint: from here on it stands.
        let committed = Arc::new(Committed {
            seq,
            generation: self.lock.generation,
            origin: self.last.origin.clone(),
            log_size,
            root,
            next_offset: commit.next_offset,
            dead_count: self.dead.count,
            config_hash: commit.config_hash,
            topic: commit.topic.to_owned(),
            partition: commit.partition,
            counters: commit.counters.to_vec(),
            records_len: self.records.data.len(),
            dead_len: self.dead.data.len(),
            history_rows: self.history.len() / history::ROW,
            segment_bytes: self.last.segment_bytes,
        });
        let checkpoint = Checkpoint { committed: Arc::clone(&committed), lane_state: commit.lane_state.to_vec() };
        checkpoint::write(&self.dir, &checkpoint)?;
        self.last = Arc::clone(&committed);

        // 4. Show it.
        let before = self.shown.len();
        self.shown.retain(|(size, _)| *size > log_size);
        if self.shown.len() < before && self.shown.is_empty() {
            HighWater::clear(&self.dir)?;
        }
        if log_size > self.published && self.shown.is_empty() {
            self.publisher.advance(self.published, log_size, &root, &hashes, &self.shared.entries)?;
            self.published = log_size;
        }
        self.tell.send_replace(Arc::clone(&committed));
        checkpoint::prune(&self.dir, self.keep_checkpoints)?;
        Ok(committed)
    }

    /// A reader of what is committed; clones are cheap and may be sent to other threads.
    pub fn reader(&self) -> LaneReader {
        LaneReader::live(Arc::clone(&self.shared), self.tell.subscribe())
    }
}
