//! Rows kept for aggregates that cannot be merged: a median needs all values, the last value needs the last row.
//!
//! What is kept of a row is its event time, its offset and the arguments of these aggregates, as bytes. When a window
//! ends, the rows of its panes are put in the order of event time, then offset (then place in a record of several rows), and only then handed to the aggregates: so
//! the result depends neither on how rows were cut into batches nor on the order in which they came. Memory is bounded by
//! what the window holds; aggregates that need one row keep one row a pane.

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, BooleanBuilder, Float64Array, Float64Builder, Int64Array, Int64Builder, StringArray,
    StringBuilder, TimestampMillisecondArray, TimestampMillisecondBuilder,
};
use datafusion::common::ScalarValue;
use datafusion::error::DataFusionError;

use crate::codec::{CodecError, Reader};

/// The type of a kept value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellType {
    /// A double.
    F64,
    /// A 64-bit signed integer.
    I64,
    /// true or false.
    Bool,
    /// UTF-8.
    Text,
    /// Milliseconds since the Unix epoch.
    Time,
}

/// An input that is gathered, one value for each row that reached the step.
#[derive(Debug, Clone, Copy)]
pub enum CellArray<'a> {
    /// Doubles.
    F64(&'a Float64Array),
    /// Integers.
    I64(&'a Int64Array),
    /// Booleans.
    Bool(&'a BooleanArray),
    /// Texts.
    Text(&'a StringArray),
    /// Times.
    Time(&'a TimestampMillisecondArray),
}

impl<'a> CellArray<'a> {
    /// The typed view of an array of one of the five types.
    pub fn of(array: &'a dyn Array) -> Option<Self> {
        let any = array.as_any();
        any.downcast_ref()
            .map(Self::F64)
            .or_else(|| any.downcast_ref().map(Self::I64))
            .or_else(|| any.downcast_ref().map(Self::Bool))
            .or_else(|| any.downcast_ref().map(Self::Text))
            .or_else(|| any.downcast_ref().map(Self::Time))
    }

    fn is_null(&self, k: usize) -> bool {
        match self {
            Self::F64(a) => a.is_null(k),
            Self::I64(a) => a.is_null(k),
            Self::Bool(a) => a.is_null(k),
            Self::Text(a) => a.is_null(k),
            Self::Time(a) => a.is_null(k),
        }
    }

    /// One presence byte; if it is 1 the value: 8 bytes little-endian, a byte, or a 4-byte length and UTF-8.
    fn write(&self, k: usize, out: &mut Vec<u8>) {
        if self.is_null(k) {
            out.push(0);
            return;
        }
        out.push(1);
        match self {
            Self::F64(a) => out.extend_from_slice(&a.value(k).to_bits().to_le_bytes()),
            Self::I64(a) => out.extend_from_slice(&a.value(k).to_le_bytes()),
            Self::Time(a) => out.extend_from_slice(&a.value(k).to_le_bytes()),
            Self::Bool(a) => out.push(u8::from(a.value(k))),
            Self::Text(a) => {
                out.extend_from_slice(&(a.value(k).len() as u32).to_le_bytes());
                out.extend_from_slice(a.value(k).as_bytes());
            }
        }
    }
}

/// Which rows of a pane are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All.
    All,
    /// The first in event time, then offset.
    First,
    /// The last.
    Last,
    /// The one with the smallest first value.
    Smallest,
    /// The one with the largest first value.
    Largest,
}

/// Aggregates over all rows kept, in order. Implemented by the SQL layer.
pub trait Reduce: Send + Sync + fmt::Debug {
    /// One value an aggregate. Must be a function of the rows alone.
    fn reduce(&self, rows: &GatheredRows<'_>) -> Result<Vec<ScalarValue>, DataFusionError>;
}

/// What is gathered of each row, and what becomes of it.
#[derive(Debug, Clone)]
pub struct GatherSpec {
    /// Which rows stay.
    pub keep: Keep,
    /// Rows whose first value is null are not kept.
    pub skip_null: bool,
    /// Indices of the inputs.
    pub inputs: Vec<usize>,
    /// Their types.
    pub types: Vec<CellType>,
    /// With [`Keep::All`] the aggregates; otherwise the result is the kept row's first value.
    pub reduce: Option<Arc<dyn Reduce>>,
}

impl GatherSpec {
    /// Keeps row `k` of the inputs, or does not.
    pub(super) fn push(&self, inputs: &[CellArray<'_>], k: usize, time: i64, offset: i64, kept: &mut Vec<u8>) {
        let Some(first) = self.inputs.first().map(|&i| &inputs[i]) else { return };
        if self.skip_null && first.is_null(k) {
            return;
        }
        if self.keep != Keep::All && !kept.is_empty() {
            let old = head(kept);
            let replace = match self.keep {
                Keep::All => true,
                Keep::First => (time, offset) < old,
                // Rows of one record have one offset, and come in their order.
                Keep::Last => (time, offset) >= old,
                Keep::Smallest => compare(first, k, &kept[16..]).is_lt(),
                Keep::Largest => compare(first, k, &kept[16..]).is_gt(),
            };
            if !replace {
                return;
            }
            kept.clear();
        }
        kept.extend_from_slice(&time.to_le_bytes());
        kept.extend_from_slice(&offset.to_le_bytes());
        for &i in &self.inputs {
            inputs[i].write(k, kept);
        }
    }

    /// The results over the rows kept of a window's panes.
    pub(super) fn reduce(&self, bytes: &[u8]) -> Result<Vec<ScalarValue>, DataFusionError> {
        let rows = GatheredRows::sorted(bytes, &self.types)
            .map_err(|e| DataFusionError::Internal(format!("rows kept in a window: {e}")))?;
        if let Some(reduce) = &self.reduce {
            return reduce.reduce(&rows);
        }
        let n = rows.len();
        let chosen = match self.keep {
            _ if n == 0 => None,
            Keep::All | Keep::First => Some(0),
            Keep::Last => Some(n - 1),
            // The first of equals; equal values are the same value.
            Keep::Smallest => (0..n).reduce(|a, b| if rows.order(b, a).is_lt() { b } else { a }),
            Keep::Largest => (0..n).reduce(|a, b| if rows.order(b, a).is_gt() { b } else { a }),
        };
        Ok(vec![rows.scalar(chosen)])
    }

    /// Whether kept bytes from a snapshot are rows of these types.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), CodecError> {
        GatheredRows::sorted(bytes, &self.types).map(|_| ())
    }
}

fn word(bytes: &[u8]) -> [u8; 8] {
    let mut w = [0; 8];
    w.copy_from_slice(&bytes[..8]);
    w
}

fn head(row: &[u8]) -> (i64, i64) {
    (i64::from_le_bytes(word(row)), i64::from_le_bytes(word(&row[8..])))
}

/// Row `k` of an input against a kept cell, neither null. Doubles in total order.
fn compare(array: &CellArray<'_>, k: usize, cell: &[u8]) -> std::cmp::Ordering {
    let value = &cell[1..];
    match array {
        CellArray::F64(a) => a.value(k).total_cmp(&f64::from_bits(u64::from_le_bytes(word(value)))),
        CellArray::I64(a) => a.value(k).cmp(&i64::from_le_bytes(word(value))),
        CellArray::Time(a) => a.value(k).cmp(&i64::from_le_bytes(word(value))),
        CellArray::Bool(a) => u8::from(a.value(k)).cmp(&value[0]),
        CellArray::Text(a) => a.value(k).as_bytes().cmp(text(value)),
    }
}

fn text(value: &[u8]) -> &[u8] {
    let mut n = [0; 4];
    n.copy_from_slice(&value[..4]);
    &value[4..4 + u32::from_le_bytes(n) as usize]
}

/// The rows kept in a window, in the order of event time, then offset.
#[derive(Debug)]
pub struct GatheredRows<'a> {
    bytes: &'a [u8],
    types: &'a [CellType],
    /// Event time, offset, and where the cells stand in `cells`.
    rows: Vec<(i64, i64, usize)>,
    /// Start of each cell, `types.len()` a row.
    cells: Vec<u32>,
}

impl<'a> GatheredRows<'a> {
    fn sorted(bytes: &'a [u8], types: &'a [CellType]) -> Result<Self, CodecError> {
        let mut r = Reader::new("kept rows", bytes);
        let (mut rows, mut cells) = (Vec::new(), Vec::new());
        while r.remaining() > 0 {
            rows.push((r.i64()?, r.i64()?, cells.len()));
            for ty in types {
                cells.push(r.position() as u32);
                match r.u8()? {
                    0 => {}
                    1 => match ty {
                        CellType::F64 | CellType::I64 | CellType::Time => {
                            r.u64()?;
                        }
                        CellType::Bool => {
                            r.u8()?;
                        }
                        CellType::Text => {
                            r.str()?;
                        }
                    },
                    other => return Err(r.invalid(format!("presence byte {other}"))),
                }
            }
        }
        // In-order input is sorted already, which this finds out in one pass.
        rows.sort_by_key(|row| (row.0, row.1));
        Ok(Self { bytes, types, rows, cells })
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The value's bytes, `None` for null.
    fn cell(&self, row: usize, column: usize) -> Option<&[u8]> {
        let at = self.cells[self.rows[row].2 + column] as usize;
        (self.bytes[at] == 1).then(|| &self.bytes[at + 1..])
    }

    fn order(&self, a: usize, b: usize) -> std::cmp::Ordering {
        let (Some(x), Some(y)) = (self.cell(a, 0), self.cell(b, 0)) else { return std::cmp::Ordering::Equal };
        match self.types[0] {
            CellType::F64 => f64_of(x).total_cmp(&f64_of(y)),
            CellType::I64 | CellType::Time => i64_of(x).cmp(&i64_of(y)),
            CellType::Bool => x[0].cmp(&y[0]),
            CellType::Text => text(x).cmp(text(y)),
        }
    }

    fn scalar(&self, row: Option<usize>) -> ScalarValue {
        let cell = row.and_then(|row| self.cell(row, 0));
        match self.types[0] {
            CellType::F64 => ScalarValue::Float64(cell.map(f64_of)),
            CellType::I64 => ScalarValue::Int64(cell.map(i64_of)),
            CellType::Time => ScalarValue::TimestampMillisecond(cell.map(i64_of), None),
            CellType::Bool => ScalarValue::Boolean(cell.map(|c| c[0] != 0)),
            CellType::Text => ScalarValue::Utf8(cell.map(|c| String::from_utf8_lossy(text(c)).into_owned())),
        }
    }

    /// Column `i` of the rows.
    pub fn column(&self, i: usize) -> ArrayRef {
        let n = self.len();
        let cells = (0..n).map(|row| self.cell(row, i));
        match self.types[i] {
            CellType::F64 => {
                let mut b = Float64Builder::with_capacity(n);
                cells.for_each(|c| b.append_option(c.map(f64_of)));
                Arc::new(b.finish())
            }
            CellType::I64 => {
                let mut b = Int64Builder::with_capacity(n);
                cells.for_each(|c| b.append_option(c.map(i64_of)));
                Arc::new(b.finish())
            }
            CellType::Time => {
                let mut b = TimestampMillisecondBuilder::with_capacity(n);
                cells.for_each(|c| b.append_option(c.map(i64_of)));
                Arc::new(b.finish())
            }
            CellType::Bool => {
                let mut b = BooleanBuilder::with_capacity(n);
                cells.for_each(|c| b.append_option(c.map(|c| c[0] != 0)));
                Arc::new(b.finish())
            }
            CellType::Text => {
                let mut b = StringBuilder::new();
                cells.for_each(|c| b.append_option(c.map(|c| String::from_utf8_lossy(text(c)))));
                Arc::new(b.finish())
            }
        }
    }
}

fn f64_of(cell: &[u8]) -> f64 {
    f64::from_bits(u64::from_le_bytes(word(cell)))
}

fn i64_of(cell: &[u8]) -> i64 {
    i64::from_le_bytes(word(cell))
}
