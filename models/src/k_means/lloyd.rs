//! Lloyd's iterations from k-means++ starts, the same bits on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Starts of which the best is kept.
const STARTS: usize = 10;

/// Iterations after which a start is taken as it is.
const MAX_ITERATIONS: usize = 300;

/// A feature's spread within clusters is at least this share of its overall spread, which is 1.
const LEAST_WITHIN: f64 = 0.01;

/// Centres and which row belongs to which.
#[derive(Debug, Clone)]
pub(crate) struct Clusters {
    /// Row-major, a centre a row; fewer than asked for if there are fewer different rows.
    pub centres: Vec<f64>,
    /// The centre of each row.
    pub of_row: Vec<usize>,
    /// Sum of squared distances.
    pub inertia: f64,
}

impl Clusters {
    /// The spread of each feature about the centres, pooled over the clusters, and at least [`LEAST_WITHIN`].
    pub fn within(&self, z: &[f64], p: usize) -> Vec<f64> {
        let mut within = vec![0.0; p];
        for (row, &c) in z.chunks_exact(p).zip(&self.of_row) {
            for ((w, v), centre) in within.iter_mut().zip(row).zip(&self.centres[c * p..(c + 1) * p]) {
                *w += (v - centre) * (v - centre);
            }
        }
        let freedom = self.of_row.len().saturating_sub(self.centres.len() / p).max(1) as f64;
        for w in &mut within {
            *w = (*w / freedom).sqrt().max(LEAST_WITHIN);
        }
        within
    }
}

/// Clusters the rows of `z`, each of `p` values.
pub(crate) fn cluster(z: &[f64], p: usize, k: usize, seed: u64) -> Clusters {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut best = iterate(z, p, plus_plus(z, p, k, &mut rng));
    for _ in 1..STARTS {
        let other = iterate(z, p, plus_plus(z, p, k, &mut rng));
        if other.inertia < best.inertia {
            best = other;
        }
    }
    best
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for (a, b) in a.iter().zip(b) {
        sum += (a - b) * (a - b);
    }
    sum
}

/// Uniform in [0, 1).
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Draws centres: the first from all rows, each other with a chance proportional to the squared distance from those drawn.
fn plus_plus(z: &[f64], p: usize, k: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let n = z.len() / p;
    let row = |i: usize| &z[i * p..(i + 1) * p];
    // The widening multiplication's bias is below n / 2⁶⁴.
    let first = ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize;
    let mut centres = row(first).to_vec();
    let mut nearest: Vec<f64> = (0..n).map(|i| distance(row(i), row(first))).collect();
    while centres.len() < k * p {
        let total: f64 = nearest.iter().sum();
        let wanted = unit(rng) * total;
        let mut sum = 0.0;
        // Rows at a centre have no chance, also where rounding leaves the walk short of the end.
        let mut drawn = None;
        for (i, d) in nearest.iter().enumerate().filter(|(_, d)| **d > 0.0) {
            drawn = Some(i);
            sum += d;
            if sum > wanted {
                break;
            }
        }
        let Some(drawn) = drawn else { break };
        centres.extend_from_slice(row(drawn));
        for (i, d) in nearest.iter_mut().enumerate() {
            *d = d.min(distance(row(i), row(drawn)));
        }
    }
    centres
}

/// The nearest centre and its squared distance; of equal ones the first.
pub(crate) fn nearest(centres: &[f64], p: usize, z: &[f64]) -> (usize, f64) {
    let mut best = (0, f64::INFINITY);
    for (c, centre) in centres.chunks_exact(p).enumerate() {
        let d = distance(centre, z);
        if d < best.1 {
            best = (c, d);
        }
    }
    best
}

fn iterate(z: &[f64], p: usize, mut centres: Vec<f64>) -> Clusters {
    let n = z.len() / p;
    let k = centres.len() / p;
    let (mut of_row, mut distances) = (vec![usize::MAX; n], vec![0.0; n]);
    for _ in 0..MAX_ITERATIONS {
        let mut moved = false;
        for (i, row) in z.chunks_exact(p).enumerate() {
            let (c, d) = nearest(&centres, p, row);
            moved |= of_row[i] != c;
            of_row[i] = c;
            distances[i] = d;
        }
        if !moved {
            break;
        }
        let mut count = vec![0usize; k];
        let mut sums = vec![0.0; k * p];
        for (row, &c) in z.chunks_exact(p).zip(&of_row) {
            count[c] += 1;
            for (s, v) in sums[c * p..(c + 1) * p].iter_mut().zip(row) {
                *s += v;
            }
        }
        for c in 0..k {
            let centre = &mut centres[c * p..(c + 1) * p];
            if count[c] > 0 {
                for (to, s) in centre.iter_mut().zip(&sums[c * p..(c + 1) * p]) {
                    *to = s / count[c] as f64;
                }
            } else {
                // A centre that lost its last row goes to the row furthest from any.
                let far = (0..n).fold(0, |far, i| if distances[i] > distances[far] { i } else { far });
                centre.copy_from_slice(&z[far * p..(far + 1) * p]);
                distances[far] = 0.0;
            }
        }
    }
    // Against the centres as they are now, whether or not the last round moved them.
    let mut inertia = 0.0;
    for (i, row) in z.chunks_exact(p).enumerate() {
        let (c, d) = nearest(&centres, p, row);
        of_row[i] = c;
        inertia += d;
    }
    Clusters { centres, of_row, inertia }
}
