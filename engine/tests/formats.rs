//! One set of readings in every format: the same verdicts to the byte; and records of many rows, however they are cut.

#![allow(clippy::unwrap_used)]

mod sum_model;

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::ipc::writer::StreamWriter;
use avouch_engine::dead_letter::{DeadLetter, DeadReason};
use avouch_engine::decode::{RawRecord, SchemaAnswer};
use avouch_engine::ingest::DeviceReader;
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{
    DecideSpec, FieldSpec, FieldType, FormatSpec, Framing, LaneSpec, ProtobufSpec, ScoreStepSpec, SourceSpec,
    SqlStepSpec, WindowSpec,
};
use avouch_engine::verdict::Secret;
use proptest::prelude::*;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use sum_model::SumModel;

/// One reading, as a producer has it.
#[derive(Debug, Clone)]
struct Reading {
    device: String,
    ts: i64,
    x: Option<f64>,
    n: Option<i64>,
}

const AVRO: &str = r#"{"type":"record","name":"Reading","fields":[{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"device","type":"string"},{"name":"n","type":["null","long"]},{"name":"x","type":["double","null"]},{"name":"site","type":"int"}]}"#;

fn descriptor() -> Arc<[u8]> {
    let member = |name: &str, number, ty: Type| FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(ty.into()),
        proto3_optional: Some(true),
        ..Default::default()
    };
    let message = DescriptorProto {
        name: Some("Reading".into()),
        field: vec![
            member("device", 1, Type::String),
            member("ts", 2, Type::Int64),
            member("x", 3, Type::Double),
            member("n", 4, Type::Sint64),
        ],
        ..Default::default()
    };
    let file = FileDescriptorProto {
        name: Some("r.proto".into()),
        message_type: vec![message],
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec().into()
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn zigzag(n: i64, out: &mut Vec<u8>) {
    varint(((n << 1) ^ (n >> 63)) as u64, out);
}

impl Reading {
    fn json(&self) -> Vec<u8> {
        let x = self.x.map_or("null".into(), |x| format!("{x:?}"));
        let n = self.n.map_or("null".into(), |n| n.to_string());
        format!("{{\"device\":\"{}\",\"ts\":{},\"x\":{x},\"n\":{n},\"site\":3}}", self.device, self.ts).into_bytes()
    }

    fn avro(&self) -> Vec<u8> {
        let mut out = vec![0, 0, 0, 0, 9];
        zigzag(self.ts, &mut out);
        zigzag(self.device.len() as i64, &mut out);
        out.extend_from_slice(self.device.as_bytes());
        zigzag(self.n.is_some().into(), &mut out);
        self.n.iter().for_each(|n| zigzag(*n, &mut out));
        zigzag(self.x.is_none().into(), &mut out);
        self.x.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        zigzag(3, &mut out);
        out
    }

    fn protobuf(&self) -> Vec<u8> {
        let mut out = vec![0x0a];
        varint(self.device.len() as u64, &mut out);
        out.extend_from_slice(self.device.as_bytes());
        out.push(0x10);
        varint(self.ts as u64, &mut out);
        if let Some(x) = self.x {
            out.push(0x19);
            out.extend_from_slice(&x.to_le_bytes());
        }
        if let Some(n) = self.n {
            out.push(0x20);
            zigzag(n, &mut out);
        }
        out
    }
}

fn arrow(readings: &[Reading]) -> Vec<u8> {
    let columns: [(&str, ArrayRef); 4] = [
        ("x", Arc::new(Float64Array::from_iter(readings.iter().map(|r| r.x)))),
        ("device", Arc::new(StringArray::from_iter_values(readings.iter().map(|r| &r.device)))),
        ("n", Arc::new(Int64Array::from_iter(readings.iter().map(|r| r.n)))),
        ("ts", Arc::new(TimestampMillisecondArray::from_iter_values(readings.iter().map(|r| r.ts)))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let mut w = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    w.write(&batch).unwrap();
    w.into_inner().unwrap()
}

fn plan(format: FormatSpec) -> Arc<LanePlan> {
    let field = |name: &str, ty, required| FieldSpec { name: name.into(), ty, required };
    let features: Vec<String> = ["m", "k", "c"].map(str::to_owned).to_vec();
    let spec = LaneSpec {
        pipeline: "p".into(),
        config_hash: [1; 32],
        source: SourceSpec {
            name: "readings".into(),
            topic: "t".into(),
            format,
            fields: vec![
                field("device", FieldType::Utf8, true),
                field("n", FieldType::I64, false),
                field("ts", FieldType::TimestampMs, true),
                field("x", FieldType::F64, false),
            ],
            key: "device".into(),
            keyed: false,
            time: "ts".into(),
            max_disorder_ms: 2_000,
            max_future_ms: 60_000,
            device_ttl_ms: None,
            max_record_bytes: 1 << 20,
            signature: None,
        },
        references: Vec::new(),
        sql: vec![
            SqlStepSpec {
                name: "clean".into(),
                from: "readings".into(),
                sql: "SELECT *, 100 / n AS per FROM readings WHERE x > -50 OR x IS NULL".into(),
                window: None,
            },
            SqlStepSpec {
                name: "f".into(),
                from: "clean".into(),
                sql: "SELECT device, avg(x) AS m, max(per) AS k, count(*) AS c FROM clean GROUP BY device".into(),
                window: Some(WindowSpec::Sliding { size_ms: 6_000, every_ms: 2_000 }),
            },
        ],
        scores: vec![ScoreStepSpec {
            name: "a".into(),
            from: "f".into(),
            features: features.clone(),
            model: Arc::new(SumModel(features)),
            decide: DecideSpec::p_values(Some(0.05), Some(0.01)),
        }],
    };
    Arc::new(LanePlan::new(&spec).unwrap())
}

/// How a reading is written.
type Encode = fn(&Reading) -> Vec<u8>;

/// The plan for records whose key is their device.
fn keyed(plan: Arc<LanePlan>) -> Arc<LanePlan> {
    let mut plan = Arc::into_inner(plan).unwrap();
    plan.source.keyed = true;
    Arc::new(plan)
}

fn protobuf() -> FormatSpec {
    FormatSpec::Protobuf(ProtobufSpec { descriptor: descriptor(), message: "Reading".into(), framing: Framing::None })
}

/// What a run leaves behind.
#[derive(Debug, PartialEq)]
struct Left {
    verdicts: Vec<Vec<u8>>,
    dead: Vec<DeadLetter>,
    snapshot: Vec<u8>,
    /// What the plan's steps are, which the snapshot says of the state of each: the format is in it.
    definitions: Vec<[u8; 32]>,
}

impl Left {
    /// The snapshot without the steps' definitions.
    fn state(&self) -> Vec<u8> {
        let mut bytes = self.snapshot.clone();
        for definition in &self.definitions {
            let at: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i..].starts_with(definition)).collect();
            assert!(!at.is_empty(), "the snapshot names the definition of each step");
            at.into_iter().for_each(|i| bytes[i..i + 32].fill(0));
        }
        bytes
    }
}

fn run(plan: &Arc<LanePlan>, records: &[(i64, Vec<u8>)], cuts: &[usize], restore: bool) -> Left {
    let secret = || Secret::new(b"test");
    let mut lane = Lane::new(plan.clone(), 3, secret());
    let mut out = Output::default();
    let raw: Vec<RawRecord<'_>> = records
        .iter()
        .enumerate()
        .map(|(i, (time, v))| RawRecord {
            offset: 10 + i as i64,
            timestamp: *time,
            key: None,
            value: Some(v),
            origin: None,
            signature: None,
        })
        .collect();
    let mut from = 0;
    for to in cuts.iter().copied().chain([records.len()]) {
        let to = to.clamp(from, records.len());
        if let Err(LaneError::NeedSchema { id, .. }) = lane.step(&raw[from..to], &mut out) {
            assert_eq!(id, 9);
            lane.learn_schema(9, SchemaAnswer::Avro(AVRO.as_bytes()));
            lane.step(&raw[from..to], &mut out).unwrap();
        }
        assert!(lane.counters().balanced());
        if restore {
            lane = Lane::restore(plan.clone(), 3, secret(), &lane.snapshot()).unwrap();
        }
        from = to;
    }
    assert_eq!(lane.counters().dead.iter().sum::<u64>(), out.dead.len() as u64);
    Left {
        verdicts: out.verdicts.iter().map(|v| v.to_bytes()).collect(),
        dead: out.dead,
        snapshot: lane.snapshot().bytes,
        definitions: plan.windows.iter().map(|w| w.definition.whole).collect(),
    }
}

fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let row = (0u8..6, -3_000i64..3_000, proptest::option::of(-60.0f64..60.0), proptest::option::of(0i64..5), 0u8..30);
    proptest::collection::vec(row, 1..150).prop_map(|rows| {
        let mut now = 1_700_000_000_000i64;
        rows.into_iter()
            .map(|(device, jitter, x, n, kind)| {
                now += 400;
                let ts = match kind {
                    0 => now + 90_000_000,
                    1 => now - 60_000,
                    _ => now + jitter,
                };
                let device = if kind == 2 { String::new() } else { format!("d{device}") };
                Reading { device, ts, x, n }
            })
            .collect()
    })
}

/// Broker time of a reading: the time it was made at, without its clock's errors.
fn broker(i: usize) -> i64 {
    1_700_000_000_000 + 400 * (i as i64 + 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_same_values_give_the_same_verdicts(readings in readings()) {
        let encoded = |f: fn(&Reading) -> Vec<u8>| -> Vec<(i64, Vec<u8>)> {
            readings.iter().enumerate().map(|(i, r)| (broker(i), f(r))).collect()
        };
        let json = run(&plan(FormatSpec::Json), &encoded(Reading::json), &[], false);
        let others = [
            run(&plan(FormatSpec::Avro), &encoded(Reading::avro), &[], false),
            run(&plan(protobuf()), &encoded(Reading::protobuf), &[], false),
            run(&plan(FormatSpec::Arrow), &encoded(|r| arrow(std::slice::from_ref(r))), &[], false),
        ];
        for other in others {
            prop_assert_eq!(&other.verdicts, &json.verdicts);
            prop_assert_eq!(other.state(), json.state());
            let why = |l: &Left| l.dead.iter().map(|d| (d.offset, d.reason, d.detail.clone())).collect::<Vec<_>>();
            prop_assert_eq!(why(&other), why(&json));
        }
    }

    #[test]
    fn records_of_many_rows_cut_anyhow(
        readings in readings(),
        sizes in proptest::collection::vec(0usize..30, 1..40),
        mut cuts in proptest::collection::vec(0usize..40, 0..20),
        damaged in any::<prop::sample::Index>(),
    ) {
        let mut records = Vec::new();
        let (mut rest, mut at) = (&readings[..], 0);
        for size in sizes.iter().cycle() {
            let (now, later) = rest.split_at((*size).min(rest.len()));
            at += now.len();
            records.push((broker(at), arrow(now)));
            rest = later;
            if rest.is_empty() || records.len() > 300 {
                break;
            }
        }
        let lost = rest.len();
        let damaged = damaged.index(records.len() + 1);
        records.insert(damaged, (broker(0), b"noise".to_vec()));
        let plan = plan(FormatSpec::Arrow);
        cuts.sort_unstable();
        let whole = run(&plan, &records, &[], false);
        let each: Vec<usize> = (0..records.len()).collect();
        prop_assert_eq!(&run(&plan, &records, &cuts, false), &whole);
        prop_assert_eq!(&run(&plan, &records, &cuts, true), &whole);
        prop_assert_eq!(&run(&plan, &records, &each, false), &whole);
        // Every row once: those of the records, and one for the record that could not be decoded.
        let mut lane = Lane::restore(plan, 3, Secret::new(b"test"), &whole.snapshot).unwrap();
        prop_assert_eq!(lane.counters().rows_in as usize, readings.len() - lost + 1);
        let places: Vec<_> = whole.dead.iter().map(|d| (d.offset, d.row)).collect();
        prop_assert!(places.windows(2).all(|w| w[0] < w[1]), "in order, each once: {:?}", places);
        for d in &whole.dead {
            prop_assert_eq!(d.row.is_none(), d.offset == 10 + damaged as i64);
            let bytes = d.to_bytes();
            prop_assert_eq!(&DeadLetter::from_bytes(&bytes).unwrap(), d);
        }
        prop_assert_eq!(lane.step(&[], &mut Output::default()).ok(), Some(()));
    }

    /// Whoever repartitions by device finds the device that the lane finds, and none where the lane finds none: whatever
    /// the format, and however the bytes are damaged.
    #[test]
    fn the_device_is_the_lanes_device(
        readings in readings(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..60),
    ) {
        let formats: [(FormatSpec, Encode); 3] = [
            (FormatSpec::Json, Reading::json),
            (FormatSpec::Avro, Reading::avro),
            (protobuf(), Reading::protobuf),
        ];
        for (format, encode) in formats {
            let mut values: Vec<Option<Vec<u8>>> = readings.iter().map(|r| Some(encode(r))).collect();
            for (at, byte, to) in &damage {
                let value = at.get(&values).clone().unwrap();
                let (at, byte) = (at.index(values.len()), byte.index(value.len()));
                let mut value = value;
                // The schema's id stays: another one would have to be asked for.
                if !(matches!(format, FormatSpec::Avro) && byte < 5) {
                    value[byte] = *to;
                }
                values[at] = Some(value);
            }
            values.push(None);
            values.push(Some(vec![b' '; (1 << 20) + 1]));
            let plan = keyed(plan(format));
            let mut reader = DeviceReader::new(&plan).unwrap();
            let mut lane = Lane::new(plan, 3, Secret::new(b"test"));
            reader.learn_schema(9, SchemaAnswer::Avro(AVRO.as_bytes()));
            lane.learn_schema(9, SchemaAnswer::Avro(AVRO.as_bytes()));
            for (i, value) in values.iter().enumerate() {
                let value = value.as_deref();
                let found = reader.device(value).map(<[u8]>::to_vec);
                let record = |at: i64, key| RawRecord { offset: 2 * i as i64 + at, timestamp: broker(i), key, value, origin: None, signature: None };
                // Under the device that was found the lane takes it, unless it is late or dated in the future; under any
                // other key it does not. Where none was found it dies of the same thing whatever its key.
                let mut right = Output::default();
                lane.step(&[record(0, found.as_deref().ok())], &mut right).unwrap();
                let mut wrong = Output::default();
                lane.step(&[record(1, Some(b"another"))], &mut wrong).unwrap();
                prop_assert_eq!(wrong.dead.len(), 1);
                match found {
                    Ok(_) => {
                        let timely = |d: &DeadLetter| matches!(d.reason, DeadReason::Late | DeadReason::Future | DeadReason::Sql);
                        prop_assert!(right.dead.iter().all(timely), "{:?}", right.dead);
                        prop_assert_eq!(wrong.dead[0].reason, DeadReason::NoDevice);
                    }
                    Err(e) => {
                        for out in [right, wrong] {
                            prop_assert_eq!((out.dead[0].reason, &out.dead[0].detail), (e.reason, &e.detail));
                        }
                    }
                }
            }
            prop_assert!(lane.counters().balanced());
        }
    }

    /// A dead row of a batch is kept as what it was: as JSON it dies of the same thing.
    #[test]
    fn dead_rows_can_be_read_again(readings in readings()) {
        let records: Vec<(i64, Vec<u8>)> = readings.iter().enumerate().map(|(i, r)| (broker(i), arrow(std::slice::from_ref(r)))).collect();
        let left = run(&plan(FormatSpec::Arrow), &records, &[], false);
        for d in left.dead.iter().filter(|d| d.reason != DeadReason::Late) {
            let again = run(&plan(FormatSpec::Json), &[(d.timestamp, d.value.clone().unwrap())], &[], false);
            prop_assert_eq!(again.dead.len(), 1);
            prop_assert_eq!(again.dead[0].reason, d.reason);
        }
    }
}

#[test]
fn a_step_that_needs_a_schema_takes_nothing() {
    let r = Reading { device: "d".into(), ts: 1_700_000_000_000, x: Some(1.0), n: None };
    let value = r.avro();
    let raw = [RawRecord { offset: 0, timestamp: r.ts, key: None, value: Some(&value), origin: None, signature: None }];
    let mut lane = Lane::new(plan(FormatSpec::Avro), 0, Secret::new(b"test"));
    let before = lane.snapshot();
    for _ in 0..2 {
        let e = lane.step(&raw, &mut Output::default()).unwrap_err();
        assert!(matches!(e, LaneError::NeedSchema { id: 9, at: 0 }), "{e}");
        assert_eq!(lane.snapshot(), before);
    }
    let mut out = Output::default();
    lane.learn_schema(9, SchemaAnswer::Unknown);
    lane.step(&raw, &mut out).unwrap();
    assert_eq!((out.dead[0].reason, out.dead[0].detail.contains("schema 9")), (DeadReason::Undecodable, true));
    assert_eq!(out.dead[0].value.as_deref(), Some(&value[..]));
    // The answer of another day.
    lane.learn_schema(9, SchemaAnswer::Avro(AVRO.as_bytes()));
    lane.step(&[RawRecord { offset: 1, ..raw[0] }], &mut out).unwrap();
    assert_eq!((lane.counters().rows_in, lane.counters().rows_used, out.dead.len()), (2, 1, 1));
}

/// A batch larger than a run of the lane, in one record.
#[test]
fn large_records_are_taken_in_bounded_steps() {
    let readings: Vec<Reading> = (0..30_000)
        .map(|i| Reading { device: "d".into(), ts: 1_700_000_000_000 + i, x: Some(i as f64), n: Some(1) })
        .collect();
    let record = arrow(&readings);
    let raw: Vec<RawRecord<'_>> = (0..3)
        .map(|i| RawRecord {
            offset: i,
            timestamp: 1_700_000_000_000,
            key: None,
            value: Some(&record),
            origin: None,
            signature: None,
        })
        .collect();
    let mut lane = Lane::new(plan(FormatSpec::Arrow), 0, Secret::new(b"test"));
    let mut out = Output::default();
    let mut steps = 0;
    let mut rest = &raw[..];
    while !rest.is_empty() {
        let taken = lane.step_some(rest, &mut out).unwrap();
        assert_eq!(taken, 1, "more rows than a run has");
        rest = &rest[taken..];
        steps += 1;
    }
    assert_eq!((steps, lane.counters().rows_in), (3, 90_000));
}
