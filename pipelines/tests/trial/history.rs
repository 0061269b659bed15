//! A pipeline over files in memory gives what its lane gives, however many lanes there are.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, Float64Array};
use arrow::datatypes::Int64Type;
use avouch::history::{Ending, History, HistoryOptions};
use avouch::lang::{self, Models, Pipeline};
use avouch_connectors::files::Order;
use avouch_connectors::kafka::partition_of_key;
use avouch_engine::dead_letter::DeadReason;

const PIPELINE: &str = r#"
version = 1

[pipeline]
name = "trial"
delivery = "at-least-once"

[sources.readings]
kind    = "kafka"
brokers = "localhost:9092"
topic   = "t"
format  = "json"
schema  = { device = "utf8!", ts = "timestamp_ms!", x = "f64" }
key     = "device"
time    = { column = "ts", max_disorder = "2s", max_future = "1m" }

[steps.clean]
from = "readings"
sql  = "SELECT *, x * 2 AS y FROM readings WHERE x >= 0"

[steps.features]
from   = "clean"
window = { kind = "tumbling", size = "10s" }
sql    = "SELECT device, avg(y) AS y_mean, count(*) AS n FROM clean GROUP BY device"

[steps.anomaly]
from     = "features"
model    = { file = "none.model" }
features = ["y_mean"]
decide   = { severity = { warning = 0.01 } }

[dead_letter]
kind = "stdout"
"#;

fn pipeline(dir: &Path) -> Pipeline {
    let path = dir.join("p.toml");
    std::fs::write(&path, PIPELINE).unwrap();
    Pipeline::load(&path).map_err(|d| d.render_text(false)).unwrap()
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

struct Given {
    text: String,
    dead: Vec<(&'static str, i64, Option<Vec<u8>>)>,
    features: usize,
}

fn run(pipeline: &Pipeline, options: HistoryOptions) -> Given {
    let plan = lang::plan(pipeline, &Models::new()).map_err(|d| d.render_text(false)).unwrap();
    let mut history = History::open(plan, options).unwrap();
    let mut given = Given { text: String::new(), dead: Vec::new(), features: 0 };
    while let Some(piece) = history.next().unwrap() {
        for rows in &piece.rows {
            for i in 0..rows.devices.len() {
                write!(given.text, "{} {} {} {}", rows.step, rows.devices[i], rows.offsets[i], rows.times[i]).unwrap();
                if let Some(start) = rows.window_starts.get(i) {
                    let number = |name| rows.batch.column_by_name(name).unwrap();
                    let mean: &Float64Array = number("y_mean").as_any().downcast_ref().unwrap();
                    let n = number("n").as_primitive::<Int64Type>();
                    write!(given.text, " from {start}: {} of {}", mean.value(i), n.value(i)).unwrap();
                    given.features += 1;
                }
                given.text.push('\n');
            }
        }
        given.dead.extend(piece.output.dead.into_iter().map(|d| (d.reason.name(), d.timestamp, d.value)));
    }
    let (done, all) = history.progress();
    assert_eq!(done, all);
    let counters = history.counters();
    assert!(counters.balanced());
    assert_eq!(counters.dead.iter().sum::<u64>(), given.dead.len() as u64);
    given
}

#[test]
fn rows_of_steps_come_as_the_lane_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = pipeline(dir.path());
    let file = write(
        dir.path(),
        "r.jsonl",
        r#"{"device":"a","ts":1000,"x":1}
{"device":"a","ts":2000,"x":-1}
{"device":"b","ts":3000,"x":5}

{"device":"a","ts":9000,"x":3}
{"device":"a","ts":12000,"x":4}
{"device":"b","ts":5000,"x":5}
"#,
    );
    let mut options = HistoryOptions::of(&pipeline, [file.display().to_string()]);
    options.watch = ["readings", "clean", "features"].map(String::from).to_vec();
    let given = run(&pipeline, options.clone());
    insta::assert_snapshot!(given.text, @r"
    readings a 0 1000
    readings a 1 2000
    readings b 2 3000
    readings a 3 9000
    readings a 4 12000
    clean a 0 1000
    clean b 2 3000
    clean a 3 9000
    clean a 4 12000
    features a 3 10000 from 0: 4 of 2
    features b 2 10000 from 0: 10 of 1
    ");
    assert_eq!(given.dead.len(), 1);
    assert_eq!((given.dead[0].0, given.dead[0].1), ("late", 5000));

    // The window that begins at 10 s is open at the end, and closes only when time goes on.
    options.watch = vec!["features".into()];
    options.ending = Ending::Silence(9_999);
    assert_eq!(run(&pipeline, options.clone()).features, 2);
    for ending in [Ending::Silence(10_000), Ending::CloseAll] {
        options.ending = ending;
        let given = run(&pipeline, options.clone());
        assert!(given.text.ends_with("features a 4 20000 from 10000: 8 of 1\n"), "{}", given.text);
    }
}

#[test]
fn bad_lines_are_records_and_die_as_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = pipeline(dir.path());
    let file = write(
        dir.path(),
        "r.jsonl",
        "{\"device\":\"a\",\"ts\":1000,\"x\":1,\"arrived\":1500}\n{\"device\":\"a\",\"ts\":20\n\
         {\"device\":\"a\",\"x\":1}\n{\"device\":\"a\",\"ts\":99000,\"x\":1,\"arrived\":2000}\n[]\n",
    );
    let mut options = HistoryOptions::of(&pipeline, [file.display().to_string()]);
    let by_event_time = run(&pipeline, options.clone());
    let names = |given: &Given| given.dead.iter().map(|d| d.0).collect::<Vec<_>>();
    assert_eq!(names(&by_event_time), ["undecodable", "schema", "undecodable"], "no row is from the future");
    assert_eq!(by_event_time.dead[0].2.as_deref(), Some(b"{\"device\":\"a\",\"ts\":20".as_slice()));
    assert_eq!(by_event_time.dead[0].1, 1000, "it has the timestamp of the row before");

    options.arrival = Some("arrived".into());
    let by_arrival = run(&pipeline, options);
    assert_eq!(names(&by_arrival), ["undecodable", "schema", "future", "undecodable"]);
    assert_eq!(by_arrival.dead[2].1, 2000);
    assert_eq!(DeadReason::ALL.len() - DeadReason::OF_SIGNATURES.len(), 7, "look at what a new reason means here");
}

#[test]
fn lanes_share_devices_as_kafka_would_and_csv_is_the_same_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = pipeline(dir.path());
    let (mut json, mut csv) = (String::new(), String::from("x;device;ts\n"));
    for i in 0..9_000_i64 {
        // Odd seconds come in pairs the wrong way round: without sorting some rows are late.
        let ts = (i ^ 1) * 700;
        let (device, x) = (i % 7, (i * 31) % 17);
        writeln!(json, "{{\"device\":\"d{device}\",\"ts\":{ts},\"x\":{x}}}").unwrap();
        writeln!(csv, "{x};d{device};{ts}").unwrap();
    }
    let json = write(dir.path(), "r.ndjson", &json);
    let csv = write(dir.path(), "r.csv", &csv);
    let mut options = HistoryOptions::of(&pipeline, [json.display().to_string()]);
    options.watch = vec!["features".into()];
    let one = run(&pipeline, options.clone());
    assert!(one.features > 4_000, "{}", one.features);

    let mut of_csv = HistoryOptions::of(&pipeline, [csv.display().to_string()]);
    of_csv.watch.clone_from(&options.watch);
    of_csv.delimiter = b';';
    assert_eq!(run(&pipeline, of_csv).text, one.text);

    options.lanes = 3;
    options.ending = Ending::CloseAll;
    let plan = lang::plan(&pipeline, &Models::new()).unwrap();
    let mut history = History::open(plan, options.clone()).unwrap();
    let mut used = [false; 3];
    while let Some(piece) = history.next().unwrap() {
        for device in piece.rows.iter().flat_map(|r| &r.devices) {
            used[piece.lane as usize] = true;
            assert_eq!(partition_of_key(device.as_bytes(), 3), piece.lane);
        }
    }
    assert_eq!(used, [true; 3]);
    assert_eq!(history.counters().rows_in, 9_000);

    // In time order no row is late.
    options.order = Order::Sorted;
    assert!(run(&pipeline, options).dead.is_empty());
}
