//! Drawing the trees, and counting the rows.

use linfa::DatasetBase;
use linfa::ParamGuard;
use linfa::traits::Fit;
use ndarray::{Array1, ArrayBase, Data, Ix2};
use rand_chacha::ChaCha8Rng;

use super::params::{HalfSpaceTreesConfig, HalfSpaceTreesParams, HalfSpaceTreesValidParams};
use super::trees::{HalfSpaceTrees, surprises};
use crate::ModelError;
use crate::draw::{below, unit};
use crate::frame::{Rows, TrainingFrame};
use crate::perdevice::{Described, Group, PerDevice, fit_groups, parts, spread};
use crate::train::Parts;

/// The least range of a device's feature, in standard deviations of the fleet's.
const LEAST_RANGE: f64 = 0.1;

/// Rows grouped by device. The targets are each row's device, numbered from 0; rows of a device need not be adjacent.
impl<D: Data<Elem = f64>> Fit<ArrayBase<D, Ix2>, Array1<usize>, ModelError> for HalfSpaceTreesValidParams {
    type Object = PerDevice<HalfSpaceTrees>;

    /// Needs finite records, at least three; a feature that does not vary at all is an error.
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, Array1<usize>>) -> Result<Self::Object, ModelError> {
        let c = self.config();
        fit_groups(dataset, c.baseline, c.seed, |group| Ok(fit(c, group)))
    }
}

fn fit(config: &HalfSpaceTreesConfig, mut group: Group<'_>) -> HalfSpaceTrees {
    let p = group.p;
    let (mean, _) = spread(group.flat, p);
    let mut ranges = Vec::with_capacity(p);
    for (j, deviation) in group.fleet_spread.iter().enumerate() {
        let column = group.flat.iter().skip(j).step_by(p);
        let (low, high) = column.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
        let missing = (LEAST_RANGE * deviation - (high - low)).max(0.0);
        ranges.push((low - missing / 2.0, high - low + missing));
    }
    let inner = (1usize << config.depth) - 1;
    let mut cuts = Vec::with_capacity(config.trees * inner);
    for _ in 0..config.trees {
        cuts.extend(tree(&mut group.rng, &ranges, config.depth));
    }
    let leaves = inner + 1;
    let mut model = HalfSpaceTrees {
        trees: config.trees,
        depth: config.depth,
        window: config.online.then_some(config.window),
        mean,
        cuts,
        mass: vec![0; config.trees * leaves],
        surprise: Vec::new(),
    };
    for x in group.flat.chunks_exact(p) {
        for t in 0..config.trees {
            let leaf = model.leaf(t, x);
            model.mass[t * leaves + leaf] += 1;
        }
    }
    model.surprise = surprises(model.mass.iter().copied(), model.trees, model.depth);
    model
}

/// The cuts of one tree. Each feature's range is first moved and widened: a point of it is drawn, and the range becomes
/// the one around the point that reaches twice as far as the farther end (Tan, Ting and Liu 2011, section 3.1).
fn tree(rng: &mut ChaCha8Rng, ranges: &[(f64, f64)], depth: usize) -> Vec<(u16, f64)> {
    let whole: Vec<(f64, f64)> = ranges
        .iter()
        .map(|(low, width)| {
            let s = unit(rng);
            let reach = 2.0 * s.max(1.0 - s);
            (low + width * (s - reach), low + width * (s + reach))
        })
        .collect();
    let inner = (1usize << depth) - 1;
    let mut cells = Vec::with_capacity(inner);
    let mut cuts: Vec<(u16, f64)> = Vec::with_capacity(inner);
    for i in 0..inner {
        let cell = if i == 0 {
            whole.clone()
        } else {
            let parent = (i - 1) / 2;
            let mut cell: Vec<(f64, f64)> = Vec::clone(&cells[parent]);
            let (feature, at) = cuts[parent];
            let side = &mut cell[usize::from(feature)];
            if i % 2 == 1 {
                side.1 = at
            } else {
                side.0 = at
            }
            cell
        };
        let feature = below(rng, ranges.len());
        let (low, high) = cell[feature];
        cuts.push((feature as u16, low + (high - low) / 2.0));
        cells.push(cell);
    }
    cuts
}

/// Fits, calibrates and describes.
pub(crate) fn train(
    frame: &TrainingFrame,
    config: &HalfSpaceTreesConfig,
    fit: Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    let params = HalfSpaceTreesParams::from(config.clone()).check()?;
    let model = params.fit(&fit.into_dataset(frame.features()))?;
    let described = Described {
        model: "Half-space trees (Tan, Ting and Liu 2011): the mean over random trees of the surprise, in bits, at the cell \
                a vector falls into; each turn's surprise is the contribution of the feature cut there. Split-conformal \
                p-values.",
        facts: |trees: &HalfSpaceTrees| {
            let empty = trees.mass.iter().filter(|m| **m == 0).count();
            vec![("share of leaves without a row", vec![empty as f64 / trees.mass.len() as f64])]
        },
    };
    parts(frame, model, held_back, &described)
}
