//! Membership in a consumer group: who reads which partition is agreed there; from where is not (the store says that).
//!
//! librdkafka waits for an answer to every change of the assignment, for as long as it takes, and keeps the session alive
//! meanwhile. So the callback only passes the change on; whoever runs the lanes answers when the lanes are ready:
//! [`super::Source::accept`] at once (partitions are added one by one as their lanes open), and
//! [`super::Source::release`] when the lanes have closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError as Rd;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, TopicPartitionList};
use tokio::sync::mpsc::UnboundedSender;

use super::connection::Context;

/// How a group agrees on who reads what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// Members agree among themselves, cooperative-sticky: only partitions that move stop.
    #[default]
    Classic,
    /// The coordinator decides (KIP-848, Kafka 4); sessions are the broker's business too.
    Consumer,
}

/// Membership in a consumer group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupOptions {
    /// The group.
    pub group: String,
    /// A lasting name of this member (`group.instance.id`): under it a restarted process gets its partitions back without a
    /// rebalance, as long as it is back within the session's time.
    pub instance: Option<String>,
    /// How the group agrees.
    pub protocol: GroupProtocol,
    /// After how long a silent member is taken for dead; librdkafka's default (45 s) if `None`. With
    /// [`GroupProtocol::Consumer`] the broker's setting decides instead.
    pub session: Option<Duration>,
}

impl GroupOptions {
    pub(super) fn configure(&self, config: &mut ClientConfig) {
        // New partitions are seen at the next look at the topic.
        config.set("topic.metadata.refresh.interval.ms", "30000");
        if let Some(instance) = &self.instance {
            config.set("group.instance.id", instance);
        }
        match self.protocol {
            GroupProtocol::Classic => {
                config.set("partition.assignment.strategy", "cooperative-sticky");
                if let Some(session) = self.session {
                    let ms = session.as_millis();
                    config
                        .set("session.timeout.ms", ms.to_string())
                        .set("heartbeat.interval.ms", (ms / 3).clamp(1, 3_000).to_string());
                }
            }
            GroupProtocol::Consumer => {
                config.set("group.protocol", "consumer");
            }
        }
    }
}

/// What the group has decided about this member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupEvent {
    /// These partitions are ours too now. Answer with [`super::Source::accept`].
    Assigned(Vec<i32>),
    /// These partitions are to be given up. Answer with [`super::Source::release`] when they are.
    Revoked {
        /// Which.
        partitions: Vec<i32>,
        /// Whether the group has given them to others already: this process was silent for too long.
        lost: bool,
    },
}

/// Serves the callbacks of a source's consumer.
pub(super) struct Membership {
    connection: Context,
    topic: String,
    events: UnboundedSender<GroupEvent>,
    leaving: AtomicBool,
}

impl Membership {
    pub fn new(connection: Context, topic: &str, events: UnboundedSender<GroupEvent>) -> Self {
        Self { connection, topic: topic.to_owned(), events, leaving: AtomicBool::new(false) }
    }

    /// From now on changes are answered at once: no lane is left.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }

    /// Passes a decision on as the group would.
    pub fn tell(&self, event: GroupEvent) {
        // Nobody listens any more only when the process is ending.
        let _ = self.events.send(event);
    }
}

impl ClientContext for Membership {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: Rd, reason: &str) {
        self.connection.hear(&error, reason);
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.connection.token()
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let lost = consumer.assignment_lost();
        if self.leaving.load(Ordering::Acquire) {
            // While a consumer closes, librdkafka takes any answer for "nothing is assigned".
            if let Err(error) = consumer.unassign() {
                tracing::debug!(%error, "leaving the group");
            }
            return;
        }
        let mut partitions: Vec<i32> =
            list.elements().iter().filter(|e| e.topic() == self.topic).map(|e| e.partition()).collect();
        partitions.sort_unstable();
        self.tell(match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => GroupEvent::Assigned(partitions),
            _ => GroupEvent::Revoked { partitions, lost },
        });
    }
}
