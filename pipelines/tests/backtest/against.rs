//! Two pipelines over the same files: where they differ, and why.

use std::path::Path;

use serde_json::Value;

use super::fleet::place;
use super::{PUMPS, done, json, read};

/// The report and the lines of differences.ndjson.
fn compare(dir: &Path, name: &str, text: &str) -> (Value, Vec<Value>) {
    let file = format!("{name}.toml");
    std::fs::write(dir.join(&file), text).unwrap();
    let args =
        format!("backtest pumps.toml --data fleet.ndjson --arrival arrived --against {file} --out {name} --json");
    let report = json(&done(dir, &args.split(' ').collect::<Vec<_>>()));
    let lines = read(&dir.join(name), "differences.ndjson").lines().map(json).collect();
    (report, lines)
}

fn sum(v: &Value) -> u64 {
    match v {
        Value::Array(all) => all.iter().map(sum).sum(),
        n => n.as_u64().unwrap(),
    }
}

/// What holds of every comparison.
fn check(report: &Value, lines: &[Value]) {
    let c = &report["against"]["comparison"];
    let judged = |of: &Value| -> u64 {
        ["normal", "warning", "critical"].into_iter().map(|s| of["verdicts"][0][s].as_u64().unwrap()).sum()
    };
    assert_eq!(sum(&c["table"]) + sum(&c["only_here"]), judged(report));
    assert_eq!(sum(&c["table"]) + sum(&c["only_there"]), judged(&report["against"]));
    let why: u64 = c["why"].as_object().unwrap().values().map(sum).sum();
    assert_eq!(why, lines.len() as u64);
    let first = c["first"].as_array().unwrap();
    assert_eq!(first.as_slice(), &lines[..lines.len().min(50)]);
    assert!(lines.iter().all(|d| d["here"]["severity"] != d["there"]["severity"]));
}

#[test]
fn another_threshold_differs_by_threshold_only() {
    let (report, lines) = compare(place(), "looser", &PUMPS.replace("warning = 0.01", "warning = 0.05"));
    check(&report, &lines);
    assert!(!lines.is_empty());
    for line in &lines {
        assert_eq!(
            (&line["why"], &line["here"]["severity"], &line["there"]["severity"]),
            (&"threshold".into(), &"normal".into(), &"warning".into())
        );
        assert_eq!(line["here"]["p_value"], line["there"]["p_value"]);
        let p = line["here"]["p_value"].as_f64().unwrap();
        assert!(0.01 < p && p <= 0.05, "{line}");
        assert_eq!(line["features"], Value::Array(Vec::new()));
    }
    assert_eq!(report["against"]["comparison"]["same_severity_other_score"], 0);
}

#[test]
fn another_model_differs_by_score_and_names_the_features() {
    let dir = place();
    let text =
        PUMPS.replace("pump.model", "fleet.model").replace("variance = 0.9, baseline = \"device\"", "variance = 0.6");
    std::fs::write(dir.join("model.toml"), &text).unwrap();
    done(dir, &["train", "model.toml", "--created", "2026-01-08T00:00:00Z"]);
    let (report, lines) = compare(dir, "model", &text);
    check(&report, &lines);
    assert!(!lines.is_empty());
    for line in &lines {
        assert_eq!(line["why"], "score");
        let features = line["features"].as_array().unwrap();
        assert!((1..=5).contains(&features.len()), "{line}");
        let apart =
            |f: &Value| (f["contribution_here"].as_f64().unwrap() - f["contribution_there"].as_f64().unwrap()).abs();
        assert!(features.windows(2).all(|f| apart(&f[0]) >= apart(&f[1]) - 1e-3 * apart(&f[0])), "{line}");
        assert!(features.iter().all(|f| f["value_here"] == f["value_there"]), "the SQL is the same: {line}");
    }
}

#[test]
fn another_window_leaves_windows_of_one_only() {
    let dir = place();
    let text = PUMPS.replace("every = \"20s\"", "every = \"1m\"");
    let (report, lines) = compare(dir, "minutes", &text);
    check(&report, &lines);
    // Of three windows one is whole minutes in both.
    assert!(lines.iter().all(|l| l["why"] == "only_here" && l["there"] == Value::Null));
    let c = &report["against"]["comparison"];
    assert_eq!(sum(&c["only_there"]), 0);
    let (shared, here) = (sum(&c["table"]), sum(&c["only_here"]));
    assert!(here > shared && here < 3 * shared, "{shared} {here}");
    let page = read(&dir.join("minutes"), "report.html");
    assert!(page.contains("The first 50 are listed") && page.contains("only this pipeline has the window"));
}

#[test]
fn steps_of_other_names_are_not_matched_and_it_is_said() {
    let text =
        PUMPS.replace("[steps.anomaly]", "[steps.other]").replace("step      = \"anomaly\"", "step      = \"other\"");
    let (report, lines) = compare(place(), "renamed", &text);
    assert_eq!(sum(&report["against"]["comparison"]["table"]), 0);
    assert!(!lines.is_empty());
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("no model step of the same name"), "{warnings}");
}
