//! `avouch explain-verdict` as its user types it, over a pipeline that was trained and has run.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const PIPELINE: &str = r#"
version = 1

[pipeline]
name       = "boilers"
checkpoint = { every = "10s", store = "file://./state" }

[sources.readings]
kind   = "files"
path   = "data/*.csv"
schema = { device = "utf8!", ts = "timestamp_ms!", pressure = "f64", temperature = "f64" }
key    = "device"
time   = { column = "ts", max_disorder = "0s" }

[steps.features]
from   = "readings"
window = { kind = "tumbling", size = "1m" }
sql    = """
SELECT device, avg(pressure) AS pressure_mean, stddev(pressure) AS pressure_std, avg(temperature) AS temp_mean
FROM readings GROUP BY device
"""

[steps.anomaly]
from   = "features"
model  = { file = "boilers.model" }
decide = { severity = { warning = 0.02, critical = 0.002 }, incident = "5m" }

[sinks.verdicts]
from  = ["anomaly"]
kind  = "parquet"
path  = "file://./archive"

[dead_letter]
kind = "files"
path = "file://./dead"

[train.anomaly]
step      = "anomaly"
data      = "training.csv"
algorithm = { kind = "t2-q", seed = 7 }

[http]
listen = "127.0.0.1:0"
"#;

/// 2023-11-15T00:00:00Z.
const START: i64 = 1_700_006_400_000;

/// Two boilers, a reading every six seconds; from `broken` on the second one's pressure is too high.
fn readings(start: i64, minutes: i64, broken: i64) -> String {
    let mut out = "device,ts,pressure,temperature\n".to_owned();
    for i in 0..minutes * 10 {
        for boiler in 0..2i64 {
            // Whole numbers and few of them, without a period of the window's.
            let wave = ((i * (7 + boiler) + i / 3 + i / 41) % 11) as f64;
            let heat = 80.0 + ((i * 5 + i / 7 + boiler) % 13) as f64 / 4.0;
            let more = if boiler == 1 && i >= broken * 10 { 9.0 } else { 0.0 };
            writeln!(out, "boiler-{boiler},{},{},{heat}", start + i * 6000, 30.0 + wave / 2.0 + more).unwrap();
        }
    }
    out
}

/// What a command says in a directory, and whether it succeeded; paths of the machine are left out.
fn typed(place: &Path, words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_avouch")).args(words).current_dir(place).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let real = std::fs::canonicalize(place).unwrap();
    let said = said.replace(&format!("{}/", real.display()), "").replace(&format!("{}/", place.display()), "");
    (output.status.success(), said)
}

/// The command of this pipeline, with more words.
fn of_pipeline<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["explain-verdict", "pipeline.toml"], more].concat()
}

fn worked(place: &Path, words: &[&str]) -> String {
    let (success, said) = typed(place, words);
    assert!(success, "avouch {}\n{said}", words.join(" "));
    said
}

fn failed(place: &Path, words: &[&str]) -> String {
    let (success, said) = typed(place, words);
    assert!(!success, "avouch {}\n{said}", words.join(" "));
    said
}

#[test]
fn a_verdict_of_a_pipeline_that_ran_is_said_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path();
    std::fs::write(place.join("pipeline.toml"), PIPELINE).unwrap();
    std::fs::write(place.join("training.csv"), readings(START - 86_400_000, 720, 720)).unwrap();
    std::fs::create_dir(place.join("data")).unwrap();
    std::fs::write(place.join("data/today.csv"), readings(START, 20, 12)).unwrap();
    worked(place, &["train", "pipeline.toml"]);

    let mut wrong = String::new();
    let mut say = |title: &str, words: &[&str]| writeln!(wrong, "# {title}\n{}", failed(place, words)).unwrap();
    say("before it has run", &of_pipeline(&[]));
    worked(place, &["run", "pipeline.toml"]);
    say("of a device that there is not", &of_pipeline(&["--device", "boiler-7"]));
    say("of an index that there is not", &of_pipeline(&["--lane", "0", "--index", "999"]));
    say("of a lane that there is not", &of_pipeline(&["--lane", "3"]));
    say("for a machine", &of_pipeline(&["--device", "boiler-7", "--json"]));
    say("an index without a lane", &of_pipeline(&["--index", "3"]));
    say("of a file that there is not", &["explain-verdict", "none.toml"]);
    std::fs::create_dir(place.join("empty")).unwrap();
    say("of a directory that is no bundle", &["explain-verdict", "empty"]);
    insta::assert_snapshot!("errors", wrong);

    let alarm = worked(place, &of_pipeline(&["--device", "boiler-1", "--severity", "critical"]));
    insta::assert_snapshot!("alarm", alarm);
    let quiet = worked(place, &of_pipeline(&["--device", "boiler-0"]));
    insta::assert_snapshot!("normal", quiet);
    // The same by its place in the log, and as JSON.
    let (_, at) = alarm.split_once("It is verdict ").unwrap();
    let index = at.split(' ').next().unwrap();
    assert_eq!(worked(place, &of_pipeline(&["--lane", "0", "--index", index])), alarm);
    let json: serde_json::Value =
        serde_json::from_str(&worked(place, &of_pipeline(&["--lane", "0", "--index", index, "--json"]))).unwrap();
    assert_eq!(json["words"], alarm);
    assert_eq!(
        (json["verdict"]["device"].as_str(), json["verdict"]["severity"].as_str()),
        (Some("boiler-1"), Some("critical"))
    );
}
