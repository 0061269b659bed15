//! When an idle partition's time goes on, and how far.
//!
//! Event time comes from rows. Where none come any more, the windows they began would stay open for ever; so after
//! `idle_after` without an admitted row, at the end of the partition, time goes on at the clock's pace from where it
//! stood. It never leaps to the clock: history that is replayed today stays history. What this decides becomes a
//! recorded [`Tick`](crate::event::Tick), an input of the lane like any row; the clock itself decides no verdict.

/// Watches one lane for idleness. Reads no clock: it is told what the clock says.
#[derive(Debug, Clone)]
pub struct Idle {
    after_ms: i64,
    since: Option<Since>,
}

#[derive(Debug, Clone, Copy)]
struct Since {
    clock_ms: i64,
    watermark: i64,
    rows: u64,
}

impl Idle {
    /// A watch for a source with this `idle_after`, milliseconds.
    pub fn new(after_ms: i64) -> Self {
        Self { after_ms, since: None }
    }

    /// Tells how things stand: what a steady clock says (milliseconds from any origin), whether everything in the
    /// partition was read, how many rows were admitted so far, and the watermark. Call it after each poll.
    ///
    /// Returns how far the watermark may go, once the lane is idle. Rows that died do not count as a sign of life.
    pub fn observe(&mut self, clock_ms: i64, at_end: bool, rows: u64, watermark: Option<i64>) -> Option<i64> {
        let (true, Some(watermark)) = (at_end, watermark) else {
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

    /// Whether the lane is idle by the last observation, that is, whether time goes on by the clock.
    pub fn is_idle(&self, clock_ms: i64) -> bool {
        self.since.is_some_and(|s| clock_ms.saturating_sub(s.clock_ms) >= self.after_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_at_the_clocks_pace_from_the_last_row() {
        let mut idle = Idle::new(60_000);
        assert_eq!(idle.observe(0, true, 0, None), None, "no row yet: there is no time to go on from");
        assert_eq!(idle.observe(1_000, true, 5, Some(10)), None);
        assert_eq!(idle.observe(60_999, true, 5, Some(10)), None);
        assert!(!idle.is_idle(60_999));
        assert_eq!(idle.observe(61_000, true, 5, Some(10)), Some(60_010));
        assert!(idle.is_idle(61_000));
        // The tick it led to moved the watermark; time still goes on from the row.
        assert_eq!(idle.observe(71_000, true, 5, Some(60_010)), Some(70_010));
        // A row ends it.
        assert_eq!(idle.observe(71_100, true, 6, Some(60_010)), None);
        assert_eq!(idle.observe(131_099, true, 6, Some(60_010)), None);
        assert_eq!(idle.observe(131_100, true, 6, Some(60_010)), Some(120_010));
    }

    #[test]
    fn not_at_the_end_is_not_idle() {
        let mut idle = Idle::new(1_000);
        assert_eq!(idle.observe(0, true, 1, Some(0)), None);
        assert_eq!(idle.observe(999, false, 1, Some(0)), None, "behind: the source is slow, not idle");
        assert_eq!(idle.observe(1_500, true, 1, Some(0)), None, "counted anew from the end");
        assert_eq!(idle.observe(2_500, true, 1, Some(0)), Some(1_000));
    }
}
