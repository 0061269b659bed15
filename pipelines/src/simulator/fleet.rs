//! The fleet: who is faulty and when, and its readings in the order in which a broker receives them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write;
use std::sync::Arc;

use thiserror::Error;

use super::fault::{Fault, FaultKind, Sensor};
use super::pump::{Pump, Sample};
use super::random::Noise;
use super::truth::{DeviceTruth, FaultTruth, GroundTruth};

/// How many pumps have which fault; the rest are healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultMix {
    /// Pumps with a worn bearing.
    pub bearing_wear: u32,
    /// Pumps that cavitate.
    pub cavitation: u32,
    /// Pumps with a stuck sensor.
    pub stuck_sensor: u32,
    /// Pumps whose clock runs fast.
    pub fast_clock: u32,
}

impl FaultMix {
    fn kinds(self) -> impl Iterator<Item = FaultKind> {
        let counts = [self.bearing_wear, self.cavitation, self.stuck_sensor, self.fast_clock];
        FaultKind::ALL.into_iter().zip(counts).flat_map(|(kind, n)| std::iter::repeat_n(kind, n as usize))
    }
}

/// A fleet and a stretch of time. The same configuration gives the same bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetConfig {
    /// Decides everything random. Two runs with one seed and different starts are the same pumps on different days.
    pub seed: u64,
    /// How many pumps, called `pump-000`, `pump-001`, ….
    pub devices: u32,
    /// First instant, milliseconds since the epoch.
    pub start_ms: i64,
    /// How long, milliseconds.
    pub duration_ms: i64,
    /// One reading of each pump every so many milliseconds.
    pub cadence_ms: i64,
    /// How many pumps have which fault.
    pub faults: FaultMix,
    /// Share of rows cut off in the middle.
    pub bad_share: f64,
    /// Share of rows that arrive late.
    pub late_share: f64,
    /// How late: between these, milliseconds. Below window + disorder they would not be late for the pipeline.
    pub late_by_ms: (i64, i64),
    /// How far a fast clock is ahead, milliseconds.
    pub clock_ahead_ms: i64,
}

impl FleetConfig {
    /// `devices` healthy pumps with good rows only, one reading a second: what a model is trained on.
    pub fn healthy(seed: u64, devices: u32, start_ms: i64, duration_ms: i64) -> Self {
        Self {
            seed,
            devices,
            start_ms,
            duration_ms,
            cadence_ms: 1000,
            faults: FaultMix::default(),
            bad_share: 0.0,
            late_share: 0.0,
            late_by_ms: (300_000, 900_000),
            clock_ahead_ms: 3 * 3_600_000,
        }
    }

    /// The same pumps with faults in about a quarter of them, and one row in a thousand bad or late.
    pub fn troubled(seed: u64, devices: u32, start_ms: i64, duration_ms: i64) -> Self {
        Self {
            faults: FaultMix {
                bearing_wear: devices / 10,
                cavitation: devices / 13,
                stuck_sensor: devices / 20,
                fast_clock: devices / 40,
            },
            bad_share: 0.0005,
            late_share: 0.0005,
            ..Self::healthy(seed, devices, start_ms, duration_ms)
        }
    }

    fn check(&self) -> Result<(), SimulatorError> {
        let wrong = |why: String| Err(SimulatorError { why });
        let faulty = self.faults.kinds().count();
        if self.devices == 0 || self.devices > 1_000_000 {
            return wrong(format!("{} devices: a fleet has between 1 and 1,000,000", self.devices));
        }
        if faulty > self.devices as usize {
            return wrong(format!(
                "{faulty} faulty pumps in a fleet of {}: each pump has one fault at most",
                self.devices
            ));
        }
        if self.cadence_ms < 1 || self.duration_ms < self.cadence_ms {
            return wrong(
                "the duration must hold at least one reading, and readings must be 1 ms apart or more".into(),
            );
        }
        if self.start_ms < 0 || self.start_ms.checked_add(self.duration_ms).is_none() {
            return wrong("the run must start in 1970 or later and end within the range of 64-bit milliseconds".into());
        }
        let shares = [self.bad_share, self.late_share];
        if shares.iter().any(|s| !(0.0..=1.0).contains(s)) || shares.iter().sum::<f64>() > 1.0 {
            return wrong("shares of bad and late rows lie between 0 and 1 and sum to 1 at most".into());
        }
        if self.late_by_ms.0 < 1 || self.late_by_ms.1 <= self.late_by_ms.0 || self.clock_ahead_ms < 1 {
            return wrong("late rows and fast clocks need positive spans, the longer one last".into());
        }
        Ok(())
    }
}

/// A configuration that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the fleet cannot be simulated: {why}")]
pub struct SimulatorError {
    pub(super) why: String,
}

/// A reading as the broker receives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatedReading {
    /// The device: the record's key.
    pub device: Arc<str>,
    /// When the broker receives it, milliseconds since the epoch: the record's timestamp.
    pub broker_time_ms: i64,
    /// `{"device":…,"ts":…,"temperature":…,"vibration":…,"pressure":…,"rpm":…}`, or the beginning of it.
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RowKind {
    Good,
    Bad,
    Late,
    Future,
}

/// A row under way, ordered by arrival and then by when it was made.
struct Pending {
    broker_time_ms: i64,
    made: u64,
    device: u32,
    kind: RowKind,
    payload: Vec<u8>,
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Pending {}
impl PartialOrd for Pending {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Pending {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.broker_time_ms, self.made).cmp(&(other.broker_time_ms, other.made))
    }
}

struct Member {
    name: Arc<str>,
    pump: Pump,
    phase_ms: i64,
    truth: DeviceTruth,
}

/// The readings of a fleet in broker-time order. Holds the rows of one tick and those held back.
pub struct Fleet {
    config: FleetConfig,
    members: Vec<Member>,
    next_tick_ms: i64,
    made: u64,
    pending: BinaryHeap<Reverse<Pending>>,
    truth: GroundTruth,
}

const FLEET: u64 = 0;
const POINT: u64 = 1;
/// Purposes from here on are days: 2 + the run's start.
const DAYS: u64 = 2;

impl Fleet {
    /// Sets up the pumps and their faults. Errors: a configuration that contradicts itself.
    pub fn new(config: FleetConfig) -> Result<Self, SimulatorError> {
        config.check()?;
        let day = DAYS.wrapping_add(config.start_ms as u64);
        let faults = draw_faults(&config, &mut Noise::new(config.seed, FLEET, 0));
        let width = config.devices.saturating_sub(1).to_string().len().max(3);
        let members = faults
            .into_iter()
            .enumerate()
            .map(|(i, fault)| {
                let mut point = Noise::new(config.seed, POINT, i as u64);
                let phase_ms = point.below(config.cadence_ms as u64) as i64;
                let name = format!("pump-{i:0width$}");
                let truth = DeviceTruth {
                    device: name.clone(),
                    fault: fault.map(|f| FaultTruth {
                        kind: f.kind,
                        sensor: f.sensor,
                        onset_ms: f.onset_ms,
                        end_ms: f.end_ms,
                        evident: Vec::new(),
                    }),
                    rows: 0,
                };
                let pump = Pump::new(&mut point, Noise::new(config.seed, day, i as u64), fault);
                Member { name: name.into(), pump, phase_ms, truth }
            })
            .collect();
        let truth = GroundTruth {
            seed: config.seed,
            start_ms: config.start_ms,
            end_ms: config.start_ms + config.duration_ms,
            rows: 0,
            bad_rows: 0,
            late_rows: 0,
            future_rows: 0,
            devices: Vec::new(),
        };
        let next_tick_ms = config.start_ms;
        Ok(Self { config, members, next_tick_ms, made: 0, pending: BinaryHeap::new(), truth })
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &FleetConfig {
        &self.config
    }

    /// How many rows the whole run has.
    pub fn total_rows(&self) -> u64 {
        let (duration, cadence) = (self.config.duration_ms, self.config.cadence_ms);
        self.members.iter().map(|m| ((duration - m.phase_ms + cadence - 1) / cadence) as u64).sum()
    }

    /// The truth about the rows handed out so far; about the whole run once the iterator is at its end.
    pub fn truth(&self) -> GroundTruth {
        GroundTruth { devices: self.members.iter().map(|m| m.truth.clone()).collect(), ..self.truth.clone() }
    }

    fn tick(&mut self) {
        let end_ms = self.truth.end_ms;
        for i in 0..self.members.len() {
            let t_ms = self.next_tick_ms + self.members[i].phase_ms;
            if t_ms < end_ms {
                let row = self.make(i, t_ms, end_ms);
                self.pending.push(Reverse(row));
            }
        }
        self.next_tick_ms += self.config.cadence_ms;
    }

    fn make(&mut self, i: usize, t_ms: i64, end_ms: i64) -> Pending {
        let member = &mut self.members[i];
        let sample = member.pump.sample(t_ms);
        let fast = member.pump.fault().is_some_and(|f| f.kind == FaultKind::FastClock && f.acts_at(t_ms));
        if sample.evident
            && let Some(fault) = &mut member.truth.fault
        {
            match fault.evident.last_mut() {
                Some((_, to)) if *to == t_ms => *to = t_ms + self.config.cadence_ms,
                _ => fault.evident.push((t_ms, t_ms + self.config.cadence_ms)),
            }
        }
        let noise = member.pump.noise();
        let (fate, network, cut, held) = (noise.uniform(), noise.uniform(), noise.uniform(), noise.uniform());
        let ts = if fast { t_ms + self.config.clock_ahead_ms } else { t_ms };
        let mut payload = render(&member.name, ts, &sample);
        let mut broker_time_ms = t_ms + 20 + (network * network * 900.0) as i64;
        let mut kind = if fast { RowKind::Future } else { RowKind::Good };
        if fate < self.config.bad_share {
            kind = RowKind::Bad;
            payload.truncate(1 + (cut * (payload.len() - 1) as f64) as usize);
        } else if fate < self.config.bad_share + self.config.late_share && !fast {
            let (least, most) = self.config.late_by_ms;
            let held_back = t_ms + least + (held * (most - least) as f64) as i64;
            // A row held back beyond the run's end would find its windows still open.
            if held_back < end_ms {
                kind = RowKind::Late;
                broker_time_ms = held_back;
            }
        }
        self.made += 1;
        Pending { broker_time_ms, made: self.made, device: i as u32, kind, payload }
    }
}

impl Iterator for Fleet {
    type Item = SimulatedReading;

    fn next(&mut self) -> Option<SimulatedReading> {
        // Rows not made yet arrive after the tick that makes them, so what arrives before it can go.
        while self.next_tick_ms < self.truth.end_ms
            && self.pending.peek().is_none_or(|Reverse(p)| p.broker_time_ms >= self.next_tick_ms)
        {
            self.tick();
        }
        let Reverse(row) = self.pending.pop()?;
        let member = &mut self.members[row.device as usize];
        member.truth.rows += 1;
        self.truth.rows += 1;
        match row.kind {
            RowKind::Good => {}
            RowKind::Bad => self.truth.bad_rows += 1,
            RowKind::Late => self.truth.late_rows += 1,
            RowKind::Future => self.truth.future_rows += 1,
        }
        Some(SimulatedReading { device: member.name.clone(), broker_time_ms: row.broker_time_ms, payload: row.payload })
    }
}

fn render(device: &str, ts: i64, s: &Sample) -> Vec<u8> {
    let mut out = Vec::with_capacity(112);
    // Invariant: writing into a Vec cannot fail.
    let _ = write!(
        out,
        r#"{{"device":"{device}","ts":{ts},"temperature":{:.3},"vibration":{:.5},"pressure":{:.4},"rpm":{}}}"#,
        s.temperature, s.vibration, s.pressure, s.rpm
    );
    out
}

/// Gives each fault to a pump of its own, at a time of its own.
fn draw_faults(config: &FleetConfig, noise: &mut Noise) -> Vec<Option<Fault>> {
    let n = config.devices as usize;
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, noise.below(i as u64 + 1) as usize);
    }
    let mut faults = vec![None; n];
    let at = |share: f64| config.start_ms + (config.duration_ms as f64 * share) as i64;
    for (device, kind) in order.into_iter().zip(config.faults.kinds()) {
        let (onset, length, which) = (noise.between(0.2, 0.4), noise.between(0.35, 0.5), noise.uniform());
        let end = match kind {
            FaultKind::BearingWear | FaultKind::FastClock => 1.0,
            FaultKind::Cavitation | FaultKind::StuckSensor => onset + length,
        };
        let sensor = (kind == FaultKind::StuckSensor).then_some(if which < 0.5 {
            Sensor::Temperature
        } else {
            Sensor::Pressure
        });
        faults[device] = Some(Fault { kind, sensor, onset_ms: at(onset), end_ms: at(end) });
    }
    faults
}
