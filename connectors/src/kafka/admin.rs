//! Topics.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;

use super::connection::Context;
use super::{KafkaConnection, KafkaError};

/// How many partitions a topic has.
pub fn partition_count(connection: &KafkaConnection, topic: &str, timeout: Duration) -> Result<i32, KafkaError> {
    let consumer = connection.asking(None)?;
    let metadata = connection.metadata(&consumer, Some(topic), timeout)?;
    let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
    match found.map_or(0, |t| t.partitions().len()) {
        0 => Err(KafkaError::NoTopic { topic: topic.to_owned(), brokers: connection.brokers().to_owned() }),
        n => Ok(n as i32),
    }
}

pub(super) fn admin(connection: &KafkaConnection) -> Result<AdminClient<Context>, KafkaError> {
    let admin: AdminClient<Context> =
        connection.config().create_with_context(connection.context()).map_err(|e| connection.refused(e))?;
    connection.arm(admin.inner().native_ptr())?;
    Ok(admin)
}

/// Creates a topic unless it exists. Returns whether it was created.
pub async fn ensure_topic(connection: &KafkaConnection, topic: &str, partitions: i32) -> Result<bool, KafkaError> {
    let admin = admin(connection)?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let results = admin
        .create_topics([&new], &options)
        .await
        .map_err(|source| KafkaError::Unreachable { brokers: connection.brokers().to_owned(), source })?;
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
pub async fn record_limit(connection: &KafkaConnection, topic: &str) -> Option<usize> {
    let admin = admin(connection).ok()?;
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
