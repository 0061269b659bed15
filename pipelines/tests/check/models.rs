//! A pipeline against a real model file: features, pinned hash, thresholds, damage.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use avouch::lang::{Diagnostics, Level, Pipeline, check, hex, load_models, plan, read_file};
use avouch_models::{AlgorithmConfig, SplitConfig, TrainConfig, TrainingFrame, train};

use super::{Fixed, VALID};

pub(crate) fn model(features: &[&str]) -> Vec<u8> {
    let rows = 200;
    let mut columns: Vec<(String, ArrayRef)> = vec![
        ("device".into(), Arc::new(StringArray::from(vec!["pump-1"; rows]))),
        ("window_end".into(), Arc::new(Int64Array::from_iter_values((1..=rows as i64).map(|i| i * 10_000)))),
    ];
    for (f, name) in features.iter().enumerate() {
        let values = (0..rows).map(|i| ((i * (f + 3)) % (7 + f)) as f64 + 0.1 * ((i % (3 + f)) as f64));
        columns.push(((*name).to_owned(), Arc::new(Float64Array::from_iter_values(values))));
    }
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let names: Vec<String> = features.iter().map(|f| (*f).to_owned()).collect();
    let frame = TrainingFrame::from_batches(&names, [&batch]).unwrap();
    let algorithm: AlgorithmConfig = serde_json::from_str(r#"{"kind": "t2-q"}"#).unwrap();
    let config = TrainConfig { algorithm, split: SplitConfig::default(), provenance: Default::default() };
    train(&frame, &config).unwrap().bytes
}

const FEATURES: [&str; 4] = ["temp_mean", "temp_std", "vib_mean", "load_mean"];

fn with_model(dir: &Path, text: &str, bytes: &[u8]) -> Pipeline {
    std::fs::create_dir_all(dir.join("models")).unwrap();
    std::fs::write(dir.join("models/pump.model"), bytes).unwrap();
    std::fs::write(dir.join("p.toml"), text).unwrap();
    Pipeline::read(read_file(&dir.join("p.toml")).unwrap(), &Fixed).unwrap()
}

fn codes(diags: &Diagnostics) -> Vec<&'static str> {
    diags.items().iter().map(|d| d.code).collect()
}

#[test]
fn a_fitting_model_is_loaded_and_planned() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = model(&FEATURES);
    let p = with_model(dir.path(), VALID, &bytes);
    let found = check(&p);
    assert!(!found.has_errors(), "{found}");
    let (models, _) = load_models(&p).unwrap();
    assert_eq!(models["anomaly"].hash(), avouch_models::model_hash(&bytes));
    let lane = plan(&p, &models).unwrap();
    assert_eq!((lane.rows.len(), lane.windows.len(), lane.scores.len()), (1, 1, 1));
    assert_eq!(lane.config_hash, p.config_hash());
    // Pinned to its own hash it is still the right one; pinned to another it is refused.
    let pinned = VALID.replace("${env:PUMP_MODEL_SHA256:-}", &hex(&avouch_models::model_hash(&bytes)));
    assert!(load_models(&with_model(dir.path(), &pinned, &bytes)).is_ok());
    let pinned = VALID.replace("${env:PUMP_MODEL_SHA256:-}", &"00".repeat(32));
    assert_eq!(codes(&load_models(&with_model(dir.path(), &pinned, &bytes)).unwrap_err()), ["wrong-model"]);
}

#[test]
fn a_model_of_other_features_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let p = with_model(dir.path(), VALID, &model(&["temp_std", "temp_mean", "vib_mean", "load_mean"]));
    let found = check(&p);
    let errors: Vec<_> = found.items().iter().filter(|d| d.level == Level::Error).collect();
    assert_eq!(errors.len(), 1, "{found}");
    assert_eq!(errors[0].code, "wrong-features");
    assert!(found.items()[0].help.contains("temp_std"));
    assert!(load_models(&p).is_err());
}

#[test]
fn a_damaged_or_missing_model_is_refused_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = model(&FEATURES);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let p = with_model(dir.path(), VALID, &bytes);
    assert_eq!(codes(&load_models(&p).unwrap_err()), ["bad-model"]);
    assert_eq!(codes(&check(&p)), ["bad-model"]);
    std::fs::remove_file(dir.path().join("models/pump.model")).unwrap();
    assert_eq!(codes(&load_models(&p).unwrap_err()), ["missing-file"], "running needs it");
    assert_eq!(codes(&check(&p)), ["no-model-yet"], "checking does not, as there is a [train] for it");
    let without_train = VALID[..VALID.find("[train.").unwrap()].to_owned();
    let p = with_model(dir.path(), &without_train, &[]);
    std::fs::remove_file(dir.path().join("models/pump.model")).unwrap();
    assert_eq!(codes(&check(&p)), ["missing-file"]);
}

#[test]
fn a_threshold_below_the_smallest_p_value_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let text = VALID.replace("critical = 0.001", "critical = 1e-9");
    let p = with_model(dir.path(), &text, &model(&FEATURES));
    let found = check(&p);
    assert!(codes(&found).contains(&"threshold-cannot-fire"), "{found}");
    assert!(!found.has_errors());
    let (_, warnings) = load_models(&p).unwrap();
    assert!(codes(&warnings).contains(&"threshold-cannot-fire"));
}

/// The model of the case `warn-threshold-that-cannot-fire`; UPDATE=1 writes it anew.
#[test]
fn the_model_of_the_cases_is_one_that_can_be_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check/models/small.model");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, model(&FEATURES)).unwrap();
    }
    assert!(avouch_models::load(&std::fs::read(path).unwrap()).is_ok());
}
