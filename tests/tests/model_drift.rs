//! A running pipeline whose drift model calls shows the very series that the alert reads.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::path::Path;
use std::time::Duration;

use avouch_system_tests::{Avouch, eventually, place};
use pumps::{FOLLOWED_FILES, metric};

const LIMIT: Duration = Duration::from_secs(60);

const DRIFT: &str = r#"
[steps.drift]
from     = "features"
model    = { file = "drift.model" }
features = ["temp_mean", "temp_std", "vib_rms", "press_mean"]
decide   = { severity = { critical = 0.0001 } }

[train.drift]
step      = "drift"
data      = "healthy.ndjson"
algorithm = { kind = "drift", baseline = "device" }
split     = { by = "time", hold_back = 0.25, seed = 7 }
"#;

/// Readings of five healthy pumps through four hours of a day of January 2026.
fn day(directory: &Path, day: u32) -> Vec<String> {
    let file = directory.join(format!("{day}.ndjson"));
    Avouch::new(["simulate", "pumps", "--healthy", "--devices", "5", "--duration", "4h", "--start"])
        .args([format!("2026-01-{day:02}T08:00:00Z"), "--out".into()])
        .args([&file])
        .run(LIMIT)
        .success();
    std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect()
}

fn warmer(row: &str) -> String {
    let mut row: serde_json::Value = serde_json::from_str(row).unwrap();
    row["temperature"] = (row["temperature"].as_f64().unwrap() + 20.0).into();
    row.to_string()
}

/// What the alert's expression counts, as in rules.yml.
fn series() -> String {
    let rules = std::fs::read_to_string(place::workspace().join("tests/prometheus/rules.yml")).unwrap();
    let (_, alert) = rules.split_once("- alert: AvouchModelDrift").unwrap();
    let (_, rest) = alert.split_once("expr: increase(").unwrap();
    rest.split_once('[').unwrap().0.to_owned()
}

#[test]
fn the_alert_of_drift_reads_what_a_running_pipeline_shows() {
    let directory = place::fresh_directory("model-drift");
    std::fs::create_dir(directory.join("data")).unwrap();
    std::fs::write(directory.join("healthy.ndjson"), day(&directory, 5).join("\n")).unwrap();
    let http = format!("127.0.0.1:{}", place::free_port());
    let call = |command: &str| {
        let call = pumps::avouch_without_kafka(command, &directory, FOLLOWED_FILES, "state");
        let file = directory.join("pumps.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}\n{DRIFT}")).unwrap();
        call.env("T_HTTP", &http)
    };
    call("train").args(["drift"]).run(LIMIT).success();

    let series = series();
    assert_eq!(series, "avouch_lane_verdict_classes_total{class=\"drift\"}");
    // The selector names no lane; the series on /metrics does.
    let shown = || metric(&http, &series.replace('}', ",lane=\"0\"}"));
    let mut process = call("run").start(&directory.join("avouch.log"));
    let lane = directory.join("state/pumps/0");
    let reached = |offset| {
        let there = || pumps::left::committed(&lane).is_some_and(|c| c.next_offset >= offset).then_some(());
        eventually("it has read all", LIMIT, there);
    };
    let readings = day(&directory, 6);
    let (cool, warm) = readings.split_at(readings.len() / 2);
    std::fs::write(directory.join("data/1.ndjson"), cool.join("\n")).unwrap();
    reached(cool.len() as i64);
    assert_eq!(shown(), Some(0.0), "there from the start, or the first call would be no increase");
    std::fs::write(directory.join("data/2.ndjson"), warm.iter().map(|row| warmer(row)).collect::<Vec<_>>().join("\n"))
        .unwrap();
    reached(readings.len() as i64);
    let called = eventually("drift is called", LIMIT, || shown().filter(|n| *n > 0.0));
    println!("{called} verdicts of class drift");
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
    let sql = "SELECT count(*) AS n FROM verdicts WHERE class = 'drift' AND step = 'drift' AND severity <> 'normal'";
    // Of the log: the archive has the verdicts of the other step only.
    let asked = Avouch::new(["query"]).args([directory.join("state/pumps")]).args([sql]);
    let rows = asked.args(["--format", "csv"]).run(LIMIT).success().stdout;
    assert_eq!(rows, format!("n\n{called}\n"));
}
