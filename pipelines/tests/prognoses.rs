//! The shipped pipelines that predict, trained and run on the published data: the bars that their READMEs claim.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// The data set, or nothing where it is not there; under CI it must be.
fn dataset(name: &str) -> Option<PathBuf> {
    let all = std::env::var_os("AVOUCH_DATASETS").map_or_else(|| "../../shared/datasets".into(), PathBuf::from);
    let dir = all.join(name);
    if dir.exists() {
        return Some(dir);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is not there", dir.display());
    eprintln!("SKIPPED: {} is not there; set AVOUCH_DATASETS", dir.display());
    None
}

fn evaluate(benchmark: &str, dir: &PathBuf, more: &[&str]) -> Value {
    let out = Command::new(env!("CARGO_BIN_EXE_avouch"))
        .current_dir("..")
        .args(["evaluate", benchmark, "--json", "--data"])
        .arg(std::fs::canonicalize(dir).unwrap())
        .args(more)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

#[test]
fn remaining_life_of_turbofan_engines() {
    let Some(dir) = dataset("cmapss") else { return };
    let scratch = tempfile::tempdir().unwrap();
    let (scores, plots) = (scratch.path().join("scores"), scratch.path().join("plots"));
    let more = ["--scores", scores.to_str().unwrap(), "--plots", plots.to_str().unwrap()];
    let said = evaluate("cmapss", &dir, &more);
    println!("{said}");
    for (set, engines, test_rows, rmse, score) in
        [("FD001", 100, 13_096, 10.5, 160.0), ("FD002", 259, 33_991, 10.3, 490.0)]
    {
        let figures = &said["sets"][set];
        assert_eq!(figures["engines"], engines);
        assert!(figures["rmse"].as_f64().unwrap() <= rmse, "{figures}");
        assert!(figures["score"].as_f64().unwrap() <= score, "{figures}");
        // Of FD001's 100 engines, binomial: 3.3 standard deviations below the 90 % promised.
        assert!(figures["interval_coverage"].as_f64().unwrap() >= 0.8, "{figures}");
        let rows = std::fs::read_to_string(scores.join(format!("{set}.csv"))).unwrap();
        assert_eq!(rows.lines().count(), 1 + test_rows, "one verdict a row of the test engines");
    }
    assert_eq!(std::fs::read_dir(plots).unwrap().count(), 8);
}

#[test]
fn failures_of_a_milling_machine() {
    let Some(dir) = dataset("ai4i2020") else { return };
    let said = evaluate("ai4i", &dir, &[]);
    println!("{said}");
    assert_eq!(said["rows"], 10_000);
    assert!(said["f1"].as_f64().unwrap() >= 0.9, "{said}");
    for row in said["reliability"].as_array().unwrap().iter().filter(|r| r["rows"].as_u64().unwrap() >= 100) {
        let off = row["said"].as_f64().unwrap() - row["seen"].as_f64().unwrap();
        assert!(off.abs() < 0.1, "{row}");
    }
}
