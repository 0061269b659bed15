//! An idle partition's windows close without further rows, a kill around it changes nothing that was shown, and what is
//! recorded replays: records and events together give the same verdicts, byte for byte.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use avouch::lang::{Environment, Pipeline, SourceFile, load_models, plan};
use avouch_connectors::store::LaneReader;
use avouch_engine::decode::RawRecord;
use avouch_engine::event::LaneEvent;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::reference::Reference;
use avouch_engine::verdict::{Secret, VerdictRecord};
use avouch_system_tests::{Isolation, KafkaBroker, Record, eventually, place, require};
use pumps::{Place, START, metric};

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

/// With a partition that is idle after two seconds, and a table of the pumps joined to their readings.
fn place_with(kafka: &KafkaBroker, http: &str) -> Place {
    let mut place = Place::on(kafka, 1);
    let text = std::fs::read_to_string(&place.file).unwrap();
    let text = text.replace("max_disorder = \"5s\"", "max_disorder = \"5s\", idle_after = \"2s\"").replace(
        "[steps.features]\nfrom   = \"readings\"",
        "[references.pumps]\nfile = \"pumps.csv\"\nkey = \"device\"\n\n\
         [steps.known]\nfrom = \"readings\"\n\
         sql = \"SELECT readings.device, ts, temperature + coalesce(warmer, 0) AS temperature, vibration, pressure, rpm \
         FROM readings LEFT JOIN pumps USING (device)\"\n\n\
         [steps.features]\nfrom   = \"known\"",
    );
    let text = text.replace("FROM readings GROUP BY device", "FROM known GROUP BY device");
    assert!(text.contains("idle_after") && text.contains("FROM known GROUP BY"), "the fixture has changed");
    std::fs::write(&place.file, text).unwrap();
    table(&place, "device,warmer\npump-000,0.25\npump-001,\n");
    place.set("T_HTTP", http);
    place
}

fn table(place: &Place, text: &str) {
    let (new, path) = (place.directory.join("pumps.new"), place.directory.join("pumps.csv"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn readings(from: i64, seconds: i64) -> Vec<Record> {
    let at = |second: i64| START + (from + second) * 1000;
    let all = (0..seconds).flat_map(|s| (0..DEVICES).map(move |d| (format!("pump-{d:03}"), at(s))));
    all.map(|(device, ts)| pumps::record(0, &device, ts, pumps::reading(&device, ts))).collect()
}

fn records(lane: &Path) -> Vec<VerdictRecord> {
    LaneReader::open_read_only(lane).map_or(Vec::new(), |r| r.records(0, usize::MAX).unwrap())
}

fn last_window(verdicts: &[VerdictRecord]) -> i64 {
    verdicts.iter().map(|v| v.verdict.window_end as i64).max().unwrap_or(0)
}

#[test]
fn an_idle_partition_closes_its_windows_and_replays() {
    let kafka = require!(KafkaBroker::shared());
    let http = format!("127.0.0.1:{}", place::free_port());
    let place = place_with(kafka, &http);
    let (lane, log) = (place.lane(0), place.directory.join("avouch.log"));
    kafka.produce(place.get("T_READINGS"), readings(0, 30));
    let mut process = place.avouch("run").start(&log);

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
    let mut process = place.avouch("run").start(&log);
    eventually("it runs again", LIMIT, || metric(&http, "avouch_lane_next_offset").filter(|o| *o >= 90.0));
    assert_eq!(records(&lane)[..before.len()], before[..]);

    // Rows again, then another table while it is idle, and rows that are joined with it.
    kafka.produce(place.get("T_READINGS"), readings(40, 10));
    closed(START + 55_000);
    table(&place, "device,warmer\npump-000,0.25\npump-000,1\n");
    eventually("the table with a key twice is refused", LIMIT, || {
        metric(&http, "avouch_reference_errors_total").filter(|n| *n >= 1.0)
    });
    table(&place, "device,warmer\npump-000,0.5\npump-001,\npump-002,0.125\n");
    eventually("the new table is in use", LIMIT, || {
        let events = LaneReader::open_read_only(&lane).unwrap().events(0, 1_000).unwrap();
        let changes = events.iter().filter(|e| matches!(e, LaneEvent::Reference { .. })).count();
        (changes == 2).then_some(())
    });
    process.kill();
    let mut process = place.avouch("run").start(&log);
    kafka.produce(place.get("T_READINGS"), readings(60, 10));
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
    assert_eq!(replayed(kafka, &place), verdicts);
    let delivered = kafka.read(place.get("T_VERDICTS"), Isolation::Committed);
    assert_eq!(delivered.len(), verdicts.len(), "each was delivered once");
}

/// What an auditor does with the records of the partition, the lane's events and the tables kept beside them.
fn replayed(kafka: &KafkaBroker, place: &Place) -> Vec<VerdictRecord> {
    let text = std::fs::read_to_string(&place.file).unwrap();
    let pipeline = Pipeline::read(Arc::new(SourceFile::new(&place.file, text)), &Of(place)).unwrap();
    let plan = Arc::new(plan(&pipeline, &load_models(&pipeline).unwrap().0).unwrap());
    let events = LaneReader::open_read_only(&place.lane(0)).unwrap().events(0, 100_000).unwrap();
    let input = kafka.read(place.get("T_READINGS"), Isolation::Committed);
    let raw: Vec<RawRecord<'_>> = input
        .iter()
        .enumerate()
        .map(|(i, r)| RawRecord {
            offset: i as i64,
            timestamp: r.timestamp.unwrap(),
            key: r.key.as_deref(),
            value: r.value.as_deref(),
        })
        .collect();
    let mut lane = Lane::new(plan, 0, Secret::new(SECRET.as_bytes()));
    let mut out = Output::default();
    let mut from = 0;
    for event in events.iter().filter(|e| e.is_input()) {
        let to = (event.after_offset() + 1) as usize;
        if to > from {
            lane.step(&raw[from..to], &mut out).unwrap();
            from = to;
        }
        match event {
            LaneEvent::Tick(tick) => lane.tick(*tick, &mut out).unwrap(),
            LaneEvent::Reference { name, version, .. } => {
                let hex: String = version.iter().map(|b| format!("{b:02x}")).collect();
                let kept = Path::new(place.get("T_STATE")).join(format!("pumps/references/{hex}.reference"));
                let table = Reference::from_bytes(name, &std::fs::read(kept).unwrap()).unwrap();
                assert_eq!(table.version(), *version);
                lane.take_reference(table, &mut out).unwrap();
            }
            LaneEvent::Evicted { .. } => {}
        }
    }
    lane.step(&raw[from..], &mut out).unwrap();
    assert_eq!(out.events, events, "the replay makes the same events");
    out.verdicts
}
