//! ADWIN: a window that is as long as its mean does not change (Bifet and Gavaldà 2007), in bounded memory.

use avouch_engine::codec::{CodecError, Reader, Writer};

/// Buckets of one size, at most.
const PER_LEVEL: u8 = 5;

/// Sizes: 1, 2, 4, … 256 rows. The window holds at most 5 × 511 = 2,555 rows; older ones are forgotten.
const LEVELS: usize = 9;

/// Rows on either side of a cut, at least.
const LEAST: u64 = 5;

/// Rows told by their sum and their squares about their mean.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    sum: f64,
    squares: f64,
}

/// What the cuts of a window say.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Cuts {
    /// The largest |μ₀ − μ₁| / ε.
    any: f64,
    /// The largest of the cuts whose newer part lies further from the reference than the older one.
    away: f64,
}

/// The window as an exponential histogram: at most five buckets of each size, the larger ones older. Values are in 0 to 1,
/// and the reference is 0.5.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adwin {
    /// Buckets of 2^level rows.
    counts: [u8; LEVELS],
    /// Oldest first, so largest first.
    buckets: Vec<Bucket>,
}

impl Adwin {
    /// Takes the next value, in 0 to 1, and forgets the oldest rows while a cut of the window reaches `limit`. Gives the
    /// largest |μ₀ − μ₁| / ε of a change away from the reference, 0 if there was none; a change back towards it is no drift.
    /// `confidence` is the paper's δ, above 0 and below 1; ε is its bound by the variance, with δ′ = δ / ln n.
    pub fn add(&mut self, value: f64, confidence: f64, limit: f64) -> f64 {
        self.insert(value);
        let mut away = 0.0_f64;
        loop {
            let cuts = self.cuts(confidence);
            away = away.max(cuts.away);
            if cuts.any < limit || self.buckets.len() < 2 {
                return away;
            }
            self.forget_oldest();
        }
    }

    /// Rows in the window.
    pub fn rows(&self) -> u64 {
        self.counts.iter().enumerate().map(|(level, n)| u64::from(*n) << level).sum()
    }

    fn insert(&mut self, value: f64) {
        self.buckets.push(Bucket { sum: value, squares: 0.0 });
        self.counts[0] += 1;
        let mut end = self.buckets.len();
        for level in 0..LEVELS {
            if self.counts[level] <= PER_LEVEL {
                break;
            }
            // The two oldest of this size become the newest of the next, which lie right before them.
            let at = end - usize::from(self.counts[level]);
            if level + 1 == LEVELS {
                self.buckets.remove(at);
                self.counts[level] -= 1;
            } else {
                let (a, b) = (self.buckets[at], self.buckets.remove(at + 1));
                let between = b.sum - a.sum;
                let rows = (2_u64 << level) as f64;
                self.buckets[at] =
                    Bucket { sum: a.sum + b.sum, squares: a.squares + b.squares + between * between / rows };
                self.counts[level] -= 2;
                self.counts[level + 1] += 1;
                end = at + 1;
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(count) = self.counts.iter_mut().rev().find(|n| **n > 0) {
            *count -= 1;
            self.buckets.remove(0);
        }
    }

    /// Rows of each bucket, oldest first.
    fn sizes(&self) -> impl Iterator<Item = f64> + '_ {
        self.counts.iter().enumerate().rev().flat_map(|(level, n)| (0..*n).map(move |_| (1_u64 << level) as f64))
    }

    fn cuts(&self, confidence: f64) -> Cuts {
        let mut best = Cuts::default();
        let all = self.rows();
        if all < 2 * LEAST {
            return best;
        }
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for (bucket, rows) in self.buckets.iter().zip(self.sizes()) {
            let between = if n == 0.0 { 0.0 } else { bucket.sum / rows - sum / n };
            squares += bucket.squares + between * between * (n * rows / (n + rows));
            n += rows;
            sum += bucket.sum;
        }
        let variance = squares / n;
        let log = libm::log(2.0 * libm::log(n) / confidence);
        let (mut n0, mut sum0) = (0.0, 0.0);
        for (bucket, rows) in self.buckets.iter().zip(self.sizes()) {
            n0 += rows;
            sum0 += bucket.sum;
            let n1 = n - n0;
            if n0 < LEAST as f64 {
                continue;
            }
            if n1 < LEAST as f64 {
                break;
            }
            let (older, newer) = (sum0 / n0, (sum - sum0) / n1);
            let per_row = 1.0 / n0 + 1.0 / n1;
            let epsilon = (2.0 * per_row * variance * log).sqrt() + 2.0 / 3.0 * per_row * log;
            let ratio = (older - newer).abs() / epsilon;
            best.any = best.any.max(ratio);
            if (newer - 0.5).abs() > (older - 0.5).abs() {
                best.away = best.away.max(ratio);
            }
        }
        best
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.raw(&self.counts);
        for b in &self.buckets {
            w.f64(b.sum);
            w.f64(b.squares);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let counts: [u8; LEVELS] = r.array()?;
        let highest = counts.iter().rposition(|n| *n > 0).unwrap_or(0);
        // A size that was ever merged into the next keeps all but one of its buckets until the larger ones are forgotten.
        let layout = counts.iter().all(|n| *n <= PER_LEVEL) && counts[..highest].iter().all(|n| *n + 1 >= PER_LEVEL);
        if !layout {
            return Err(r.invalid("a window's buckets are not laid out as they grow"));
        }
        let mut out = Self { counts, buckets: Vec::new() };
        let sizes: Vec<f64> = out.sizes().collect();
        for rows in sizes {
            let (sum, squares) = (r.f64()?, r.f64()?);
            // Values in 0 to 1 have a variance of at most a quarter.
            let most = if rows == 1.0 { 0.0 } else { rows / 4.0 * (1.0 + 1e-9) };
            let within = |v: f64, most: f64| (0.0..=most).contains(&v) && v.is_sign_positive();
            if !within(sum, rows) || !within(squares, most) {
                return Err(r.invalid("a window's bucket is out of range"));
            }
            out.buckets.push(Bucket { sum, squares });
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_sums_of_the_rows_it_says_it_holds() {
        let mut adwin = Adwin::default();
        let values: Vec<f64> = (0..6_000).map(|i| f64::from((i * 7919) % 1_009) / 1_009.0).collect();
        for (i, v) in values.iter().enumerate() {
            adwin.add(*v, 0.002, f64::INFINITY);
            let n = adwin.rows() as usize;
            assert!(n <= 2_555 && n >= (i + 1).min(2_300), "{n} of {}", i + 1);
            let held = &values[i + 1 - n..=i];
            let sum: f64 = adwin.buckets.iter().map(|b| b.sum).sum();
            assert!((sum - held.iter().sum::<f64>()).abs() < 1e-8);
        }
        assert!(adwin.buckets.len() <= 45);
    }
}
