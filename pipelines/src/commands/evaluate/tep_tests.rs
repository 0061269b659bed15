#![allow(clippy::unwrap_used)]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::skab;
use super::*;

fn datasets(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("AVOUCH_DATASETS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/datasets"), PathBuf::from);
    let dir = root.join(name);
    if !dir.is_dir() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no data set at {}", dir.display());
        println!("SKIPPED: no data set at {} (set AVOUCH_DATASETS)", dir.display());
        return None;
    }
    Some(dir)
}

fn args(data: PathBuf) -> TepArgs {
    TepArgs { data, pipeline: None, step: None, readings: None, scores: None, plots: None, json: true }
}

#[test]
fn the_process_is_judged_within_the_bar() {
    let Some(data) = datasets("tep") else { return };
    let out = tempfile::tempdir().unwrap();
    let (scores, plots) = (out.path().join("scores"), out.path().join("plots"));
    let report = evaluate(&TepArgs { scores: Some(scores.clone()), plots: Some(plots.clone()), ..args(data) }).unwrap();
    println!("{}", report.text());
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_eq!(report.faults().count(), 16);
    assert_eq!(report.faults().filter(|(_, counts)| *counts).count(), 13);
    assert!(report.detection() >= 0.93, "{}", report.detection());
    assert!(report.false_alarms() <= 0.01, "{}", report.false_alarms());
    let csv = std::fs::read_to_string(scores.join("d01_te.csv")).unwrap();
    assert_eq!(csv.lines().count(), 961);
    assert_eq!(csv.lines().filter(|l| l.ends_with(",1")).count(), 800);
    assert_eq!(std::fs::read_dir(plots).unwrap().count(), PLOTTED.len());
}

#[test]
fn the_water_pump_is_trained_and_judged_in_memory() {
    let Some(data) = datasets("skab") else { return };
    let args = super::super::SkabArgs {
        data,
        pipeline: None,
        memory: false,
        step: None,
        scores: None,
        plots: None,
        json: true,
    };
    let report = super::super::evaluate_skab(&args).unwrap();
    println!("{}", report.text());
    let all = &report.json()["all"];
    assert_eq!(all["rows"].as_u64().unwrap(), 22_472 - 20 * skab::TRAIN_ROWS as u64);
    assert!(all["f1"].as_f64().unwrap() >= 0.88, "{all}");
    assert!(all["false_alarm_rate"].as_f64().unwrap() <= 0.06, "{all}");
}

/// A data set of the process's layout: runs of noise, with the fault a shift of two variables.
fn write(dir: &Path, name: &str, rows: usize, fault: bool, transposed: bool, gzip: bool) {
    let mut state = name.bytes().fold(7u64, |s, b| s.wrapping_mul(31).wrapping_add(u64::from(b)));
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let all: Vec<Vec<f64>> = (0..rows)
        .map(|i| {
            (0..VARIABLES)
                .map(|v| 10.0 + v as f64 + next() + next() + if fault && i >= BEFORE && v < 2 { 3.0 } else { 0.0 })
                .collect()
        })
        .collect();
    let (n, m) = if transposed { (VARIABLES, rows) } else { (rows, VARIABLES) };
    let mut text = String::new();
    let at = |i: usize, j: usize| if transposed { all[j][i] } else { all[i][j] };
    for i in 0..n {
        for v in (0..m).map(|j| at(i, j)) {
            let _ = std::fmt::Write::write_fmt(&mut text, format_args!("  {v:.6e}"));
        }
        text.push('\n');
    }
    if gzip {
        let file = std::fs::File::create(dir.join(format!("{name}.dat.gz"))).unwrap();
        let mut gz = GzEncoder::new(file, Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        gz.finish().unwrap();
    } else {
        std::fs::write(dir.join(format!("{name}.dat")), text).unwrap();
    }
}

#[test]
fn files_in_either_layout_gzipped_or_not_become_readings_and_figures() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "d00", 300, false, true, true);
    write(dir.path(), "d00_te", 400, false, false, false);
    write(dir.path(), "d01_te", 240, true, false, true);
    write(dir.path(), "d03_te", 240, false, false, true);
    let readings = dir.path().join("readings");
    let report = evaluate(&TepArgs { readings: Some(readings.clone()), ..args(dir.path().to_path_buf()) }).unwrap();
    let json = report.json();
    assert_eq!(report.detection(), json["runs"]["d01_te"]["detection"].as_f64().unwrap());
    assert!(report.detection() > 0.95, "{json}");
    assert!(report.false_alarms() < 0.06, "{json}");
    assert_eq!(json["runs"]["d01_te"]["rows_under_fault"], 80);
    assert_eq!(json["runs"]["d03_te"]["in_mean"], false);
    // Not the protocol's rows, and it says so.
    assert!(report.text().contains("warning: the model was fitted on 300 rows and its threshold set on 400"));
    let csv = std::fs::read_to_string(readings.join("d00.csv")).unwrap();
    assert!(csv.starts_with("run,time,xmeas_01,"));
    assert!(csv.lines().next().unwrap().ends_with(",xmv_11"));
    assert_eq!(csv.lines().count(), 301);
    // The same again, to the last character.
    assert_eq!(evaluate(&args(dir.path().to_path_buf())).unwrap().text(), report.text());
}

#[test]
fn what_is_wrong_with_a_data_set_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let said = || match evaluate(&args(dir.path().to_path_buf())) {
        Ok(report) => report.text(),
        Err(e) => e.to_string(),
    };
    assert!(said().contains("holds no d00.dat or d00.dat.gz"));
    write(dir.path(), "d00", 80, false, false, true);
    write(dir.path(), "d00_te", 80, false, false, true);
    assert!(said().contains("holds no run with a fault"));
    write(dir.path(), "d01_te", 160, true, false, true);
    assert!(said().contains("has 160 rows; the fault comes after 160"));
    std::fs::write(dir.path().join("d01_te.dat"), "1 2 3\n1 2 x\n").unwrap();
    assert!(said().contains("line 2: invalid float literal"));
    std::fs::write(dir.path().join("d01_te.dat"), "1 2 3\n1 2\n").unwrap();
    assert!(said().contains("line 2: not as many"));
    std::fs::write(dir.path().join("d01_te.dat"), "1 2 3\n").unwrap();
    assert!(said().contains("1 lines of 3 numbers"));
}
