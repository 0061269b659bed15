//! What is remembered of a device, and how it is judged by that.

use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::model::{Memory, Score};

use super::tail::Tail;
use super::views::Views;
use crate::calibrate::Calibration;

/// A score below this is not worth a rest, and is none.
const LEAST: f64 = 0.5;

/// Of the joined surprise, how much its own rarity counts.
const OWN: f64 = 1.0;

/// To be said during the rest, a score must exceed the last one by so much right after it …
const LOUDER: f64 = 1.3;

/// … and by this share of that at the rest's end.
const AT_THE_END: f64 = 0.7;

/// Views of each feature, the tail of their joined surprise, and the rest after what was last said.
///
/// Bounded: at most 5.3 KB a feature, less until half hours of the week were seen.
#[derive(Debug, Clone)]
pub(super) struct DeviceMemory {
    calibration: Arc<Calibration>,
    rest: u32,
    features: Vec<Views>,
    joined: Tail,
    /// The score last said, and how many readings ago; 0 and 0 if there is none to rest from.
    said: f64,
    ago: u32,
}

impl DeviceMemory {
    pub(super) fn new(features: usize, rest: u32, calibration: Arc<Calibration>) -> Self {
        let features = (0..features).map(|_| Views::new()).collect();
        Self { calibration, rest, features, joined: Tail::EMPTY, said: 0.0, ago: 0 }
    }

    /// The score alone: see [`Memory::score`].
    pub(super) fn step(&mut self, at: i64, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> f64 {
        let n = self.features.len();
        let fits = x.len() == n && expected.len() == n && contributions.len() == n;
        if !fits || x.iter().any(|v| !v.is_finite()) {
            expected.fill(f64::NAN);
            contributions.fill(f64::NAN);
            return f64::NAN;
        }
        let mut surprise = 0.0;
        for (((views, x), e), c) in self.features.iter_mut().zip(x).zip(expected).zip(contributions.iter_mut()) {
            let said = views.step(at, *x);
            *e = said.expected;
            *c = said.surprise;
            surprise += said.surprise;
        }
        let score = surprise + OWN * self.joined.surprise(surprise);
        self.joined.add(surprise);
        let score = if self.heard(score) { score } else { 0.0 };
        let share = if score > 0.0 { score / surprise } else { 0.0 };
        for c in contributions {
            *c *= share;
        }
        score
    }

    /// Whether a score is more than an echo of what was last said.
    fn heard(&mut self, score: f64) -> bool {
        let mut hold = LEAST;
        if self.said > 0.0 {
            self.ago += 1;
            if self.ago >= self.rest {
                (self.said, self.ago) = (0.0, 0);
            } else {
                let left = 1.0 - f64::from(self.ago) / f64::from(self.rest);
                hold = hold.max(self.said * LOUDER * (AT_THE_END + (1.0 - AT_THE_END) * left));
            }
        }
        if score > hold {
            (self.said, self.ago) = (score, 0);
            return true;
        }
        false
    }

    pub(super) fn read(
        features: usize,
        rest: u32,
        calibration: Arc<Calibration>,
        r: &mut Reader<'_>,
    ) -> Result<Self, CodecError> {
        let mut out = Self::new(features, rest, calibration);
        for views in &mut out.features {
            *views = Views::read(r)?;
        }
        out.joined = Tail::read(r)?;
        out.said = r.f64()?;
        out.ago = r.u32()?;
        let none = out.said.to_bits() == 0 && out.ago == 0;
        let resting = out.said.is_finite() && out.said > LEAST && out.ago < rest.max(1);
        if none || resting { Ok(out) } else { Err(r.invalid("a rest from nothing, or longer than rests are")) }
    }
}

impl Memory for DeviceMemory {
    fn score(&mut self, window_end: i64, features: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        let value = self.step(window_end, features, expected, contributions);
        if value.is_nan() { Score::NONE } else { Score::anomaly(value, self.calibration.p_value(value)) }
    }

    fn write(&self, w: &mut Writer) {
        for views in &self.features {
            views.write(w);
        }
        self.joined.write(w);
        w.f64(self.said);
        w.u32(self.ago);
    }

    fn copy(&self) -> Box<dyn Memory> {
        Box::new(self.clone())
    }
}
