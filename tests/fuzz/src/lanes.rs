//! Lanes fed with any bytes as the values of records, or restored from any bytes.

use std::sync::{Arc, LazyLock};

use avouch_engine::admit::Admission;
use avouch_engine::decode::{RawRecord, SchemaAnswer};
use avouch_engine::device::DeviceTable;
use avouch_engine::ingest::{Decoding, Ingest};
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{
    DecideSpec, FieldSpec, FieldType, FormatSpec, Framing, LaneSpec, ProtobufSpec, ScoreStepSpec, SourceSpec,
    SqlStepSpec, WindowSpec,
};
use avouch_engine::verdict::Secret;

use crate::formats;
use crate::sum_model::SumModel;

/// Divides an input into records.
const CUT: u8 = 0x1e;
const BROKER: i64 = 1_700_000_000_000;

fn source(format: FormatSpec) -> SourceSpec {
    let field = |name: &str, ty, required| FieldSpec { name: name.into(), ty, required };
    SourceSpec {
        name: "readings".into(),
        topic: "t".into(),
        format,
        fields: vec![
            field("device", FieldType::Utf8, true),
            field("n", FieldType::I64, false),
            field("ok", FieldType::Bool, false),
            field("ts", FieldType::TimestampMs, true),
            field("x", FieldType::F64, false),
        ],
        key: "device".into(),
        time: "ts".into(),
        max_disorder_ms: 2_000,
        max_future_ms: 60_000,
        device_ttl_ms: Some(3_600_000),
        max_record_bytes: 1 << 16,
        signature: None,
        keyed: false,
    }
}

fn plan(format: FormatSpec) -> Arc<LanePlan> {
    match LanePlan::new(&spec(format)) {
        Ok(plan) => Arc::new(plan),
        Err(e) => panic!("the targets' own plan: {e:?}"),
    }
}

pub(crate) fn spec(format: FormatSpec) -> LaneSpec {
    let features: Vec<String> = ["m", "k", "c"].map(str::to_owned).to_vec();
    let step = |name: &str, from: &str, sql: &str, window| SqlStepSpec {
        name: name.into(),
        from: from.into(),
        sql: sql.into(),
        window,
    };
    LaneSpec {
        pipeline: "p".into(),
        config_hash: [1; 32],
        source: source(format),
        references: Vec::new(),
        sql: vec![
            step(
                "clean",
                "readings",
                "SELECT *, lag(n) AS before, delta(x) AS change FROM readings WHERE x > -50 OR x IS NULL",
                None,
            ),
            step(
                "f",
                "clean",
                "SELECT device, avg(x) AS m, max(before) AS k, count(*) AS c FROM clean GROUP BY device",
                Some(WindowSpec::Sliding { size_ms: 6_000, every_ms: 2_000 }),
            ),
        ],
        scores: vec![ScoreStepSpec {
            name: "a".into(),
            from: "f".into(),
            features: features.clone(),
            model: Arc::new(SumModel(features)),
            decide: DecideSpec::p_values(Some(0.05), Some(0.01)),
        }],
    }
}

pub(crate) fn secret() -> Secret {
    Secret::new(b"fuzz")
}

fn answer(id: u32) -> SchemaAnswer<'static> {
    formats::AVRO.get(id as usize & 3).map_or(SchemaAnswer::Unknown, |s| SchemaAnswer::Avro(s.as_bytes()))
}

/// Takes records; asks for schemas as a runtime does.
fn step(lane: &mut Lane, records: &[RawRecord<'_>], out: &mut Output) {
    let mut rest = records;
    while !rest.is_empty() {
        match lane.step_some(rest, out) {
            Ok(n) => {
                assert!(n > 0, "a step takes something");
                rest = &rest[n..];
            }
            Err(LaneError::NeedSchema { at: 0, id }) => lane.learn_schema(id, answer(id)),
            Err(LaneError::NeedSchema { at, .. }) => {
                let (now, _) = rest.split_at(at);
                step(lane, now, out);
                rest = &rest[at..];
            }
            Err(e) => panic!("no record stops a lane: {e}"),
        }
    }
}

/// However the records are cut, every row is used or a dead letter, and the lane ends in the same state.
fn feed(plan: &Arc<LanePlan>, data: &[u8]) {
    let values: Vec<&[u8]> = data.split(|b| *b == CUT).take(64).collect();
    let record = |(i, value): (usize, &&'_ [u8])| -> (i64, Vec<u8>) { (i as i64, value.to_vec()) };
    let owned: Vec<(i64, Vec<u8>)> = values.iter().enumerate().map(record).collect();
    let raw: Vec<RawRecord<'_>> = owned
        .iter()
        .map(|(offset, value)| RawRecord {
            offset: *offset,
            timestamp: BROKER + offset * 400,
            key: None,
            value: Some(value),
            origin: None,
            signature: None,
        })
        .collect();
    let (mut whole, mut each) = (Lane::new(plan.clone(), 0, secret()), Lane::new(plan.clone(), 0, secret()));
    let (mut out, mut bit_by_bit) = (Output::default(), Output::default());
    step(&mut whole, &raw, &mut out);
    for r in &raw {
        step(&mut each, std::slice::from_ref(r), &mut bit_by_bit);
    }
    assert!(whole.counters().balanced());
    assert_eq!(whole.counters().dead.iter().sum::<u64>(), out.dead.len() as u64);
    assert_eq!(whole.snapshot().bytes, each.snapshot().bytes, "cut otherwise, another state");
    assert_eq!(out.dead, bit_by_bit.dead);
    assert_eq!(out.verdicts.len(), bit_by_bit.verdicts.len());
    for (a, b) in out.verdicts.iter().zip(&bit_by_bit.verdicts) {
        assert_eq!(a.to_bytes(), b.to_bytes());
    }
    match Lane::restore(plan.clone(), 0, secret(), &whole.snapshot()) {
        Ok(restored) => assert_eq!(restored.snapshot().bytes, whole.snapshot().bytes),
        Err(e) => panic!("a lane's own snapshot: {e}"),
    }
}

static JSON: LazyLock<Arc<LanePlan>> = LazyLock::new(|| plan(FormatSpec::Json));

pub fn json(data: &[u8]) {
    feed(&JSON, data);
}

pub fn json_seeds() -> Vec<Vec<u8>> {
    let rows = [
        r#"{"device":"a","ts":1700000000000,"x":1.5,"n":3,"ok":true,"site":{"a":[1,"é\n",null]}}"#,
        r#"{"ts":"2023-11-14T22:13:21.5+01:00","device":"b","x":-1e-7,"n":null}"#,
        r#"{"device":"a","ts":1700000009000,"x":1e400,"n":9223372036854775808}"#,
    ];
    vec![rows[0].into(), rows[1].into(), rows.join("\u{1e}").into_bytes()]
}

pub fn avro(data: &[u8]) {
    static PLAN: LazyLock<Arc<LanePlan>> = LazyLock::new(|| plan(FormatSpec::Avro));
    feed(&PLAN, data);
}

pub fn avro_seeds() -> Vec<Vec<u8>> {
    let reading = formats::avro_reading();
    let mut two = reading.clone();
    two.push(CUT);
    two.extend(&reading);
    vec![reading, two, vec![0, 0, 0, 0, 1, 0], vec![0, 0, 0, 0, 2, 1, 2, 3, 0, 2, b'a', 0, 2]]
}

/// A schema from outside, and a record of it behind the first byte 255.
pub fn avro_schema(data: &[u8]) {
    let cut = data.iter().position(|b| *b == 0xff).unwrap_or(data.len());
    let (schema, body) = (&data[..cut], data.get(cut + 1..).unwrap_or_default());
    static SOURCE: LazyLock<(SourceSpec, Decoding)> = LazyLock::new(|| decoding(FormatSpec::Avro));
    let (source, decoding) = &*SOURCE;
    let mut ingest = Ingest::new(source, decoding, 0, 3);
    ingest.learn_schema(9, SchemaAnswer::Avro(schema));
    let mut value = vec![0, 0, 0, 0, 9];
    value.extend_from_slice(body);
    take(&mut ingest, &value);
}

pub fn avro_schema_seeds() -> Vec<Vec<u8>> {
    let with = |schema: &str, body: &[u8]| [schema.as_bytes(), &[0xff], body].concat();
    vec![
        with(formats::AVRO[0], &formats::avro_reading()[5..]),
        with(formats::AVRO[1], &[0, 2, b'a', 2]),
        with(formats::AVRO[2], &[1, 2, 3, 0, 2, b'a', 2, 0]),
    ]
}

fn decoding(format: FormatSpec) -> (SourceSpec, Decoding) {
    let source = source(format);
    match Decoding::new(&source) {
        Ok(decoding) => (source, decoding),
        Err(e) => panic!("the targets' own source: {e:?}"),
    }
}

/// Takes one record to its end.
fn take(ingest: &mut Ingest, value: &[u8]) {
    let mut records =
        vec![RawRecord { offset: 0, timestamp: BROKER, key: None, value: Some(value), origin: None, signature: None }];
    let (mut admission, mut devices) = (Admission::new(2_000, 60_000, Vec::new()), DeviceTable::new(secret(), None));
    let (mut dead, mut rows, mut rows_in) = (Vec::new(), 0, 0);
    while !records.is_empty() {
        match ingest.run(&records, &mut admission, &mut devices, None, &mut dead) {
            Ok(run) => {
                assert!(run.taken > 0 || run.rows_in > 0, "a run takes something");
                rows += run.rows.len() as u64;
                rows_in += run.rows_in;
                records.drain(..run.taken);
            }
            Err(e) => panic!("no record stops ingest: {e}"),
        }
    }
    assert_eq!(rows_in, rows + dead.len() as u64);
}

fn protobuf_spec(descriptor: Vec<u8>, framing: Framing) -> FormatSpec {
    FormatSpec::Protobuf(ProtobufSpec { descriptor: descriptor.into(), message: "Reading".into(), framing })
}

pub fn protobuf(data: &[u8]) {
    static PLAN: LazyLock<[Arc<LanePlan>; 2]> = LazyLock::new(|| {
        [Framing::None, Framing::Confluent].map(|framing| plan(protobuf_spec(formats::descriptor(), framing)))
    });
    for plan in &*PLAN {
        feed(plan, data);
    }
}

pub fn protobuf_seeds() -> Vec<Vec<u8>> {
    let reading = formats::protobuf_reading();
    let framed = [&[0, 0, 0, 0, 1, 0], reading.as_slice()].concat();
    vec![reading.clone(), framed, [reading.as_slice(), &[CUT], &reading].concat()]
}

/// A descriptor set from outside, and a message of it behind the first two bytes 255.
pub fn protobuf_descriptor(data: &[u8]) {
    let cut = data.windows(2).position(|w| w == [0xff, 0xff]).unwrap_or(data.len());
    let (descriptor, body) = (&data[..cut], data.get(cut + 2..).unwrap_or_default());
    let source = source(protobuf_spec(descriptor.to_vec(), Framing::None));
    if let Ok(decoding) = Decoding::new(&source) {
        take(&mut Ingest::new(&source, &decoding, 0, 3), body);
    }
}

pub fn descriptor_seeds() -> Vec<Vec<u8>> {
    vec![[formats::descriptor().as_slice(), &[0xff, 0xff], &formats::protobuf_reading()].concat()]
}

pub fn arrow(data: &[u8]) {
    // One record: the stream's own bytes may hold the cut.
    static PLAN: LazyLock<Arc<LanePlan>> = LazyLock::new(|| plan(FormatSpec::Arrow));
    let raw = RawRecord { offset: 0, timestamp: BROKER, key: None, value: Some(data), origin: None, signature: None };
    let mut lane = Lane::new(PLAN.clone(), 0, secret());
    let mut out = Output::default();
    step(&mut lane, &[raw], &mut out);
    assert!(lane.counters().balanced());
}

pub fn arrow_seeds() -> Vec<Vec<u8>> {
    vec![formats::arrow_stream()]
}

/// What follows the version and the pipeline's digest in a lane's state.
pub fn state(data: &[u8]) {
    let own = Lane::new(JSON.clone(), 0, secret()).snapshot().bytes;
    let bytes = [&own[..34], data].concat();
    let Ok(mut lane) = Lane::restore(JSON.clone(), 0, secret(), &bytes) else { return };
    let written = lane.snapshot().bytes;
    match Lane::restore(JSON.clone(), 0, secret(), &written) {
        Ok(again) => assert_eq!(again.snapshot().bytes, written, "a state is written the same again"),
        Err(e) => panic!("a state that was accepted, written again: {e}"),
    }
    let value = br#"{"device":"a","ts":1700000000000,"x":1.5,"n":3}"#;
    let record = |offset| RawRecord {
        offset,
        timestamp: BROKER,
        key: None,
        value: Some(&value[..]),
        origin: None,
        signature: None,
    };
    let mut out = Output::default();
    // A state may make the lane refuse to go on; it must not make it panic.
    let _ = lane.step(&[record(i64::MAX - 1)], &mut out);
}

pub fn state_seeds() -> Vec<Vec<u8>> {
    let mut lane = Lane::new(JSON.clone(), 0, secret());
    let mut out = Output::default();
    let mut seeds = vec![lane.snapshot().bytes[34..].to_vec()];
    for (offset, value) in json_seeds().iter().enumerate() {
        step(
            &mut lane,
            &[RawRecord {
                offset: offset as i64,
                timestamp: BROKER,
                key: None,
                value: Some(value),
                origin: None,
                signature: None,
            }],
            &mut out,
        );
        seeds.push(lane.snapshot().bytes[34..].to_vec());
    }
    seeds
}
