//! Checkpoints in an object store: a process killed, its machine gone, and another that has nothing but the bucket.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use avouch_connectors::store::LaneReader;
use avouch_engine::event::LaneEvent;
use avouch_engine::verdict::VerdictRecord;
use avouch_system_tests::objects::{BUCKET, ObjectStore};
use avouch_system_tests::{Isolation, KafkaBroker, Record, eventually, require};
use pumps::Place;
use pumps::live::{Live, WARNINGS, set_warning};

const LIMIT: Duration = Duration::from_secs(120);

/// The pipeline with its checkpoints in a bucket, on a machine of its own.
fn machine(first: &Place, store: &ObjectStore, prefix: &str) -> Place {
    let mut place = first.clone();
    place.directory = avouch_system_tests::place::fresh_directory("machine");
    place.file = place.directory.join("pumps.toml");
    let text = std::fs::read_to_string(pumps::fixture("pumps.toml")).unwrap();
    // Everything that differs is interpolated, so that all machines run the same pipeline to the hash.
    let bucket =
        "store = \"${env:T_STORE}\", cache = \"${env:T_STATE}\", endpoint = \"${env:T_S3}\", region = \"us-east-1\"";
    let text = text.replace("store = \"file://${env:T_STATE}\"", bucket);
    assert!(text.contains("T_STORE"));
    std::fs::write(&place.file, text).unwrap();
    place.set("T_STORE", format!("s3://{BUCKET}/{prefix}"));
    place.set("T_S3", store.endpoint());
    place.set("T_STATE", place.directory.join("cache").display());
    // Credentials as object_store's users give them.
    place.set("AWS_ACCESS_KEY_ID", "test");
    place.set("AWS_SECRET_ACCESS_KEY", "test");
    place
}

fn log_files(lane: &Path) -> BTreeMap<String, Vec<u8>> {
    let kinds = ["records-", "offsets-", "entries-", "hashes-", "dead-", "event"];
    let names = std::fs::read_dir(lane).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names
        .filter(|n| kinds.iter().any(|k| n.starts_with(k)))
        .map(|n| (n.clone(), std::fs::read(lane.join(n)).unwrap()))
        .collect()
}

#[test]
fn a_machine_is_lost_and_another_goes_on_from_the_bucket() {
    let store = require!(ObjectStore::start());
    let kafka = require!(KafkaBroker::start());
    let first = Place::on(&kafka, 1);
    let topic = first.get("T_READINGS").to_owned();
    let records = pumps::healthy(20, 600);
    let (early, late) = records.split_at(records.len() / 2);

    let a = machine(&first, &store, "state");
    kafka.produce(&topic, early.iter().cloned());
    let mut process = a.avouch("run").start(&a.directory.join("avouch.log"));
    let listed = |place: &Place| {
        let outcome = place.state(&["list"]).args(["--format", "json"]).run(LIMIT);
        (outcome.code == Some(0)).then(|| outcome.json()["lanes"][0]["checkpoints"][0].clone())
    };
    let before = eventually("a checkpoint with verdicts is in the bucket", LIMIT, || {
        assert!(process.ended().is_none(), "{}", process.log_tail());
        listed(&a).filter(|c| c["log_size"].as_u64() > Some(100))
    });
    // The object store stands still, then the machine dies with what was on its disk.
    store.pause();
    kafka.produce(&topic, late.iter().cloned());
    std::thread::sleep(Duration::from_millis(400));
    process.kill();
    store.resume();

    let b = machine(&first, &store, "state");
    b.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let after = listed(&b).unwrap();
    assert!(after["generation"].as_u64() > before["generation"].as_u64(), "{before} {after}");
    assert_eq!(after["next_offset"].as_u64(), Some(records.len() as u64));

    // A run that was never broken leaves the same bytes, and delivers nothing twice.
    let unbroken = machine(&first, &store, "unbroken");
    unbroken.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let (found, expected) = (log_files(&b.lane(0)), log_files(&unbroken.lane(0)));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(found == expected, "the logs differ");
    let note = |place: &Place| std::fs::read_to_string(place.lane(0).join("public/checkpoint")).unwrap();
    assert_eq!(note(&b), note(&unbroken), "signed with the same key on every machine");
    let delivered = kafka.read(first.get("T_VERDICTS"), Isolation::Committed);
    let indices: Vec<u64> = delivered.iter().map(|r| r.header("index").unwrap().parse().unwrap()).collect();
    assert_eq!(indices, (0..after["log_size"].as_u64().unwrap()).collect::<Vec<_>>());

    // Objects are altered and lost: said, and the lane goes on from the checkpoint before, with nothing delivered twice.
    let newest = b.state(&["show"]).args(["--lane", "0", "--format", "json"]).run(LIMIT).success().json();
    let (files, checkpoint) = (newest["files"].as_object().unwrap(), newest["checkpoint"].as_u64().unwrap());
    let (pack, len) = files.iter().next().unwrap();
    let altered = vec![0; usize::try_from(len.as_u64().unwrap()).unwrap()];
    store.put(&format!("state/pumps/0/{pack}"), &altered);
    assert_eq!(b.state(&["list"]).run(LIMIT).code, Some(0), "without --verify only names and sizes are compared");
    let said = b.state(&["list"]).args(["--verify"]).run(LIMIT);
    assert_ne!(said.code, Some(0));
    println!("{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains(&format!("{pack} is not as it was written")), "{}", said.stdout);
    store.delete(&format!("state/pumps/0/{pack}"));
    let said = b.state(&["list"]).run(LIMIT);
    assert_ne!(said.code, Some(0));
    println!("{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains(&format!("a start now would use checkpoint {}", checkpoint - 1)), "{}", said.stdout);
    let c = machine(&first, &store, "state");
    c.avouch("run").args(["--until-end"]).run(LIMIT).success();
    assert!(log_files(&c.lane(0)) == expected, "the logs differ");
    assert_eq!(kafka.read(first.get("T_VERDICTS"), Isolation::Committed).len(), delivered.len());
    assert_eq!(c.state(&["list"]).args(["--verify"]).run(LIMIT).code, Some(0));
    println!("{} verdicts, {} of them in the bucket when the machine died", indices.len(), before["log_size"]);
}

/// The process is reloaded, goes on under the new pipeline, and is killed; its machine is gone. Another one has the changed
/// file and the bucket.
#[test]
fn a_machine_is_lost_after_a_reload_and_another_goes_on_under_the_new_pipeline() {
    let store = require!(ObjectStore::start());
    let kafka = require!(KafkaBroker::start());
    let first = Place::on(&kafka, 1);
    let topic = first.get("T_READINGS").to_owned();
    let records = pumps::healthy(20, 300);
    // The reload comes in the middle of windows, whose rows must be kept.
    let (before, rest) = records.split_at(20 * 103);
    let (after, late) = rest.split_at(20 * 100);
    let produce = |records: &[Record]| kafka.produce(&topic, records.iter().cloned());
    let row_count = |s: &Live| s.metric("avouch_lane_rows_in_total") as usize;

    let a = machine(&first, &store, "state");
    let text = std::fs::read_to_string(&a.file).unwrap();
    produce(before);
    let mut live = Live::start(&a, &a.file, "one", &[]);
    live.ready(1);
    live.until("it reads", |s| row_count(s) == before.len());
    set_warning(&a.file, WARNINGS[2]);
    live.process.signal("HUP");
    live.until("the reload is applied", |s| s.reloads("applied") == 1.0);
    produce(after);
    live.until("it reads on", |s| row_count(s) == before.len() + after.len());
    let in_bucket = |place: &Place| {
        place.state(&["list"]).args(["--format", "json"]).run(LIMIT).json()["lanes"][0]["checkpoints"][0].clone()
    };
    let judged = |c: &serde_json::Value| c["next_offset"].as_u64() == Some((before.len() + after.len()) as u64);
    eventually("all of it is in the bucket", LIMIT, || judged(&in_bucket(&a)).then_some(()));
    store.pause();
    produce(late);
    std::thread::sleep(Duration::from_millis(400));
    live.process.kill();
    store.resume();
    std::fs::remove_dir_all(a.get("T_STATE")).unwrap();

    // With the file as it was before, another machine takes nothing back by itself.
    let b = machine(&first, &store, "state");
    let refused = b.avouch("run").args(["--until-end"]).run(LIMIT);
    assert!(refused.code == Some(1) && refused.stderr.contains("--accept-change"), "{}", refused.stderr);
    set_warning(&b.file, WARNINGS[2]);
    b.avouch("run").args(["--until-end"]).run(LIMIT).success();

    // All verdicts of an unbroken run under the first pipeline, but for thresholds and the hash.
    let mut other = Place::on(&kafka, 1);
    other.set("T_READINGS", &topic);
    let unbroken = machine(&other, &store, "unbroken");
    assert_eq!(std::fs::read_to_string(&unbroken.file).unwrap(), text);
    unbroken.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let all = |place: &Place| LaneReader::open_read_only(&place.lane(0)).unwrap().kept(0, usize::MAX).unwrap();
    let (found, expected) = (all(&b), all(&unbroken));
    let judged = |v: &VerdictRecord| (v.index, v.verdict.seq, v.verdict.input_digest, v.evidence.to_bytes());
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().map(judged).eq(expected.iter().map(judged)), "the windows that were open kept their rows");
    let turn = found.iter().position(|v| v.verdict.config_hash != expected[0].verdict.config_hash).unwrap();
    assert!(turn > 0 && found[turn..].iter().all(|v| v.verdict.config_hash == found[turn].verdict.config_hash));
    let reader = LaneReader::open_read_only(&b.lane(0)).unwrap();
    let changes: Vec<_> = reader.events(0, usize::MAX).unwrap();
    assert!(matches!(&changes[..], [LaneEvent::Pipeline { dropped, .. }] if dropped.is_empty()), "{changes:?}");
    let delivered = kafka.read(first.get("T_VERDICTS"), Isolation::Committed);
    let indices: Vec<u64> = delivered.iter().map(|r| r.header("index").unwrap().parse().unwrap()).collect();
    assert_eq!(indices, (0..found.len() as u64).collect::<Vec<_>>(), "each verdict once");

    // A third machine, which runs nothing, asks the bucket.
    let c = machine(&first, &store, "state");
    set_warning(&c.file, WARNINGS[2]);
    let sql = "SELECT config_hash, count(*) AS n FROM verdicts GROUP BY config_hash ORDER BY min(\"index\")";
    let answer = c.avouch("query").args([sql, "--format", "csv"]).run(LIMIT).success().stdout;
    let counts: Vec<&str> = answer.lines().skip(1).map(|l| l.rsplit(',').next().unwrap()).collect();
    assert_eq!(counts, [turn.to_string(), (found.len() - turn).to_string()], "{answer}");
    c.avouch("explain-verdict").args(["--lane", "0", "--index", &turn.to_string()]).run(LIMIT).success();
    let said = c.avouch("dead").args(["list"]).run(LIMIT).success().stdout;
    assert_eq!(said, "no dead letters\n");
    let events = c.state(&["events", "--lane", "0"]).run(LIMIT).success().stdout;
    assert!(events.contains("the pipeline is "), "{events}");
}
