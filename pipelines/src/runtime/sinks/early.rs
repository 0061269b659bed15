//! Early results on their way out: from the lane's hand into a bounded queue, one a sink, and from there to the sink.
//!
//! ```text
//!   lane ─ offer ─┬─► queue ─ EarlyTail ─► a Kafka topic of their own · webhook · stdout
//!                 └─► (full: dropped, counted)
//! ```
//!
//! They are in no log, so there is no cursor, and nothing is offered twice by the same process: what a sink does not take is
//! dropped and counted. The lane never waits. A lane that goes back to its last checkpoint gives the results since then
//! again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use avouch_connectors::delivery::{DownKind, Failure};
use avouch_connectors::http::Webhook;
use avouch_connectors::kafka::{KafkaConnection, OutRecord, PlainSink, record_limit};
use avouch_engine::control::Backoff;
use avouch_engine::control::sink::PAUSES_MS;
use avouch_engine::lane::EarlyVerdict;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::super::error::RuntimeError;
use super::super::metrics::{EarlyMetrics, Metrics};
use super::super::verdict_json::early_json;
use super::feed::Where;
use super::lines::print;
use super::tail::TailStop;
use super::writer::{Halt, blocking};
use super::{condition, connection, webhook};
use crate::lang::{EarlyTo, Pipeline, SinkKind};

/// Results that wait for a sink of a lane: one instant of a large fleet, some tens of megabytes at most.
const ROOM: usize = 50_000;
/// The most results of a delivery, except where the sink says otherwise.
const MOST: usize = 2_000;
/// How long a delivery may take once the lane has ended.
const FINISH: Duration = Duration::from_secs(5);

/// Where a lane puts its early results.
#[derive(Debug, Default)]
pub(in super::super) struct EarlyOutputs(Vec<Output>);

#[derive(Debug)]
struct Output {
    steps: Vec<String>,
    queue: mpsc::Sender<Arc<EarlyVerdict>>,
    metrics: EarlyMetrics,
}

/// Takes the early results of one sink of one lane out of their queue.
pub(in super::super) struct EarlyTail {
    sink: String,
    log: String,
    lane: i32,
    queue: mpsc::Receiver<Arc<EarlyVerdict>>,
    metrics: EarlyMetrics,
    condition: Option<Arc<Where>>,
    to: To,
}

enum To {
    Kafka { connection: KafkaConnection, topic: String, open: Option<Arc<PlainSink>> },
    Webhook { options: webhook::Options, open: Option<Webhook> },
    Stdout,
}

impl EarlyOutputs {
    /// Those of one lane, whose log has the name `log`, and what delivers them.
    pub fn new(
        pipeline: &Pipeline,
        log: &str,
        lane: i32,
        metrics: &Metrics,
    ) -> Result<(Self, Vec<EarlyTail>), RuntimeError> {
        let (mut outputs, mut tails) = (Vec::new(), Vec::new());
        for sink in &pipeline.sinks {
            let to = match (&sink.early, &sink.kind) {
                (Some(EarlyTo::Topic(topic)), SinkKind::Kafka(k)) => {
                    let topic = topic.as_str().to_owned();
                    To::Kafka { connection: connection(pipeline, k), topic, open: None }
                }
                (Some(_), SinkKind::Webhook(w)) => To::Webhook { options: webhook::Options::new(w), open: None },
                (Some(_), SinkKind::Stdout) => To::Stdout,
                // `check` refuses early results for other kinds.
                _ => continue,
            };
            let (put, queue) = mpsc::channel(ROOM);
            let metrics = metrics.early(lane, &sink.name.value);
            let steps = sink.from.iter().map(|f| f.value.clone()).collect();
            outputs.push(Output { steps, queue: put, metrics: metrics.clone() });
            tails.push(EarlyTail {
                sink: sink.name.value.clone(),
                log: log.to_owned(),
                lane,
                queue,
                metrics,
                condition: condition(pipeline, sink)?,
                to,
            });
        }
        Ok((Self(outputs), tails))
    }

    /// Gives results to the sinks that take them, as far as there is room. Never waits.
    pub fn offer(&self, results: impl Iterator<Item = EarlyVerdict>) {
        for result in results {
            let result = Arc::new(result);
            for output in self.0.iter().filter(|o| o.steps.iter().any(|s| **s == *result.evidence.step)) {
                if output.queue.try_send(result.clone()).is_err() {
                    output.metrics.dropped.inc();
                }
            }
        }
    }
}

impl EarlyTail {
    /// Delivers until the lane has ended and the queue is empty; for a moment more at most once `stop` says so.
    pub async fn run(mut self, mut stop: watch::Receiver<TailStop>) -> Result<(), RuntimeError> {
        let mut work = pin!(self.work());
        tokio::select! {
            () = &mut work => return Ok(()),
            // An error means that the runtime is gone.
            _ = stop.wait_for(|s| *s >= TailStop::Records) => {}
        }
        // What is left then is lost, as it may be.
        let _ = tokio::time::timeout(FINISH, work).await;
        Ok(())
    }

    async fn work(&mut self) {
        let most = match &self.to {
            To::Webhook { options, .. } => options.most(),
            _ => MOST,
        };
        let mut backoff = Backoff::new(PAUSES_MS.0, PAUSES_MS.1);
        let mut batch = Vec::with_capacity(most);
        while self.queue.recv_many(&mut batch, most).await > 0 {
            let n = self.matching(&mut batch);
            let failure = match self.deliver(&batch).await {
                Ok(()) => {
                    self.metrics.results.inc_by(n as u64);
                    backoff.reset();
                    batch.clear();
                    continue;
                }
                Err(failure) => failure,
            };
            batch.clear();
            let asked = match &failure {
                Failure::Down { retry_after, .. } => *retry_after,
                _ => None,
            };
            let due = Duration::from_millis(backoff.pause_ms().unsigned_abs());
            let pause = asked.map_or(due, |asked| asked.max(due));
            tracing::warn!(sink = self.sink, lane = self.lane, error = %failure, ?pause, "early results dropped");
            self.metrics.dropped.inc_by(n as u64);
            tokio::time::sleep(pause).await;
            // What has waited meanwhile is old news.
            while self.queue.try_recv().is_ok() {
                self.metrics.dropped.inc();
            }
        }
    }

    /// Leaves out those for which the sink's `where` does not hold; how many are left.
    fn matching(&self, batch: &mut Vec<Arc<EarlyVerdict>>) -> usize {
        if let Some(condition) = &self.condition {
            match condition.hold_early(&self.log, batch) {
                Ok(holds) => {
                    let mut holds = holds.into_iter();
                    batch.retain(|_| holds.next().unwrap_or(false));
                }
                Err(error) => {
                    tracing::warn!(sink = self.sink, lane = self.lane, error, "a sink's `where` cannot be computed");
                    self.metrics.dropped.inc_by(batch.len() as u64);
                    batch.clear();
                }
            }
        }
        batch.len()
    }

    async fn deliver(&mut self, batch: &[Arc<EarlyVerdict>]) -> Result<(), Failure> {
        if batch.is_empty() {
            return Ok(());
        }
        let json = |r: &Arc<EarlyVerdict>| -> Value { early_json(&self.log, r) };
        let delivered = match &mut self.to {
            To::Kafka { connection, topic, open } => {
                let records: Vec<OutRecord> = batch.iter().map(|r| record(&self.log, r, json(r))).collect();
                let limit = match open {
                    None => record_limit(connection, topic).await,
                    Some(_) => None,
                };
                let (kept, connection, topic) = (open.clone(), connection.clone(), topic.clone());
                let written = blocking(move || {
                    let sink = match kept {
                        Some(sink) => sink,
                        None => Arc::new(PlainSink::open(&connection, &topic, limit)?),
                    };
                    sink.write(&records)?;
                    Ok(sink)
                });
                written.await.map(|sink| *open = Some(sink))
            }
            To::Webhook { options, open } => {
                let hook = match open {
                    Some(hook) => hook,
                    None => open.insert(options.connect()?),
                };
                let results: Vec<String> = batch.iter().map(|r| json(r).to_string()).collect();
                hook.post_early(&self.log, &self.sink, &results).await.map_err(Halt::Failed)
            }
            To::Stdout => print(batch.iter().map(|r| format!("{}\n", json(r))).collect()).await,
        };
        match delivered {
            Ok(()) => Ok(()),
            Err(Halt::Failed(failure)) => Err(failure),
            // Early results stop nothing.
            Err(Halt::Stop(e)) => Err(Failure::down(DownKind::Failed, e.to_string())),
        }
    }
}

fn record(log: &str, r: &EarlyVerdict, json: Value) -> OutRecord {
    OutRecord {
        partition: None,
        key: Some(r.evidence.device.clone().into_bytes()),
        value: Some(json.to_string().into_bytes()),
        headers: vec![("log", log.as_bytes().to_vec()), ("early", b"true".to_vec())],
        named: None,
        may_be_cut: false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_engine::verdict::{Evidence, Severity};

    use super::*;

    fn result(n: i64) -> EarlyVerdict {
        EarlyVerdict {
            as_of: n,
            window_start: 0,
            window_end: 60_000,
            class: 0,
            severity: Severity::Normal,
            model_hash: [0; 32],
            evidence: Evidence {
                salt: [0; 32],
                device: "d".into(),
                step: "anomaly".into(),
                topic: "t".into(),
                partition: 0,
                first_offset: 0,
                last_offset: n,
                rows: 1,
                references: Vec::new(),
                score: 1.0,
                p_value: 0.5,
                interval: None,
                incident: None,
                label: None,
                features: Vec::new(),
            },
        }
    }

    /// A lane does not wait for a sink that takes nothing: what finds no room is dropped and counted, and what had room
    /// is there in order.
    #[tokio::test]
    async fn a_sink_that_stands_still_drops_and_counts() {
        let (put, mut queue) = mpsc::channel(3);
        let metrics = Metrics::new().unwrap().early(0, "slow");
        let outputs =
            EarlyOutputs(vec![Output { steps: vec!["anomaly".into()], queue: put, metrics: metrics.clone() }]);
        outputs.offer((0..5).map(result));
        assert_eq!(metrics.dropped.get(), 2);
        let taken: Vec<i64> = std::iter::from_fn(|| queue.try_recv().ok()).map(|r| r.as_of).collect();
        assert_eq!(taken, [0, 1, 2]);
    }
}
