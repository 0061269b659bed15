//! Our k-means, mixture and one-class machine say what linfa's say.

use avouch_models::gaussian_mixture::{GaussianMixtureConfig, GaussianMixtureParams};
use avouch_models::k_means::{KMeansConfig, KMeansParams};
use avouch_models::one_class_svm::{OneClassSvmConfig, OneClassSvmParams};
use linfa::dataset::Pr;
use linfa::traits::{Fit, Predict};
use linfa::{DatasetBase, ParamGuard};
use linfa_clustering::{GaussianMixtureModel, KMeans as LinfaKMeans};
use linfa_svm::Svm;
use ndarray::{Array1, Array2};

use super::common::{Noise, Row, fleet};
use super::conditions;

fn array(rows: &[Row], p: usize) -> Array2<f64> {
    Array2::from_shape_fn((rows.len(), p), |(i, j)| rows[i].2[j])
}

/// Both standardised, so that linfa's distances are ours.
fn standardised(rows: &[Row], p: usize) -> Array2<f64> {
    let mut x = array(rows, p);
    for mut column in x.columns_mut() {
        let mean = column.mean().unwrap();
        let sd = (column.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (column.len() - 1) as f64).sqrt();
        column.mapv_inplace(|v| (v - mean) / sd);
    }
    x
}

#[test]
fn k_means_agrees_with_linfas() {
    let mut noise = Noise(3);
    let rows: Vec<Row> = (0..900)
        .map(|i| {
            let (a, b) = [(0.0, 0.0), (6.0, 1.0), (2.0, 7.0)][i % 3];
            ("a".to_owned(), i as i64, vec![a + noise.bell(), b + noise.bell()])
        })
        .collect();
    let x = standardised(&rows, 2);
    let ours = KMeansParams::from(KMeansConfig { clusters: 3, seed: 1 })
        .check()
        .unwrap()
        .fit(&DatasetBase::from(x.clone()))
        .unwrap();
    let theirs = LinfaKMeans::params(3).max_n_iterations(500).tolerance(1e-12).fit(&DatasetBase::from(x)).unwrap();
    let mut a: Vec<Vec<f64>> = (0..3).map(|c| ours.centre(c).unwrap()).collect();
    let mut b: Vec<Vec<f64>> = theirs.centroids().outer_iter().map(|c| c.to_vec()).collect();
    a.sort_by(|a, b| a[0].total_cmp(&b[0]));
    b.sort_by(|a, b| a[0].total_cmp(&b[0]));
    for (a, b) in a.iter().flatten().zip(b.iter().flatten()) {
        assert!((a - b).abs() < 1e-6, "{a} against {b}");
    }
}

#[test]
fn the_mixture_agrees_with_linfas() {
    let rows = conditions(4000, 21);
    let x = standardised(&rows, 3);
    let params = GaussianMixtureParams::from(GaussianMixtureConfig { components: 2, seed: 1 }).check().unwrap();
    let ours = params.fit(&DatasetBase::from(x.clone())).unwrap();
    let theirs = GaussianMixtureModel::params(2).tolerance(1e-7).fit(&DatasetBase::from(x.clone())).unwrap();
    assert_eq!(ours.components().len(), 2);
    let order = |means: &[Vec<f64>]| if means[0][0] < means[1][0] { [0, 1] } else { [1, 0] };
    let a: Vec<Vec<f64>> = (0..2).map(|k| ours.mean(k).unwrap()).collect();
    let b: Vec<Vec<f64>> = theirs.means().outer_iter().map(|m| m.to_vec()).collect();
    let (oa, ob) = (order(&a), order(&b));
    for k in 0..2 {
        for j in 0..3 {
            assert!((a[oa[k]][j] - b[ob[k]][j]).abs() < 1e-3, "{a:?} against {b:?}");
        }
        assert!((ours.components()[oa[k]].weight() - theirs.weights()[ob[k]]).abs() < 1e-3);
    }
    // Scores follow the density of the responsible component: −2 ln of it, less a constant. The prior is worth five rows
    // of two thousand, so their precisions differ by as much.
    let scores: Array1<f64> = ours.predict(&x);
    let log_density = |x: &[f64]| {
        (0..2)
            .map(|k| {
                let (m, q) = (theirs.means().row(k), theirs.precisions());
                let d: Vec<f64> = (0..3).map(|j| x[j] - m[j]).collect();
                let mut distance = 0.0;
                for i in 0..3 {
                    for j in 0..3 {
                        distance += d[i] * q[[k, i, j]] * d[j];
                    }
                }
                let q = |i: usize, j: usize| q[[k, i, j]];
                let det = q(0, 0) * (q(1, 1) * q(2, 2) - q(1, 2) * q(2, 1))
                    - q(0, 1) * (q(1, 0) * q(2, 2) - q(1, 2) * q(2, 0))
                    + q(0, 2) * (q(1, 0) * q(2, 1) - q(1, 1) * q(2, 0));
                det.ln() / 2.0 + theirs.weights()[k].ln() - distance / 2.0
            })
            .fold(f64::NEG_INFINITY, f64::max)
    };
    let theirs: Vec<f64> = x.outer_iter().map(|x| -2.0 * log_density(&x.to_vec())).collect();
    let (a, b): (Vec<f64>, Vec<f64>) = (scores.to_vec(), theirs);
    let correlation = correlation(&a, &b);
    assert!(correlation > 0.98, "{correlation}");
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len() as f64;
    let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        ab += (a - ma) * (b - mb);
        aa += (a - ma) * (a - ma);
        bb += (b - mb) * (b - mb);
    }
    ab / (aa * bb).sqrt()
}

#[test]
fn the_machine_agrees_with_linfas() {
    let rows = fleet(1, 300, 2, 8);
    let x = standardised(&rows, 2);
    let (nu, eps) = (0.1, 2.0);
    let params = OneClassSvmParams::from(OneClassSvmConfig { nu, eps: Some(eps), seed: 0 }).check().unwrap();
    let ours = params.fit(&DatasetBase::from(x.clone())).unwrap();
    let theirs = Svm::<f64, Pr>::params()
        .gaussian_kernel(eps)
        .nu_weight(nu)
        .eps(1e-9)
        .fit(&DatasetBase::from(x.clone()))
        .unwrap();
    let scores: Array1<f64> = ours.predict(&x);
    let (mut outside, mut worst): (usize, f64) = (0, 0.0);
    for (row, score) in x.outer_iter().zip(&scores) {
        let f = theirs.weighted_sum(&row);
        // f / ρ, by either.
        worst = worst.max(((-score).exp() - f / theirs.rho).abs());
        outside += usize::from(*score > 1e-6);
    }
    assert!(worst < 1e-3, "{worst}; ρ {} against {}", ours.rho(), theirs.rho);
    // At most a share ν lies outside, and at least that share supports.
    assert!(outside <= 30 && ours.support_vectors() >= 30, "{outside} {}", ours.support_vectors());
}
