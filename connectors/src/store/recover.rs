//! Opening a store: which checkpoint stands, what is cut off, what is mended.
//!
//! Nothing is changed before a usable checkpoint is found. A failure of the environment (rights, open files) is an
//! error and never taken for damage.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use avouch_engine::event::LaneEvent;
use avouch_engine::log::{TreeAppender, stored_hash_count};
use avouch_engine::verdict::{Hash32, Logged};

use super::checkpoint::{self, Committed, Saved};
use super::chunks::{self, StateTable};
use super::frame::{FrameReader, push_row};
use super::high_water::HighWater;
use super::history::{self, HistoryRow};
use super::lock::LaneLock;
use super::replay::{Replay, Until};
use super::stream::{Layout, StreamReader, StreamWriter};
use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;
/// What is to be made again, and why.
type Rebuild = Vec<(Derived, String)>;

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
    /// Inputs of the lane recorded beyond the checkpoint in use, in order, which verdicts that were shown may rest on: the
    /// lane takes each again after the record it stands behind, and makes none of its own before it has taken the last.
    pub replay: Vec<LaneEvent>,
    /// Events that a newer checkpoint covered and that are not there any more. If inputs were among them, the log may not
    /// regrow to what was shown; a commit that would contradict it fails.
    pub lost_events: u64,
    /// Bytes brought from the object store because they were not here, or not as they should be.
    pub downloaded: u64,
}

/// The files of a lane.
#[derive(Debug)]
pub(super) struct Files {
    pub records: (Layout, Layout),
    pub dead: (Layout, Layout),
    pub events: (Layout, Layout),
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
            events: (at("events"), at("event-offsets")),
            entries: at("entries"),
            hashes: at("hashes"),
            history: at("history"),
        }
    }

    pub fn all(&self) -> [&Layout; 9] {
        let Self { records, dead, events, entries, hashes, history } = self;
        [&records.0, &records.1, &dead.0, &dead.1, entries, hashes, history, &events.0, &events.1]
    }

    /// How long each is under a checkpoint, in the order of [`Files::all`].
    pub fn lengths(c: &Committed) -> [u64; 9] {
        let row = super::frame::ROW;
        [
            c.records_len,
            c.log_size * row,
            c.dead_len,
            c.dead_count * row,
            c.log_size * 32,
            stored_hash_count(c.log_size) * 32,
            c.history_rows * history::ROW,
            c.events_len,
            c.event_count * row,
        ]
    }

    /// The runs that do not follow from others, and are copied to an object store.
    pub fn copied(&self) -> [&Layout; 4] {
        [&self.records.0, &self.dead.0, &self.history, &self.events.0]
    }

    /// Whether a run that follows from others is not there in full.
    pub fn derived_are_short(&self, c: &Committed) -> Result<bool> {
        let [_, offsets, _, dead_offsets, entries, hashes, _, _, event_offsets] = Self::lengths(c);
        let derived = [
            (&self.records.1, offsets),
            (&self.dead.1, dead_offsets),
            (&self.events.1, event_offsets),
            (&self.entries, entries),
            (&self.hashes, hashes),
        ];
        for (layout, need) in derived {
            if layout.disk_len()? < need {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub fn records_reader(&self) -> FrameReader {
        FrameReader::new(self.records.0.clone(), self.records.1.clone())
    }
    pub fn dead_reader(&self) -> FrameReader {
        FrameReader::new(self.dead.0.clone(), self.dead.1.clone())
    }
    pub fn events_reader(&self) -> FrameReader {
        FrameReader::new(self.events.0.clone(), self.events.1.clone())
    }
}

/// The outcome of opening.
pub(super) struct Opened {
    pub saved: Saved,
    pub state: Vec<u8>,
    /// Where the state of the checkpoint before lies; nowhere if it is not there.
    pub before: StateTable,
    /// The packs that each checkpoint here refers to, by its number.
    pub packs: BTreeMap<u64, Vec<String>>,
    pub appender: TreeAppender,
    pub files: Files,
    pub recovery: Recovery,
    /// What a checkpoint must cover before `replay` can go.
    pub replay_until: Until,
    /// Rows of the history that stand again once the log has regrown to their sizes.
    pub known_rows: Vec<HistoryRow>,
}

/// What an opening must know besides what is in the directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    /// Bytes of a segment, of a new store.
    pub segment_bytes: u64,
    /// The generation becomes larger than any in the directory and than this.
    pub generation: u64,
    /// Log size that `public/checkpoint` speaks of.
    pub published: u64,
    /// Whether the directory is a copy that was brought to what an object store has: what lies beyond its checkpoint may
    /// then be of another history, and what is to be replayed is in `replay` already.
    pub copy: bool,
}

/// Opens a locked directory.
pub(super) fn open(dir: &Path, origin: &str, lock: &mut LaneLock, around: Around) -> Result<Opened> {
    let Around { segment_bytes, generation, published, copy } = around;
    for name in io::list(dir)?.iter().filter(|n| n.ends_with(".tmp")) {
        io::remove(&dir.join(name))?;
    }
    let seqs = checkpoint::list(dir)?;
    let Some(&newest) = seqs.first() else {
        return begin(dir, origin, lock, segment_bytes, generation);
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
    let since = good().map(|c| c.frames()).min().unwrap_or((0, 0, 0));
    let newest_generation = good().map(|c| c.generation).max().unwrap_or(0).max(generation);
    let names = |t: &StateTable| t.packs.iter().map(|p| p.name.clone()).collect();
    let mut packs: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut tables: BTreeMap<u64, StateTable> = BTreeMap::new();
    for (seq, c) in &read {
        if let Ok(c) = c {
            packs.insert(*seq, names(&c.table));
            tables.insert(*seq, c.table.clone());
        }
    }

    let mut chosen = None;
    let mut rejected = Vec::new();
    for (seq, c) in read {
        let why = match c {
            Err(why) => why,
            Ok(c) => match examine(dir, &c, since)? {
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
        recovery.damaged.push(Damage { file: checkpoint::file_name(seq), why });
    }
    let Some((saved, found)) = chosen else {
        let line = |d: &Damage| format!("\n  {}: {}", d.file, d.why);
        let reasons = recovery.damaged.iter().map(line).collect();
        return Err(StoreError::NoUsableCheckpoint { dir: dir.to_path_buf(), reasons });
    };
    let c = Arc::clone(&saved.committed);
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
    let mut replay = Replay::read(dir)?.beyond(&c);
    if !copy && (newest != c.seq || recovery.high_water.is_some() || published > c.log_size) {
        // If every newer checkpoint can be read, it is known how many events were durable under one.
        let covered = rejected.iter().map(|r| r.event_count).max().unwrap_or(c.event_count);
        let all_known = newest != c.seq && rejected.len() == recovery.damaged.len();
        let there = replay.take_run(&files, c.events_len, c.event_count, all_known.then_some(covered))?;
        recovery.lost_events = covered.saturating_sub(there.max(replay.until().events));
        replay.take_history(&files, &c)?;
    }
    replay.keep(dir)?;
    if recovery.lost_events > 0 {
        tracing::error!(
            dir = %dir.display(), lost = recovery.lost_events,
            "events that a damaged checkpoint covered are gone; if ticks or switches of reference tables were among them, \
             the log may not regrow to what was shown, and is refused then"
        );
    }
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
    // What a checkpoint wrote that never came to be. Those of a checkpoint just put aside stay until the next opening.
    for name in chunks::list(dir)? {
        if !packs.values().flatten().any(|n| *n == name) {
            io::remove(&dir.join(name))?;
        }
    }
    packs.retain(|seq, _| *seq <= c.seq);
    // What later checkpoints refer to must be good now: one built on damage would be damaged from the start.
    let before = match tables.range(..c.seq).next_back() {
        Some((_, table)) if table.read(dir)?.is_ok() => table.clone(),
        _ => StateTable::default(),
    };
    io::sync_dir(dir)?;
    if !recovery.cut_off.is_empty() {
        tracing::info!(
            dir = %dir.display(), checkpoint = c.seq, cut_off = ?recovery.cut_off,
            "what was appended after the last checkpoint is cut off and will be made again"
        );
    }
    if !replay.inputs.is_empty() {
        tracing::warn!(
            dir = %dir.display(), checkpoint = c.seq, inputs = replay.inputs.len(),
            "ticks and switches of reference tables beyond the checkpoint in use are taken again at their places"
        );
    }
    let (replay_until, known_rows) = (replay.until(), replay.rows.into_values().collect());
    recovery.replay = replay.inputs.into_values().collect();
    let (state, appender) = (found.state, found.appender);
    Ok(Opened { saved, state, before, packs, appender, files, recovery, replay_until, known_rows })
}

/// A new store: checkpoint 0, before any other file.
fn begin(dir: &Path, origin: &str, lock: &mut LaneLock, segment_bytes: u64, generation: u64) -> Result<Opened> {
    let belongs = |n: &&String| n.as_str() != "lock" && !n.starts_with("cursor-");
    if let Some(found) = io::list(dir)?.iter().find(belongs) {
        return Err(StoreError::MissingCheckpoints { dir: dir.to_path_buf(), found: found.clone() });
    }
    let generation = lock.begin(generation)?;
    let nothing = Committed::nothing(origin, generation, segment_bytes.max(1));
    let saved = Saved { committed: Arc::new(nothing), table: StateTable::default() };
    checkpoint::write(dir, 0, &saved.to_bytes())?;
    let files = Files::new(dir, segment_bytes);
    let recovery = Recovery { fresh: true, ..Recovery::default() };
    let packs = BTreeMap::from([(0, Vec::new())]);
    Ok(Opened {
        saved,
        state: Vec::new(),
        before: StateTable::default(),
        packs,
        appender: TreeAppender::new(),
        files,
        recovery,
        replay_until: Until::default(),
        known_rows: Vec::new(),
    })
}

/// What must be rebuilt under a checkpoint that is otherwise good.
#[derive(Debug)]
pub(super) struct Found {
    /// The lane's snapshot.
    pub state: Vec<u8>,
    appender: TreeAppender,
    rebuild: Rebuild,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Derived {
    /// Entries, hashes and record offsets, from the records.
    Log,
    /// Hashes, from the entries.
    Hashes,
    /// Dead-letter offsets, from the dead letters.
    DeadOffsets,
    /// Event offsets, from the events.
    EventOffsets,
}

/// Whether the data a checkpoint covers is there and gives its root; if not, why. Frames after `since` (records, dead
/// letters, events) are checked one by one, and changes nothing.
pub(super) fn examine(dir: &Path, saved: &Saved, since: (u64, u64, u64)) -> Result<std::result::Result<Found, String>> {
    let c = &*saved.committed;
    let state = match saved.table.read(dir)? {
        Ok(state) => state,
        Err(bad) => {
            let each: Vec<String> = bad.into_iter().map(|(pack, why)| format!("{pack}: {why}")).collect();
            return Ok(Err(each.join("; ")));
        }
    };
    let files = Files::new(dir, c.segment_bytes);
    let lengths = Files::lengths(c);
    let mut short = [false; 9];
    for ((layout, need), short) in files.all().into_iter().zip(lengths).zip(&mut short) {
        *short = layout.disk_len()? < need;
    }
    for i in [0, 2, 6, 7] {
        if short[i] {
            let (name, have) = (files.all()[i].name, files.all()[i].disk_len()?);
            return Ok(Err(format!("it covers {} bytes of {name} but {have} are there", lengths[i])));
        }
    }
    match examine_whole(&files, c, since, short) {
        Err(StoreError::Damaged { file, why }) => Ok(Err(format!("{file}: {why}"))),
        Err(e) => Err(e),
        Ok(found) => Ok(found.map(|(appender, rebuild)| Found { state, appender, rebuild })),
    }
}

fn examine_whole(
    files: &Files,
    c: &Committed,
    since: (u64, u64, u64),
    short: [bool; 9],
) -> Result<std::result::Result<(TreeAppender, Rebuild), String>> {
    let [_, offsets_short, _, dead_offsets_short, entries_short, hashes_short, _, _, event_offsets_short] = short;
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

    let kept = [
        (files.dead_reader(), dead_offsets_short, since.1, c.dead_count, c.dead_len, Derived::DeadOffsets),
        (files.events_reader(), event_offsets_short, since.2, c.event_count, c.events_len, Derived::EventOffsets),
    ];
    for (frames, offsets_short, since, count, len, derived) in kept {
        let what = derived.of();
        if !offsets_short && frames.rows_are_good(count, len)? {
            frames.check(since.min(count), count)?;
            continue;
        }
        let mut there = 0;
        frames.walk(len, |_, _, _| {
            there += 1;
            Ok(())
        })?;
        if there != count {
            return Ok(Err(format!("it covers {count} {what} but {there} are there")));
        }
        rebuild.push((derived, format!("the table of offsets of {what} is wrong")));
    }

    if c.history_rows > 0 {
        match last_history_row(files, c.history_rows)? {
            Some(row) if row.log_size < c.log_size || (row.log_size == c.log_size && row.root == c.root) => {}
            Some(_) => return Ok(Err("the last row of the history contradicts it".into())),
            None => return Ok(Err("the last row of the history is damaged".into())),
        }
    }
    Ok(Ok((appender, rebuild)))
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
        let record = Logged::from_bytes(payload).map_err(|e| damaged(e.to_string()))?;
        if record.index() != number {
            return Err(damaged(format!("it says that it is record {}", record.index())));
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
            Derived::EventOffsets => "event-offsets",
        }
    }

    /// What it is made from.
    fn of(self) -> &'static str {
        match self {
            Derived::Log => "records",
            Derived::Hashes => "entries",
            Derived::DeadOffsets => "dead letters",
            Derived::EventOffsets => "events",
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
            Derived::DeadOffsets => rebuild_rows(&files.dead_reader(), c.dead_len, fresh(&files.dead.1)?)?,
            Derived::EventOffsets => rebuild_rows(&files.events_reader(), c.events_len, fresh(&files.events.1)?)?,
        }
        Ok(())
    }
}

fn rebuild_rows(frames: &FrameReader, len: u64, mut rows: StreamWriter) -> Result<()> {
    frames.walk(len, |number, end, _| rows.append_with(|b| push_row(number, end, b)))?;
    rows.sync()?;
    Ok(())
}

/// Makes all runs that follow from others, as [`super::LaneStore::open`] does where they are damaged.
pub(super) fn derive(files: &Files, c: &Committed) -> Result<()> {
    Derived::Log.rebuild(files, c)?;
    Derived::DeadOffsets.rebuild(files, c)?;
    Derived::EventOffsets.rebuild(files, c)
}
