//! Online models: what they remember of a device is part of the lane, and nothing but the lane's input changes it.

#![allow(clippy::unwrap_used)]

mod fleet;

use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::decide::Comparison;
use avouch_engine::decode::RawRecord;
use avouch_engine::event::LaneEvent;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::migrate::DropReason;
use avouch_engine::model::{Finding, Interval, Memory, Says, Score, Scorer};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{DecideSpec, LaneSpec, Quantity, Threshold};
use avouch_engine::verdict::{Evidence, Hash32, Severity, class};
use fleet::{Fleet, T0, row, secret};
use proptest::prelude::*;

/// The score is the distance from the mean of what the device showed before.
#[derive(Debug)]
struct RunningMean(Hash32, Vec<String>);

#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    n: u64,
    sum: f64,
}

impl Memory for Mean {
    fn score(&mut self, _end: i64, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        if x[0].is_nan() {
            expected.fill(f64::NAN);
            contributions.fill(f64::NAN);
            return Score::NONE;
        }
        expected[0] = if self.n == 0 { x[0] } else { self.sum / self.n as f64 };
        contributions[0] = (x[0] - expected[0]).abs();
        (self.n, self.sum) = (self.n + 1, self.sum + x[0]);
        Score::anomaly(contributions[0], 1.0 / (1.0 + contributions[0]))
    }

    fn write(&self, w: &mut Writer) {
        w.u64(self.n);
        w.f64(self.sum);
    }

    fn copy(&self) -> Box<dyn Memory> {
        Box::new(*self)
    }
}

impl Scorer for RunningMean {
    fn hash(&self) -> Hash32 {
        self.0
    }
    fn features(&self) -> &[String] {
        &self.1
    }
    fn score(&self, _device: &str, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        Mean::default().score(0, x, expected, contributions)
    }
    fn smallest_p_value(&self) -> f64 {
        0.0
    }
    fn memory(&self, _device: &str) -> Option<Box<dyn Memory>> {
        Some(Box::new(Mean::default()))
    }
    fn read_memory(&self, _device: &str, r: &mut Reader<'_>) -> Result<Box<dyn Memory>, CodecError> {
        let (n, sum) = (r.u64()?, r.f64()?);
        if n == 0 || !sum.is_finite() {
            return Err(r.invalid("a mean of nothing"));
        }
        Ok(Box::new(Mean { n, sum }))
    }
}

fn online(spec: &mut LaneSpec) {
    let features = spec.scores[0].features.clone();
    spec.scores[0].model = Arc::new(RunningMean([9; 32], features));
}

fn plan() -> Arc<LanePlan> {
    let mut spec = fleet::spec();
    online(&mut spec);
    Arc::new(LanePlan::new(&spec).unwrap())
}

fn rows(values: &[(u8, f64)]) -> Vec<String> {
    let row = |(i, (device, x)): (usize, &(u8, f64))| row(&format!("d{device}"), T0 + i as i64 * 137, *x);
    values.iter().enumerate().map(row).collect()
}

fn run(plan: &Arc<LanePlan>, rows: &[String], cuts: &[usize], restore: bool) -> (Lane, Output) {
    let mut lane = Lane::new(plan.clone(), 0, secret());
    let (mut out, mut from) = (Output::default(), 0);
    for to in cuts.iter().copied().chain([rows.len()]) {
        let records: Vec<RawRecord<'_>> = (from..to)
            .map(|i| RawRecord {
                offset: i as i64,
                timestamp: T0 + 3_600_000,
                key: None,
                value: Some(rows[i].as_bytes()),
                origin: None,
                signature: None,
            })
            .collect();
        lane.step(&records, &mut out).unwrap();
        from = to;
        if restore {
            let snapshot = lane.snapshot();
            lane = Lane::restore(plan.clone(), 0, secret(), &snapshot).unwrap();
            assert_eq!(lane.snapshot(), snapshot);
        }
    }
    (lane, out)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cuts_and_restarts_leave_no_trace(
        values in prop::collection::vec((0u8..4, -100.0f64..100.0), 1..200),
        cuts in prop::collection::vec(0usize..200, 0..12),
    ) {
        let rows = rows(&values);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(rows.len())).collect();
        cuts.sort_unstable();
        let plan = plan();
        let (whole, expected) = run(&plan, &rows, &[], false);
        for restore in [false, true] {
            let (lane, out) = run(&plan, &rows, &cuts, restore);
            prop_assert_eq!(&out.verdicts, &expected.verdicts);
            prop_assert_eq!(lane.snapshot(), whole.snapshot());
        }
    }
}

#[test]
fn a_device_is_compared_with_its_own_past() {
    let mut fleet = Fleet::new(online);
    for (i, x) in [10.0, 10.0, 10.0, 40.0].into_iter().enumerate() {
        fleet.send(T0 + 60_000, &row("a", T0 + 1_000 * i as i64, x));
        fleet.send(T0 + 60_000, &row("b", T0 + 1_000 * i as i64, 2.0));
    }
    fleet.tick(T0 + 60_000).unwrap();
    let scores = |device: &str| -> Vec<f64> {
        fleet.out.verdicts.iter().filter(|v| v.evidence.device == device).map(|v| v.evidence.score).collect()
    };
    assert_eq!((scores("a"), scores("b")), (vec![0.0, 0.0, 0.0, 30.0], vec![0.0; 4]));
}

#[test]
fn a_window_that_cannot_be_scored_leaves_the_memory_fit() {
    let mut fleet = Fleet::new(online);
    fleet.send(T0 + 60_000, &row("a", T0, 10.0));
    fleet.send(T0 + 60_000, &format!("{{\"device\":\"a\",\"ts\":{},\"x\":null}}", T0 + 1_000));
    fleet.send(T0 + 60_000, &row("a", T0 + 2_000, 11.0));
    fleet.tick(T0 + 60_000).unwrap();
    fleet.restart();
    let got: Vec<(u16, f64)> = fleet.out.verdicts.iter().map(|v| (v.verdict.class, v.evidence.score)).collect();
    assert_eq!(got[0], (class::NORMAL, 0.0));
    assert_eq!(got[1].0, class::NOT_A_NUMBER);
    assert_eq!(got[2].1, 1.0);
}

#[test]
fn early_results_do_not_teach() {
    let with = |early: bool| {
        let mut spec = fleet::spec();
        online(&mut spec);
        let mut plan = LanePlan::new(&spec).unwrap();
        if early {
            plan = plan.with_early("features", 200).unwrap();
        }
        let rows: Vec<(u8, f64)> = (0..60).map(|i| (i % 2, f64::from(i))).collect();
        run(&Arc::new(plan), &self::rows(&rows), &[], false).1
    };
    let (plain, looked) = (with(false), with(true));
    assert!(looked.early.len() > 10);
    assert_eq!(plain.verdicts, looked.verdicts);
}

#[test]
fn what_is_remembered_goes_with_the_device() {
    let mut fleet = Fleet::new(|s| {
        online(s);
        s.source.device_ttl_ms = Some(8_000);
    });
    fleet.send(T0 + 600_000, &row("a", T0, 10.0));
    fleet.send(T0 + 600_000, &row("b", T0 + 60_000, 1.0));
    fleet.send(T0 + 600_000, &row("a", T0 + 60_000, 90.0));
    fleet.tick(T0 + 70_000).unwrap();
    fleet.restart();
    let a: Vec<f64> =
        fleet.out.verdicts.iter().filter(|v| v.evidence.device == "a").map(|v| v.evidence.score).collect();
    assert_eq!(a, [0.0, 0.0], "the device that came back is a new one");
}

#[test]
fn another_model_begins_anew_and_says_so() {
    let rows = rows(&(0..40).map(|i| (i % 3, f64::from(i))).collect::<Vec<_>>());
    let (lane, _) = run(&plan(), &rows, &[], false);
    let with = |hash: u8, warning: f64| {
        let mut spec = fleet::spec();
        online(&mut spec);
        spec.config_hash = [2; 32];
        spec.scores[0].model = Arc::new(RunningMean([hash; 32], spec.scores[0].features.clone()));
        spec.scores[0].decide = DecideSpec::p_values(Some(warning), None);
        Arc::new(LanePlan::new(&spec).unwrap())
    };
    let dropped = |plan: &Arc<LanePlan>| {
        let mut out = Output::default();
        let lane = Lane::migrate(plan.clone(), 0, secret(), &lane.snapshot(), &mut out).unwrap();
        assert!(Lane::restore(plan.clone(), 0, secret(), &lane.snapshot()).is_ok());
        let [LaneEvent::Pipeline { dropped, .. }] = out.events.as_slice() else { panic!("{:?}", out.events) };
        dropped.iter().map(|d| (d.step.clone(), d.why, d.held.devices)).collect::<Vec<_>>()
    };
    assert_eq!(dropped(&with(9, 0.5)), [], "thresholds are no state");
    assert_eq!(dropped(&with(8, 0.1)), [("anomaly".to_owned(), DropReason::Changed, 3)]);
}

#[test]
fn a_memory_that_the_model_would_not_write_is_refused() {
    let plan = plan();
    let (lane, _) = run(
        &plan,
        &rows(&[(0, 3.0), (0, 4.0), (0, 5.0), (0, 6.0), (0, 7.0), (0, 8.0), (0, 9.0), (0, 1.0), (0, 1.0)]),
        &[],
        false,
    );
    let mut snapshot = lane.snapshot();
    // Behind the memory stand the number of steps with incidents, and whether devices are counted.
    let at = snapshot.bytes.len() - 16 - 4 - 1;
    snapshot.bytes[at..at + 8].fill(0);
    let said = Lane::restore(plan, 0, secret(), &snapshot).unwrap_err().to_string();
    assert!(said.contains("a mean of nothing"), "{said}");
}

/// Half the sum of the features, give or take as much.
#[derive(Debug)]
struct Life(Vec<String>);

impl Scorer for Life {
    fn hash(&self) -> Hash32 {
        [3; 32]
    }
    fn features(&self) -> &[String] {
        &self.0
    }
    fn says(&self) -> Says {
        Says::Estimate
    }
    fn score(&self, _device: &str, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        expected.fill(f64::NAN);
        contributions.copy_from_slice(x);
        let finding = (x[0] == 77.0).then_some(Finding::Saturated);
        let interval = Some(Interval { lower: x[0] / 2.0, upper: 2.0 * x[0] });
        Score { finding, ..Score::estimate(x[0], interval) }
    }
    fn smallest_p_value(&self) -> f64 {
        1.0
    }
}

#[test]
fn estimates_are_judged_by_their_interval_which_is_in_the_evidence() {
    let below = |limit| Some(Threshold { quantity: Quantity::Lower, comparison: Comparison::Below, limit });
    let mut fleet = Fleet::new(|s| {
        s.scores[0].model = Arc::new(Life(s.scores[0].features.clone()));
        s.scores[0].decide = DecideSpec { warning: below(50.0), critical: below(5.0), incident_ms: None };
    });
    for (i, x) in [200.0, 60.0, 8.0, 77.0].into_iter().enumerate() {
        fleet.send(T0 + 60_000, &row("a", T0 + 1_000 * i as i64, x));
    }
    fleet.tick(T0 + 60_000).unwrap();
    let got: Vec<(u16, u8)> = fleet.out.verdicts.iter().map(|v| (v.verdict.class, v.verdict.severity)).collect();
    let (warning, critical) = (Severity::Warning.code(), Severity::Critical.code());
    assert_eq!(
        got,
        [
            (class::NORMAL, 0),
            (class::FAILURE_EXPECTED, warning),
            (class::FAILURE_EXPECTED, critical),
            (class::SATURATED, warning)
        ]
    );
    let evidence = &fleet.out.verdicts[1].evidence;
    assert_eq!(evidence.interval, Some(Interval { lower: 30.0, upper: 120.0 }));
    let again = Evidence::from_bytes(&evidence.to_bytes()).unwrap();
    assert_eq!((again.interval, again.hash()), (evidence.interval, fleet.out.verdicts[1].verdict.evidence_hash));
}

#[test]
fn alarms_close_in_time_are_one_incident_named_by_its_first_verdict() {
    let mut fleet = Fleet::new(|s| {
        online(s);
        // The score is a distance: any from 1 on is an alarm.
        s.scores[0].decide = DecideSpec { incident_ms: Some(2_000), ..DecideSpec::p_values(Some(0.5), None) };
    });
    let values = [0.0, 50.0, 0.0, 50.0, 0.0, 50.0, 50.0];
    let times = [0, 1, 2, 3, 4, 30, 31];
    for (i, (x, t)) in values.into_iter().zip(times).enumerate() {
        fleet.send(T0 + 600_000, &row("a", T0 + 1_000 * t, x));
        fleet.send(T0 + 600_000, &row("b", T0 + 1_000 * t, 0.0));
        if i % 2 == 0 {
            fleet.restart();
        }
    }
    fleet.tick(T0 + 60_000).unwrap();
    let got: Vec<(u64, Option<u64>)> = (fleet.out.verdicts.iter())
        .filter(|v| v.evidence.device == "a")
        .map(|v| (v.index, v.evidence.incident))
        .collect();
    let first = got[1].0;
    let expected: Vec<Option<u64>> =
        [None, Some(first), Some(first), Some(first), Some(first), Some(got[5].0), Some(got[5].0)].into();
    assert_eq!(got.iter().map(|(_, i)| *i).collect::<Vec<_>>(), expected);
    assert!(fleet.out.verdicts.iter().filter(|v| v.evidence.device == "b").all(|v| v.evidence.incident.is_none()));
    let one = &fleet.out.verdicts.iter().find(|v| v.evidence.incident.is_some()).unwrap().evidence;
    assert_eq!(Evidence::from_bytes(&one.to_bytes()).unwrap(), *one);
}
