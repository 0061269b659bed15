//! Rows as people and programs read them.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;
use thiserror::Error;

/// Why rows cannot be shown.
#[derive(Debug, Error)]
#[error("a column cannot be shown: {0}")]
pub struct RowsError(#[from] ArrowError);

/// Every cell as text, row by row.
fn cells(batches: &[RecordBatch], null: &str) -> Result<Vec<Vec<String>>, RowsError> {
    let options = FormatOptions::default().with_null(null);
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options)).collect::<Result<_, _>>()?;
        for i in 0..batch.num_rows() {
            let row = columns.iter().map(|c| c.value(i).try_to_string()).collect::<Result<_, _>>()?;
            rows.push(row);
        }
    }
    Ok(rows)
}

/// A table for a terminal: numbers to the right.
///
/// # Errors
/// For a column that has no text.
pub fn table(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<String, RowsError> {
    let rows = cells(batches, "null")?;
    let head: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
    // One row, one line, whatever a text holds.
    let shown = |c: char| match c {
        '\n' => '↵',
        c if c.is_control() => '\u{fffd}',
        c => c,
    };
    let plain = |cell: &str| cell.chars().map(shown).collect::<String>();
    let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|c| plain(c)).collect()).collect();
    let width =
        |i: usize| rows.iter().map(|r| r[i].chars().count()).chain([head[i].chars().count()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut out = String::new();
    let mut line = |cells: &[String]| {
        let mut text = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let gap = " ".repeat(widths[i] - cell.chars().count());
            let right = schema.field(i).data_type().is_numeric();
            text.push_str(if i == 0 { "" } else { "  " });
            text.push_str(&if right { format!("{gap}{cell}") } else { format!("{cell}{gap}") });
        }
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(&head);
    line(&widths.iter().map(|w| "-".repeat(*w)).collect::<Vec<_>>());
    rows.iter().for_each(|row| line(row));
    out.push_str(&format!("{}\n", crate::lang::plural(rows.len(), "row")));
    Ok(out)
}

/// CSV with a header line; null is an empty field.
///
/// # Errors
/// For a column that has no text.
pub fn csv(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<String, RowsError> {
    let quoted = |cell: &str| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell.to_owned(),
    };
    let head: Vec<String> = schema.fields().iter().map(|f| quoted(f.name())).collect();
    let mut out = head.join(",") + "\n";
    for row in cells(batches, "")? {
        out.push_str(&row.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(","));
        out.push('\n');
    }
    Ok(out)
}

/// One JSON object a line.
///
/// # Errors
/// For a column that has no text.
pub fn json(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<String, RowsError> {
    Ok(objects(schema, batches)?.iter().fold(String::new(), |out, row| out + &format!("{row}\n")))
}

/// A JSON object a row.
///
/// # Errors
/// For a column that has no text.
pub(crate) fn objects(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<Value>, RowsError> {
    let mut out = Vec::with_capacity(batches.iter().map(RecordBatch::num_rows).sum());
    for batch in batches {
        for i in 0..batch.num_rows() {
            let named = schema.fields().iter().zip(batch.columns());
            let row: serde_json::Map<String, Value> =
                named.map(|(f, c)| Ok((f.name().clone(), value(c, i)?))).collect::<Result<_, RowsError>>()?;
            out.push(Value::Object(row));
        }
    }
    Ok(out)
}

/// A cell in JSON: numbers that JSON has a word for, lists and structs; all else is text.
fn value(column: &ArrayRef, i: usize) -> Result<Value, RowsError> {
    if column.is_null(i) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::Boolean => column.as_boolean().value(i).into(),
        ty if ty.is_integer() && *ty != DataType::UInt64 => {
            arrow::compute::cast(&column.slice(i, 1), &DataType::Int64)?.as_primitive::<Int64Type>().value(0).into()
        }
        ty if ty.is_floating() => {
            arrow::compute::cast(&column.slice(i, 1), &DataType::Float64)?.as_primitive::<Float64Type>().value(0).into()
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(i);
            (0..items.len()).map(|j| value(&items, j)).collect::<Result<Vec<_>, _>>()?.into()
        }
        DataType::Struct(fields) => {
            let parts = column.as_struct();
            let each = fields.iter().zip(parts.columns());
            let map: serde_json::Map<String, Value> =
                each.map(|(f, c)| Ok((f.name().clone(), value(c, i)?))).collect::<Result<_, RowsError>>()?;
            Value::Object(map)
        }
        _ => {
            let options = FormatOptions::default();
            ArrayFormatter::try_new(column.as_ref(), &options)?.value(i).try_to_string()?.into()
        }
    })
}
