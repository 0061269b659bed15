//! Anchoring: when which checkpoint goes to the chain, and what the chain's answer means.
//!
//! ```text
//!           connected, journal settled               heads read             due: anchor(from, to)
//!   Connecting ───────────────────────────► Looking ───────────► Watching ◄───────────────────────► (one on its way)
//!      ▲                                       ▲                  │    │                                   │
//!      │ rung                                  └── every 5 s ─────┘    │                                   │
//!   Pausing ◄──────────── no answer, head moved ───────────────────────┼───────────────────────────────────┘
//!                                                                      ▼
//!                                              Ended ◄── stopped, another log on chain, fenced
//! ```
//!
//! - One writer a journal (whoever drives this machine has its lease), one checkpoint on its way at a time. What is signed is in the journal first, so after a crash
//!   **Connecting** finds it, looks it up and sends it again if the chain does not have it.
//! - What is anchored begins at the head that the chain shows and ends at a durable checkpoint. The contract takes a checkpoint
//!   at its head only; so a repeated, late or lost transaction is harmless, and an unknown outcome means: look.
//! - A reorganisation takes anchors back: the head is lower than before, what it covered waits again. [`taken_back`] finds
//!   what the journal has to send again.
//! - After a store fell back to an earlier checkpoint ([`Anchoring::fell_back`]) the chain may be ahead of the log. Nothing is
//!   anchored until it has regrown; that it regrows to the same bytes, the contract checks by the consistency proof.
//! - What is due may be held back for what gas costs ([`super::pace`]); it waits, and goes with what has come meanwhile.
//! - A lane that another process runs may be unreadable for a moment: the others do not wait for it.

use std::collections::BTreeMap;

use super::invariants::{self, Fork, Violation};
use super::pace::{Gas, Held, Pace, Promise};
use super::{Backoff, Failure, Head, Stop, Ticket, Timer};
use crate::verdict::Hash32;

/// The first pause after a failure, and the longest, milliseconds.
pub const PAUSES_MS: (i64, i64) = (500, 30_000);
/// How often the chain's heads are read, milliseconds.
pub const LOOK_MS: i64 = 5_000;
/// How often to see whether something is due, milliseconds.
pub const TICK_MS: i64 = 200;

/// When a checkpoint of the verdict log is written to the chain. At least one of the two is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnchorPolicy {
    /// As soon as this many verdicts wait.
    pub verdicts: Option<u64>,
    /// As soon as a verdict has waited this long, milliseconds.
    pub interval_ms: Option<i64>,
}

/// What is known of one log: what is durable, what the contract has, and since when something waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    anchored: u64,
    committed: u64,
    waiting_since_ms: Option<i64>,
}

impl Backlog {
    /// Nothing waits at the size that the contract has.
    pub fn new(anchored: u64) -> Self {
        Self { anchored, committed: anchored, waiting_since_ms: None }
    }

    /// A durable checkpoint covers `size` entries, seen at `now_ms`. Sizes never shrink.
    pub fn committed(&mut self, size: u64, now_ms: i64) {
        self.committed = self.committed.max(size);
        if self.committed > self.anchored && self.waiting_since_ms.is_none() {
            self.waiting_since_ms = Some(now_ms);
        }
    }

    /// The contract has `size` entries. It may be less than before: then a reorganisation took an anchor back, and what it
    /// covered waits again from `now_ms` on.
    pub fn anchored(&mut self, size: u64, now_ms: i64) {
        self.anchored = size;
        self.waiting_since_ms = (self.committed > size).then_some(now_ms);
    }

    /// Entries that no anchor covers.
    pub fn pending(&self) -> u64 {
        self.committed.saturating_sub(self.anchored)
    }

    /// How long the oldest of them has waited, milliseconds.
    pub fn waited_ms(&self, now_ms: i64) -> i64 {
        self.waiting_since_ms.map_or(0, |since| (now_ms - since).max(0))
    }

    /// Whether to anchor now. `flush` anchors whatever waits, as at a shutdown.
    pub fn due(&self, policy: AnchorPolicy, now_ms: i64, flush: bool) -> bool {
        self.pending() > 0
            && (flush
                || policy.verdicts.is_some_and(|n| self.pending() >= n)
                || policy.interval_ms.is_some_and(|ms| self.waited_ms(now_ms) >= ms))
    }
}

/// Why anchoring ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As it was told to.
    Stopped,
    /// Another writer holds the journal's lease.
    Fenced,
    /// Going on would promise anchors that cannot come: the wrong chain, no contract there, another log.
    Failed,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect, register what logs are new, settle what the journal holds. Answer [`Outcome::Done`].
    Connect,
    /// Read the head of every lane's log ([`Anchoring::seen`]). Answer [`Outcome::Done`].
    Look,
    /// Sign a checkpoint from the chain's head to a durable one, journal it, send it, see it included. Answer
    /// [`Outcome::Anchored`].
    Anchor {
        /// Which lane.
        lane: i32,
        /// The chain's head.
        from: Head,
        /// The durable checkpoint.
        to: Head,
    },
    /// Do nothing before this time, milliseconds, unless told to stop.
    WaitUntil(i64),
    /// Nothing any more.
    End(Ended),
}

/// What became of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Connected, or looked.
    Done,
    /// The checkpoint is in a block, or one of the same size was there already.
    Anchored {
        /// Which lane.
        lane: i32,
        /// The chain's head of this lane now.
        head: Head,
    },
    /// The lane cannot be read at this moment, so nothing was signed. The others go on.
    Unreadable {
        /// Which lane.
        lane: i32,
    },
    /// The chain would take more for it than may be spent now. Nothing was sent; what waits goes into the next one.
    Deferred {
        /// Which lane.
        lane: i32,
    },
    /// It failed. That the head has moved meanwhile is [`Failure::Unknown`]: look again.
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Pausing(Timer),
    Looking,
    Watching(Timer),
    Ended(Ended),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LaneAnchor {
    durable: Head,
    head: Option<Head>,
    backlog: Backlog,
    /// Not to be tried before this rings.
    rests: Option<Timer>,
}

impl LaneAnchor {
    /// What to anchor, if anything can be: from where the chain is to what is durable.
    fn next(&self, now_ms: i64) -> Option<(Head, Head)> {
        let rests = self.rests.is_some_and(|timer| !timer.rung(now_ms));
        self.head.filter(|head| !rests && self.durable.size > head.size).map(|head| (head, self.durable))
    }
}

/// Decides about the anchors of one writer's lanes. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchoring {
    policy: AnchorPolicy,
    pace: Pace,
    lanes: BTreeMap<i32, LaneAnchor>,
    state: State,
    ticket: Ticket,
    backoff: Backoff,
    stop: Stop,
}

impl Anchoring {
    /// Without lanes yet.
    pub fn new(policy: AnchorPolicy) -> Self {
        Self {
            policy,
            pace: Pace::default(),
            lanes: BTreeMap::new(),
            state: State::Connecting,
            ticket: Ticket::default(),
            backoff: Backoff::new(PAUSES_MS.0, PAUSES_MS.1),
            stop: Stop::No,
        }
    }

    /// Held by a promise and by what gas costs: see [`super::pace`].
    pub fn paced(mut self, promise: Promise) -> Self {
        self.pace = Pace::new(promise);
        self
    }

    /// What gas costs now. To be told before [`Outcome::Done`] of [`Action::Look`].
    pub fn priced(&mut self, gas: Gas, now_ms: i64) {
        self.pace.priced(gas, now_ms);
    }

    /// Why what is due in this lane does not go now; `None` if nothing holds it, or nothing is due.
    pub fn held(&self, lane: i32, now_ms: i64) -> Option<Held> {
        let lane = self.lanes.get(&lane).filter(|lane| self.is_due(lane, now_ms))?;
        self.pace.holds(&lane.backlog, self.policy, now_ms, self.stop == Stop::Flush)
    }

    fn is_due(&self, lane: &LaneAnchor, now_ms: i64) -> bool {
        lane.backlog.due(self.policy, now_ms, self.stop == Stop::Flush) || self.pace.presses(&lane.backlog, now_ms)
    }

    /// A durable checkpoint of this lane's log. The first one adds the lane: its log may have to be registered, so the writer
    /// connects anew, and then its head on chain is looked up.
    ///
    /// # Errors
    /// [`Violation::Truncated`], [`Violation::Forked`] against the one before.
    pub fn committed(&mut self, lane: i32, durable: Head, now_ms: i64) -> Result<(), Violation> {
        let known = self.lanes.entry(lane).or_insert_with(|| {
            if matches!(self.state, State::Looking | State::Watching(_)) {
                self.state = State::Connecting;
                self.ticket.spend();
            }
            LaneAnchor { durable, head: None, backlog: Backlog::default(), rests: None }
        });
        if durable.size < known.durable.size {
            return Err(Violation::Truncated { shown: known.durable.size, now: durable.size });
        }
        if durable.size == known.durable.size {
            invariants::same_root(durable.size, &known.durable.root, &durable.root)?;
        }
        known.durable = durable;
        known.backlog.committed(durable.size, now_ms);
        Ok(())
    }

    /// The lane's store was opened anew, and its durable checkpoint is an earlier one than was known here: nothing of it is
    /// anchored before it has regrown.
    pub fn fell_back(&mut self, lane: i32, durable: Head) {
        if let Some(known) = self.lanes.get_mut(&lane) {
            known.durable = durable;
        }
    }

    /// The lane is no longer ours. What is on its way for it stays in the journal.
    pub fn forget(&mut self, lane: i32) {
        self.lanes.remove(&lane);
    }

    /// The chain's head of this lane's log. It may be lower than before: a reorganisation.
    pub fn seen(&mut self, lane: i32, head: Head, now_ms: i64) {
        if let Some(known) = self.lanes.get_mut(&lane)
            && known.head != Some(head)
        {
            known.backlog.anchored(head.size, now_ms);
            known.head = Some(head);
        }
    }

    /// How to end. A stop at once overrides a gentle one, not the other way round.
    pub fn stop(&mut self, how: Stop) {
        self.stop = self.stop.max(how);
    }

    /// What waits for an anchor in this lane.
    pub fn backlog(&self, lane: i32) -> Option<&Backlog> {
        self.lanes.get(&lane).map(|l| &l.backlog)
    }

    /// The durable checkpoint of this lane's log that is known here.
    pub fn durable(&self, lane: i32) -> Option<Head> {
        self.lanes.get(&lane).map(|l| l.durable)
    }

    /// The chain's head of this lane's log, as last seen.
    pub fn head(&self, lane: i32) -> Option<Head> {
        self.lanes.get(&lane).and_then(|l| l.head)
    }

    /// When to connect anew after a failure, milliseconds.
    pub fn retry_at_ms(&self) -> Option<i64> {
        match self.state {
            State::Pausing(timer) => Some(timer.at_ms()),
            _ => None,
        }
    }

    /// Identifies the present action. Take it with the action, and give it back with its outcome.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// What to do now.
    pub fn action(&self, now_ms: i64) -> Action {
        match self.state {
            State::Ended(ended) => Action::End(ended),
            _ if self.stop == Stop::Now => Action::End(Ended::Stopped),
            State::Pausing(timer) if !timer.rung(now_ms) => Action::WaitUntil(timer.at_ms()),
            State::Connecting | State::Pausing(_) => Action::Connect,
            State::Looking => Action::Look,
            State::Watching(look) => self.watch(look, now_ms),
        }
    }

    fn watch(&self, look: Timer, now_ms: i64) -> Action {
        let flush = self.stop == Stop::Flush;
        // Of those that are due, the one that has waited longest: none can starve another.
        let due = |lane: &LaneAnchor| {
            self.is_due(lane, now_ms) && self.pace.holds(&lane.backlog, self.policy, now_ms, flush).is_none()
        };
        let next = self
            .lanes
            .iter()
            .filter(|(_, lane)| due(lane))
            .filter_map(|(id, lane)| {
                lane.next(now_ms).map(|(from, to)| (lane.backlog.waited_ms(now_ms), *id, from, to))
            })
            .max_by_key(|(waited, id, ..)| (*waited, -i64::from(*id)));
        if look.rung(now_ms) {
            return Action::Look;
        }
        if let Some((_, lane, from, to)) = next {
            return Action::Anchor { lane, from, to };
        }
        if flush && self.lanes.values().all(|lane| lane.backlog.pending() == 0) {
            return Action::End(Ended::Stopped);
        }
        Action::WaitUntil(now_ms.saturating_add(TICK_MS).min(look.at_ms()))
    }

    /// Takes note of what became of the action that `ticket` is of. One of an earlier ticket does nothing.
    ///
    /// # Errors
    /// [`Violation::Unexpected`] when the outcome is not one of the present action.
    pub fn on(&mut self, ticket: Ticket, outcome: Outcome, now_ms: i64) -> Result<(), Violation> {
        if ticket != self.ticket || matches!(self.state, State::Ended(_)) {
            return Ok(());
        }
        self.state = match (self.state, outcome) {
            (_, Outcome::Failed(Failure::Unknown)) => State::Pausing(Timer::new(now_ms, self.backoff.pause_ms())),
            (_, Outcome::Failed(Failure::Fenced)) => State::Ended(Ended::Fenced),
            (_, Outcome::Failed(Failure::Fatal)) => State::Ended(Ended::Failed),
            (State::Connecting | State::Pausing(_), Outcome::Done) => State::Looking,
            (State::Looking | State::Watching(_), Outcome::Done) => {
                if matches!(self.state, State::Watching(_)) {
                    // It has gone well for a while.
                    self.backoff.reset();
                }
                if self.lanes.values().any(|lane| lane.head.is_none()) {
                    // A lane was added while the others were looked at.
                    State::Looking
                } else {
                    State::Watching(Timer::new(now_ms, LOOK_MS))
                }
            }
            (State::Watching(look), Outcome::Anchored { lane, head }) => {
                self.seen(lane, head, now_ms);
                self.pace.anchored(now_ms);
                self.backoff.reset();
                State::Watching(look)
            }
            (State::Watching(look), Outcome::Deferred { lane }) => {
                if let Some(known) = self.lanes.get_mut(&lane) {
                    known.rests = Some(Timer::new(now_ms, LOOK_MS));
                }
                State::Watching(look)
            }
            (State::Watching(look), Outcome::Unreadable { lane }) => {
                if let Some(known) = self.lanes.get_mut(&lane) {
                    known.rests = Some(Timer::new(now_ms, TICK_MS));
                }
                State::Watching(look)
            }
            (_, outcome) => return Err(self.unexpected(outcome)),
        };
        self.ticket.spend();
        Ok(())
    }

    fn unexpected(&self, outcome: Outcome) -> Violation {
        let state = match self.state {
            State::Connecting => "connecting",
            State::Pausing(_) => "pausing",
            State::Looking => "looking at the chain",
            State::Watching(_) => "watching",
            State::Ended(_) => "over",
        };
        let event = match outcome {
            Outcome::Done => "it is connected, or has looked",
            Outcome::Anchored { .. } => "a checkpoint is anchored",
            Outcome::Unreadable { .. } => "a lane cannot be read",
            Outcome::Deferred { .. } => "a checkpoint costs too much now",
            Outcome::Failed(_) => "it failed",
        };
        Violation::Unexpected { machine: "anchoring", event, state }
    }
}

/// Where a signed checkpoint stands, judged by the chain alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The chain is where the checkpoint begins: it can be sent, or sent again.
    Next,
    /// The chain has it. Whoever brought it there.
    There,
    /// The chain is elsewhere: the checkpoint has no place any more. Make another from the head.
    Elsewhere,
}

/// Judges a checkpoint from `old` to `new` by the chain's `head` and by the root it has at `new.size`, if it remembers one.
/// This is all that may decide whether to send: not what was sent before, nor what was answered.
///
/// # Errors
/// [`Fork`]: the chain has another log under this name.
pub fn place(old: &Head, new: &Head, head: &Head, at_new_size: Option<&Hash32>) -> Result<Place, Fork> {
    if head.size == old.size {
        invariants::same_root(head.size, &head.root, &old.root)?;
        return Ok(Place::Next);
    }
    let there = if head.size == new.size { Some(&head.root) } else { at_new_size };
    match there {
        Some(root) => {
            invariants::same_root(new.size, root, &new.root)?;
            Ok(Place::There)
        }
        None => Ok(Place::Elsewhere),
    }
}

/// Whether a checkpoint up to `new` that was in a block is there no more, judged by the chain's present `head`.
///
/// # Errors
/// [`Fork`]: the chain has another log under this name.
pub fn taken_back(new: &Head, head: &Head) -> Result<bool, Fork> {
    if head.size == new.size {
        invariants::same_root(new.size, &head.root, &new.root)?;
    }
    Ok(new.size > head.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: AnchorPolicy = AnchorPolicy { verdicts: Some(10), interval_ms: Some(1000) };

    #[test]
    fn by_number_by_time_and_on_flush() {
        let mut b = Backlog::new(5);
        assert!(!b.due(POLICY, 9_999_999, true), "nothing waits");
        b.committed(8, 100);
        assert!(!b.due(POLICY, 1099, false));
        assert!(b.due(POLICY, 1099, true));
        assert!(b.due(POLICY, 1100, false));
        b.committed(15, 200);
        assert_eq!((b.pending(), b.waited_ms(300)), (10, 200));
        assert!(b.due(POLICY, 300, false));
        b.anchored(15, 400);
        assert_eq!((b.pending(), b.waited_ms(500)), (0, 0));
    }

    #[test]
    fn a_reorganisation_makes_entries_wait_again() {
        let mut b = Backlog::new(0);
        b.committed(10, 0);
        b.anchored(10, 50);
        b.anchored(4, 60);
        assert_eq!((b.pending(), b.waited_ms(160)), (6, 100));
    }
}
