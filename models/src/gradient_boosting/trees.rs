//! Trees as they are kept: in preorder, each node with the mean of the training rows that reach it.

use avouch_engine::codec::{CodecError, Reader, Writer};

use crate::linear::finite;

/// Splits from root to leaf, at most.
pub(super) const MAX_DEPTH: usize = 16;

/// No feature: the node is a leaf.
const LEAF: u32 = u32::MAX;

/// A node of a grown tree.
#[derive(Debug, Clone)]
pub(super) struct Grown {
    /// Feature, threshold, and where smaller and other values go.
    pub split: Option<(usize, f64, usize, usize)>,
    /// Of a leaf.
    pub value: f64,
    /// Training rows that reach it.
    pub rows: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct Node {
    feature: u32,
    /// The first node of the right subtree; the left one follows right after its parent.
    right: u32,
    threshold: f64,
    /// Of a leaf its value, of others the mean of what is below, by training rows.
    value: f64,
}

/// A sum of trees.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Trees {
    start: f64,
    roots: Vec<u32>,
    nodes: Vec<Node>,
}

impl Trees {
    pub(super) fn of(start: f64, grown: &[Vec<Grown>]) -> Self {
        let mut out = Self { start, roots: Vec::with_capacity(grown.len()), nodes: Vec::new() };
        for tree in grown {
            out.roots.push(out.nodes.len() as u32);
            if !tree.is_empty() {
                out.take(tree, 0);
            }
        }
        out
    }

    /// Takes a subtree; returns its mean.
    fn take(&mut self, tree: &[Grown], at: usize) -> f64 {
        let here = self.nodes.len();
        let node = &tree[at];
        self.nodes.push(Node { feature: LEAF, right: 0, threshold: 0.0, value: node.value });
        if let Some((feature, threshold, left, right)) = node.split {
            let below = self.take(tree, left);
            let other_at = self.nodes.len() as u32;
            let other = self.take(tree, right);
            let (a, b) = (tree[left].rows, tree[right].rows);
            let value = if a + b > 0.0 { (below * a + other * b) / (a + b) } else { 0.5 * (below + other) };
            self.nodes[here] = Node { feature: feature as u32, right: other_at, threshold, value };
        }
        self.nodes[here].value
    }

    /// The mean over the training rows of each tree, added up.
    pub fn base(&self) -> f64 {
        self.roots.iter().fold(self.start, |sum, r| sum + self.nodes[*r as usize].value)
    }

    /// How many trees there are.
    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    /// How many nodes they have.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn child(&self, at: usize, x: &[f64]) -> usize {
        let node = &self.nodes[at];
        if x[node.feature as usize] < node.threshold { at + 1 } else { node.right as usize }
    }

    pub fn value(&self, x: &[f64]) -> f64 {
        let mut sum = self.start;
        for root in &self.roots {
            let mut at = *root as usize;
            while self.nodes[at].feature != LEAF {
                at = self.child(at, x);
            }
            sum += self.nodes[at].value;
        }
        sum
    }

    /// Adds `share` of what each input's splits add to the value.
    pub fn explain(&self, x: &[f64], share: f64, sources: &[usize], contributions: &mut [f64]) {
        for root in &self.roots {
            let mut at = *root as usize;
            while self.nodes[at].feature != LEAF {
                let next = self.child(at, x);
                let moved = self.nodes[next].value - self.nodes[at].value;
                contributions[sources[self.nodes[at].feature as usize]] += share * moved;
                at = next;
            }
        }
    }

    pub fn write(&self, w: &mut Writer) {
        w.f64(self.start);
        w.u32(self.roots.len() as u32);
        for n in &self.nodes {
            w.u32(n.feature);
            if n.feature != LEAF {
                w.f64(n.threshold);
            }
            w.f64(n.value);
        }
    }

    pub fn read(r: &mut Reader<'_>, width: usize) -> Result<Self, CodecError> {
        let start = finite(r, 1)?[0];
        let trees = r.count(12)?;
        let mut out = Self { start, roots: Vec::with_capacity(trees), nodes: Vec::new() };
        for _ in 0..trees {
            out.roots.push(out.nodes.len() as u32);
            out.read_node(r, width, 0)?;
        }
        Ok(out)
    }

    fn read_node(&mut self, r: &mut Reader<'_>, width: usize, depth: usize) -> Result<(), CodecError> {
        let feature = r.u32()?;
        if feature != LEAF && (feature as usize >= width || depth == MAX_DEPTH) {
            return Err(r.invalid(format!("a tree splits by input {feature} at depth {depth}")));
        }
        let threshold = if feature == LEAF { 0.0 } else { finite(r, 1)?[0] };
        let value = finite(r, 1)?[0];
        let here = self.nodes.len();
        self.nodes.push(Node { feature, right: 0, threshold, value });
        if feature != LEAF {
            self.read_node(r, width, depth + 1)?;
            self.nodes[here].right = self.nodes.len() as u32;
            self.read_node(r, width, depth + 1)?;
        }
        Ok(())
    }
}
