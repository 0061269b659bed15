//! Turbofan engines that are flown until they fail, in the layout of NASA's C-MAPSS simulations.
//!
//! An engine wears with every flight, the faster the more worn it is, and fails at the end of the flight in which its wear
//! reaches one. A flight is in one of six conditions (altitude, speed, throttle); a sensor shows the condition's level, a share of it
//! that grows with the wear, and noise. Levels, noise and shares are about those of the public FD002 set. Of the 21
//! sensors seven do not wear.
//!
//! Cycle n is hour n after the start, and all engines fly side by side. How an engine wears and what its sensors show are drawn
//! apart, so that its life does not depend on how long it is watched.

use std::fmt::Write as _;

use avouch_engine::decode::format_timestamp;

use super::fleet::SimulatorError;
use super::random::Noise;
use super::row::Row;

const HOUR_MS: i64 = 3_600_000;

/// Altitude in thousands of feet, Mach number, throttle resolver angle.
const CONDITIONS: [(f64, f64, f64); 6] = [
    (0.0, 0.0, 100.0),
    (10.0, 0.25, 100.0),
    (20.0, 0.7, 100.0),
    (25.0, 0.62, 60.0),
    (35.0, 0.84, 100.0),
    (42.0, 0.84, 100.0),
];

struct Sensor {
    name: &'static str,
    /// In each condition, of a new engine.
    level: [f64; 6],
    /// Standard deviation.
    noise: f64,
    /// By what share of the level a worn engine's is higher.
    wear: f64,
    decimals: usize,
}

const fn sensor(name: &'static str, level: [f64; 6], noise: f64, wear: f64, decimals: usize) -> Sensor {
    Sensor { name, level, noise, wear, decimals }
}

/// In the data set's order.
const SENSORS: [Sensor; 21] = [
    sensor("T2", [518.67, 489.05, 491.19, 462.54, 449.44, 445.0], 0.0, 0.0, 2),
    sensor("T24", [642.36, 604.62, 607.29, 536.7, 555.54, 549.46], 0.34, 0.0019, 2),
    sensor("T30", [1586.7, 1498.6, 1482.3, 1260.0, 1363.6, 1351.3], 4.4, 0.0095, 2),
    sensor("T50", [1402.6, 1305.4, 1248.0, 1046.0, 1126.6, 1122.9], 5.3, 0.0182, 2),
    sensor("P2", [14.62, 10.52, 9.35, 7.05, 5.48, 3.91], 0.0, 0.0, 2),
    sensor("P15", [21.61, 15.49, 13.65, 9.03, 8.0, 5.71], 0.003, 0.0, 2),
    sensor("P30", [553.97, 394.73, 334.85, 175.59, 194.64, 138.75], 0.47, -0.0043, 2),
    sensor("Nf", [2388.06, 2318.89, 2323.95, 1915.35, 2222.97, 2211.92], 0.09, 0.00012, 2),
    sensor("Nc", [9056.6, 8779.4, 8723.8, 8010.5, 8350.3, 8321.7], 7.7, 0.0034, 2),
    sensor("epr", [1.3, 1.26, 1.08, 0.94, 1.02, 1.02], 0.0, 0.0, 2),
    sensor("Ps30", [47.35, 45.31, 44.29, 36.66, 41.82, 41.99], 0.15, 0.0163, 2),
    sensor("phi", [521.93, 371.79, 315.17, 164.7, 183.2, 130.65], 0.37, -0.0038, 2),
    sensor("NRf", [2388.06, 2388.09, 2388.08, 2028.25, 2388.06, 2388.0], 0.09, 0.00012, 2),
    sensor("NRc", [8138.0, 8131.5, 8062.2, 7874.7, 8068.6, 8085.2], 7.4, 0.0023, 2),
    sensor("BPR", [8.4178, 8.6388, 9.2068, 10.8838, 9.3062, 9.3526], 0.026, 0.0114, 4),
    sensor("farB", [0.03, 0.03, 0.02, 0.02, 0.02, 0.02], 0.0, 0.0, 2),
    sensor("htBleed", [392.27, 368.79, 364.51, 306.66, 333.45, 330.24], 1.08, 0.0101, 0),
    sensor("Nf_dmd", [2388.0, 2319.0, 2324.0, 1915.0, 2223.0, 2212.0], 0.0, 0.0, 0),
    sensor("PCNfR_dmd", [100.0, 100.0, 100.0, 84.93, 100.0, 100.0], 0.0, 0.0, 2),
    sensor("W31", [38.937, 28.608, 24.526, 14.302, 14.876, 10.616], 0.11, -0.0118, 2),
    sensor("W32", [23.3588, 17.1652, 14.7135, 8.5813, 8.9234, 6.369], 0.066, -0.0118, 4),
];

/// Engines and how long they are watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurbofanConfig {
    /// Decides everything random.
    pub seed: u64,
    /// How many engines.
    pub engines: u32,
    /// In how many of the six conditions they fly, from one (sea level) to all.
    pub conditions: u32,
    /// Cycle 0, milliseconds since the epoch; the first flight is an hour later.
    pub start_ms: i64,
    /// No engine is watched for more flights than this; none: all of them until they fail.
    pub flights: Option<u32>,
}

struct Engine {
    /// At each flight; it fails at the end of the last.
    wear: Vec<f64>,
    noise: Noise,
}

/// The flights in order of time. Made by [`TurbofanConfig::rows`].
pub struct TurbofanRows {
    config: TurbofanConfig,
    engines: Vec<Engine>,
    cycle: usize,
    next: usize,
}

impl TurbofanConfig {
    /// The flights.
    ///
    /// # Errors
    /// [`SimulatorError`] if the configuration makes no sense.
    pub fn rows(&self) -> Result<TurbofanRows, SimulatorError> {
        let wrong = |why: String| Err(SimulatorError { why });
        if self.engines == 0 || self.engines > 10_000 {
            return wrong(format!("{} engines: a fleet has between 1 and 10,000", self.engines));
        }
        if self.conditions == 0 || self.conditions as usize > CONDITIONS.len() {
            return wrong(format!("{} flight conditions: there are between 1 and 6", self.conditions));
        }
        if self.flights == Some(0) {
            return wrong("no flights: engines are watched for at least one".into());
        }
        if !(0..i64::MAX / 2).contains(&self.start_ms) {
            return wrong("the run must start in 1970 or later and end within the range of 64-bit milliseconds".into());
        }
        let engines = (0..u64::from(self.engines))
            .map(|n| Engine {
                wear: life(&mut Noise::new(self.seed, 30, n)),
                noise: Noise::new(self.seed ^ self.start_ms as u64, 31, n),
            })
            .collect();
        Ok(TurbofanRows { config: self.clone(), engines, cycle: 1, next: 0 })
    }
}

/// The wear at each flight until it reaches one.
fn life(draw: &mut Noise) -> Vec<f64> {
    let mut wear = draw.between(0.0, 0.12);
    let (rate, growth) = (draw.between(0.0014, 0.0026), draw.between(4.0, 6.5));
    let mut flights = Vec::new();
    while wear < 1.0 {
        flights.push(wear);
        // Some flights are hard and some are gentle, but none mends.
        wear += rate * (1.0 + growth * wear) * (1.0 + 0.4 * draw.normal()).max(0.0);
    }
    flights
}

impl TurbofanRows {
    /// When each engine fails, also of those that are not watched until then, as `[train.*]` reads it: `engine,failed_at`.
    pub fn failures(&self) -> String {
        let mut out = String::from("engine,failed_at\n");
        for (n, engine) in self.engines.iter().enumerate() {
            // A flight's hour ends when the next begins; at the end of the last nothing remains.
            let at = self.config.start_ms + (engine.wear.len() as i64 + 1) * HOUR_MS;
            let _ = writeln!(out, "{},{}", name(n), format_timestamp(at));
        }
        out
    }

    /// Writes the next flight; `false` at the end.
    pub fn write(&mut self, row: &mut Row) -> bool {
        let limit = self.config.flights.map_or(usize::MAX, |f| f as usize);
        let Some((n, wear)) = self.advance(limit) else { return false };
        let noise = &mut self.engines[n].noise;
        let at = noise.below(u64::from(self.config.conditions)) as usize;
        let (altitude, mach, throttle) = CONDITIONS[at];
        row.begin();
        row.text("engine", &name(n));
        row.text("at", &format_timestamp(self.config.start_ms + self.cycle as i64 * HOUR_MS));
        row.whole("cycle", self.cycle as i64);
        row.number("altitude", altitude + 0.005 * noise.uniform(), 4);
        row.number("mach", mach + 0.002 * noise.uniform(), 4);
        row.number("throttle", throttle, 1);
        for sensor in &SENSORS {
            let level = sensor.level[at];
            let value = level + level * sensor.wear * wear + sensor.noise * noise.normal();
            row.number(sensor.name, value, sensor.decimals);
        }
        row.end();
        self.next = n + 1;
        true
    }

    /// The next engine that flies, and how worn it is.
    fn advance(&mut self, limit: usize) -> Option<(usize, f64)> {
        loop {
            if self.cycle > limit {
                return None;
            }
            let flies = |e: &Engine| e.wear.get(self.cycle - 1).copied();
            let mut rest = self.engines.iter().enumerate().skip(self.next);
            if let Some(found) = rest.find_map(|(n, e)| Some((n, flies(e)?))) {
                return Some(found);
            }
            if !self.engines.iter().any(|e| e.wear.len() > self.cycle) {
                return None;
            }
            self.cycle += 1;
            self.next = 0;
        }
    }
}

fn name(n: usize) -> String {
    format!("engine-{:03}", n + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::row::RowForm;
    use super::*;

    fn config(flights: Option<u32>) -> TurbofanConfig {
        TurbofanConfig { seed: 7, engines: 20, conditions: 6, start_ms: 946_684_800_000, flights }
    }

    fn flown(config: &TurbofanConfig) -> Vec<serde_json::Value> {
        let (mut rows, mut row, mut out) = (config.rows().unwrap(), Row::new(RowForm::Json), Vec::new());
        while rows.write(&mut row) {
            out.push(serde_json::from_slice(row.bytes()).unwrap());
        }
        out
    }

    #[test]
    fn engines_fly_until_they_fail_and_the_truth_says_when() {
        let rows = flown(&config(None));
        assert_eq!(rows, flown(&config(None)), "the same each time");
        let key = |r: &serde_json::Value| (r["cycle"].as_i64().unwrap(), r["engine"].as_str().unwrap().to_owned());
        assert!(rows.windows(2).all(|w| key(&w[0]) < key(&w[1])));
        for line in config(None).rows().unwrap().failures().lines().skip(1) {
            let (engine, failed_at) = line.split_once(',').unwrap();
            let flights: Vec<_> = rows.iter().filter(|r| r["engine"] == engine).collect();
            assert!((90..400).contains(&flights.len()), "{engine} flew {}", flights.len());
            let end = 946_684_800_000 + (flights.len() as i64 + 1) * HOUR_MS;
            assert_eq!(failed_at, format_timestamp(end));
            assert!(flights.iter().all(|r| r.as_object().unwrap().len() == 3 + 3 + 21));
        }
    }

    #[test]
    fn fewer_flights_are_the_first_ones_and_lives_stay() {
        let (all, few) = (flown(&config(None)), flown(&config(Some(50))));
        assert_eq!(few.len(), 20 * 50);
        assert_eq!(few, all[..few.len()]);
        assert_eq!(config(Some(50)).rows().unwrap().failures(), config(None).rows().unwrap().failures());
    }

    #[test]
    fn wear_shows_in_the_sensors_that_wear_and_in_no_other() {
        let rows = flown(&TurbofanConfig { conditions: 1, ..config(None) });
        let mean = |name: &str, worn: bool| {
            let lives: std::collections::BTreeMap<_, i64> =
                rows.iter().map(|r| (r["engine"].as_str().unwrap(), r["cycle"].as_i64().unwrap())).collect();
            let chosen: Vec<f64> = rows
                .iter()
                .filter(|r| {
                    let left = lives[r["engine"].as_str().unwrap()] - r["cycle"].as_i64().unwrap();
                    if worn { left < 5 } else { left > 90 }
                })
                .map(|r| r[name].as_f64().unwrap())
                .collect();
            chosen.iter().sum::<f64>() / chosen.len() as f64
        };
        for sensor in &SENSORS {
            let (new, worn) = (mean(sensor.name, false), mean(sensor.name, true));
            let moved = (worn - new) / sensor.noise.max(0.001);
            match sensor.wear {
                w if w > 0.0 => assert!(moved > 1.0, "{}: {moved}", sensor.name),
                w if w < 0.0 => assert!(moved < -1.0, "{}: {moved}", sensor.name),
                _ => assert!(moved.abs() < 0.3, "{}: {moved}", sensor.name),
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let said = |c: TurbofanConfig| c.rows().err().unwrap().to_string();
        for c in [
            TurbofanConfig { engines: 0, ..config(None) },
            TurbofanConfig { conditions: 7, ..config(None) },
            TurbofanConfig { flights: Some(0), ..config(None) },
            TurbofanConfig { start_ms: -1, ..config(None) },
        ] {
            assert!(said(c).starts_with("the fleet cannot be simulated: "));
        }
    }
}
