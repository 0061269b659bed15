//! The body of a model file with an adaptive baseline.
//!
//! The other baselines' bodies begin with the number of features, which is never 0. This one begins with 0 and the number of
//! its layout.

use std::collections::HashMap;
use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;

use super::super::file::{read_chart, write_chart};
use super::memory::Level;
use super::scorer::{AdaptiveScorer, Ages, Parts};
use super::{Adaptive, MAX_SETTLE, Rung};
use crate::calibrate::Calibration;

/// What the body begins with: no features, layout 1.
const MARK: [u8; 5] = [0, 0, 0, 0, 1];

/// Whether a body is of this layout.
pub(crate) fn is_adaptive(body: &[u8]) -> bool {
    body.starts_with(&MARK)
}

/// `devices` names the devices of `levels`, sorted.
pub(super) fn encode(features: &[String], devices: &[String], levels: &[Option<Level>], parts: &Parts) -> Vec<u8> {
    let mut w = Writer::new();
    w.raw(&MARK);
    w.u32(features.len() as u32);
    for f in features {
        w.str(f);
    }
    let model = &parts.model;
    for v in model.mean.iter().chain(&model.prior) {
        w.f64(*v);
    }
    w.u32(model.young);
    w.u32(model.settle);
    w.u32(model.rungs.len() as u32);
    for rung in &model.rungs {
        w.u32(rung.from);
        for s in &rung.scale {
            w.f64(*s);
        }
        write_chart(&mut w, &rung.chart);
    }
    parts.ages.young.write(&mut w);
    parts.ages.grown.write(&mut w);
    let known: Vec<(&String, &Level)> =
        devices.iter().zip(levels).filter_map(|(name, l)| l.as_ref().map(|l| (name, l))).collect();
    w.u32(known.len() as u32);
    for (name, level) in known {
        w.str(name);
        level.write(&mut w);
    }
    w.bytes
}

/// Reads a body back, refusing whatever [`encode`] would not have written.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<AdaptiveScorer, CodecError> {
    let mut r = Reader::new("t2-q model with an adaptive baseline", body);
    if r.raw(MARK.len())? != MARK.as_slice() {
        return Err(r.invalid("another layout"));
    }
    let features = crate::file::read_features(&mut r)?;
    let p = features.len();
    let mean = numbers(&mut r, p, |_| true)?;
    let prior = numbers(&mut r, p, |v| v > 0.0)?;
    let (young, settle) = (r.u32()?, r.u32()?);
    if young == 0 || young > settle || settle > MAX_SETTLE {
        return Err(r.invalid(format!("ages {young} and {settle} are out of range")));
    }
    let mut rungs: Vec<Rung> = Vec::new();
    for i in 0..r.count(4 + 8 * p)? {
        let from = r.u32()?;
        let in_order = rungs.last().map_or(from == 0, |last| last.from < from);
        if !in_order || from > settle {
            return Err(r.invalid(format!("the chart of age {i} is out of order")));
        }
        let scale = numbers(&mut r, p, |v| v > 0.0)?;
        rungs.push(Rung { from, scale, chart: read_chart(&mut r, p)? });
    }
    if rungs.is_empty() {
        return Err(r.invalid("no chart"));
    }
    let ages = Ages { young: Calibration::read(&mut r)?, grown: Calibration::read(&mut r)? };
    let mut devices = HashMap::new();
    let mut last: Option<&str> = None;
    for _ in 0..r.count(8 + 8 * p)? {
        let name = r.str()?;
        if last.is_some_and(|l| l >= name) {
            return Err(r.invalid(format!("device `{name}` is out of order")));
        }
        last = Some(name);
        let level = Level::read(&mut r, p, settle)?;
        if level.seen == 0 {
            return Err(r.invalid(format!("device `{name}` has a level of no windows")));
        }
        devices.insert(name.into(), level);
    }
    r.finish()?;
    let model = Adaptive { mean, prior, young, settle, rungs };
    Ok(AdaptiveScorer { hash, features, devices, parts: Arc::new(Parts { model, ages }) })
}

/// Finite numbers, each of them as `good` wants it.
fn numbers(r: &mut Reader<'_>, n: usize, good: impl Fn(f64) -> bool) -> Result<Vec<f64>, CodecError> {
    let mut out = Vec::new();
    for _ in 0..n {
        let v = r.f64()?;
        if !v.is_finite() || !good(v) {
            return Err(r.invalid(format!("{v} is out of range")));
        }
        out.push(v);
    }
    Ok(out)
}
