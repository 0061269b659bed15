//! Writing to topics: in transactions that carry their own cursor, or at least once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as Rd, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::KafkaError;

const TIMEOUT: Duration = Duration::from_secs(60);
/// What is kept of a value that a topic refuses as too large.
const TRUNCATED_BYTES: usize = 64 * 1024;

/// One record to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutRecord {
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

/// Gathers failed deliveries by the record's place in its batch.
#[derive(Clone, Default)]
struct Deliveries {
    failed: Arc<Mutex<Vec<(usize, Rd)>>>,
}

impl Deliveries {
    fn first(&self) -> Option<Rd> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).first().map(|(_, e)| e.clone())
    }

    fn take(&self) -> Vec<(usize, Rd)> {
        std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<usize>;
    fn delivery(&self, result: &DeliveryResult<'_>, index: Box<usize>) {
        if let Err((e, _)) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((*index, e.clone()));
        }
    }
}

fn base_config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "avouch")
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "200000")
        // The broker decides how large a record may be, not this client.
        .set("message.max.bytes", "1000000000");
    config
}

fn send_all(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    records: &[OutRecord],
    truncate: &[usize],
) -> Result<(), KafkaError> {
    for (i, r) in records.iter().enumerate() {
        let mut headers =
            r.headers.iter().fold(OwnedHeaders::new_with_capacity(r.headers.len() + 1), |h, (key, value)| {
                h.insert(Header { key, value: Some(value) })
            });
        let mut value = r.value.as_deref();
        if truncate.contains(&i)
            && let Some(full) = value
        {
            let size = full.len().to_string();
            headers = headers.insert(Header { key: "truncated-from", value: Some(size.as_bytes()) });
            value = Some(&full[..full.len().min(TRUNCATED_BYTES)]);
        }
        let mut record = BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(topic, Box::new(i)).headers(headers);
        if let Some(k) = r.key.as_deref() {
            record = record.key(k);
        }
        if let Some(v) = value {
            record = record.payload(v);
        }
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((Rd::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    producer.poll(Duration::from_millis(50));
                }
                Err((e, _)) => return Err(KafkaError::client(format!("writing to \"{topic}\""), e)),
            }
        }
    }
    Ok(())
}

/// The records that were refused as too large; any other failure is an error.
fn too_large(topic: &str, failed: Vec<(usize, Rd)>, already: &[usize]) -> Result<Vec<usize>, KafkaError> {
    let mut out = Vec::new();
    for (i, e) in failed {
        match e.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) if !already.contains(&i) => out.push(i),
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                return Err(KafkaError::Refused {
                    topic: topic.to_owned(),
                    why: "too large even when truncated".into(),
                });
            }
            // What an abort does to the others is no failure of theirs.
            Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => {}
            _ => return Err(KafkaError::client(format!("writing to \"{topic}\""), e)),
        }
    }
    Ok(out)
}

/// Writes batches atomically together with a cursor. The cursor is kept as a group offset of the source partition under a
/// group of the sink's own, committed in the same transaction as the records; a writer that starts with the same
/// transactional id fences this one.
pub struct TransactionalSink {
    producer: BaseProducer<Deliveries>,
    cursor: BaseConsumer,
    id: String,
    topic: String,
    cursor_topic: String,
    cursor_partition: i32,
}

impl TransactionalSink {
    /// Opens the sink: fences older writers of `id`, ends what they left open.
    /// The cursor is kept for (`cursor_topic`, `cursor_partition`) in group `id`.
    pub fn open(
        brokers: &str,
        topic: &str,
        id: &str,
        cursor_topic: &str,
        cursor_partition: i32,
    ) -> Result<Self, KafkaError> {
        let deliveries = Deliveries::default();
        let producer: BaseProducer<Deliveries> = base_config(brokers)
            .set("transactional.id", id)
            .set("transaction.timeout.ms", "60000")
            .create_with_context(deliveries)
            .map_err(|e| KafkaError::client("Kafka producer", e))?;
        producer.init_transactions(TIMEOUT).map_err(|e| match e {
            e @ Rd::Transaction(_) if transaction_timed_out(&e) => {
                KafkaError::Unreachable { brokers: brokers.to_owned(), source: e }
            }
            e => KafkaError::client(format!("opening transactions as \"{id}\""), e),
        })?;
        let cursor: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", id)
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .create()
            .map_err(|e| KafkaError::client("Kafka consumer", e))?;
        Ok(Self {
            producer,
            cursor,
            id: id.to_owned(),
            topic: topic.to_owned(),
            cursor_topic: cursor_topic.to_owned(),
            cursor_partition,
        })
    }

    /// Where to go on: the cursor of the last committed transaction and the note written with it, if there was one. Kafka
    /// forgets it `offsets.retention.minutes` (7 days, if not set) after the last transaction.
    pub fn position(&self) -> Result<Option<(u64, String)>, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.cursor_topic, self.cursor_partition);
        let committed = self
            .cursor
            .committed_offsets(list, TIMEOUT)
            .map_err(|e| KafkaError::client(format!("reading the cursor \"{}\"", self.id), e))?;
        let found = committed.find_partition(&self.cursor_topic, self.cursor_partition);
        Ok(match found.as_ref().map(|e| (e.offset(), e.metadata())) {
            Some((Offset::Offset(n), note)) => Some((n.max(0) as u64, note.to_owned())),
            _ => None,
        })
    }

    /// The transactional id, which is also the group that holds the cursor.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes all records and moves the cursor to `next` with a `note` that identifies what was written so far, or does neither. A record that the topic refuses as too large is
    /// written with its first 64 KiB and a header `truncated-from`.
    pub fn write(&self, records: &[OutRecord], next: u64, note: &str) -> Result<(), KafkaError> {
        let mut truncate = Vec::new();
        loop {
            match self.attempt(records, &truncate, next, note) {
                Ok(()) => {
                    self.producer.context().take();
                    return Ok(());
                }
                Err(e) => {
                    let fatal = matches!(&e, KafkaError::Client { source: Rd::Transaction(t), .. } if t.is_fatal())
                        || self.producer.client().fatal_error().is_some();
                    if fatal {
                        return Err(KafkaError::Fenced { id: self.id.clone() });
                    }
                    // Aborting waits for the report on everything sent, and this producer has them only when it is polled.
                    self.producer.purge(PurgeConfig::default().queue());
                    self.producer
                        .flush(TIMEOUT)
                        .and_then(|()| self.producer.abort_transaction(TIMEOUT))
                        .map_err(|e| KafkaError::client(format!("aborting a transaction of \"{}\"", self.id), e))?;
                    let more = too_large(&self.topic, self.producer.context().take(), &truncate)?;
                    if more.is_empty() {
                        return Err(e);
                    }
                    truncate.extend(more);
                }
            }
        }
    }

    fn attempt(&self, records: &[OutRecord], truncate: &[usize], next: u64, note: &str) -> Result<(), KafkaError> {
        let doing = |what: &str| format!("{what} a transaction of \"{}\"", self.id);
        self.producer.begin_transaction().map_err(|e| KafkaError::client(doing("beginning"), e))?;
        send_all(&self.producer, &self.topic, records, truncate)?;
        self.settle()?;
        let mut list = TopicPartitionList::new();
        let mut cursor = list.add_partition(&self.cursor_topic, self.cursor_partition);
        cursor.set_metadata(note);
        cursor.set_offset(Offset::Offset(next as i64)).map_err(|e| KafkaError::client("cursor", e))?;
        let Some(group) = self.cursor.group_metadata() else {
            return Err(KafkaError::client("cursor", Rd::ClientCreation("the cursor's consumer has no group".into())));
        };
        self.producer
            .send_offsets_to_transaction(&list, &group, TIMEOUT)
            .map_err(|e| KafkaError::client(doing("adding the cursor to"), e))?;
        self.producer.commit_transaction(TIMEOUT).map_err(|e| KafkaError::client(doing("committing"), e))
    }

    /// Waits until everything sent is reported on, or one thing is refused: the cursor's request would fail then without
    /// saying what was refused, and the rest is not sent before the transaction is aborted.
    fn settle(&self) -> Result<(), KafkaError> {
        let deadline = Instant::now() + TIMEOUT;
        while self.producer.in_flight_count() > 0 && Instant::now() < deadline {
            self.producer.poll(Duration::from_millis(100));
            if let Some(refused) = self.producer.context().first() {
                return Err(KafkaError::client(format!("writing to \"{}\"", self.topic), refused));
            }
        }
        Ok(())
    }
}

fn transaction_timed_out(e: &Rd) -> bool {
    e.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut)
}

/// Writes batches at least once: whoever calls keeps the cursor and moves it after [`PlainSink::write`] returns.
pub struct PlainSink {
    producer: BaseProducer<Deliveries>,
    topic: String,
}

impl PlainSink {
    /// Opens the sink.
    pub fn open(brokers: &str, topic: &str) -> Result<Self, KafkaError> {
        let producer = base_config(brokers)
            .set("message.timeout.ms", "60000")
            .create_with_context(Deliveries::default())
            .map_err(|e| KafkaError::client("Kafka producer", e))?;
        Ok(Self { producer, topic: topic.to_owned() })
    }

    /// Writes all records and waits until the broker has them. Too large records as in [`TransactionalSink::write`].
    pub fn write(&self, records: &[OutRecord]) -> Result<(), KafkaError> {
        send_all(&self.producer, &self.topic, records, &[])?;
        self.flush()?;
        let refused = too_large(&self.topic, self.producer.context().take(), &[])?;
        if refused.is_empty() {
            return Ok(());
        }
        let again: Vec<OutRecord> = refused.iter().map(|&i| records[i].clone()).collect();
        let all: Vec<usize> = (0..again.len()).collect();
        send_all(&self.producer, &self.topic, &again, &all)?;
        self.flush()?;
        too_large(&self.topic, self.producer.context().take(), &all).map(|_| ())
    }

    fn flush(&self) -> Result<(), KafkaError> {
        self.producer.flush(TIMEOUT).map_err(|e| KafkaError::client(format!("writing to \"{}\"", self.topic), e))
    }
}
