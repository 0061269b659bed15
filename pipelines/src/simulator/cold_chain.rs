//! A refrigerated shipment of what must stay between 2 and 8 °C.

use std::f64::consts::TAU;

use super::random::Noise;
use super::row::Row;
use super::scenario::Device;

const DAY_MS: i64 = 86_400_000;
/// How fast the load follows the outside: with the door open, and with a cooling unit that has failed, seconds.
const OPEN_SECONDS: f64 = 2_400.0;
const FAILED_SECONDS: f64 = 14_400.0;
/// How fast the cooling unit brings it back, seconds.
const COOLING_SECONDS: f64 = 1_200.0;

pub(super) struct Shipment {
    set_point: f64,
    climate: f64,
    hysteresis: f64,
    /// Of the unit's own cycle of cooling and resting.
    period_s: f64,
    phase: f64,
    /// How far the load is from what the unit keeps.
    excess: f64,
    noise: Noise,
}

impl Shipment {
    pub(super) fn new(point: &mut Noise, noise: Noise) -> Self {
        Self {
            set_point: point.between(4.2, 5.4),
            climate: point.between(16.0, 27.0),
            hysteresis: point.between(0.25, 0.4),
            period_s: point.between(900.0, 1_500.0),
            phase: point.uniform(),
            excess: 0.0,
            noise,
        }
    }
}

impl Device for Shipment {
    fn fields(&mut self, t_ms: i64, dt_s: f64, fault: Option<(usize, f64)>, row: &mut Row) {
        let day = t_ms.rem_euclid(DAY_MS) as f64 / DAY_MS as f64;
        let ambient = self.climate + 5.0 * libm::sin(TAU * (day - 9.0 / 24.0)) + 0.2 * self.noise.normal();
        let cycle = self.hysteresis * libm::sin(TAU * (t_ms as f64 / 1000.0 / self.period_s + self.phase));
        let outside = ambient - self.set_point;
        let (towards, seconds) = match fault {
            Some((0, _)) => (outside, OPEN_SECONDS),
            Some(_) => (outside, FAILED_SECONDS),
            None => (0.0, COOLING_SECONDS),
        };
        self.excess = towards + (self.excess - towards) * libm::exp(-dt_s / seconds);
        // Doors are opened at the stops, for a reading.
        let stop = self.noise.uniform() < 0.004;
        let open = stop || matches!(fault, Some((0, _)));
        let temperature = self.set_point + cycle + self.excess + 0.05 * self.noise.normal();
        let wet = if open { 14.0 } else { 0.0 };
        let humidity = (58.0 + wet + 1.5 * self.excess.min(12.0) + 1.2 * self.noise.normal()).clamp(0.0, 100.0);
        row.whole("ts", t_ms);
        row.number("temperature", temperature, 3);
        row.number("ambient", ambient, 3);
        row.number("humidity", humidity, 2);
        row.whole("door", i64::from(open));
    }
}
