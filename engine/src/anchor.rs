//! When to anchor: a pure decision over sizes and times, so that the runtime and a simulator decide alike.

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
