//! Intervals by split conformal prediction (Vovk, Gammerman and Shafer 2005; Lei and others 2018), within bands of the value.
//!
//! Held-back rows, of devices that the model was not fitted to, are sorted by the value it gave them and cut into bands; in
//! each, the errors `truth − value` are ranked. With `n` errors in the band of a value, the interval reaches from the value
//! plus the ⌊(n + 1) a/2⌋-th smallest to the value plus the ⌈(n + 1)(1 − a/2)⌉-th, and a row exchangeable with the held-back
//! ones of its band has its truth inside with probability at least 1 − a (Mondrian conformal prediction). Bands, because the
//! error of a remaining life is small when it is short, which is when it matters, and large when it is long.
//!
//! Rows of a device are alike, so what is promised is a share over many devices, not of the windows of one.

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::model::Interval;
use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::linear::finite;

/// Bands at most.
const BANDS: usize = 10;

/// Rows of a band, at least.
const ROWS: usize = 100;

/// One band.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Band {
    /// It is about values from here, to the next band's; the first is about all smaller ones, too.
    pub from: f64,
    /// Held-back rows.
    pub rows: u64,
    /// Added to the value for the lower end.
    pub below: f64,
    /// Added to the value for the upper end.
    pub above: f64,
}

/// Intervals around values.
#[derive(Debug, Clone, PartialEq)]
pub struct Intervals {
    /// The share that they are to hold.
    pub coverage: f64,
    bands: Vec<Band>,
}

impl Intervals {
    /// Of values and truths of held-back rows, in any order.
    ///
    /// # Errors
    /// When there are too few rows for the coverage.
    pub fn of(pairs: &[(f64, f64)], coverage: f64) -> Result<Self, ModelError> {
        let needed = (2.0 / (1.0 - coverage)).ceil() as usize;
        if pairs.len() < needed {
            return Err(ModelError::Rows(format!(
                "{} rows are held back; intervals that hold {coverage} of the truths need {needed}: raise \
                 `split.hold_back` or give more data",
                pairs.len()
            )));
        }
        let mut sorted = pairs.to_vec();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let count = (sorted.len() / ROWS.max(needed)).clamp(1, BANDS);
        let mut bands: Vec<Band> = Vec::new();
        let mut at = 0;
        for band in 1..=count {
            let mut end = sorted.len() * band / count;
            // Equal values are in one band.
            while end > at && end < sorted.len() && sorted[end].0 <= sorted[end - 1].0 {
                end += 1;
            }
            if end <= at || (end < sorted.len() && sorted.len() - end < needed) {
                continue;
            }
            let mut errors: Vec<f64> = sorted[at..end].iter().map(|(v, truth)| truth - v).collect();
            errors.sort_by(f64::total_cmp);
            let n = errors.len();
            let tail = (1.0 - coverage) / 2.0;
            let low = (((n + 1) as f64 * tail).floor() as usize).max(1);
            let high = (((n + 1) as f64 * (1.0 - tail)).ceil() as usize).min(n);
            bands.push(Band {
                from: sorted[at].0,
                rows: n as u64,
                below: errors[low - 1].min(0.0),
                above: errors[high - 1].max(0.0),
            });
            at = end;
        }
        Ok(Self { coverage, bands })
    }

    /// Around a value, within these limits.
    pub fn around(&self, value: f64, limits: (f64, f64)) -> Interval {
        let band = self.bands.partition_point(|b| b.from <= value).saturating_sub(1);
        let band = &self.bands[band];
        Interval { lower: (value + band.below).max(limits.0), upper: (value + band.above).min(limits.1) }
    }

    /// For the card.
    pub fn bands(&self) -> &[Band] {
        &self.bands
    }

    pub(crate) fn write(&self, w: &mut Writer) {
        w.f64(self.coverage);
        w.u32(self.bands.len() as u32);
        for b in &self.bands {
            w.u64(b.rows);
            for v in [b.from, b.below, b.above] {
                w.f64(v);
            }
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, CodecError> {
        let coverage = finite(r, 1)?[0];
        let n = r.count(32)?;
        if !(coverage > 0.5 && coverage < 1.0) || n == 0 || n > BANDS {
            return Err(r.invalid(format!("{n} bands of coverage {coverage}")));
        }
        let mut bands: Vec<Band> = Vec::with_capacity(n);
        for _ in 0..n {
            let rows = r.u64()?;
            let v = finite(r, 3)?;
            let band = Band { from: v[0], rows, below: v[1], above: v[2] };
            if rows == 0 || band.below > 0.0 || band.above < 0.0 || bands.last().is_some_and(|l| l.from >= band.from) {
                return Err(r.invalid("a band of intervals is out of range or order"));
            }
            bands.push(band);
        }
        Ok(Self { coverage, bands })
    }
}
