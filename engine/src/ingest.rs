//! Raw records in, an Arrow batch of admitted rows and the dead letters out.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, RecordBatchOptions, StringBuilder,
    TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use crate::admit::Admission;
use crate::dead_letter::{DeadLetter, DeadReason};
use crate::decode::{JsonDecoder, RawRecord, RowError, Slot};
use crate::device::{DeviceNumber, DeviceTable};
use crate::spec::{FieldSpec, FieldType, SourceSpec};

/// Admitted rows, and for each the facts that travel beside the columns. All vectors have one entry a row.
#[derive(Debug)]
pub struct Rows {
    /// The schema's fields as Arrow columns.
    pub batch: RecordBatch,
    /// Source offsets, increasing.
    pub offsets: Vec<i64>,
    /// Event times, milliseconds.
    pub times: Vec<i64>,
    /// The watermark after each row, never decreasing.
    pub watermarks: Vec<i64>,
    /// The devices' numbers.
    pub devices: Vec<DeviceNumber>,
    /// The rows' canonical bytes, one after another.
    canonical: Vec<u8>,
    canonical_ends: Vec<u32>,
    /// Index into the records given to [`Ingest::run`], to find the raw bytes of a row again.
    pub records: Vec<u32>,
}

impl Rows {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The canonical bytes of row `i`, which input digests cover: offset (8 bytes, little-endian), a presence bitmap
    /// (one bit a field in schema order, lowest first, padded to bytes), then each present field in schema order except the key: `f64` as
    /// its bits, `i64` and `timestamp_ms` as two's complement, all 8 bytes little-endian; `bool` as one byte; `utf8` as a
    /// 4-byte length and its bytes. (The key is in the digest's header.)
    #[inline]
    pub fn canonical(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.canonical_ends[i - 1] as usize };
        &self.canonical[start..self.canonical_ends[i] as usize]
    }
}

/// The Arrow schema of a source's readings.
pub fn arrow_schema(fields: &[FieldSpec]) -> SchemaRef {
    let fields: Vec<Field> = fields.iter().map(|f| Field::new(&f.name, arrow_type(f.ty), !f.required)).collect();
    Arc::new(Schema::new(fields))
}

fn arrow_type(ty: FieldType) -> DataType {
    match ty {
        FieldType::Utf8 => DataType::Utf8,
        FieldType::Bool => DataType::Boolean,
        FieldType::I64 => DataType::Int64,
        FieldType::F64 => DataType::Float64,
        FieldType::TimestampMs => DataType::Timestamp(TimeUnit::Millisecond, None),
    }
}

#[derive(Debug)]
enum Column {
    Utf8(StringBuilder),
    Bool(BooleanBuilder),
    I64(Int64Builder),
    F64(Float64Builder),
    Timestamp(TimestampMillisecondBuilder),
}

impl Column {
    fn new(ty: FieldType) -> Self {
        match ty {
            FieldType::Utf8 => Column::Utf8(StringBuilder::new()),
            FieldType::Bool => Column::Bool(BooleanBuilder::new()),
            FieldType::I64 => Column::I64(Int64Builder::new()),
            FieldType::F64 => Column::F64(Float64Builder::new()),
            FieldType::TimestampMs => Column::Timestamp(TimestampMillisecondBuilder::new()),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Column::Utf8(b) => Arc::new(b.finish()),
            Column::Bool(b) => Arc::new(b.finish()),
            Column::I64(b) => Arc::new(b.finish()),
            Column::F64(b) => Arc::new(b.finish()),
            Column::Timestamp(b) => Arc::new(b.finish()),
        }
    }
}

/// Decodes, admits and gathers rows.
#[derive(Debug)]
pub struct Ingest {
    decoder: JsonDecoder,
    columns: Vec<Column>,
    schema: SchemaRef,
    key: usize,
    time: usize,
    max_record_bytes: usize,
    bitmap_bytes: usize,
}

impl Ingest {
    /// For a source whose `key` and `time` are fields of it (planning checks that).
    pub fn new(source: &SourceSpec, key: usize, time: usize) -> Self {
        Self {
            decoder: JsonDecoder::new(&source.fields),
            columns: source.fields.iter().map(|f| Column::new(f.ty)).collect(),
            schema: arrow_schema(&source.fields),
            key,
            time,
            max_record_bytes: source.max_record_bytes,
            bitmap_bytes: source.fields.len().div_ceil(8),
        }
    }

    /// Takes records in offset order. Every record becomes a row of the result or a dead letter pushed to `dead`.
    pub fn run(
        &mut self,
        records: &[RawRecord<'_>],
        admission: &mut Admission,
        devices: &mut DeviceTable,
        dead: &mut Vec<DeadLetter>,
    ) -> Result<Rows, ArrowError> {
        let n = records.len();
        let mut rows = Rows {
            batch: RecordBatch::new_empty(self.schema.clone()),
            offsets: Vec::with_capacity(n),
            times: Vec::with_capacity(n),
            watermarks: Vec::with_capacity(n),
            devices: Vec::with_capacity(n),
            canonical: Vec::with_capacity(n * (16 + 8 * self.columns.len())),
            canonical_ends: Vec::with_capacity(n),
            records: Vec::with_capacity(n),
        };
        for (i, record) in records.iter().enumerate() {
            if let Err(e) = self.row(i, record, admission, devices, &mut rows) {
                dead.push(DeadLetter {
                    reason: e.reason,
                    detail: e.detail,
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                });
            }
        }
        let arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.offsets.len()));
        rows.batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        Ok(rows)
    }

    #[inline]
    fn row(
        &mut self,
        index: usize,
        record: &RawRecord<'_>,
        admission: &mut Admission,
        devices: &mut DeviceTable,
        rows: &mut Rows,
    ) -> Result<(), RowError> {
        let Some(payload) = record.value else {
            return Err(RowError::undecodable("the record has no value (a tombstone)"));
        };
        if payload.len() > self.max_record_bytes {
            return Err(RowError {
                reason: DeadReason::TooLarge,
                detail: format!(
                    "the value has {} bytes, more than max_record_bytes = {}",
                    payload.len(),
                    self.max_record_bytes
                ),
            });
        }
        self.decoder.decode(payload)?;
        let slots = self.decoder.slots();
        let device = self.decoder.text(payload, slots[self.key]);
        if device.is_empty() {
            return Err(RowError { reason: DeadReason::NoDevice, detail: "the device's name is empty".into() });
        }
        let Slot::Timestamp(time) = slots[self.time] else {
            return Err(RowError::schema("the time column holds no time"));
        };
        let watermark = admission.admit(time, record.timestamp)?;
        rows.offsets.push(record.offset);
        rows.times.push(time);
        rows.watermarks.push(watermark);
        rows.devices.push(devices.number(device));
        rows.records.push(index as u32);
        self.append(payload, record.offset, &mut rows.canonical);
        rows.canonical_ends.push(rows.canonical.len() as u32);
        Ok(())
    }

    #[inline]
    fn append(&mut self, payload: &[u8], offset: i64, canonical: &mut Vec<u8>) {
        canonical.extend_from_slice(&offset.to_le_bytes());
        let bitmap = canonical.len();
        canonical.resize(bitmap + self.bitmap_bytes, 0);
        for (i, (column, &slot)) in self.columns.iter_mut().zip(self.decoder.slots()).enumerate() {
            let present = !matches!(slot, Slot::Missing | Slot::Null);
            canonical[bitmap + i / 8] |= u8::from(present) << (i % 8);
            match (column, slot) {
                (Column::F64(b), Slot::F64(v)) => {
                    b.append_value(v);
                    canonical.extend_from_slice(&v.to_bits().to_le_bytes());
                }
                (Column::I64(b), Slot::I64(v)) => {
                    b.append_value(v);
                    canonical.extend_from_slice(&v.to_le_bytes());
                }
                (Column::Timestamp(b), Slot::Timestamp(v)) => {
                    b.append_value(v);
                    canonical.extend_from_slice(&v.to_le_bytes());
                }
                (Column::Bool(b), Slot::Bool(v)) => {
                    b.append_value(v);
                    canonical.push(u8::from(v));
                }
                (Column::Utf8(b), Slot::Text { .. } | Slot::Unescaped { .. }) => {
                    let text = self.decoder.text(payload, slot);
                    // The decoder has checked the payload's UTF-8; lossy conversion of valid text borrows it.
                    b.append_value(String::from_utf8_lossy(text));
                    if i != self.key {
                        canonical.extend_from_slice(&(text.len() as u32).to_le_bytes());
                        canonical.extend_from_slice(text);
                    }
                }
                (Column::F64(b), _) => b.append_null(),
                (Column::I64(b), _) => b.append_null(),
                (Column::Timestamp(b), _) => b.append_null(),
                (Column::Bool(b), _) => b.append_null(),
                (Column::Utf8(b), _) => b.append_null(),
            }
        }
    }
}
