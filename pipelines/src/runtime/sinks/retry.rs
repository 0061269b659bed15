//! When a sink that is down is tried again.

use std::time::Duration;

use rand::Rng as _;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that double, with jitter: the clock and chance are here and nowhere else in a delivery.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The pause before the next attempt: between a half and the whole of what is due, so that sinks and lanes that went
    /// down together do not come back together; never less than the sink asked for.
    pub fn pause(&mut self, asked: Option<Duration>) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(LONGEST);
        let jittered = due.mul_f64(rand::thread_rng().gen_range(0.5..=1.0));
        asked.map_or(jittered, |asked| asked.max(jittered))
    }

    /// Something was taken.
    pub fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_bounds_and_obey_the_sink() {
        let mut backoff = Backoff::default();
        let mut due = FIRST;
        for _ in 0..12 {
            let pause = backoff.pause(None);
            assert!(pause >= due / 2 && pause <= due, "{pause:?} for {due:?}");
            due = (due * 2).min(LONGEST);
        }
        assert_eq!(backoff.pause(Some(Duration::from_secs(120))), Duration::from_secs(120));
        backoff.reset();
        assert!(backoff.pause(None) <= FIRST);
    }
}
