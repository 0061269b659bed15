//! Our side of `tests/bench/detectors`: trains each kind on the rows of that directory, scores the others, and prints a JSON line
//! for each with rows and CPU seconds of scoring: `detectors DIR`. See there for what the files hold.

mod clock;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use avouch_engine::model::Memory;
use avouch_models::ranking::roc_auc;
use avouch_models::{
    AlgorithmConfig, Failures, LabelConfig, SplitBy, SplitConfig, TrainConfig, TrainedModel, TrainingFrame, train,
};
use clock::Clock;
use serde_json::json;

/// Rows take turns among so many devices.
const DEVICES: usize = 100;
const MINUTES: i64 = 60_000;

/// CPU seconds that a measurement takes at least, passes over the rows added up: the system counts in steps of milliseconds.
const AT_LEAST: f64 = 0.6;

/// After so long a pass over the rows is broken off (by the wall clock, which costs less to look at), and after how many rows
/// that is looked at.
const AT_MOST: Duration = Duration::from_secs(3);
const LOOK_EVERY: usize = 500;

/// Measured so many times; the least CPU time is taken, since other work on the machine can only add.
const REPEAT: usize = 3;

/// Trained on the rows without a fault.
const DETECTORS: [(&str, &str); 12] = [
    ("t2-q", r#"{"kind":"t2-q"}"#),
    ("t2-q, a baseline a device", r#"{"kind":"t2-q","baseline":"device"}"#),
    ("mewma", r#"{"kind":"mewma"}"#),
    ("gaussian-mixture", r#"{"kind":"gaussian-mixture","components":4}"#),
    ("k-means", r#"{"kind":"k-means","clusters":8}"#),
    ("one-class-svm", r#"{"kind":"one-class-svm"}"#),
    ("half-space-trees", r#"{"kind":"half-space-trees"}"#),
    ("half-space-trees, online", r#"{"kind":"half-space-trees","trees":25,"depth":6,"online":true}"#),
    ("random-cut-forest", r#"{"kind":"random-cut-forest"}"#),
    ("nearest-neighbours", r#"{"kind":"nearest-neighbours"}"#),
    ("onnx, an isolation forest", r#"{"kind":"onnx","file":"forest.onnx","output":"scores","higher_is":"normal"}"#),
    ("drift", r#"{"kind":"drift"}"#),
];

/// Trained on all rows, with the fault as label.
const PROGNOSES: [(&str, &str); 3] = [
    ("gradient-boosting", r#"{"kind":"gradient-boosting","trees":100,"depth":5,"learning_rate":0.1}"#),
    ("kernel-ridge", r#"{"kind":"kernel-ridge","landmarks":200}"#),
    ("linear", r#"{"kind":"linear"}"#),
];

type Failure = Box<dyn std::error::Error>;

/// Rows of one file: the features, and whether there is a fault.
struct Rows {
    features: Vec<f64>,
    fault: Vec<f64>,
    p: usize,
}

impl Rows {
    /// Little-endian doubles, `p` features and the fault a row.
    fn read(path: &Path, p: usize) -> Result<Self, Failure> {
        let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let all: Vec<f64> =
            bytes.chunks_exact(8).map(|b| b.try_into().map(f64::from_le_bytes)).collect::<Result<_, _>>()?;
        let (mut features, mut fault) = (Vec::with_capacity(all.len()), Vec::new());
        for row in all.chunks_exact(p + 1) {
            features.extend(&row[..p]);
            fault.push(row[p]);
        }
        Ok(Self { features, fault, p })
    }

    /// The rows, or those without a fault, as the engine would hand them over; row `i` is of device `i % devices`.
    fn batch(&self, devices: usize, healthy: bool) -> Result<RecordBatch, Failure> {
        let kept: Vec<usize> = (0..self.fault.len()).filter(|i| !healthy || self.fault[*i] == 0.0).collect();
        let mut columns: Vec<(String, ArrayRef)> = vec![
            ("device".into(), Arc::new(StringArray::from_iter_values(kept.iter().map(|i| device(i % devices))))),
            (
                "window_end".into(),
                Arc::new(Int64Array::from_iter_values(kept.iter().map(|i| at(i / devices, devices == 1)))),
            ),
        ];
        for (j, name) in names(self.p).into_iter().enumerate() {
            let values = kept.iter().map(|i| self.features[i * self.p + j]);
            columns.push((name, Arc::new(Float64Array::from_iter_values(values))));
        }
        let fault = kept.iter().map(|i| self.fault[*i]);
        columns.push(("fault".into(), Arc::new(Float64Array::from_iter_values(fault))));
        Ok(RecordBatch::try_from_iter(columns)?)
    }
}

fn names(p: usize) -> Vec<String> {
    (0..p).map(|j| format!("f{j}")).collect()
}

fn device(d: usize) -> String {
    format!("device-{d:03}")
}

/// Vectors come every minute, the single value every five.
fn at(step: usize, single: bool) -> i64 {
    step as i64 * MINUTES * if single { 5 } else { 1 }
}

fn main() -> Result<(), Failure> {
    let dir = std::env::args().nth(1).ok_or("usage: detectors DIR")?;
    let dir = Path::new(&dir);
    let p = 5;
    let (training, judged) = (Rows::read(&dir.join("train.f64"), p)?, Rows::read(&dir.join("judge.f64"), p)?);
    let healthy = TrainingFrame::from_batches(&names(p), [&training.batch(DEVICES, true)?])?;
    for (name, algorithm) in DETECTORS {
        let mut algorithm: AlgorithmConfig = serde_json::from_str(algorithm)?;
        if let AlgorithmConfig::Onnx(onnx) = &mut algorithm {
            onnx.contents = std::fs::read(dir.join(&onnx.file))?;
        }
        measure(name, &made(&healthy, algorithm)?, &judged, DEVICES)?;
    }
    let labelled = training.batch(DEVICES, false)?;
    let label = LabelConfig::Failure { column: "fault".into() };
    let frame = TrainingFrame::from_batches(&names(p), [&labelled])?;
    let frame = frame.with_labels(&label, &Failures::new(), [&labelled])?;
    for (name, algorithm) in PROGNOSES {
        measure(name, &made(&frame, serde_json::from_str(algorithm)?)?, &judged, DEVICES)?;
    }
    let (training, judged) = (Rows::read(&dir.join("series-train.f64"), 1)?, Rows::read(&dir.join("series.f64"), 1)?);
    let frame = TrainingFrame::from_batches(&names(1), [&training.batch(1, true)?])?;
    measure("univariate", &made(&frame, serde_json::from_str(r#"{"kind":"univariate"}"#)?)?, &judged, 1)
}

fn made(frame: &TrainingFrame, algorithm: AlgorithmConfig) -> Result<TrainedModel, Failure> {
    let split = SplitConfig { by: SplitBy::Time, hold_back: 0.2, seed: 7 };
    Ok(train(frame, &TrainConfig { algorithm, split, provenance: Default::default() })?)
}

/// Scores the rows, over and over where that is fast, from the start each time; prints the best of the measurements.
fn measure(name: &str, model: &TrainedModel, rows: &Rows, devices: usize) -> Result<(), Failure> {
    let names: Vec<String> = (0..devices).map(device).collect();
    let faults: Vec<bool> = rows.fault.iter().map(|f| *f > 0.0).collect();
    let mut scores = Vec::new();
    let mut best: Option<(usize, f64)> = None;
    for _ in 0..REPEAT {
        let (mut scored, mut seconds) = (0, 0.0);
        while seconds < AT_LEAST {
            scores.clear();
            let clock = Clock::start();
            pass(model, rows, &names, &mut scores);
            seconds += clock.seconds();
            scored += scores.len();
        }
        if best.is_none_or(|(n, s)| scored as f64 / seconds > n as f64 / s) {
            best = Some((scored, seconds));
        }
    }
    let (scored, seconds) = best.unwrap_or_default();
    let line = json!({
        "name": name,
        "by": "Avouch",
        "rows": scored,
        "cpu_seconds": seconds,
        "auc": roc_auc(&scores, &faults[..scores.len()]),
    });
    println!("{line}");
    Ok(())
}

/// Scores all rows, or as many as there is time for.
fn pass(model: &TrainedModel, rows: &Rows, names: &[String], scores: &mut Vec<f64>) {
    let (devices, began) = (names.len(), Instant::now());
    let mut memories: Vec<Box<dyn Memory>> = names.iter().filter_map(|d| model.scorer.memory(d)).collect();
    let (mut expected, mut contributions) = (vec![0.0; rows.p], vec![0.0; rows.p]);
    for (i, x) in rows.features.chunks_exact(rows.p).enumerate() {
        if i % LOOK_EVERY == 0 && began.elapsed() > AT_MOST {
            return;
        }
        let d = i % devices;
        let said = match memories.get_mut(d) {
            Some(memory) => memory.score(at(i / devices, devices == 1), x, &mut expected, &mut contributions),
            None => model.scorer.score(&names[d], x, &mut expected, &mut contributions),
        };
        scores.push(said.value);
    }
}
