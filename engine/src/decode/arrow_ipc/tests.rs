#![allow(clippy::unwrap_used)]
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, DictionaryArray, Float32Array, Float64Array, Int32Array, Int64Array, LargeStringArray,
    ListArray, NullArray, RecordBatch, StringArray, StringViewArray, StructArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, UInt8Array, UInt64Array,
};
use arrow::datatypes::{DataType, Int8Type, Int32Type};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use proptest::prelude::*;

use super::*;
use crate::ingest::Values;
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

fn stream(batches: &[RecordBatch], compression: Option<CompressionType>) -> Vec<u8> {
    let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
    let mut w = StreamWriter::try_new_with_options(Vec::new(), &batches[0].schema(), options).unwrap();
    batches.iter().for_each(|b| w.write(b).unwrap());
    w.into_inner().unwrap()
}

fn batch(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.iter().map(|(n, a)| (*n, a.clone(), true))).unwrap()
}

type Decoded = Result<(usize, Vec<Column>, Vec<Fault>), RowError>;

fn decode_with(fields: &[FieldSpec], payload: &[u8], max_record_bytes: usize) -> Decoded {
    let mut columns: Vec<Column> = fields.iter().map(|f| Column::new(f.ty)).collect();
    let mut faults = Vec::new();
    let n = ArrowDecoder::new(fields, max_record_bytes).decode(payload, &mut columns, &mut faults)?;
    for c in &columns {
        assert_eq!(c.len(), n);
        assert!(c.valid.as_ref().is_none_or(|v| v.len() == n));
    }
    Ok((n, columns, faults))
}

fn decode(payload: &[u8]) -> Decoded {
    decode_with(&fields(), payload, 1 << 20)
}

fn columns(rows: i64) -> Vec<(&'static str, ArrayRef)> {
    let n = 0..rows;
    vec![
        ("device", Arc::new(StringArray::from_iter_values(n.clone().map(|i| format!("p-{}", i % 3))))),
        ("ts", Arc::new(TimestampMillisecondArray::from_iter_values(n.clone()).with_timezone("UTC"))),
        ("x", Arc::new(Float64Array::from_iter(n.clone().map(|i| (i % 4 != 1).then_some(i as f64 / 8.0))))),
        ("n", Arc::new(Int64Array::from_iter_values(n.clone().map(|i| i - 2)))),
        ("ok", Arc::new(BooleanArray::from_iter(n.map(|i| Some(i % 2 == 0))))),
    ]
}

fn text(c: &Column, i: usize) -> &str {
    std::str::from_utf8(c.text(i)).unwrap()
}

#[test]
fn rows_of_several_batches() {
    for compression in [None, Some(CompressionType::LZ4_FRAME), Some(CompressionType::ZSTD)] {
        let all = batch(&columns(700));
        let (n, got, faults) =
            decode(&stream(&[all.slice(0, 300), all.slice(300, 1), all.slice(301, 399)], compression)).unwrap();
        assert_eq!((n, faults.len()), (700, 0));
        for i in 0..700 {
            assert_eq!(text(&got[0], i), format!("p-{}", i % 3));
            assert_eq!(got[4].is_null(i), i % 4 == 1);
        }
        assert_eq!(got[1].values, Values::I64((0..700).map(|i| i - 2).collect()));
        assert_eq!(got[2].values, Values::Bool((0..700).map(|i| i % 2 == 0).collect()));
        assert_eq!(got[3].values, Values::Time((0..700).collect()));
        let Values::F64(x) = &got[4].values else { panic!() };
        assert_eq!((x[0], x[699]), (0.0, 699.0 / 8.0));
    }
}

/// Every type a field takes, columns nobody named of every shape, and nullable columns that are not there.
#[test]
fn types_and_evolution() {
    let named: Vec<Vec<(&str, ArrayRef)>> = vec![
        vec![
            ("device", Arc::new(LargeStringArray::from(vec!["a", "é"]))),
            ("ts", Arc::new(TimestampMicrosecondArray::from(vec![1_999, 2_000]))),
            ("x", Arc::new(Float32Array::from(vec![0.5, 1.5]))),
            ("n", Arc::new(UInt8Array::from(vec![7, 255]))),
        ],
        vec![
            ("device", Arc::new(StringViewArray::from(vec!["a", "é"]))),
            ("ts", Arc::new(StringArray::from(vec!["1970-01-01T00:00:00.001Z", "1970-01-01T00:00:00.002Z"]))),
            ("x", Arc::new(Int32Array::from(vec![Some(1), None]))),
        ],
        vec![
            ("device", Arc::new(DictionaryArray::<Int8Type>::from_iter(["a", "é"]))),
            ("ts", Arc::new(Int64Array::from(vec![1, 2]))),
        ],
    ];
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let inner: ArrayRef = Arc::new(StringViewArray::from(vec!["a text too long to be inlined", "b"]));
    let others: Vec<(&str, ArrayRef)> = vec![
        ("list", Arc::new(list)),
        (
            "struct",
            Arc::new(
                StructArray::try_from(vec![
                    ("v", inner),
                    ("d", Arc::new(DictionaryArray::<Int32Type>::from_iter(["q", "q"])) as ArrayRef),
                ])
                .unwrap(),
            ),
        ),
        ("null", Arc::new(NullArray::new(2))),
        ("more", Arc::new(StringArray::from(vec!["m", "n"]))),
    ];
    for named in named {
        for compression in [None, Some(CompressionType::ZSTD)] {
            let mut columns = others.clone();
            // Between the others, so that passing over them is tested on both sides.
            named.iter().cloned().enumerate().for_each(|(i, c)| columns.insert(1 + 2 * i.min(2), c));
            let (n, got, faults) = decode(&stream(&[batch(&columns)], compression)).unwrap();
            assert_eq!((n, faults.len()), (2, 0));
            assert_eq!((text(&got[0], 0), text(&got[0], 1)), ("a", "é"));
            assert_eq!(got[3].values, Values::Time(vec![1, 2]));
            assert!(got[2].is_null(0) && got[2].is_null(1));
        }
    }
}

#[test]
fn faults_are_of_their_row() {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("device", Arc::new(StringArray::from(vec![Some("a"), None, Some("c"), Some("d")]))),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![Some(1), Some(2), Some(-3), None]))),
        ("x", Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(1.0), Some(f64::INFINITY)]))),
        ("n", Arc::new(UInt64Array::from(vec![1, u64::MAX, 2, 3]))),
    ];
    let (n, got, faults) = decode(&stream(&[batch(&columns)], None)).unwrap();
    assert_eq!(n, 4);
    assert!(got[0].is_null(1) && got[3].is_null(3), "the nulls are for admission to judge");
    let mut said: Vec<String> = faults.iter().map(|f| format!("{} {}", f.row, f.detail)).collect();
    said.sort();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn what_is_wrong_is_said() {
    let mut seen = String::new();
    let mut say = |what: &str, payload: &[u8]| match decode(payload) {
        Ok((n, _, _)) => seen.push_str(&format!("{what}\n    ({n} rows)\n")),
        Err(e) => seen.push_str(&format!("{what}\n    {}: {}\n", e.reason.name(), e.detail)),
    };
    let good = columns(4);
    let with = |at: usize, name: &'static str, a: ArrayRef| {
        let mut c = good.clone();
        c[at] = (name, a);
        stream(&[batch(&c)], None)
    };
    say("x became text", &with(2, "x", Arc::new(StringArray::from(vec!["a"; 4]))));
    say("n became a double", &with(3, "n", Arc::new(Float64Array::from(vec![1.0; 4]))));
    say("device became a number", &with(0, "device", Arc::new(Int64Array::from(vec![1; 4]))));
    say("x is null in every row, which is allowed", &with(2, "x", Arc::new(NullArray::new(4))));
    say("no ts", &with(1, "time", good[1].1.clone()));
    let plain = stream(&[batch(&good)], None);
    say("as it should be", &plain);
    say("cut off in its schema", &plain[..40]);
    say("cut off in a body", &plain[..plain.len() - 40]);
    say("cut off between messages, which is allowed", &plain[..plain.len() - 8]);
    say("two streams", &[&plain[..], &plain[..]].concat());
    say("JSON", br#"{"device":"p"}"#);
    say("a file", b"ARROW1\0\0");
    say("nothing", b"");
    say("noise", b"\xff\xff\xff\xff\x08\0\0\0noise!!!");
    say("a schema and no batch", &stream(&[batch(&good).slice(0, 0)], None));
    insta::assert_snapshot!(seen);
}

/// A small record that says it is large.
#[test]
fn what_unfolds_is_bounded() {
    let long = "x".repeat(100_000);
    let dictionary = DictionaryArray::<Int8Type>::from_iter(std::iter::repeat_n(long.as_str(), 60_000));
    let mut many = columns(60_000);
    many[0].1 = Arc::new(dictionary);
    let e = decode(&stream(&[batch(&many)], None)).unwrap_err();
    assert_eq!((e.reason, e.detail.contains("16 times")), (DeadReason::TooLarge, true), "{}", e.detail);
    let zeros = batch(&[
        ("device", Arc::new(DictionaryArray::<Int8Type>::from_iter(std::iter::repeat_n("a", 60_000))) as ArrayRef),
        ("ts", Arc::new(Int64Array::from(vec![0; 60_000]))),
    ]);
    let small = stream(&[zeros], Some(CompressionType::ZSTD));
    assert!(small.len() < 10_000);
    assert_eq!(decode_with(&fields(), &small, 1 << 20).unwrap().0, 60_000);
    assert_eq!(decode_with(&fields(), &small, small.len()).unwrap_err().reason, DeadReason::TooLarge);
    let many = batch(&columns(70_000));
    assert_eq!(decode(&stream(std::slice::from_ref(&many), None)).unwrap_err().reason, DeadReason::TooLarge);
    assert_eq!(
        decode(&stream(&[many.slice(0, 35_000), many.slice(35_000, 35_000)], None)).unwrap_err().reason,
        DeadReason::TooLarge
    );
}

fn streams() -> impl Strategy<Value = Vec<u8>> {
    let compression =
        prop_oneof![Just(None), Just(Some(CompressionType::LZ4_FRAME)), Just(Some(CompressionType::ZSTD))];
    (1..40i64, 0..4u8, compression).prop_map(|(rows, shape, compression)| {
        let mut c = columns(rows);
        let texts = || (0..rows).map(|i| format!("a device with a long name {}", i % 5));
        match shape {
            0 => c[0].1 = Arc::new(StringViewArray::from_iter_values(texts())),
            1 => {
                let texts: Vec<String> = texts().collect();
                c[0].1 = Arc::new(DictionaryArray::<Int8Type>::from_iter(texts.iter().map(String::as_str)));
            }
            2 => c.insert(
                1,
                (
                    "l",
                    Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(
                        (0..rows).map(|i| Some(vec![Some(i as i32)])),
                    )),
                ),
            ),
            _ => {}
        }
        let all = batch(&c);
        let half = rows as usize / 2;
        stream(&[all.slice(0, half), all.slice(half, rows as usize - half)], compression)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    /// Whatever is changed in a stream, it is rows or an error: no panic, and no more memory than the budget.
    #[test]
    fn changed_streams(
        payload in streams(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0xff), Just(0), Just(0x7f)]), 1..5),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut payload = payload;
        for (at, byte) in &edits {
            let at = at.index(payload.len());
            payload[at] = *byte;
        }
        if let Some(cut) = cut {
            payload.truncate(cut.index(payload.len()));
        }
        if let Ok((n, got, _)) = decode(&payload) {
            for i in 0..n {
                prop_assert!(std::str::from_utf8(got[0].text(i)).is_ok());
            }
        }
    }

    /// The lengths and offsets that a batch gives of itself, which the stream's first kilobytes hold.
    #[test]
    fn changed_lengths(payload in streams(), at in any::<prop::sample::Index>(), word in prop_oneof![any::<i64>(), -3..3i64, Just(i64::MAX), Just(i64::MIN), 0..100_000i64]) {
        let mut payload = payload;
        let at = at.index(payload.len() / 8 - 1) * 8;
        payload[at..at + 8].copy_from_slice(&word.to_le_bytes());
        let _ = decode(&payload);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut framed = vec![0xff, 0xff, 0xff, 0xff];
        framed.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        framed.extend_from_slice(&bytes);
        let _ = decode(&bytes);
        let _ = decode(&framed);
    }
}

#[test]
fn types_are_those_of_the_table() {
    // One for each line of the table in the module's documentation that is refused.
    for (ty, a) in [
        (FieldType::Bool, Arc::new(Int64Array::from(vec![1])) as ArrayRef),
        (FieldType::I64, Arc::new(BooleanArray::from(vec![true]))),
        (FieldType::TimestampMs, Arc::new(Int32Array::from(vec![1]))),
        (FieldType::F64, Arc::new(TimestampMillisecondArray::from(vec![1]))),
    ] {
        let e =
            decode_with(&[field("v", ty, false)], &stream(&[batch(&[("v", a.clone())])], None), 1 << 20).unwrap_err();
        assert!(e.detail.contains("\"v\"") && e.detail.contains(&a.data_type().to_string()), "{}", e.detail);
        assert_ne!(*a.data_type(), DataType::Utf8);
    }
}
