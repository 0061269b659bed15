//! The nine views of a value, each a signed statistic in O(1) a reading, each side of each with a tail of its own.

use avouch_engine::codec::{CodecError, Reader, Writer};

use super::season::Season;
use super::tail::Tail;

/// How many views there are.
const VIEWS: usize = 9;

/// Readings before anything is called rare.
const WARM_UP: u64 = 100;

/// The surprise of one view counts no further than this: one in a hundred thousand.
const MOST: f64 = 5.0;

/// Values are cut off here, so that differences stay finite.
const LARGEST: f64 = 1e150;

/// Keeps a scale that was never more than 0 from dividing.
const TINY: f64 = 1e-12;

// Lengths, in readings, over which moving means forget.
const LEVEL: f64 = 40.0;
const LONG_LEVEL: f64 = 800.0;
const SLOW_LEVEL: f64 = 100.0;
const LONGEST_LEVEL: f64 = 1500.0;
const RESIDUAL_LEVEL: f64 = 80.0;
const RESIDUAL_SCALE: f64 = 300.0;

/// Moving means and extremes of one value.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Moving {
    /// Mean of the value, exponentially forgetting.
    level: f64,
    long_level: f64,
    slow_level: f64,
    longest_level: f64,
    /// Mean size of a step between readings.
    spread: f64,
    long_spread: f64,
    /// Mean of the seasonal residual, and of its size.
    residual: f64,
    residual_scale: f64,
    least: f64,
    greatest: f64,
    last: f64,
}

/// What is remembered of one value of one device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Views {
    readings: u64,
    moving: Moving,
    season: Season,
    /// Upward and downward of each view.
    tails: [[Tail; 2]; VIEWS],
}

/// What the views say of a reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Said {
    /// The sum of the views' surprises: −log₁₀ of a probability each, so in orders of magnitude.
    pub surprise: f64,
    /// What was expected.
    pub expected: f64,
}

impl Views {
    pub(super) fn new() -> Self {
        Self { readings: 0, moving: Moving::default(), season: Season::EMPTY, tails: [[Tail::EMPTY; 2]; VIEWS] }
    }

    /// Judges the next reading, finite, and learns from it.
    pub(super) fn step(&mut self, at: i64, x: f64) -> Said {
        let x = x.clamp(-LARGEST, LARGEST);
        let seen = self.readings as f64;
        // A mean of all readings until there are as many as it is long.
        let rate = |length: f64| 1.0 / (seen + 1.0).min(length);
        let m = &mut self.moving;
        let first = self.readings == 0;
        if first {
            *m = Moving {
                level: x,
                long_level: x,
                slow_level: x,
                longest_level: x,
                least: x,
                greatest: x,
                last: x,
                ..Moving::default()
            };
        }
        let mut views: [Option<f64>; VIEWS] = [None; VIEWS];
        let seasonal = self.season.step(at, x);
        let mut expected = if first { f64::NAN } else { m.level };
        if let Some(usual) = seasonal {
            let residual = x - usual;
            expected = usual + m.residual;
            views[0] = Some(residual);
            views[1] = Some(residual - m.residual);
            m.residual_scale += (residual.abs() - m.residual_scale) * rate(RESIDUAL_SCALE);
            views[2] = Some(residual / (m.residual_scale + TINY));
            m.residual += (residual - m.residual) * rate(RESIDUAL_LEVEL);
        }
        views[3] = Some(m.residual);
        let range = m.greatest - m.least;
        if self.readings > 1 && range > 0.0 {
            let beyond = (x - m.greatest).max(0.0) - (m.least - x).max(0.0);
            views[4] = Some(beyond / range);
        }
        m.least = m.least.min(x);
        m.greatest = m.greatest.max(x);
        m.level += (x - m.level) * rate(LEVEL);
        views[5] = Some(m.level - m.long_level);
        m.long_level += (x - m.long_level) * rate(LONG_LEVEL);
        m.slow_level += (x - m.slow_level) * rate(SLOW_LEVEL);
        views[6] = Some(m.slow_level - m.longest_level);
        m.longest_level += (x - m.longest_level) * rate(LONGEST_LEVEL);
        if !first {
            let step = (x - m.last).abs();
            m.spread += (step - m.spread) * rate(LEVEL);
            m.long_spread += (step - m.long_spread) * rate(LONG_LEVEL);
            let least = 1e-9 * m.long_spread + TINY;
            views[7] = Some(libm::log((m.spread + least) / (m.long_spread + TINY)));
        }
        m.last = x;
        views[8] = Some(x - m.long_level);

        self.readings += 1;
        let judged = self.readings > WARM_UP;
        let mut surprise = 0.0;
        for (view, tails) in views.iter().zip(&mut self.tails) {
            let Some(z) = *view else { continue };
            let (side, size) = (usize::from(z < 0.0), z.abs());
            if judged {
                surprise += tails[side].surprise(size).min(MOST);
            }
            tails[side].add(size);
            tails[1 - side].add(0.0);
        }
        Said { surprise, expected }
    }

    pub(super) fn write(&self, w: &mut Writer) {
        w.u64(self.readings);
        for v in self.moving.fields() {
            w.f64(v);
        }
        self.season.write(w);
        for tail in self.tails.iter().flatten() {
            tail.write(w);
        }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let mut out = Self::new();
        out.readings = r.u64()?;
        let mut fields = [0.0; 11];
        for v in &mut fields {
            *v = r.f64()?;
        }
        out.moving = Moving::of(fields);
        let m = &out.moving;
        let sizes = [m.spread, m.long_spread, m.residual_scale];
        if fields.iter().any(|v| !v.is_finite()) || sizes.iter().any(|v| *v < 0.0) || m.least > m.greatest {
            return Err(r.invalid("moving means that are none"));
        }
        if out.readings == 0 && fields.iter().any(|v| v.to_bits() != 0) {
            return Err(r.invalid("means of no readings"));
        }
        out.season = Season::read(r)?;
        for tail in out.tails.iter_mut().flatten() {
            *tail = Tail::read(r)?;
        }
        if out.readings == 0 && out != Self::new() {
            return Err(r.invalid("a memory of no readings"));
        }
        Ok(out)
    }
}

impl Moving {
    fn fields(&self) -> [f64; 11] {
        [
            self.level,
            self.long_level,
            self.slow_level,
            self.longest_level,
            self.spread,
            self.long_spread,
            self.residual,
            self.residual_scale,
            self.least,
            self.greatest,
            self.last,
        ]
    }

    fn of(f: [f64; 11]) -> Self {
        Self {
            level: f[0],
            long_level: f[1],
            slow_level: f[2],
            longest_level: f[3],
            spread: f[4],
            long_spread: f[5],
            residual: f[6],
            residual_scale: f[7],
            least: f[8],
            greatest: f[9],
            last: f[10],
        }
    }
}
