//! All lanes at once going over to another version of the pipeline: held at durable checkpoints, closed, and opened again. When,
//! [`avouch_engine::control::reload`] decides.

use std::sync::Arc;
use std::time::Duration;

use avouch_engine::control::lane::{LaneEvent, LaneState};

use super::super::error::RuntimeError;
use super::slot::Slot;
use super::{Lanes, Setup};

impl Lanes {
    /// Asks all lanes that run to stand still at a durable checkpoint, in the hold of this number; those that do not yet. Those
    /// that are being opened or closed are not waited for: nothing is read in them.
    pub fn hold(&mut self, number: u64) -> Vec<i32> {
        self.held = true;
        let running = |s: &Slot| s.control.state() == LaneState::Running;
        let mut moving = Vec::new();
        for (partition, slot) in self.slots.iter().filter(|(_, s)| running(s)) {
            slot.halt.hold(number);
            if !slot.halt.is_still(number) {
                moving.push(*partition);
            }
        }
        moving
    }

    /// Lets lanes that stand still go on as they were.
    pub fn go_on(&mut self) {
        self.held = false;
        self.slots.values().for_each(|s| s.halt.go_on());
    }

    /// Goes over to another pipeline: each lane is closed as when the group takes it, and opened again with `setup`. It must
    /// have the inputs and the metrics of the one before.
    pub fn change(&mut self, setup: Setup) -> Result<(), RuntimeError> {
        self.setup = Arc::new(setup);
        self.held = false;
        let partitions: Vec<i32> = self.slots.keys().copied().collect();
        for partition in partitions {
            let Some(slot) = self.slots.get_mut(&partition) else { continue };
            if slot.control.opens_again() {
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
