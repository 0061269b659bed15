//! A lane that goes on under another pipeline: what did not change goes on as if nothing had happened, what did begins anew and
//! is said, and all of it is a function of the records and the place of the change.

#![allow(clippy::unwrap_used)]

mod fleet;

use std::collections::BTreeSet;
use std::sync::Arc;

use avouch_engine::decode::RawRecord;
use avouch_engine::event::LaneEvent;
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::migrate::{DropReason, DroppedState};
use avouch_engine::plan::LanePlan;
use avouch_engine::replay::Replay;
use avouch_engine::spec::{DecideSpec, LaneSpec, ScoreStepSpec, SqlStepSpec, WindowSpec};
use avouch_engine::verdict::VerdictRecord;
use fleet::{SumModel, T0, row, secret};

/// A row step that remembers, windows on it and windows beside it.
fn first() -> LaneSpec {
    let mut spec = fleet::spec();
    spec.source.max_disorder_ms = 500;
    let step = |name: &str, from: &str, sql: &str, window| SqlStepSpec {
        name: name.into(),
        from: from.into(),
        sql: sql.into(),
        window,
    };
    spec.sql.push(step("changes", "readings", "SELECT *, delta(x) AS d, lag(x, 3) AS l FROM readings", None));
    spec.sql.push(step(
        "slow",
        "changes",
        "SELECT device, sum(d) AS d, avg(l) AS l FROM changes GROUP BY device",
        Some(WindowSpec::Sliding { size_ms: 3_000, every_ms: 1_000 }),
    ));
    let features: Vec<String> = vec!["d".into(), "l".into()];
    spec.scores.push(ScoreStepSpec {
        name: "drift".into(),
        from: "slow".into(),
        model: Arc::new(SumModel(features.clone())),
        features,
        ..spec.scores[0].clone()
    });
    spec
}

fn plan(change: impl FnOnce(&mut LaneSpec)) -> Arc<LanePlan> {
    let mut spec = first();
    change(&mut spec);
    Arc::new(LanePlan::new(&spec).unwrap())
}

fn second(change: impl FnOnce(&mut LaneSpec)) -> Arc<LanePlan> {
    plan(|s| {
        s.config_hash = [2; 32];
        change(s);
    })
}

/// Four devices, each a row every 100 ms, out of order: some so late that all their windows are closed, some for one step only.
fn rows() -> Vec<String> {
    let mut state = 7u64;
    (0..1_200i64)
        .map(|i| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let late = match state >> 60 {
                0 => 4_000,
                1 => 1_700,
                _ => (state >> 54) as i64 % 450,
            };
            let device = ["a", "b", "c", "d"][(i % 4) as usize];
            row(device, T0 + i * 25 - late, ((state >> 40) % 1_000) as f64 / 8.0)
        })
        .collect()
}

fn records(rows: &[String], from: usize) -> Vec<RawRecord<'_>> {
    let mut out = Vec::new();
    for (value, offset) in rows.iter().zip(from as i64..) {
        let value = Some(value.as_bytes());
        out.push(RawRecord { offset, timestamp: T0 + 60_000, key: None, value, origin: None, signature: None });
    }
    out
}

/// Runs `before` up to the record `at` and `after` from there, in steps of `cut` records, restored after each if asked.
fn run(before: &Arc<LanePlan>, after: Option<&Arc<LanePlan>>, at: usize, cut: usize, restore: bool) -> (Lane, Output) {
    let rows = rows();
    let mut lane = Lane::new(before.clone(), 0, secret());
    let mut out = Output::default();
    let mut plan = before.clone();
    let step = |lane: &mut Lane, plan: &Arc<LanePlan>, from: usize, to: usize, out: &mut Output| {
        for from in (from..to).step_by(cut) {
            let to = to.min(from + cut);
            lane.step(&records(&rows[from..to], from), out).unwrap();
            assert!(lane.counters().balanced());
            if restore {
                *lane = Lane::restore(plan.clone(), 0, secret(), &lane.snapshot()).unwrap();
            }
        }
    };
    step(&mut lane, &plan, 0, at, &mut out);
    if let Some(after) = after {
        let snapshot = lane.snapshot();
        assert!(matches!(Lane::restore(after.clone(), 0, secret(), &snapshot), Err(LaneError::OtherPipeline { .. })));
        let (counters, watermark) = (*lane.counters(), lane.watermark());
        lane = Lane::migrate(after.clone(), 0, secret(), &snapshot, &mut out).unwrap();
        assert_eq!((lane.counters(), lane.watermark()), (&counters, watermark), "rows and time go on");
        plan = after.clone();
    }
    step(&mut lane, &plan, at, rows.len(), &mut out);
    (lane, out)
}

fn dropped(out: &Output) -> Vec<(String, DropReason)> {
    let [LaneEvent::Pipeline { from, to, dropped, .. }] = out.events.as_slice() else { panic!("{:?}", out.events) };
    assert_eq!((from, to), (&[1; 32], &[2; 32]));
    assert!(dropped.iter().all(|d: &DroppedState| d.held.devices > 0));
    dropped.iter().map(|d| (d.step.clone(), d.why)).collect()
}

/// Everything a run gave, as bytes: a feature may be NaN, which is not equal to itself.
fn given(out: &Output) -> [Vec<Vec<u8>>; 3] {
    [
        out.verdicts.iter().map(|v| v.to_bytes()).collect(),
        out.dead.iter().map(|d| d.to_bytes()).collect(),
        out.events.iter().map(|e| e.to_bytes()).collect(),
    ]
}

/// A verdict without what the pipeline's hash and thresholds decide.
fn judged(v: &VerdictRecord) -> (u64, u64, [u8; 32], Vec<u8>) {
    (v.index, v.verdict.seq, v.verdict.input_digest, v.evidence.to_bytes())
}

fn no_table(_: &str, _: &[u8; 32]) -> Result<std::sync::Arc<avouch_engine::reference::Reference>, LaneError> {
    unreachable!("there are no references")
}

#[test]
fn with_other_thresholds_all_goes_on_as_in_an_unbroken_run() {
    let before = plan(|_| {});
    let after = second(|s| s.scores[0].decide = DecideSpec::p_values(Some(0.9), None));
    let (_, unbroken) = run(&before, None, 0, 1_200, false);
    for at in [0, 1, 333, 700, 1_199, 1_200] {
        let (lane, out) = run(&before, Some(&after), at, 1_200, false);
        assert!(dropped(&out).is_empty());
        let as_before: Vec<_> = unbroken.verdicts.iter().map(judged).collect();
        assert_eq!(out.verdicts.iter().map(judged).collect::<Vec<_>>(), as_before, "changed at {at}");
        assert_eq!(out.dead, unbroken.dead);
        // The hashes divide the log in two.
        let turn = out.verdicts.iter().position(|v| v.verdict.config_hash == [2; 32]).unwrap_or(out.verdicts.len());
        assert!(out.verdicts[..turn].iter().all(|v| v.verdict.config_hash == [1; 32]));
        assert!(out.verdicts[turn..].iter().all(|v| v.verdict.config_hash == [2; 32]));
        assert_eq!(lane.next_index(), unbroken.verdicts.len() as u64);
    }
    assert!(unbroken.verdicts.len() > 150 && unbroken.dead.len() > 10);
}

#[test]
fn the_same_bytes_however_it_is_cut_and_restored() {
    let before = plan(|_| {});
    let after = second(|s| {
        s.sql[0].sql = "SELECT device, max(x) AS m FROM readings GROUP BY device".into();
        s.source.max_disorder_ms = 900;
    });
    for at in [1, 500, 1_111] {
        let (whole, expected) = run(&before, Some(&after), at, 1_200, false);
        assert_eq!(dropped(&expected), [("features".into(), DropReason::Changed)]);
        for (cut, restore) in [(1, false), (7, true), (100, true), (1, true)] {
            let (lane, out) = run(&before, Some(&after), at, cut, restore);
            assert!(given(&out) == given(&expected), "changed at {at}, cut by {cut}");
            assert_eq!(lane.snapshot().bytes, whole.snapshot().bytes);
        }
    }
}

#[test]
fn what_changed_and_what_reads_it_is_dropped_and_the_rest_is_not() {
    let before = plan(|_| {});
    let all = |change: fn(&mut LaneSpec)| dropped(&run(&before, Some(&second(change)), 600, 1_200, false).1);
    let pair = |step: &str, why| (step.to_owned(), why);
    // A row step, and with it the windows that read it; not those beside it.
    assert_eq!(
        all(|s| s.sql[1].sql = "SELECT *, delta(x) AS d, lag(x, 2) AS l FROM readings".into()),
        [pair("changes", DropReason::Changed), pair("slow", DropReason::Upstream)]
    );
    // A window's length.
    assert_eq!(
        all(|s| s.sql[2].window = Some(WindowSpec::Tumbling { size_ms: 3_000 })),
        [pair("slow", DropReason::Changed)]
    );
    // A step that is gone, with its model.
    assert_eq!(
        all(|s| {
            s.sql.pop();
            s.scores.pop();
        }),
        [pair("slow", DropReason::Removed)]
    );
    // A field of the source: rows are other rows now, and digests are over all of a row.
    assert_eq!(
        all(|s| {
            let extra = s.source.fields[2].clone();
            s.source.fields.push(avouch_engine::spec::FieldSpec { name: "y".into(), ..extra });
        }),
        [
            pair("changes", DropReason::Upstream),
            pair("features", DropReason::Upstream),
            pair("slow", DropReason::Upstream)
        ]
    );
    // How late rows may be, and for how long devices are remembered, are no part of any step.
    let none = all(|s| {
        s.source.max_disorder_ms = 2_000;
        s.source.device_ttl_ms = Some(3_600_000);
    });
    assert!(none.is_empty());
}

#[test]
fn no_window_of_a_step_is_judged_twice() {
    let before = plan(|_| {});
    for disorder in [0, 500, 3_000] {
        let after = second(|s| {
            s.source.max_disorder_ms = disorder;
            s.sql[0].sql = "SELECT device, min(x) AS m FROM readings GROUP BY device".into();
            s.sql[1].sql = "SELECT *, delta(x) AS d, lag(x, 1) AS l FROM readings".into();
        });
        for at in (0..1_200).step_by(37) {
            let (_, out) = run(&before, Some(&after), at, 1_200, false);
            let mut seen = BTreeSet::new();
            for v in &out.verdicts {
                let window = (v.evidence.step.to_string(), v.evidence.device.clone(), v.verdict.window_end);
                assert!(seen.insert(window.clone()), "{window:?} twice, changed at {at}");
            }
        }
    }
}

#[test]
fn a_recorded_change_is_taken_again_by_the_pipeline_it_names_and_by_no_other() {
    let (before, after) = (plan(|_| {}), second(|s| s.scores[0].decide = DecideSpec::p_values(Some(0.5), None)));
    let (_, out) = run(&before, Some(&after), 600, 1_200, false);
    let rows = rows();
    let mut replay = Replay::new(out.events.clone());
    let mut lane = Lane::new(before, 0, secret());
    let mut again = Output::default();
    let next = records(&rows, 0);
    let n = replay.before(&next).unwrap();
    assert_eq!(n, 600);
    lane.step(&next[..n], &mut again).unwrap();
    // The pipeline before cannot go on, and says with which one to.
    let error = replay.give(&mut lane, no_table, &mut again).unwrap_err();
    assert!(matches!(&error, LaneError::NextPipeline { after_offset: 599, to } if to.starts_with("0202")), "{error}");
    assert_eq!(replay.next_change(lane.last_offset()), Some((&[1; 32], &[2; 32])));
    let mut lane = Lane::migrate(after, 0, secret(), &lane.snapshot(), &mut again).unwrap();
    replay.changed();
    assert!(replay.is_empty());
    lane.step(&next[n..], &mut again).unwrap();
    assert!(given(&again) == given(&out));
}

#[test]
fn a_damaged_snapshot_is_refused_and_never_a_panic() {
    let after = second(|s| s.sql[1].sql = "SELECT *, delta(x) AS d, lag(x, 2) AS l FROM readings".into());
    let rows = rows();
    let mut lane = Lane::new(plan(|_| {}), 0, secret());
    lane.step(&records(&rows[..200], 0), &mut Output::default()).unwrap();
    let bytes = lane.snapshot().bytes;
    for at in 0..bytes.len() {
        let mut out = Output::default();
        assert!(Lane::migrate(after.clone(), 0, secret(), &bytes[..at], &mut out).is_err());
        let mut changed = bytes.clone();
        changed[at] ^= 0x41;
        let _ = Lane::migrate(after.clone(), 0, secret(), &changed, &mut out);
    }
}
