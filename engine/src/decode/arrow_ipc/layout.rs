//! What an IPC schema says of the bytes of its record batches, and where the pipeline's fields are in them.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::ipc;

use crate::decode::{RowError, unfit};
use crate::spec::{FieldSpec, FieldType};

/// Most nodes (columns, with all that is nested in them) of a schema.
const MAX_NODES: usize = 16_384;
/// Deepest nesting of a schema's columns.
const MAX_DEPTH: usize = 32;

/// One node of a record batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeAt {
    /// How many buffers it has, besides those counted by the batch.
    pub buffers: usize,
    /// Whether the batch counts further buffers for it.
    pub view: bool,
    /// Whether it is a column that the pipeline names.
    pub wanted: bool,
    /// Bytes of an element of its second buffer: a value, an offset, a view, a key.
    pub unit: usize,
}

/// A column that the pipeline names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    /// Its place in the pipeline's schema.
    pub field: usize,
    /// The id of its dictionary.
    pub dictionary: Option<i64>,
}

/// A schema, resolved against the pipeline's fields.
///
/// Arrow's reader is given only types that the pipeline can use. Everything else is described to it as plain columns to
/// pass over, one for each node, with as many buffers as the node has: so no type that nobody asked for is ever read.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// What Arrow's reader is told: a column for each node.
    pub schema: SchemaRef,
    pub nodes: Vec<NodeAt>,
    /// Indexes of `schema`'s columns that are wanted, increasing; one for each of `found`.
    pub projection: Vec<usize>,
    pub found: Vec<Found>,
    pub version: ipc::MetadataVersion,
}

impl Layout {
    pub fn new(schema: ipc::Schema<'_>, version: ipc::MetadataVersion, fields: &[FieldSpec]) -> Result<Self, RowError> {
        if schema.endianness() != ipc::Endianness::Little {
            return Err(RowError::undecodable("the Arrow schema is big-endian"));
        }
        let mut w = Walk { version, columns: Vec::new(), nodes: Vec::new() };
        let (mut projection, mut found): (Vec<usize>, Vec<Found>) = (Vec::new(), Vec::new());
        for column in schema.fields().into_iter().flatten() {
            let name = column.name().unwrap_or_default();
            let Some(i) = fields.iter().position(|f| f.name == name) else {
                w.pass(column, 0)?;
                continue;
            };
            if found.iter().any(|f| f.field == i) {
                return Err(RowError::schema(format!("field \"{name}\" stands twice in the Arrow schema")));
            }
            if column.type_type() == ipc::Type::Null {
                // What a writer makes of a column in which no row has a value.
                w.pass(column, 0)?;
                continue;
            }
            let ty = data_type(column);
            let dictionary = column.dictionary();
            match ty {
                Some(ty) if fits(fields[i].ty, &ty) => {
                    projection.push(w.columns.len());
                    found.push(Found { field: i, dictionary: dictionary.map(|d| d.id()) });
                    let node =
                        NodeAt { buffers: buffers(&ty), view: ty == DataType::Utf8View, wanted: true, unit: unit(&ty) };
                    w.push(named(name, ty, dictionary.map(|d| d.id())), node)?;
                }
                ty => {
                    let found = ty.map_or_else(|| type_name(column), |t| t.to_string());
                    return Err(unfit(&fields[i], format!("an Arrow column of {found}")));
                }
            }
        }
        for (i, f) in fields.iter().enumerate() {
            if f.required && found.iter().all(|c| c.field != i) {
                return Err(RowError::schema(format!("field \"{}\" is missing but required", f.name)));
            }
        }
        let columns: Fields = w.columns.into();
        Ok(Self { schema: Arc::new(Schema::new(columns)), nodes: w.nodes, projection, found, version })
    }

    /// The type of a dictionary's values, if the dictionary is wanted.
    pub fn dictionary_values(&self, id: i64) -> Option<&DataType> {
        let at = self.found.iter().position(|f| f.dictionary == Some(id))?;
        match self.schema.field(self.projection[at]).data_type() {
            DataType::Dictionary(_, values) => Some(values),
            _ => None,
        }
    }
}

fn named(name: &str, ty: DataType, dictionary: Option<i64>) -> Field {
    match dictionary {
        #[expect(deprecated, reason = "Arrow's reader finds dictionaries by this and by nothing else")]
        Some(id) => Field::new_dict(name, ty, true, id, false),
        None => Field::new(name, ty, true),
    }
}

/// Bytes of an element of the second buffer of a type's node.
pub(super) fn unit(ty: &DataType) -> usize {
    match ty {
        DataType::Utf8 => 4,
        DataType::LargeUtf8 => 8,
        DataType::Utf8View => 16,
        DataType::Dictionary(key, _) => unit(key),
        other => other.primitive_width().unwrap_or(1),
    }
}

/// Buffers of a wanted column, besides those that the batch counts.
fn buffers(ty: &DataType) -> usize {
    match ty {
        DataType::Utf8 | DataType::LargeUtf8 => 3,
        _ => 2,
    }
}

struct Walk {
    version: ipc::MetadataVersion,
    columns: Vec<Arc<Field>>,
    nodes: Vec<NodeAt>,
}

impl Walk {
    fn push(&mut self, column: Field, node: NodeAt) -> Result<(), RowError> {
        if self.nodes.len() >= MAX_NODES {
            return Err(RowError::undecodable(format!("the Arrow schema has more than {MAX_NODES} columns")));
        }
        self.columns.push(Arc::new(column));
        self.nodes.push(node);
        Ok(())
    }

    /// A node of so many buffers that is passed over, as a column of a type that has as many.
    fn plain(&mut self, buffers: usize, view: bool) -> Result<(), RowError> {
        let ty = match (view, buffers) {
            (true, _) => DataType::BinaryView,
            (_, 0) => DataType::Null,
            (_, 1) => DataType::Struct(Fields::empty()),
            (_, 2) => DataType::Int8,
            _ => DataType::Binary,
        };
        self.push(Field::new("", ty, true), NodeAt { buffers, view, wanted: false, unit: 1 })
    }

    fn pass(&mut self, f: ipc::Field<'_>, depth: usize) -> Result<(), RowError> {
        if depth > MAX_DEPTH {
            return Err(RowError::undecodable(format!("the Arrow schema is nested deeper than {MAX_DEPTH} levels")));
        }
        if f.dictionary().is_some() {
            return self.plain(2, false);
        }
        let nested = match f.type_type() {
            ipc::Type::Null => return self.plain(0, false),
            ipc::Type::Int
            | ipc::Type::FloatingPoint
            | ipc::Type::Bool
            | ipc::Type::Decimal
            | ipc::Type::Date
            | ipc::Type::Time
            | ipc::Type::Timestamp
            | ipc::Type::Interval
            | ipc::Type::Duration
            | ipc::Type::FixedSizeBinary => return self.plain(2, false),
            ipc::Type::Utf8 | ipc::Type::Binary | ipc::Type::LargeUtf8 | ipc::Type::LargeBinary => {
                return self.plain(3, false);
            }
            ipc::Type::Utf8View | ipc::Type::BinaryView => return self.plain(2, true),
            ipc::Type::List | ipc::Type::LargeList | ipc::Type::Map => 2,
            ipc::Type::ListView | ipc::Type::LargeListView => 3,
            ipc::Type::Struct_ | ipc::Type::FixedSizeList => 1,
            ipc::Type::RunEndEncoded => 0,
            ipc::Type::Union => {
                let dense = f.type_as_union().is_some_and(|u| u.mode() == ipc::UnionMode::Dense);
                1 + usize::from(dense) + usize::from(self.version < ipc::MetadataVersion::V5)
            }
            other => {
                let name = f.name().unwrap_or_default();
                return Err(RowError::undecodable(format!(
                    "the column \"{name}\" is of an unknown Arrow type ({other:?})"
                )));
            }
        };
        self.plain(nested, false)?;
        for child in f.children().into_iter().flatten() {
            self.pass(child, depth + 1)?;
        }
        Ok(())
    }
}

/// A column's type, if it is one that some field can take.
fn data_type(f: ipc::Field<'_>) -> Option<DataType> {
    let plain = match f.type_type() {
        ipc::Type::Int => int(f.type_as_int()?)?,
        ipc::Type::FloatingPoint => match f.type_as_floating_point()?.precision() {
            ipc::Precision::SINGLE => DataType::Float32,
            ipc::Precision::DOUBLE => DataType::Float64,
            _ => return None,
        },
        ipc::Type::Bool => DataType::Boolean,
        ipc::Type::Utf8 => DataType::Utf8,
        ipc::Type::LargeUtf8 => DataType::LargeUtf8,
        ipc::Type::Utf8View => DataType::Utf8View,
        ipc::Type::Timestamp => {
            let unit = match f.type_as_timestamp()?.unit() {
                ipc::TimeUnit::SECOND => TimeUnit::Second,
                ipc::TimeUnit::MILLISECOND => TimeUnit::Millisecond,
                ipc::TimeUnit::MICROSECOND => TimeUnit::Microsecond,
                ipc::TimeUnit::NANOSECOND => TimeUnit::Nanosecond,
                _ => return None,
            };
            DataType::Timestamp(unit, None)
        }
        _ => return None,
    };
    match f.dictionary() {
        None => Some(plain),
        Some(d) => {
            let keys = d.indexType().map_or(Some(DataType::Int32), int)?;
            let text = matches!(plain, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            text.then(|| DataType::Dictionary(Box::new(keys), Box::new(plain)))
        }
    }
}

fn int(i: ipc::Int<'_>) -> Option<DataType> {
    Some(match (i.bitWidth(), i.is_signed()) {
        (8, true) => DataType::Int8,
        (16, true) => DataType::Int16,
        (32, true) => DataType::Int32,
        (64, true) => DataType::Int64,
        (8, false) => DataType::UInt8,
        (16, false) => DataType::UInt16,
        (32, false) => DataType::UInt32,
        (64, false) => DataType::UInt64,
        _ => return None,
    })
}

fn fits(field: FieldType, ty: &DataType) -> bool {
    let text = matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..));
    match field {
        FieldType::Utf8 => text,
        FieldType::Bool => *ty == DataType::Boolean,
        FieldType::I64 => ty.is_integer(),
        FieldType::F64 => ty.is_integer() || matches!(ty, DataType::Float32 | DataType::Float64),
        FieldType::TimestampMs => text || matches!(ty, DataType::Timestamp(..) | DataType::Int64 | DataType::UInt64),
    }
}

fn type_name(f: ipc::Field<'_>) -> String {
    let name = f.type_type().variant_name().unwrap_or("an unknown type").trim_end_matches('_');
    if f.dictionary().is_some() { format!("a dictionary of {name}") } else { name.to_owned() }
}
