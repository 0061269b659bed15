//! What must hold of every drift model: same bytes, same bits, snapshots in mid-stream, damage refused; and that it finds
//! changes when they are there and not when they are not.
#![allow(clippy::unwrap_used, clippy::needless_range_loop)]

mod common;

use avouch_engine::codec::{Reader, Writer};
use avouch_engine::model::{Finding, Memory, Score};
use avouch_models::drift::{DriftBaseline, DriftConfig, LimitsKind, population_stability};
use avouch_models::{
    AlgorithmConfig, ModelError, Provenance, SplitBy, SplitConfig, TrainConfig, TrainedModel, TrainingFrame, load,
    model_hash, train,
};
use common::{Noise, Row, batch, batches, fleet, names};
use proptest::prelude::*;

const P: usize = 3;

fn config(algorithm: DriftConfig, by: SplitBy, hold_back: f64) -> TrainConfig {
    TrainConfig {
        algorithm: AlgorithmConfig::Drift(algorithm),
        split: SplitConfig { by, hold_back, seed: 7 },
        provenance: Provenance {
            pipeline: "test".to_owned(),
            step: "drift".to_owned(),
            pipeline_digest: "00".repeat(32),
            created: "2026-01-01T00:00:00Z".to_owned(),
            data: "data/*.parquet".to_owned(),
        },
    }
}

fn trained_on(rows: &[Row], p: usize, algorithm: DriftConfig, by: SplitBy) -> TrainedModel {
    let frame = TrainingFrame::from_batches(&names(p), &batches(rows, p, &[64])).unwrap();
    train(&frame, &config(algorithm, by, 0.4)).unwrap()
}

fn small(window: usize, baseline: DriftBaseline, adapt: bool) -> DriftConfig {
    DriftConfig { window, baseline, adapt, ..DriftConfig::default() }
}

/// A healthy vector: independent features of mean 20 and standard deviation 1.
fn healthy(noise: &mut Noise, p: usize) -> Vec<f64> {
    (0..p).map(|_| 20.0 + noise.bell() * 3.0_f64.sqrt()).collect()
}

/// Devices of a thousand independent healthy vectors each.
fn calm(seed: u64, devices: usize) -> Vec<Row> {
    let mut noise = Noise(seed);
    let row = |d: usize, i: i64, noise: &mut Noise| (format!("pump-{d:02}"), 10_000 * i, healthy(noise, P));
    (0..devices).flat_map(|d| (0..1_000).map(move |i| (d, i))).map(|(d, i)| row(d, i, &mut noise)).collect()
}

struct Watch {
    memory: Box<dyn Memory>,
    expected: Vec<f64>,
    contributions: Vec<f64>,
    at: i64,
}

impl Watch {
    fn of(model: &TrainedModel, device: &str) -> Self {
        let p = model.scorer.features().len();
        let memory = model.scorer.memory(device).unwrap();
        Self { memory, expected: vec![0.0; p], contributions: vec![0.0; p], at: 0 }
    }

    fn see(&mut self, x: &[f64]) -> Score {
        self.at += 10_000;
        self.memory.score(self.at, x, &mut self.expected, &mut self.contributions)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.memory.write(&mut w);
        w.bytes
    }
}

fn on(s: &Score) -> bool {
    s.finding == Some(Finding::Drift)
}

/// The most successes of `n` tries of probability `p` that one in a thousand such experiments would exceed.
fn binomial_bound(n: u32, p: f64) -> u32 {
    let (mut term, mut sum) = ((1.0 - p).powi(n as i32), 0.0);
    for k in 0..=n {
        sum += term;
        if sum >= 0.999 {
            return k;
        }
        term *= f64::from(n - k) / f64::from(k + 1) * p / (1.0 - p);
    }
    n
}

fn options() -> impl Strategy<Value = (DriftConfig, SplitBy)> {
    let base = prop_oneof![
        Just((DriftBaseline::Fleet, SplitBy::Time)),
        Just((DriftBaseline::Fleet, SplitBy::Device)),
        Just((DriftBaseline::Device, SplitBy::Time)),
    ];
    let limits = prop_oneof![Just(LimitsKind::HeldBack), Just(LimitsKind::Fixed)];
    (base, limits, 20_usize..60, 2_usize..12, any::<bool>()).prop_map(
        |((baseline, by), limits, window, bins, adapt)| {
            (DriftConfig { baseline, limits, window, bins, adapt, ..DriftConfig::default() }, by)
        },
    )
}

/// A stream that changes now and then, with vectors that cannot be scored in between.
fn stream(seed: u64, n: usize, p: usize) -> Vec<Vec<f64>> {
    let mut noise = Noise(seed);
    (0..n)
        .map(|i| {
            let mut x: Vec<f64> = (0..p).map(|_| 6.0 * noise.bell()).collect();
            x[0] += f64::from(u32::from(i % 150 > 60)) * 12.0;
            if noise.next() > 0.47 {
                x[p - 1] = f64::NAN;
            } else if noise.next() > 0.49 {
                x[0] = 1e300;
            }
            x
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_rows_give_the_same_bytes_however_they_come(
        (algorithm, by) in options(),
        sizes in prop::collection::vec(1_usize..200, 1..8),
        seed in 0_u64..1_000,
        rotate in 0_usize..200,
    ) {
        let rows = fleet(4, 60, P, seed);
        let cfg = config(algorithm, by, 0.4);
        let one = train(&TrainingFrame::from_batches(&names(P), [&batch(&rows, P)]).unwrap(), &cfg).unwrap();
        let again = train(&TrainingFrame::from_batches(&names(P), [&batch(&rows, P)]).unwrap(), &cfg).unwrap();
        prop_assert_eq!(&one.bytes, &again.bytes);
        let mut shuffled = rows;
        shuffled.rotate_left(rotate);
        let other = train(&TrainingFrame::from_batches(&names(P), &batches(&shuffled, P, &sizes)).unwrap(), &cfg);
        prop_assert_eq!(&one.bytes, &other.unwrap().bytes);
        prop_assert_eq!(one.hash, model_hash(&one.bytes));
    }

    #[test]
    fn a_memory_restored_in_mid_stream_goes_on_to_the_bit(
        (algorithm, by) in options(),
        seed in 0_u64..1_000,
        cuts in prop::collection::vec(0_usize..400, 1..5),
        device in 0_usize..6,
    ) {
        let model = trained_on(&fleet(4, 60, P, 3), P, algorithm, by);
        let loaded = load(&model.bytes).unwrap();
        let device = format!("pump-{device:02}");
        let mut whole = Watch::of(&model, &device);
        let mut parted = Watch::of(&model, &device);
        for (i, x) in stream(seed, 400, P).iter().enumerate() {
            if cuts.contains(&i) {
                let bytes = parted.bytes();
                prop_assert_eq!(&bytes, &whole.bytes());
                let mut r = Reader::new("memory", &bytes);
                parted.memory = loaded.read_memory(&device, &mut r).unwrap();
                r.finish().unwrap();
                prop_assert_eq!(parted.bytes(), bytes);
            }
            let ahead = whole.memory.copy().score(whole.at + 10_000, x, &mut [0.0; P], &mut [0.0; P]);
            let (a, b) = (whole.see(x), parted.see(x));
            prop_assert_eq!(a.value.to_bits(), b.value.to_bits());
            prop_assert_eq!(a.value.to_bits(), ahead.value.to_bits());
            prop_assert_eq!(a.p_value.to_bits(), b.p_value.to_bits());
            prop_assert_eq!(a.finding, b.finding);
            for j in 0..P {
                prop_assert_eq!(whole.contributions[j].to_bits(), parted.contributions[j].to_bits());
                prop_assert_eq!(whole.expected[j].to_bits(), parted.expected[j].to_bits());
            }
            if a.value.is_nan() {
                prop_assert!(x.iter().any(|v| !v.is_finite()) && a.finding.is_none());
            } else {
                prop_assert!((whole.contributions.iter().sum::<f64>() - a.value).abs() <= 1e-9 * a.value);
                prop_assert!(whole.contributions.iter().all(|c| *c >= 0.0));
                prop_assert!(a.p_value >= loaded.smallest_p_value() && a.p_value <= 1.0);
            }
            // 32 bytes of sums and counts, 45 buckets, the window, the reference learnt and being learnt.
            prop_assert!(whole.bytes().len() <= P * (25 + 45 * 16 + 60 + 32) + 10);
        }
    }

    #[test]
    fn hostile_bytes_are_refused_or_are_a_memory(
        (algorithm, by) in options(),
        seed in 0_u64..1_000,
        cut in 0_usize..10_000,
        bit in 0_usize..100_000,
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let model = trained_on(&fleet(4, 60, P, 3), P, algorithm, by);
        let mut watch = Watch::of(&model, "pump-01");
        for x in stream(seed, 100, P) {
            watch.see(&x);
        }
        let bytes = watch.bytes();
        let cut = cut % bytes.len();
        prop_assert!(model.scorer.read_memory("pump-01", &mut Reader::new("memory", &bytes[..cut])).is_err());
        let mut altered = bytes.clone();
        let bit = bit % (8 * altered.len());
        altered[bit / 8] ^= 1 << (bit % 8);
        for hostile in [&altered, &noise] {
            let mut r = Reader::new("memory", hostile);
            if let Ok(memory) = model.scorer.read_memory("pump-01", &mut r) {
                // What is accepted is written as it was read, and judges.
                let read = hostile.len() - r.remaining();
                let mut w = Writer::new();
                memory.write(&mut w);
                prop_assert_eq!(&w.bytes, &hostile[..read]);
                watch.memory = memory;
                for x in stream(seed + 1, 300, P) {
                    let s = watch.see(&x);
                    prop_assert!(s.value.is_nan() || (s.value.is_finite() && s.value >= 0.0));
                }
            }
        }
    }

    #[test]
    fn a_truncated_or_altered_file_is_refused_and_a_forged_body_does_not_crash(
        cut in 0_usize..100_000,
        bit in 0_usize..800_000,
    ) {
        let rows = fleet(4, 60, P, 3);
        let model = trained_on(&rows, P, small(30, DriftBaseline::Device, true), SplitBy::Time);
        let cut = cut % model.bytes.len();
        prop_assert!(load(&model.bytes[..cut]).is_err());
        let mut altered = model.bytes.clone();
        let bit = bit % (8 * altered.len());
        altered[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(load(&altered).is_err());
        // The same with a trailer that fits.
        let end = altered.len() - 32;
        let trailer = model_hash(&altered[..end]);
        altered[end..].copy_from_slice(&trailer);
        if let Ok(scorer) = load(&altered) {
            let p = scorer.features().len();
            let mut memory = scorer.memory("pump-01").unwrap();
            for x in stream(1, 100, p) {
                memory.score(0, &x, &mut vec![0.0; p], &mut vec![0.0; p]);
            }
        }
    }
}

#[test]
fn healthy_streams_stay_within_the_false_alarm_bound() {
    let model = trained_on(&calm(5, 60), P, DriftConfig::default(), SplitBy::Time);
    let streams = 400;
    let (mut drifts, mut fifths, mut hundredths) = (0, 0, 0);
    for seed in 0..streams {
        let mut noise = Noise(1_000 + u64::from(seed));
        let mut watch = Watch::of(&model, "new pump");
        let mut any = false;
        let mut last = Score::NONE;
        // One row a stream is looked at, so that those looked at are independent.
        for _ in 0..700 {
            last = watch.see(&healthy(&mut noise, P));
            any |= on(&last);
        }
        drifts += u32::from(any);
        fifths += u32::from(last.p_value <= 0.05);
        hundredths += u32::from(last.p_value <= 0.01);
    }
    println!("of {streams}: {drifts} drifts, {fifths} at 0.05, {hundredths} at 0.01");
    // The calibration is itself a sample: of each device's 400 held-back rows, windows of 200 overlap, so it holds about
    // 120 independent values. Its error, by two deviations, comes on top of what is asked.
    for (called, p) in [(fifths, 0.05), (hundredths, 0.01)] {
        let bound = binomial_bound(streams, p + 2.0 * (p / 120.0_f64).sqrt());
        assert!(called <= bound, "{called} of {streams} streams at p ≤ {p}, more than {bound}");
    }
    // Page-Hinkley's limit alone lets one in about ten million rows through; ADWIN is asked for 0.002 a cut.
    assert!(drifts <= binomial_bound(streams, 0.002), "{drifts} drifts in {streams} healthy streams");
}

#[test]
fn changes_are_found_within_their_delays_and_the_feature_is_named() {
    let model = trained_on(&calm(6, 10), P, DriftConfig::default(), SplitBy::Time);
    // A name, the change of a healthy value so many rows after it began, and the rows within which it must be found.
    type Change = (&'static str, fn(f64, f64) -> f64, usize);
    let changes: [Change; 5] = [
        ("level up by one deviation", |v, _| v + 1.0, 80),
        ("level down by two", |v, _| v - 2.0, 20),
        ("spread twice as wide", |v, _| 20.0 + 2.0 * (v - 20.0), 220),
        ("spread a third as wide", |v, _| 20.0 + (v - 20.0) / 3.0, 220),
        ("a slow climb of one deviation in 200 rows", |v, rows| v + rows / 200.0, 260),
    ];
    let streams = 60;
    for (what, change, within) in changes {
        let (mut late, mut early, mut delays, mut other_feature) = (0, 0, 0, 0);
        for seed in 0..streams {
            let mut noise = Noise(77_000 + seed);
            let mut watch = Watch::of(&model, "new pump");
            early += usize::from((0..300).any(|_| on(&watch.see(&healthy(&mut noise, P)))));
            let found = (0..within).find(|rows| {
                let mut x = healthy(&mut noise, P);
                x[1] = change(x[1], *rows as f64);
                on(&watch.see(&x))
            });
            late += usize::from(found.is_none());
            delays += found.unwrap_or(within);
            let largest = (0..P).max_by(|a, b| watch.contributions[*a].total_cmp(&watch.contributions[*b]));
            other_feature += usize::from(largest != Some(1));
        }
        println!("{what}: {late} late, {early} early, mean delay {}", delays / streams as usize);
        assert!(late <= 1, "{what}: not found within {within} rows in {late} of {streams} streams");
        assert!(early <= 1, "{what}: {early} of {streams} called before the change");
        assert!(other_feature <= 1, "{what}: another feature is blamed in {other_feature} of {streams}");
    }
}

#[test]
fn a_drift_stays_on_while_it_lasts_and_ends_with_it() {
    let model = trained_on(&calm(8, 10), P, DriftConfig::default(), SplitBy::Time);
    let mut watch = Watch::of(&model, "new pump");
    let mut noise = Noise(4);
    let mut phase = |watch: &mut Watch, rows: usize, shift: f64| -> Vec<bool> {
        let moved = |noise: &mut Noise| {
            let mut x = healthy(noise, P);
            x[0] += shift;
            x
        };
        (0..rows).map(|_| on(&watch.see(&moved(&mut noise)))).collect()
    };
    phase(&mut watch, 50, 0.0);
    let changed = phase(&mut watch, 3_000, 3.0);
    let from = changed.iter().position(|on| *on).unwrap();
    assert!(from < 20 && changed[from..].iter().all(|on| *on), "on from {from}, then off again");
    assert!((watch.expected[0] - 20.0).abs() < 0.1, "the reference is still the training's");
}

#[test]
fn once_the_data_are_as_before_the_drift_ends_by_itself() {
    let model = trained_on(&calm(9, 10), P, DriftConfig::default(), SplitBy::Time);
    let mut watch = Watch::of(&model, "new pump");
    let mut noise = Noise(5);
    for i in 0..500 {
        let mut x = healthy(&mut noise, P);
        x[2] += if i >= 100 { 3.0 } else { 0.0 };
        let drift = on(&watch.see(&x));
        assert!(drift || i < 120, "off at {i}");
    }
    let after: Vec<bool> = (0..1_000).map(|_| on(&watch.see(&healthy(&mut noise, P)))).collect();
    let last = after.iter().rposition(|on| *on).unwrap_or(0);
    assert!(last < 240, "still on {last} rows after the data were as before");
}

#[test]
fn with_adapt_the_new_level_becomes_the_reference_and_the_next_change_is_found() {
    let model = trained_on(&calm(10, 10), P, DriftConfig { adapt: true, ..DriftConfig::default() }, SplitBy::Time);
    let mut watch = Watch::of(&model, "new pump");
    let mut noise = Noise(6);
    let mut run = |watch: &mut Watch, rows: usize, shift: f64| -> Vec<bool> {
        let shifted = |noise: &mut Noise| healthy(noise, P).iter().map(|v| v + shift).collect::<Vec<_>>();
        (0..rows).map(|_| on(&watch.see(&shifted(&mut noise)))).collect()
    };
    run(&mut watch, 300, 0.0);
    let moved = run(&mut watch, 1_000, 4.0);
    let from = moved.iter().position(|on| *on).unwrap();
    assert!(from < 15);
    // On for the 200 rows of learning, then off for good.
    assert!(moved[from..from + 200].iter().all(|on| *on));
    assert!(!moved[from + 200..].iter().any(|on| *on));
    assert!((watch.expected[1] - 24.0).abs() < 0.3, "{}", watch.expected[1]);
    let back = run(&mut watch, 60, 0.0);
    assert!(back.iter().position(|on| *on).unwrap() < 20, "going back is a change, too");
}

#[test]
fn a_device_is_held_against_its_own_level_and_a_stranger_against_the_fleets() {
    let mut noise = Noise(7);
    let rows: Vec<Row> = (0..5)
        .flat_map(|d| (0..800).map(move |i| (d, i)))
        .map(|(d, i)| {
            let x = healthy(&mut noise, P).iter().map(|v| v + 10.0 * f64::from(d)).collect();
            (format!("pump-{d:02}"), 10_000 * i, x)
        })
        .collect();
    let model = trained_on(&rows, P, small(100, DriftBaseline::Device, false), SplitBy::Time);
    let mut found = |device: &str, level: f64| {
        let mut watch = Watch::of(&model, device);
        let any = (0..300).any(|_| {
            let x: Vec<f64> = healthy(&mut noise, P).iter().map(|v| v + level).collect();
            on(&watch.see(&x))
        });
        (any, watch.expected[0])
    };
    let (any, expected) = found("pump-04", 40.0);
    assert!(!any && (expected - 60.0).abs() < 0.3);
    assert!(found("pump-04", 42.0).0, "two deviations from its own level");
    assert!((found("stranger", 20.0).1 - 40.0).abs() < 1.0, "the fleet's mean");
}

#[test]
fn one_wild_reading_is_no_drift_and_what_cannot_be_scored_leaves_no_trace() {
    let model = trained_on(&calm(11, 10), P, DriftConfig::default(), SplitBy::Time);
    let mut watch = Watch::of(&model, "new pump");
    let mut noise = Noise(8);
    for i in 0..600 {
        let mut x = healthy(&mut noise, P);
        if i % 100 == 50 {
            x[0] = if i % 200 == 50 { f64::MAX } else { f64::MIN };
        }
        assert!(!on(&watch.see(&x)), "{i}");
    }
    let before = watch.bytes();
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let s = watch.see(&[20.0, bad, 20.0]);
        assert!(s.value.is_nan() && s.p_value.is_nan() && s.finding.is_none());
        assert!(watch.expected.iter().chain(&watch.contributions).all(|v| v.is_nan()));
    }
    assert_eq!(watch.bytes(), before);
}

#[test]
fn limits_are_raised_to_what_the_training_rows_reach() {
    // A level that wanders: what is healthy here would be a drift by the options' limits.
    let mut noise = Noise(9);
    let mut level = 0.0;
    let rows: Vec<Row> = (0..4)
        .flat_map(|d| (0..1_000).map(move |i| (d, i)))
        .map(|(d, i)| {
            level = 0.98 * level + 0.2 * noise.bell();
            (format!("pump-{d:02}"), 10_000 * i, vec![level, noise.bell()])
        })
        .collect();
    let fact = |model: &TrainedModel, name: &str| {
        model.card.fitted.iter().find(|f| f.name.starts_with(name)).map(|f| f.value[0]).unwrap()
    };
    let raised = trained_on(&rows, 2, DriftConfig::default(), SplitBy::Time);
    assert!(fact(&raised, "Page-Hinkley limit") > 30.0);
    // The other feature does not wander, and keeps its limit.
    let limits = raised.card.fitted.iter().find(|f| f.name.starts_with("Page-Hinkley limit")).unwrap();
    assert_eq!(limits.value[1], 15.0);
    assert_eq!(fact(&raised, "share of held-back rows in drift"), 0.0);
    let fixed = DriftConfig { limits: LimitsKind::Fixed, ..DriftConfig::default() };
    let fixed = trained_on(&rows, 2, fixed, SplitBy::Time);
    assert_eq!(fact(&fixed, "Page-Hinkley limit"), 15.0);
    assert!(fact(&fixed, "share of held-back rows in drift") > 0.05);
}

#[test]
fn every_mistake_is_named() {
    let rows = fleet(3, 60, P, 1);
    let say = |algorithm: DriftConfig, by: SplitBy| {
        let frame = TrainingFrame::from_batches(&names(P), [&batch(&rows, P)]).unwrap();
        train(&frame, &config(algorithm, by, 0.4)).unwrap_err().to_string()
    };
    let base = DriftConfig::default;
    for (algorithm, by, said) in [
        (DriftConfig { window: 5, ..base() }, SplitBy::Time, "algorithm.window: 5 is not"),
        (DriftConfig { bins: 1, ..base() }, SplitBy::Time, "algorithm.bins: 1 is not"),
        (DriftConfig { tolerance: 0.0, ..base() }, SplitBy::Time, "algorithm.tolerance: 0 is not"),
        (DriftConfig { page_hinkley: f64::NAN, ..base() }, SplitBy::Time, "algorithm.page_hinkley: NaN is not"),
        (DriftConfig { psi: -1.0, ..base() }, SplitBy::Time, "algorithm.psi: -1 is not"),
        (DriftConfig { confidence: 1.0, ..base() }, SplitBy::Time, "algorithm.confidence: 1 is not"),
        (DriftConfig { baseline: DriftBaseline::Device, ..base() }, SplitBy::Device, "split.by: "),
    ] {
        let error = say(algorithm, by);
        assert!(error.contains(said), "{error}");
    }
    let mut constant = rows.clone();
    constant.iter_mut().for_each(|r| r.2[1] = 0.1);
    let frame = TrainingFrame::from_batches(&names(P), [&batch(&constant, P)]).unwrap();
    let error = train(&frame, &config(base(), SplitBy::Time, 0.4)).unwrap_err();
    assert!(matches!(error, ModelError::ConstantFeature { ref feature, .. } if feature == "feature_1"), "{error}");
    let unknown = serde_json::from_str::<AlgorithmConfig>(r#"{"kind": "drift", "adopt": true}"#).unwrap_err();
    assert!(unknown.to_string().contains("unknown field `adopt`"), "{unknown}");
}

#[test]
fn stability_of_the_same_distribution_is_small_and_of_another_large() {
    let mut noise = Noise(10);
    let mut draw = |n: usize, shift: f64| (0..n).map(|_| noise.bell() + shift).collect::<Vec<f64>>();
    let (older, same, other) = (draw(5_000, 0.0), draw(5_000, 0.0), draw(5_000, 0.6));
    assert!(population_stability(&older, &same).unwrap() < 0.01);
    assert!(population_stability(&older, &other).unwrap() > 0.25);
}

/// Scores of a fixed stream under fixed models, to the last bit. A change here means that old verdicts cannot be
/// re-executed: think twice before regenerating with AVOUCH_REGENERATE=1.
#[test]
fn scores_are_the_committed_bits() {
    let mut text = String::new();
    for (name, algorithm) in [
        ("fleet", small(40, DriftBaseline::Fleet, false)),
        ("device", small(40, DriftBaseline::Device, false)),
        ("adapt", DriftConfig { limits: LimitsKind::Fixed, ..small(40, DriftBaseline::Device, true) }),
    ] {
        let model = trained_on(&fleet(4, 80, P, 3), P, algorithm, SplitBy::Time);
        for device in ["pump-01", "stranger"] {
            let mut watch = Watch::of(&model, device);
            for (i, x) in stream(3, 200, P).iter().enumerate() {
                let s = watch.see(x);
                if i % 9 == 0 {
                    let bits: Vec<String> =
                        watch.contributions.iter().map(|v| format!("{:016x}", v.to_bits())).collect();
                    text += &format!(
                        "{name} {device} {i}: score {:016x} p {:016x} drift {} contributions {}\n",
                        s.value.to_bits(),
                        s.p_value.to_bits(),
                        u8::from(on(&s)),
                        bits.join(" ")
                    );
                }
            }
        }
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/drift-scores.txt");
    if std::env::var_os("AVOUCH_REGENERATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, text, "{} differs; AVOUCH_REGENERATE=1 rewrites it", path.display());
}
