//! A producer that loses nothing silently: idempotent, acknowledged by all, every delivery counted.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use thiserror::Error;

use super::connection::Context;
use super::{KafkaConnection, KafkaError as Connecting};

/// How long a broker may take to answer at the start.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a topic may take to have leaders.
const LEADERS: Duration = Duration::from_secs(10);
/// How long a topic may be unknown: a new one takes a moment to be known by every broker.
const KNOWN: Duration = Duration::from_secs(2);

/// Why records cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// A setting librdkafka does not take.
    #[error("the Kafka client refuses its settings: {why}; see librdkafka's CONFIGURATION.md for names and values")]
    Setting {
        /// What it said.
        why: String,
    },
    /// Nobody answers.
    #[error("no broker at {brokers} answers ({why}); is Kafka running there, and is --brokers right?")]
    NoBroker {
        /// Those that were tried.
        brokers: String,
        /// What the client said last.
        why: String,
    },
    /// The topic is not there.
    #[error("the brokers have no topic `{topic}` ({why}); create it, or let --create-topic do it")]
    NoTopic {
        /// The topic.
        topic: String,
        /// What the broker said.
        why: String,
    },
    /// The topic could not be created.
    #[error("the topic `{topic}` could not be created: {why}")]
    Create {
        /// The topic.
        topic: String,
        /// What the broker said.
        why: String,
    },
    /// The client takes no more records.
    #[error("the Kafka client stopped sending to `{topic}`: {why}")]
    Send {
        /// The topic.
        topic: String,
        /// What it said.
        why: String,
    },
}

/// What a new topic should be like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TopicOptions {
    /// Partitions; the broker's default if `None`.
    pub partitions: Option<i32>,
    /// Replicas; the broker's default if `None`.
    pub replication: Option<i32>,
}

/// Counts deliveries; called by librdkafka from [`Publisher::poll`] and [`Publisher::send`].
#[derive(Default)]
struct Deliveries {
    delivered: AtomicU64,
    failed: AtomicU64,
    first_failure: OnceLock<String>,
    connection: Context,
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.hear(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.connection.token()
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                self.first_failure.get_or_init(|| error.to_string());
            }
        }
    }
}

/// Sends records to one topic: `acks=all`, idempotent, keys placed as Java's default partitioner places them (murmur2).
/// Blocking; at most one thread sends.
pub struct Publisher {
    producer: BaseProducer<Deliveries>,
    topic: String,
    partitions: usize,
    sent: u64,
}

fn config(connection: &KafkaConnection, settings: &[(String, String)], defaults: &[(&str, &str)]) -> ClientConfig {
    let mut config = connection.config();
    for (name, value) in defaults {
        config.set(*name, *value);
    }
    for (name, value) in settings {
        config.set(name, value);
    }
    config
}

fn refused(error: &KafkaError) -> PublishError {
    PublishError::Setting { why: error.to_string() }
}

fn arm(connection: &KafkaConnection, client: *mut rdkafka_sys::rd_kafka_t) -> Result<(), PublishError> {
    connection.arm(client).map_err(|e| PublishError::NoBroker {
        brokers: connection.brokers().to_owned(),
        why: match e {
            Connecting::NotAdmitted { why, .. } => why,
            other => other.to_string(),
        },
    })
}

impl Publisher {
    /// Connects, and waits until the topic has leaders. `settings` go to librdkafka and override the defaults. Errors:
    /// a setting it refuses, no answer in ten seconds, no such topic.
    pub fn connect(
        connection: &KafkaConnection,
        topic: &str,
        settings: &[(String, String)],
    ) -> Result<Self, PublishError> {
        let defaults = [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("partitioner", "murmur2_random"),
            ("linger.ms", "20"),
            ("batch.num.messages", "10000"),
            ("queue.buffering.max.messages", "500000"),
            ("queue.buffering.max.kbytes", "262144"),
            ("message.timeout.ms", "60000"),
        ];
        let context = Deliveries { connection: connection.context(), ..Deliveries::default() };
        let producer: BaseProducer<Deliveries> =
            config(connection, settings, &defaults).create_with_context(context).map_err(|e| refused(&e))?;
        arm(connection, producer.client().native_ptr())?;
        let partitions = await_topic(&producer, connection.brokers(), topic)?;
        Ok(Self { producer, topic: topic.to_owned(), partitions, sent: 0 })
    }

    /// Hands one record to the client, waiting while its queue is full. Without a timestamp the record gets the time of
    /// the call. An `Ok` is no delivery yet: see [`Publisher::failed`] after [`Publisher::finish`].
    pub fn send(&mut self, key: Option<&[u8]>, value: &[u8], timestamp_ms: Option<i64>) -> Result<(), PublishError> {
        self.send_with(key, value, timestamp_ms, None)
    }

    /// [`Publisher::send`] of a record with a header.
    pub fn send_with(
        &mut self,
        key: Option<&[u8]>,
        value: &[u8],
        timestamp_ms: Option<i64>,
        header: Option<(&str, &[u8])>,
    ) -> Result<(), PublishError> {
        let mut record = BaseRecord::to(&self.topic).payload(value);
        if let Some((key, value)) = header {
            record = record.headers(OwnedHeaders::new().insert(Header { key, value: Some(value) }));
        }
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(timestamp) = timestamp_ms {
            record = record.timestamp(timestamp);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => {
                    return Err(PublishError::Send { topic: self.topic.clone(), why: error.to_string() });
                }
            }
        }
    }

    /// Serves deliveries for this long. Call it now and then, and instead of sleeping.
    pub fn poll(&self, time: Duration) {
        self.producer.poll(time);
    }

    /// Waits until every record sent is delivered or has failed, which librdkafka's `message.timeout.ms` bounds.
    pub fn finish(&mut self) -> Result<(), PublishError> {
        while self.delivered() + self.failed() < self.sent {
            match self.producer.flush(Duration::from_secs(1)) {
                Ok(()) => self.producer.poll(Duration::ZERO),
                Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)) => {}
                Err(error) => return Err(PublishError::Send { topic: self.topic.clone(), why: error.to_string() }),
            }
        }
        Ok(())
    }

    /// Partitions of the topic when it was connected to.
    pub fn partitions(&self) -> usize {
        self.partitions
    }

    /// Records handed over so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Records acknowledged so far.
    pub fn delivered(&self) -> u64 {
        self.producer.context().delivered.load(Ordering::Relaxed)
    }

    /// Records refused or timed out so far.
    pub fn failed(&self) -> u64 {
        self.producer.context().failed.load(Ordering::Relaxed)
    }

    /// What was said of the first record that failed.
    pub fn first_failure(&self) -> Option<String> {
        self.producer.context().first_failure.get().cloned()
    }
}

/// Waits until the topic has a leader for every partition, and counts them.
fn await_topic(producer: &BaseProducer<Deliveries>, brokers: &str, topic: &str) -> Result<usize, PublishError> {
    let started = Instant::now();
    loop {
        let metadata = producer.client().fetch_metadata(Some(topic), ANSWER).map_err(|error| {
            // What went wrong with the connections waits in the queue.
            producer.poll(Duration::from_millis(100));
            let said = producer.context().connection.heard_words();
            PublishError::NoBroker { brokers: brokers.to_owned(), why: said.unwrap_or_else(|| error.to_string()) }
        })?;
        let found = metadata.topics().iter().find(|t| t.name() == topic);
        let partitions = found.map_or(0, |t| t.partitions().len());
        let led = found.is_some_and(|t| t.error().is_none() && t.partitions().iter().all(|p| p.leader() >= 0));
        if partitions > 0 && led {
            return Ok(partitions);
        }
        let error = found.and_then(|t| t.error()).map(RDKafkaErrorCode::from);
        let patience = if error == Some(RDKafkaErrorCode::UnknownTopicOrPartition) { KNOWN } else { LEADERS };
        if started.elapsed() > patience {
            let why = error.map_or("its partitions have no leader".to_owned(), |e| e.to_string());
            return Err(PublishError::NoTopic { topic: topic.to_owned(), why });
        }
        producer.poll(Duration::from_millis(200));
    }
}

/// Creates a topic; one that is there already is left as it is. Blocks: not to be called on an async worker.
pub fn create_topic(
    connection: &KafkaConnection,
    topic: &str,
    options: &TopicOptions,
    settings: &[(String, String)],
) -> Result<(), PublishError> {
    let failed = |why: String| PublishError::Create { topic: topic.to_owned(), why };
    let admin: rdkafka::admin::AdminClient<Context> =
        config(connection, settings, &[]).create_with_context(connection.context()).map_err(|e| refused(&e))?;
    arm(connection, admin.inner().native_ptr())?;
    admin
        .inner()
        .fetch_metadata(None, ANSWER)
        .map_err(|e| PublishError::NoBroker { brokers: connection.brokers().to_owned(), why: e.to_string() })?;
    let new = NewTopic::new(
        topic,
        options.partitions.unwrap_or(-1),
        TopicReplication::Fixed(options.replication.unwrap_or(-1)),
    );
    let limits = AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| failed(format!("no thread to wait on: {e}")))?;
    let results = runtime.block_on(admin.create_topics(&[new], &limits)).map_err(|e| failed(e.to_string()))?;
    let outcome: HashMap<String, Option<RDKafkaErrorCode>> = results
        .into_iter()
        .map(|r| match r {
            Ok(name) => (name, None),
            Err((name, code)) => (name, Some(code)),
        })
        .collect();
    match outcome.get(topic) {
        Some(None | Some(RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
        Some(Some(code)) => Err(failed(code.to_string())),
        None => Err(failed("the broker did not say what became of it".into())),
    }
}
