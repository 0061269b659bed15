//! Recorded inputs given back: the lane leaves the same bytes as when it made them.

#![allow(clippy::unwrap_used)]

mod fleet;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray};
use avouch_engine::decode::RawRecord;
use avouch_engine::event::{LaneEvent, Tick};
use avouch_engine::label::{Label, Opinion};
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::reference::{Reference, ReferenceSpec};
use avouch_engine::replay::Replay;
use avouch_engine::spec::{FieldSpec, FieldType, SqlStepSpec};
use avouch_engine::verdict::Hash32;
use fleet::{T0, row, secret};
use proptest::prelude::*;

fn table(scale: f64) -> Arc<Reference> {
    let field = |name: &str, ty, required| FieldSpec { name: name.into(), ty, required };
    let spec = ReferenceSpec {
        name: "devices".into(),
        fields: vec![field("device", FieldType::Utf8, true), field("scale", FieldType::F64, false)],
        key: "device".into(),
    };
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from(vec!["a", "b"])), Arc::new(Float64Array::from(vec![scale, 1.0]))];
    Reference::new(&spec, columns).unwrap()
}

fn tables() -> Vec<Arc<Reference>> {
    (0..4).map(|n| table(f64::from(n) + 0.5)).collect()
}

fn find(name: &str, version: &Hash32) -> Result<Arc<Reference>, LaneError> {
    let all = tables();
    let fail = || LaneError::Reference { name: name.into(), why: "no such version".into() };
    all.into_iter().find(|t| t.version() == *version).ok_or_else(fail)
}

fn plan() -> Arc<LanePlan> {
    let mut spec = fleet::spec();
    spec.source.device_ttl_ms = Some(5_000);
    spec.references = vec![table(0.5)];
    spec.sql[0].from = "known".into();
    spec.sql[0].sql = "SELECT device, sum(v) AS m FROM known GROUP BY device".into();
    spec.sql.push(SqlStepSpec {
        name: "known".into(),
        from: "readings".into(),
        sql: "SELECT readings.*, x * scale AS v FROM readings LEFT JOIN devices USING (device)".into(),
        window: None,
    });
    Arc::new(LanePlan::new(&spec).unwrap())
}

/// What happens in a run.
#[derive(Debug, Clone)]
enum Act {
    /// A record of one device, so long after the one before.
    Row(u8, i64),
    Tick(i64),
    Switch(usize),
    /// A label of one device, who may be unknown; of the newest verdict, or of a stretch.
    Label(u8, bool),
}

fn label(device: u8, verdict: Option<u64>, at: i64) -> Label {
    Label {
        device: char::from(b'a' + device).to_string(),
        verdict,
        step: "anomaly".into(),
        from: at as u64,
        to: at as u64 + 1_000,
        opinion: Opinion::ALL[at as usize % 4],
        reason: None,
        by: [7; 32],
        at,
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => (0u8..3, 0i64..900).prop_map(|(d, dt)| Act::Row(d, dt)),
        2 => (1i64..9_000).prop_map(Act::Tick),
        1 => (0usize..4).prop_map(Act::Switch),
        1 => (0u8..5, any::<bool>()).prop_map(|(d, verdict)| Act::Label(d, verdict)),
    ];
    proptest::collection::vec(act, 1..60)
}

type Bytes = (Vec<Vec<u8>>, Vec<Vec<u8>>, Vec<LaneEvent>);

fn bytes(out: &Output) -> Bytes {
    let verdicts = out.verdicts.iter().map(|v| v.to_bytes()).collect();
    (verdicts, out.dead.iter().map(|d| d.to_bytes()).collect(), out.events.clone())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// From any checkpoint, with the records read again in any pieces.
    #[test]
    fn the_lane_regrows(acts in acts(), back: prop::sample::Index, piece in 1usize..9) {
        let plan = plan();
        let mut lane = Lane::new(plan.clone(), 0, secret());
        let (mut out, mut records, mut now) = (Output::default(), Vec::<(i64, String)>::new(), T0);
        // Offsets have gaps, as aborted transactions leave them.
        let offset = |n: usize| n as i64 * 3;
        lane.take_reference(table(0.5), &mut out).unwrap();
        let mut points = vec![(lane.snapshot(), 0, 0, 0, 1)];
        for act in &acts {
            match act {
                Act::Row(device, dt) => {
                    now += dt;
                    let value = row(&char::from(b'a' + device).to_string(), now, *dt as f64);
                    let raw = RawRecord {
                        offset: offset(records.len()), timestamp: now, key: None, value: Some(value.as_bytes()),
                        origin: None,
 signature: None,
                    };
                    lane.step(&[raw], &mut out).unwrap();
                    records.push((now, value));
                }
                Act::Tick(dt) => {
                    let Some(watermark) = lane.watermark() else { continue };
                    now = now.max(watermark + dt);
                    let tick = Tick { after_offset: lane.last_offset(), watermark_ms: watermark + dt };
                    lane.tick(tick, &mut out).unwrap();
                }
                Act::Label(device, of_verdict) => {
                    let verdict = lane.next_index().checked_sub(1).filter(|_| *of_verdict);
                    lane.label(lane.last_offset(), label(*device, verdict, now), &mut out).unwrap();
                }
                Act::Switch(n) => lane.take_reference(tables()[*n].clone(), &mut out).unwrap(),
            }
            points.push((lane.snapshot(), records.len(), out.verdicts.len(), out.dead.len(), out.events.len()));
        }

        let (snapshot, at, verdicts, dead, events) = points[back.index(points.len())].clone();
        let mut again = Output {
            verdicts: out.verdicts[..verdicts].to_vec(),
            dead: out.dead[..dead].to_vec(),
            events: out.events[..events].to_vec(),
            ..Output::default()
        };
        let mut replay = Replay::new(out.events[events..].to_vec());
        let mut restored = Lane::restore(plan, 0, secret(), &snapshot).unwrap();
        let (name, version) = {
            let (name, version) = restored.references_in_use().next().unwrap();
            (name, version.unwrap())
        };
        restored.take_reference(find(&name, &version).unwrap(), &mut again).unwrap();
        for piece in records[at..].chunks(piece).enumerate().map(|(i, p)| (at + i * piece, p)) {
            let raw: Vec<RawRecord<'_>> = piece.1.iter().enumerate().map(|(i, (timestamp, value))| RawRecord {
                offset: offset(piece.0 + i), timestamp: *timestamp, key: None, value: Some(value.as_bytes()),
                origin: None,
 signature: None,
            }).collect();
            let mut rest = raw.as_slice();
            while !rest.is_empty() {
                replay.give(&mut restored, find, &mut again).unwrap();
                let n = replay.before(rest).unwrap();
                restored.step(&rest[..n], &mut again).unwrap();
                rest = &rest[n..];
            }
        }
        replay.give(&mut restored, find, &mut again).unwrap();
        prop_assert!(replay.is_empty());
        prop_assert_eq!(bytes(&again), bytes(&out));
        prop_assert_eq!(restored.snapshot(), lane.snapshot());
    }
}

#[test]
fn a_label_gets_the_next_index_and_the_devices_next_number() {
    let plan = Arc::new(LanePlan::new(&fleet::spec()).unwrap());
    let mut lane = Lane::new(plan, 0, secret());
    let mut out = Output::default();
    let row = row("a", T0, 1.0);
    let raw =
        RawRecord { offset: 4, timestamp: T0, key: None, value: Some(row.as_bytes()), origin: None, signature: None };
    lane.step(&[raw], &mut out).unwrap();
    lane.tick(Tick { after_offset: 4, watermark_ms: T0 + 600_000 }, &mut out).unwrap();
    let verdicts = out.verdicts.len();
    assert!(verdicts > 0);
    let normal = lane.counters().verdicts;
    let misplaced = lane.label(3, label(0, Some(0), T0), &mut out).unwrap_err();
    assert!(matches!(misplaced, LaneError::EventOutOfPlace { given: 3, at: 4, .. }), "{misplaced}");
    let future = lane.label(4, label(0, Some(verdicts as u64), T0), &mut out).unwrap_err();
    assert!(future.to_string().contains("of a log of"), "{future}");
    assert_eq!(out.verdicts.len(), verdicts);

    let said = label(0, Some(0), T0);
    lane.label(4, said.clone(), &mut out).unwrap();
    // One whom the lane has never seen has numbers of its own from 0 on, also when it comes.
    lane.label(4, label(2, None, T0), &mut out).unwrap();
    let v = &out.verdicts[verdicts];
    assert_eq!((v.index, v.verdict.seq), (verdicts as u64, verdicts as u64));
    assert_eq!(v.verdict.input_digest, said.id());
    assert_eq!(v.verdict.class, said.opinion.class());
    assert_eq!(v.evidence.label.as_deref(), Some(&said));
    assert_eq!(v.evidence.hash(), v.verdict.evidence_hash);
    assert_eq!(out.events.last(), Some(&LaneEvent::Label { after_offset: 4, label: label(2, None, T0) }));
    assert_eq!(out.verdicts[verdicts + 1].verdict.seq, 0);
    assert_eq!(lane.counters().verdicts, normal, "a label is no verdict of any severity");
    let row = fleet::row("c", T0 + 700_000, 1.0);
    let raw = RawRecord {
        offset: 5,
        timestamp: T0 + 700_000,
        key: None,
        value: Some(row.as_bytes()),
        origin: None,
        signature: None,
    };
    lane.step(&[raw], &mut out).unwrap();
    lane.tick(Tick { after_offset: 5, watermark_ms: T0 + 1_600_000 }, &mut out).unwrap();
    let of_c: Vec<u64> = out.verdicts.iter().filter(|v| v.evidence.device == "c").map(|v| v.verdict.seq).collect();
    assert_eq!(of_c, (0..of_c.len() as u64).collect::<Vec<_>>());
    assert!(of_c.len() > 1);
}

#[test]
fn an_input_whose_record_is_gone_stops_the_lane() {
    let plan = Arc::new(LanePlan::new(&fleet::spec()).unwrap());
    let mut lane = Lane::new(plan, 0, secret());
    let mut out = Output::default();
    let values: Vec<String> = (0..3).map(|n| row("a", T0 + n, 1.0)).collect();
    let raw = |n: usize| RawRecord {
        offset: n as i64,
        timestamp: T0 + n as i64,
        key: None,
        value: Some(values[n].as_bytes()),
        origin: None,
        signature: None,
    };
    let mut replay = Replay::new([LaneEvent::Tick(Tick { after_offset: 1, watermark_ms: T0 + 5_000 })]);
    assert_eq!(replay.before(&[raw(0), raw(1), raw(2)]).unwrap(), 2);
    lane.step(&[raw(0)], &mut out).unwrap();
    assert_eq!(replay.give(&mut lane, find, &mut out).unwrap(), 0);
    let gone = replay.before(&[raw(2)]).unwrap_err();
    assert!(gone.to_string().contains("not in the input any more"), "{gone}");
    lane.step(&[raw(2)], &mut out).unwrap();
    assert!(matches!(replay.give(&mut lane, find, &mut out), Err(LaneError::EventOutOfPlace { .. })));
    assert_eq!(replay.len(), 1);
}
