//! Avro schemas: from their JSON to nodes that can be walked.

use std::collections::BTreeMap;

use serde_json::Value;

/// Deepest nesting of a schema. Its JSON cannot be deeper than `serde_json` allows either.
const MAX_DEPTH: usize = 64;
/// Most nodes of a schema.
const MAX_NODES: usize = 100_000;

/// A type's place in [`Schema::nodes`].
pub(super) type NodeId = usize;

/// What a long stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// A named type whose definition is being read; never left behind.
    Open,
    Null,
    Boolean,
    Int,
    Long(Option<Unit>),
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Vec<(String, NodeId)>),
}

/// A writer's schema.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schema {
    pub nodes: Vec<Node>,
    pub root: NodeId,
    /// Whether a value of each node takes no bytes at all, however it is repeated.
    pub empty: Vec<bool>,
}

impl Schema {
    /// Reads a schema; the error is for a person.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(json).map_err(|e| format!("it is not JSON ({e})"))?;
        let mut b = Builder { nodes: Vec::new(), names: BTreeMap::new() };
        let root = b.node(&value, "", 0)?;
        let mut empty = vec![false; b.nodes.len()];
        // What is empty is so by what it is made of: repeated until nothing changes, which types that contain themselves
        // never do (they stay "not empty", and an infinite value is refused when it is read).
        loop {
            let before = empty.clone();
            for (i, node) in b.nodes.iter().enumerate() {
                empty[i] = match node {
                    Node::Null | Node::Fixed(0) => true,
                    Node::Record(fields) => fields.iter().all(|(_, n)| before[*n]),
                    _ => false,
                };
            }
            if empty == before {
                break;
            }
        }
        Ok(Self { nodes: b.nodes, root, empty })
    }

    /// A node's type, as Avro calls it.
    pub fn name(&self, id: NodeId) -> String {
        match &self.nodes[id] {
            Node::Open | Node::Null => "null".into(),
            Node::Boolean => "boolean".into(),
            Node::Int => "int".into(),
            Node::Long(None) => "long".into(),
            Node::Long(Some(Unit::Millis)) => "long (timestamp-millis)".into(),
            Node::Long(Some(Unit::Micros)) => "long (timestamp-micros)".into(),
            Node::Long(Some(Unit::Nanos)) => "long (timestamp-nanos)".into(),
            Node::Float => "float".into(),
            Node::Double => "double".into(),
            Node::Bytes => "bytes".into(),
            Node::String => "string".into(),
            Node::Fixed(n) => format!("fixed({n})"),
            Node::Enum(_) => "enum".into(),
            Node::Array(_) => "array".into(),
            Node::Map(_) => "map".into(),
            Node::Union(branches) => {
                let names: Vec<String> = branches.iter().take(8).map(|b| self.name(*b)).collect();
                format!("a union of {}", names.join(", "))
            }
            Node::Record(_) => "record".into(),
        }
    }
}

struct Builder {
    nodes: Vec<Node>,
    names: BTreeMap<String, NodeId>,
}

impl Builder {
    fn push(&mut self, node: Node) -> Result<NodeId, String> {
        if self.nodes.len() >= MAX_NODES {
            return Err(format!("it has more than {MAX_NODES} types"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn node(&mut self, v: &Value, namespace: &str, depth: usize) -> Result<NodeId, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it is nested deeper than {MAX_DEPTH} levels"));
        }
        match v {
            Value::String(name) => self.named(name, None, namespace),
            Value::Array(branches) => {
                let mut out = Vec::with_capacity(branches.len());
                for b in branches {
                    let id = self.node(b, namespace, depth + 1)?;
                    if matches!(self.nodes[id], Node::Union(_)) {
                        return Err("a union stands directly in a union".into());
                    }
                    out.push(id);
                }
                if out.is_empty() {
                    return Err("a union has no branch".into());
                }
                self.push(Node::Union(out))
            }
            Value::Object(o) => {
                let ty = o.get("type").ok_or("a type has no \"type\"")?;
                let Value::String(kind) = ty else { return self.node(ty, namespace, depth + 1) };
                let logical = o.get("logicalType").and_then(Value::as_str);
                match kind.as_str() {
                    "record" | "error" | "enum" | "fixed" => self.definition(o, kind, namespace, depth),
                    "array" => {
                        let items =
                            self.node(o.get("items").ok_or("an array has no \"items\"")?, namespace, depth + 1)?;
                        self.push(Node::Array(items))
                    }
                    "map" => {
                        let values =
                            self.node(o.get("values").ok_or("a map has no \"values\"")?, namespace, depth + 1)?;
                        self.push(Node::Map(values))
                    }
                    primitive => self.named(primitive, logical, namespace),
                }
            }
            _ => Err("a type is neither text, object nor array".into()),
        }
    }

    fn named(&mut self, name: &str, logical: Option<&str>, namespace: &str) -> Result<NodeId, String> {
        let node = match name {
            "null" => Node::Null,
            "boolean" => Node::Boolean,
            "int" => Node::Int,
            "long" => Node::Long(match logical {
                Some("timestamp-millis" | "local-timestamp-millis") => Some(Unit::Millis),
                Some("timestamp-micros" | "local-timestamp-micros") => Some(Unit::Micros),
                Some("timestamp-nanos" | "local-timestamp-nanos") => Some(Unit::Nanos),
                _ => None,
            }),
            "float" => Node::Float,
            "double" => Node::Double,
            "bytes" => Node::Bytes,
            "string" => Node::String,
            _ => {
                let full = full_name(name, namespace);
                return match self.names.get(&full).or_else(|| self.names.get(name)) {
                    Some(id) => Ok(*id),
                    None => Err(format!("the type \"{}\" is not defined in it", full.escape_debug())),
                };
            }
        };
        self.push(node)
    }

    fn definition(
        &mut self,
        o: &serde_json::Map<String, Value>,
        kind: &str,
        namespace: &str,
        depth: usize,
    ) -> Result<NodeId, String> {
        let name = o.get("name").and_then(Value::as_str).ok_or_else(|| format!("a {kind} has no \"name\""))?;
        let namespace = o.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full = full_name(name, namespace);
        let namespace = full.rsplit_once('.').map_or("", |(n, _)| n).to_owned();
        let id = self.push(Node::Open)?;
        if self.names.insert(full.clone(), id).is_some() {
            return Err(format!("\"{}\" is defined twice", full.escape_debug()));
        }
        let node = match kind {
            "enum" => {
                let symbols = o.get("symbols").and_then(Value::as_array).ok_or("an enum has no \"symbols\"")?;
                let texts = symbols.iter().map(|s| s.as_str().map(str::to_owned)).collect::<Option<_>>();
                Node::Enum(texts.ok_or("a symbol of an enum is not text")?)
            }
            "fixed" => {
                let size = o.get("size").and_then(Value::as_u64).ok_or("a fixed has no \"size\"")?;
                Node::Fixed(usize::try_from(size).map_err(|_| "a fixed is too large")?)
            }
            _ => {
                let fields = o.get("fields").and_then(Value::as_array).ok_or("a record has no \"fields\"")?;
                let mut out: Vec<(String, NodeId)> = Vec::with_capacity(fields.len());
                for f in fields {
                    let name = f.get("name").and_then(Value::as_str).ok_or("a field has no \"name\"")?;
                    let mut ty = f.get("type").ok_or("a field has no \"type\"")?;
                    // Some writers put the logical type beside the field's type instead of into it.
                    let beside;
                    if ty.is_string()
                        && let Some(logical) = f.get("logicalType")
                    {
                        beside = serde_json::json!({ "type": ty, "logicalType": logical });
                        ty = &beside;
                    }
                    if out.iter().any(|(n, _)| n == name) {
                        return Err(format!("the field \"{}\" stands twice", name.escape_debug()));
                    }
                    let node = self.node(ty, &namespace, depth + 1)?;
                    out.push((name.to_owned(), node));
                }
                Node::Record(out)
            }
        };
        self.nodes[id] = node;
        Ok(id)
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}
