#![allow(clippy::unwrap_used)]
use super::*;

/// The data set, or none where it is not there.
fn data() -> Option<PathBuf> {
    let root = std::env::var_os("AVOUCH_DATASETS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/datasets"), PathBuf::from);
    let dir = root.join("smap_msl");
    if dir.join("labels.csv").is_file() {
        return Some(dir);
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "no data sets at {}", root.display());
    println!("SKIPPED: no data sets at {} (set AVOUCH_DATASETS)", root.display());
    None
}

#[test]
fn spacecraft_are_judged_within_the_bar() {
    let Some(data) = data() else { return };
    let out = tempfile::tempdir().unwrap();
    let (scores, plots) = (out.path().join("scores"), out.path().join("plots"));
    let args = SmapArgs { data, pipeline: None, scores: Some(scores.clone()), plots: Some(plots.clone()), json: true };
    let report = evaluate(&args).unwrap();
    println!("{}", report.text());
    let json = report.json();
    let figure = |at: &str| json.pointer(at).and_then(serde_json::Value::as_f64).unwrap();
    assert_eq!(json["channels"].as_array().unwrap().len(), 57);
    assert_eq!(figure("/all/channels"), 57.0);
    assert!(figure("/all/auc_roc") >= 0.73, "{}", json["all"]);
    assert!(figure("/all/average_precision") >= 0.49, "{}", json["all"]);
    let csv = std::fs::read_to_string(scores.join("SMAP/A-1.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 8640);
    assert_eq!(csv.lines().next(), Some("row,value,score,p_value,alarm,anomaly"));
    let drawn = std::fs::read_dir(&plots).unwrap().count();
    assert_eq!(drawn, 6);
}

#[test]
fn mistakes_say_where() {
    let empty = tempfile::tempdir().unwrap();
    let args = |data: &std::path::Path| SmapArgs {
        data: data.to_path_buf(),
        pipeline: None,
        scores: None,
        plots: None,
        json: true,
    };
    let said = evaluate(&args(empty.path())).unwrap_err().to_string();
    assert!(said.contains("holds no channels; name the directory with labels.csv"), "{said}");
}
