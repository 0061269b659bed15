//! The reading side: sinks, anchors, bundles. It sees no further than the newest durable checkpoint.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avouch_engine::dead_letter::DeadLetter;
use avouch_engine::event::LaneEvent;
use avouch_engine::log::{self, Coverage, stored_hash_count};
use avouch_engine::verdict::{Hash32, Logged, VerdictRecord};
use tokio::sync::watch;

use super::checkpoint::{self, Committed};
use super::cursor::Cursor;
use super::frame::FrameReader;
use super::history::{self, HistoryRow};
use super::publish::StoredHashes;
use super::recover::Files;
use super::remote::beside::Beside;
use super::stream::StreamReader;
use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// How often a reader beside another process looks for a newer checkpoint.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The files, opened for reading once for all readers of a store.
#[derive(Debug)]
pub(super) struct Shared {
    dir: PathBuf,
    pub records: FrameReader,
    dead: FrameReader,
    events: FrameReader,
    pub entries: StreamReader,
    pub hashes: StreamReader,
    history: StreamReader,
    beside: Option<Beside>,
}

impl Shared {
    pub fn new(dir: &Path, files: &Files, beside: Option<Beside>) -> Self {
        Self {
            dir: dir.to_path_buf(),
            records: files.records_reader(),
            dead: files.dead_reader(),
            events: files.events_reader(),
            entries: StreamReader::new(files.entries.clone()),
            hashes: StreamReader::new(files.hashes.clone()),
            history: StreamReader::new(files.history.clone()),
            beside,
        }
    }

    pub fn history_row(&self, number: u64) -> Result<HistoryRow> {
        let bytes = self.history.read(number * history::ROW, history::ROW as usize)?;
        HistoryRow::from_bytes(&bytes).ok_or_else(|| StoreError::Damaged {
            file: format!("history, row {number}"),
            why: "its checksum is wrong".into(),
        })
    }
}

#[derive(Debug, Clone)]
enum Source {
    /// In the writer's process.
    Live(watch::Receiver<Arc<Committed>>),
    /// Beside another process.
    Beside(Arc<Mutex<Arc<Committed>>>),
}

/// Reads what is committed. Clones share open files.
#[derive(Debug, Clone)]
pub struct LaneReader {
    shared: Arc<Shared>,
    source: Source,
}

/// The newest checkpoint whose data is there and gives its root, without changing or locking anything.
fn newest(dir: &Path) -> Result<Arc<Committed>> {
    // A checkpoint can be pruned between listing and reading it; then a newer one is there.
    let mut reasons = String::new();
    for _ in 0..3 {
        let seqs = checkpoint::list(dir)?;
        if seqs.is_empty() {
            return Err(StoreError::NoStore { dir: dir.to_path_buf() });
        }
        reasons.clear();
        for seq in seqs {
            let why = match checkpoint::read(dir, seq)? {
                Err(why) => why,
                Ok(c) => match covered(dir, &c.committed)? {
                    None => {
                        keep(dir)?;
                        return Ok(c.committed);
                    }
                    Some(why) => why,
                },
            };
            tracing::warn!(dir = %dir.display(), checkpoint = seq, why, "a checkpoint cannot be used");
            reasons.push_str(&format!("\n  checkpoint-{seq:020}: {why}"));
        }
    }
    Err(StoreError::NoUsableCheckpoint { dir: dir.to_path_buf(), reasons })
}

/// Makes sure that a checkpoint seen beside its writer stays. The writer may have renamed it into place and not fsynced the
/// directory yet; a power cut now would take it back, and with it what was anchored on the strength of having seen it.
fn keep(dir: &Path) -> Result<()> {
    match io::sync_dir(dir) {
        // Where nothing can be written, nothing was.
        Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        outcome => outcome,
    }
}

/// Why a checkpoint's data is not there, by lengths and the root from the stored hashes.
fn covered(dir: &Path, c: &Committed) -> Result<Option<String>> {
    let files = Files::new(dir, c.segment_bytes);
    for (layout, need) in files.all().into_iter().zip(Files::lengths(c)) {
        let have = layout.disk_len()?;
        if have < need {
            return Ok(Some(format!("it covers {need} bytes of {} but {have} are there", layout.name)));
        }
    }
    let stream = StreamReader::new(files.hashes.clone());
    let hashes = StoredHashes { stream: &stream, count: stored_hash_count(c.log_size) };
    let root = log::root(c.log_size, &hashes)?;
    Ok((root != c.root).then(|| "the stored hashes do not give its root".to_owned()))
}

impl LaneReader {
    pub(super) fn live(shared: Arc<Shared>, told: watch::Receiver<Arc<Committed>>) -> Self {
        Self { shared, source: Source::Live(told) }
    }

    /// Opens a lane's directory for reading while another process may write it.
    ///
    /// # Errors
    /// [`StoreError::NoStore`] when there is none, [`StoreError::NoUsableCheckpoint`], [`StoreError::Io`].
    pub fn open_read_only(dir: &Path) -> Result<Self> {
        let committed = newest(dir)?;
        let shared = Arc::new(Shared::new(dir, &Files::new(dir, committed.segment_bytes), None));
        Ok(Self { shared, source: Source::Beside(Arc::new(Mutex::new(committed))) })
    }

    /// The lane's directory.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// What the newest durable checkpoint covers. Beside another process: what it did when opened or last refreshed.
    pub fn committed(&self) -> Arc<Committed> {
        match &self.source {
            Source::Live(told) => Arc::clone(&told.borrow()),
            // A panic of another reader leaves the value whole.
            Source::Beside(held) => Arc::clone(&held.lock().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Looks for a newer checkpoint of another process; in the writer's process there is nothing to do.
    ///
    /// # Errors
    /// As [`LaneReader::open_read_only`]; then the old one stands.
    pub fn refresh(&self) -> Result<Arc<Committed>> {
        if let Source::Beside(held) = &self.source {
            let current = self.committed();
            if checkpoint::list(&self.shared.dir)?.first() != Some(&current.seq) {
                let found = newest(&self.shared.dir)?;
                *held.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
        }
        Ok(self.committed())
    }

    /// Waits for a checkpoint after number `seq`. `None` when the writer is gone, so that there will be none.
    ///
    /// # Errors
    /// Those of [`LaneReader::refresh`].
    pub async fn newer_than(&self, seq: u64) -> Result<Option<Arc<Committed>>> {
        match &self.source {
            Source::Live(told) => {
                let mut told = told.clone();
                let newer = told.wait_for(|c| c.seq > seq).await.ok().map(|c| Arc::clone(&c));
                Ok(newer)
            }
            Source::Beside(_) => loop {
                let committed = self.refresh()?;
                if committed.seq > seq {
                    return Ok(Some(committed));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            },
        }
    }

    fn within(&self, what: impl FnOnce() -> String, asked: u64, have: u64) -> Result<()> {
        if asked <= have { Ok(()) } else { Err(StoreError::NotCommitted { what: what(), have }) }
    }

    /// What stands in the log from index `from`, at most `max` and at most some 8 MiB of it; nothing at the end of what is
    /// committed. Each is checked by its checksum and index.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] naming the record, [`StoreError::Io`].
    pub fn records(&self, from: u64, max: usize) -> Result<Vec<Logged>> {
        let to = self.committed().log_size.min(from.saturating_add(max as u64));
        let mut out = Vec::new();
        self.shared.records.read(from, to, |number, payload| {
            out.push(decode_record(number, payload)?);
            Ok(())
        })?;
        Ok(out)
    }

    /// The records among [`LaneReader::records`]: for who wants to know nothing of what was erased.
    ///
    /// # Errors
    /// As there.
    pub fn kept(&self, from: u64, max: usize) -> Result<Vec<VerdictRecord>> {
        Ok(self.records(from, max)?.into_iter().filter_map(Logged::into_record).collect())
    }

    /// The verdict at `index`, checked in full: its struct hash is the log's entry, its evidence is the hashed one. Of one that was
    /// erased, that the entry is the log's.
    ///
    /// # Errors
    /// [`StoreError::NotCommitted`], [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn record(&self, index: u64) -> Result<Logged> {
        let entry = self.entry(index)?;
        let damaged = |why: &str| StoreError::Damaged { file: format!("records, record {index}"), why: why.to_owned() };
        let Some(record) = self.records(index, 1)?.pop() else {
            return Err(damaged("it cannot be read"));
        };
        if record.entry() != entry {
            return Err(damaged("its struct hash is not the log's entry"));
        }
        if let Logged::Record(record) = &record
            && record.evidence.hash() != record.verdict.evidence_hash
        {
            return Err(damaged("its evidence is not the one its verdict was made with"));
        }
        Ok(record)
    }

    /// The verdict at `index`, of one that was not erased.
    ///
    /// # Errors
    /// [`StoreError::Erased`], and those of [`LaneReader::record`].
    pub fn verdict(&self, index: u64) -> Result<VerdictRecord> {
        match self.record(index)? {
            Logged::Record(record) => Ok(record),
            Logged::Erased(_) => Err(StoreError::Erased { log: self.committed().origin.clone(), index }),
        }
    }

    /// Dead letters from number `from`, at most `max` and at most some 8 MiB of them.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] naming the letter, [`StoreError::Io`].
    pub fn dead_letters(&self, from: u64, max: usize) -> Result<Vec<DeadLetter>> {
        let to = self.committed().dead_count.min(from.saturating_add(max as u64));
        let mut out = Vec::new();
        self.shared.dead.read(from, to, |number, payload| {
            out.push(
                DeadLetter::from_bytes(payload)
                    .map_err(|e| StoreError::Damaged { file: format!("dead, letter {number}"), why: e.to_string() })?,
            );
            Ok(())
        })?;
        Ok(out)
    }

    /// Events from number `from`, at most `max` and at most some 8 MiB of them: with the records of the partition, what
    /// a replay of the lane needs.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] naming the event, [`StoreError::Io`].
    pub fn events(&self, from: u64, max: usize) -> Result<Vec<LaneEvent>> {
        let to = self.committed().event_count.min(from.saturating_add(max as u64));
        let mut out = Vec::new();
        self.shared.events.read(from, to, |number, payload| {
            out.push(
                LaneEvent::from_bytes(payload)
                    .map_err(|e| StoreError::Damaged { file: format!("events, event {number}"), why: e.to_string() })?,
            );
            Ok(())
        })?;
        Ok(out)
    }

    /// The log's entry `index`.
    ///
    /// # Errors
    /// [`StoreError::NotCommitted`], [`StoreError::Io`].
    pub fn entry(&self, index: u64) -> Result<Hash32> {
        let have = self.committed().log_size;
        self.within(|| format!("entry {index}"), index.saturating_add(1), have)?;
        let mut entry = [0; 32];
        self.shared.entries.read_exact(index * 32, &mut entry)?;
        Ok(entry)
    }

    fn hashes(&self, size: u64) -> Result<StoredHashes<'_>> {
        let have = self.committed().log_size;
        self.within(|| format!("a log of size {size}"), size, have)?;
        Ok(StoredHashes { stream: &self.shared.hashes, count: stored_hash_count(have) })
    }

    /// The root of the first `size` entries.
    ///
    /// # Errors
    /// [`StoreError::NotCommitted`], [`StoreError::Io`].
    pub fn root(&self, size: u64) -> Result<Hash32> {
        Ok(log::root(size, &self.hashes(size)?)?)
    }

    /// The inclusion proof of entry `index` in the log of `size`, verified before it is returned.
    ///
    /// # Errors
    /// [`StoreError::NotCommitted`]; [`StoreError::Log`] when there is none, or stored hashes were altered.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Vec<Hash32>> {
        let hashes = self.hashes(size)?;
        let proof = log::inclusion_proof(index, size, &hashes)?;
        log::verify_inclusion(&self.entry(index)?, index, size, &proof, &log::root(size, &hashes)?)?;
        Ok(proof)
    }

    /// The consistency proof between the logs of size `old` and `new`, verified before it is returned; empty for
    /// `old` 0.
    ///
    /// # Errors
    /// [`StoreError::NotCommitted`]; [`StoreError::Log`] when there is none, or stored hashes were altered.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash32>> {
        let hashes = self.hashes(new)?;
        let proof = log::consistency_proof(old, new, &hashes)?;
        log::verify_consistency(old, new, &proof, &log::root(old, &hashes)?, &log::root(new, &hashes)?)?;
        Ok(proof)
    }

    /// The first checkpoint that gave the log exactly `size` entries.
    ///
    /// # Errors
    /// [`StoreError::NoSuchSize`] when none did.
    pub fn at_size(&self, size: u64) -> Result<HistoryRow> {
        match self.at_or_below(size)? {
            Some(row) if row.log_size == size => Ok(row),
            _ => Err(StoreError::NoSuchSize { size }),
        }
    }

    /// The last history row with at most `size` entries, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::Io`].
    pub fn at_or_below(&self, size: u64) -> Result<Option<HistoryRow>> {
        // Rows grow in size: the first one beyond, by halving.
        let (mut low, mut high) = (0, self.committed().history_rows);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.shared.history_row(middle)?.log_size <= size {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        if low == 0 { Ok(None) } else { self.shared.history_row(low - 1).map(Some) }
    }

    /// The readings that the entries from `old_size` up to `new_size` answer for; both must be sizes some checkpoint
    /// gave the log ([`LaneReader::at_size`]).
    ///
    /// # Errors
    /// [`StoreError::NoSuchSize`].
    pub fn coverage(&self, old_size: u64, new_size: u64) -> Result<Coverage> {
        let committed = self.committed();
        Ok(Coverage {
            topic: committed.topic.clone(),
            partition: committed.partition,
            from_offset: self.at_size(old_size)?.next_offset,
            to_offset: self.at_size(new_size)?.next_offset,
        })
    }

    /// Tells that a file kept beside the lane has grown behind `from` bytes, and returns when the object store has that; at
    /// once where there is none, or where another process writes the lane: that one copies it with its next checkpoint. The
    /// files are `refused-<sink>` and `signed-checkpoints.jsonl`. Blocks for as long as the object store is away.
    ///
    /// # Errors
    /// [`StoreError::Remote`] when the process wants to end and the object store does not answer; [`StoreError::Io`].
    pub fn copy_beside(&self, file: &str, from: u64) -> Result<()> {
        self.shared.beside.as_ref().map_or(Ok(()), |beside| beside.push(file, from))
    }

    /// The cursor of a sink of this lane.
    ///
    /// # Errors
    /// Those of [`Cursor::open`].
    pub fn cursor(&self, sink: &str) -> Result<Cursor> {
        Cursor::open(&self.shared.dir, sink)
    }
}

fn decode_record(number: u64, payload: &[u8]) -> Result<Logged> {
    let damaged = |why: String| StoreError::Damaged { file: format!("records, record {number}"), why };
    let record = Logged::from_bytes(payload).map_err(|e| damaged(e.to_string()))?;
    if record.index() != number {
        return Err(damaged(format!("it says that it is record {}", record.index())));
    }
    Ok(record)
}
