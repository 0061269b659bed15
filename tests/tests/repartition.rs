//! A topic keyed otherwise goes through a topic keyed by device, exactly once: whoever is killed in the middle of a
//! transaction, and whoever sleeps while others go on in its place.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use avouch_connectors::kafka::partition_of_key;
use avouch_connectors::store::LaneReader;
use avouch_system_tests::{Isolation, KafkaBroker, Process, Record, eventually, place, require};
use pumps::left::{self, Topics, random};
use pumps::{Place, assert_served, metric};

const TOPICS: Topics = Topics(["by.gateway", "repart.verdicts", "repart.dead"]);
const THROUGH: &str = "by.device";
const GATEWAYS: i32 = 3;
const LANES: i32 = 2;
/// How often processes are killed in the middle of a transaction.
const KILLS: usize = 6;
const LIMIT: Duration = Duration::from_secs(120);
/// With the shortest session that Kafka allows.
const GROUP: &str = "group   = \"pumps\"\nsession_timeout = \"6s\"\ninstance = \"${env:T_INSTANCE:-}\"\n\
                     repartition = { topic = \"by.device\", partitions = 2 }";

/// The readings of a fleet as gateways send them on: each device behind one of three, whose name is the key, and now and
/// then a header. Readings that cannot be read come from gateways too, some without a key.
fn readings() -> Vec<Record> {
    let mut records = left::simulated(16, GATEWAYS);
    for (i, record) in records.iter_mut().enumerate() {
        let gateway = record.partition.unwrap();
        record.key = (i % 500 != 0).then(|| format!("gateway-{gateway}").into_bytes());
        if i % 3 == 0 {
            record.headers.push(("trace".into(), i.to_string().into_bytes()));
        }
    }
    for i in (100..records.len()).step_by(1_000) {
        records[i].value = (i % 2_000 < 1_000).then(|| b"noise".to_vec());
    }
    records
}

fn on(kafka: &KafkaBroker) -> Place {
    for (topic, partitions) in TOPICS.0.into_iter().zip([GATEWAYS, LANES, LANES]) {
        kafka.create_topic_named(topic, partitions, &[]);
    }
    let place = Place::new(&kafka.bootstrap(), TOPICS.0[0], TOPICS.0[1], TOPICS.0[2]);
    place.rewrite("group   = \"pumps\"", GROUP);
    place
}

/// A process, started again after each kill.
struct Member {
    name: &'static str,
    address: String,
    process: Option<Process>,
}

impl Member {
    fn new(name: &'static str) -> Self {
        Self { name, address: String::new(), process: None }
    }

    fn up(&mut self, place: &Place) {
        if self.process.is_none() {
            self.address = format!("127.0.0.1:{}", place::free_port());
            let log = place.directory.join(format!("{}.log", self.name));
            let call = place.avouch("run").args(["--create-topics"]).env("T_INSTANCE", self.name);
            self.process = Some(call.env("T_HTTP", &self.address).start(&log));
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let tail = process.log_tail();
            assert!(process.ended().is_none(), "{} ended by itself:\n{tail}", self.name);
            process.kill();
        }
    }

    fn signal(&self, name: &str) {
        self.process.as_ref().unwrap().signal(name);
    }

    fn log(&self) -> String {
        self.process.as_ref().unwrap().log()
    }

    fn moved(&self) -> f64 {
        metric(&self.address, "avouch_repartition_records_total").unwrap_or(0.0)
    }

    fn stop(mut self) {
        let mut process = self.process.take().unwrap();
        process.signal("TERM");
        let status = process.wait(LIMIT);
        assert!(status.success(), "{status}:\n{}", process.log_tail());
    }
}

/// Produces slowly, so that some transaction is open nearly all the time, until it is told to hurry.
fn flow(kafka: &KafkaBroker, records: &[Record], hurry: &AtomicBool) {
    let paced = records.iter().enumerate().map(|(i, record)| {
        if i % 20 == 0 && !hurry.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(40));
        }
        record.clone()
    });
    kafka.produce(TOPICS.readings(), paced);
}

/// The device a value names, if it is a reading.
fn device(value: Option<&[u8]>) -> Option<String> {
    let text = std::str::from_utf8(value?).ok()?;
    let read: serde_json::Value = serde_json::from_str(text).ok()?;
    let whole = ["temperature", "vibration", "pressure", "rpm", "ts"].iter().all(|f| !read[*f].is_string());
    whole.then(|| read["device"].as_str().map(str::to_owned)).flatten()
}

/// Asserts that each record of the source has one copy, as it should be; how many copies have no key.
fn each_once(kafka: &KafkaBroker) -> usize {
    let source = kafka.read(TOPICS.readings(), Isolation::Committed);
    let copies = kafka.read(THROUGH, Isolation::Committed);
    assert_eq!(copies.len(), source.len(), "records and copies");
    let mut by_origin = BTreeMap::new();
    let mut newest: BTreeMap<(Option<i32>, String), i64> = BTreeMap::new();
    for copy in &copies {
        let origin = copy.headers.iter().rfind(|(name, _)| name == "avouch.source").unwrap();
        let origin = String::from_utf8(origin.1.clone()).unwrap();
        let mut parts = origin.split('/');
        assert_eq!(parts.next(), Some(TOPICS.readings()));
        let [partition, offset] = [parts.next(), parts.next()].map(|part| part.unwrap().parse::<i64>().unwrap());
        assert!(by_origin.insert((partition as i32, offset), copy).is_none(), "{origin} has two copies");
        // Those of one source partition in a lane, and so those of a device, keep their order.
        let before = newest.insert((copy.partition, partition.to_string()), offset);
        assert!(before < Some(offset), "{origin} follows {before:?} in lane {:?}", copy.partition);
    }
    let mut without = 0;
    for record in &source {
        let copy = by_origin[&(record.partition.unwrap(), record.offset)];
        assert_eq!((&copy.value, copy.timestamp), (&record.value, record.timestamp));
        let mut headers = record.headers.clone();
        let origin = format!("{}/{}/{}", TOPICS.readings(), record.partition.unwrap(), record.offset);
        headers.push(("avouch.source".into(), origin.into_bytes()));
        let copied = copy.headers.iter().rfind(|(name, _)| name == "avouch.copied").unwrap();
        let at: u64 = std::str::from_utf8(&copied.1).unwrap().parse().unwrap();
        assert!(at > pumps::START as u64, "it was copied at {at}");
        headers.push(copied.clone());
        let found = device(record.value.as_deref());
        if let Some(key) = &copy.key {
            assert_eq!(Some(key), found.map(String::into_bytes).as_ref());
            assert_eq!(copy.partition, Some(partition_of_key(key, LANES)), "Java's partitioner");
        } else {
            without += 1;
            assert_eq!(found, None, "the device of {} could be read", record.text());
            assert_eq!(copy.partition, Some(record.partition.unwrap() % LANES));
            headers.extend(record.key.clone().map(|key| ("avouch.key".to_owned(), key)));
        }
        assert_eq!(copy.headers, headers);
    }
    without
}

/// Asserts that each device has one lane, and in it verdicts without a gap; how many devices there are.
fn one_lane_each(place: &Place) -> usize {
    let mut lanes: BTreeMap<[u8; 32], i32> = BTreeMap::new();
    let mut next: BTreeMap<[u8; 32], u64> = BTreeMap::new();
    for lane in 0..LANES {
        let reader = LaneReader::open_read_only(&place.lane(lane)).unwrap();
        let records = reader.kept(0, usize::MAX).unwrap();
        assert!(records.len() > 500, "lane {lane} has {} verdicts", records.len());
        for record in records {
            let id = record.verdict.device_id;
            assert_eq!(*lanes.entry(id).or_insert(lane), lane, "{} is in two lanes", record.evidence.device);
            let seq = next.entry(id).or_default();
            assert_eq!(record.verdict.seq, *seq, "{} has a gap", record.evidence.device);
            *seq += 1;
        }
    }
    lanes.len()
}

#[test]
fn killed_in_transactions_and_asleep_it_moves_each_record_once() {
    let began = Instant::now();
    let done = |what: &str| println!("{:6.1?}  {what}", began.elapsed());
    let kafka = require!(KafkaBroker::start());
    let place = on(&kafka);
    let records = readings();
    let mut seed = left::seed();
    println!("{} records; AVOUCH_CRASH_SEED={seed}", records.len());
    let mut members = [Member::new("one"), Member::new("two")];
    let hurry = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| flow(&kafka, &records, &hurry));
        // Once a lane knows all partitions of the source it waits for them, whatever becomes of who copies them.
        members[0].up(&place);
        eventually("one moves records", LIMIT, || (members[0].moved() > 300.0).then_some(()));
        for kill in 1..=KILLS {
            members.iter_mut().for_each(|m| m.up(&place));
            let which = random(&mut seed) % 5;
            let victims: Vec<usize> = if which == 4 { vec![0, 1] } else { vec![which as usize % 2] };
            eventually("the next to be killed moves records", LIMIT, || {
                victims.iter().all(|&v| members[v].moved() > 0.0).then_some(())
            });
            std::thread::sleep(Duration::from_millis(random(&mut seed) % 200));
            victims.iter().for_each(|&v| members[v].kill());
            done(&format!("kill {kill} of {KILLS}: {victims:?}"));
        }

        // A zombie: asleep for longer than its session.
        members.iter_mut().for_each(|m| m.up(&place));
        eventually("both move records", LIMIT, || members.iter().all(|m| m.moved() > 0.0).then_some(()));
        members[0].signal("STOP");
        eventually("the other one has all partitions of the source", LIMIT, || {
            let address = &members[1].address;
            let text = ureq::get(format!("http://{address}/metrics")).call().ok()?.body_mut().read_to_string().ok()?;
            let parts = text.lines().filter(|line| line.starts_with("avouch_repartition_lag_records{")).count();
            (parts == GATEWAYS as usize).then_some(())
        });
        assert_served(&members[1].address, &["avouch_repartition_"]);
        let before = members[1].moved();
        eventually("it goes on where the sleeper was", LIMIT, || (members[1].moved() > before + 200.0).then_some(()));
        done("one slept, and the other took over");
        members[0].signal("CONT");
        eventually("the zombie notices", LIMIT, || {
            members[0].log().contains("partitions taken from this process, which repartitioned them").then_some(())
        });
        let aborted = metric(&members[0].address, "avouch_repartition_transactions_aborted_total").unwrap();
        done(&format!("it woke, and aborted {aborted} transactions"));
        hurry.store(true, Ordering::Relaxed);
    });
    let [one, two] = members;
    one.stop();
    two.stop();
    done("both were stopped");

    let run = place.avouch("run").args(["--until-end", "--json"]).run(LIMIT).success().json();
    done("a last run finished");
    let without = each_once(&kafka);
    let dead: u64 = run["dead_letters"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(run["rows_in"].as_u64(), Some(records.len() as u64), "every record is a row of one lane");
    assert_eq!(run["rows_in"].as_u64().unwrap(), run["rows_used"].as_u64().unwrap() + dead, "in = used + dead");
    let devices = one_lane_each(&place);
    assert_eq!(devices, 40);

    // Each dead letter once, and those of records without a device name the record and have its key.
    let letters = kafka.read(TOPICS.0[2], Isolation::Committed);
    assert_eq!(letters.len() as u64, dead);
    let mut undecodable = 0;
    let places: BTreeSet<_> = letters.iter().map(|l| (l.header("partition"), l.header("offset"))).collect();
    assert_eq!(places.len(), letters.len());
    for letter in &letters {
        let detail = letter.header("detail").unwrap();
        assert!(detail.starts_with("by.gateway/") && detail.contains(" at offset "), "{detail}");
        assert_eq!(letter.header("topic").as_deref(), Some(THROUGH));
        if ["undecodable", "schema", "no_device"].contains(&letter.header("reason").unwrap().as_str()) {
            undecodable += 1;
            let key = letter.key.as_deref().map(String::from_utf8_lossy);
            assert!(key.is_none_or(|key| key.starts_with("gateway-")), "the key it came with");
        }
    }
    assert_eq!(undecodable, without);
    // Partitions stood still for whole sessions, and by event time the others went on by minutes. Late is only what its
    // device sent too late, by more than `max_disorder`.
    let mut late = 0;
    for letter in letters.iter().filter(|l| l.header("reason").as_deref() == Some("late")) {
        let row: serde_json::Value = serde_json::from_str(&letter.text()).unwrap();
        let arrived: i64 = letter.header("timestamp").unwrap().parse().unwrap();
        assert!(arrived - row["ts"].as_i64().unwrap() > 5_000, "{letter:?} is late because of the copying");
        late += 1;
    }
    println!("{:6.1?}  {late} rows were sent too late, none was copied too late", began.elapsed());
    let written = kafka.read(THROUGH, Isolation::Uncommitted).len();
    assert!(written > records.len(), "no kill has hit a transaction");
    println!(
        "{:6.1?}  {} records, {dead} dead letters ({without} without a device), {devices} devices, {} verdicts; {} copies stood in \
         transactions that were aborted",
        began.elapsed(),
        records.len(),
        run["log_size"],
        written - records.len()
    );
}

#[test]
fn what_would_mix_up_devices_is_refused() {
    let kafka = require!(KafkaBroker::shared());
    let place = Place::on(kafka, 2);
    let through = kafka.create_topic("through", 3);
    let with = |settings: &str| {
        let text = std::fs::read_to_string(&place.file).unwrap();
        let text: Vec<&str> = text.lines().filter(|l| !l.starts_with("repartition")).collect();
        let line = format!("group   = \"{}\"\nrepartition = {settings}", place.get("T_READINGS"));
        let group = text.iter().find(|l| l.starts_with("group   =")).copied().unwrap();
        std::fs::write(&place.file, text.join("\n").replace(group, &line)).unwrap();
    };
    let refused = |what: &str| {
        let outcome = place.avouch("run").args(["--until-end"]).run(LIMIT);
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stderr.contains(what), "{what} in {}", outcome.stderr);
    };

    with("{ topic = \"not-there\", partitions = 2 }");
    refused("topic \"not-there\" does not exist");
    with(&format!("{{ topic = \"{through}\", partitions = 2 }}"));
    refused("has 3 partitions, but `repartition` says 2");
    kafka.create_topic_named("through.compacted", 2, &[("cleanup.policy", "compact")]);
    with("{ topic = \"through.compacted\", partitions = 2 }");
    refused("is compacted");

    // A topic with records, of which the group knows nothing.
    kafka.produce(&through, [Record { partition: Some(1), ..Record::new("pump-000", "{}") }]);
    with(&format!("{{ topic = \"{through}\", partitions = 3 }}"));
    refused("Kafka has forgotten it");

    // With the topic made for it, all of the source is judged; again, there is nothing left to do.
    kafka.produce(place.get("T_READINGS"), pumps::healthy(5, 60));
    with("{ topic = \"through.made\", partitions = 3 }");
    let run = || place.avouch("run").args(["--until-end", "--create-topics", "--json"]).run(LIMIT).success().json();
    let first = run();
    assert_eq!(first["rows_in"], 300);
    assert_eq!(first["rows_used"], 300);
    assert_eq!(run(), first);
    assert_eq!(kafka.read("through.made", Isolation::Committed).len(), 300);
}
