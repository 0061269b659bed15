//! Several processes share the lanes of a pipeline through a consumer group. Whoever comes, goes, dies or falls asleep: what
//! is left is, byte for byte and exactly once, what one unbroken run leaves.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use avouch_system_tests::{Isolation, KafkaBroker, Process, Record, eventually, place, require};
use pumps::left::{self, Delivered, Topics};
use pumps::{Place, metric, readyz};

const PARTITIONS: i32 = 4;
const TOPICS: Topics = Topics(["shared.readings", "shared.verdicts", "shared.dead"]);
const LIMIT: Duration = Duration::from_secs(180);
/// The shortest session that Kafka allows.
const CLASSIC: &str = "group   = \"pumps\"\nsession_timeout = \"6s\"\ninstance = \"${env:T_INSTANCE:-}\"";
const CONSUMER: &str = "group   = \"pumps\"\ngroup_protocol = \"consumer\"\ninstance = \"${env:T_INSTANCE:-}\"";

/// One process of the group.
struct Member {
    process: Process,
    address: String,
    log: PathBuf,
}

impl Member {
    fn start(place: &Place, name: &str, instance: &str) -> Self {
        let address = format!("127.0.0.1:{}", place::free_port());
        let log = place.directory.join(format!("{name}.log"));
        let call = place.avouch("run").env("T_HTTP", &address).env("T_INSTANCE", instance);
        Self { process: call.start(&log), address, log }
    }

    fn metric(&self, name: &str) -> f64 {
        metric(&self.address, name).unwrap_or(-1.0)
    }

    /// Waits until it runs so many lanes, and is ready.
    fn owns(&mut self, lanes: i32) {
        let what = format!("{} runs {lanes} lanes", self.log.display());
        eventually(&what, LIMIT, || {
            assert!(self.process.ended().is_none(), "it ended:\n{}", self.process.log_tail());
            let there = self.metric("avouch_lanes_owned") == f64::from(lanes);
            (there && readyz(&self.address)?.starts_with("ready")).then_some(())
        });
    }

    fn says(&self, what: &str) -> bool {
        self.process.log().contains(what)
    }

    fn stop(mut self) {
        self.process.signal("TERM");
        let status = self.process.wait(LIMIT);
        assert!(status.success(), "{status}:\n{}", self.process.log_tail());
    }
}

/// Readings, given out in slices.
struct Readings {
    records: Vec<Record>,
    given: usize,
    slice: usize,
}

impl Readings {
    fn next(&mut self, kafka: &KafkaBroker) {
        let upto = self.records.len().min(self.given + self.slice);
        kafka.produce(TOPICS.readings(), self.records[self.given..upto].iter().cloned());
        self.given = upto;
    }

    fn rest(&mut self, kafka: &KafkaBroker) {
        kafka.produce(TOPICS.readings(), self.records[self.given..].iter().cloned());
        self.given = self.records.len();
    }
}

/// What one unbroken run makes of the readings.
fn reference(kafka: &KafkaBroker, records: &[Record], group: &str) -> (Place, Delivered) {
    let place = TOPICS.on(kafka, PARTITIONS);
    place.rewrite("group   = \"pumps\"", group);
    kafka.produce(TOPICS.readings(), records.iter().cloned());
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let delivered = Delivered::read(kafka, TOPICS, Isolation::Committed);
    assert!(delivered.verdicts.len() > 3_000 && delivered.dead.len() > 20, "the readings exercise both sinks");
    (place, delivered)
}

/// Lets one process finish, and compares.
fn compare(kafka: &KafkaBroker, place: &Place, reference: &Place, expected: &Delivered) {
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    for partition in 0..PARTITIONS {
        left::same_files(&reference.lane(partition), &place.lane(partition));
    }
    Delivered::read(kafka, TOPICS, Isolation::Committed).same_as(expected);
}

#[test]
fn processes_that_come_go_die_and_sleep_leave_what_one_unbroken_run_leaves() {
    let began = Instant::now();
    let records = left::simulated(16, PARTITIONS);
    let (reference, expected) = reference(&require!(KafkaBroker::start()), &records, CLASSIC);
    let kafka = require!(KafkaBroker::start());
    let place = TOPICS.on(&kafka, PARTITIONS);
    place.rewrite("group   = \"pumps\"", CLASSIC);
    let slice = records.len() / 14;
    let mut readings = Readings { records, given: 0, slice };
    let done = |what: &str| println!("{:6.1?}  {what}", began.elapsed());

    let mut first = Member::start(&place, "first", "");
    readings.next(&kafka);
    first.owns(4);
    done("one process has all lanes");

    let mut second = Member::start(&place, "second", "");
    readings.next(&kafka);
    second.owns(2);
    first.owns(2);
    readings.next(&kafka);
    done("a second one joined and has half");

    second.stop();
    readings.next(&kafka);
    first.owns(4);
    done("it left, and the first has all");

    let mut third = Member::start(&place, "third", "");
    third.owns(2);
    readings.next(&kafka);
    third.process.kill();
    readings.next(&kafka);
    first.owns(4);
    done("a third one joined, was killed, and the first has all");

    // Under a lasting name a process comes back to its lanes before anyone else is given them.
    let mut named = Member::start(&place, "named", "two");
    named.owns(2);
    first.owns(2);
    let rebalances = first.metric("avouch_group_rebalances_total");
    readings.next(&kafka);
    named.process.kill();
    let mut named = Member::start(&place, "named-again", "two");
    named.owns(2);
    readings.next(&kafka);
    assert_eq!(first.metric("avouch_group_rebalances_total"), rebalances, "nothing moved");
    assert_eq!(first.metric("avouch_lanes_owned"), 2.0);
    done("a named one was killed and came back to its lanes");

    // A zombie: its session ends while it sleeps, and it does not know.
    first.process.signal("STOP");
    readings.next(&kafka);
    eventually("the lanes of the sleeper go to the other, which waits for its store", LIMIT, || {
        named.says("waiting for the lane's store: another process still has it").then_some(())
    });
    let said = readyz(&named.address).unwrap();
    let holder = format!("process {}", first.process.id());
    assert!(said.contains("waiting for its store") && said.contains(&holder), "{said}");
    readings.next(&kafka);
    first.process.signal("CONT");
    eventually("the zombie notices", LIMIT, || first.says("the group has given its lanes to others").then_some(()));
    named.owns(2);
    first.owns(2);
    readings.next(&kafka);
    done("a zombie gave way and joined again");

    readings.rest(&kafka);
    first.stop();
    named.stop();
    compare(&kafka, &place, &reference, &expected);
    done("all is as one unbroken run leaves it");
}

#[test]
fn the_brokers_group_protocol_leaves_the_same() {
    let began = Instant::now();
    let records = left::simulated(8, PARTITIONS);
    let (reference, expected) = reference(&require!(KafkaBroker::start()), &records, CONSUMER);
    let kafka = require!(KafkaBroker::start());
    let place = TOPICS.on(&kafka, PARTITIONS);
    place.rewrite("group   = \"pumps\"", CONSUMER);
    let slice = records.len() / 8;
    let mut readings = Readings { records, given: 0, slice };
    let done = |what: &str| println!("{:6.1?}  {what}", began.elapsed());

    let mut first = Member::start(&place, "first", "");
    readings.next(&kafka);
    first.owns(4);
    let mut second = Member::start(&place, "second", "");
    readings.next(&kafka);
    second.owns(2);
    first.owns(2);
    done("a second one joined and has half");
    readings.next(&kafka);
    second.stop();
    first.owns(4);
    done("it left, and the first has all");
    let mut third = Member::start(&place, "third", "");
    third.owns(2);
    readings.next(&kafka);
    third.process.kill();
    readings.next(&kafka);
    first.owns(4);
    done("a third one joined, was killed, and the first has all");

    readings.rest(&kafka);
    first.stop();
    compare(&kafka, &place, &reference, &expected);
}
