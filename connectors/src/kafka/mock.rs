//! A Kafka-protocol broker inside the process, for the demo: librdkafka's mock cluster.
//!
//! It keeps messages in memory and trims them (5 MiB or 100,000 entries a partition), forgets everything when the process
//! ends, and hands aborted transactions to `read_committed` readers. It is a stand-in to try things with, never a
//! proof of delivery; pipelines on it run at least once.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::KafkaError;

/// The embedded broker; it stops when dropped.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts one broker on a free loopback port.
    pub fn start() -> Result<Self, KafkaError> {
        let cluster = MockCluster::new(1).map_err(|e| KafkaError::client("starting the embedded broker", e))?;
        Ok(Self { cluster })
    }

    /// Its `bootstrap.servers`.
    pub fn brokers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Creates a topic.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), KafkaError> {
        self.cluster
            .create_topic(topic, partitions, 1)
            .map_err(|e| KafkaError::client(format!("creating topic \"{topic}\""), e))
    }
}
