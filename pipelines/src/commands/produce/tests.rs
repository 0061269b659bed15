#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use clap::Parser;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: ProduceArgs,
}

fn args(words: &[&str]) -> ProduceArgs {
    Cli::try_parse_from(std::iter::once("produce").chain(words.iter().copied())).unwrap().args
}

/// Key, partition, timestamp and value of every record, by partition and offset.
fn records(brokers: &str, topic: &str, partitions: i32, count: usize) -> Vec<(String, i32, i64, String)> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "reader").create().unwrap();
    let mut all = TopicPartitionList::new();
    for p in 0..partitions {
        all.add_partition_offset(topic, p, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let mut out = Vec::new();
    let started = Instant::now();
    while out.len() < count && started.elapsed() < Duration::from_secs(20) {
        if let Some(m) = consumer.poll(Duration::from_millis(100)) {
            let m = m.unwrap();
            let text = |b: Option<&[u8]>| String::from_utf8_lossy(b.unwrap_or_default()).into_owned();
            out.push((text(m.key()), m.partition(), m.timestamp().to_millis().unwrap(), text(m.payload())));
        }
    }
    assert_eq!(out.len(), count);
    out
}

/// Java's `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = 0x9747_b28cu32 ^ key.len() as u32;
    let mut chunks = key.chunks_exact(4);
    for c in &mut chunks {
        let mut k = u32::from_le_bytes([c[0], c[1], c[2], c[3]]).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    for (i, b) in rest.iter().enumerate() {
        h ^= u32::from(*b) << (8 * i);
    }
    if !rest.is_empty() {
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[test]
fn a_fleet_of_files_arrives_keyed_ordered_and_placed_as_java_places_it() {
    // Vectors of Kafka's own UtilsTest.
    assert_eq!(murmur2(b"21") as i32, -973_932_308);
    assert_eq!(murmur2(b"foobar") as i32, -790_332_482);
    assert_eq!(murmur2(b"a-little-bit-long-string") as i32, -985_981_536);

    let folder = tempfile::tempdir().unwrap();
    for device in 0..6 {
        let mut csv = "datetime;x\n".to_owned();
        for second in 0..50 {
            csv += &format!("2020-03-09 10:14:{second:02};{device}.{second}\n");
        }
        std::fs::create_dir_all(folder.path().join("valve1")).unwrap();
        std::fs::write(folder.path().join(format!("valve1/{device}.csv")), csv).unwrap();
    }
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("skab", 4, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let pattern = folder.path().join("*/*.csv").display().to_string();
    let args = args(&[
        "--brokers",
        &brokers,
        "--topic",
        "skab",
        "--files",
        &pattern,
        "--delimiter",
        ";",
        "--device",
        "path",
        "--time",
        "datetime",
        "--timestamp",
        "event",
        "--first",
        "40",
        "--rate",
        "10000/s",
    ]);
    let (summary, failure) = produce(&args).unwrap();
    assert_eq!(failure, None);
    assert_eq!(
        (summary.rows, summary.delivered, summary.failed, summary.partitions, summary.files),
        (240, 240, 0, 4, 6)
    );
    assert!(summary.seconds >= 0.02, "paced at 10,000 rows a second, took {} s", summary.seconds);

    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    for (key, partition, timestamp, value) in records(&brokers, "skab", 4, 240) {
        assert_eq!(partition as u32, (murmur2(key.as_bytes()) & 0x7fff_ffff) % 4, "{key}");
        let row: serde_json::Value = serde_json::from_str(&value).unwrap();
        assert_eq!(row["device"].as_str(), Some(key.as_str()));
        let before = seen.insert(key, timestamp).unwrap_or(1_583_748_839_000);
        assert_eq!(timestamp, before + 1000, "in order within the device");
    }
    assert_eq!(seen.len(), 6);
}

#[test]
fn bad_lines_go_as_they_stand_with_the_arrival_time_of_the_line_before() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fleet.ndjson");
    std::fs::write(&file, "{\"arrived\":5000,\"device\":\"a\",\"ts\":9}\n{\"arrived\":6000,\"dev\n").unwrap();
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let words = ["--brokers", &brokers, "--topic", "t", "--arrival", "arrived", "--files", file.to_str().unwrap()];
    let error = produce(&args(&words)).unwrap_err().to_string();
    let expected = "fleet.ndjson:2: this line is not a JSON object: EOF while parsing a string, at byte 20; rows delivered before it: 1";
    assert!(error.ends_with(expected), "{error}");
    let kept: Vec<&str> = words.into_iter().chain(["--keep-unreadable"]).collect();
    let (summary, _) = produce(&args(&kept)).unwrap();
    assert_eq!((summary.delivered, summary.unreadable), (2, 1));
    let last = records(&brokers, "t", 1, 3).pop().unwrap();
    assert_eq!(last, (String::new(), 0, 5000, "{\"arrived\":6000,\"dev".into()));
}

#[test]
fn what_cannot_work_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.csv");
    std::fs::write(&file, "device,ts\na,1\n").unwrap();
    let file = file.to_str().unwrap();
    let cluster = MockCluster::new(1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let message = |words: &[&str]| produce(&args(words)).unwrap_err().to_string();
    let base = ["--topic", "t", "--files", file];
    let with = |more: &[&'static str]| -> String {
        let words: Vec<&str> = base.iter().copied().chain(more.iter().copied()).collect();
        message(&words)
    };
    assert_eq!(with(&["--speed", "10x"]), "--speed follows event time; name its column with --time");
    assert_eq!(with(&["--timestamp", "event"]), "--timestamp event needs the event time; name its column with --time");
    let nobody = with(&["--brokers", "127.0.0.1:1"]);
    assert!(nobody.starts_with("no broker at 127.0.0.1:1 answers (") && nobody.contains("onnect"), "{nobody}");
    assert!(nobody.ends_with("is Kafka running there, and is --brokers right?"), "{nobody}");
    let nobody = with(&["--brokers", "127.0.0.1:1", "--create-topic"]);
    assert!(nobody.starts_with("no broker at 127.0.0.1:1 answers ("), "{nobody}");
    let odd = with(&["-X", "lingering=1"]);
    assert!(odd.starts_with("the Kafka client refuses its settings: "), "{odd}");
    drop(brokers);
}

#[test]
fn the_progress_bar_can_be_drawn() {
    assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    assert_eq!(delimiter("\\t"), Ok(b'\t'));
    assert!(delimiter("ab").is_err() && delimiter("").is_err() && delimiter("é").is_err());
    assert!(setting("a=b=c").is_ok() && setting("=b").is_err() && setting("a").is_err());
}
