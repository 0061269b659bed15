//! What a recipe remembers of one device.

use std::collections::VecDeque;

use avouch_engine::codec::{CodecError, Reader, Writer};

use super::Recipe;

/// A device's recent past, and its first vectors: see the [module](super).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Past {
    /// The last standardised vectors, oldest first.
    last: VecDeque<Vec<f64>>,
    /// Sum of the first ones, and of how many.
    first: Vec<f64>,
    seen: usize,
}

impl Past {
    /// Takes the device's next vector of finite features and writes what the recipe makes of it to `out`, which must have
    /// room for [`Recipe::width`] values.
    pub fn take(&mut self, recipe: &Recipe, x: &[f64], out: &mut [f64]) {
        let z = recipe.conditions.standardise(x, &recipe.on, &recipe.sensors);
        if let Some(baseline) = recipe.baseline
            && self.seen < baseline
        {
            self.first.resize(z.len(), 0.0);
            for (sum, v) in self.first.iter_mut().zip(&z) {
                *sum += v;
            }
            self.seen += 1;
        }
        if self.last.len() == recipe.past() {
            self.last.pop_front();
        }
        self.last.push_back(z);
        let mut at = 0;
        for sensor in 0..recipe.sensors.len() {
            let means = at;
            for &k in &recipe.means {
                out[at] = self.mean(sensor, k);
                at += 1;
            }
            if let Some(s) = recipe.slope {
                out[at] = self.slope(sensor, s);
                at += 1;
            }
            if recipe.baseline.is_some() {
                out[at] = out[means + (recipe.means.len() - 1) / 2] - self.first[sensor] / self.seen as f64;
                at += 1;
            }
        }
        for (out, &place) in out[at..].iter_mut().zip(&recipe.as_is) {
            *out = x[place];
        }
    }

    /// The newest `k` values of a sensor, oldest first.
    fn newest(&self, sensor: usize, k: usize) -> impl Iterator<Item = f64> + '_ {
        self.last.iter().skip(self.last.len().saturating_sub(k)).map(move |z| z[sensor])
    }

    fn mean(&self, sensor: usize, k: usize) -> f64 {
        self.newest(sensor, k).sum::<f64>() / k.min(self.last.len()) as f64
    }

    /// Least squares over the newest `k`, a vector; 0 while there are fewer than 3.
    fn slope(&self, sensor: usize, k: usize) -> f64 {
        let n = k.min(self.last.len());
        if n < 3 {
            return 0.0;
        }
        let middle = (n - 1) as f64 / 2.0;
        let (mut product, mut square) = (0.0, 0.0);
        for (i, v) in self.newest(sensor, k).enumerate() {
            let t = i as f64 - middle;
            product += t * v;
            square += t * t;
        }
        product / square
    }

    /// All of it.
    pub fn write(&self, w: &mut Writer) {
        w.u32(self.last.len() as u32);
        for v in self.last.iter().flatten() {
            w.f64(*v);
        }
        w.u32(self.seen as u32);
        for v in &self.first {
            w.f64(*v);
        }
    }

    /// Reads what [`Past::write`] wrote for this recipe.
    ///
    /// # Errors
    /// When there are more vectors than it remembers, or values that are no numbers.
    pub fn read(recipe: &Recipe, r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let width = recipe.sensors.len();
        let finite = |r: &mut Reader<'_>| {
            let v = r.f64()?;
            if v.is_finite() { Ok(v) } else { Err(r.invalid(format!("a remembered value is {v}"))) }
        };
        let vectors = |r: &mut Reader<'_>, n: usize| -> Result<Vec<Vec<f64>>, CodecError> {
            (0..n).map(|_| (0..width).map(|_| finite(r)).collect()).collect()
        };
        let n = r.u32()? as usize;
        if n > recipe.past() || n.saturating_mul(8 * width) > r.remaining() {
            return Err(r.invalid(format!("{n} vectors, this model remembers at most {}", recipe.past())));
        }
        let last = VecDeque::from(vectors(r, n)?);
        let seen = r.u32()? as usize;
        // Each vector is in both, until either is full.
        let expected = recipe.baseline.unwrap_or(0).min(if n < recipe.past() { n } else { usize::MAX });
        let right = if n < recipe.past() { seen == expected } else { seen <= expected && seen >= expected.min(n) };
        if !right {
            return Err(r.invalid(format!("{seen} first vectors beside {n} last ones")));
        }
        let first = if seen == 0 { Vec::new() } else { vectors(r, 1)?.pop().unwrap_or_default() };
        Ok(Self { last, first, seen })
    }
}
