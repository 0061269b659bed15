//! Signals of machines in a window: pure functions of samples in the order of event time, then offset.
//!
//! The Fourier transform is our own, with sines and cosines from `libm`: libraries choose their kernels by processor, and
//! with them the last bits.

use std::f64::consts::PI;

/// How often the signal crosses its mean: changes of sign between consecutive samples after the mean is taken off. A sample
/// exactly at the mean has the sign of the sample before it, or, at the beginning, that of the first sample that has one.
pub(super) fn zero_crossings(values: &[f64]) -> Option<i64> {
    if values.is_empty() {
        return None;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let mut crossings = 0;
    let mut above: Option<bool> = None;
    for v in values.iter().map(|v| v - mean).filter(|v| *v != 0.0 && !v.is_nan()) {
        let now = v > 0.0;
        crossings += i64::from(above.is_some_and(|before| before != now));
        above = Some(now);
    }
    Some(crossings)
}

/// The exponentially weighted mean at the last sample: `y = x` of the first, then `y += alpha · (x − y)`.
pub(super) fn ewma(values: &[f64], alpha: f64) -> Option<f64> {
    let (first, rest) = values.split_first()?;
    Some(rest.iter().fold(*first, |y, x| y + alpha * (x - y)))
}

/// The mean square of that part of the signal whose frequency is at least `lo` and below `hi` hertz.
///
/// `samples` are (milliseconds, value) in the order of time. Samples of one time are averaged. The `n` that remain are taken
/// as `n` evenly spaced samples from the first to the last time, by linear interpolation between neighbours; samples
/// that are evenly spaced already are taken as they are. The mean is taken off. With `dt` the distance between samples, the
/// frequencies are `k / (n · dt)` for `k` from 1 to `n / 2`, and the mean squares of all of them add up to the
/// signal's population variance. `None` with fewer than two times.
pub(super) fn band_energy(samples: &[(i64, f64)], lo: f64, hi: f64) -> Option<f64> {
    let (even, dt) = evenly_spaced(samples)?;
    let n = even.len();
    let mean = even.iter().sum::<f64>() / n as f64;
    let centred: Vec<f64> = even.iter().map(|v| v - mean).collect();
    let hertz = |k: usize| k as f64 / (n as f64 * dt);
    let bins: Vec<usize> = (1..=n / 2).filter(|&k| hertz(k) >= lo && hertz(k) < hi).collect();
    if bins.is_empty() {
        return Some(0.0);
    }
    let spectrum = fourier(&centred);
    let scale = 1.0 / (n as f64 * n as f64);
    let energy = |k: usize| {
        let (re, im) = spectrum[k];
        // A real signal has each frequency twice, at k and n − k, but for the highest one of an even n.
        let twice = if 2 * k == n { 1.0 } else { 2.0 };
        twice * (re * re + im * im) * scale
    };
    Some(bins.into_iter().map(energy).sum())
}

/// Evenly spaced samples and their distance in seconds.
fn evenly_spaced(samples: &[(i64, f64)]) -> Option<(Vec<f64>, f64)> {
    let mut points: Vec<(i64, f64)> = Vec::with_capacity(samples.len());
    for same in samples.chunk_by(|a, b| a.0 == b.0) {
        points.push((same[0].0, same.iter().map(|s| s.1).sum::<f64>() / same.len() as f64));
    }
    let (first, last) = (points.first()?.0, points.last()?.0);
    let n = points.len();
    if n < 2 {
        return None;
    }
    let step = (last - first) as f64 / (n - 1) as f64;
    let dt = step / 1000.0;
    if points.windows(2).all(|w| w[1].0 - w[0].0 == points[1].0 - first) {
        return Some((points.into_iter().map(|p| p.1).collect(), dt));
    }
    let mut right = 1;
    let even = (0..n).map(|i| {
        if i == n - 1 {
            return points[n - 1].1;
        }
        let t = i as f64 * step;
        while right < n - 1 && ((points[right].0 - first) as f64) < t {
            right += 1;
        }
        let ((t0, x0), (t1, x1)) = (points[right - 1], points[right]);
        let share = (t - (t0 - first) as f64) / (t1 - t0) as f64;
        x0 + share * (x1 - x0)
    });
    Some((even.collect(), dt))
}

type Complex = (f64, f64);

fn times(a: Complex, b: Complex) -> Complex {
    (a.0 * b.0 - a.1 * b.1, a.0 * b.1 + a.1 * b.0)
}

/// e^(i·angle).
fn turn(angle: f64) -> Complex {
    (libm::cos(angle), libm::sin(angle))
}

/// The discrete Fourier transform of a real signal of any length, in O(n log n).
fn fourier(signal: &[f64]) -> Vec<Complex> {
    let n = signal.len();
    if n.is_power_of_two() {
        let mut x: Vec<Complex> = signal.iter().map(|v| (*v, 0.0)).collect();
        radix_two(&mut x, -1.0);
        return x;
    }
    // Bluestein (1970): jk = (j² + k² − (k − j)²) / 2 makes the transform a convolution, done at a power of two.
    let m = (2 * n - 1).next_power_of_two();
    // j² modulo 2n, so that angles stay small and exact.
    let chirp: Vec<Complex> =
        (0..n).map(|j| turn(-PI * ((j as u128 * j as u128) % (2 * n as u128)) as f64 / n as f64)).collect();
    let mut a = vec![(0.0, 0.0); m];
    let mut b = vec![(0.0, 0.0); m];
    for (j, c) in chirp.iter().enumerate() {
        a[j] = (signal[j] * c.0, signal[j] * c.1);
        let conjugate = (c.0, -c.1);
        b[j] = conjugate;
        if j > 0 {
            b[m - j] = conjugate;
        }
    }
    radix_two(&mut a, -1.0);
    radix_two(&mut b, -1.0);
    for (x, y) in a.iter_mut().zip(&b) {
        *x = times(*x, *y);
    }
    radix_two(&mut a, 1.0);
    chirp.iter().zip(&a).map(|(c, x)| times(*c, (x.0 / m as f64, x.1 / m as f64))).collect()
}

/// Cooley and Tukey's transform in place, of a length that is a power of two; `sign` −1 forward, 1 back (unscaled).
fn radix_two(x: &mut [Complex], sign: f64) {
    let n = x.len();
    if n < 2 {
        return;
    }
    let shift = usize::BITS - n.trailing_zeros();
    for i in 0..n {
        let j = i.reverse_bits() >> shift;
        if i < j {
            x.swap(i, j);
        }
    }
    let roots: Vec<Complex> = (0..n / 2).map(|k| turn(sign * 2.0 * PI * k as f64 / n as f64)).collect();
    let mut half = 1;
    while half < n {
        let stride = n / (2 * half);
        for block in x.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (k, (a, b)) in low.iter_mut().zip(high).enumerate() {
                let t = times(*b, roots[k * stride]);
                (*a, *b) = ((a.0 + t.0, a.1 + t.1), (a.0 - t.0, a.1 - t.1));
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * (1.0 + b.abs()), "{a} {b}");
    }

    #[test]
    fn the_transform_is_the_sum_it_is_defined_by() {
        for n in [1usize, 2, 3, 5, 8, 12, 64, 100, 127, 1000] {
            let x: Vec<f64> = (0..n).map(|i| ((i * 37 + 11) % 101) as f64 - 50.0).collect();
            let got = fourier(&x);
            for k in (0..n).step_by(1 + n / 40) {
                let sum = x.iter().enumerate().fold((0.0, 0.0), |s, (j, v)| {
                    let c = turn(-2.0 * PI * ((j * k) % n) as f64 / n as f64);
                    (s.0 + v * c.0, s.1 + v * c.1)
                });
                let scale = 1e-9 * (n as f64) * 50.0;
                assert!((got[k].0 - sum.0).abs() < scale && (got[k].1 - sum.1).abs() < scale, "{n} {k}");
            }
        }
    }

    #[test]
    fn a_band_holds_the_sines_that_are_in_it() {
        // 100 samples a second for 2 s; amplitudes 3 at 5 Hz and 2 at 20 Hz: mean squares 4.5 and 2.
        let samples: Vec<(i64, f64)> = (0..200)
            .map(|i| {
                let t = i as f64 / 100.0;
                (1_700_000_000_000 + i * 10, 7.0 + 3.0 * (2.0 * PI * 5.0 * t).sin() + 2.0 * (2.0 * PI * 20.0 * t).cos())
            })
            .collect();
        near(band_energy(&samples, 4.0, 6.0).unwrap(), 4.5);
        near(band_energy(&samples, 6.0, 50.0).unwrap(), 2.0);
        near(band_energy(&samples, 5.0, 20.0).unwrap(), 4.5);
        near(band_energy(&samples, 30.0, 40.0).unwrap(), 0.0);
        near(band_energy(&samples, 0.0, 1e9).unwrap(), 6.5);
    }

    #[test]
    fn all_bands_together_are_the_variance() {
        for n in [2usize, 3, 7, 16, 31] {
            let samples: Vec<(i64, f64)> = (0..n).map(|i| (i as i64 * 40, ((i * i * 7) % 13) as f64)).collect();
            let mean = samples.iter().map(|s| s.1).sum::<f64>() / n as f64;
            let variance = samples.iter().map(|s| (s.1 - mean).powi(2)).sum::<f64>() / n as f64;
            near(band_energy(&samples, 0.0, f64::INFINITY).unwrap(), variance);
        }
    }

    #[test]
    fn irregular_samples_are_interpolated_and_equal_times_averaged() {
        let ramp = |ts: &[i64]| ts.iter().map(|t| (*t, *t as f64 / 100.0)).collect::<Vec<_>>();
        // A straight line stays one, however it was sampled.
        let even = band_energy(&ramp(&[0, 100, 200, 300, 400]), 0.0, 1e9).unwrap();
        near(band_energy(&ramp(&[0, 30, 210, 310, 400]), 0.0, 1e9).unwrap(), even);
        let twice = [(0, 0.0), (100, 0.0), (100, 2.0), (200, 2.0), (300, 3.0), (400, 4.0)];
        near(band_energy(&twice, 0.0, 1e9).unwrap(), even);
        assert_eq!(band_energy(&[(5, 1.0), (5, 2.0)], 0.0, 1e9), None);
        assert_eq!(band_energy(&[], 0.0, 1e9), None);
    }

    #[test]
    fn crossings_of_the_mean() {
        assert_eq!(zero_crossings(&[]), None);
        assert_eq!(zero_crossings(&[4.0]), Some(0));
        assert_eq!(zero_crossings(&[1.0, 3.0, 1.0, 3.0]), Some(3));
        // 2 is the mean: it belongs to the side before it.
        assert_eq!(zero_crossings(&[2.0, 1.0, 2.0, 3.0, 2.0]), Some(1));
        let sine: Vec<f64> = (0..1000).map(|i| (2.0 * PI * (i as f64 + 0.5) / 100.0).sin() + 9.0).collect();
        assert_eq!(zero_crossings(&sine), Some(19));
    }

    #[test]
    fn ewma_by_hand() {
        assert_eq!(ewma(&[], 0.5), None);
        assert_eq!(ewma(&[8.0], 0.5), Some(8.0));
        assert_eq!(ewma(&[8.0, 4.0, 0.0], 0.25), Some(5.25));
        assert_eq!(ewma(&[1.0, 2.0, 3.0], 1.0), Some(3.0));
    }
}
