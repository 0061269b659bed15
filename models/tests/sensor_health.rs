//! Bad readings through the engine: each kind found as its own class, and nothing poisoned by them.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../engine/tests/fleet/mod.rs"]
mod fleet;

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use avouch_engine::decode::RawRecord;
use avouch_engine::lane::Lane;
use avouch_engine::model::{Finding, Scorer};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{DecideSpec, LaneSpec, ScoreStepSpec, SqlStepSpec};
use avouch_engine::verdict::{Secret, VerdictRecord, class};
use avouch_models::sensor_health::SensorHealthConfig;
use avouch_models::t2q::{BaselineKind, T2qConfig};
use avouch_models::{
    AlgorithmConfig, ModelError, SplitBy, SplitConfig, TrainConfig, TrainedModel, TrainingFrame, load, train,
};
use common::Noise;
use fleet::{Fleet, SumModel, T0, row};
use proptest::prelude::*;

const FEATURES: [&str; 5] = ["n", "dt_max", "x_min", "x_max", "x_std"];

/// The sensor cannot show more.
const TOP: f64 = 21.6;

/// A reading every tenth of a second, so ten a window; one in fifty is lost.
struct Sensor {
    device: String,
    at: i64,
    noise: Noise,
}

impl Sensor {
    fn of(number: u64) -> Self {
        let mut noise = Noise(number.wrapping_mul(7919).wrapping_add(5));
        for _ in 0..20 {
            noise.next();
        }
        Self { device: format!("d{number}"), at: T0, noise }
    }

    fn value(&mut self) -> f64 {
        (20.0 + 1.2 * self.noise.bell()).min(TOP)
    }

    /// Healthy readings for so many windows.
    fn healthy(&mut self, windows: usize) -> Vec<(i64, String)> {
        let mut out = Vec::new();
        for _ in 0..10 * windows {
            let (x, lost) = (self.value(), self.noise.next() < -0.48);
            if !lost {
                out.push((self.at, row(&self.device, self.at, x)));
            }
            self.at += 100;
        }
        out
    }

    /// One window of readings a step apart, as `of` gives them; `None` is null.
    fn window(&mut self, step: i64, of: impl Fn(f64) -> Option<f64>) -> Vec<(i64, String)> {
        (0..1_000 / step)
            .map(|_| {
                let ts = self.at;
                let x = of(self.value()).map_or("null".to_owned(), |x| x.to_string());
                self.at += step;
                (ts, format!("{{\"device\":\"{}\",\"ts\":{ts},\"x\":{x}}}", self.device))
            })
            .collect()
    }
}

fn features() -> Vec<String> {
    FEATURES.map(str::to_owned).to_vec()
}

fn steps(models: Vec<(&'static str, Arc<dyn Scorer>)>) -> impl FnOnce(&mut LaneSpec) {
    move |spec| {
        spec.sql[0].from = "timed".into();
        spec.sql[0].sql = "SELECT device, count(*) AS n, max(dt) AS dt_max, min(x) AS x_min, max(x) AS x_max, \
                           stddev(x) AS x_std, avg(x) AS x_mean FROM timed GROUP BY device"
            .into();
        spec.sql.push(SqlStepSpec {
            name: "timed".into(),
            from: "readings".into(),
            sql: "SELECT *, delta(ts) AS dt FROM readings".into(),
            window: None,
        });
        spec.scores = models
            .into_iter()
            .map(|(name, model)| ScoreStepSpec {
                name: name.into(),
                from: "features".into(),
                features: model.features().to_vec(),
                model,
                decide: DecideSpec::p_values(Some(0.001), None),
            })
            .collect();
    }
}

/// Features of healthy devices, by the engine.
fn frame(features: &[String]) -> TrainingFrame {
    let mut spec = fleet::spec();
    steps(vec![("any", Arc::new(SumModel(vec!["n".to_owned()])))])(&mut spec);
    let plan = Arc::new(LanePlan::new(&spec).unwrap());
    let step = plan.windows.iter().position(|w| w.name == "features").unwrap();
    let mut lane = Lane::new(plan, 0, Secret::new(b"training"));
    let mut readings: Vec<(i64, String)> = (0..6).flat_map(|d| Sensor::of(d).healthy(250)).collect();
    readings.sort_by_key(|r| r.0);
    let records: Vec<RawRecord<'_>> = readings
        .iter()
        .enumerate()
        .map(|(i, (ts, value))| RawRecord {
            offset: i as i64,
            timestamp: *ts,
            key: None,
            value: Some(value.as_bytes()),
            origin: None,
            signature: None,
        })
        .collect();
    let mut dead = Vec::new();
    let mut rows = lane.step_features(&records, step, &mut dead).unwrap();
    rows.extend(lane.finish_features(step).unwrap());
    assert!(dead.is_empty());
    let batches: Vec<RecordBatch> = rows
        .iter()
        .map(|r| {
            let mut columns: Vec<(String, ArrayRef)> = vec![
                ("device".to_owned(), Arc::new(StringArray::from_iter_values(&r.devices))),
                ("window_end".to_owned(), Arc::new(Int64Array::from(r.window_ends.clone()))),
            ];
            columns.extend(features.iter().map(|f| (f.clone(), r.batch.column_by_name(f).unwrap().clone())));
            RecordBatch::try_from_iter(columns).unwrap()
        })
        .collect();
    TrainingFrame::from_batches(features, &batches).unwrap()
}

fn roles() -> SensorHealthConfig {
    SensorHealthConfig {
        readings: Some("n".to_owned()),
        interval_max: Some("dt_max".to_owned()),
        spread: vec!["x_std".to_owned()],
        low: vec!["x_min".to_owned()],
        high: vec!["x_max".to_owned()],
        ..SensorHealthConfig::default()
    }
}

fn config(algorithm: AlgorithmConfig) -> TrainConfig {
    let split = SplitConfig { by: SplitBy::Time, hold_back: 0.3, seed: 0 };
    TrainConfig { algorithm, split, provenance: Default::default() }
}

fn trained() -> TrainedModel {
    train(&frame(&features()), &config(AlgorithmConfig::SensorHealth(roles()))).unwrap()
}

fn send(fleet: &mut Fleet, readings: Vec<(i64, String)>) {
    for (ts, value) in readings {
        fleet.send(ts, &value);
    }
}

/// Classes of the verdicts of the device from this time on.
fn classes(fleet: &Fleet, step: &str, from: i64) -> Vec<u16> {
    let of = |v: &&VerdictRecord| &*v.evidence.step == step && v.verdict.window_start as i64 >= from;
    fleet.out.verdicts.iter().filter(of).map(|v| v.verdict.class).collect()
}

/// Name, class, from which second on, and the reading in place of a healthy one.
type Case = (&'static str, u16, i64, fn(f64) -> Option<f64>);

#[test]
fn each_kind_of_bad_reading_is_its_own_class_and_healthy_ones_are_none() {
    let model = trained();
    let cases: [Case; 5] = [
        ("stuck", class::STUCK, 100, |_| Some(20.3)),
        ("saturated", class::SATURATED, 100, |_| Some(TOP)),
        ("nothing from the sensor", class::GAP, 100, |_| None),
        ("few readings", class::GAP, 250, Some),
        ("twice as many readings", class::IRREGULAR, 50, Some),
    ];
    for (name, want, step, of) in cases {
        let mut fleet = Fleet::new(steps(vec![("sensors", model.scorer.clone())]));
        let mut sensor = Sensor::of(77);
        send(&mut fleet, sensor.healthy(30));
        let from = sensor.at;
        let bad: Vec<_> = (0..3).flat_map(|_| sensor.window(step, of)).collect();
        send(&mut fleet, bad);
        let after = sensor.at;
        send(&mut fleet, sensor.healthy(10));
        fleet.tick(sensor.at).unwrap();
        let all = classes(&fleet, "sensors", 0);
        assert_eq!(all.len(), 43, "{name}");
        assert_eq!(classes(&fleet, "sensors", from)[..3], [want; 3], "{name}");
        assert!(all[..30].iter().all(|c| *c == class::NORMAL), "{name}: {all:?}");
        // Nothing is left of it afterwards.
        assert!(classes(&fleet, "sensors", after).iter().all(|c| *c == class::NORMAL), "{name}: {all:?}");
    }
}

#[test]
fn a_silent_device_has_no_verdict_and_its_first_window_after_the_gap_says_so() {
    let model = trained();
    let mut fleet = Fleet::new(steps(vec![("sensors", model.scorer.clone())]));
    let mut sensor = Sensor::of(78);
    send(&mut fleet, sensor.healthy(30));
    sensor.at += 7_000;
    let from = sensor.at;
    send(&mut fleet, sensor.healthy(10));
    fleet.tick(sensor.at).unwrap();
    let all = classes(&fleet, "sensors", 0);
    assert_eq!(all.len(), 40, "seven windows without readings have no verdict");
    assert_eq!(classes(&fleet, "sensors", from)[0], class::GAP);
    assert!(all[31..].iter().chain(&all[..30]).all(|c| *c == class::NORMAL), "{all:?}");
}

#[test]
fn healthy_devices_have_no_more_findings_than_the_level_says() {
    let model = trained();
    let mut fleet = Fleet::new(steps(vec![("sensors", model.scorer.clone())]));
    let mut readings: Vec<_> = (200..210).flat_map(|d| Sensor::of(d).healthy(200)).collect();
    readings.sort_by_key(|r| r.0);
    send(&mut fleet, readings);
    let all = classes(&fleet, "sensors", 0);
    let found = all.iter().filter(|c| **c != class::NORMAL && **c != class::ANOMALY).count();
    // A thousandth for each of two roles that have a level, of some 2,000 windows.
    assert!(all.len() > 1_900 && found <= 11, "{found} of {}", all.len());
    let value = |name: &str| model.card.fitted.iter().find(|f| f.name.contains(name)).unwrap().value.clone();
    assert!(value("held-back windows with a finding")[0] <= 0.008);
    assert_eq!(value("`x_max`: end of the range"), [TOP]);
}

#[test]
fn what_is_missing_is_not_a_number_to_a_detector_and_no_harm_to_what_it_remembers() {
    let of_detector = vec!["x_mean".to_owned(), "x_std".to_owned()];
    let algorithm = T2qConfig { baseline: BaselineKind::Adaptive, ..T2qConfig::default() };
    let detector = train(&frame(&of_detector), &config(AlgorithmConfig::T2q(algorithm))).unwrap();
    let models = || vec![("sensors", trained().scorer), ("anomaly", detector.scorer.clone())];
    let run = |gap: bool, restart: bool| {
        let mut fleet = Fleet::new(steps(models()));
        let mut sensor = Sensor::of(80);
        send(&mut fleet, sensor.healthy(25));
        if restart {
            fleet.restart();
        }
        let nothing: Vec<_> = (0..4).flat_map(|_| sensor.window(100, |_| None)).collect();
        if gap {
            send(&mut fleet, nothing);
        }
        if restart {
            fleet.restart();
        }
        let from = sensor.at;
        send(&mut fleet, sensor.healthy(25));
        fleet.tick(sensor.at).unwrap();
        let detector = |v: &&VerdictRecord| &*v.evidence.step == "anomaly";
        let after = |v: &&VerdictRecord| v.verdict.window_start as i64 >= from;
        let bits: Vec<u64> = fleet
            .out
            .verdicts
            .iter()
            .filter(detector)
            .filter(after)
            .flat_map(|v| v.evidence.features.iter().map(|f| f.expected.to_bits()).chain([v.evidence.score.to_bits()]))
            .collect();
        (classes(&fleet, "anomaly", 0), classes(&fleet, "sensors", 0), bits)
    };
    let (anomaly, sensors, bits) = run(true, false);
    assert_eq!(anomaly[25..29], [class::NOT_A_NUMBER; 4]);
    assert_eq!(sensors[25..29], [class::GAP; 4]);
    assert!(anomaly[29..].iter().all(|c| *c != class::NOT_A_NUMBER));
    assert_eq!(bits.len(), 25 * 3);
    assert_eq!(run(true, true), (anomaly, sensors, bits.clone()), "a restart around the gap changes no bit");
    // Had there been no rows at all, it would remember the same.
    assert_eq!(run(false, false).2, bits);
}

#[test]
fn a_range_that_is_given_is_touched_by_no_healthy_window() {
    let algorithm = SensorHealthConfig { range: vec![[-40.0, 85.0]], ..roles() };
    let model = train(&frame(&features()), &config(AlgorithmConfig::SensorHealth(algorithm))).unwrap();
    let found = |x: [f64; 5]| model.scorer.score("d", &x, &mut [0.0; 5], &mut [0.0; 5]).finding;
    assert_eq!(found([10.0, 100.0, 18.0, 21.0, 1.0]), None);
    assert_eq!(found([10.0, 100.0, 18.0, 85.0, 1.0]), Some(Finding::Saturated));
    assert_eq!(found([10.0, 100.0, -40.0, 21.0, 1.0]), Some(Finding::Saturated));
    // A first window has no interval before it.
    assert_eq!(found([10.0, f64::NAN, 18.0, 21.0, 1.0]), None);
}

#[test]
fn contributions_add_up_and_every_mistake_is_named() {
    let model = trained();
    for x in [[3.0, 900.0, 20.0, 20.0, 0.0], [10.0, 100.0, TOP, TOP, f64::NAN], [25.0, 40.0, 19.0, 21.0, 0.5]] {
        let (mut e, mut c) = ([0.0; 5], [0.0; 5]);
        let s = model.scorer.score("d", &x, &mut e, &mut c);
        assert!((c.iter().sum::<f64>() - s.value).abs() < 1e-12 && s.finding.is_some() && s.p_value <= 0.01);
        assert!(e.iter().all(|v| v.is_finite()));
    }
    let frame = frame(&features());
    let say = |change: &dyn Fn(&mut SensorHealthConfig)| {
        let mut c = roles();
        change(&mut c);
        let error: ModelError = train(&frame, &config(AlgorithmConfig::SensorHealth(c))).unwrap_err();
        error.to_string()
    };
    for (error, needle) in [
        (say(&|c| c.level = 0.5), "algorithm.level"),
        (say(&|c| c.high.clear()), "both of each sensor"),
        (say(&|c| c.range = vec![[1.0, 0.0]]), "algorithm.range"),
        (say(&|c| c.readings = Some("m".to_owned())), "`m` is not among"),
        (say(&|c| c.readings = None), "`n` has no role"),
        (say(&|c| c.interval_max = Some("n".to_owned())), "two roles"),
    ] {
        assert!(error.contains(needle), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_rows_give_the_same_bytes_and_a_damaged_file_is_refused(cut in 0usize..10_000, bit in 0usize..80_000) {
        let model = trained();
        prop_assert!(trained().bytes == model.bytes);
        prop_assert!(load(&model.bytes[..cut % model.bytes.len()]).is_err());
        let mut altered = model.bytes.clone();
        let bit = bit % (8 * altered.len());
        altered[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(load(&altered).is_err());
    }

    #[test]
    fn loading_changes_no_bit(x in prop::collection::vec(prop_oneof![-5.0f64..30.0, Just(f64::NAN), Just(f64::INFINITY)], 5)) {
        let model = shared();
        let (mut e, mut c, mut e2, mut c2) = ([0.0; 5], [0.0; 5], [0.0; 5], [0.0; 5]);
        let a = model.scorer.score("a", &x, &mut e, &mut c);
        let b = load(&model.bytes).unwrap().score("b", &x, &mut e2, &mut c2);
        prop_assert_eq!((a.value.to_bits(), a.p_value.to_bits(), a.finding), (b.value.to_bits(), b.p_value.to_bits(), b.finding));
        prop_assert_eq!((e, c), (e2, c2));
        prop_assert!(a.value.is_finite() && a.value >= 0.0);
    }
}

fn shared() -> &'static TrainedModel {
    static MODEL: std::sync::OnceLock<TrainedModel> = std::sync::OnceLock::new();
    MODEL.get_or_init(trained)
}
