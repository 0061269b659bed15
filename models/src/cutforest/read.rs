//! The forest in the model file: the pool of rows, then each tree in preorder.

use avouch_engine::codec::{CodecError, Reader, Writer};

use super::forest::{Node, RandomCutForest, Tree, boxes};
use super::params::{MAX_SAMPLE, MAX_TREES, POOL};
use crate::perdevice::{Scale, is_scaled};

const LEAF: u8 = 0;
const CUT: u8 = 1;

/// The shortest node: a leaf.
const LEAST_NODE: usize = 1 + 4 + 4;

impl RandomCutForest {
    pub(super) fn write_file(&self, w: &mut Writer) {
        let p = self.scale.mean().len();
        self.scale.write(w);
        w.u32((self.pool.len() / p) as u32);
        for v in &self.pool {
            w.f64(*v);
        }
        w.u32(self.sample);
        w.u32(self.trees.len() as u32);
        for tree in &self.trees {
            w.u32(tree.nodes.len() as u32);
            for node in &tree.nodes {
                if node.right == 0 {
                    w.u8(LEAF);
                    w.u32(node.point);
                    w.u32(node.mass);
                } else {
                    w.u8(CUT);
                    w.u16(node.feature);
                    w.f64(node.at);
                }
            }
        }
    }

    pub(super) fn read_file(r: &mut Reader<'_>, p: usize) -> Result<Self, CodecError> {
        let scale = Scale::read(r, p)?;
        let rows = r.count(8 * p)?;
        if rows == 0 || rows > MAX_SAMPLE * POOL {
            return Err(r.invalid(format!("a pool of {rows} rows")));
        }
        let mut pool = Vec::with_capacity(rows * p);
        for _ in 0..rows * p {
            let v = r.f64()?;
            if !is_scaled(v) {
                return Err(r.invalid("a row of the pool is out of range"));
            }
            pool.push(v);
        }
        let sample = r.u32()?;
        let count = r.count(4 + LEAST_NODE)?;
        if sample == 0 || sample as usize > MAX_SAMPLE.min(rows) || !(1..=MAX_TREES).contains(&count) {
            return Err(r.invalid(format!("{count} trees of {sample} out of {rows} rows")));
        }
        let mut trees = Vec::with_capacity(count);
        for _ in 0..count {
            trees.push(read_tree(r, &pool, p, sample)?);
        }
        Ok(Self { scale, sample, pool, trees })
    }
}

/// Preorder leaves no room for a cycle or a node that nobody reaches; what is left to check is that the cuts part what is
/// below them, and that no row is lost or there twice.
fn read_tree(r: &mut Reader<'_>, pool: &[f64], p: usize, sample: u32) -> Result<Tree, CodecError> {
    let count = r.count(LEAST_NODE)?;
    if count == 0 || count > 2 * sample as usize - 1 {
        return Err(r.invalid(format!("a tree of {count} nodes for {sample} rows")));
    }
    let mut nodes: Vec<Node> = Vec::with_capacity(count);
    // Cuts whose second child is still to come.
    let mut open: Vec<usize> = Vec::new();
    let mut after_leaf = false;
    for i in 0..count {
        if after_leaf {
            match open.pop().and_then(|parent| nodes.get_mut(parent)) {
                Some(parent) => parent.right = i as u32,
                None => return Err(r.invalid("a tree has nodes after its end")),
            }
        }
        let node = match r.u8()? {
            LEAF => {
                let (point, mass) = (r.u32()?, r.u32()?);
                if point as usize >= pool.len() / p || mass == 0 || mass > sample {
                    return Err(r.invalid(format!("a leaf of row {point} with mass {mass}")));
                }
                Node { right: 0, point, mass, feature: 0, at: 0.0 }
            }
            CUT => {
                let (feature, at) = (r.u16()?, r.f64()?);
                if usize::from(feature) >= p || !at.is_finite() {
                    return Err(r.invalid(format!("a cut of feature {feature} of {p} at {at}")));
                }
                open.push(i);
                Node { right: 0, point: 0, mass: 0, feature, at }
            }
            other => return Err(r.invalid(format!("node flag {other}"))),
        };
        after_leaf = node.mass > 0;
        nodes.push(node);
    }
    if !open.is_empty() || !after_leaf {
        return Err(r.invalid("a tree ends before its last leaf"));
    }
    let boxes = boxes(&mut nodes, pool, p);
    for (i, node) in nodes.iter().enumerate() {
        if node.right == 0 {
            continue;
        }
        let feature = usize::from(node.feature);
        let upper = boxes[(i + 1) * 2 * p + p + feature];
        let lower = boxes[node.right as usize * 2 * p + feature];
        if !(upper <= node.at && node.at < lower) {
            return Err(r.invalid(format!("node {i} does not part its rows")));
        }
    }
    if nodes.first().map(|root| root.mass) != Some(sample) {
        return Err(r.invalid(format!("a tree does not have its {sample} rows")));
    }
    Ok(Tree { nodes, boxes })
}
