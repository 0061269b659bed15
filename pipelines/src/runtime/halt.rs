//! How a lane is told to end, or to stand still for a while.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// How a lane ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a last checkpoint.
    Checkpoint,
    /// At once and without one: the lane is another process's already.
    Abandon,
}

/// Shared between a lane's thread and whoever may end it. Once told, there is no way back; abandoning overrides.
#[derive(Debug, Default)]
pub struct Halt {
    told: AtomicU8,
    /// The number of the hold that is asked for, 0 if none.
    hold: AtomicU64,
    /// The number of the last hold at which the lane stood still.
    still: AtomicU64,
    /// Whether no checkpoint is to become durable before the lane goes on.
    begun: AtomicBool,
}

impl Halt {
    /// Tells the lane to end.
    pub fn tell(&self, ending: Ending) {
        let value = match ending {
            Ending::Checkpoint => 1,
            Ending::Abandon => 2,
        };
        self.told.fetch_max(value, Ordering::Release);
    }

    /// Asks the lane to make everything durable and then stand still, until it is told to end or let go on. `number` is
    /// above 0 and another one each time.
    pub fn hold(&self, number: u64) {
        self.hold.store(number, Ordering::Release);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.hold.store(0, Ordering::Release);
    }

    /// The number of the hold that is asked for.
    pub fn held(&self) -> Option<u64> {
        Some(self.hold.load(Ordering::Acquire)).filter(|n| *n > 0)
    }

    /// The lane stands still for this hold, and everything it has taken is durable.
    pub fn stand_still(&self, number: u64) {
        self.still.store(number, Ordering::Release);
    }

    /// Whether it does.
    pub fn is_still(&self, number: u64) -> bool {
        self.still.load(Ordering::Acquire) == number
    }

    /// The lane goes on: what it was opened under no crash undoes.
    pub fn begin(&self) {
        self.begun.store(true, Ordering::Release);
    }

    /// Whether it does.
    pub fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// What it was told.
    pub fn told(&self) -> Option<Ending> {
        match self.told.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Ending::Checkpoint),
            _ => Some(Ending::Abandon),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_still_is_for_one_hold() {
        let halt = Halt::default();
        assert_eq!(halt.held(), None);
        halt.hold(1);
        assert_eq!(halt.held(), Some(1));
        assert!(!halt.is_still(1));
        halt.stand_still(1);
        assert!(halt.is_still(1));
        halt.go_on();
        halt.hold(2);
        assert!(!halt.is_still(2));
    }

    #[test]
    fn abandoning_overrides_and_nothing_takes_it_back() {
        let halt = Halt::default();
        assert_eq!(halt.told(), None);
        halt.tell(Ending::Checkpoint);
        assert_eq!(halt.told(), Some(Ending::Checkpoint));
        halt.tell(Ending::Abandon);
        halt.tell(Ending::Checkpoint);
        assert_eq!(halt.told(), Some(Ending::Abandon));
    }
}
