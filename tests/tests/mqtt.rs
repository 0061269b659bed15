//! MQTT: whatever the broker hands over is judged, however often the process is killed and the broker restarted.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use avouch_connectors::journal::{JournalOptions, JournalWriter};
use avouch_connectors::store::LaneReader;
use avouch_system_tests::{Avouch, Mosquitto, place, require};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::Packet;
use rumqttc::v5::{AsyncClient, Event, MqttOptions};

const MESSAGES: u32 = 100_000;
const DEVICES: u32 = 20;
const KILLS: u64 = 8;
const LIMIT: Duration = Duration::from_secs(120);

const PIPELINE: &str = r#"
[sources.readings]
kind      = "mqtt"
url       = "mqtt://127.0.0.1:${env:T_PORT:-1}"
topics    = ["plant/+/telemetry"]
client_id = "avouch-test"
format    = "json"
schema    = { device = "utf8!", ts = "timestamp_ms!", temperature = "f64", vibration = "f64", pressure = "f64", rpm = "i64" }
key       = "device"
time      = { column = "ts", max_disorder = "5s", max_future = "3650d" }
"#;

/// The pipeline of the system tests with another source, and sinks that need no Kafka.
fn pipeline(directory: &Path, state: &str) -> Avouch {
    let text = std::fs::read_to_string(pumps::fixture("pumps.toml")).unwrap();
    let (head, rest) = text.split_once("[sources.readings]").unwrap();
    let (_, steps) = rest.split_once("[steps.features]").unwrap();
    let (steps, rest) = steps.split_once("[sinks.verdicts]").unwrap();
    let (_, train) = rest.split_once("[train.anomaly]").unwrap();
    let sinks = "[sinks.verdicts]\nfrom = [\"anomaly\"]\nkind = \"parquet\"\npath = \"file://${env:T_STATE}/archive\"\n\n\
                 [dead_letter]\nkind = \"files\"\npath = \"file://${env:T_STATE}/dead\"\n";
    let text = format!("{head}{PIPELINE}\n[steps.features]{steps}\n{sinks}\n[train.anomaly]{train}");
    std::fs::write(directory.join("pumps.toml"), text).unwrap();
    Avouch::new(["run"])
        .args([directory.join("pumps.toml")])
        .within(directory)
        .env("T_MODEL", pumps::model())
        .env("T_STATE", directory.join(state))
}

fn message(i: u32) -> String {
    let ts = pumps::START + i64::from(i / DEVICES) * 1000;
    let mut text = pumps::reading(&format!("pump-{:03}", i % DEVICES), ts);
    // Each message is itself, so that one that is missing, or there twice, shows.
    text.insert_str(text.len() - 1, &format!(",\"message\":{i}"));
    text
}

/// Publishes all messages at QoS 1, and returns when the broker has acknowledged each. Connects again as often as it must.
fn publish(port: u16) {
    let mut options = MqttOptions::new("publisher", "127.0.0.1", port);
    options.set_clean_start(false).set_session_expiry_interval(Some(3_600)).set_outgoing_inflight_upper_limit(500);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        let (client, mut events) = AsyncClient::new(options, 100);
        let sending = tokio::spawn(async move {
            for i in 0..MESSAGES {
                let topic = format!("plant/{}/telemetry", i % DEVICES);
                client.publish(topic, QoS::AtLeastOnce, false, message(i)).await.unwrap();
            }
            client
        });
        let mut acknowledged = 0;
        while acknowledged < MESSAGES {
            match events.poll().await {
                Ok(Event::Incoming(Packet::PubAck(_))) => acknowledged += 1,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        drop(sending.await);
    });
}

/// The messages of a journal, each with how often it is there.
fn journal(state: &Path) -> (i64, BTreeMap<u32, u32>) {
    let options = JournalOptions { segment_bytes: 64 << 20, max_bytes: u64::MAX, keep_ms: 0 };
    let writer = JournalWriter::open(&state.join("pumps/journal"), options).unwrap();
    let mut reader = writer.reader(None).unwrap();
    let mut out = BTreeMap::new();
    loop {
        let batch = reader.poll(Duration::ZERO, 4096).unwrap();
        let mut records = Vec::new();
        batch.records(&mut records);
        for r in records {
            let text = String::from_utf8(r.value.unwrap().to_vec()).unwrap();
            let i: u32 = text.rsplit_once(':').unwrap().1.trim_end_matches('}').parse().unwrap();
            assert_eq!(text, message(i));
            assert_eq!(r.key.unwrap(), format!("plant/{}/telemetry", i % DEVICES).as_bytes());
            *out.entry(i).or_default() += 1;
        }
        if batch.end().is_some() {
            return (writer.handle().end(), out);
        }
    }
}

#[test]
fn a_hundred_thousand_messages_through_kills_and_broker_restarts() {
    let broker = require!(Mosquitto::start());
    let directory = place::fresh_directory("mqtt");
    let run = pipeline(&directory, "state").env("T_PORT", broker.port().to_string());
    let log = directory.join("avouch.log");
    let began = Instant::now();
    // The session begins before the first message is published.
    let mut process = run.start(&log);
    let connected = |process: &avouch_system_tests::Process| process.log().contains("connected to the MQTT broker");
    avouch_system_tests::eventually("connected", LIMIT, || connected(&process).then_some(()));
    let port = broker.port();
    let publishing = std::thread::spawn(move || publish(port));
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(300 + 137 * (kill % 5)));
        assert!(process.ended().is_none(), "it ended by itself:\n{}", process.log_tail());
        process.kill();
        if kill % 3 == 1 {
            broker.restart();
        }
        process = run.start(&log);
        if kill % 3 == 2 {
            std::thread::sleep(Duration::from_millis(200));
            broker.restart();
        }
    }
    publishing.join().unwrap();
    let lane = directory.join("state/pumps/0");
    // Everything that was published reaches a checkpoint.
    let mut before = (0, Instant::now());
    loop {
        assert!(process.ended().is_none(), "it ended by itself:\n{}", process.log_tail());
        assert!(began.elapsed() < 4 * LIMIT, "it does not come to rest:\n{}", process.log_tail());
        std::thread::sleep(Duration::from_millis(200));
        let at = LaneReader::open_read_only(&lane).map_or(0, |l| l.committed().next_offset);
        if at != before.0 {
            before = (at, Instant::now());
        }
        if at >= i64::from(MESSAGES) && before.1.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    process.signal("TERM");
    process.wait(LIMIT);

    let (end, messages) = journal(&directory.join("state"));
    let missing = (0..MESSAGES).filter(|i| !messages.contains_key(i)).count();
    let twice = messages.values().filter(|n| **n > 1).count();
    println!(
        "{end} records of {MESSAGES} messages, {twice} of them more than once, {KILLS} kills, {:.1?}",
        began.elapsed()
    );
    assert_eq!(missing, 0, "messages the broker had acknowledged are not in the journal");
    let crashed = LaneReader::open_read_only(&lane).unwrap().committed();
    assert_eq!(crashed.next_offset, end, "the lane has judged the whole journal");

    // An unbroken run over the same journal.
    copy(&directory.join("state/pumps/journal"), &directory.join("again/pumps/journal"));
    pipeline(&directory, "again").args(["--until-end"]).run(LIMIT).success();
    let again = directory.join("again/pumps/0");
    let unbroken = LaneReader::open_read_only(&again).unwrap().committed();
    assert_eq!((unbroken.next_offset, unbroken.log_size), (crashed.next_offset, crashed.log_size));
    assert!(unbroken.log_size > 10_000, "{} verdicts", unbroken.log_size);
    assert_eq!(unbroken.root, crashed.root);
    for file in ["records-000000", "entries-000000", "dead-000000"] {
        let read = |dir: &Path| std::fs::read(dir.join(file)).unwrap_or_default();
        assert!(read(&lane) == read(&again), "{file} differs");
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
