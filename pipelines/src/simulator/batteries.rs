//! A pack of 100 cells in series that a vehicle drives with and loads.

use std::f64::consts::TAU;

use super::random::Noise;
use super::row::Row;
use super::scenario::Device;

const CELLS: f64 = 100.0;
/// Time constant of the pack's heat, seconds.
const HEAT_SECONDS: f64 = 1_800.0;

pub(super) struct Battery {
    /// Ω, the whole pack.
    resistance: f64,
    /// Ah.
    capacity: f64,
    spread: f64,
    /// Of a drive and the loading after it, seconds.
    period_s: f64,
    phase: f64,
    temperature: Option<f64>,
    noise: Noise,
}

impl Battery {
    pub(super) fn new(point: &mut Noise, noise: Noise) -> Self {
        Self {
            resistance: point.between(0.085, 0.115),
            capacity: point.between(140.0, 160.0),
            spread: point.between(8.0, 14.0),
            period_s: point.between(7_000.0, 9_000.0),
            phase: point.uniform(),
            temperature: None,
            noise,
        }
    }
}

impl Device for Battery {
    fn fields(&mut self, t_ms: i64, dt_s: f64, fault: Option<(usize, f64)>, row: &mut Row) {
        let turn = TAU * (t_ms as f64 / 1000.0 / self.period_s + self.phase);
        // Drives with what the road asks for, then loads; a cycle takes as much out as it puts in.
        let current = 60.0 * libm::sin(turn) + 12.0 * self.noise.normal();
        let used = 60.0 * self.period_s / TAU / 3600.0 / self.capacity;
        let soc = (0.6 + used * libm::cos(turn)).clamp(0.02, 0.98);
        let (resistance, spread) = match fault {
            Some((0, gone)) => (self.resistance * (1.15 + 0.85 * gone), self.spread),
            Some((_, gone)) => (self.resistance, self.spread + 6.0 + 60.0 * gone),
            None => (self.resistance, self.spread),
        };
        let rest = CELLS * (3.3 + 0.8 * soc);
        let voltage = rest - resistance * current + 0.08 * self.noise.normal();
        let equilibrium = 22.0 + 0.05 * resistance * current * current;
        let heat = match self.temperature {
            None => equilibrium,
            Some(t) => equilibrium + (t - equilibrium) * libm::exp(-dt_s / HEAT_SECONDS),
        };
        self.temperature = Some(heat);
        let temperature = heat + 0.1 * self.noise.normal();
        let spread = (spread + 0.03 * libm::fabs(current) + 0.8 * self.noise.normal()).max(0.0);
        row.whole("ts", t_ms);
        row.number("current", current, 2);
        row.number("voltage", voltage, 3);
        row.number("temperature", temperature, 2);
        row.number("soc", soc, 4);
        row.number("spread", spread, 2);
    }
}
