//! How fast rows are sent.

use std::time::{Duration, Instant};

/// How fast rows are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as the broker takes them.
    Unlimited,
    /// A fixed number of rows a second.
    Rate {
        /// Rows a second, above 0.
        rows_per_second: f64,
    },
    /// As their times say, so many times faster.
    Speed {
        /// Seconds of event time in a second of wall time, above 0.
        factor: f64,
    },
}

/// Says how long the next row has to wait. The wall clock begins with the first row.
#[derive(Debug)]
pub struct Pacer {
    pace: Pace,
    started: Option<(Instant, i64)>,
    rows: u64,
}

impl Pacer {
    /// A pacer that has seen no row.
    pub fn new(pace: Pace) -> Self {
        Self { pace, started: None, rows: 0 }
    }

    /// How much longer the next row, of this time, has to wait; `None` when it may go, and then it counts as gone. Ask
    /// again after waiting. A row without a time, or of a time before the first row's, never waits for its time.
    pub fn wait(&mut self, time_ms: Option<i64>) -> Option<Duration> {
        self.wait_at(Instant::now(), time_ms)
    }

    fn wait_at(&mut self, now: Instant, time_ms: Option<i64>) -> Option<Duration> {
        let (started, first_ms) = *self.started.get_or_insert((now, time_ms.unwrap_or(0)));
        let due = match self.pace {
            Pace::Unlimited => 0.0,
            Pace::Rate { rows_per_second } => self.rows as f64 / rows_per_second,
            Pace::Speed { factor } => {
                time_ms.map_or(0.0, |t| t.saturating_sub(first_ms) as f64 / 1000.0 / factor).max(0.0)
            }
        };
        // A timer is no finer than this, and a row early by less harms nobody.
        const GRAIN: f64 = 0.001;
        let early = due - now.duration_since(started).as_secs_f64();
        if early > GRAIN {
            return Some(Duration::try_from_secs_f64(early).unwrap_or(Duration::MAX));
        }
        self.rows += 1;
        None
    }
}

/// `5000` or `5000/s`.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    positive(text.strip_suffix("/s").unwrap_or(text)).ok_or_else(|| "write rows a second, such as 5000/s".into())
}

/// `10` or `10x`.
pub(super) fn speed(text: &str) -> Result<f64, String> {
    positive(text.strip_suffix('x').unwrap_or(text)).ok_or_else(|| "write a multiple of event time, such as 10x".into())
}

fn positive(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_rate_spaces_rows_evenly() {
        let (start, mut pacer) = (Instant::now(), Pacer::new(Pace::Rate { rows_per_second: 10.0 }));
        assert_eq!(pacer.wait_at(start, None), None);
        assert_eq!(pacer.wait_at(start, None), Some(Duration::from_millis(100)));
        assert_eq!(pacer.wait_at(after(start, 100), None), None);
        // Late by three rows: they go at once, then the rate holds again.
        for _ in 0..3 {
            assert_eq!(pacer.wait_at(after(start, 400), None), None);
        }
        assert_eq!(pacer.wait_at(after(start, 450), None), Some(Duration::from_millis(50)));
    }

    #[test]
    fn a_speed_follows_event_time() {
        let (start, mut pacer) = (Instant::now(), Pacer::new(Pace::Speed { factor: 10.0 }));
        assert_eq!(pacer.wait_at(start, Some(5_000)), None);
        assert_eq!(pacer.wait_at(start, Some(7_000)), Some(Duration::from_millis(200)));
        assert_eq!(pacer.wait_at(after(start, 200), Some(7_000)), None);
        assert_eq!(pacer.wait_at(after(start, 200), Some(1_000)), None);
        assert_eq!(pacer.wait_at(after(start, 200), None), None);
    }

    #[test]
    fn rates_and_speeds_as_written() {
        assert_eq!((rate("5000/s"), rate("0.5")), (Ok(5000.0), Ok(0.5)));
        assert_eq!((speed("10x"), speed("1")), (Ok(10.0), Ok(1.0)));
        for bad in ["", "0", "-1", "x", "inf", "NaN", "5000/m"] {
            assert!(rate(bad).is_err() && speed(bad).is_err(), "{bad}");
        }
    }
}
