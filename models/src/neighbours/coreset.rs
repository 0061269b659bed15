//! Which rows are kept: a cover of all of them.

use rand_chacha::ChaCha8Rng;

use crate::draw::below;

/// Numbers of at most `m` of the row-major `rows`, in the order they were chosen, and the largest distance of a row from
/// the nearest chosen. Stops early where every row is equal to one chosen. Ties go to the earlier row.
pub(super) fn cover(rows: &[f64], p: usize, m: usize, rng: &mut ChaCha8Rng) -> (Vec<usize>, f64) {
    let n = rows.len() / p;
    let mut farthest = below(rng, n);
    let mut squared = vec![f64::INFINITY; n];
    let (mut chosen, mut radius) = (Vec::with_capacity(m.min(n)), f64::INFINITY);
    while chosen.len() < m && radius > 0.0 {
        chosen.push(farthest);
        let centre = &rows[farthest * p..(farthest + 1) * p];
        (farthest, radius) = (0, -1.0);
        for (i, (row, nearest)) in rows.chunks_exact(p).zip(&mut squared).enumerate() {
            let d = super::nearest::squared(row, centre);
            *nearest = nearest.min(d);
            if *nearest > radius {
                (farthest, radius) = (i, *nearest);
            }
        }
    }
    (chosen, radius.max(0.0).sqrt())
}
