//! What feeds a lane: its input log, read in order from the offset a checkpoint names.
//!
//! Every kind of source gives the same thing: records with strictly increasing offsets that come back the same when they
//! are read again. That is all a lane needs for its verdicts to be a function of its input.

use std::time::Duration;

use avouch_connectors::kafka::{Batch, PartitionReader};
use avouch_engine::decode::RawRecord;

use super::error::RuntimeError;

/// The reading end of one lane's input log.
pub enum LaneInput {
    /// A partition of a Kafka topic.
    Kafka(PartitionReader),
}

impl LaneInput {
    /// The lane it feeds, which for Kafka is the partition.
    pub fn lane(&self) -> i32 {
        match self {
            LaneInput::Kafka(reader) => reader.partition(),
        }
    }

    /// Whether whoever keeps the log says, within `timeout`, that it ends at `next_offset`. `false` also when there is no
    /// answer: silence is no proof that nothing more is coming.
    pub fn is_at_end(&self, next_offset: i64, timeout: Duration) -> bool {
        match self {
            LaneInput::Kafka(reader) => reader.is_at_end(next_offset, timeout),
        }
    }

    /// Waits at most `timeout` for records. An empty batch means that none came.
    ///
    /// # Errors
    /// Those after which this input cannot go on. What passes by itself (a broker that is away) is waited for.
    pub fn poll(&mut self, timeout: Duration) -> Result<InputBatch, RuntimeError> {
        match self {
            LaneInput::Kafka(reader) => Ok(InputBatch::Kafka(reader.poll(timeout)?)),
        }
    }
}

/// Records of one lane in offset order, owned until dropped.
pub enum InputBatch {
    /// Messages that librdkafka owns.
    Kafka(Batch),
}

impl InputBatch {
    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        match self {
            InputBatch::Kafka(batch) => batch.is_empty(),
        }
    }

    /// If there was nothing more to read behind these records: the offset to go on from, which may lie beyond the last
    /// record (aborted records and transaction markers are never seen). The lane had then caught up with its input.
    pub fn end(&self) -> Option<i64> {
        match self {
            InputBatch::Kafka(batch) => batch.end(),
        }
    }

    /// Appends the records, which borrow the batch.
    pub fn records<'a>(&'a self, out: &mut Vec<RawRecord<'a>>) {
        match self {
            InputBatch::Kafka(batch) => batch.records(out),
        }
    }
}
