//! What follows when something of a lane has ended, by itself, as it was told, or with an error: whether the lane goes back to
//! the group, is opened again, or ends the process.

use std::time::{Duration, Instant};

use avouch_connectors::store::LaneStore;
use avouch_engine::control::lane::LaneEvent;
use tokio::task::Id;

use super::super::error::RuntimeError;
use super::super::halt::Ending;
use super::super::lane_worker::LaneEnd;
use super::super::open::part;
use super::Lanes;
use super::slot::Slot;

/// How long a lane that another process writes is waited for to be taken back by the group.
const TAKEN_BACK: Duration = Duration::from_secs(30);
/// How long a fenced sink waits: by then a process that has lost its lanes knows it.
const FENCED_PAUSE: Duration = Duration::from_secs(5);
/// How often the sinks of a lane may be fenced within [`FENCED_WITHIN`].
const FENCED_OFTEN: usize = 5;
const FENCED_WITHIN: Duration = Duration::from_secs(300);

impl Lanes {
    pub(super) fn worker_ended(
        &mut self,
        partition: i32,
        ended: Result<LaneEnd, RuntimeError>,
        store: LaneStore,
    ) -> Result<(), RuntimeError> {
        let now = self.now_ms();
        let waits = self.setup.opener.waits;
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        slot.busy = false;
        slot.store = Some(store);
        let (event, failed) = match ended {
            Ok(end) => {
                if !end.abandoned {
                    self.ended.insert(partition, (end.counters, end.log_size));
                }
                (LaneEvent::Drained, None)
            }
            // What a lane that is lost could not do does not matter any more.
            Err(e) if slot.halt.told() == Some(Ending::Abandon) => {
                tracing::info!(lane = partition, error = %e, "a lane that was lost ended");
                (LaneEvent::Lost, None)
            }
            Err(e) if waits && e.is_fence() => {
                slot.wait_for_group(partition, e);
                let why = "another process has taken it; waiting for the group to say so";
                self.setup.opener.readiness.waiting(&part(partition), why);
                (LaneEvent::Fenced, None)
            }
            Err(e) => (if e.is_fence() { LaneEvent::Fenced } else { LaneEvent::Failed }, Some(e)),
        };
        slot.on(event, now, partition)?;
        self.drive(partition)?;
        failed.map_or(Ok(()), Err)
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

    pub(super) fn sink_ended(&mut self, task: Id, ended: Result<(), RuntimeError>) -> Result<(), RuntimeError> {
        let (waits, now) = (self.setup.opener.waits, self.now_ms());
        let Some(partition) = self.whose.remove(&task) else { return Ok(()) };
        let Some(slot) = self.slots.get_mut(&partition) else { return Ok(()) };
        slot.sinks.retain(|(s, _)| s.id() != task);
        match ended {
            Ok(()) => self.drive(partition),
            Err(e) if slot.halt.told() == Some(Ending::Abandon) => {
                tracing::info!(lane = partition, error = %e, "a sink of a lane that was lost ended");
                self.drive(partition)
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
                slot.reopen = Some(FENCED_PAUSE);
                slot.on(LaneEvent::Revoked, now, partition)?;
                self.drive(partition)
            }
            Err(e) => {
                self.drive(partition)?;
                Err(e)
            }
        }
    }

    /// Forgets lanes that are closed, and gives back what the group wants when nothing of it is left.
    pub(super) fn settle(&mut self) -> Result<(), RuntimeError> {
        let now = self.now_ms();
        let over: Vec<i32> = self.slots.iter().filter(|(_, s)| s.over(now)).map(|(p, _)| *p).collect();
        for partition in over {
            let reopen = self.slots.remove(&partition).and_then(|s| s.reopen);
            self.setup.opener.readiness.ready(&part(partition));
            if !self.stopping {
                // Elsewhere its counters go on; shown here as well they would count twice.
                self.readers.remove(partition);
                self.ended.remove(&partition);
                self.metrics().forget(partition);
            }
            if let Some(pause) = reopen.filter(|_| self.ours.contains(&partition)) {
                self.open(partition, pause)?;
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
}
