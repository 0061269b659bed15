//! Another version of the pipeline: which one is newer, what becomes of a lane that has another one, and when all lanes of a
//! process go over.
//!
//! ```text
//!   Idle ── asked ──► Preparing ──────────► Holding ── all lanes still ──► Changing ──► Opening ── all begun ──► Applied ─► Idle
//!                        │ refused             │ not within HELD_FOR_MS                    │ not within OPENED_WITHIN_MS
//!                        ▼                     ▼                                           ▼
//!                       Idle                GiveUp ─► Idle: the version before goes on    Applied, not everywhere yet
//! ```
//!
//! - **A version** is a configHash with a number. The list of them is shared by all processes, and a number is taken by
//!   put-if-absent, so that it never names two pipelines. One is taken only when somebody wants a change: by the first start, by
//!   a reload with a file that differs from what the process runs, or by a start that was told to accept the change.
//! - **A lane** names the version of its checkpoint. A process with a newer one carries it over; one with an older one leaves it
//!   alone: so while processes are reloaded one after the other, a lane never goes back by itself.
//! - **The boundary.** Nothing of the running version is touched before every lane that runs stands still with all it has read
//!   in a durable checkpoint. Each is then closed as when the group takes it away ([`super::lane`]) and opened again; its first act
//!   is a checkpoint of the new version ([`super::checkpoint::Checkpointer::carried_over`]), before any row.
//! - **Until then it can fail**, and then every lane goes on as it was: a file that is wrong, a store that does not answer in time.
//!   Afterwards it cannot: a crash leaves some lanes before and some behind their boundary, and the list says which is newer.

use std::collections::BTreeMap;

use super::Timer;
use super::invariants::Violation;
use crate::verdict::Hash32;

/// How long all lanes may take to stand still, each at a durable checkpoint, before a reload is given up, milliseconds.
pub const HELD_FOR_MS: i64 = 30_000;
/// How long the lanes of a reload are waited for to run again before it is called done without them, milliseconds.
pub const OPENED_WITHIN_MS: i64 = 60_000;

/// A version of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its number in the list: a higher one is newer.
    pub number: u64,
    /// Its configHash.
    pub config: Hash32,
}

/// The list of versions as it was read.
pub type Versions = BTreeMap<u64, Hash32>;

/// What number a version has, or is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// This one.
    Has(u64),
    /// This one, if nobody has taken it by then: put it only where nothing is, and read the list again otherwise.
    Put {
        /// The number.
        number: u64,
        /// Whose lanes are carried over to it, if there are any.
        over: Option<Version>,
    },
    /// None: lanes were run under this other version, and nobody has said that they may be carried over.
    Refused(Version),
}

/// The number of the version that a process begins with. `has_lanes`: there is state of lanes; `accept`: they may be carried over.
pub fn begins(list: &Versions, config: &Hash32, has_lanes: bool, accept: bool) -> Numbering {
    let Some((&number, latest)) = list.last_key_value() else { return Numbering::Put { number: 0, over: None } };
    let latest = Version { number, config: *latest };
    if latest.config == *config {
        return Numbering::Has(number);
    }
    if has_lanes && !accept {
        return Numbering::Refused(latest);
    }
    Numbering::Put { number: number + 1, over: has_lanes.then_some(latest) }
}

/// The number of the version that a process which runs `own` is told to go over to. Where another process was told before, it
/// has taken it already. A file that has not changed asks for no change: a process whose turn has not come yet would
/// otherwise take back the lanes that others have carried over.
pub fn claims(list: &Versions, own: &Version, config: &Hash32) -> Numbering {
    if let Some((&number, _)) = list.range(own.number + 1..).rev().find(|(_, known)| *known == config) {
        return Numbering::Has(number);
    }
    if own.config == *config {
        return Numbering::Has(own.number);
    }
    let number = list.last_key_value().map_or(0, |(n, _)| n + 1).max(own.number + 1);
    Numbering::Put { number, over: None }
}

/// What becomes of a lane when it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It has no checkpoint and begins.
    New,
    /// It goes on under the same pipeline; its checkpoints name this number from here on.
    Restore {
        /// The higher one of its own and the process's: so a lane never looks older than it is.
        number: u64,
    },
    /// It is carried over to the process's version ([`crate::lane::Lane::migrate`]).
    CarryOver,
    /// It has gone on under a newer version than the process has, and is left alone.
    Newer,
    /// Its checkpoint names the process's number, but another pipeline: the list was damaged.
    Conflict,
}

/// What becomes of a lane whose checkpoint was made under `found`, in a process that runs `ours`.
pub fn opening(found: Option<&Version>, ours: &Version) -> Opening {
    match found {
        None => Opening::New,
        Some(v) if v.config == ours.config => Opening::Restore { number: v.number.max(ours.number) },
        Some(v) if v.number > ours.number => Opening::Newer,
        Some(v) if v.number == ours.number => Opening::Conflict,
        Some(_) => Opening::CarryOver,
    }
}

/// Whether a lane may be carried over from where its checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrying {
    /// Nothing was recorded beyond it.
    First,
    /// It was carried over here before, in the same way: the recorded change is taken again.
    Again,
    /// It was carried over here to another version before, which must take it first.
    Other(Hash32),
    /// Verdicts or inputs of the version before were shown or recorded beyond it, which only that version makes again.
    Shown,
}

/// Decides that. `next` is the change that is recorded at this place, as the hashes before and after; `beyond`: other inputs were
/// recorded behind the checkpoint, or readers were shown more of the log than it covers.
pub fn carrying(next: Option<(&Hash32, &Hash32)>, from: &Hash32, to: &Hash32, beyond: bool) -> Carrying {
    match next {
        Some(recorded) if recorded == (from, to) => Carrying::Again,
        Some((_, recorded)) => Carrying::Other(*recorded),
        None if beyond => Carrying::Shown,
        None => Carrying::First,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Preparing,
    Holding(Timer),
    Changing,
    Opening(Timer),
    Opened,
    Over,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadAction {
    /// Nothing, until a reload is asked for.
    Listen,
    /// Read the file, check it, prepare what it needs beside the lanes, and take its number last ([`claims`]).
    Prepare,
    /// Have every lane that runs stand still with all that it has read durable; [`ReloadEvent::Still`] once all do. Those that
    /// are being opened or closed read nothing, and are not waited for.
    Hold {
        /// Of this hold; no other one has it.
        number: u64,
    },
    /// It has failed: let the lanes go on as they were.
    GiveUp,
    /// The prepared version is the one that is run: close each lane and open it with that
    /// ([`super::lane::LaneControl::opens_again`]).
    Change,
    /// Wait until every lane is open and past its first checkpoint: [`ReloadEvent::Opened`].
    AwaitOpened,
    /// Say that it is done.
    Applied {
        /// Whether all lanes are at a durable checkpoint of it; the others follow when they can.
        everywhere: bool,
    },
    /// Nothing any more: the process ends.
    Nothing,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadEvent {
    /// Somebody wants it: only where [`ReloadControl::listens`].
    Asked,
    /// The version is prepared and has its number.
    Prepared,
    /// It is wrong, or could not be prepared in time: the version before goes on.
    Refused,
    /// All lanes that run stand still.
    Still,
    /// The lanes go on as they were.
    GaveUp,
    /// All lanes are told.
    Changed,
    /// All lanes are open, each at a durable checkpoint.
    Opened,
    /// It was said that the reload is done.
    Said,
    /// The process ends.
    Stop,
}

/// Decides about the reloads of one process. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReloadControl {
    state: State,
    holds: u64,
    held_for_ms: i64,
    opened_within_ms: i64,
}

impl Default for ReloadControl {
    fn default() -> Self {
        Self::new(HELD_FOR_MS, OPENED_WITHIN_MS)
    }
}

impl ReloadControl {
    /// With these limits in place of [`HELD_FOR_MS`] and [`OPENED_WITHIN_MS`].
    pub fn new(held_for_ms: i64, opened_within_ms: i64) -> Self {
        Self { state: State::Idle, holds: 0, held_for_ms, opened_within_ms }
    }

    /// Whether it may be asked for now. While lanes are opened again it may, too: the reload before is done first
    /// ([`ReloadEvent::Said`]), since a lane that waits for another process must not hold up the next file.
    pub fn listens(&self) -> bool {
        matches!(self.state, State::Idle | State::Opening(_) | State::Opened)
    }

    /// What to do now.
    pub fn action(&self, now_ms: i64) -> ReloadAction {
        match self.state {
            State::Idle => ReloadAction::Listen,
            State::Preparing => ReloadAction::Prepare,
            State::Holding(until) if until.rung(now_ms) => ReloadAction::GiveUp,
            State::Holding(_) => ReloadAction::Hold { number: self.holds },
            State::Changing => ReloadAction::Change,
            State::Opening(until) if until.rung(now_ms) => ReloadAction::Applied { everywhere: false },
            State::Opening(_) => ReloadAction::AwaitOpened,
            State::Opened => ReloadAction::Applied { everywhere: true },
            State::Over => ReloadAction::Nothing,
        }
    }

    /// Takes note of what happened.
    ///
    /// # Errors
    /// [`Violation::Unexpected`] for an outcome of something that was not being done.
    pub fn on(&mut self, event: ReloadEvent, now_ms: i64) -> Result<(), Violation> {
        use ReloadEvent as E;
        use State as S;
        self.state = match (self.state, event) {
            (_, E::Stop) => S::Over,
            // What was under way when the process was told to end.
            (S::Over, _) => S::Over,
            (S::Idle, E::Asked) => S::Preparing,
            (S::Preparing, E::Prepared) => {
                self.holds += 1;
                S::Holding(Timer::new(now_ms, self.held_for_ms))
            }
            (S::Preparing, E::Refused) | (S::Holding(_), E::GaveUp) => S::Idle,
            (S::Holding(_), E::Still) => S::Changing,
            (S::Changing, E::Changed) => S::Opening(Timer::new(now_ms, self.opened_within_ms)),
            (S::Opening(_), E::Opened) => S::Opened,
            (S::Opening(_) | S::Opened, E::Said) => S::Idle,
            (_, event) => return Err(self.unexpected(event)),
        };
        Ok(())
    }

    fn unexpected(&self, event: ReloadEvent) -> Violation {
        let event = match event {
            ReloadEvent::Asked => "a reload is asked for",
            ReloadEvent::Prepared => "a version is prepared",
            ReloadEvent::Refused => "a version is refused",
            ReloadEvent::Still => "all lanes stand still",
            ReloadEvent::GaveUp => "it was given up",
            ReloadEvent::Changed => "all lanes are told to change",
            ReloadEvent::Opened => "all lanes are open",
            ReloadEvent::Said => "it is said to be done",
            ReloadEvent::Stop => "the process ends",
        };
        let state = match self.state {
            State::Idle => "idle",
            State::Preparing => "preparing",
            State::Holding(_) => "holding the lanes",
            State::Changing => "changing the lanes",
            State::Opening(_) => "opening the lanes",
            State::Opened => "opened",
            State::Over => "over",
        };
        Violation::Unexpected { machine: "reload", event, state }
    }
}
