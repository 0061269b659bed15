//! Descriptor sets: from what `protoc` writes to a table by field number.

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use thiserror::Error;

use super::wire::WireType;
use crate::decode::{Slot, wanted};
use crate::spec::{FieldSpec, FieldType, Framing, ProtobufSpec};

/// Why a descriptor set does not give what a pipeline needs.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{message}")]
pub struct DescriptorError {
    /// The field of the pipeline's schema it is about, if it is about one.
    pub field: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

/// A value's type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    Text,
    /// Numbers and names.
    Enum(Vec<(i32, String)>),
    Timestamp,
}

/// Where a field's value goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Take {
    /// Into the slot of this field of the pipeline.
    Field(usize),
    /// Through this table.
    Message(usize),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub number: u32,
    pub wire: WireType,
    pub kind: Kind,
    pub take: Take,
    /// The pipeline's name of it (the path, for a nested field), for messages.
    pub name: String,
    /// Its type as the `.proto` file says.
    pub declared: String,
}

/// The fields of one message that the pipeline names, by number.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Table {
    pub entries: Vec<Entry>,
    /// What fields without presence are when this message is there and they are not.
    pub defaults: Vec<(usize, Slot)>,
}

/// How messages are read: the pipeline's fields resolved against a descriptor.
#[derive(Debug, Clone, PartialEq)]
pub struct MessagePlan {
    pub(super) fields: Vec<FieldSpec>,
    /// The root's table is the first.
    pub(super) tables: Vec<Table>,
    /// The slots of a message without any field, and the text they refer to.
    pub(super) absent: Vec<Slot>,
    pub(super) absent_text: Vec<u8>,
    pub(super) framing: Framing,
    /// Indexes from the file to the message.
    pub(super) path: Vec<i64>,
    unnamed: Vec<String>,
}

impl MessagePlan {
    /// Resolves `fields` against the message of `spec`.
    ///
    /// # Errors
    /// Everything that is wrong: bytes that are no descriptor set, no such message, a required field it does not have, a
    /// field of another type.
    pub fn new(spec: &ProtobufSpec, fields: &[FieldSpec]) -> Result<Self, Vec<DescriptorError>> {
        let whole = |message: String| vec![DescriptorError { field: None, message }];
        let set = FileDescriptorSet::decode(&*spec.descriptor).map_err(|e| {
            whole(format!(
                "the descriptor is not a descriptor set ({e}); make it with `protoc --include_imports --descriptor_set_out=FILE`"
            ))
        })?;
        let index = Index::new(&set);
        let wanted_name = spec.message.trim_start_matches('.');
        let Some(root) = index.messages.iter().find(|m| m.name == wanted_name) else {
            let names: Vec<&str> = index
                .messages
                .iter()
                .filter(|m| !m.map && !m.name.starts_with("google.protobuf."))
                .map(|m| m.name.as_str())
                .take(12)
                .collect();
            let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(whole(format!("the descriptor has no message \"{}\"; it has {has}", spec.message)));
        };
        let mut b = Builder {
            index: &index,
            fields,
            tables: Vec::new(),
            absent: vec![Slot::Missing; fields.len()],
            absent_text: Vec::new(),
            found: vec![false; fields.len()],
            errors: Vec::new(),
        };
        b.table(root, "", true);
        let Builder { tables, absent, absent_text, found, mut errors, .. } = b;
        let mut unnamed = Vec::new();
        // Without a table nothing is found.
        let no_table = errors.iter().any(|e| e.field.is_none());
        for (field, found) in fields.iter().zip(found) {
            if found || no_table || errors.iter().any(|e| e.field.as_deref() == Some(&field.name)) {
                continue;
            }
            if field.required {
                let message = format!("the message {} has no field \"{}\", which is required", root.name, field.name);
                errors.push(DescriptorError { field: Some(field.name.clone()), message });
            } else {
                unnamed.push(field.name.clone());
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            fields: fields.to_vec(),
            tables,
            absent,
            absent_text,
            framing: spec.framing,
            path: root.path.clone(),
            unnamed,
        })
    }

    /// The pipeline's fields that the message does not have: they are always null.
    pub fn absent_fields(&self) -> &[String] {
        &self.unnamed
    }
}

struct MessageAt<'a> {
    name: String,
    descriptor: &'a DescriptorProto,
    syntax: &'a str,
    path: Vec<i64>,
    map: bool,
}

/// Everything in a descriptor set by its full name.
struct Index<'a> {
    messages: Vec<MessageAt<'a>>,
    enums: Vec<(String, &'a EnumDescriptorProto)>,
}

impl<'a> Index<'a> {
    fn new(set: &'a FileDescriptorSet) -> Self {
        let mut out = Self { messages: Vec::new(), enums: Vec::new() };
        for file in &set.file {
            let package = file.package();
            for (i, m) in file.message_type.iter().enumerate() {
                out.message(file, m, package, vec![i as i64]);
            }
            out.enums.extend(file.enum_type.iter().map(|e| (join(package, e.name()), e)));
        }
        out
    }

    fn message(&mut self, file: &'a FileDescriptorProto, m: &'a DescriptorProto, scope: &str, path: Vec<i64>) {
        let name = join(scope, m.name());
        self.enums.extend(m.enum_type.iter().map(|e| (join(&name, e.name()), e)));
        for (i, inner) in m.nested_type.iter().enumerate() {
            let path = path.iter().copied().chain([i as i64]).collect();
            self.message(file, inner, &name, path);
        }
        let map = m.options.as_ref().is_some_and(|o| o.map_entry());
        self.messages.push(MessageAt { name, descriptor: m, syntax: file.syntax(), path, map });
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

struct Builder<'a> {
    index: &'a Index<'a>,
    fields: &'a [FieldSpec],
    tables: Vec<Table>,
    absent: Vec<Slot>,
    absent_text: Vec<u8>,
    found: Vec<bool>,
    errors: Vec<DescriptorError>,
}

impl Builder<'_> {
    /// The table of a message whose fields have `prefix` before their names; its place. `root`: whether a row always has it.
    fn table(&mut self, message: &MessageAt<'_>, prefix: &str, root: bool) -> usize {
        let place = self.tables.len();
        self.tables.push(Table::default());
        let mut table = Table::default();
        if !matches!(message.syntax, "" | "proto2" | "proto3") {
            let text = format!(
                "{} is written in the syntax \"{}\"; proto2 and proto3 are read",
                message.name,
                message.syntax.escape_debug()
            );
            self.errors.push(DescriptorError { field: None, message: text });
            return place;
        }
        for f in &message.descriptor.field {
            let full = format!("{prefix}{}", f.name());
            let inner = format!("{full}.");
            let direct = self.fields.iter().position(|p| p.name == full);
            if direct.is_none() && !self.fields.iter().any(|p| p.name.starts_with(&inner)) {
                continue;
            }
            let Ok(number) = u32::try_from(f.number()) else { continue };
            match direct {
                Some(i) => {
                    self.found[i] = true;
                    match self.direct(message, f, i, number, root, &mut table) {
                        Ok(entry) => table.entries.push(entry),
                        Err(message) => {
                            self.errors.push(DescriptorError { field: Some(full), message });
                        }
                    }
                }
                None => {
                    if let Some(entry) = self.nested(f, &full, number) {
                        table.entries.push(entry);
                    }
                }
            }
        }
        table.entries.sort_by_key(|e| e.number);
        self.tables[place] = table;
        place
    }

    /// A message with fields that the pipeline names by paths.
    fn nested(&mut self, f: &FieldDescriptorProto, full: &str, number: u32) -> Option<Entry> {
        if f.label() == Label::Repeated || f.r#type() != Type::Message {
            return None;
        }
        let index = self.index;
        let name = f.type_name().trim_start_matches('.');
        let message = index.messages.iter().find(|m| m.name == name)?;
        let place = self.table(message, &format!("{full}."), false);
        Some(Entry {
            number,
            wire: WireType::Length,
            kind: Kind::Timestamp,
            take: Take::Message(place),
            name: full.to_owned(),
            declared: format!("a message {name}"),
        })
    }

    /// A field that the pipeline names.
    fn direct(
        &mut self,
        message: &MessageAt<'_>,
        f: &FieldDescriptorProto,
        i: usize,
        number: u32,
        root: bool,
        table: &mut Table,
    ) -> Result<Entry, String> {
        let field = &self.fields[i];
        let declared = declared(f);
        let no =
            || format!("field \"{}\": {} expected, but {} says {declared}", field.name, wanted(field.ty), message.name);
        if f.label() == Label::Repeated {
            return Err(no());
        }
        let ty = f.r#type();
        let wrapped = (ty == Type::Message).then(|| wrapper(f.type_name())).flatten();
        let kind = match wrapped.unwrap_or(ty) {
            Type::Message if f.type_name() == ".google.protobuf.Timestamp" => Kind::Timestamp,
            Type::Enum => {
                let name = f.type_name().trim_start_matches('.');
                let e = self.index.enums.iter().find(|(n, _)| n == name);
                let Some((_, e)) = e else {
                    return Err(format!(
                        "field \"{}\": the descriptor lacks the enum {name}; make it with --include_imports",
                        field.name
                    ));
                };
                Kind::Enum(e.value.iter().map(|v| (v.number(), v.name().to_owned())).collect())
            }
            other => scalar(other).ok_or_else(no)?,
        };
        if !fits(field.ty, &kind) {
            return Err(no());
        }
        let wire = wire(&kind);
        let entry = Entry { number, wire, kind, take: Take::Field(i), name: field.name.clone(), declared };
        if wrapped.is_some() {
            // A wrapper is a message with the one field 1, whose default is its value when it is there.
            let default = (i, self.default(&entry.kind, field.ty));
            let place = self.tables.len();
            let inner = Entry { number: 1, ..entry.clone() };
            self.tables.push(Table { entries: vec![inner], defaults: vec![default] });
            return Ok(Entry { wire: WireType::Length, take: Take::Message(place), ..entry });
        }
        let presence = message.syntax != "proto3"
            || f.proto3_optional()
            || f.oneof_index.is_some()
            || matches!(entry.kind, Kind::Timestamp);
        if !presence {
            let default = self.default(&entry.kind, field.ty);
            if root {
                self.absent[i] = default;
            } else {
                table.defaults.push((i, default));
            }
        }
        Ok(entry)
    }

    /// What a field without presence is when it is absent.
    fn default(&mut self, kind: &Kind, ty: FieldType) -> Slot {
        match (kind, ty) {
            (Kind::Bool, _) => Slot::Bool(false),
            (Kind::Enum(names), FieldType::Utf8) => {
                let name = names.first().map_or("", |(_, n)| n.as_str());
                let start = self.absent_text.len() as u32;
                self.absent_text.extend_from_slice(name.as_bytes());
                Slot::Unescaped { start, end: self.absent_text.len() as u32 }
            }
            // Empty text is no time.
            (Kind::Text, FieldType::TimestampMs) => Slot::Missing,
            (Kind::Text, _) => Slot::Unescaped { start: 0, end: 0 },
            (_, FieldType::F64) => Slot::F64(0.0),
            (_, FieldType::TimestampMs) => Slot::Timestamp(0),
            _ => Slot::I64(0),
        }
    }
}

fn scalar(ty: Type) -> Option<Kind> {
    Some(match ty {
        Type::Double => Kind::Double,
        Type::Float => Kind::Float,
        Type::Int64 => Kind::Int64,
        Type::Uint64 => Kind::Uint64,
        Type::Int32 => Kind::Int32,
        Type::Fixed64 => Kind::Fixed64,
        Type::Fixed32 => Kind::Fixed32,
        Type::Bool => Kind::Bool,
        Type::String => Kind::Text,
        Type::Uint32 => Kind::Uint32,
        Type::Sfixed32 => Kind::Sfixed32,
        Type::Sfixed64 => Kind::Sfixed64,
        Type::Sint32 => Kind::Sint32,
        Type::Sint64 => Kind::Sint64,
        Type::Enum | Type::Message | Type::Group | Type::Bytes => return None,
    })
}

fn wire(kind: &Kind) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::Fixed64,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::Fixed32,
        Kind::Text | Kind::Timestamp => WireType::Length,
        _ => WireType::Varint,
    }
}

fn fits(ty: FieldType, kind: &Kind) -> bool {
    let whole64 = matches!(kind, Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64);
    let whole32 = matches!(kind, Kind::Int32 | Kind::Uint32 | Kind::Sint32 | Kind::Fixed32 | Kind::Sfixed32);
    match ty {
        FieldType::F64 => whole32 || whole64 || matches!(kind, Kind::Double | Kind::Float),
        FieldType::I64 => whole32 || whole64 || matches!(kind, Kind::Enum(_)),
        FieldType::Bool => *kind == Kind::Bool,
        FieldType::Utf8 => matches!(kind, Kind::Text | Kind::Enum(_)),
        FieldType::TimestampMs => whole64 || matches!(kind, Kind::Timestamp | Kind::Text),
    }
}

/// The type within one of the well-known wrappers.
fn wrapper(type_name: &str) -> Option<Type> {
    Some(match type_name.strip_prefix(".google.protobuf.")? {
        "DoubleValue" => Type::Double,
        "FloatValue" => Type::Float,
        "Int64Value" => Type::Int64,
        "UInt64Value" => Type::Uint64,
        "Int32Value" => Type::Int32,
        "UInt32Value" => Type::Uint32,
        "BoolValue" => Type::Bool,
        "StringValue" => Type::String,
        _ => return None,
    })
}

/// A field's type as the `.proto` file says.
fn declared(f: &FieldDescriptorProto) -> String {
    let name = match f.r#type() {
        Type::Message | Type::Enum | Type::Group => f.type_name().trim_start_matches('.').to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    if f.label() == Label::Repeated { format!("repeated {name}") } else { name }
}
