use proptest::prelude::*;

use super::*;

const POLICY: AnchorPolicy = AnchorPolicy { verdicts: Some(100), interval_ms: Some(30_000) };
const PROMISE: Promise = Promise { delay_ms: 3_600_000, adapt: true };
const DAY_MS: i64 = 86_400_000;

fn gas(fee: u64) -> Gas {
    Gas { fee, within_ceiling: true, affordable: None, renews_in_ms: DAY_MS }
}

/// A pace that has seen an hour at 100 wei.
fn settled(promise: Promise) -> (Pace, i64) {
    let mut pace = Pace::new(promise);
    for i in 0..ENOUGH as i64 {
        pace.priced(gas(100), i * SAMPLE_MS);
    }
    (pace, ENOUGH as i64 * SAMPLE_MS)
}

fn waiting(since_ms: i64) -> Backlog {
    let mut backlog = Backlog::default();
    backlog.committed(10, since_ms);
    backlog
}

#[test]
fn dear_gas_is_waited_out_and_cheap_gas_used() {
    let (mut pace, now) = settled(PROMISE);
    let backlog = waiting(now);
    pace.priced(gas(150), now);
    assert_eq!(pace.holds(&backlog, POLICY, now + 60_000, false), Some(Held::Dear));
    assert_eq!(pace.holds(&backlog, POLICY, now + 60_000, true), None, "a stop does not wait for a bargain");
    pace.priced(gas(100), now + 60_000);
    assert_eq!(pace.holds(&backlog, POLICY, now + 60_000, false), None);
    // Half the patience gone: half as much again may be paid.
    let patience = pace.patience_ms().unwrap_or(0);
    pace.priced(gas(150), now + 60_000);
    assert_eq!(pace.holds(&backlog, POLICY, now + patience / 2, false), None);
    pace.priced(gas(10_000), now + 60_000);
    assert_eq!(pace.holds(&backlog, POLICY, now + patience - 1, false), Some(Held::Dear));
    assert_eq!(pace.holds(&backlog, POLICY, now + patience, false), None, "the promise counts more than the price");
}

#[test]
fn much_that_waits_may_cost_more() {
    let (mut pace, now) = settled(PROMISE);
    pace.priced(gas(190), now);
    let mut backlog = waiting(now);
    assert_eq!(pace.holds(&backlog, POLICY, now + 1, false), Some(Held::Dear));
    backlog.committed(100 * PRESSING, now);
    assert_eq!(pace.holds(&backlog, POLICY, now + 1, false), None);
}

#[test]
fn above_the_ceiling_and_without_money_nothing_goes() {
    for adapt in [false, true] {
        let (mut pace, now) = settled(Promise { adapt, ..PROMISE });
        let backlog = waiting(now);
        let late = now + 10 * PROMISE.delay_ms;
        pace.priced(Gas { within_ceiling: false, ..gas(1) }, now);
        assert_eq!(pace.holds(&backlog, POLICY, late, true), Some(Held::Ceiling));
        pace.priced(Gas { affordable: Some(0), ..gas(1) }, now);
        assert_eq!(pace.holds(&backlog, POLICY, late, true), Some(Held::Budget));
        pace.priced(Gas { affordable: Some(1), ..gas(1) }, now);
        assert_eq!(pace.holds(&backlog, POLICY, late, false), None);
        pace.anchored(late);
        assert_eq!(pace.holds(&backlog, POLICY, late, false), Some(Held::Budget), "before the next price is told");
    }
}

#[test]
fn who_does_not_adapt_is_held_by_the_limits_alone() {
    let (mut pace, now) = settled(Promise { adapt: false, ..PROMISE });
    pace.priced(gas(1_000_000), now);
    assert_eq!(pace.holds(&waiting(now), POLICY, now, false), None);
    assert!(!pace.presses(&waiting(now), now + DAY_MS));
    assert_eq!(Pace::default().holds(&waiting(now), POLICY, now, false), None);
}

/// One day, minute by minute, under a price that has a cheap night and a dear afternoon: what it costs, and how late it gets.
fn a_day(promise: Promise, budget: Option<u64>, price: impl Fn(i64) -> u64) -> (u64, u64, i64) {
    let (mut pace, start) = settled(promise);
    for i in 0..SAMPLES as i64 {
        pace.priced(gas(price(i * SAMPLE_MS)), start + i * SAMPLE_MS);
    }
    let start = start + SAMPLES as i64 * SAMPLE_MS;
    let (mut cost, mut count, mut latest) = (0, 0, 0);
    let mut backlog = Backlog::default();
    let mut left = budget;
    for minute in 0..1440 {
        let now = start + minute * 60_000;
        backlog.committed((minute as u64 + 1) * 50, now);
        pace.priced(
            Gas { affordable: left, renews_in_ms: DAY_MS - minute * 60_000, ..gas(price(minute * 60_000)) },
            now,
        );
        let due = backlog.due(POLICY, now, false) || pace.presses(&backlog, now);
        if due && pace.holds(&backlog, POLICY, now, false).is_none() {
            latest = latest.max(backlog.waited_ms(now));
            cost += price(minute * 60_000);
            count += 1;
            left = left.map(|n| n - 1);
            pace.anchored(now);
            backlog.anchored((minute as u64 + 1) * 50, now);
        }
    }
    (cost, count, latest.max(backlog.waited_ms(start + 1440 * 60_000)))
}

fn tide(ms: i64) -> u64 {
    // From 20 at midnight to 180 at noon, in straight lines.
    let minute = (ms / 60_000) % 1440;
    20 + 160 * (720 - (minute - 720).unsigned_abs()) / 720
}

#[test]
fn cheap_hours_are_used() {
    let (dear, often, _) = a_day(Promise { adapt: false, ..PROMISE }, None, tide);
    let (cheap, seldom, latest) = a_day(PROMISE, None, tide);
    assert!(cheap * 2 < dear && seldom < often, "{cheap} of {dear}, {seldom} of {often}");
    assert!(latest <= PROMISE.delay_ms);
}

#[test]
fn a_budget_lasts_the_day() {
    let (_, without, _) = a_day(PROMISE, None, |_| 100);
    let (_, count, latest) = a_day(PROMISE, Some(48), |_| 100);
    assert!(without > 500 && count > 40 && count <= 48, "{without} {count}");
    assert!(latest <= PROMISE.delay_ms, "{latest}");
}

proptest! {
    /// While there is money and gas is below the ceiling, nothing waits longer than the promise less the margin (and the minute
    /// between two looks), whatever gas costs and whatever gathers.
    #[test]
    fn never_later_than_promised(
        prices in prop::collection::vec(1u64..u64::MAX, 1..300),
        delay_ms in 120_000i64..10_000_000,
        backlogs in prop::collection::vec(0u64..100_000, 1..300),
    ) {
        let mut pace = Pace::new(Promise { delay_ms, adapt: true });
        let margin = (delay_ms / 3).min(120_000);
        let (mut backlog, mut size) = (Backlog::default(), 0);
        for (i, price) in prices.iter().enumerate() {
            let now = i as i64 * 30_000;
            size += backlogs[i % backlogs.len()];
            backlog.committed(size, now);
            pace.priced(Gas { affordable: Some(1_000_000), ..gas(*price) }, now);
            let due = backlog.due(POLICY, now, false) || pace.presses(&backlog, now);
            if due && pace.holds(&backlog, POLICY, now, false).is_none() {
                pace.anchored(now);
                backlog.anchored(size, now);
            }
            prop_assert!(backlog.waited_ms(now) <= delay_ms - margin + 30_000);
        }
    }

    /// The same history, the same decisions; a clock that jumps back breaks nothing.
    #[test]
    fn decisions_follow_from_the_history(
        events in prop::collection::vec((any::<u64>(), 0i64..1_000_000_000, any::<bool>(), prop::option::of(0u64..5)), 1..400),
    ) {
        let run = || {
            let mut pace = Pace::new(PROMISE);
            let mut said = Vec::new();
            for (fee, now, within_ceiling, affordable) in &events {
                pace.priced(Gas { fee: *fee, within_ceiling: *within_ceiling, affordable: *affordable, renews_in_ms: now % DAY_MS }, *now);
                let held = pace.holds(&waiting(now / 2), POLICY, *now, false);
                if held.is_none() {
                    pace.anchored(*now);
                }
                said.push(held);
            }
            said
        };
        prop_assert_eq!(run(), run());
    }
}
