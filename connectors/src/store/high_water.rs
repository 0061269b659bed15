//! What readers had been shown before a fall-back, kept until the log has regrown so far.

use std::path::Path;
use std::sync::Arc;

use avouch_engine::verdict::Hash32;

use super::checkpoint::Committed;
use super::history::{self, HistoryRow};
use super::recover::Files;
use super::stream::StreamReader;
use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// What readers had been shown when a fall-back became necessary.
pub(super) struct HighWater;

impl HighWater {
    const FILE: &'static str = "high-water";

    /// What is kept in a directory.
    pub fn read(dir: &Path) -> Result<Option<HistoryRow>> {
        let path = dir.join(Self::FILE);
        let Some(bytes) = io::read_if_there(&path)? else { return Ok(None) };
        let damaged = || StoreError::Damaged {
            file: path.display().to_string(),
            why: "its checksum is wrong; compare the log with what its sinks and anchors hold, then delete it".into(),
        };
        HistoryRow::from_bytes(&bytes).map(Some).ok_or_else(damaged)
    }

    /// Writes it on a fall-back, from the rejected checkpoints that can be read and the history rows of those that
    /// cannot; returns what must be met.
    pub fn keep(
        dir: &Path,
        files: &Files,
        c: &Committed,
        newest: u64,
        rejected: &[Arc<Committed>],
    ) -> Result<Option<(u64, Hash32)>> {
        let path = dir.join(Self::FILE);
        let before = Self::read(dir)?;
        if before.is_some_and(|row| row.log_size <= c.log_size) {
            // The log has met it already; we were killed before it was forgotten.
            Self::clear(dir)?;
        }
        let mut highest = before.filter(|row| row.log_size > c.log_size);
        if newest != c.seq {
            for r in rejected {
                if r.log_size > highest.map_or(c.log_size, |h| h.log_size) {
                    highest = Some(Self::of(r));
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

    /// Writes it where one of these is beyond the size that stands and beyond what is remembered already.
    pub fn raise(dir: &Path, stands: u64, shown: impl Iterator<Item = HistoryRow>) -> Result<()> {
        let path = dir.join(Self::FILE);
        let before = io::read_if_there(&path)?.and_then(|bytes| HistoryRow::from_bytes(&bytes));
        let beyond = before.map_or(stands, |row| row.log_size.max(stands));
        let Some(row) = shown.filter(|row| row.log_size > beyond).max_by_key(|row| row.log_size) else {
            return Ok(());
        };
        io::replace(&path, &row.to_bytes(), true)?;
        io::sync_dir(dir)
    }

    /// What a checkpoint has shown.
    pub fn of(c: &Committed) -> HistoryRow {
        HistoryRow { seq: c.seq, log_size: c.log_size, next_offset: c.next_offset, root: c.root }
    }

    /// Forgets it, once the log has met it.
    pub fn clear(dir: &Path) -> Result<()> {
        io::remove(&dir.join(Self::FILE))
    }
}
