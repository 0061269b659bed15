//! The checkpoint of a lane: offsets, lane state and log, tied together.
//!
//! The file holds everything but the state's bytes, of which it has the table (`chunks`). All integers and strings as
//! [`avouch_engine::codec`] writes them, in the order of [`Saved::to_bytes`], and at the end the SHA-256 of what is before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::lane::Snapshot;
use avouch_engine::verdict::Hash32;
use sha2::{Digest, Sha256};

use super::chunks::StateTable;
use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// The first seven bytes of a checkpoint; the eighth is its version.
const MAGIC: &[u8; 7] = b"avouchK";
const VERSION: u8 = b'2';

/// No count or length is larger: what is multiplied from it stays within 64 bits.
const MOST: u64 = 1 << 48;

/// What the lane hands over at a commit.
#[derive(Debug, Clone)]
pub struct Commit<'a> {
    /// Offset of the first source record not yet read. Never goes back.
    pub next_offset: i64,
    /// The lane's snapshot at that offset.
    pub lane_state: Snapshot,
    /// SHA-256 of the canonical pipeline.
    pub config_hash: Hash32,
    /// Source topic.
    pub topic: &'a str,
    /// Source partition.
    pub partition: i32,
    /// The lane's watermark, milliseconds, for those who look at the checkpoint.
    pub watermark: Option<i64>,
    /// Counters of the runtime (rows in, rows used, dead letters by reason …), by name, to be carried over a restart.
    pub counters: &'a [(String, u64)],
}

/// What a durable checkpoint covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Number of the checkpoint; 0 is that of the new, empty store.
    pub seq: u64,
    /// Generation of the writer.
    pub generation: u64,
    /// When it was made by the writer's clock, Unix milliseconds. Nothing is decided by it.
    pub made_at: u64,
    /// Origin of the log.
    pub origin: String,
    /// Entries of the log.
    pub log_size: u64,
    /// Root of the log.
    pub root: Hash32,
    /// Offset of the first source record not read by then.
    pub next_offset: i64,
    /// The lane's watermark, milliseconds.
    pub watermark: Option<i64>,
    /// Dead letters kept.
    pub dead_count: u64,
    /// Events kept: ticks, reference switches, evictions.
    pub event_count: u64,
    /// SHA-256 of the canonical pipeline.
    pub config_hash: Hash32,
    /// Source topic.
    pub topic: String,
    /// Source partition.
    pub partition: i32,
    /// Counters of the runtime, by name.
    pub counters: Vec<(String, u64)>,
    /// Bytes of the lane's state.
    pub state_bytes: u64,
    /// How many of them this checkpoint wrote; the others were written by checkpoints before it.
    pub new_state_bytes: u64,
    pub(super) records_len: u64,
    pub(super) dead_len: u64,
    pub(super) events_len: u64,
    pub(super) history_rows: u64,
    pub(super) segment_bytes: u64,
}

/// A durable checkpoint, as [`super::LaneStore::open`] returns it for the lane to be restored from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// What it covers.
    pub committed: Arc<Committed>,
    /// The lane's snapshot.
    pub lane_state: Vec<u8>,
}

impl Committed {
    /// How many frames of each kind it covers: records, dead letters, events.
    pub(super) fn frames(&self) -> (u64, u64, u64) {
        (self.log_size, self.dead_count, self.event_count)
    }

    /// Checkpoint 0: nothing was read yet.
    pub(super) fn nothing(origin: &str, generation: u64, segment_bytes: u64) -> Self {
        Self {
            seq: 0,
            generation,
            made_at: now(),
            origin: origin.to_owned(),
            log_size: 0,
            root: avouch_engine::log::EMPTY_ROOT,
            next_offset: 0,
            watermark: None,
            dead_count: 0,
            event_count: 0,
            config_hash: [0; 32],
            topic: String::new(),
            partition: 0,
            counters: Vec::new(),
            state_bytes: 0,
            new_state_bytes: 0,
            records_len: 0,
            dead_len: 0,
            events_len: 0,
            history_rows: 0,
            segment_bytes,
        }
    }
}

/// The time, Unix milliseconds.
pub(super) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// A checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Saved {
    pub committed: Arc<Committed>,
    pub table: StateTable,
}

/// Why bytes are no checkpoint.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// Not as they were written.
    Damaged(String),
    /// Whole, but of another version.
    Version(char),
}

impl From<CodecError> for Unreadable {
    fn from(e: CodecError) -> Self {
        Unreadable::Damaged(e.to_string())
    }
}

impl Saved {
    pub fn to_bytes(&self) -> Vec<u8> {
        let c = &*self.committed;
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.u8(VERSION);
        w.u64(c.seq);
        w.u64(c.generation);
        w.u64(c.made_at);
        w.str(&c.origin);
        w.u64(c.log_size);
        w.raw(&c.root);
        w.i64(c.next_offset);
        w.u8(u8::from(c.watermark.is_some()));
        w.i64(c.watermark.unwrap_or_default());
        w.u64(c.dead_count);
        w.u64(c.event_count);
        w.raw(&c.config_hash);
        w.str(&c.topic);
        w.u32(c.partition as u32);
        w.u32(c.counters.len() as u32);
        for (name, n) in &c.counters {
            w.str(name);
            w.u64(*n);
        }
        w.u64(c.records_len);
        w.u64(c.dead_len);
        w.u64(c.events_len);
        w.u64(c.history_rows);
        w.u64(c.segment_bytes);
        w.u64(c.new_state_bytes);
        self.table.write(&mut w);
        seal(w)
    }

    pub fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, Unreadable> {
        let mut r = unseal("checkpoint", bytes, MAGIC, VERSION)?;
        let (seq, generation, made_at) = (r.u64()?, r.u64()?, r.u64()?);
        let origin = r.str()?.to_owned();
        let (log_size, root) = (r.u64()?, r.array()?);
        let next_offset = r.i64()?;
        let watermark = match (r.u8()?, r.i64()?) {
            (0, _) => None,
            (_, w) => Some(w),
        };
        let dead_count = r.u64()?;
        let event_count = r.u64()?;
        let config_hash = r.array()?;
        let topic = r.str()?.to_owned();
        let partition = r.u32()? as i32;
        let n = r.count(12)?;
        let mut counters = Vec::with_capacity(n);
        for _ in 0..n {
            counters.push((r.str()?.to_owned(), r.u64()?));
        }
        let (records_len, dead_len, events_len) = (r.u64()?, r.u64()?, r.u64()?);
        let history_rows = r.u64()?;
        let (segment_bytes, new_state_bytes) = (r.u64()?, r.u64()?);
        let table = StateTable::from_reader(&mut r)?;
        let sizes = [log_size, dead_count, event_count, records_len, dead_len, events_len, history_rows];
        if segment_bytes == 0 || sizes.into_iter().chain([segment_bytes, table.len]).any(|n| n > MOST) {
            return Err(r.invalid("its counts and lengths are of no lane: none is over 2⁴⁸").into());
        }
        r.finish()?;
        let committed = Arc::new(Committed {
            seq,
            generation,
            made_at,
            origin,
            log_size,
            root,
            next_offset,
            watermark,
            dead_count,
            event_count,
            config_hash,
            topic,
            partition,
            counters,
            state_bytes: table.len,
            new_state_bytes,
            records_len,
            dead_len,
            events_len,
            history_rows,
            segment_bytes,
        });
        Ok(Self { committed, table })
    }
}

/// Puts the SHA-256 of all that was written at the end.
pub(super) fn seal(mut w: Writer) -> Vec<u8> {
    let digest = Sha256::digest(&w.bytes);
    w.raw(&digest);
    w.bytes
}

/// Checks the SHA-256 at the end and the version at the start, and reads what is between.
pub(super) fn unseal<'a>(
    what: &'static str,
    bytes: &'a [u8],
    magic: &[u8; 7],
    version: u8,
) -> std::result::Result<Reader<'a>, Unreadable> {
    let Some(body) = bytes.len().checked_sub(32).filter(|n| *n >= 8) else {
        return Err(Unreadable::Damaged(format!("{} bytes are too few for a {what}", bytes.len())));
    };
    if Sha256::digest(&bytes[..body])[..] != bytes[body..] {
        return Err(Unreadable::Damaged("it was altered or cut: its SHA-256 is not the one at its end".into()));
    }
    let mut r = Reader::new(what, &bytes[..body]);
    if r.array::<7>()? != *magic {
        return Err(r.invalid(format!("these bytes are no {what}")).into());
    }
    match r.u8()? {
        v if v == version => Ok(r),
        other => Err(Unreadable::Version(char::from(other))),
    }
}

pub(super) fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(file_name(seq))
}

pub(super) fn file_name(seq: u64) -> String {
    format!("checkpoint-{seq:020}")
}

/// The checkpoint files of a directory, newest first.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>> {
    let mut seqs: Vec<u64> = io::list(dir)?.iter().filter_map(|n| numbered(n, "checkpoint-")).collect();
    seqs.sort_unstable_by(|a, b| b.cmp(a));
    Ok(seqs)
}

/// The number in `<prefix><20 digits>`.
pub(super) fn numbered(name: &str, prefix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?;
    if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Reads one. The outer error is the environment's, or another version's; the inner says why the file is no good.
pub(super) fn read(dir: &Path, seq: u64) -> Result<std::result::Result<Saved, String>> {
    let path = path(dir, seq);
    let Some(bytes) = io::read_if_there(&path)? else {
        return Ok(Err("it is gone".into()));
    };
    parse(&bytes, seq, &path.display().to_string())
}

/// Reads the bytes of checkpoint `seq`, which `place` names in errors.
pub(super) fn parse(bytes: &[u8], seq: u64, place: &str) -> Result<std::result::Result<Saved, String>> {
    match Saved::from_bytes(bytes) {
        Ok(c) if c.committed.seq != seq => Ok(Err(format!("it is number {} under another's name", c.committed.seq))),
        Ok(c) => Ok(Ok(c)),
        Err(Unreadable::Damaged(why)) => Ok(Err(why)),
        Err(Unreadable::Version(found)) => {
            Err(StoreError::Version { place: place.to_owned(), found, expected: char::from(VERSION) })
        }
    }
}

/// Writes one durably.
pub(super) fn write(dir: &Path, seq: u64, bytes: &[u8]) -> Result<()> {
    io::replace(&path(dir, seq), bytes, true)?;
    io::sync_dir(dir)
}
