//! A day so plain that every figure can be counted by hand.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;

use avouch_engine::decode::format_timestamp;
use serde_json::Value;
use tempfile::TempDir;

use super::{done, json, read};

/// 2026-03-01T00:00:00Z.
const T0: i64 = 1_772_323_200_000;

/// A device whose name is markup.
const MARKUP: &str = "<b>c&\\\"d\\\"</b>";

const PIPELINE: &str = r#"
version = 1

[pipeline]
name = "plain"
delivery = "at-least-once"

[sources.readings]
kind    = "kafka"
brokers = "localhost:9092"
topic   = "plain"
format  = "json"
schema  = { device = "utf8!", ts = "timestamp_ms!", x = "f64" }
key     = "device"
time    = { column = "ts", max_disorder = "1s" }

[steps.features]
from   = "readings"
window = { kind = "tumbling", size = "10s" }
sql    = "SELECT device, avg(x) AS x_mean, max(x) - min(x) AS x_range FROM readings GROUP BY device"

[steps.anomaly]
from     = "features"
model    = { file = "plain.model" }
features = ["x_mean", "x_range"]
decide   = { severity = { warning = 0.01 } }

[dead_letter]
kind = "stdout"

[train.anomaly]
step      = "anomaly"
data      = "healthy.ndjson"
algorithm = { kind = "t2-q", variance = 0.9, seed = 7 }
split     = { by = "time", hold_back = 0.25, seed = 7 }
"#;

/// Two hours of three devices, a reading a second. Windows come in 35 kinds, so that none of them is rare; in those listed
/// with a device `x` is far off.
fn readings(from: i64, spikes: [(&str, &[i64]); 3]) -> String {
    let mut out = String::new();
    for second in 0..7200 {
        let window = second / 10;
        for (device, spikes) in spikes {
            let usual = 10.0 + ((window * 3) % 7) as f64 * 0.1 + (second % 10) as f64 * 0.01 * (window % 5 + 1) as f64;
            let x = if spikes.contains(&window) { usual + 1000.0 } else { usual };
            writeln!(out, "{{\"device\":\"{device}\",\"ts\":{},\"x\":{x:.3}}}", from + second * 1000).unwrap();
        }
    }
    out
}

pub fn place() -> &'static Path {
    static PLACE: OnceLock<TempDir> = OnceLock::new();
    PLACE
        .get_or_init(|| {
            let tmp = tempfile::tempdir().unwrap();
            let dir = tmp.path();
            let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
            write("plain.toml", PIPELINE);
            write("healthy.ndjson", &readings(T0 - 86_400_000, [("a", &[]), ("b", &[]), (MARKUP, &[])]));
            write("day.ndjson", &readings(T0, [("a", &[100, 300, 301, 302, 304]), ("b", &[50]), (MARKUP, &[])]));
            done(dir, &["train", "plain.toml", "--created", "2026-01-08T00:00:00Z"]);
            tmp
        })
        .path()
}

fn at(second: i64) -> String {
    format_timestamp(T0 + second * 1000)
}

fn run(labels: &str, name: &str, horizon: &str) -> Value {
    let dir = place();
    std::fs::write(dir.join(format!("{name}.csv")), labels).unwrap();
    let args =
        format!("backtest plain.toml --data day.ndjson --labels {name}.csv --horizon {horizon} --out {name} --json");
    json(&done(dir, &args.split(' ').collect::<Vec<_>>()))
}

#[test]
fn alarms_make_episodes_and_warn_of_failures() {
    let quoted = MARKUP.replace("\\\"", "\"\"");
    let labels = format!(
        "device,failed_at,step\na,{},\nb,{},anomaly\n\"{quoted}\",{},\na,{},\n",
        at(3110),
        at(1000),
        at(1000),
        at(-100_000)
    );
    let report = run(&labels, "failures", "30m");
    // The last window is open when the rows end.
    let alarms = &report["alarms"];
    assert_eq!((alarms["alarms"].as_u64(), alarms["episodes"].as_u64()), (Some(6), Some(4)), "{alarms:#}");
    assert_eq!(report["verdicts"][0]["normal"], 3 * 719 - 6);
    let weeks = 3.0 * 7190.0 / 604_800.0;
    assert!((alarms["device_weeks"].as_f64().unwrap() - weeks).abs() < 1e-6);
    assert!((alarms["alarms_per_device_week"].as_f64().unwrap() - 6.0 / weeks).abs() < 1e-3);

    let failures = &report["truth"]["failures"];
    let each = failures["each"].as_array().unwrap();
    let of = |i: usize, name: &str| each[i][name].clone();
    // Three in a row, and one after a pause: two episodes, 100 s and 60 s before.
    assert_eq!(of(0, "outcome"), "warned");
    assert_eq!((of(0, "lead_ms"), of(0, "last_episode_lead_ms")), (100_000.into(), 60_000.into()));
    assert_eq!((of(0, "alarms"), of(0, "episodes")), (4.into(), 2.into()));
    // One alarm that nothing follows, no alarm, and a failure before the data begins.
    assert_eq!((of(1, "outcome"), of(1, "alarms"), of(1, "lead_ms")), ("missed".into(), 1.into(), Value::Null));
    assert_eq!((of(2, "outcome"), of(2, "alarms")), ("missed".into(), 0.into()));
    assert_eq!(of(3, "outcome"), "not_judged");
    let sums = ["failures", "warned", "missed", "not_judged", "episodes_elsewhere"].map(|n| failures[n].as_u64());
    assert_eq!(sums, [4, 1, 2, 1, 1].map(Some));
    assert_eq!(failures["median_lead_ms"], 100_000);

    // A longer look back finds the alarm of window 100, which recurs.
    let report = run(&labels, "longer", "1h");
    let first = &report["truth"]["failures"]["each"][0];
    assert_eq!((&first["lead_ms"], &first["episodes"]), (&2_100_000.into(), &3.into()));
    assert_eq!(report["truth"]["failures"]["episodes_elsewhere"], 0);

    let page = read(place(), "failures/report.html");
    assert!(page.contains("&lt;b&gt;c&amp;&quot;d&quot;&lt;/b&gt;") && !page.contains("<b>c"));
}

#[test]
fn verdicts_are_held_against_labelled_windows() {
    // Windows 300 to 304, given in two parts that overlap; and one across the edge of windows 500 and 501.
    let labels = format!(
        "device,from,to\na,{},{}\na,{},{}\na,{},{}\n",
        at(3000),
        at(3030),
        at(3020),
        at(3050),
        at(5005),
        at(5015)
    );
    let report = run(&labels, "windows", "1h");
    let windows = &report["truth"]["windows"];
    assert_eq!((&windows["labelled"], &windows["found"], &windows["not_judged"]), (&2.into(), &1.into(), &0.into()));
    let step = &windows["steps"][0];
    let counts = ["true_positives", "false_positives", "false_negatives", "true_negatives", "left_out"];
    assert_eq!(counts.map(|n| step[n].as_u64()), [4, 2, 1, 3 * 719 - 5 - 2 - 2, 2].map(Some));
    assert_eq!(step["precision"], 0.666667);
    assert_eq!(step["recall"], 0.8);
    assert_eq!(step["f1"], 0.727273);

    // A labelled window shorter than the pipeline's lies within it.
    let labels = format!("device,from,to\na,{},{}\n", at(1002), at(1004));
    let report = run(&labels, "short", "1h");
    let step = &report["truth"]["windows"]["steps"][0];
    assert_eq!(counts.map(|n| step[n].as_u64()), [1, 5, 0, 3 * 719 - 6, 0].map(Some));
}
