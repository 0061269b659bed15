//! Erasing records: their frames are overwritten in place by tombstones of the same length, which keep the entry.
//!
//! Everything that follows from the records stays as it is: tables, entries, hashes, tiles, root. `erasures` says what is being
//! overwritten, durably before the first byte of it is; after a kill in the middle the next opening does it again, so that a frame that is
//! half a record and half a tombstone is never taken for damage.
//!
//! A record is erased only once every checkpoint kept covers it. A lane then appends only behind it, whichever checkpoint it falls back
//! to: it could not make the same record again without the salt, and the log would fork.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::lane::Snapshot;
use avouch_engine::verdict::{Hash32, Logged, Tombstone};
use sha2::{Digest as _, Sha256};

use super::checkpoint::{self, Checkpoint, Commit};
use super::frame::{HEADER, frame_around};
use super::stream::Layout;
use super::{LaneStore, StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

const FILE: &str = "erasures";
const MAGIC: &[u8; 8] = b"avouchE1";

/// One record that is being overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Erasure {
    stone: Tombstone,
    /// Where its frame begins.
    start: u64,
    /// Bytes of its payload.
    len: u32,
}

/// What is being overwritten.
#[derive(Debug, PartialEq, Eq)]
struct Erasures {
    segment_bytes: u64,
    each: Vec<Erasure>,
}

impl Erasures {
    fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.u64(self.segment_bytes);
        w.u64(self.each.len() as u64);
        for e in &self.each {
            w.u64(e.stone.index);
            w.raw(&e.stone.entry);
            w.u64(e.start);
            w.u32(e.len);
        }
        let sum = Sha256::digest(&w.bytes);
        w.raw(&sum);
        w.bytes
    }

    fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, CodecError> {
        let mut r = Reader::new("erasures", bytes);
        let (body, sum) = bytes.split_at(bytes.len().saturating_sub(32));
        if r.array::<8>()? != *MAGIC || Sha256::digest(body).as_slice() != sum {
            return Err(r.invalid("its checksum is wrong"));
        }
        let segment_bytes = r.u64()?;
        let mut each = Vec::new();
        for _ in 0..r.u64()? {
            let (index, entry): (u64, Hash32) = (r.u64()?, r.array()?);
            each.push(Erasure { stone: Tombstone { index, entry }, start: r.u64()?, len: r.u32()? });
        }
        r.raw(32)?;
        r.finish()?;
        Ok(Self { segment_bytes, each })
    }

    /// Overwrites, and makes that durable. May be done again.
    fn apply(&self, dir: &Path) -> Result<()> {
        let layout = Layout::new(dir, "records", self.segment_bytes);
        let have = layout.disk_len()?;
        let mut open: BTreeMap<u64, File> = BTreeMap::new();
        for e in &self.each {
            let frame = frame_around(&e.stone.to_bytes(e.len as usize));
            if e.start + frame.len() as u64 > have {
                let why = format!("it erases record {}, and the records end at byte {have} before it", e.stone.index);
                return Err(StoreError::Damaged { file: dir.join(FILE).display().to_string(), why });
            }
            let (mut at, mut rest) = (e.start, &frame[..]);
            while !rest.is_empty() {
                let (segment, within) = (at / layout.segment_bytes, at % layout.segment_bytes);
                let n = rest.len().min(usize::try_from(layout.segment_bytes - within).unwrap_or(usize::MAX));
                let path = layout.path(segment);
                let file = match open.entry(segment) {
                    std::collections::btree_map::Entry::Occupied(e) => e.into_mut(),
                    std::collections::btree_map::Entry::Vacant(e) => e.insert(io::open_for_writing(&path)?),
                };
                io::write_at(file, &path, &rest[..n], within)?;
                at += n as u64;
                rest = &rest[n..];
            }
            // Records come in order: what is behind the segments of this one is not written to any more.
            while open.len() > 2
                && let Some((segment, file)) = open.pop_first()
            {
                io::sync(&file, &layout.path(segment))?;
            }
        }
        for (segment, file) in open {
            io::sync(&file, &layout.path(segment))?;
        }
        Ok(())
    }
}

/// Does again what an erasure was killed in, if there was one.
pub(super) fn redo(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    let Some(bytes) = io::read_if_there(&path)? else { return Ok(()) };
    let erasures = Erasures::from_bytes(&bytes)
        .map_err(|e| StoreError::Damaged { file: path.display().to_string(), why: e.to_string() })?;
    tracing::info!(dir = %dir.display(), records = erasures.each.len(), "an erasure was broken off; its records are erased now");
    erasures.apply(dir)?;
    forget(dir)
}

fn forget(dir: &Path) -> Result<()> {
    io::remove(&dir.join(FILE))?;
    io::sync_dir(dir)
}

impl LaneStore {
    /// Puts tombstones in the places of these records, durably. `restored` is the checkpoint that [`LaneStore::open`] returned, and
    /// nothing may have been appended since. Those that were erased before are left as they are. Returns how many were erased now.
    ///
    /// Before, the last checkpoint is made again, as often as checkpoints are kept, so that none is left that does not cover them.
    ///
    /// # Errors
    /// [`StoreError::CannotErase`] when nothing was done; else those of [`LaneStore::commit`], [`StoreError::Damaged`] and
    /// [`StoreError::Io`]: then the store must be opened again, and erasing begun anew.
    pub fn erase(&mut self, restored: &Checkpoint, indices: &[u64]) -> Result<u64> {
        let committed = self.committed();
        let mut indices = indices.to_vec();
        indices.sort_unstable();
        indices.dedup();
        let Some(&last) = indices.last() else { return Ok(0) };
        self.prepare_to_erase(restored, last)?;

        let mut each = Vec::new();
        for index in indices {
            let damaged = |why: &str| StoreError::Damaged { file: format!("records, record {index}"), why: why.into() };
            let (start, payload) = self.record_frame(index)?;
            let logged = Logged::from_bytes(&payload).map_err(|e| damaged(&e.to_string()))?;
            let entry = self.reader().entry(index)?;
            if logged.index() != index || logged.entry() != entry {
                return Err(damaged("its struct hash is not the log's entry"));
            }
            if !logged.is_erased() {
                let len = u32::try_from(payload.len()).map_err(|_| damaged("it is too long"))?;
                each.push(Erasure { stone: Tombstone { index, entry }, start, len });
            }
        }
        if each.is_empty() {
            return Ok(0);
        }
        let dir = self.directory().to_path_buf();
        let erasures = Erasures { segment_bytes: committed.segment_bytes, each };
        io::replace(&dir.join(FILE), &erasures.to_bytes(), true)?;
        io::sync_dir(&dir)?;
        erasures.apply(&dir)?;
        forget(&dir)?;
        Ok(erasures.each.len() as u64)
    }

    /// What [`LaneStore::erase`] does before it erases anything up to the record `last`: checks that it can, and makes the last
    /// checkpoint again until all that are kept cover that record. By itself, for whoever gives up something else first that a
    /// fall-back to an earlier one would need.
    ///
    /// # Errors
    /// As there.
    pub fn prepare_to_erase(&mut self, restored: &Checkpoint, last: u64) -> Result<()> {
        let committed = self.committed();
        let refuse = |why: String| Err(StoreError::CannotErase { dir: self.directory().to_path_buf(), why });
        if let Some(why) = self.not_erasable() {
            return refuse(why);
        }
        if self.size() != committed.log_size || restored.committed.root != committed.root {
            return refuse("the lane has gone on since it was opened".into());
        }
        if last >= committed.log_size {
            return refuse(format!("there is no record {last}; the log has {}", committed.log_size));
        }
        self.cover(restored, last)
    }

    /// Why nothing can be erased here at all, if so.
    pub fn not_erasable(&self) -> Option<String> {
        if self.has_copy() {
            return Some(
                "its checkpoints are in an object store, whose parts hold the records too; erasing there is not supported: end the log \
                 and delete the whole of it"
                    .into(),
            );
        }
        if self.recovery().high_water.is_some() || !self.recovery().replay.is_empty() {
            return Some(
                "it fell back to an earlier checkpoint and has not regrown to what readers were shown; run the pipeline until it has, \
                 then erase"
                    .into(),
            );
        }
        None
    }

    /// Makes the last checkpoint again until every one that is kept covers the record.
    fn cover(&mut self, restored: &Checkpoint, last: u64) -> Result<()> {
        let dir = self.directory().to_path_buf();
        loop {
            let covers = |seq: &u64| -> Result<bool> {
                Ok(checkpoint::read(&dir, *seq)?.is_ok_and(|c| c.committed.log_size > last))
            };
            let mut all = true;
            for seq in checkpoint::list(&dir)? {
                all &= covers(&seq)?;
            }
            if all {
                return Ok(());
            }
            let c = self.committed();
            self.commit(Commit {
                next_offset: c.next_offset,
                lane_state: Snapshot { bytes: restored.lane_state.clone(), sections: Vec::new() },
                config_hash: c.config_hash,
                topic: &c.topic,
                partition: c.partition,
                watermark: c.watermark,
                counters: &c.counters,
            })?;
        }
    }

    /// Where a record's frame begins, and its payload.
    fn record_frame(&self, index: u64) -> Result<(u64, Vec<u8>)> {
        let frames = self.record_frames();
        let start = frames.start(index)?;
        let mut payload = Vec::new();
        frames.read(index, index + 1, |_, bytes| {
            payload.extend_from_slice(bytes);
            Ok(())
        })?;
        debug_assert_eq!(frames.start(index + 1)?, start + (HEADER + payload.len()) as u64);
        Ok((start, payload))
    }
}
