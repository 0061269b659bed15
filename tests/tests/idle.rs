//! An idle partition's windows close without further rows, a kill around it changes nothing that was shown, and what is
//! recorded replays: records and events together give the same verdicts, byte for byte. So do the tables joined with rows.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use avouch::lang::{Environment, Pipeline, SourceFile, load_models, plan};
use avouch_connectors::store::{LaneReader, inspect_dir};
use avouch_engine::decode::RawRecord;
use avouch_engine::event::LaneEvent;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::reference::Reference;
use avouch_engine::verdict::{Secret, VerdictRecord};
use avouch_system_tests::records::{send, show};
use avouch_system_tests::{Anvil, Avouch, Isolation, KafkaBroker, Record, eventually, place, require};
use parquet::arrow::ArrowWriter;
use pumps::{Place, START, assert_served, metric};
use rdkafka::producer::Producer;

const LIMIT: Duration = Duration::from_secs(60);
const SECRET: &str = "a secret of the tests, and of nothing else";
const DEVICES: u32 = 3;

struct Of<'a>(&'a Place);

impl Environment for Of<'_> {
    fn var(&self, name: &str) -> Option<String> {
        name.starts_with("T_").then(|| match name {
            "T_SECRET" | "T_HTTP" | "T_MODEL_SHA256" | "T_TRAINING" => None,
            name => Some(self.0.get(name).to_owned()),
        })?
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

/// A partition is idle after two seconds.
fn idle_after(place: &Place) {
    place.rewrite("max_disorder = \"5s\"", "max_disorder = \"5s\", idle_after = \"2s\"");
}

/// A table of the pumps in this file is joined to their readings.
fn joined(place: &Place, file: &str) {
    place.rewrite(
        "[steps.features]\nfrom   = \"readings\"",
        &format!(
            "[references.pumps]\nfile = \"{file}\"\nkey = \"device\"\n\n\
             [steps.known]\nfrom = \"readings\"\n\
             sql = \"SELECT readings.device, ts, temperature + coalesce(warmer, 0) AS temperature, vibration, pressure, \
             rpm FROM readings LEFT JOIN pumps USING (device)\"\n\n\
             [steps.features]\nfrom   = \"known\""
        ),
    );
    place.rewrite("FROM readings GROUP BY device", "FROM known GROUP BY device");
}

/// Replaces the table of the pumps.
fn table(place: &Place, file: &str, rows: &[(&str, Option<f64>)]) {
    let (new, path) = (place.directory.join("pumps.new"), place.directory.join(file));
    if file.ends_with(".parquet") {
        let columns: [(&str, ArrayRef); 2] = [
            ("device", Arc::new(StringArray::from_iter_values(rows.iter().map(|r| r.0)))),
            ("warmer", Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.1)))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = ArrowWriter::try_new(std::fs::File::create(&new).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    } else {
        let lines = rows.iter().map(|(d, w)| format!("{d},{}\n", w.map_or(String::new(), |w| w.to_string())));
        std::fs::write(&new, format!("device,warmer\n{}", lines.collect::<String>())).unwrap();
    }
    std::fs::rename(new, path).unwrap();
}

/// A reading a second of each of the devices.
fn readings(partition: i32, devices: Range<u32>, from: i64, seconds: i64) -> Vec<Record> {
    let at = |second: i64| START + (from + second) * 1000;
    let all = (0..seconds).flat_map(|s| devices.clone().map(move |d| (format!("pump-{d:03}"), at(s))));
    all.map(|(device, ts)| pumps::record(partition, &device, ts, pumps::reading(&device, ts))).collect()
}

fn records(lane: &Path) -> Vec<VerdictRecord> {
    LaneReader::open_read_only(lane).map_or(Vec::new(), |r| r.kept(0, usize::MAX).unwrap())
}

fn last_window(verdicts: &[VerdictRecord]) -> i64 {
    verdicts.iter().map(|v| v.verdict.window_end as i64).max().unwrap_or(0)
}

fn events(lane: &Path) -> Vec<LaneEvent> {
    LaneReader::open_read_only(lane).map_or(Vec::new(), |r| r.events(0, 100_000).unwrap())
}

fn ticks(lane: &Path) -> usize {
    events(lane).iter().filter(|e| matches!(e, LaneEvent::Tick(_))).count()
}

#[test]
fn shared_by_a_group_it_closes_its_windows_and_replays() {
    let kafka = require!(KafkaBroker::shared());
    let anvil = require!(Anvil::start());
    let mut place = Place::on(kafka, 1);
    place.anchor(&anvil.rpc(), &pumps::deploy(&anvil), anvil.key(0));
    closes_and_replays(kafka, &mut place, "pumps.csv", &[]);

    // A verdict whose rows were joined with a table is bundled and verified like any other.
    let bundle = place.directory.join("bundle");
    let made = place.avouch("bundle").args(["--device", "pump-000", "--json", "--out"]).args([&bundle]).run(LIMIT);
    let index = made.success().json()["index"].as_u64().unwrap();
    Avouch::new(["verify"]).args([&bundle]).run(LIMIT).success();
    let evidence: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bundle.join("evidence.json")).unwrap()).unwrap();
    let verdict = &records(&place.lane(0))[index as usize];
    let version = format!("0x{}", hex(&verdict.evidence.references[0].version));
    assert_eq!(evidence["references"], serde_json::json!([{"name": "pumps", "version": version}]));

    // So is what a person says of it, which is delivered and replays like it.
    let opinion = if verdict.verdict.severity > 0 { "false-alarm" } else { "missed" };
    let said = place.avouch("label").args([opinion, "--by", "anna", "--lane", "0", "--index", &index.to_string()]);
    said.run(LIMIT).success();
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    let log = records(&place.lane(0));
    let label = log.last().unwrap();
    assert_eq!(label.evidence.label.as_ref().unwrap().verdict, Some(index));
    assert!(replayed(kafka, &place, 0) == bytes(&log), "the log comes out byte for byte, with the label at its place");
    let delivered = kafka.read(place.get("T_VERDICTS"), Isolation::Committed);
    assert_eq!(delivered.len(), log.len(), "each was delivered once");
    let value: serde_json::Value = serde_json::from_slice(delivered.last().unwrap().value.as_ref().unwrap()).unwrap();
    assert_eq!((&value["label"]["says"], &value["label"]["verdict"]), (&opinion.into(), &index.into()));
    let bundle = place.directory.join("bundle-label");
    let made = place.avouch("bundle").args(["--lane", "0", "--index", &label.index.to_string(), "--out"]);
    made.args([&bundle]).run(LIMIT).success();
    Avouch::new(["verify"]).args([&bundle]).args(["--rpc", &anvil.rpc()]).run(LIMIT).success();
}

#[test]
fn read_by_one_process_it_closes_its_windows_and_replays() {
    let kafka = require!(KafkaBroker::shared());
    closes_and_replays(kafka, &mut Place::on(kafka, 1), "pumps.parquet", &["--all-partitions"]);
}

fn closes_and_replays(kafka: &KafkaBroker, place: &mut Place, file: &str, how: &[&str]) {
    let http = format!("127.0.0.1:{}", place::free_port());
    place.set("T_HTTP", &http);
    idle_after(place);
    joined(place, file);
    table(place, file, &[("pump-000", Some(0.25)), ("pump-001", None)]);
    let place = &*place;
    let (lane, log) = (place.lane(0), place.directory.join("avouch.log"));
    let produce =
        |from: i64, seconds: i64| kafka.produce(place.get("T_READINGS"), readings(0, 0..DEVICES, from, seconds));
    let start = || place.avouch("run").args(how).start(&log);
    produce(0, 30);
    let mut process = start();

    // The rows alone close windows up to 24 s (29 s minus the disorder); time going on closes the rest, at 35 s.
    let end = START + 35_000;
    let closed = |end: i64| {
        eventually("the last windows close without a further row", LIMIT, || {
            let verdicts = records(&lane);
            (last_window(&verdicts) >= end).then_some(verdicts)
        })
    };
    let before = closed(end);
    assert_eq!(last_window(&before), end, "no window without rows, and history does not leap to the clock");
    // Killed in the idle time; what was committed stays, and time goes on where it stood.
    process.kill();
    let mut process = start();
    eventually("it runs again", LIMIT, || metric(&http, "avouch_lane_next_offset").filter(|o| *o >= 90.0));
    assert!(bytes(&records(&lane)[..before.len()]) == bytes(&before), "what was shown stays");

    // Rows again, then another table while it is idle, and rows that are joined with it.
    produce(40, 10);
    closed(START + 55_000);
    table(place, file, &[("pump-000", Some(0.25)), ("pump-000", Some(1.0))]);
    eventually("the table with a key twice is refused", LIMIT, || {
        metric(&http, "avouch_reference_errors_total").filter(|n| *n >= 1.0)
    });
    assert!(process.log().contains("the key `pump-000` stands twice"), "{}", process.log_tail());
    table(place, file, &[("pump-000", Some(0.5)), ("pump-001", None), ("pump-002", Some(0.125))]);
    eventually("the new table is in use", LIMIT, || {
        let changes = events(&lane).iter().filter(|e| matches!(e, LaneEvent::Reference { .. })).count();
        (changes == 2).then_some(())
    });
    assert_eq!(metric(&http, "avouch_reference_rows"), Some(3.0));
    assert_served(&http, &["avouch_reference_"]);
    process.kill();
    let mut process = start();
    produce(60, 10);
    closed(START + 75_000);
    eventually("idle is shown", LIMIT, || metric(&http, "avouch_lane_idle").filter(|n| *n == 1.0));
    assert!(metric(&http, "avouch_lane_ticks_total").unwrap() >= 3.0);
    process.signal("TERM");
    eventually("it stops", LIMIT, || process.ended());

    let verdicts = records(&lane);
    let rows: u64 = verdicts.iter().map(|v| v.evidence.rows).sum();
    assert_eq!(rows, 2 * 50 * u64::from(DEVICES), "each row in two windows, none late");
    let versions: Vec<usize> = verdicts.iter().map(|v| v.evidence.references.len()).collect();
    assert!(versions.iter().all(|n| *n == 1), "each verdict names the table its rows were joined with");
    assert_ne!(verdicts[0].evidence.references, verdicts[verdicts.len() - 1].evidence.references);
    assert!(replayed(kafka, place, 0) == bytes(&verdicts), "the log comes out byte for byte");
    let delivered = kafka.read(place.get("T_VERDICTS"), Isolation::Committed);
    assert_eq!(delivered.len(), verdicts.len(), "each was delivered once");

    // All checkpoints but the oldest are damaged. What was shown rests on ticks beyond it, which only the store has: the lane
    // takes them again at their places, and regrows to the same bytes.
    let kept = inspect_dir(&lane).unwrap();
    let events = |at: usize| kept[at].contents.as_ref().unwrap().committed.event_count;
    assert!(kept.len() > 2 && events(kept.len() - 1) + 2 < events(0), "{kept:?}");
    for checkpoint in &kept[..kept.len() - 1] {
        let path = lane.join(&checkpoint.file);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    place.avouch("run").args(["--until-end"]).run(LIMIT).success();
    assert_eq!(inspect_dir(&lane).unwrap()[0].contents.as_ref().unwrap().committed.event_count, events(0));
    assert_eq!(records(&lane), verdicts);
    assert!(replayed(kafka, place, 0) == bytes(&verdicts));
    assert_eq!(kafka.read(place.get("T_VERDICTS"), Isolation::Committed).len(), verdicts.len());
}

/// One partition falls silent while the other goes on; then nobody is idle while the broker is away, or while a
/// transaction is open.
#[test]
fn time_stands_still_where_the_end_is_not_known() {
    let kafka = &require!(KafkaBroker::start());
    let mut place = Place::on(kafka, 2);
    let http = format!("127.0.0.1:{}", place::free_port());
    place.set("T_HTTP", &http);
    idle_after(&place);
    let (silent, busy) = (place.lane(0), place.lane(1));
    let topic = place.get("T_READINGS");
    let mut process = place.avouch("run").start(&place.directory.join("avouch.log"));

    // By transactions, so that the partition ends with markers and with records that nobody sees.
    let producer = kafka.transactional("gateway");
    let transaction = |records: Vec<Record>| {
        producer.begin_transaction().unwrap();
        records.iter().for_each(|record| send(&producer, topic, record));
    };
    transaction(readings(0, 0..DEVICES, 0, 30));
    producer.commit_transaction(LIMIT).unwrap();
    transaction(readings(0, 0..DEVICES, 500, 1));
    producer.abort_transaction(LIMIT).unwrap();
    let mut second = 0;
    eventually("the silent partition closes its last windows", LIMIT, || {
        kafka.produce(topic, readings(1, DEVICES..2 * DEVICES, second, 2));
        second += 2;
        (last_window(&records(&silent)) >= START + 35_000).then_some(())
    });
    assert!(ticks(&silent) > 0);
    assert_eq!(ticks(&busy), 0, "nothing but rows moves the time of a partition that has some");

    let watermark = || metric(&http, "avouch_lane_watermark_timestamp_seconds{lane=\"0\"}").unwrap();
    let stands_still = |why: &str| {
        // A question that was answered before may still lead to a tick.
        sleep(Duration::from_secs(1));
        let before = (watermark(), ticks(&silent));
        sleep(Duration::from_secs(4));
        assert_eq!((watermark(), ticks(&silent)), before, "{why}");
        assert_eq!(metric(&http, "avouch_lane_idle{lane=\"0\"}"), Some(0.0), "{why}");
        assert!(last_window(&records(&silent)) < START + 55_000, "{why}: windows are still open");
    };
    let taken = |what: &str, offset: f64| {
        eventually(what, LIMIT, || metric(&http, "avouch_lane_rows_in_total").filter(|n| *n >= offset));
    };
    let rows = |extra: i64| 90.0 + (second * 3 + extra) as f64;
    transaction(readings(0, 0..DEVICES, 40, 10));
    producer.commit_transaction(LIMIT).unwrap();
    taken("the rows are in", rows(30));
    kafka.freeze();
    stands_still("the broker is away");
    kafka.thaw();
    // What the devices kept meanwhile is not late.
    kafka.produce(topic, readings(0, 2 * DEVICES..3 * DEVICES, 45, 2));
    taken("what was kept is in", rows(36));
    transaction(readings(0, 0..DEVICES, 50, 2));
    stands_still("a transaction is open");
    producer.commit_transaction(LIMIT).unwrap();
    eventually("then time goes on", LIMIT, || (last_window(&records(&silent)) >= START + 60_000).then_some(()));
    process.signal("TERM");
    eventually("it stops", LIMIT, || process.ended());
    let dead = kafka.read(place.get("T_DEAD"), Isolation::Committed);
    assert!(dead.is_empty(), "none was late: {}", show(&dead));
    for lane in [0, 1] {
        assert!(replayed(kafka, &place, lane) == bytes(&records(&place.lane(lane))), "lane {lane}");
    }
    let shown = place.state(&["events"]).args(["--lane", "0", "--from", "0", "--format", "json"]).run(LIMIT).success();
    assert_eq!(shown.stdout.lines().filter(|l| l.contains("\"tick\"")).count(), ticks(&silent));
}

/// What an auditor does with the records of the partition, the lane's events and the tables kept beside them.
fn replayed(kafka: &KafkaBroker, place: &Place, partition: i32) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(&place.file).unwrap();
    let pipeline = Pipeline::read(Arc::new(SourceFile::new(&place.file, text)), &Of(place)).unwrap();
    let plan = Arc::new(plan(&pipeline, &load_models(&pipeline).unwrap().0).unwrap());
    let events = events(&place.lane(partition));
    let mut input = kafka.read(place.get("T_READINGS"), Isolation::Committed);
    input.retain(|r| r.partition == Some(partition));
    let raw: Vec<RawRecord<'_>> = input
        .iter()
        .map(|r| RawRecord {
            offset: r.offset,
            timestamp: r.timestamp.unwrap(),
            key: r.key.as_deref(),
            value: r.value.as_deref(),
            origin: None,
            signature: None,
        })
        .collect();
    let mut lane = Lane::new(plan, partition, Secret::new(SECRET.as_bytes()));
    let mut out = Output::default();
    let mut from = 0;
    for event in events.iter().filter(|e| e.is_input()) {
        let to = raw.partition_point(|r| r.offset <= event.after_offset());
        if to > from {
            lane.step(&raw[from..to], &mut out).unwrap();
            from = to;
        }
        match event {
            LaneEvent::Tick(tick) => lane.tick(*tick, &mut out).unwrap(),
            LaneEvent::Reference { name, version, .. } => {
                let kept = format!("pumps/references/{}.reference", hex(version));
                let table = Path::new(place.get("T_STATE")).join(kept);
                let table = Reference::from_bytes(name, &std::fs::read(table).unwrap()).unwrap();
                assert_eq!(table.version(), *version);
                lane.take_reference(table, &mut out).unwrap();
            }
            LaneEvent::Label { after_offset, label } => {
                lane.label(*after_offset, label.clone(), &mut out).unwrap();
            }
            LaneEvent::Evicted { .. } => {}
            LaneEvent::Pipeline { .. } => panic!("the pipeline did not change"),
        }
    }
    lane.step(&raw[from..], &mut out).unwrap();
    assert_eq!(out.events, events, "the replay makes the same events");
    bytes(&out.verdicts)
}

fn bytes(verdicts: &[VerdictRecord]) -> Vec<Vec<u8>> {
    verdicts.iter().map(VerdictRecord::to_bytes).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
