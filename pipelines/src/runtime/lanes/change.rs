//! All lanes at once going over to another version of the pipeline: held at durable checkpoints, closed, and opened again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_engine::control::lane::{LaneEvent, LaneState};

use super::super::error::RuntimeError;
use super::slot::Slot;
use super::{Lanes, Setup};

/// How long all lanes may take to stand still, each at a durable checkpoint, before a reload is given up.
const HELD_FOR: Duration = Duration::from_secs(30);

/// All lanes are to stand still.
pub(super) struct Hold {
    number: u64,
    /// When that is given up.
    until: Instant,
}

impl Lanes {
    /// Asks all lanes that run to stand still at a durable checkpoint: see [`Lanes::held`].
    pub fn hold(&mut self) {
        self.holds += 1;
        self.hold = Some(Hold { number: self.holds, until: Instant::now() + HELD_FOR });
        self.ask_to_stand_still();
    }

    fn ask_to_stand_still(&self) {
        let Some(hold) = &self.hold else { return };
        for slot in self.slots.values().filter(|s| s.control.state() == LaneState::Running) {
            slot.halt.hold(hold.number);
        }
    }

    /// Whether all lanes that run stand still now; `None` while that is waited for, or when nothing is. Those that are being
    /// opened or closed are not waited for: nothing is read in them. Once it has said that they do not, they go on.
    pub fn held(&mut self) -> Option<Result<(), String>> {
        let hold = self.hold.as_ref()?;
        let number = hold.number;
        self.ask_to_stand_still();
        let moves = |s: &Slot| s.control.state() == LaneState::Running && !s.halt.is_still(number);
        let moving: Vec<i32> = self.slots.iter().filter(|(_, s)| moves(s)).map(|(p, _)| *p).collect();
        if moving.is_empty() {
            return Some(Ok(()));
        }
        if Instant::now() < hold.until {
            return None;
        }
        self.go_on();
        Some(Err(format!(
            "after {} s lanes {moving:?} had no durable checkpoint yet: their checkpoint store does not answer, or is too slow",
            HELD_FOR.as_secs()
        )))
    }

    /// Lets lanes that stand still go on as they were.
    pub fn go_on(&mut self) {
        self.hold = None;
        self.slots.values().for_each(|s| s.halt.go_on());
    }

    /// Goes over to another pipeline: each lane is closed as when the group takes it, and opened again with `setup`. It must
    /// have the inputs and the metrics of the one before.
    pub fn change(&mut self, setup: Setup) -> Result<(), RuntimeError> {
        self.setup = Arc::new(setup);
        self.hold = None;
        let partitions: Vec<i32> = self.slots.keys().copied().collect();
        for partition in partitions {
            let Some(slot) = self.slots.get_mut(&partition) else { continue };
            // A lane that is closing already goes where it goes; opened again, it has the new pipeline.
            if slot.control.may_open() && slot.control.state() != LaneState::Draining {
                slot.reopen = Some(Duration::ZERO);
            }
            let now = self.now_ms();
            if let Some(slot) = self.slots.get_mut(&partition).filter(|s| s.fenced.is_none()) {
                slot.on(LaneEvent::Revoked, now, partition)?;
            }
            self.drive(partition)?;
        }
        self.settle()
    }
}
