//! What is remembered of a device, and how its next vector is judged by it.

use std::collections::VecDeque;
use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::model::{Finding, Memory, Score};

use super::CLIP;
use super::adwin::Adwin;
use super::fit::{Against, Calibrations, DriftModel, Limits};
use super::page_hinkley::PageHinkley;
use crate::calibrate::Calibration;

/// Rows' worth of the training's spread that moderate a spread learnt anew.
const PRIOR_ROWS: f64 = 10.0;

/// A spread learnt anew is at least this share of the training's: a device that happened to stand still is not held to it.
const LEAST_SPREAD: f64 = 0.25;

/// A value counts for at most so many standard deviations when a level is learnt anew.
const WILD: f64 = 1e6;

/// Level and spread of one feature, in the feature's unit.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Reference {
    mean: f64,
    scale: f64,
}

/// A reference being learnt: mean and squares about it of each feature, in deviations from the present reference.
#[derive(Debug, Clone, PartialEq)]
struct Learning {
    rows: u32,
    features: Vec<(f64, f64)>,
}

/// Each statistic of a feature in its own unit; limits are made of it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Reached {
    pub page_hinkley: f64,
    pub adwin: f64,
    pub psi: f64,
}

/// All of a device that the model goes by, without the model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct State {
    sums: Vec<PageHinkley>,
    windows: Vec<Adwin>,
    /// Bins of the recent rows, a byte a feature, oldest row first.
    recent: VecDeque<u8>,
    /// How many of the recent rows lie in each bin of each feature; follows from `recent`.
    counts: Vec<Vec<u16>>,
    /// Learnt anew; the model's if there is none.
    reference: Option<Vec<Reference>>,
    learning: Option<Learning>,
    /// Of the last vector: the ratio of each feature to its limit.
    ratios: Vec<f64>,
    /// Of the last vector: what each feature's statistics are.
    pub reached: Vec<Reached>,
}

impl State {
    pub fn new(model: &DriftModel, against: Against) -> Self {
        let (mean, yardstick) = model.yardstick(against);
        let p = mean.len();
        Self {
            sums: vec![PageHinkley::default(); p],
            windows: vec![Adwin::default(); p],
            recent: VecDeque::new(),
            counts: yardstick.bins.iter().map(|b| vec![0; b.len()]).collect(),
            reference: None,
            learning: None,
            ratios: vec![0.0; p],
            reached: vec![Reached::default(); p],
        }
    }

    /// Judges a vector of the right length, all of it finite, and learns from it. Gives the value, and whether a drift is
    /// on.
    pub fn judge(
        &mut self,
        model: &DriftModel,
        against: Against,
        x: &[f64],
        expected: &mut [f64],
        contributions: &mut [f64],
    ) -> (f64, bool) {
        let (mean, yardstick) = model.yardstick(against);
        let p = mean.len();
        if self.recent.len() >= model.window * p {
            for counts in &mut self.counts {
                if let Some(count) = self.recent.pop_front().and_then(|bin| counts.get_mut(usize::from(bin))) {
                    *count -= 1;
                }
            }
        }
        // With this row. Of fewer rows the index says more about their number than about the device.
        let full = self.recent.len() + p >= model.window * p;
        for (j, (x, expected)) in x.iter().zip(expected.iter_mut()).enumerate() {
            let reference = self.reference(mean, &yardstick.scale, j);
            *expected = reference.mean;
            let z = (x - reference.mean) / reference.scale;
            let clipped = z.clamp(-CLIP, CLIP);
            let limits = yardstick.limits[j];
            let sum = self.sums[j].add(clipped, model.tolerance, limits.page_hinkley);
            let cut = self.windows[j].add((clipped + CLIP) / (2.0 * CLIP), model.confidence, limits.adwin);
            let bin = yardstick.bins[j].bin(z);
            self.recent.push_back(bin as u8);
            self.counts[j][bin] += 1;
            let mut psi = 0.0;
            if full {
                let (all, log) = yardstick.all[j];
                psi = yardstick.bins[j].index_of(&self.counts[j], all, log, &model.logs);
            }
            self.reached[j] = Reached { page_hinkley: sum, adwin: cut, psi };
            self.ratios[j] = (sum / limits.page_hinkley).max(cut / limits.adwin).max(psi / limits.psi);
        }
        let value = self.ratios.iter().fold(0.0, |a: f64, r| a.max(*r));
        // Ratios are bounded by what limits allow, so the squares do not overflow.
        let squares: f64 = self.ratios.iter().map(|r| r * r).sum();
        for (c, r) in contributions.iter_mut().zip(&self.ratios) {
            *c = if squares > 0.0 { value * (r * r / squares) } else { 0.0 };
        }
        let mut on = value >= 1.0;
        if model.adapt {
            on = self.adapt(model, against, x, on);
        }
        (value, on)
    }

    fn reference(&self, mean: &[f64], scale: &[f64], j: usize) -> Reference {
        match &self.reference {
            Some(learnt) => learnt[j],
            None => Reference { mean: mean[j], scale: scale[j] },
        }
    }

    /// From a detection on, learns level and spread; gives whether the drift is still on in this row.
    fn adapt(&mut self, model: &DriftModel, against: Against, x: &[f64], on: bool) -> bool {
        let (mean, yardstick) = model.yardstick(against);
        let p = mean.len();
        if self.learning.is_none() {
            if !on {
                return false;
            }
            self.learning = Some(Learning { rows: 0, features: vec![(0.0, 0.0); p] });
        }
        let present: Vec<Reference> = (0..p).map(|j| self.reference(mean, &yardstick.scale, j)).collect();
        let Some(learning) = &mut self.learning else { return on };
        learning.rows += 1;
        let n = f64::from(learning.rows);
        for ((level, squares), (x, r)) in learning.features.iter_mut().zip(x.iter().zip(&present)) {
            let z = ((x - r.mean) / r.scale).clamp(-WILD, WILD);
            let before = z - *level;
            *level += before / n;
            *squares += before * (z - *level);
        }
        if learning.rows as usize >= model.window {
            let learnt = learning.features.iter().zip(present.iter().zip(&yardstick.scale)).map(|(f, (r, trained))| {
                let prior = trained / r.scale;
                let spread = ((f.1 + PRIOR_ROWS * prior * prior) / (n - 1.0 + PRIOR_ROWS)).sqrt();
                let new =
                    Reference { mean: r.mean + r.scale * f.0, scale: (r.scale * spread).max(LEAST_SPREAD * trained) };
                if new.mean.is_finite() && new.scale.is_finite() { new } else { *r }
            });
            let learnt: Vec<Reference> = learnt.collect();
            *self = Self { reference: Some(learnt), ..Self::new(model, against) };
        }
        true
    }

    pub fn write(&self, w: &mut Writer) {
        for (sum, window) in self.sums.iter().zip(&self.windows) {
            sum.write(w);
            window.write(w);
        }
        w.u32(self.recent.len() as u32);
        for bin in &self.recent {
            w.u8(*bin);
        }
        match &self.reference {
            None => w.u8(0),
            Some(learnt) => {
                w.u8(1);
                for r in learnt {
                    w.f64(r.mean);
                    w.f64(r.scale);
                }
            }
        }
        match &self.learning {
            None => w.u8(0),
            Some(learning) => {
                w.u8(1);
                w.u32(learning.rows);
                for (level, squares) in &learning.features {
                    w.f64(*level);
                    w.f64(*squares);
                }
            }
        }
    }

    pub fn read(r: &mut Reader<'_>, model: &DriftModel, against: Against) -> Result<Self, CodecError> {
        let (mean, yardstick) = model.yardstick(against);
        let p = mean.len();
        let mut out = Self::new(model, against);
        for ((sum, window), limits) in out.sums.iter_mut().zip(&mut out.windows).zip(&yardstick.limits) {
            *sum = PageHinkley::read(r, limits.page_hinkley)?;
            *window = Adwin::read(r)?;
        }
        let recent = r.count(1)?;
        if !recent.is_multiple_of(p) || recent > model.window * p {
            return Err(r.invalid(format!("{recent} bins of recent rows of {p} features")));
        }
        for (i, bin) in r.raw(recent)?.iter().enumerate() {
            match out.counts[i % p].get_mut(usize::from(*bin)) {
                Some(count) => *count += 1,
                None => return Err(r.invalid(format!("feature {} has no bin {bin}", i % p))),
            }
            out.recent.push_back(*bin);
        }
        out.reference = match r.u8()? {
            0 => None,
            1 if model.adapt => Some(read_reference(r, &yardstick.scale)?),
            other => return Err(r.invalid(format!("flag {other} of a reference learnt anew"))),
        };
        out.learning = match r.u8()? {
            0 => None,
            1 if model.adapt => Some(read_learning(r, model.window, p)?),
            other => return Err(r.invalid(format!("flag {other} of a reference being learnt"))),
        };
        Ok(out)
    }
}

fn read_reference(r: &mut Reader<'_>, trained: &[f64]) -> Result<Vec<Reference>, CodecError> {
    let mut out = Vec::with_capacity(trained.len());
    for trained in trained {
        let (mean, scale) = (r.f64()?, r.f64()?);
        if !mean.is_finite() || !scale.is_finite() || scale < LEAST_SPREAD * trained {
            return Err(r.invalid("a reference learnt anew is out of range"));
        }
        out.push(Reference { mean, scale });
    }
    Ok(out)
}

fn read_learning(r: &mut Reader<'_>, window: usize, p: usize) -> Result<Learning, CodecError> {
    let rows = r.u32()?;
    if rows == 0 || rows as usize >= window {
        return Err(r.invalid(format!("a reference is being learnt of {rows} rows; it takes {window}")));
    }
    let mut features = Vec::with_capacity(p);
    for _ in 0..p {
        let (level, squares) = (r.f64()?, r.f64()?);
        // Four times what the rows can have, so that no rounding is refused.
        if !(level.abs() <= 2.0 * WILD && (0.0..=4.0 * WILD * WILD * f64::from(rows)).contains(&squares)) {
            return Err(r.invalid("a reference being learnt is out of range"));
        }
        features.push((level, squares));
    }
    Ok(Learning { rows, features })
}

/// Raises each feature's limits to `margin` times what it reached.
pub(super) fn raise(limits: &mut [Limits], reached: &[Reached], margin: f64) {
    for (limits, reached) in limits.iter_mut().zip(reached) {
        limits.page_hinkley = limits.page_hinkley.max(margin * reached.page_hinkley);
        limits.adwin = limits.adwin.max(margin * reached.adwin);
        limits.psi = limits.psi.max(margin * reached.psi);
    }
}

/// A device as the engine keeps it.
#[derive(Debug, Clone)]
pub(super) struct DriftMemory {
    pub model: Arc<(DriftModel, Calibrations)>,
    pub against: Against,
    pub state: State,
}

impl DriftMemory {
    fn calibration(&self) -> &Calibration {
        let calibrations = &self.model.1;
        match (self.against, &calibrations.devices) {
            (Against::Device(_), Some(c)) => c,
            _ => &calibrations.fleet,
        }
    }
}

impl Memory for DriftMemory {
    fn score(&mut self, _window_end: i64, x: &[f64], expected: &mut [f64], contributions: &mut [f64]) -> Score {
        let model = self.model.clone();
        let p = model.0.n_features();
        let fits = x.len() == p && expected.len() == p && contributions.len() == p;
        if !fits || x.iter().any(|v| !v.is_finite()) {
            expected.fill(f64::NAN);
            contributions.fill(f64::NAN);
            return Score::NONE;
        }
        let (value, on) = self.state.judge(&model.0, self.against, x, expected, contributions);
        let score = Score::anomaly(value, self.calibration().p_value(value));
        Score { finding: on.then_some(Finding::Drift), ..score }
    }

    fn write(&self, w: &mut Writer) {
        self.state.write(w);
    }

    fn copy(&self) -> Box<dyn Memory> {
        Box::new(self.clone())
    }
}
