//! A time to live takes memory away and nothing else: with windows of every kind, the same windows close with the same
//! rows and values, and each device's `seq` goes on without a gap, as if no device were ever forgotten.

#![allow(clippy::unwrap_used)]

mod fleet;

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_engine::decode::RawRecord;
use avouch_engine::event::{LaneEvent, Tick};
use avouch_engine::lane::{Lane, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{ScoreStepSpec, SqlStepSpec, WindowSpec};
use avouch_engine::verdict::{Evidence, VerdictRecord};
use fleet::{SumModel, T0, row, secret};
use proptest::prelude::*;

/// As short as the longest window allows.
const TTL: i64 = 6_000;

fn plan(ttl: Option<i64>) -> Arc<LanePlan> {
    let mut spec = fleet::spec();
    spec.source.max_disorder_ms = 2_000;
    spec.source.device_ttl_ms = ttl;
    let features: Vec<String> = ["m", "c", "md"].map(str::to_owned).to_vec();
    let model = Arc::new(SumModel(features.clone()));
    let score = &spec.scores[0].decide;
    let (mut sql, mut scores) = (Vec::new(), Vec::new());
    for (name, window) in [
        ("tumbling", WindowSpec::Tumbling { size_ms: 3_000 }),
        ("sliding", WindowSpec::Sliding { size_ms: 5_000, every_ms: 2_000 }),
        ("session", WindowSpec::Session { gap_ms: 1_500, max_ms: 6_000 }),
    ] {
        sql.push(SqlStepSpec {
            name: name.into(),
            from: "readings".into(),
            // A sum in words, a median over rows that are kept; some rows do not get there.
            sql:
                "SELECT device, sum(x) AS m, count(*) AS c, median(x) AS md FROM readings WHERE x > -40 GROUP BY device"
                    .into(),
            window: Some(window),
        });
        scores.push(ScoreStepSpec {
            name: format!("of_{name}"),
            from: name.into(),
            model: model.clone(),
            features: features.clone(),
            decide: *score,
        });
    }
    (spec.sql, spec.scores) = (sql, scores);
    Arc::new(LanePlan::new(&spec).unwrap())
}

#[derive(Debug, Clone)]
enum Input {
    Row { device: u8, jitter: i64, x: f64, gap: i64 },
    Tick { ahead: i64 },
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let gap = prop_oneof![20 => 0i64..900, 2 => 4_000i64..9_000, 1 => 20_000i64..90_000];
    let row = (0u8..6, -3_500i64..500, -60.0f64..60.0, gap).prop_map(|(device, jitter, x, gap)| Input::Row {
        device,
        jitter,
        x,
        gap,
    });
    let tick = (1i64..20_000).prop_map(|ahead| Input::Tick { ahead });
    proptest::collection::vec(prop_oneof![15 => row, 1 => tick], 1..160)
}

struct Left {
    out: Output,
    lane: Lane,
}

/// `cuts`: before which inputs a batch ends; then the lane is restarted if `restore`.
fn run(plan: &Arc<LanePlan>, inputs: &[Input], cuts: &[usize], restore: bool) -> Left {
    let mut lane = Lane::new(plan.clone(), 0, secret());
    let mut out = Output::default();
    let mut waiting: Vec<(i64, i64, String)> = Vec::new();
    let (mut now, mut offset) = (T0, 0);
    let flush = |lane: &mut Lane, waiting: &mut Vec<(i64, i64, String)>, out: &mut Output| {
        let records: Vec<RawRecord<'_>> = waiting
            .iter()
            .map(|(offset, at, v)| RawRecord {
                offset: *offset,
                timestamp: *at,
                key: None,
                value: Some(v.as_bytes()),
                origin: None,
                signature: None,
            })
            .collect();
        lane.step(&records, out).unwrap();
        drop(records);
        waiting.clear();
    };
    for (i, input) in inputs.iter().enumerate() {
        if cuts.contains(&i) {
            flush(&mut lane, &mut waiting, &mut out);
            if restore {
                let snapshot = lane.snapshot();
                lane = Lane::restore(plan.clone(), 0, secret(), &snapshot).unwrap();
                assert_eq!(lane.snapshot(), snapshot, "restored and written again");
            }
        }
        match input {
            Input::Row { device, jitter, x, gap } => {
                now += gap;
                waiting.push((offset, now, row(&format!("d{device}"), now + jitter, *x)));
                offset += 1;
            }
            Input::Tick { ahead } => {
                flush(&mut lane, &mut waiting, &mut out);
                let Some(watermark) = lane.watermark() else { continue };
                now = now.max(watermark + ahead);
                lane.tick(Tick { after_offset: lane.last_offset(), watermark_ms: watermark + ahead }, &mut out)
                    .unwrap();
            }
        }
    }
    flush(&mut lane, &mut waiting, &mut out);
    if let Some(watermark) = lane.watermark() {
        let tick = Tick { after_offset: lane.last_offset(), watermark_ms: watermark + 10_000 };
        lane.tick(tick, &mut out).unwrap();
    }
    assert!(lane.counters().balanced());
    Left { out, lane }
}

/// What a verdict says, without its place in the log: devices that come back are judged after others.
fn said(v: &VerdictRecord) -> (String, u64, u64, u64, Vec<u8>, [u8; 32]) {
    let (d, e) = (&v.verdict, Evidence { salt: [0; 32], ..v.evidence.clone() });
    (e.step.to_string(), d.window_start, d.window_end, d.seq, e.to_bytes(), d.input_digest)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn forgetting_changes_no_window_and_no_seq(
        inputs in inputs(),
        cuts in proptest::collection::vec(0usize..160, 0..12),
    ) {
        let kept = run(&plan(None), &inputs, &[], false);
        let forgetful = plan(Some(TTL));
        let whole = run(&forgetful, &inputs, &[], false);

        let sorted = |out: &Output| {
            let mut all: Vec<_> = out.verdicts.iter().map(said).collect();
            all.sort();
            all
        };
        prop_assert_eq!(sorted(&whole.out), sorted(&kept.out));
        prop_assert_eq!(&whole.out.dead, &kept.out.dead);
        let mut seq: BTreeMap<[u8; 32], u64> = BTreeMap::new();
        for v in &whole.out.verdicts {
            let next = seq.entry(v.verdict.device_id).or_default();
            prop_assert_eq!(v.verdict.seq, *next);
            *next += 1;
        }

        // Each eviction is recorded, and one device is not evicted twice without a row in between.
        let evicted: Vec<_> = whole.out.events.iter().filter(|e| !e.is_input()).collect();
        prop_assert_eq!(whole.lane.counters().evicted, evicted.len() as u64);
        let mut last: BTreeMap<[u8; 32], u64> = BTreeMap::new();
        for e in evicted {
            let LaneEvent::Evicted { device_id, next_seq, .. } = e else { continue };
            prop_assert!(last.insert(*device_id, *next_seq).is_none_or(|before| before <= *next_seq));
        }

        // However it is cut and restarted, byte for byte.
        for restore in [false, true] {
            let cut = run(&forgetful, &inputs, &cuts, restore);
            prop_assert_eq!(&cut.out.verdicts.iter().map(VerdictRecord::to_bytes).collect::<Vec<_>>(),
                &whole.out.verdicts.iter().map(VerdictRecord::to_bytes).collect::<Vec<_>>());
            prop_assert_eq!(&cut.out.events, &whole.out.events);
            prop_assert_eq!(cut.lane.snapshot(), whole.lane.snapshot());
        }
    }
}

/// One device, thousands of times forgotten and back within one batch, with verdicts of its last return only.
#[test]
fn a_device_that_comes_and_goes_within_a_batch() {
    let plan = plan(Some(TTL));
    let n = 8_000;
    let inputs: Vec<Input> = (0..n)
        .map(|i| Input::Row { device: 0, jitter: 0, x: if i + 2 < n { -50.0 } else { 1.0 }, gap: 60_000 })
        .collect();
    let whole = run(&plan, &inputs, &[], false);
    assert_eq!(whole.lane.counters().evicted, n - 1 + u64::from(whole.lane.devices() == 0));
    let each: Vec<usize> = (0..inputs.len()).collect();
    let cut = run(&plan, &inputs, &each, true);
    assert_eq!(cut.lane.snapshot(), whole.lane.snapshot());
    assert_eq!(cut.out.events, whole.out.events);
    assert_eq!(cut.out.verdicts.len(), whole.out.verdicts.len());
    assert!(!whole.out.verdicts.is_empty());
}
