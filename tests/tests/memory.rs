//! Memory is bounded, however fast readings come and however long a lane stands still.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::time::{Duration, Instant};

use avouch_system_tests::{KafkaBroker, Record, eventually, place, require};
use pumps::Place;

const LIMIT: Duration = Duration::from_secs(120);
const PARTITIONS: i32 = 8;
const RECORDS: i32 = 80;
/// Just below `max_record_bytes`.
const RECORD: usize = 1_000_000;
const MIB: u64 = 1 << 20;

/// The bound of ARCHITECTURE.md, "Backpressure", for these partitions on one broker; 128 MiB are the program itself.
const BOUND: u64 = 256 * MIB + 50 * MIB + PARTITIONS as u64 * 16 * MIB + 128 * MIB;

/// Resident memory of a process now and at its highest, bytes.
fn memory(process: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let kb = |name: &str| -> u64 {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse().unwrap()
    };
    (kb("VmRSS:") * 1024, kb("VmHWM:") * 1024)
}

/// A topic of 640 MB, in records of a megabyte each.
fn topic(kafka: &KafkaBroker, value: impl Fn(i32, i32) -> Vec<u8>) -> Place {
    let place = Place::on(kafka, PARTITIONS);
    for i in 0..RECORDS {
        let records = (0..PARTITIONS).map(|p| Record {
            partition: Some(p),
            timestamp: Some(pumps::START + i64::from(i) * 1000),
            ..Record::new(format!("pump-{p:03}"), value(p, i))
        });
        kafka.produce(place.get("T_READINGS"), records);
    }
    place
}

#[test]
fn lanes_that_stand_still_hold_no_more_than_their_share() {
    let kafka = require!(KafkaBroker::shared());
    // Each record names a schema, and the registry is away: every lane waits before its first record.
    let mut avro = topic(kafka, |p, i| [&[0, 0, 0, 0, 7][..], &vec![(p + i) as u8; RECORD]].concat());
    avro.rewrite("format  = \"json\"", "format  = \"avro\"\nregistry = { url = \"http://127.0.0.1:1\" }");
    let http = format!("127.0.0.1:{}", place::free_port());
    avro.set("T_HTTP", &http);
    let mut process = avro.avouch("run").start(&avro.directory.join("avouch.log"));
    // Until what it holds has not grown for three seconds.
    let mut seen = (0, Instant::now());
    let (held, most) = eventually("it comes to rest", LIMIT, || {
        assert!(process.ended().is_none(), "{}", process.log_tail());
        let (now, most) = memory(process.id());
        if now > seen.0 {
            seen = (now, Instant::now());
        }
        (now > 200 * MIB && seen.1.elapsed() > Duration::from_secs(3)).then_some((now, most))
    });
    println!("stalled: {} MiB held, {} MiB at most, {} MiB allowed", held / MIB, most / MIB, BOUND / MIB);
    assert!(most < BOUND, "{} MiB", most / MIB);
    process.kill();
}

#[test]
fn lanes_slower_than_their_topic_hold_no_more_than_their_share() {
    let kafka = require!(KafkaBroker::shared());
    let place = topic(kafka, |p, i| {
        let mut text = pumps::reading(&format!("pump-{p:03}"), pumps::START + i64::from(i) * 1000);
        text.insert_str(1, &format!("\"pad\":\"{}\",", "x".repeat(RECORD - 200)));
        text.into_bytes()
    });
    let mut process = place.avouch("run").args(["--all-partitions"]).start(&place.directory.join("avouch.log"));
    let mut most = 0;
    eventually("all is judged", LIMIT, || {
        assert!(process.ended().is_none(), "{}", process.log_tail());
        most = memory(process.id()).1;
        let read = |p| pumps::left::committed(&place.lane(p)).map_or(0, |c| c.next_offset);
        (0..PARTITIONS).all(|p| read(p) == i64::from(RECORDS)).then_some(())
    });
    println!("at work: {} MiB at most, {} MiB allowed", most / MIB, BOUND / MIB);
    assert!(most < BOUND, "{} MiB", most / MIB);
    process.signal("TERM");
    process.wait(LIMIT);
}
