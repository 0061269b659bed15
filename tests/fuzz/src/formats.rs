//! Well-formed readings in every format.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::ipc::writer::StreamWriter;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};

/// Schemas that a registry might have, by the low bits of their ids.
pub const AVRO: [&str; 3] = [
    r#"{"type":"record","name":"Reading","fields":[{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"device","type":"string"},{"name":"n","type":["null","long"]},{"name":"x","type":["double","null"]},{"name":"site","type":"int"}]}"#,
    r#"{"type":"record","name":"R","fields":[{"name":"tags","type":{"type":"map","values":"string"}},{"name":"device","type":"string"},{"name":"ts","type":"long"},{"name":"x","type":"float"},{"name":"more","type":{"type":"array","items":{"type":"record","name":"M","fields":[{"name":"k","type":"bytes"},{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}}]}}},{"name":"n","type":"int"}]}"#,
    r#"{"type":"record","name":"R","fields":[{"name":"f","type":{"type":"fixed","name":"F","size":3}},{"name":"device","type":["string","null"]},{"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"self","type":["null","R"]}]}"#,
];

pub fn descriptor() -> Vec<u8> {
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
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

pub fn arrow_stream() -> Vec<u8> {
    let columns: [(&str, ArrayRef); 4] = [
        ("x", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(f64::NAN)]))),
        ("device", Arc::new(StringArray::from(vec!["a", "b", "a"]))),
        ("n", Arc::new(Int64Array::from(vec![Some(1), Some(0), None]))),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![1_700_000_000_000, 1_700_000_001_000, 0]))),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true)));
    let write = |batch: RecordBatch| {
        let mut w = StreamWriter::try_new(Vec::new(), &batch.schema())?;
        w.write(&batch)?;
        w.into_inner()
    };
    batch.and_then(write).unwrap_or_default()
}

pub fn avro_reading() -> Vec<u8> {
    let mut out = vec![0, 0, 0, 0, 0];
    out.extend([0x80, 0xa0, 0xd0, 0xc8, 0xfb, 0x62]);
    out.extend([2, b'a', 2, 6, 0]);
    out.extend(1.5f64.to_le_bytes());
    out.push(6);
    out
}

pub fn protobuf_reading() -> Vec<u8> {
    let mut out = vec![0x0a, 1, b'a', 0x10, 0x80, 0xd0, 0xe8, 0xa4, 0xbd, 0x31, 0x19];
    out.extend(1.5f64.to_le_bytes());
    out.extend([0x20, 6]);
    out
}
