#![allow(clippy::unwrap_used)]

use std::path::Path;

use avouch_connectors::store::{Commit, LaneStore, StoreOptions};
use avouch_engine::decode::parse_timestamp;
use avouch_engine::verdict::{Evidence, Hash32, LogOrigin, Verdict, VerdictRecord, score_e6};
use tempfile::TempDir;

use super::skab::{Experiment, LabelledRow, TRAIN_ROWS, score};
use super::verdicts::{Judged, Verdicts};
use super::*;
use crate::runtime::{lane_dir, state_dir};

const PIPELINE: &str = r#"
version = 1
[pipeline]
name = "bed"
[sources.readings]
kind    = "kafka"
brokers = "localhost:9092"
topic   = "bed.telemetry"
format  = "json"
schema  = { device = "utf8!", datetime = "timestamp_ms!", flow = "f64" }
key     = "device"
time    = { column = "datetime", max_disorder = "1s" }
[steps.features]
from   = "readings"
window = { kind = "sliding", size = "20s", every = "1s" }
sql    = "SELECT device, avg(flow) AS flow_mean FROM readings GROUP BY device"
[steps.anomaly]
from     = "features"
model    = { file = "bed.model" }
features = ["flow_mean"]
decide   = { severity = { warning = 0.01, critical = 0.001 } }
[dead_letter]
kind  = "kafka"
topic = "bed.dead"
"#;

/// 2020-03-09 10:00:00, the time of each experiment's first row.
fn start() -> i64 {
    parse_timestamp(b"2020-03-09 10:00:00").unwrap()
}

/// The time of row `n`, as SKAB writes it.
fn datetime(n: usize) -> String {
    avouch_engine::decode::format_timestamp(start() + n as i64 * 1000)[..19].replace('T', " ")
}

/// The end of the window that ends with row `n`.
fn end_of(n: usize) -> u64 {
    (start() + n as i64 * 1000 + 1000) as u64
}

fn judged(alarm: bool, score: f64) -> Judged {
    Judged { alarm, score, p_value: 0.5, lane: 0 }
}

fn experiment(device: &str, anomalies: &[bool]) -> Experiment {
    let training = vec![false; TRAIN_ROWS];
    let rows = training.iter().chain(anomalies).enumerate();
    let rows =
        rows.map(|(n, &anomaly)| LabelledRow { datetime: datetime(n), time_ms: start() + n as i64 * 1000, anomaly });
    Experiment { device: device.into(), rows: rows.collect() }
}

#[test]
fn a_row_is_judged_by_the_window_that_ends_with_it() {
    let experiments = [experiment("valve1/0", &[true, true, false, false, true])];
    let mut verdicts = Verdicts::default();
    let mut add = |n: usize, alarm| verdicts.add("valve1/0", end_of(n), judged(alarm, 1.0)).unwrap();
    // A training row's alarm does not count, although its window is only a second before the first judged one's.
    add(399, true);
    add(400, true);
    add(401, false);
    add(402, true);
    add(403, false);
    // Row 404 has none, and the one after it judges no row.
    add(405, true);
    let scored = score(&experiments, &verdicts);
    let c = &scored[0].confusion;
    assert_eq!((c.true_positives, c.false_positives, c.false_negatives, c.true_negatives), (1, 1, 2, 1));
    assert_eq!((scored[0].rows.len(), scored[0].without_verdict), (5, 1));
}

#[test]
fn another_devices_verdicts_and_other_ends_judge_nothing() {
    let experiments = [experiment("valve1/0", &[true]), experiment("valve1/1", &[])];
    let mut verdicts = Verdicts::default();
    verdicts.add("valve1/1", end_of(400), judged(true, 1.0)).unwrap();
    verdicts.add("valve1/0", end_of(400) - 1, judged(true, 1.0)).unwrap();
    verdicts.add("valve1/0", end_of(400) + 1, judged(true, 1.0)).unwrap();
    let scored = score(&experiments, &verdicts);
    assert_eq!((scored[0].confusion.false_negatives, scored[0].without_verdict), (1, 1));
    assert_eq!(scored[1].confusion.rows(), 0);
}

#[test]
fn rows_of_equal_time_share_a_verdict() {
    let mut e = experiment("valve1/0", &[true, false]);
    e.rows[401].time_ms = e.rows[400].time_ms;
    let mut verdicts = Verdicts::default();
    verdicts.add("valve1/0", end_of(400), judged(true, 1.0)).unwrap();
    let experiments = [e];
    let scored = score(&experiments, &verdicts);
    let c = &scored[0].confusion;
    assert_eq!((c.true_positives, c.false_positives), (1, 1));
}

/// A data set, a pipeline file and its state in a directory of their own.
struct Bed {
    dir: TempDir,
}

impl Bed {
    fn new() -> Self {
        let bed = Self { dir: TempDir::new().unwrap() };
        bed.write("pipeline.toml", PIPELINE);
        // Beside the experiments lie the run without anomalies, which has no labels, and other files.
        bed.write("data/anomaly-free.csv", "datetime;flow\n");
        bed.write("data/valve1/README.txt", "");
        bed.labels("valve1/10", &[false, false, true, true]);
        bed.labels("valve1/2", &[false, true, true]);
        bed
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn labels(&self, device: &str, anomalies: &[bool]) {
        let mut text = String::from("datetime;flow;anomaly;changepoint\r\n");
        for (n, anomaly) in vec![false; TRAIN_ROWS].iter().chain(anomalies).enumerate() {
            text.push_str(&format!("{};32.5;{}.0;0.0\r\n", datetime(n), u8::from(*anomaly)));
        }
        self.write(&format!("data/{device}.csv"), &text);
    }

    fn pipeline(&self) -> Pipeline {
        Pipeline::load(self.dir.path().join("pipeline.toml")).unwrap()
    }

    /// Logs verdicts: device, row, severity, score.
    fn log(&self, lane: i32, config_hash: Hash32, verdicts: &[(&str, usize, u8, f64)]) {
        let state = state_dir(&self.pipeline());
        std::fs::create_dir_all(&state).unwrap();
        let origin = LogOrigin::new("bed", lane);
        let (mut store, _) = LaneStore::open(&lane_dir(&state, lane), &origin, StoreOptions::default()).unwrap();
        for (index, (device, row, severity, score)) in verdicts.iter().enumerate() {
            store.append(&record(index as u64, lane, config_hash, device, *row, *severity, *score)).unwrap();
        }
        let commit = Commit {
            next_offset: 1,
            lane_state: Vec::new().into(),
            watermark: None,
            config_hash,
            topic: "bed.telemetry",
            partition: lane,
            counters: &[],
        };
        store.commit(commit).unwrap();
    }

    fn args(&self) -> SkabArgs {
        SkabArgs {
            data: self.dir.path().join("data"),
            pipeline: Some(self.dir.path().join("pipeline.toml")),
            memory: false,
            step: None,
            scores: None,
            plots: None,
            json: true,
        }
    }

    /// What the error says, with this machine's directory taken out.
    fn error(&self, args: &SkabArgs) -> String {
        let dir = self.dir.path().to_str().unwrap();
        evaluate_skab(args).unwrap_err().to_string().replace(dir, "…").replace("/./", "/")
    }
}

fn record(
    index: u64,
    lane: i32,
    config_hash: Hash32,
    device: &str,
    row: usize,
    severity: u8,
    score: f64,
) -> VerdictRecord {
    let evidence = Evidence {
        salt: [0; 32],
        device: device.into(),
        step: "anomaly".into(),
        topic: "bed.telemetry".into(),
        partition: lane,
        first_offset: 0,
        last_offset: 19,
        rows: 20,
        references: Vec::new(),
        score,
        p_value: if score.is_nan() { f64::NAN } else { 1.0 / (1.0 + score) },
        interval: None,
        incident: None,
        label: None,
        features: Vec::new(),
    };
    let verdict = Verdict {
        device_id: [1; 32],
        seq: index,
        window_start: end_of(row) - 20_000,
        window_end: end_of(row),
        model_hash: [0xab; 32],
        config_hash,
        input_digest: [3; 32],
        score_e6: score_e6(score),
        severity,
        class: if score.is_nan() { 2 } else { u16::from(severity > 0) },
        evidence_hash: evidence.hash(),
        salt: [4; 32],
    };
    VerdictRecord { index, verdict, evidence }
}

#[test]
fn from_logs_to_tables_json_and_scores() {
    let bed = Bed::new();
    bed.labels("valve2/0", &[true]);
    let hash = bed.pipeline().config_hash();
    bed.log(
        0,
        hash,
        &[
            ("valve1/2", 399, 2, 9.0),
            ("valve1/2", 400, 0, 0.25),
            ("valve1/2", 401, 1, 99.0),
            ("valve1/2", 402, 2, 999.0),
        ],
    );
    bed.log(
        3,
        hash,
        &[
            ("valve1/10", 400, 0, 0.5),
            ("valve1/10", 401, 2, 1999.0),
            ("valve1/10", 403, 0, f64::NAN),
            ("spare", 1, 0, 0.1),
        ],
    );
    let scores = bed.dir.path().join("scores");
    let report = evaluate_skab(&SkabArgs { scores: Some(scores.clone()), ..bed.args() }).unwrap();

    insta::assert_snapshot!("table", report.text());
    let json = report.json();
    assert_eq!(json["all"]["rows"], 8);
    assert_eq!(json["all"]["f1"], 4.0 / 8.0);
    assert_eq!(json["all"]["false_alarm_rate"], 1.0 / 3.0);
    assert_eq!(json["experiments"]["valve1/10"]["rows_without_verdict"], 1);
    assert_eq!(json["experiments"]["valve2/0"]["false_alarm_rate"], serde_json::Value::Null);
    assert_eq!(json["lanes"], serde_json::json!([0, 3]));
    assert_eq!(json["warnings"].as_array().unwrap().len(), 3);
    let csv = |name: &str| std::fs::read_to_string(Path::new(&scores).join(name)).unwrap();
    assert_eq!(
        csv("valve1/2.csv"),
        "datetime,score,p_value,alarm,anomaly\n\
         2020-03-09 10:06:40,0.25,0.8,0,0\n\
         2020-03-09 10:06:41,99,0.01,1,1\n\
         2020-03-09 10:06:42,999,0.001,1,1\n"
    );
    assert!(csv("valve1/10.csv").ends_with("10:06:42,,,0,1\n2020-03-09 10:06:43,,,0,1\n"));
}

#[test]
fn a_pipeline_that_trains_on_judged_rows_is_said() {
    let bed = Bed::new();
    let train = |first: &str| {
        let table = "[train.anomaly]\nstep = \"anomaly\"\nalgorithm = { kind = \"t2-q\" }\n";
        bed.write("pipeline.toml", &format!("{PIPELINE}{table}data = {{ files = \"x.csv\"{first} }}\n"));
        beyond_the_protocol(&bed.pipeline(), "anomaly").is_some()
    };
    assert!(!train(", first = 400"));
    assert!(train(", first = 401"));
    assert!(train(""));
    assert!(beyond_the_protocol(&bed.pipeline(), "another").is_none());
}

#[test]
fn errors_say_what_to_do() {
    let mut said = Vec::new();

    let bed = Bed::new();
    let hash = bed.pipeline().config_hash();
    said.push(bed.error(&bed.args()));
    bed.log(0, hash, &[]);
    said.push(bed.error(&bed.args()));
    said.push(bed.error(&SkabArgs { step: Some("anomly".into()), ..bed.args() }));
    bed.log(0, hash, &[("spare", 400, 0, 0.5), ("valve1/2", 3, 0, 0.5)]);
    said.push(bed.error(&bed.args()));
    bed.log(1, hash, &[("spare", 400, 0, 0.5)]);
    said.push(bed.error(&bed.args()));

    let bed = Bed::new();
    bed.log(0, [0xcd; 32], &[("valve1/2", 400, 0, 0.5)]);
    said.push(bed.error(&bed.args()));
    // Under the right checkpoint, a verdict of another pipeline.
    let bed = Bed::new();
    bed.log(0, hash, &[("valve1/2", 400, 0, 0.5)]);
    let state = state_dir(&bed.pipeline());
    let (mut store, _) =
        LaneStore::open(&lane_dir(&state, 0), &LogOrigin::new("bed", 0), StoreOptions::default()).unwrap();
    store.append(&record(1, 0, [0xcd; 32], "valve1/2", 401, 0, 0.5)).unwrap();
    let commit = Commit {
        next_offset: 2,
        lane_state: Vec::new().into(),
        watermark: None,
        config_hash: hash,
        topic: "bed.telemetry",
        partition: 0,
        counters: &[],
    };
    store.commit(commit).unwrap();
    said.push(bed.error(&bed.args()));

    said.push(bed.error(&SkabArgs { data: bed.dir.path().join("nothing"), ..bed.args() }));
    bed.write("data/valve2/0.csv", "datetime;flow;anomaly\n2020-03-09 10:00:00;1;2\n");
    said.push(bed.error(&bed.args()));
    bed.write("data/valve2/0.csv", "datetime;flow\n2020-03-09 10:00:00;1\n");
    said.push(bed.error(&bed.args()));
    bed.write("data/valve2/0.csv", "datetime,flow,anomaly\n2020-03-09 10:00:00,1,0\n");
    said.push(bed.error(&bed.args()));
    bed.write("data/valve2/0.csv", "datetime;flow;anomaly\nyesterday;1;0\n");
    said.push(bed.error(&bed.args()));

    insta::assert_snapshot!("errors", said.join("\n"));
}
