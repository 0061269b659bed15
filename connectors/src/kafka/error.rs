//! What can go wrong with Kafka, and whether trying again can help.

use std::ops::Range;

use rdkafka::error::{KafkaError as Rd, RDKafkaErrorCode};
use thiserror::Error;

use crate::delivery::{DownKind, Failure};

/// An error of a Kafka source, sink or administrative call.
#[derive(Debug, Error)]
pub enum KafkaError {
    /// The brokers could not be reached in time.
    #[error("no broker answers at {brokers} ({source}); is Kafka running there, and is `brokers` right?")]
    Unreachable {
        /// As configured.
        brokers: String,
        /// librdkafka's words.
        source: Rd,
    },
    /// The brokers do not accept who we say we are.
    #[error(
        "the broker at {brokers} does not let us in ({why}); check the mechanism, the user and the secret under `security`"
    )]
    NotAdmitted {
        /// As configured.
        brokers: String,
        /// librdkafka's or the token endpoint's words.
        why: String,
    },
    /// No protected connection could be made.
    #[error(
        "no TLS connection to {brokers} ({why}); check that the listener speaks TLS, that `ca` has signed its certificate, and that this is for the host \
         names in `brokers`"
    )]
    Untrusted {
        /// As configured.
        brokers: String,
        /// librdkafka's words.
        why: String,
    },
    /// Another process has joined the group under our instance id.
    #[error(
        "another process has joined the group \"{group}\" as instance \"{instance}\"; give each process an `instance` of its own"
    )]
    SameInstance {
        /// The consumer group.
        group: String,
        /// `group.instance.id`.
        instance: String,
    },
    /// The topic does not exist.
    #[error("topic \"{topic}\" does not exist at {brokers}; create it, or correct `topic`")]
    NoTopic {
        /// The topic.
        topic: String,
        /// As configured.
        brokers: String,
    },
    /// Another process has taken over this transactional writer.
    #[error("another process writes as \"{id}\" now and has fenced this one; stop one of them")]
    Fenced {
        /// The transactional id.
        id: String,
    },
    /// The offset wanted is no longer in the partition.
    #[error(
        "{topic}/{partition}: offset {offset} is no longer there (the topic keeps less than the checkpoint needs); \
         readings were lost to retention, restore the topic or start with an empty checkpoint store"
    )]
    OffsetGone {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// The broker takes others, but not at least one of these records.
    #[error("\"{topic}\" refuses a record: {source}")]
    Refused {
        /// The topic.
        topic: String,
        /// The broker's code.
        code: RDKafkaErrorCode,
        /// Which of the records written may be the refused ones, counted from 0.
        among: Range<usize>,
        /// librdkafka's words.
        source: Rd,
    },
    /// Anything else, with what was being done.
    #[error("{doing}: {source}")]
    Client {
        /// What was being done.
        doing: String,
        /// librdkafka's words.
        source: Rd,
    },
}

impl KafkaError {
    pub(super) fn client(doing: impl Into<String>, source: Rd) -> Self {
        KafkaError::Client { doing: doing.into(), source }
    }

    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        match self {
            KafkaError::Unreachable { .. } => true,
            KafkaError::NoTopic { .. }
            | KafkaError::NotAdmitted { .. }
            | KafkaError::Untrusted { .. }
            | KafkaError::SameInstance { .. }
            | KafkaError::Fenced { .. }
            | KafkaError::OffsetGone { .. }
            | KafkaError::Refused { .. } => false,
            KafkaError::Client { source, .. } => match source {
                Rd::Transaction(e) => !e.is_fatal(),
                Rd::ClientConfig(..) | Rd::ClientCreation(..) => false,
                other => !matches!(
                    other.rdkafka_error_code(),
                    Some(
                        RDKafkaErrorCode::TopicAuthorizationFailed
                            | RDKafkaErrorCode::ClusterAuthorizationFailed
                            | RDKafkaErrorCode::Fatal
                            | RDKafkaErrorCode::InvalidTopic
                    )
                ),
            },
        }
    }

    /// What it means for a delivery.
    pub fn failure(&self) -> Failure {
        use RDKafkaErrorCode as C;
        let why = self.to_string();
        let source = match self {
            KafkaError::Refused { code, among, .. } => {
                return Failure::Refused { status: format!("{code:?}"), why, among: Some(among.clone()) };
            }
            KafkaError::Fenced { .. } | KafkaError::OffsetGone { .. } | KafkaError::SameInstance { .. } => {
                return Failure::Fatal(why);
            }
            KafkaError::Unreachable { .. } => return Failure::down(DownKind::Unreachable, why),
            KafkaError::NoTopic { .. } | KafkaError::NotAdmitted { .. } | KafkaError::Untrusted { .. } => {
                return Failure::down(DownKind::Denied, why);
            }
            KafkaError::Client { source, .. } => source,
        };
        let kind = match source.rdkafka_error_code() {
            Some(
                C::TopicAuthorizationFailed
                | C::ClusterAuthorizationFailed
                | C::GroupAuthorizationFailed
                | C::TransactionalIdAuthorizationFailed
                | C::SaslAuthenticationFailed
                | C::Authentication
                | C::UnknownTopic
                | C::UnknownTopicOrPartition
                | C::InvalidTopic,
            ) => DownKind::Denied,
            Some(C::OperationTimedOut | C::MessageTimedOut | C::RequestTimedOut | C::TimedOutQueue) => {
                DownKind::Timeout
            }
            Some(C::BrokerTransportFailure | C::AllBrokersDown | C::Resolve | C::NetworkException) => {
                DownKind::Unreachable
            }
            Some(C::QueueFull | C::ThrottlingQuotaExceeded) => DownKind::Busy,
            _ => DownKind::Failed,
        };
        Failure::down(kind, why)
    }
}

/// Whether a broker's code is about the record, so that no later attempt will pass. Rights, space, leaders and the time of
/// sending are not.
pub(super) fn refuses(e: &Rd) -> Option<RDKafkaErrorCode> {
    use RDKafkaErrorCode as C;
    e.rdkafka_error_code().filter(|code| {
        matches!(
            code,
            C::MessageSizeTooLarge
                | C::MessageBatchTooLarge
                | C::InvalidMessageSize
                | C::InvalidRecord
                | C::UnsupportedForMessageFormat
                | C::PolicyViolation
        )
    })
}
