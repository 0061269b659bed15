//! The source partitions that this process repartitions: what was read of each, and how far it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use avouch_connectors::kafka::{Batch, PartitionReader};
use avouch_engine::decode::RawRecord;

use super::super::error::RuntimeError;
use super::merge::Merge;

/// How long the others wait for a partition that has more but of which nothing is at hand; at its beginning, when it is not
/// known yet whether it has more, and later.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const WAIT: Duration = Duration::from_millis(100);
/// For how long a partition is not waited for again after that: a transaction may be open in it.
const EXCUSED: Duration = Duration::from_secs(5);

/// A record's headers, in their order.
pub type Headers<'a> = Vec<(&'a str, Option<&'a [u8]>)>;

/// One partition.
struct Part {
    reader: PartitionReader,
    /// What is at hand, and the index of the next record in it.
    batch: Option<(Batch, usize)>,
    /// Offset of the next record to move.
    next: i64,
    /// Offset to go on from once nothing is at hand: beyond markers of transactions and what was aborted.
    reached: i64,
    /// The offset that the group has, `-1` if none.
    committed: i64,
    /// Whether something of it ever came.
    heard: bool,
    waiting_since: Option<Instant>,
    excused_until: Option<Instant>,
}

impl Part {
    fn head(&self) -> Option<RawRecord<'_>> {
        let (batch, at) = self.batch.as_ref()?;
        batch.record(*at)
    }

    /// Where to go on if what was moved so far is committed.
    fn position(&self) -> i64 {
        if self.batch.is_some() { self.next } else { self.next.max(self.reached) }
    }

    /// Takes what has come, waiting at most so long.
    fn fill(&mut self, timeout: Duration) -> Result<bool, RuntimeError> {
        let (batch, reached) = self.reader.poll_counted(timeout)?;
        self.heard |= reached.is_some();
        self.reached = self.reached.max(reached.unwrap_or(0));
        // Pauses of the client during rebalances may show records twice.
        let at = (0..batch.len()).find(|&i| batch.record(i).is_some_and(|r| r.offset >= self.next));
        let Some(at) = at else { return Ok(false) };
        self.batch = Some((batch, at));
        self.waiting_since = None;
        self.excused_until = None;
        Ok(true)
    }

    /// Whether the others should wait for it.
    fn is_awaited(&mut self, now: Instant) -> bool {
        let behind = match self.reader.end_seen() {
            Some(end) => end > self.position(),
            None => true,
        };
        if self.batch.is_some() || !behind || self.excused_until.is_some_and(|until| now < until) {
            self.waiting_since = None;
            return false;
        }
        let since = *self.waiting_since.get_or_insert(now);
        if now.duration_since(since) < if self.heard { WAIT } else { FIRST_WAIT } {
            return true;
        }
        self.excused_until = Some(now + EXCUSED);
        self.waiting_since = None;
        false
    }
}

/// The partitions.
#[derive(Default)]
pub struct Parts {
    parts: BTreeMap<i32, Part>,
    merge: Merge,
}

impl Parts {
    /// Which they are.
    pub fn numbers(&self) -> Vec<i32> {
        self.parts.keys().copied().collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Adds one, to be read on from what the group has committed (`None`: nothing yet). Forgets what was at hand of it.
    pub fn begin(&mut self, reader: PartitionReader, committed: Option<i64>) {
        let (partition, next) = (reader.partition(), committed.unwrap_or(0));
        let part = Part {
            reader,
            batch: None,
            next,
            reached: next,
            committed: committed.unwrap_or(-1),
            heard: false,
            waiting_since: None,
            excused_until: None,
        };
        self.parts.insert(partition, part);
        self.merge.set(partition, None);
    }

    /// Gives one up.
    pub fn end(&mut self, partition: i32) {
        self.parts.remove(&partition);
        self.merge.set(partition, None);
    }

    /// Takes what has come of those of which nothing is at hand. Whether any should be waited for before the next record is
    /// moved, and it was waited for `pause`.
    pub fn gather(&mut self, pause: Duration) -> Result<bool, RuntimeError> {
        for (partition, part) in &mut self.parts {
            if part.batch.is_none() && part.fill(Duration::ZERO)? {
                self.merge.set(*partition, part.head().map(|r| r.timestamp));
            }
        }
        let now = Instant::now();
        let idle = self.merge.next().is_none();
        let mut awaited = false;
        for (partition, part) in &mut self.parts {
            if part.is_awaited(now) || (idle && !awaited) {
                // Once for all of them: the rest is looked at in the next round.
                if !awaited && part.fill(pause)? {
                    self.merge.set(*partition, part.head().map(|r| r.timestamp));
                }
                awaited = true;
            }
        }
        Ok(awaited)
    }

    /// The record to move next, its partition, and its headers.
    pub fn first(&self) -> Option<(i32, RawRecord<'_>, Headers<'_>)> {
        let partition = self.merge.next()?;
        let (batch, at) = self.parts.get(&partition)?.batch.as_ref()?;
        Some((partition, batch.record(*at)?, batch.headers(*at)))
    }

    /// The record to move next was moved. Whether something of its partition is still at hand, or its end is reached as far
    /// as it is known.
    pub fn advance(&mut self) -> Result<bool, RuntimeError> {
        let Some(partition) = self.merge.next() else { return Ok(false) };
        let Some(part) = self.parts.get_mut(&partition) else { return Ok(false) };
        if let Some(offset) = part.head().map(|r| r.offset) {
            part.next = offset + 1;
        }
        if let Some((_, at)) = &mut part.batch {
            *at += 1;
        }
        if part.head().is_none() {
            part.batch = None;
            part.fill(Duration::ZERO)?;
        }
        self.merge.set(partition, part.head().map(|r| r.timestamp));
        Ok(part.batch.is_some() || part.reader.end_seen().is_some_and(|end| end <= part.position()))
    }

    /// Offsets that are ahead of what the group has.
    pub fn ahead(&self) -> Vec<(i32, i64)> {
        // A partition without records needs no offset.
        let ahead = self.parts.iter().filter(|(_, p)| p.position() > p.committed.max(0));
        ahead.map(|(n, p)| (*n, p.position())).collect()
    }

    /// These offsets are the group's now.
    pub fn committed(&mut self, offsets: &[(i32, i64)]) {
        for (partition, offset) in offsets {
            if let Some(part) = self.parts.get_mut(partition) {
                part.committed = *offset;
            }
        }
    }

    /// How far each partition is behind its end, as far as that is known.
    pub fn lags(&self) -> impl Iterator<Item = (i32, i64)> {
        self.parts.iter().filter_map(|(n, p)| Some((*n, (p.reader.end_seen()? - p.committed.max(0)).max(0))))
    }
}
