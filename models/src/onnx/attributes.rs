//! The attributes of a node. What is not read is refused: it would mean something that we do not do.

use std::collections::BTreeSet;

use super::OnnxError;
use super::proto::{AttributeProto, AttributeType, DataType, NodeProto, TensorProto};
use super::tensor::{Kind, Tensor, size};

/// A node's attributes while it is read.
pub(super) struct Attributes<'a> {
    node: &'a NodeProto,
    read: BTreeSet<&'static str>,
}

impl<'a> Attributes<'a> {
    pub fn of(node: &'a NodeProto) -> Self {
        Self { node, read: BTreeSet::new() }
    }

    /// Why the node cannot be used.
    pub fn refuse(&self, why: impl Into<String>) -> OnnxError {
        OnnxError::Operator { op: self.node.op_type.clone(), node: name_of(self.node), why: why.into() }
    }

    fn get(&mut self, name: &'static str, of: AttributeType) -> Result<Option<&'a AttributeProto>, OnnxError> {
        self.read.insert(name);
        let found = self.node.attribute.iter().find(|a| a.name == name);
        match found {
            Some(a) if a.r#type != of as i32 => {
                Err(self.refuse(format!("its attribute `{name}` is not a {}", of.as_str_name())))
            }
            other => Ok(other),
        }
    }

    pub fn int(&mut self, name: &'static str, default: i64) -> Result<i64, OnnxError> {
        Ok(self.get(name, AttributeType::Int)?.map_or(default, |a| a.i))
    }

    pub fn float(&mut self, name: &'static str, default: f64) -> Result<f64, OnnxError> {
        Ok(self.get(name, AttributeType::Float)?.map_or(default, |a| f64::from(a.f)))
    }

    pub fn text(&mut self, name: &'static str, default: &str) -> Result<String, OnnxError> {
        let text = self.get(name, AttributeType::String)?.map(|a| String::from_utf8_lossy(&a.s).into_owned());
        Ok(text.unwrap_or_else(|| default.to_owned()))
    }

    pub fn ints(&mut self, name: &'static str) -> Result<Option<&'a [i64]>, OnnxError> {
        Ok(self.get(name, AttributeType::Ints)?.map(|a| a.ints.as_slice()))
    }

    pub fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, OnnxError> {
        let texts = self.get(name, AttributeType::Strings)?;
        Ok(texts.map(|a| a.strings.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()))
    }

    pub fn floats(&mut self, name: &'static str) -> Result<Option<Vec<f64>>, OnnxError> {
        Ok(self.get(name, AttributeType::Floats)?.map(|a| a.floats.iter().map(|v| f64::from(*v)).collect()))
    }

    pub fn tensor(&mut self, name: &'static str) -> Result<Option<Tensor>, OnnxError> {
        self.get(name, AttributeType::Tensor)?.and_then(|a| a.t.as_ref()).map(tensor).transpose()
    }

    /// Marks attributes that change nothing here.
    pub fn ignore(&mut self, names: &[&'static str]) {
        self.read.extend(names);
    }

    /// The one thing an attribute may be.
    pub fn only(&mut self, name: &'static str, value: i64) -> Result<(), OnnxError> {
        match self.int(name, value)? {
            v if v == value => Ok(()),
            v => Err(self.refuse(format!("`{name}` = {v} is not supported, only {value}"))),
        }
    }

    pub fn finish(self) -> Result<(), OnnxError> {
        match self.node.attribute.iter().find(|a| !self.read.contains(a.name.as_str())) {
            Some(a) => Err(self.refuse(format!("its attribute `{}` is not supported", a.name))),
            None => Ok(()),
        }
    }
}

/// What to call a node.
pub(super) fn name_of(node: &NodeProto) -> String {
    match (node.name.as_str(), node.output.first()) {
        ("", Some(output)) => format!("that gives `{output}`"),
        (name, _) => name.to_owned(),
    }
}

/// The type of a number in the file, if it is one we take.
pub(super) fn kind_of(data_type: i32) -> Result<Kind, OnnxError> {
    let known = DataType::try_from(data_type).ok();
    match known {
        Some(DataType::Float) => Ok(Kind::F32),
        Some(DataType::Double) => Ok(Kind::F64),
        Some(DataType::Int64 | DataType::Int32) => Ok(Kind::Int),
        Some(DataType::Bool) => Ok(Kind::Bool),
        other => Err(OnnxError::shape(format!(
            "elements of type {} are not supported; export with 32-bit or 64-bit floats",
            other.map_or("unknown", |t| t.as_str_name())
        ))),
    }
}

/// A tensor of the file. Integers beyond 2⁵³ and tensors outside the file are refused.
pub(super) fn tensor(t: &TensorProto) -> Result<Tensor, OnnxError> {
    let bad = |why: &str| OnnxError::shape(format!("the constant `{}` {why}", t.name));
    if t.data_location.unwrap_or(0) != 0 || !t.external_data.is_empty() {
        return Err(bad("is in another file; save the model with its weights inside"));
    }
    if t.segment.is_some() {
        return Err(bad("is in segments"));
    }
    let shape = t.dims.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| bad("has a negative dimension"))?;
    let n = size(&shape)?;
    let kind = kind_of(t.data_type)?;
    let raw = !t.raw_data.is_empty();
    let width = match (kind, t.data_type == DataType::Int32 as i32) {
        (Kind::Bool, _) => 1,
        (Kind::F32, _) | (_, true) => 4,
        _ => 8,
    };
    let words = || t.raw_data.chunks_exact(width);
    let long = |b: &[u8]| b.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
    let data: Vec<f64> = match (kind, raw) {
        (Kind::F32, true) => words().map(|b| f64::from(f32::from_bits(long(b) as u32))).collect(),
        (Kind::F32, false) => t.float_data.iter().map(|v| f64::from(*v)).collect(),
        (Kind::F64, true) => words().map(|b| f64::from_bits(long(b))).collect(),
        (Kind::F64, false) => t.double_data.clone(),
        (Kind::Int, true) if width == 4 => words().map(|b| f64::from(long(b) as u32 as i32)).collect(),
        (Kind::Int, true) => words().map(|b| long(b) as i64 as f64).collect(),
        (Kind::Int, false) if width == 4 => t.int32_data.iter().map(|v| f64::from(*v)).collect(),
        (Kind::Int, false) => t.int64_data.iter().map(|v| *v as f64).collect(),
        (Kind::Bool, true) => words().map(|b| f64::from(b[0])).collect(),
        (Kind::Bool, false) => t.int32_data.iter().map(|v| f64::from(*v)).collect(),
    };
    if data.len() != n || (raw && t.raw_data.len() != n * width) {
        return Err(bad("has more or fewer elements than its shape"));
    }
    if kind == Kind::Int && data.iter().any(|v| v.abs() > 9_007_199_254_740_992.0) {
        return Err(bad("has integers beyond 2^53"));
    }
    Tensor::new(kind, shape, data)
}
