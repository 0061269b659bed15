//! Inputs of the lane that it must take again: ticks and switches of reference tables recorded beyond the checkpoint in use.
//! And the rows of its history beyond it: what was anchored may end at one of those sizes, and checkpoints are not made at the
//! same sizes again.
//!
//! Verdicts, dead letters and evictions beyond a checkpoint are cut off when a store is opened, since the lane makes them
//! again from the rows. Ticks and switches cannot be made again: they came from the clock and from files, and no topic has
//! them. What becomes of those beyond the checkpoint depends on whether anything that rests on them may have been shown:
//!
//! - *After a crash*, the newest checkpoint is in use. Readers were shown what it covers and nothing beyond, so what was
//!   recorded beyond it is cut off with its effects, and the lane decides anew. To keep it would be of no use, and a row
//!   that it stands behind may not even have survived where the rows come from.
//! - *After a fall-back* to an earlier checkpoint, or where `public/checkpoint` or `high-water` says that more had been
//!   shown than the checkpoint covers, the log must regrow to the same bytes. So the inputs beyond are kept in the file
//!   `replay`, before anything is cut off, and handed to the lane ([`Recovery::replay`](super::Recovery)), which takes each
//!   at its place and makes none of its own before it has taken the last.
//!
//! An input is known by its number among the lane's events. The lane makes the same events in the same order again, so a
//! checkpoint of so many events covers the inputs of lower numbers: each is taken once, however often the store is opened in
//! between. A row of the history stands again when the log has regrown to its size, with its root. The file goes when a
//! checkpoint covers all of it.

use std::collections::BTreeMap;
use std::path::Path;

use avouch_engine::codec::Writer;
use avouch_engine::event::LaneEvent;

use super::checkpoint::{Committed, Unreadable, seal, unseal};
use super::frame;
use super::history::{HistoryRow, ROW};
use super::recover::Files;
use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

const MAGIC: &[u8; 7] = b"avouchR";
const VERSION: u8 = b'1';

/// What lies beyond a checkpoint and is not made again by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Replay {
    /// Inputs, by their numbers among the lane's events.
    pub inputs: BTreeMap<u64, LaneEvent>,
    /// Rows of the history, by their sizes.
    pub rows: BTreeMap<u64, HistoryRow>,
}

/// What a checkpoint must cover before the file can go; zeros when there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Until {
    pub events: u64,
    pub size: u64,
}

impl Until {
    /// Whether there is a file, and a checkpoint covers all of it.
    pub fn is_reached(self, c: &Committed) -> bool {
        self != Self::default() && c.event_count >= self.events && c.log_size >= self.size
    }
}

impl Replay {
    pub const FILE: &'static str = "replay";

    /// What is kept in a directory.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(Self::FILE);
        let Some(bytes) = io::read_if_there(&path)? else { return Ok(Self::default()) };
        match Self::from_bytes(&bytes) {
            Ok(replay) => Ok(replay),
            Err(Unreadable::Damaged(e)) => Err(StoreError::Damaged {
                file: path.display().to_string(),
                why: format!(
                    "{e}. It holds ticks and switches of reference tables that verdicts already shown rest on; \
                              without it the log may not regrow to what was shown, and would then be refused. Restore it \
                              from a copy, or delete it to try"
                ),
            }),
            Err(Unreadable::Version(found)) => {
                Err(StoreError::Version { place: path.display().to_string(), found, expected: char::from(VERSION) })
            }
        }
    }

    /// Keeps it durably, or removes the file where there is nothing to keep.
    pub fn keep(&self, dir: &Path) -> Result<()> {
        let path = dir.join(Self::FILE);
        if self.inputs.is_empty() && self.rows.is_empty() {
            return io::remove(&path);
        }
        let bytes = self.to_bytes();
        if io::read_if_there(&path)?.is_some_and(|there| there == bytes) {
            return Ok(());
        }
        io::replace(&path, &bytes, true)?;
        io::sync_dir(dir)
    }

    /// Leaves what a checkpoint does not cover.
    pub fn beyond(mut self, c: &Committed) -> Self {
        self.inputs = self.inputs.split_off(&c.event_count);
        self.rows = self.rows.split_off(&(c.log_size + 1));
        self
    }

    /// Takes what the other has and this one has not.
    pub fn add(&mut self, other: Self) {
        for (number, event) in other.inputs {
            self.inputs.entry(number).or_insert(event);
        }
        for (size, row) in other.rows {
            self.rows.entry(size).or_insert(row);
        }
    }

    /// What a checkpoint must cover to cover all of it.
    pub fn until(&self) -> Until {
        Until {
            events: self.inputs.last_key_value().map_or(0, |(number, _)| number + 1),
            size: self.rows.last_key_value().map_or(0, |(size, _)| *size),
        }
    }

    /// Takes rows of the history, up to the first that is not whole; those beyond a size.
    pub fn take_rows(&mut self, bytes: &[u8], size: u64) {
        let rows = bytes.chunks_exact(ROW as usize).map_while(HistoryRow::from_bytes);
        for row in rows.filter(|r| r.log_size > size) {
            self.rows.entry(row.log_size).or_insert(row);
        }
    }

    /// Takes the rows that lie in a directory's history behind those of a checkpoint.
    pub fn take_history(&mut self, files: &Files, c: &Committed) -> Result<()> {
        let (run, from) = (&files.history, c.history_rows * ROW);
        let Some(more) = run.disk_len()?.checked_sub(from).filter(|n| *n > 0) else { return Ok(()) };
        let reader = super::stream::StreamReader::new(run.clone());
        self.take_rows(&reader.read(from, usize::try_from(more).unwrap_or(usize::MAX))?, c.log_size);
        Ok(())
    }

    /// Takes the inputs of a run's frames, of which the first is event `number`, up to the first frame that is not whole.
    /// Returns the number of the event after the last one that is.
    pub fn take(&mut self, number: u64, bytes: &[u8], to: Option<u64>) -> u64 {
        let mut next = number;
        for payload in frame::whole_frames(bytes) {
            if to.is_some_and(|to| next >= to) {
                break;
            }
            let Ok(event) = LaneEvent::from_bytes(payload) else { break };
            if event.is_input() {
                self.inputs.entry(next).or_insert(event);
            }
            next += 1;
        }
        next
    }

    /// Takes the inputs that lie in a directory's run of events behind `len` bytes, which are `count` events; only those up to
    /// number `to`, if it is known how many were durable. Returns how many events there are.
    pub fn take_run(&mut self, files: &Files, len: u64, count: u64, to: Option<u64>) -> Result<u64> {
        let run = &files.events.0;
        let have = run.disk_len()?;
        let Some(more) = have.checked_sub(len).filter(|n| *n > 0) else { return Ok(count) };
        let reader = super::stream::StreamReader::new(run.clone());
        let bytes = reader.read(len, usize::try_from(more).unwrap_or(usize::MAX))?;
        Ok(self.take(count, &bytes, to))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.u8(VERSION);
        self.write(&mut w);
        seal(w)
    }

    fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, Unreadable> {
        let mut r = unseal("replay", bytes, MAGIC, VERSION)?;
        let out = Self::from_reader(&mut r)?;
        r.finish()?;
        Ok(out)
    }

    /// A count, then number and bytes of each input; a count, then each row.
    pub fn write(&self, w: &mut Writer) {
        w.u32(self.inputs.len() as u32);
        for (number, event) in &self.inputs {
            w.u64(*number);
            w.bytes(&event.to_bytes());
        }
        w.u32(self.rows.len() as u32);
        for row in self.rows.values() {
            w.raw(&row.to_bytes());
        }
    }

    pub fn from_reader(
        r: &mut avouch_engine::codec::Reader<'_>,
    ) -> std::result::Result<Self, avouch_engine::codec::CodecError> {
        let mut inputs = BTreeMap::new();
        for _ in 0..r.count(12)? {
            let number = r.u64()?;
            inputs.insert(number, LaneEvent::from_bytes(r.bytes()?)?);
        }
        let mut rows = BTreeMap::new();
        for _ in 0..r.count(ROW as usize)? {
            let row = HistoryRow::from_bytes(r.raw(ROW as usize)?);
            let row = row.ok_or_else(|| r.invalid("a damaged row of the history"))?;
            rows.insert(row.log_size, row);
        }
        Ok(Self { inputs, rows })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_engine::event::Tick;

    use super::*;

    fn tick(n: i64) -> LaneEvent {
        LaneEvent::Tick(Tick { after_offset: n, watermark_ms: n * 10 })
    }

    #[test]
    fn kept_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Replay::read(dir.path()).unwrap(), Replay::default());
        let reference = LaneEvent::Reference { after_offset: 9, name: "devices".into(), version: [7; 32] };
        let row = |log_size| HistoryRow { seq: 2, log_size, next_offset: 70, root: [8; 32] };
        let replay = Replay {
            inputs: BTreeMap::from([(3, tick(5)), (4, tick(5)), (9, reference.clone())]),
            rows: BTreeMap::from([(20, row(20)), (30, row(30))]),
        };
        let covering = |event_count, log_size| Committed { event_count, log_size, ..Committed::nothing("o", 1, 1) };
        replay.keep(dir.path()).unwrap();
        assert_eq!(Replay::read(dir.path()).unwrap(), replay);
        let until = replay.until();
        assert_eq!((until.events, until.size, Replay::default().until()), (10, 30, Until::default()));
        assert!(until.is_reached(&covering(10, 30)) && !Until::default().is_reached(&covering(10, 30)));
        assert!(!until.is_reached(&covering(9, 30)) && !until.is_reached(&covering(10, 29)));
        let left = replay.clone().beyond(&covering(5, 20));
        assert_eq!(
            (left.inputs.clone(), left.rows.clone()),
            (BTreeMap::from([(9, reference)]), BTreeMap::from([(30, row(30))]))
        );
        left.clone().beyond(&covering(10, 20)).keep(dir.path()).unwrap();
        assert!(dir.path().join("replay").exists(), "there is a row left");
        left.beyond(&covering(10, 30)).keep(dir.path()).unwrap();
        assert!(!dir.path().join("replay").exists());

        let mut bytes: Vec<u8> = [10, 20, 30].iter().flat_map(|n| row(*n).to_bytes()).collect();
        bytes[150] ^= 1;
        let mut taken = Replay::default();
        taken.take_rows(&bytes, 10);
        assert_eq!(taken.rows, BTreeMap::from([(20, row(20))]), "beyond the size, up to the damaged one");

        replay.keep(dir.path()).unwrap();
        let path = dir.path().join("replay");
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(matches!(Replay::read(dir.path()), Err(StoreError::Damaged { .. })));
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(&path, bytes).unwrap();
            assert!(matches!(Replay::read(dir.path()), Err(StoreError::Damaged { .. })), "{at}");
        }
    }

    #[test]
    fn frames_are_taken_up_to_the_first_that_is_not_whole() {
        let frame = |e: &LaneEvent| frame::frame_around(&e.to_bytes());
        let evicted = LaneEvent::Evicted { after_offset: 1, watermark_ms: 2, device_id: [1; 32], next_seq: 3 };
        let events = [tick(1), evicted, tick(2), tick(3)];
        let bytes: Vec<u8> = events.iter().flat_map(frame).collect();
        let last = frame(&events[3]).len();
        for cut in 0..=bytes.len() {
            let mut replay = Replay::default();
            let next = replay.take(10, &bytes[..cut], None);
            assert!(next <= 14 && (next == 14) == (cut == bytes.len()));
            // Consequences have numbers, too, but are not given back.
            let expected = [(10, tick(1)), (12, tick(2)), (13, tick(3))].into_iter().filter(|(n, _)| *n < next);
            assert_eq!(replay.inputs, expected.collect());
        }
        // What follows the run after a power cut.
        let mut zeros = bytes[..bytes.len() - last].to_vec();
        zeros.extend([0; 4096]);
        assert_eq!(Replay::default().take(10, &zeros, None), 13);
        let mut some = Replay::default();
        assert_eq!(some.take(10, &bytes, Some(12)), 12);
        assert_eq!(some.inputs, BTreeMap::from([(10, tick(1))]));
    }
}
