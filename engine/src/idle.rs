//! When an idle partition's time goes on, and how far.
//!
//! Event time comes from rows. Where none come any more, the windows they began would stay open for ever; so after
//! `idle_after` without an admitted row, at the end of the partition, time goes on at the clock's pace from where it
//! stood. It never leaps to the clock: history that is replayed today stays history. What this decides becomes a
//! recorded [`Tick`](crate::event::Tick), an input of the lane like any row; the clock itself decides no verdict.
//!
//! ```text
//!            last row        idle_after over, a window is due
//!   rows ───────┤ quiet ────────────┤ time goes on: a tick for each window that ends ─► until a row comes
//!               │  ?   ?   ?   ?   ?   ?        each ?: "is this the end of the partition?"
//! ```
//!
//! Silence is no proof that nothing was sent: the broker may be away. So whoever keeps the log is asked now and then, and
//! time that passes without a yes does not count. When a broker comes back, a whole `idle_after` passes anew before
//! time goes on, so that what devices kept meanwhile comes in first.

/// Watches one lane for idleness. Reads no clock: it is told what a steady clock says, in milliseconds from any origin.
#[derive(Debug, Clone)]
pub struct Idle {
    after_ms: i64,
    /// How often to ask.
    every_ms: i64,
    /// When a record came, or a question was answered; none before the first.
    heard_ms: Option<i64>,
    /// Whether what was last heard was a sign that the log is there and has nothing more.
    at_end: bool,
    since: Option<Since>,
}

#[derive(Debug, Clone, Copy)]
struct Since {
    clock_ms: i64,
    watermark: i64,
    rows: u64,
}

/// The longest time between two questions.
const ASK_EVERY_MS: i64 = 5_000;

impl Idle {
    /// A watch for a source with this `idle_after`, milliseconds.
    pub fn new(after_ms: i64) -> Self {
        let every_ms = (after_ms / 4).clamp(1, ASK_EVERY_MS);
        Self { after_ms, every_ms, heard_ms: None, at_end: false, since: None }
    }

    /// Records came, whatever becomes of them: there is nothing to ask for a while.
    pub fn records(&mut self, clock_ms: i64) {
        self.heard_ms = Some(clock_ms);
        // The silence after them counts from now on, provided that the next answer is a yes.
        self.at_end = true;
    }

    /// Whether it is time to ask if the log ends where the lane stands.
    pub fn asks(&self, clock_ms: i64) -> bool {
        self.heard_ms.is_none_or(|heard| clock_ms.saturating_sub(heard) >= self.every_ms)
    }

    /// The answer to the question; no answer is `false`.
    pub fn answer(&mut self, clock_ms: i64, at_end: bool) {
        // After a long pause of this process nobody can say how much of it the log was there.
        let gap = self.heard_ms.is_some_and(|heard| clock_ms.saturating_sub(heard) > self.longest_gap());
        if !at_end || gap {
            self.since = None;
        }
        self.heard_ms = Some(clock_ms);
        self.at_end = at_end;
    }

    /// The longest time between two answers that counts. More than `every_ms`, because a lane also does other things.
    fn longest_gap(&self) -> i64 {
        4 * self.every_ms.max(1_000)
    }

    /// Tells how many rows were admitted so far, and the watermark. Call it after each poll.
    ///
    /// Returns how far the watermark may go, once the lane is idle; ask once more before it does. Rows that died do not
    /// count as a sign of life.
    pub fn observe(&mut self, clock_ms: i64, rows: u64, watermark: Option<i64>) -> Option<i64> {
        let (true, Some(watermark)) = (self.at_end, watermark) else {
            self.since = None;
            return None;
        };
        match self.since {
            Some(s) if s.rows == rows => {
                let idle = clock_ms.saturating_sub(s.clock_ms);
                (idle >= self.after_ms).then(|| s.watermark.saturating_add(idle))
            }
            _ => {
                self.since = Some(Since { clock_ms, watermark, rows });
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lane of a source with `idle_after = "60s"`, whose broker is there or not.
    struct Lane {
        idle: Idle,
        rows: u64,
        watermark: i64,
        asked: u32,
    }

    impl Lane {
        fn new() -> Self {
            Self { idle: Idle::new(60_000), rows: 0, watermark: 0, asked: 0 }
        }

        fn row(&mut self, clock: i64, watermark: i64) {
            self.rows += 1;
            self.watermark = watermark;
            self.idle.records(clock);
            assert_eq!(self.idle.observe(clock, self.rows, Some(watermark)), None, "a row just came");
        }

        /// Polls every 100 ms from `from` to `to`; the first target, when it came, and whether one was there at the end.
        fn quiet(&mut self, from: i64, to: i64, at_end: bool) -> Option<(i64, i64)> {
            let mut first = None;
            for clock in (from..=to).step_by(100) {
                if self.idle.asks(clock) {
                    self.idle.answer(clock, at_end);
                    self.asked += 1;
                }
                if let Some(target) = self.idle.observe(clock, self.rows, Some(self.watermark)) {
                    first.get_or_insert((clock, target));
                }
            }
            first
        }
    }

    #[test]
    fn time_goes_on_at_the_clocks_pace_from_the_last_row() {
        let mut lane = Lane::new();
        lane.row(1_000, 10);
        assert_eq!(lane.quiet(1_100, 60_900, true), None);
        assert_eq!(lane.quiet(61_000, 61_000, true), Some((61_000, 60_010)));
        assert_eq!(lane.asked, 12, "every five seconds");
        // The tick it led to moves the watermark; time still goes on from the row.
        lane.watermark = 60_010;
        assert_eq!(lane.quiet(71_000, 71_000, true), Some((71_000, 70_010)));
        // A row ends it.
        lane.row(71_100, 60_010);
        assert_eq!(lane.quiet(71_200, 131_000, true), None);
        assert_eq!(lane.quiet(131_100, 131_100, true), Some((131_100, 120_010)));
    }

    #[test]
    fn before_the_first_row_there_is_no_time_to_go_on_from() {
        let mut idle = Idle::new(1_000);
        for clock in (0..10_000).step_by(100) {
            idle.answer(clock, true);
            assert_eq!(idle.observe(clock, 0, None), None);
        }
    }

    #[test]
    fn while_the_broker_is_away_no_time_counts() {
        let mut lane = Lane::new();
        lane.row(0, 10);
        assert_eq!(lane.quiet(100, 40_000, true), None);
        assert_eq!(lane.quiet(40_100, 4_000_000, false), None, "an hour without an answer");
        // It is back and has nothing more, yet. What comes now is not late.
        assert_eq!(lane.quiet(4_000_100, 4_060_000, true), None);
        assert_eq!(lane.quiet(4_060_100, 4_066_000, true).map(|(_, target)| target), Some(60_010));
    }

    #[test]
    fn behind_the_end_is_slow_and_not_idle() {
        let mut lane = Lane::new();
        // A restart: no record yet, and more in the log.
        lane.watermark = 10;
        assert_eq!(lane.quiet(0, 200_000, false), None);
    }

    #[test]
    fn rows_that_die_are_no_sign_of_life() {
        let mut lane = Lane::new();
        lane.row(0, 10);
        for clock in (100..=59_900).step_by(100) {
            lane.idle.records(clock);
            assert_eq!(lane.idle.observe(clock, lane.rows, Some(10)), None);
        }
        assert_eq!(lane.idle.observe(60_000, lane.rows, Some(10)), Some(60_010));
    }

    #[test]
    fn a_pause_of_the_process_does_not_count() {
        let mut lane = Lane::new();
        lane.row(0, 10);
        assert_eq!(lane.quiet(100, 30_000, true), None);
        // Stopped for a minute. The broker may have been away as well.
        assert_eq!(lane.quiet(90_000, 149_900, true), None);
        assert_eq!(lane.quiet(150_000, 150_000, true), Some((150_000, 60_010)));
    }
}
