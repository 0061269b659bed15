//! `TreeEnsembleRegressor` and `TreeEnsembleClassifier` of `ai.onnx.ml`.

use std::collections::BTreeMap;

use super::OnnxError;
use super::attributes::Attributes;
use super::classical::{MAX_OUTPUTS, Post, check_width};
use super::tensor::{Kind, Tensor};

/// How a node compares the feature with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
    Leaf,
}

#[derive(Debug, Clone, PartialEq)]
struct TreeNode {
    mode: Mode,
    feature: usize,
    value: f64,
    /// Places of the children where the comparison holds and where not.
    then: usize,
    otherwise: usize,
    /// Of a leaf: output and weight.
    weights: Vec<(usize, f64)>,
}

/// What becomes of the sums over all trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// As many outputs as there are.
    Outputs(usize),
    /// One sum, for two classes: `[1 − s, s]` where no weight is negative, otherwise `[−s, s]`.
    Two { all_positive: bool },
}

/// The ensemble.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trees {
    nodes: Vec<TreeNode>,
    roots: Vec<usize>,
    base: Vec<f64>,
    /// What each sum is multiplied by.
    times: f64,
    ends: Ends,
    post: Post,
    /// Features the nodes ask for, at least.
    width: usize,
    kind: Kind,
}

/// Attributes of the nodes that leaves' weights are given by.
struct Weights {
    trees: &'static str,
    nodes: &'static str,
    ids: &'static str,
    values: &'static str,
    values_tensor: &'static str,
}

impl Trees {
    pub fn regressor(a: &mut Attributes<'_>) -> Result<Self, OnnxError> {
        let targets = usize::try_from(a.int("n_targets", 1)?).unwrap_or(0);
        let weights = Weights {
            trees: "target_treeids",
            nodes: "target_nodeids",
            ids: "target_ids",
            values: "target_weights",
            values_tensor: "target_weights_as_tensor",
        };
        let mean = match a.text("aggregate_function", "SUM")?.as_str() {
            "SUM" => false,
            "AVERAGE" => true,
            other => return Err(a.refuse(format!("the aggregate function {other} is not supported"))),
        };
        let mut trees = Self::read(a, &weights, targets)?;
        if mean {
            trees.times = 1.0 / trees.roots.len() as f64;
        }
        Ok(trees)
    }

    pub fn classifier(a: &mut Attributes<'_>) -> Result<Self, OnnxError> {
        let ints = a.ints("classlabels_int64s")?.map(<[i64]>::len);
        let texts = a.texts("classlabels_strings")?.map(|l| l.len());
        let classes = ints.or(texts).unwrap_or(0);
        let weights = Weights {
            trees: "class_treeids",
            nodes: "class_nodeids",
            ids: "class_ids",
            values: "class_weights",
            values_tensor: "class_weights_as_tensor",
        };
        let mut trees = Self::read(a, &weights, classes)?;
        let used = || trees.nodes.iter().flat_map(|n| &n.weights);
        let first = used().next().map_or(0, |w| w.0);
        if classes == 2 && used().all(|w| w.0 == first) {
            let all_positive = used().all(|w| w.1 >= 0.0);
            if all_positive && trees.post != Post::None {
                return Err(a.refuse("one positive score for two classes is not transformed the same by all programs"));
            }
            let base = trees.base.iter().copied().fold(0.0, |a, b| if b == 0.0 { a } else { b });
            trees.base = vec![base];
            for (id, _) in trees.nodes.iter_mut().flat_map(|n| &mut n.weights) {
                *id = 0;
            }
            trees.ends = Ends::Two { all_positive };
        }
        Ok(trees)
    }

    fn read(a: &mut Attributes<'_>, names: &Weights, outputs: usize) -> Result<Self, OnnxError> {
        if outputs == 0 || outputs > MAX_OUTPUTS {
            return Err(a.refuse(format!("it has {outputs} outputs, not 1 to {MAX_OUTPUTS}")));
        }
        let post = Post::read(a)?;
        a.ignore(&["nodes_hitrates", "nodes_hitrates_as_tensor", "nodes_missing_value_tracks_true"]);
        let trees = ints(a, "nodes_treeids")?;
        let ids = ints(a, "nodes_nodeids")?;
        let features = ints(a, "nodes_featureids")?;
        let then = ints(a, "nodes_truenodeids")?;
        let otherwise = ints(a, "nodes_falsenodeids")?;
        let modes = a.texts("nodes_modes")?.unwrap_or_default();
        let (values, kind) = numbers(a, "nodes_values", "nodes_values_as_tensor")?;
        let n = trees.len();
        let lengths = [ids.len(), features.len(), then.len(), otherwise.len(), modes.len(), values.len()];
        if n == 0 || lengths.iter().any(|l| *l != n) {
            return Err(a.refuse("its lists of nodes differ in length or are empty"));
        }
        let places: BTreeMap<(i64, i64), usize> = (0..n).map(|i| ((trees[i], ids[i]), i)).collect();
        if places.len() != n {
            return Err(a.refuse("a node is there twice"));
        }
        let mut nodes = Vec::with_capacity(n);
        let mut parents = vec![0u32; n];
        let mut width = 0;
        for i in 0..n {
            let mode = match modes[i].as_str() {
                "BRANCH_LEQ" => Mode::LessOrEqual,
                "BRANCH_LT" => Mode::Less,
                "BRANCH_GTE" => Mode::GreaterOrEqual,
                "BRANCH_GT" => Mode::Greater,
                "BRANCH_EQ" => Mode::Equal,
                "BRANCH_NEQ" => Mode::NotEqual,
                "LEAF" => Mode::Leaf,
                other => return Err(a.refuse(format!("its mode {other} is not supported"))),
            };
            let mut node = TreeNode { mode, feature: 0, value: values[i], then: 0, otherwise: 0, weights: Vec::new() };
            if mode != Mode::Leaf {
                let child = |id: i64| places.get(&(trees[i], id)).copied();
                let (Some(t), Some(o)) = (child(then[i]), child(otherwise[i])) else {
                    return Err(a.refuse(format!("tree {} lacks a child of node {}", trees[i], ids[i])));
                };
                parents[t] += 1;
                parents[o] += 1;
                (node.then, node.otherwise) = (t, o);
                node.feature = usize::try_from(features[i]).map_err(|_| a.refuse("a feature's number is negative"))?;
                width = width.max(node.feature.saturating_add(1));
            }
            nodes.push(node);
        }
        // A node has one parent, or none and is a root: what is reached from the roots are trees, and there is nothing else.
        let roots: Vec<usize> = (0..n).filter(|i| parents[*i] == 0).collect();
        let (mut reached, mut open) = (0, roots.clone());
        while let Some(i) = open.pop() {
            reached += 1;
            if nodes[i].mode != Mode::Leaf {
                open.extend([nodes[i].then, nodes[i].otherwise]);
            }
            if reached > n {
                break;
            }
        }
        if reached != n || parents.iter().any(|p| *p > 1) {
            return Err(a.refuse("its nodes are not trees"));
        }
        let (w_trees, w_nodes, w_ids) = (ints(a, names.trees)?, ints(a, names.nodes)?, ints(a, names.ids)?);
        let (w_values, _) = numbers(a, names.values, names.values_tensor)?;
        if [w_nodes.len(), w_ids.len(), w_values.len()].iter().any(|l| *l != w_trees.len()) {
            return Err(a.refuse("its lists of weights differ in length"));
        }
        for i in 0..w_trees.len() {
            let place = places.get(&(w_trees[i], w_nodes[i])).filter(|p| nodes[**p].mode == Mode::Leaf);
            let id = usize::try_from(w_ids[i]).ok().filter(|id| *id < outputs);
            let (Some(place), Some(id)) = (place, id) else {
                return Err(a.refuse("a weight belongs to no leaf or no output"));
            };
            nodes[*place].weights.push((id, w_values[i]));
        }
        let mut base = a.floats("base_values")?.unwrap_or_default();
        if base.is_empty() {
            base = vec![0.0; outputs];
        } else if base.len() == 1 && outputs == 2 {
            base = vec![0.0, base[0]];
        }
        if base.len() != outputs {
            return Err(a.refuse(format!("{} base values do not fit {outputs} outputs", base.len())));
        }
        Ok(Self { nodes, roots, base, times: 1.0, ends: Ends::Outputs(outputs), post, width, kind })
    }

    pub fn run(&self, x: &Tensor) -> Result<Tensor, OnnxError> {
        let (rows, columns) = x.rows()?;
        check_width(self.width, columns, true)?;
        let outputs = match self.ends {
            Ends::Outputs(n) => n,
            Ends::Two { .. } => 2,
        };
        let mut out = Vec::with_capacity(rows * outputs);
        let mut sums = vec![0.0; self.base.len()];
        for row in x.data.chunks_exact(columns.max(1)) {
            sums.fill(0.0);
            for root in &self.roots {
                for (id, w) in &self.leaf(*root, row).weights {
                    sums[*id] += w;
                }
            }
            for (s, b) in sums.iter_mut().zip(&self.base) {
                *s = *s * self.times + b;
            }
            match self.ends {
                Ends::Outputs(_) => {
                    self.post.apply(&mut sums);
                    out.extend_from_slice(&sums);
                }
                Ends::Two { all_positive } => {
                    let s = Kind::F32.put(sums[0]);
                    let mut two = if all_positive { [1.0 - s, s] } else { [-s, s] };
                    self.post.apply(&mut two);
                    out.extend_from_slice(&two);
                }
            }
        }
        Tensor::new(self.kind, vec![rows, outputs], out)
    }

    fn leaf(&self, root: usize, row: &[f64]) -> &TreeNode {
        let mut node = &self.nodes[root];
        while node.mode != Mode::Leaf {
            let x = row[node.feature];
            let holds = match node.mode {
                Mode::LessOrEqual => x <= node.value,
                Mode::Less => x < node.value,
                Mode::GreaterOrEqual => x >= node.value,
                Mode::Greater => x > node.value,
                Mode::Equal => x == node.value,
                Mode::NotEqual | Mode::Leaf => x != node.value,
            };
            node = &self.nodes[if holds { node.then } else { node.otherwise }];
        }
        node
    }
}

fn ints<'a>(a: &mut Attributes<'a>, name: &'static str) -> Result<&'a [i64], OnnxError> {
    Ok(a.ints(name)?.unwrap_or_default())
}

/// Floats, or doubles in a tensor.
fn numbers(a: &mut Attributes<'_>, floats: &'static str, doubles: &'static str) -> Result<(Vec<f64>, Kind), OnnxError> {
    match a.tensor(doubles)? {
        Some(t) => Ok((t.data, t.kind)),
        None => Ok((a.floats(floats)?.unwrap_or_default(), Kind::F32)),
    }
}
