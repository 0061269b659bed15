//! The lanes of this process: opened when the source gives them, closed when it takes them back.
//!
//! ```text
//!   given ──► opening ──► running ──► closing ──► released
//!             store,       thread,     last checkpoint (or none, when the lane was lost),
//!             state        sinks       then its sinks, then the partition goes back to the group
//! ```
//!
//! A lane's store is opened before anything is read and closed before the partition is given back, so whoever gets it next
//! finds the last checkpoint. A process that was silent for too long loses its lanes without a word: what it still
//! does then is refused by the store (one writer, by lock and generation) and by Kafka (one transactional writer).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_connectors::schema_registry::SchemaRegistry;
use avouch_engine::control::checkpoint::Checkpointer;
use avouch_engine::idle::Idle;
use avouch_engine::lane::Counters;
use avouch_engine::replay::Replay;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::error::RuntimeError;
use super::halt::{Ending, Halt};
use super::inputs::Inputs;
use super::lane_worker::{LaneEnd, LaneWorker, covered};
use super::metrics::Metrics;
use super::open::{Opener, ReadyLane, part};
use super::readers::OwnReaders;
use super::reference_watch::Tables;
use super::schemas::Schemas;
use super::sinks::{self, TailStop};
use crate::lang::Pipeline;

/// How long the sinks of a lane that moves may go on delivering; what is left then, the next owner delivers.
const SINKS_FINISH: Duration = Duration::from_secs(5);
/// How long a lane that another process writes is waited for to be taken back by the group.
const TAKEN_BACK: Duration = Duration::from_secs(30);
/// How long a fenced sink waits: by then a process that has lost its lanes knows it.
const FENCED_PAUSE: Duration = Duration::from_secs(5);
/// How often the sinks of a lane may be fenced within [`FENCED_WITHIN`].
const FENCED_OFTEN: usize = 5;
const FENCED_WITHIN: Duration = Duration::from_secs(300);

/// What every lane of the process has in common.
pub struct Setup {
    pub opener: Opener,
    pub checkpoint_every: Duration,
    pub pipeline: Pipeline,
    /// Whether stopping with records undelivered is an error.
    pub must_finish: bool,
    /// Told (partition, offset) after each checkpoint.
    pub checkpointed: mpsc::UnboundedSender<(i32, i64)>,
    /// Where schemas are asked for, if the format has any.
    pub registry: Option<Arc<SchemaRegistry>>,
    /// The reference tables, as they change.
    pub references: watch::Receiver<Tables>,
}

/// Where one lane stands.
struct Slot {
    halt: Arc<Halt>,
    /// Whether its thread, or its opening, goes on.
    busy: bool,
    running: bool,
    stop_sinks: watch::Sender<TailStop>,
    /// Its sinks' tasks, as long as they go on, and whether they deliver what the others refuse, and so end last.
    sinks: Vec<(AbortHandle, bool)>,
    /// When sinks that still deliver are cut short.
    cut: Option<tokio::time::Instant>,
    /// When this lane was found to be written by another process, and how that showed.
    fenced: Option<(Instant, RuntimeError)>,
    /// Whether it is to be opened again once it is closed, if it is still ours then.
    reopen: bool,
}

impl Slot {
    /// Lets sinks deliver what the last checkpoint covers and end; those that deliver refusals when the others have ended.
    fn end_sinks(&self) {
        let stage = if self.sinks.iter().any(|(_, last)| !last) { TailStop::Records } else { TailStop::Refusals };
        self.stop_sinks.send_if_modified(|now| {
            let later = stage > *now;
            if later {
                *now = stage;
            }
            later
        });
    }

    fn abort_sinks(&self) {
        self.stop_sinks.send_replace(TailStop::Refusals);
        self.sinks.iter().for_each(|(task, _)| task.abort());
    }

    fn over(&self) -> bool {
        !self.busy && self.sinks.is_empty() && self.fenced.is_none()
    }
}

/// The lanes of this process.
pub struct Lanes {
    setup: Arc<Setup>,
    readers: OwnReaders,
    slots: BTreeMap<i32, Slot>,
    opening: JoinSet<(i32, Result<Option<ReadyLane>, RuntimeError>)>,
    workers: JoinSet<(i32, Result<LaneEnd, RuntimeError>)>,
    sinks: JoinSet<Result<(), RuntimeError>>,
    /// Whose sink a task is.
    whose: HashMap<Id, i32>,
    /// Partitions that are ours.
    ours: BTreeSet<i32>,
    /// When sinks of a lane were fenced.
    fences: BTreeMap<i32, Vec<Instant>>,
    /// Partitions the group wants back, until all of them are closed.
    revoked: Option<Vec<i32>>,
    /// What the lanes that ended here left.
    ended: BTreeMap<i32, (Counters, u64)>,
    stopping: bool,
}

impl Lanes {
    /// None yet.
    pub fn new(setup: Setup, readers: OwnReaders) -> Self {
        Self {
            setup: Arc::new(setup),
            readers,
            slots: BTreeMap::new(),
            opening: JoinSet::new(),
            workers: JoinSet::new(),
            sinks: JoinSet::new(),
            whose: HashMap::new(),
            ours: BTreeSet::new(),
            fences: BTreeMap::new(),
            revoked: None,
            ended: BTreeMap::new(),
            stopping: false,
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.setup.opener.metrics
    }

    fn inputs(&self) -> &Inputs {
        &self.setup.opener.inputs
    }

    /// What the lanes that ended here left, by partition: counters and log size.
    pub fn ended(&self) -> &BTreeMap<i32, (Counters, u64)> {
        &self.ended
    }

    /// Opens lanes. Those that are here already stay as they are.
    pub fn given(&mut self, partitions: &[i32]) {
        for &partition in partitions {
            self.ours.insert(partition);
            self.open(partition, Duration::ZERO);
        }
        self.count();
    }

    fn open(&mut self, partition: i32, after: Duration) {
        if self.slots.contains_key(&partition) || self.stopping {
            return;
        }
        let (stop_sinks, _) = watch::channel(TailStop::No);
        let halt = Arc::new(Halt::default());
        // At once, not in the task that opens it: this process is not ready between being given a lane and running it.
        self.setup.opener.readiness.waiting(&part(partition), "restoring");
        self.slots.insert(
            partition,
            Slot {
                halt: halt.clone(),
                busy: true,
                running: false,
                stop_sinks,
                sinks: Vec::new(),
                cut: None,
                fenced: None,
                reopen: false,
            },
        );
        let setup = self.setup.clone();
        self.opening.spawn_blocking(move || (partition, setup.opener.open(partition, &halt, after)));
    }

    /// Closes lanes that the group wants back; when all are closed, it gets them ([`Source::release`]). `lost`: it has given
    /// them to others already.
    pub fn taken(&mut self, partitions: Vec<i32>, lost: bool) -> Result<(), RuntimeError> {
        let ending = if lost { Ending::Abandon } else { Ending::Checkpoint };
        for partition in &partitions {
            self.ours.remove(partition);
            self.close(*partition, ending);
        }
        let mut all = self.revoked.take().unwrap_or_default();
        all.extend(partitions);
        self.revoked = Some(all);
        self.settle()
    }

    fn close(&mut self, partition: i32, ending: Ending) {
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        slot.halt.tell(ending);
        // The group has spoken: what the fence meant is clear now.
        slot.fenced = None;
        if ending == Ending::Abandon {
            slot.abort_sinks();
        } else if !slot.busy {
            slot.end_sinks();
        }
        slot.cut = Some(tokio::time::Instant::now() + SINKS_FINISH);
    }

    /// Ends all lanes, each with a last checkpoint; then their sinks end after what the checkpoints cover. No lane is opened
    /// any more.
    pub fn stop(&mut self) {
        self.stopping = true;
        for slot in self.slots.values_mut() {
            slot.halt.tell(Ending::Checkpoint);
            slot.fenced = None;
            if !slot.busy {
                slot.end_sinks();
            }
        }
    }

    /// Whether no lane is left, and nothing of one.
    pub fn idle(&self) -> bool {
        self.slots.is_empty() && self.opening.is_empty() && self.workers.is_empty() && self.sinks.is_empty()
    }

    /// Whether every lane has ended by itself, having reached its end.
    pub fn finished(&self) -> bool {
        !self.slots.is_empty() && self.slots.values().all(|s| !s.busy)
    }

    /// Waits for the next thing to happen to a lane. Errors are those after which the process cannot go on.
    pub async fn next(&mut self) -> Result<(), RuntimeError> {
        let cut = self.slots.values().filter(|s| !s.sinks.is_empty() && !s.busy).filter_map(|s| s.cut).min();
        let outcome = tokio::select! {
            Some(opened) = self.opening.join_next() => {
                let (partition, opened) = joined(opened)?;
                self.opened(partition, opened)
            }
            Some(ended) = self.workers.join_next() => {
                let (partition, ended) = joined(ended)?;
                self.worker_ended(partition, ended)
            }
            Some(ended) = self.sinks.join_next_with_id() => match ended {
                Ok((task, ended)) => self.sink_ended(task, ended),
                Err(e) if e.is_cancelled() => self.sink_ended(e.id(), Ok(())),
                Err(e) => Err(died(&e)),
            },
            () = sleep_until(cut), if cut.is_some() => {
                self.cut_short();
                Ok(())
            }
            // With nothing under way there is nothing else to wait for.
            () = tokio::time::sleep(Duration::from_secs(1)) => Ok(()),
        };
        outcome?;
        self.settle()
    }

    fn opened(&mut self, partition: i32, opened: Result<Option<ReadyLane>, RuntimeError>) -> Result<(), RuntimeError> {
        let setup = self.setup.clone();
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        slot.busy = false;
        let ReadyLane { open, input, until } = match opened {
            Ok(Some(ready)) if slot.halt.told().is_none() => ready,
            Ok(_) => return Ok(()),
            Err(_) if slot.halt.told() == Some(Ending::Abandon) => return Ok(()),
            Err(e) => return Err(e),
        };
        slot.busy = true;
        slot.running = true;
        let own = open.store.reader();
        let committed = open.store.committed();
        let every = i64::try_from(setup.checkpoint_every.as_millis()).unwrap_or(i64::MAX);
        let checkpoints = Checkpointer::restored(covered(&committed), committed.seq == 0, every, 0);
        let worker = LaneWorker {
            plan: setup.opener.plan.clone(),
            next_offset: open.next_offset.unwrap_or(0),
            replay: Replay::new(open.store.recovery().replay.iter().cloned()),
            artifacts: setup.opener.artifacts.clone(),
            metrics: setup.opener.metrics.lane(partition),
            lane: open.lane,
            store: open.store,
            remote: open.remote,
            input,
            readiness: setup.opener.readiness.clone(),
            schemas: setup.registry.clone().map(|r| Schemas::new(r, tokio::runtime::Handle::current())),
            references: setup.references.clone(),
            idle: setup.pipeline.source.time.idle_after_ms.map(Idle::new),
            began: Instant::now(),
            checkpoints,
            kept_checkpoints: setup.opener.stores.keep(),
            until,
            halt: slot.halt.clone(),
            checkpointed: setup.checkpointed.clone(),
            begun: None,
        };
        self.workers.spawn_blocking(move || (partition, worker.run()));
        self.readers.insert(partition, own.clone());
        let source = &setup.opener.plan.source.topic;
        let metrics = &setup.opener.metrics;
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        for tail in sinks::tails(&setup.pipeline, source, partition, &own, metrics, setup.must_finish)? {
            let last = tail.is_last();
            let task = self.sinks.spawn(tail.run(slot.stop_sinks.subscribe()));
            self.whose.insert(task.id(), partition);
            slot.sinks.push((task, last));
        }
        self.count();
        Ok(())
    }

    fn worker_ended(&mut self, partition: i32, ended: Result<LaneEnd, RuntimeError>) -> Result<(), RuntimeError> {
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        slot.busy = false;
        let told = slot.halt.told();
        match ended {
            Ok(end) => {
                if !end.abandoned {
                    self.ended.insert(partition, (end.counters, end.log_size));
                }
                if told.is_some() {
                    slot.end_sinks();
                }
                Ok(())
            }
            // What a lane that is lost could not do does not matter any more.
            Err(e) if told == Some(Ending::Abandon) => {
                tracing::info!(lane = partition, error = %e, "a lane that was lost ended");
                Ok(())
            }
            Err(e) if self.setup.opener.waits && e.is_fence() => {
                self.fenced(partition, e);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Another process has written the lane: it is not ours any more, whatever the group has told us so far.
    fn fenced(&mut self, partition: i32, e: RuntimeError) {
        let Some(slot) = self.slots.get_mut(&partition) else { return };
        tracing::warn!(lane = partition, error = %e, "this process was too slow and another one has taken its lane; stopping the lane");
        slot.halt.tell(Ending::Abandon);
        slot.abort_sinks();
        slot.fenced = Some((Instant::now(), e));
        self.setup
            .opener
            .readiness
            .waiting(&part(partition), "another process has taken it; waiting for the group to say so");
    }

    /// Call it every second or so. A lane that another process writes although the group says that it is ours is a mistake of
    /// whoever started both.
    pub fn tick(&mut self) -> Result<(), RuntimeError> {
        let late = |s: &Slot| s.fenced.as_ref().is_some_and(|(since, _)| since.elapsed() > TAKEN_BACK);
        let Some(partition) = self.slots.iter().find(|(_, s)| late(s)).map(|(p, _)| *p) else { return Ok(()) };
        match self.slots.get_mut(&partition).and_then(|s| s.fenced.take()) {
            Some((_, e)) => Err(e),
            None => Ok(()),
        }
    }

    fn sink_ended(&mut self, task: Id, ended: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
        let waits = self.setup.opener.waits;
        let Some(partition) = self.whose.remove(&task) else { return Ok(()) };
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        slot.sinks.retain(|(s, _)| s.id() != task);
        let told = slot.halt.told();
        if told.is_some() && !slot.busy {
            slot.end_sinks();
        }
        match ended {
            Ok(()) => Ok(()),
            Err(e) if told == Some(Ending::Abandon) => {
                tracing::info!(lane = partition, error = %e, "a sink of a lane that was lost ended");
                Ok(())
            }
            Err(e) if waits && e.is_fence() && !self.stopping => {
                // Kafka also fences a writer whose transaction it had to end while one of us was away. While the lane is ours
                // we may write again; if it is not, the group says so before the pause is over.
                let fences = self.fences.entry(partition).or_default();
                fences.retain(|at| at.elapsed() < FENCED_WITHIN);
                fences.push(Instant::now());
                if fences.len() > FENCED_OFTEN {
                    return Err(e);
                }
                tracing::warn!(lane = partition, error = %e, "a sink's writer was fenced; opening the lane again");
                slot.reopen = true;
                slot.halt.tell(Ending::Checkpoint);
                slot.cut = Some(tokio::time::Instant::now() + SINKS_FINISH);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn cut_short(&mut self) {
        let now = tokio::time::Instant::now();
        for (partition, slot) in &mut self.slots {
            if slot.cut.is_some_and(|cut| cut <= now) && !slot.busy {
                if !slot.sinks.is_empty() {
                    tracing::info!(
                        lane = partition,
                        "the lane moves before its sinks have delivered all; the next owner does"
                    );
                }
                slot.abort_sinks();
                slot.cut = None;
            }
        }
    }

    /// Forgets lanes that are closed, and gives back what the group wants when nothing of it is left.
    fn settle(&mut self) -> Result<(), RuntimeError> {
        let over: Vec<i32> =
            self.slots.iter().filter(|(_, s)| s.over() && s.halt.told().is_some()).map(|(p, _)| *p).collect();
        for partition in over {
            let reopen = self.slots.remove(&partition).is_some_and(|s| s.reopen);
            self.setup.opener.readiness.ready(&part(partition));
            if !self.stopping {
                // Elsewhere its counters go on; shown here as well they would count twice.
                self.readers.remove(partition);
                self.ended.remove(&partition);
                self.metrics().forget(partition);
            }
            if reopen && self.ours.contains(&partition) {
                self.open(partition, FENCED_PAUSE);
            }
            self.count();
        }
        let closed = |list: &Vec<i32>| list.iter().all(|p| !self.slots.contains_key(p));
        if self.revoked.as_ref().is_some_and(closed) {
            let list = self.revoked.take().unwrap_or_default();
            self.inputs().release(&list)?;
            tracing::info!(lanes = ?list, "lanes given back");
        }
        Ok(())
    }

    fn count(&self) {
        let running = self.slots.values().filter(|s| s.running).count();
        self.metrics().lanes_owned.set(running as i64);
        self.metrics().lanes_opening.set((self.slots.len() - running) as i64);
    }
}

fn joined<T>(ended: Result<T, JoinError>) -> Result<T, RuntimeError> {
    ended.map_err(|e| died(&e))
}

fn died(e: &JoinError) -> RuntimeError {
    RuntimeError::Start(format!("a part of the runtime ended: {e}"))
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
