//! Moving records to another topic exactly once: what is read of one goes to the other in transactions that carry the
//! offsets to read on from, as offsets of the reading group (KIP-447).
//!
//! Who may write is decided by the group alone. Each transaction carries the membership it was made under, and the
//! coordinator refuses the offsets, and so the transaction, of a member that the group has given up: a process that slept
//! and woke writes nothing that counts. Here, and only here, the group's offsets are the truth about where to go on, since
//! they commit together with what they stand for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as Rd, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::admin::admin;
use super::connection::Context;
use super::producing::{Reports, base_config, producer, settle, unwritten, writing};
use super::{KafkaConnection, KafkaError, PartitionReader, Source};

/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);
/// How long a transaction may stay open before the broker ends it: what a killed writer left open hides, for so long at
/// most, what others wrote behind it.
const TRANSACTION: Duration = Duration::from_secs(15);
/// How long a partition may take to be given up before it is begun anew.
const STOPPED: Duration = Duration::from_secs(10);
/// Room that a header of ours may take beside a record as large as the source takes.
const HEADER_ROOM: i64 = 64 * 1024;
const WEEK_MS: i64 = 7 * 86_400_000;

/// A record on its way.
#[derive(Debug, Clone, Copy)]
pub struct Moved<'a> {
    /// Where to.
    pub partition: i32,
    /// Its key there.
    pub key: Option<&'a [u8]>,
    /// Its value, unchanged.
    pub value: Option<&'a [u8]>,
    /// Its timestamp, milliseconds since the epoch.
    pub timestamp: i64,
    /// Its headers, in their order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Writes records in transactions that carry a group's offsets.
pub struct Mover {
    producer: BaseProducer<Reports>,
    name: String,
    topic: String,
    open: bool,
    /// Records handed over since the transaction began.
    sent: usize,
}

impl Mover {
    /// Opens the writer. A transaction that an earlier one of this `name` left open is aborted, and that writer, should it
    /// still live, can do nothing more. `limit`: see [`super::record_limit`].
    pub fn open(
        connection: &KafkaConnection,
        topic: &str,
        limit: Option<usize>,
        name: &str,
    ) -> Result<Self, KafkaError> {
        let producer = producer(
            connection,
            base_config(connection, limit)
                .set("transactional.id", name)
                .set("transaction.timeout.ms", TRANSACTION.as_millis().to_string()),
        )?;
        let mover = Self { producer, name: name.to_owned(), topic: topic.to_owned(), open: false, sent: 0 };
        mover.producer.init_transactions(CALL).map_err(|e| match e.rdkafka_error_code() {
            Some(RDKafkaErrorCode::OperationTimedOut) => {
                let clear = mover.producer.context().connection.clear_error(connection.brokers());
                clear.unwrap_or(KafkaError::Unreachable { brokers: connection.brokers().to_owned(), source: e })
            }
            _ => KafkaError::client(mover.doing("opening"), e),
        })?;
        Ok(mover)
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} a transaction of \"{}\"", self.name)
    }

    /// Whether a transaction is open.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Writes a record within the open transaction, or begins one.
    ///
    /// # Errors
    /// After which the transaction must be aborted.
    pub fn write(&mut self, record: &Moved<'_>) -> Result<(), KafkaError> {
        self.begin()?;
        let mut out = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.topic, self.sent)
            .partition(record.partition)
            // librdkafka would take 0 for "now".
            .timestamp(record.timestamp.max(1));
        out.key = record.key;
        out.payload = record.value;
        if !record.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(record.headers.len());
            out.headers = Some(record.headers.iter().fold(headers, |h, &(key, value)| h.insert(Header { key, value })));
        }
        loop {
            match self.producer.send(out) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok(());
                }
                Err((Rd::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    out = back;
                    self.producer.poll(Duration::from_millis(20));
                    self.undelivered()?;
                }
                Err((e, _)) => {
                    let refused = unwritten(&self.topic, &[(self.sent, e.clone())]);
                    return Err(refused.unwrap_or_else(|| writing(&self.topic, e)));
                }
            }
        }
    }

    /// Serves reports of delivery. Call it now and then between writes.
    ///
    /// # Errors
    /// When something was not delivered: the transaction must be aborted.
    pub fn serve(&self) -> Result<(), KafkaError> {
        self.producer.poll(Duration::ZERO);
        self.undelivered()
    }

    fn undelivered(&self) -> Result<(), KafkaError> {
        if self.producer.client().fatal_error().is_some() {
            return Err(KafkaError::Fenced { id: self.name.clone() });
        }
        match self.producer.context().any() {
            true => Err(KafkaError::client(
                format!("writing to \"{}\"", self.topic),
                Rd::MessageProduction(RDKafkaErrorCode::Fail),
            )),
            false => Ok(()),
        }
    }

    fn begin(&mut self) -> Result<(), KafkaError> {
        if !self.open {
            self.producer.begin_transaction().map_err(|e| KafkaError::client(self.doing("beginning"), e))?;
            self.open = true;
            self.sent = 0;
        }
        Ok(())
    }

    /// Commits what was written, together with the offsets that `source`'s group reads on from; nothing of it counts
    /// unless `source` is a member of its group as the group sees it. With nothing written it commits the offsets alone.
    ///
    /// Partitions that the group has taken back must not be among the offsets once that was answered
    /// ([`Source::release`]): the group checks who a member is, not what it was given.
    ///
    /// # Errors
    /// After which the transaction must be aborted. It may have been committed all the same: what the group says
    /// ([`Positions`]) is what counts.
    pub fn commit(&mut self, source: &Source, offsets: &[(i32, i64)]) -> Result<(), KafkaError> {
        self.begin()?;
        let deadline = Instant::now() + TRANSACTION;
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::from_millis(20));
            self.undelivered()?;
            if Instant::now() > deadline {
                let timed_out = Rd::MessageProduction(RDKafkaErrorCode::MessageTimedOut);
                return Err(KafkaError::client(format!("writing to \"{}\"", self.topic), timed_out));
            }
        }
        // A fenced writer learns it here: librdkafka's next call may never return to one.
        self.undelivered()?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(&source.topic, *partition, Offset::Offset(*offset))
                .map_err(|e| KafkaError::client("offsets", e))?;
        }
        let Some(group) = source.consumer.group_metadata() else {
            return Err(KafkaError::client("offsets", Rd::ClientCreation("the consumer has no group".into())));
        };
        self.patiently(deadline, || self.producer.send_offsets_to_transaction(&list, &group, CALL))
            .map_err(|e| KafkaError::client(self.doing("adding offsets to"), e))?;
        self.patiently(deadline, || self.producer.commit_transaction(CALL))
            .map_err(|e| KafkaError::client(self.doing("committing"), e))?;
        self.open = false;
        Ok(())
    }

    /// Repeats a call for as long as librdkafka says that it can be repeated.
    fn patiently(&self, deadline: Instant, call: impl Fn() -> Result<(), Rd>) -> Result<(), Rd> {
        loop {
            match call() {
                Err(Rd::Transaction(e)) if e.is_retriable() && !e.is_fatal() && Instant::now() < deadline => {
                    tracing::debug!(name = self.name, error = %e, "a transaction is tried again");
                    self.producer.poll(Duration::from_millis(100));
                }
                other => return other,
            }
        }
    }

    /// Aborts the open transaction, if there is one.
    ///
    /// # Errors
    /// When this writer cannot go on. [`Mover::open`] under the same name makes one that can.
    pub fn abort(&mut self) -> Result<(), KafkaError> {
        if self.producer.client().fatal_error().is_some() {
            return Err(KafkaError::Fenced { id: self.name.clone() });
        }
        if !std::mem::take(&mut self.open) {
            return Ok(());
        }
        let failed = |e| KafkaError::client(self.doing("aborting"), e);
        settle(&self.producer).map_err(failed)?;
        self.patiently(Instant::now() + TRANSACTION, || self.producer.abort_transaction(CALL)).map_err(failed)?;
        self.producer.context().take();
        Ok(())
    }

    /// What stands behind a failed transaction: a record that was refused or not delivered says more than what followed
    /// from it. Ask before [`Mover::abort`].
    pub fn cause(&self, e: KafkaError) -> KafkaError {
        unwritten(&self.topic, &self.producer.context().take()).unwrap_or(e)
    }
}

impl Source {
    /// Begins to read a partition that is ours, from `offset` (`None`: the earliest kept), and makes sure that nothing is
    /// left of how it was read before, so that [`PartitionReader::poll_counted`] can be trusted. Only for sources that
    /// follow a group.
    pub fn begin_anew(&self, partition: i32, offset: Option<i64>) -> Result<PartitionReader, KafkaError> {
        self.release_begun(partition)?;
        let reader = PartitionReader::new(self.consumer.clone(), &self.topic, partition, self.most, self.reports_ends)?;
        let began = Instant::now();
        while reader.reached().is_some() {
            if began.elapsed() > STOPPED {
                let late = Rd::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut);
                return Err(KafkaError::client(format!("beginning {}/{partition} anew", self.topic), late));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(reader);
        self.begin(partition, offset)
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The first offset that a partition keeps, and the one after its last committed record.
    pub fn bounds(&self, partition: i32) -> Result<(i64, i64), KafkaError> {
        let found = self.consumer.fetch_watermarks(&self.topic, partition, CALL);
        found.map_err(|e| KafkaError::client(format!("ends of {}/{partition}", self.topic), e))
    }

    fn release_begun(&self, partition: i32) -> Result<(), KafkaError> {
        if self.begun().contains(&partition) {
            self.release(&[partition])?;
        }
        Ok(())
    }
}

/// Where a group reads on, asked without being a member of it.
pub struct Positions {
    client: BaseConsumer<Context>,
    group: String,
    topic: String,
}

impl Positions {
    /// For a topic that the group reads.
    pub fn open(connection: &KafkaConnection, group: &str, topic: &str) -> Result<Self, KafkaError> {
        Self::open_with(connection, group, topic, "read_committed")
    }

    /// The same, but of offsets in open transactions it says what they were before, and sees records of open transactions.
    pub fn open_at_once(connection: &KafkaConnection, group: &str, topic: &str) -> Result<Self, KafkaError> {
        Self::open_with(connection, group, topic, "read_uncommitted")
    }

    fn open_with(connection: &KafkaConnection, group: &str, topic: &str, isolation: &str) -> Result<Self, KafkaError> {
        let mut config = connection.config();
        config
            .set("group.id", group)
            .set("allow.auto.create.topics", "false")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            // With `read_committed` also the coordinator waits for open transactions before it names an offset.
            .set("isolation.level", isolation)
            .set("auto.offset.reset", "earliest");
        let client: BaseConsumer<Context> =
            config.create_with_context(connection.context()).map_err(|e| connection.refused(e))?;
        connection.arm(client.client().native_ptr())?;
        Ok(Self { client, group: group.to_owned(), topic: topic.to_owned() })
    }

    /// The offsets committed, `None` for a partition that has none. While a transaction that carries one is open, there is
    /// no answer: an error that passes.
    pub fn committed(&self, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>, KafkaError> {
        // Serves a token that is due; there are no messages.
        while self.client.poll(Duration::ZERO).is_some() {}
        let failed = |e| KafkaError::client(format!("offsets of the group \"{}\"", self.group), e);
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        let found = self.client.committed_offsets(list, CALL).map_err(failed)?;
        let mut out = BTreeMap::new();
        for element in found.elements() {
            element.error().map_err(failed)?;
            let offset = match element.offset() {
                Offset::Offset(n) if n >= 0 => Some(n),
                _ => None,
            };
            out.insert(element.partition(), offset);
        }
        Ok(out)
    }

    /// Whether a partition of a topic holds a committed record.
    pub fn holds_records(&self, topic: &str, partition: i32) -> Result<bool, KafkaError> {
        let failed = |e| KafkaError::client(format!("looking into {topic}/{partition}"), e);
        let (low, high) = self.client.fetch_watermarks(topic, partition, CALL).map_err(failed)?;
        if high <= low {
            return Ok(false);
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).map_err(failed)?;
        self.client.assign(&list).map_err(failed)?;
        let began = Instant::now();
        let found = loop {
            match self.client.poll(Duration::from_millis(100)) {
                Some(Ok(_)) => break Ok(true),
                Some(Err(Rd::PartitionEOF(_))) => break Ok(false),
                Some(Err(e)) if began.elapsed() > CALL => break Err(failed(e)),
                None if began.elapsed() > CALL => {
                    break Err(failed(Rd::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)));
                }
                _ => {}
            }
        };
        self.client.unassign().map_err(failed)?;
        found
    }
}

/// Creates the topic that records are repartitioned through, unless it exists: it keeps records whole, for a week longer
/// than the source does, and under the timestamps they had there. Returns whether it was created.
pub async fn ensure_repartition_topic(
    connection: &KafkaConnection,
    source: &str,
    topic: &str,
    partitions: i32,
) -> Result<bool, KafkaError> {
    let settings = topic_settings(connection, source).await;
    let number = |name: &str| settings.get(name).and_then(|v| v.parse::<i64>().ok());
    let retention = match number("retention.ms") {
        Some(ms) if ms >= 0 => ms.saturating_add(WEEK_MS),
        // What the broker does not tell is no reason to lose anything.
        _ => -1,
    };
    let mut set = vec![
        ("cleanup.policy", "delete".to_owned()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("retention.ms", retention.to_string()),
        ("retention.bytes", "-1".to_owned()),
    ];
    if let Some(largest) = number("max.message.bytes") {
        let largest = largest.saturating_add(HEADER_ROOM).min(i64::from(i32::MAX));
        set.push(("max.message.bytes", largest.to_string()));
    }
    // What the source took, this topic takes too. Brokers before Kafka 3.6 do not know these.
    for name in ["message.timestamp.before.max.ms", "message.timestamp.after.max.ms"] {
        if settings.contains_key(name) {
            set.push((name, i64::MAX.to_string()));
        }
    }
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    for (name, value) in &set {
        new = new.set(name, value);
    }
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let results = admin(connection)?
        .create_topics([&new], &options)
        .await
        .map_err(|source| KafkaError::Unreachable { brokers: connection.brokers().to_owned(), source })?;
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(true),
        None | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => Err(KafkaError::client(format!("creating topic \"{topic}\""), Rd::AdminOp(code))),
    }
}

/// A topic's settings, defaults too; empty where the broker does not say, for want of a right or of the request.
pub async fn topic_settings(connection: &KafkaConnection, topic: &str) -> BTreeMap<String, String> {
    let Ok(admin) = admin(connection) else { return BTreeMap::new() };
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
    let told = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
    let resources = told.unwrap_or_default().into_iter().flatten();
    resources.flat_map(|r| r.entries).filter_map(|e| Some((e.name, e.value?))).collect()
}
