//! Eigenvalues and eigenvectors of a small symmetric matrix, the same bits on every machine.
//!
//! `linfa_reduction::Pca` and `linfa_linalg::eigh` compute the same, but not reproducibly: the first iterates from a
//! random start of unspecified generator to a tolerance (LOBPCG), and both multiply through `matrixmultiply`, whose
//! kernels differ with the CPU's instruction set, and call the platform's `hypot`. The bytes of a model file would
//! then depend on the machine it was trained on. Jacobi's method needs only + − × ÷ and square roots, which IEEE 754
//! defines to the last bit, and is the most accurate of the three for small eigenvalues. The tests hold it against
//! `linfa_reduction::Pca`.

/// Sweeps after which a matrix of any size we meet has long converged (typically 6 to 10).
const MAX_SWEEPS: usize = 60;

/// Decomposes the symmetric `n`×`n` matrix `a` (row-major). Returns the eigenvalues, largest first, and the
/// eigenvectors as the rows of a row-major matrix in the same order. The sign of a vector is arbitrary but fixed.
pub(crate) fn symmetric(a: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut a = a.to_vec();
    let mut v = vec![0.0; n * n];
    for i in 0..n {
        v[i * n + i] = 1.0;
    }
    let norm: f64 = a.iter().map(|x| x * x).sum();
    for _ in 0..MAX_SWEEPS {
        let mut off = 0.0;
        for i in 0..n {
            for j in i + 1..n {
                off += a[i * n + j] * a[i * n + j];
            }
        }
        // Jacobi converges quadratically, so the sweep after this is reached leaves nothing but rounding.
        if off <= norm * 1e-34 {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut v, n, p, q);
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]).then(i.cmp(&j)));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let mut vectors = Vec::with_capacity(n * n);
    for &i in &order {
        vectors.extend_from_slice(&v[i * n..(i + 1) * n]);
    }
    (values, vectors)
}

/// One rotation that zeroes `a[p][q]` (Golub and Van Loan, algorithm 8.5.1), applied to the vectors' rows too.
fn rotate(a: &mut [f64], v: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let tau = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    // The smaller root, for stability. An overflowing tau gives t = 0, which is right: nothing to rotate.
    let t = if tau >= 0.0 { 1.0 / (tau + (1.0 + tau * tau).sqrt()) } else { -1.0 / (-tau + (1.0 + tau * tau).sqrt()) };
    let c = 1.0 / (1.0 + t * t).sqrt();
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    for k in 0..n {
        let (x, y) = (a[p * n + k], a[q * n + k]);
        a[p * n + k] = c * x - s * y;
        a[q * n + k] = s * x + c * y;
    }
    a[p * n + q] = 0.0;
    a[q * n + p] = 0.0;
    for k in 0..n {
        let (x, y) = (v[p * n + k], v[q * n + k]);
        v[p * n + k] = c * x - s * y;
        v[q * n + k] = s * x + c * y;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::needless_range_loop)]
    use linfa::traits::Fit;
    use linfa_reduction::Pca;
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;

    fn gram(x: &Array2<f64>) -> Vec<f64> {
        let n = x.ncols();
        let mut g = vec![0.0; n * n];
        for row in x.outer_iter() {
            for i in 0..n {
                for j in 0..n {
                    g[i * n + j] += row[i] * row[j];
                }
            }
        }
        g
    }

    proptest! {
        #[test]
        fn it_decomposes_and_is_orthonormal(n in 1usize..9, seed in prop::collection::vec(-1.0f64..1.0, 160)) {
            let x = Array2::from_shape_fn((20, n), |(i, j)| seed[(i * n + j) % 160] * (j + 1) as f64);
            let g = gram(&x);
            let (values, vectors) = symmetric(&g, n);
            let size = g.iter().map(|v| v.abs()).fold(1.0, f64::max);
            for i in 0..n {
                prop_assert!(i == 0 || values[i] <= values[i - 1]);
                for j in 0..n {
                    let dot: f64 = (0..n).map(|k| vectors[i * n + k] * vectors[j * n + k]).sum();
                    prop_assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12);
                    let back: f64 = (0..n).map(|k| values[k] * vectors[k * n + i] * vectors[k * n + j]).sum();
                    prop_assert!((back - g[i * n + j]).abs() < 1e-12 * size);
                }
            }
        }
    }

    #[test]
    fn it_agrees_with_linfas_pca() {
        // A deterministic cloud whose axes have well separated spreads.
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        let mix = [[1.0, 0.4, -0.2, 0.1, 0.0], [0.0, 0.6, 0.3, 0.0, 0.2], [0.0, 0.0, 0.3, 0.1, 0.1]];
        let mut x = Array2::zeros((400, 5));
        for mut row in x.outer_iter_mut() {
            for m in mix {
                let u = next() * 4.0;
                for j in 0..5 {
                    row[j] += m[j] * u;
                }
            }
            for j in 0..5 {
                row[j] += 0.01 * next();
            }
        }
        let mean = x.mean_axis(ndarray::Axis(0)).unwrap();
        let centred = &x - &mean;
        let (values, vectors) = symmetric(&gram(&centred), 5);
        let pca = Pca::params(2).fit(&linfa::DatasetBase::from(x)).unwrap();
        for i in 0..2 {
            let sigma = pca.singular_values()[i];
            assert!((sigma * sigma / values[i] - 1.0).abs() < 1e-6, "eigenvalue {i}");
            let cosine: f64 = (0..5).map(|j| pca.components()[[i, j]] * vectors[i * 5 + j]).sum();
            assert!((cosine.abs() - 1.0).abs() < 1e-6, "component {i}: cosine {cosine}");
        }
    }
}
