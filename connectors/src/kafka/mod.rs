//! Apache Kafka, through librdkafka.
//!
//! Reading is by partition queues and librdkafka's batch call ([`PartitionReader`]); writing is in transactions that carry
//! the writer's own cursor ([`TransactionalSink`]), or at least once with a cursor kept elsewhere ([`PlainSink`]).

mod admin;
mod batch;
mod connection;
mod error;
mod group;
mod mock;
mod murmur2;
mod oauth;
mod producing;
mod publisher;
mod repartition;
mod sink;
mod source;

pub use admin::{ensure_topic, partition_count, record_limit};
pub use batch::{Batch, PartitionReader};
pub use connection::{KafkaConnection, Password, Sasl, Tls, TlsIdentity, TokenSource};
pub use error::KafkaError;
pub use group::{GroupEvent, GroupOptions, GroupProtocol};
pub use mock::EmbeddedBroker;
pub use murmur2::partition_of_key;
pub use producing::OutRecord;
pub use publisher::{PublishError, Publisher, TopicOptions, create_topic};
pub use repartition::{Moved, Mover, Positions, ensure_repartition_topic, topic_settings};
pub use sink::{PlainSink, TransactionalSink};
pub use source::{Share, Source};
