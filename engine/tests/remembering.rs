//! Row functions that remember (`lag`, `delta`, `ewma`) and the forgetting of idle devices.

#![allow(clippy::unwrap_used)]

mod fleet;

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_engine::decode::RawRecord;
use avouch_engine::event::LaneEvent;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{FieldSpec, FieldType, LaneSpec, SqlStepSpec, WindowSpec};
use fleet::{Fleet, SumModel, T0, row, secret};
use proptest::prelude::*;

/// A step that remembers, before a window that shows each value of a row: windows are a second, rows come one a second a
/// device, so that features are the row's own values.
fn seen(select: &str) -> impl FnOnce(&mut LaneSpec) {
    let select = select.to_owned();
    move |spec: &mut LaneSpec| {
        spec.source.fields.push(FieldSpec { name: "y".into(), ty: FieldType::I64, required: false });
        spec.sql[0].from = "values_of".into();
        spec.sql[0].sql = "SELECT device, max(v) AS m FROM values_of GROUP BY device".into();
        spec.sql.push(SqlStepSpec {
            name: "values_of".into(),
            from: "readings".into(),
            sql: format!("SELECT *, {select} AS v FROM readings"),
            window: None,
        });
    }
}

/// The values of `select` for rows of one device, a second apart; NaN where NULL.
fn values(select: &str, xs: &[Option<f64>]) -> Vec<f64> {
    let mut fleet = Fleet::new(seen(select));
    for (i, x) in xs.iter().enumerate() {
        let ts = T0 + i as i64 * 1_000;
        let x = x.map_or("null".to_owned(), |x| x.to_string());
        fleet.send(ts, &format!("{{\"device\":\"a\",\"ts\":{ts},\"x\":{x},\"y\":{i}}}"));
    }
    fleet.tick(T0 + xs.len() as i64 * 1_000).unwrap();
    assert!(fleet.out.dead.is_empty(), "{:?}", fleet.out.dead);
    fleet.out.verdicts.iter().map(|v| v.evidence.features[0].value).collect()
}

#[track_caller]
fn expect(select: &str, xs: &[Option<f64>], want: &[f64]) {
    let got = values(select, xs);
    let same = got.len() == want.len()
        && got.iter().zip(want).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()));
    assert!(same, "{select}: {got:?}, not {want:?}");
}

const N: f64 = f64::NAN;

#[test]
fn what_each_function_gives() {
    let xs = [Some(1.0), Some(4.0), None, Some(9.0), Some(7.0)];
    expect("lag(x)", &xs, &[N, 1.0, 4.0, N, 9.0]);
    expect("lag(x, 2)", &xs, &[N, N, 1.0, 4.0, N]);
    expect("lag(x, 4)", &xs, &[N, N, N, N, 1.0]);
    expect("lag(y)", &xs, &[N, 0.0, 1.0, 2.0, 3.0]);
    expect("delta(x)", &xs, &[N, 3.0, N, 5.0, -2.0]);
    expect("delta(ts)", &xs, &[N, 1_000.0, 1_000.0, 1_000.0, 1_000.0]);
    expect("ewma(x, 0.5)", &xs, &[1.0, 2.5, 2.5, 5.75, 6.375]);
    expect("ewma(x, 1)", &xs, &[1.0, 4.0, 4.0, 9.0, 7.0]);
    // A second halves the weight of what was; the NULL's second counts when the next value comes.
    expect("ewma(x, '1s')", &xs, &[1.0, 2.5, 2.5, 9.0 + 0.25 * (2.5 - 9.0), 7.0 + 0.5 * (7.375 - 7.0)]);
    // Within expressions, nested, twice, and where CASE does not look.
    expect("x - lag(x)", &xs, &[N, 3.0, N, N, -2.0]);
    expect("delta(delta(x))", &xs, &[N, N, N, 2.0, -7.0]);
    expect("coalesce(lag(x), 0) + coalesce(lag(x), 0)", &xs, &[0.0, 2.0, 8.0, 0.0, 18.0]);
    expect("CASE WHEN y >= 3 THEN lag(x) ELSE -1 END", &xs, &[-1.0, -1.0, -1.0, N, 9.0]);
    expect("CASE WHEN lag(device) = 'a' THEN 1 ELSE 0 END", &xs, &[0.0, 1.0, 1.0, 1.0, 1.0]);
}

#[test]
fn a_long_lag_crosses_its_words() {
    let xs: Vec<Option<f64>> = (0..300).map(|i| (i % 7 != 0).then_some(i as f64)).collect();
    let want: Vec<f64> =
        (0..300i64).map(|i| if i < 130 || (i - 130) % 7 == 0 { N } else { (i - 130) as f64 }).collect();
    expect("lag(x, 130)", &xs, &want);
}

#[test]
fn each_device_has_its_own() {
    let mut fleet = Fleet::new(seen("delta(x)"));
    for i in 0..6 {
        for (d, slope) in [("a", 1.0), ("b", 10.0)] {
            fleet.send(T0 + i * 1_000, &row(d, T0 + i * 1_000, slope * i as f64));
        }
    }
    let of = |device: &str| -> Vec<f64> {
        let own = fleet.out.verdicts.iter().filter(|v| v.evidence.device == device);
        own.map(|v| v.evidence.features[0].value).skip(1).collect()
    };
    assert_eq!((of("a"), of("b")), (vec![1.0; 4], vec![10.0; 4]));
}

#[test]
fn a_row_that_fails_in_the_step_is_not_remembered() {
    // 10 / y fails where y is 0.
    let mut fleet = Fleet::new(seen("coalesce(lag(x), -1) + 10 / y * 0"));
    for (i, y) in [1, 1, 0, 1, 0, 0, 1].into_iter().enumerate() {
        let ts = T0 + i as i64 * 1_000;
        fleet.send(ts, &format!("{{\"device\":\"a\",\"ts\":{ts},\"x\":{i},\"y\":{y}}}"));
    }
    fleet.tick(T0 + 10_000).unwrap();
    assert_eq!(fleet.out.dead.iter().map(|d| d.offset).collect::<Vec<_>>(), [2, 4, 5]);
    let got: Vec<f64> = fleet.out.verdicts.iter().map(|v| v.evidence.features[0].value).collect();
    assert_eq!(got, [-1.0, 0.0, 1.0, 3.0]);
}

#[test]
fn where_decides_which_rows_count() {
    let mut fleet = Fleet::new(|spec| {
        spec.sql[0].from = "s".into();
        spec.sql[0].sql = "SELECT device, max(v) AS m FROM s GROUP BY device".into();
        spec.sql.push(SqlStepSpec {
            name: "s".into(),
            from: "readings".into(),
            // The inner list remembers rows above 1; the outer condition comes after it.
            sql: "SELECT * FROM (SELECT *, lag(x) AS v FROM readings WHERE x > 1) WHERE v > 2".into(),
            window: None,
        });
    });
    for (i, x) in [2.0, 0.5, 3.0, 1.0, 4.0].into_iter().enumerate() {
        fleet.send(T0 + i as i64 * 1_000, &row("a", T0 + i as i64 * 1_000, x));
    }
    fleet.tick(T0 + 10_000).unwrap();
    let got: Vec<f64> = fleet.out.verdicts.iter().map(|v| v.evidence.features[0].value).collect();
    assert_eq!(got, [3.0]);
}

#[test]
fn where_they_are_not_possible_it_says_what_to_do() {
    let mut said = String::new();
    for (sql, window) in [
        ("SELECT * FROM readings WHERE lag(x) > 1", None),
        ("SELECT device, avg(delta(x)) AS m FROM readings GROUP BY device", Some(1_000)),
        ("SELECT device, lag(avg(x)) AS m FROM readings GROUP BY device", Some(1_000)),
        ("SELECT device, avg(d) AS m FROM (SELECT *, delta(x) AS d FROM readings) GROUP BY device", Some(1_000)),
        ("SELECT lag(x, 0) AS v FROM readings", None),
        ("SELECT lag(x, 2000) AS v FROM readings", None),
        ("SELECT lag(x, y) AS v FROM readings", None),
        ("SELECT lag() AS v FROM readings", None),
        ("SELECT delta(device) AS v FROM readings", None),
        ("SELECT ewma(x) AS v FROM readings", None),
        ("SELECT ewma(x, 0) AS v FROM readings", None),
        ("SELECT ewma(x, 1.5) AS v FROM readings", None),
        ("SELECT ewma(x, 'soon') AS v FROM readings", None),
        ("SELECT lag(x) OVER (PARTITION BY device) AS v FROM readings", None),
    ] {
        let mut spec = fleet::spec();
        spec.source.fields.push(FieldSpec { name: "y".into(), ty: FieldType::I64, required: false });
        spec.scores.clear();
        let window = window.map(|size_ms| WindowSpec::Tumbling { size_ms });
        spec.sql = vec![SqlStepSpec { name: "s".into(), from: "readings".into(), sql: sql.into(), window }];
        said.push_str(&format!("{sql}\n"));
        match LanePlan::new(&spec) {
            Ok(_) => said.push_str("    (accepted)\n"),
            Err(errors) => errors.iter().for_each(|e| said.push_str(&format!("    {e}\n"))),
        }
    }
    insta::assert_snapshot!(said);
}

// ── forgetting ──────────────────────────────────────────────────────────────────────────────────────────────────────

const TTL: i64 = 80_000;

fn forgetful(spec: &mut LaneSpec) {
    seen("coalesce(lag(x), -1)")(spec);
    spec.source.device_ttl_ms = Some(TTL);
}

#[test]
fn a_device_that_comes_back_has_forgotten_all_but_its_seq() {
    let mut fleet = Fleet::new(forgetful);
    for i in 0..3 {
        fleet.send(T0 + i * 1_000, &row("a", T0 + i * 1_000, 5.0 + i as f64));
        fleet.send(T0 + i * 1_000, &row("b", T0 + i * 1_000, 1.0));
    }
    // b keeps time going; a is silent.
    for i in 3..200 {
        fleet.send(T0 + i * 1_000, &row("b", T0 + i * 1_000, 1.0));
        if i == 100 {
            fleet.restart();
        }
    }
    assert_eq!(fleet.lane.devices(), 1);
    assert_eq!(fleet.lane.counters().evicted, 1);
    let [LaneEvent::Evicted { next_seq: 3, watermark_ms, after_offset, device_id }] = fleet.out.events.as_slice()
    else {
        panic!("{:?}", fleet.out.events)
    };
    // At the first row that passed a multiple of an eighth after a had been silent for the time to live.
    let last_of_a = T0 + 2_000;
    assert!((last_of_a + TTL..=last_of_a + TTL + TTL / 8).contains(watermark_ms));
    assert_eq!(fleet.out.verdicts.iter().find(|v| v.evidence.device == "a").unwrap().verdict.device_id, *device_id);
    assert!(*after_offset > 80);
    // It comes back: seq goes on, memory does not.
    for i in 200..203 {
        fleet.send(T0 + i * 1_000, &row("a", T0 + i * 1_000, 9.0));
        fleet.restart();
    }
    fleet.tick(T0 + 300_000).unwrap();
    let own: Vec<_> = fleet.out.verdicts.iter().filter(|v| v.evidence.device == "a").collect();
    assert_eq!(own.iter().map(|v| v.verdict.seq).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    let lags: Vec<f64> = own.iter().map(|v| v.evidence.features[0].value).collect();
    assert_eq!(lags, [-1.0, 5.0, 6.0, -1.0, 9.0, 9.0]);
}

#[test]
fn without_a_time_to_live_nobody_is_forgotten() {
    let mut fleet = Fleet::new(seen("coalesce(lag(x), -1)"));
    fleet.send(T0, &row("a", T0, 5.0));
    let later = T0 + 3_650 * 86_400_000;
    fleet.send(later, &row("b", later, 1.0));
    fleet.send(later, &row("a", later, 6.0));
    fleet.tick(later + 10_000).unwrap();
    assert_eq!(fleet.lane.devices(), 2);
    assert!(!fleet.out.events.iter().any(|e| matches!(e, LaneEvent::Evicted { .. })));
    assert!(fleet.out.verdicts.iter().any(|v| v.evidence.features[0].value == 5.0), "what it had stays");
}

#[test]
fn a_time_to_live_shorter_than_a_window_is_refused() {
    let mut spec = fleet::spec();
    spec.source.device_ttl_ms = Some(999);
    let errors = LanePlan::new(&spec).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].message.contains("device_ttl = 999 ms is shorter than the windows"), "{}", errors[0]);
}

fn remembering_plan() -> Arc<LanePlan> {
    let mut spec = fleet::spec();
    spec.source.fields.push(FieldSpec { name: "y".into(), ty: FieldType::I64, required: false });
    spec.source.max_disorder_ms = 2_000;
    spec.source.device_ttl_ms = Some(9_000);
    let step = |name: &str, from: &str, sql: &str, window| SqlStepSpec {
        name: name.into(),
        from: from.into(),
        sql: sql.into(),
        window,
    };
    spec.sql = vec![
        step(
            "a",
            "readings",
            "SELECT *, lag(x, 2) AS l, 100 / y AS q, ewma(x, '3s') AS h, lag(device) AS d FROM readings WHERE x > -40 OR x IS NULL",
            None,
        ),
        step(
            "b",
            "a",
            "SELECT device, ts, x, l, h, delta(l) AS dl, 10 / (y - 2) AS z, ewma(x, 0.25) AS e, delta(ts) AS dt, octet_length(d) AS n FROM a",
            None,
        ),
        step(
            "features",
            "b",
            "SELECT device, sum(l) AS l, sum(h) AS h, sum(dl) AS dl, sum(e) AS e, sum(dt) AS dt, sum(n) AS n, count(*) AS c FROM b GROUP BY device",
            Some(WindowSpec::Sliding { size_ms: 5_000, every_ms: 2_000 }),
        ),
    ];
    let features: Vec<String> = ["l", "h", "dl", "e", "dt", "n", "c"].map(str::to_owned).to_vec();
    spec.scores[0].model = Arc::new(SumModel(features.clone()));
    spec.scores[0].features = features;
    Arc::new(LanePlan::new(&spec).unwrap())
}

/// (device, jitter, x, y, gap): rows with failures in both steps, silences longer than the time to live, and ticks.
type Made = Vec<(u8, i64, Option<f64>, i64, u8)>;

fn made() -> impl Strategy<Value = Made> {
    let x = prop_oneof![1 => Just(None), 6 => (-60.0f64..60.0).prop_map(Some)];
    proptest::collection::vec((0u8..6, -2_500i64..500, x, 0i64..5, 0u8..30), 1..150)
}

#[derive(Debug, PartialEq)]
struct Left {
    verdicts: Vec<Vec<u8>>,
    dead: Vec<Vec<u8>>,
    events: Vec<LaneEvent>,
    snapshot: Vec<u8>,
}

fn run(plan: &Arc<LanePlan>, rows: &Made, cuts: &[usize], restore: bool) -> Left {
    let mut now = T0;
    let mut values = Vec::new();
    for (i, (device, jitter, x, y, gap)) in rows.iter().enumerate() {
        now += if *gap < 2 { 12_000 } else { 700 };
        // Some devices are there only at times, so that they are forgotten and come back.
        let device = if *device == 5 { 5 + i / 40 % 2 } else { usize::from(*device) };
        let x = x.map_or("null".to_owned(), |x| x.to_string());
        let ts = now + jitter;
        values.push((now, format!("{{\"device\":\"d{device}\",\"ts\":{ts},\"x\":{x},\"y\":{y}}}")));
    }
    let records: Vec<RawRecord<'_>> = values
        .iter()
        .enumerate()
        .map(|(i, (now, v))| RawRecord {
            offset: i as i64,
            timestamp: *now,
            key: None,
            value: Some(v.as_bytes()),
            origin: None,
            signature: None,
        })
        .collect();
    let mut lane = Lane::new(plan.clone(), 0, secret());
    let mut out = Output::default();
    let mut from = 0;
    for to in cuts.iter().copied().chain([records.len()]) {
        let to = to.clamp(from, records.len());
        lane.step(&records[from..to], &mut out).unwrap();
        assert!(lane.counters().balanced());
        if restore {
            lane = Lane::restore(plan.clone(), 0, secret(), &lane.snapshot()).unwrap();
        }
        from = to;
    }
    let evicted = out.events.iter().filter(|e| matches!(e, LaneEvent::Evicted { .. })).count();
    assert_eq!(lane.counters().evicted, evicted as u64);
    let mut seq: BTreeMap<[u8; 32], u64> = BTreeMap::new();
    for v in &out.verdicts {
        let next = seq.entry(v.verdict.device_id).or_default();
        assert_eq!(v.verdict.seq, *next, "gapless over evictions");
        *next += 1;
    }
    for e in &out.events {
        let LaneEvent::Evicted { device_id, next_seq, .. } = e else { continue };
        assert!(*next_seq <= seq.get(device_id).copied().unwrap_or(0));
    }
    Left {
        verdicts: out.verdicts.iter().map(|v| v.to_bytes()).collect(),
        dead: out.dead.iter().map(|d| d.to_bytes()).collect(),
        events: out.events,
        snapshot: lane.snapshot().bytes,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn memory_and_forgetting_do_not_depend_on_cutting(
        rows in made(),
        mut cuts in proptest::collection::vec(0usize..150, 0..30),
    ) {
        let plan = remembering_plan();
        cuts.sort_unstable();
        let whole = run(&plan, &rows, &[], false);
        let each: Vec<usize> = (0..rows.len()).collect();
        prop_assert_eq!(&run(&plan, &rows, &cuts, false), &whole);
        prop_assert_eq!(&run(&plan, &rows, &cuts, true), &whole);
        prop_assert_eq!(&run(&plan, &rows, &each, false), &whole);
    }

    #[test]
    fn a_damaged_snapshot_is_refused_or_harmless(rows in made(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let plan = remembering_plan();
        let mut bytes = run(&plan, &rows, &[], false).snapshot;
        let i = at.index(bytes.len());
        bytes[i] ^= 1 << bit;
        let _ = Lane::restore(plan.clone(), 0, secret(), &bytes);
        prop_assert!(Lane::restore(plan, 0, secret(), &bytes[..i]).is_err());
    }
}
