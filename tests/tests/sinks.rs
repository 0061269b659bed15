//! Every kind of sink at once: one is down, one refuses, the process is killed, and what each has in the end is what the log has.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use avouch_connectors::store::LaneReader;
use avouch_system_tests::{
    Alertmanager, Endpoint, Isolation, KafkaBroker, Process, Record, eventually, place, require,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pumps::{Place, START, record};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);
const DEVICES: u32 = 12;

const SINKS: &str = r#"
[sinks.archive]
from  = "anomaly"
kind  = "parquet"
path  = "file://${env:T_ARCHIVE}"
every = "400ms"
rows  = 300

[sinks.pager]
from    = "anomaly"
where   = "severity = 'critical'"
kind    = "alertmanager"
url     = "${env:T_PAGER}"
timeout = "2s"

[sinks.hook]
from     = "anomaly"
kind     = "webhook"
url      = "${env:T_HOOK}/verdicts"
secret   = "${env:T_HOOK_SECRET}"
batch    = 64
delivery = "at-least-once"

[sinks.lines]
from     = "anomaly"
where    = "severity <> 'normal' AND vib_rms > 0"
kind     = "stdout"
delivery = "at-least-once"

[dead_letter]
kind = "files"
path = "file://${env:T_DEAD_FILES}"
size = "4kB"
"#;

/// The pipeline of the tests with every kind of sink.
fn place_with_all_sinks(kafka: &KafkaBroker) -> Place {
    let mut place = Place::on(kafka, 1);
    let text = std::fs::read_to_string(&place.file).unwrap();
    let dead = "[dead_letter]\nkind  = \"kafka\"\ntopic = \"${env:T_DEAD:-dead}\"\n";
    assert!(text.contains(dead));
    std::fs::write(&place.file, text.replace(dead, SINKS)).unwrap();
    place.set("T_ARCHIVE", place.directory.join("archive").display());
    place.set("T_DEAD_FILES", place.directory.join("dead").display());
    place.set("T_HOOK_SECRET", "a secret of the hook alone");
    place
}

/// A reading a second of each pump. The first pump shakes where `ill` says so; one row in forty is no JSON.
fn readings(seconds: std::ops::Range<i64>, ill: impl Fn(i64) -> bool) -> Vec<Record> {
    let mut out = Vec::new();
    for second in seconds {
        for pump in 0..DEVICES {
            let (device, ts) = (format!("pump-{pump:03}"), START + second * 1000);
            let mut value = pumps::reading(&device, ts);
            if pump == 0 && ill(second) {
                let mut shaking: Value = serde_json::from_str(&value).unwrap();
                shaking["vibration"] = (9.0 + shaking["vibration"].as_f64().unwrap()).into();
                value = shaking.to_string();
            }
            out.push(record(0, &device, ts, value));
        }
        if second % 4 == 0 {
            out.push(record(0, "pump-000", START + second * 1000, "{not json"));
        }
    }
    out
}

/// A fresh log of the process for each start: its lines on standard output are looked at.
fn start(place: &Place, runs: &AtomicU32) -> Process {
    let run = runs.fetch_add(1, Ordering::Relaxed);
    place.avouch("run").env("RUST_LOG", "warn").start(&place.directory.join(format!("avouch-{run}.log")))
}

/// `index` and `severity` of every row of the archive; each file in the directory of its days.
fn archived(dir: &Path) -> Vec<(i64, String)> {
    let mut out = Vec::new();
    for day in std::fs::read_dir(dir).unwrap() {
        let day = day.unwrap();
        let name = day.file_name().into_string().unwrap();
        let Some(of) = name.strip_prefix("day=") else { continue };
        assert_eq!(of, "2026-01-06");
        for file in std::fs::read_dir(day.path()).unwrap() {
            let file = std::fs::File::open(file.unwrap().path()).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                let indices = batch.column_by_name("index").unwrap().as_primitive::<Int64Type>();
                let severities = batch.column_by_name("severity").unwrap().as_string::<i32>();
                let features = batch.column_by_name("features").unwrap().as_list::<i32>();
                for row in 0..batch.num_rows() {
                    assert_eq!(features.value(row).as_struct().num_columns(), 4);
                    assert_eq!(features.value_length(row), 6);
                    out.push((indices.value(row), severities.value(row).to_owned()));
                }
            }
        }
    }
    out.sort();
    out
}

/// The lines of the dead-letter files whose name has `part`.
fn dead_lines(dir: &Path, part: &str) -> Vec<Value> {
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.file_name().unwrap().to_str().unwrap().contains(part));
    files.sort();
    let text: String = files.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn is_refused(verdict: &Value) -> bool {
    verdict["index"].as_u64().is_some_and(|i| i % 97 == 13)
}

/// A status and headers in place of "taken".
type Refusal = Option<(u16, Vec<(&'static str, String)>)>;

fn refusing(busy: u32) -> impl FnMut(&Value) -> Refusal + Send + 'static {
    let mut left = busy;
    move |body| {
        if left > 0 {
            left -= 1;
            return Some((503, vec![("retry-after", "1".to_owned())]));
        }
        let refused = body.as_array().is_none_or(|all| all.iter().any(is_refused));
        Some((if refused { 422 } else { 200 }, Vec::new()))
    }
}

#[test]
fn every_kind_at_once_one_down_one_refusing_and_kills_in_between() {
    let kafka = require!(KafkaBroker::shared());
    let mut alertmanager = require!(Alertmanager::new());
    let hook = Endpoint::start(refusing(2));
    let mut place = place_with_all_sinks(kafka);
    let http = format!("127.0.0.1:{}", place::free_port());
    place.set("T_HTTP", &http);
    place.set("T_PAGER", alertmanager.url());
    place.set("T_HOOK", hook.url());
    let runs = AtomicU32::new(0);

    // Alertmanager is away; the first pump falls ill and stays so.
    let first = readings(0..240, |s| s >= 120);
    for (i, part) in first.chunks(first.len().div_ceil(4)).enumerate() {
        kafka.produce(place.get("T_READINGS"), part.iter().cloned());
        let mut process = start(&place, &runs);
        let metric = |name: &str| pumps::metric(&http, name).unwrap_or(-1.0);
        if i < 3 {
            // Killed once the part is committed, whatever its sinks are doing.
            eventually("it reads", LIMIT, || (metric("avouch_log_size_entries") > 150.0 * i as f64).then_some(()));
            process.kill();
            continue;
        }
        eventually("all is read", LIMIT, || {
            (metric("avouch_lane_checkpoint_offset") == first.len() as f64).then_some(())
        });
        let size = metric("avouch_log_size_entries");
        assert!(size > 500.0, "{size} verdicts");
        eventually("the other sinks have caught up", LIMIT, || {
            assert!(process.ended().is_none(), "{}", process.log_tail());
            let positions = ["verdicts", "archive", "hook", "lines"].map(|s| by_sink(&http, "avouch_sink_position", s));
            positions.iter().all(|p| *p == Some(size)).then_some(())
        });
        eventually("the pager fails", LIMIT, || {
            (labelled(&http, "avouch_sink_errors_total", &["sink=\"pager\"", "kind=\"unreachable\""]) >= 1.0)
                .then_some(())
        });
        assert!(by_sink(&http, "avouch_sink_lag_entries", "pager").unwrap() > 0.0);
        assert_eq!(by_sink(&http, "avouch_sink_lag_entries", "hook"), Some(0.0));
        assert!(ureq::get(format!("http://{http}/readyz")).call().is_ok(), "a sink that is down makes no lane unready");

        alertmanager.run();
        eventually("the pager catches up", LIMIT, || {
            (by_sink(&http, "avouch_sink_lag_entries", "pager")? == 0.0).then_some(())
        });
        let alerts = alertmanager.alerts();
        assert_eq!(alerts.len(), 1, "one pump is ill: {alerts:?}");
        let labels = &alerts[0]["labels"];
        assert_eq!(labels["device"], "pump-000");
        assert_eq!((&labels["severity"], &labels["step"]), (&"critical".into(), &"anomaly".into()));
        assert!(alerts[0]["annotations"]["description"].as_str().unwrap().contains("vib_"), "{alerts:?}");

        // It gets well, and the alert ends with the first verdict that says so.
        kafka.produce(place.get("T_READINGS"), readings(240..300, |_| false));
        eventually("the alert is resolved", LIMIT, || alertmanager.alerts().is_empty().then_some(()));
        process.signal("TERM");
        assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
    }

    // What each sink has is what the log has.
    let reader = LaneReader::open_read_only(&place.lane(0)).unwrap();
    let size = reader.committed().log_size;
    let delivered: Vec<Value> = kafka
        .read(place.get("T_VERDICTS"), Isolation::Committed)
        .iter()
        .map(|r| serde_json::from_str(&r.text()).unwrap())
        .collect();
    let log: BTreeMap<u64, &Value> = delivered.iter().map(|v| (v["index"].as_u64().unwrap(), v)).collect();
    assert_eq!((log.len(), delivered.len()), (size as usize, size as usize), "Kafka: each once");
    let severity = |v: &Value| v["severity"].as_str().unwrap().to_owned();
    let rows = archived(Path::new(place.get("T_ARCHIVE")));
    let expected: Vec<(i64, String)> = log.iter().map(|(i, v)| (*i as i64, severity(v))).collect();
    assert_eq!(rows, expected, "archive: no hole, nothing twice");

    let posts = hook.posts();
    let taken: Vec<Value> =
        posts.iter().filter(|p| p.status == 200).flat_map(|p| p.json().as_array().unwrap().clone()).collect();
    let refused: BTreeSet<u64> = log.values().filter(|v| is_refused(v)).map(|v| v["index"].as_u64().unwrap()).collect();
    assert!(refused.len() >= 5);
    for v in &taken {
        assert_eq!(v, log[&v["index"].as_u64().unwrap()], "as in Kafka");
    }
    let indices: BTreeSet<u64> = taken.iter().map(|v| v["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, log.keys().copied().filter(|i| !refused.contains(i)).collect(), "hook: all but the refused");
    for post in posts.iter().filter(|p| p.status == 200) {
        let (first, count) = (post.json()[0]["index"].clone(), post.json().as_array().unwrap().len());
        assert_eq!(post.header("idempotency-key"), format!("avouch/pumps/0/hook/{first}/{count}"));
        assert!(post.header("avouch-signature").starts_with("v1=") && post.path == "/verdicts");
        assert!(count <= 64);
    }

    let dead = Path::new(place.get("T_DEAD_FILES"));
    let letters = dead_lines(dead, ".dead_letter.hook.");
    let of: Vec<u64> = letters.iter().map(|l| l["index"].as_u64().unwrap()).collect();
    assert_eq!(of, refused.iter().copied().collect::<Vec<_>>(), "each refused verdict is a dead letter, once");
    for letter in &letters {
        assert_eq!(
            (&letter["reason"], &letter["sink"], &letter["status"]),
            (&"refused".into(), &"hook".into(), &"422".into())
        );
        assert!(letter["detail"].as_str().unwrap().contains("the endpoint says no"), "{letter}");
    }
    let bad = dead_lines(dead, ".dead_letter.0");
    assert_eq!(bad.len(), 75, "one undecodable row in four seconds, each once");
    let offsets: BTreeSet<i64> = bad.iter().map(|l| l["offset"].as_i64().unwrap()).collect();
    assert_eq!(offsets.len(), 75);
    assert!(std::fs::read_dir(dead).unwrap().count() > 2, "files are closed at their size");

    let grave: BTreeSet<u64> =
        log.values().filter(|v| severity(v) != "normal").map(|v| v["index"].as_u64().unwrap()).collect();
    let printed: BTreeSet<u64> = (0..runs.load(Ordering::Relaxed))
        .flat_map(|run| {
            let text = std::fs::read_to_string(place.directory.join(format!("avouch-{run}.log"))).unwrap();
            let verdicts = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
            verdicts.filter_map(|v| v["index"].as_u64()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(printed, grave, "standard output: what `where` asks for");
}

#[test]
fn what_kafka_refuses_becomes_a_dead_letter_and_holds_nothing() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    let small = format!("small-{}", std::process::id());
    kafka.create_topic_named(&small, 1, &[("max.message.bytes", "1500")]);
    place.set("T_VERDICTS", &small);
    // A key cannot be truncated: this device's verdicts fit into no batch of the topic.
    let long = "p".repeat(2_000);
    let records: Vec<Record> = (0..60)
        .flat_map(|s| ["pump-001", "pump-002", &long].map(|d| (d.to_owned(), START + s * 1000)))
        .map(|(device, ts)| record(0, &device, ts, pumps::reading(&device, ts)))
        .collect();
    kafka.produce(place.get("T_READINGS"), records);
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();

    let size = LaneReader::open_read_only(&place.lane(0)).unwrap().committed().log_size as usize;
    let taken = kafka.read(&small, Isolation::Committed);
    let dead = kafka.read(place.get("T_DEAD"), Isolation::Committed);
    assert!(!dead.is_empty() && taken.len() == 2 * dead.len(), "{} and {}", taken.len(), dead.len());
    assert_eq!(taken.len() + dead.len(), size);
    for letter in &dead {
        assert_eq!(letter.header("reason").as_deref(), Some("refused"));
        assert_eq!(letter.header("sink").as_deref(), Some("verdicts"));
        assert_eq!(letter.header("status").as_deref(), Some("MessageSizeTooLarge"));
        let verdict: Value = serde_json::from_str(&letter.text()).unwrap();
        assert_eq!(verdict["device"].as_str(), Some(long.as_str()));
        assert_eq!(letter.header("index"), Some(verdict["index"].to_string()));
    }
    // Another run finds nothing left to deliver, and delivers nothing twice.
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    assert_eq!(kafka.read(place.get("T_DEAD"), Isolation::Committed).len(), dead.len());
    assert_eq!(kafka.read(&small, Isolation::Committed).len(), taken.len());
}

fn by_sink(http: &str, name: &str, sink: &str) -> Option<f64> {
    let text = ureq::get(format!("http://{http}/metrics")).call().ok()?.body_mut().read_to_string().ok()?;
    let label = format!("sink=\"{sink}\"");
    let line = text.lines().find(|l| l.starts_with(name) && l.contains(&label))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn labelled(http: &str, name: &str, labels: &[&str]) -> f64 {
    let Ok(mut answer) = ureq::get(format!("http://{http}/metrics")).call() else { return 0.0 };
    let text = answer.body_mut().read_to_string().unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(name) && labels.iter().all(|label| l.contains(label)));
    line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}
