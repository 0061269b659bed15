//! Topics.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::KafkaError;

/// How many partitions a topic has.
pub fn partition_count(brokers: &str, topic: &str, timeout: Duration) -> Result<i32, KafkaError> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("allow.auto.create.topics", "false")
        .create()
        .map_err(|e| KafkaError::client("Kafka client", e))?;
    let metadata = consumer
        .fetch_metadata(Some(topic), timeout)
        .map_err(|source| KafkaError::Unreachable { brokers: brokers.to_owned(), source })?;
    let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
    match found.map_or(0, |t| t.partitions().len()) {
        0 => Err(KafkaError::NoTopic { topic: topic.to_owned(), brokers: brokers.to_owned() }),
        n => Ok(n as i32),
    }
}

/// Creates a topic unless it exists. Returns whether it was created.
pub async fn ensure_topic(brokers: &str, topic: &str, partitions: i32) -> Result<bool, KafkaError> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .map_err(|e| KafkaError::client("Kafka client", e))?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let results = admin
        .create_topics([&new], &options)
        .await
        .map_err(|source| KafkaError::Unreachable { brokers: brokers.to_owned(), source })?;
    match results.into_iter().next() {
        Some(Ok(_)) => Ok(true),
        None | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(false),
        Some(Err((_, code))) => {
            Err(KafkaError::client(format!("creating topic \"{topic}\""), rdkafka::error::KafkaError::AdminOp(code)))
        }
    }
}

/// The largest record batch a topic takes (`max.message.bytes`); `None` where the broker does not say, for want of a right or of
/// the request.
pub async fn record_limit(brokers: &str, topic: &str) -> Option<usize> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().ok()?;
    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
    let told = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &options).await;
    let limit = match told {
        Ok(resources) => {
            resources.into_iter().find_map(|r| r.ok()?.get("max.message.bytes")?.value.as_ref()?.parse().ok())
        }
        Err(_) => None,
    };
    if limit.is_none() {
        tracing::debug!(topic, "the broker does not say how large a record may be");
    }
    limit
}
