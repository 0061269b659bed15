//! What can go wrong with a pump, and what it does to the readings.

use serde::{Deserialize, Serialize};

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A bearing wears: impacts grow more frequent and harder, so vibration's rms and kurtosis rise, and the pump warms.
    BearingWear,
    /// Vapour bubbles at high load: pressure drops and becomes unsteady, vibration rises over the whole band.
    Cavitation,
    /// A sensor keeps repeating one value.
    StuckSensor,
    /// The device's clock runs hours ahead; its rows are refused as `future`.
    FastClock,
}

impl FaultKind {
    /// All, in a fixed order.
    pub const ALL: [FaultKind; 4] =
        [FaultKind::BearingWear, FaultKind::Cavitation, FaultKind::StuckSensor, FaultKind::FastClock];

    /// The name in JSON and on the screen.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::BearingWear => "bearing_wear",
            FaultKind::Cavitation => "cavitation",
            FaultKind::StuckSensor => "stuck_sensor",
            FaultKind::FastClock => "fast_clock",
        }
    }
}

/// A sensor that can be stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sensor {
    /// The `temperature` field.
    Temperature,
    /// The `pressure` field.
    Pressure,
}

/// A fault of one pump: its kind and when it acts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    pub(super) kind: FaultKind,
    pub(super) sensor: Option<Sensor>,
    pub(super) onset_ms: i64,
    pub(super) end_ms: i64,
}

/// Severity from which wear or cavitation is said to be evident in the readings.
pub(super) const EVIDENT: f64 = 0.2;

/// Load above which a cavitating pump's inlet pressure is too low.
const CAVITATION_LOAD: f64 = 0.52;

impl Fault {
    pub(super) fn acts_at(&self, t_ms: i64) -> bool {
        (self.onset_ms..self.end_ms).contains(&t_ms)
    }

    /// How bad it is, 0 to 1. Wear grows over its whole time, cavitation rises within a tenth of it and then
    /// follows the load; the others are there or not.
    pub(super) fn severity(&self, t_ms: i64, load: f64) -> f64 {
        if !self.acts_at(t_ms) {
            return 0.0;
        }
        let x = (t_ms - self.onset_ms) as f64 / (self.end_ms - self.onset_ms) as f64;
        match self.kind {
            FaultKind::BearingWear => x * libm::sqrt(x),
            FaultKind::Cavitation => (x * 10.0).min(1.0) * smooth((load - CAVITATION_LOAD) / 0.15),
            FaultKind::StuckSensor | FaultKind::FastClock => 1.0,
        }
    }
}

fn smooth(x: f64) -> f64 {
    let x = x.clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}

/// What a fault adds to the physics of one reading; the default is a healthy pump.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effect {
    /// Heat, °C above the healthy equilibrium.
    pub(super) heat: f64,
    /// Growth of broadband vibration: the noise is multiplied by one plus this.
    pub(super) broadband: f64,
    /// Probability that a vibration sample catches an impact.
    pub(super) impact_rate: f64,
    /// Mean size of an impact, in units of the healthy vibration noise.
    pub(super) impact_size: f64,
    /// Share of pressure lost.
    pub(super) pressure_drop: f64,
    /// Pressure fluctuation, bar.
    pub(super) pressure_noise: f64,
}

impl Effect {
    pub(super) fn of(kind: FaultKind, severity: f64) -> Self {
        let s = severity;
        match kind {
            FaultKind::BearingWear => Self {
                heat: 9.0 * s,
                broadband: 0.8 * s,
                impact_rate: 0.04 + 0.08 * s,
                impact_size: 4.0 + 20.0 * s,
                ..Self::default()
            },
            FaultKind::Cavitation => {
                Self { broadband: 3.0 * s, pressure_drop: 0.14 * s, pressure_noise: 0.12 * s, ..Self::default() }
            }
            FaultKind::StuckSensor | FaultKind::FastClock => Self::default(),
        }
    }
}
