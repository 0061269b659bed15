//! Arrow arrays of the types a field can take, appended to its column.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::downcast_dictionary_array;

use super::{Budget, Fault, damaged};
use crate::decode::timestamp::{MAX_TIMESTAMP_MS, parse_timestamp};
use crate::decode::{RowError, excerpt, unfit};
use crate::ingest::{Column, Values};
use crate::spec::FieldSpec;

/// What is being appended, and where what does not fit is reported.
struct Place<'a> {
    field: &'a FieldSpec,
    index: usize,
    /// The first row's index in the record.
    first: usize,
    faults: &'a mut Vec<Fault>,
}

impl Place<'_> {
    #[cold]
    fn fault(&mut self, row: usize, found: impl std::fmt::Display) {
        let detail = unfit(self.field, found).detail;
        self.faults.push(Fault { row: (self.first + row) as u32, field: self.index as u32, detail });
    }
}

/// Appends an array to the column of `field`, which is the schema's `index`-th. Its first row is the record's `first`-th.
pub(super) fn append(
    array: &ArrayRef,
    field: &FieldSpec,
    index: usize,
    first: usize,
    column: &mut Column,
    budget: &mut Budget,
    faults: &mut Vec<Fault>,
) -> Result<(), RowError> {
    let mut place = Place { field, index, first, faults };
    match &mut column.values {
        Values::F64(out) => floats(array, out, &mut place)?,
        Values::I64(out) => integers(array, out, &mut place)?,
        Values::Time(out) => times(array, out, &mut place)?,
        Values::Bool(out) => {
            let array = array.as_boolean_opt().ok_or_else(|| other(array))?;
            out.extend(array.values().iter());
        }
        Values::Text { ends, bytes } => texts(array, ends, bytes, budget)?,
    }
    column.push_validity(array.logical_nulls().as_ref(), array.len());
    Ok(())
}

/// A type that the layout does not let through.
#[cold]
fn other(array: &ArrayRef) -> RowError {
    damaged(format!("an array of {}", array.data_type()))
}

fn primitive<T: ArrowPrimitiveType>(array: &ArrayRef) -> Result<&PrimitiveArray<T>, RowError> {
    array.as_primitive_opt::<T>().ok_or_else(|| other(array))
}

/// Runs `$body` with the array's values, whichever integers they are.
macro_rules! with_integers {
    ($array:expr, $values:ident => $body:block) => {
        match $array.data_type() {
            DataType::Int8 => {
                let $values = primitive::<Int8Type>($array)?.values().iter().map(|v| i128::from(*v));
                $body
            }
            DataType::Int16 => {
                let $values = primitive::<Int16Type>($array)?.values().iter().map(|v| i128::from(*v));
                $body
            }
            DataType::Int32 => {
                let $values = primitive::<Int32Type>($array)?.values().iter().map(|v| i128::from(*v));
                $body
            }
            DataType::Int64 => {
                let $values = primitive::<Int64Type>($array)?.values().iter().map(|v| i128::from(*v));
                $body
            }
            DataType::UInt8 => {
                let $values = primitive::<UInt8Type>($array)?.values().iter().map(|v| i128::from(*v));
                $body
            }
            DataType::UInt16 => {
                let $values = primitive::<UInt16Type>($array)?.values().iter().map(|v| i128::from(*v));
                $body
            }
            DataType::UInt32 => {
                let $values = primitive::<UInt32Type>($array)?.values().iter().map(|v| i128::from(*v));
                $body
            }
            DataType::UInt64 => {
                let $values = primitive::<UInt64Type>($array)?.values().iter().map(|v| i128::from(*v));
                $body
            }
            _ => return Err(other($array)),
        }
    };
}

fn floats(array: &ArrayRef, out: &mut Vec<f64>, place: &mut Place<'_>) -> Result<(), RowError> {
    let start = out.len();
    match array.data_type() {
        DataType::Float64 => out.extend_from_slice(primitive::<Float64Type>(array)?.values()),
        DataType::Float32 => out.extend(primitive::<Float32Type>(array)?.values().iter().map(|v| f64::from(*v))),
        // Rounded once, as a double reads the same digits in JSON.
        _ => with_integers!(array, values => { out.extend(values.map(|v| v as f64)) }),
    }
    if !out[start..].iter().all(|v| v.is_finite()) {
        for (row, v) in out[start..].iter().enumerate() {
            if !v.is_finite() && array.is_valid(row) {
                place.fault(row, v);
            }
        }
    }
    Ok(())
}

fn integers(array: &ArrayRef, out: &mut Vec<i64>, place: &mut Place<'_>) -> Result<(), RowError> {
    if *array.data_type() == DataType::Int64 {
        out.extend_from_slice(primitive::<Int64Type>(array)?.values());
        return Ok(());
    }
    with_integers!(array, values => {
        for (row, v) in values.enumerate() {
            out.push(i64::try_from(v).unwrap_or(i64::MAX));
            if v > i128::from(i64::MAX) && array.is_valid(row) {
                place.fault(row, v);
            }
        }
    });
    Ok(())
}

fn times(array: &ArrayRef, out: &mut Vec<i64>, place: &mut Place<'_>) -> Result<(), RowError> {
    let start = out.len();
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            out.extend_from_slice(primitive::<TimestampMillisecondType>(array)?.values());
        }
        DataType::Timestamp(TimeUnit::Second, _) => {
            out.extend(primitive::<TimestampSecondType>(array)?.values().iter().map(|v| v.saturating_mul(1_000)));
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            out.extend(primitive::<TimestampMicrosecondType>(array)?.values().iter().map(|v| v.div_euclid(1_000)));
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let values = primitive::<TimestampNanosecondType>(array)?.values();
            out.extend(values.iter().map(|v| v.div_euclid(1_000_000)));
        }
        DataType::Int64 => out.extend_from_slice(primitive::<Int64Type>(array)?.values()),
        DataType::UInt64 => {
            let values = primitive::<UInt64Type>(array)?.values();
            out.extend(values.iter().map(|v| i64::try_from(*v).unwrap_or(i64::MAX)));
        }
        _ => {
            each_text(array, |row, text| {
                let ms = text.map_or(Some(0), |t| parse_timestamp(t.as_bytes()));
                out.push(ms.unwrap_or(i64::MAX));
                if let (None, Some(text)) = (ms, text) {
                    place.fault(row, excerpt(text.as_bytes()));
                }
                Ok(())
            })?;
            // What could not be read is reported already.
            for (row, v) in out[start..].iter().enumerate() {
                if *v != i64::MAX && !(0..=MAX_TIMESTAMP_MS).contains(v) {
                    place.fault(row, v);
                }
            }
            return Ok(());
        }
    }
    if !out[start..].iter().all(|v| (0..=MAX_TIMESTAMP_MS).contains(v)) {
        for (row, v) in out[start..].iter().enumerate() {
            if !(0..=MAX_TIMESTAMP_MS).contains(v) && array.is_valid(row) {
                place.fault(row, v);
            }
        }
    }
    Ok(())
}

fn texts(array: &ArrayRef, ends: &mut Vec<i32>, bytes: &mut Vec<u8>, budget: &mut Budget) -> Result<(), RowError> {
    match array.data_type() {
        DataType::Utf8 => {
            let array = array.as_string_opt::<i32>().ok_or_else(|| other(array))?;
            let offsets = array.value_offsets();
            let (Some(&from), Some(&to)) = (offsets.first(), offsets.last()) else { return Ok(()) };
            budget.spend((to - from) as usize)?;
            // The budget keeps a record's text far below 2 GiB, and a batch of records is cut before that.
            let shift = bytes.len() as i32 - from;
            bytes.extend_from_slice(&array.value_data()[from as usize..to as usize]);
            ends.extend(offsets[1..].iter().map(|o| o + shift));
            Ok(())
        }
        _ => each_text(array, |_, text| {
            let text = text.unwrap_or_default().as_bytes();
            budget.spend(text.len())?;
            bytes.extend_from_slice(text);
            ends.push(bytes.len() as i32);
            Ok(())
        }),
    }
}

/// Calls `f` with each row and its text; `None` for nulls.
fn each_text(array: &ArrayRef, mut f: impl FnMut(usize, Option<&str>) -> Result<(), RowError>) -> Result<(), RowError> {
    if let Some(a) = array.as_string_opt::<i32>() {
        return a.iter().enumerate().try_for_each(|(i, t)| f(i, t));
    }
    if let Some(a) = array.as_string_opt::<i64>() {
        return a.iter().enumerate().try_for_each(|(i, t)| f(i, t));
    }
    if let Some(a) = array.as_string_view_opt() {
        return a.iter().enumerate().try_for_each(|(i, t)| f(i, t));
    }
    let dictionary: &dyn Array = array.as_ref();
    downcast_dictionary_array!(
        dictionary => {
            let values = dictionary.values();
            for i in 0..dictionary.len() {
                let text = match dictionary.key(i) {
                    Some(k) if values.is_valid(k) => Some(text_at(values, k)?),
                    _ => None,
                };
                f(i, text)?;
            }
            Ok(())
        }
        _ => Err(other(array))
    )
}

fn text_at(array: &ArrayRef, i: usize) -> Result<&str, RowError> {
    if let Some(a) = array.as_string_opt::<i32>() {
        return Ok(a.value(i));
    }
    if let Some(a) = array.as_string_opt::<i64>() {
        return Ok(a.value(i));
    }
    array.as_string_view_opt().map(|a| a.value(i)).ok_or_else(|| other(array))
}
