//! Opening a lane: its store, its state, its place in the topic.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use avouch_connectors::http::Readiness;
use avouch_connectors::store::{Checkpoint, LaneStore, RemoteLane, StoreError};
use avouch_engine::control::reload::{Carrying, Opening, Version, carrying, opening};
use avouch_engine::event::LaneEvent;
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::replay::Replay;
use avouch_engine::verdict::{LogOrigin, Secret};

use super::artifacts::{Artifacts, hex};
use super::checkpoint_store::CheckpointStore;
use super::error::RuntimeError;
use super::generations;
use super::inputs::Inputs;
use super::lane_dir;
use super::lane_input::LaneInput;
use super::lane_worker::Until;
use super::metrics::Metrics;

/// How long a lane that has gone on under a newer version of the pipeline is left alone before it is looked at again.
const NEWER_PAUSE: Duration = Duration::from_secs(2);

/// A lane that is restored, and its store.
pub struct OpenLane {
    pub lane: Lane,
    pub store: LaneStore,
    /// The object store that its checkpoints are copied to, if there is one.
    pub remote: Option<RemoteLane>,
    pub next_offset: Option<i64>,
    /// What was recorded beyond its checkpoint and is to be taken again.
    pub replay: Replay,
    /// The number of the pipeline's version that its checkpoints are made under from here on.
    pub generation: u64,
    /// Whether it was carried over from another version of the pipeline; the event of it is in the store, and no checkpoint
    /// covers it yet.
    pub migrated: bool,
}

/// Why a lane's store could not be taken this time.
pub enum Busy {
    /// Another process has it.
    Locked {
        /// Which.
        holder: String,
    },
    /// Another process took it over at the same moment, with another generation.
    Raced {
        /// What the store says of it.
        found: String,
    },
    /// It has gone on under a newer version of the pipeline than this process has.
    Newer {
        /// Hex of its configHash.
        config: String,
    },
}

/// What opening needs to know.
pub struct Opener {
    pub plan: Arc<LanePlan>,
    /// The number of the pipeline's version.
    pub generation: u64,
    pub state: PathBuf,
    pub stores: CheckpointStore,
    pub artifacts: Artifacts,
    pub secret: Secret,
    pub inputs: Arc<Inputs>,
    pub readiness: Readiness,
    pub metrics: Metrics,
    /// Whether to wait for a store that another process has: the group says that the lane is ours, so it will let go.
    pub waits: bool,
    pub until_end: bool,
}

impl Opener {
    /// Tries to take a lane's lock, then restores the lane. Blocks.
    pub fn take(&self, partition: i32) -> Result<Result<Box<OpenLane>, Busy>, RuntimeError> {
        match self.open_lane(partition) {
            Ok(Opened::Lane(open)) => Ok(Ok(open)),
            Ok(Opened::Newer(config)) if self.waits => {
                // Not again at once: each time it is opened it has a new generation.
                std::thread::sleep(NEWER_PAUSE);
                Ok(Err(Busy::Newer { config }))
            }
            Ok(Opened::Newer(config)) => {
                let why = format!(
                    "it has gone on under a newer version of the pipeline, configHash {config}; start with that file, or \
                     carry it back to this one with --accept-change"
                );
                Err(RuntimeError::Inconsistent { lane: partition, why })
            }
            Err(RuntimeError::Store(StoreError::Locked { holder, .. })) if self.waits => {
                Ok(Err(Busy::Locked { holder }))
            }
            // The group has given it to us since.
            Err(RuntimeError::Store(StoreError::Fenced { found, .. })) if self.waits => Ok(Err(Busy::Raced { found })),
            Err(e) => Err(e),
        }
    }

    /// Says why a lane waits, once for each `holder`.
    pub fn say(&self, partition: i32, busy: Busy, said: &mut String) {
        match busy {
            Busy::Locked { holder } if holder != *said => {
                tracing::info!(lane = partition, holder, "waiting for the lane's store: another process still has it");
                self.readiness.waiting(&part(partition), &format!("waiting for its store, which {holder} has"));
                self.metrics.lane_waits.inc();
                *said = holder;
            }
            Busy::Newer { config } if config != *said => {
                tracing::error!(
                    lane = partition,
                    config,
                    "the lane has gone on under a newer version of the pipeline than this process has, which leaves it alone; \
                     give this process the same file and reload it (SIGHUP)"
                );
                let why = "gone on under a newer version of the pipeline; reload this process with that file";
                self.readiness.waiting(&part(partition), why);
                self.metrics.lane_waits.inc();
                *said = config;
            }
            Busy::Locked { .. } | Busy::Newer { .. } => {}
            Busy::Raced { found } => {
                tracing::info!(lane = partition, found, "another process was faster to open the lane's store");
            }
        }
    }

    /// Begins to read a lane's input where it goes on. Blocks.
    pub fn begin(&self, partition: i32, offset: Option<i64>) -> Result<(LaneInput, Until), RuntimeError> {
        let (input, until) = self.inputs.begin(partition, offset, self.until_end)?;
        Ok((if self.plan.source.keyed { input.repartitioned() } else { input }, until))
    }
}

impl Opener {
    fn open_lane(&self, partition: i32) -> Result<Opened, RuntimeError> {
        let Self { plan, secret, .. } = self;
        let origin = LogOrigin::new(&plan.pipeline, partition);
        let dir = lane_dir(&self.state, partition);
        let options = self.stores.options(partition, secret)?;
        let remote = options.remote.clone();
        let (store, checkpoint) = LaneStore::open(&dir, &origin, options)?;
        let replay = Replay::new(store.recovery().replay.iter().cloned());
        let inconsistent = |why| RuntimeError::Inconsistent { lane: partition, why };
        let Some(c) = checkpoint else {
            let lane = Lane::new(plan.clone(), partition, secret.clone());
            let (generation, next_offset) = (self.generation, None);
            let open = OpenLane { lane, store, remote, next_offset, replay, generation, migrated: false };
            return self.following(open, partition);
        };
        if c.committed.topic != plan.source.topic {
            return Err(inconsistent(format!(
                "the state in {} is of topic \"{}\", not \"{}\"; use another checkpoint store",
                dir.display(),
                c.committed.topic,
                plan.source.topic
            )));
        }
        let found = Version { number: generations::of(&c.committed), config: c.committed.config_hash };
        let ours = Version { number: self.generation, config: plan.config_hash };
        let next_offset = Some(c.committed.next_offset);
        let open = match opening(Some(&found), &ours) {
            // One that is new has no checkpoint, and is opened above.
            Opening::New | Opening::CarryOver => self.carry_over(partition, &c, store, remote, replay)?,
            Opening::Restore { number: generation } => {
                let lane = Lane::restore(plan.clone(), partition, secret.clone(), &c.lane_state);
                let lane = lane.map_err(|source| RuntimeError::Lane { lane: partition, source })?;
                OpenLane { lane, store, remote, next_offset, replay, generation, migrated: false }
            }
            Opening::Newer => return Ok(Opened::Newer(hex(&found.config))),
            Opening::Conflict => {
                return Err(inconsistent(format!(
                    "its checkpoint names version {} of the pipeline, configHash {}, but in the list of versions (`generations`, \
                     beside the lanes) that number is {}: entries of the list were lost or changed; bring them back",
                    found.number,
                    hex(&found.config),
                    hex(&ours.config),
                )));
            }
        };
        tracing::info!(
            lane = partition,
            offset = c.committed.next_offset,
            log = c.committed.log_size,
            generation = open.store.generation(),
            "lane restored"
        );
        self.following(open, partition)
    }

    fn following(&self, open: OpenLane, lane: i32) -> Result<Opened, RuntimeError> {
        if open.lane.next_index() != open.store.size() {
            let why = format!("its state has {} verdicts but its log {}", open.lane.next_index(), open.store.size());
            return Err(RuntimeError::Inconsistent { lane, why });
        }
        // What it would append there it could not salt, and the log would fork.
        let log = LogOrigin::new(&self.plan.pipeline, lane);
        if let Some(last) = self.secret.last_erased(&log.log_id()).filter(|last| *last >= open.store.size()) {
            let why = format!(
                "its log has {} records, but the secret says that record {last} was erased: the lane's directory is older than the \
                 erasure; restore a newer copy of it, or give the pipeline a new name, which begins a new log",
                open.store.size()
            );
            return Err(RuntimeError::Inconsistent { lane, why });
        }
        Ok(Opened::Lane(Box::new(open)))
    }

    /// Goes on with a lane of another version of the pipeline, from its checkpoint on.
    fn carry_over(
        &self,
        partition: i32,
        c: &Checkpoint,
        mut store: LaneStore,
        remote: Option<RemoteLane>,
        mut replay: Replay,
    ) -> Result<OpenLane, RuntimeError> {
        let in_lane = |source| RuntimeError::Lane { lane: partition, source };
        let (found, to) = (c.committed.config_hash, self.plan.config_hash);
        let mut out = Output::default();
        let lane = Lane::migrate(self.plan.clone(), partition, self.secret.clone(), &c.lane_state, &mut out);
        let lane = lane.map_err(in_lane)?;
        let at = lane.last_offset();
        let shown = store.recovery().high_water.is_some_and(|(size, _)| size > c.committed.log_size);
        match carrying(replay.next_change(at), &found, &to, shown || !replay.is_empty()) {
            Carrying::First => {}
            Carrying::Again => replay.changed(),
            Carrying::Other(recorded) => {
                return Err(in_lane(LaneError::NextPipeline { after_offset: at, to: hex(&recorded) }));
            }
            Carrying::Shown => {
                let why = format!(
                    "an earlier checkpoint is in use, and what was shown beyond it was judged by the version of the \
                     pipeline before; start with that file (configHash {}) until the log has regrown, then change it",
                    hex(&found)
                );
                return Err(RuntimeError::Inconsistent { lane: partition, why });
            }
        }
        for event in &out.events {
            store.append_event(event)?;
            if let LaneEvent::Pipeline { after_offset, dropped, .. } = event {
                tracing::warn!(
                    lane = partition,
                    after_offset,
                    from = hex(&found),
                    to = hex(&to),
                    dropped = dropped.len(),
                    "the lane goes on under another version of the pipeline"
                );
                for d in dropped {
                    tracing::warn!(
                        lane = partition,
                        step = d.step,
                        why = d.why.text(),
                        devices = d.held.devices,
                        rows = d.held.rows,
                        "the state of a step is dropped"
                    );
                    self.metrics.dropped_states.with_label_values(&[&partition.to_string()]).inc();
                }
            }
        }
        let (next_offset, generation) = (Some(c.committed.next_offset), self.generation);
        Ok(OpenLane { lane, store, remote, next_offset, replay, generation, migrated: true })
    }
}

enum Opened {
    Lane(Box<OpenLane>),
    /// With the configHash that it has gone on under.
    Newer(String),
}

/// The lane's name in `/readyz`.
pub fn part(partition: i32) -> String {
    format!("lane {partition}")
}
