//! The forest: expected displacement, without touching a tree.

use avouch_engine::codec::{CodecError, Reader, Writer};

use super::KIND;
use crate::perdevice::{Detector, Scale};

/// A fitted forest.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomCutForest {
    pub(super) scale: Scale,
    /// Rows a tree.
    pub(super) sample: u32,
    /// Scaled rows the trees drew from, row-major.
    pub(super) pool: Vec<f64>,
    pub(super) trees: Vec<Tree>,
}

/// One tree: its nodes in preorder, so that a cut's first child follows it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    pub nodes: Vec<Node>,
    /// Lower ends, then upper ends of each node's box. Follows from the nodes.
    pub boxes: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Node {
    /// The second child; 0: a leaf.
    pub right: u32,
    /// Of a leaf: its row in the pool.
    pub point: u32,
    /// Rows below.
    pub mass: u32,
    /// Of a cut: the feature, and where; what is at most this goes to the first child.
    pub feature: u16,
    pub at: f64,
}

/// Boxes and masses of nodes in preorder, from the leaves up; masses of leaves stand.
pub(super) fn boxes(nodes: &mut [Node], pool: &[f64], p: usize) -> Vec<f64> {
    let mut out = vec![0.0; nodes.len() * 2 * p];
    for i in (0..nodes.len()).rev() {
        let node = nodes[i];
        if node.right == 0 {
            let row = node.point as usize * p;
            for j in 0..p {
                out[i * 2 * p + j] = pool[row + j];
                out[i * 2 * p + p + j] = pool[row + j];
            }
            continue;
        }
        let (first, second) = (i + 1, node.right as usize);
        nodes[i].mass = nodes[first].mass.saturating_add(nodes[second].mass);
        for j in 0..p {
            let (a, b) = (first * 2 * p + j, second * 2 * p + j);
            let (low, high) = (out[a].min(out[b]), out[a + p].max(out[b + p]));
            out[i * 2 * p + j] = low;
            out[i * 2 * p + p + j] = high;
        }
    }
    out
}

impl Tree {
    /// Adds the expected displacement of the scaled `z`, in rows, to the features' shares.
    #[inline]
    fn displace(&self, z: &[f64], excess: &mut [f64], shares: &mut [f64]) {
        let p = z.len();
        let (mut i, mut reach) = (0, 1.0);
        while let Some(node) = self.nodes.get(i) {
            let (low, high) = self.boxes[i * 2 * p..(i + 1) * 2 * p].split_at(p);
            let (mut outside, mut range) = (0.0, 0.0);
            for (((e, z), l), h) in excess.iter_mut().zip(z).zip(low).zip(high) {
                *e = (l - z).max(z - h).max(0.0);
                outside += *e;
                range += h - l;
            }
            if outside > 0.0 {
                let whole = range + outside;
                let weight = reach * f64::from(node.mass) / whole;
                for (s, e) in shares.iter_mut().zip(excess.iter()) {
                    *s += weight * e;
                }
                reach *= range / whole;
            }
            if node.right == 0 {
                return;
            }
            i = if z[usize::from(node.feature)] <= node.at { i + 1 } else { node.right as usize };
        }
    }
}

impl RandomCutForest {
    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.trees.len()
    }

    /// Rows a tree.
    pub fn sample(&self) -> usize {
        self.sample as usize
    }
}

/// Features whose scratch space is on the stack; beyond, scoring allocates.
const STACK: usize = 32;

impl Detector for RandomCutForest {
    const KIND: &'static str = KIND;

    type State = ();

    fn n_features(&self) -> usize {
        self.scale.mean().len()
    }

    fn score(&self, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        let p = x.len();
        let (mut on_stack, mut on_heap) = ([0.0; STACK], Vec::new());
        let excess = match on_stack.get_mut(..p) {
            Some(s) => s,
            None => {
                on_heap.resize(p, 0.0);
                on_heap.as_mut_slice()
            }
        };
        // `expected` serves as the scratch of the scaled vector.
        self.scale.apply(x, expected);
        contributions.fill(0.0);
        for tree in &self.trees {
            tree.displace(expected, excess, contributions);
        }
        expected.copy_from_slice(self.scale.mean());
        let rows = self.trees.len() as f64 * f64::from(self.sample);
        let mut sum = 0.0;
        for c in contributions {
            *c /= rows;
            sum += *c;
        }
        sum
    }

    fn write(&self, w: &mut Writer) {
        self.write_file(w);
    }

    fn read(r: &mut Reader<'_>, p: usize) -> Result<Self, CodecError> {
        Self::read_file(r, p)
    }
}
