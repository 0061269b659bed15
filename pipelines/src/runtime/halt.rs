//! How a lane is told to end.

use std::sync::atomic::{AtomicU8, Ordering};

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
pub struct Halt(AtomicU8);

impl Halt {
    /// Tells the lane to end.
    pub fn tell(&self, ending: Ending) {
        let value = match ending {
            Ending::Checkpoint => 1,
            Ending::Abandon => 2,
        };
        self.0.fetch_max(value, Ordering::Release);
    }

    /// What it was told.
    pub fn told(&self) -> Option<Ending> {
        match self.0.load(Ordering::Acquire) {
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
