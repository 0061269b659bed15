//! What must hold of every prognosis: same bytes, same bits, contributions that add up, intervals that hold what they promise.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use avouch_engine::codec::{Reader, Writer};
use avouch_engine::model::{Memory, Says};
use avouch_models::{
    AlgorithmConfig, Failures, LabelConfig, ModelError, Provenance, SplitBy, SplitConfig, TrainConfig, TrainedModel,
    TrainingFrame, load, train,
};
use common::Noise;
use linfa::traits::{Fit, Predict};
use proptest::prelude::*;

const HOUR: i64 = 3_600_000;

/// Device, window end, features: load (of two kinds), heat (which it and wear drive), hum (wear alone), hours run.
type Row = (String, i64, [f64; 4]);

/// Machines that wear until they fail, in one of two ways of working each hour.
fn fleet(devices: usize, seed: u64) -> (Vec<Row>, Failures) {
    let mut noise = Noise(seed.wrapping_mul(2).wrapping_add(1));
    let (mut rows, mut failures) = (Vec::new(), BTreeMap::new());
    for d in 0..devices {
        let life = 60.0 + (80.0 * (noise.next() + 0.5)).floor();
        let own = noise.bell();
        for hour in 1..=life as i64 {
            let wear = (hour as f64 / life).powi(3);
            let load = if noise.next() > 0.0 { 10.0 } else { 90.0 };
            let heat = 20.0 + 0.5 * load + 3.0 * own + 10.0 * wear + 0.8 * noise.bell();
            let hum = 1.0 + wear + 0.1 * noise.bell();
            rows.push((format!("mill-{d:02}"), hour * HOUR, [load, heat, hum, hour as f64]));
        }
        failures.insert(format!("mill-{d:02}"), life as i64 * HOUR);
    }
    (rows, failures)
}

fn names() -> Vec<String> {
    ["load", "heat", "hum", "hours"].map(str::to_owned).to_vec()
}

fn batch(rows: &[Row]) -> RecordBatch {
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("device".to_owned(), Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.0)))),
        ("window_end".to_owned(), Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)))),
    ];
    for (j, name) in names().into_iter().enumerate() {
        columns.push((name, Arc::new(Float64Array::from_iter_values(rows.iter().map(|r| r.2[j])))));
    }
    let failed = rows.iter().map(|r| f64::from(u8::from(r.2[2] + 0.002 * r.2[1] > 1.6)));
    columns.push(("failed".to_owned(), Arc::new(Float64Array::from_iter_values(failed))));
    RecordBatch::try_from_iter(columns).unwrap()
}

const RECIPE: &str =
    r#""recipe": {"conditions": 2, "on": ["load"], "as_is": ["hours"], "means": [3, 8], "slope": 8, "baseline": 5}"#;

fn algorithms() -> [String; 5] {
    [
        format!(
            r#"{{"kind": "gradient-boosting", "trees": 30, "rows": 0.7, "columns": 0.8, "min_rows": 5, {RECIPE}, "seed": 3}}"#
        ),
        format!(
            r#"{{"kind": "kernel-ridge", "landmarks": 60, "relevance": true, {RECIPE}, "refit": true, "seed": 3}}"#
        ),
        format!(r#"{{"kind": "linear", {RECIPE}}}"#),
        r#"{"kind": "gradient-boosting", "trees": 30, "depth": 3}"#.to_owned(),
        format!(
            r#"{{"kind": "blend", "of": [{{"kind": "gradient-boosting", "trees": 20}}, {{"kind": "kernel-ridge", "landmarks": 40}}, {{"kind": "linear"}}], {RECIPE}, "refit": true}}"#
        ),
    ]
}

fn config(algorithm: &str) -> TrainConfig {
    TrainConfig {
        algorithm: serde_json::from_str(algorithm).unwrap(),
        split: SplitConfig { by: SplitBy::Device, hold_back: 0.3, seed: 5 },
        provenance: Provenance::default(),
    }
}

fn life() -> LabelConfig {
    LabelConfig::remaining_life(Some(60.0))
}

fn failure() -> LabelConfig {
    LabelConfig::Failure { column: "failed".to_owned() }
}

fn frame(batches: &[RecordBatch], label: &LabelConfig, failures: &Failures) -> TrainingFrame {
    TrainingFrame::from_batches(&names(), batches).unwrap().with_labels(label, failures, batches).unwrap()
}

fn trained(algorithm: &str, label: &LabelConfig, devices: usize) -> TrainedModel {
    let (rows, failures) = fleet(devices, 1);
    train(&frame(&[batch(&rows)], label, &failures), &config(algorithm)).unwrap()
}

/// Value, interval, expected and contributions, in bits.
fn bits(memory: &mut dyn Memory, row: &Row) -> Vec<u64> {
    let (mut e, mut c) = ([0.0; 4], [0.0; 4]);
    let s = memory.score(row.1, &row.2, &mut e, &mut c);
    let interval = s.interval.map_or([0.0; 2], |i| [i.lower, i.upper]);
    [s.value].iter().chain(&interval).chain(&e).chain(&c).map(|v| v.to_bits()).collect()
}

#[test]
fn the_same_rows_give_the_same_bytes_however_they_come() {
    let (mut rows, failures) = fleet(12, 1);
    for label in [life(), failure()] {
        for algorithm in algorithms() {
            let one = train(&frame(&[batch(&rows)], &label, &failures), &config(&algorithm)).unwrap();
            rows.rotate_left(137);
            let cut: Vec<RecordBatch> = rows.chunks(61).map(batch).collect();
            let other = train(&frame(&cut, &label, &failures), &config(&algorithm)).unwrap();
            assert!(one.bytes == other.bytes, "{algorithm}");
            let loaded = load(&one.bytes).unwrap();
            assert_eq!(loaded.hash(), one.hash);
            assert_eq!(loaded.says() == Says::Probability, label == failure());
            assert_eq!(loaded.unit(), (label != failure()).then_some("hours"));
            assert_eq!(loaded.coverage(), (label != failure()).then_some(0.9));
        }
    }
}

#[test]
fn contributions_add_up_to_the_value_over_the_base() {
    let (rows, _) = fleet(3, 9);
    for label in [life(), failure()] {
        for algorithm in algorithms() {
            let model = trained(&algorithm, &label, 12);
            let base = model.card.prognosis.as_ref().unwrap().base;
            let mut memories: BTreeMap<&str, Option<Box<dyn Memory>>> = BTreeMap::new();
            for row in &rows {
                let memory = memories.entry(&row.0).or_insert_with(|| model.scorer.memory(&row.0));
                let (mut e, mut c) = ([0.0; 4], [0.0; 4]);
                let s = match memory {
                    Some(m) => m.score(row.1, &row.2, &mut e, &mut c),
                    None => model.scorer.score(&row.0, &row.2, &mut e, &mut c),
                };
                let sum: f64 = c.iter().sum();
                assert!(
                    (sum - (s.value - base)).abs() < 1e-6 * (1.0 + s.value.abs()),
                    "{algorithm}: {c:?} {s:?} {base}"
                );
                match s.interval {
                    Some(i) => assert!(i.lower <= s.value && s.value <= i.upper && i.lower >= 0.0 && i.upper <= 60.0),
                    None => assert!((0.0..=1.0).contains(&s.value)),
                }
            }
        }
    }
}

#[test]
fn a_memory_written_and_read_in_mid_stream_changes_no_bit() {
    let (rows, _) = fleet(1, 4);
    let model = trained(&algorithms()[4], &life(), 12);
    let mut whole = model.scorer.memory("a").unwrap();
    let mut cut = model.scorer.memory("a").unwrap();
    for (i, row) in rows.iter().enumerate() {
        // As it stands after 0, 1, 2, … vectors: while the past and the baseline fill, and long after.
        let mut w = Writer::new();
        cut.write(&mut w);
        let mut r = Reader::new("memory", &w.bytes);
        cut = model.scorer.read_memory("a", &mut r).unwrap();
        r.finish().unwrap();
        let mut again = Writer::new();
        cut.write(&mut again);
        assert_eq!(w.bytes, again.bytes);
        assert!(w.bytes.len() <= 8 + 8 * 2 * 9, "it does not grow: {} bytes after {i}", w.bytes.len());
        let copy = bits(cut.copy().as_mut(), row);
        let expected = bits(whole.as_mut(), row);
        assert_eq!(copy, expected);
        assert_eq!(bits(cut.as_mut(), row), expected);
    }
    // A vector with a hole is passed over, and leaves no trace.
    let mut before = Writer::new();
    whole.write(&mut before);
    let (mut e, mut c) = ([0.0; 4], [0.0; 4]);
    assert!(whole.score(0, &[1.0, f64::NAN, 1.0, 1.0], &mut e, &mut c).value.is_nan());
    let mut after = Writer::new();
    whole.write(&mut after);
    assert_eq!(before.bytes, after.bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn altered_files_and_memories_are_refused_or_sound(cut in any::<usize>(), bit in any::<usize>()) {
        thread_local!(static MODEL: TrainedModel = trained(&algorithms()[4], &life(), 8));
        MODEL.with(|model| {
            let cut = cut % model.bytes.len();
            prop_assert!(load(&model.bytes[..cut]).is_err());
            let mut altered = model.bytes.clone();
            let at = bit % (8 * altered.len());
            altered[at / 8] ^= 1 << (at % 8);
            prop_assert!(load(&altered).is_err());

            let mut memory = model.scorer.memory("a").unwrap();
            for row in &fleet(1, 4).0[..3 + cut % 9] {
                bits(memory.as_mut(), row);
            }
            let mut w = Writer::new();
            memory.write(&mut w);
            let at = bit % (8 * w.bytes.len());
            w.bytes[at / 8] ^= 1 << (at % 8);
            let mut r = Reader::new("memory", &w.bytes);
            if let Ok(read) = model.scorer.read_memory("a", &mut r)
                && r.finish().is_ok()
            {
                let mut again = Writer::new();
                read.write(&mut again);
                prop_assert_eq!(again.bytes, w.bytes);
            }
            Ok(())
        })?;
    }
}

/// One window of each of 300 machines the model never saw: independent, so the share inside is binomial.
#[test]
fn intervals_hold_what_they_promise_on_machines_never_seen() {
    let (rows, failures) = fleet(60, 1);
    let model = train(&frame(&[batch(&rows)], &life(), &failures), &config(&algorithms()[0])).unwrap();
    let (rows, failures) = fleet(300, 77);
    let mut noise = Noise(5);
    let (mut inside, mut wide, mut n) = (0, 0.0, 0);
    let mut at = 0;
    while at < rows.len() {
        let device = &rows[at].0;
        let count = rows[at..].iter().take_while(|r| r.0 == *device).count();
        let last = ((noise.next() + 0.5) * count as f64) as usize;
        let mut memory = model.scorer.memory(device).unwrap();
        let (mut e, mut c) = ([0.0; 4], [0.0; 4]);
        let mut said = None;
        for row in &rows[at..=at + last] {
            said = Some(memory.score(row.1, &row.2, &mut e, &mut c));
        }
        let truth = ((failures[device] - rows[at + last].1) as f64 / HOUR as f64).min(60.0);
        let i = said.unwrap().interval.unwrap();
        inside += i32::from(i.lower <= truth && truth <= i.upper);
        wide += i.upper - i.lower;
        n += 1;
        at += count;
    }
    assert_eq!(n, 300);
    // Binomial(300, 0.9): 4 standard deviations are 21; the calibration's own devices add as much again.
    assert!(inside >= 270 - 30, "{inside} of {n} inside");
    assert!(wide / f64::from(n) < 45.0, "intervals of {} say nothing", wide / f64::from(n));
}

#[test]
fn probabilities_are_reliable_on_machines_never_seen() {
    let model = trained(&algorithms()[0], &failure(), 40);
    let (rows, _) = fleet(60, 21);
    let truth = batch(&rows);
    let truth = truth.column_by_name("failed").unwrap().as_any().downcast_ref::<Float64Array>().unwrap().clone();
    let (mut said, mut seen) = (0.0, 0.0);
    let mut brier = 0.0;
    let mut memories: BTreeMap<&str, Box<dyn Memory>> = BTreeMap::new();
    for (row, truth) in rows.iter().zip(truth.values()) {
        let memory = memories.entry(&row.0).or_insert_with(|| model.scorer.memory(&row.0).unwrap());
        let (mut e, mut c) = ([0.0; 4], [0.0; 4]);
        let p = memory.score(row.1, &row.2, &mut e, &mut c).value;
        said += p;
        seen += truth;
        brier += (p - truth) * (p - truth);
    }
    let n = rows.len() as f64;
    assert!((said - seen).abs() / n < 0.03, "{} said, {} seen", said / n, seen / n);
    let rate = seen / n;
    assert!(brier / n < 0.5 * rate * (1.0 - rate), "no better than the rate: {}", brier / n);
    let table = &model.card.prognosis.as_ref().unwrap().reliability;
    assert!(table.len() > 2 && table.windows(2).all(|w| w[0].said < w[1].said));
    assert!(model.card.to_markdown().contains("share that failed"));
}

#[test]
fn ridge_without_a_penalty_is_linfas_least_squares() {
    let (rows, failures) = fleet(12, 1);
    let model = train(
        &frame(&[batch(&rows)], &LabelConfig::remaining_life(Some(1e6)), &failures),
        &config(r#"{"kind": "linear", "l2": 0.0, "refit": true}"#),
    )
    .unwrap();
    let x = ndarray::Array2::from_shape_fn((rows.len(), 4), |(i, j)| rows[i].2[j]);
    let y = ndarray::Array1::from_iter(rows.iter().map(|r| ((failures[&r.0] - r.1) / HOUR) as f64));
    let theirs = linfa_linear::LinearRegression::new().fit(&linfa::Dataset::new(x.clone(), y)).unwrap().predict(&x);
    let mut compared = 0;
    for (row, theirs) in rows.iter().zip(&theirs) {
        let (mut e, mut c) = ([0.0; 4], [0.0; 4]);
        let ours = model.scorer.score("a", &row.2, &mut e, &mut c).value;
        if *theirs > 0.0 {
            assert!((ours - theirs).abs() < 1e-6, "{ours} {theirs}");
            compared += 1;
        }
    }
    assert!(compared > rows.len() / 2);
}

#[test]
fn a_label_in_days_says_in_days_what_it_said_in_hours() {
    let days = LabelConfig::remaining_life(Some(60.0)).in_unit("days", 0.8).unwrap();
    assert_eq!(days, LabelConfig::RemainingLife { cap: Some(2.5), unit: "days".to_owned(), coverage: 0.8 });
    assert!(life().in_unit("fortnights", 0.9).is_err() && life().in_unit("days", 1.0).is_err());
    let (hours, days) = (trained(&algorithms()[2], &life(), 12), trained(&algorithms()[2], &days, 12));
    assert_eq!((days.scorer.unit(), days.scorer.coverage()), (Some("days"), Some(0.8)));
    let (mut e, mut c) = ([0.0; 4], [0.0; 4]);
    let x = [10.0, 30.0, 1.2, 50.0];
    let said = [&hours, &days].map(|m| m.scorer.score("a", &x, &mut e, &mut c));
    assert!((said[0].value - 24.0 * said[1].value).abs() < 1e-6, "{said:?}");
    let width = said.map(|s| s.interval.map_or(0.0, |i| i.upper - i.lower));
    assert!(24.0 * width[1] < width[0], "less coverage, narrower: {width:?}");
}

#[test]
fn labels_that_cannot_be_are_refused() {
    let (rows, mut failures) = fleet(6, 1);
    let batches = [batch(&rows)];
    let plain = || TrainingFrame::from_batches(&names(), &batches).unwrap();
    let mut said = String::new();
    let mut say = |e: ModelError| writeln!(said, "{e}").unwrap();
    failures.remove("mill-03");
    say(plain().with_labels(&life(), &failures, &batches).unwrap_err());
    let column = LabelConfig::Failure { column: "heat".to_owned() };
    say(plain().with_labels(&column, &failures, &batches).unwrap_err());
    let unit = LabelConfig::RemainingLife { cap: None, unit: "cycles".to_owned(), coverage: 0.9 };
    say(plain().with_labels(&unit, &failures, &batches).unwrap_err());
    say(train(&plain(), &config(&algorithms()[3])).unwrap_err());
    for algorithm in [
        r#"{"kind": "gradient-boosting", "trees": 0}"#,
        r#"{"kind": "blend", "of": []}"#,
        r#"{"kind": "linear", "recipe": {"conditions": 3, "means": []}}"#,
        r#"{"kind": "linear", "recipe": {"on": ["speed"], "means": [2]}}"#,
        r#"{"kind": "kernel-ridge", "recipe": {"means": [5, 3]}}"#,
    ] {
        let (rows, failures) = fleet(6, 1);
        say(train(&frame(&[batch(&rows)], &life(), &failures), &config(algorithm)).unwrap_err());
    }
    let t2q: AlgorithmConfig = serde_json::from_str(r#"{"kind": "t2-q"}"#).unwrap();
    let (rows, failures) = fleet(6, 1);
    let labelled = frame(&[batch(&rows)], &life(), &failures);
    say(train(&labelled, &TrainConfig { algorithm: t2q, ..config(r#"{"kind": "linear"}"#) }).unwrap_err());
    golden("prognosis-errors.txt", &said);
}

/// A window after the failure says nothing of the way there.
#[test]
fn windows_after_the_failure_are_left_out() {
    let (rows, mut failures) = fleet(6, 1);
    let n = rows.iter().filter(|r| r.0 == "mill-02").count();
    failures.insert("mill-02".to_owned(), 10 * HOUR);
    let model = train(&frame(&[batch(&rows)], &life(), &failures), &config(r#"{"kind": "linear"}"#)).unwrap();
    assert_eq!(model.card.prognosis.unwrap().rows_after_failure, n as u64 - 10);
    assert_eq!(model.card.training.rows, (rows.len() - n + 10) as u64);
}

#[test]
fn scores_are_the_same_bits_everywhere() {
    let (rows, _) = fleet(1, 4);
    let mut text = String::new();
    for label in [life(), failure()] {
        for algorithm in algorithms() {
            let model = trained(&algorithm, &label, 12);
            let kind = model.card.algorithm.kind();
            for row in rows.iter().step_by(9) {
                let (mut e, mut c) = ([0.0; 4], [0.0; 4]);
                let s = model.scorer.score("a", &row.2, &mut e, &mut c);
                write!(text, "{kind} {} {:016x}", row.1 / HOUR, s.value.to_bits()).unwrap();
                for v in c {
                    write!(text, " {:016x}", v.to_bits()).unwrap();
                }
                text.push('\n');
            }
        }
    }
    golden("prognosis-scores.txt", &text);
}

fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text, "{path}; UPDATE=1 writes it anew");
}
