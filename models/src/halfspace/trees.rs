//! The trees: where a vector falls, and what that is worth.

use avouch_engine::codec::{CodecError, Reader, Writer};

use super::KIND;
use crate::perdevice::Detector;

/// Fitted half-space trees. Each tree is complete: node 0 is the root, the children of `i` are `2i + 1` and `2i + 2`.
#[derive(Debug, Clone, PartialEq)]
pub struct HalfSpaceTrees {
    pub(super) trees: usize,
    pub(super) depth: usize,
    /// Vectors a window, of an online model.
    pub(super) window: Option<u32>,
    /// Mean of each feature over the rows fitted on.
    pub(super) mean: Vec<f64>,
    /// Inner nodes, tree after tree: the feature cut, and where; what is below the cut goes to the first child.
    pub(super) cuts: Vec<(u16, f64)>,
    /// Rows fitted on that fell into each leaf, tree after tree.
    pub(super) mass: Vec<u64>,
    /// Surprise at each node but the root (which has 0), divided by the number of trees. Follows from `mass`.
    pub(super) surprise: Vec<f64>,
}

/// Surprises at the nodes of one tree after the other, from the masses of their leaves.
pub(super) fn surprises(mass: impl Iterator<Item = u64>, trees: usize, depth: usize) -> Vec<f64> {
    let (leaves, nodes) = (1usize << depth, (1usize << (depth + 1)) - 1);
    let mut out = Vec::with_capacity(trees * nodes);
    let mut of_node = vec![0u64; nodes];
    let mut mass = mass;
    for _ in 0..trees {
        for leaf in &mut of_node[leaves - 1..] {
            *leaf = mass.next().unwrap_or(0);
        }
        for i in (0..leaves - 1).rev() {
            of_node[i] = of_node[2 * i + 1] + of_node[2 * i + 2];
        }
        out.push(0.0);
        for i in 1..nodes {
            let (m, parent) = (of_node[i] as f64, of_node[(i - 1) / 2] as f64);
            out.push(libm::log2(0.5 * (parent + 1.0) / (m + 0.5)) / trees as f64);
        }
    }
    out
}

impl HalfSpaceTrees {
    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.trees
    }

    /// Cuts from root to leaf.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The leaf of tree `t` that `x` falls into, adding up surprises on the way.
    #[inline]
    fn fall(&self, t: usize, x: &[f64], surprise: &[f64], contributions: &mut [f64]) -> usize {
        let inner = (1usize << self.depth) - 1;
        let cuts = &self.cuts[t * inner..(t + 1) * inner];
        let surprise = &surprise[t * (2 * inner + 1)..(t + 1) * (2 * inner + 1)];
        let mut i = 0;
        while let Some(&(feature, at)) = cuts.get(i) {
            let feature = usize::from(feature);
            i = 2 * i + if x[feature] < at { 1 } else { 2 };
            contributions[feature] += surprise[i];
        }
        i - inner
    }

    /// The leaf alone, of a vector that is counted.
    pub(super) fn leaf(&self, t: usize, x: &[f64]) -> usize {
        let inner = (1usize << self.depth) - 1;
        let cuts = &self.cuts[t * inner..(t + 1) * inner];
        let mut i = 0;
        while let Some(&(feature, at)) = cuts.get(i) {
            i = 2 * i + if x[usize::from(feature)] < at { 1 } else { 2 };
        }
        i - inner
    }

    fn score_by(&self, x: &[f64], surprise: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        contributions.fill(0.0);
        for t in 0..self.trees {
            self.fall(t, x, surprise, contributions);
        }
        expected.copy_from_slice(&self.mean);
        contributions.iter().sum()
    }
}

/// What an online model remembers of a device: masses of its last full window, and of the one that fills.
#[derive(Debug, Clone, PartialEq)]
pub struct Recent {
    seen: u32,
    filling: Vec<u32>,
    last: Option<Last>,
}

#[derive(Debug, Clone, PartialEq)]
struct Last {
    mass: Vec<u32>,
    /// Follows from `mass`.
    surprise: Vec<f64>,
}

impl Detector for HalfSpaceTrees {
    const KIND: &'static str = KIND;

    type State = Recent;

    fn n_features(&self) -> usize {
        self.mean.len()
    }

    fn score(&self, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        self.score_by(x, &self.surprise, expected, contributions)
    }

    fn state(&self) -> Option<Recent> {
        self.window.map(|_| Recent { seen: 0, filling: vec![0; self.mass.len()], last: None })
    }

    fn learn(&self, state: &mut Recent, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        let surprise = state.last.as_ref().map_or(&self.surprise, |l| &l.surprise);
        contributions.fill(0.0);
        let leaves = 1usize << self.depth;
        for t in 0..self.trees {
            let leaf = self.fall(t, x, surprise, contributions);
            state.filling[t * leaves + leaf] += 1;
        }
        expected.copy_from_slice(&self.mean);
        state.seen += 1;
        if Some(state.seen) == self.window {
            let mass = std::mem::replace(&mut state.filling, vec![0; self.mass.len()]);
            let surprise = surprises(mass.iter().map(|m| u64::from(*m)), self.trees, self.depth);
            state.last = Some(Last { mass, surprise });
            state.seen = 0;
        }
        contributions.iter().sum()
    }

    fn write_state(&self, state: &Recent, w: &mut Writer) {
        w.u32(state.seen);
        for m in &state.filling {
            w.u32(*m);
        }
        match &state.last {
            None => w.u8(0),
            Some(last) => {
                w.u8(1);
                for m in &last.mass {
                    w.u32(*m);
                }
            }
        }
    }

    fn read_state(&self, r: &mut Reader<'_>) -> Result<Recent, CodecError> {
        let Some(window) = self.window else {
            return Err(r.invalid("this model remembers nothing of a device"));
        };
        let seen = r.u32()?;
        if seen >= window {
            return Err(r.invalid(format!("{seen} vectors of a window of {window}")));
        }
        let filling = self.read_counts(r, seen)?;
        let last = match r.u8()? {
            0 => None,
            1 => {
                let mass = self.read_counts(r, window)?;
                let surprise = surprises(mass.iter().map(|m| u64::from(*m)), self.trees, self.depth);
                Some(Last { mass, surprise })
            }
            other => return Err(r.invalid(format!("window flag {other}"))),
        };
        Ok(Recent { seen, filling, last })
    }

    fn write(&self, w: &mut Writer) {
        self.write_file(w);
    }

    fn read(r: &mut Reader<'_>, p: usize) -> Result<Self, CodecError> {
        Self::read_file(r, p)
    }
}

impl HalfSpaceTrees {
    /// Masses of every leaf; those of each tree must add up to `rows`.
    fn read_counts(&self, r: &mut Reader<'_>, rows: u32) -> Result<Vec<u32>, CodecError> {
        if r.remaining() / 4 < self.mass.len() {
            return Err(r.invalid("too few bytes for the masses of the trees"));
        }
        let mut out = Vec::with_capacity(self.mass.len());
        for _ in 0..self.trees {
            let mut sum = 0u64;
            for _ in 0..1usize << self.depth {
                let m = r.u32()?;
                sum += u64::from(m);
                out.push(m);
            }
            if sum != u64::from(rows) {
                return Err(r.invalid(format!("a tree has the mass of {sum} vectors where there were {rows}")));
            }
        }
        Ok(out)
    }
}
