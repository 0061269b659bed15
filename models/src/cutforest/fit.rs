//! Drawing rows and cuts.

use linfa::DatasetBase;
use linfa::ParamGuard;
use linfa::traits::Fit;
use ndarray::{Array1, ArrayBase, Data, Ix2};
use rand_chacha::ChaCha8Rng;

use super::forest::{Node, RandomCutForest, Tree, boxes};
use super::params::{POOL, RandomCutForestConfig, RandomCutForestParams, RandomCutForestValidParams};
use crate::ModelError;
use crate::draw::{sample, unit};
use crate::frame::{Rows, TrainingFrame};
use crate::perdevice::{Described, Group, PerDevice, Scale, fit_groups, parts};
use crate::train::Parts;

/// Rows grouped by device. The targets are each row's device, numbered from 0; rows of a device need not be adjacent.
impl<D: Data<Elem = f64>> Fit<ArrayBase<D, Ix2>, Array1<usize>, ModelError> for RandomCutForestValidParams {
    type Object = PerDevice<RandomCutForest>;

    /// Needs finite records, at least three; a feature that does not vary at all is an error.
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, Array1<usize>>) -> Result<Self::Object, ModelError> {
        let c = self.config();
        fit_groups(dataset, c.baseline, c.seed, |group| Ok(fit(c, group)))
    }
}

fn fit(config: &RandomCutForestConfig, mut group: Group<'_>) -> RandomCutForest {
    let p = group.p;
    let scale = Scale::of(group.flat, group.fleet_spread);
    let n = group.flat.len() / p;
    let mut pool = Vec::new();
    for i in sample(&mut group.rng, n, POOL * config.sample) {
        pool.extend_from_slice(&group.flat[i * p..(i + 1) * p]);
    }
    let pool = scale.rows(&pool);
    let rows = pool.len() / p;
    let of_tree = config.sample.min(rows);
    let trees = (0..config.trees)
        .map(|_| {
            let drawn = sample(&mut group.rng, rows, of_tree);
            tree(&mut group.rng, &pool, p, drawn)
        })
        .collect();
    RandomCutForest { scale, sample: of_tree as u32, pool, trees }
}

/// A robust random cut tree of these rows of the pool; equal ones share a leaf.
fn tree(rng: &mut ChaCha8Rng, pool: &[f64], p: usize, rows: Vec<usize>) -> Tree {
    let mut nodes: Vec<Node> = Vec::with_capacity(2 * rows.len());
    // Sets to divide, with the cut they are the second child of. The first child is always the next one taken.
    let mut todo: Vec<(Vec<usize>, Option<usize>)> = vec![(rows, None)];
    let (mut low, mut high) = (vec![0.0; p], vec![0.0; p]);
    while let Some((rows, second_of)) = todo.pop() {
        let i = nodes.len();
        if let Some(parent) = second_of.and_then(|parent| nodes.get_mut(parent)) {
            parent.right = i as u32;
        }
        low.fill(f64::INFINITY);
        high.fill(f64::NEG_INFINITY);
        for &row in &rows {
            for ((l, h), v) in low.iter_mut().zip(&mut high).zip(&pool[row * p..(row + 1) * p]) {
                *l = l.min(*v);
                *h = h.max(*v);
            }
        }
        let Some((feature, at)) = cut(rng, &low, &high) else {
            let point = rows.first().copied().unwrap_or(0) as u32;
            nodes.push(Node { right: 0, point, mass: rows.len() as u32, feature: 0, at: 0.0 });
            continue;
        };
        nodes.push(Node { right: 0, point: 0, mass: 0, feature: feature as u16, at });
        let (first, second): (Vec<usize>, Vec<usize>) = rows.into_iter().partition(|row| pool[row * p + feature] <= at);
        todo.push((second, Some(i)));
        todo.push((first, None));
    }
    let boxes = boxes(&mut nodes, pool, p);
    Tree { nodes, boxes }
}

/// A feature in proportion to its range, and a uniform place in it; none if the box is a point.
fn cut(rng: &mut ChaCha8Rng, low: &[f64], high: &[f64]) -> Option<(usize, f64)> {
    let total: f64 = low.iter().zip(high).map(|(l, h)| h - l).sum();
    if total <= 0.0 {
        return None;
    }
    let mut place = unit(rng) * total;
    let mut last = None;
    for (j, (l, h)) in low.iter().zip(high).enumerate() {
        let range = h - l;
        if range > 0.0 {
            last = Some((j, *l));
            if place < range {
                // Rounding may give the upper end, beyond which nothing would be left.
                let at = l + place;
                return Some((j, if at < *h { at } else { *l }));
            }
        }
        place -= range;
    }
    last
}

/// Fits, calibrates and describes.
pub(crate) fn train(
    frame: &TrainingFrame,
    config: &RandomCutForestConfig,
    fit: Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    let params = RandomCutForestParams::from(config.clone()).check()?;
    let model = params.fit(&fit.into_dataset(frame.features()))?;
    let described = Described {
        model: "Random cut forest (Guha, Mishra, Roy and Schrijvers 2016): the expected displacement of a vector in robust random \
                cut trees, as a share of their samples, divided among the features that would be cut. Split-conformal \
                p-values.",
        facts: |forest: &RandomCutForest| {
            let nodes: usize = forest.trees.iter().map(|t| t.nodes.len()).sum();
            vec![("rows a tree", vec![f64::from(forest.sample)]), ("nodes", vec![nodes as f64])]
        },
    };
    parts(frame, model, held_back, &described)
}
