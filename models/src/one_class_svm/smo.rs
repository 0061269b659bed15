//! Sequential minimal optimisation of the one-class problem (Platt 1998; the pair that violates most, Keerthi et al. 2001).

/// The pair's gradients differ by less than this: it has converged.
const TOLERANCE: f64 = 1e-6;

/// Steps a row after which it is taken as it is.
const STEPS_PER_ROW: usize = 500;

/// The solution of: minimise α'Kα / 2 where 0 ≤ α ≤ 1 and Σα = ν n.
pub(super) struct Solution {
    pub alpha: Vec<f64>,
    /// f at the edge.
    pub rho: f64,
    pub steps: usize,
}

/// Solves it for the symmetric kernel matrix `k`, row-major, with ones on its diagonal.
pub(super) fn solve(k: &[f64], n: usize, nu: f64) -> Solution {
    // As libsvm begins: the first ν n rows carry all the weight.
    let total = nu * n as f64;
    let mut alpha: Vec<f64> = (0..n).map(|i| (total - i as f64).clamp(0.0, 1.0)).collect();
    let mut gradient = vec![0.0; n];
    for (row, a) in k.chunks_exact(n).zip(&alpha).filter(|(_, a)| **a > 0.0) {
        for (g, k) in gradient.iter_mut().zip(row) {
            *g += a * k;
        }
    }
    let mut steps = 0;
    while steps < STEPS_PER_ROW * n {
        // The row most worth more weight, and the one most worth less; of equal ones the first.
        let (mut up, mut down) = (None, None);
        for (i, (&a, &g)) in alpha.iter().zip(&gradient).enumerate() {
            if a < 1.0 && up.is_none_or(|(_, least)| g < least) {
                up = Some((i, g));
            }
            if a > 0.0 && down.is_none_or(|(_, most)| g > most) {
                down = Some((i, g));
            }
        }
        let (Some((i, least)), Some((j, most))) = (up, down) else { break };
        if most - least < TOLERANCE {
            break;
        }
        let curvature = (2.0 - 2.0 * k[i * n + j]).max(1e-12);
        let step = ((most - least) / curvature).min(1.0 - alpha[i]).min(alpha[j]);
        // At a bound exactly, so that the row is not drawn again for a rounding error.
        alpha[i] = if step == 1.0 - alpha[i] { 1.0 } else { alpha[i] + step };
        alpha[j] = if step == alpha[j] { 0.0 } else { alpha[j] - step };
        for ((g, a), b) in gradient.iter_mut().zip(&k[i * n..(i + 1) * n]).zip(&k[j * n..(j + 1) * n]) {
            *g += step * (a - b);
        }
        steps += 1;
    }
    Solution { rho: edge(&alpha, &gradient), alpha, steps }
}

/// f at rows that are neither inside nor outside, on average; where there are none, between the two.
fn edge(alpha: &[f64], gradient: &[f64]) -> f64 {
    let (mut sum, mut free) = (0.0, 0usize);
    let (mut outside, mut inside) = (f64::NEG_INFINITY, f64::INFINITY);
    for (&a, &g) in alpha.iter().zip(gradient) {
        if a >= 1.0 {
            outside = outside.max(g);
        } else if a <= 0.0 {
            inside = inside.min(g);
        } else {
            sum += g;
            free += 1;
        }
    }
    if free > 0 {
        sum / free as f64
    } else if inside.is_finite() && outside.is_finite() {
        (inside + outside) / 2.0
    } else {
        // nu = 1: all rows carry weight 1.
        inside.min(outside.abs())
    }
}
