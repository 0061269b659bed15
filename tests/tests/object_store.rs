//! Checkpoints in an object store: a process killed, its machine gone, and another that has nothing but the bucket.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use avouch_system_tests::objects::{BUCKET, ObjectStore};
use avouch_system_tests::{Isolation, KafkaBroker, eventually, require};
use pumps::Place;

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
