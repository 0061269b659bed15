//! Delivery.

use super::*;
use sink::{ALL, Action, Ended, Gather, Outcome};

fn tell(d: &mut Delivery, outcome: Outcome) {
    d.on(d.ticket(), outcome, 0).unwrap();
}

fn opened(cursor: Option<u64>) -> Outcome {
    Outcome::Opened { cursor, noted: cursor.is_some(), saved: 0, announced: None }
}

fn write(from: u64, upto: u64) -> Action {
    Action::Write { from, upto, most: ALL, whole: false }
}

fn ready(durable: u64, at: u64) -> Delivery {
    let mut d = Delivery::new(Guarantee::Transactional, durable, 0);
    tell(&mut d, opened(Some(at)));
    tell(&mut d, Outcome::Note { same: true });
    d
}

fn take(d: &mut Delivery, next: u64) {
    tell(d, Outcome::Acked { next });
    assert_eq!(d.action(0), Action::SaveCursor { next });
    tell(d, Outcome::CursorSaved);
}

#[test]
fn writes_what_is_durable_from_the_cursor_on() {
    let mut d = Delivery::new(Guarantee::Transactional, 10, 0);
    assert_eq!(d.action(0), Action::Open);
    tell(&mut d, opened(Some(4)));
    d.refresh_every(Some(1_000));
    assert_eq!(d.action(0), Action::CheckNote { at: 4 });
    tell(&mut d, Outcome::Note { same: true });
    assert_eq!(d.action(0), write(4, 10));
    take(&mut d, 7);
    assert_eq!(d.action(0), write(7, 10));
    take(&mut d, 10);
    assert_eq!(d.action(0), Action::Wait { until_ms: Some(1_000) });
    assert_eq!(d.action(1_000), Action::Refresh { at: 10 });
    d.refresh_every(None);
    assert_eq!(d.action(1_000), Action::Wait { until_ms: None }, "nothing there would be forgotten");
    d.committed(12, 0).unwrap();
    assert_eq!(d.action(0), write(10, 12));
    assert!(d.committed(11, 0).is_err());
    d.stop(Stop::Flush);
    assert_eq!(d.action(0), write(10, 12));
    take(&mut d, 12);
    assert_eq!(d.action(0), Action::End(Ended::Stopped { short: false }));
}

#[test]
fn after_a_lost_answer_the_cursor_is_read_before_anything_is_written() {
    let mut d = ready(10, 4);
    let write = d.ticket();
    tell(&mut d, Outcome::Failed(Failure::Unknown));
    assert_eq!(d.action(0), Action::Pause { until_ms: 200 });
    // The answer comes after all: too late to be believed, the cursor will say.
    d.on(write, Outcome::Acked { next: 10 }, 0).unwrap();
    assert_eq!(d.action(200), Action::Open);
    tell(&mut d, opened(Some(10)));
    tell(&mut d, Outcome::Note { same: true });
    assert!(matches!(d.action(200), Action::Wait { .. }), "it had been committed");
}

#[test]
fn an_answer_that_comes_twice_counts_once() {
    let mut d = ready(10, 4);
    let ticket = d.ticket();
    d.on(ticket, Outcome::Acked { next: 6 }, 0).unwrap();
    d.on(ticket, Outcome::Acked { next: 6 }, 0).unwrap();
    tell(&mut d, Outcome::CursorSaved);
    d.on(ticket, Outcome::Acked { next: 6 }, 0).unwrap();
    assert_eq!(d.action(0), write(6, 10));
}

#[test]
fn a_cursor_never_moves_back_or_ahead_of_what_is_durable() {
    let mut d = ready(10, 4);
    assert!(d.on(d.ticket(), Outcome::Acked { next: 3 }, 0).is_err());
    assert!(d.on(d.ticket(), Outcome::Acked { next: 11 }, 0).is_err());
}

#[test]
fn pauses_grow_until_something_is_acknowledged() {
    let mut d = Delivery::new(Guarantee::Plain, 10, 0);
    for pause in [200, 400, 800] {
        tell(&mut d, Outcome::Failed(Failure::Unknown));
        assert_eq!((d.action(0), d.retry_at_ms()), (Action::Pause { until_ms: pause }, Some(pause)));
    }
    tell(&mut d, Outcome::Opened { cursor: Some(3), noted: false, saved: 3, announced: None });
    take(&mut d, 10);
    assert_eq!(d.action(0), Action::Wait { until_ms: None });
    tell(&mut d, Outcome::Failed(Failure::Unknown));
    assert_eq!(d.action(0), Action::Pause { until_ms: 200 });
    d.stop(Stop::Flush);
    assert_eq!(d.action(0), Action::Open, "told to finish, it tries once more");
    tell(&mut d, Outcome::Failed(Failure::Unknown));
    assert_eq!(d.action(0), Action::End(Ended::Stopped { short: true }));
}

#[test]
fn a_pause_is_shortened_by_chance_and_as_long_as_the_sink_asked() {
    let mut d = Delivery::new(Guarantee::Plain, 10, 0);
    let down = |asked_ms, shorter_permille| Outcome::Down { asked_ms, shorter_permille };
    tell(&mut d, down(None, 500));
    assert_eq!(d.action(0), Action::Pause { until_ms: 100 });
    tell(&mut d, down(Some(120_000), 250));
    assert_eq!(d.action(0), Action::Pause { until_ms: 120_000 });
    for due in [800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000] {
        tell(&mut d, down(Some(0), 0));
        assert_eq!(d.action(0), Action::Pause { until_ms: due });
    }
}

#[test]
fn another_logs_cursor_and_a_forgotten_one_end_it() {
    let mut d = Delivery::new(Guarantee::Transactional, 10, 0);
    tell(&mut d, opened(Some(4)));
    tell(&mut d, Outcome::Note { same: false });
    assert_eq!(d.action(0), Action::End(Ended::OtherLog { at: 4 }));

    let mut d = Delivery::new(Guarantee::Transactional, 10, 0);
    tell(&mut d, Outcome::Opened { cursor: None, noted: false, saved: 6, announced: None });
    assert_eq!(d.action(0), Action::End(Ended::Forgotten { delivered: 6 }));

    let mut d = ready(10, 4);
    tell(&mut d, Outcome::Failed(Failure::Fenced));
    assert_eq!(d.action(0), Action::End(Ended::Fenced));
}

#[test]
fn a_cursor_ahead_of_the_log_waits_for_it_to_regrow() {
    let mut d = Delivery::new(Guarantee::Transactional, 3, 0);
    tell(&mut d, opened(Some(5)));
    assert_eq!(d.action(0), Action::Wait { until_ms: None });
    let mut told = d.clone();
    told.stop(Stop::Flush);
    assert_eq!(told.action(0), Action::End(Ended::NotRegrown { at: 5 }));
    d.committed(5, 0).unwrap();
    assert_eq!(d.action(0), Action::CheckNote { at: 5 });
}

fn refused(first: u64, offered: u64, next: u64) -> Outcome {
    Outcome::Refused { first, offered, among: None, next }
}

#[test]
fn a_refused_record_is_found_and_set_aside_in_its_place() {
    let mut d = ready(10, 4);
    tell(&mut d, refused(4, 6, 10));
    assert_eq!(d.action(0), Action::Write { from: 4, upto: 10, most: 3, whole: false });
    tell(&mut d, refused(4, 3, 7));
    assert_eq!(d.action(0), Action::Write { from: 4, upto: 10, most: 1, whole: false });
    // Nothing at 4 is this sink's.
    tell(&mut d, refused(5, 1, 6));
    assert_eq!(d.action(0), Action::SetAside { from: 4, index: 5 });
    assert!(d.clone().on(d.ticket(), Outcome::Acked { next: 5 }, 0).is_err(), "it has to be passed");
    take(&mut d, 6);
    assert_eq!(d.action(0), Action::Write { from: 6, upto: 10, most: 1, whole: false });
    take(&mut d, 7);
    assert_eq!(d.action(0), Action::Write { from: 7, upto: 10, most: 2, whole: false });
    take(&mut d, 10);
    d.committed(20, 0).unwrap();
    assert_eq!(d.action(0), write(10, 20), "past where they were suspected all are offered again");
    assert!(d.on(d.ticket(), refused(9, 1, 11), 0).is_err());
    assert!(d.on(d.ticket(), refused(20, 1, 21), 0).is_err());
}

/// Offers as the machine says to a sink that takes all of a batch or says which may be the refused ones.
fn offer(count: u64, bad: &[u64], names: impl Fn(u64, u64) -> Option<(u64, u64)>) -> (Vec<u64>, usize) {
    let mut d = ready(count, 0);
    let (mut aside, mut offers) = (Vec::new(), 0);
    loop {
        match d.action(0) {
            Action::Write { from, upto, most, .. } => {
                offers += 1;
                let next = upto.min(from.saturating_add(most));
                if bad.iter().any(|b| (from..next).contains(b)) {
                    let among = names(from, next);
                    tell(&mut d, Outcome::Refused { first: from, offered: next - from, among, next });
                } else {
                    take(&mut d, next);
                }
            }
            Action::SetAside { index, .. } => {
                aside.push(index);
                take(&mut d, index + 1);
            }
            _ => return (aside, offers),
        }
    }
}

#[test]
fn what_is_refused_is_found_whatever_the_sink_says_of_it() {
    let bad = [3, 4, 57, 999];
    let named = |from: u64, next: u64| {
        let of: Vec<u64> = bad.iter().filter(|b| (from..next).contains(b)).map(|b| b - from).collect();
        Some((of[0], of[of.len() - 1] + 1))
    };
    let (unnamed, offers) = offer(1_000, &bad, |_, _| None);
    assert_eq!(unnamed, bad);
    let (found, fewer) = offer(1_000, &bad, named);
    assert_eq!(found, bad);
    assert!(fewer < offers && offers < 64, "{fewer} and {offers} offers");
    // Even what it says wrongly.
    for wrong in [(0, 0), (5, 6), (0, 5_000), (4_000, 5_000)] {
        assert_eq!(offer(1_000, &bad, |_, _| Some(wrong)).0, bad);
    }
    let all: Vec<u64> = (0..20).collect();
    assert_eq!(offer(20, &all, |_, _| None).0, all);
}

fn archive(durable: u64, cursor: Option<u64>, announced: Option<u64>) -> Delivery {
    let mut d = Delivery::new(Guarantee::Announced, durable, 0);
    tell(&mut d, Outcome::Opened { cursor, noted: false, saved: 0, announced });
    d
}

#[test]
fn a_range_that_was_announced_is_written_whole_and_no_other() {
    let mut d = archive(10, None, None);
    assert_eq!(d.action(0), Action::Announce { from: 0, upto: 10 });
    assert!(d.on(d.ticket(), Outcome::Announced { until: 0 }, 0).is_err(), "nothing is no range");
    assert!(d.on(d.ticket(), Outcome::Announced { until: 11 }, 0).is_err());
    tell(&mut d, Outcome::Announced { until: 8 });
    let whole = Action::Write { from: 0, upto: 8, most: ALL, whole: true };
    d.committed(12, 0).unwrap();
    assert_eq!(d.action(0), whole);
    for less_or_more in [0, 7, 9] {
        assert!(d.on(d.ticket(), Outcome::Acked { next: less_or_more }, 0).is_err());
    }
    assert!(d.on(d.ticket(), refused(0, 1, 1), 0).is_err());
    tell(&mut d, Outcome::Failed(Failure::Unknown));
    tell(&mut d, Outcome::Opened { cursor: Some(0), noted: false, saved: 0, announced: Some(8) });
    assert_eq!(d.action(200), whole);
    take(&mut d, 8);
    assert_eq!(d.action(0), Action::Announce { from: 8, upto: 12 });
}

#[test]
fn a_log_shorter_than_what_was_announced_regrows_first() {
    let mut d = archive(5, Some(2), Some(8));
    assert_eq!(d.action(0), Action::Wait { until_ms: None });
    let mut told = d.clone();
    told.stop(Stop::Flush);
    assert_eq!(told.action(0), Action::End(Ended::NotRegrown { at: 2 }));
    d.committed(9, 0).unwrap();
    assert_eq!(d.action(0), Action::Write { from: 2, upto: 8, most: ALL, whole: true });
}

#[test]
fn a_sink_that_gathers_waits_for_enough_or_for_so_long() {
    let mut d = archive(0, None, None);
    d.gather(Some(Gather { enough: 10, longest_ms: 100 }));
    assert_eq!(d.action(0), Action::Wait { until_ms: None });
    d.committed(4, 50).unwrap();
    d.committed(6, 90).unwrap();
    assert_eq!(d.action(149), Action::Wait { until_ms: Some(150) }, "since the first of them came");
    assert_eq!(d.action(150), Action::Announce { from: 0, upto: 6 });
    assert_eq!(d.action(20), Action::Announce { from: 0, upto: 6 }, "the clock jumped back");
    let mut told = d.clone();
    told.stop(Stop::Flush);
    assert_eq!(told.action(60), Action::Announce { from: 0, upto: 6 });
    d.committed(10, 95).unwrap();
    assert_eq!(d.action(96), Action::Announce { from: 0, upto: 10 });
    d.on(d.ticket(), Outcome::Announced { until: 8 }, 96).unwrap();
    d.on(d.ticket(), Outcome::Acked { next: 8 }, 97).unwrap();
    d.on(d.ticket(), Outcome::CursorSaved, 98).unwrap();
    assert_eq!(d.action(98), Action::Wait { until_ms: Some(198) }, "the rest waits anew");
}

#[test]
fn one_that_has_nothing_to_deliver_yet_may_stay_closed() {
    let mut d = Delivery::new(Guarantee::Plain, 0, 0).lazy();
    assert_eq!(d.action(0), Action::Wait { until_ms: None });
    let mut told = d.clone();
    told.stop(Stop::Flush);
    assert_eq!(told.action(0), Action::End(Ended::Stopped { short: false }));
    d.committed(1, 0).unwrap();
    assert_eq!(d.action(0), Action::Open);
    tell(&mut d, Outcome::Opened { cursor: Some(0), noted: false, saved: 0, announced: None });
    take(&mut d, 1);
    // The sink whose refusals it delivers was opened at an earlier cursor, and comes by this one again.
    d.rewound(0);
    assert_eq!(d.action(0), Action::Wait { until_ms: None });
    d.committed(2, 0).unwrap();
    assert_eq!(d.action(0), write(1, 2));
}

#[test]
fn told_to_stop_at_once_it_still_remembers_what_was_acknowledged() {
    let mut d = ready(10, 4);
    d.stop(Stop::Now);
    assert_eq!(d.action(0), Action::End(Ended::Stopped { short: true }));
    tell(&mut d, Outcome::Acked { next: 6 });
    assert_eq!(d.action(0), Action::SaveCursor { next: 6 });
    d.stop(Stop::Flush);
    tell(&mut d, Outcome::CursorSaved);
    assert_eq!(d.action(0), Action::End(Ended::Stopped { short: true }));
}
