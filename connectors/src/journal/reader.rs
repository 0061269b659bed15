//! The reading side.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_engine::decode::RawRecord;

use super::segment::{self, At, HEADER};
use super::{JournalError, Result, Segment, Shared};

/// A batch ends after so many bytes, which bounds memory at this and one group.
const BATCH_BYTES: usize = 4 << 20;

/// Reads a journal in order. Blocks; made for a thread of its own.
#[derive(Debug)]
pub struct JournalReader {
    shared: Arc<Shared>,
    /// The segment being read, and the byte where the next group begins.
    open: Option<(i64, File, std::path::PathBuf, u64)>,
    next: i64,
    /// A group read but not yet handed out to its end: its payload, and byte and offset of its next record.
    payload: Vec<u8>,
    at: usize,
}

impl JournalReader {
    pub(super) fn new(shared: Arc<Shared>, offset: Option<i64>) -> Result<Self> {
        let (first, end) = {
            let state = shared.state();
            (state.segments.first().map_or(state.end, |s| s.first), state.end)
        };
        let next = offset.unwrap_or(first);
        if next < first || next > end {
            let help = if next > end {
                "it is not the journal of this state directory, or it lost its end: restore it from a copy"
            } else {
                "older segments were deleted: restore them, or restore a newer checkpoint"
            };
            return Err(JournalError::Gone { dir: shared.dir.clone(), first, end, wanted: next, help });
        }
        Ok(Self { shared, open: None, next, payload: Vec::new(), at: 0 })
    }

    /// Offset of the next record.
    pub fn position(&self) -> i64 {
        self.next
    }

    /// Waits until there is more, at most `timeout`. Whether there is.
    fn wait(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.shared.state();
        loop {
            if state.end > self.next {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || state.closed {
                if state.closed {
                    drop(state);
                    std::thread::sleep(left);
                }
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// The next records, at most `most`. Waits at most `timeout` when there are none.
    ///
    /// # Errors
    /// [`JournalError::Damaged`], [`JournalError::Io`].
    pub fn poll(&mut self, timeout: Duration, most: usize) -> Result<JournalBatch> {
        let mut batch = JournalBatch { first: self.next, ..JournalBatch::default() };
        if self.at >= self.payload.len() && !self.wait(timeout) {
            batch.end = Some(self.next);
            return Ok(batch);
        }
        while batch.records.len() < most && batch.bytes.len() < BATCH_BYTES {
            if self.at >= self.payload.len() && !self.group()? {
                batch.end = Some(self.next);
                break;
            }
            let Some(r) = segment::record(&self.payload, self.at) else {
                // Checked when the journal was opened, and sealed by the writer since.
                self.at = self.payload.len();
                continue;
            };
            let start = batch.bytes.len();
            batch.bytes.extend_from_slice(&self.payload[r.topic.0..r.end]);
            let topic = start + (r.topic.1 - r.topic.0);
            batch.records.push((r.arrived_ms, start, topic, batch.bytes.len()));
            self.at = r.end;
            self.next += 1;
        }
        Ok(batch)
    }

    /// Reads the group that holds the next record; false at the end of what is durable.
    fn group(&mut self) -> Result<bool> {
        loop {
            let (segment, follows): (Segment, bool) = {
                let state = self.shared.state();
                if state.end <= self.next {
                    return Ok(false);
                }
                let i = state.segments.partition_point(|s| s.first <= self.next);
                if i == 0 {
                    let (first, end) = (state.segments.first().map_or(0, |s| s.first), state.end);
                    let help = "the segment was deleted while it was still to be read; please report this";
                    let dir = self.shared.dir.clone();
                    return Err(JournalError::Gone { dir, first, end, wanted: self.next, help });
                }
                (state.segments[i - 1].clone(), i < state.segments.len())
            };
            if self.open.as_ref().is_none_or(|o| o.0 != segment.first) {
                let file = File::open(&segment.path).map_err(super::failed("open", &segment.path))?;
                self.open = Some((segment.first, file, segment.path.clone(), 0));
            }
            let Some((_, file, path, at)) = &mut self.open else { return Ok(false) };
            match segment::read(file, path, *at, segment.len, &mut self.payload)? {
                At::Group(group) => {
                    *at += (HEADER + self.payload.len()) as u64;
                    self.at = 0;
                    let mut offset = group.first;
                    if offset + i64::from(group.count) <= self.next {
                        self.payload.clear();
                        continue;
                    }
                    while offset < self.next
                        && let Some(r) = segment::record(&self.payload, self.at)
                    {
                        self.at = r.end;
                        offset += 1;
                    }
                    return Ok(true);
                }
                At::End | At::Torn => {
                    let why = if follows { "the next segment does not follow it" } else { "it is shorter than it was" };
                    return Err(JournalError::Damaged { path: path.clone(), at: *at, why: why.into() });
                }
            }
        }
    }
}

/// Records of a journal.
#[derive(Debug, Default)]
pub struct JournalBatch {
    bytes: Vec<u8>,
    /// Time of arrival, and where in `bytes` its topic begins, its value begins, and it ends.
    records: Vec<(i64, usize, usize, usize)>,
    first: i64,
    end: Option<i64>,
}

impl JournalBatch {
    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Where to go on, if everything there is was read.
    pub fn end(&self) -> Option<i64> {
        self.end
    }

    /// Appends the records: the time of arrival is the timestamp, the topic the key.
    pub fn records<'a>(&'a self, out: &mut Vec<RawRecord<'a>>) {
        out.extend(self.records.iter().enumerate().map(|(i, &(arrived_ms, topic, value, end))| RawRecord {
            offset: self.first + i as i64,
            timestamp: arrived_ms.max(0),
            key: Some(&self.bytes[topic..value]),
            value: Some(&self.bytes[value..end]),
            origin: None,
            signature: None,
        }));
    }
}
