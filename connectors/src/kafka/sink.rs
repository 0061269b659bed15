//! Writing to topics: in transactions that carry their own cursor, or at least once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as Rd, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::connection::Context;
use super::error::refuses;
use super::{KafkaConnection, KafkaError};

const TIMEOUT: Duration = Duration::from_secs(60);
/// What is kept of a value that a topic refuses as too large.
const TRUNCATED_BYTES: usize = 64 * 1024;
/// Room for what Kafka adds to a record and its batch, generously.
const FRAMING_BYTES: usize = 512;

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

impl OutRecord {
    fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

/// Gathers what was not delivered, and why.
#[derive(Clone, Default)]
struct Deliveries {
    failed: Arc<Mutex<Vec<Rd>>>,
    connection: Context,
}

impl Deliveries {
    fn take(&self) -> Vec<Rd> {
        std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Deliveries {
    fn any(&self) -> bool {
        !self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: Rd, reason: &str) {
        self.connection.hear(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.connection.token()
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((e, _)) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).push(e.clone());
        }
    }
}

fn base_config(connection: &KafkaConnection) -> ClientConfig {
    let mut config = connection.config();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "200000")
        // The broker decides how large a record may be, not this client.
        .set("message.max.bytes", "1000000000");
    config
}

fn producer(connection: &KafkaConnection, config: &ClientConfig) -> Result<BaseProducer<Deliveries>, KafkaError> {
    let deliveries = Deliveries { failed: Arc::default(), connection: connection.context() };
    let producer: BaseProducer<Deliveries> =
        config.create_with_context(deliveries).map_err(|e| connection.refused(e))?;
    connection.arm(producer.client().native_ptr())?;
    Ok(producer)
}

/// What a topic takes, in bytes; see [`super::record_limit`].
fn limited(config: &mut ClientConfig, limit: Option<usize>) -> &mut ClientConfig {
    match limit {
        // A broker judges whole batches by the same limit.
        Some(limit) => config.set("batch.size", limit.clamp(1, 1_000_000).to_string()),
        None => config,
    }
}

fn send_all(
    producer: &BaseProducer<Deliveries>,
    topic: &str,
    limit: Option<usize>,
    records: &[OutRecord],
) -> Result<(), KafkaError> {
    for r in records {
        let mut headers =
            r.headers.iter().fold(OwnedHeaders::new_with_capacity(r.headers.len() + 1), |h, (key, value)| {
                h.insert(Header { key, value: Some(value) })
            });
        let mut value = r.value.as_deref();
        if let (Some(limit), Some(full)) = (limit, value)
            && r.size() + FRAMING_BYTES > limit
        {
            let size = full.len().to_string();
            headers = headers.insert(Header { key: "truncated-from", value: Some(size.as_bytes()) });
            value = Some(&full[..full.len().min(TRUNCATED_BYTES).min(limit / 2)]);
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(headers);
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
                Err((e, _)) => return Err(not_written(topic, e)),
            }
        }
    }
    Ok(())
}

/// What it means that a record was not written: this record is refused, or nothing is taken.
fn not_written(topic: &str, e: Rd) -> KafkaError {
    match refuses(&e) {
        Some(code) => KafkaError::Refused { topic: topic.to_owned(), code, source: e },
        None => KafkaError::client(format!("writing to \"{topic}\""), e),
    }
}

/// Of what was not written, what says most: a refused record, else the first that failed. Those that only shared a batch
/// with it, or were purged, say nothing.
fn most_telling(mut failed: Vec<Rd>) -> Option<Rd> {
    failed.retain(|e| {
        !matches!(
            e.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::PurgeQueue
                    | RDKafkaErrorCode::PurgeInflight
                    | RDKafkaErrorCode::InvalidDifferentRecord
            )
        )
    });
    let refused = failed.iter().position(|e| refuses(e).is_some()).unwrap_or(0);
    (!failed.is_empty()).then(|| failed.swap_remove(refused))
}

/// Writes batches atomically together with a cursor. The cursor is kept as a group offset under a group of the sink's
/// own, committed in the same transaction as the records; a writer that starts with the same transactional id fences
/// this one. Kafka takes group offsets only of partitions that exist, so it stands for partition 0 of the sink's own
/// topic: that is there on whichever cluster the sink writes to, and whatever the pipeline reads.
pub struct TransactionalSink {
    producer: BaseProducer<Deliveries>,
    cursor: BaseConsumer<Context>,
    id: String,
    topic: String,
    limit: Option<usize>,
}

/// The partition of the sink's topic that the cursor is an offset of.
const CURSOR_PARTITION: i32 = 0;

impl TransactionalSink {
    /// Opens the sink: fences older writers of `id`, ends what they left open.
    /// The cursor is kept in group `id`. `limit` is what the topic takes ([`super::record_limit`]).
    pub fn open(connection: &KafkaConnection, topic: &str, limit: Option<usize>, id: &str) -> Result<Self, KafkaError> {
        let producer = producer(
            connection,
            limited(&mut base_config(connection), limit)
                .set("transactional.id", id)
                .set("transaction.timeout.ms", "60000"),
        )?;
        producer.init_transactions(TIMEOUT).map_err(|e| match e {
            e @ Rd::Transaction(_) if transaction_timed_out(&e) => {
                let clear = producer.context().connection.clear_error(connection.brokers());
                clear.unwrap_or(KafkaError::Unreachable { brokers: connection.brokers().to_owned(), source: e })
            }
            e => KafkaError::client(format!("opening transactions as \"{id}\""), e),
        })?;
        let cursor = connection.asking(Some(id))?;
        Ok(Self { producer, cursor, id: id.to_owned(), topic: topic.to_owned(), limit })
    }

    /// Where to go on: the cursor of the last committed transaction and the note written with it, if there was one. Kafka
    /// forgets it `offsets.retention.minutes` (7 days, if not set) after the last transaction.
    pub fn position(&self) -> Result<Option<(u64, String)>, KafkaError> {
        // Serves a token that is due; there are no messages.
        while self.cursor.poll(Duration::ZERO).is_some() {}
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, CURSOR_PARTITION);
        let committed = self
            .cursor
            .committed_offsets(list, TIMEOUT)
            .map_err(|e| KafkaError::client(format!("reading the cursor \"{}\"", self.id), e))?;
        let found = committed.find_partition(&self.topic, CURSOR_PARTITION);
        Ok(match found.as_ref().map(|e| (e.offset(), e.metadata())) {
            Some((Offset::Offset(n), note)) => Some((n.max(0) as u64, note.to_owned())),
            _ => None,
        })
    }

    /// The transactional id, which is also the group that holds the cursor.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes all records and moves the cursor to `next` with a `note` that identifies what was written so far, or does
    /// neither. A record larger than the topic takes is written with its first 64 KiB and a header `truncated-from`.
    pub fn write(&self, records: &[OutRecord], next: u64, note: &str) -> Result<(), KafkaError> {
        let Err(e) = self.attempt(records, next, note) else { return Ok(()) };
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
        // What was refused first says more than that the transaction cannot be committed.
        Err(match most_telling(self.producer.context().take()) {
            Some(failed) => not_written(&self.topic, failed),
            None => e,
        })
    }

    fn attempt(&self, records: &[OutRecord], next: u64, note: &str) -> Result<(), KafkaError> {
        let doing = |what: &str| format!("{what} a transaction of \"{}\"", self.id);
        self.producer.begin_transaction().map_err(|e| KafkaError::client(doing("beginning"), e))?;
        send_all(&self.producer, &self.topic, self.limit, records)?;
        self.reported()?;
        // A writer that was fenced learns it here: librdkafka's next call may never return to one.
        if self.producer.client().fatal_error().is_some() {
            return Err(KafkaError::Fenced { id: self.id.clone() });
        }
        let mut list = TopicPartitionList::new();
        let mut cursor = list.add_partition(&self.topic, CURSOR_PARTITION);
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
}

impl TransactionalSink {
    /// Waits until everything sent is delivered, or one is not: from then on the transaction can only be aborted, and what
    /// still waits in it would wait for as long as a commit may take.
    fn reported(&self) -> Result<(), KafkaError> {
        let writing = |e| KafkaError::client(format!("writing to \"{}\"", self.topic), e);
        let deadline = Instant::now() + TIMEOUT;
        while self.producer.in_flight_count() > 0 && !self.producer.context().any() {
            self.producer.poll(Duration::from_millis(100));
            if Instant::now() > deadline {
                return Err(writing(Rd::MessageProduction(RDKafkaErrorCode::MessageTimedOut)));
            }
        }
        match self.producer.context().any() {
            // Which one says most is seen when all are back.
            true => Err(writing(Rd::MessageProduction(RDKafkaErrorCode::Fail))),
            false => Ok(()),
        }
    }
}

fn transaction_timed_out(e: &Rd) -> bool {
    e.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut)
}

/// Writes batches at least once: whoever calls keeps the cursor and moves it after [`PlainSink::write`] returns.
pub struct PlainSink {
    producer: BaseProducer<Deliveries>,
    topic: String,
    limit: Option<usize>,
}

impl PlainSink {
    /// Opens the sink. `limit` is what the topic takes ([`super::record_limit`]).
    pub fn open(connection: &KafkaConnection, topic: &str, limit: Option<usize>) -> Result<Self, KafkaError> {
        let config = limited(&mut base_config(connection), limit).set("message.timeout.ms", "60000").clone();
        let producer = producer(connection, &config)?;
        Ok(Self { producer, topic: topic.to_owned(), limit })
    }

    /// Writes all records and waits until the broker has them. Too large records as in [`TransactionalSink::write`].
    pub fn write(&self, records: &[OutRecord]) -> Result<(), KafkaError> {
        let sent = send_all(&self.producer, &self.topic, self.limit, records);
        // Also what was sent before one was refused: nothing of this batch is left for the next.
        let flushed = self.producer.flush(TIMEOUT);
        if let Some(failed) = most_telling(self.producer.context().take()) {
            return Err(not_written(&self.topic, failed));
        }
        flushed.map_err(|e| KafkaError::client(format!("writing to \"{}\"", self.topic), e))?;
        sent
    }
}
