#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema as ArrowSchema};
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, FingerprintStrategy, SchemaStore};
use arrow_avro::writer::WriterBuilder;
use arrow_avro::writer::format::AvroSoeFormat;
use proptest::prelude::*;

use super::*;
use crate::dead_letter::DeadReason;
use crate::spec::FieldType;

fn field(name: &str, ty: FieldType, required: bool) -> FieldSpec {
    FieldSpec { name: name.into(), ty, required }
}

fn fields() -> Vec<FieldSpec> {
    vec![
        field("device", FieldType::Utf8, true),
        field("n", FieldType::I64, false),
        field("ok", FieldType::Bool, false),
        field("ts", FieldType::TimestampMs, true),
        field("x", FieldType::F64, false),
    ]
}

fn long(n: i64, out: &mut Vec<u8>) {
    let mut z = ((n << 1) ^ (n >> 63)) as u64;
    while z >= 0x80 {
        out.push(z as u8 | 0x80);
        z >>= 7;
    }
    out.push(z as u8);
}

fn text(t: &str, out: &mut Vec<u8>) {
    long(t.len() as i64, out);
    out.extend_from_slice(t.as_bytes());
}

/// A record of schema 7 whose body `f` writes.
fn record(f: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0, 0, 0, 0, 7];
    f(&mut out);
    out
}

fn schema_of(members: &str) -> String {
    format!(r#"{{"type":"record","name":"R","namespace":"acme","fields":[{members}]}}"#)
}

fn decoder(fields: &[FieldSpec], members: &str) -> AvroDecoder {
    let mut d = AvroDecoder::new(fields);
    d.learn(7, SchemaAnswer::Avro(schema_of(members).as_bytes()));
    d
}

const DEVICE: &str = r#"{"name":"device","type":"string"}"#;
const TS: &str = r#"{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}"#;

#[test]
fn a_row_of_every_type() {
    let members = format!(
        r#"{DEVICE},{{"name":"ts","type":"long","logicalType":"timestamp-micros"}},{{"name":"x","type":["null","double"]}},{{"name":"n","type":"int"}},{{"name":"ok","type":"boolean"}}"#
    );
    let mut d = decoder(&fields(), &members);
    let payload = record(|o| {
        text("p-1", o);
        long(1_700_000_000_000_999, o);
        long(1, o);
        o.extend_from_slice(&(-0.25f64).to_le_bytes());
        long(-7, o);
        o.push(1);
    });
    d.decode(&payload).unwrap();
    assert_eq!(d.text(&payload, d.slots()[0]), b"p-1");
    assert_eq!(d.slots()[1..], [Slot::I64(-7), Slot::Bool(true), Slot::Timestamp(1_700_000_000_000), Slot::F64(-0.25)]);
}

/// Fields the pipeline does not name are passed over, of whatever type, and a nullable one that is gone is null.
#[test]
fn evolution() {
    let members = format!(
        r#"{{"name":"a","type":{{"type":"array","items":{{"type":"map","values":["null","string"]}}}}}},{DEVICE},
           {{"name":"b","type":{{"type":"enum","name":"E","symbols":["P","Q"]}}}},{{"name":"c","type":{{"type":"fixed","name":"F","size":3}}}},
           {TS},{{"name":"d","type":{{"type":"record","name":"Inner","fields":[{{"name":"e","type":"E"}},{{"name":"next","type":["null","Inner"]}}]}}}},
           {{"name":"f","type":"bytes"}},{{"name":"g","type":"float"}},{{"name":"x","type":"float"}}"#
    );
    let mut d = decoder(&fields(), &members);
    let payload = record(|o| {
        // Two maps in a block, one with a size; then the end.
        long(1, o);
        long(1, o);
        text("k", o);
        long(1, o);
        text("v", o);
        long(0, o);
        long(-5, o);
        long(1, o);
        long(0, o);
        // The size was that of one byte; the array goes on.
        long(0, o);
        text("p-1", o);
        long(1, o);
        o.extend_from_slice(b"abc");
        long(5, o);
        long(0, o);
        long(1, o);
        long(1, o);
        long(0, o);
        text("bytes", o);
        o.extend_from_slice(&1.5f32.to_le_bytes());
        o.extend_from_slice(&2.5f32.to_le_bytes());
    });
    d.decode(&payload).unwrap();
    assert_eq!(d.text(&payload, d.slots()[0]), b"p-1");
    assert_eq!(d.slots()[1..], [Slot::Missing, Slot::Missing, Slot::Timestamp(5), Slot::F64(2.5)]);
}

#[test]
fn nested_fields_enums_and_unions() {
    let fields = vec![
        field("device", FieldType::Utf8, true),
        field("motor.temp", FieldType::F64, false),
        field("state", FieldType::Utf8, false),
        field("ts", FieldType::TimestampMs, true),
    ];
    let members = format!(
        r#"{DEVICE},{{"name":"motor","type":["null",{{"type":"record","name":"M","fields":[{{"name":"rpm","type":"int"}},{{"name":"temp","type":["double","string","null","int"]}}]}}]}},
           {{"name":"state","type":{{"type":"enum","name":"S","symbols":["ON","OFF"]}}}},{{"name":"ts","type":["string","long"]}}"#
    );
    let mut d = decoder(&fields, &members);
    let rest = |o: &mut Vec<u8>| {
        long(1, o);
        long(0, o);
        text("1970-01-01T00:00:01Z", o);
    };
    let there = record(|o| {
        text("p", o);
        long(1, o);
        long(900, o);
        long(3, o);
        long(41, o);
        rest(o);
    });
    d.decode(&there).unwrap();
    assert_eq!(d.slots()[1], Slot::F64(41.0));
    assert_eq!(d.text(&there, d.slots()[2]), b"OFF");
    assert_eq!(d.slots()[3], Slot::Timestamp(1_000));
    let gone = record(|o| {
        text("p", o);
        long(0, o);
        rest(o);
    });
    d.decode(&gone).unwrap();
    assert_eq!(d.slots()[1], Slot::Null);
    let other = record(|o| {
        text("p", o);
        long(1, o);
        long(900, o);
        long(1, o);
        text("hot", o);
        rest(o);
    });
    let e = d.decode(&other).unwrap_err();
    assert_eq!((e.reason, e.detail.contains("motor.temp")), (DeadReason::Schema, true), "{}", e.detail);
}

#[test]
fn what_is_wrong_is_said() {
    let mut seen = String::new();
    let mut say = |what: &str, e: RowError| seen.push_str(&format!("{what}\n    {}: {}\n", e.reason.name(), e.detail));
    let good = format!(r#"{DEVICE},{TS},{{"name":"x","type":"double"}}"#);
    let body = |o: &mut Vec<u8>| {
        text("p", o);
        long(5, o);
        o.extend_from_slice(&1f64.to_le_bytes());
    };
    for (what, members) in [
        ("x became text", format!(r#"{DEVICE},{TS},{{"name":"x","type":"string"}}"#)),
        (
            "x became an array",
            format!(r#"{DEVICE},{TS},{{"name":"x","type":["null",{{"type":"array","items":"double"}}]}}"#),
        ),
        ("ts became a double", format!(r#"{DEVICE},{{"name":"ts","type":"double"}}"#)),
        ("no ts", DEVICE.to_owned()),
        ("a schema that is broken", r#"{"name":"x","type":"nothing"}"#.to_owned()),
        ("a field without type", r#"{"name":"x"}"#.to_owned()),
    ] {
        say(what, decoder(&fields(), &members).decode(&record(body)).unwrap_err());
    }
    for (what, answer) in [
        ("unknown", SchemaAnswer::Unknown),
        ("of another kind", SchemaAnswer::Unusable("it is PROTOBUF, not AVRO")),
        ("not JSON", SchemaAnswer::Avro(b"{")),
        ("not a record", SchemaAnswer::Avro(b"\"long\"")),
    ] {
        let mut d = AvroDecoder::new(&fields());
        d.learn(7, answer);
        say(what, d.decode(&record(body)).unwrap_err());
    }
    let mut d = decoder(&fields(), &good);
    for (what, payload) in [
        ("JSON", br#"{"device":"p"}"#.to_vec()),
        ("a container file", b"Obj\x01\x02\x16".to_vec()),
        ("another magic byte", vec![1, 0, 0, 0, 7]),
        ("only a frame", vec![0, 0, 0]),
        ("nothing", vec![]),
        ("cut off", record(|o| text("p", o))),
        (
            "bytes left over",
            record(|o| {
                body(o);
                o.push(9);
            }),
        ),
        (
            "not a number",
            record(|o| {
                text("p", o);
                long(5, o);
                o.extend_from_slice(&f64::NAN.to_le_bytes());
            }),
        ),
        (
            "a time before 1970",
            record(|o| {
                text("p", o);
                long(-5, o);
                o.extend_from_slice(&1f64.to_le_bytes());
            }),
        ),
        (
            "not UTF-8",
            record(|o| {
                long(1, o);
                o.push(0xff);
                long(5, o);
            }),
        ),
        ("a length beyond the end", record(|o| long(i64::MAX, o))),
        ("a negative length", record(|o| long(-1, o))),
        ("an endless integer", record(|o| o.extend_from_slice(&[0xff; 12]))),
        ("a schema not given", vec![0, 0, 0, 0, 8, 1]),
    ] {
        say(what, d.decode(&payload).unwrap_err());
    }
    insta::assert_snapshot!(seen);
}

/// Values that take no bytes can be counted without end, and types can contain themselves.
#[test]
fn small_records_cannot_make_much_work() {
    let fan_out: String = (0..35)
        .map(|i| format!(r#"{{"type":"record","name":"L{i}","fields":[{{"name":"a","type":"#))
        .collect::<String>()
        + "\"null\""
        + &(0..35)
            .rev()
            .map(|i| {
                format!(
                    r#"}},{{"name":"b","type":"{}"}}]}}"#,
                    if i == 34 { "null".into() } else { format!("acme.L{}", i + 1) }
                )
            })
            .collect::<String>();
    for (name, ty) in [
        ("array of null", r#"{"type":"array","items":"null"}"#.to_owned()),
        ("array of empty records", r#"{"type":"array","items":{"type":"record","name":"Z","fields":[]}}"#.to_owned()),
        ("records of records of nothing", fan_out),
    ] {
        let mut d = decoder(&fields(), &format!(r#"{{"name":"a","type":{ty}}},{DEVICE},{TS}"#));
        let payload = record(|o| {
            if name.starts_with("array") {
                long(i64::MAX, o);
                long(0, o);
            }
            text("p", o);
            long(5, o);
        });
        assert_eq!(d.decode(&payload), Ok(()), "{name}");
    }
    let mut d = decoder(
        &fields(),
        &format!(
            r#"{{"name":"a","type":{{"type":"record","name":"Own","fields":[{{"name":"own","type":"Own"}}]}}}},{DEVICE},{TS}"#
        ),
    );
    assert!(d.decode(&record(|o| text("p", o))).unwrap_err().detail.contains("nested deeper"));
}

#[test]
fn schemas_are_asked_for_once() {
    let mut d = AvroDecoder::new(&fields());
    let payload = record(|o| text("p", o));
    assert_eq!(d.schema_needed(&payload), Some(7));
    d.learn(7, SchemaAnswer::Unknown);
    assert_eq!(d.schema_needed(&payload), None);
    d.forget(7);
    assert_eq!(d.schema_needed(&payload), Some(7));
    assert_eq!(d.schema_needed(b"{}"), None, "what is no Avro needs no schema");
}

/// Records as `arrow-avro` writes them, one by one.
fn written_by_arrow_avro(batch: &RecordBatch, id: u32) -> (String, Vec<Vec<u8>>) {
    let mut schema = String::new();
    let records = (0..batch.num_rows())
        .map(|i| {
            let mut w = WriterBuilder::new(batch.schema().as_ref().clone())
                .with_fingerprint_strategy(FingerprintStrategy::Id(id))
                .build::<_, AvroSoeFormat>(Vec::new())
                .unwrap();
            w.write(&batch.slice(i, 1)).unwrap();
            w.finish().unwrap();
            w.into_inner()
        })
        .collect();
    if let Ok(s) = AvroSchema::try_from(batch.schema().as_ref()) {
        schema = s.json_string;
    }
    (schema, records)
}

type Values = (String, Option<f64>, Option<i64>, Option<bool>);

fn batch(rows: &[Values]) -> RecordBatch {
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("device", Arc::new(StringArray::from_iter_values(rows.iter().map(|r| &r.0))), false),
        ("ts", Arc::new(Int64Array::from_iter_values(0..rows.len() as i64)), false),
        ("x", Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.1))), true),
        ("n", Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.2))), true),
        ("ok", Arc::new(BooleanArray::from_iter(rows.iter().map(|r| r.3))), true),
    ];
    let fields: Vec<Field> = columns.iter().map(|(n, a, null)| Field::new(*n, a.data_type().clone(), *null)).collect();
    assert!(fields.iter().any(|f| *f.data_type() == DataType::Boolean));
    RecordBatch::try_new(Arc::new(ArrowSchema::new(fields)), columns.into_iter().map(|(_, a, _)| a).collect()).unwrap()
}

fn values() -> impl Strategy<Value = Vec<Values>> {
    let x = proptest::option::of(proptest::num::f64::NORMAL | proptest::num::f64::ZERO);
    proptest::collection::vec((".{0,12}", x, any::<Option<i64>>(), any::<Option<bool>>()), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn agrees_with_arrow_avro(rows in values()) {
        let batch = batch(&rows);
        let (schema, records) = written_by_arrow_avro(&batch, 7);
        let mut ours = AvroDecoder::new(&fields());
        ours.learn(7, SchemaAnswer::Avro(schema.as_bytes()));
        let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
        store.set(Fingerprint::Id(7), AvroSchema::new(schema)).unwrap();
        let mut theirs = ReaderBuilder::new().with_writer_schema_store(store).build_decoder().unwrap();
        for r in &records {
            theirs.decode(r).unwrap();
        }
        let read = theirs.flush().unwrap().unwrap();
        for (i, payload) in records.iter().enumerate() {
            ours.decode(payload).unwrap();
            let slots = ours.slots();
            prop_assert_eq!(ours.text(payload, slots[0]), read.column(0).as_string::<i32>().value(i).as_bytes());
            let n = read.column(3).as_primitive::<Int64Type>();
            prop_assert_eq!(slots[1], if n.is_null(i) { Slot::Null } else { Slot::I64(n.value(i)) });
            let ok = read.column(4).as_boolean();
            prop_assert_eq!(slots[2], if ok.is_null(i) { Slot::Null } else { Slot::Bool(ok.value(i)) });
            prop_assert_eq!(slots[3], Slot::Timestamp(i as i64));
            let x = read.column(2).as_primitive::<Float64Type>();
            prop_assert_eq!(slots[4], if x.is_null(i) { Slot::Null } else { Slot::F64(x.value(i)) });
        }
    }

    /// Whatever is changed in a record, it is a row or an error, and never a panic; what decodes has its required fields.
    #[test]
    fn changed_records(
        rows in values(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let members = format!(
            r#"{{"name":"a","type":{{"type":"array","items":["null",{{"type":"map","values":"E"}}]}},"default":[]}},{DEVICE},{TS}"#
        )
        .replace("\"E\"", r#"{"type":"enum","name":"E","symbols":["P","Q"]}"#);
        for (name, _, n, _) in rows {
            let mut d = decoder(&fields(), &members);
            let mut payload = record(|o| {
                long(2, o);
                long(0, o);
                long(1, o);
                long(1, o);
                text("key", o);
                long(1, o);
                long(0, o);
                long(0, o);
                text(&name, o);
                long(n.unwrap_or(0) & 0xffff_ffff, o);
            });
            prop_assert_eq!(d.decode(&payload), Ok(()));
            for (at, byte) in &edits {
                let at = at.index(payload.len());
                payload[at] = *byte;
            }
            if let Some(cut) = &cut {
                payload.truncate(cut.index(payload.len()));
            }
            if d.decode(&payload).is_ok() {
                prop_assert!(matches!(d.slots()[3], Slot::Timestamp(_)));
                prop_assert!(std::str::from_utf8(d.text(&payload, d.slots()[0])).is_ok());
            }
        }
    }

    #[test]
    fn any_schema_text(json in "[\\[\\]{}\":,a-z0-9 ]{0,80}") {
        let mut d = AvroDecoder::new(&fields());
        d.learn(7, SchemaAnswer::Avro(json.as_bytes()));
        prop_assert!(d.decode(&record(|o| text("p", o))).is_err());
    }
}
