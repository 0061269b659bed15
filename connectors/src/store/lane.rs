//! The writing side.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::event::LaneEvent;
use avouch_engine::log::{TreeAppender, entries, root as root_of, stored_hash_count};
use avouch_engine::verdict::{Hash32, LogOrigin, VerdictRecord};
use tokio::sync::watch;

use super::checkpoint::{self, Checkpoint, Commit, Committed};
use super::chunks::PackNames;
use super::commit::{Committer, Job, hex};
use super::erase;
use super::frame::{FrameReader, FrameWriter};
use super::history::{self, HistoryRow};
use super::lock::LaneLock;
use super::publish::{Publisher, StoredHashes};
use super::reader::{LaneReader, Shared};
use super::recover::{self, Recovery};
use super::remote::manifest::ManifestKind;
use super::remote::{self, Mirror, Put};
use super::stream::{StreamWriter, Unsynced};
use super::{StoreError, StoreOptions, io};

type Result<T> = std::result::Result<T, StoreError>;

/// The one writer of a lane's store. What is appended becomes durable, and visible to readers, by [`LaneStore::commit`] or
/// [`LaneStore::begin_commit`]; dropping the store without one loses it, as a kill would. A commit that was begun is waited
/// for when the store is dropped.
#[derive(Debug)]
pub struct LaneStore {
    dir: PathBuf,
    generation: u64,
    records: FrameWriter,
    dead: FrameWriter,
    events: FrameWriter,
    entries: StreamWriter,
    hashes: StreamWriter,
    history: StreamWriter,
    appender: TreeAppender,
    /// Number and offset of the last commit that was begun.
    begun: (u64, i64),
    /// Log size of the last history row.
    last_row: Option<u64>,
    /// Rows from before a fall-back, which stand again once the log has regrown to their sizes.
    known_rows: VecDeque<HistoryRow>,
    shared: Arc<Shared>,
    told: watch::Receiver<Arc<Committed>>,
    recovery: Recovery,
    failed: Option<String>,
    work: Work,
}

/// Who makes checkpoints durable, and where it is.
#[derive(Debug)]
enum Work {
    Idle(Box<Committer>),
    Busy(JoinHandle<(Box<Committer>, Result<Arc<Committed>>)>),
    /// Its thread could not be started, or panicked.
    Lost,
}

impl Drop for LaneStore {
    fn drop(&mut self) {
        // The lock must not be let go of while something is still written.
        if let Work::Busy(thread) = std::mem::replace(&mut self.work, Work::Lost) {
            let _ = thread.join();
        }
    }
}

/// How often an opening begins again because the writer before made another checkpoint meanwhile.
const TAKEOVERS: usize = 5;

/// Opens a directory, brought before to what the object store has, and takes the lane over there.
fn open_with_copy(
    dir: &Path,
    origin: &LogOrigin,
    lock: &mut LaneLock,
    options: &StoreOptions,
    published: u64,
) -> Result<(recover::Opened, Option<Mirror>)> {
    let around = recover::Around { segment_bytes: options.segment_bytes, generation: 0, published, copy: false };
    let Some(lane) = &options.remote else {
        return Ok((recover::open(dir, origin.as_str(), lock, around)?, None));
    };
    let mut attempts = 0;
    loop {
        attempts += 1;
        let fetched = remote::fetch(dir, origin.as_str(), lane, lock.generation)?;
        let around = recover::Around { generation: fetched.generation, copy: fetched.manifest.is_some(), ..around };
        let mut opened = recover::open(dir, origin.as_str(), lock, around)?;
        if let Some(m) = &fetched.manifest
            && m.saved != opened.saved
        {
            let why = format!("{} is not what {} says", dir.display(), remote::manifest::name(m.number));
            return Err(StoreError::Remote { place: lane.url(), doing: "take the lane over".into(), why });
        }
        if fetched.manifest.is_none() && opened.saved.committed.seq > 0 {
            tracing::warn!(
                store = lane.url(), dir = %dir.display(), checkpoint = opened.saved.committed.seq,
                "the object store has nothing of this lane; it begins with what is in the directory"
            );
        }
        let keep = options.keep_checkpoints;
        let mut mirror = Mirror::new(lane.clone(), dir, &opened.files, lock.generation, keep, &fetched)?;
        match mirror.put(ManifestKind::Takeover, &opened.saved)? {
            Put::Won => {
                mirror.sweep();
                let remote::Fetched { damaged, mended, downloaded, lost_events, .. } = fetched;
                if lost_events > 0 {
                    tracing::error!(
                        store = lane.url(), dir = %dir.display(), lost = lost_events,
                        "events that a damaged checkpoint covered are gone; if ticks or switches of reference tables were \
                         among them, the log may not regrow to what was shown, and is refused then"
                    );
                }
                opened.recovery.lost_events += lost_events;
                if downloaded > 0 {
                    tracing::info!(store = lane.url(), dir = %dir.display(), bytes = downloaded, "downloaded what was not here");
                }
                opened.recovery.damaged.splice(0..0, damaged);
                opened.recovery.rebuilt.extend(mended);
                opened.recovery.downloaded = downloaded;
                return Ok((opened, Some(mirror)));
            }
            Put::Lost { commit: true, .. } if attempts < TAKEOVERS => {}
            Put::Lost { by, .. } => {
                return Err(StoreError::Fenced { dir: dir.to_path_buf(), ours: lock.generation, found: by });
            }
        }
    }
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
        let mut publisher = Publisher::new(dir, origin, options.signer.clone());
        let head = publisher.head()?;
        let told = head.as_ref().and_then(|h| h.as_ref().ok()).map_or(0, |h| h.size);
        erase::redo(dir)?;
        let (opened, mirror) = open_with_copy(dir, origin, &mut lock, &options, told)?;
        let recover::Opened { saved, state, before, packs, appender, files, mut recovery, replay_until, known_rows } =
            opened;
        let last = Arc::clone(&saved.committed);
        let beside = mirror.as_ref().map(Mirror::beside);
        let shared = Arc::new(Shared::new(dir, &files, beside));
        let (tell, told) = watch::channel(Arc::clone(&last));

        let mut shown: Vec<_> = recovery.high_water.into_iter().collect();
        let hashes = StoredHashes { stream: &shared.hashes, count: stored_hash_count(last.log_size) };
        let mut published = 0;
        let mut note_damaged = None;
        match head {
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
        let recover::Files { records, dead, events, entries, hashes, history } = files;
        let committer = Committer {
            dir: dir.to_path_buf(),
            keep: options.keep_checkpoints.max(2),
            names: PackNames { generation: lock.generation, writer: mirror.as_ref().map_or(0, Mirror::short_writer) },
            lock,
            tables: [before, saved.table],
            packs,
            shown,
            replay_until,
            published,
            publisher,
            shared: Arc::clone(&shared),
            tell,
            mirror,
        };
        let store = Self {
            dir: dir.to_path_buf(),
            generation: committer.lock.generation,
            records: FrameWriter::new(records.0, records.1, last.log_size, last.records_len),
            dead: FrameWriter::new(dead.0, dead.1, last.dead_count, last.dead_len),
            events: FrameWriter::new(events.0, events.1, last.event_count, last.events_len),
            entries: StreamWriter::new(entries, last.log_size * 32),
            hashes: StreamWriter::new(hashes, stored_hash_count(last.log_size) * 32),
            history: StreamWriter::new(history, last.history_rows * history::ROW),
            appender,
            begun: (last.seq, last.next_offset),
            last_row,
            known_rows: known_rows.into(),
            shared,
            told,
            recovery,
            failed: None,
            work: Work::Idle(Box::new(committer)),
        };
        let restore = (last.seq > 0).then(|| Checkpoint { committed: Arc::clone(&last), lane_state: state });
        Ok((store, restore))
    }

    /// What opening found and did.
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    pub(super) fn directory(&self) -> &Path {
        &self.dir
    }

    pub(super) fn record_frames(&self) -> &FrameReader {
        &self.shared.records
    }

    /// Whether checkpoints are copied to an object store.
    pub(super) fn has_copy(&self) -> bool {
        match &self.work {
            Work::Idle(committer) => committer.mirror.is_some(),
            Work::Busy(_) | Work::Lost => true,
        }
    }

    /// The writer's generation: larger than that of every writer before.
    pub fn generation(&self) -> u64 {
        self.generation
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

    /// Events kept, committed or not.
    pub fn event_count(&self) -> u64 {
        self.events.count
    }

    /// What the last durable checkpoint covers.
    pub fn committed(&self) -> Arc<Committed> {
        Arc::clone(&self.told.borrow())
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

    /// Appends verdicts, in order. Buffered.
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
            let outcome = self.append_group(&entries(&verdicts), group);
            self.noting(outcome)?;
        }
        Ok(())
    }

    fn append_group(&mut self, entries: &[Hash32], records: &[VerdictRecord]) -> Result<()> {
        for record in records {
            self.records.append_with(|b| record.write(b))?;
        }
        self.entries.append(entries.as_flattened())?;
        let appender = &mut self.appender;
        self.hashes.append_with(|b| appender.append_all(entries, b))
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

    /// Appends an event. Buffered. A crash before the commit forgets it together with its effects.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Failed`].
    pub fn append_event(&mut self, event: &LaneEvent) -> Result<()> {
        self.usable()?;
        let outcome = self.events.append(&event.to_bytes());
        self.noting(outcome)
    }

    /// Makes everything appended durable together with the lane's state and offset, then publishes it. When this
    /// returns, readers see it and no crash undoes it.
    ///
    /// Commit once before the first record is read (log size 0): coverage of the first anchor starts there.
    ///
    /// # Errors
    /// [`StoreError::BadCommit`] when the offset goes back (the store stays usable); [`StoreError::Fork`],
    /// [`StoreError::Fenced`], [`StoreError::Remote`] and [`StoreError::Io`], after which it must be opened again. The
    /// error of a commit begun before ([`LaneStore::begin_commit`]) comes first.
    pub fn commit(&mut self, commit: Commit<'_>) -> Result<Arc<Committed>> {
        let job = self.prepare(commit)?;
        let Work::Idle(committer) = &mut self.work else {
            return Err(StoreError::Failed { why: "a commit is under way".into() });
        };
        let outcome = committer.run(job);
        self.noting(outcome)
    }

    /// Begins a commit and returns once the lane may go on: what is appended from now on belongs to the next one. Writing,
    /// fsyncing and copying to the object store happen on a thread of the store's own. Waits for the commit begun before,
    /// so that a lane is never more than one checkpoint ahead of what is durable.
    ///
    /// # Errors
    /// Those of [`LaneStore::commit`], of the commit begun before.
    pub fn begin_commit(&mut self, commit: Commit<'_>) -> Result<()> {
        let job = self.prepare(commit)?;
        let Work::Idle(committer) = std::mem::replace(&mut self.work, Work::Lost) else {
            return Err(StoreError::Failed { why: "a commit is under way".into() });
        };
        let thread = std::thread::Builder::new().name("avouch-commit".into()).spawn(move || {
            let mut committer = committer;
            let outcome = committer.run(job);
            (committer, outcome)
        });
        let outcome = thread.map_err(io::failed("start a thread for", &self.dir));
        self.work = Work::Busy(self.noting(outcome)?);
        Ok(())
    }

    /// The outcome of a commit that was begun, if it has ended since.
    ///
    /// # Errors
    /// Those of [`LaneStore::commit`].
    pub fn poll_commit(&mut self) -> Result<Option<Arc<Committed>>> {
        match &self.work {
            Work::Busy(thread) if thread.is_finished() => self.finish_commit(),
            _ => Ok(None),
        }
    }

    /// Whether a commit that was begun is under way.
    pub fn is_committing(&self) -> bool {
        matches!(&self.work, Work::Busy(thread) if !thread.is_finished())
    }

    /// Waits for a commit that was begun, if there is one.
    ///
    /// # Errors
    /// Those of [`LaneStore::commit`].
    pub fn finish_commit(&mut self) -> Result<Option<Arc<Committed>>> {
        let thread = match std::mem::replace(&mut self.work, Work::Lost) {
            Work::Busy(thread) => thread,
            other => {
                self.work = other;
                return Ok(None);
            }
        };
        let outcome = match thread.join() {
            Ok((committer, outcome)) => {
                self.work = Work::Idle(committer);
                outcome
            }
            Err(_) => Err(StoreError::Failed { why: "the committing thread panicked".into() }),
        };
        self.noting(outcome).map(Some)
    }

    /// Waits for the commit before, checks, and hands everything appended to the operating system.
    fn prepare(&mut self, commit: Commit<'_>) -> Result<Job> {
        self.usable()?;
        if matches!(self.work, Work::Busy(_)) {
            self.finish_commit()?;
        }
        if self.begun.0 > 0 && commit.next_offset < self.begun.1 {
            let why = format!("its next offset {} is before {}", commit.next_offset, self.begun.1);
            return Err(StoreError::BadCommit { why });
        }
        let outcome = self.prepare_now(commit);
        self.noting(outcome)
    }

    /// The offset that belongs to a size never changes: what was anchored at a size goes on from there, although no
    /// checkpoint is made at that size again. A row whose root is not the log's was never shown, and is dropped.
    fn take_known_rows(&mut self, log_size: u64) -> Result<()> {
        let hashes = StoredHashes { stream: &self.shared.hashes, count: stored_hash_count(log_size) };
        while let Some(row) = self.known_rows.pop_front_if(|row| row.log_size <= log_size) {
            let is_new = self.last_row.is_none_or(|size| size < row.log_size);
            if is_new && root_of(row.log_size, &hashes)? == row.root {
                self.history.append(&row.to_bytes())?;
                self.last_row = Some(row.log_size);
            }
        }
        Ok(())
    }

    fn prepare_now(&mut self, commit: Commit<'_>) -> Result<Job> {
        let (log_size, root) = (self.appender.size(), self.appender.root());
        let seq = self.begun.0 + 1;
        let mut unsynced = Unsynced::default();
        if !self.known_rows.is_empty() {
            self.hashes.hand_over(&mut unsynced)?;
            self.take_known_rows(log_size)?;
        }
        if self.last_row.is_none_or(|size| size < log_size) {
            let row = HistoryRow { seq, log_size, next_offset: commit.next_offset, root };
            self.history.append(&row.to_bytes())?;
            self.last_row = Some(log_size);
        }
        for stream in [
            &mut self.records.data,
            &mut self.records.rows,
            &mut self.dead.data,
            &mut self.dead.rows,
            &mut self.events.data,
            &mut self.events.rows,
            &mut self.entries,
            &mut self.hashes,
            &mut self.history,
        ] {
            stream.hand_over(&mut unsynced)?;
        }
        self.begun = (seq, commit.next_offset);
        let last = self.committed();
        Ok(Job {
            committed: Committed {
                seq,
                generation: self.generation,
                made_at: checkpoint::now(),
                origin: last.origin.clone(),
                log_size,
                root,
                next_offset: commit.next_offset,
                watermark: commit.watermark,
                dead_count: self.dead.count,
                event_count: self.events.count,
                config_hash: commit.config_hash,
                topic: commit.topic.to_owned(),
                partition: commit.partition,
                counters: commit.counters.to_vec(),
                state_bytes: commit.lane_state.len() as u64,
                // Known once the state is written.
                new_state_bytes: 0,
                records_len: self.records.data.len(),
                dead_len: self.dead.data.len(),
                events_len: self.events.data.len(),
                history_rows: self.history.len() / history::ROW,
                segment_bytes: last.segment_bytes,
            },
            state: commit.lane_state,
            unsynced,
        })
    }

    /// A reader of what is committed; clones are cheap and may be sent to other threads.
    pub fn reader(&self) -> LaneReader {
        LaneReader::live(Arc::clone(&self.shared), self.told.clone())
    }
}
