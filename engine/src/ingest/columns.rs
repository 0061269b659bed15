//! Columns that grow row by row or run by run, and from which rows can be taken out again before they become Arrow arrays.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;

use crate::spec::FieldType;

/// The values of one field. A null has a value too (zero, or empty text), which nobody reads.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Values {
    /// `f64`.
    F64(Vec<f64>),
    /// `i64`.
    I64(Vec<i64>),
    /// `timestamp_ms`.
    Time(Vec<i64>),
    /// `bool`.
    Bool(Vec<bool>),
    /// `utf8`: texts one after another, and where each ends, with a zero before the first.
    Text {
        /// `rows + 1` offsets.
        ends: Vec<i32>,
        /// All texts; UTF-8.
        bytes: Vec<u8>,
    },
}

/// One field's values and which of them are null.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    /// The values.
    pub values: Values,
    /// Whether each row has a value; `None` while all have.
    pub valid: Option<Vec<bool>>,
}

impl Column {
    /// An empty column.
    pub fn new(ty: FieldType) -> Self {
        let values = match ty {
            FieldType::F64 => Values::F64(Vec::new()),
            FieldType::I64 => Values::I64(Vec::new()),
            FieldType::TimestampMs => Values::Time(Vec::new()),
            FieldType::Bool => Values::Bool(Vec::new()),
            FieldType::Utf8 => Values::Text { ends: vec![0], bytes: Vec::new() },
        };
        Self { values, valid: None }
    }

    /// How many rows it has.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.values {
            Values::F64(v) => v.len(),
            Values::I64(v) | Values::Time(v) => v.len(),
            Values::Bool(v) => v.len(),
            Values::Text { ends, .. } => ends.len() - 1,
        }
    }

    /// Bytes of text, which an array can hold 2 GiB of.
    pub fn text_bytes(&self) -> usize {
        match &self.values {
            Values::Text { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }

    /// Says that the row appended last has a value.
    #[inline]
    pub fn mark_valid(&mut self) {
        if let Some(valid) = &mut self.valid {
            valid.push(true);
        }
    }

    /// Appends a null.
    pub fn push_null(&mut self) {
        let before = self.len();
        match &mut self.values {
            Values::F64(v) => v.push(0.0),
            Values::I64(v) | Values::Time(v) => v.push(0),
            Values::Bool(v) => v.push(false),
            Values::Text { ends, bytes } => ends.push(bytes.len() as i32),
        }
        self.valid.get_or_insert_with(|| vec![true; before]).push(false);
    }

    /// Appends `n` nulls.
    pub fn push_nulls(&mut self, n: usize) {
        let before = self.len();
        match &mut self.values {
            Values::F64(v) => v.resize(before + n, 0.0),
            Values::I64(v) | Values::Time(v) => v.resize(before + n, 0),
            Values::Bool(v) => v.resize(before + n, false),
            Values::Text { ends, bytes } => ends.resize(before + 1 + n, bytes.len() as i32),
        }
        self.valid.get_or_insert_with(|| vec![true; before]).resize(before + n, false);
    }

    /// Appends the validity of the rows appended last; `None`: all have a value. To be called once after their values.
    pub fn push_validity(&mut self, nulls: Option<&NullBuffer>, rows: usize) {
        let before = self.len() - rows;
        match nulls {
            Some(nulls) if nulls.null_count() > 0 => {
                self.valid.get_or_insert_with(|| vec![true; before]).extend(nulls.iter());
            }
            _ => {
                if let Some(valid) = &mut self.valid {
                    valid.resize(before + rows, true);
                }
            }
        }
    }

    /// Whether row `i` is null.
    #[inline]
    pub fn is_null(&self, i: usize) -> bool {
        self.valid.as_ref().is_some_and(|v| !v[i])
    }

    /// The text of row `i`; empty for a null and in columns of other types.
    #[inline]
    pub fn text(&self, i: usize) -> &[u8] {
        match &self.values {
            Values::Text { ends, bytes } => &bytes[ends[i] as usize..ends[i + 1] as usize],
            _ => &[],
        }
    }

    /// Takes the rows from `n` on out again.
    pub fn truncate(&mut self, n: usize) {
        match &mut self.values {
            Values::F64(v) => v.truncate(n),
            Values::I64(v) | Values::Time(v) => v.truncate(n),
            Values::Bool(v) => v.truncate(n),
            Values::Text { ends, bytes } => {
                ends.truncate(n + 1);
                bytes.truncate(ends.last().map_or(0, |&e| e as usize));
            }
        }
        if let Some(valid) = &mut self.valid {
            valid.truncate(n);
        }
    }

    /// Of the rows from `base` on, keeps those whose `keep` is true.
    pub fn retain(&mut self, base: usize, keep: &[bool]) {
        fn retain<T: Copy>(v: &mut Vec<T>, base: usize, keep: &[bool]) {
            let mut to = base;
            for (i, &k) in keep.iter().enumerate() {
                if k {
                    v[to] = v[base + i];
                    to += 1;
                }
            }
            v.truncate(to);
        }
        match &mut self.values {
            Values::F64(v) => retain(v, base, keep),
            Values::I64(v) | Values::Time(v) => retain(v, base, keep),
            Values::Bool(v) => retain(v, base, keep),
            Values::Text { ends, bytes } => {
                let (mut row, mut end) = (base, ends[base] as usize);
                for (i, &k) in keep.iter().enumerate() {
                    let (from, to) = (ends[base + i] as usize, ends[base + i + 1] as usize);
                    if k {
                        bytes.copy_within(from..to, end);
                        end += to - from;
                        row += 1;
                        // Only entries at or before the ones still to be read are written.
                        ends[row] = end as i32;
                    }
                }
                ends.truncate(row + 1);
                bytes.truncate(end);
            }
        }
        if let Some(valid) = &mut self.valid {
            retain(valid, base, keep);
        }
    }

    /// Appends the canonical bytes of row `i`, which is not null.
    #[inline]
    pub fn canonical(&self, i: usize, out: &mut Vec<u8>) {
        match &self.values {
            Values::F64(v) => out.extend_from_slice(&v[i].to_bits().to_le_bytes()),
            Values::I64(v) | Values::Time(v) => out.extend_from_slice(&v[i].to_le_bytes()),
            Values::Bool(v) => out.push(u8::from(v[i])),
            Values::Text { .. } => {
                let text = self.text(i);
                out.extend_from_slice(&(text.len() as u32).to_le_bytes());
                out.extend_from_slice(text);
            }
        }
    }

    /// Appends row `i` as a JSON value.
    pub fn json(&self, i: usize, out: &mut Vec<u8>) {
        if self.is_null(i) {
            out.extend_from_slice(b"null");
            return;
        }
        let text = match &self.values {
            // Ryū's digits through Rust's formatting: they read back as the same double.
            Values::F64(v) if v[i].is_finite() => format!("{:?}", v[i]),
            Values::F64(v) => format!("\"{}\"", v[i]),
            Values::I64(v) | Values::Time(v) => v[i].to_string(),
            Values::Bool(v) => v[i].to_string(),
            Values::Text { .. } => {
                serde_json::Value::from(String::from_utf8_lossy(self.text(i)).into_owned()).to_string()
            }
        };
        out.extend_from_slice(text.as_bytes());
    }

    /// The rows as an Arrow array; the column is empty after it.
    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.valid.take().map(NullBuffer::from);
        Ok(match &mut self.values {
            Values::F64(v) => Arc::new(Float64Array::new(take(v).into(), nulls)),
            Values::I64(v) => Arc::new(Int64Array::new(take(v).into(), nulls)),
            Values::Time(v) => Arc::new(TimestampMillisecondArray::new(take(v).into(), nulls)),
            Values::Bool(v) => {
                let array = BooleanArray::new(v.as_slice().into(), nulls);
                v.clear();
                Arc::new(array)
            }
            Values::Text { ends, bytes } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(take(ends)));
                ends.push(0);
                // Checks the UTF-8 of all texts at once.
                Arc::new(StringArray::try_new(offsets, Buffer::from_vec(take(bytes)), nulls)?)
            }
        })
    }
}

/// The content of a buffer, which gets room for as much again: batches are of about the same size.
fn take<T>(v: &mut Vec<T>) -> Vec<T> {
    let next = Vec::with_capacity(v.len());
    std::mem::replace(v, next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::Array;
    use proptest::prelude::*;

    fn texts(rows: &[Option<String>]) -> Column {
        let mut c = Column::new(FieldType::Utf8);
        for row in rows {
            match row {
                None => c.push_null(),
                Some(t) => {
                    if let Values::Text { ends, bytes } = &mut c.values {
                        bytes.extend_from_slice(t.as_bytes());
                        ends.push(bytes.len() as i32);
                    }
                    c.mark_valid();
                }
            }
        }
        c
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_there(
            rows in proptest::collection::vec((proptest::option::of("[a-zé]{0,4}"), any::<bool>()), 0..30),
            base in any::<prop::sample::Index>(),
        ) {
            let base = base.index(rows.len() + 1);
            let all: Vec<Option<String>> = rows.iter().map(|(t, _)| t.clone()).collect();
            let keep: Vec<bool> = rows[base..].iter().map(|(_, k)| *k).collect();
            let expected: Vec<Option<String>> = rows
                .iter()
                .enumerate()
                .filter(|(i, (_, k))| *i < base || *k)
                .map(|(_, (t, _))| t.clone())
                .collect();
            let mut column = texts(&all);
            column.retain(base, &keep);
            prop_assert_eq!(column.len(), expected.len());
            let array = column.finish().unwrap();
            prop_assert_eq!(array.as_ref(), &StringArray::from(expected) as &dyn Array);
            let mut cut = texts(&all);
            cut.truncate(base);
            let cut = cut.finish().unwrap();
            prop_assert_eq!(cut.as_ref(), &StringArray::from(all[..base].to_vec()) as &dyn Array);
        }
    }

    #[test]
    fn rows_as_json() {
        let mut f = Column::new(FieldType::F64);
        f.values = Values::F64(vec![1.0, -2.5e-7, f64::NAN, f64::INFINITY, 1e300]);
        let mut out = Vec::new();
        for i in 0..5 {
            f.json(i, &mut out);
            out.push(b' ');
        }
        texts(&[Some("a\"\n".into())]).json(0, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), r#"1.0 -2.5e-7 "NaN" "inf" 1e300 "a\"\n""#);
    }
}
