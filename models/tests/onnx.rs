//! What must hold of ONNX models: the values of the program they were made with, the same bits everywhere, contributions that
//! add up, and everything refused that is not known to the last bit.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::sync::OnceLock;

use avouch_engine::model::{Says, Score};
use avouch_models::onnx::{HigherIs, OnnxConfig, OnnxSays};
use avouch_models::{
    AlgorithmConfig, ModelError, SplitBy, SplitConfig, TrainConfig, TrainedModel, TrainingFrame, file, load, train,
};
use common::{Row, batch, batches, names};
use proptest::prelude::*;
use serde::Deserialize;

const P: usize = 4;

#[derive(Deserialize)]
struct Expected {
    rows: Vec<Vec<f64>>,
    models: std::collections::BTreeMap<String, Outcome>,
}

#[derive(Deserialize)]
struct Outcome {
    output: String,
    column: Option<usize>,
    values: Vec<f64>,
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/onnx")
}

/// What `onnx/make.py` wrote.
fn expected() -> &'static Expected {
    static EXPECTED: OnceLock<Expected> = OnceLock::new();
    EXPECTED.get_or_init(|| {
        serde_json::from_str(&std::fs::read_to_string(directory().join("expected.json")).unwrap()).unwrap()
    })
}

fn contents(name: &str) -> Vec<u8> {
    std::fs::read(directory().join(format!("{name}.onnx"))).unwrap()
}

/// The rows the models were made of, those of three devices.
fn rows() -> Vec<Row> {
    let of = |(i, x): (usize, &Vec<f64>)| (format!("pump-{}", i % 3), 1_700_000_000_000 + 10_000 * i as i64, x.clone());
    expected().rows.iter().enumerate().map(of).collect()
}

fn onnx(name: &str, says: OnnxSays, contents: Vec<u8>) -> OnnxConfig {
    let outcome = expected().models.get(name);
    OnnxConfig {
        file: format!("models/{name}.onnx"),
        path: PathBuf::new(),
        contents,
        output: outcome.map_or("y".to_owned(), |o| o.output.clone()),
        column: outcome.and_then(|o| o.column),
        higher_is: HigherIs::Stranger,
        says,
        seed: 0,
    }
}

fn config(algorithm: OnnxConfig) -> TrainConfig {
    TrainConfig {
        algorithm: AlgorithmConfig::Onnx(algorithm),
        split: SplitConfig { by: SplitBy::Time, hold_back: 0.4, seed: 0 },
        provenance: Default::default(),
    }
}

fn trained(algorithm: OnnxConfig) -> Result<TrainedModel, ModelError> {
    train(&TrainingFrame::from_batches(&names(P), [&batch(&rows(), P)]).unwrap(), &config(algorithm))
}

fn estimate(name: &str) -> TrainedModel {
    trained(onnx(name, OnnxSays::Estimate, contents(name))).unwrap()
}

fn detector(name: &str) -> TrainedModel {
    trained(OnnxConfig { higher_is: HigherIs::Normal, ..onnx(name, OnnxSays::Anomaly, contents(name)) }).unwrap()
}

fn score(model: &TrainedModel, x: &[f64]) -> (Score, Vec<f64>, Vec<f64>) {
    let (mut e, mut c) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    let s = model.scorer.score("pump-0", x, &mut e, &mut c);
    (s, e, c)
}

#[test]
fn every_model_gives_what_onnxruntime_gives() {
    for (name, outcome) in &expected().models {
        let model = estimate(name);
        for (i, (x, want)) in expected().rows.iter().zip(&outcome.values).enumerate() {
            let got = score(&model, x).0.value;
            assert!((got - want).abs() <= 2e-5 * want.abs().max(1.0), "{name}, row {i}: {got}, not {want}");
        }
    }
}

/// Values of fixed rows, to the last bit, whatever the machine. AVOUCH_REGENERATE=1 rewrites them; old verdicts cannot be
/// re-executed after that.
#[test]
fn the_bits_are_the_committed_ones() {
    let mut text = String::new();
    for name in expected().models.keys() {
        let model = estimate(name);
        for x in expected().rows.iter().take(6) {
            let (s, _, c) = score(&model, x);
            let bits: Vec<String> = c.iter().map(|v| format!("{:016x}", v.to_bits())).collect();
            text += &format!("{name} {:016x} contributions {}\n", s.value.to_bits(), bits.join(" "));
        }
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx-scores.txt");
    if std::env::var_os("AVOUCH_REGENERATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} differs; AVOUCH_REGENERATE=1 rewrites it", path.display());
}

#[test]
fn an_isolation_forest_becomes_a_detector_with_p_values() {
    let model = detector("iforest");
    assert_eq!(model.scorer.says(), Says::Anomaly);
    let far = score(&model, &[14.0, -6.0, 9.0, 3.0]);
    let near = score(&model, &score(&model, &expected().rows[0]).1);
    assert!(far.0.p_value <= 0.02, "{far:?}");
    // The reference is as usual as it gets, and nothing adds to its score.
    assert!(near.0.p_value > 0.5 && near.0.value == 0.0 && near.2.iter().all(|c| *c == 0.0), "{near:?}");
    // Of the rows it was calibrated on as many are called as the p-value says.
    let called = expected().rows.iter().filter(|x| score(&model, x).0.p_value <= 0.1).count();
    assert!((15..=45).contains(&called), "{called} of 300");
    // Lower is stranger in scikit-learn.
    let values = &expected().models["iforest"].values;
    let first = score(&model, &expected().rows[0]).0.value;
    for (x, v) in expected().rows.iter().zip(values) {
        let off = score(&model, x).0.value - first;
        assert!((off - (values[0] - v)).abs() < 1e-5);
    }
}

#[test]
fn a_probability_is_told_as_one() {
    let model = trained(onnx("logistic", OnnxSays::Probability, contents("logistic"))).unwrap();
    assert_eq!(model.scorer.says(), Says::Probability);
    let (s, e, c) = score(&model, &expected().rows[1]);
    assert!((s.value - expected().models["logistic"].values[1]).abs() < 1e-6);
    assert!(s.p_value.is_nan() && s.interval.is_none());
    // Contributions add up to the difference from the probability at the medians.
    let base = score(&model, &e).0.value;
    assert!((c.iter().sum::<f64>() - (s.value - base)).abs() < 1e-12);
    // What is no probability is refused while the model is made.
    let error = trained(onnx("life", OnnxSays::Probability, contents("life"))).unwrap_err().to_string();
    assert!(error.contains("algorithm.output") && error.contains("no probability"), "{error}");
}

#[test]
fn what_is_not_known_to_the_last_bit_is_refused_by_operator_and_node() {
    let mut messages = Vec::new();
    for name in ["random", "bernoulli", "unknown", "attribute", "columns", "version", "shapes", "dropout"]
        .map(|n| format!("refused-{n}"))
    {
        messages.push(trained(onnx(&name, OnnxSays::Estimate, contents(&name))).unwrap_err().to_string());
    }
    let with = |change: &dyn Fn(&mut OnnxConfig)| {
        let mut c = onnx("logistic", OnnxSays::Probability, contents("logistic"));
        change(&mut c);
        trained(c).unwrap_err().to_string()
    };
    messages.push(with(&|c| c.output = "label".to_owned()));
    messages.push(with(&|c| c.output = "scores".to_owned()));
    messages.push(with(&|c| c.column = None));
    messages.push(with(&|c| c.column = Some(2)));
    messages.push(with(&|c| c.higher_is = HigherIs::Normal));
    messages.push(with(&|c| c.contents.clear()));
    messages.push(with(&|c| c.contents.truncate(100)));
    messages.push(with(&|c| c.contents.resize((16 << 20) + 1, 0)));
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/onnx-messages.txt");
    let text = messages.join("\n") + "\n";
    if std::env::var_os("AVOUCH_REGENERATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), text, "AVOUCH_REGENERATE=1 rewrites it");
}

#[test]
fn what_cannot_be_scored_is_not_a_number() {
    let model = detector("iforest");
    // The last is beyond single precision.
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let (s, e, c) = score(&model, &[10.0, bad, 5.0, -3.0]);
        assert!(s.value.is_nan() && s.p_value.is_nan());
        assert!(e.iter().chain(&c).all(|v| v.is_nan()));
    }
    let (s, e, c) = score(&estimate("each"), &[10.0, 1e300, 5.0, -3.0]);
    assert!(s.value.is_nan() && e.iter().chain(&c).all(|v| v.is_nan()));
}

#[test]
fn the_onnx_file_is_inside_as_it_came() {
    let model = detector("iforest");
    let opened = file::open(&model.bytes).unwrap();
    assert_eq!(opened.kind, "onnx");
    let onnx = contents("iforest");
    assert!(opened.body.ends_with(&onnx));
    let card = opened.card.to_markdown();
    for needle in ["models/iforest.onnx", "Shapley", "bytes of the ONNX file", "held-back rows"] {
        assert!(card.contains(needle), "{needle} is not in\n{card}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contributions_add_up_and_loading_changes_no_bit(
        x in prop::collection::vec(-20.0f64..20.0, P),
        which in prop::sample::select(vec!["iforest", "ocsvm", "mixture", "many"]),
    ) {
        let model = detector(which);
        let (s, e, c) = score(&model, &x);
        prop_assert!((c.iter().sum::<f64>() - s.value).abs() <= 1e-9 * s.value.abs().max(1.0), "{s:?} {c:?}");
        let (mut e2, mut c2) = (vec![0.0; P], vec![0.0; P]);
        let again = load(&model.bytes).unwrap().score("other", &x, &mut e2, &mut c2);
        prop_assert_eq!(again.value.to_bits(), s.value.to_bits());
        prop_assert_eq!(again.p_value.to_bits(), s.p_value.to_bits());
        prop_assert_eq!((e, c), (e2, c2));
    }

    #[test]
    fn the_same_rows_give_the_same_bytes_however_they_come(
        sizes in prop::collection::vec(1usize..90, 1..5),
        rotate in 0usize..300,
    ) {
        let one = detector("ocsvm");
        let mut shuffled = rows();
        shuffled.rotate_left(rotate);
        let frame = TrainingFrame::from_batches(&names(P), &batches(&shuffled, P, &sizes)).unwrap();
        let algorithm = OnnxConfig { higher_is: HigherIs::Normal, ..onnx("ocsvm", OnnxSays::Anomaly, contents("ocsvm")) };
        prop_assert!(train(&frame, &config(algorithm)).unwrap().bytes == one.bytes);
    }

    #[test]
    fn a_truncated_or_altered_file_is_refused(cut in 0usize..100_000, bit in 0usize..800_000) {
        let model = detector("ocsvm");
        prop_assert!(load(&model.bytes[..cut % model.bytes.len()]).is_err());
        let mut altered = model.bytes.clone();
        let bit = bit % (8 * altered.len());
        altered[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(load(&altered).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in the file, it is a model or an error.
    #[test]
    fn a_damaged_graph_is_a_model_or_an_error(
        name in prop::sample::select(vec!["many", "forest", "boosted", "svr", "mixture", "ridge", "tanh", "each"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = contents(name);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let frame = small();
        if let Ok(model) = train(frame, &config(onnx(name, OnnxSays::Estimate, bytes))) {
            let s = score(&model, &expected().rows[5]).0;
            prop_assert!(s.value.is_finite() || s.value.is_nan());
        }
    }
}

fn small() -> &'static TrainingFrame {
    static FRAME: OnceLock<TrainingFrame> = OnceLock::new();
    FRAME.get_or_init(|| TrainingFrame::from_batches(&names(P), [&batch(&rows()[..12], P)]).unwrap())
}
