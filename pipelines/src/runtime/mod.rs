//! The runtime: threads for lanes, tasks for sinks and anchors, and the order in which they start and stop.
//!
//! What is decided (what a verdict is, when to anchor, what a checkpoint covers, what a sink writes next, who may commit a lane)
//! is decided in the engine, `avouch_engine::control`, and the store; here is only who calls them.
//!
//! ```text
//!   run ──► Source ── given, taken ──► Lanes ──► LaneWorker (a thread a lane) ──► store
//!    │      (a consumer group, or        │                                          │ committed
//!    │       all partitions)             └─► a task a sink ◄────────────────────────┤
//!    └─► AnchorTail (one process of all that share the state) ◄─────────────────────┘
//! ```
//!
//! Start: state, topics, source; then each lane as the source gives it, with its sinks; anchors. Stop: lanes first, each with
//! a last checkpoint, then sinks up to that checkpoint, then anchors, then the group is left.

mod anchor_lease;
mod anchor_tail;
mod artifacts;
mod checkpoint_store;
mod error;
mod generations;
mod halt;
mod inputs;
mod keys;
mod lane_input;
mod lane_worker;
mod lanes;
mod lanes_here;
pub mod metrics;
mod open;
mod readers;
mod reference_watch;
mod reload;
mod repartition;
mod schemas;
mod secret;
mod session;
pub mod signed;
mod sinks;
mod source_log;
mod stamp;
mod tap;
mod verdict_json;

pub(crate) use anchor_lease::AnchorLease;
pub(crate) use anchor_tail::{JOURNAL, open_writer};
pub use anchor_tail::{log_owner, operator_key};
pub use artifacts::{Artifacts, hex, keys_path, model_path, pipeline_path, reference_path};
pub use checkpoint_store::CheckpointStore;
pub use error::RuntimeError;
pub use inputs::{chain_options, files_place, mqtt_options};
pub use keys::registry as device_registry;
pub use lanes_here::lanes_here;
pub use reload::{Load, Reloads, ask_on_change};
pub use schemas::{Schemas, registry as schema_registry};
pub use secret::secret;
pub(crate) use secret::{ERASING, keep_secret, put_durably, stored_secret, write_secret};
pub use sinks::connection as kafka_connection;
pub use source_log::read_source;
pub use verdict_json::{class_name, verdict_json};

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_connectors::http::{HttpError, HttpServer, Readiness};
use avouch_connectors::kafka::{KafkaError, record_limit};
use avouch_engine::lane::Counters;
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::FormatSpec;
use avouch_engine::verdict::Hash32;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::lang::{Pipeline, SourceKind};
use generations::Generations;
use metrics::Metrics;
use readers::OwnReaders;
use reference_watch::ReferenceWatch;
use repartition::Repartitioner;
use tap::Taps;

pub use avouch_connectors::kafka::Share;

/// How long questions to the brokers may take at the start.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest number of messages taken at once: enough to amortise a step, small enough to keep its columns in cache.
const MOST_MESSAGES: usize = 4_096;
/// How often a process may be fenced under its own name within [`FENCED_WITHIN`] before it gives up.
const FENCED_OFTEN: usize = 3;
const FENCED_WITHIN: Duration = Duration::from_secs(300);

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Which partitions: those that the consumer group gives this process, or all.
    pub share: Share,
    /// Stop once every partition was read up to the end it had at the start, everything is delivered and anchored. Needs
    /// [`Share::All`].
    pub until_end: bool,
    /// Create the topics of sinks and dead letters that do not exist, with as many partitions as the source, and the one it
    /// is repartitioned through.
    pub create_topics: bool,
    /// Carry lanes over that were run under another version of the pipeline file.
    pub accept_change: bool,
}

/// What the lanes that this process had at the end have done, over all restarts.
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

/// The lanes in a state directory: its subdirectories whose name is a partition's number, by that number. None where there is
/// no directory.
///
/// # Errors
/// When it cannot be read.
pub fn lane_dirs(state: &Path) -> std::io::Result<Vec<(i32, PathBuf)>> {
    let entries = match std::fs::read_dir(state) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut out = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Ok(lane) = name.parse::<i32>()
            && lane >= 0
            && path.is_dir()
        {
            out.push((lane, path));
        }
    }
    out.sort();
    Ok(out)
}

/// Runs a pipeline until `stop` turns true, a lane fails, or (with `until_end`) its work is done.
pub async fn run(
    pipeline: &Pipeline,
    plan: Arc<LanePlan>,
    options: RunOptions,
    reloads: Reloads,
    stop: watch::Receiver<bool>,
) -> Result<Summary, RuntimeError> {
    let metrics = Metrics::new().map_err(|e| RuntimeError::Start(format!("metrics: {e}")))?;
    run_watched(pipeline, plan, options, metrics, reloads, stop).await
}

/// [`run`] with the metrics of whoever watches it from inside the process. They must be new.
pub async fn run_watched(
    pipeline: &Pipeline,
    plan: Arc<LanePlan>,
    options: RunOptions,
    metrics: Metrics,
    reloads: Reloads,
    mut stop: watch::Receiver<bool>,
) -> Result<Summary, RuntimeError> {
    let options = RunOptions { until_end: options.until_end || pipeline.source.ends(), ..options };
    let state = state_dir(pipeline);
    std::fs::create_dir_all(&state).map_err(|source| RuntimeError::File { path: state.clone(), source })?;
    let secret = secret::secret(pipeline, &state)?;
    let stores = CheckpointStore::open(pipeline)?;
    let artifacts = Artifacts::new(&pipeline.name.value, &state, &stores);
    let generations = Generations::new(pipeline, &state, &stores, &artifacts);
    let generation = {
        let (pipeline, plan) = (pipeline.clone(), plan.clone());
        let (generations, artifacts) = (generations.clone(), artifacts.clone());
        blocking(move || {
            // Before its number is taken: whoever reads the list finds what it speaks of.
            keep_artifacts(&pipeline, &plan, &artifacts)?;
            generations.begin(&pipeline, options.accept_change)
        })
        .await?
    };
    let keys = keys::open(pipeline, &artifacts, &metrics).await?;
    let (watches, references) = ReferenceWatch::begin(pipeline, &plan, &artifacts, &metrics, keys)?;

    let readiness = Readiness::default();
    readiness.waiting("lanes", "none given yet");
    let taps = Taps::default();
    taps.running(pipeline, &plan);
    let live = Arc::new(taps.clone());
    let mut http = HttpServer::bind(pipeline.http_listen, metrics.registry.clone(), readiness.clone(), live).await?;
    if pipeline.http_log {
        http = http.with_logs(&state);
    }
    tracing::info!(address = %http.address(), tap = pipeline.http_tap, log = pipeline.http_log, "serving /metrics, /livez and /readyz");
    let http = tokio::spawn(http.serve());

    let readers = OwnReaders::default();
    if let (SourceKind::Kafka(kafka), Some(through)) = (&pipeline.source.kind, pipeline.source.repartition()) {
        repartition::prepare(kafka, through, options.create_topics).await?;
    }
    let partitions = inputs::lanes(pipeline).await?;
    for topic in sinks::topics(pipeline) {
        sinks::prepare(&topic, options.create_topics.then_some(partitions)).await?;
    }
    let registry = schemas::registry(pipeline, &state)?;
    if let Some(registry) = &registry
        && let Err(e) = registry.ping().await
    {
        // Schemas that were fetched before are kept, so it may never be needed.
        tracing::warn!(error = %e, "a lane that needs a schema it does not have will wait");
    }
    let (stop_anchors, anchors_stop) = watch::channel(anchor_tail::Stop::No);
    let mut beside = Beside { http: Some(http), anchors: JoinSet::new(), repartition: JoinSet::new() };
    if let Some(anchor) = &pipeline.anchor {
        let tail = anchor_tail::AnchorTail::new(anchor, &state, readers.clone(), &metrics);
        beside.anchors.spawn(tail.run(anchors_stop));
    }

    let (stop_repartition, repartition_stop) = watch::channel(false);
    if let (SourceKind::Kafka(kafka), Some(through)) = (&pipeline.source.kind, pipeline.source.repartition()) {
        let repartitioner = Repartitioner::new(repartition::Setup {
            source: kafka,
            through,
            plan: &plan,
            state: &state,
            registry: registry.clone(),
            limit: record_limit(&kafka.connection(), through.topic.as_str()).await,
            metrics: &metrics,
            readiness: &readiness,
            until_end: options.until_end,
            stops: [stop.clone(), repartition_stop],
        })?;
        beside.repartition.spawn_blocking(move || repartitioner.run());
    }
    // Lanes that end where their topic ends begin when all of the source is in it.
    let repartitioned = match options.until_end {
        true => beside.repartitioned().await,
        false => Ok(()),
    };

    let mut membership = session::Membership {
        pipeline: pipeline.clone(),
        plan,
        generation,
        generations,
        options,
        metrics,
        readiness,
        state,
        stores,
        artifacts,
        secret,
        readers,
        registry,
        references,
        watching: watches.spawn(),
        partitions,
        reloads,
        taps,
    };
    let mut outcome = repartitioned.map(|()| Summary::default());
    let mut fenced: Vec<Instant> = Vec::new();
    while outcome.is_ok() || !fenced.is_empty() {
        outcome = membership.run(&mut beside, &mut stop).await;
        let Err(RuntimeError::Kafka(e @ KafkaError::SameInstance { .. })) = &outcome else { break };
        // Requests of an earlier process under our name, or our own that the broker answered late, do this once; a second
        // process that lives does it again and again.
        fenced.retain(|at| at.elapsed() < FENCED_WITHIN);
        fenced.push(Instant::now());
        if fenced.len() > FENCED_OFTEN || *stop.borrow() {
            break;
        }
        tracing::warn!(error = %e, "joining the group again");
    }
    membership.readiness.waiting("lanes", "stopped");
    stop_repartition.send_replace(true);
    while let Some(ended) = beside.repartition.join_next().await {
        let ended = joined(ended);
        if outcome.is_ok() {
            outcome = ended.and(outcome);
        }
    }
    // Anchors finish what the last checkpoints cover; after a failure they leave it to the next run.
    let finish = if options.until_end && outcome.is_ok() { anchor_tail::Stop::Flush } else { anchor_tail::Stop::Now };
    stop_anchors.send_replace(finish);
    loop {
        let ended = tokio::select! {
            ended = beside.anchors.join_next() => ended,
            // They may wait long, for the chain or for the next day's budget. Who does not leaves them to the next run.
            Ok(_) = stop.wait_for(|stop| *stop), if *stop_anchors.borrow() != anchor_tail::Stop::Now => {
                stop_anchors.send_replace(anchor_tail::Stop::Now);
                continue;
            }
        };
        let Some(ended) = ended else { break };
        let ended = joined(ended);
        if outcome.is_ok() {
            ended?;
        }
    }
    if let Some(http) = beside.http {
        http.abort();
    }
    drop(membership);
    outcome
}

/// What runs beside the lanes for as long as the process does.
struct Beside {
    /// The HTTP server, until it has ended.
    http: Option<JoinHandle<Result<(), HttpError>>>,
    anchors: JoinSet<Result<(), RuntimeError>>,
    /// The repartitioning, where there is one.
    repartition: JoinSet<Result<(), RuntimeError>>,
}

impl Beside {
    /// Waits until the repartitioning has ended by itself, or something else has.
    async fn repartitioned(&mut self) -> Result<(), RuntimeError> {
        match self.repartition.is_empty() {
            true => Ok(()),
            false => self.ended().await,
        }
    }

    /// Waits for something of it to end, which nothing of it should: the error, or `Ok` of an anchor or a repartitioning that was told to stop.
    async fn ended(&mut self) -> Result<(), RuntimeError> {
        let http = async {
            match &mut self.http {
                Some(http) => http.await,
                None => std::future::pending().await,
            }
        };
        let anchors = async {
            match self.anchors.join_next().await {
                Some(ended) => ended,
                None => std::future::pending().await,
            }
        };
        let repartition = async {
            match self.repartition.join_next().await {
                Some(ended) => ended,
                None => std::future::pending().await,
            }
        };
        let why = tokio::select! {
            ended = anchors => return joined(ended),
            ended = repartition => return joined(ended),
            ended = http => match ended {
                Ok(Err(e)) => e.to_string(),
                Ok(Ok(())) => "it ended".into(),
                Err(e) => e.to_string(),
            },
        };
        self.http = None;
        Err(RuntimeError::Start(format!("the HTTP server: {why}")))
    }
}

fn joined(ended: Result<Result<(), RuntimeError>, tokio::task::JoinError>) -> Result<(), RuntimeError> {
    match ended {
        Ok(ended) => ended,
        Err(e) => Err(RuntimeError::Start(format!("a part of the runtime ended: {e}"))),
    }
}

fn keep_artifacts(pipeline: &Pipeline, plan: &LanePlan, artifacts: &Artifacts) -> Result<(), RuntimeError> {
    let state = artifacts.state();
    artifacts.keep(&pipeline_path(state, &plan.config_hash), pipeline.canonical.json.as_bytes())?;
    if let FormatSpec::Protobuf(p) = &plan.source.format {
        let hash: Hash32 = Sha256::digest(&p.descriptor).into();
        artifacts.keep(&artifacts::descriptor_path(state, &hash), &p.descriptor)?;
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
        artifacts.keep(&model_path(state, &score.model.hash()), &bytes)?;
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
