//! Every kind of sink at once: one is down, one refuses, the process is killed, and what each has in the end is what the log has.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use avouch_connectors::delivery::Failure;
use avouch_connectors::kafka::{KafkaConnection, KafkaError, OutRecord, TransactionalSink};
use avouch_connectors::store::LaneReader;
use avouch_system_tests::endpoint::Answer;
use avouch_system_tests::{
    Alertmanager, Avouch, Endpoint, Isolation, KafkaBroker, Process, Record, eventually, place, require,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use pumps::{Place, START, record};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(90);
const DEVICES: usize = 12;
const SECONDS: usize = 300;

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
    place.set("T_MODEL", pumps::seasoned_model().display());
    place.set("T_HOOK_SECRET", "a secret of the hook alone");
    place
}

/// What the pumps that the model was trained on send on another day, in order of arrival: device and reading.
fn healthy() -> &'static [(String, Value)] {
    static ROWS: LazyLock<Vec<(String, Value)>> = LazyLock::new(|| {
        let file = place::fresh_directory("healthy").join("readings.ndjson");
        Avouch::new(["simulate", "pumps", "--healthy", "--duration", &format!("{SECONDS}s")])
            .args(["--devices", &DEVICES.to_string(), "--start", "2026-01-06T08:00:00Z", "--out"])
            .args([&file])
            .run(LIMIT)
            .success();
        let text = std::fs::read_to_string(file).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| (row["device"].as_str().unwrap().to_owned(), row)).collect()
    });
    assert_eq!(ROWS.len(), DEVICES * SECONDS);
    &ROWS
}

/// A reading a second of each pump. The first pump shakes where `ill` says so; one row in forty-nine is no JSON.
fn readings(seconds: Range<usize>, ill: impl Fn(usize) -> bool) -> Vec<Record> {
    let mut out = Vec::new();
    for second in seconds {
        for (device, row) in &healthy()[second * DEVICES..(second + 1) * DEVICES] {
            let ts = row["ts"].as_i64().unwrap();
            let mut row = row.clone();
            if device == "pump-000" && ill(second) {
                row["vibration"] = (9.0 + row["vibration"].as_f64().unwrap()).into();
            }
            out.push(record(0, device, ts, row.to_string()));
        }
        if second % 4 == 0 {
            out.push(record(0, "pump-000", START + second as i64 * 1000, "{not json"));
        }
    }
    out
}

/// A fresh log of the process for each start: its lines on standard output are looked at.
fn start(place: &Place, runs: &AtomicU32) -> Process {
    let number = runs.fetch_add(1, Ordering::Relaxed);
    // In a group, a killed process holds its lanes until its session ends.
    let run = place.avouch("run").args(["--all-partitions"]).env("RUST_LOG", "warn");
    run.start(&place.directory.join(format!("avouch-{number}.log")))
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

/// Answers with these first (`None` hangs up), then takes all but what [`is_refused`].
fn refusing(first: impl IntoIterator<Item = Answer>) -> impl FnMut(&Value) -> Answer + Send + 'static {
    let mut first: VecDeque<Answer> = first.into_iter().collect();
    move |body| {
        first.pop_front().unwrap_or_else(|| {
            let refused = body.as_array().is_none_or(|all| all.iter().any(is_refused));
            Some((if refused { 422 } else { 200 }, Vec::new()))
        })
    }
}

#[test]
fn every_kind_at_once_one_down_one_refusing_and_kills_in_between() {
    let kafka = require!(KafkaBroker::shared());
    let mut alertmanager = require!(Alertmanager::new());
    let hook = Endpoint::start(refusing([Some((503, Vec::new()))]));
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
        if i == 3 {
            let later = vec![("retry-after", "2".to_owned())];
            hook.judge(refusing([Some((429, later)), Some((500, Vec::new())), None, Some((503, Vec::new()))]));
        }
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
        // The last windows are not closed yet.
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
        for kind in ["busy", "failed"] {
            let failed = labelled(&http, "avouch_sink_errors_total", &["sink=\"hook\"", &format!("kind=\"{kind}\"")]);
            assert!(failed >= 1.0, "the hook was down as {kind}");
        }
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
        kafka.produce(place.get("T_READINGS"), readings(240..SECONDS, |_| false));
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
    // What was down is offered again, the same records first, and not before it asked to be.
    let busy = posts.iter().position(|p| p.status == 429).unwrap();
    let tries = &posts[busy..busy + 4];
    assert_eq!([tries[1].status, tries[2].status], [500, 503]);
    assert!(tries[1].at.duration_since(tries[0].at) >= Duration::from_secs(2), "Retry-After is obeyed");
    assert!(tries[3].status == 200 || tries[3].status == 422);
    assert!(tries.iter().all(|p| p.json()[0] == tries[0].json()[0]), "the cursor was held");

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
    assert!(grave.len() > 20 && grave.len() < log.len() / 4, "{} of {}", grave.len(), log.len());
    assert_eq!(printed, grave, "standard output: what `where` asks for");
}

/// Readings of healthy pumps and of one whose name is too long for a topic that takes 4,000 bytes.
fn with_a_long_name(long: &str, seconds: Range<i64>) -> Vec<Record> {
    seconds
        .flat_map(|s| ["pump-001", "pump-002", long].map(|d| (d.to_owned(), START + s * 1000)))
        .map(|(device, ts)| record(0, &device, ts, pumps::reading(&device, ts)))
        .collect()
}

fn small_topic(kafka: &KafkaBroker, name: &str) -> String {
    let name = format!("{name}-{}", std::process::id());
    kafka.create_topic_named(&name, 1, &[("max.message.bytes", "4000")]);
    name
}

fn index(record: &Record) -> u64 {
    record.header("index").unwrap().parse().unwrap()
}

/// What is in the verdict topic and what is in the dead letters: the log, in order, with what is refused in the latter alone.
fn check_refused(place: &Place, taken: &[Record], dead: &[Record], long: &str) {
    let size = LaneReader::open_read_only(&place.lane(0)).unwrap().committed().log_size;
    assert!(size > 60, "{size} verdicts");
    for letter in dead {
        assert_eq!(letter.header("reason").as_deref(), Some("refused"));
        assert_eq!(letter.header("sink").as_deref(), Some("verdicts"));
        assert_eq!(letter.header("status").as_deref(), Some("MessageSizeTooLarge"));
        assert_eq!(letter.header("log").as_deref(), Some("avouch/pumps/0"));
        assert!(letter.header("detail").unwrap().contains("Message size too large"), "{letter:?}");
        let verdict: Value = serde_json::from_str(&letter.text()).unwrap();
        assert_eq!(verdict["device"].as_str(), Some(long));
        assert_eq!(verdict["index"].as_u64(), Some(index(letter)));
    }
    for verdict in taken {
        let json: Value = serde_json::from_str(&verdict.text()).unwrap();
        assert_eq!((json["index"].as_u64(), json["log"].as_str()), (Some(index(verdict)), Some("avouch/pumps/0")));
        assert!(json["device"] == "pump-001" || json["device"] == "pump-002", "{verdict:?}");
    }
    let (taken, dead): (Vec<u64>, Vec<u64>) = (taken.iter().map(index).collect(), dead.iter().map(index).collect());
    assert!(taken.is_sorted_by(|a, b| a < b), "in order, each once: {taken:?}");
    assert!(dead.is_sorted_by(|a, b| a < b), "in order, each once: {dead:?}");
    assert_eq!(taken.len(), 2 * dead.len());
    let all: BTreeSet<u64> = taken.into_iter().chain(dead).collect();
    assert_eq!(all, (0..size).collect(), "nothing is missing");
}

#[test]
fn what_kafka_refuses_becomes_a_dead_letter_and_holds_nothing() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    let small = small_topic(kafka, "small");
    place.set("T_VERDICTS", &small);
    let http = format!("127.0.0.1:{}", place::free_port());
    place.set("T_HTTP", &http);
    let long = "p".repeat(2_500);
    kafka.produce(place.get("T_READINGS"), with_a_long_name(&long, 0..130));
    // Killed while it delivers and while it is refused.
    let runs = AtomicU32::new(0);
    for part in 1..=3 {
        let mut process = start(&place, &runs);
        let at = || by_sink(&http, "avouch_sink_position", "verdicts");
        eventually("it delivers", LIMIT, || (at()? >= 12.0 * f64::from(part)).then_some(()));
        process.kill();
    }
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let read = || [&small, place.get("T_DEAD")].map(|topic| kafka.read(topic, Isolation::Committed));
    let [taken, dead] = read();
    check_refused(&place, &taken, &dead, &long);
    // Another run finds nothing left to deliver, and delivers nothing twice.
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    assert_eq!(read(), [taken, dead]);
}

#[test]
fn what_kafka_refuses_at_least_once_is_a_dead_letter_too() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    place.rewrite(
        "kind  = \"kafka\"\ntopic = \"${env:T_VERDICTS",
        "kind  = \"kafka\"\ndelivery = \"at-least-once\"\ntopic = \"${env:T_VERDICTS",
    );
    let small = small_topic(kafka, "small-repeated");
    place.set("T_VERDICTS", &small);
    let long = "q".repeat(2_500);
    kafka.produce(place.get("T_READINGS"), with_a_long_name(&long, 0..130));
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let mut taken = kafka.read(&small, Isolation::Committed);
    // What went out beside a refused record is offered again.
    let mut seen = BTreeSet::new();
    taken.retain(|r| seen.insert(index(r)));
    check_refused(&place, &taken, &kafka.read(place.get("T_DEAD"), Isolation::Committed), &long);
}

#[test]
fn a_kafka_sink_that_is_down_holds_its_verdicts_and_refuses_none() {
    let kafka = require!(KafkaBroker::shared());
    let other = require!(KafkaBroker::start());
    let small = small_topic(&other, "elsewhere");
    other.kill();
    let mut place = Place::on(kafka, 1);
    place.rewrite(
        "topic = \"${env:T_VERDICTS:-verdicts}\"",
        "topic = \"${env:T_VERDICTS}\"\nbrokers = \"${env:T_OTHER}\"",
    );
    place.set("T_OTHER", other.bootstrap());
    place.set("T_VERDICTS", &small);
    let http = format!("127.0.0.1:{}", place::free_port());
    place.set("T_HTTP", &http);
    let long = "r".repeat(2_500);
    let runs = AtomicU32::new(0);
    let mut process = start(&place, &runs);
    let dead = || kafka.read(place.get("T_DEAD"), Isolation::Committed);
    let sink = |name: &str| by_sink(&http, name, "verdicts").unwrap_or(-1.0);
    let mut sent = 0;
    let mut more = |seconds: Range<i64>| {
        let records = with_a_long_name(&long, seconds);
        sent += records.len();
        kafka.produce(place.get("T_READINGS"), records);
        eventually("the lane reads on", LIMIT, || {
            (pumps::metric(&http, "avouch_lane_checkpoint_offset")? == sent as f64).then_some(())
        });
    };
    let delivered = || eventually("all is delivered", LIMIT, || (sink("avouch_sink_lag_entries") == 0.0).then_some(()));

    let lagging = || eventually("it shows", LIMIT, || (sink("avouch_sink_lag_entries") > 10.0).then_some(()));

    // Not there when the pipeline starts.
    more(0..60);
    lagging();
    assert_eq!(dead(), []);
    other.restart();
    delivered();
    let refused = dead().len();
    assert!(refused >= 9, "{refused} dead letters");

    // Frozen while it is written to: what it would refuse waits as well.
    other.freeze();
    more(60..100);
    lagging();
    assert_eq!(dead().len(), refused);
    other.thaw();
    delivered();

    // Killed, and back.
    other.kill();
    more(100..140);
    lagging();
    other.restart();
    delivered();
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
    check_refused(&place, &other.read(&small, Isolation::Committed), &dead(), &long);
}

/// librdkafka's producer does not come back from a refused batch by itself: see [`TransactionalSink`].
#[test]
fn a_refused_transaction_leaves_nothing_behind_and_the_next_one_is_written() {
    let kafka = require!(KafkaBroker::shared());
    let connection = KafkaConnection::plaintext(kafka.bootstrap());
    let (small, compact) = (small_topic(kafka, "refusing"), format!("compact-{}", std::process::id()));
    kafka.create_topic_named(&compact, 1, &[("cleanup.policy", "compact")]);
    let out = |key: Option<&str>, value: &str| OutRecord {
        partition: None,
        key: key.map(Into::into),
        value: Some(value.into()),
        headers: Vec::new(),
        named: None,
        may_be_cut: true,
    };
    let good = |value: &str| out(Some("k"), value);
    let long = out(Some(&"k".repeat(5_000)), "bad");
    let (a, b, c, keyless) = (good("a"), good("b"), good("c"), out(None, "bad"));
    // Topic, its limit if known, what is written at once, and which of it may be the refused ones.
    let cases = [
        (&small, Some(4_000), vec![a.clone(), long.clone(), b.clone()], 1..2, "MessageSizeTooLarge"),
        // In one batch, of which the broker does not say who it was.
        (&small, None, vec![a.clone(), long.clone(), b.clone()], 0..3, "MessageSizeTooLarge"),
        (&small, None, vec![long], 0..1, "MessageSizeTooLarge"),
        (&compact, None, vec![a.clone(), keyless.clone(), b.clone()], 0..3, "InvalidRecord"),
        // Of two it says who they were.
        (&compact, None, vec![a.clone(), keyless.clone(), b.clone(), keyless, c.clone()], 1..4, "InvalidRecord"),
    ];
    for (number, (topic, limit, records, suspects, code)) in cases.into_iter().enumerate() {
        let id = format!("refused-{number}-{topic}");
        let before = kafka.read(topic, Isolation::Committed).len();
        let sink = TransactionalSink::open(&connection, topic, limit, &id).unwrap();
        assert_eq!(sink.position(), None);
        sink.write(std::slice::from_ref(&c), 1, "one").unwrap();
        for _ in 0..2 {
            match sink.write(&records, 9, "nine").unwrap_err().failure() {
                Failure::Refused { status, among, .. } => {
                    assert_eq!((status.as_str(), among), (code, Some(suspects.clone())), "case {number}");
                }
                other => panic!("case {number}: {other:?}"),
            }
        }
        for (at, record) in [&a, &b].into_iter().enumerate() {
            sink.write(std::slice::from_ref(record), at as u64 + 2, "more").unwrap();
        }
        let written = kafka.read(topic, Isolation::Committed).split_off(before);
        assert_eq!(written.iter().map(Record::text).collect::<Vec<_>>(), ["c", "a", "b"], "case {number}");

        // Refused, and then another one writes as this one: it learns that before it writes again.
        sink.write(&records, 9, "nine").unwrap_err();
        let next = TransactionalSink::open(&connection, topic, limit, &id).unwrap();
        assert_eq!(next.position(), Some((3, "more".to_owned())));
        next.write(std::slice::from_ref(&a), 4, "next").unwrap();
        let stale = sink.write(std::slice::from_ref(&b), 4, "stale");
        assert!(matches!(stale, Err(KafkaError::Fenced { .. })), "case {number}: {stale:?}");
        assert_eq!(kafka.read(topic, Isolation::Committed).len(), before + 4);
    }
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
