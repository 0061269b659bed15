//! Draws from a seeded generator, the same on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::RngCore;

/// A number in 0 .. n; the widening multiplication's bias is below n / 2⁶⁴.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// A number in [0, 1), a multiple of 2⁻⁵³.
pub(crate) fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// `m` of the numbers 0 .. n without repetition (all of them if there are fewer), ascending.
pub(crate) fn sample(rng: &mut ChaCha8Rng, n: usize, m: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    if m < n {
        // The first m steps of a Fisher-Yates shuffle.
        for i in 0..m {
            let pick = i + below(rng, n - i);
            order.swap(i, pick);
        }
        order.truncate(m);
        order.sort_unstable();
    }
    order
}
