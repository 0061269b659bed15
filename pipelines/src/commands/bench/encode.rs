//! The bench's readings in the other formats, as a producer would have sent them.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use avouch_engine::decode::{JsonDecoder, RowDecoder, Slot};
use avouch_engine::spec::{FieldSpec, FieldType, FormatSpec, Framing, ProtobufSpec};

use super::RecordFormat;

/// The id under which the bench's Avro schema is told to the lane.
pub const SCHEMA_ID: u32 = 1;
/// Rows of an Arrow record.
pub const BATCH_ROWS: usize = 1_000;

/// One reading: a value a field, in the schema's order; `None` is null.
pub type Row = Vec<Option<Value>>;

/// A field's value.
#[derive(Debug)]
pub enum Value {
    /// `utf8`.
    Text(String),
    /// `bool`.
    Bool(bool),
    /// `i64`, `timestamp_ms`.
    Whole(i64),
    /// `f64`.
    Float(f64),
}

/// The rows of NDJSON that are good.
pub fn rows(fields: &[FieldSpec], lines: &[&[u8]]) -> Vec<Row> {
    let mut decoder = JsonDecoder::new(fields);
    let mut out = Vec::with_capacity(lines.len());
    for line in lines {
        if decoder.decode(line).is_err() {
            continue;
        }
        let row = decoder.slots().iter().map(|slot| match *slot {
            Slot::Missing | Slot::Null => None,
            Slot::Bool(b) => Some(Value::Bool(b)),
            Slot::I64(n) | Slot::Timestamp(n) => Some(Value::Whole(n)),
            Slot::F64(x) => Some(Value::Float(x)),
            text => Some(Value::Text(String::from_utf8_lossy(decoder.text(line, text)).into_owned())),
        });
        out.push(row.collect());
    }
    out
}

fn varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn run(bytes: &[u8], out: &mut Vec<u8>) {
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)) as u64
}

/// The rows as records of a format that is not JSON, as a producer would have sent them.
pub fn records(format: RecordFormat, fields: &[FieldSpec], rows: &[Row]) -> Result<Vec<Vec<u8>>, ArrowError> {
    match format {
        RecordFormat::Json => Ok(Vec::new()),
        RecordFormat::Avro => Ok(avro(fields, rows)),
        RecordFormat::Protobuf => Ok(protobuf(fields, rows)),
        RecordFormat::Arrow => arrow(fields, rows),
    }
}

/// The Avro schema of these fields; those that may be null are unions with null.
pub fn avro_schema(fields: &[FieldSpec]) -> String {
    let members: Vec<serde_json::Value> = fields
        .iter()
        .map(|f| {
            let ty = match f.ty {
                FieldType::Utf8 => serde_json::json!("string"),
                FieldType::Bool => serde_json::json!("boolean"),
                FieldType::I64 => serde_json::json!("long"),
                FieldType::F64 => serde_json::json!("double"),
                FieldType::TimestampMs => serde_json::json!({ "type": "long", "logicalType": "timestamp-millis" }),
            };
            let ty = if f.required { ty } else { serde_json::json!(["null", ty]) };
            serde_json::json!({ "name": f.name, "type": ty })
        })
        .collect();
    serde_json::json!({ "type": "record", "name": "Reading", "fields": members }).to_string()
}

/// Avro records in Confluent framing.
fn avro(fields: &[FieldSpec], rows: &[Row]) -> Vec<Vec<u8>> {
    let record = |row: &Row| {
        let mut out = vec![0];
        out.extend_from_slice(&SCHEMA_ID.to_be_bytes());
        for (field, value) in fields.iter().zip(row) {
            if !field.required {
                out.push(if value.is_some() { 2 } else { 0 });
            }
            match value {
                None => {}
                Some(Value::Text(t)) => {
                    varint(zigzag(t.len() as i64), &mut out);
                    out.extend_from_slice(t.as_bytes());
                }
                Some(Value::Bool(b)) => out.push(u8::from(*b)),
                Some(Value::Whole(n)) => varint(zigzag(*n), &mut out),
                Some(Value::Float(x)) => out.extend_from_slice(&x.to_le_bytes()),
            }
        }
        out
    };
    rows.iter().map(record).collect()
}

/// The descriptor set of a message `Reading` of these fields, numbered from 1, each `optional`.
pub fn protobuf_format(fields: &[FieldSpec]) -> FormatSpec {
    // google.protobuf.FileDescriptorSet { file { name, message_type { name, field {…} }, syntax } }, by field number.
    let mut message = Vec::new();
    message.push(0x0a);
    run(b"Reading", &mut message);
    for (i, f) in fields.iter().enumerate() {
        let ty: u64 = match f.ty {
            FieldType::Utf8 => 9,
            FieldType::Bool => 8,
            FieldType::I64 => 18,
            FieldType::F64 => 1,
            FieldType::TimestampMs => 3,
        };
        let mut field = vec![0x0a];
        run(f.name.as_bytes(), &mut field);
        field.push(0x18);
        varint(i as u64 + 1, &mut field);
        // label: optional; type; proto3_optional.
        field.extend_from_slice(&[0x20, 1, 0x28]);
        varint(ty, &mut field);
        field.extend_from_slice(&[0x88, 0x01, 1]);
        message.push(0x12);
        run(&field, &mut message);
    }
    let mut file = vec![0x0a];
    run(b"bench.proto", &mut file);
    file.push(0x22);
    run(&message, &mut file);
    file.push(0x62);
    run(b"proto3", &mut file);
    let mut set = vec![0x0a];
    run(&file, &mut set);
    FormatSpec::Protobuf(ProtobufSpec { descriptor: set.into(), message: "Reading".into(), framing: Framing::None })
}

/// Protobuf messages of [`protobuf_format`].
fn protobuf(fields: &[FieldSpec], rows: &[Row]) -> Vec<Vec<u8>> {
    let record = |row: &Row| {
        let mut out = Vec::new();
        for (i, (field, value)) in fields.iter().zip(row).enumerate() {
            let tag = (i as u64 + 1) << 3;
            match value {
                None => {}
                Some(Value::Text(t)) => {
                    varint(tag | 2, &mut out);
                    run(t.as_bytes(), &mut out);
                }
                Some(Value::Bool(b)) => {
                    varint(tag, &mut out);
                    out.push(u8::from(*b));
                }
                Some(Value::Whole(n)) => {
                    varint(tag, &mut out);
                    varint(if field.ty == FieldType::I64 { zigzag(*n) } else { *n as u64 }, &mut out);
                }
                Some(Value::Float(x)) => {
                    varint(tag | 1, &mut out);
                    out.extend_from_slice(&x.to_le_bytes());
                }
            }
        }
        out
    };
    rows.iter().map(record).collect()
}

/// Arrow IPC streams of [`BATCH_ROWS`] rows each.
fn arrow(fields: &[FieldSpec], rows: &[Row]) -> Result<Vec<Vec<u8>>, ArrowError> {
    rows.chunks(BATCH_ROWS)
        .map(|rows| {
            let columns = fields.iter().enumerate().map(|(i, f)| (f.name.as_str(), column(f.ty, i, rows), !f.required));
            let batch = RecordBatch::try_from_iter_with_nullable(columns)?;
            let mut w = StreamWriter::try_new(Vec::new(), &batch.schema())?;
            w.write(&batch)?;
            w.into_inner()
        })
        .collect()
}

fn column(ty: FieldType, i: usize, rows: &[Row]) -> ArrayRef {
    let whole = |row: &Row| match row[i] {
        Some(Value::Whole(n)) => Some(n),
        _ => None,
    };
    let rows = rows.iter();
    match ty {
        FieldType::Utf8 => Arc::new(StringArray::from_iter(rows.map(|row| match &row[i] {
            Some(Value::Text(t)) => Some(t.as_str()),
            _ => None,
        }))),
        FieldType::Bool => Arc::new(BooleanArray::from_iter(rows.map(|row| match row[i] {
            Some(Value::Bool(b)) => Some(b),
            _ => None,
        }))),
        FieldType::F64 => Arc::new(Float64Array::from_iter(rows.map(|row| match row[i] {
            Some(Value::Float(x)) => Some(x),
            _ => None,
        }))),
        FieldType::I64 => Arc::new(Int64Array::from_iter(rows.map(whole))),
        FieldType::TimestampMs => Arc::new(TimestampMillisecondArray::from_iter(rows.map(whole))),
    }
}
