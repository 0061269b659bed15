//! Fitting: a scale, and rows that cover the others.

use linfa::DatasetBase;
use linfa::ParamGuard;
use linfa::traits::Fit;
use ndarray::{Array1, ArrayBase, Data, Ix2};

use super::coreset::cover;
use super::nearest::NearestNeighbours;
use super::params::{NearestNeighboursConfig, NearestNeighboursParams, NearestNeighboursValidParams};
use super::recent::Keep;
use crate::ModelError;
use crate::frame::{Rows, TrainingFrame};
use crate::perdevice::{Described, Group, PerDevice, Scale, fit_groups, parts};
use crate::train::Parts;

/// Rows grouped by device. The targets are each row's device, numbered from 0; rows of a device need not be adjacent.
impl<D: Data<Elem = f64>> Fit<ArrayBase<D, Ix2>, Array1<usize>, ModelError> for NearestNeighboursValidParams {
    type Object = PerDevice<NearestNeighbours>;

    /// Needs finite records, at least three; a feature that does not vary at all is an error.
    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, Array1<usize>>) -> Result<Self::Object, ModelError> {
        let c = self.config();
        fit_groups(dataset, c.baseline, c.seed, |group| Ok(fit(c, group)))
    }
}

fn fit(config: &NearestNeighboursConfig, mut group: Group<'_>) -> NearestNeighbours {
    let p = group.p;
    let scale = Scale::of(group.flat, group.fleet_spread);
    let rows = scale.rows(group.flat);
    let (chosen, radius) = cover(&rows, p, config.sample, &mut group.rng);
    let reference = chosen.iter().flat_map(|i| &rows[i * p..(i + 1) * p]).copied().collect();
    let keep = (config.recent > 0).then_some(Keep { recent: config.recent, every: config.every, delay: config.delay });
    NearestNeighbours { scale, neighbours: config.neighbours, keep, radius, reference }
}

/// Fits, calibrates and describes.
pub(crate) fn train(
    frame: &TrainingFrame,
    config: &NearestNeighboursConfig,
    fit: Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    let params = NearestNeighboursParams::from(config.clone()).check()?;
    let model = params.fit(&fit.into_dataset(frame.features()))?;
    let described = Described {
        model: "Distance to the nearest healthy rows (Ramaswamy, Rastogi and Shim 2000), out of a cover of the training rows \
                (Gonzalez 1985); online, also to the nearest of these and the device's own recent vectors. Split-conformal \
                p-values.",
        facts: |nearest: &NearestNeighbours| {
            vec![("reference rows", vec![nearest.reference_rows() as f64]), ("covering radius", vec![nearest.radius])]
        },
    };
    parts(frame, model, held_back, &described)
}
