//! Opening a store: which checkpoint stands, what is cut off, what is mended.
//!
//! Nothing is changed before a usable checkpoint is found. A failure of the environment (rights, open files) is an
//! error and never taken for damage.

use std::path::Path;
use std::sync::Arc;

use avouch_engine::log::{TreeAppender, stored_hash_count};
use avouch_engine::verdict::{Hash32, VerdictRecord};

use super::checkpoint::{self, Checkpoint, Committed};
use super::frame::{FrameReader, push_row};
use super::history::{self, HistoryRow};
use super::lock::LaneLock;
use super::stream::{Layout, StreamReader, StreamWriter};
use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// Something that was not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Which file.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
}

/// What opening a store found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The store is new.
    pub fresh: bool,
    /// Number of the checkpoint in use.
    pub checkpoint: u64,
    /// Newer checkpoints that could not be used, newest first. Not empty: look into it, the disk lost something.
    pub damaged: Vec<Damage>,
    /// Derived files that were wrong and have been rebuilt.
    pub rebuilt: Vec<Damage>,
    /// Bytes appended after the checkpoint and cut off, by file; what a kill leaves behind.
    pub cut_off: Vec<(String, u64)>,
    /// The size and root that readers were shown before the fall-back; the log must regrow to it.
    pub high_water: Option<(u64, Hash32)>,
}

/// The files of a lane.
#[derive(Debug)]
pub(super) struct Files {
    pub records: (Layout, Layout),
    pub dead: (Layout, Layout),
    pub entries: Layout,
    pub hashes: Layout,
    pub history: Layout,
}

impl Files {
    pub fn new(dir: &Path, segment_bytes: u64) -> Self {
        let at = |name| Layout::new(dir, name, segment_bytes);
        Self {
            records: (at("records"), at("offsets")),
            dead: (at("dead"), at("dead-offsets")),
            entries: at("entries"),
            hashes: at("hashes"),
            history: at("history"),
        }
    }

    pub fn all(&self) -> [&Layout; 7] {
        let Self { records, dead, entries, hashes, history } = self;
        [&records.0, &records.1, &dead.0, &dead.1, entries, hashes, history]
    }

    /// How long each is under a checkpoint, in the order of [`Files::all`].
    pub fn lengths(c: &Committed) -> [u64; 7] {
        let row = super::frame::ROW;
        [
            c.records_len,
            c.log_size * row,
            c.dead_len,
            c.dead_count * row,
            c.log_size * 32,
            stored_hash_count(c.log_size) * 32,
            c.history_rows * history::ROW,
        ]
    }

    pub fn records_reader(&self) -> FrameReader {
        FrameReader::new(self.records.0.clone(), self.records.1.clone())
    }
    pub fn dead_reader(&self) -> FrameReader {
        FrameReader::new(self.dead.0.clone(), self.dead.1.clone())
    }
}

/// The outcome of opening.
pub(super) struct Opened {
    pub checkpoint: Checkpoint,
    pub appender: TreeAppender,
    pub files: Files,
    pub recovery: Recovery,
}

/// Opens a locked directory.
pub(super) fn open(dir: &Path, origin: &str, lock: &mut LaneLock, segment_bytes: u64) -> Result<Opened> {
    for name in io::list(dir)?.iter().filter(|n| n.ends_with(".tmp")) {
        io::remove(&dir.join(name))?;
    }
    let seqs = checkpoint::list(dir)?;
    let Some(&newest) = seqs.first() else {
        return begin(dir, origin, lock, segment_bytes);
    };
    let mut recovery = Recovery::default();
    let mut read = Vec::new();
    for &seq in &seqs {
        match checkpoint::read(dir, seq)? {
            Ok(c) if c.committed.origin != origin => {
                return Err(StoreError::WrongLog {
                    dir: dir.to_path_buf(),
                    found: c.committed.origin.clone(),
                    expected: origin.to_owned(),
                });
            }
            Ok(c) => read.push((seq, Ok(c))),
            Err(why) => read.push((seq, Err(why))),
        }
    }
    // A torn or lost write can only concern what was written since the oldest checkpoint kept: read that again.
    let good = || read.iter().filter_map(|(_, c)| c.as_ref().ok().map(|c| &c.committed));
    let since = good().map(|c| (c.log_size, c.dead_count)).min().unwrap_or((0, 0));
    let newest_generation = good().map(|c| c.generation).max().unwrap_or(0);

    let mut chosen = None;
    let mut rejected = Vec::new();
    for (seq, c) in read {
        let why = match c {
            Err(why) => why,
            Ok(c) => match examine(dir, &c.committed, since)? {
                Ok(found) => {
                    chosen = Some((c, found));
                    break;
                }
                Err(why) => {
                    rejected.push(c.committed);
                    why
                }
            },
        };
        recovery.damaged.push(Damage { file: format!("checkpoint-{seq:020}"), why });
    }
    let Some((checkpoint, found)) = chosen else {
        let line = |d: &Damage| format!("\n  {}: {}", d.file, d.why);
        let reasons = recovery.damaged.iter().map(line).collect();
        return Err(StoreError::NoUsableCheckpoint { dir: dir.to_path_buf(), reasons });
    };
    let c = Arc::clone(&checkpoint.committed);
    let files = Files::new(dir, c.segment_bytes);
    recovery.checkpoint = c.seq;
    for d in &recovery.damaged {
        tracing::error!(
            dir = %dir.display(), file = d.file, why = d.why,
            "a checkpoint cannot be used; falling back to checkpoint {} at log size {}", c.seq, c.log_size
        );
    }

    // From here on the directory changes; every step can be repeated if we are killed in it.
    lock.begin(newest_generation)?;
    recovery.high_water = HighWater::keep(dir, &files, &c, newest, &rejected)?;
    for d in &recovery.damaged {
        io::rename(&dir.join(&d.file), &dir.join(format!("damaged-{}", d.file)))?;
    }
    for (layout, len) in files.all().into_iter().zip(Files::lengths(&c)) {
        let cut = layout.truncate(len)?;
        if cut > 0 {
            recovery.cut_off.push((layout.name.to_owned(), cut));
        }
    }
    for (what, why) in found.rebuild {
        tracing::error!(dir = %dir.display(), file = what.name(), why, "a derived file is wrong and is rebuilt");
        what.rebuild(&files, &c)?;
        recovery.rebuilt.push(Damage { file: what.name().to_owned(), why });
    }
    io::sync_dir(dir)?;
    if !recovery.cut_off.is_empty() {
        tracing::info!(
            dir = %dir.display(), checkpoint = c.seq, cut_off = ?recovery.cut_off,
            "what was appended after the last checkpoint is cut off and will be made again"
        );
    }
    Ok(Opened { checkpoint, appender: found.appender, files, recovery })
}

/// A new store: checkpoint 0, before any other file.
fn begin(dir: &Path, origin: &str, lock: &mut LaneLock, segment_bytes: u64) -> Result<Opened> {
    let belongs = |n: &&String| n.as_str() != "lock" && !n.starts_with("cursor-");
    if let Some(found) = io::list(dir)?.iter().find(belongs) {
        return Err(StoreError::MissingCheckpoints { dir: dir.to_path_buf(), found: found.clone() });
    }
    let generation = lock.begin(0)?;
    let nothing = Committed::nothing(origin, generation, segment_bytes.max(1));
    let checkpoint = Checkpoint { committed: Arc::new(nothing), lane_state: Vec::new() };
    checkpoint::write(dir, &checkpoint)?;
    let files = Files::new(dir, segment_bytes);
    let recovery = Recovery { fresh: true, ..Recovery::default() };
    Ok(Opened { checkpoint, appender: TreeAppender::new(), files, recovery })
}

/// What must be rebuilt under a checkpoint that is otherwise good.
pub(super) struct Found {
    appender: TreeAppender,
    rebuild: Vec<(Derived, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Derived {
    /// Entries, hashes and record offsets, from the records.
    Log,
    /// Hashes, from the entries.
    Hashes,
    /// Dead-letter offsets, from the dead letters.
    DeadOffsets,
}

/// Whether the data a checkpoint covers is there and gives its root; if not, why. Frames after `since` (records, dead
/// letters) are checked one by one, and changes nothing.
pub(super) fn examine(dir: &Path, c: &Committed, since: (u64, u64)) -> Result<std::result::Result<Found, String>> {
    let files = Files::new(dir, c.segment_bytes);
    let lengths = Files::lengths(c);
    let mut short = [false; 7];
    for ((layout, need), short) in files.all().into_iter().zip(lengths).zip(&mut short) {
        *short = layout.disk_len()? < need;
    }
    for i in [0, 2, 6] {
        if short[i] {
            let (name, have) = (files.all()[i].name, files.all()[i].disk_len()?);
            return Ok(Err(format!("it covers {} bytes of {name} but {have} are there", lengths[i])));
        }
    }
    match examine_whole(&files, c, since, short) {
        Err(StoreError::Damaged { file, why }) => Ok(Err(format!("{file}: {why}"))),
        Err(e) => Err(e),
        Ok(found) => Ok(found),
    }
}

fn examine_whole(
    files: &Files,
    c: &Committed,
    since: (u64, u64),
    short: [bool; 7],
) -> Result<std::result::Result<Found, String>> {
    let [_, offsets_short, _, dead_offsets_short, entries_short, hashes_short, _] = short;
    let mut rebuild = Vec::new();
    let records = files.records_reader();

    // The log from its entries, comparing the stored hashes on the way.
    let (mut appender, mut hashes_differ) = (TreeAppender::new(), hashes_short);
    let mut log_wrong = None;
    if entries_short {
        log_wrong = Some("entries are missing".to_owned());
    } else {
        appender = read_entries(files, c, &mut hashes_differ)?;
        if appender.root() != c.root {
            log_wrong = Some("the entries do not give the checkpoint's root".to_owned());
        }
    }
    if log_wrong.is_none() && (offsets_short || !records.rows_are_good(c.log_size, c.records_len)?) {
        log_wrong = Some("the table of record offsets is wrong".to_owned());
    }
    match log_wrong {
        None => {
            records.check(since.0.min(c.log_size), c.log_size)?;
            if hashes_differ {
                rebuild.push((Derived::Hashes, "they are not those of the entries".into()));
            }
        }
        Some(why) => {
            let mut again = TreeAppender::new();
            let mut unused = Vec::new();
            walk_records(&records, c, |_, _, entry| {
                unused.clear();
                again.append(entry, &mut unused);
                Ok(())
            })?;
            if again.size() != c.log_size || again.root() != c.root {
                return Ok(Err(format!("{why}, and the records do not give its root either")));
            }
            appender = again;
            rebuild.push((Derived::Log, why));
        }
    }

    let dead = files.dead_reader();
    if dead_offsets_short || !dead.rows_are_good(c.dead_count, c.dead_len)? {
        let mut count = 0;
        dead.walk(c.dead_len, |_, _, _| {
            count += 1;
            Ok(())
        })?;
        if count != c.dead_count {
            return Ok(Err(format!("it covers {} dead letters but {count} are there", c.dead_count)));
        }
        rebuild.push((Derived::DeadOffsets, "the table of dead-letter offsets is wrong".into()));
    } else {
        dead.check(since.1.min(c.dead_count), c.dead_count)?;
    }

    if c.history_rows > 0 {
        match last_history_row(files, c.history_rows)? {
            Some(row) if row.log_size < c.log_size || (row.log_size == c.log_size && row.root == c.root) => {}
            Some(_) => return Ok(Err("the last row of the history contradicts it".into())),
            None => return Ok(Err("the last row of the history is damaged".into())),
        }
    }
    Ok(Ok(Found { appender, rebuild }))
}

fn read_entries(files: &Files, c: &Committed, hashes_differ: &mut bool) -> Result<TreeAppender> {
    let entries = StreamReader::new(files.entries.clone());
    let hashes = StreamReader::new(files.hashes.clone());
    let mut appender = TreeAppender::new();
    let (mut stored, mut there, mut at) = (Vec::new(), Vec::new(), 0);
    entries.chunks(c.log_size * 32, 32, |bytes| {
        stored.clear();
        for entry in bytes.chunks_exact(32) {
            let mut e = [0; 32];
            e.copy_from_slice(entry);
            appender.append(&e, &mut stored);
        }
        if !*hashes_differ {
            there.resize(stored.len(), 0);
            hashes.read_exact(at, &mut there)?;
            *hashes_differ = there != stored;
        }
        at += stored.len() as u64;
        Ok(())
    })?;
    Ok(appender)
}

/// Goes through the records without the table: number, end, entry.
fn walk_records(
    records: &FrameReader,
    c: &Committed,
    mut f: impl FnMut(u64, u64, &Hash32) -> Result<()>,
) -> Result<()> {
    records.walk(c.records_len, |number, end, payload| {
        let damaged = |why: String| StoreError::Damaged { file: format!("records, record {number}"), why };
        let record = VerdictRecord::from_bytes(payload).map_err(|e| damaged(e.to_string()))?;
        if record.index != number {
            return Err(damaged(format!("it says that it is record {}", record.index)));
        }
        f(number, end, &record.entry())
    })
}

fn last_history_row(files: &Files, rows: u64) -> Result<Option<HistoryRow>> {
    let bytes = StreamReader::new(files.history.clone()).read((rows - 1) * history::ROW, history::ROW as usize)?;
    Ok(HistoryRow::from_bytes(&bytes))
}

impl Derived {
    fn name(self) -> &'static str {
        match self {
            Derived::Log => "entries, hashes, offsets",
            Derived::Hashes => "hashes",
            Derived::DeadOffsets => "dead-offsets",
        }
    }

    fn rebuild(self, files: &Files, c: &Committed) -> Result<()> {
        let fresh = |layout: &Layout| -> Result<StreamWriter> {
            layout.truncate(0)?;
            Ok(StreamWriter::new(layout.clone(), 0))
        };
        let mut tree = TreeAppender::new();
        match self {
            Derived::Log => {
                let mut entries = fresh(&files.entries)?;
                let mut hashes = fresh(&files.hashes)?;
                let mut rows = fresh(&files.records.1)?;
                walk_records(&files.records_reader(), c, |number, end, entry| {
                    entries.append(entry)?;
                    hashes.append_with(|b| tree.append(entry, b))?;
                    rows.append_with(|b| push_row(number, end, b))
                })?;
                for stream in [&mut entries, &mut hashes, &mut rows] {
                    stream.sync()?;
                }
            }
            Derived::Hashes => {
                let mut hashes = fresh(&files.hashes)?;
                StreamReader::new(files.entries.clone()).chunks(c.log_size * 32, 32, |bytes| {
                    for entry in bytes.chunks_exact(32) {
                        let mut e = [0; 32];
                        e.copy_from_slice(entry);
                        hashes.append_with(|b| tree.append(&e, b))?;
                    }
                    Ok(())
                })?;
                hashes.sync()?;
            }
            Derived::DeadOffsets => {
                let mut rows = fresh(&files.dead.1)?;
                files
                    .dead_reader()
                    .walk(c.dead_len, |number, end, _| rows.append_with(|b| push_row(number, end, b)))?;
                rows.sync()?;
            }
        }
        Ok(())
    }
}

/// What readers had been shown when a fall-back became necessary.
pub(super) struct HighWater;

impl HighWater {
    const FILE: &'static str = "high-water";

    /// Writes it on a fall-back, from the rejected checkpoints that can be read and the history rows of those that
    /// cannot; returns what must be met.
    fn keep(
        dir: &Path,
        files: &Files,
        c: &Committed,
        newest: u64,
        rejected: &[Arc<Committed>],
    ) -> Result<Option<(u64, Hash32)>> {
        let path = dir.join(Self::FILE);
        let before =
            match io::read_if_there(&path)? {
                None => None,
                Some(bytes) => Some(HistoryRow::from_bytes(&bytes).ok_or_else(|| {
                    StoreError::Damaged {
                    file: path.display().to_string(),
                    why: "its checksum is wrong; compare the log with what its sinks and anchors hold, then delete it"
                        .into(),
                }
                })?),
            };
        if before.is_some_and(|row| row.log_size <= c.log_size) {
            // The log has met it already; we were killed before it was forgotten.
            Self::clear(dir)?;
        }
        let mut highest = before.filter(|row| row.log_size > c.log_size);
        if newest != c.seq {
            for r in rejected {
                if r.log_size > highest.map_or(c.log_size, |h| h.log_size) {
                    let Committed { seq, log_size, next_offset, root, .. } = **r;
                    highest = Some(HistoryRow { seq, log_size, next_offset, root });
                }
            }
            let history = StreamReader::new(files.history.clone());
            let rows = files.history.disk_len()? / history::ROW;
            for number in c.history_rows..rows {
                let bytes = history.read(number * history::ROW, history::ROW as usize)?;
                // A row is written before its checkpoint: of a later number than the newest, it was never shown.
                if let Some(row) = HistoryRow::from_bytes(&bytes)
                    && row.seq <= newest
                    && row.log_size > highest.map_or(c.log_size, |h| h.log_size)
                {
                    highest = Some(row);
                }
            }
            if let Some(row) = highest {
                io::replace(&path, &row.to_bytes(), true)?;
                io::sync_dir(dir)?;
            }
        }
        Ok(highest.map(|row| (row.log_size, row.root)))
    }

    /// Forgets it, once the log has met it.
    pub fn clear(dir: &Path) -> Result<()> {
        io::remove(&dir.join(Self::FILE))
    }
}
