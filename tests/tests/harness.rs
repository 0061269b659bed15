//! The harness itself: that its parts are real, and do what the other tests rely on.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use avouch_system_tests::{Anvil, Isolation, KafkaBroker, Prometheus, Record, records, require};
use rdkafka::producer::Producer;
use serde_json::json;

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::text).collect()
}

#[test]
fn kafka_hides_aborted_and_open_transactions_from_read_committed() {
    let kafka = require!(KafkaBroker::shared());
    let topic = kafka.create_topic("transactions", 1);
    let producer = kafka.transactional(&topic);
    let say = |text: &str| records::send(&producer, &topic, &Record::new("pump-1", text));

    producer.begin_transaction().unwrap();
    say("aborted");
    producer.abort_transaction(records::PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    say("committed");
    producer.commit_transaction(records::PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    say("open");
    kafka.produce(&topic, [Record::new("pump-1", "after the open one")]);

    assert_eq!(texts(&kafka.read(&topic, Isolation::Committed)), ["committed"]);
    let all = ["aborted", "committed", "open", "after the open one"];
    assert_eq!(texts(&kafka.read(&topic, Isolation::Uncommitted)), all);

    producer.commit_transaction(records::PATIENCE).unwrap();
    let committed = kafka.read(&topic, Isolation::Committed);
    assert_eq!(texts(&committed), ["committed", "open", "after the open one"]);
    // Each end of a transaction took an offset of its own: offsets alone never tell how many records there are.
    assert_eq!(committed.iter().map(|record| record.offset).collect::<Vec<_>>(), [2, 4, 5]);
    assert_eq!(kafka.ends(&topic), [7]);
}

#[test]
fn a_second_producer_of_the_same_transactional_id_fences_the_first() {
    let kafka = require!(KafkaBroker::shared());
    let topic = kafka.create_topic("fenced", 1);
    let first = kafka.transactional(&topic);
    first.begin_transaction().unwrap();
    records::send(&first, &topic, &Record::new("pump-1", "from the first"));

    let second = kafka.transactional(&topic);
    assert!(first.commit_transaction(records::PATIENCE).is_err());
    second.begin_transaction().unwrap();
    records::send(&second, &topic, &Record::new("pump-1", "from the second"));
    second.commit_transaction(records::PATIENCE).unwrap();

    assert_eq!(texts(&kafka.read(&topic, Isolation::Committed)), ["from the second"]);
}

#[test]
fn records_come_back_as_they_were_sent() {
    let kafka = require!(KafkaBroker::shared());
    let topic = kafka.create_topic("records", 3);
    let headers = vec![("reason".to_owned(), b"bad".to_vec()), ("reason".to_owned(), vec![0, 255])];
    let sent: Vec<_> = (0..3000)
        .map(|i| Record {
            partition: Some(i % 3),
            offset: i64::from(i / 3),
            timestamp: Some(1_700_000_000_000 + i64::from(i)),
            headers: headers.clone(),
            ..Record::new(format!("pump-{i}"), format!("{{\"i\":{i}}}"))
        })
        .collect();
    kafka.produce(&topic, sent.clone());
    let mut expected = sent;
    expected.sort_by_key(|record| (record.partition, record.offset));
    assert_eq!(kafka.read(&topic, Isolation::Committed), expected);
    assert_eq!(kafka.ends(&topic), [1000, 1000, 1000]);
    assert_eq!(kafka.committed("nobody", &topic), [None, None, None]);
}

#[test]
fn kafka_takes_a_record_of_ten_megabytes() {
    let kafka = require!(KafkaBroker::shared());
    let topic = kafka.create_topic("large", 1);
    let large = vec![b'x'; 10 << 20];
    kafka.produce(&topic, [Record::new("pump-1", large.clone()), Record::new("pump-1", "small")]);
    let found = kafka.read(&topic, Isolation::Committed);
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].value.as_deref(), Some(&large[..]));
}

#[test]
fn a_killed_kafka_comes_back_with_its_records_and_a_frozen_one_goes_on() {
    let kafka = require!(KafkaBroker::start());
    let topic = kafka.create_topic("kept", 1);
    let sent: Vec<_> = (0..100).map(|i| Record::new("pump-1", i.to_string())).collect();
    kafka.produce(&topic, sent.clone());
    kafka.kill();
    kafka.restart();
    assert_eq!(texts(&kafka.read(&topic, Isolation::Committed)), texts(&sent));
    kafka.freeze();
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| kafka.read(&topic, Isolation::Committed).len());
        std::thread::sleep(Duration::from_millis(500));
        assert!(!reading.is_finished(), "a frozen broker answers nothing");
        kafka.thaw();
        assert_eq!(reading.join().unwrap(), 100);
    });
    println!("Kafka took {:.1} s to start", kafka.took().as_secs_f64());
}

#[test]
fn anvil_mines_what_its_accounts_send_and_refuses_a_transaction_past_the_gas_limit() {
    let anvil = require!(Anvil::start());
    assert_eq!(anvil.call("eth_chainId", &json!([])), json!("0x7a69"));
    assert_eq!(anvil.call("eth_blockNumber", &json!([])), json!("0x0"));
    let to = anvil.cast(&["wallet", "address", "--private-key", anvil.key(1)]).unwrap();
    anvil.cast(&["send", "--private-key", anvil.key(0), "--value", "1", &to]).unwrap();
    assert_eq!(anvil.cast(&["balance", &to]).unwrap(), "10000000000000000000001");
    // EIP-7825: 2^24 at most a transaction.
    let limit = |gas: &str| anvil.cast(&["send", "--private-key", anvil.key(0), "--gas-limit", gas, &to]);
    limit("16777216").unwrap();
    assert!(limit("16777217").is_err());
}

#[test]
fn prometheus_scrapes_and_answers() {
    // The smallest thing that can be scraped: a fixed page, however it is asked for.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap());
        }
    });
    let prometheus = require!(Prometheus::start(&[&target]));
    let rows = prometheus.wait_for("sum(harness_rows_total)", Duration::from_secs(30), |value| value > 0.0);
    assert!((rows - 42.0).abs() < f64::EPSILON);
    let by_reason: BTreeMap<_, _> = prometheus
        .query("harness_rows_total")
        .into_iter()
        .map(|sample| (sample.labels["reason"].clone(), sample.value))
        .collect();
    assert_eq!(by_reason, BTreeMap::from([("bad".to_owned(), 2.0), ("late".to_owned(), 40.0)]));
    assert_eq!(prometheus.value("harness_absent"), None);
}

fn answer(mut stream: TcpStream) {
    let page = "# TYPE harness_rows_total counter\nharness_rows_total{reason=\"bad\"} 2\nharness_rows_total{reason=\"late\"} 40\n";
    let _ = stream.read(&mut [0; 4096]);
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
        page.len()
    );
}
