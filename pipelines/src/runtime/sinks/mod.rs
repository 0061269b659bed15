//! Sinks tail what is committed, each with a cursor of its own: a sink that is down holds its cursor and nothing else.
//!
//! ```text
//!   lane's store ─ Feed ─► Tail ─► Writer ─► Kafka · Parquet archive · Alertmanager · webhook · stdout · files
//!                          │  ▲
//!                 refusals │  │ position, cursor: each writer's own
//!                          ▼
//!                   refused-<sink> ─ Feed ─► Tail ─► the dead-letter output
//! ```
//!
//! One driver ([`Tail`]) for every kind, of the engine's `control::sink::Delivery`: read from the cursor, offer, and then
//!
//! - taken: the cursor moves;
//! - down: the cursor stays, the same records are offered again, after a pause that doubles up to 30 s (with jitter, so that
//!   lanes do not return in step) or as long as the sink asked for;
//! - refused: the batch is halved until the refused record stands alone; that one is kept in the lane's `refused-<sink>`,
//!   the cursor goes on past it, and the dead-letter output delivers it like every other dead letter;
//! - anything after which going on would be wrong (another writer, another log's cursor): the process stops.
//!
//! What a repeat does, by kind, is in each writer's file. What the dead-letter output itself refuses has nowhere to go: it
//! holds that output.

mod alerts;
mod archive;
mod early;
mod feed;
mod files;
mod kafka;
mod lines;
mod tail;
mod webhook;
mod writer;

pub(super) use early::EarlyOutputs;
pub(super) use tail::{Tail, TailStop};

use std::sync::Arc;
use std::time::Duration;

use avouch_connectors::kafka::{KafkaConnection, KafkaError, ensure_topic, partition_count};
use avouch_connectors::store::{LaneReader, Refusals};
use avouch_engine::sql::Condition;

use super::error::RuntimeError;
use super::metrics::Metrics;
use crate::lang::{DeadLetterKind, Delivery, EarlyTo, KafkaSink, Pipeline, Sink, SinkKind, SourceKind};
use crate::verdict_table::{TABLE, condition_schema};
use feed::{Feed, Where};

/// How long brokers may take to say what topics they have.
const LOOK: Duration = Duration::from_secs(10);
/// The dead-letter output's name in metrics and cursors.
const DEAD_LETTER: &str = "dead_letter";

/// Where and how a tail writes.
#[derive(Debug, Clone)]
struct Target {
    /// The sink's name, `dead_letter`, or `dead_letter.<sink>` for what that sink refused.
    pub name: String,
    pub pipeline: String,
    /// The name of the lane's input log.
    pub source_topic: String,
    pub partition: i32,
    pub exactly_once: bool,
    /// Whether stopping with records undelivered is an error.
    pub must_finish: bool,
    pub output: Output,
}

/// What a tail writes to.
#[derive(Debug, Clone)]
enum Output {
    Kafka { connection: KafkaConnection, topic: String },
    Archive(archive::Options),
    Alerts(alerts::Options),
    Webhook(webhook::Options),
    Stdout,
    Files(files::Options),
}

/// A topic that must be there: the brokers, its name, and whether the pipeline can start while these brokers are away.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub connection: KafkaConnection,
    pub topic: String,
    pub may_be_away: bool,
}

/// Sees that a topic is there; makes it, with so many partitions, where that is asked for.
pub(super) async fn prepare(topic: &Topic, create: Option<i32>) -> Result<(), RuntimeError> {
    let Topic { connection, topic: name, may_be_away } = topic;
    let look = async {
        if let Some(partitions) = create
            && ensure_topic(connection, name, partitions).await?
        {
            tracing::info!(topic = name, partitions, "topic created");
        }
        let (connection, name) = (connection.clone(), name.clone());
        let looked = tokio::task::spawn_blocking(move || partition_count(&connection, &name, LOOK)).await;
        looked.map_err(|e| RuntimeError::Start(format!("a start-up step ended: {e}")))??;
        Ok(())
    };
    match look.await {
        // The lanes need not wait for it: the sink holds its cursor until these brokers answer.
        Err(RuntimeError::Kafka(e @ KafkaError::Unreachable { .. })) if *may_be_away => {
            tracing::warn!(topic = name, error = %e, "a sink is down at the start");
            Ok(())
        }
        other => other,
    }
}

/// The topics that sinks and dead letters go to.
pub(super) fn topics(pipeline: &Pipeline) -> Vec<Topic> {
    let sinks = pipeline.sinks.iter().filter_map(|s| match &s.kind {
        SinkKind::Kafka(k) => Some(k),
        _ => None,
    });
    let dead = match &pipeline.dead_letter.kind {
        DeadLetterKind::Kafka(k) => Some(k),
        _ => None,
    };
    let mut out: Vec<Topic> = Vec::new();
    for k in sinks.chain(dead) {
        let connection = connection(pipeline, k);
        let may_be_away = source_brokers(pipeline) != Some(connection.brokers());
        let topic = Topic { connection, topic: k.topic.as_str().to_owned(), may_be_away };
        let same = |t: &Topic| t.topic == topic.topic && t.connection.brokers() == topic.connection.brokers();
        if !out.iter().any(same) {
            out.push(topic);
        }
    }
    for sink in &pipeline.sinks {
        if let (SinkKind::Kafka(k), Some(EarlyTo::Topic(topic))) = (&sink.kind, &sink.early) {
            let connection = connection(pipeline, k);
            let may_be_away = source_brokers(pipeline) != Some(connection.brokers());
            out.push(Topic { connection, topic: topic.as_str().to_owned(), may_be_away });
        }
    }
    out
}

fn source_brokers(pipeline: &Pipeline) -> Option<&str> {
    match &pipeline.source.kind {
        SourceKind::Kafka(kafka) => Some(kafka.brokers.as_str()),
        SourceKind::Files(_) | SourceKind::Mqtt(_) | SourceKind::Ethereum(_) => None,
    }
}

/// How a topic's cluster is reached: the source's as the source is; another one without security, for the source's
/// credentials are nobody else's business.
pub fn connection(pipeline: &Pipeline, k: &KafkaSink) -> KafkaConnection {
    match (&pipeline.source.kind, &k.brokers) {
        (SourceKind::Kafka(source), None) => source.connection(),
        (SourceKind::Kafka(source), Some(own)) if own.as_str() == source.brokers.as_str() => source.connection(),
        (_, own) => {
            // Invariant: a sink without brokers stands only beside a Kafka source; `check` refuses others.
            KafkaConnection::plaintext(own.as_ref().map_or("", |b| b.as_str()))
        }
    }
}

fn output(pipeline: &Pipeline, kind: &SinkKind) -> Output {
    match kind {
        SinkKind::Kafka(k) => Output::Kafka { connection: connection(pipeline, k), topic: k.topic.as_str().to_owned() },
        SinkKind::Parquet(p) => Output::Archive(archive::Options::new(p)),
        SinkKind::Alertmanager(a) => Output::Alerts(alerts::Options::new(a)),
        SinkKind::Webhook(w) => Output::Webhook(webhook::Options::new(w)),
        SinkKind::Stdout => Output::Stdout,
    }
}

/// Whether a kind of sink can refuse a record: its other side judges what it is sent.
fn can_refuse(kind: &SinkKind) -> bool {
    matches!(kind, SinkKind::Kafka(_) | SinkKind::Alertmanager(_) | SinkKind::Webhook(_))
}

fn condition(pipeline: &Pipeline, sink: &Sink) -> Result<Option<Arc<Where>>, RuntimeError> {
    let text = match (&sink.condition, &sink.kind) {
        (Some(c), _) => c.value.as_str(),
        // Nobody is to be woken for a normal verdict.
        (None, SinkKind::Alertmanager(_)) => "severity <> 'normal'",
        (None, _) => return Ok(None),
    };
    let schema = condition_schema(&pipeline.features_of(&sink.from));
    let condition = Condition::plan(text, TABLE, schema.clone())
        .map_err(|e| RuntimeError::Start(format!("`where` of the sink \"{}\": {e}", sink.name.value)))?;
    Ok(Some(Arc::new(Where { condition, schema })))
}

/// The tails of one lane: one a sink, one for its dead letters, and one for what each sink refuses.
pub(super) fn tails(
    pipeline: &Pipeline,
    source_topic: &str,
    partition: i32,
    reader: &LaneReader,
    metrics: &Metrics,
    must_finish: bool,
) -> Result<Vec<Tail>, RuntimeError> {
    let target = |name: &str, delivery: Delivery, output: Output| Target {
        name: name.to_owned(),
        pipeline: pipeline.name.value.clone(),
        source_topic: source_topic.to_owned(),
        partition,
        exactly_once: delivery == Delivery::ExactlyOnce,
        must_finish,
        output,
    };
    let dead = &pipeline.dead_letter;
    let dead_output = match &dead.kind {
        DeadLetterKind::Kafka(k) => {
            Output::Kafka { connection: connection(pipeline, k), topic: k.topic.as_str().to_owned() }
        }
        DeadLetterKind::Files(f) => Output::Files(files::Options::new(f)),
        DeadLetterKind::Stdout => Output::Stdout,
    };
    let dead_delivery = dead.delivery.unwrap_or(pipeline.delivery.value);
    let mut out = Vec::new();
    for sink in &pipeline.sinks {
        let name = &sink.name.value;
        let delivery = sink.delivery.unwrap_or(pipeline.delivery.value);
        let to = target(name, delivery, output(pipeline, &sink.kind));
        let feed = Feed::Verdicts {
            steps: sink.from.iter().map(|f| f.value.clone()).collect(),
            condition: condition(pipeline, sink)?,
            // An alert ends with a verdict that does not match.
            marks_only: matches!(sink.kind, SinkKind::Alertmanager(_)),
        };
        let sink_metrics = metrics.sink(partition, name);
        if !can_refuse(&sink.kind) {
            out.push(Tail::new(to, feed, reader.clone(), sink_metrics, None));
            continue;
        }
        let refusals = Arc::new(Refusals::of_lane(reader, name)?);
        out.push(Tail::new(to, feed, reader.clone(), sink_metrics, Some(refusals.clone())));
        let name = format!("{DEAD_LETTER}.{name}");
        let sink_metrics = metrics.sink(partition, &name);
        let to = target(&name, dead_delivery, dead_output.clone());
        out.push(Tail::new(to, Feed::Refused(refusals), reader.clone(), sink_metrics, None));
    }
    let to = target(DEAD_LETTER, dead_delivery, dead_output);
    let sink_metrics = metrics.sink(partition, DEAD_LETTER);
    out.push(Tail::new(to, Feed::DeadLetters, reader.clone(), sink_metrics, None));
    Ok(out)
}
