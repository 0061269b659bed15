//! The one unsafe room of the Kafka connector: librdkafka's batch consume call, which rdkafka does not wrap.
//!
//! It costs a third of the CPU of one call a message. A [`Batch`] owns its messages until dropped; records borrow them.

use std::ffi::{CStr, CString};
use std::os::raw::c_int;
use std::sync::Arc;
use std::time::Duration;

use avouch_engine::decode::RawRecord;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError as Rd, RDKafkaErrorCode};
use rdkafka_sys as sys;

use super::KafkaError;

/// Bytes of keys and values a batch has, about: what a lane decodes at once, and what it keeps of what it cannot use.
const BATCH_BYTES: usize = 4 << 20;
/// How many messages are asked for before it is known how large they are.
const FIRST: usize = 4;

/// How many messages to ask for next, after `n` with so many bytes: messages tend to be as large as those before them.
fn next_ask(n: usize, bytes: usize, most: usize) -> usize {
    (BATCH_BYTES / (bytes / n.max(1)).max(1)).clamp(1, most)
}

/// Reads one assigned partition in batches.
pub struct PartitionReader {
    // Declared first: the queue must be released before the consumer is.
    queue: Queue,
    topic: String,
    partition: i32,
    pointers: Vec<*mut sys::rd_kafka_message_t>,
    /// Whether the client reports partitions' ends, as batches without records ([`Batch::end`]).
    reports_ends: bool,
    /// How many messages the next batch may have, at most as many as there are pointers.
    ask: usize,
    /// The header that carries records' signatures, if they are signed.
    signature: Option<Arc<CStr>>,
    client: *mut sys::rd_kafka_t,
    // Keeps the client alive, whatever its callbacks are.
    _client: Arc<dyn Send + Sync>,
}

struct Queue(*mut sys::rd_kafka_queue_t);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue was obtained from librdkafka, is not null, and is destroyed once.
        unsafe { sys::rd_kafka_queue_destroy(self.0) }
    }
}

// SAFETY: librdkafka's queues may be used from any thread, and `PartitionReader` is used by one at a time (`&mut self`).
unsafe impl Send for PartitionReader {}

impl PartitionReader {
    /// Takes the partition's queue off the consumer's main queue. Before the partition is assigned is a good time: then
    /// nothing of it ever reaches the main queue.
    pub(super) fn new<C: ConsumerContext + 'static>(
        consumer: Arc<BaseConsumer<C>>,
        topic: &str,
        partition: i32,
        most: usize,
        reports_ends: bool,
    ) -> Result<Self, KafkaError> {
        let name = CString::new(topic).map_err(|e| KafkaError::client(format!("topic \"{topic}\""), Rd::Nul(e)))?;
        let client = consumer.client().native_ptr();
        // SAFETY: the consumer's handle is valid while `consumer` lives, which this struct guarantees; `name` is NUL-terminated.
        let queue = unsafe { sys::rd_kafka_queue_get_partition(client, name.as_ptr(), partition) };
        if queue.is_null() {
            return Err(KafkaError::client(
                format!("{topic}/{partition} has no queue"),
                Rd::MessageConsumption(RDKafkaErrorCode::UnknownPartition),
            ));
        }
        // SAFETY: as above; a null target ends the forwarding to the consumer's main queue.
        unsafe { sys::rd_kafka_queue_forward(queue, std::ptr::null_mut()) };
        Ok(Self {
            queue: Queue(queue),
            topic: topic.to_owned(),
            partition,
            pointers: vec![std::ptr::null_mut(); most.max(1)],
            reports_ends,
            ask: FIRST.min(most.max(1)),
            signature: None,
            client,
            _client: consumer,
        })
    }

    /// The same, for records that carry their signature in a header of this name.
    pub fn with_signature(mut self, header: Option<Arc<CStr>>) -> Self {
        self.signature = header;
        self
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Whether the broker says, within `timeout`, that there is nothing behind what was polled, all of which lies before
    /// `next_offset`. `false` also when it does not answer, or when a transaction is open.
    ///
    /// Asks the broker twice, so it is for now and then. In a compacted topic whose last records were removed it stays `false`
    /// until another record comes.
    pub fn is_at_end(&self, next_offset: i64, timeout: Duration) -> bool {
        let Ok(topic) = CString::new(self.topic.as_str()) else { return false };
        let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // Where ends are reported, `next_offset` is beyond aborted records and markers already, and the client's position
        // is not to be used: after the report it is one too far.
        let here = if self.reports_ends { next_offset } else { self.position(&topic).unwrap_or(0).max(next_offset) };
        let (mut low, mut stable, mut high) = (-1, -1, -1);
        // SAFETY: the client is valid while `_client` lives, may be asked from any thread, and writes to the places given.
        let codes = unsafe {
            [
                // Of a client that reads committed records, the end of those.
                sys::rd_kafka_query_watermark_offsets(
                    self.client,
                    topic.as_ptr(),
                    self.partition,
                    &mut low,
                    &mut stable,
                    millis,
                ),
                // As the last fetch has it: the end of all, open transactions too.
                sys::rd_kafka_get_watermark_offsets(self.client, topic.as_ptr(), self.partition, &mut low, &mut high),
            ]
        };
        // Without a fetch yet the client knows no end of all.
        codes == [sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR; 2] && stable == here && high == here
    }

    /// How many offsets lie between `next_offset` and the end of the partition as the last fetch has it; `None` before the
    /// first. Aborted records and markers of transactions count, and so do records of transactions that are open. Asks
    /// nobody, so it may be called often.
    pub fn behind(&self, next_offset: i64) -> Option<i64> {
        let topic = CString::new(self.topic.as_str()).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: as in `is_at_end`.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(self.client, topic.as_ptr(), self.partition, &mut low, &mut high)
        };
        let known = code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0;
        known.then(|| high.saturating_sub(next_offset).max(0))
    }

    /// The offset after the last one polled, be it a record or the marker of a transaction; `None` before the first.
    fn position(&self, topic: &CStr) -> Option<i64> {
        // SAFETY: the list is made, given to the client, read and destroyed here; its one element is valid until then.
        let (code, offset) = unsafe {
            let list = sys::rd_kafka_topic_partition_list_new(1);
            let at = sys::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), self.partition);
            let code = sys::rd_kafka_position(self.client, list);
            let offset = (*at).offset;
            sys::rd_kafka_topic_partition_list_destroy(list);
            (code, offset)
        };
        (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && offset >= 0).then_some(offset)
    }

    /// Waits at most `timeout` for messages. An empty batch means that none came. A batch has about 4 MiB at most, unless
    /// messages suddenly are larger than those before them: then one batch may have what the client had queued.
    pub fn poll(&mut self, timeout: Duration) -> Result<Batch, KafkaError> {
        // SAFETY: `pointers` has room for `ask` pointers and librdkafka writes at most so many, each to a message we now own.
        let n = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue.0,
                c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX),
                self.pointers.as_mut_ptr(),
                self.ask,
            )
        };
        let n = usize::try_from(n).map_err(|_| {
            KafkaError::client(
                format!("reading {}/{}", self.topic, self.partition),
                Rd::MessageConsumption(RDKafkaErrorCode::Fail),
            )
        })?;
        let mut batch = Batch { messages: self.pointers[..n].to_vec(), end: None, signature: self.signature.clone() };
        let mut error = None;
        let mut bytes = 0;
        batch.messages.retain(|&m| {
            // SAFETY: librdkafka gave a valid message.
            let message = unsafe { &*m };
            if message.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                bytes += message.len + message.key_len;
                return true;
            }
            let code = RDKafkaErrorCode::from(message.err);
            match code {
                RDKafkaErrorCode::PartitionEOF => batch.end = Some(message.offset),
                // The client keeps trying by itself; these are its reports.
                RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure => {
                    tracing::warn!(topic = self.topic, partition = self.partition, error = %code, "broker connection lost");
                }
                RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset => {
                    error = Some(KafkaError::OffsetGone {
                        topic: self.topic.clone(),
                        partition: self.partition,
                        offset: message.offset,
                    });
                }
                _ => {
                    error = Some(KafkaError::client(
                        format!("reading {}/{}", self.topic, self.partition),
                        Rd::MessageConsumption(code),
                    ));
                }
            }
            // SAFETY: the message is ours and leaves the batch here.
            unsafe { sys::rd_kafka_message_destroy(m) };
            false
        });
        if !batch.is_empty() {
            self.ask = next_ask(batch.len(), bytes, self.pointers.len());
        }
        match error {
            Some(e) => Err(e),
            None => Ok(batch),
        }
    }
}

/// Messages of one partition, in offset order.
pub struct Batch {
    messages: Vec<*mut sys::rd_kafka_message_t>,
    end: Option<i64>,
    signature: Option<Arc<CStr>>,
}

// SAFETY: messages are plain memory once consumed; destroying them from another thread is allowed.
unsafe impl Send for Batch {}

impl Batch {
    /// How many messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// If the end of the partition was reached: the offset that the next message will have. Reported only where all
    /// partitions are read ([`super::Share::All`]).
    pub fn end(&self) -> Option<i64> {
        self.end
    }

    /// The messages as records; they borrow the batch.
    pub fn records<'a>(&'a self, out: &mut Vec<RawRecord<'a>>) {
        out.extend((0..self.messages.len()).filter_map(|i| self.record(i)));
    }

    /// The message at an index as a record.
    pub fn record(&self, index: usize) -> Option<RawRecord<'_>> {
        let &m = self.messages.get(index)?;
        // SAFETY: the messages are valid until `self` is dropped, and the record's borrow ends before that.
        let message = unsafe { &*m };
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: as above; `kind` is a valid place to write to.
        let timestamp = unsafe { sys::rd_kafka_message_timestamp(m, &mut kind) };
        // SAFETY: pointer and length belong together and live as long as the message.
        let bytes = |p: *mut std::os::raw::c_void, n: usize| unsafe {
            (!p.is_null()).then(|| std::slice::from_raw_parts(p as *const u8, n))
        };
        Some(RawRecord {
            offset: message.offset,
            timestamp: timestamp.max(0),
            key: bytes(message.key, message.key_len),
            value: bytes(message.payload, message.len),
            origin: None,
            signature: self.signature(m),
        })
    }

    /// What stands in a message's signature header; the last one, where the name stands several times.
    fn signature(&self, m: *mut sys::rd_kafka_message_t) -> Option<&[u8]> {
        let name = self.signature.as_ref()?;
        let (mut headers, mut value, mut size) = (std::ptr::null_mut(), std::ptr::null(), 0);
        // SAFETY: the message is one of this batch and valid until that is dropped, which keeps headers and value alive; the name
        // is NUL-terminated; the places are ours, and value and size belong together.
        unsafe {
            let none = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            if sys::rd_kafka_message_headers(m, &mut headers) != none
                || sys::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut size) != none
                || value.is_null()
            {
                return None;
            }
            Some(std::slice::from_raw_parts(value as *const u8, size))
        }
    }

    /// The headers of the message at an index, in their order; a name may stand twice.
    pub fn headers(&self, index: usize) -> Vec<(&str, Option<&[u8]>)> {
        let mut out = Vec::new();
        let Some(&m) = self.messages.get(index) else { return out };
        let mut headers = std::ptr::null_mut();
        // SAFETY: the message is valid, and keeps the headers given here.
        let code = unsafe { sys::rd_kafka_message_headers(m, &mut headers) };
        if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return out;
        }
        for i in 0.. {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: the headers are valid as long as the message, and so is what they point to; the places are ours.
            let code = unsafe { sys::rd_kafka_header_get_all(headers, i, &mut name, &mut value, &mut size) };
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                break;
            }
            // SAFETY: a name is NUL-terminated; value and size belong together. All live as long as the message.
            let (name, value) = unsafe {
                let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value as *const u8, size));
                (std::ffi::CStr::from_ptr(name), value)
            };
            // Kafka's names are UTF-8. One that is not cannot be passed on.
            if let Ok(name) = name.to_str() {
                out.push((name, value));
            }
        }
        out
    }

    /// Where in the batch the message of an offset is.
    pub fn index_of(&self, offset: i64) -> Option<usize> {
        // SAFETY: the messages are valid until `self` is dropped.
        self.messages.binary_search_by_key(&offset, |&m| unsafe { (*m).offset }).ok()
    }
}

impl PartitionReader {
    /// The offset after the last thing polled, be it a record or the marker of a transaction; `None` before the first. Not
    /// to be used where ends are reported ([`super::Share::All`]): after a report it is one too far.
    pub(super) fn reached(&self) -> Option<i64> {
        let topic = CString::new(self.topic.as_str()).ok()?;
        // SAFETY: the list is made, given to the client, read and destroyed here; its one element is valid until then.
        let (code, offset) = unsafe {
            let list = sys::rd_kafka_topic_partition_list_new(1);
            let at = sys::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), self.partition);
            let code = sys::rd_kafka_position(self.client, list);
            let offset = (*at).offset;
            sys::rd_kafka_topic_partition_list_destroy(list);
            (code, offset)
        };
        (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && offset >= 0).then_some(offset)
    }

    /// [`PartitionReader::poll`], and how far it has come: the offset after the last thing polled, records and markers of
    /// transactions alike, so that it reaches the partition's end also where that is no record. `None` before the first.
    /// Only for readers that [`super::Source::begin_anew`] has made.
    pub fn poll_counted(&mut self, timeout: Duration) -> Result<(Batch, Option<i64>), KafkaError> {
        let batch = self.poll(timeout)?;
        Ok((batch, self.reached()))
    }

    /// The partition's end as the last fetch has seen it, open transactions included; `None` before the first fetch.
    /// Asks nobody.
    pub fn end_seen(&self) -> Option<i64> {
        let topic = CString::new(self.topic.as_str()).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client is valid while `_client` lives, may be asked from any thread, and writes to the places given.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(self.client, topic.as_ptr(), self.partition, &mut low, &mut high)
        };
        (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for &m in &self.messages {
            // SAFETY: each message is ours and destroyed once.
            unsafe { sys::rd_kafka_message_destroy(m) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_in_bytes() {
        assert_eq!(next_ask(64, 64 * 150, 4_096), 4_096);
        assert_eq!(next_ask(64, 64 << 20, 4_096), 4);
        assert_eq!(next_ask(3, 3 * (20 << 20), 4_096), 1);
        assert_eq!(next_ask(10, 0, 4_096), 4_096);
    }
}
