//! What the runtime decides, as pure state machines: no I/O, no clock, no threads.
//!
//! ```text
//!              events: results, durable sizes, time (as data)
//!   driver ─────────────────────────────────────────────────►  machine
//!          ◄─────────────────────────────────────────────────
//!              what to do now: one action at a time
//! ```
//!
//! | machine | decides |
//! | --- | --- |
//! | [`lane::LaneControl`] | who may read and commit a lane: lock, restore, run, drain, let go |
//! | [`checkpoint::Checkpointer`] | when a checkpoint is due, what it covers, what may be shown |
//! | [`reload::ReloadControl`] | when the lanes of a process go over to another version of the pipeline, and which is newer |
//! | [`sink::Delivery`] | what a sink writes next, and what an answer, or a lost one, means |
//! | [`anchor::Anchoring`] | what is anchored when, with one checkpoint on its way at a time |
//!
//! Every machine is driven alike: ask for its `action`, do it, report the outcome with `on`. Asking changes nothing: the same
//! action is given until its outcome is told, and the driver does it once. Where an outcome can come twice or late, it
//! carries the [`Ticket`] of its action, and does nothing when that is not the present one.
//!
//! Two drive these machines: `engine/tests/simulation`, among simulated parts that crash, lose answers and lie about time,
//! which holds them to [`invariants`]; and the runtime (`pipelines/src/runtime`: `lanes/`, `lane_worker.rs`, `sinks/tail.rs`,
//! `anchor_tail.rs`, and for reloads `session.rs`, `generations.rs`, `open.rs`), where a violation stops the lane, or the process. The anchor writer in `connectors` judges the chain by
//! [`anchor::place`] and [`anchor::taken_back`]. What the runtime decides by itself: that a lane goes back to the group, is
//! opened again or ends the process once its machine is at its end; who holds the anchors' lease. A sink or an anchor that
//! must stop at once it drops in the middle of its action, which is for the machine what a crash is.
//!
//! Times are milliseconds of any clock that the driver likes. Clocks may jump: a jump ahead makes things due early, a
//! jump back never makes them due later than a whole period from then on.

pub mod anchor;
pub mod checkpoint;
pub mod invariants;
pub mod lane;
pub mod pace;
pub mod reload;
pub mod sink;

#[cfg(test)]
mod tests;

use crate::verdict::Hash32;

/// A log as far as some checkpoint, some anchor or some reader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// Entries.
    pub size: u64,
    /// Root of these entries. Of the empty log it is [`crate::log::EMPTY_ROOT`] in a store and all zero on chain.
    pub root: Hash32,
}

/// What became of an action that did not succeed, as far as deciding goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Nothing of it happened, or nobody knows whether it did: an answer was lost, a time ran out, a broker said "try
    /// again". The two are deliberately one: whoever cannot tell them apart must look before trying again.
    Unknown,
    /// Another writer has taken over. Going on would be wrong.
    Fenced,
    /// It can never succeed: damage, a wrong configuration, another log's cursor. Going on would be wrong.
    Fatal,
}

/// Tells the outcome of the present action from one that comes twice, or late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ticket(u64);

impl Ticket {
    pub(crate) fn spend(&mut self) {
        self.0 += 1;
    }
}

/// How a sink or an anchor should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stop {
    /// Not yet.
    #[default]
    No,
    /// After everything that is durable by now has gone out.
    Flush,
    /// At once; whoever comes next goes on from the cursor, or the chain.
    Now,
}

/// A growing pause between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first_ms: i64,
    longest_ms: i64,
    next_ms: i64,
}

impl Backoff {
    /// Pauses of `first_ms`, doubled each time up to `longest_ms`.
    pub const fn new(first_ms: i64, longest_ms: i64) -> Self {
        Self { first_ms, longest_ms, next_ms: first_ms }
    }

    /// How long to pause now. The next pause is twice as long.
    pub fn pause_ms(&mut self) -> i64 {
        let now = self.next_ms;
        self.next_ms = now.saturating_mul(2).min(self.longest_ms);
        now
    }

    /// Something succeeded: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.next_ms = self.first_ms;
    }
}

/// A point in time to wait for, robust against a clock that jumps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timer {
    from_ms: i64,
    after_ms: i64,
}

impl Timer {
    pub fn new(now_ms: i64, after_ms: i64) -> Self {
        Self { from_ms: now_ms, after_ms }
    }

    /// Whether it has rung. A clock that now shows less than it did at the start has jumped: then it has, too, since nobody
    /// knows any more how long to wait.
    pub fn rung(&self, now_ms: i64) -> bool {
        now_ms < self.from_ms || now_ms - self.from_ms >= self.after_ms
    }

    pub fn at_ms(&self) -> i64 {
        self.from_ms.saturating_add(self.after_ms)
    }
}
