//! What each feature adds to the value, by exchanging features for the reference's.

use super::OnnxError;

/// Up to so many features all orders are averaged.
const ALL_ORDERS: usize = 4;

/// Writes the features' contributions to `f(x) − f(reference)`, of which `at_x` and `at_reference` are known.
pub(super) fn contributions(
    f: &dyn Fn(&[f64]) -> Result<f64, OnnxError>,
    x: &[f64],
    reference: &[f64],
    (at_x, at_reference): (f64, f64),
    out: &mut [f64],
) -> Result<(), OnnxError> {
    let p = x.len();
    out.fill(0.0);
    let mut mixed = reference.to_vec();
    if p <= ALL_ORDERS {
        // The value with each set of features taken from x.
        let mut values = Vec::with_capacity(1 << p);
        for set in 0..1usize << p {
            for j in 0..p {
                mixed[j] = if set >> j & 1 == 1 { x[j] } else { reference[j] };
            }
            values.push(match set {
                0 => at_reference,
                s if s + 1 == 1 << p => at_x,
                _ => f(&mixed)?,
            });
        }
        let factorial = |n: usize| (1..=n).product::<usize>() as f64;
        for (j, out) in out.iter_mut().enumerate() {
            for set in (0..values.len()).filter(|s| s >> j & 1 == 0) {
                let before = set.count_ones() as usize;
                let weight = factorial(before) * factorial(p - 1 - before) / factorial(p);
                *out += weight * (values[set | 1 << j] - values[set]);
            }
        }
        return Ok(());
    }
    // From the reference to x in the order of the features, and from x back: the same as in the reverse order.
    for forth in [true, false] {
        let (from, to) = if forth { (reference, x) } else { (x, reference) };
        mixed.copy_from_slice(from);
        let mut last = if forth { at_reference } else { at_x };
        for j in 0..p {
            mixed[j] = to[j];
            let next = match (j + 1 == p, forth) {
                (true, true) => at_x,
                (true, false) => at_reference,
                _ => f(&mixed)?,
            };
            out[j] += 0.5 * if forth { next - last } else { last - next };
            last = next;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_product_is_shared_and_a_sum_is_told_apart() {
        for p in [2usize, 4, 7] {
            let f = |x: &[f64]| Ok(x[0] * x[1] + 10.0 * x[p - 1]);
            let x: Vec<f64> = (0..p).map(|j| 1.0 + j as f64).collect();
            let reference = vec![0.0; p];
            let mut out = vec![0.0; p];
            let at = (f(&x).unwrap(), f(&reference).unwrap());
            contributions(&f, &x, &reference, at, &mut out).unwrap();
            assert!((out.iter().sum::<f64>() - at.0).abs() < 1e-12, "{p}: {out:?}");
            assert!((out[0] - 1.0).abs() < 1e-12, "{p}: {out:?}");
            let last = 10.0 * p as f64 + if p == 2 { 1.0 } else { 0.0 };
            assert!((out[p - 1] - last).abs() < 1e-12, "{p}: {out:?}");
        }
    }
}
