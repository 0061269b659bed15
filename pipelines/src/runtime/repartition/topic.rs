//! The topic that records are repartitioned through: that it is there, and is what the lanes can rely on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use avouch_connectors::kafka::{
    KafkaConnection, KafkaError, Positions, ensure_repartition_topic, partition_count, topic_settings,
};

use super::super::error::RuntimeError;
use super::super::{ANSWER, blocking};
use crate::lang::{KafkaSource, Repartition};

/// How long the group's offsets are asked for at the start. The broker does not name any while a transaction of a process
/// that was killed is open, which is for half a minute at most, the broker's rounds included.
const OFFSETS: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(200);

/// Sees that the topic is there, and makes it where that is asked for; refuses one that would lose or mix up records.
pub async fn prepare(source: &KafkaSource, through: &Repartition, create: bool) -> Result<(), RuntimeError> {
    let (connection, from) = (source.connection(), source.topic.as_str().to_owned());
    let (topic, wanted) = (through.topic.as_str().to_owned(), through.partitions);
    let partitions = count(&connection, &from).await?;
    if create && ensure_repartition_topic(&connection, &from, &topic, wanted).await? {
        tracing::info!(topic, partitions = wanted, "topic created");
    }
    let found = count(&connection, &topic).await?;
    if found != wanted {
        return Err(RuntimeError::Start(format!(
            "topic \"{topic}\" has {found} partitions, but `repartition` says {wanted}: records of one device would go to \
             different lanes before and after; write `partitions = {found}` if no run has used the topic yet, else use \
             another topic and another pipeline name"
        )));
    }
    settings(&connection, &from, &topic).await?;
    let group = source.repartition_group().group;
    blocking(move || not_forgotten(&connection, &group, (&from, partitions), (&topic, wanted))).await
}

async fn count(connection: &KafkaConnection, topic: &str) -> Result<i32, RuntimeError> {
    let (connection, topic) = (connection.clone(), topic.to_owned());
    blocking(move || Ok(partition_count(&connection, &topic, ANSWER)?)).await
}

async fn settings(connection: &KafkaConnection, from: &str, topic: &str) -> Result<(), RuntimeError> {
    let (source, through) = (topic_settings(connection, from).await, topic_settings(connection, topic).await);
    let text = |of: &BTreeMap<String, String>, name: &str| of.get(name).cloned().unwrap_or_default();
    let number = |of: &BTreeMap<String, String>, name: &str| text(of, name).parse::<i64>().ok();
    if text(&through, "cleanup.policy").contains("compact") {
        return Err(RuntimeError::Start(format!(
            "topic \"{topic}\" is compacted: all but the last record of each device would go, before or after they are \
             judged; set its `cleanup.policy` to `delete`"
        )));
    }
    if text(&through, "message.timestamp.type") == "LogAppendTime" {
        tracing::warn!(
            topic,
            "the topic puts its own time on records, so `max_future` is judged by when they were repartitioned, not by \
             when the source had them; `message.timestamp.type=CreateTime` keeps the source's time"
        );
    }
    if let (Some(kept), Some(here)) = (number(&source, "retention.ms"), number(&through, "retention.ms"))
        && here >= 0
        && (kept < 0 || here < kept)
    {
        tracing::warn!(
            topic,
            source_ms = kept,
            here_ms = here,
            "the topic keeps records for less time than the source does, by the same timestamps: what is repartitioned \
             late may be gone before it is judged; raise its `retention.ms`"
        );
    }
    Ok(())
}

/// Kafka forgets the offsets of a group that nobody was in for `offsets.retention.minutes`. To go on at the beginning would
/// then repeat everything.
fn not_forgotten(
    connection: &KafkaConnection,
    group: &str,
    (from, partitions): (&str, i32),
    (topic, lanes): (&str, i32),
) -> Result<(), RuntimeError> {
    let positions = Positions::open(connection, group, from)?;
    // In this order: a record that is seen here was committed with its offset.
    let mut any = false;
    for lane in 0..lanes {
        any = any || positions.holds_records(topic, lane)?;
    }
    if !any {
        return Ok(());
    }
    let all: Vec<i32> = (0..partitions).collect();
    // Almost always there is an offset from before, and no need to wait for transactions that killed processes left open.
    let before = committed(&Positions::open_at_once(connection, group, from)?, &all)?;
    if before.values().any(Option::is_some) || committed(&positions, &all)?.values().any(Option::is_some) {
        return Ok(());
    }
    Err(RuntimeError::Start(format!(
        "topic \"{topic}\" holds records, but the group \"{group}\" has no offset of \"{from}\": Kafka has forgotten it \
         (`offsets.retention.minutes`), or the topic is not this pipeline's alone; going on at the beginning would repeat \
         records, so set the group's offsets to those behind the last `avouch.source` header of each partition, or use \
         another topic and another pipeline name"
    )))
}

/// What the group has committed, asked for until there is an answer.
fn committed(positions: &Positions, partitions: &[i32]) -> Result<BTreeMap<i32, Option<i64>>, KafkaError> {
    let began = Instant::now();
    loop {
        match positions.committed(partitions) {
            Err(e) if e.retryable() && began.elapsed() < OFFSETS => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}
