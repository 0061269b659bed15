//! What runs have left, to be compared: by identity and order in the topics, byte for byte in the lanes' files.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avouch_connectors::store::{Committed, LaneReader};
use avouch_system_tests::{Avouch, Isolation, KafkaBroker, Record, place};

use super::Place;

const LIMIT: Duration = Duration::from_secs(600);

/// The topics of a run: readings, verdicts, dead letters. Runs that are compared share their names, for they are in the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Topics(pub [&'static str; 3]);

impl Topics {
    /// Creates them on a broker, and a pipeline on them.
    pub fn on(self, kafka: &KafkaBroker, partitions: i32) -> Place {
        for topic in self.0 {
            kafka.create_topic_named(topic, partitions, &[]);
        }
        Place::new(&kafka.bootstrap(), self.0[0], self.0[1], self.0[2])
    }

    /// Where readings go.
    pub fn readings(self) -> &'static str {
        self.0[0]
    }
}

/// What is in the topics of the sinks, by its identity.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered {
    /// By log and index.
    pub verdicts: BTreeMap<(String, u64), Record>,
    /// By partition and offset of the reading.
    pub dead: BTreeMap<(i32, i64), Record>,
}

impl Delivered {
    /// Asserts that each is there once, and that a reader of a partition sees each log in its order.
    pub fn read(kafka: &KafkaBroker, topics: Topics, isolation: Isolation) -> Self {
        let mut verdicts = BTreeMap::new();
        let mut newest: BTreeMap<(Option<i32>, String), u64> = BTreeMap::new();
        for mut record in kafka.read(topics.0[1], isolation) {
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
        for mut record in kafka.read(topics.0[2], isolation) {
            let lane: i32 = record.header("partition").unwrap().parse().unwrap();
            let offset: i64 = record.header("offset").unwrap().parse().unwrap();
            let before = newest.insert((record.partition, lane), offset);
            assert!(before < Some(offset), "dead letters of lane {lane}: {offset} follows {before:?}");
            unplaced(&mut record);
            assert_eq!(dead.insert((lane, offset), record), None, "the dead letter of {lane}/{offset} twice");
        }
        Self { verdicts, dead }
    }

    /// Asserts that another run has delivered the same, to the byte.
    pub fn same_as(&self, expected: &Self) {
        assert_eq!(self.verdicts.len(), expected.verdicts.len(), "verdicts delivered");
        assert!(self.verdicts == expected.verdicts, "the verdicts delivered differ");
        assert_eq!(self.dead.len(), expected.dead.len(), "dead letters delivered");
        assert!(self.dead == expected.dead, "the dead letters delivered differ");
    }
}

/// Takes off what depends on when a record was written: offset and time. (Its partition follows from its key.)
fn unplaced(record: &mut Record) {
    record.offset = 0;
    record.timestamp = None;
}

/// So many minutes of forty pumps, with rows cut off, late and dated ahead, as records in the order of arrival.
pub fn simulated(minutes: u32, partitions: i32) -> Vec<Record> {
    let file = place::fresh_directory("simulated").join("fleet.ndjson");
    Avouch::new(["simulate", "pumps", "--devices", "40", "--duration", &format!("{minutes}m"), "--arrival", "arrived"])
        .args(["--bad-share", "0.002", "--late-share", "0.002", "--out"])
        .args([&file])
        .run(LIMIT)
        .success();
    let text = std::fs::read_to_string(file).unwrap();
    let record = |line: &str| {
        let (arrived, rest) = line.strip_prefix("{\"arrived\":").unwrap().split_once(',').unwrap();
        let device =
            rest.split("\"device\":\"").nth(1).and_then(|rest| rest.split_once('"')).map_or("", |found| found.0);
        let partition = device.bytes().next_back().map_or(0, |digit| i32::from(digit) % partitions);
        super::record(partition, device, arrived.parse().unwrap(), format!("{{{rest}"))
    };
    text.lines().map(record).collect()
}

/// What the newest checkpoint of a lane covers, while the program may be writing the next.
pub fn committed(lane: &Path) -> Option<Arc<Committed>> {
    let there = std::fs::read_dir(lane).ok()?.flatten();
    let mut there = there.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // A checkpoint has its name only once it is whole.
    there.any(|name| name.starts_with("checkpoint-") && !name.contains("tmp")).then_some(())?;
    Some(LaneReader::open_read_only(lane).unwrap_or_else(|error| panic!("{}: {error}", lane.display())).committed())
}

/// Compares all that a lane only ever appends to, but for its history: where checkpoints fell is a matter of the clock.
pub fn same_files(expected: &Path, found: &Path) {
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

/// The seed of the moments at which things are killed; `AVOUCH_CRASH_SEED` repeats them.
pub fn seed() -> u64 {
    match std::env::var("AVOUCH_CRASH_SEED") {
        Ok(given) => given.parse().unwrap(),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
    }
}

/// SplitMix64.
pub fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
