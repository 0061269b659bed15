#![allow(clippy::unwrap_used)]

use sha2::{Digest, Sha256};

use super::*;

const DAY: i64 = 86_400_000;
/// 2026-01-06T08:00:00Z.
const START: i64 = 1_767_686_400_000;

struct Run {
    readings: Vec<SimulatedReading>,
    truth: GroundTruth,
    announced: u64,
}

fn run(config: FleetConfig) -> Run {
    let mut fleet = Fleet::new(config).unwrap();
    let announced = fleet.total_rows();
    let readings: Vec<_> = fleet.by_ref().collect();
    Run { readings, truth: fleet.truth(), announced }
}

fn digest(readings: &[SimulatedReading]) -> String {
    let mut hash = Sha256::new();
    for r in readings {
        hash.update(r.device.as_bytes());
        hash.update(r.broker_time_ms.to_le_bytes());
        hash.update(&r.payload);
    }
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

fn troubled() -> FleetConfig {
    FleetConfig { bad_share: 0.002, late_share: 0.003, ..FleetConfig::troubled(7, 40, START, 3_600_000) }
}

/// The values of one field of a device's good rows, with their true times.
fn series(run: &Run, device: &str, field: &str) -> Vec<(i64, f64)> {
    run.readings
        .iter()
        .filter(|r| &*r.device == device)
        .filter_map(|r| {
            let row: serde_json::Value = serde_json::from_slice(&r.payload).ok()?;
            Some((row["ts"].as_i64()?, row[field].as_f64()?))
        })
        .collect()
}

fn within(series: &[(i64, f64)], from: i64, to: i64) -> Vec<f64> {
    series.iter().filter(|(t, _)| (from..to).contains(t)).map(|(_, v)| *v).collect()
}

fn moment(values: &[f64], power: i32) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    values.iter().map(|v| (v - mean).powi(power)).sum::<f64>() / values.len() as f64
}

fn fault(run: &Run, kind: FaultKind) -> (String, FaultTruth) {
    let found = run.truth.devices.iter().find(|d| d.fault.as_ref().is_some_and(|f| f.kind == kind)).unwrap();
    (found.device.clone(), found.fault.clone().unwrap())
}

#[test]
fn the_same_configuration_gives_the_same_bytes_everywhere() {
    let (a, b) = (run(troubled()), run(troubled()));
    assert_eq!(a.readings, b.readings);
    assert_eq!(a.truth, b.truth);
    // Pinned, so that another platform or compiler that gave other bits would be noticed.
    assert_eq!(digest(&a.readings), "9a3eba701d159320");
    assert_ne!(digest(&a.readings), digest(&run(FleetConfig { seed: 8, ..troubled() }).readings));
}

#[test]
fn readings_come_by_broker_time_and_counts_add_up() {
    let run = run(troubled());
    assert!(run.readings.windows(2).all(|w| w[0].broker_time_ms <= w[1].broker_time_ms));
    assert_eq!(run.readings.len() as u64, run.announced);
    assert_eq!(run.truth.rows, run.announced);
    assert_eq!(run.truth.rows, 40 * 3600);
    assert_eq!(run.truth.rows, run.truth.devices.iter().map(|d| d.rows).sum::<u64>());

    // Counted again from the outside: what is no JSON, what is ahead, what arrives minutes after it was measured.
    let (mut bad, mut future, mut late) = (0, 0, 0);
    for r in &run.readings {
        match serde_json::from_slice::<serde_json::Value>(&r.payload) {
            Err(_) => bad += 1,
            Ok(row) => {
                assert_eq!(row["device"].as_str(), Some(&*r.device));
                assert!(row["rpm"].is_i64());
                let ahead = row["ts"].as_i64().unwrap() - r.broker_time_ms;
                future += u64::from(ahead > 300_000);
                late += u64::from(ahead < -200_000);
                assert!(ahead > 300_000 || ahead <= 0);
            }
        }
    }
    assert_eq!((bad, future, late), (run.truth.bad_rows, run.truth.future_rows, run.truth.late_rows));
    assert!(bad > 200 && late > 200 && future > 1500, "{bad} {late} {future}");
}

/// Late rows are late for a lane of the demo's pipeline: one minute of window, half a minute of disorder.
#[test]
fn late_rows_find_their_windows_closed_and_no_others_do() {
    let run = run(troubled());
    let mut highest = std::collections::HashMap::new();
    let mut late = 0;
    for r in &run.readings {
        let Ok(row) = serde_json::from_slice::<serde_json::Value>(&r.payload) else { continue };
        let ts = row["ts"].as_i64().unwrap();
        if ts > r.broker_time_ms + 300_000 {
            continue;
        }
        // A lane that has seen this one device alone closes its windows last of all.
        let max = highest.entry(r.device.clone()).or_insert(ts);
        let last_window_ends = ts.div_euclid(10_000) * 10_000 + 60_000;
        late += u64::from(*max - 30_000 >= last_window_ends);
        *max = (*max).max(ts);
    }
    assert_eq!(late, run.truth.late_rows);
}

#[test]
fn another_day_is_the_same_pumps_with_other_noise() {
    let today = run(FleetConfig::healthy(7, 5, START, 1_800_000));
    let tomorrow = run(FleetConfig::healthy(7, 5, START + DAY, 1_800_000));
    for device in ["pump-000", "pump-004"] {
        let level = |run: &Run| {
            let p = series(run, device, "pressure");
            p.iter().map(|(_, v)| v).sum::<f64>() / p.len() as f64
        };
        assert!((level(&today) - level(&tomorrow)).abs() < 0.15, "{device}");
    }
    assert_ne!(series(&today, "pump-000", "pressure")[0].1, series(&tomorrow, "pump-000", "pressure")[0].1);
    let t = &today.truth;
    assert_eq!((t.bad_rows, t.late_rows, t.future_rows), (0, 0, 0));
    assert!(t.devices.iter().all(|d| d.fault.is_none()));
    assert_eq!(t.label("pump-003", START, START + 60_000), Some(Label::Healthy));
    assert_eq!(t.label("pump-003", START - 20_000, START + 40_000), Some(Label::Unclear));
    assert_eq!(t.label("pump-005", START, START + 60_000), None);
}

#[test]
fn a_worn_bearing_shakes_knocks_and_warms() {
    let run = run(troubled());
    let (device, f) = fault(&run, FaultKind::BearingWear);
    assert_eq!(f.end_ms, run.truth.end_ms);
    let vibration = series(&run, &device, "vibration");
    let (before, late) = (within(&vibration, START, f.onset_ms), within(&vibration, f.end_ms - 600_000, f.end_ms));
    let (rms_before, rms_late) = (moment(&before, 2).sqrt(), moment(&late, 2).sqrt());
    assert!(rms_late > 1.5 * rms_before, "{rms_before} {rms_late}");
    let kurtosis = |v: &[f64]| moment(v, 4) / moment(v, 2).powi(2);
    assert!(kurtosis(&late) > kurtosis(&before) + 1.0, "{} {}", kurtosis(&before), kurtosis(&late));
    // The heat is the difference to the same pump, the same day, without the fault: the noise is the same.
    let healthy = self::run(FleetConfig { faults: FaultMix::default(), ..troubled() });
    let warmer: Vec<f64> = series(&run, &device, "temperature")
        .iter()
        .zip(series(&healthy, &device, "temperature"))
        .map(|((t, a), (u, b))| {
            assert_eq!(*t, u);
            a - b
        })
        .collect();
    assert!(warmer[..600].iter().all(|d| *d == 0.0));
    assert!(*warmer.last().unwrap() > 4.0, "{:?}", warmer.last());
    let (from, to) = *f.evident.last().unwrap();
    assert!(from > f.onset_ms && to >= f.end_ms - 1000);
    assert_eq!(
        run.truth.label(&device, f.end_ms - 61_000, f.end_ms - 1_000),
        Some(Label::Faulty(FaultKind::BearingWear))
    );
    assert_eq!(run.truth.label(&device, f.onset_ms, f.onset_ms + 60_000), Some(Label::Unclear));
    assert_eq!(run.truth.label(&device, START, START + 60_000), Some(Label::Healthy));
}

#[test]
fn cavitation_drops_the_pressure_and_roars() {
    let run = run(troubled());
    let (device, f) = fault(&run, FaultKind::Cavitation);
    let (from, to) = *f.evident.iter().max_by_key(|(a, b)| b - a).unwrap();
    assert!(to - from > 600_000, "evident for {} s", (to - from) / 1000);
    let (pressure, vibration) = (series(&run, &device, "pressure"), series(&run, &device, "vibration"));
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let healthy = within(&pressure, START, f.onset_ms);
    let faulty = within(&pressure, from, to);
    assert!(mean(&faulty) < 0.97 * mean(&healthy), "{} {}", mean(&healthy), mean(&faulty));
    assert!(moment(&faulty, 2) > 4.0 * moment(&healthy, 2));
    assert!(moment(&within(&vibration, from, to), 2) > 1.3 * moment(&within(&vibration, START, f.onset_ms), 2));
}

#[test]
fn a_stuck_sensor_repeats_itself() {
    let run = run(troubled());
    for device in
        run.truth.devices.iter().filter(|d| d.fault.as_ref().is_some_and(|f| f.kind == FaultKind::StuckSensor))
    {
        let f = device.fault.as_ref().unwrap();
        let field = match f.sensor.unwrap() {
            Sensor::Temperature => "temperature",
            Sensor::Pressure => "pressure",
        };
        let values = series(&run, &device.device, field);
        let stuck = within(&values, f.onset_ms, f.end_ms);
        assert!(stuck.len() > 500 && stuck.iter().all(|v| *v == stuck[0]));
        assert!(moment(&within(&values, f.end_ms, run.truth.end_ms), 2) > 0.0);
    }
}

#[test]
fn nonsense_is_refused() {
    let ok = FleetConfig::healthy(1, 3, START, 60_000);
    let too_many = FaultMix { bearing_wear: 2, fast_clock: 2, ..FaultMix::default() };
    for bad in [
        FleetConfig { devices: 0, ..ok.clone() },
        FleetConfig { faults: too_many, ..ok.clone() },
        FleetConfig { cadence_ms: 0, ..ok.clone() },
        FleetConfig { duration_ms: 10, ..ok.clone() },
        FleetConfig { bad_share: f64::NAN, ..ok.clone() },
        FleetConfig { start_ms: -1, ..ok },
    ] {
        let why = Fleet::new(bad).err().unwrap().to_string();
        assert!(why.starts_with("the fleet cannot be simulated: "), "{why}");
    }
}

#[test]
fn the_truth_survives_json() {
    let truth = run(troubled()).truth;
    let text = truth.to_json().unwrap();
    assert_eq!(serde_json::from_str::<GroundTruth>(&text).unwrap(), truth);
}
