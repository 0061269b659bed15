//! Normal equations and their solution by Cholesky's method, in fixed order.

/// Pivots below this share of the largest diagonal entry are dependent equations.
const DEPENDENT: f64 = 1e-13;

/// A symmetric system `A w = b`, gathered row by row.
#[derive(Debug)]
pub(crate) struct Normal {
    n: usize,
    /// Row-major; only the lower triangle is used.
    a: Vec<f64>,
    b: Vec<f64>,
}

impl Normal {
    pub fn new(n: usize) -> Self {
        Self { n, a: vec![0.0; n * n], b: vec![0.0; n] }
    }

    /// Adds one observation. Each entry is a sum over observations in their order, so that vector instructions across
    /// entries change no bit.
    pub fn add(&mut self, x: &[f64], y: f64) {
        for (i, &xi) in x.iter().enumerate() {
            self.b[i] += xi * y;
            for (a, xj) in self.a[i * self.n..=i * self.n + i].iter_mut().zip(x) {
                *a += xi * xj;
            }
        }
    }

    /// Adds to one entry, `j ≤ i`.
    pub fn penalise(&mut self, i: usize, j: usize, by: f64) {
        self.a[i * self.n + j] += by;
    }

    /// Solves it. Of dependent equations the later ones get weight 0.
    pub fn solve(mut self) -> Vec<f64> {
        let n = self.n;
        let largest = (0..n).map(|i| self.a[i * n + i]).fold(0.0, f64::max);
        let mut dependent = vec![false; n];
        for i in 0..n {
            let (above, rest) = self.a.split_at_mut(i * n);
            let row = &mut rest[..n];
            for j in 0..i {
                let other = &above[j * n..j * n + j + 1];
                let dot = dot(&row[..j], &other[..j]);
                row[j] = if dependent[j] { 0.0 } else { (row[j] - dot) / other[j] };
            }
            let pivot = row[i] - dot(&row[..i], &row[..i]);
            dependent[i] = pivot <= largest * DEPENDENT;
            row[i] = if dependent[i] { 1.0 } else { pivot.sqrt() };
        }
        let mut w = std::mem::take(&mut self.b);
        for i in 0..n {
            let row = &self.a[i * n..(i + 1) * n];
            w[i] = if dependent[i] { 0.0 } else { (w[i] - dot(&row[..i], &w[..i])) / row[i] };
        }
        for i in (0..n).rev() {
            w[i] = if dependent[i] { 0.0 } else { w[i] / self.a[i * n + i] };
            let wi = w[i];
            for (j, w) in w[..i].iter_mut().enumerate() {
                *w -= self.a[i * n + j] * wi;
            }
        }
        w
    }
}

/// Four running sums, added in a fixed order: the same bits everywhere, and fast enough.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (a4, b4) = (a.chunks_exact(4), b.chunks_exact(4));
    let rest: f64 = a4.remainder().iter().zip(b4.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a4.zip(b4) {
        for k in 0..4 {
            sums[k] += a[k] * b[k];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}
