//! Apache Parquet with flat columns.

use std::fs::File;
use std::path::PathBuf;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch, StringArray,
    UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType, UInt64Type};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::json_text::{member, push_string};
use super::options::{device_of, no_time, time_of};
use super::{DeviceFrom, FilesError, ReplayOptions, Row, RowReader};

/// A column of the current batch in one of the few types JSON distinguishes.
enum Values {
    I64(Int64Array),
    U64(UInt64Array),
    F32(Float32Array),
    F64(Float64Array),
    Bool(BooleanArray),
    Text(StringArray),
    Null,
}

/// The type a column is cast to, or `None` where JSON has none for it.
fn target(ty: &DataType) -> Option<DataType> {
    use DataType as T;
    Some(match ty {
        T::Int8 | T::Int16 | T::Int32 | T::Int64 => T::Int64,
        T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => T::UInt64,
        T::Float32 => T::Float32,
        T::Float16 | T::Float64 | T::Decimal32(..) | T::Decimal64(..) | T::Decimal128(..) | T::Decimal256(..) => {
            T::Float64
        }
        T::Boolean => T::Boolean,
        T::Utf8 | T::LargeUtf8 | T::Utf8View => T::Utf8,
        T::Timestamp(..) | T::Date32 | T::Date64 => T::Timestamp(TimeUnit::Millisecond, None),
        T::Dictionary(_, value) => target(value)?,
        T::Null => T::Null,
        _ => return None,
    })
}

fn values(array: &ArrayRef, to: &DataType) -> Result<Values, arrow::error::ArrowError> {
    let array = match array.data_type() {
        // Arrow keeps UTC under any zone, so the same instants without one; a cast would want the zone's tables.
        DataType::Timestamp(unit, Some(_)) => {
            let plain = array.to_data().into_builder().data_type(DataType::Timestamp(*unit, None)).build()?;
            cast(&arrow::array::make_array(plain), to)?
        }
        DataType::Float16 | DataType::Dictionary(..) => cast(array, to)?,
        from if from == to => array.clone(),
        _ => cast(array, to)?,
    };
    Ok(match array.data_type() {
        DataType::Int64 => Values::I64(array.as_primitive::<Int64Type>().clone()),
        DataType::UInt64 => Values::U64(array.as_primitive::<UInt64Type>().clone()),
        DataType::Float32 => Values::F32(array.as_primitive::<Float32Type>().clone()),
        DataType::Float64 => Values::F64(array.as_primitive::<Float64Type>().clone()),
        DataType::Boolean => Values::Bool(array.as_boolean().clone()),
        DataType::Utf8 => Values::Text(array.as_string::<i32>().clone()),
        DataType::Timestamp(..) => Values::I64(array.as_primitive::<TimestampMillisecondType>().reinterpret_cast()),
        _ => Values::Null,
    })
}

impl Values {
    fn is_null(&self, i: usize) -> bool {
        match self {
            Values::I64(a) => a.is_null(i),
            Values::U64(a) => a.is_null(i),
            Values::F32(a) => a.is_null(i) || !a.value(i).is_finite(),
            Values::F64(a) => a.is_null(i) || !a.value(i).is_finite(),
            Values::Bool(a) => a.is_null(i),
            Values::Text(a) => a.is_null(i),
            Values::Null => true,
        }
    }

    /// Appends the value as JSON. Floats get their shortest digits.
    fn push(&self, i: usize, text: bool, out: &mut Vec<u8>) {
        if self.is_null(i) {
            out.extend_from_slice(b"null");
            return;
        }
        if text && !matches!(self, Values::Text(_)) {
            push_string(out, &self.text(i));
            return;
        }
        // Invariant: writing a finite number into a Vec cannot fail, so the results are not looked at.
        let _ = match self {
            Values::I64(a) => serde_json::to_writer(out, &a.value(i)),
            Values::U64(a) => serde_json::to_writer(out, &a.value(i)),
            Values::F32(a) => serde_json::to_writer(out, &a.value(i)),
            Values::F64(a) => serde_json::to_writer(out, &a.value(i)),
            Values::Bool(a) => serde_json::to_writer(out, &a.value(i)),
            Values::Text(a) => {
                push_string(out, a.value(i));
                Ok(())
            }
            Values::Null => Ok(()),
        };
    }

    fn text(&self, i: usize) -> String {
        if self.is_null(i) {
            return String::new();
        }
        match self {
            Values::I64(a) => a.value(i).to_string(),
            Values::U64(a) => a.value(i).to_string(),
            Values::F32(a) => a.value(i).to_string(),
            Values::F64(a) => a.value(i).to_string(),
            Values::Bool(a) => a.value(i).to_string(),
            Values::Text(a) => a.value(i).to_owned(),
            Values::Null => String::new(),
        }
    }
}

pub(super) struct ParquetRows {
    path: PathBuf,
    size: u64,
    rows: u64,
    reader: ParquetRecordBatchReader,
    names: Vec<String>,
    members: Vec<Vec<u8>>,
    targets: Vec<DataType>,
    batch: Vec<Values>,
    batch_rows: usize,
    at: usize,
    line: u64,
    prefix: Vec<u8>,
    path_device: String,
    device: Option<usize>,
    key: Option<usize>,
    time: Option<usize>,
    arrival: Option<usize>,
    keep_undated: bool,
    last_times: (Option<i64>, Option<i64>),
}

impl ParquetRows {
    pub(super) fn open(path: PathBuf, options: &ReplayOptions) -> Result<Self, FilesError> {
        let io = |source| FilesError::Io { path: path.clone(), source };
        let row_error = |why: String| FilesError::Row { path: path.clone(), line: 1, why };
        let file = File::open(&path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)
            .map_err(|e| row_error(format!("this is not a Parquet file, or a damaged one: {e}")))?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        let schema = builder.schema().clone();
        let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let mut targets = Vec::with_capacity(names.len());
        for field in schema.fields() {
            targets.push(target(field.data_type()).ok_or_else(|| {
                row_error(format!(
                    "column `{}` is {}, which has no place in a flat reading; leave it out or flatten it",
                    field.name(),
                    field.data_type()
                ))
            })?);
        }
        let find = |column: &String| -> Result<usize, FilesError> {
            names.iter().position(|n| n == column).ok_or_else(|| FilesError::NoColumn {
                path: path.clone(),
                line: 1,
                column: column.clone(),
                have: names.clone(),
            })
        };
        let (mut prefix, mut path_device, mut device) = (Vec::new(), String::new(), None);
        match &options.device {
            None => {}
            Some(DeviceFrom::Column(column)) => device = Some(find(column)?),
            Some(DeviceFrom::Path) => {
                path_device = device_of(&path);
                if let Some(field) = &options.device_field {
                    if names.contains(field) {
                        return Err(row_error(format!(
                            "there is a column `{field}` already; give the device of the path another field name, or take the device from the column"
                        )));
                    }
                    prefix = member(field);
                    push_string(&mut prefix, &path_device);
                }
            }
        }
        let key = options.key.as_ref().map(&find).transpose()?;
        let time = options.time.as_ref().map(&find).transpose()?;
        let arrival = options.arrival.as_ref().map(&find).transpose()?;
        let reader = builder.with_batch_size(1024).build().map_err(|e| row_error(e.to_string()))?;
        let members = names.iter().map(|n| member(n)).collect();
        Ok(Self {
            path,
            size,
            rows,
            reader,
            names,
            members,
            targets,
            batch: Vec::new(),
            batch_rows: 0,
            at: 0,
            line: 0,
            prefix,
            path_device,
            device,
            key,
            time,
            arrival,
            keep_undated: options.keep_undated,
            last_times: (None, None),
        })
    }

    fn error(&self, why: String) -> FilesError {
        FilesError::Row { path: self.path.clone(), line: self.line, why }
    }

    fn take_batch(&mut self, batch: &RecordBatch) -> Result<(), FilesError> {
        self.batch.clear();
        for (i, (array, to)) in batch.columns().iter().zip(&self.targets).enumerate() {
            let column = values(array, to).map_err(|e| self.error(format!("column `{}`: {e}", self.names[i])))?;
            self.batch.push(column);
        }
        self.batch_rows = batch.num_rows();
        self.at = 0;
        Ok(())
    }

    fn time_at(&self, column: Option<usize>, i: usize, before: Option<i64>) -> Result<Option<i64>, FilesError> {
        let Some(column) = column else { return Ok(None) };
        let text = self.batch[column].text(i);
        if self.keep_undated {
            return Ok(time_of(&text).or(before));
        }
        time_of(&text).map(Some).ok_or_else(|| self.error(no_time(&self.names[column], &text)))
    }
}

impl RowReader for ParquetRows {
    fn read(&mut self, row: &mut Row) -> Result<bool, FilesError> {
        row.clear();
        while self.at == self.batch_rows {
            match self.reader.next() {
                None => return Ok(false),
                Some(Ok(batch)) => self.take_batch(&batch)?,
                Some(Err(e)) => {
                    self.line += 1;
                    return Err(self.error(format!("the file is damaged from here: {e}")));
                }
            }
        }
        let i = self.at;
        self.at += 1;
        self.line += 1;
        row.line = self.line;
        row.json.push(b'{');
        row.json.extend_from_slice(&self.prefix);
        for (c, column) in self.batch.iter().enumerate() {
            if c > 0 || !self.prefix.is_empty() {
                row.json.push(b',');
            }
            row.json.extend_from_slice(&self.members[c]);
            column.push(i, self.device == Some(c), &mut row.json);
        }
        row.json.push(b'}');
        match self.device {
            Some(c) => row.device.push_str(&self.batch[c].text(i)),
            None => row.device.push_str(&self.path_device),
        }
        match self.key {
            Some(c) => row.key.push_str(&self.batch[c].text(i)),
            None => row.key.push_str(&row.device),
        }
        row.time_ms = self.time_at(self.time, i, self.last_times.0)?;
        row.arrival_ms = self.time_at(self.arrival, i, self.last_times.1)?;
        self.last_times = (row.time_ms, row.arrival_ms);
        Ok(true)
    }

    fn bytes_read(&self) -> u64 {
        if self.rows == 0 {
            self.size
        } else {
            (u128::from(self.size) * u128::from(self.line) / u128::from(self.rows)) as u64
        }
    }
}
