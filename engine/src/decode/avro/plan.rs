//! What to do with each value of a writer's schema, for the fields that the pipeline names.

use super::schema::{Node, NodeId, Schema, Unit};
use crate::spec::{FieldSpec, FieldType};

/// Most alternatives and fields a plan may have: a pipeline names few fields, so more than this is a schema made to hurt.
const MAX_STEPS: usize = 100_000;

/// What to do with a value. The number is the field's place in the pipeline's schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Passes over it.
    Skip(NodeId),
    /// A double, float, int or long into an `f64`.
    Double(usize),
    Float(usize),
    Whole(usize),
    /// An int or long into an `i64`.
    Integer(usize),
    /// A long into a `timestamp_ms`.
    Time(usize, Unit),
    /// A string in RFC 3339 into a `timestamp_ms`.
    TextTime(usize),
    Bool(usize),
    /// A string or bytes into `utf8`.
    Text(usize),
    /// An enum into `utf8`.
    Symbol(usize, Vec<String>),
    /// Null for all these.
    Null(Vec<usize>),
    /// The fields of a record, in the writer's order.
    Record(Vec<Step>),
    /// By branch.
    Union(Vec<Step>),
    /// A value that the field cannot take; if the row has it, the row dies.
    Refuse(usize, String),
}

/// How records of one writer's schema are read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub schema: Schema,
    pub steps: Vec<Step>,
}

impl Plan {
    /// Resolves a writer's schema against the pipeline's fields. A field whose type fits in no way is an error for a
    /// person, as is a required one that the writer does not have.
    pub fn new(schema: Schema, fields: &[FieldSpec]) -> Result<Self, String> {
        let Node::Record(_) = &schema.nodes[schema.root] else {
            return Err(format!("its root is {}, not a record", schema.name(schema.root)));
        };
        let mut r = Resolver { schema: &schema, fields, found: vec![false; fields.len()], steps: 0 };
        let steps = match r.record(schema.root, "")? {
            Step::Record(steps) => steps,
            other => vec![other],
        };
        let found = r.found;
        for (field, found) in fields.iter().zip(found) {
            if field.required && !found {
                return Err(format!("field \"{}\" is missing but required", field.name));
            }
        }
        Ok(Self { schema, steps })
    }
}

struct Resolver<'a> {
    schema: &'a Schema,
    fields: &'a [FieldSpec],
    found: Vec<bool>,
    steps: usize,
}

impl Resolver<'_> {
    /// A record whose fields have `prefix` before their names.
    fn record(&mut self, id: NodeId, prefix: &str) -> Result<Step, String> {
        let Node::Record(members) = &self.schema.nodes[id] else { return Ok(Step::Skip(id)) };
        let mut out = Vec::with_capacity(members.len());
        for (name, node) in members {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(format!("it names fields of the pipeline in more than {MAX_STEPS} places"));
            }
            let full = format!("{prefix}{name}");
            let inner = format!("{full}.");
            let step = if let Some(i) = self.fields.iter().position(|f| f.name == full) {
                self.found[i] = true;
                self.value(*node, i)?
            } else if self.fields.iter().any(|f| f.name.starts_with(&inner)) {
                self.nested(*node, &inner)?
            } else {
                Step::Skip(*node)
            };
            out.push(step);
        }
        Ok(Step::Record(out))
    }

    /// A field that may be a record with fields the pipeline names.
    fn nested(&mut self, id: NodeId, prefix: &str) -> Result<Step, String> {
        match &self.schema.nodes[id] {
            Node::Record(_) => self.record(id, prefix),
            Node::Union(branches) => {
                let below: Vec<usize> =
                    (0..self.fields.len()).filter(|&i| self.fields[i].name.starts_with(prefix)).collect();
                let mut out = Vec::with_capacity(branches.len());
                for b in branches {
                    out.push(match &self.schema.nodes[*b] {
                        Node::Record(_) => self.record(*b, prefix)?,
                        Node::Null => Step::Null(below.clone()),
                        _ => Step::Skip(*b),
                    });
                }
                Ok(Step::Union(out))
            }
            _ => Ok(Step::Skip(id)),
        }
    }

    /// A value for field `i`.
    fn value(&self, id: NodeId, i: usize) -> Result<Step, String> {
        let field = &self.fields[i];
        let refuse = |found: String| {
            format!("field \"{}\": {} expected, found {found}", field.name, super::super::wanted(field.ty))
        };
        if let Node::Union(branches) = &self.schema.nodes[id] {
            let mut any = false;
            let steps = branches
                .iter()
                .map(|b| match (&self.schema.nodes[*b], self.plain(*b, i)) {
                    (Node::Null, _) => Step::Null(vec![i]),
                    (_, Some(step)) => {
                        any = true;
                        step
                    }
                    (_, None) => Step::Refuse(i, refuse(self.schema.name(*b))),
                })
                .collect();
            // All nulls are a field that is always null; any other union must have a branch that fits.
            let all_null = branches.iter().all(|b| self.schema.nodes[*b] == Node::Null);
            return if any || all_null { Ok(Step::Union(steps)) } else { Err(refuse(self.schema.name(id))) };
        }
        match &self.schema.nodes[id] {
            Node::Null => Ok(Step::Null(vec![i])),
            _ => self.plain(id, i).ok_or_else(|| refuse(self.schema.name(id))),
        }
    }

    /// A value that is no union, if the field can take it.
    fn plain(&self, id: NodeId, i: usize) -> Option<Step> {
        Some(match (self.fields[i].ty, &self.schema.nodes[id]) {
            (FieldType::F64, Node::Double) => Step::Double(i),
            (FieldType::F64, Node::Float) => Step::Float(i),
            (FieldType::F64, Node::Int | Node::Long(_)) => Step::Whole(i),
            (FieldType::I64, Node::Int | Node::Long(_)) => Step::Integer(i),
            (FieldType::TimestampMs, Node::Long(unit)) => Step::Time(i, unit.unwrap_or(Unit::Millis)),
            (FieldType::TimestampMs, Node::String) => Step::TextTime(i),
            (FieldType::Bool, Node::Boolean) => Step::Bool(i),
            (FieldType::Utf8, Node::String | Node::Bytes) => Step::Text(i),
            (FieldType::Utf8, Node::Enum(symbols)) => Step::Symbol(i, symbols.clone()),
            _ => return None,
        })
    }
}
