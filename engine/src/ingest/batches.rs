//! Formats of many rows a record: decode into columns, admit row by row, take out what was refused.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};

use super::{Column, Gather, Rows, Run, Values, dead_letter};
use crate::admit::Admission;
use crate::dead_letter::{DeadLetter, DeadReason};
use crate::decode::{ArrowDecoder, Fault, RawRecord, RowError};
use crate::device::{DeviceNumber, DeviceTable};

impl Gather {
    pub(super) fn batches(
        &mut self,
        decoder: &mut ArrowDecoder,
        records: &[RawRecord<'_>],
        admission: &mut Admission,
        devices: &mut DeviceTable,
        dead: &mut Vec<DeadLetter>,
    ) -> Run {
        let mut rows = Rows::new(self.schema.clone(), super::MOST_ROWS, 20 + 8 * self.columns.len());
        let (mut taken, mut rows_in) = (0, 0usize);
        let mut faults = Vec::new();
        for (i, record) in records.iter().enumerate() {
            if i > 0 && self.full(rows_in, &rows, record) {
                break;
            }
            taken += 1;
            let base = rows.len();
            faults.clear();
            let decoded = super::payload(record.value, self.max_record_bytes)
                .and_then(|p| decoder.decode(p, &mut self.columns, &mut faults));
            match decoded {
                Ok(n) => {
                    rows_in += n;
                    self.admit(i, record, n, &mut faults, admission, devices, dead, &mut rows);
                    self.canonical(base, record.offset, &mut rows);
                }
                Err(e) => {
                    rows_in += 1;
                    self.columns.iter_mut().for_each(|c| c.truncate(base));
                    dead.push(dead_letter(record, e));
                }
            }
        }
        Run { rows, taken, rows_in: rows_in as u64 }
    }

    /// Judges the `n` rows that a record appended to the columns, and keeps those that are admitted.
    #[expect(clippy::too_many_arguments, reason = "the parts of a lane, borrowed one by one")]
    fn admit(
        &mut self,
        index: usize,
        record: &RawRecord<'_>,
        n: usize,
        faults: &mut Vec<Fault>,
        admission: &mut Admission,
        devices: &mut DeviceTable,
        dead: &mut Vec<DeadLetter>,
        rows: &mut Rows,
    ) {
        let base = rows.len();
        self.required(base, faults);
        faults.sort_by_key(|f| (f.row, f.field));
        let mut faults = faults.iter().peekable();
        let mut refused: Vec<u32> = Vec::new();
        let Values::Time(times) = &self.columns[self.time].values else { return };
        let names = &self.columns[self.key];
        let mut last: Option<(usize, DeviceNumber)> = None;
        for row in 0..n {
            let at = base + row;
            let fault = faults.next_if(|f| f.row as usize == row);
            while faults.next_if(|f| f.row as usize == row).is_some() {}
            let judged = match fault {
                Some(f) => Err(RowError::schema(f.detail.clone())),
                None if names.text(at).is_empty() => {
                    Err(RowError { reason: DeadReason::NoDevice, detail: "the device's name is empty".into() })
                }
                None => admission.admit(times[at], record.timestamp, record.origin),
            };
            match judged {
                Ok(watermark) => {
                    // Rows of a device mostly come together.
                    let device = match last {
                        Some((before, device))
                            if names.text(before) == names.text(at)
                                && devices.seen_again(device, times[at], watermark) =>
                        {
                            device
                        }
                        _ => devices.number(names.text(at), record.offset, times[at], watermark),
                    };
                    last = Some((at, device));
                    rows.offsets.push(record.offset);
                    rows.times.push(times[at]);
                    rows.watermarks.push(watermark);
                    rows.devices.push(device);
                    rows.records.push(index as u32);
                    rows.indexes.push(row as u32);
                }
                Err(e) => {
                    refused.push(row as u32);
                    let mut letter = dead_letter(&RawRecord { value: None, ..*record }, e);
                    letter.row = Some(row as u32);
                    letter.value = Some(self.json(at));
                    dead.push(letter);
                }
            }
        }
        if !refused.is_empty() {
            let mut keep = vec![true; n];
            refused.iter().for_each(|&r| keep[r as usize] = false);
            self.columns.iter_mut().for_each(|c| c.retain(base, &keep));
        }
    }

    /// Faults of rows in which a required field is null.
    fn required(&self, base: usize, faults: &mut Vec<Fault>) {
        for (i, (field, column)) in self.fields.iter().zip(&self.columns).enumerate() {
            let Some(valid) = column.valid.as_ref().filter(|_| field.required) else { continue };
            for (row, _) in valid[base..].iter().enumerate().filter(|(_, v)| !**v) {
                let detail = format!("field \"{}\" is null but required", field.name);
                faults.push(Fault { row: row as u32, field: i as u32, detail });
            }
        }
    }

    /// Writes the canonical bytes of the rows from `base` on.
    fn canonical(&self, base: usize, offset: i64, rows: &mut Rows) {
        let n = rows.len() - base;
        let fixed = |(i, c): (usize, &Column)| {
            i == self.key || !matches!(c.values, Values::Text { .. } | Values::Bool(_)) && c.valid.is_none()
        };
        if self.columns.iter().enumerate().all(fixed) {
            return self.canonical_fixed(n, offset, rows);
        }
        for row in base..base + n {
            rows.canonical.extend_from_slice(&offset.to_le_bytes());
            rows.canonical.extend_from_slice(&rows.indexes[row].to_le_bytes());
            let bitmap = rows.canonical.len();
            rows.canonical.resize(bitmap + self.bitmap.len(), 0);
            for (i, column) in self.columns.iter().enumerate() {
                if column.is_null(row) {
                    continue;
                }
                rows.canonical[bitmap + i / 8] |= 1 << (i % 8);
                if i != self.key {
                    column.canonical(row, &mut rows.canonical);
                }
            }
            rows.canonical_ends.push(rows.canonical.len() as u32);
        }
    }

    /// [`Gather::canonical`] where every row has every field and all but the key are eight bytes wide: column by column,
    /// into places known beforehand.
    fn canonical_fixed(&self, n: usize, offset: i64, rows: &mut Rows) {
        let head = 12 + self.bitmap.len();
        let width = head + 8 * (self.columns.len() - 1);
        let start = rows.canonical.len();
        let base = rows.len() - n;
        rows.canonical.resize(start + n * width, 0);
        let mut bitmap = vec![0u8; self.bitmap.len()];
        (0..self.columns.len()).for_each(|i| bitmap[i / 8] |= 1 << (i % 8));
        let canonical = &mut rows.canonical[start..];
        let mut first = vec![0u8; width];
        first[..8].copy_from_slice(&offset.to_le_bytes());
        first[12..head].copy_from_slice(&bitmap);
        for row in 0..n {
            let at = row * width;
            canonical[at..at + width].copy_from_slice(&first);
            if let Some(place) = canonical[at + 8..].first_chunk_mut::<4>() {
                *place = rows.indexes[base + row].to_le_bytes();
            }
            rows.canonical_ends.push((start + at + width) as u32);
        }
        let mut at = head;
        for (_, column) in self.columns.iter().enumerate().filter(|(i, _)| *i != self.key) {
            match &column.values {
                Values::F64(v) => spread(v[base..].iter().map(|v| v.to_bits().to_le_bytes()), canonical, at, width),
                Values::I64(v) | Values::Time(v) => {
                    spread(v[base..].iter().map(|v| v.to_le_bytes()), canonical, at, width);
                }
                Values::Bool(_) | Values::Text { .. } => {}
            }
            at += 8;
        }
    }

    /// Row `i` of the columns as a JSON object of the pipeline's fields.
    fn json(&self, i: usize) -> Vec<u8> {
        json_object(self.fields.iter().map(|f| f.name.as_str()).zip(&self.columns), i)
    }
}

/// Writes values at `at`, `at + width`, ….
#[inline]
fn spread(values: impl Iterator<Item = [u8; 8]>, out: &mut [u8], mut at: usize, width: usize) {
    for v in values {
        if let Some(place) = out.get_mut(at..).and_then(|o| o.first_chunk_mut::<8>()) {
            *place = v;
        }
        at += width;
    }
}

fn json_object<'a>(columns: impl Iterator<Item = (&'a str, &'a Column)>, row: usize) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (i, (name, column)) in columns.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(serde_json::Value::from(name).to_string().as_bytes());
        out.push(b':');
        column.json(row, &mut out);
    }
    out.push(b'}');
    out
}

/// Row `i` of a batch of readings as a JSON object.
pub(super) fn row_json(batch: &RecordBatch, i: usize) -> Vec<u8> {
    let schema = batch.schema();
    let columns: Vec<Column> = batch.columns().iter().map(|c| one(c.as_ref(), i)).collect();
    json_object(schema.fields().iter().map(|f| f.name().as_str()).zip(&columns), 0)
}

/// A column of the one value at `i`.
fn one(array: &dyn Array, i: usize) -> Column {
    let values = if let Some(a) = array.as_primitive_opt::<Float64Type>() {
        Values::F64(vec![a.value(i)])
    } else if let Some(a) = array.as_primitive_opt::<Int64Type>() {
        Values::I64(vec![a.value(i)])
    } else if let Some(a) = array.as_primitive_opt::<TimestampMillisecondType>() {
        Values::Time(vec![a.value(i)])
    } else if let Some(a) = array.as_boolean_opt() {
        Values::Bool(vec![a.value(i)])
    } else {
        let text = array.as_string_opt::<i32>().map_or(&[][..], |a| a.value(i).as_bytes());
        Values::Text { ends: vec![0, text.len() as i32], bytes: text.to_vec() }
    };
    Column { values, valid: array.is_null(i).then(|| vec![false]) }
}
