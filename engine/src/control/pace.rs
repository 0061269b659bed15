//! Pace: when an anchor that is due is held back, because gas is dear now or the day's budget has to last.
//!
//! A checkpoint costs the same whatever it covers, so to wait is to gather more for the same money. How long may be waited is
//! promised: the maximum merge delay. In between:
//!
//! ```text
//!  due by number or interval                                            promise − margin        promise
//!  ──┬────────────────────────────────────────────────────────────────────┬───────────────────────┬──►
//!    │ gas is no dearer than usual: now                                    │ at any price that     │ the alarm
//!    │ gas is dearer: held, but the longer it waits and the more has       │ the limits allow      │
//!    │   gathered the more it may cost, up to twice the usual              │                       │
//!    │ the budget would not last the day at this pace: held                │                       │
//!  ──┴── above the ceiling, or nothing left to spend: nothing is sent, whatever was promised ───────┴──►
//! ```
//!
//! Nothing here reads a clock or a chain: what gas costs is told ([`Pace::priced`]), and the same history gives the same
//! decisions.

use std::collections::VecDeque;

use super::anchor::{AnchorPolicy, Backlog};

/// How often a price is kept for comparison, milliseconds.
const SAMPLE_MS: i64 = 300_000;
/// So many are kept: a day's.
const SAMPLES: usize = 288;
/// Before there are so many nothing is called dear: an hour's.
const ENOUGH: usize = 12;
/// Backlogs of so many times the number that makes an anchor due count as pressing as the promise itself.
const PRESSING: u64 = 16;
const WHOLE: u64 = 1000;

/// What gas costs, and what may be spent, at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gas {
    /// Wei per gas that a transaction pays now.
    pub fee: u64,
    /// Whether what has to be offered now is within the ceiling.
    pub within_ceiling: bool,
    /// How many checkpoints the rest of the day's budget pays for; `None` without a budget.
    pub affordable: Option<u64>,
    /// Milliseconds until there is a new budget.
    pub renews_in_ms: i64,
}

/// What the pace is held by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// No verdict waits longer for its anchor, milliseconds.
    pub delay_ms: i64,
    /// Whether to wait for cheaper gas within it, and to make the budget last. Else only the limits count.
    pub adapt: bool,
}

/// Why an anchor that is due does not go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Gas is dearer than the ceiling.
    Ceiling,
    /// The day's budget is spent.
    Budget,
    /// Gas is dearer than usual, and there is time.
    Dear,
    /// The day's budget has to last, and there is time.
    Sparing,
}

impl Held {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ceiling, Self::Budget, Self::Dear, Self::Sparing];

    /// One word, for a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Budget => "budget",
            Self::Dear => "dear",
            Self::Sparing => "sparing",
        }
    }

    /// For a log line.
    pub fn why(self) -> &'static str {
        match self {
            Self::Ceiling => "gas is dearer than the ceiling",
            Self::Budget => "the day's budget is spent",
            Self::Dear => "gas is dearer than usual",
            Self::Sparing => "the day's budget has to last",
        }
    }
}

/// Remembers prices, and holds anchors back. See the [module](self).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pace {
    promise: Option<Promise>,
    gas: Option<Gas>,
    /// When `gas` was told.
    told_ms: i64,
    samples: VecDeque<u64>,
    sampled_ms: Option<i64>,
    /// When the last anchor went.
    anchored_ms: Option<i64>,
}

impl Pace {
    /// A pace that keeps a promise. The default one holds nothing back for being dear.
    pub fn new(promise: Promise) -> Self {
        Self { promise: Some(promise), ..Self::default() }
    }

    /// What gas costs at `now_ms`.
    pub fn priced(&mut self, gas: Gas, now_ms: i64) {
        self.gas = Some(gas);
        self.told_ms = now_ms;
        if self.sampled_ms.is_none_or(|at| now_ms < at || now_ms - at >= SAMPLE_MS) {
            self.sampled_ms = Some(now_ms);
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(gas.fee);
        }
    }

    /// An anchor went.
    pub fn anchored(&mut self, now_ms: i64) {
        self.anchored_ms = Some(now_ms);
        if let Some(Gas { affordable: Some(left), .. }) = &mut self.gas {
            *left = left.saturating_sub(1);
        }
    }

    /// The middle of the prices of the last day; `None` while too few are known.
    pub fn usual_fee(&self) -> Option<u64> {
        if self.samples.len() < ENOUGH {
            return None;
        }
        let mut sorted: Vec<u64> = self.samples.iter().copied().collect();
        let middle = (sorted.len() - 1) / 2;
        Some(*sorted.select_nth_unstable(middle).1)
    }

    /// After how long a wait nothing is held back for its price any more, milliseconds: before the promise ends, with time for the
    /// chain to answer.
    pub fn patience_ms(&self) -> Option<i64> {
        self.promise.filter(|p| p.adapt).map(|p| p.delay_ms - (p.delay_ms / 3).min(120_000))
    }

    /// Whether what waits must go for the promise's sake, whatever the policy says.
    pub fn presses(&self, backlog: &Backlog, now_ms: i64) -> bool {
        backlog.pending() > 0 && self.patience_ms().is_some_and(|ms| backlog.waited_ms(now_ms) >= ms)
    }

    /// Why an anchor of this backlog, which is due, does not go now; `None`: it goes. With `flush` it is not held for its price.
    pub fn holds(&self, backlog: &Backlog, policy: AnchorPolicy, now_ms: i64, flush: bool) -> Option<Held> {
        let gas = self.gas?;
        if !gas.within_ceiling {
            return Some(Held::Ceiling);
        }
        if gas.affordable == Some(0) {
            return Some(Held::Budget);
        }
        let patience = self.patience_ms()?;
        let waited = backlog.waited_ms(now_ms);
        if flush || waited >= patience {
            return None;
        }
        if let Some(left) = gas.affordable
            && let Some(last) = self.anchored_ms
        {
            // As if the day's rest were cut into as many pieces as there are checkpoints left.
            let rest = (gas.renews_in_ms - (now_ms - self.told_ms)).max(0);
            let apart = rest / i64::try_from(left).unwrap_or(i64::MAX).max(1);
            if (0..apart).contains(&(now_ms - last)) {
                return Some(Held::Sparing);
            }
        }
        let usual = self.usual_fee()?;
        let share = |part: u64, whole: u64| WHOLE.min(part.saturating_mul(WHOLE) / whole.max(1));
        let by_time = share(u64::try_from(waited).unwrap_or(0), u64::try_from(patience).unwrap_or(1));
        let by_number = policy.verdicts.map_or(0, |n| share(backlog.pending(), n.saturating_mul(PRESSING)));
        let urgency = by_time.max(by_number);
        let most = u128::from(usual) * u128::from(WHOLE + urgency) / u128::from(WHOLE);
        (u128::from(gas.fee) > most).then_some(Held::Dear)
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
