//! The life of a lane in one process: who may read it, who may commit.
//!
//! ```text
//!   assigned
//!      │                busy: wait, try again
//!      ▼               ┌─────┐
//!   Waiting ───────────┴─────┘
//!      │ lock taken (generation g)
//!      ▼
//!   Opening ──── restored ────► Running ─── its input has ended, all is durable ──► Resting  (its tails go on)
//!      │                          │ │                                                │
//!      │            revoked, stop │ │ fenced, lost, failed                           │ revoked, stop, …
//!      │                          ▼ │
//!      │                      Draining ─── what was read is durable ───┐             │
//!      │                          │ │                                  │             │
//!      │   nothing is committed   │ └──────────────┐                   │             │
//!      └──────────────────────────┴──────► Closing ◄───────────────────┴─────────────┘  from everywhere, by lost, fenced, failed
//!                                             │  first the tails are stopped, then the store and the lock let go
//!                                             ▼
//!                                           Closed (ended: why)
//! ```
//!
//! - A lane is restored only after its lock is taken: what another writer committed before letting go is then read, never
//!   remembered. So the checkpoint, the sinks' cursors and the chain's head are looked up again at every takeover.
//! - **Revoked** leaves time: what was read becomes durable first. **Lost** (the session expired) does not: somebody else may
//!   have the lane already, so no checkpoint is begun. One that is under way is left to the fence.
//! - How the tails end: of a lane that moves they go on for at most [`TAILS_FINISH_MS`], what is left then the next owner
//!   delivers; when the process stops, or the lane has failed, they deliver what is durable; of a lane that is somebody else's
//!   already they stop at once.
//! - While it runs, and while it drains, the lane's [`super::checkpoint::Checkpointer`] says when to make a checkpoint and when
//!   to wait for one; drained it is when that has nothing left to do.
//! - The fence decides, not the clock: a commit carries its generation, and the store refuses an older one. A process that slept
//!   through its session (a zombie) learns it at its next commit, which writes nothing.
//! - The lane's sinks have stopped before the lock is let go, so that a plain sink's cursor has one writer too. (Anchors need
//!   no such care: the contract refuses what does not extend it.)

use super::Timer;
use super::invariants::Violation;

/// How long to wait for a lock that another process has before trying again, milliseconds.
pub const LOCK_RETRY_MS: i64 = 100;
/// How long the sinks of a lane that moves may go on delivering, milliseconds.
pub const TAILS_FINISH_MS: i64 = 5_000;

/// Where a lane is. See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneState {
    /// Assigned, but another process has its lock.
    Waiting,
    /// The lock is taken; the store is recovered and the lane restored.
    Opening,
    /// Reads and steps; checkpoints are made meanwhile.
    Running,
    /// Its input has ended by itself; everything read is durable, and the tails go on.
    Resting,
    /// Reads nothing more; the last checkpoint is being made, or about to be.
    Draining,
    /// Tails stop, then the store and its lock are let go.
    Closing,
    /// Over.
    Closed,
}

/// Why a lane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its partition was given to another process; everything read is durable.
    Revoked,
    /// The session expired: somebody else may have it already.
    Lost,
    /// This process stops; everything read is durable.
    Stopped,
    /// Another writer has begun a newer generation.
    Fenced,
    /// An error after which the lane must be opened again, or must not be.
    Failed,
}

impl Ended {
    /// Whether another process may have the lane already: its tails must stop at once.
    pub fn is_others(self) -> bool {
        matches!(self, Ended::Lost | Ended::Fenced)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEvent {
    /// The lock is ours, as this generation.
    LockTaken {
        /// Larger than that of every writer before.
        generation: u64,
    },
    /// Another process holds the lock.
    LockBusy,
    /// The store is recovered, the lane restored, the source positioned at the checkpoint's offset.
    Restored,
    /// Nothing more is read, and everything that was is durable: as it was told to, or because its input has ended.
    Drained,
    /// The consumer group takes the partition away and waits for us to be done; or the lane is to be opened anew.
    Revoked,
    /// The consumer group took the partition away while we did not answer.
    Lost,
    /// The process ends.
    Stop,
    /// The store names a newer generation.
    Fenced,
    /// The lane, its store or its reader failed.
    Failed,
    /// The sinks of this lane have stopped.
    TailsStopped,
    /// Store and lock are let go.
    Released,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneAction {
    /// Try to take the lane's lock.
    TakeLock,
    /// Do nothing before this time, milliseconds.
    WaitUntil(i64),
    /// Recover the store as this generation, restore the lane, start the tails, position the reader.
    Open {
        /// The writer's generation.
        generation: u64,
    },
    /// Read, step, append; make checkpoints as [`super::checkpoint::Checkpointer::action`] says.
    Read,
    /// Read nothing more, and do what [`super::checkpoint::Checkpointer::action`] says until nothing is `last`. Answer
    /// [`LaneEvent::Drained`].
    Drain,
    /// Do nothing: the lane has read its input to the end.
    Rest,
    /// Stop the lane's sinks; let them deliver what is durable first if `flush`.
    StopTails {
        /// Whether they may finish.
        flush: bool,
        /// Until when, milliseconds.
        until_ms: Option<i64>,
    },
    /// Let go of the store and its lock.
    Release,
    /// Nothing any more.
    End(Ended),
}

/// Decides about one lane in one process. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneControl {
    state: LaneState,
    generation: Option<u64>,
    retry: Option<Timer>,
    /// Until when the tails of a lane that moves may go on.
    finish: Option<Timer>,
    ended: Ended,
    tails_stopped: bool,
}

impl LaneControl {
    /// For a lane that was just assigned.
    pub fn assigned() -> Self {
        Self {
            state: LaneState::Waiting,
            generation: None,
            retry: None,
            finish: None,
            ended: Ended::Failed,
            tails_stopped: false,
        }
    }

    /// For a lane that is not to be opened before so long.
    pub fn assigned_after(now_ms: i64, after_ms: i64) -> Self {
        Self { retry: Some(Timer::new(now_ms, after_ms)), ..Self::assigned() }
    }

    /// Where it is.
    pub fn state(&self) -> LaneState {
        self.state
    }

    /// The writer's generation, once the lock was taken.
    pub fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// Whether this process may begin to commit. Whether a commit is accepted, the store's fence decides.
    pub fn may_commit(&self) -> bool {
        matches!(self.state, LaneState::Running | LaneState::Draining)
    }

    /// Whether it is still to be opened, or is open: else what is taken or restored for it is only let go.
    pub fn may_open(&self) -> bool {
        !matches!(self.state, LaneState::Closing | LaneState::Closed)
    }

    /// Whether it is opened again when it is closed for a change of the pipeline ([`super::reload`]). One that is on its way out
    /// already goes where it goes.
    pub fn opens_again(&self) -> bool {
        self.may_open() && self.state != LaneState::Draining
    }

    /// What to do now. In [`LaneState::Opening`] and [`LaneState::Draining`] it is the same until its outcome is told; a driver
    /// does it once.
    pub fn action(&self, now_ms: i64) -> LaneAction {
        match self.state {
            LaneState::Waiting => match self.retry {
                Some(timer) if !timer.rung(now_ms) => LaneAction::WaitUntil(timer.at_ms()),
                _ => LaneAction::TakeLock,
            },
            LaneState::Opening => LaneAction::Open { generation: self.generation.unwrap_or_default() },
            LaneState::Running => LaneAction::Read,
            LaneState::Resting => LaneAction::Rest,
            LaneState::Draining => LaneAction::Drain,
            LaneState::Closing if !self.tails_stopped => self.stop_tails(now_ms),
            LaneState::Closing => LaneAction::Release,
            LaneState::Closed => LaneAction::End(self.ended),
        }
    }

    fn stop_tails(&self, now_ms: i64) -> LaneAction {
        let flush = !self.ended.is_others() && self.finish.is_none_or(|timer| !timer.rung(now_ms));
        LaneAction::StopTails { flush, until_ms: self.finish.filter(|_| flush).map(|timer| timer.at_ms()) }
    }

    /// Takes note of what happened.
    ///
    /// # Errors
    /// [`Violation::Unexpected`] for an outcome of something that was not being done.
    pub fn on(&mut self, event: LaneEvent, now_ms: i64) -> Result<(), Violation> {
        use LaneEvent as E;
        use LaneState as S;
        match (self.state, event) {
            // Being told to end twice changes nothing, but that a gentle end becomes a hard one.
            (S::Closed, E::Revoked | E::Lost | E::Stop | E::Fenced | E::Failed) => {}
            (S::Closing, E::Revoked | E::Stop) => {}
            (S::Closing, E::Lost | E::Fenced | E::Failed) if !self.ended.is_others() => self.end(event),
            (S::Closing, E::Lost | E::Fenced | E::Failed) => {}

            (S::Waiting, E::LockTaken { generation }) => {
                self.generation = Some(generation);
                self.state = S::Opening;
            }
            (S::Waiting, E::LockBusy) => self.retry = Some(Timer::new(now_ms, LOCK_RETRY_MS)),
            // It was ordered before we were told to end: what was taken is let go by `Release`.
            (S::Closing, E::LockTaken { generation }) => self.generation = Some(generation),
            (S::Closing, E::LockBusy) => {}

            (S::Opening, E::Restored) => self.state = S::Running,
            (S::Closing, E::Restored) => {}

            (S::Draining, E::Drained) => self.state = S::Closing,
            // The last checkpoint was left to the fence, and it stood: what is durable is durable.
            (S::Closing, E::Drained) => {}

            (S::Running, E::Drained) => self.state = S::Resting,

            (S::Running | S::Resting, E::Revoked | E::Stop) => {
                self.ended = why(event);
                self.finish = (event == E::Revoked).then(|| Timer::new(now_ms, TAILS_FINISH_MS));
                self.state = if self.state == S::Resting { S::Closing } else { S::Draining };
            }
            (S::Draining, E::Revoked | E::Stop) => {}
            (_, E::Revoked | E::Stop | E::Lost | E::Fenced | E::Failed) => self.end(event),

            (S::Closing, E::TailsStopped) => self.tails_stopped = true,
            (S::Closing, E::Released) if self.tails_stopped => self.state = S::Closed,

            (_, E::LockTaken { .. } | E::LockBusy) => return Err(self.unexpected("a lock was asked for")),
            (_, E::Restored) => return Err(self.unexpected("a lane is restored")),
            (_, E::Drained) => return Err(self.unexpected("everything read is durable")),
            (_, E::TailsStopped) => return Err(self.unexpected("its sinks have stopped")),
            (_, E::Released) => return Err(self.unexpected("the store is let go")),
        }
        Ok(())
    }

    fn end(&mut self, event: LaneEvent) {
        self.ended = why(event);
        self.state = LaneState::Closing;
    }

    fn unexpected(&self, event: &'static str) -> Violation {
        let state = match self.state {
            LaneState::Waiting => "waiting for its lock",
            LaneState::Opening => "opening",
            LaneState::Running => "running",
            LaneState::Resting => "at its input's end",
            LaneState::Draining => "making its last checkpoint",
            LaneState::Closing => "closing",
            LaneState::Closed => "closed",
        };
        Violation::Unexpected { machine: "lane", event, state }
    }
}

fn why(event: LaneEvent) -> Ended {
    match event {
        LaneEvent::Revoked => Ended::Revoked,
        LaneEvent::Lost => Ended::Lost,
        LaneEvent::Stop => Ended::Stopped,
        LaneEvent::Fenced => Ended::Fenced,
        _ => Ended::Failed,
    }
}
