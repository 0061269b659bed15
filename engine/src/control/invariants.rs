//! The invariants of the whole: one set, to which the simulator holds the machines after every event, and the runtime its lanes
//! and anchors.
//!
//! | invariant | in the machines and the runtime | in the simulator besides |
//! | --- | --- | --- |
//! | conservation of rows | [`rows_conserved`], [`lane_follows_log`] before every checkpoint | the end is an unbroken run's |
//! | a log never forks | [`same_root`]: the root at a known size never changes; the anchor writer holds the chain to it | every log shown to anybody, and every record delivered or anchored, against the first that was shown |
//! | no published checkpoint is truncated | [`checkpoint_extends`]; sinks and anchors refuse to be told less than before | [`Shown::show`] over all processes, and after every recovery |
//! | each verdict once and in order, per sink | [`batch_in_order`] at every batch and its cursor | [`batch_in_order`] on what `read_committed` shows |
//! | anchors only extend | [`anchor_extends`] before signing | on the simulated contract, across reorganisations |
//! | only durable checkpoints are shown | [`only_durable`] at every cursor and before signing | against what the disks and stores really hold |
//! | one writer a lane | [`one_writer`] | no commit of an older generation after one of a newer |
//! | a lane never goes back to an older pipeline | [`super::reload::opening`] whenever a lane is opened | no checkpoint of an older version after one of a newer; what is said to be reloaded is durable |
//!
//! Each is a function of a few numbers and roots: cheap enough to stay on for ever. A violation is never repaired by
//! going on; the runtime stops the lane with it, and nothing is written.

use thiserror::Error;

use super::Head;
use super::checkpoint::Covered;
use crate::lane::Counters;
use crate::verdict::Hash32;

/// Something that must never happen has happened, or was about to and was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Violation {
    /// Rows were lost or made up.
    #[error(
        "rows are not conserved: {rows_in} came in, but {rows_used} were used and {dead} died; nothing was written, please report this"
    )]
    Rows {
        /// Records taken.
        rows_in: u64,
        /// Rows used.
        rows_used: u64,
        /// Dead letters.
        dead: u64,
    },
    /// The lane and its log disagree about how many verdicts there are.
    #[error(
        "the lane's next verdict is number {next_index} but its log has {log_size}; nothing was written, please report this"
    )]
    Index {
        /// What the lane says.
        next_index: u64,
        /// What the log says.
        log_size: u64,
    },
    /// Two roots for one size.
    #[error(transparent)]
    Forked(#[from] Fork),
    /// Less would be shown than was shown before.
    #[error("a published log of {shown} entries would be truncated to {now}")]
    Truncated {
        /// What was shown.
        shown: u64,
        /// What would be.
        now: u64,
    },
    /// A checkpoint that takes something back.
    #[error("a checkpoint goes back: its {what} is {after}, the one before had {before}")]
    GoesBack {
        /// What.
        what: &'static str,
        /// In the checkpoint before.
        before: i128,
        /// In this one.
        after: i128,
    },
    /// A batch is not what follows the cursor.
    #[error("a delivery is out of order: expected from {expected} on, got {from} up to {next}")]
    OutOfOrder {
        /// The cursor.
        expected: u64,
        /// First of the batch.
        from: u64,
        /// The cursor after it.
        next: u64,
    },
    /// Something would be shown that no durable checkpoint covers.
    #[error("{what} would reach {upto}, but a durable checkpoint covers only {durable}")]
    NotDurable {
        /// What would be shown, and to whom.
        what: &'static str,
        /// How far.
        upto: u64,
        /// How much is durable.
        durable: u64,
    },
    /// An anchor that does not extend the one before.
    #[error("an anchor from {old} to {new} does not extend the anchored log of {head}")]
    AnchorDoesNotExtend {
        /// What the contract has.
        head: u64,
        /// Where the anchor begins.
        old: u64,
        /// Where it ends.
        new: u64,
    },
    /// A writer of an older generation.
    #[error("generation {ours} of this lane's writer is over: generation {newest} has begun")]
    Generation {
        /// This writer's.
        ours: u64,
        /// The newest.
        newest: u64,
    },
    /// A machine was told of an outcome that nothing was done for.
    #[error("{machine}: {event} while it is {state}; please report this")]
    Unexpected {
        /// Which machine.
        machine: &'static str,
        /// What it was told.
        event: &'static str,
        /// What it was doing.
        state: &'static str,
    },
}

/// Two roots for one size: two logs under one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the log has forked: at size {size} its root was {}, now it is {}", hex(.known), hex(.now))]
pub struct Fork {
    /// The size.
    pub size: u64,
    /// The root that was known, be it to a reader or to the chain.
    pub known: Hash32,
    /// The root now.
    pub now: Hash32,
}

fn hex(hash: &Hash32) -> String {
    hash.iter().map(|b| format!("{b:02x}")).collect()
}

/// Rows in = rows used + dead letters.
///
/// # Errors
/// [`Violation::Rows`].
pub fn rows_conserved(counters: &Counters) -> Result<(), Violation> {
    if counters.balanced() {
        return Ok(());
    }
    let Counters { rows_in, rows_used, dead, .. } = *counters;
    Err(Violation::Rows { rows_in, rows_used, dead: dead.iter().sum() })
}

/// The lane's next index is the log's size.
///
/// # Errors
/// [`Violation::Index`].
pub fn lane_follows_log(next_index: u64, log_size: u64) -> Result<(), Violation> {
    if next_index == log_size { Ok(()) } else { Err(Violation::Index { next_index, log_size }) }
}

/// The root at a size that somebody knows has not changed.
///
/// # Errors
/// [`Fork`].
pub fn same_root(size: u64, known: &Hash32, now: &Hash32) -> Result<(), Fork> {
    if known == now { Ok(()) } else { Err(Fork { size, known: *known, now: *now }) }
}

/// A checkpoint takes nothing back that the one before it covers.
///
/// # Errors
/// [`Violation::GoesBack`]; [`Violation::Forked`] when both cover the same size with different roots.
pub fn checkpoint_extends(before: &Covered, after: &Covered) -> Result<(), Violation> {
    let went_back = |what, before: i128, after: i128| Err(Violation::GoesBack { what, before, after });
    if after.next_offset < before.next_offset {
        return went_back("next offset", before.next_offset.into(), after.next_offset.into());
    }
    if after.log.size < before.log.size {
        return went_back("log size", before.log.size.into(), after.log.size.into());
    }
    if after.dead < before.dead {
        return went_back("number of dead letters", before.dead.into(), after.dead.into());
    }
    if after.log.size == before.log.size {
        same_root(after.log.size, &before.log.root, &after.log.root)?;
    }
    Ok(())
}

/// A batch begins where the cursor stands and moves it on. An empty one (`from == next`) writes the cursor again.
///
/// # Errors
/// [`Violation::OutOfOrder`].
pub fn batch_in_order(expected: u64, from: u64, next: u64) -> Result<(), Violation> {
    if from == expected && next >= from { Ok(()) } else { Err(Violation::OutOfOrder { expected, from, next }) }
}

/// Nothing is shown beyond what a durable checkpoint covers. `what` says what would be shown, for the error.
///
/// # Errors
/// [`Violation::NotDurable`].
pub fn only_durable(what: &'static str, upto: u64, durable: u64) -> Result<(), Violation> {
    if upto <= durable { Ok(()) } else { Err(Violation::NotDurable { what, upto, durable }) }
}

/// An anchor begins where the contract's head is, ends further on, and covers only what is durable.
///
/// # Errors
/// [`Violation::AnchorDoesNotExtend`], [`Violation::Forked`], [`Violation::NotDurable`].
pub fn anchor_extends(head: &Head, old: &Head, new: &Head, durable: u64) -> Result<(), Violation> {
    if old.size != head.size || new.size <= old.size {
        return Err(Violation::AnchorDoesNotExtend { head: head.size, old: old.size, new: new.size });
    }
    same_root(head.size, &head.root, &old.root)?;
    only_durable("an anchor", new.size, durable)
}

/// A writer may commit only while its generation is the newest.
///
/// # Errors
/// [`Violation::Generation`].
pub fn one_writer(ours: u64, newest: u64) -> Result<(), Violation> {
    if ours == newest { Ok(()) } else { Err(Violation::Generation { ours, newest }) }
}

/// The most that was ever shown of a log. What is shown next must not be less, nor another log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shown {
    most: Option<Head>,
}

impl Shown {
    /// Nothing was shown yet, or this much.
    pub fn new(most: Option<Head>) -> Self {
        Self { most }
    }

    /// The most that was shown.
    pub fn most(&self) -> Option<Head> {
        self.most
    }

    /// Shows a log. `root_at` gives the root of the log now at a smaller size; it is asked for at most once.
    ///
    /// # Errors
    /// [`Violation::Truncated`] and [`Violation::Forked`], and those of `root_at`; then nothing changes.
    pub fn show<E: From<Violation>>(
        &mut self,
        now: Head,
        root_at: impl FnOnce(u64) -> Result<Hash32, E>,
    ) -> Result<(), E> {
        if let Some(most) = self.most {
            if now.size < most.size {
                return Err(Violation::Truncated { shown: most.size, now: now.size }.into());
            }
            let root = if now.size == most.size { now.root } else { root_at(most.size)? };
            same_root(most.size, &most.root, &root).map_err(Violation::from)?;
        }
        self.most = Some(now);
        Ok(())
    }
}
