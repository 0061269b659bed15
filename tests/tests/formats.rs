//! What is in a topic besides plain JSON: compressed batches of every codec, Avro with a schema registry, Arrow batches.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::time::Duration;

use avouch_system_tests::{Isolation, KafkaBroker, Record, Registry, eventually, place, require};
use pumps::{Place, START};
use rdkafka::config::FromClientConfig;
use rdkafka::producer::BaseRecord;
use rdkafka::producer::{DefaultProducerContext, Producer, ThreadedProducer};

const LIMIT: Duration = Duration::from_secs(60);
const SECONDS: i64 = 40;

#[test]
fn every_compression_codec_is_read() {
    let kafka = require!(KafkaBroker::shared());
    let place = Place::on(kafka, 1);
    let mut rows = 0;
    for (i, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        let mut client = kafka.client();
        client.set("compression.type", codec).set("linger.ms", "50");
        let producer = ThreadedProducer::<DefaultProducerContext>::from_config(&client).unwrap();
        for second in 0..SECONDS {
            let ts = START + (i as i64 * SECONDS + second) * 1000;
            let value = pumps::reading("pump-001", ts);
            let record = BaseRecord::to(place.get("T_READINGS")).key("pump-001").payload(&value).timestamp(ts);
            producer.send(record).map_err(|(e, _)| e).unwrap();
            rows += 1;
        }
        producer.flush(LIMIT).unwrap();
    }
    let run = place.avouch("run").args(["--until-end", "--json"]).run(LIMIT).success().json();
    assert_eq!((&run["rows_in"], &run["rows_used"]), (&rows.into(), &rows.into()), "{run}");
    assert!(kafka.read(place.get("T_VERDICTS"), Isolation::Committed).len() as i64 >= rows / 5 - 2);
}

const SCHEMA_1: &str = r#"{"type":"record","name":"Reading","namespace":"acme","fields":[
    {"name":"device","type":"string"},{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"temperature","type":"double"},{"name":"vibration","type":"double"},{"name":"pressure","type":"float"},{"name":"rpm","type":"int"}]}"#;
/// A field more, one less, another order, and nullable.
const SCHEMA_2: &str = r#"{"type":"record","name":"Reading","namespace":"acme","fields":[
    {"name":"site","type":["null","string"],"default":null},{"name":"rpm","type":["null","long"],"default":null},
    {"name":"device","type":"string"},{"name":"temperature","type":"float"},{"name":"vibration","type":"double"},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;
/// A type that does not fit.
const SCHEMA_3: &str = r#"{"type":"record","name":"Reading","namespace":"acme","fields":[
    {"name":"device","type":"string"},{"name":"ts","type":"long"},{"name":"temperature","type":"string"}]}"#;

fn long(n: i64, out: &mut Vec<u8>) {
    let mut z = ((n << 1) ^ (n >> 63)) as u64;
    while z >= 0x80 {
        out.push(z as u8 | 0x80);
        z >>= 7;
    }
    out.push(z as u8);
}

fn text(t: &str, out: &mut Vec<u8>) {
    long(t.len() as i64, out);
    out.extend_from_slice(t.as_bytes());
}

/// A reading as a producer with this schema writes it.
fn avro(id: u32, device: &str, ts: i64) -> Record {
    let mut v = vec![0];
    v.extend_from_slice(&id.to_be_bytes());
    match id {
        2 => {
            long(1, &mut v);
            text("north", &mut v);
            long(1, &mut v);
            long(1440, &mut v);
            text(device, &mut v);
            v.extend_from_slice(&40.5f32.to_le_bytes());
            v.extend_from_slice(&0.05f64.to_le_bytes());
            long(ts * 1000, &mut v);
        }
        3 => {
            text(device, &mut v);
            long(ts, &mut v);
            text("hot", &mut v);
        }
        _ => {
            text(device, &mut v);
            long(ts, &mut v);
            v.extend_from_slice(&40.5f64.to_le_bytes());
            v.extend_from_slice(&0.05f64.to_le_bytes());
            v.extend_from_slice(&4.2f32.to_le_bytes());
            long(1440, &mut v);
        }
    }
    pumps::record(0, device, ts, v)
}

/// The pumps' pipeline, reading another format.
fn reading(place: &Place, format: &str) {
    let text = std::fs::read_to_string(&place.file).unwrap();
    let changed = text.replacen("format  = \"json\"", format, 1);
    assert_ne!(text, changed);
    std::fs::write(&place.file, changed).unwrap();
}

#[test]
fn avro_waits_for_its_registry_and_loses_nothing() {
    let kafka = require!(KafkaBroker::shared());
    let mut place = Place::on(kafka, 1);
    let (port, http) = (place::free_port(), format!("127.0.0.1:{}", place::free_port()));
    place.set("T_HTTP", &http);
    place.set("T_REGISTRY", format!("http://127.0.0.1:{port}"));
    place.set("T_REGISTRY_PASSWORD", "pass");
    reading(
        &place,
        "format = \"avro\"\nregistry = { url = \"${env:T_REGISTRY:-http://127.0.0.1:1}\", username = \"user\", password = \"${env:T_REGISTRY_PASSWORD}\" }",
    );
    let at = |second: i64| START + second * 1000;
    let mut records: Vec<Record> = (0..SECONDS).map(|s| avro(1, "pump-001", at(s))).collect();
    records.extend((SECONDS..2 * SECONDS).map(|s| avro(2, "pump-001", at(s))));
    records.push(avro(3, "pump-001", at(2 * SECONDS)));
    records.push(avro(77, "pump-001", at(2 * SECONDS)));
    records.push(pumps::record(0, "pump-001", at(2 * SECONDS), pumps::reading("pump-001", at(2 * SECONDS))));
    records.push(avro(2, "pump-001", at(2 * SECONDS)));
    let (rows, bad) = (records.len() as f64, 3.0);
    kafka.produce(place.get("T_READINGS"), records);

    // The registry is down: the lane says so and stands still.
    let mut process = place.avouch("run").start(&place.directory.join("avouch.log"));
    let metric = |name: &str| pumps::metric(&http, name);
    eventually("the lane asks for schema 1", LIMIT, || {
        (metric("avouch_lane_schema_errors_total")? >= 2.0).then_some(())
    });
    let ready = ureq::get(format!("http://{http}/readyz")).config().http_status_as_error(false).build().call();
    let said = ready.unwrap().body_mut().read_to_string().unwrap();
    assert!(said.contains("schema 1") && said.contains("does not answer"), "{said}");
    assert_eq!(metric("avouch_lane_rows_in_total"), Some(0.0));

    let registry = Registry::start(port, Some("Basic dXNlcjpwYXNz"));
    for (id, schema) in [(1, SCHEMA_1), (2, SCHEMA_2), (3, SCHEMA_3)] {
        registry.register(id, schema);
    }
    eventually("every row is read", LIMIT, || (metric("avouch_lane_rows_in_total") == Some(rows)).then_some(()));
    assert_eq!(metric("avouch_lane_rows_used_total"), Some(rows - bad));
    eventually("the dead letters are delivered", LIMIT, || {
        (kafka.read(place.get("T_DEAD"), Isolation::Committed).len() as f64 == bad).then_some(())
    });
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
    let said: Vec<String> = kafka
        .read(place.get("T_DEAD"), Isolation::Committed)
        .iter()
        .map(|l| format!("{}: {}", l.header("reason").unwrap(), l.header("detail").unwrap()))
        .collect();
    insta::assert_snapshot!("avro_dead_letters", said.join("\n"));
    assert_eq!(registry.asked(), [1, 2, 3, 77], "each once");

    // What was fetched is kept: another run needs the registry for nothing it has seen.
    kafka.produce(place.get("T_READINGS"), (0..5).map(|s| avro(1, "pump-001", at(2 * SECONDS + 30 + s))));
    place.set("T_HTTP", "127.0.0.1:0");
    let run = place.avouch("run").args(["--until-end", "--json"]).run(LIMIT).success().json();
    assert_eq!(run["rows_in"], rows as i64 + 5);
    assert_eq!(registry.asked(), [1, 2, 3, 77]);
}
