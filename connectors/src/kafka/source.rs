//! A topic read by manual assignment: the checkpoint, not the broker, says where to go on.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{KafkaError, PartitionReader, partition_count};

/// The readers of a topic's partitions, and what they share.
pub struct Source {
    consumer: Arc<BaseConsumer>,
    topic: String,
}

impl Source {
    /// Assigns every partition of `topic`, each from the offset that `start` gives it (`None`: the earliest kept), and
    /// gives a reader for each. `most` is the largest batch.
    ///
    /// Aborted transactions are never seen (`read_committed`). An offset that retention has removed is an error, not a jump.
    pub fn open(
        brokers: &str,
        topic: &str,
        group: &str,
        start: impl Fn(i32) -> Option<i64>,
        most: usize,
    ) -> Result<(Self, Vec<PartitionReader>), KafkaError> {
        let partitions = partition_count(brokers, topic, Duration::from_secs(10))?;
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", group)
            .set("client.id", "avouch")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("fetch.message.max.bytes", "16777216")
            .set("receive.message.max.bytes", "1000000000")
            .set("queued.max.messages.kbytes", "65536")
            .set("queued.min.messages", "100000")
            .set("fetch.wait.max.ms", "20")
            // The default of a second is how long a full queue stays unattended after it has drained.
            .set("fetch.queue.backoff.ms", "5")
            .create()
            .map_err(|e| KafkaError::client("Kafka consumer", e))?;
        let mut list = TopicPartitionList::new();
        for p in 0..partitions {
            let offset = start(p).map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(topic, p, offset)
                .map_err(|e| KafkaError::client(format!("assigning {topic}/{p}"), e))?;
        }
        consumer.assign(&list).map_err(|e| KafkaError::client(format!("assigning {topic}"), e))?;
        let consumer = Arc::new(consumer);
        let readers = (0..partitions)
            .map(|p| PartitionReader::new(consumer.clone(), topic, p, most))
            .collect::<Result<_, _>>()?;
        Ok((Self { consumer, topic: topic.to_owned() }, readers))
    }

    /// Serves librdkafka's main queue (errors and logs; no messages). Call it every second or so.
    pub fn serve(&self) {
        if let Some(Err(e)) = self.consumer.poll(Duration::ZERO) {
            tracing::warn!(topic = self.topic, error = %e, "kafka source");
        }
    }

    /// The first offset after the partition's last committed record.
    pub fn end_offset(&self, partition: i32) -> Result<i64, KafkaError> {
        self.consumer
            .fetch_watermarks(&self.topic, partition, Duration::from_secs(10))
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
