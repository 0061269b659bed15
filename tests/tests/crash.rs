//! Fifty times `kill -9`: what the crashed runs have left is, byte for byte, what one unbroken run leaves.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use avouch_connectors::store::LaneReader;
use avouch_system_tests::{Avouch, Isolation, KafkaBroker, Record, place, require};
use pumps::Place;

const KILLS: usize = 50;
const PARTITIONS: i32 = 2;
const TOPICS: [&str; 3] = ["crash.readings", "crash.verdicts", "crash.dead"];
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn fifty_kills_leave_what_an_unbroken_run_leaves() {
    let began = Instant::now();
    let mut seed = seed();
    println!("kill seed {seed}; AVOUCH_CRASH_SEED={seed} repeats the moments");
    let records = simulated();

    // Two brokers, one after the other: the runs share the names of topics and transactional ids.
    let (reference, expected) = {
        let kafka = require!(KafkaBroker::start());
        let place = on(&kafka);
        kafka.produce(TOPICS[0], records.iter().cloned());
        place.avouch("run").args(["--until-end"]).run(LIMIT).success();
        (place, Delivered::read(&kafka, Isolation::Committed))
    };
    println!(
        "reference: {} rows, {} verdicts, {} dead letters",
        records.len(),
        expected.verdicts.len(),
        expected.dead.len()
    );
    assert!(expected.verdicts.len() > 10_000 && expected.dead.len() > 50, "the readings exercise both sinks");

    let kafka = require!(KafkaBroker::start());
    let place = on(&kafka);
    let log = place.directory.join("avouch.log");
    let mut seen: Vec<(i32, u64, [u8; 32])> = Vec::new();
    let mut last = vec![(0, 0, 0); PARTITIONS as usize];
    let (mut grew, mut early) = (0, 0);
    let slices: Vec<&[Record]> = records.chunks(records.len().div_ceil(2 * KILLS)).collect();
    for kill in 0..KILLS {
        // Half of a slice waits for the start, the other half comes while the program runs.
        let [before, during] = [2 * kill, 2 * kill + 1].map(|i| slices.get(i).copied().unwrap_or_default());
        let moment = Duration::from_millis(50 + random(&mut seed) % 1450);
        kafka.produce(TOPICS[0], before.iter().cloned());
        let mut process = place.avouch("run").start(&log);
        let started = Instant::now();
        if moment > Duration::from_millis(400) {
            std::thread::sleep(moment / 2);
            kafka.produce(TOPICS[0], during.iter().cloned());
        }
        std::thread::sleep(moment.saturating_sub(started.elapsed()));
        assert!(process.ended().is_none(), "kill {kill}: it ended by itself:\n{}", process.log_tail());
        process.kill();
        if moment <= Duration::from_millis(400) {
            kafka.produce(TOPICS[0], during.iter().cloned());
        }

        let mut grown = false;
        for partition in 0..PARTITIONS {
            let Some(now) = committed(&place.lane(partition)) else {
                assert_eq!(
                    last[partition as usize],
                    (0, 0, 0),
                    "kill {kill}: lane {partition} has lost its checkpoints"
                );
                continue;
            };
            let was = &mut last[partition as usize];
            let is = (now.log_size, now.dead_count, now.next_offset);
            assert!(
                is.0 >= was.0 && is.1 >= was.1 && is.2 >= was.2,
                "kill {kill}: lane {partition} went back from (verdicts, dead letters, offset) {was:?} to {is:?}"
            );
            grown |= is.2 > was.2;
            *was = is;
            seen.push((partition, now.log_size, now.root));
        }
        grew += usize::from(grown);
        early += usize::from(!grown);
    }
    println!("{KILLS} kills in {:.1?}: after {grew} a checkpoint was new, after {early} none was", began.elapsed());
    assert!(grew >= KILLS / 3 && early > 0, "the kills hit start-up as well as work");

    place.avouch("run").args(["--until-end"]).run(LIMIT).success();

    for partition in 0..PARTITIONS {
        same_files(&reference.lane(partition), &place.lane(partition));
        let log = LaneReader::open_read_only(&reference.lane(partition)).unwrap();
        assert_eq!(LaneReader::open_read_only(&place.lane(partition)).unwrap().committed().root, log.committed().root);
        // Whatever was committed before a kill is a prefix of the log that an unbroken run writes.
        for (_, size, root) in seen.iter().filter(|(lane, ..)| *lane == partition) {
            assert_eq!(log.root(*size).unwrap(), *root, "lane {partition} had forked at size {size}");
        }
    }
    let delivered = Delivered::read(&kafka, Isolation::Committed);
    assert_eq!(delivered.verdicts.len(), expected.verdicts.len());
    assert!(delivered.verdicts == expected.verdicts, "the verdicts delivered differ");
    assert_eq!(delivered.dead.len(), expected.dead.len());
    assert!(delivered.dead == expected.dead, "the dead letters delivered differ");
    let aborted = kafka.read(TOPICS[1], Isolation::Uncommitted).len() - delivered.verdicts.len();
    println!("{aborted} verdicts stood in transactions that a kill aborted; {:.1?} in all", began.elapsed());
}

/// What is in the topics of the sinks, by its identity.
struct Delivered {
    verdicts: BTreeMap<(String, u64), Record>,
    dead: BTreeMap<(i32, i64), Record>,
}

impl Delivered {
    /// Asserts that each is there once, and that a reader of a partition sees each log in its order.
    fn read(kafka: &KafkaBroker, isolation: Isolation) -> Self {
        let mut verdicts = BTreeMap::new();
        let mut newest: BTreeMap<(Option<i32>, String), u64> = BTreeMap::new();
        for mut record in kafka.read(TOPICS[1], isolation) {
            let (log, index) = (record.header("log").unwrap(), record.header("index").unwrap().parse::<u64>().unwrap());
            let before = newest.insert((record.partition, log.clone()), index);
            assert!(before < Some(index), "{log}: {index} follows {before:?} in partition {:?}", record.partition);
            unplaced(&mut record);
            assert_eq!(verdicts.insert((log.clone(), index), record), None, "{log}: {index} twice");
        }
        for log in verdicts.keys().map(|(log, _)| log.clone()).collect::<BTreeSet<_>>() {
            let indices = verdicts.range((log.clone(), 0)..=(log.clone(), u64::MAX)).map(|((_, index), _)| *index);
            assert!(indices.enumerate().all(|(i, index)| i as u64 == index), "{log} has gaps");
        }
        let mut dead = BTreeMap::new();
        let mut newest: BTreeMap<(Option<i32>, i32), i64> = BTreeMap::new();
        for mut record in kafka.read(TOPICS[2], isolation) {
            let lane: i32 = record.header("partition").unwrap().parse().unwrap();
            let offset: i64 = record.header("offset").unwrap().parse().unwrap();
            let before = newest.insert((record.partition, lane), offset);
            assert!(before < Some(offset), "dead letters of lane {lane}: {offset} follows {before:?}");
            unplaced(&mut record);
            assert_eq!(dead.insert((lane, offset), record), None, "the dead letter of {lane}/{offset} twice");
        }
        Self { verdicts, dead }
    }
}

/// Takes off what depends on when a record was written: offset and time. (Its partition follows from its key.)
fn unplaced(record: &mut Record) {
    record.offset = 0;
    record.timestamp = None;
}

fn on(kafka: &KafkaBroker) -> Place {
    for topic in TOPICS {
        kafka.create_topic_named(topic, PARTITIONS, &[]);
    }
    Place::new(&kafka.bootstrap(), TOPICS[0], TOPICS[1], TOPICS[2])
}

/// Half an hour of forty pumps, with rows cut off, late and dated ahead, as records in the order of arrival.
fn simulated() -> Vec<Record> {
    let file = place::fresh_directory("simulated").join("fleet.ndjson");
    Avouch::new(["simulate", "pumps", "--devices", "40", "--duration", "30m", "--arrival", "arrived"])
        .args(["--bad-share", "0.002", "--late-share", "0.002", "--out"])
        .args([&file])
        .run(LIMIT)
        .success();
    let text = std::fs::read_to_string(file).unwrap();
    let record = |line: &str| {
        let (arrived, rest) = line.strip_prefix("{\"arrived\":").unwrap().split_once(',').unwrap();
        let device =
            rest.split("\"device\":\"").nth(1).and_then(|rest| rest.split_once('"')).map_or("", |found| found.0);
        let partition = device.bytes().next_back().map_or(0, |digit| i32::from(digit) % PARTITIONS);
        pumps::record(partition, device, arrived.parse().unwrap(), format!("{{{rest}"))
    };
    text.lines().map(record).collect()
}

fn committed(lane: &Path) -> Option<std::sync::Arc<avouch_connectors::store::Committed>> {
    let there = std::fs::read_dir(lane).ok()?.flatten();
    let mut there = there.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // A checkpoint has its name only once it is whole.
    there.any(|name| name.starts_with("checkpoint-") && !name.contains("tmp")).then_some(())?;
    Some(LaneReader::open_read_only(lane).unwrap_or_else(|error| panic!("{}: {error}", lane.display())).committed())
}

/// Compares all that a lane only ever appends to, but for its history: where checkpoints fell is a matter of the clock.
fn same_files(expected: &Path, found: &Path) {
    let read = |lane: &Path| -> BTreeMap<String, Vec<u8>> {
        let names = std::fs::read_dir(lane).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let kinds = ["records-", "offsets-", "entries-", "hashes-", "dead-"];
        names
            .filter(|name| kinds.iter().any(|kind| name.starts_with(kind)))
            .map(|name| (name.clone(), std::fs::read(lane.join(&name)).unwrap()))
            .collect()
    };
    let (expected, found) = (read(expected), read(found));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for kind in ["records-", "offsets-", "entries-", "hashes-", "dead-", "dead-offsets-"] {
        assert!(expected.iter().any(|(name, bytes)| name.starts_with(kind) && !bytes.is_empty()), "there are {kind}*");
    }
    for (name, bytes) in &expected {
        let at = bytes.iter().zip(&found[name]).position(|(a, b)| a != b);
        assert!(at.is_none() && bytes.len() == found[name].len(), "{name} differs, at byte {at:?}");
    }
}

fn seed() -> u64 {
    match std::env::var("AVOUCH_CRASH_SEED") {
        Ok(given) => given.parse().unwrap(),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
    }
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
