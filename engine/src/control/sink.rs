//! Delivery by one sink of one lane: what to write next, and what an answer means, or one that never came.
//!
//! ```text
//!            opened: cursor read back          same note              caught up
//!   Opening ───────────────────────► Checking ──────────► Ready ◄────────────────► (wait for the next checkpoint)
//!      ▲                                │                 │  ▲
//!      │ rung                           │ another's       │  │ cursor saved
//!   Pausing ◄─── no answer, refused ────┼─────────────────┤  │
//!                by the broker          │                 │  └──── Saving ◄── acknowledged up to `next`
//!                                       ▼                 │           ▲
//!                                     Ended ◄── fenced ───┤           │
//!                                       ▲                 │  a record is refused: it goes out as a dead letter,
//!                                       └──── stopped ────┘  in its place in the order
//! ```
//!
//! Exactly once rests on one rule: **after anything but an acknowledgement, look before writing.** An answer that was lost may
//! have been "committed" or "aborted". So the sink is opened again, which fences whatever is still under way (a new epoch of
//! the transactional id aborts it, or waits for its commit), and only then the cursor is read: it says which it was.
//! Nothing is ever sent again on the strength of what this process remembers.
//!
//! - A **transactional** sink's cursor is written in the transaction that carries the records; the copy in the lane's
//!   directory is saved afterwards and only tells a first start from a cursor that Kafka has forgotten.
//! - A **plain** sink's cursor is saved after the records are acknowledged: a crash in between repeats them, none is lost.
//! - The cursor's *note* identifies everything before it (the log's root at that size). Another note is another log's cursor;
//!   going on from it would leave verdicts out in silence, so the sink ends.
//! - A cursor may be ahead of the log after the store fell back to an earlier checkpoint. The log regrows to the same bytes: wait.
//! - Only what a durable checkpoint covers is written: [`Delivery::committed`] says how far that is.

use super::invariants::{self, Violation};
use super::{Backoff, Failure, Stop, Ticket, Timer};

/// The first pause after a failure, and the longest, milliseconds.
pub const PAUSES_MS: (i64, i64) = (200, 30_000);
/// How often an idle transactional sink writes its cursor again, so that Kafka does not forget it, milliseconds.
pub const REFRESH_MS: i64 = 3_600_000;

/// How a sink keeps its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// With the records, in one transaction: each once.
    Transactional,
    /// After the records: each at least once.
    Plain,
}

/// Why a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to. `short` of everything durable, if it was told to stop at once or the sink is down.
    Stopped {
        /// Whether something durable is left undelivered.
        short: bool,
    },
    /// Another writer has taken over.
    Fenced,
    /// The cursor is another log's.
    OtherLog {
        /// Where it stands.
        at: u64,
    },
    /// There is no cursor although something was delivered before: it was forgotten, or this is another cluster.
    Forgotten {
        /// How much had been delivered.
        delivered: u64,
    },
    /// An error that trying again does not help.
    Failed,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Open the sink anew: fence what is under way, then read the cursor. Answer [`Outcome::Opened`].
    Open,
    /// Compare the cursor's note with what the log gives at `at`. Answer [`Outcome::Note`].
    CheckNote {
        /// The cursor.
        at: u64,
    },
    /// Write records from `from` on, at most up to `upto`, with the cursor after them. Answer [`Outcome::Acked`].
    Write {
        /// The cursor, and the first to write.
        from: u64,
        /// The first not to write. Fewer may be written.
        upto: u64,
    },
    /// Keep this one record as a dead letter and move the cursor past it, together if the sink is transactional. Answer
    /// [`Outcome::Acked`].
    SetAside {
        /// The record.
        index: u64,
    },
    /// Save the copy of the cursor that the lane's directory has. Answer [`Outcome::CursorSaved`].
    SaveCursor {
        /// The cursor.
        next: u64,
    },
    /// Write the cursor again, without records. Answer [`Outcome::Acked`] with the same position.
    Refresh {
        /// The cursor.
        at: u64,
    },
    /// Wait until more is durable, a stop is asked for, or this time is reached, milliseconds.
    Wait {
        /// If any.
        until_ms: Option<i64>,
    },
    /// Nothing any more.
    End(Ended),
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The sink is open, alone, and its cursor was read.
    Opened {
        /// The cursor that guards the records: of the last committed transaction, or the lane directory's for a plain sink.
        cursor: Option<u64>,
        /// Whether a note came with it that must be compared.
        noted: bool,
        /// The copy in the lane's directory, read before older writers were fenced: read afterwards, it could be what a
        /// still newer writer has saved since, and the cursor would seem forgotten.
        saved: u64,
    },
    /// Whether the cursor's note is what the log gives.
    Note {
        /// It is.
        same: bool,
    },
    /// Everything up to `next` is delivered, for good.
    Acked {
        /// The new cursor.
        next: u64,
    },
    /// Nothing was written, because the sink refuses this record whatever happens.
    Refused {
        /// The record.
        index: u64,
    },
    /// The copy of the cursor is durable.
    CursorSaved,
    /// It failed.
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Opening,
    Pausing(Timer),
    Checking,
    Ready,
    Saving,
    Ended(Ended),
}

/// Decides about one sink of one lane. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    guarantee: Guarantee,
    state: State,
    ticket: Ticket,
    /// How much is durable.
    have: u64,
    /// The cursor, once it was read.
    at: u64,
    refused: Option<u64>,
    backoff: Backoff,
    refresh: Timer,
    stop: Stop,
}

impl Delivery {
    /// For a log of which `durable` entries are durable.
    pub fn new(guarantee: Guarantee, durable: u64, now_ms: i64) -> Self {
        Self {
            guarantee,
            state: State::Opening,
            ticket: Ticket::default(),
            have: durable,
            at: 0,
            refused: None,
            backoff: Backoff::new(PAUSES_MS.0, PAUSES_MS.1),
            refresh: Timer::new(now_ms, REFRESH_MS),
            stop: Stop::No,
        }
    }

    /// The cursor: everything before it is delivered. Meaningful once the sink was opened.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// How much is durable but, as far as is known, not delivered.
    pub fn waiting(&self) -> u64 {
        self.have.saturating_sub(self.at)
    }

    /// Identifies the present action. Take it with the action, and give it back with its outcome.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// A durable checkpoint covers this much.
    ///
    /// # Errors
    /// [`Violation::Truncated`] when it is less than before.
    pub fn committed(&mut self, durable: u64) -> Result<(), Violation> {
        if durable < self.have {
            return Err(Violation::Truncated { shown: self.have, now: durable });
        }
        self.have = durable;
        Ok(())
    }

    /// How to end. A stop at once overrides a gentle one, not the other way round.
    pub fn stop(&mut self, how: Stop) {
        self.stop = self.stop.max(how);
    }

    /// What to do now.
    pub fn action(&self, now_ms: i64) -> Action {
        match self.state {
            State::Ended(ended) => Action::End(ended),
            // What was acknowledged is remembered, however hurried the end.
            State::Saving => Action::SaveCursor { next: self.at },
            _ if self.stop == Stop::Now => self.finish(),
            State::Opening => Action::Open,
            State::Pausing(_) if self.stop == Stop::Flush => self.finish(),
            State::Pausing(timer) if !timer.rung(now_ms) => Action::Wait { until_ms: Some(timer.at_ms()) },
            State::Pausing(_) => Action::Open,
            State::Checking if self.have >= self.at => Action::CheckNote { at: self.at },
            State::Checking if self.stop == Stop::Flush => self.finish(),
            State::Checking => Action::Wait { until_ms: None },
            State::Ready => self.next(now_ms),
        }
    }

    fn next(&self, now_ms: i64) -> Action {
        if self.at < self.have {
            return match self.refused {
                Some(index) if index == self.at => Action::SetAside { index },
                refused => Action::Write { from: self.at, upto: refused.map_or(self.have, |r| r.min(self.have)) },
            };
        }
        if self.stop == Stop::Flush {
            return self.finish();
        }
        if self.guarantee == Guarantee::Plain {
            return Action::Wait { until_ms: None };
        }
        if self.refresh.rung(now_ms) {
            return Action::Refresh { at: self.at };
        }
        Action::Wait { until_ms: Some(self.refresh.at_ms()) }
    }

    fn finish(&self) -> Action {
        let whole = matches!(self.state, State::Ready) && self.at >= self.have;
        Action::End(Ended::Stopped { short: !whole })
    }

    /// Takes note of what became of the action that `ticket` is of. One of an earlier ticket does nothing.
    ///
    /// # Errors
    /// When the outcome is not one of the present action, moves the cursor back or beyond what is durable.
    pub fn on(&mut self, ticket: Ticket, outcome: Outcome, now_ms: i64) -> Result<(), Violation> {
        if ticket != self.ticket || matches!(self.state, State::Ended(_)) {
            return Ok(());
        }
        self.state = match (self.state, outcome) {
            (_, Outcome::Failed(Failure::Unknown)) => State::Pausing(Timer::new(now_ms, self.backoff.pause_ms())),
            (_, Outcome::Failed(Failure::Fenced)) => State::Ended(Ended::Fenced),
            (_, Outcome::Failed(Failure::Fatal)) => State::Ended(Ended::Failed),
            (State::Opening | State::Pausing(_), Outcome::Opened { cursor, noted, saved }) => {
                self.opened(cursor, noted, saved)
            }
            (State::Checking, Outcome::Note { same: true }) => State::Ready,
            (State::Checking, Outcome::Note { same: false }) => State::Ended(Ended::OtherLog { at: self.at }),
            (State::Ready, Outcome::Acked { next }) => {
                invariants::batch_in_order(self.at, self.at, next)?;
                invariants::only_durable("a delivery", next, self.have)?;
                self.at = next;
                self.refused = self.refused.filter(|r| *r >= next);
                self.backoff.reset();
                self.refresh = Timer::new(now_ms, REFRESH_MS);
                State::Saving
            }
            (State::Ready, Outcome::Refused { index }) => {
                invariants::batch_in_order(self.at, self.at, index)?;
                invariants::only_durable("a refused record", index + 1, self.have)?;
                self.refused = Some(index);
                State::Ready
            }
            (State::Saving, Outcome::CursorSaved) => State::Ready,
            (_, outcome) => return Err(self.unexpected(outcome)),
        };
        self.ticket.spend();
        Ok(())
    }

    fn opened(&mut self, cursor: Option<u64>, noted: bool, saved: u64) -> State {
        if cursor.is_none() && saved > 0 {
            return State::Ended(Ended::Forgotten { delivered: saved });
        }
        self.at = cursor.unwrap_or(0);
        // What was refused before may be behind the cursor by now, or will be refused again.
        self.refused = None;
        if noted { State::Checking } else { State::Ready }
    }

    fn unexpected(&self, outcome: Outcome) -> Violation {
        let state = match self.state {
            State::Opening => "opening",
            State::Pausing(_) => "pausing",
            State::Checking => "checking its cursor",
            State::Ready => "delivering",
            State::Saving => "saving its cursor",
            State::Ended(_) => "over",
        };
        let event = match outcome {
            Outcome::Opened { .. } => "it is opened",
            Outcome::Note { .. } => "its note is compared",
            Outcome::Acked { .. } => "a batch is acknowledged",
            Outcome::Refused { .. } => "a record is refused",
            Outcome::CursorSaved => "its cursor is saved",
            Outcome::Failed(_) => "it failed",
        };
        Violation::Unexpected { machine: "sink", event, state }
    }
}
