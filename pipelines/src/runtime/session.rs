//! One membership in the source's group: from joining until it ends, whether because it was told to, because a lane failed,
//! or because the group has shut this member out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use avouch_connectors::http::Readiness;
use avouch_connectors::kafka::GroupEvent;
use avouch_connectors::schema_registry::SchemaRegistry;
use avouch_engine::control::reload::{HELD_FOR_MS, ReloadAction, ReloadControl, ReloadEvent, Version};
use avouch_engine::plan::LanePlan;
use avouch_engine::verdict::Secret;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::artifacts::{Artifacts, hex};
use super::checkpoint_store::CheckpointStore;
use super::error::RuntimeError;
use super::generations::Generations;
use super::inputs::{Inputs, OpenInputs};
use super::lanes::{Lanes, Setup};
use super::metrics::Metrics;
use super::open::Opener;
use super::readers::OwnReaders;
use super::reference_watch::{Tables, Watching};
use super::reload::{Candidate, Preparation, Reloads};
use super::tap::Taps;
use super::{Beside, RunOptions, Share, Summary, joined};
use crate::lang::Pipeline;

/// How long the source's queue is served at a time.
const SERVE: Duration = Duration::from_millis(100);

/// What a membership needs, and what outlives it.
pub(super) struct Membership {
    pub pipeline: Pipeline,
    pub plan: Arc<LanePlan>,
    /// The number of the pipeline's version, and where it is from.
    pub generation: u64,
    pub generations: Generations,
    pub options: RunOptions,
    pub metrics: Metrics,
    pub readiness: Readiness,
    pub state: PathBuf,
    pub stores: CheckpointStore,
    pub artifacts: Artifacts,
    pub secret: Secret,
    pub readers: OwnReaders,
    /// Where schemas are asked for, if the format has any.
    pub registry: Option<Arc<SchemaRegistry>>,
    /// The reference tables, as they change.
    pub references: watch::Receiver<Tables>,
    /// What watches their files, and follows the keys.
    pub watching: Watching,
    /// With how many partitions topics are made.
    pub partitions: i32,
    /// Where reloads come from.
    pub reloads: Reloads,
    /// Who looks on.
    pub taps: Taps,
}

/// A reload of this process, if there is one.
struct Reloading {
    control: ReloadControl,
    began: Instant,
    /// What is prepared, until the lanes go over to it.
    candidate: Option<Box<Candidate>>,
    /// Lanes that are waited for.
    waited_for: Vec<i32>,
    /// When the lanes were told to go over.
    changed: Instant,
}

impl Reloading {
    fn none() -> Self {
        let now = Instant::now();
        Self { control: ReloadControl::default(), began: now, candidate: None, waited_for: Vec::new(), changed: now }
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn on(&mut self, event: ReloadEvent) -> Result<(), RuntimeError> {
        let told = self.control.on(event, self.now_ms());
        told.map_err(|v| RuntimeError::Start(format!("the reload: {v}")))
    }
}

impl Membership {
    /// Joins, runs the lanes it is given, and leaves.
    pub async fn run(
        &mut self,
        beside: &mut Beside,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Summary, RuntimeError> {
        let options = self.options;
        let OpenInputs { inputs, mut events, mut bridges } =
            Inputs::open(&self.pipeline, &self.state, options, &self.metrics).await?;
        let source = Arc::new(inputs);
        let (stop_bridges, bridges_stop) = watch::channel(false);
        let mut filling: JoinSet<Result<(), RuntimeError>> = JoinSet::new();
        let served = Arc::new(AtomicBool::new(true));
        let mut serving = {
            let (source, served) = (source.clone(), served.clone());
            tokio::task::spawn_blocking(move || {
                while served.load(Ordering::Relaxed) {
                    source.serve(SERVE)?;
                }
                Ok::<(), RuntimeError>(())
            })
        };
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut lanes = Lanes::new(self.setup(source.clone(), tell.clone()), self.readers.clone());
        let mut preparing: JoinSet<Result<Box<Candidate>, String>> = JoinSet::new();
        let mut reloading = Reloading::none();

        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let mut failure: Option<RuntimeError> = None;
        let mut offsets = BTreeMap::new();
        let (mut stopping, mut serves) = (false, true);
        while !(stopping && lanes.idle()) {
            let happened: Result<(), RuntimeError> = tokio::select! {
                happened = lanes.next() => happened,
                why = self.reloads.asked(), if reloading.control.listens() && !stopping => {
                    tracing::info!(why, "reloading the pipeline");
                    preparing.spawn(self.preparation().run());
                    self.reload_asked(&mut reloading, &lanes)
                }
                Some(prepared) = preparing.join_next() => {
                    match prepared.unwrap_or_else(|e| Err(format!("preparing it ended: {e}"))) {
                        Ok(candidate) => {
                            reloading.candidate = Some(candidate);
                            reloading.on(ReloadEvent::Prepared)
                        }
                        Err(why) => {
                            self.reload_failed(&why);
                            reloading.on(ReloadEvent::Refused)
                        }
                    }
                }
                Some(event) = events.recv() => self.follow(&source, &mut lanes, event),
                ended = beside.ended() => ended,
                ended = &mut serving, if serves => {
                    serves = false;
                    joined(ended)
                }
                Some((partition, offset)) = told.recv() => {
                    offsets.insert(partition, offset);
                    Ok(())
                }
                Some(bridge) = bridges.recv() => {
                    filling.spawn(bridge.run(bridges_stop.clone()));
                    Ok(())
                }
                Some(ended) = filling.join_next() => joined(ended),
                _ = tick.tick() => {
                    if !offsets.is_empty() {
                        source.report(&std::mem::take(&mut offsets).into_iter().collect::<Vec<_>>());
                    }
                    lanes.tick()
                }
                _ = stop.wait_for(|s| *s), if !stopping => {
                    stopping = true;
                    Ok(())
                }
            };
            note(happened, &mut failure);
            if !stopping && failure.is_none() {
                note(self.reload(&mut reloading, &mut lanes, &source, &tell), &mut failure);
            }
            stopping |= failure.is_some() || (options.until_end && lanes.finished());
            if stopping {
                note(reloading.on(ReloadEvent::Stop), &mut failure);
                lanes.go_on();
                note(lanes.stop(), &mut failure);
            }
        }
        preparing.shutdown().await;
        // What a bridge has written and no lane has judged waits in the journal.
        stop_bridges.send_replace(true);
        while let Some(ended) = filling.join_next().await {
            note(joined(ended), &mut failure);
        }
        while let Ok((partition, offset)) = told.try_recv() {
            offsets.insert(partition, offset);
        }
        if !offsets.is_empty() {
            source.report(&offsets.into_iter().collect::<Vec<_>>());
        }
        source.leave();
        served.store(false, Ordering::Relaxed);
        if serves {
            note(joined(serving.await), &mut failure);
        }
        let summary = summary(&lanes);
        drop(lanes);
        // The last one that has the source leaves the group, which takes a moment.
        let left = tokio::task::spawn_blocking(move || drop(source));
        note(joined(left.await.map(Ok)), &mut failure);
        match failure {
            Some(e) => Err(e),
            None => Ok(summary),
        }
    }

    fn setup(&self, inputs: Arc<Inputs>, checkpointed: mpsc::UnboundedSender<(i32, i64)>) -> Setup {
        let waits = inputs.is_shared() && self.options.share == Share::Group;
        let opener = Opener {
            plan: self.plan.clone(),
            generation: self.generation,
            state: self.state.clone(),
            stores: self.stores.clone(),
            artifacts: self.artifacts.clone(),
            secret: self.secret.clone(),
            inputs,
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            waits,
            until_end: self.options.until_end,
        };
        Setup {
            opener,
            checkpoint_every: Duration::from_millis(self.pipeline.checkpoint.every_ms.max(1) as u64),
            pipeline: self.pipeline.clone(),
            must_finish: self.options.until_end,
            checkpointed,
            registry: self.registry.clone(),
            references: self.references.clone(),
            taps: self.taps.clone(),
        }
    }

    fn preparation(&self) -> Preparation {
        Preparation {
            load: self.reloads.load(),
            running: self.pipeline.clone(),
            version: Version { number: self.generation, config: self.plan.config_hash },
            generations: self.generations.clone(),
            artifacts: self.artifacts.clone(),
            metrics: self.metrics.clone(),
            create_topics: self.options.create_topics.then_some(self.partitions),
        }
    }

    fn reload_failed(&self, why: &str) {
        self.metrics.reloaded(false);
        tracing::error!("the reload failed, and the pipeline goes on as it was: {why}");
    }

    fn reload_applied(&self, since: Instant, waited_for: &[i32]) {
        self.metrics.reloaded(true);
        let config = hex(&self.plan.config_hash);
        let (generation, took) = (self.generation, since.elapsed());
        if waited_for.is_empty() {
            tracing::info!(config, generation, ?took, "the reload is done");
        } else {
            tracing::warn!(
                config,
                generation,
                ?took,
                lanes = ?waited_for,
                "the pipeline is reloaded, but these lanes are not at a checkpoint of it yet: another process has them, or their \
                 checkpoint store is slow; they go over as soon as they can"
            );
        }
    }

    /// A reload is asked for, while lanes of the one before may still be opened.
    fn reload_asked(&self, reloading: &mut Reloading, lanes: &Lanes) -> Result<(), RuntimeError> {
        if reloading.control.action(reloading.now_ms()) != ReloadAction::Listen {
            self.reload_applied(reloading.changed, &lanes.moving());
            reloading.on(ReloadEvent::Said)?;
        }
        reloading.on(ReloadEvent::Asked)
    }

    /// Goes on with a reload, if there is one.
    fn reload(
        &mut self,
        reloading: &mut Reloading,
        lanes: &mut Lanes,
        source: &Arc<Inputs>,
        tell: &mpsc::UnboundedSender<(i32, i64)>,
    ) -> Result<(), RuntimeError> {
        loop {
            let event = match reloading.control.action(reloading.now_ms()) {
                ReloadAction::Listen | ReloadAction::Prepare | ReloadAction::Nothing => return Ok(()),
                ReloadAction::Hold { number } => {
                    reloading.waited_for = lanes.hold(number);
                    if !reloading.waited_for.is_empty() {
                        return Ok(());
                    }
                    ReloadEvent::Still
                }
                ReloadAction::GiveUp => {
                    lanes.go_on();
                    reloading.candidate = None;
                    self.reload_failed(&format!(
                        "after {} s lanes {:?} had no durable checkpoint yet: their checkpoint store does not answer, or is too slow",
                        HELD_FOR_MS / 1_000,
                        reloading.waited_for
                    ));
                    ReloadEvent::GaveUp
                }
                ReloadAction::Change => {
                    reloading.changed = Instant::now();
                    if let Some(candidate) = reloading.candidate.take() {
                        self.adopt(*candidate);
                    }
                    lanes.change(self.setup(source.clone(), tell.clone()))?;
                    ReloadEvent::Changed
                }
                // A lane that waits for another process does not hold it up for ever: it is opened with this pipeline whenever
                // that lets go.
                ReloadAction::AwaitOpened if !lanes.moving().is_empty() => return Ok(()),
                ReloadAction::AwaitOpened => ReloadEvent::Opened,
                ReloadAction::Applied { everywhere } => {
                    let moving = if everywhere { Vec::new() } else { lanes.moving() };
                    self.reload_applied(reloading.changed, &moving);
                    ReloadEvent::Said
                }
            };
            reloading.on(event)?;
        }
    }

    fn adopt(&mut self, candidate: Candidate) {
        let Candidate { pipeline, plan, generation, registry, references, watch } = candidate;
        self.watching = watch.spawn();
        self.taps.running(&pipeline, &plan);
        self.pipeline = pipeline;
        self.plan = plan;
        self.generation = generation;
        self.registry = registry;
        self.references = references;
    }

    /// Does what the group has decided.
    fn follow(&self, source: &Inputs, lanes: &mut Lanes, event: GroupEvent) -> Result<(), RuntimeError> {
        let (metrics, readiness) = (&self.metrics, &self.readiness);
        match event {
            GroupEvent::Assigned(partitions) => {
                metrics.rebalances.with_label_values(&["given"]).inc();
                tracing::info!(lanes = ?partitions, "lanes given to this process");
                source.accept()?;
                lanes.given(&partitions)?;
                readiness.ready("lanes");
                Ok(())
            }
            GroupEvent::Revoked { partitions, lost } => {
                metrics.rebalances.with_label_values(&[if lost { "lost" } else { "taken" }]).inc();
                if lost {
                    tracing::warn!(
                        lanes = ?partitions,
                        "this process was silent for longer than its session, and the group has given its lanes to others; joining again"
                    );
                    readiness.waiting("lanes", "lost; joining the group again");
                } else {
                    tracing::info!(lanes = ?partitions, "lanes taken from this process");
                }
                lanes.taken(partitions, lost)
            }
        }
    }
}

fn summary(lanes: &Lanes) -> Summary {
    let mut out = Summary::default();
    for (c, log_size) in lanes.ended().values() {
        out.counters.rows_in += c.rows_in;
        out.counters.rows_used += c.rows_used;
        for (a, b) in out.counters.dead.iter_mut().zip(c.dead) {
            *a += b;
        }
        for (a, b) in out.counters.verdicts.iter_mut().zip(c.verdicts) {
            *a += b;
        }
        out.log_size += log_size;
    }
    out
}

fn note(happened: Result<(), RuntimeError>, failure: &mut Option<RuntimeError>) {
    if let Err(e) = happened {
        tracing::error!(error = %e, "stopping");
        failure.get_or_insert(e);
    }
}
