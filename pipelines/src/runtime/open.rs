//! Opening a lane: its store, its state, its place in the topic.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_connectors::http::Readiness;
use avouch_connectors::store::{LaneStore, RemoteLane, StoreError};
use avouch_engine::lane::Lane;
use avouch_engine::plan::LanePlan;
use avouch_engine::verdict::{LogOrigin, Secret};

use super::artifacts::Artifacts;
use super::checkpoint_store::CheckpointStore;
use super::error::RuntimeError;
use super::inputs::Inputs;
use super::lane_dir;
use super::lane_input::LaneInput;
use super::lane_worker::Until;
use super::metrics::Metrics;

/// A lane that is restored, and its store.
pub struct OpenLane {
    pub lane: Lane,
    pub store: LaneStore,
    /// The object store that its checkpoints are copied to, if there is one.
    pub remote: Option<RemoteLane>,
    pub next_offset: Option<i64>,
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
}

/// What opening needs to know.
pub struct Opener {
    pub plan: Arc<LanePlan>,
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
        match open_lane(&self.plan, &self.stores, &self.state, partition, &self.secret) {
            Ok(open) => Ok(Ok(Box::new(open))),
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
            Busy::Locked { .. } => {}
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

/// The lane's name in `/readyz`.
pub fn part(partition: i32) -> String {
    format!("lane {partition}")
}

fn open_lane(
    plan: &Arc<LanePlan>,
    stores: &CheckpointStore,
    state: &Path,
    partition: i32,
    secret: &Secret,
) -> Result<OpenLane, RuntimeError> {
    let origin = LogOrigin::new(&plan.pipeline, partition);
    let dir = lane_dir(state, partition);
    let options = stores.options(partition, secret)?;
    let remote = options.remote.clone();
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
                generation = store.generation(),
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
    Ok(OpenLane { lane, store, remote, next_offset })
}
