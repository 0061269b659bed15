//! Checkpointing: when, what it covers, and what may be told to whom.
//!
//! ```text
//!             progressed                 due, begin(covers)                durable
//!   Clean ───────────────────► Dirty ───────────────────────► UnderWay ────────────────► Clean  (shown: what it covers)
//!     ▲                          │                             │  │
//!     │                          │ (rows keep coming: Dirty)   │  │ failed: nobody knows what the disk holds
//!     └── restored(durable) ◄────┴──────── Broken ◄────────────┼──┘ (shown: as before; open the store again)
//!                                                              │
//!                                     the next one is due: Settle, read nothing more before this one is durable
//! ```
//!
//! - Due when something was read since the last one was begun and `every_ms` has passed, or when the lane is about to stop or
//!   has to wait for long.
//! - It covers the offset that was read up to and everything that was made of it by then: state, log, dead letters. Rows that
//!   are read while it is made belong to the next one.
//! - One at a time. When the next one is due and this one is not durable yet, the lane stands still: so it is never more
//!   than one checkpoint ahead of what is durable, however slow the store.
//! - [`Checkpointer::shown`] is what readers, sinks and anchors may be told. It moves only in [`Checkpointer::durable`], that
//!   is after the store has said that no crash undoes it, and to what was covered then, not to where the lane is by now.
//! - A lane that was carried over to another version of the pipeline makes one first of all, and reads nothing before it is durable.
//! - After a failure the checkpoint may or may not stand. Both are right, since nothing of it was shown: the store is opened
//!   again, says which, and the lane is restored from there.

use super::invariants::{self, Violation};
use super::{Head, Timer};
use crate::lane::Counters;

/// What a checkpoint covers, as far as decisions go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Covered {
    /// Offset of the first source record not read by then.
    pub next_offset: i64,
    /// The log by then.
    pub log: Head,
    /// Dead letters by then.
    pub dead: u64,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing is due: read on.
    ReadOn,
    /// Read nothing more, but wait for the checkpoint that is being made ([`Checkpointer::durable`]).
    Settle,
    /// Make one ([`Checkpointer::begin`]).
    Begin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    UnderWay(Covered),
    Broken,
}

/// Decides about the checkpoints of one lane. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpointer {
    every_ms: i64,
    since: Timer,
    dirty: bool,
    /// The lane was carried over, and no checkpoint says so yet.
    boundary: bool,
    shown: Covered,
    state: State,
}

impl Checkpointer {
    /// For a lane that was restored from a durable checkpoint, which may be shown at once. `first` is true where there has
    /// been none but the empty one: then a checkpoint is due before the first row, since coverage begins there.
    pub fn restored(durable: Covered, first: bool, every_ms: i64, now_ms: i64) -> Self {
        let after_ms = if first { 0 } else { every_ms };
        let since = Timer::new(now_ms, after_ms);
        Self { every_ms, since, dirty: first, boundary: false, shown: durable, state: State::Idle }
    }

    /// For a lane that was carried over from another version of the pipeline ([`super::reload`]), whose last durable checkpoint
    /// is this: its first act is a checkpoint of the new one, and nothing is read before that is durable.
    pub fn carried_over(durable: Covered, every_ms: i64, now_ms: i64) -> Self {
        Self { boundary: true, ..Self::restored(durable, true, every_ms, now_ms) }
    }

    /// Whether it is still to become durable.
    pub fn is_at_boundary(&self) -> bool {
        self.boundary
    }

    /// Something was read that no checkpoint covers yet.
    pub fn progressed(&mut self) {
        self.dirty = true;
    }

    /// What to do now. `last` asks for whatever is left, as before a lane is let go.
    pub fn action(&self, now_ms: i64, last: bool) -> Action {
        let due = self.dirty && (last || self.since.rung(now_ms));
        match self.state {
            State::Idle if due => Action::Begin,
            State::UnderWay(_) if due || last || self.boundary => Action::Settle,
            _ => Action::ReadOn,
        }
    }

    /// A checkpoint is about to be made. Call it before anything is written.
    ///
    /// # Errors
    /// When rows are not conserved, the lane and its log disagree, or it would take something back: it must not be made.
    pub fn begin(
        &mut self,
        covers: Covered,
        next_index: u64,
        counters: &Counters,
        now_ms: i64,
    ) -> Result<(), Violation> {
        if self.state != State::Idle {
            return Err(self.unexpected("a checkpoint begins"));
        }
        invariants::rows_conserved(counters)?;
        invariants::lane_follows_log(next_index, covers.log.size)?;
        invariants::checkpoint_extends(&self.shown, &covers)?;
        self.state = State::UnderWay(covers);
        self.dirty = false;
        self.since = Timer::new(now_ms, self.every_ms);
        Ok(())
    }

    /// The store says that no crash undoes it, and what it covers. Returns what may be shown from now on.
    ///
    /// # Errors
    /// When none was under way, or another one.
    pub fn durable(&mut self, stands: &Covered) -> Result<&Covered, Violation> {
        let State::UnderWay(covers) = self.state else { return Err(self.unexpected("a checkpoint is durable")) };
        if *stands != covers {
            return Err(self.unexpected("another checkpoint is durable"));
        }
        self.shown = covers;
        self.state = State::Idle;
        self.boundary = false;
        Ok(&self.shown)
    }

    /// It failed, or nobody knows. The store must be opened again; this machine is done.
    pub fn failed(&mut self) {
        self.state = State::Broken;
        self.dirty = true;
    }

    /// What readers, sinks and anchors may be told.
    pub fn shown(&self) -> &Covered {
        &self.shown
    }

    fn unexpected(&self, event: &'static str) -> Violation {
        let state = match self.state {
            State::Idle => "idle",
            State::UnderWay(_) => "making one",
            State::Broken => "broken",
        };
        Violation::Unexpected { machine: "checkpoints", event, state }
    }
}
