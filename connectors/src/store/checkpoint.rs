//! The checkpoint of a lane: offsets, lane state and log, tied together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;
use sha2::{Digest, Sha256};

use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

const MAGIC: &[u8; 8] = b"avouchK1";

/// What the lane hands over at a commit.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// Offset of the first source record not yet read. Never goes back.
    pub next_offset: i64,
    /// The lane's snapshot at that offset.
    pub lane_state: &'a [u8],
    /// SHA-256 of the canonical pipeline.
    pub config_hash: Hash32,
    /// Source topic.
    pub topic: &'a str,
    /// Source partition.
    pub partition: i32,
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
    /// Origin of the log.
    pub origin: String,
    /// Entries of the log.
    pub log_size: u64,
    /// Root of the log.
    pub root: Hash32,
    /// Offset of the first source record not read by then.
    pub next_offset: i64,
    /// Dead letters kept.
    pub dead_count: u64,
    /// SHA-256 of the canonical pipeline.
    pub config_hash: Hash32,
    /// Source topic.
    pub topic: String,
    /// Source partition.
    pub partition: i32,
    /// Counters of the runtime, by name.
    pub counters: Vec<(String, u64)>,
    pub(super) records_len: u64,
    pub(super) dead_len: u64,
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
    /// Checkpoint 0: nothing was read yet.
    pub(super) fn nothing(origin: &str, generation: u64, segment_bytes: u64) -> Self {
        Self {
            seq: 0,
            generation,
            origin: origin.to_owned(),
            log_size: 0,
            root: avouch_engine::log::EMPTY_ROOT,
            next_offset: 0,
            dead_count: 0,
            config_hash: [0; 32],
            topic: String::new(),
            partition: 0,
            counters: Vec::new(),
            records_len: 0,
            dead_len: 0,
            history_rows: 0,
            segment_bytes,
        }
    }
}

impl Checkpoint {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let c = &*self.committed;
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.u64(c.seq);
        w.u64(c.generation);
        w.str(&c.origin);
        w.u64(c.log_size);
        w.raw(&c.root);
        w.i64(c.next_offset);
        w.u64(c.dead_count);
        w.raw(&c.config_hash);
        w.str(&c.topic);
        w.u32(c.partition as u32);
        w.u32(c.counters.len() as u32);
        for (name, value) in &c.counters {
            w.str(name);
            w.u64(*value);
        }
        w.u64(c.records_len);
        w.u64(c.dead_len);
        w.u64(c.history_rows);
        w.u64(c.segment_bytes);
        w.bytes(&self.lane_state);
        let digest = Sha256::digest(&w.bytes);
        w.raw(&digest);
        w.bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, CodecError> {
        let mut r = Reader::new("checkpoint", bytes);
        let Some(body) = bytes.len().checked_sub(32) else {
            return Err(r.invalid(format!("{} bytes are too few for a checkpoint", bytes.len())));
        };
        if Sha256::digest(&bytes[..body])[..] != bytes[body..] {
            return Err(r.invalid("its SHA-256 is not the one at its end"));
        }
        if &r.array::<8>()? != MAGIC {
            return Err(r.invalid("these bytes are not a checkpoint of version 1"));
        }
        let seq = r.u64()?;
        let generation = r.u64()?;
        let origin = r.str()?.to_owned();
        let log_size = r.u64()?;
        let root = r.array()?;
        let next_offset = r.i64()?;
        let dead_count = r.u64()?;
        let config_hash = r.array()?;
        let topic = r.str()?.to_owned();
        let partition = r.u32()? as i32;
        let n = r.count(12)?;
        let mut counters = Vec::with_capacity(n);
        for _ in 0..n {
            counters.push((r.str()?.to_owned(), r.u64()?));
        }
        let records_len = r.u64()?;
        let dead_len = r.u64()?;
        let history_rows = r.u64()?;
        let segment_bytes = r.u64()?;
        let lane_state = r.bytes()?.to_vec();
        r.raw(32)?;
        r.finish()?;
        let committed = Arc::new(Committed {
            seq,
            generation,
            origin,
            log_size,
            root,
            next_offset,
            dead_count,
            config_hash,
            topic,
            partition,
            counters,
            records_len,
            dead_len,
            history_rows,
            segment_bytes,
        });
        Ok(Self { committed, lane_state })
    }
}

pub(super) fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("checkpoint-{seq:020}"))
}

/// The checkpoint files of a directory, newest first.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>> {
    let number = |name: &String| {
        let digits = name.strip_prefix("checkpoint-")?;
        if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let mut seqs: Vec<u64> = io::list(dir)?.iter().filter_map(number).collect();
    seqs.sort_unstable_by(|a, b| b.cmp(a));
    Ok(seqs)
}

/// Reads one. The outer error is the environment's, the inner says why the file is no good.
pub(super) fn read(dir: &Path, seq: u64) -> Result<std::result::Result<Checkpoint, String>> {
    let Some(bytes) = io::read_if_there(&path(dir, seq))? else {
        return Ok(Err("it is gone".into()));
    };
    Ok(match Checkpoint::from_bytes(&bytes) {
        Ok(c) if c.committed.seq != seq => Err(format!("it is number {} under another's name", c.committed.seq)),
        Ok(c) => Ok(c),
        Err(e) => Err(e.to_string()),
    })
}

/// Writes one durably.
pub(super) fn write(dir: &Path, checkpoint: &Checkpoint) -> Result<()> {
    io::replace(&path(dir, checkpoint.committed.seq), &checkpoint.to_bytes(), true)?;
    io::sync_dir(dir)
}

/// Deletes all but the newest `keep`.
pub(super) fn prune(dir: &Path, keep: usize) -> Result<()> {
    for seq in list(dir)?.into_iter().skip(keep.max(1)) {
        io::remove(&path(dir, seq))?;
    }
    Ok(())
}
