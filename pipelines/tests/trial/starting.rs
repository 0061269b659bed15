//! `avouch new`: what it writes passes `check` and `test` as it stands, and what it cannot use it refuses with a reason.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMillisecondArray};
use avouch::commands::new::{NewArgs, write};
use avouch::commands::test::{TestArgs, outcomes};
use avouch::lang::{self, Pipeline};
use avouch::trial;
use avouch_connectors::kafka::{EmbeddedBroker, KafkaConnection, Publisher};
use datafusion::parquet::arrow::ArrowWriter;

fn args(dir: &Path, file: &str) -> NewArgs {
    NewArgs {
        from_file: Some(dir.join(file)),
        from_topic: None,
        brokers: "localhost:9092".into(),
        name: None,
        out: Some(dir.join("out")),
        time: None,
        key: None,
        window: None,
        every: None,
        max_disorder: None,
        delimiter: None,
        yes: true,
    }
}

/// What is wrong with what was written, as `check` and `test` say it; nothing if all is well.
fn wrong(dir: &Path) -> String {
    let path = dir.join("out/pipeline.toml");
    let pipeline = match Pipeline::load_offline(&path) {
        Ok(pipeline) => pipeline,
        Err(d) => return d.render_text(false),
    };
    let found = lang::check(&pipeline);
    if found.items().iter().any(|d| d.code != "no-model-yet") {
        return found.render_text(false);
    }
    let args = TestArgs { files: vec![path], name: None, update: false, junit: None, json: false };
    let files = outcomes(&args).unwrap();
    if files.iter().all(trial::FileOutcome::ok) { String::new() } else { trial::render(&files, false) }
}

fn written(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("out/pipeline.toml")).unwrap()
}

/// A fleet's readings with a late row, a line that is cut off, and a field that not every row has.
fn ndjson() -> String {
    let mut out = String::new();
    for i in 0..900_i64 {
        let (device, ts) = (i % 3, 1_767_686_400_000 + (i / 3) * 1_000);
        let humidity = if i % 5 == 0 { ",\"humidity\":40.5" } else { "" };
        writeln!(
            out,
            "{{\"pump_id\":\"p-{device}\",\"ts\":{ts},\"rpm\":{},\"temperature\":{}.5,\"on\":true{humidity},\"tags\":[1]}}",
            1450 + i % 7,
            20 + i % 11
        )
        .unwrap();
    }
    out.push_str("{\"pump_id\":\"p-1\",\"ts\":17676\n");
    out
}

#[test]
fn a_sample_of_json() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("pumps.ndjson"), ndjson()).unwrap();
    let said = write(&args(dir.path(), "pumps.ndjson")).unwrap();
    insta::assert_snapshot!("new_json_says", said.replace(&format!("{}/", dir.path().display()), ""));
    insta::assert_snapshot!("new_json", written(dir.path()));
    assert_eq!(wrong(dir.path()), "");
    // A pipeline is never written over.
    let again = write(&args(dir.path(), "pumps.ndjson")).unwrap_err().to_string();
    assert!(again.contains("is there already"), "{again}");
}

#[test]
fn a_sample_of_csv_like_skabs() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("valve1")).unwrap();
    let mut csv = String::from("datetime;Accelerometer1RMS;Volume Flow RateRMS;Current\n");
    for i in 0..600 {
        let (minute, second) = (i / 60, i % 60);
        writeln!(csv, "2020-03-09 10:{minute:02}:{second:02};0.0{};{}.25;{}", 10 + i % 9, 30 + i % 4, i % 3).unwrap();
    }
    std::fs::write(dir.path().join("valve1/0.csv"), csv).unwrap();
    write(&args(dir.path(), "valve1/0.csv")).unwrap();
    insta::assert_snapshot!("new_csv", written(dir.path()));
    assert_eq!(wrong(dir.path()), "");
}

#[test]
fn a_sample_of_parquet_that_stands_device_by_device() {
    let dir = tempfile::tempdir().unwrap();
    let n = 400_i64;
    let time = (0..n).map(|i| 1_767_686_400_000 + (i % 200) * 5_000);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("Machine", Arc::new(Int64Array::from_iter_values((0..n).map(|i| 7 + i / 200)))),
        ("measured at", Arc::new(TimestampMillisecondArray::from_iter_values(time))),
        ("load (kN)", Arc::new(Float64Array::from_iter_values((0..n).map(|i| (i % 13) as f64 * 0.5)))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = std::fs::File::create(dir.path().join("press.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    write(&args(dir.path(), "press.parquet")).unwrap();
    insta::assert_snapshot!("new_parquet", written(dir.path()));
    assert_eq!(wrong(dir.path()), "");
}

#[test]
fn a_sample_of_a_topic() {
    let dir = tempfile::tempdir().unwrap();
    let broker = EmbeddedBroker::start().unwrap();
    broker.create_topic("pumps.telemetry", 2).unwrap();
    let connection = KafkaConnection::plaintext(broker.brokers());
    let mut publisher = Publisher::connect(&connection, "pumps.telemetry", &[]).unwrap();
    for line in ndjson().lines() {
        publisher.send(Some(&line.as_bytes()[..16]), line.as_bytes(), None).unwrap();
    }
    publisher.finish().unwrap();
    let mut args = args(dir.path(), "");
    (args.from_file, args.from_topic, args.brokers) = (None, Some("pumps.telemetry".into()), broker.brokers());
    write(&args).unwrap();
    let text = written(dir.path());
    assert!(text.contains("topic   = \"pumps.telemetry\"\n") && text.contains("key     = \"pump_id\"\n"), "{text}");
    assert_eq!(wrong(dir.path()), "");
}

#[test]
fn what_cannot_be_used_is_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut said = String::new();
    let cases: [(&str, &str, &[&str]); 9] = [
        ("empty.ndjson", "", &[]),
        ("empty.csv", "", &[]),
        ("header-only.csv", "device,ts,x\n", &[]),
        ("one-column.csv", "x\n1\n2\n", &[]),
        ("no-time.ndjson", "{\"device\":\"a\",\"x\":1}\n{\"device\":\"a\",\"x\":2}\n", &[]),
        (
            "seconds.ndjson",
            "{\"device\":\"a\",\"t\":1767686400,\"x\":1}\n{\"device\":\"a\",\"t\":1767686401,\"x\":2}\n",
            &[],
        ),
        ("no-number.csv", "device,ts,x\na,2026-01-01T00:00:00Z,on\na,2026-01-01T00:00:01Z,off\n", &[]),
        ("one-instant.csv", "device,ts,x\na,2026-01-01T00:00:00Z,1\na,2026-01-01T00:00:00Z,2\n", &[]),
        ("misnamed.csv", "device,ts,x\na,2026-01-01T00:00:00Z,1\na,2026-01-01T00:00:01Z,2\n", &["tz"]),
    ];
    for (name, text, time) in cases {
        let path: PathBuf = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut args = args(dir.path(), name);
        args.time = time.first().map(|t| (*t).to_owned());
        let error = write(&args).unwrap_err().to_string();
        writeln!(said, "{name}: {}", error.replace(&format!("{}/", dir.path().display()), "")).unwrap();
        assert!(!dir.path().join("out").exists(), "{name} leaves nothing behind");
    }
    insta::assert_snapshot!("new_refuses", said);
}
