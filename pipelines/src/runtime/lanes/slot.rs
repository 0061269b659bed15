//! One lane, and what this process holds of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_connectors::store::LaneStore;
use avouch_engine::control::lane::{LaneAction, LaneControl, LaneEvent};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::super::error::RuntimeError;
use super::super::halt::{Ending, Halt};
use super::super::lane_input::LaneInput;
use super::super::lane_worker::Until;
use super::super::open::OpenLane;
use super::super::sinks::TailStop;

/// A lane of this process, in whatever state.
pub(super) struct Slot {
    pub control: LaneControl,
    pub halt: Arc<Halt>,
    /// Whether a thread opens it, runs it, or lets go of it.
    pub busy: bool,
    pub running: bool,
    /// When its store was first asked for, and who had it.
    pub asked: Option<Instant>,
    pub holder: String,
    /// Its lock is taken.
    pub taken: Option<Box<OpenLane>>,
    /// It is restored.
    pub ready: Option<(LaneInput, Until)>,
    /// Kept, and with it the lane's lock, until its sinks have stopped.
    pub store: Option<LaneStore>,
    pub stop_sinks: watch::Sender<TailStop>,
    /// Its sinks' tasks, as long as they go on, and whether they deliver what the others refuse, and so end last.
    pub sinks: Vec<(AbortHandle, bool)>,
    /// Whether its sinks were stopped before they had delivered all.
    pub cut: bool,
    /// When this lane was found to be written by another process, and how that showed.
    pub fenced: Option<(Instant, RuntimeError)>,
    /// Whether it is to be opened again once it is closed, if it is still ours then, and after how long.
    pub reopen: Option<Duration>,
}

impl Slot {
    /// Lets sinks deliver what the last checkpoint covers and end; those that deliver refusals when the others have ended.
    pub fn end_sinks(&self) {
        let stage = if self.sinks.iter().any(|(_, last)| !last) { TailStop::Records } else { TailStop::Refusals };
        self.stop_sinks.send_if_modified(|now| {
            let later = stage > *now;
            if later {
                *now = stage;
            }
            later
        });
    }

    /// Ends sinks as they are.
    pub fn cut_sinks(&mut self, partition: i32) {
        let moves = self.halt.told() != Some(Ending::Abandon);
        if moves && !self.sinks.is_empty() && !std::mem::replace(&mut self.cut, true) {
            tracing::info!(lane = partition, "the lane moves before its sinks have delivered all; the next owner does");
        }
        self.stop_sinks.send_replace(TailStop::Refusals);
        self.sinks.iter().for_each(|(task, _)| task.abort());
    }

    /// Another process has written the lane: it is not ours any more, whatever the group has told us so far.
    pub fn wait_for_group(&mut self, partition: i32, e: RuntimeError) {
        tracing::warn!(lane = partition, error = %e, "this process was too slow and another one has taken its lane; stopping the lane");
        self.halt.tell(Ending::Abandon);
        self.fenced = Some((Instant::now(), e));
    }

    pub fn on(&mut self, event: LaneEvent, now_ms: i64, lane: i32) -> Result<(), RuntimeError> {
        self.control.on(event, now_ms).map_err(|source| RuntimeError::Violation { lane, source })
    }

    /// When something is due although nothing has happened, milliseconds.
    pub fn wakes_at(&self, now_ms: i64) -> Option<i64> {
        match self.control.action(now_ms) {
            LaneAction::WaitUntil(at) => Some(at),
            LaneAction::StopTails { until_ms, .. } => until_ms,
            _ => None,
        }
    }

    pub fn over(&self, now_ms: i64) -> bool {
        matches!(self.control.action(now_ms), LaneAction::End(_)) && self.fenced.is_none()
    }
}
