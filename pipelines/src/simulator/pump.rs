//! One pump: its operating point, its day, its heat.

use std::f64::consts::TAU;

use super::fault::{EVIDENT, Effect, Fault, FaultKind, Sensor};
use super::random::Noise;

const DAY_MS: i64 = 86_400_000;
/// Time constant of the pump's heat, seconds.
const HEAT_SECONDS: f64 = 600.0;
const TEMPERATURE_NOISE: f64 = 0.15;
const PRESSURE_NOISE: f64 = 0.015;
const RPM_NOISE: f64 = 4.0;

/// What the sensors say at one instant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// °C.
    pub(super) temperature: f64,
    /// Acceleration, g, one sample of the raw signal.
    pub(super) vibration: f64,
    /// Bar.
    pub(super) pressure: f64,
    /// Revolutions a minute.
    pub(super) rpm: i64,
    /// Whether the pump's fault is evident in this sample.
    pub(super) evident: bool,
}

pub(super) struct Pump {
    load_base: f64,
    load_swing: f64,
    ripple: f64,
    ripple_period_ms: f64,
    ripple_phase: f64,
    rpm: f64,
    pressure: f64,
    heat_rise: f64,
    imbalance: f64,
    vibration_noise: f64,
    temperature: Option<f64>,
    last_ms: i64,
    fault: Option<Fault>,
    frozen: Option<f64>,
    noise: Noise,
}

impl Pump {
    /// The operating point is drawn from `point`, so that the same pump is the same pump on another day; `noise` is
    /// that day's.
    pub(super) fn new(point: &mut Noise, noise: Noise, fault: Option<Fault>) -> Self {
        Self {
            load_base: point.between(0.48, 0.60),
            load_swing: point.between(0.18, 0.28),
            ripple: point.between(0.02, 0.05),
            ripple_period_ms: point.between(15.0, 35.0) * 60_000.0,
            ripple_phase: point.uniform(),
            rpm: point.between(1400.0, 1520.0),
            pressure: point.between(3.4, 5.6),
            heat_rise: point.between(28.0, 40.0),
            imbalance: point.between(0.08, 0.16),
            vibration_noise: point.between(0.035, 0.055),
            temperature: None,
            last_ms: 0,
            fault,
            frozen: None,
            noise,
        }
    }

    /// Load as a share of the rated one: low at four in the morning, high in the afternoon, with a slow ripple.
    fn load(&self, t_ms: i64) -> f64 {
        let day = t_ms.rem_euclid(DAY_MS) as f64 / DAY_MS as f64;
        let shift = 0.5 - 0.5 * libm::cos(TAU * (day - 4.0 / 24.0));
        let ripple = libm::sin(TAU * (t_ms as f64 / self.ripple_period_ms + self.ripple_phase));
        self.load_base + self.load_swing * shift + self.ripple * ripple
    }

    /// The next sample, `t_ms` after the one before. Draws the same number of random numbers whatever the fault, so that
    /// a fault changes nothing but what it is said to change.
    pub(super) fn sample(&mut self, t_ms: i64) -> Sample {
        let load = self.load(t_ms);
        let (severity, effect) = match &self.fault {
            Some(f) if f.acts_at(t_ms) => {
                let severity = f.severity(t_ms, load);
                (severity, Effect::of(f.kind, severity))
            }
            _ => (0.0, Effect::default()),
        };

        let day = t_ms.rem_euclid(DAY_MS) as f64 / DAY_MS as f64;
        let ambient = 21.0 + 4.0 * libm::sin(TAU * (day - 9.0 / 24.0));
        let equilibrium = ambient + self.heat_rise * load + effect.heat;
        let heat = match self.temperature {
            None => equilibrium,
            Some(t) => {
                let dt = (t_ms - self.last_ms) as f64 / 1000.0;
                equilibrium + (t - equilibrium) * libm::exp(-dt / HEAT_SECONDS)
            }
        };
        self.temperature = Some(heat);
        self.last_ms = t_ms;

        let speed = 0.80 + 0.20 * load;
        let rpm = self.rpm * speed + RPM_NOISE * self.noise.normal();
        let mut temperature = heat + TEMPERATURE_NOISE * self.noise.normal();
        let steady = self.pressure * speed * speed * (1.08 - 0.12 * load) * (1.0 - effect.pressure_drop);
        let mut pressure = steady + (PRESSURE_NOISE + effect.pressure_noise) * self.noise.normal();
        // One sample a second of a signal at 24 Hz falls on an arbitrary phase of it.
        let rotation = self.imbalance * speed * speed * libm::sin(TAU * self.noise.uniform());
        let broadband = self.vibration_noise * (1.0 + effect.broadband) * self.noise.normal();
        let (hit, size, side) = (self.noise.uniform(), self.noise.uniform(), self.noise.uniform());
        let mut vibration = rotation + broadband;
        if hit < effect.impact_rate {
            let impact = self.vibration_noise * effect.impact_size * (0.5 + size);
            vibration += if side < 0.5 { -impact } else { impact };
        }

        let mut evident = severity >= EVIDENT;
        match &self.fault {
            Some(Fault { kind: FaultKind::StuckSensor, sensor: Some(sensor), .. }) if severity > 0.0 => {
                let value = match sensor {
                    Sensor::Temperature => &mut temperature,
                    Sensor::Pressure => &mut pressure,
                };
                *value = *self.frozen.get_or_insert(*value);
            }
            // Its rows never reach a window, so there is nothing to see in them.
            Some(Fault { kind: FaultKind::FastClock, .. }) => evident = false,
            _ => {}
        }
        Sample { temperature, vibration, pressure, rpm: rpm.round() as i64, evident }
    }

    pub(super) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    pub(super) fn noise(&mut self) -> &mut Noise {
        &mut self.noise
    }
}
