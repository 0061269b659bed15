//! `avouch evaluate nab`, as it is called: on a small data set made here, and on the benchmark where it is at hand.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn evaluate(data: &Path, more: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_avouch"))
        .args(["evaluate", "nab", "--data"])
        .arg(data)
        .args(more)
        .current_dir(dir.path())
        .output()
        .unwrap()
}

fn json(data: &Path, more: &[&str]) -> Value {
    let out = evaluate(data, &[more, &["--json"]].concat());
    assert!(out.status.success(), "{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Two series of 2,000 readings, five minutes apart; the first has a spike at row 1,500 in a window of 100 rows, two rows
/// of one time, two rows that changed places, and a row without a number.
fn small(dir: &Path) {
    let at = |minutes: usize| {
        let (day, rest) = (minutes / 1440, minutes % 1440);
        format!("2026-01-{:02} {:02}:{:02}:00", day + 1, rest / 60, rest % 60)
    };
    let time = |i: usize| at(5 * i);
    for (folder, series, spike) in [("realPumps", "one", true), ("artificial", "two", false)] {
        let mut text = String::from("timestamp,value\n");
        for i in 0..2000usize {
            let value = 10.0 + ((i * 7919) % 101) as f64 / 100.0 + if spike && i == 1500 { 30.0 } else { 0.0 };
            let row = match i {
                700 if spike => 699,
                800 if spike => 801,
                801 if spike => 800,
                _ => i,
            };
            let value = if spike && i == 900 { String::new() } else { value.to_string() };
            writeln!(text, "{},{value}", time(row)).unwrap();
        }
        std::fs::create_dir_all(dir.join("data").join(folder)).unwrap();
        std::fs::write(dir.join("data").join(folder).join(format!("{series}.csv")), text).unwrap();
    }
    std::fs::create_dir_all(dir.join("labels")).unwrap();
    let windows = format!(
        r#"{{"realPumps/one.csv": [["{}.000000", "{}.000000"]], "artificial/two.csv": []}}"#,
        time(1450),
        time(1549)
    );
    std::fs::write(dir.join("labels/combined_windows.json"), windows).unwrap();
}

#[test]
fn a_spike_in_a_window_is_found_and_every_row_has_its_verdict() {
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    let (scores, plots) = (dir.path().join("scores"), dir.path().join("plots"));
    let report = json(dir.path(), &["--scores", scores.to_str().unwrap(), "--plots", plots.to_str().unwrap()]);
    assert_eq!((report["files"].as_u64(), report["rows"].as_u64()), (Some(2), Some(4000)));
    // Rows of one time share a window; no other row does.
    assert_eq!(report["verdicts"], 3999);
    assert_eq!(report["all"]["standard"]["windows_hit"], 1);
    assert_eq!(report["all"]["standard"]["false_alarms"], 0);
    let warnings: Vec<&str> = report["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("trained now"), "{warnings:?}");
    assert!(warnings[1].starts_with("1 row without a score"), "{warnings:?}");

    let text = std::fs::read_to_string(scores.join("realPumps/avouch_one.csv")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2001, "timestamp,value,anomaly_score,label"));
    let score = |row: usize| -> f64 { lines[row + 1].split(',').nth(2).unwrap().parse().unwrap() };
    let greatest = (300..2000).max_by(|a, b| score(*a).total_cmp(&score(*b))).unwrap();
    assert_eq!(greatest, 1500);
    assert!(score(1500) < 1.0 && lines[1501].ends_with(",1") && lines[1].ends_with(",0"));
    assert_eq!(score(699), score(700));
    let svg = std::fs::read_to_string(plots.join("realPumps-one.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("realPumps/one"));
    // What has no window is not drawn.
    assert!(!plots.join("artificial-two.svg").exists());
    // Nothing of it depends on when it is run.
    assert_eq!(report["model"], json(dir.path(), &[])["model"]);
}

#[test]
fn what_is_wrong_with_a_data_set_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let out = evaluate(dir.path(), &[]);
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("combined_windows.json"));
    small(dir.path());
    std::fs::write(dir.path().join("labels/combined_windows.json"), "{}").unwrap();
    let out = evaluate(dir.path(), &[]);
    assert!(String::from_utf8_lossy(&out.stderr).contains("says nothing of artificial/two.csv"));
}

#[test]
fn the_shipped_pipeline_scores_74_on_the_benchmark() {
    let root = std::env::var_os("AVOUCH_DATASETS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/datasets"), PathBuf::from);
    if !root.join("nab/labels").is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no data sets at {}", root.display());
        println!("SKIPPED: no data sets at {} (set AVOUCH_DATASETS)", root.display());
        return;
    }
    let report = json(&root.join("nab"), &[]);
    if report["files"] != 41 {
        println!("SKIPPED: the bar is for 41 files, here are {}", report["files"]);
        return;
    }
    assert!(report["all"]["standard"]["points"].as_f64().unwrap() >= 74.0, "{report:#}");
    let warnings = report["warnings"].as_array().unwrap();
    assert!(warnings.iter().all(|w| !w.as_str().unwrap().contains("without a verdict")), "{warnings:?}");
}
