//! The reference rows, and the distance to the nearest.

use avouch_engine::codec::{CodecError, Reader, Writer};

use super::KIND;
use super::params::MAX_NEIGHBOURS;
use super::recent::{Keep, Recent};
use crate::perdevice::{Detector, Scale};

/// How much the distance from all that the device has done counts beside that from the reference rows.
const NEW: f64 = 2.0;

/// Squared distance of two scaled rows.
#[inline]
pub(super) fn squared(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (a, b) in a.iter().zip(b) {
        let d = a - b;
        sum += d * d;
    }
    sum
}

/// Fitted reference rows.
#[derive(Debug, Clone, PartialEq)]
pub struct NearestNeighbours {
    pub(super) scale: Scale,
    pub(super) neighbours: usize,
    /// Of an online model.
    pub(super) keep: Option<Keep>,
    /// How far the farthest row fitted on is from the reference rows, in units of the scale.
    pub(super) radius: f64,
    /// Scaled, row-major, at least one.
    pub(super) reference: Vec<f64>,
}

/// The nearest rows so far, nearest first.
struct Nearest<'a> {
    rows: [(f64, &'a [f64]); MAX_NEIGHBOURS],
    k: usize,
}

impl<'a> Nearest<'a> {
    fn new(k: usize) -> Self {
        Self { rows: [(f64::INFINITY, &[]); MAX_NEIGHBOURS], k }
    }

    /// Considers `rows`; where two are equally far, the one that came first stays.
    #[inline]
    fn among(&mut self, z: &[f64], rows: &'a [f64]) {
        let nearest = &mut self.rows[..self.k];
        let Some(last) = nearest.len().checked_sub(1) else { return };
        for row in rows.chunks_exact(z.len()) {
            let d = squared(row, z);
            if d < nearest[last].0 {
                let mut at = last;
                while at > 0 && d < nearest[at - 1].0 {
                    nearest[at] = nearest[at - 1];
                    at -= 1;
                }
                nearest[at] = (d, row);
            }
        }
    }

    /// Adds each feature's share of so many times the mean distance.
    fn share(&self, z: &[f64], times: f64, contributions: &mut [f64]) {
        let found = self.rows[..self.k].iter().filter(|(_, row)| !row.is_empty()).count() as f64;
        for (squared, row) in &self.rows[..self.k] {
            if row.is_empty() || *squared <= 0.0 {
                continue;
            }
            let weight = times / (squared.sqrt() * found);
            for ((c, z), r) in contributions.iter_mut().zip(z).zip(*row) {
                *c += (z - r) * (z - r) * weight;
            }
        }
    }
}

/// Features whose scratch space is on the stack; beyond, scoring allocates.
const STACK: usize = 32;

impl NearestNeighbours {
    /// How many rows it compares with.
    pub fn reference_rows(&self) -> usize {
        self.reference.len() / self.scale.mean().len()
    }

    /// How far the farthest row fitted on is from the reference rows, in units of the scale.
    pub fn radius(&self) -> f64 {
        self.radius
    }

    /// Scores `x`, by the recent vectors too if there are any to go by; gives the scaled `x` to `keep`.
    fn judge(
        &self,
        recent: Option<&[f64]>,
        x: &[f64],
        expected: &mut [f64],
        contributions: &mut [f64],
        keep: impl FnOnce(&[f64]),
    ) -> f64 {
        let p = x.len();
        let (mut on_stack, mut on_heap) = ([0.0; STACK], Vec::new());
        let z = match on_stack.get_mut(..p) {
            Some(s) => s,
            None => {
                on_heap.resize(p, 0.0);
                on_heap.as_mut_slice()
            }
        };
        self.scale.apply(x, z);
        contributions.fill(0.0);
        let mut nearest = Nearest::new(self.neighbours);
        nearest.among(z, &self.reference);
        nearest.share(z, 1.0, contributions);
        for (((e, r), m), s) in
            expected.iter_mut().zip(nearest.rows[0].1).zip(self.scale.mean()).zip(self.scale.spread())
        {
            *e = m + r * s;
        }
        if let Some(recent) = recent {
            nearest.among(z, recent);
            nearest.share(z, NEW, contributions);
        }
        keep(z);
        contributions.iter().sum()
    }
}

impl Detector for NearestNeighbours {
    const KIND: &'static str = KIND;

    type State = Recent;

    fn n_features(&self) -> usize {
        self.scale.mean().len()
    }

    fn score(&self, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        self.judge(self.keep.map(|_| &[][..]), x, expected, contributions, |_| ())
    }

    fn state(&self) -> Option<Recent> {
        self.keep.map(|_| Recent::default())
    }

    fn learn(&self, state: &mut Recent, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        let Some(keep) = self.keep else { return self.score(x, expected, contributions) };
        let mut kept = None;
        let old = state.old(&keep, x.len());
        let value = self.judge(Some(old), x, expected, contributions, |z| {
            if keep.takes(state.seen) {
                kept = Some(z.to_vec());
            }
        });
        state.next(&keep, kept.as_deref(), x.len());
        value
    }

    fn write_state(&self, state: &Recent, w: &mut Writer) {
        state.write(w);
    }

    fn read_state(&self, r: &mut Reader<'_>) -> Result<Recent, CodecError> {
        match &self.keep {
            Some(keep) => Recent::read(r, keep, self.n_features()),
            None => Err(r.invalid("this model remembers nothing of a device")),
        }
    }

    fn write(&self, w: &mut Writer) {
        self.write_file(w);
    }

    fn read(r: &mut Reader<'_>, p: usize) -> Result<Self, CodecError> {
        Self::read_file(r, p)
    }
}
