//! Event time of a lane whose records were copied from several source partitions.
//!
//! One process copies fast and another slowly, and where a process is killed its partitions stand still until the group
//! gives them to another. So how far time has come is kept for each source partition, and the lane's time is that of the
//! one furthest behind: rows still to be copied from it are not late because others were copied sooner.
//!
//! A source partition that has nothing more to say must not hold the others back for ever. It does so for
//! [`ORIGIN_WAIT_MS`] of copying time after its last row that was admitted. Copying time is read from the copies
//! themselves ([`RecordOrigin::copied_ms`]), never from a clock, and goes on only while something is copied: between two
//! copies in this lane it counts at most a quarter of the wait, so that a night in which no process ran takes nobody's
//! right to be waited for. Time that has come once never goes back: rows of a partition that was not waited for are late
//! by the rule for all rows. One of which no row has come yet is not known, and not waited for.

use std::collections::BTreeMap;

use crate::codec::{CodecError, Reader, Writer};
use crate::decode::RecordOrigin;

/// How long a source partition without rows is waited for, in copying time: longer than a killed process's session and
/// what follows it until its partitions are read on. Decides verdicts, so it never changes.
pub const ORIGIN_WAIT_MS: i64 = 120_000;
/// What a pause between two copies counts at most.
const LONGEST_STEP_MS: i64 = ORIGIN_WAIT_MS / 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reached {
    /// The highest time of its rows.
    time: i64,
    /// The copying time of its last row.
    seen: i64,
}

/// How far each source partition has come. It holds what rows said, and beside it what follows from that.
#[derive(Debug, Clone, Default)]
pub struct Origins {
    reached: BTreeMap<i32, Reached>,
    /// When the last copy was made, as it says.
    copied_ms: i64,
    /// Copying time so far.
    now: i64,
    /// The time of the one furthest behind of those that are waited for. Holds until `now` is past `until`.
    behind: i64,
    until: Option<i64>,
}

impl Origins {
    /// Whether no row has come from any.
    pub fn is_empty(&self) -> bool {
        self.reached.is_empty()
    }

    /// A row of `origin` that has reached `time` was admitted; how far all have come that are waited for.
    pub fn reached(&mut self, origin: RecordOrigin, time: i64) -> i64 {
        if self.reached.is_empty() {
            self.copied_ms = origin.copied_ms;
        }
        let step = origin.copied_ms.saturating_sub(self.copied_ms);
        if step > 0 {
            self.now += step.min(LONGEST_STEP_MS);
            self.copied_ms = origin.copied_ms;
        }
        let now = self.now;
        let before = self.reached.insert(origin.partition, Reached { time, seen: now });
        let mut same = self.until.is_some_and(|until| now <= until);
        match before {
            Some(before) => {
                // One that was waited for already, and not the one all waited for.
                same = same && now - before.seen <= ORIGIN_WAIT_MS && before.time > self.behind;
                if before.time > time
                    && let Some(reached) = self.reached.get_mut(&origin.partition)
                {
                    reached.time = before.time;
                }
            }
            None => same = false,
        }
        if !same {
            self.look();
        }
        self.behind
    }

    /// Who is furthest behind, and until when that is so if nothing comes.
    #[cold]
    fn look(&mut self) {
        let waited_for = self.reached.values().filter(|r| self.now - r.seen <= ORIGIN_WAIT_MS);
        let (behind, oldest) =
            waited_for.fold((i64::MAX, self.now), |(time, seen), r| (time.min(r.time), seen.min(r.seen)));
        // That of the row that has just come is among them.
        self.behind = behind;
        self.until = Some(oldest + ORIGIN_WAIT_MS);
    }

    /// Writes the state into a snapshot.
    pub fn snapshot(&self, w: &mut Writer) {
        w.i64(self.copied_ms);
        w.i64(self.now);
        w.u32(self.reached.len() as u32);
        for (partition, r) in &self.reached {
            w.u32(*partition as u32);
            w.i64(r.time);
            w.i64(r.seen);
        }
    }

    /// Reads what [`Origins::snapshot`] wrote.
    pub fn restore(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut origins = Self { copied_ms: r.milliseconds()?, now: r.i64()?, ..Self::default() };
        if !(0..1 << 60).contains(&origins.now) {
            return Err(r.invalid(format!("a copying time of {}", origins.now)));
        }
        for _ in 0..r.count(20)? {
            let (partition, time, seen) = (r.u32()? as i32, r.milliseconds()?, r.i64()?);
            if !(0..=origins.now).contains(&seen) {
                return Err(r.invalid(format!("a source partition that was copied from at {seen}")));
            }
            if origins.reached.insert(partition, Reached { time, seen }).is_some() {
                return Err(r.invalid(format!("source partition {partition} twice")));
            }
        }
        Ok(origins)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn row(partition: i32, copied_ms: i64) -> RecordOrigin {
        RecordOrigin { partition, copied_ms }
    }

    #[test]
    fn the_one_furthest_behind_holds_back_the_others_until_its_wait_is_over() {
        let mut all = Origins::default();
        assert_eq!(all.reached(row(0, 1_000), 50), 50, "the only one that is known");
        assert_eq!(all.reached(row(1, 1_000), 40), 40);
        assert_eq!(all.reached(row(1, 2_000), 700), 50);
        // A killed process: nothing more of partition 0, and much of the other.
        assert_eq!(all.reached(row(1, 31_000), 800), 50);
        assert_eq!(all.reached(row(1, 61_000), 900), 50);
        assert_eq!(all.reached(row(0, 62_000), 60), 60, "it goes on where it was");
        assert_eq!(all.reached(row(0, 62_001), 55), 60, "out of order");
        // And this time for too long.
        for copied in [92_000, 122_000, 152_000, 182_000] {
            assert_eq!(all.reached(row(1, copied), copied), 60);
        }
        assert_eq!(all.reached(row(1, 182_002), 190_000), 190_000, "two minutes are over");
        assert_eq!(all.reached(row(0, 182_003), 180_000), 180_000, "it is waited for again");
    }

    #[test]
    fn a_night_without_copying_is_not_waiting() {
        let mut all = Origins::default();
        all.reached(row(0, 0), 50);
        all.reached(row(1, 0), 60);
        assert_eq!(all.reached(row(1, 40_000_000), 70), 50);
        assert_eq!(all.reached(row(1, 80_000_000), 80), 50);
        assert_eq!(all.reached(row(0, 80_000_001), 75), 75);
    }

    proptest! {
        /// What is kept beside the rows' times changes nothing: as if all were looked through at each row, also after a
        /// restart at any place.
        #[test]
        fn as_if_all_were_looked_through(
            rows in proptest::collection::vec((0i32..4, -20_000i64..90_000, 0i64..1_000), 1..80),
            restart in any::<bool>(),
        ) {
            let mut all = Origins::default();
            let mut naive: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
            let (mut copied, mut last, mut now) = (1_000_000i64, None::<i64>, 0);
            for (partition, step, time) in rows {
                copied += step;
                let before = *last.get_or_insert(copied);
                now += (copied - before).clamp(0, LONGEST_STEP_MS);
                last = Some(before.max(copied));
                let entry = naive.entry(partition).or_insert((time, now));
                *entry = (entry.0.max(time), now);
                let expected = naive.values().filter(|(_, seen)| now - seen <= ORIGIN_WAIT_MS).map(|(t, _)| *t).min();
                prop_assert_eq!(Some(all.reached(row(partition, copied), time)), expected);
                if restart {
                    let mut w = Writer::new();
                    all.snapshot(&mut w);
                    all = Origins::restore(&mut Reader::new("origins", &w.bytes)).unwrap();
                }
            }
        }
    }
}
