//! Reference tables: what is known of devices, sites or part numbers besides their readings.
//!
//! A reference decides verdicts, so it is an input like rows: each version is named by the SHA-256 of its content, a lane
//! changes from one to another only at a recorded place ([`LaneEvent::Reference`](crate::event::LaneEvent)), and every
//! verdict's evidence names the versions its rows were joined with.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, RecordBatch, RecordBatchOptions,
    StringBuilder, TimestampMillisecondBuilder, UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{Float64Type, Int64Type, TimestampMillisecondType};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::codec::{CodecError, Reader, Writer};
use crate::identity::KeySet;
use crate::ingest::arrow_schema;
use crate::spec::{FieldSpec, FieldType};
use crate::verdict::Hash32;

const MAGIC: &str = "avouch/reference/1";

/// What a reference table is: its columns, and the one that names a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceSpec {
    /// Its name, which is its table name in SQL.
    pub name: String,
    /// The columns, sorted by name. The key is among them and is `utf8!`.
    pub fields: Vec<FieldSpec>,
    /// The column that is unique and that joins look up.
    pub key: String,
}

/// Why rows are no reference table. Rows are counted from 0.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// Two rows have one key.
    #[error("the key \"{key}\" stands twice")]
    DuplicateKey {
        /// The key.
        key: String,
        /// The row where it stands first.
        first: usize,
        /// The row where it stands again.
        row: usize,
    },
    /// A value that must be there is not.
    #[error("the column \"{column}\" must have a value")]
    Missing {
        /// The column.
        column: String,
        /// The row.
        row: usize,
    },
    /// The columns are not those of the specification.
    #[error("the columns are not those of the reference: {0}")]
    Columns(String),
    /// Stored bytes could not be read.
    #[error("{0}")]
    Bytes(#[from] CodecError),
}

/// What a lane is given in versions: tables that rows are joined with, and the keys that readings are signed with. Both
/// decide verdicts, are named by the SHA-256 of their content, and change at a recorded place.
#[derive(Debug, Clone)]
pub enum Versioned {
    /// A reference table.
    Table(Arc<Reference>),
    /// Keys of devices.
    Keys(Arc<KeySet>),
}

impl Versioned {
    /// The name it is recorded under.
    pub fn name(&self) -> &str {
        match self {
            Self::Table(table) => &table.spec.name,
            Self::Keys(keys) => keys.name(),
        }
    }

    /// The SHA-256 of its content.
    pub fn version(&self) -> Hash32 {
        match self {
            Self::Table(table) => table.version,
            Self::Keys(keys) => keys.version(),
        }
    }
}

impl From<Arc<Reference>> for Versioned {
    fn from(table: Arc<Reference>) -> Self {
        Self::Table(table)
    }
}

impl From<Arc<KeySet>> for Versioned {
    fn from(keys: Arc<KeySet>) -> Self {
        Self::Keys(keys)
    }
}

/// One version of a reference table. Immutable.
#[derive(Debug)]
pub struct Reference {
    spec: ReferenceSpec,
    version: Hash32,
    batch: RecordBatch,
    rows: HashMap<Box<str>, u32, ahash::RandomState>,
}

impl Reference {
    /// From rows in any order: one array a field, in the order of [`ReferenceSpec::fields`] and of their types. Rows are
    /// sorted by key, so that the order of a file does not change the version.
    ///
    /// # Errors
    /// [`ReferenceError`] naming the row.
    pub fn new(spec: &ReferenceSpec, columns: Vec<ArrayRef>) -> Result<Arc<Self>, ReferenceError> {
        let schema = arrow_schema(&spec.fields);
        let n = columns.first().map_or(0, |c| c.len());
        for (field, column) in spec.fields.iter().zip(&columns) {
            if field.required && column.null_count() > 0 {
                let row = (0..n).find(|&i| column.is_null(i)).unwrap_or_default();
                return Err(ReferenceError::Missing { column: field.name.clone(), row });
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        let unordered = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
            .map_err(|e| ReferenceError::Columns(e.to_string()))?;
        let key = spec.fields.iter().position(|f| f.name == spec.key && f.ty == FieldType::Utf8 && f.required);
        let Some(keys) = key.and_then(|k| unordered.column(k).as_string_opt::<i32>()) else {
            return Err(ReferenceError::Columns(format!("the key \"{}\" is not utf8!", spec.key)));
        };
        let mut order: Vec<u32> = (0..n as u32).collect();
        order.sort_by_key(|&i| (keys.value(i as usize), i));
        for pair in order.windows(2) {
            let (first, row) = (pair[0] as usize, pair[1] as usize);
            if keys.value(first) == keys.value(row) {
                return Err(ReferenceError::DuplicateKey { key: keys.value(row).to_owned(), first, row });
            }
        }
        let mut rows = HashMap::with_capacity_and_hasher(n, ahash::RandomState::with_seeds(1, 2, 3, 4));
        for (at, &i) in order.iter().enumerate() {
            rows.insert(keys.value(i as usize).into(), at as u32);
        }
        let order = UInt32Array::from(order);
        let columns = unordered
            .columns()
            .iter()
            .map(|c| take(c, &order, None))
            .collect::<Result<Vec<_>, _>>()
            .and_then(|columns| RecordBatch::try_new_with_options(schema, columns, &options));
        let batch = columns.map_err(|e| ReferenceError::Columns(e.to_string()))?;
        let mut out = Self { spec: spec.clone(), version: [0; 32], batch, rows };
        out.version = Sha256::digest(out.to_bytes()).into();
        Ok(Arc::new(out))
    }

    /// Its name and columns.
    pub fn spec(&self) -> &ReferenceSpec {
        &self.spec
    }

    /// SHA-256 of [`Reference::to_bytes`].
    pub fn version(&self) -> Hash32 {
        self.version
    }

    /// How many rows it has.
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The canonical content (see [`crate::codec`]): the text `avouch/reference/1`, the key column, the number of columns and
    /// for each, in the order of their names, its name, its type and whether it is required (1 byte); the number of rows
    /// and for each, in the order of their keys, a presence byte a column and the value if present: numbers and times in
    /// 8 bytes, `bool` in one, text with its length. The reference's name is not in it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.str(MAGIC);
        w.str(&self.spec.key);
        w.u32(self.spec.fields.len() as u32);
        for f in &self.spec.fields {
            w.str(&f.name);
            w.str(f.ty.name());
            w.u8(u8::from(f.required));
        }
        w.u32(self.len() as u32);
        for row in 0..self.len() {
            for (f, column) in self.spec.fields.iter().zip(self.batch.columns()) {
                w.u8(u8::from(column.is_valid(row)));
                if column.is_null(row) {
                    continue;
                }
                match f.ty {
                    FieldType::Utf8 => w.str(column.as_string::<i32>().value(row)),
                    FieldType::Bool => w.u8(u8::from(column.as_boolean().value(row))),
                    FieldType::I64 => w.i64(column.as_primitive::<Int64Type>().value(row)),
                    FieldType::F64 => w.f64(column.as_primitive::<Float64Type>().value(row)),
                    FieldType::TimestampMs => w.i64(column.as_primitive::<TimestampMillisecondType>().value(row)),
                }
            }
        }
        w.bytes
    }

    /// Reads what [`Reference::to_bytes`] wrote, as the reference `name`.
    ///
    /// # Errors
    /// [`ReferenceError::Bytes`] for damaged bytes, and those of [`Reference::new`].
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Arc<Self>, ReferenceError> {
        let mut r = Reader::new("reference", bytes);
        if r.str()? != MAGIC {
            return Err(r.invalid("these bytes are not a reference table of version 1").into());
        }
        let key = r.str()?.to_owned();
        let mut fields = Vec::new();
        for _ in 0..r.count(9)? {
            let name = r.str()?.to_owned();
            let ty = r.str()?;
            let Some(ty) = FieldType::from_name(ty) else {
                return Err(r.invalid(format!("there is no type \"{ty}\"")).into());
            };
            fields.push(FieldSpec { name, ty, required: r.u8()? == 1 });
        }
        let mut columns: Vec<ReferenceColumn> = fields.iter().map(|f| ReferenceColumn::new(f.ty)).collect();
        let rows = r.u32()?;
        if fields.is_empty() && rows > 0 {
            return Err(r.invalid("rows without columns").into());
        }
        for _ in 0..rows {
            for column in &mut columns {
                if r.u8()? == 0 {
                    column.null();
                    continue;
                }
                match column {
                    ReferenceColumn::Utf8(b) => b.append_value(r.str()?),
                    ReferenceColumn::Bool(b) => b.append_value(r.u8()? == 1),
                    ReferenceColumn::I64(b) => b.append_value(r.i64()?),
                    ReferenceColumn::F64(b) => b.append_value(r.f64()?),
                    ReferenceColumn::Time(b) => b.append_value(r.i64()?),
                }
            }
        }
        let another = r.invalid("the same table is written otherwise");
        r.finish()?;
        let spec = ReferenceSpec { name: name.to_owned(), fields, key };
        let table = Self::new(&spec, columns.into_iter().map(ReferenceColumn::finish).collect())?;
        // One table, one spelling: the digest of a file that is accepted is the version.
        if table.to_bytes() == bytes { Ok(table) } else { Err(another.into()) }
    }

    /// For each key the row it names, null where it names none.
    pub(crate) fn look_up<'a>(&self, keys: impl Iterator<Item = Option<&'a str>>) -> UInt32Array {
        keys.map(|k| k.and_then(|k| self.rows.get(k).copied())).collect()
    }

    /// The columns, sorted by key.
    pub(crate) fn batch(&self) -> &RecordBatch {
        &self.batch
    }
}

/// Builds one column of a reference.
#[derive(Debug)]
pub enum ReferenceColumn {
    /// Text.
    Utf8(StringBuilder),
    /// true or false.
    Bool(BooleanBuilder),
    /// Integers.
    I64(Int64Builder),
    /// Floats.
    F64(Float64Builder),
    /// Milliseconds since the epoch.
    Time(TimestampMillisecondBuilder),
}

impl ReferenceColumn {
    /// Of a field of this type.
    pub fn new(ty: FieldType) -> Self {
        match ty {
            FieldType::Utf8 => Self::Utf8(StringBuilder::new()),
            FieldType::Bool => Self::Bool(BooleanBuilder::new()),
            FieldType::I64 => Self::I64(Int64Builder::new()),
            FieldType::F64 => Self::F64(Float64Builder::new()),
            FieldType::TimestampMs => Self::Time(TimestampMillisecondBuilder::new()),
        }
    }

    /// Appends a missing value.
    pub fn null(&mut self) {
        match self {
            Self::Utf8(b) => b.append_null(),
            Self::Bool(b) => b.append_null(),
            Self::I64(b) => b.append_null(),
            Self::F64(b) => b.append_null(),
            Self::Time(b) => b.append_null(),
        }
    }

    /// The array.
    pub fn finish(mut self) -> ArrayRef {
        match &mut self {
            Self::Utf8(b) => Arc::new(b.finish()),
            Self::Bool(b) => Arc::new(b.finish()),
            Self::I64(b) => Arc::new(b.finish()),
            Self::F64(b) => Arc::new(b.finish()),
            Self::Time(b) => Arc::new(b.finish()),
        }
    }
}
