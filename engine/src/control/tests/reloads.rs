//! Versions of the pipeline: their numbers, lanes that have another one, and the order of a reload.

use super::*;
use reload::{
    Carrying, HELD_FOR_MS, Numbering, OPENED_WITHIN_MS, Opening, ReloadAction as A, ReloadControl, ReloadEvent as E,
    Version, Versions, begins, carrying, claims, opening,
};

const fn version(number: u64, config: u8) -> Version {
    Version { number, config: [config; 32] }
}

fn list(configs: &[u8]) -> Versions {
    configs.iter().zip(0..).map(|(c, n)| (n, [*c; 32])).collect()
}

#[test]
fn a_start_takes_a_number_only_where_it_may() {
    let put = |number, over| Numbering::Put { number, over };
    assert_eq!(begins(&list(&[]), &[1; 32], true, false), put(0, None), "the first of all");
    assert_eq!(begins(&list(&[1, 2]), &[2; 32], true, false), Numbering::Has(1));
    assert_eq!(begins(&list(&[1, 2]), &[1; 32], true, false), Numbering::Refused(version(1, 2)), "an older file");
    assert_eq!(begins(&list(&[1, 2]), &[1; 32], true, true), put(2, Some(version(1, 2))));
    assert_eq!(begins(&list(&[1]), &[3; 32], false, false), put(1, None), "there are no lanes yet");
}

#[test]
fn processes_that_are_reloaded_at_different_moments_agree() {
    let put = |number| Numbering::Put { number, over: None };
    // One process goes over to b; another one, told later, finds that it did.
    assert_eq!(claims(&list(&[1]), &version(0, 1), &[2; 32]), put(1));
    assert_eq!(claims(&list(&[1, 2]), &version(0, 1), &[2; 32]), Numbering::Has(1));
    // The first one goes on to c. A third one that is told of b only now stays behind it.
    assert_eq!(claims(&list(&[1, 2, 3]), &version(0, 1), &[2; 32]), Numbering::Has(1));
    // Back to a is a new version, not the old one.
    assert_eq!(claims(&list(&[1, 2, 3]), &version(2, 3), &[1; 32]), put(3));
    // Of several with one pipeline the newest: lanes of those between would be left alone otherwise.
    assert_eq!(claims(&list(&[1, 2, 3, 2, 4]), &version(0, 1), &[2; 32]), Numbering::Has(3));
    // A process whose turn has not come is told to reload the file that it has: nothing goes back.
    assert_eq!(claims(&list(&[1, 2]), &version(0, 1), &[1; 32]), Numbering::Has(0));
}

#[test]
fn a_lane_never_goes_back_by_itself() {
    assert_eq!(opening(None, &version(3, 1)), Opening::New);
    assert_eq!(opening(Some(&version(1, 1)), &version(3, 1)), Opening::Restore { number: 3 });
    assert_eq!(opening(Some(&version(5, 1)), &version(3, 1)), Opening::Restore { number: 5 });
    assert_eq!(opening(Some(&version(1, 1)), &version(3, 2)), Opening::CarryOver);
    assert_eq!(opening(Some(&version(4, 1)), &version(3, 2)), Opening::Newer);
    assert_eq!(opening(Some(&version(3, 1)), &version(3, 2)), Opening::Conflict);
}

#[test]
fn what_was_shown_is_made_again_by_the_version_that_made_it() {
    let [a, b, c] = [[1; 32], [2; 32], [3; 32]];
    assert_eq!(carrying(None, &a, &b, false), Carrying::First);
    assert_eq!(carrying(None, &a, &b, true), Carrying::Shown);
    assert_eq!(carrying(Some((&a, &b)), &a, &b, true), Carrying::Again);
    assert_eq!(carrying(Some((&a, &c)), &a, &b, true), Carrying::Other(c));
}

fn held(now: i64) -> ReloadControl {
    let mut r = ReloadControl::default();
    assert_eq!((r.action(now), r.listens()), (A::Listen, true));
    r.on(E::Asked, now).unwrap();
    assert_eq!((r.action(now), r.listens()), (A::Prepare, false));
    r.on(E::Prepared, now).unwrap();
    r
}

#[test]
fn lanes_change_only_when_all_of_them_stand_still() {
    let mut r = held(5);
    assert_eq!(r.action(4 + HELD_FOR_MS), A::Hold { number: 1 });
    assert!(r.on(E::Changed, 6).is_err() && r.on(E::Asked, 6).is_err());
    r.on(E::Still, 6).unwrap();
    assert_eq!(r.action(7), A::Change);
    r.on(E::Changed, 7).unwrap();
    assert_eq!(r.action(8), A::AwaitOpened);
    r.on(E::Opened, 8).unwrap();
    assert_eq!(r.action(8), A::Applied { everywhere: true });
    r.on(E::Said, 8).unwrap();
    assert_eq!(r.action(8), A::Listen);
}

#[test]
fn a_store_that_does_not_answer_gives_it_up_and_the_next_hold_is_another() {
    let mut r = held(0);
    assert_eq!(r.action(HELD_FOR_MS), A::GiveUp);
    r.on(E::GaveUp, HELD_FOR_MS).unwrap();
    r.on(E::Asked, HELD_FOR_MS).unwrap();
    r.on(E::Refused, HELD_FOR_MS).unwrap();
    assert_eq!(r.action(HELD_FOR_MS), A::Listen);
    r.on(E::Asked, HELD_FOR_MS).unwrap();
    r.on(E::Prepared, HELD_FOR_MS).unwrap();
    assert_eq!(r.action(HELD_FOR_MS), A::Hold { number: 2 });
}

#[test]
fn a_lane_that_waits_for_another_process_holds_up_neither_the_word_nor_the_next_file() {
    let opening = || {
        let mut r = held(0);
        r.on(E::Still, 0).unwrap();
        r.on(E::Changed, 0).unwrap();
        r
    };
    assert_eq!(opening().action(OPENED_WITHIN_MS), A::Applied { everywhere: false });
    let mut r = opening();
    assert!(r.listens());
    r.on(E::Said, 1).unwrap();
    r.on(E::Asked, 1).unwrap();
    assert_eq!(r.action(1), A::Prepare);
}

#[test]
fn a_process_that_ends_changes_nothing_any_more() {
    let mut r = held(0);
    r.on(E::Stop, 1).unwrap();
    r.on(E::Still, 2).unwrap();
    assert_eq!((r.action(HELD_FOR_MS), r.listens()), (A::Nothing, false));
}
