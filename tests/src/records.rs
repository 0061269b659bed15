//! Records in and out of Kafka, by librdkafka with nothing of Avouch in between: what the tests see is what the broker keeps.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::KafkaBroker;

/// How long any one exchange with the broker may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// One record of a topic. `offset` is only read, never written; a `partition` of `None` lets the key decide.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// The partition it is in, or is to go to.
    pub partition: Option<i32>,
    /// Where in the partition it was found.
    pub offset: i64,
    /// Milliseconds since the epoch; the time of production where none is given.
    pub timestamp: Option<i64>,
    /// The key's bytes.
    pub key: Option<Vec<u8>>,
    /// The value's bytes.
    pub value: Option<Vec<u8>>,
    /// Headers in their order; Kafka allows a name twice.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// A record of a key and a value, the rest left to the broker.
    pub fn new(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(key.into()), value: Some(value.into()), ..Self::default() }
    }

    /// The value of the first header of that name, as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// The value as text, with anything that is not UTF-8 replaced; empty if there is none.
    pub fn text(&self) -> String {
        self.value.as_deref().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }
}

/// Which records a reader is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions, and those of none: what an exactly-once reader sees.
    Committed,
    /// Also those of aborted and open transactions.
    Uncommitted,
}

impl KafkaBroker {
    /// A client's settings for this broker; [`ClientConfig::set`] more.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("message.max.bytes", "20971520").set("log_level", "3");
        config
    }

    /// Creates a topic whose name begins with `what` and is used by no other test, and waits until it can be written to.
    ///
    /// # Panics
    /// If the broker refuses.
    pub fn create_topic(&self, what: &str, partitions: i32) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{what}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.create_topic_named(&name, partitions, &[("max.message.bytes", "20971520")]);
        name
    }

    /// Creates a topic with settings of its own, and waits until each partition has a leader.
    ///
    /// # Panics
    /// If the broker refuses, for instance because there is one of that name.
    pub fn create_topic_named(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let admin: AdminClient<DefaultClientContext> = self.create(&self.client());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let done =
            runtime.block_on(admin.create_topics(&[topic], &AdminOptions::new().operation_timeout(Some(PATIENCE))));
        for result in done.unwrap_or_else(|error| panic!("creating topic {name}: {error}\n{}", self.log_tail())) {
            result.unwrap_or_else(|(topic, error)| panic!("creating topic {topic}: {error}"));
        }
        crate::eventually(&format!("topic {name} has leaders"), PATIENCE, || {
            let found = admin.inner().fetch_metadata(Some(name), Duration::from_secs(5)).ok()?;
            let topic = found.topics().first()?;
            let led = topic.partitions().iter().all(|partition| partition.error().is_none() && partition.leader() >= 0);
            (led && i32::try_from(topic.partitions().len()) == Ok(partitions)).then_some(())
        });
    }

    /// Produces records in order, each acknowledged before this returns.
    ///
    /// # Panics
    /// If the broker does not acknowledge one of them.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = Record>) {
        let producer: ThreadedProducer<DefaultProducerContext> =
            self.create(self.client().set("linger.ms", "5").set("enable.idempotence", "true"));
        for record in records {
            loop {
                match producer.send(base_record(topic, &record)) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err((error, _)) => panic!("producing to {topic}: {error}"),
                }
            }
        }
        producer.flush(PATIENCE).unwrap_or_else(|error| panic!("producing to {topic}: {error}\n{}", self.log_tail()));
        assert_eq!(producer.in_flight_count(), 0, "everything was acknowledged");
    }

    /// A transactional producer, its transactions initialised (which aborts those an earlier one of the same id left open).
    ///
    /// # Panics
    /// If the broker does not answer.
    pub fn transactional(&self, id: &str) -> BaseProducer {
        let producer: BaseProducer = self.create(self.client().set("transactional.id", id));
        producer.init_transactions(PATIENCE).unwrap_or_else(|error| panic!("{error}\n{}", self.log_tail()));
        producer
    }

    /// All records of a topic, up to the end as it is now, partition by partition in order of offset.
    ///
    /// Under [`Isolation::Committed`] the end is the last stable offset: an open transaction hides all that follows it.
    ///
    /// # Panics
    /// If the broker does not answer, or the topic does not exist.
    pub fn read(&self, topic: &str, isolation: Isolation) -> Vec<Record> {
        let level = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        let consumer: BaseConsumer = self.create(
            self.client()
                // librdkafka wants a name for the group; nothing is committed to it.
                .set("group.id", "avouch-harness")
                .set("isolation.level", level)
                .set("enable.auto.commit", "false")
                .set("enable.partition.eof", "true")
                .set("fetch.message.max.bytes", "20971520")
                .set("receive.message.max.bytes", "104857600"),
        );
        let partitions = self.partitions(&consumer, topic);
        let mut assignment = TopicPartitionList::new();
        for &partition in &partitions {
            assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
        }
        consumer.assign(&assignment).unwrap_or_else(|error| panic!("reading {topic}: {error}"));
        let mut open: BTreeSet<i32> = partitions.into_iter().collect();
        let mut records = Vec::new();
        let mut heard = Instant::now();
        while !open.is_empty() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if open.contains(&message.partition()) {
                        records.push(owned(&message));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    open.remove(&partition);
                }
                // Broken connections are tried again by librdkafka.
                Some(Err(_)) | None => {
                    assert!(heard.elapsed() < PATIENCE, "{topic} cannot be read:\n{}", self.log_tail())
                }
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// The end of each partition: the offset that the next record gets.
    ///
    /// # Panics
    /// If the broker does not answer.
    pub fn ends(&self, topic: &str) -> Vec<i64> {
        let consumer: BaseConsumer = self.create(self.client().set("isolation.level", "read_uncommitted"));
        let end = |partition| {
            let marks = consumer.fetch_watermarks(topic, partition, PATIENCE);
            marks.unwrap_or_else(|error| panic!("the end of {topic}/{partition}: {error}")).1
        };
        self.partitions(&consumer, topic).into_iter().map(end).collect()
    }

    /// The offsets a consumer group has committed, by partition; `None` where it has committed nothing.
    ///
    /// # Panics
    /// If the broker does not answer.
    pub fn committed(&self, group: &str, topic: &str) -> Vec<Option<i64>> {
        let consumer: BaseConsumer = self.create(self.client().set("group.id", group));
        let mut wanted = TopicPartitionList::new();
        for partition in self.partitions(&consumer, topic) {
            wanted.add_partition(topic, partition);
        }
        let found = consumer.committed_offsets(wanted, PATIENCE);
        let found = found.unwrap_or_else(|error| panic!("the offsets of {group} on {topic}: {error}"));
        found.elements().iter().map(|element| element.offset().to_raw().filter(|&offset| offset >= 0)).collect()
    }

    fn partitions(&self, consumer: &BaseConsumer, topic: &str) -> Vec<i32> {
        let found = consumer.fetch_metadata(Some(topic), PATIENCE);
        let found = found.unwrap_or_else(|error| panic!("the partitions of {topic}: {error}\n{}", self.log_tail()));
        let found = found.topics().first().expect("metadata of the topic asked for");
        assert!(found.error().is_none(), "topic {topic}: {:?}", found.error().map(RDKafkaErrorCode::from));
        let mut partitions: Vec<_> = found.partitions().iter().map(|partition| partition.id()).collect();
        partitions.sort_unstable();
        partitions
    }

    fn create<T: FromClientConfig>(&self, config: &ClientConfig) -> T {
        config.create().unwrap_or_else(|error| panic!("a client of {}: {error}", self.bootstrap()))
    }
}

/// Sends a record and waits until the broker has acknowledged it; within a transaction, as part of it.
///
/// # Panics
/// If it is not acknowledged.
pub fn send(producer: &BaseProducer, topic: &str, record: &Record) {
    producer.send(base_record(topic, record)).unwrap_or_else(|(error, _)| panic!("sending to {topic}: {error}"));
    producer.flush(PATIENCE).unwrap_or_else(|error| panic!("sending to {topic}: {error}"));
}

/// The values of records as a printable list, for a failed assertion.
pub fn show(records: &[Record]) -> String {
    let mut text = String::new();
    for record in records {
        let partition = record.partition.unwrap_or(-1);
        let _ = writeln!(text, "{partition}/{}: {}", record.offset, record.text());
    }
    text
}

fn base_record<'a>(topic: &'a str, record: &'a Record) -> BaseRecord<'a, [u8], [u8]> {
    let mut base = BaseRecord::to(topic);
    base.partition = record.partition;
    base.key = record.key.as_deref();
    base.payload = record.value.as_deref();
    base.timestamp = record.timestamp;
    if !record.headers.is_empty() {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        base.headers = Some(headers);
    }
    base
}

fn owned(message: &impl Message) -> Record {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
    });
    Record {
        partition: Some(message.partition()),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}
