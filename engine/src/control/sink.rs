//! Delivery by one sink of one lane: what to write next, and what an answer means, or one that never came.
//!
//! ```text
//!            opened: cursor read back          same note              caught up, gathering
//!   Opening ───────────────────────► Checking ──────────► Ready ◄────────────────► (wait for more to be durable)
//!      ▲                                │                 │  ▲
//!      │ rung                           │ another's       │  │ cursor saved
//!   Pausing ◄─── no answer, down ───────┼─────────────────┤  │
//!                                       │                 │  └──── Saving ◄── acknowledged up to `next`
//!                                       ▼                 │           ▲
//!                                     Ended ◄── fenced ───┤           │
//!                                       ▲                 │  a record is refused: fewer are offered until it stands alone, then it
//!                                       └──── stopped ────┘  is kept elsewhere, durably, and the cursor goes on past it
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
//! - An **announcing** sink makes a range durable in its cursor before the first byte of it goes out, and then writes that range
//!   and no other, whole, however often it is opened in between: doing so again writes the same.
//! - The cursor's *note* identifies everything before it (the log's root at that size). Another note is another log's cursor;
//!   going on from it would leave verdicts out in silence, so the sink ends.
//! - A cursor, or the end of an announced range, may be ahead of the log after the store fell back to an earlier checkpoint.
//!   The log regrows to the same bytes: wait.
//! - Only what a durable checkpoint covers is written: [`Delivery::committed`] says how far that is.
//! - What a sink **refuses** is found by offering less: half of what may be refused, or as the sink says. The refused
//!   record is kept, durably, before the cursor passes it; a delivery of its own brings it to the dead-letter output.
//! - A sink that is **down** is tried again after a pause that grows, or as long as it asked for; once more and at once when
//!   it is told to finish.
//! - A sink that **gathers** waits until so many records are there, or the first of them has waited for so long; not when it
//!   is told to stop.

use super::invariants::{self, Violation};
use super::{Backoff, Failure, Stop, Ticket, Timer};

/// As many records as the sink takes at once.
pub const ALL: u64 = u64::MAX;

/// The first pause after a failure, and the longest, milliseconds.
pub const PAUSES_MS: (i64, i64) = (200, 30_000);
/// How often an idle transactional sink writes its cursor again ([`Delivery::refresh_every`]), so that Kafka does not forget
/// it, milliseconds.
pub const REFRESH_MS: i64 = 3_600_000;

/// How a sink keeps its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// With the records, in one transaction: each once.
    Transactional,
    /// After the records: each at least once.
    Plain,
    /// Where a range ends is in the cursor before its first record goes out, and what is written again replaces what is
    /// there: each once.
    Announced,
}

/// How long a sink waits for more records before it writes those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gather {
    /// So many are enough.
    pub enough: u64,
    /// The first one waits no longer, milliseconds.
    pub longest_ms: i64,
}

/// Why a delivery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to. `short` of everything durable, if it was told to stop at once or the sink is down.
    Stopped {
        /// Whether something durable is left undelivered.
        short: bool,
    },
    /// As it was told to, while the log was still shorter than what had been delivered, or announced.
    NotRegrown {
        /// The cursor.
        at: u64,
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
    /// Choose a range from `from` on, at most up to `upto`, and make it durable in the cursor before anything of it is
    /// written. Answer [`Outcome::Announced`].
    Announce {
        /// The cursor, and the first of the range.
        from: u64,
        /// The first not in it. It may be shorter.
        upto: u64,
    },
    /// Write records from `from` on, at most up to `upto`, with the cursor after them. Answer [`Outcome::Acked`], or
    /// [`Outcome::Refused`].
    Write {
        /// The cursor, and the first to write.
        from: u64,
        /// The first not to write. Fewer may be written, unless `whole`.
        upto: u64,
        /// The most records to offer, of those that are this sink's.
        most: u64,
        /// Whether it is an announced range: nothing less is to be written, and nothing more.
        whole: bool,
    },
    /// Keep this one record elsewhere, durably; only then move the cursor past it. Nothing between `from` and it is this
    /// sink's. Answer [`Outcome::Acked`].
    SetAside {
        /// The cursor.
        from: u64,
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
    /// The sink is down: do nothing before this time, milliseconds, unless a stop is asked for.
    Pause {
        /// When to try again.
        until_ms: i64,
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
        /// The end of the range that was announced and is perhaps not written, or not all of it.
        announced: Option<u64>,
    },
    /// Whether the cursor's note is what the log gives.
    Note {
        /// It is.
        same: bool,
    },
    /// The range from the cursor up to `until` is announced, durably.
    Announced {
        /// The first not in it.
        until: u64,
    },
    /// Everything up to `next` is delivered, for good.
    Acked {
        /// The new cursor.
        next: u64,
    },
    /// Nothing was written, because the sink refuses at least one of the records offered, whatever happens.
    Refused {
        /// The first record that was offered.
        first: u64,
        /// How many were offered.
        offered: u64,
        /// Which of them, counted from 0, from the first that may be refused up to behind the last; `None` if the sink
        /// does not say.
        among: Option<(u64, u64)>,
        /// The cursor, had they been taken.
        next: u64,
    },
    /// The copy of the cursor is durable.
    CursorSaved,
    /// It takes nothing now, or nobody knows: [`Failure::Unknown`], with what is known of when to try again.
    Down {
        /// The sink asked not to be tried again for so long, milliseconds.
        asked_ms: Option<i64>,
        /// By how much the pause is shortened, in thousandths: chance, drawn by the driver, so that sinks and lanes that
        /// went down together do not come back together.
        shorter_permille: u16,
    },
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
    /// The end of the range that was announced.
    announced: Option<u64>,
    /// The most records to offer.
    most: u64,
    /// Where the records end among which one was refused: from there on all may be offered again.
    suspected: u64,
    /// The record that is refused, and nothing else.
    refused: Option<u64>,
    backoff: Backoff,
    gather: Option<Gather>,
    /// Since when something waits that can be written.
    waiting_since_ms: Option<i64>,
    refresh_ms: Option<i64>,
    /// Since when the sink was told nothing.
    quiet_since_ms: i64,
    lazy: bool,
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
            announced: None,
            most: ALL,
            suspected: 0,
            refused: None,
            backoff: Backoff::new(PAUSES_MS.0, PAUSES_MS.1),
            gather: None,
            waiting_since_ms: None,
            refresh_ms: None,
            quiet_since_ms: now_ms,
            lazy: false,
            stop: Stop::No,
        }
    }

    /// Not opened before there is something to deliver: what refuses nothing needs no second connection to say so.
    #[must_use]
    pub fn lazy(self) -> Self {
        Self { lazy: true, ..self }
    }

    /// How the open sink gathers, if it does.
    pub fn gather(&mut self, how: Option<Gather>) {
        self.gather = how;
    }

    /// How often the open sink, while there is nothing to write, wants its cursor or its state written again, milliseconds.
    pub fn refresh_every(&mut self, every_ms: Option<i64>) {
        self.refresh_ms = every_ms;
    }

    /// The cursor: everything before it is delivered. Meaningful once the sink was opened.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// How much is durable, as far as it was told.
    pub fn durable(&self) -> u64 {
        self.have
    }

    /// How much is durable but, as far as is known, not delivered.
    pub fn waiting(&self) -> u64 {
        self.have.saturating_sub(self.at)
    }

    /// Identifies the present action. Take it with the action, and give it back with its outcome.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// When the sink is tried again, if it is down, milliseconds.
    pub fn retry_at_ms(&self) -> Option<i64> {
        match self.state {
            State::Pausing(timer) => Some(timer.at_ms()),
            _ => None,
        }
    }

    /// A durable checkpoint covers this much.
    ///
    /// # Errors
    /// [`Violation::Truncated`] when it is less than before.
    pub fn committed(&mut self, durable: u64, now_ms: i64) -> Result<(), Violation> {
        if durable < self.have {
            return Err(Violation::Truncated { shown: self.have, now: durable });
        }
        self.have = durable;
        self.note_waiting(now_ms);
        Ok(())
    }

    /// Of a feed that is not a log: what is kept of a sink's refusals. That sink was opened at an earlier cursor, and fewer
    /// stand; it comes by the others again.
    pub fn rewound(&mut self, have: u64) {
        self.have = have;
        if self.at >= have {
            self.waiting_since_ms = None;
        }
    }

    fn note_waiting(&mut self, now_ms: i64) {
        if matches!(self.state, State::Ready) && self.at < self.have {
            self.waiting_since_ms.get_or_insert(now_ms);
        }
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
            State::Opening if self.lazy && self.have == 0 => match self.stop {
                Stop::No => Action::Wait { until_ms: None },
                _ => self.finish(),
            },
            State::Opening => Action::Open,
            // Told to finish, it tries once more, at once.
            State::Pausing(timer) if self.stop == Stop::No && !timer.rung(now_ms) => {
                Action::Pause { until_ms: timer.at_ms() }
            }
            State::Pausing(_) => Action::Open,
            State::Checking if self.have >= self.at => Action::CheckNote { at: self.at },
            State::Checking => self.regrow(),
            State::Ready => self.next(now_ms),
        }
    }

    fn next(&self, now_ms: i64) -> Action {
        let (from, upto) = (self.at, self.have);
        if let Some(until) = self.announced {
            return match until <= upto {
                true => Action::Write { from, upto: until, most: ALL, whole: true },
                false => self.regrow(),
            };
        }
        if from < upto {
            if let Some(index) = self.refused {
                return Action::SetAside { from, index };
            }
            if let Some(until_ms) = self.gathering(now_ms) {
                return Action::Wait { until_ms: Some(until_ms) };
            }
            return match self.guarantee {
                Guarantee::Announced => Action::Announce { from, upto },
                _ => Action::Write { from, upto, most: self.most, whole: false },
            };
        }
        if self.stop == Stop::Flush {
            return self.finish();
        }
        let refresh = self.refresh_ms.map(|every| Timer::new(self.quiet_since_ms, every));
        match refresh {
            Some(timer) if timer.rung(now_ms) => Action::Refresh { at: self.at },
            _ => Action::Wait { until_ms: refresh.map(|timer| timer.at_ms()) },
        }
    }

    /// Until when to wait for more than there is.
    fn gathering(&self, now_ms: i64) -> Option<i64> {
        let gather = self.gather.filter(|g| self.stop == Stop::No && self.waiting() < g.enough)?;
        let timer = Timer::new(self.waiting_since_ms?, gather.longest_ms);
        (!timer.rung(now_ms)).then(|| timer.at_ms())
    }

    /// The log is shorter than the cursor, or than what was announced.
    fn regrow(&self) -> Action {
        match self.stop {
            Stop::No => Action::Wait { until_ms: None },
            _ => Action::End(Ended::NotRegrown { at: self.at }),
        }
    }

    fn finish(&self) -> Action {
        let nothing = self.lazy && self.have == 0 && matches!(self.state, State::Opening);
        let whole = matches!(self.state, State::Ready) && self.at >= self.have && self.announced.is_none();
        Action::End(Ended::Stopped { short: !(whole || nothing) })
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
            (_, Outcome::Failed(Failure::Unknown)) => self.pause(None, 0, now_ms),
            (_, Outcome::Down { asked_ms, shorter_permille }) => self.pause(asked_ms, shorter_permille, now_ms),
            (_, Outcome::Failed(Failure::Fenced)) => State::Ended(Ended::Fenced),
            (_, Outcome::Failed(Failure::Fatal)) => State::Ended(Ended::Failed),
            (State::Opening | State::Pausing(_), Outcome::Opened { cursor, noted, saved, announced }) => {
                self.quiet_since_ms = now_ms;
                self.opened(cursor, noted, saved, announced)?
            }
            (State::Checking, Outcome::Note { same: true }) => State::Ready,
            (State::Checking, Outcome::Note { same: false }) => State::Ended(Ended::OtherLog { at: self.at }),
            (State::Ready, Outcome::Announced { until })
                if self.guarantee == Guarantee::Announced && self.announced.is_none() =>
            {
                // An empty range would be announced for ever.
                if until <= self.at {
                    return Err(Violation::OutOfOrder { expected: self.at + 1, from: self.at, next: until });
                }
                invariants::only_durable("an announced range", until, self.have)?;
                self.announced = Some(until);
                State::Ready
            }
            (State::Ready, Outcome::Acked { next }) => {
                self.acked(next)?;
                self.quiet_since_ms = now_ms;
                State::Saving
            }
            (State::Ready, Outcome::Refused { first, offered: offered @ 1.., among, next })
                if self.announced.is_none() && self.refused.is_none() =>
            {
                invariants::batch_in_order(self.at, self.at, first)?;
                invariants::only_durable("a refused record", next.max(first + 1), self.have)?;
                if offered == 1 {
                    self.refused = Some(first);
                } else {
                    self.most = narrower(offered, among);
                    self.suspected = self.suspected.max(next);
                }
                State::Ready
            }
            (State::Saving, Outcome::CursorSaved) => State::Ready,
            (_, outcome) => return Err(self.unexpected(outcome)),
        };
        self.note_waiting(now_ms);
        self.ticket.spend();
        Ok(())
    }

    fn pause(&mut self, asked_ms: Option<i64>, shorter_permille: u16, now_ms: i64) -> State {
        if self.stop != Stop::No {
            // Whoever comes next goes on from the cursor.
            return State::Ended(Ended::Stopped { short: true });
        }
        let due = self.backoff.pause_ms();
        let pause = due - due * i64::from(shorter_permille.min(1_000)) / 1_000;
        State::Pausing(Timer::new(now_ms, pause.max(asked_ms.unwrap_or(0))))
    }

    fn opened(
        &mut self,
        cursor: Option<u64>,
        noted: bool,
        saved: u64,
        announced: Option<u64>,
    ) -> Result<State, Violation> {
        if cursor.is_none() && saved > 0 {
            return Ok(State::Ended(Ended::Forgotten { delivered: saved }));
        }
        self.at = cursor.unwrap_or(0);
        if let Some(until) = announced {
            invariants::batch_in_order(self.at, self.at, until)?;
        }
        self.announced = announced.filter(|until| *until > self.at);
        // What was refused before may be behind the cursor by now, or will be refused again.
        (self.refused, self.most, self.suspected) = (None, ALL, 0);
        self.waiting_since_ms = None;
        Ok(if noted { State::Checking } else { State::Ready })
    }

    fn acked(&mut self, next: u64) -> Result<(), Violation> {
        invariants::batch_in_order(self.at, self.at, next)?;
        invariants::only_durable("a delivery", next, self.have)?;
        if let Some(until) = self.announced {
            // Nothing less than was announced, and nothing more.
            invariants::batch_in_order(until, next, next)?;
        }
        match self.refused {
            // It was set aside, so the cursor is behind it.
            Some(index) if next <= index => {
                return Err(Violation::OutOfOrder { expected: index + 1, from: self.at, next });
            }
            Some(_) => {}
            None => self.most = self.most.saturating_mul(2),
        }
        if next >= self.suspected {
            self.most = ALL;
        }
        self.at = next;
        (self.refused, self.announced) = (None, None);
        self.waiting_since_ms = None;
        self.backoff.reset();
        Ok(())
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
            Outcome::Announced { .. } => "a range is announced",
            Outcome::Acked { .. } => "a batch is acknowledged",
            Outcome::Refused { .. } => "a record is refused",
            Outcome::CursorSaved => "its cursor is saved",
            Outcome::Down { .. } | Outcome::Failed(_) => "it failed",
        };
        Violation::Unexpected { machine: "sink", event, state }
    }
}

/// How many to offer next when at least one of `offered` (two or more) is refused: those before the first that may be, which
/// are then out of the way; or else half of those that may be.
fn narrower(offered: u64, among: Option<(u64, u64)>) -> u64 {
    let (first, end) = among.unwrap_or((0, offered));
    let next = if first > 0 { first } else { end / 2 };
    next.clamp(1, offered - 1)
}
