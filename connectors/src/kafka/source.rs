//! A topic read from where the checkpoints say, not the broker: every partition of it, or those that a consumer group gives
//! to this process.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError as Rd, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::group::Membership;
use super::{GroupEvent, GroupOptions, KafkaConnection, KafkaError, PartitionReader, partition_count};

/// How long questions to the brokers may take at the start.
const ANSWER: Duration = Duration::from_secs(10);

/// What librdkafka may hold of all partitions together, KiB: it is told a bound for each, and one process may get them all.
const QUEUED_KBYTES: u64 = 256 << 10;
/// Bytes a fetch may bring of one partition: more makes the allocator ask the system for each fetch's memory anew, and a
/// larger record comes anyway, alone.
const LARGEST_FETCH: u64 = 2 << 20;

/// What may be queued of one partition of so many, KiB.
fn queued_kbytes(partitions: i32) -> u64 {
    (QUEUED_KBYTES / u64::from(partitions.unsigned_abs()).max(1)).clamp(1 << 10, 64 << 10)
}

/// A topic being read. Dropping it leaves the group; [`PartitionReader`]s keep it alive.
pub struct Source {
    pub(super) consumer: Arc<BaseConsumer<Membership>>,
    pub(super) topic: String,
    group: GroupOptions,
    pub(super) most: usize,
    pub(super) reports_ends: bool,
    /// The header that carries records' signatures, if they are signed.
    signature: Option<Arc<CStr>>,
    /// Partitions being read.
    begun: Mutex<BTreeSet<i32>>,
}

/// Which partitions of a topic this process reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// Those that the consumer group gives it, which may change at any time.
    #[default]
    Group,
    /// All that there are now, whatever other processes do. The group's name is used only to show offsets.
    All,
}

impl Source {
    /// Opens the topic. What is to be read comes as events: with [`Share::All`] one, with [`Share::Group`] whenever the group
    /// decides. `most` is the largest batch of a reader. Call [`Source::serve`] all the time: sessions and events depend on it.
    ///
    /// Aborted transactions are never seen (`read_committed`). An offset that retention has removed is an error, not a jump.
    pub fn open(
        connection: &KafkaConnection,
        topic: &str,
        group: GroupOptions,
        share: Share,
        most: usize,
    ) -> Result<(Self, UnboundedReceiver<GroupEvent>), KafkaError> {
        let partitions = partition_count(connection, topic, ANSWER)?;
        let (events, told) = unbounded_channel();
        let reports_ends = share == Share::All;
        let mut config = connection.config();
        config
            .set("group.id", &group.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // librdkafka takes the report of a partition's end for a record when its batch call gives it, so that after the
            // pause of a rebalance it would go on one record too far. Where there are rebalances, no ends are reported.
            .set("enable.partition.eof", if reports_ends { "true" } else { "false" })
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.message.max.bytes", (queued_kbytes(partitions) * 1024).min(LARGEST_FETCH).to_string())
            .set("receive.message.max.bytes", "1000000000")
            .set("queued.max.messages.kbytes", queued_kbytes(partitions).to_string())
            .set("queued.min.messages", "100000")
            .set("fetch.wait.max.ms", "20")
            // The default of a second is how long a full queue stays unattended after it has drained.
            .set("fetch.queue.backoff.ms", "5");
        if share == Share::Group {
            group.configure(&mut config);
        }
        let membership = Membership::new(connection.context(), topic, events);
        let consumer: BaseConsumer<Membership> =
            config.create_with_context(membership).map_err(|e| connection.refused(e))?;
        connection.arm(consumer.client().native_ptr())?;
        match share {
            Share::All => consumer.context().tell(GroupEvent::Assigned((0..partitions).collect())),
            Share::Group => consumer
                .subscribe(&[topic])
                .map_err(|e| KafkaError::client(format!("joining the group \"{}\"", group.group), e))?,
        }
        let source = Self {
            consumer: Arc::new(consumer),
            topic: topic.to_owned(),
            group,
            most,
            reports_ends,
            signature: None,
            begun: Mutex::default(),
        };
        Ok((source, told))
    }

    /// The same, for records that carry their signature in a header of this name. A name with a NUL byte is none.
    pub fn with_signature(mut self, header: Option<&str>) -> Self {
        self.signature = header.and_then(|name| CString::new(name).ok()).map(Arc::from);
        self
    }

    pub(super) fn begun(&self) -> std::sync::MutexGuard<'_, BTreeSet<i32>> {
        // A panic of another thread leaves the set whole.
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves librdkafka's main queue for so long: the group's events, errors and logs; there are no messages in it. An error is one
    /// after which this client does nothing any more.
    pub fn serve(&self, time: Duration) -> Result<(), KafkaError> {
        if let Some(Err(e)) = self.consumer.poll(time) {
            tracing::warn!(topic = self.topic, error = %e, "kafka source");
        }
        match self.consumer.client().fatal_error() {
            None => Ok(()),
            Some((RDKafkaErrorCode::FencedInstanceId, _)) => Err(KafkaError::SameInstance {
                group: self.group.group.clone(),
                instance: self.group.instance.clone().unwrap_or_default(),
            }),
            Some((code, why)) => {
                tracing::error!(topic = self.topic, why, "kafka source");
                Err(KafkaError::client(format!("reading {}", self.topic), Rd::ConsumerCommit(code)))
            }
        }
    }

    /// Answers [`GroupEvent::Assigned`]: the group can go on, and partitions are begun when their lanes are open.
    pub fn accept(&self) -> Result<(), KafkaError> {
        self.consumer
            .incremental_assign(&TopicPartitionList::new())
            .map_err(|e| KafkaError::client(format!("accepting partitions of {}", self.topic), e))
    }

    /// Begins to read a partition that is ours, from `offset` (`None`: the earliest kept).
    pub fn begin(&self, partition: i32, offset: Option<i64>) -> Result<PartitionReader, KafkaError> {
        let doing = || format!("assigning {}/{partition}", self.topic);
        let reader = PartitionReader::new(self.consumer.clone(), &self.topic, partition, self.most, self.reports_ends)?
            .with_signature(self.signature.clone());
        let mut list = TopicPartitionList::new();
        if self.begun().remove(&partition) {
            // It is begun anew.
            list.add_partition(&self.topic, partition);
            self.consumer.incremental_unassign(&list).map_err(|e| KafkaError::client(doing(), e))?;
            list = TopicPartitionList::new();
        }
        let offset = offset.map_or(Offset::Beginning, Offset::Offset);
        list.add_partition_offset(&self.topic, partition, offset).map_err(|e| KafkaError::client(doing(), e))?;
        self.consumer.incremental_assign(&list).map_err(|e| KafkaError::client(doing(), e))?;
        self.begun().insert(partition);
        Ok(reader)
    }

    /// Ends reading of these partitions; those not begun are passed over. Answers [`GroupEvent::Revoked`].
    pub fn release(&self, partitions: &[i32]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for p in partitions {
            if self.begun().remove(p) {
                list.add_partition(&self.topic, *p);
            }
        }
        self.consumer
            .incremental_unassign(&list)
            .map_err(|e| KafkaError::client(format!("giving up partitions of {}", self.topic), e))
    }

    /// No lane is left: from now on the group's changes are answered at once, and dropping the source leaves the group.
    pub fn leave(&self) {
        self.consumer.context().leave();
    }

    /// The first offset after the partition's last committed record.
    pub fn end_offset(&self, partition: i32) -> Result<i64, KafkaError> {
        self.consumer
            .fetch_watermarks(&self.topic, partition, ANSWER)
            .map(|(_, high)| high)
            .map_err(|e| KafkaError::client(format!("end of {}/{partition}", self.topic), e))
    }

    /// Tells the group's coordinator where the checkpoints are, for tools that show lag. Restarts do not read it.
    pub fn report(&self, offsets: &[(i32, i64)]) {
        let mut list = TopicPartitionList::new();
        for (p, o) in offsets {
            if let Err(e) = list.add_partition_offset(&self.topic, *p, Offset::Offset(*o)) {
                tracing::warn!(error = %e, "group offset");
            }
        }
        if let Err(e) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::warn!(error = %e, "group offset");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::queued_kbytes;

    #[test]
    fn partitions_share_a_budget() {
        assert_eq!([1, 4, 8, 64, 256, 5_000].map(queued_kbytes), [65_536, 65_536, 32_768, 4_096, 1_024, 1_024]);
    }
}
