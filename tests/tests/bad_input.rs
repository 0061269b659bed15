//! Readings that cannot be used become dead letters that say why; those around them are judged; nothing is uncounted.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use avouch::runtime::metrics::{DECLARATIONS, Kind};
use avouch_system_tests::{Anvil, Isolation, KafkaBroker, Prometheus, Record, place, require};
use pumps::{ONLY_SOME, Place, START};

const LIMIT: Duration = Duration::from_secs(60);
const SECONDS: i64 = 60;
/// A device that was not there when the model was trained.
const STRANGER: &str = "pump-of-another-make";
/// Apache Kafka's own default for `max.message.bytes`.
const ONE_MEGABYTE: &str = "1048588";

/// One row of each kind that dies, between good ones; with what it is.
fn bad() -> Vec<(&'static str, Record)> {
    let ts = START + 30_000;
    let row = |device: &str, ts: &str, temperature: &str| {
        format!(
            r#"{{"device":{device},"ts":{ts},"temperature":{temperature},"vibration":0.1,"pressure":4.2,"rpm":1440}}"#
        )
    };
    let good = row(r#""pump-001""#, &ts.to_string(), "40.5");
    let at = |value: Vec<u8>| pumps::record(0, "pump-001", ts, value);
    let text = |value: String| at(value.into_bytes());
    let mut ten_megabytes = good.clone().into_bytes();
    ten_megabytes.resize(10_000_000, b' ');
    let mut not_utf8 = good.clone().into_bytes();
    let place = good.find("pump-001").unwrap();
    not_utf8[place] = 0xff;
    let ahead = ts + 5 * 60_000 + 1;
    vec![
        ("truncated JSON", text(good[..good.len() - 9].to_owned())),
        ("wrong type", text(row(r#""pump-001""#, &ts.to_string(), r#""hot""#))),
        ("fraction in an integer", text(good.replace("1440", "1440.5"))),
        ("empty device", text(row(r#""""#, &ts.to_string(), "40.5"))),
        ("missing device", text(good.replace(r#""device":"pump-001","#, ""))),
        ("device null", text(row("null", &ts.to_string(), "40.5"))),
        ("NaN", text(row(r#""pump-001""#, &ts.to_string(), "NaN"))),
        ("missing ts", text(good.replace(&format!(r#""ts":{ts},"#), ""))),
        ("ts in 2262", text(row(r#""pump-001""#, "9223372036854", "40.5"))),
        ("ts beyond max_future", text(row(r#""pump-001""#, &ahead.to_string(), "40.5"))),
        ("10 MB", at(ten_megabytes)),
        ("no value", Record { value: None, ..at(Vec::new()) }),
        ("empty value", at(Vec::new())),
        ("an array", text(format!("[{good}]"))),
        ("not UTF-8", at(not_utf8)),
        ("no key", Record { key: None, ..text("?".to_owned()) }),
    ]
}

/// The records of the source, and what each of the bad ones is, by offset.
fn input() -> (Vec<Record>, BTreeMap<i64, &'static str>) {
    let mut records = Vec::new();
    let mut kinds = BTreeMap::new();
    for second in 0..SECONDS {
        let ts = START + second * 1000;
        for device in ["pump-000", "pump-001", STRANGER] {
            records.push(pumps::record(0, device, ts, pumps::reading(device, ts)));
        }
        if second == 30 {
            for (kind, record) in bad() {
                kinds.insert(records.len() as i64, kind);
                records.push(record);
                records.push(pumps::record(0, "pump-000", ts, pumps::reading("pump-000", ts)));
            }
        }
    }
    kinds.insert(records.len() as i64, "late");
    let (late, now) = (START - 60_000, START + SECONDS * 1000);
    records.push(pumps::record(0, "pump-001", now, pumps::reading("pump-001", late)));
    // The last row is good, and closes the windows of those before.
    let end = now + 20_000;
    records.push(pumps::record(0, "pump-000", end, pumps::reading("pump-000", end)));
    (records, kinds)
}

#[test]
fn every_bad_row_is_a_dead_letter_and_every_row_is_counted() {
    let kafka = require!(KafkaBroker::shared());
    let anvil = require!(Anvil::start());
    let http = format!("127.0.0.1:{}", place::free_port());
    let prometheus = require!(Prometheus::start(&[&http]));
    let dead = format!("dead-of-one-megabyte-{}", std::process::id());
    kafka.create_topic_named(&dead, 1, &[("max.message.bytes", ONE_MEGABYTE)]);
    let (readings, verdicts) = (kafka.create_topic("readings", 1), kafka.create_topic("verdicts", 1));
    let mut place = Place::new(&kafka.bootstrap(), &readings, &verdicts, &dead);
    place.anchor(&anvil.rpc(), &pumps::deploy(&anvil), anvil.key(0));
    place.set("T_HTTP", &http);

    let (records, kinds) = input();
    kafka.produce(&readings, records.iter().cloned());
    let (rows, dying) = (records.len() as f64, kinds.len() as f64);
    let mut process = place.avouch("run").start(&place.directory.join("avouch.log"));

    // What an operator sees.
    let is = |wanted: f64| move |value: f64| value == wanted;
    prometheus.wait_for("sum(avouch_lane_rows_in_total)", LIMIT, is(rows));
    prometheus.wait_for("sum(avouch_lane_dead_letters_total)", LIMIT, is(dying));
    prometheus.wait_for("sum(avouch_lane_rows_used_total)", LIMIT, is(rows - dying));
    let balance =
        "sum(avouch_lane_rows_in_total) - sum(avouch_lane_rows_used_total) - sum(avouch_lane_dead_letters_total)";
    assert_eq!(prometheus.value(balance), Some(0.0));
    prometheus.wait_for("avouch_sink_position{sink='dead_letter'}", LIMIT, is(dying));
    let judged = prometheus.wait_for("sum(avouch_log_size_entries)", LIMIT, |size| size > 0.0);
    prometheus.wait_for("sum(avouch_anchor_size_entries)", LIMIT, is(judged));
    prometheus.wait_for("avouch_sink_position{sink='verdicts'}", LIMIT, is(judged));
    let here = |name: &str| !ONLY_SOME.iter().any(|part| name.starts_with(part));
    for declaration in DECLARATIONS.iter().filter(|d| here(d.name)) {
        let name = match declaration.kind {
            Kind::Histogram => format!("{}_count", declaration.name),
            Kind::Counter | Kind::Gauge => declaration.name.to_owned(),
        };
        let series = prometheus.query(&name);
        assert!(!series.is_empty(), "{name} is declared, and is not on /metrics");
        for label in declaration.labels {
            assert!(series.iter().all(|sample| sample.labels.contains_key(*label)), "{name} has the label {label}");
        }
    }
    for (path, answer) in [("livez", "ok\n"), ("readyz", "ready\n")] {
        let mut response = ureq::get(format!("http://{http}/{path}")).call().unwrap();
        assert_eq!(response.body_mut().read_to_string().unwrap(), answer);
    }

    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());

    // What whoever looks after the dead letters sees.
    let letters = kafka.read(&dead, Isolation::Committed);
    let mut said = String::new();
    for letter in &letters {
        let header = |name: &str| letter.header(name).unwrap_or_else(|| panic!("no header {name} in {letter:?}"));
        let offset: i64 = header("offset").parse().unwrap();
        let (source, kind) = (&records[offset as usize], kinds[&offset]);
        assert_eq!((header("topic").as_str(), header("partition").as_str()), (readings.as_str(), "0"));
        assert_eq!(header("timestamp"), source.timestamp.unwrap().to_string());
        assert_eq!(letter.key, source.key, "{kind}");
        let raw = source.value.as_deref();
        if kind == "10 MB" {
            assert_eq!(header("truncated-from"), "10000000");
            assert_eq!(letter.value.as_deref(), raw.map(|raw| &raw[..64 * 1024]));
        } else {
            assert_eq!(letter.header("truncated-from"), None, "{kind}");
            assert_eq!(letter.value.as_deref(), raw, "{kind}");
        }
        writeln!(said, "{kind}: {} | {}", header("reason"), header("detail")).unwrap();
    }
    insta::assert_snapshot!("dead_letters", said);
    let offsets: Vec<i64> = letters.iter().map(|letter| letter.header("offset").unwrap().parse().unwrap()).collect();
    assert_eq!(offsets, kinds.keys().copied().collect::<Vec<_>>(), "each once, in order");

    // The rows around the bad ones were judged, and the unknown device too, on the fleet's baseline.
    let verdicts = kafka.read(&verdicts, Isolation::Committed);
    let of = |device: &str| verdicts.iter().filter(|record| record.key.as_deref() == Some(device.as_bytes())).count();
    assert_eq!(verdicts.len() as f64, judged);
    assert!(of("pump-000") >= 11 && of("pump-001") >= 11 && of(STRANGER) >= 11, "{} verdicts", verdicts.len());
    for verdict in verdicts.iter().filter(|record| record.key.as_deref() == Some(STRANGER.as_bytes())) {
        let verdict: serde_json::Value = serde_json::from_str(&verdict.text()).unwrap();
        assert!(verdict["score"].is_number() && verdict["p_value"].is_number(), "{verdict}");
        assert_ne!(verdict["class"], "not_a_number");
    }
    let rows: BTreeSet<u64> = verdicts
        .iter()
        .filter(|record| record.key.as_deref() == Some(b"pump-000"))
        .map(|record| serde_json::from_str::<serde_json::Value>(&record.text()).unwrap()["rows"].as_u64().unwrap())
        .collect();
    assert!(rows.contains(&(10 + bad().len() as u64)), "the good rows between the bad ones are in a window: {rows:?}");
}
