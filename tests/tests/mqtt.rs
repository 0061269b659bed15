//! MQTT: whatever the broker hands over is judged, however often the process is killed and the broker restarted.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use avouch_connectors::journal::{JournalOptions, JournalWriter};
use avouch_connectors::store::LaneReader;
use avouch_system_tests::secured::USER;
use avouch_system_tests::{Avouch, Mosquitto, Process, eventually, place, require};
use pumps::{START, assert_served, metric};
use rumqttc::Transport;
use rumqttc::tokio_rustls::rustls::crypto::aws_lc_rs;
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

fn pipeline(directory: &Path, state: &str) -> Avouch {
    pumps::avouch_without_kafka("run", directory, PIPELINE, state)
}

fn message(i: u32) -> String {
    let ts = pumps::START + i64::from(i / DEVICES) * 1000;
    let mut text = pumps::reading(&format!("pump-{:03}", i % DEVICES), ts);
    // Each message is itself, so that one that is missing, or there twice, shows.
    text.insert_str(text.len() - 1, &format!(",\"message\":{i}"));
    text
}

/// Publishes all messages at QoS 1, and returns when the broker has acknowledged each. Connects again as often as it must.
fn publish(port: u16, count: u32, message: impl Fn(u32) -> String + Send + 'static) {
    publish_with(MqttOptions::new("publisher", "127.0.0.1", port), count, message);
}

fn publish_with(mut options: MqttOptions, count: u32, message: impl Fn(u32) -> String + Send + 'static) {
    options.set_max_packet_size(Some(1 << 20));
    options.set_clean_start(false).set_session_expiry_interval(Some(3_600)).set_outgoing_inflight_upper_limit(500);
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
        let (client, mut events) = AsyncClient::new(options, 100);
        let sending = tokio::spawn(async move {
            for i in 0..count {
                let topic = format!("plant/{}/telemetry", i % DEVICES);
                client.publish(topic, QoS::AtLeastOnce, false, message(i)).await.unwrap();
            }
            client
        });
        let mut acknowledged = 0;
        while acknowledged < count {
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
    connected(&mut process);
    let port = broker.port();
    let publishing = std::thread::spawn(move || publish(port, MESSAGES, message));
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

/// Waits until its session has begun.
fn connected(process: &mut Process) {
    eventually("connected", LIMIT, || {
        assert!(process.ended().is_none(), "it ended by itself:\n{}", process.log_tail());
        process.log().contains("connected to the MQTT broker").then_some(())
    });
}

fn committed(lane: &Path) -> i64 {
    pumps::left::committed(lane).map_or(0, |c| c.next_offset)
}

/// Counters of a lane's last checkpoint.
fn counter(lane: &Path, name: &str) -> u64 {
    let committed = LaneReader::open_read_only(lane).unwrap().committed();
    committed.counters.iter().find(|(n, _)| n == name).unwrap().1
}

#[test]
fn a_full_journal_holds_the_broker_back_and_loses_nothing() {
    const COUNT: u32 = 1_500;
    let broker = require!(Mosquitto::start());
    let directory = place::fresh_directory("mqtt-full");
    let http = format!("127.0.0.1:{}", place::free_port());
    let source = PIPELINE
        .replace("format    =", "journal   = { max_size = \"64MiB\", keep = \"${env:T_KEEP:-1h}\" }\nformat    =");
    let run = pumps::avouch_without_kafka("run", &directory, &source, "state")
        .env("T_PORT", broker.port().to_string())
        .env("T_HTTP", &http);
    let (log, lane) = (directory.join("avouch.log"), directory.join("state/pumps/0"));
    let mut process = run.start(&log);
    connected(&mut process);
    // 96 MiB for a journal of 64.
    let port = broker.port();
    let large = |i: u32| {
        let mut text = message(i);
        text.insert_str(1, &format!("\"pad\":\"{}\",", "x".repeat(64 << 10)));
        text
    };
    publish(port, COUNT, large);
    let full = eventually("the journal is full", LIMIT, || {
        metric(&http, "avouch_journal_size_bytes").filter(|b| *b >= f64::from(64 << 20))
    });
    // A lane that has judged everything changes nothing: what is kept is kept.
    let end = metric(&http, "avouch_journal_end_offset").unwrap();
    assert_served(&http, &["avouch_journal_", "avouch_mqtt_"]);
    eventually("the lane has judged it all", LIMIT, || (committed(&lane) as f64 == end).then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(metric(&http, "avouch_journal_end_offset"), Some(end), "nothing is written to a full journal");
    assert!(end < f64::from(COUNT), "{end} of {COUNT} messages filled it");
    assert!(full < f64::from((64 << 20) + (5 << 20)), "{full} bytes");
    // It can be stopped while it waits for room.
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());

    let mut process = run.clone().env("T_KEEP", "0s").start(&log);
    eventually("the rest comes once there is room", LIMIT, || {
        assert!(process.ended().is_none(), "{}", process.log_tail());
        (committed(&lane) >= i64::from(COUNT)).then_some(())
    });
    eventually("old segments are deleted", LIMIT, || {
        metric(&http, "avouch_journal_size_bytes").filter(|b| *b < f64::from(60 << 20))
    });
    process.signal("TERM");
    process.wait(LIMIT);
    assert_eq!((committed(&lane), counter(&lane, "rows_used")), (i64::from(COUNT), u64::from(COUNT)));
    println!("{end} messages filled the journal with {full} bytes; {COUNT} were judged");
}

#[test]
fn a_broker_that_is_away_is_not_idle() {
    let broker = require!(Mosquitto::start());
    let directory = place::fresh_directory("mqtt-idle");
    let source = PIPELINE.replace("max_disorder = \"5s\"", "max_disorder = \"5s\", idle_after = \"3s\"");
    let run = pumps::avouch_without_kafka("run", &directory, &source, "state").env("T_PORT", broker.port().to_string());
    let (log, lane) = (directory.join("avouch.log"), directory.join("state/pumps/0"));
    let mut process = run.start(&log);
    connected(&mut process);
    publish(broker.port(), 30 * DEVICES, message);
    broker.stop();
    eventually("the lane has judged it all", LIMIT, || (committed(&lane) == i64::from(30 * DEVICES)).then_some(()));
    let windows = || {
        let records = LaneReader::open_read_only(&lane).unwrap().kept(0, usize::MAX).unwrap();
        records.iter().map(|r| r.verdict.window_end as i64).max().unwrap()
    };
    // The rows alone close windows up to 24 s. Longer than `idle_after`, nothing more closes: messages may wait at the broker.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(windows(), START + 20_000);
    assert_eq!(LaneReader::open_read_only(&lane).unwrap().events(0, 10).unwrap(), []);
    // When it is back and has nothing, time goes on.
    broker.restart();
    eventually("the last windows close", LIMIT, || (windows() == START + 35_000).then_some(()));

    // The state has one process.
    let second = run.run(LIMIT);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains(&format!("process {}", process.id())), "{}", second.stderr);
    process.signal("TERM");
    process.wait(LIMIT);
}

const SECURED: &str = r#"username  = "avouch"
password  = "${env:T_PASSWORD}"
ca        = "${env:T_CA}"
format    ="#;

/// What `check --connect` says, without what differs from run to run.
fn says(call: &Avouch, directory: &Path) -> String {
    let outcome = call.run(LIMIT);
    let text = format!("{}{}", outcome.stdout, outcome.stderr);
    let text = text.replace(&directory.display().to_string(), "HERE");
    let lines = text.lines().filter(|l| !l.contains("configHash")).map(|line| match line.split_once("127.0.0.1:") {
        Some((before, after)) if after.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("{before}127.0.0.1:N{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[test]
fn by_tls_and_password_and_what_is_said_of_those_refused() {
    let broker = require!(Mosquitto::secured());
    let directory = place::fresh_directory("mqtt-secured");
    let source = PIPELINE.replace("mqtt://", "mqtts://").replace("format    =", SECURED);
    let call = |command: &str| {
        pumps::avouch_without_kafka(command, &directory, &source, "state")
            .env("T_PORT", broker.port().to_string())
            .env("T_PASSWORD", USER.1)
            .env("T_CA", broker.file("ca.pem"))
    };
    let check = call("check").args(["--connect"]);
    insta::assert_snapshot!("connect_mqtt", says(&check, &directory));
    insta::assert_snapshot!("connect_mqtt_password", says(&check.clone().env("T_PASSWORD", "wrong"), &directory));
    let other = check.clone().env("T_CA", broker.file("other-ca.pem"));
    insta::assert_snapshot!("connect_mqtt_authority", says(&other, &directory));
    insta::assert_snapshot!("connect_mqtt_away", says(&check.clone().env("T_PORT", "1"), &directory));

    // A run says it too, and ends.
    let refused = call("run").env("T_PASSWORD", "wrong").run(LIMIT);
    assert_eq!(refused.code, Some(1));
    insta::assert_snapshot!(
        "mqtt_password",
        refused.stderr.lines().last().unwrap().replace(&broker.port().to_string(), "N")
    );

    let lane = directory.join("state/pumps/0");
    let mut process = call("run").start(&directory.join("avouch.log"));
    connected(&mut process);
    if aws_lc_rs::default_provider().install_default().is_err() {
        unreachable!("nobody else in this process speaks TLS");
    }
    let mut options = MqttOptions::new("publisher", "127.0.0.1", broker.port());
    options.set_credentials(USER.0, USER.1);
    options.set_transport(Transport::tls(std::fs::read(broker.file("ca.pem")).unwrap(), None, None));
    publish_with(options, 1_000, message);
    eventually("all is judged", LIMIT, || (committed(&lane) == 1_000).then_some(()));
    // A broker that let us in once is asked again, whatever it says meanwhile.
    broker.restart();
    process.signal("TERM");
    assert!(process.wait(LIMIT).success(), "{}", process.log_tail());
}

#[test]
fn a_broker_that_grants_less_is_refused() {
    let broker = require!(Mosquitto::start_with(|_| Ok("allow_anonymous true\nmax_qos 0\n".to_owned())));
    let directory = place::fresh_directory("mqtt-qos");
    let port = broker.port().to_string();
    let check = pumps::avouch_without_kafka("check", &directory, PIPELINE, "state").args(["--connect"]);
    insta::assert_snapshot!("connect_mqtt_qos", says(&check.env("T_PORT", &port), &directory));
    let outcome = pipeline(&directory, "state").env("T_PORT", &port).run(LIMIT);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("it grants QoS 0 only"), "{}", outcome.stderr);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
