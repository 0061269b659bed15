//! A channel of a spacecraft's telemetry: an orbit's day and night, a heater that switches, noise.

use std::f64::consts::TAU;

use super::random::Noise;
use super::row::Row;
use super::scenario::Device;

/// How long day lasts as a share of an orbit.
const DAY: f64 = 0.6;
/// How fast a channel follows, seconds.
const FOLLOWS_SECONDS: f64 = 240.0;

pub(super) struct Channel {
    level: f64,
    swing: f64,
    orbit_s: f64,
    phase: f64,
    /// Of the heater's own cycle, seconds.
    heater_s: f64,
    jitter: f64,
    value: Option<f64>,
    noise: Noise,
}

impl Channel {
    pub(super) fn new(point: &mut Noise, noise: Noise) -> Self {
        Self {
            level: point.between(-0.3, 0.3),
            swing: point.between(0.2, 0.35),
            orbit_s: point.between(5_400.0, 6_000.0),
            phase: point.uniform(),
            heater_s: point.between(700.0, 1_100.0),
            jitter: point.between(0.01, 0.02),
            value: None,
            noise,
        }
    }
}

impl Device for Channel {
    fn fields(&mut self, t_ms: i64, dt_s: f64, fault: Option<(usize, f64)>, row: &mut Row) {
        let t = t_ms as f64 / 1000.0;
        let day = (t / self.orbit_s + self.phase).rem_euclid(1.0) < DAY;
        let target = self.level + if day { self.swing } else { -self.swing };
        // The channel goes on behind what a fault shows, and is where it would have been once that is over.
        let value = match self.value {
            None => target,
            Some(v) => target + (v - target) * libm::exp(-dt_s / FOLLOWS_SECONDS),
        };
        self.value = Some(value);
        let noise = self.noise.normal();
        let heater = 0.05 * libm::sin(TAU * t / self.heater_s);
        let shown = match fault {
            // To where it never was.
            Some((0, _)) => value + heater + 0.9 + self.jitter * noise,
            // It chatters.
            Some((1, _)) => value + heater + 12.0 * self.jitter * noise,
            // It says one value only, at which it has often been, but not for so long.
            Some(_) => self.level,
            None => value + heater + self.jitter * noise,
        };
        row.whole("ts", t_ms);
        row.number("value", shown, 4);
    }
}
