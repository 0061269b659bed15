//! The contract the product rests on: verdicts are a function of the input log, however it is cut, wherever the lane was
//! stopped and restored; and no row disappears.

#![allow(clippy::unwrap_used)]

mod sum_model;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use avouch_engine::decode::{RawRecord, RecordOrigin};
use avouch_engine::event::{LaneEvent, Tick};
use avouch_engine::label::{Label, Opinion};
use avouch_engine::lane::{Lane, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{
    DecideSpec, FieldSpec, FieldType, FormatSpec, LaneSpec, ScoreStepSpec, SourceSpec, SqlStepSpec, WindowSpec,
};
use avouch_engine::verdict::{Evidence, Hash32, Secret};
use proptest::prelude::*;
use sum_model::SumModel;

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn field(name: &str, ty: FieldType, required: bool) -> FieldSpec {
    FieldSpec { name: name.into(), ty, required }
}

/// Windowed steps of every kind over a filtering and computing step: their verdicts interleave in one log. Rows come up to
/// a second later than the disorder allows, so that some change windows that were partly computed already.
fn planned() -> LanePlan {
    let sql = |name: &str, from: &str, sql: &str, window| SqlStepSpec {
        name: name.into(),
        from: from.into(),
        sql: sql.into(),
        window,
    };
    let score = |name: &str, from: &str, features: &[&str]| ScoreStepSpec {
        name: name.into(),
        from: from.into(),
        features: names(features),
        model: Arc::new(SumModel(names(features))),
        decide: DecideSpec::p_values(Some(0.05), Some(0.01)),
    };
    let spec = LaneSpec {
        pipeline: "p".into(),
        config_hash: [1; 32],
        source: SourceSpec {
            name: "readings".into(),
            topic: "t".into(),
            format: FormatSpec::Json,
            fields: vec![
                field("device", FieldType::Utf8, true),
                field("ts", FieldType::TimestampMs, true),
                field("x", FieldType::F64, false),
                field("n", FieldType::I64, false),
            ],
            key: "device".into(),
            keyed: false,
            time: "ts".into(),
            max_disorder_ms: 2_000,
            max_future_ms: 60_000,
            device_ttl_ms: None,
            max_record_bytes: 1_000,
            signature: None,
        },
        references: Vec::new(),
        sql: vec![
            sql(
                "clean",
                "readings",
                "SELECT *, 100 / n AS per, x * 2 AS y FROM readings WHERE x > -50 OR x IS NULL",
                None,
            ),
            sql(
                "fast",
                "clean",
                "SELECT device, avg(y) AS m, stddev(y) AS s, count(*) AS c, slope(x, ts) AS d FROM clean GROUP BY device HAVING count(*) > 1",
                Some(WindowSpec::Sliding { size_ms: 5_000, every_ms: 2_000 }),
            ),
            sql(
                "slow",
                "clean",
                "SELECT device, kurtosis(x) AS k, max(per) - min(per) AS r, rms(x) AS q FROM clean WHERE n <> 3 GROUP BY device",
                Some(WindowSpec::Tumbling { size_ms: 7_000 }),
            ),
            sql(
                "visits",
                "clean",
                "SELECT device, count(*) AS c, corr(x, y + n) AS r, median(x) AS e, first_value(x) AS f, last_value(n) AS l, \
                 max(n) AS h, count(DISTINCT n) AS u, zero_crossings(x) AS z, ewma(x, 0.3) AS w, \
                 band_energy(x, ts, 0.1, 2) AS o, avg(x) FILTER (WHERE n > 2) AS g, min(device) AS name, bool_or(n = 4) AS any \
                 FROM clean GROUP BY device",
                Some(WindowSpec::Session { gap_ms: 1_500, max_ms: 6_000 }),
            ),
            sql(
                "long",
                "clean",
                "SELECT device, median(y) AS e, last_value(x) IGNORE NULLS AS l, regr_slope(y, n) AS r, skewness(x) AS s, \
                 approx_distinct(n) AS u FROM clean GROUP BY device",
                Some(WindowSpec::Sliding { size_ms: 16_500, every_ms: 1_000 }),
            ),
        ],
        scores: vec![
            score("a", "fast", &["m", "s", "c", "d"]),
            score("b", "slow", &["k", "r", "q"]),
            score("c", "visits", &["c", "r", "e", "f", "l", "h", "u", "z", "w", "o", "g"]),
            score("d", "long", &["e", "l", "r", "s", "u"]),
        ],
    };
    LanePlan::new(&spec).unwrap()
}

fn plan() -> Arc<LanePlan> {
    Arc::new(planned())
}

/// With early results at instants that fit `every`, that do not, and that are further apart than it.
fn early_plan() -> Arc<LanePlan> {
    let plan = [("fast", 1_000), ("slow", 1_500), ("long", 4_000)]
        .into_iter()
        .try_fold(planned(), |plan, (step, every_ms)| plan.with_early(step, every_ms));
    Arc::new(plan.unwrap())
}

#[derive(Debug, Clone)]
struct Record {
    broker: i64,
    value: Option<String>,
    origin: Option<RecordOrigin>,
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let row = (0u8..5, -3_000i64..3_000, prop_oneof![Just(None), (-60.0f64..60.0).prop_map(Some)], 0i64..5, 0u8..40);
    proptest::collection::vec(row, 1..160).prop_map(|rows| {
        let mut now = 1_700_000_000_000i64;
        rows.into_iter()
            .map(|(device, jitter, x, n, kind)| {
                now += 400;
                let ts = now + jitter;
                let value = match kind {
                    0 => Some("{\"device\":\"d".to_owned()),
                    1 => None,
                    2 => Some(format!("{{\"device\":\"d{device}\",\"ts\":{},\"n\":1}}", ts + 90_000_000)),
                    3 => Some(format!("{{\"device\":\"\",\"ts\":{ts},\"n\":1}}")),
                    4 => Some(format!("{{\"device\":\"d{device}\",\"ts\":{}}}", ts - 60_000)),
                    5 => Some(format!("{{\"device\":\"d{device}\",\"ts\":{ts},\"x\":\"a\"}}")),
                    6 => {
                        // A gap: everything open closes.
                        now += 30_000;
                        Some(format!("{{\"device\":\"d{device}\",\"ts\":{now},\"x\":1.5,\"n\":2}}"))
                    }
                    _ => Some(format!(
                        "{{\"device\":\"d{device}\",\"ts\":{ts},\"x\":{},\"n\":{n}}}",
                        x.map_or("null".to_owned(), |x| x.to_string())
                    )),
                };
                Record { broker: now, value, origin: None }
            })
            .collect()
    })
}

/// The same, or copies from three partitions: some copied late, after pauses, or not at all for a while.
fn copies() -> impl Strategy<Value = Vec<Record>> {
    let copying = proptest::collection::vec((0i32..3, 0i64..60_000), 160);
    (records(), any::<bool>(), copying).prop_map(|(mut records, copied, copying)| {
        let mut now = 1_800_000_000_000i64;
        for (record, (partition, pause)) in records.iter_mut().zip(copying).filter(|_| copied) {
            now += if pause < 50_000 { pause / 10 } else { pause };
            record.origin = Some(RecordOrigin { partition, copied_ms: now });
        }
        records
    })
}

fn raw(records: &[Record], from: usize) -> Vec<RawRecord<'_>> {
    records
        .iter()
        .enumerate()
        .map(|(i, r)| RawRecord {
            offset: (from + i) as i64,
            timestamp: r.broker,
            key: None,
            value: r.value.as_deref().map(str::as_bytes),
            origin: r.origin,
            signature: None,
        })
        .collect()
}

fn secret() -> Secret {
    Secret::new(b"test")
}

/// Ticks: after how many records, and by how much they take the watermark forward.
fn ticks() -> impl Strategy<Value = BTreeMap<usize, i64>> {
    proptest::collection::btree_map(0usize..160, 1i64..20_000, 0..6)
}

/// Labels: after how many records, and of which device.
fn labels() -> impl Strategy<Value = Places<u8>> {
    proptest::collection::btree_map(0usize..160, 0u8..7, 0..6)
}

type Places<T> = BTreeMap<usize, T>;

fn label(device: u8, verdicts: u64) -> Label {
    Label {
        device: format!("d{device}"),
        verdict: verdicts.checked_sub(1),
        step: "a".into(),
        from: 1_700_000_000_000,
        to: 1_700_000_005_000,
        opinion: Opinion::ALL[usize::from(device) % 4],
        reason: (device > 3).then_some([device; 32]),
        by: [9; 32],
        at: 1_700_000_100_000,
    }
}

#[derive(Debug, PartialEq)]
struct Left {
    verdicts: Vec<Vec<u8>>,
    dead: Vec<Vec<u8>>,
    events: Vec<LaneEvent>,
    snapshot: Vec<u8>,
    /// In words, which tell all numbers apart and hold NaN to be NaN.
    early: Vec<String>,
}

/// Everything a run leaves behind, as bytes.
fn run(
    plan: &Arc<LanePlan>,
    records: &[Record],
    (ticks, labels): (&Places<i64>, &Places<u8>),
    cuts: &[usize],
    restore: bool,
) -> Left {
    let mut lane = Lane::new(plan.clone(), 3, secret());
    let mut out = Output::default();
    let mut from = 0;
    let ends: BTreeSet<usize> =
        cuts.iter().chain(ticks.keys()).chain(labels.keys()).copied().chain([records.len()]).collect();
    for to in ends.into_iter().filter(|e| *e <= records.len()) {
        lane.step(&raw(&records[from..to], from), &mut out).unwrap();
        assert!(lane.counters().balanced());
        if let (Some(advance), Some(watermark)) = (ticks.get(&to), lane.watermark()) {
            let tick = Tick { after_offset: to as i64 - 1, watermark_ms: watermark + advance };
            lane.tick(tick, &mut out).unwrap();
            assert_eq!(lane.watermark(), Some(tick.watermark_ms));
            assert!(lane.next_due().is_none_or(|due| due > tick.watermark_ms), "nothing is left open behind a tick");
        }
        if let Some(device) = labels.get(&to) {
            lane.label(to as i64 - 1, label(*device, lane.next_index()), &mut out).unwrap();
        }
        if restore {
            lane = Lane::restore(plan.clone(), 3, secret(), &lane.snapshot()).unwrap();
        }
        from = to;
    }
    let c = lane.counters();
    assert_eq!(c.rows_in, records.len() as u64);
    assert_eq!(c.dead.iter().sum::<u64>(), out.dead.len() as u64);
    Left {
        verdicts: out.verdicts.iter().map(|v| v.to_bytes()).collect(),
        dead: out.dead.iter().map(|d| d.to_bytes()).collect(),
        events: out.events,
        snapshot: lane.snapshot().bytes,
        early: out.early.iter().map(|e| format!("{e:?}")).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_cutting_gives_the_same_bytes(
        records in copies(),
        ticks in ticks(),
        labels in labels(),
        cuts in proptest::collection::vec(0usize..160, 0..40),
    ) {
        let plan = early_plan();
        let inputs = (&ticks, &labels);
        let whole = run(&plan, &records, inputs, &[], false);
        let each: Vec<usize> = (0..records.len()).collect();
        prop_assert_eq!(&run(&plan, &records, inputs, &cuts, false), &whole);
        prop_assert_eq!(&run(&plan, &records, inputs, &cuts, true), &whole);
        prop_assert_eq!(&run(&plan, &records, inputs, &each, false), &whole);
        prop_assert_eq!(&run(&plan, &records, inputs, &each, true), &whole);
        // What was recorded replays it: the events' own places and watermarks, as an auditor reads them.
        let mut lane = Lane::new(plan, 3, secret());
        let mut out = Output::default();
        let mut from = 0;
        for event in whole.events.iter().filter(|e| e.is_input()) {
            let to = (event.after_offset() + 1) as usize;
            lane.step(&raw(&records[from..to], from), &mut out).unwrap();
            match event {
                LaneEvent::Tick(tick) => lane.tick(*tick, &mut out).unwrap(),
                LaneEvent::Label { after_offset, label } => {
                    lane.label(*after_offset, label.clone(), &mut out).unwrap();
                }
                _ => {}
            }
            from = to;
        }
        lane.step(&raw(&records[from..], from), &mut out).unwrap();
        prop_assert_eq!(out.verdicts.iter().map(|v| v.to_bytes()).collect::<Vec<_>>(), whole.verdicts);
        prop_assert_eq!(out.events, whole.events);
    }

    #[test]
    fn early_results_leave_no_trace(
        records in records(),
        ticks in ticks(),
        cuts in proptest::collection::vec(0usize..160, 0..40),
        restore in any::<bool>(),
    ) {
        let without = run(&plan(), &records, (&ticks, &BTreeMap::new()), &[], false);
        let with = run(&early_plan(), &records, (&ticks, &BTreeMap::new()), &cuts, restore);
        prop_assert!(without.early.is_empty());
        // Verdicts, dead letters, events, counters and state, to the byte.
        prop_assert_eq!(Left { early: Vec::new(), ..with }, without);
    }

    #[test]
    fn verdicts_are_gapless_and_follow_the_log(records in records()) {
        let mut lane = Lane::new(plan(), 0, secret());
        let mut out = Output::default();
        lane.step(&raw(&records, 0), &mut out).unwrap();
        let mut seq: BTreeMap<Hash32, u64> = BTreeMap::new();
        for (i, v) in out.verdicts.iter().enumerate() {
            prop_assert_eq!(v.index, i as u64);
            let next = seq.entry(v.verdict.device_id).or_default();
            prop_assert_eq!(v.verdict.seq, *next);
            *next += 1;
            prop_assert_eq!(v.evidence.hash(), v.verdict.evidence_hash);
        }
        let offsets: Vec<i64> = out.dead.iter().map(|d| d.offset).collect();
        prop_assert!(offsets.windows(2).all(|w| w[0] < w[1]), "dead letters in offset order, each once: {:?}", offsets);
    }

    #[test]
    fn a_damaged_snapshot_is_refused_or_harmless(records in records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let plan = plan();
        let mut lane = Lane::new(plan.clone(), 0, secret());
        lane.step(&raw(&records, 0), &mut Output::default()).unwrap();
        let mut bytes = lane.snapshot().bytes;
        let i = at.index(bytes.len());
        bytes[i] ^= 1 << bit;
        // Whether it is noticed here or by the checkpoint's own digest: it must not panic or allocate without bound.
        let _ = Lane::restore(plan.clone(), 0, secret(), &bytes);
        prop_assert!(Lane::restore(plan, 0, secret(), &bytes[..i]).is_err());
    }
}

/// A window's content, computed naively from the rows that the lane admits.
#[test]
fn windows_hold_exactly_the_rows_of_their_time() {
    let plan = plan();
    let t0 = 1_700_000_000_000i64 / 70_000 * 70_000;
    let records: Vec<Record> = (0..200)
        .map(|i| {
            // Out of order by up to 2 s, within the disorder allowed.
            let ts = t0 + i * 250 - if i % 3 == 0 { 1_900 } else { 0 };
            Record {
                broker: ts + 2_000,
                value: Some(format!("{{\"device\":\"d{}\",\"ts\":{ts},\"x\":{},\"n\":{}}}", i % 2, i, 1 + i % 4)),
                origin: None,
            }
        })
        .collect();
    let mut lane = Lane::new(plan, 0, secret());
    let mut out = Output::default();
    lane.step(&raw(&records, 0), &mut out).unwrap();
    assert!(out.dead.is_empty(), "{:?}", out.dead);
    let slow: Vec<_> = out.verdicts.iter().filter(|v| &*v.evidence.step == "b").collect();
    assert!(slow.len() >= 10);
    for v in slow {
        let (start, end) = (v.verdict.window_start as i64, v.verdict.window_end as i64);
        let inside: Vec<i64> = (0..200i64)
            .filter(|i| {
                let ts = t0 + i * 250 - if i % 3 == 0 { 1_900 } else { 0 };
                format!("d{}", i % 2) == v.evidence.device && 1 + i % 4 != 3 && (start..end).contains(&ts)
            })
            .collect();
        assert_eq!(v.evidence.rows, inside.len() as u64, "{start}");
        let squares = inside.iter().map(|i| (i * i) as f64).sum::<f64>();
        let rms = (squares / inside.len() as f64).sqrt();
        let seen = v.evidence.features.iter().find(|f| &*f.name == "q").unwrap().value;
        assert!((seen - rms).abs() <= 1e-9 * rms, "{seen} {rms}");
    }
}

/// Early results, computed naively: at each row that takes the watermark over a multiple, all rows so far of each window
/// that began before that multiple and ends after the watermark.
#[test]
fn early_results_hold_exactly_the_rows_so_far() {
    let t0 = 1_700_000_000_000i64 / 70_000 * 70_000;
    let ts = |i: i64| t0 + i * 250 - if i % 3 == 0 { 1_900 } else { 0 } + if i > 120 { 9_000 } else { 0 };
    let n = |i: i64| 1 + i % 4;
    let records: Vec<Record> = (0..200)
        .map(|i| Record {
            broker: ts(i) + 2_000,
            value: Some(format!("{{\"device\":\"d{}\",\"ts\":{},\"x\":{i},\"n\":{}}}", i % 2, ts(i), n(i))),
            origin: None,
        })
        .collect();
    let mut lane = Lane::new(early_plan(), 0, secret());
    let mut out = Output::default();
    lane.step(&raw(&records, 0), &mut out).unwrap();
    assert!(out.dead.is_empty() && out.early_failed.is_empty(), "{:?} {:?}", out.dead, out.early_failed);

    // Model step, size, every, early, which rows it takes and how many there must be.
    type Step = (&'static str, i64, i64, i64, fn(i64) -> bool, usize);
    let steps: [Step; 3] = [
        ("a", 5_000, 2_000, 1_000, |_| true, 2),
        ("b", 7_000, 7_000, 1_500, |n| n != 3, 1),
        ("d", 16_500, 1_000, 4_000, |_| true, 1),
    ];
    let mut expected = Vec::new();
    let mut before: Option<i64> = None;
    for i in 0..200 {
        let now = before.unwrap_or(i64::MIN).max(ts(i) - 2_000);
        for (step, size, every, early, takes, least) in steps {
            if before.is_none_or(|b| b.div_euclid(early) == now.div_euclid(early)) {
                continue;
            }
            let mut start = (now - size).div_euclid(every) * every + every;
            while start < now - now.rem_euclid(early) {
                for device in 0..2 {
                    let rows: Vec<i64> = (0..=i)
                        .filter(|j| j % 2 == device && takes(n(*j)) && (start..start + size).contains(&ts(*j)))
                        .collect();
                    if rows.len() >= least {
                        let last = rows.iter().max().copied().unwrap();
                        expected.push((step.to_owned(), now, start, format!("d{device}"), rows.len() as u64, last));
                    }
                }
                start += every;
            }
        }
        before = Some(now);
    }
    let seen: Vec<_> = out
        .early
        .iter()
        .map(|e| {
            let size = e.window_end - e.window_start;
            assert!(e.window_start < e.as_of && e.as_of < e.window_end, "{e:?}");
            assert_eq!(size, steps.iter().find(|s| *s.0 == *e.evidence.step).unwrap().1);
            let v = &e.evidence;
            (v.step.to_string(), e.as_of, e.window_start, v.device.clone(), v.rows, v.last_offset)
        })
        .collect();
    assert!(expected.len() > 500, "{}", expected.len());
    assert_eq!(seen, expected);

    // The last look at a window that no row came to after it says what its verdict says.
    let mut compared = 0;
    for v in &out.verdicts {
        let same = |e: &&avouch_engine::lane::EarlyVerdict| {
            e.evidence.step == v.evidence.step
                && e.evidence.device == v.evidence.device
                && e.window_start == v.verdict.window_start as i64
                && e.evidence.rows == v.evidence.rows
        };
        if let Some(early) = out.early.iter().rfind(same) {
            // But for the salt, which a record has for its place in the log.
            let evidence = Evidence { salt: early.evidence.salt, ..v.evidence.clone() };
            assert_eq!(format!("{:?}", early.evidence), format!("{evidence:?}"), "the same bits");
            assert_eq!((early.severity.code(), early.class), (v.verdict.severity, v.verdict.class));
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared}");
}

/// A process that copies is killed, and its partition stands still while the other goes on by minutes: nothing of it is late,
/// and every window has the rows of both. One that is silent for too long holds nobody back.
#[test]
fn a_lane_waits_for_the_source_partition_that_is_behind() {
    let t0 = 1_700_000_000_000i64 / 70_000 * 70_000;
    let copy = |partition: i32, second: i64, copied: i64| Record {
        broker: t0 + second * 1_000,
        value: Some(format!("{{\"device\":\"d{partition}\",\"ts\":{},\"x\":1.5,\"n\":1}}", t0 + second * 1_000)),
        origin: Some(RecordOrigin { partition, copied_ms: t0 + copied }),
    };
    // Both at hand; then a minute of copying in which ten minutes of one come; then the other.
    let mut records: Vec<Record> = (0..20).flat_map(|s| [copy(0, s, s * 10), copy(1, s, s * 10)]).collect();
    records.extend((20..620).map(|s| copy(0, s, 200 + (s - 20) * 100)));
    records.extend((20..620).map(|s| copy(1, s, 60_200 + s)));
    let judged = |records: &[Record]| {
        let mut lane = Lane::new(plan(), 0, secret());
        let mut out = Output::default();
        lane.step(&raw(records, 0), &mut out).unwrap();
        let rows: BTreeMap<(String, u64, String), u64> = out
            .verdicts
            .iter()
            .filter(|v| &*v.evidence.step != "c")
            .map(|v| ((v.evidence.step.to_string(), v.verdict.window_end, v.evidence.device.clone()), v.evidence.rows))
            .collect();
        (out.dead.len(), rows, lane.watermark().unwrap())
    };
    let (dead, apart, watermark) = judged(&records);
    let mut together = records.clone();
    together.sort_by_key(|r| (r.broker, r.origin.unwrap().partition));
    together.iter_mut().for_each(|r| r.origin = None);
    assert_eq!((dead, watermark), (0, t0 + 617_000));
    assert_eq!((0, apart, watermark), judged(&together));

    // The same without a word of where they were copied from: all of the other is late.
    records.iter_mut().for_each(|r| r.origin = None);
    assert!(judged(&records).0 > 500);

    // Two minutes of copying, and it is not waited for.
    let mut silent: Vec<Record> = (0..20).flat_map(|s| [copy(0, s, s * 10), copy(1, s, s * 10)]).collect();
    silent.extend((20..620).map(|s| copy(0, s, 200 + (s - 20) * 250)));
    assert_eq!(judged(&silent).2, t0 + 617_000);
    silent.push(copy(1, 20, 150_300));
    assert_eq!((judged(&silent).0, judged(&silent).2), (1, t0 + 617_000), "late, as any row of that time");
}

#[test]
fn early_results_are_refused_where_there_can_be_none() {
    let refused = |step: &str, every_ms: i64| planned().with_early(step, every_ms).unwrap_err().to_string();
    insta::assert_snapshot!(
        [refused("visits", 1_000), refused("clean", 1_000), refused("slow", 7_000), refused("slow", 0)].join("\n")
    );
}

#[test]
fn errors_of_planning_name_step_and_cure() {
    let mut said = String::new();
    let base = |from: &str, query: &str, window: Option<WindowSpec>| LaneSpec {
        pipeline: "p".into(),
        config_hash: [0; 32],
        source: SourceSpec {
            name: "readings".into(),
            topic: "t".into(),
            format: FormatSpec::Json,
            fields: vec![
                field("device", FieldType::Utf8, true),
                field("ts", FieldType::TimestampMs, true),
                field("x", FieldType::F64, false),
            ],
            key: "device".into(),
            keyed: false,
            time: "ts".into(),
            max_disorder_ms: 0,
            max_future_ms: 0,
            device_ttl_ms: None,
            max_record_bytes: 1,
            signature: None,
        },
        references: Vec::new(),
        sql: vec![SqlStepSpec { name: "s".into(), from: from.into(), sql: query.into(), window }],
        scores: Vec::new(),
    };
    let window = Some(WindowSpec::Tumbling { size_ms: 1_000 });
    for (from, query, window) in [
        ("readings", "SELECT temprature FROM readings", None),
        ("readings", "SELECT x FROM other", None),
        ("readings", "SELECT device, avg(x) FROM readings GROUP BY device", None),
        ("readings", "SELECT now() FROM readings", None),
        ("readings", "SELECT x FROM readings ORDER BY x", None),
        ("readings", "SELEC x", None),
        ("readings", "SELECT x FROM readings; SELECT 1", None),
        ("nobody", "SELECT x FROM nobody", None),
        ("readings", "SELECT x FROM readings", window),
        ("readings", "SELECT avg(x) AS m FROM readings", window),
        ("readings", "SELECT x, count(*) AS c FROM readings GROUP BY x", window),
        ("readings", "SELECT device, array_agg(x) AS m FROM readings GROUP BY device", window),
        ("readings", "SELECT device, ewma(x, 2) AS m FROM readings GROUP BY device", window),
        ("readings", "SELECT device, band_energy(x, ts, 5, 2) AS m FROM readings GROUP BY device", window),
        ("readings", "SELECT device, median(1) AS m FROM readings GROUP BY device", window),
        ("readings", "SELECT device, first_value(x ORDER BY x) AS m FROM readings GROUP BY device", window),
        ("readings", "SELECT device, last_value(x) FILTER (WHERE x > 0) AS m FROM readings GROUP BY device", window),
        ("readings", "SELECT device, avg(DISTINCT x) AS m FROM readings GROUP BY device", window),
        ("readings", "SELECT device, slope(x, x) AS m FROM readings GROUP BY device", window),
        ("readings", "SELECT device, avg(device) AS m FROM readings GROUP BY device", window),
        (
            "readings",
            "SELECT device, avg(x) AS m FROM readings GROUP BY device",
            Some(WindowSpec::Sliding { size_ms: 1_000, every_ms: 2_000 }),
        ),
        (
            "readings",
            "SELECT device, avg(x) AS m FROM readings GROUP BY device",
            Some(WindowSpec::Session { gap_ms: 2_000, max_ms: 1_000 }),
        ),
    ] {
        said.push_str(&format!("{query}\n"));
        match LanePlan::new(&base(from, query, window)) {
            Ok(_) => said.push_str("    (accepted)\n"),
            Err(errors) => errors.iter().for_each(|e| said.push_str(&format!("    {e}\n"))),
        }
    }
    insta::assert_snapshot!(said);
}
