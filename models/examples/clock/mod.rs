//! CPU time of this thread, for the programs beside.

use std::time::Instant;

/// Seconds this thread was on a CPU; by the wall clock where the system does not say.
pub struct Clock(Instant, Option<f64>);

impl Clock {
    fn on_cpu() -> Option<f64> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok().map(|ns| ns / 1e9)
    }

    /// From now on.
    pub fn start() -> Self {
        Self(Instant::now(), Self::on_cpu())
    }

    /// Since then.
    pub fn seconds(&self) -> f64 {
        match (self.1, Self::on_cpu()) {
            (Some(from), Some(to)) => to - from,
            _ => self.0.elapsed().as_secs_f64(),
        }
    }
}
