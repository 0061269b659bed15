//! What a write to a topic is made of: records, the producer that sends them, and the reports that come back.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::error::{KafkaError as Rd, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig};

use super::connection::Context;
use super::error::refuses;
use super::{KafkaConnection, KafkaError};

/// How long one exchange with the brokers may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// How often reports are looked for. `poll` takes all of the time it is given, also where there is nothing left to wait for.
pub(super) const STEP: Duration = Duration::from_millis(5);
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
    /// The partition; by the key if not given.
    pub partition: Option<i32>,
    /// Headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// A header whose name is the pipeline's to choose.
    pub named: Option<(String, Vec<u8>)>,
    /// Whether a value that is too large for the topic is cut short (to 64 KiB, or half of what the topic takes if that is
    /// less; the header `truncated-from` then has its full size) or left to the broker to refuse.
    pub may_be_cut: bool,
}

impl OutRecord {
    fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
        let named = self.named.as_ref().map_or(0, |(key, value)| key.len() + value.len() + 16);
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers + named
    }
}

/// What was not delivered: the record's number among those sent, and why.
type Failed = Vec<(usize, Rd)>;

/// Gathers what was not delivered.
#[derive(Clone, Default)]
pub(super) struct Reports {
    failed: Arc<Mutex<Failed>>,
    pub connection: Context,
}

impl Reports {
    pub fn take(&self) -> Failed {
        std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn any(&self) -> bool {
        !self.failed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: Rd, reason: &str) {
        self.connection.hear(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.connection.token()
    }
}

impl ProducerContext for Reports {
    /// The record's number among those sent.
    type DeliveryOpaque = usize;
    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if let Err((e, _)) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((number, e.clone()));
        }
    }
}

/// What every producer has. `limit` is what the topic takes, in bytes; see [`super::record_limit`].
pub(super) fn base_config(connection: &KafkaConnection, limit: Option<usize>) -> ClientConfig {
    let mut config = connection.config();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "200000")
        // The broker decides how large a record may be, not this client.
        .set("message.max.bytes", "1000000000");
    if let Some(limit) = limit {
        // A broker judges whole batches by the same limit.
        config.set("batch.size", limit.clamp(1, 1_000_000).to_string());
    }
    config
}

pub(super) fn producer(
    connection: &KafkaConnection,
    config: &ClientConfig,
) -> Result<BaseProducer<Reports>, KafkaError> {
    let reports = Reports { failed: Arc::default(), connection: connection.context() };
    let producer: BaseProducer<Reports> = config.create_with_context(reports).map_err(|e| connection.refused(e))?;
    connection.arm(producer.client().native_ptr())?;
    Ok(producer)
}

/// Hands all records to the producer, numbered from 0.
pub(super) fn send_all(
    producer: &BaseProducer<Reports>,
    topic: &str,
    limit: Option<usize>,
    records: &[OutRecord],
) -> Result<(), KafkaError> {
    for (number, r) in records.iter().enumerate() {
        let mut headers =
            r.headers.iter().fold(OwnedHeaders::new_with_capacity(r.headers.len() + 1), |h, (key, value)| {
                h.insert(Header { key, value: Some(value) })
            });
        if let Some((key, value)) = &r.named {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut value = r.value.as_deref();
        if let (Some(limit), Some(full)) = (limit, value)
            && r.may_be_cut
            && r.size() + FRAMING_BYTES > limit
        {
            let size = full.len().to_string();
            headers = headers.insert(Header { key: "truncated-from", value: Some(size.as_bytes()) });
            value = Some(&full[..full.len().min(TRUNCATED_BYTES).min(limit / 2)]);
        }
        let mut record = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, number).headers(headers);
        if let Some(partition) = r.partition {
            record = record.partition(partition);
        }
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
                    producer.poll(STEP);
                }
                Err((e, _)) => {
                    return Err(unwritten(topic, &[(number, e.clone())]).unwrap_or_else(|| writing(topic, e)));
                }
            }
        }
    }
    Ok(())
}

/// Serves reports until all that was sent is delivered, or one record is not.
pub(super) fn delivered(producer: &BaseProducer<Reports>, topic: &str) -> Result<(), KafkaError> {
    let deadline = Instant::now() + TIMEOUT;
    while producer.in_flight_count() > 0 && !producer.context().any() {
        producer.poll(STEP);
        if Instant::now() > deadline {
            return Err(writing(topic, Rd::MessageProduction(RDKafkaErrorCode::MessageTimedOut)));
        }
    }
    match producer.context().any() {
        // Which report says most is seen when all are back.
        true => Err(writing(topic, Rd::MessageProduction(RDKafkaErrorCode::Fail))),
        false => Ok(()),
    }
}

/// Waits until nothing of a transaction that failed is under way. Aborting would wait for it too, but this producer has reports
/// only when it is polled. What was on its way behind a refused batch is put back into the queue when its answer comes,
/// and would wait there for an abort that waits for it: so the queue is emptied again and again.
pub(super) fn settle(producer: &BaseProducer<Reports>) -> Result<(), Rd> {
    let deadline = Instant::now() + TIMEOUT;
    while producer.in_flight_count() > 0 {
        producer.purge(PurgeConfig::default().queue());
        producer.poll(STEP);
        if Instant::now() > deadline {
            return Err(Rd::Flush(RDKafkaErrorCode::OperationTimedOut));
        }
    }
    Ok(())
}

pub(super) fn writing(topic: &str, e: Rd) -> KafkaError {
    KafkaError::client(format!("writing to \"{topic}\""), e)
}

/// What it means that these were not delivered: some of them are refused, or nothing is taken now.
///
/// A broker refuses a batch as a whole. It names the culprits where it can (`InvalidRecord`, for two or more of them), and
/// librdkafka says of the others that they only shared the batch; where it cannot (a batch too large, one culprit alone), all
/// of the batch come back with the same code, and any of them may be the refused one. What was purged says nothing.
pub(super) fn unwritten(topic: &str, failed: &[(usize, Rd)]) -> Option<KafkaError> {
    use RDKafkaErrorCode as C;
    let shared = |e: &Rd| e.rdkafka_error_code() == Some(C::InvalidDifferentRecord);
    let purged = |e: &Rd| matches!(e.rdkafka_error_code(), Some(C::PurgeQueue | C::PurgeInflight));
    let refused = |suspect: &dyn Fn(&Rd) -> bool| -> Option<KafkaError> {
        let (_, first) = failed.iter().filter(|(_, e)| suspect(e)).min_by_key(|(number, _)| *number)?;
        let numbers = || failed.iter().filter(|(_, e)| suspect(e)).map(|(number, _)| *number);
        let among: Range<usize> = numbers().min()?..numbers().max()? + 1;
        let code = first.rdkafka_error_code()?;
        Some(KafkaError::Refused { topic: topic.to_owned(), code, among, source: first.clone() })
    };
    refused(&|e| refuses(e).is_some())
        // A sink that is down says more than a culprit who was not found.
        .or_else(|| failed.iter().find(|(_, e)| !shared(e) && !purged(e)).map(|(_, e)| writing(topic, e.clone())))
        .or_else(|| refused(&shared))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::delivery::{DownKind, Failure};

    fn failure(failed: &[(usize, RDKafkaErrorCode)]) -> Option<Failure> {
        let failed: Vec<_> = failed.iter().map(|(n, code)| (*n, Rd::MessageProduction(*code))).collect();
        unwritten("t", &failed).map(|e| e.failure())
    }

    fn refused(failed: &[(usize, RDKafkaErrorCode)]) -> (String, Range<usize>) {
        match failure(failed) {
            Some(Failure::Refused { status, among: Some(among), .. }) => (status, among),
            other => panic!("{other:?}"),
        }
    }

    // The reports are those of librdkafka 2.12.1 on Apache Kafka 4.
    #[test]
    fn who_may_be_refused_is_read_from_the_reports() {
        use RDKafkaErrorCode as C;
        let too_large = |numbers: Range<usize>| numbers.map(|n| (n, C::MessageSizeTooLarge));
        let purged = |numbers: Range<usize>| numbers.map(|n| (n, C::PurgeQueue));
        let case: Vec<_> = too_large(0..6).collect();
        assert_eq!(refused(&case), ("MessageSizeTooLarge".into(), 0..6), "a batch, without a name");
        let case: Vec<_> = too_large(2..3).chain(purged(3..6)).collect();
        assert_eq!(refused(&case), ("MessageSizeTooLarge".into(), 2..3), "a batch of its own, then what was purged");
        let case: Vec<_> = purged(3..6).chain(too_large(2..3)).collect();
        assert_eq!(refused(&case), ("MessageSizeTooLarge".into(), 2..3));
        let named = [2, 4].map(|n| (n, C::InvalidRecord));
        let case: Vec<_> = [0, 1, 3, 5].map(|n| (n, C::InvalidDifferentRecord)).into_iter().chain(named).collect();
        assert_eq!(refused(&case), ("InvalidRecord".into(), 2..5), "the broker names two");
        assert_eq!(refused(&[(0, C::MessageBatchTooLarge)]), ("MessageBatchTooLarge".into(), 0..1));
        let nobody = [0, 1].map(|n| (n, C::InvalidDifferentRecord));
        assert_eq!(refused(&nobody), ("InvalidDifferentRecord".into(), 0..2), "a culprit that nobody named");
    }

    #[test]
    fn what_is_down_refuses_nothing() {
        use RDKafkaErrorCode as C;
        let down = |failed: &[(usize, C)]| match failure(failed) {
            Some(Failure::Down { kind, .. }) => kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(down(&[(3, C::PurgeQueue), (0, C::MessageTimedOut)]), DownKind::Timeout);
        assert_eq!(down(&[(0, C::TopicAuthorizationFailed)]), DownKind::Denied);
        assert_eq!(down(&[(0, C::NotEnoughReplicas)]), DownKind::Failed);
        assert_eq!(down(&[(0, C::InvalidDifferentRecord), (1, C::MessageTimedOut)]), DownKind::Timeout);
        // Records carry the time of sending: a broker that does not like it speaks of our clock, which can be mended.
        assert_eq!(down(&[(0, C::InvalidTimestamp)]), DownKind::Failed);
        assert_eq!(failure(&[(0, C::PurgeQueue), (1, C::PurgeInflight)]), None);
        assert_eq!(failure(&[]), None);
    }
}
