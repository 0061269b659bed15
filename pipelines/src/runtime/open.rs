//! Opening a lane: its store, its state, its place in the topic.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_connectors::http::Readiness;
use avouch_connectors::store::{LaneStore, RemoteLane, StoreError};
use avouch_engine::lane::Lane;
use avouch_engine::plan::LanePlan;
use avouch_engine::verdict::{LogOrigin, Secret};

use super::artifacts::Artifacts;
use super::checkpoint_store::CheckpointStore;
use super::error::RuntimeError;
use super::halt::Halt;
use super::inputs::Inputs;
use super::lane_dir;
use super::lane_input::LaneInput;
use super::lane_worker::Until;
use super::metrics::Metrics;

/// How often a lane's store is tried while another process has it.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// A lane that is restored, and its store.
pub struct OpenLane {
    pub lane: Lane,
    pub store: LaneStore,
    /// The object store that its checkpoints are copied to, if there is one.
    pub remote: Option<RemoteLane>,
    pub next_offset: Option<i64>,
}

/// A lane that can run.
pub struct ReadyLane {
    pub open: OpenLane,
    pub input: LaneInput,
    /// When it ends by itself.
    pub until: Until,
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
    /// Opens a lane and begins to read its partition. `None` if it was told to end before that. Blocks.
    /// `after`: not before so long.
    pub fn open(&self, partition: i32, halt: &Halt, after: Duration) -> Result<Option<ReadyLane>, RuntimeError> {
        let asked = Instant::now();
        while asked.elapsed() < after && halt.told().is_none() {
            std::thread::sleep(TRY_EVERY);
        }
        let began = Instant::now();
        let mut said = String::new();
        let open = loop {
            if halt.told().is_some() {
                return Ok(None);
            }
            match open_lane(&self.plan, &self.stores, &self.state, partition, &self.secret) {
                Err(RuntimeError::Store(StoreError::Locked { holder, .. })) if self.waits => {
                    if holder != said {
                        tracing::info!(
                            lane = partition,
                            holder,
                            "waiting for the lane's store: another process still has it"
                        );
                        self.readiness.waiting(&part(partition), &format!("waiting for its store, which {holder} has"));
                        self.metrics.lane_waits.inc();
                        said = holder;
                    }
                    std::thread::sleep(TRY_EVERY);
                }
                // Another process took it over at the same moment; the group has given it to us since.
                Err(RuntimeError::Store(StoreError::Fenced { found, .. })) if self.waits => {
                    tracing::info!(lane = partition, found, "another process was faster to open the lane's store");
                    std::thread::sleep(TRY_EVERY);
                }
                other => break other?,
            }
        };
        if halt.told().is_some() {
            return Ok(None);
        }
        let (input, until) = self.inputs.begin(partition, open.next_offset, self.until_end)?;
        let input = if self.plan.source.keyed { input.repartitioned() } else { input };
        self.metrics.lane_opening.observe(began.elapsed().as_secs_f64());
        Ok(Some(ReadyLane { open, input, until }))
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
