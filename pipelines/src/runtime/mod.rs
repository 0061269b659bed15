//! The runtime: threads for lanes, tasks for sinks and anchors, and the order in which they start and stop.
//!
//! What is decided (what a verdict is, when to anchor, what a checkpoint covers) is decided in the engine and the store;
//! here is only who calls them. Start: state, then lanes restored, then source, then sinks, then anchors. Stop: lanes
//! first, each with a last checkpoint, then sinks up to that checkpoint, then anchors.

mod anchor_tail;
mod artifacts;
mod error;
mod lane_input;
mod lane_worker;
pub mod metrics;
mod schemas;
mod secret;
pub mod signed;
mod sinks;
mod verdict_json;

pub use anchor_tail::operator_key;
pub use artifacts::{hex, model_path, pipeline_path};
pub use error::RuntimeError;
pub use verdict_json::{class_name, verdict_json};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use avouch_connectors::http::{HttpServer, Readiness};
use avouch_connectors::kafka::{Source, partition_count};
use avouch_connectors::store::{LaneReader, LaneStore, StoreOptions, load_or_create_note_signer};
use avouch_engine::lane::{Counters, Lane};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::FormatSpec;
use avouch_engine::verdict::{Hash32, LogOrigin};
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::lang::{Pipeline, SourceKind};
use lane_input::LaneInput;
use lane_worker::LaneWorker;
use metrics::Metrics;
use sinks::TailStop;

/// Largest number of messages taken at once: enough to amortise a step, small enough to keep its columns in cache.
const MOST_MESSAGES: usize = 4_096;

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Stop once every partition was read up to the end it had at the start, everything is delivered and anchored.
    pub until_end: bool,
    /// Create the topics of sinks and dead letters that do not exist, with as many partitions as the source.
    pub create_topics: bool,
}

/// What a run did, over all lanes and restarts.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Counters, summed over lanes.
    pub counters: Counters,
    /// Entries in the logs, summed over lanes.
    pub log_size: u64,
}

/// A running pipeline's place on disk: `<checkpoint.store>/<pipeline>`.
pub fn state_dir(pipeline: &Pipeline) -> PathBuf {
    pipeline.checkpoint.dir.join(&pipeline.name.value)
}

/// A lane's place in it.
pub fn lane_dir(state: &Path, partition: i32) -> PathBuf {
    state.join(partition.to_string())
}

struct OpenLane {
    partition: i32,
    lane: Lane,
    store: LaneStore,
    next_offset: Option<i64>,
}

fn open_lane(
    plan: &Arc<LanePlan>,
    state: &Path,
    partition: i32,
    secret: &avouch_engine::verdict::Secret,
) -> Result<OpenLane, RuntimeError> {
    let origin = LogOrigin::new(&plan.pipeline, partition);
    let dir = lane_dir(state, partition);
    let signer = load_or_create_note_signer(&state.join(format!("note-key-{partition}")), &origin)?;
    let options = StoreOptions { signer: Some(signer), ..StoreOptions::default() };
    let (store, checkpoint) = LaneStore::open(&dir, &origin, options)?;
    let in_lane = |source| RuntimeError::Lane { lane: partition, source };
    let (lane, next_offset) = match &checkpoint {
        Some(c) => {
            if c.committed.topic != plan.source.topic {
                let why = format!(
                    "the state in {} is of topic \"{}\", not \"{}\"; use another checkpoint store",
                    dir.display(),
                    c.committed.topic,
                    plan.source.topic
                );
                return Err(RuntimeError::Inconsistent { lane: partition, why });
            }
            let lane = Lane::restore(plan.clone(), partition, secret.clone(), &c.lane_state).map_err(in_lane)?;
            tracing::info!(
                lane = partition,
                offset = c.committed.next_offset,
                log = c.committed.log_size,
                "lane restored"
            );
            (lane, Some(c.committed.next_offset))
        }
        None => (Lane::new(plan.clone(), partition, secret.clone()), None),
    };
    if lane.next_index() != store.size() {
        let why = format!("its state has {} verdicts but its log {}", lane.next_index(), store.size());
        return Err(RuntimeError::Inconsistent { lane: partition, why });
    }
    Ok(OpenLane { partition, lane, store, next_offset })
}

/// Runs a pipeline until `stop` turns true, a lane fails, or (with `until_end`) its work is done.
pub async fn run(
    pipeline: &Pipeline,
    plan: Arc<LanePlan>,
    options: RunOptions,
    stop: watch::Receiver<bool>,
) -> Result<Summary, RuntimeError> {
    let metrics = Metrics::new().map_err(|e| RuntimeError::Start(format!("metrics: {e}")))?;
    run_watched(pipeline, plan, options, metrics, stop).await
}

/// [`run`] with the metrics of whoever watches it from inside the process. They must be new.
pub async fn run_watched(
    pipeline: &Pipeline,
    plan: Arc<LanePlan>,
    options: RunOptions,
    metrics: Metrics,
    mut stop: watch::Receiver<bool>,
) -> Result<Summary, RuntimeError> {
    let state = state_dir(pipeline);
    std::fs::create_dir_all(&state).map_err(|source| RuntimeError::File { path: state.clone(), source })?;
    let secret = secret::secret(pipeline, &state)?;
    keep_artifacts(pipeline, &plan, &state)?;

    let readiness = Readiness::default();
    readiness.waiting("lanes", "restoring");
    let http = HttpServer::bind(pipeline.http_listen, metrics.registry.clone(), readiness.clone()).await?;
    tracing::info!(address = %http.address(), "serving /metrics, /livez and /readyz");
    let mut http = tokio::spawn(http.serve());

    let SourceKind::Kafka(kafka) = &pipeline.source.kind;
    let brokers = kafka.brokers.as_str().to_owned();
    let topic = plan.source.topic.clone();
    let partitions = {
        let (brokers, topic) = (brokers.clone(), topic.clone());
        blocking(move || Ok(partition_count(&brokers, &topic, Duration::from_secs(10))?)).await?
    };
    for topic in sinks::topics(pipeline) {
        sinks::prepare(&topic, options.create_topics.then_some(partitions)).await?;
    }
    let lanes: Vec<OpenLane> =
        (0..partitions).map(|p| open_lane(&plan, &state, p, &secret)).collect::<Result<_, _>>()?;
    let starts: Vec<Option<i64>> = lanes.iter().map(|l| l.next_offset).collect();
    let group = kafka.group.as_str().to_owned();
    let until_end = options.until_end;
    let (source, readers, ends) = blocking(move || {
        let start = |p: i32| starts.get(p as usize).copied().flatten();
        let (source, readers) = Source::open(&brokers, &topic, &group, start, MOST_MESSAGES)?;
        let ends = if until_end {
            readers.iter().map(|r| source.end_offset(r.partition()).map(Some)).collect::<Result<Vec<_>, _>>()?
        } else {
            vec![None; readers.len()]
        };
        Ok((source, readers, ends))
    })
    .await?;

    let registry = schemas::registry(pipeline, &state)?;
    if let Some(registry) = &registry
        && let Err(e) = registry.ping().await
    {
        // Schemas that were fetched before are kept, so it may never be needed.
        tracing::warn!(error = %e, "a lane that needs a schema it does not have will wait");
    }
    let log_readers: Vec<(i32, LaneReader)> = lanes.iter().map(|l| (l.partition, l.store.reader())).collect();
    let halt = Arc::new(AtomicBool::new(false));
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut workers: JoinSet<Result<(), RuntimeError>> = JoinSet::new();
    for ((lane, reader), until) in lanes.into_iter().zip(readers).zip(ends) {
        readiness.waiting(&format!("lane {}", lane.partition), "starting");
        let worker = LaneWorker {
            plan: plan.clone(),
            next_offset: lane.next_offset.unwrap_or(0),
            metrics: metrics.lane(lane.partition),
            lane: lane.lane,
            store: lane.store,
            input: LaneInput::Kafka(reader),
            readiness: readiness.clone(),
            schemas: registry.clone().map(|r| schemas::Schemas::new(r, tokio::runtime::Handle::current())),
            checkpoint_every: Duration::from_millis(pipeline.checkpoint.every_ms.max(1) as u64),
            until,
            stop: halt.clone(),
            checkpointed: tell.clone(),
        };
        workers.spawn_blocking(move || worker.run());
    }
    drop(tell);
    readiness.ready("lanes");

    let (stop_sinks, sinks_stop) = watch::channel(TailStop::No);
    // Those that deliver what sinks refuse end after the sinks.
    let (mut sinks, mut last) = (JoinSet::new(), JoinSet::new());
    for (partition, reader) in &log_readers {
        let source = &plan.source.topic;
        for tail in sinks::tails(pipeline, source, *partition, reader, &metrics, options.until_end)? {
            let set: &mut JoinSet<Result<(), RuntimeError>> = if tail.is_last() { &mut last } else { &mut sinks };
            set.spawn(tail.run(sinks_stop.clone()));
        }
    }
    let (stop_anchors, anchors_stop) = watch::channel(anchor_tail::Stop::No);
    let mut anchors: JoinSet<Result<(), RuntimeError>> = JoinSet::new();
    if let Some(anchor) = &pipeline.anchor {
        let tail = anchor_tail::AnchorTail::new(anchor, &state, log_readers.clone(), &metrics);
        anchors.spawn(tail.run(anchors_stop));
    }

    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut failure: Option<RuntimeError> = None;
    let mut offsets = std::collections::BTreeMap::new();
    while !workers.is_empty() {
        tokio::select! {
            Some(ended) = workers.join_next() => note(ended, &mut failure),
            Some(ended) = sinks.join_next() => note(ended, &mut failure),
            Some(ended) = last.join_next() => note(ended, &mut failure),
            Some(ended) = anchors.join_next() => note(ended, &mut failure),
            ended = &mut http => {
                let why = match ended { Ok(Err(e)) => e.to_string(), Ok(Ok(())) => "it ended".into(), Err(e) => e.to_string() };
                failure.get_or_insert(RuntimeError::Start(format!("the HTTP server: {why}")));
            }
            Some((partition, offset)) = told.recv() => { offsets.insert(partition, offset); }
            _ = tick.tick() => {
                source.serve();
                if !offsets.is_empty() {
                    source.report(&std::mem::take(&mut offsets).into_iter().collect::<Vec<_>>());
                }
            }
            _ = stop.wait_for(|s| *s), if !halt.load(Ordering::Relaxed) => halt.store(true, Ordering::Relaxed),
        }
        if failure.is_some() {
            halt.store(true, Ordering::Relaxed);
        }
    }
    readiness.waiting("lanes", "stopped");
    // Sinks and anchors finish what the last checkpoints cover; after a failure they keep their cursors instead.
    for (stage, tails) in [(TailStop::Records, &mut sinks), (TailStop::Refusals, &mut last)] {
        stop_sinks.send_replace(stage);
        while let Some(ended) = tails.join_next().await {
            note(ended, &mut failure);
        }
    }
    let finish = if options.until_end && failure.is_none() { anchor_tail::Stop::Flush } else { anchor_tail::Stop::Now };
    stop_anchors.send_replace(finish);
    while let Some(ended) = anchors.join_next().await {
        note(ended, &mut failure);
    }
    if !offsets.is_empty() {
        source.report(&offsets.into_iter().collect::<Vec<_>>());
    }
    http.abort();
    match failure {
        Some(e) => Err(e),
        None => summary(&plan, &state, &secret, &log_readers),
    }
}

fn summary(
    plan: &Arc<LanePlan>,
    state: &Path,
    secret: &avouch_engine::verdict::Secret,
    readers: &[(i32, LaneReader)],
) -> Result<Summary, RuntimeError> {
    let mut out = Summary::default();
    for (partition, _) in readers {
        // The lane's own counters, as the last checkpoint holds them.
        let lane = open_lane(plan, state, *partition, secret)?;
        let c = lane.lane.counters();
        out.counters.rows_in += c.rows_in;
        out.counters.rows_used += c.rows_used;
        for (a, b) in out.counters.dead.iter_mut().zip(c.dead) {
            *a += b;
        }
        for (a, b) in out.counters.verdicts.iter_mut().zip(c.verdicts) {
            *a += b;
        }
        out.log_size += lane.store.size();
    }
    Ok(out)
}

fn note(ended: Result<Result<(), RuntimeError>, tokio::task::JoinError>, failure: &mut Option<RuntimeError>) {
    let e = match ended {
        Ok(Ok(())) => return,
        Ok(Err(e)) => e,
        Err(e) => RuntimeError::Start(format!("a part of the runtime ended: {e}")),
    };
    tracing::error!(error = %e, "stopping");
    failure.get_or_insert(e);
}

fn keep_artifacts(pipeline: &Pipeline, plan: &LanePlan, state: &Path) -> Result<(), RuntimeError> {
    artifacts::keep(&pipeline_path(state, &plan.config_hash), pipeline.canonical.json.as_bytes())?;
    if let FormatSpec::Protobuf(p) = &plan.source.format {
        let hash: Hash32 = Sha256::digest(&p.descriptor).into();
        artifacts::keep(&artifacts::descriptor_path(state, &hash), &p.descriptor)?;
        tracing::info!(message = p.message, descriptor = hex(&hash), "Protobuf descriptor");
    }
    for score in &plan.scores {
        let Some(step) = pipeline.model_step(&score.name) else { continue };
        let path = &step.model_file.value;
        let bytes = std::fs::read(path).map_err(|source| RuntimeError::File { path: path.clone(), source })?;
        if avouch_models::model_hash(&bytes) != score.model.hash() {
            let why = "the model file changed while it was being loaded; start again";
            return Err(RuntimeError::File { path: path.clone(), source: std::io::Error::other(why) });
        }
        artifacts::keep(&model_path(state, &score.model.hash()), &bytes)?;
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(f).await {
        Ok(out) => out,
        Err(e) => Err(RuntimeError::Start(format!("a start-up step ended: {e}"))),
    }
}
