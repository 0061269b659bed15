//! Writing to topics: in transactions that carry their own cursor, or at least once.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError as Rd, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::connection::Context;
use super::producing::{OutRecord, Reports, TIMEOUT, base_config, delivered, producer, send_all, settle, unwritten};
use super::{KafkaConnection, KafkaError};

/// Writes batches atomically together with a cursor. The cursor is kept as a group offset under a group of the sink's
/// own, committed in the same transaction as the records; a writer that starts with the same transactional id fences
/// this one. Kafka takes group offsets only of partitions that exist, so it stands for partition 0 of the sink's own
/// topic: that is there on whichever cluster the sink writes to, and whatever the pipeline reads.
///
/// After a transaction that failed the next one has a new producer. librdkafka (2.12) does not count the sequence numbers of
/// a refused batch back: unless more was in flight behind it, what its producer sends next is refused too, and so on for ever.
pub struct TransactionalSink {
    connection: KafkaConnection,
    config: ClientConfig,
    state: Mutex<State>,
    cursor: BaseConsumer<Context>,
    id: String,
    topic: String,
    limit: Option<usize>,
}

struct State {
    /// `None` after a transaction that failed.
    producer: Option<BaseProducer<Reports>>,
    position: Position,
}

/// The cursor of the last committed transaction and the note written with it, if there was one.
type Position = Option<(u64, String)>;

/// The partition of the sink's topic that the cursor is an offset of.
const CURSOR_PARTITION: i32 = 0;

impl TransactionalSink {
    /// Opens the sink: fences older writers of `id`, ends what they left open, then reads the cursor.
    /// The cursor is kept in group `id`. `limit` is what the topic takes ([`super::record_limit`]).
    pub fn open(connection: &KafkaConnection, topic: &str, limit: Option<usize>, id: &str) -> Result<Self, KafkaError> {
        let mut config = base_config(connection, limit);
        config.set("transactional.id", id).set("transaction.timeout.ms", "60000");
        let producer = start(connection, &config, id)?;
        let cursor = connection.asking(Some(id))?;
        let state = Mutex::new(State { producer: Some(producer), position: None });
        let (connection, id, topic) = (connection.clone(), id.to_owned(), topic.to_owned());
        let sink = Self { connection, config, state, cursor, id, topic, limit };
        let position = sink.read_cursor()?;
        sink.state().position = position;
        Ok(sink)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves no producer behind, or one that was not used.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_cursor(&self) -> Result<Position, KafkaError> {
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

    /// Where to go on: the cursor of the last committed transaction and the note written with it, if there was one. Kafka
    /// forgets it `offsets.retention.minutes` (7 days, if not set) after the last transaction.
    pub fn position(&self) -> Option<(u64, String)> {
        self.state().position.clone()
    }

    /// The transactional id, which is also the group that holds the cursor.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes all records and moves the cursor to `next` with a `note` that identifies what was written so far, or does
    /// neither.
    ///
    /// # Errors
    /// After [`KafkaError::Refused`] nothing of it is written and the sink can be used again. After any other error it is not
    /// known whether the transaction was committed: open the sink anew and ask for its position.
    pub fn write(&self, records: &[OutRecord], next: u64, note: &str) -> Result<(), KafkaError> {
        let mut state = self.state();
        let producer = match state.producer.take() {
            Some(producer) => producer,
            None => self.renewed(&state.position)?,
        };
        self.transact(&producer, records, next, note)?;
        *state = State { producer: Some(producer), position: Some((next, note.to_owned())) };
        Ok(())
    }

    /// A producer in place of one whose transaction was aborted. Whoever has written as `id` meanwhile is fenced by it, but
    /// what they wrote stands: then it is they who know where to go on.
    fn renewed(&self, position: &Position) -> Result<BaseProducer<Reports>, KafkaError> {
        let producer = start(&self.connection, &self.config, &self.id)?;
        match self.read_cursor()? == *position {
            true => Ok(producer),
            false => Err(KafkaError::Fenced { id: self.id.clone() }),
        }
    }

    fn transact(
        &self,
        producer: &BaseProducer<Reports>,
        records: &[OutRecord],
        next: u64,
        note: &str,
    ) -> Result<(), KafkaError> {
        let Err(e) = self.attempt(producer, records, next, note) else { return Ok(()) };
        if let Some(fatal) = self.fatal(producer) {
            return Err(fatal);
        }
        // It also shows whether this is still the writer.
        settle(producer).and_then(|()| producer.abort_transaction(TIMEOUT)).map_err(|e| {
            let aborting = format!("aborting a transaction of \"{}\"", self.id);
            self.fatal(producer).unwrap_or_else(|| KafkaError::client(aborting, e))
        })?;
        // What was refused first says more than that the transaction cannot be committed.
        Err(unwritten(&self.topic, &producer.context().take()).unwrap_or(e))
    }

    /// What has ended this producer for good, if something has.
    fn fatal(&self, producer: &BaseProducer<Reports>) -> Option<KafkaError> {
        use RDKafkaErrorCode as C;
        let (code, words) = producer.client().fatal_error()?;
        Some(match code {
            C::Fenced | C::ProducerFenced | C::InvalidProducerEpoch => KafkaError::Fenced { id: self.id.clone() },
            code => KafkaError::client(format!("a transaction of \"{}\" ({words})", self.id), Rd::Global(code)),
        })
    }

    fn attempt(
        &self,
        producer: &BaseProducer<Reports>,
        records: &[OutRecord],
        next: u64,
        note: &str,
    ) -> Result<(), KafkaError> {
        let doing = |what: &str| format!("{what} a transaction of \"{}\"", self.id);
        producer.begin_transaction().map_err(|e| KafkaError::client(doing("beginning"), e))?;
        send_all(producer, &self.topic, self.limit, records)?;
        // Once one record is not delivered the transaction can only be aborted, and what still waits in it would wait for as
        // long as a commit may take.
        delivered(producer, &self.topic)?;
        // A writer that was fenced learns it here: librdkafka's next call may never return to one.
        if let Some(fatal) = self.fatal(producer) {
            return Err(fatal);
        }
        let mut list = TopicPartitionList::new();
        let mut cursor = list.add_partition(&self.topic, CURSOR_PARTITION);
        cursor.set_metadata(note);
        cursor.set_offset(Offset::Offset(next as i64)).map_err(|e| KafkaError::client("cursor", e))?;
        let Some(group) = self.cursor.group_metadata() else {
            return Err(KafkaError::client("cursor", Rd::ClientCreation("the cursor's consumer has no group".into())));
        };
        producer
            .send_offsets_to_transaction(&list, &group, TIMEOUT)
            .map_err(|e| KafkaError::client(doing("adding the cursor to"), e))?;
        producer.commit_transaction(TIMEOUT).map_err(|e| KafkaError::client(doing("committing"), e))
    }
}

/// A producer that is the writer of `id` from now on: older ones are fenced, what they left open is aborted.
fn start(connection: &KafkaConnection, config: &ClientConfig, id: &str) -> Result<BaseProducer<Reports>, KafkaError> {
    let producer = producer(connection, config)?;
    producer.init_transactions(TIMEOUT).map_err(|e| match e {
        e @ Rd::Transaction(_) if transaction_timed_out(&e) => {
            let clear = producer.context().connection.clear_error(connection.brokers());
            clear.unwrap_or(KafkaError::Unreachable { brokers: connection.brokers().to_owned(), source: e })
        }
        e => KafkaError::client(format!("opening transactions as \"{id}\""), e),
    })?;
    Ok(producer)
}

fn transaction_timed_out(e: &Rd) -> bool {
    e.rdkafka_error_code() == Some(RDKafkaErrorCode::OperationTimedOut)
}

/// Writes batches at least once: whoever calls keeps the cursor and moves it after [`PlainSink::write`] returns.
pub struct PlainSink {
    connection: KafkaConnection,
    config: ClientConfig,
    /// `None` after a write that failed.
    producer: Mutex<Option<BaseProducer<Reports>>>,
    topic: String,
    limit: Option<usize>,
}

impl PlainSink {
    /// Opens the sink. `limit` is what the topic takes ([`super::record_limit`]).
    pub fn open(connection: &KafkaConnection, topic: &str, limit: Option<usize>) -> Result<Self, KafkaError> {
        let mut config = base_config(connection, limit);
        config.set("message.timeout.ms", "60000");
        let producer = Mutex::new(Some(producer(connection, &config)?));
        Ok(Self { connection: connection.clone(), config, producer, topic: topic.to_owned(), limit })
    }

    /// Writes all records and waits until the broker has them. After an error some of them may be written.
    pub fn write(&self, records: &[OutRecord]) -> Result<(), KafkaError> {
        let mut kept = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let producer = match kept.take() {
            Some(producer) => producer,
            None => producer(&self.connection, &self.config)?,
        };
        let written =
            send_all(&producer, &self.topic, self.limit, records).and_then(|()| delivered(&producer, &self.topic));
        if let Err(e) = written {
            // Also what was sent beside what failed: nothing of this batch is left for the next.
            let flushed = producer.flush(TIMEOUT);
            return Err(match unwritten(&self.topic, &producer.context().take()) {
                Some(failed) => failed,
                None => {
                    flushed.map_or_else(|e| KafkaError::client(format!("writing to \"{}\"", self.topic), e), |()| e)
                }
            });
        }
        *kept = Some(producer);
        Ok(())
    }
}
