//! Each machine by itself. That they hold together under faults, `engine/tests/simulation` shows.
#![allow(clippy::unwrap_used)]

use super::checkpoint::{self, Covered};
use super::invariants::{self, Fork, Shown, Violation};
use super::lane::{Ended, LOCK_RETRY_MS, LaneAction, LaneControl, LaneEvent, LaneState, TAILS_FINISH_MS};
use super::sink::{self, Delivery, Guarantee};
use super::{Backoff, Failure, Head, Stop, Timer, anchor, reload};
use crate::lane::Counters;

mod reloads;
mod sinks;

fn head(size: u64, root: u8) -> Head {
    Head { size, root: [root; 32] }
}

fn counters(rows_in: u64) -> Counters {
    Counters { rows_in, rows_used: rows_in, ..Counters::default() }
}

#[test]
fn clocks_that_jump_back_make_nothing_wait_for_ever() {
    let t = Timer::new(1_000, 100);
    assert!(!t.rung(1_099) && t.rung(1_100));
    assert!(t.rung(999), "a clock that shows less than at the start has jumped");
    let mut b = Backoff::new(200, 500);
    assert_eq!([b.pause_ms(), b.pause_ms(), b.pause_ms(), b.pause_ms()], [200, 400, 500, 500]);
    b.reset();
    assert_eq!(b.pause_ms(), 200);
}

mod lanes {
    use super::*;

    fn running() -> LaneControl {
        let mut lane = LaneControl::assigned();
        lane.on(LaneEvent::LockTaken { generation: 4 }, 0).unwrap();
        lane.on(LaneEvent::Restored, 0).unwrap();
        lane
    }

    #[test]
    fn waits_for_its_lock_then_restores() {
        let mut lane = LaneControl::assigned();
        assert_eq!(lane.action(0), LaneAction::TakeLock);
        lane.on(LaneEvent::LockBusy, 0).unwrap();
        assert_eq!(lane.action(1), LaneAction::WaitUntil(LOCK_RETRY_MS));
        assert_eq!(lane.action(LOCK_RETRY_MS), LaneAction::TakeLock);
        assert!(!lane.may_commit());
        lane.on(LaneEvent::LockTaken { generation: 7 }, 600).unwrap();
        assert_eq!(lane.action(600), LaneAction::Open { generation: 7 });
        assert!(!lane.may_commit());
        lane.on(LaneEvent::Restored, 600).unwrap();
        assert_eq!((lane.action(600), lane.may_commit(), lane.generation()), (LaneAction::Read, true, Some(7)));
    }

    fn close(lane: &mut LaneControl, flush: bool, ended: Ended) {
        assert!(matches!(lane.action(0), LaneAction::StopTails { flush: f, .. } if f == flush), "{:?}", lane.action(0));
        assert!(lane.on(LaneEvent::Released, 0).is_err(), "the lock is not let go while a sink may still write");
        lane.on(LaneEvent::TailsStopped, 0).unwrap();
        assert_eq!(lane.action(0), LaneAction::Release);
        lane.on(LaneEvent::Released, 0).unwrap();
        assert_eq!(lane.action(0), LaneAction::End(ended));
    }

    #[test]
    fn what_was_read_is_durable_before_a_lane_is_let_go() {
        for (event, flush, ended) in
            [(LaneEvent::Revoked, true, Ended::Revoked), (LaneEvent::Stop, true, Ended::Stopped)]
        {
            let mut lane = running();
            lane.on(event, 0).unwrap();
            assert_eq!(
                (lane.action(0), lane.state(), lane.may_commit()),
                (LaneAction::Drain, LaneState::Draining, true)
            );
            lane.on(LaneEvent::Drained, 0).unwrap();
            close(&mut lane, flush, ended);
        }
    }

    #[test]
    fn a_lost_lane_begins_no_checkpoint() {
        for (event, flush) in [(LaneEvent::Lost, false), (LaneEvent::Fenced, false), (LaneEvent::Failed, true)] {
            let mut lane = running();
            lane.on(event, 0).unwrap();
            assert!(!lane.may_commit());
            assert_eq!(lane.action(0), LaneAction::StopTails { flush, until_ms: None });
        }
        // One that was under way is left to the fence.
        let mut lane = running();
        lane.on(LaneEvent::Stop, 0).unwrap();
        lane.on(LaneEvent::Lost, 0).unwrap();
        lane.on(LaneEvent::Drained, 0).unwrap();
        close(&mut lane, false, Ended::Lost);
    }

    #[test]
    fn a_gentle_end_becomes_a_hard_one_but_not_back() {
        let mut lane = running();
        lane.on(LaneEvent::Stop, 0).unwrap();
        lane.on(LaneEvent::Drained, 0).unwrap();
        assert_eq!(lane.action(0), LaneAction::StopTails { flush: true, until_ms: None });
        lane.on(LaneEvent::Lost, 0).unwrap();
        assert_eq!(lane.action(0), LaneAction::StopTails { flush: false, until_ms: None });
        lane.on(LaneEvent::Stop, 0).unwrap();
        close(&mut lane, false, Ended::Lost);
    }

    #[test]
    fn an_outcome_of_nothing_is_refused() {
        let mut lane = running();
        assert!(matches!(lane.on(LaneEvent::Released, 0), Err(Violation::Unexpected { .. })));
        assert!(LaneControl::assigned().on(LaneEvent::Drained, 0).is_err());
        assert!(lane.on(LaneEvent::LockBusy, 0).is_err());
        assert!(lane.on(LaneEvent::TailsStopped, 0).is_err());
    }

    #[test]
    fn a_lock_taken_too_late_is_let_go() {
        let mut lane = LaneControl::assigned();
        lane.on(LaneEvent::Revoked, 0).unwrap();
        lane.on(LaneEvent::LockTaken { generation: 3 }, 0).unwrap();
        close(&mut lane, true, Ended::Revoked);
    }

    #[test]
    fn the_sinks_of_a_lane_that_moves_go_on_for_so_long() {
        let mut lane = running();
        lane.on(LaneEvent::Revoked, 1_000).unwrap();
        lane.on(LaneEvent::Drained, 3_000).unwrap();
        let until = 1_000 + TAILS_FINISH_MS;
        assert_eq!(lane.action(until - 1), LaneAction::StopTails { flush: true, until_ms: Some(until) });
        assert_eq!(lane.action(until), LaneAction::StopTails { flush: false, until_ms: None });
    }

    #[test]
    fn a_lane_whose_input_has_ended_rests_until_it_is_told() {
        let mut lane = running();
        lane.on(LaneEvent::Drained, 0).unwrap();
        assert_eq!((lane.action(0), lane.may_commit()), (LaneAction::Rest, false));
        lane.on(LaneEvent::Stop, 0).unwrap();
        close(&mut lane, true, Ended::Stopped);
    }

    #[test]
    fn a_lane_may_have_to_wait_before_it_is_opened() {
        let lane = LaneControl::assigned_after(10, 50);
        assert_eq!((lane.action(59), lane.action(60)), (LaneAction::WaitUntil(60), LaneAction::TakeLock));
    }
}

mod checkpoints {
    use super::*;
    use checkpoint::{Action, Checkpointer};

    fn covered(offset: i64, size: u64, root: u8) -> Covered {
        Covered { next_offset: offset, log: head(size, root), dead: 0 }
    }

    #[test]
    fn due_by_time_when_something_was_read_and_before_the_end() {
        let mut c = Checkpointer::restored(covered(5, 2, 1), false, 100, 1_000);
        assert_eq!(c.action(9_999, true), Action::ReadOn, "nothing was read");
        c.progressed();
        assert_eq!(c.action(1_099, false), Action::ReadOn);
        assert_eq!((c.action(1_099, true), c.action(1_100, false)), (Action::Begin, Action::Begin));
        assert_eq!(c.action(500, false), Action::Begin, "the clock jumped back");
        c.begin(covered(9, 3, 2), 3, &counters(9), 1_200).unwrap();
        assert_eq!(c.shown(), &covered(5, 2, 1), "nothing is shown before it is durable");
        assert_eq!(c.durable(&covered(9, 3, 2)).unwrap(), &covered(9, 3, 2));
        assert!(c.durable(&covered(9, 3, 2)).is_err());
    }

    #[test]
    fn a_lane_goes_on_while_one_is_made_until_the_next_is_due() {
        let mut c = Checkpointer::restored(covered(5, 2, 1), false, 100, 1_000);
        c.progressed();
        c.begin(covered(9, 3, 2), 3, &counters(9), 1_200).unwrap();
        assert_eq!((c.action(2_000, false), c.action(2_000, true)), (Action::ReadOn, Action::Settle));
        c.progressed();
        assert_eq!((c.action(1_299, false), c.action(1_300, false)), (Action::ReadOn, Action::Settle));
        assert_eq!(c.durable(&covered(9, 3, 2)).unwrap(), &covered(9, 3, 2));
        assert_eq!(c.action(1_299, false), Action::ReadOn);
        assert_eq!(c.action(1_300, false), Action::Begin, "rows that came meanwhile are not forgotten");
    }

    #[test]
    fn only_the_one_that_was_begun_can_stand() {
        let mut c = Checkpointer::restored(covered(5, 2, 1), false, 100, 0);
        c.progressed();
        c.begin(covered(9, 3, 2), 3, &counters(9), 0).unwrap();
        assert!(matches!(c.durable(&covered(9, 4, 3)), Err(Violation::Unexpected { .. })));
        assert_eq!(c.shown(), &covered(5, 2, 1));
    }

    #[test]
    fn a_first_one_is_due_at_once() {
        let c = Checkpointer::restored(Covered::default(), true, 60_000, 7);
        assert_eq!(c.action(7, false), Action::Begin);
    }

    #[test]
    fn a_lane_that_was_carried_over_reads_nothing_before_it_is_durable() {
        let mut c = Checkpointer::carried_over(covered(5, 2, 1), 60_000, 7);
        assert_eq!((c.action(7, false), c.is_at_boundary()), (Action::Begin, true));
        c.begin(covered(5, 2, 1), 2, &counters(5), 7).unwrap();
        assert_eq!((c.action(8, false), c.is_at_boundary()), (Action::Settle, true));
        c.durable(&covered(5, 2, 1)).unwrap();
        assert_eq!((c.action(8, false), c.is_at_boundary()), (Action::ReadOn, false));
    }

    #[test]
    fn after_a_failure_nothing_more_is_made_or_shown() {
        let mut c = Checkpointer::restored(covered(5, 2, 1), false, 100, 0);
        c.progressed();
        c.begin(covered(9, 3, 2), 3, &counters(9), 0).unwrap();
        c.failed();
        assert_eq!(c.action(1_000, true), Action::ReadOn);
        assert_eq!(c.shown(), &covered(5, 2, 1));
        assert!(c.durable(&covered(9, 3, 2)).is_err() && c.begin(covered(9, 3, 2), 3, &counters(9), 0).is_err());
    }

    #[test]
    fn an_imbalance_is_never_made_durable() {
        let mut c = Checkpointer::restored(covered(5, 2, 1), false, 100, 0);
        let lost = Counters { rows_in: 9, rows_used: 8, ..Counters::default() };
        assert!(matches!(c.begin(covered(9, 3, 2), 3, &lost, 0), Err(Violation::Rows { .. })));
        assert!(matches!(c.begin(covered(9, 3, 2), 4, &counters(9), 0), Err(Violation::Index { .. })));
        assert!(matches!(c.begin(covered(4, 3, 2), 3, &counters(9), 0), Err(Violation::GoesBack { .. })));
        assert!(matches!(c.begin(covered(9, 1, 2), 1, &counters(9), 0), Err(Violation::GoesBack { .. })));
        assert!(matches!(c.begin(covered(9, 2, 2), 2, &counters(9), 0), Err(Violation::Forked(_))));
        c.begin(covered(9, 2, 1), 2, &counters(9), 0).unwrap();
    }
}

mod anchors {
    use super::*;
    use crate::control::pace;
    use anchor::{
        Action, AnchorPolicy, Anchoring, Ended, LOOK_MS, Outcome, PAUSES_MS, Place, TICK_MS, place, taken_back,
    };

    const POLICY: AnchorPolicy = AnchorPolicy { verdicts: Some(5), interval_ms: Some(1_000) };

    fn tell(a: &mut Anchoring, outcome: Outcome) {
        a.on(a.ticket(), outcome, 0).unwrap();
    }

    fn watching() -> Anchoring {
        let mut a = Anchoring::new(POLICY);
        a.committed(0, head(4, 4), 0).unwrap();
        a.committed(1, head(9, 9), 0).unwrap();
        assert_eq!(a.action(0), Action::Connect);
        tell(&mut a, Outcome::Done);
        assert_eq!(a.action(0), Action::Look);
        a.seen(0, head(0, 0), 0);
        a.seen(1, head(2, 2), 0);
        tell(&mut a, Outcome::Done);
        a
    }

    #[test]
    fn anchors_what_is_due_from_the_chains_head() {
        let mut a = watching();
        assert_eq!(a.action(0), Action::Anchor { lane: 1, from: head(2, 2), to: head(9, 9) });
        tell(&mut a, Outcome::Anchored { lane: 1, head: head(9, 9) });
        assert_eq!(a.action(10), Action::WaitUntil(210));
        assert_eq!(a.action(1_000), Action::Anchor { lane: 0, from: head(0, 0), to: head(4, 4) });
        assert_eq!(a.action(LOOK_MS), Action::Look, "the head is read again before signing on an old one");
        a.stop(Stop::Flush);
        assert_eq!(a.action(10), Action::Anchor { lane: 0, from: head(0, 0), to: head(4, 4) });
        tell(&mut a, Outcome::Anchored { lane: 0, head: head(4, 4) });
        assert_eq!(a.action(10), Action::End(Ended::Stopped));
    }

    #[test]
    fn after_a_lost_answer_it_connects_and_looks() {
        let mut a = watching();
        let anchoring = a.ticket();
        tell(&mut a, Outcome::Failed(Failure::Unknown));
        assert_eq!(a.action(1), Action::WaitUntil(PAUSES_MS.0));
        a.on(anchoring, Outcome::Anchored { lane: 1, head: head(9, 9) }, 0).unwrap();
        assert_eq!(a.head(1), Some(head(2, 2)), "too late to be believed; the chain will say");
        assert_eq!(a.action(500), Action::Connect);
        tell(&mut a, Outcome::Done);
        assert_eq!(a.action(500), Action::Look);
    }

    #[test]
    fn a_reorganisation_makes_it_wait_again_and_a_shorter_log_waits() {
        let mut a = watching();
        a.seen(1, head(9, 9), 0);
        a.seen(0, head(4, 4), 0);
        assert!(matches!(a.action(0), Action::WaitUntil(_)));
        a.seen(1, head(2, 2), 10);
        assert_eq!(a.action(10), Action::Anchor { lane: 1, from: head(2, 2), to: head(9, 9) });
        // The chain is ahead of a log that fell back: nothing to anchor, nothing to flush.
        a.seen(1, head(20, 20), 10);
        assert!(matches!(a.action(10), Action::WaitUntil(_)));
        assert_eq!(a.backlog(1).unwrap().pending(), 0);
    }

    #[test]
    fn a_log_that_fell_back_regrows_before_it_is_anchored() {
        let mut a = watching();
        a.seen(0, head(4, 4), 0);
        assert!(a.committed(1, head(7, 7), 0).is_err(), "not without its store being opened anew");
        a.fell_back(1, head(2, 2));
        assert!(matches!(a.action(2_000), Action::WaitUntil(_)), "the chain has as much");
        a.committed(1, head(8, 8), 0).unwrap();
        assert_eq!(a.action(2_000), Action::Anchor { lane: 1, from: head(2, 2), to: head(8, 8) });
    }

    #[test]
    fn a_lane_that_cannot_be_read_holds_no_other_up() {
        let mut a = watching();
        tell(&mut a, Outcome::Unreadable { lane: 1 });
        a.stop(Stop::Flush);
        assert_eq!(a.action(1), Action::Anchor { lane: 0, from: head(0, 0), to: head(4, 4) });
        tell(&mut a, Outcome::Anchored { lane: 0, head: head(4, 4) });
        assert!(matches!(a.action(1), Action::WaitUntil(_)));
        assert_eq!(a.action(TICK_MS), Action::Anchor { lane: 1, from: head(2, 2), to: head(9, 9) });
    }

    fn costs(within_ceiling: bool, affordable: u64) -> pace::Gas {
        pace::Gas { fee: 1, within_ceiling, affordable: Some(affordable), renews_in_ms: 1 }
    }

    #[test]
    fn what_cannot_be_paid_for_waits_and_goes_together() {
        let mut a = watching();
        a.seen(0, head(4, 4), 0);
        a.priced(costs(false, 9), 0);
        assert!(matches!(a.action(0), Action::WaitUntil(_)));
        assert_eq!((a.held(1, 0), a.held(0, 0)), (Some(pace::Held::Ceiling), None), "what is not due is not held");
        a.priced(costs(true, 0), 10);
        assert_eq!(a.held(1, 10), Some(pace::Held::Budget));
        a.stop(Stop::Flush);
        assert!(matches!(a.action(10), Action::WaitUntil(_)), "a gentle stop does not spend what there is not");
        a.committed(1, head(30, 30), 20).unwrap();
        a.priced(costs(true, 1), 30);
        assert_eq!(a.action(30), Action::Anchor { lane: 1, from: head(2, 2), to: head(30, 30) }, "all in one");
        tell(&mut a, Outcome::Anchored { lane: 1, head: head(30, 30) });
        a.committed(1, head(31, 31), 40).unwrap();
        assert!(matches!(a.action(40), Action::WaitUntil(_)), "it was the last that could be paid for");
        a.stop(Stop::Now);
        assert_eq!(a.action(40), Action::End(Ended::Stopped));
    }

    #[test]
    fn one_that_became_too_dear_is_tried_after_the_next_look_and_holds_no_other_up() {
        let mut a = watching();
        tell(&mut a, Outcome::Deferred { lane: 1 });
        assert_eq!(a.retry_at_ms(), None, "no failure: it stays connected");
        assert_eq!(a.action(1_000), Action::Anchor { lane: 0, from: head(0, 0), to: head(4, 4) });
        tell(&mut a, Outcome::Anchored { lane: 0, head: head(4, 4) });
        assert!(matches!(a.action(LOOK_MS - 1), Action::WaitUntil(_)));
        assert_eq!(a.action(LOOK_MS), Action::Look);
        a.on(a.ticket(), Outcome::Done, LOOK_MS).unwrap();
        assert_eq!(a.action(LOOK_MS), Action::Anchor { lane: 1, from: head(2, 2), to: head(9, 9) });
    }

    #[test]
    fn the_promise_is_kept_where_only_the_number_makes_due() {
        let policy = AnchorPolicy { verdicts: Some(1_000), interval_ms: None };
        let adapting = |adapt| {
            let mut a = Anchoring::new(policy).paced(pace::Promise { delay_ms: 3_000, adapt });
            a.committed(0, head(4, 4), 0).unwrap();
            tell(&mut a, Outcome::Done);
            a.seen(0, head(0, 0), 0);
            tell(&mut a, Outcome::Done);
            a.action(2_000)
        };
        assert_eq!(adapting(true), Action::Anchor { lane: 0, from: head(0, 0), to: head(4, 4) });
        assert!(matches!(adapting(false), Action::WaitUntil(_)), "as it is written, and no sooner");
    }

    #[test]
    fn lanes_come_and_go() {
        let mut a = watching();
        a.forget(1);
        assert!(matches!(a.action(0), Action::WaitUntil(_)));
        a.committed(2, head(9, 7), 0).unwrap();
        assert_eq!(a.action(0), Action::Connect, "its log may have to be registered, its head is never remembered");
        assert!(a.committed(2, head(8, 7), 0).is_err());
        assert!(a.committed(2, head(9, 8), 0).is_err());
        a.stop(Stop::Now);
        assert_eq!(a.action(0), Action::End(Ended::Stopped));
    }

    #[test]
    fn the_chain_alone_says_where_a_checkpoint_stands() {
        let (old, new) = (head(4, 4), head(9, 9));
        assert_eq!(place(&old, &new, &head(4, 4), None), Ok(Place::Next));
        assert_eq!(place(&old, &new, &head(9, 9), None), Ok(Place::There));
        assert_eq!(place(&old, &new, &head(12, 12), Some(&[9; 32])), Ok(Place::There));
        assert_eq!(place(&old, &new, &head(12, 12), None), Ok(Place::Elsewhere));
        assert_eq!(place(&old, &new, &head(2, 2), None), Ok(Place::Elsewhere));
        assert!(place(&old, &new, &head(4, 5), None).is_err());
        assert!(place(&old, &new, &head(9, 5), None).is_err());
        assert!(place(&old, &new, &head(12, 12), Some(&[5; 32])).is_err());
        assert_eq!(taken_back(&new, &head(4, 4)), Ok(true));
        assert_eq!(taken_back(&new, &head(9, 9)), Ok(false));
        assert_eq!(taken_back(&new, &head(12, 1)), Ok(false));
        assert!(taken_back(&new, &head(9, 1)).is_err());
    }
}

#[test]
fn what_was_shown_is_neither_truncated_nor_changed() {
    let mut shown = Shown::default();
    let at = |root: u8| move |_| Ok::<_, Violation>([root; 32]);
    shown.show(head(5, 1), at(0)).unwrap();
    assert!(matches!(shown.show(head(4, 1), at(1)), Err(Violation::Truncated { shown: 5, now: 4 })));
    assert!(matches!(shown.show(head(5, 2), at(1)), Err(Violation::Forked(Fork { size: 5, .. }))));
    assert!(matches!(shown.show(head(8, 2), at(7)), Err(Violation::Forked(Fork { size: 5, .. }))));
    assert_eq!(shown.most(), Some(head(5, 1)));
    shown.show(head(8, 2), at(1)).unwrap();
}

#[test]
fn invariants_say_what_is_wrong() {
    assert!(invariants::only_durable("a delivery", 5, 5).is_ok() && invariants::one_writer(3, 3).is_ok());
    let chain = head(4, 4);
    invariants::anchor_extends(&chain, &chain, &head(9, 9), 9).unwrap();
    let said = [
        invariants::only_durable("a delivery", 6, 5).unwrap_err(),
        invariants::one_writer(3, 4).unwrap_err(),
        invariants::batch_in_order(4, 5, 9).unwrap_err(),
        invariants::batch_in_order(4, 4, 3).unwrap_err(),
        invariants::anchor_extends(&chain, &head(3, 3), &head(9, 9), 9).unwrap_err(),
        invariants::anchor_extends(&chain, &chain, &head(4, 4), 9).unwrap_err(),
        invariants::anchor_extends(&chain, &chain, &head(9, 9), 8).unwrap_err(),
        invariants::rows_conserved(&Counters { rows_in: 3, rows_used: 1, ..Counters::default() }).unwrap_err(),
    ];
    let said: Vec<String> = said.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(said.join("\n"), @r"
    a delivery would reach 6, but a durable checkpoint covers only 5
    generation 3 of this lane's writer is over: generation 4 has begun
    a delivery is out of order: expected from 4 on, got 5 up to 9
    a delivery is out of order: expected from 4 on, got 4 up to 3
    an anchor from 3 to 9 does not extend the anchored log of 4
    an anchor from 4 to 4 does not extend the anchored log of 4
    an anchor would reach 9, but a durable checkpoint covers only 8
    rows are not conserved: 3 came in, but 1 were used and 0 died; nothing was written, please report this
    ");
}
