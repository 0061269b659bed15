//! The graph of an ONNX file, checked operator by operator, and its interpreter.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use super::OnnxError;
use super::attributes::{Attributes, kind_of, name_of, tensor};
use super::ops::Op;
use super::proto::{ModelProto, NodeProto, ValueInfoProto};
use super::tensor::{Kind, Tensor};

/// Files beyond this are refused.
pub(super) const MAX_BYTES: usize = 16 << 20;

/// Graphs of more nodes are refused.
const MAX_NODES: usize = 20_000;

/// Versions of the two operator sets whose meaning is known here.
const VERSIONS: (i64, i64) = (7, 23);
const ML_VERSIONS: (i64, i64) = (1, 5);

#[derive(Debug, Clone, PartialEq)]
struct Node {
    op: Op,
    name: String,
    kind: String,
    inputs: Vec<Option<usize>>,
    output: usize,
}

/// Where the features go in.
#[derive(Debug, Clone, PartialEq)]
enum Inputs {
    /// All in one row.
    Row { slot: usize, kind: Kind },
    /// Each by itself, in the order of the features.
    Each(Vec<(usize, Kind)>),
}

/// A graph that was checked, reduced to what its output needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Graph {
    inputs: Inputs,
    constants: Vec<Option<Tensor>>,
    nodes: Vec<Node>,
    output: usize,
}

/// How many nodes and constants a graph has, for the card.
pub(super) struct Extent {
    pub nodes: usize,
    pub constants: usize,
}

impl Graph {
    /// Reads an ONNX file for these features and this output.
    pub fn read(bytes: &[u8], features: &[String], output: &str) -> Result<Self, OnnxError> {
        if bytes.len() > MAX_BYTES {
            return Err(OnnxError::TooLarge { bytes: bytes.len() });
        }
        let model = ModelProto::decode(bytes).map_err(|e| OnnxError::NotOnnx(e.to_string()))?;
        Reading::of(&model)?.graph(features, output)
    }

    pub fn extent(&self) -> Extent {
        let constants = self.constants.iter().flatten().map(|t| t.data.len()).sum();
        Extent { nodes: self.nodes.len(), constants }
    }

    /// The output for one vector of features.
    pub fn run(&self, x: &[f64]) -> Result<Tensor, OnnxError> {
        let mut made: Vec<Option<Tensor>> = vec![None; self.constants.len()];
        match &self.inputs {
            Inputs::Row { slot, kind } => made[*slot] = Some(Tensor::new(*kind, vec![1, x.len()], x.to_vec())?),
            Inputs::Each(each) => {
                for ((slot, kind), v) in each.iter().zip(x) {
                    made[*slot] = Some(Tensor::new(*kind, vec![1, 1], vec![*v])?);
                }
            }
        }
        for node in &self.nodes {
            let out = {
                let of = |slot: &Option<usize>| slot.and_then(|s| made[s].as_ref().or(self.constants[s].as_ref()));
                let inputs: Vec<Option<&Tensor>> = node.inputs.iter().map(of).collect();
                node.op.run(&inputs)
            };
            let out = out.map_err(|e| match e {
                OnnxError::Shape(why) => OnnxError::Operator { op: node.kind.clone(), node: node.name.clone(), why },
                other => other,
            })?;
            made[node.output] = Some(out);
        }
        let out = made[self.output].take().or_else(|| self.constants[self.output].clone());
        out.ok_or_else(|| OnnxError::shape("the output is not computed".to_owned()))
    }
}

/// A file while it is read.
struct Reading<'a> {
    model: &'a ModelProto,
    version: i64,
    slots: BTreeMap<&'a str, usize>,
    constants: Vec<Option<Tensor>>,
}

impl<'a> Reading<'a> {
    fn of(model: &'a ModelProto) -> Result<Self, OnnxError> {
        let mut version = 1;
        for set in &model.opset_import {
            let (known, name) = match set.domain.as_str() {
                "" | "ai.onnx" => (VERSIONS, "ai.onnx"),
                "ai.onnx.ml" => (ML_VERSIONS, "ai.onnx.ml"),
                // Whatever comes from another set is refused by name, if it is used.
                _ => continue,
            };
            if set.version < known.0 || set.version > known.1 {
                return Err(OnnxError::Version { domain: name, found: set.version, first: known.0, last: known.1 });
            }
            if name == "ai.onnx" {
                version = set.version.max(version);
            }
        }
        Ok(Self { model, version, slots: BTreeMap::new(), constants: Vec::new() })
    }

    fn slot(&mut self, name: &'a str) -> Result<usize, OnnxError> {
        let slot = self.constants.len();
        if name.is_empty() || self.slots.insert(name, slot).is_some() {
            return Err(OnnxError::shape(format!("the value `{name}` is made twice or has no name")));
        }
        self.constants.push(None);
        Ok(slot)
    }

    fn graph(mut self, features: &[String], output: &str) -> Result<Graph, OnnxError> {
        let model = self.model;
        let Some(graph) = &model.graph else {
            return Err(OnnxError::NotOnnx("it has no graph".to_owned()));
        };
        if graph.node.len() > MAX_NODES {
            return Err(OnnxError::shape(format!("{} nodes, more than {MAX_NODES}", graph.node.len())));
        }
        if !graph.sparse_initializer.is_empty() {
            return Err(OnnxError::shape("sparse constants are not supported".to_owned()));
        }
        for t in &graph.initializer {
            let slot = self.slot(&t.name)?;
            self.constants[slot] = Some(tensor(t)?);
        }
        let given: Vec<&ValueInfoProto> =
            graph.input.iter().filter(|i| !graph.initializer.iter().any(|t| t.name == i.name)).collect();
        let inputs = self.inputs(&given, features)?;
        let names = || graph.output.iter().map(|o| o.name.as_str());
        if !names().any(|n| n == output) {
            let have: Vec<&str> = names().collect();
            return Err(OnnxError::Output(format!("there is no output `{output}`; there are {}", have.join(", "))));
        }

        // From the end: which nodes the output needs.
        let mut needed = BTreeSet::from([output]);
        let mut nodes: Vec<&NodeProto> = Vec::new();
        for node in graph.node.iter().rev() {
            if node.output.iter().any(|o| !o.is_empty() && needed.contains(o.as_str())) {
                needed.extend(node.input.iter().map(String::as_str));
                nodes.push(node);
            }
        }
        nodes.reverse();
        let mut compiled = Vec::with_capacity(nodes.len());
        for node in nodes {
            compiled.extend(self.node(node, &needed)?);
        }
        let output = *self.slots.get(output).ok_or_else(|| OnnxError::Output("nothing computes it".to_owned()))?;
        Ok(Graph { inputs, constants: self.constants, nodes: compiled, output })
    }

    fn inputs(&mut self, given: &[&'a ValueInfoProto], features: &[String]) -> Result<Inputs, OnnxError> {
        let wrong = |why: String| OnnxError::Input(why);
        if let [one] = given
            && !(features.len() == 1 && one.name == features[0])
        {
            let (kind, columns) = row(one)?;
            if columns.is_some_and(|c| c != features.len()) {
                return Err(wrong(format!(
                    "`{}` takes {} columns, but the step has {} features",
                    one.name,
                    columns.unwrap_or_default(),
                    features.len()
                )));
            }
            return Ok(Inputs::Row { slot: self.slot(&one.name)?, kind });
        }
        let mut each = Vec::with_capacity(features.len());
        for f in features {
            let Some(of) = given.iter().find(|i| i.name == *f) else {
                let have: Vec<&str> = given.iter().map(|i| i.name.as_str()).collect();
                return Err(wrong(format!("feature `{f}` is not among the inputs {}", have.join(", "))));
            };
            let (kind, columns) = row(of)?;
            if columns.is_some_and(|c| c != 1) {
                return Err(wrong(format!("`{f}` has more than one column")));
            }
            each.push((self.slot(&of.name)?, kind));
        }
        if let Some(extra) = given.iter().find(|i| !features.contains(&i.name)) {
            return Err(wrong(format!("`{}` is not among the step's features", extra.name)));
        }
        Ok(Inputs::Each(each))
    }

    /// Compiles a node, or puts the constant it is among the constants.
    fn node(&mut self, node: &'a NodeProto, needed: &BTreeSet<&str>) -> Result<Option<Node>, OnnxError> {
        let mut a = Attributes::of(node);
        let known = matches!(node.domain.as_str(), "" | "ai.onnx" | "ai.onnx.ml");
        if known && node.op_type == "Constant" {
            let value = constant(&mut a)?;
            a.finish()?;
            let slot = self.slot(node.output.first().map_or("", String::as_str))?;
            self.constants[slot] = Some(value);
            return Ok(None);
        }
        let op = match node.domain.as_str() {
            "" | "ai.onnx" => Op::of(&node.op_type, self.version, &mut a)?,
            "ai.onnx.ml" => Op::of_ml(&node.op_type, &mut a)?,
            _ => None,
        };
        let Some(op) = op else {
            return Err(a.refuse(match node.op_type.as_str() {
                "RandomNormal" | "RandomNormalLike" | "RandomUniform" | "RandomUniformLike" | "Multinomial"
                | "Bernoulli" => "it draws at random, so the same input would give another verdict",
                "ZipMap" => "it gives a map; export with `options={'zipmap': False}`",
                "If" | "Loop" | "Scan" => "graphs within graphs are not supported",
                _ => "it is not on the list of operators whose result is known to the last bit; see models/README.md",
            }));
        };
        if node.op_type == "Dropout" {
            self.idle_dropout(node, &a)?;
        }
        a.finish()?;
        let at = op.output(&node.op_type);
        for (i, o) in node.output.iter().enumerate() {
            if i != at && needed.contains(o.as_str()) {
                let why = "its label is not computed, only its scores; choose the output with the probabilities";
                return Err(Attributes::of(node).refuse(if at == 1 { why } else { "it has one output here" }));
            }
        }
        let inputs = node.input.iter().map(|i| match (i.as_str(), self.slots.get(i.as_str())) {
            ("", _) => Ok(None),
            (_, Some(slot)) => Ok(Some(*slot)),
            (name, None) => Err(Attributes::of(node).refuse(format!("its input `{name}` comes from nowhere"))),
        });
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let output = self.slot(node.output.get(at).map_or("", String::as_str))?;
        Ok(Some(Node { op, name: name_of(node), kind: node.op_type.clone(), inputs, output }))
    }

    /// Dropout passes its input on, unless it is told to train.
    fn idle_dropout(&self, node: &NodeProto, a: &Attributes<'_>) -> Result<(), OnnxError> {
        let Some(mode) = node.input.get(2).filter(|n| !n.is_empty()) else { return Ok(()) };
        let constant = self.slots.get(mode.as_str()).and_then(|s| self.constants[*s].as_ref());
        match constant {
            Some(t) if t.data.iter().all(|v| *v == 0.0) => Ok(()),
            _ => Err(a.refuse("it is in training mode, in which it draws at random")),
        }
    }
}

/// The type and the columns of an input of one row; `None` if their number is left open.
fn row(input: &ValueInfoProto) -> Result<(Kind, Option<usize>), OnnxError> {
    let wrong = |why: &str| OnnxError::Input(format!("`{}` {why}", input.name));
    let Some(t) = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
        return Err(wrong("is not a tensor"));
    };
    let kind = kind_of(t.elem_type)?;
    if !matches!(kind, Kind::F32 | Kind::F64) {
        return Err(wrong("does not take floats"));
    }
    let Some(shape) = &t.shape else { return Ok((kind, None)) };
    let fixed = |i: usize| shape.dim.get(i)?.dim_value.filter(|n| *n > 0).and_then(|n| usize::try_from(n).ok());
    match (shape.dim.len(), fixed(0)) {
        (2, None | Some(1)) => Ok((kind, fixed(1))),
        _ => Err(wrong("does not take a row at a time, of shape [1, columns] or [N, columns]")),
    }
}

fn constant(a: &mut Attributes<'_>) -> Result<Tensor, OnnxError> {
    if let Some(t) = a.tensor("value")? {
        return Ok(t);
    }
    if let Some(v) = a.floats("value_floats")? {
        return Tensor::new(Kind::F32, vec![v.len()], v);
    }
    if let Some(v) = a.ints("value_ints")? {
        return Tensor::new(Kind::Int, vec![v.len()], v.iter().map(|v| *v as f64).collect());
    }
    let (f, i) = (a.float("value_float", f64::NAN)?, a.int("value_int", i64::MIN)?);
    match (f.is_nan(), i) {
        (false, _) => Tensor::new(Kind::F32, Vec::new(), vec![f]),
        (true, i64::MIN) => Err(a.refuse("it has no number")),
        (true, i) => Tensor::new(Kind::Int, Vec::new(), vec![i as f64]),
    }
}
