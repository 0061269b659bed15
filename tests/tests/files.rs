//! Files: every row is judged once, whatever the process dies of, and as if it had come through Kafka.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use avouch_connectors::store::LaneReader;
use avouch_engine::verdict::VerdictRecord;
use avouch_system_tests::objects::{BUCKET, ObjectStore};
use avouch_system_tests::{Avouch, KafkaBroker, eventually, place, require};
use parquet::arrow::ArrowWriter;
use pumps::left::same_files;
use pumps::{FILES as SOURCE, Place};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

fn pipeline(directory: &Path, state: &str) -> Avouch {
    pumps::avouch_without_kafka("run", directory, SOURCE, state)
}

/// So many readings of twenty pumps, in the order of time.
fn readings(n: i64) -> Vec<String> {
    (0..n).map(|i| pumps::reading(&format!("pump-{:03}", i % 20), pumps::START + (i / 20) * 1000)).collect()
}

fn csv(rows: &[String]) -> String {
    let mut csv = "rpm,device,ts,temperature,pressure,vibration,site\n".to_owned();
    for row in rows {
        let value = |name: &str| {
            let rest = row.split_once(&format!("\"{name}\":")).unwrap().1;
            rest[..rest.find([',', '}']).unwrap()].trim_matches('"').to_owned()
        };
        let [rpm, device, ts, t, p, v] = ["rpm", "device", "ts", "temperature", "pressure", "vibration"].map(value);
        csv.push_str(&format!("{rpm},{device},{ts},{t},{p},{v},north\n"));
    }
    csv
}

fn parquet(path: &Path, rows: &[String]) {
    let rows: Vec<Value> = rows.iter().map(|r| serde_json::from_str(r).unwrap()).collect();
    let floats = |name: &str| Arc::new(Float64Array::from_iter(rows.iter().map(|r| r[name].as_f64()))) as ArrayRef;
    let times = TimestampMillisecondArray::from_iter(rows.iter().map(|r| r["ts"].as_i64()));
    let batch = RecordBatch::try_from_iter([
        ("device", Arc::new(StringArray::from_iter(rows.iter().map(|r| r["device"].as_str()))) as ArrayRef),
        ("ts", Arc::new(times) as ArrayRef),
        ("temperature", floats("temperature")),
        ("vibration", floats("vibration")),
        ("pressure", floats("pressure")),
        ("rpm", Arc::new(Int64Array::from_iter(rows.iter().map(|r| r["rpm"].as_i64()))) as ArrayRef),
    ]);
    let batch = batch.unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Three files of readings in the three formats, with bad rows, and one that is packed.
fn data(directory: &Path) -> u64 {
    let dir = directory.join("data");
    std::fs::create_dir(&dir).unwrap();
    let rows = readings(120_000);
    let mut text = csv(&rows[..50_000]);
    let at = text.match_indices('\n').nth(30_001).unwrap().0 + 1;
    text.insert_str(at, "1440,pump-001\n");
    std::fs::write(dir.join("1-first.csv"), text).unwrap();
    std::fs::write(dir.join("2-second.ndjson"), format!("{}\nno json\n", rows[50_000..90_000].join("\n"))).unwrap();
    parquet(&dir.join("3-third.parquet"), &rows[90_000..]);
    std::fs::write(dir.join("4-fourth.csv.gz"), b"\x1f\x8b\x08\x00not read").unwrap();
    rows.len() as u64 + 3
}

#[test]
fn killed_runs_leave_what_one_unbroken_run_leaves() {
    let directory = place::fresh_directory("files");
    let rows = data(&directory);
    let summary = pipeline(&directory, "whole").args(["--json"]).run(LIMIT).success().json();
    assert_eq!(summary["rows_in"], rows);
    assert_eq!(summary["dead_letters"]["undecodable"], 3);
    let whole = directory.join("whole/pumps/0");
    let reader = LaneReader::open_read_only(&whole).unwrap();
    assert!(reader.committed().log_size > 10_000, "{}", reader.committed().log_size);
    let letters = reader.dead_letters(0, 10).unwrap();
    let said: Vec<_> = letters.iter().map(|l| (l.offset, l.detail.as_str(), l.value.clone().unwrap())).collect();
    assert_eq!(
        said[0],
        (
            30_001,
            "1-first.csv:30003: this row has 2 fields, the header 7; check the delimiter and the quotes",
            b"1440,pump-001".to_vec()
        )
    );
    assert_eq!((said[1].0, &said[1].2[..]), (90_001, &b"no json"[..]));
    assert!(said[1].1.starts_with("2-second.ndjson:40001: "), "{}", said[1].1);
    assert_eq!(said[2].0, rows as i64 - 1);
    assert!(said[2].1.starts_with("4-fourth.csv.gz:1: ") && said[2].1.contains("gzip"), "{}", said[2].1);

    let run = pipeline(&directory, "killed");
    let log = directory.join("killed.log");
    let lane = directory.join("killed/pumps/0");
    // Each is killed a little further on, wherever it is by then: a checkpoint is due every 150 ms.
    let mut kills = 0;
    for share in 1..10i64 {
        let mut process = run.start(&log);
        eventually("it gets on, or ends", LIMIT, || {
            let at = pumps::left::committed(&lane).map_or(0, |c| c.next_offset);
            (at > share * 10_000 || process.ended().is_some()).then_some(())
        });
        if process.ended().is_some() {
            break;
        }
        process.kill();
        kills += 1;
    }
    assert!(kills > 2, "the kills hit the run: {kills}");
    let summary = run.clone().args(["--json"]).run(LIMIT).success().json();
    assert_eq!(summary["rows_in"], rows);
    same_files(&whole, &lane);
    println!("{rows} rows, {} verdicts, {kills} kills", reader.committed().log_size);

    // A file that appears later goes on where the log ended, and those read to their end may go.
    let at = pumps::START + 6_000_000;
    std::fs::write(directory.join("data/0-late.ndjson"), pumps::reading("pump-001", at)).unwrap();
    std::fs::remove_file(directory.join("data/2-second.ndjson")).unwrap();
    let summary = run.clone().args(["--json"]).run(LIMIT).success().json();
    assert_eq!(summary["rows_in"], rows + 1);

    // And one that changed, grew or shrank stops the run, by name.
    let path = directory.join("data/1-first.csv");
    let text = std::fs::read_to_string(&path).unwrap();
    let changes = [text.replacen(",north", ",south", 1), format!("{text}1440,pump-001\n"), text[..9_000].to_owned()];
    for changed in changes {
        std::fs::write(&path, changed).unwrap();
        let outcome = run.run(LIMIT);
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stderr.contains("1-first.csv changed after its reading began"), "{}", outcome.stderr);
    }
    // Written anew as it was, it has not changed.
    std::fs::write(&path, text).unwrap();
    run.run(LIMIT).success();
}

fn verdicts(lane: &Path) -> Vec<VerdictRecord> {
    LaneReader::open_read_only(lane).unwrap().kept(0, usize::MAX).unwrap()
}

#[test]
fn readings_from_files_and_from_kafka_get_the_same_scores() {
    let kafka = require!(KafkaBroker::shared());
    let rows = readings(6_000);
    let directory = place::fresh_directory("files-kafka");
    std::fs::create_dir(directory.join("data")).unwrap();
    std::fs::write(directory.join("data/1.csv"), csv(&rows[..2_000])).unwrap();
    std::fs::write(directory.join("data/2.jsonl"), rows[2_000..4_000].join("\n")).unwrap();
    parquet(&directory.join("data/3.parquet"), &rows[4_000..]);
    pipeline(&directory, "state").run(LIMIT).success();
    let files = verdicts(&directory.join("state/pumps/0"));

    let place = Place::on(kafka, 1);
    let records = rows.iter().enumerate().map(|(i, row)| {
        pumps::record(0, &format!("pump-{:03}", i % 20), pumps::START + (i as i64 / 20) * 1000, row.clone())
    });
    kafka.produce(place.get("T_READINGS"), records);
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let topic = verdicts(&place.lane(0));

    assert!(files.len() > 500, "{} verdicts", files.len());
    assert_eq!(files.len(), topic.len());
    for (f, k) in files.iter().zip(&topic) {
        let same = |r: &VerdictRecord| {
            let (v, e) = (&r.verdict, &r.evidence);
            let bits = (e.score.to_bits(), e.p_value.to_bits());
            (r.index, v.device_id, v.seq, v.window_start, v.window_end, v.score_e6, v.severity, v.class, bits, e.rows)
        };
        assert_eq!(same(f), same(k));
        assert_eq!(format!("{:?}", f.evidence.features), format!("{:?}", k.evidence.features));
        assert_eq!(
            (f.evidence.first_offset, f.evidence.last_offset),
            (k.evidence.first_offset, k.evidence.last_offset)
        );
        // What was read is another thing, and another file says so.
        assert_eq!(&*f.evidence.topic, "files:readings");
        assert_ne!(f.verdict.input_digest, k.verdict.input_digest);
        assert_ne!(f.verdict.config_hash, k.verdict.config_hash);
    }
    println!("{} verdicts the same", files.len());
}

/// From wherever it is started, a pattern begins at the pipeline file's directory, and once.
#[test]
fn a_relative_pattern_of_a_relative_pipeline() {
    let directory = place::fresh_directory("relative");
    let (inner, state) = (directory.join("inner"), directory.join("state"));
    std::fs::create_dir_all(inner.join("data")).unwrap();
    std::fs::write(inner.join("data/a.ndjson"), readings(2_000).join("\n")).unwrap();
    std::fs::write(inner.join("pumps.toml"), pumps::without_kafka(SOURCE)).unwrap();
    for (i, (from, file)) in [
        (&inner, "pumps.toml"),
        (&inner, "./pumps.toml"),
        (&directory, "inner/pumps.toml"),
        (&directory, "./inner/../inner/pumps.toml"),
    ]
    .into_iter()
    .enumerate()
    {
        let run = Avouch::new(["run", file, "--json"]).within(from).env("T_MODEL", pumps::model());
        let outcome = run.env("T_STATE", state.join(i.to_string())).run(LIMIT);
        assert_eq!(outcome.code, Some(0), "{file}: {}", outcome.stderr);
        assert_eq!(outcome.json()["rows_used"], 2_000, "{file}");
    }
}

#[test]
fn a_bucket_is_followed_through_kills() {
    let store = require!(ObjectStore::start());
    let directory = place::fresh_directory("bucket");
    let source = SOURCE.replace("\"data/*\"", &format!("\"s3://{BUCKET}/in/*.csv\"\nfollow = true"));
    let run = |state: &str| {
        pumps::avouch_without_kafka("run", &directory, &source, state)
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ENDPOINT", store.endpoint())
            .env("AWS_ALLOW_HTTP", "true")
    };
    let put = |name: &str, text: String| {
        // Signed as far as moto looks.
        let signed =
            "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let put = ureq::put(format!("{}/{BUCKET}/in/{name}", store.endpoint())).header("Authorization", signed);
        put.send(text).unwrap();
    };
    let rows = readings(60_000);
    let parts: Vec<String> = rows.chunks(10_000).map(csv).collect();
    put("deeper/0.csv", parts[0].clone());
    put("1.csv", parts[0].clone());
    let log = directory.join("avouch.log");
    let lane = directory.join("followed/pumps/0");
    let reached = |offset: i64| pumps::left::committed(&lane).is_some_and(|c| c.next_offset >= offset).then_some(());
    let followed = run("followed");
    for (i, part) in parts.iter().enumerate().skip(1) {
        let mut process = followed.start(&log);
        put(&format!("{}.csv", i + 1), part.clone());
        // Killed somewhere in the new object, but for the last two, which one process follows to the end.
        if i < parts.len() - 2 {
            eventually("it reads on", LIMIT, || reached(i as i64 * 10_000 + 1_000));
            process.kill();
        } else {
            eventually("it has read all", LIMIT, || reached((i as i64 + 1) * 10_000));
            process.signal("TERM");
            assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
        }
    }
    let mut whole = run("whole").start(&directory.join("whole.log"));
    let unbroken = directory.join("whole/pumps/0");
    eventually("an unbroken run has read all", LIMIT, || {
        assert!(whole.ended().is_none(), "{}", whole.log_tail());
        pumps::left::committed(&unbroken).is_some_and(|c| c.next_offset == 60_000).then_some(())
    });
    whole.signal("TERM");
    whole.wait(LIMIT);
    let bytes = |lane: &Path| verdicts(lane).iter().map(VerdictRecord::to_bytes).collect::<Vec<_>>();
    let (a, b) = (bytes(&lane), bytes(&unbroken));
    assert!(a.len() > 5_000 && a == b, "{} and {} verdicts", a.len(), b.len());

    // An object that was put anew is named.
    put("2.csv", parts[0].clone());
    let outcome = followed.run(LIMIT);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains(&format!("s3://{BUCKET}/in/2.csv changed after")), "{}", outcome.stderr);
}

#[test]
fn what_check_finds_of_files() {
    let directory = place::fresh_directory("files-check");
    let check = |source: &str| {
        let call = pumps::avouch_without_kafka("check", &directory, source, "state").args(["--connect"]);
        let outcome = call.run(LIMIT);
        let text = format!("{}{}", outcome.stdout, outcome.stderr).replace(&directory.display().to_string(), "HERE");
        let lines: Vec<&str> = text.lines().filter(|l| !l.contains("configHash")).collect();
        lines.join("\n") + "\n"
    };
    insta::assert_snapshot!("connect_no_files", check(SOURCE));
    let followed = SOURCE.replace("\"data/*\"", "\"data/*\"\nfollow = true");
    insta::assert_snapshot!("connect_no_files_yet", check(&followed));
    std::fs::create_dir(directory.join("data")).unwrap();
    for name in ["1.csv", "2.csv.gz", "3.dat", "4.ndjson"] {
        std::fs::write(directory.join("data").join(name), "").unwrap();
    }
    insta::assert_snapshot!("connect_files", check(SOURCE));
}
