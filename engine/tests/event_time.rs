//! Event time across a fleet: whose clock may move it, and what time does where no rows come.

#![allow(clippy::unwrap_used)]

mod fleet;

use avouch_engine::dead_letter::DeadReason;
use avouch_engine::event::{LaneEvent, Tick};
use avouch_engine::lane::{Lane, LaneError, Output};
use fleet::{Fleet, T0, row};

/// One reading a second from each of five healthy devices, and one device whose clock is `ahead` milliseconds ahead.
fn with_a_fast_clock(max_future_ms: i64, ahead: i64) -> (Lane, Output) {
    let mut fleet = Fleet::new(|spec| {
        spec.source.max_disorder_ms = 5_000;
        spec.source.max_future_ms = max_future_ms;
    });
    for second in 0..120 {
        let broker = T0 + second * 1_000;
        fleet.send(broker, &row("fast", broker + ahead, 1.0));
        for d in 0..5 {
            fleet.send(broker, &row(&format!("healthy-{d}"), broker - d * 900, 1.0));
        }
    }
    fleet.into_parts()
}

#[test]
fn one_fast_clock_never_makes_the_fleet_late() {
    // From a little over what is allowed to years: refused.
    for ahead in [60_001, 600_000, 86_400_000, 3_650 * 86_400_000] {
        let (lane, out) = with_a_fast_clock(60_000, ahead);
        assert!(out.dead.iter().all(|d| d.reason == DeadReason::Future), "ahead {ahead}");
        assert_eq!(out.dead.len(), 120, "all of the fast one's rows, and no other");
        let c = lane.counters();
        assert_eq!((c.rows_in, c.rows_used, c.dead[DeadReason::Late.index()]), (720, 600, 0));
        assert_eq!(lane.watermark(), Some(T0 + 119_000 - 5_000), "the fast clock did not move time");
        assert!(out.verdicts.iter().all(|v| v.evidence.device.starts_with("healthy")));
    }
    // Within what is allowed: taken, but time follows the broker.
    for ahead in [1, 4_999, 5_001, 30_000, 60_000] {
        let (lane, out) = with_a_fast_clock(60_000, ahead);
        assert!(out.dead.is_empty(), "ahead {ahead}: {:?}", out.dead[0]);
        assert_eq!(lane.counters().rows_used, 720);
        assert_eq!(lane.watermark(), Some(T0 + 119_000 - 5_000));
    }
}

#[test]
fn the_brokers_timestamp_is_the_judge() {
    // LogAppendTime: the broker's clock. An old reading sent late is judged by when it arrived.
    let mut fleet = Fleet::new(|spec| spec.source.max_future_ms = 1_000);
    assert!(fleet.send(T0 + 10_000, &row("a", T0, 1.0)).dead.is_empty());
    // CreateTime: the producer's clock stands in the record. A producer that is fast in both passes, and moves time:
    // the timestamp is not the broker's then, and the check compares the device with itself.
    let both_fast = T0 + 86_400_000;
    assert!(fleet.send(both_fast, &row("b", both_fast, 1.0)).dead.is_empty());
    assert_eq!(fleet.send(T0 + 11_000, &row("a", T0 + 11_000, 1.0)).dead[0].reason, DeadReason::Late);
    // The same device under LogAppendTime is refused, and nobody else is harmed.
    let mut fleet = Fleet::new(|spec| spec.source.max_future_ms = 1_000);
    fleet.send(T0 + 10_000, &row("a", T0, 1.0));
    assert_eq!(fleet.send(T0 + 10_500, &row("b", both_fast, 1.0)).dead[0].reason, DeadReason::Future);
    assert!(fleet.send(T0 + 11_000, &row("a", T0 + 11_000, 1.0)).dead.is_empty());
}

#[test]
fn a_tick_closes_windows_and_makes_rows_behind_it_late() {
    let mut fleet = Fleet::new(|_| {});
    fleet.send(T0, &row("a", T0, 1.0));
    fleet.send(T0, &row("b", T0 + 200, 2.0));
    assert!(fleet.out.verdicts.is_empty());
    let due = fleet.lane.next_due().unwrap();
    assert_eq!(due, T0 + 1_000);
    let out = fleet.tick(due).unwrap();
    let who: Vec<&str> = out.verdicts.iter().map(|v| v.evidence.device.as_str()).collect();
    assert_eq!(who, ["a", "b"]);
    assert_eq!(out.events, [LaneEvent::Tick(Tick { after_offset: 1, watermark_ms: due })]);
    assert_eq!(fleet.lane.counters().ticks, 1);
    assert_eq!(fleet.lane.next_due(), None);
    assert_eq!(fleet.send(T0, &row("a", T0 + 999, 1.0)).dead[0].reason, DeadReason::Late);
    assert!(fleet.send(T0, &row("a", T0 + 1_000, 1.0)).dead.is_empty());
}

#[test]
fn a_tick_out_of_place_is_refused_and_changes_nothing() {
    let mut fleet = Fleet::new(|_| {});
    assert!(matches!(fleet.tick(T0), Err(LaneError::EventOutOfPlace { .. })), "no row yet, no time to go on from");
    fleet.send(T0, &row("a", T0, 1.0));
    let before = fleet.lane.snapshot();
    let mut out = Output::default();
    for tick in [
        Tick { after_offset: 1, watermark_ms: T0 + 5_000 },
        Tick { after_offset: -1, watermark_ms: T0 + 5_000 },
        Tick { after_offset: 0, watermark_ms: T0 },
        Tick { after_offset: 0, watermark_ms: T0 - 1 },
    ] {
        assert!(matches!(fleet.lane.tick(tick, &mut out), Err(LaneError::EventOutOfPlace { .. })), "{tick:?}");
    }
    assert!(out.verdicts.is_empty() && out.events.is_empty());
    assert_eq!(fleet.lane.snapshot(), before);
}
