//! A server's CPU load: a day and a week in it, and jobs that come and go.

use std::f64::consts::TAU;

use avouch_engine::decode::format_timestamp;

use super::random::Noise;
use super::row::Row;
use super::scenario::Device;

const DAY_MS: i64 = 86_400_000;

pub(super) struct Server {
    base: f64,
    swing: f64,
    jitter: f64,
    peak_hour: f64,
    /// Load of the jobs that run at the moment, which fades.
    jobs: f64,
    noise: Noise,
}

impl Server {
    pub(super) fn new(point: &mut Noise, noise: Noise) -> Self {
        Self {
            base: point.between(22.0, 38.0),
            swing: point.between(6.0, 12.0),
            jitter: point.between(1.0, 1.8),
            peak_hour: point.between(12.0, 16.0),
            jobs: 0.0,
            noise,
        }
    }
}

impl Device for Server {
    fn fields(&mut self, t_ms: i64, dt_s: f64, fault: Option<(usize, f64)>, row: &mut Row) {
        let day = t_ms.rem_euclid(DAY_MS) as f64 / DAY_MS as f64;
        let daily = libm::cos(TAU * (day - self.peak_hour / 24.0));
        let (comes, size) = (self.noise.uniform(), self.noise.uniform());
        self.jobs *= libm::exp(-dt_s / 900.0);
        if comes < 0.04 {
            self.jobs += 2.0 + 4.0 * size;
        }
        let noise = self.jitter * self.noise.normal();
        let mut value = self.base + self.swing * daily + self.jobs + noise;
        match fault {
            // A process that takes a core and more.
            Some((0, _)) => value += 35.0,
            // Nothing to do but to idle.
            Some((1, _)) => value = 1.5 + 0.1 * noise,
            // Collecting garbage, more and more.
            Some((_, gone)) => value += 3.0 + 37.0 * gone,
            None => {}
        }
        let value = value.clamp(0.0, 100.0);
        // NAB's own way of writing time: to the second, with a blank.
        let text = format_timestamp(t_ms);
        row.text("timestamp", &format!("{} {}", &text[..10], &text[11..19]));
        row.number("value", value, 3);
    }
}
