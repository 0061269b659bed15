//! Fleets of other kinds, for the ready pipelines: servers, refrigerated shipments, battery packs, plants, channels of a
//! spacecraft.
//!
//! Like the pumps they turn on event time alone, and the same configuration gives the same bytes on every machine. A run is
//! a row of each device every `cadence_ms`, in order of time; nothing is late or cut off. Some devices have one
//! fault each, of which the truth says from when to when.
//!
//! A device draws its operating point from its seed and number, so that the same seed on another day is the same fleet. It
//! draws as many random numbers with a fault as without, so that a fault changes nothing but what it is said to change.

use avouch_engine::decode::format_timestamp;

use super::batteries::Battery;
use super::cold_chain::Shipment;
use super::fleet::SimulatorError;
use super::plant::Plant;
use super::random::Noise;
use super::row::Row;
use super::servers::Server;
use super::spacecraft::Channel;

/// What a fleet is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Servers' CPU load, in the layout of the Numenta Anomaly Benchmark with a device's name: `device`, `timestamp`, `value`.
    Servers,
    /// Refrigerated shipments: `device`, `ts`, `temperature` and `ambient` in °C, `humidity` in %, `door` (1: open).
    ColdChain,
    /// Battery packs of 100 cells in series: `device`, `ts`, `current` in A (positive: discharge), `voltage` in V,
    /// `temperature` in °C, `soc` (state of charge, 0 to 1), `spread` (highest less lowest cell, mV).
    Batteries,
    /// A chemical plant in the layout of the Tennessee Eastman process: `run`, `time`, `xmeas_01` to `xmeas_41`, `xmv_01` to
    /// `xmv_11`.
    Plant,
    /// Channels of a spacecraft's telemetry, as those of SMAP and MSL: `device`, `ts`, `value` between about -1 and 1.
    Spacecraft,
}

impl Scenario {
    /// What its devices are called: this and a number.
    fn prefix(self) -> &'static str {
        match self {
            Self::Servers => "server",
            Self::ColdChain => "shipment",
            Self::Batteries => "pack",
            Self::Plant => "run",
            Self::Spacecraft => "channel",
        }
    }

    /// The field that names a device.
    fn key(self) -> &'static str {
        if self == Self::Plant { "run" } else { "device" }
    }

    /// The faults that its devices have in turn.
    fn faults(self) -> &'static [&'static str] {
        match self {
            Self::Servers => &["runaway process", "service down", "memory leak"],
            Self::ColdChain => &["door left open", "cooling failed"],
            Self::Batteries => &["resistance grown", "cell out of balance"],
            Self::Plant => &["feed changed", "analyser drifts"],
            Self::Spacecraft => &["left its range", "chatters", "stands still"],
        }
    }

    /// The usual time between two readings of a device, milliseconds.
    pub fn cadence_ms(self) -> i64 {
        match self {
            Self::Servers => 300_000,
            Self::ColdChain => 60_000,
            Self::Batteries => 10_000,
            Self::Plant => 180_000,
            Self::Spacecraft => 60_000,
        }
    }
}

/// A fleet and a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioConfig {
    /// What it is of.
    pub scenario: Scenario,
    /// Decides everything random.
    pub seed: u64,
    /// How many devices.
    pub devices: u32,
    /// First instant, milliseconds since the epoch.
    pub start_ms: i64,
    /// How long, milliseconds.
    pub duration_ms: i64,
    /// One reading of each device every so many milliseconds.
    pub cadence_ms: i64,
    /// How many of the devices have a fault: the first ones.
    pub faulty: u32,
}

/// A fault of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioFault {
    /// The device.
    pub device: String,
    /// What.
    pub kind: &'static str,
    /// First instant, milliseconds since the epoch.
    pub from_ms: i64,
    /// First instant after it.
    pub to_ms: i64,
}

/// One device as its scenario has it.
pub(super) trait Device {
    /// The fields of the reading at `t_ms` after the device's name. `fault` is which of the scenario's faults
    /// it has and how far that has gone, in (0, 1]; `dt_s` the seconds since the reading before.
    fn fields(&mut self, t_ms: i64, dt_s: f64, fault: Option<(usize, f64)>, row: &mut Row);
}

/// The rows of a run, in order of time. Made by [`ScenarioConfig::rows`].
pub struct ScenarioRows {
    config: ScenarioConfig,
    devices: Vec<Box<dyn Device>>,
    faults: Vec<ScenarioFault>,
    round: i64,
    next: usize,
}

impl ScenarioConfig {
    /// The run.
    ///
    /// # Errors
    /// [`SimulatorError`] if the configuration makes no sense.
    pub fn rows(&self) -> Result<ScenarioRows, SimulatorError> {
        let wrong = |why: String| Err(SimulatorError { why });
        if self.devices == 0 || self.devices > 100_000 {
            return wrong(format!("{} devices: a fleet has between 1 and 100,000", self.devices));
        }
        if self.faulty > self.devices {
            return wrong(format!("{} faulty devices in a fleet of {}", self.faulty, self.devices));
        }
        if self.cadence_ms < 1 || self.duration_ms < self.cadence_ms {
            return wrong(
                "the duration must hold at least one reading, and readings must be 1 ms apart or more".into(),
            );
        }
        if self.start_ms < 0 || self.start_ms.checked_add(self.duration_ms).is_none() {
            return wrong("the run must start in 1970 or later and end within the range of 64-bit milliseconds".into());
        }
        let devices = (0..u64::from(self.devices))
            .map(|n| {
                let mut point = Noise::new(self.seed, 20, n);
                let noise = Noise::new(self.seed ^ self.start_ms as u64, 21, n);
                match self.scenario {
                    Scenario::Servers => Box::new(Server::new(&mut point, noise)) as Box<dyn Device>,
                    Scenario::ColdChain => Box::new(Shipment::new(&mut point, noise)),
                    Scenario::Batteries => Box::new(Battery::new(&mut point, noise)),
                    Scenario::Plant => Box::new(Plant::new(self.seed, noise)),
                    Scenario::Spacecraft => Box::new(Channel::new(&mut point, noise)),
                }
            })
            .collect();
        let kinds = self.scenario.faults();
        let faults = (0..self.faulty)
            .map(|n| {
                // Somewhere in the middle half, for a tenth to a quarter of the run.
                let mut when = Noise::new(self.seed ^ self.start_ms as u64, 22, u64::from(n));
                let from = self.start_ms + (self.duration_ms as f64 * when.between(0.25, 0.5)) as i64;
                let length = (self.duration_ms as f64 * when.between(0.1, 0.25)) as i64;
                ScenarioFault {
                    device: self.name(n as usize),
                    kind: kinds[n as usize % kinds.len()],
                    from_ms: from,
                    to_ms: from + length.max(1),
                }
            })
            .collect();
        Ok(ScenarioRows { config: self.clone(), devices, faults, round: 0, next: 0 })
    }

    /// What its device of this number is called.
    pub fn name(&self, n: usize) -> String {
        format!("{}-{n:03}", self.scenario.prefix())
    }
}

impl ScenarioRows {
    /// Who has which fault, and when.
    pub fn faults(&self) -> &[ScenarioFault] {
        &self.faults
    }

    /// The truth as CSV, as `avouch backtest --labels` reads it: `device,from,to,kind`.
    pub fn labels(&self) -> String {
        let mut out = String::from("device,from,to,kind\n");
        for f in &self.faults {
            let (from, to) = (format_timestamp(f.from_ms), format_timestamp(f.to_ms));
            out.push_str(&format!("{},{from},{to},{}\n", f.device, f.kind));
        }
        out
    }

    /// Writes the next row and says of which device it is; nothing at the end. Without `named` the row does not say itself.
    pub fn write(&mut self, row: &mut Row, named: bool) -> Option<usize> {
        let c = &self.config;
        let n = self.next;
        // Devices do not all speak at one instant.
        let offset = n as i64 * c.cadence_ms / i64::from(c.devices);
        let t_ms = c.start_ms + self.round * c.cadence_ms + offset;
        if t_ms >= c.start_ms + c.duration_ms {
            return None;
        }
        let fault = self.faults.get(n).filter(|f| (f.from_ms..f.to_ms).contains(&t_ms)).map(|f| {
            let gone = (t_ms - f.from_ms + 1) as f64 / (f.to_ms - f.from_ms) as f64;
            (n % c.scenario.faults().len(), gone)
        });
        row.begin();
        if named {
            row.text(c.scenario.key(), &c.name(n));
        }
        let dt_s = if self.round == 0 { 0.0 } else { c.cadence_ms as f64 / 1000.0 };
        self.devices[n].fields(t_ms, dt_s, fault, row);
        row.end();
        self.next += 1;
        if self.next == self.devices.len() {
            self.next = 0;
            self.round += 1;
        }
        Some(n)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::row::RowForm;
    use super::*;

    const START: i64 = 1_767_686_400_000;

    fn config(scenario: Scenario, faulty: u32) -> ScenarioConfig {
        ScenarioConfig {
            scenario,
            seed: 7,
            devices: 6,
            start_ms: START,
            duration_ms: 100 * scenario.cadence_ms(),
            cadence_ms: scenario.cadence_ms(),
            faulty,
        }
    }

    fn written(config: &ScenarioConfig) -> Vec<Vec<u8>> {
        let (mut rows, mut row, mut out) = (config.rows().unwrap(), Row::new(RowForm::Json), Vec::new());
        while rows.write(&mut row, true).is_some() {
            out.push(row.bytes().to_vec());
        }
        out
    }

    const ALL: [Scenario; 5] =
        [Scenario::Servers, Scenario::ColdChain, Scenario::Batteries, Scenario::Plant, Scenario::Spacecraft];

    #[test]
    fn rows_are_json_in_order_of_time_and_the_same_each_time() {
        for scenario in ALL {
            let rows = written(&config(scenario, 3));
            assert_eq!(rows.len(), 600);
            assert_eq!(rows, written(&config(scenario, 3)));
            let json: Vec<serde_json::Value> = rows.iter().map(|r| serde_json::from_slice(r).unwrap()).collect();
            let time = |v: &serde_json::Value| {
                ["ts", "time", "timestamp"].iter().find_map(|name| v.get(name)).unwrap().to_string()
            };
            assert!(json.windows(2).all(|w| time(&w[0]) <= time(&w[1])), "{scenario:?}");
            for row in &json {
                for (name, value) in row.as_object().unwrap() {
                    assert!(value.is_string() || value.as_f64().unwrap().is_finite(), "{name}: {value}");
                }
            }
        }
    }

    #[test]
    fn a_fault_changes_its_device_in_its_time_and_nothing_before() {
        for scenario in ALL {
            let (healthy, faulty) = (written(&config(scenario, 0)), written(&config(scenario, 3)));
            let faults = config(scenario, 3).rows().unwrap().faults().to_vec();
            assert_eq!(faults.len(), 3);
            for (n, (a, b)) in healthy.iter().zip(&faulty).enumerate() {
                let (device, round) = (n % 6, n as i64 / 6);
                let t = START + round * scenario.cadence_ms() + device as i64 * scenario.cadence_ms() / 6;
                match faults.get(device) {
                    Some(f) if t >= f.from_ms => {
                        assert!(t >= f.to_ms || a != b, "{scenario:?} {device} {round}");
                    }
                    _ => assert_eq!(a, b, "{scenario:?} {device} {round}"),
                }
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let wrong = ScenarioConfig { faulty: 7, ..config(Scenario::Servers, 0) };
        assert_eq!(
            wrong.rows().err().unwrap().to_string(),
            "the fleet cannot be simulated: 7 faulty devices in a fleet of 6"
        );
    }
}
