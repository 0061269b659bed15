//! `avouch backtest` as its user runs it: the program, on files, with a model that it trained.
#![allow(clippy::unwrap_used, missing_docs)]

mod against;
mod by_hand;
mod fleet;
mod mistakes;
mod retrain;
mod rows;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the program in a directory.
fn avouch(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_avouch"))
        .args(args)
        .current_dir(dir)
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        .output()
        .unwrap()
}

/// Runs it, which must succeed, and gives its standard output.
fn done(dir: &Path, args: &[&str]) -> String {
    let out = avouch(dir, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{args:?}\n{}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// Runs it, which must fail, and gives its standard error.
fn refused(dir: &Path, args: &[&str]) -> String {
    let out = avouch(dir, args);
    assert_eq!(out.status.code(), Some(1), "{args:?}");
    assert!(out.stdout.is_empty(), "{args:?}");
    String::from_utf8(out.stderr).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A pipeline of pumps as in the demo, smaller. Words that tests replace stand alone on their lines.
const PUMPS: &str = r#"
version = 1

[pipeline]
name = "pumps"
delivery = "at-least-once"

[sources.readings]
kind    = "kafka"
brokers = "localhost:9092"
topic   = "pumps"
format  = "json"
schema  = { device = "utf8!", ts = "timestamp_ms!", temperature = "f64", vibration = "f64", pressure = "f64", rpm = "i64" }
key     = "device"
time    = { column = "ts", max_disorder = "30s", max_future = "5m" }

[steps.features]
from   = "readings"
window = { kind = "sliding", size = "1m", every = "20s" }
sql    = """
SELECT device, avg(temperature) AS temp_mean, stddev(temperature) AS temp_std, rms(vibration) AS vib_rms,
       crest_factor(vibration) AS vib_crest, avg(pressure) AS press_mean, stddev(pressure) AS press_std
FROM readings GROUP BY device
"""

[steps.anomaly]
from     = "features"
model    = { file = "pump.model" }
features = ["temp_mean", "temp_std", "vib_rms", "vib_crest", "press_mean", "press_std"]
decide   = { severity = { warning = 0.01, critical = 0.002 } }

[dead_letter]
kind = "stdout"

[train.anomaly]
step      = "anomaly"
data      = "healthy.ndjson"
algorithm = { kind = "t2-q", variance = 0.9, baseline = "device", seed = 7 }
split     = { by = "time", hold_back = 0.25, seed = 7 }
"#;
