//! The trees in the model file.

use avouch_engine::codec::{CodecError, Reader, Writer};

use super::params::{MAX_DEPTH, MAX_TREES, MAX_WINDOW};
use super::trees::{HalfSpaceTrees, surprises};

impl HalfSpaceTrees {
    pub(super) fn write_file(&self, w: &mut Writer) {
        w.u32(self.trees as u32);
        w.u8(self.depth as u8);
        w.u32(self.window.unwrap_or(0));
        for m in &self.mean {
            w.f64(*m);
        }
        for (feature, at) in &self.cuts {
            w.u16(*feature);
            w.f64(*at);
        }
        for m in &self.mass {
            w.u64(*m);
        }
    }

    pub(super) fn read_file(r: &mut Reader<'_>, p: usize) -> Result<Self, CodecError> {
        let trees = r.u32()? as usize;
        let depth = usize::from(r.u8()?);
        let window = r.u32()?;
        if !(1..=MAX_TREES).contains(&trees) || !(1..=MAX_DEPTH).contains(&depth) || window > MAX_WINDOW || window == 1
        {
            return Err(r.invalid(format!("{trees} trees of depth {depth}, window {window}")));
        }
        let (leaves, inner) = (1usize << depth, (1usize << depth) - 1);
        if r.remaining() < 8 * p + trees * (10 * inner + 8 * leaves) {
            return Err(r.invalid("too few bytes for the trees"));
        }
        let mut mean = Vec::with_capacity(p);
        for _ in 0..p {
            let v = r.f64()?;
            if !v.is_finite() {
                return Err(r.invalid("a mean is not finite"));
            }
            mean.push(v);
        }
        let mut cuts: Vec<(u16, f64)> = Vec::with_capacity(trees * inner);
        for t in 0..trees {
            for i in 0..inner {
                let (feature, at) = (r.u16()?, r.f64()?);
                if usize::from(feature) >= p || !at.is_finite() {
                    return Err(r.invalid(format!("node {i} of tree {t} cuts feature {feature} of {p} at {at}")));
                }
                if !within(&cuts[t * inner..], i, feature, at) {
                    return Err(r.invalid(format!("node {i} of tree {t} cuts outside of its cell")));
                }
                cuts.push((feature, at));
            }
        }
        let mut mass = Vec::with_capacity(trees * leaves);
        let mut rows = None;
        for t in 0..trees {
            let mut sum = 0u64;
            for _ in 0..leaves {
                let m = r.u64()?;
                sum = sum.checked_add(m).ok_or_else(|| r.invalid("the masses of a tree overflow"))?;
                mass.push(m);
            }
            if *rows.get_or_insert(sum) != sum || sum == 0 {
                return Err(r.invalid(format!("tree {t} has the mass of {sum} rows, unlike the first")));
            }
        }
        let surprise = surprises(mass.iter().copied(), trees, depth);
        Ok(Self { trees, depth, window: (window > 0).then_some(window), mean, cuts, mass, surprise })
    }
}

/// Whether a cut at node `i` lies within what the cuts above it leave of the feature. Cells may become so narrow that the
/// middle is one of the ends; it never lies beyond.
fn within(above: &[(u16, f64)], i: usize, feature: u16, at: f64) -> bool {
    let mut child = i;
    while child > 0 {
        let parent = (child - 1) / 2;
        if let Some(&(f, cut)) = above.get(parent)
            && f == feature
        {
            let below = child % 2 == 1;
            if (below && at > cut) || (!below && at < cut) {
                return false;
            }
        }
        child = parent;
    }
    true
}
