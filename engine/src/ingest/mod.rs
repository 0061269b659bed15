//! Raw records in, an Arrow batch of admitted rows and the dead letters out.
//!
//! A record of JSON, Avro or Protobuf is one row; a record of Arrow IPC holds any number of rows, which share its offset
//! and broker timestamp and are told apart by their index in it. What is counted is rows: a record that cannot be decoded
//! counts as one row in and is one dead letter; one that can counts as the rows it holds, each of which is used or dies by
//! itself. Lateness, too, is judged row by row, in the order of the rows in the record.

mod batches;
mod columns;
mod device;
mod slots;

pub use device::DeviceReader;

pub(crate) use columns::{Column, Values};

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use crate::admit::Admission;
use crate::dead_letter::{DeadLetter, DeadReason};
use crate::decode::{
    ArrowDecoder, AvroDecoder, DescriptorError, JsonDecoder, MessagePlan, ProtobufDecoder, RawRecord, RowDecoder,
    RowError, SchemaAnswer,
};
use crate::device::{DeviceNumber, DeviceTable};
use crate::identity::Checker;
use crate::spec::{FieldSpec, FieldType, FormatSpec, SourceSpec};

/// A run of records is cut where so many rows or bytes have come together: columns stay in cache, and memory is bounded
/// by one record's rows more. Where it is cut changes no result.
const MOST_ROWS: usize = 8_192;
const MOST_BYTES: usize = 64 << 20;
/// What a dead letter keeps of a signature: more than the longest has, and not what somebody may put into its place to make
/// a letter that no topic takes.
const MOST_SIGNATURE: usize = 1_024;

/// Admitted rows, and for each the facts that travel beside the columns. All vectors have one entry a row.
#[derive(Debug)]
pub struct Rows {
    /// The schema's fields as Arrow columns.
    pub batch: RecordBatch,
    /// Source offsets, never decreasing; rows of one record have the same.
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
    /// Index of each row in its record; empty where a record is one row.
    indexes: Vec<u32>,
}

impl Rows {
    fn new(schema: SchemaRef, n: usize, row_bytes: usize) -> Self {
        Self {
            batch: RecordBatch::new_empty(schema),
            offsets: Vec::with_capacity(n),
            times: Vec::with_capacity(n),
            watermarks: Vec::with_capacity(n),
            devices: Vec::with_capacity(n),
            canonical: Vec::with_capacity(n * row_bytes),
            canonical_ends: Vec::with_capacity(n),
            records: Vec::with_capacity(n),
            indexes: Vec::new(),
        }
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// The canonical bytes of row `i`, which input digests cover, the same for the same values in every format: offset
    /// (8 bytes, little-endian), index of the row in its record (4 bytes, little-endian; 0 where a record is one row), a
    /// presence bitmap (one bit a field in schema order, lowest first, padded to bytes), then each present field in schema
    /// order except the key: `f64` as its bits, `i64` and `timestamp_ms` as two's complement, all 8 bytes little-endian;
    /// `bool` as one byte; `utf8` as a 4-byte length and its bytes. (The key is in the digest's header.)
    #[inline]
    pub fn canonical(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.canonical_ends[i - 1] as usize };
        &self.canonical[start..self.canonical_ends[i] as usize]
    }

    /// A dead letter of row `i`, whose record is `record`.
    pub fn dead_letter(&self, i: usize, record: &RawRecord<'_>, reason: DeadReason, detail: String) -> DeadLetter {
        let mut letter = dead_letter(record, RowError { reason, detail });
        if let Some(&index) = self.indexes.get(i) {
            letter.row = Some(index);
            letter.value = Some(batches::row_json(&self.batch, i));
        }
        letter
    }
}

/// A dead letter of a whole record.
fn dead_letter(record: &RawRecord<'_>, e: RowError) -> DeadLetter {
    DeadLetter {
        reason: e.reason,
        detail: e.detail,
        offset: record.offset,
        row: None,
        timestamp: record.timestamp,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
        signature: record.signature.map(|s| s[..s.len().min(MOST_SIGNATURE)].to_vec()),
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

/// How a source's records are decoded: what of it can be prepared, and refused, before a record is seen.
#[derive(Debug, Clone)]
pub enum Decoding {
    /// JSON.
    Json,
    /// Avro; schemas come with the records.
    Avro,
    /// Protobuf.
    Protobuf(Arc<MessagePlan>),
    /// Arrow IPC; schemas come with the records.
    Arrow,
}

impl Decoding {
    /// Prepares a source's format.
    ///
    /// # Errors
    /// When a Protobuf descriptor does not give the fields what they need; all of it is said.
    pub fn new(source: &SourceSpec) -> Result<Self, Vec<DescriptorError>> {
        Ok(match &source.format {
            FormatSpec::Json => Self::Json,
            FormatSpec::Avro => Self::Avro,
            FormatSpec::Protobuf(spec) => Self::Protobuf(Arc::new(MessagePlan::new(spec, &source.fields)?)),
            FormatSpec::Arrow => Self::Arrow,
        })
    }
}

#[derive(Debug)]
enum Decoder {
    Json(JsonDecoder),
    Avro(AvroDecoder),
    Protobuf(ProtobufDecoder),
    Arrow(ArrowDecoder),
}

/// Decodes, admits and gathers rows.
#[derive(Debug)]
pub struct Ingest {
    decoder: Decoder,
    gather: Gather,
}

/// Where rows are gathered, whatever their format.
#[derive(Debug)]
struct Gather {
    columns: Vec<Column>,
    schema: SchemaRef,
    fields: Vec<FieldSpec>,
    key: usize,
    keyed: bool,
    time: usize,
    max_record_bytes: usize,
    /// The presence bitmap of a row, while it is put together.
    bitmap: Vec<u8>,
    /// The canonical bytes of a row, while they are put together.
    row: Vec<u8>,
}

/// What became of a run of records.
#[derive(Debug)]
pub struct Run {
    /// The rows that were admitted.
    pub rows: Rows,
    /// How many records were taken, from the first on; the rest is to be given again.
    pub taken: usize,
    /// How many rows were in them; a record that could not be decoded counts as one.
    pub rows_in: u64,
}

impl Ingest {
    /// For a source whose `key` and `time` are fields of it (planning checks that).
    pub fn new(source: &SourceSpec, decoding: &Decoding, key: usize, time: usize) -> Self {
        let decoder = match decoding {
            Decoding::Json => Decoder::Json(JsonDecoder::new(&source.fields)),
            Decoding::Avro => Decoder::Avro(AvroDecoder::new(&source.fields)),
            Decoding::Protobuf(plan) => Decoder::Protobuf(ProtobufDecoder::new(plan.clone())),
            Decoding::Arrow => Decoder::Arrow(ArrowDecoder::new(&source.fields, source.max_record_bytes)),
        };
        let gather = Gather {
            columns: source.fields.iter().map(|f| Column::new(f.ty)).collect(),
            schema: arrow_schema(&source.fields),
            fields: source.fields.clone(),
            key,
            keyed: source.keyed,
            time,
            max_record_bytes: source.max_record_bytes,
            bitmap: vec![0; source.fields.len().div_ceil(8)],
            row: vec![0; 12 + source.fields.len().div_ceil(8) + 8 * source.fields.len()],
        };
        Self { decoder, gather }
    }

    /// The first record that needs a schema that was not learnt yet, and the schema's id. Nothing is taken by asking.
    pub fn schema_needed(&self, records: &[RawRecord<'_>]) -> Option<(usize, u32)> {
        let Decoder::Avro(d) = &self.decoder else { return None };
        records.iter().enumerate().find_map(|(i, r)| Some((i, d.schema_needed(r.value?)?)))
    }

    /// Forgets a schema id, so that it is needed again.
    pub fn forget_schema(&mut self, id: u32) {
        if let Decoder::Avro(d) = &mut self.decoder {
            d.forget(id);
        }
    }

    /// Takes the answer of the registry for a schema id. Formats without a registry pass over it.
    pub fn learn_schema(&mut self, id: u32, answer: SchemaAnswer<'_>) {
        if let Decoder::Avro(d) = &mut self.decoder {
            d.learn(id, answer);
        }
    }

    /// Takes records in offset order, as many as make a batch of bounded size, and at least one. Every row of them becomes a
    /// row of the result or a dead letter pushed to `dead`. `identity`: who checks signatures, where readings must be signed.
    ///
    /// # Errors
    /// When Arrow refuses the columns, for which no row is to blame.
    pub fn run(
        &mut self,
        records: &[RawRecord<'_>],
        admission: &mut Admission,
        devices: &mut DeviceTable,
        identity: Option<&mut Checker>,
        dead: &mut Vec<DeadLetter>,
    ) -> Result<Run, ArrowError> {
        let g = &mut self.gather;
        let mut run = match &mut self.decoder {
            Decoder::Json(d) => g.slots(d, records, admission, devices, identity, dead),
            Decoder::Avro(d) => g.slots(d, records, admission, devices, identity, dead),
            Decoder::Protobuf(d) => g.slots(d, records, admission, devices, identity, dead),
            // Planning refuses signatures here: a record has rows of several devices.
            Decoder::Arrow(d) => g.batches(d, records, admission, devices, dead),
        };
        let arrays: Vec<ArrayRef> = g.columns.iter_mut().map(Column::finish).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(run.rows.len()));
        run.rows.batch = RecordBatch::try_new_with_options(g.schema.clone(), arrays, &options)?;
        Ok(run)
    }
}

/// The value of a record that may be decoded.
#[inline]
pub(crate) fn payload(value: Option<&[u8]>, max_record_bytes: usize) -> Result<&[u8], RowError> {
    let Some(payload) = value else {
        return Err(RowError::undecodable("the record has no value (a tombstone)"));
    };
    if payload.len() > max_record_bytes {
        return Err(RowError {
            reason: DeadReason::TooLarge,
            detail: format!("the value has {} bytes, more than max_record_bytes = {max_record_bytes}", payload.len()),
        });
    }
    Ok(payload)
}

/// The device of the row that was decoded last.
#[inline]
fn device<'a, D: RowDecoder>(decoder: &'a D, payload: &'a [u8], key: usize) -> Result<&'a [u8], RowError> {
    let device = decoder.text(payload, decoder.slots()[key]);
    if device.is_empty() {
        return Err(RowError { reason: DeadReason::NoDevice, detail: "the device's name is empty".into() });
    }
    Ok(device)
}

impl Gather {
    /// Whether the next record belongs into another batch.
    #[inline]
    fn full(&self, rows_in: usize, rows: &Rows, next: &RawRecord<'_>) -> bool {
        if rows_in >= MOST_ROWS || rows.canonical.len() >= MOST_BYTES {
            return true;
        }
        // Offsets in a text column have 31 bits.
        let more = next.value.map_or(0, <[u8]>::len);
        more > MOST_BYTES && self.columns.iter().any(|c| c.text_bytes() + more > i32::MAX as usize)
            || self.columns[self.key].text_bytes() >= MOST_BYTES
    }
}
