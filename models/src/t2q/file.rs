//! The body of a T²/Q model file: what scoring needs, and nothing else.

use std::collections::HashMap;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;

use super::chart::{Baseline, Chart};
use super::fit::{Devices, T2q};
use super::scorer::T2qScorer;
use crate::calibrate::Calibration;

/// Writes the body: features, fleet baseline, chart and calibration, then the same per device if there are any.
/// `devices` names the devices the model was fitted on, sorted, in the order it numbers them.
pub(crate) fn encode(
    features: &[String],
    devices: &[String],
    model: &T2q,
    fleet_calibration: &Calibration,
    device_calibration: Option<&Calibration>,
) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(features.len() as u32);
    for f in features {
        w.str(f);
    }
    write_baseline(&mut w, &model.fleet.0);
    write_chart(&mut w, &model.fleet.1);
    fleet_calibration.write(&mut w);
    match (&model.devices, device_calibration) {
        (Some(d), Some(calibration)) => {
            w.u8(1);
            write_chart(&mut w, &d.chart);
            calibration.write(&mut w);
            let known: Vec<(&String, &Baseline)> =
                devices.iter().zip(&d.baselines).filter_map(|(name, b)| b.as_ref().map(|b| (name, b))).collect();
            w.u32(known.len() as u32);
            for (name, baseline) in known {
                w.str(name);
                write_baseline(&mut w, baseline);
            }
        }
        _ => w.u8(0),
    }
    w.bytes
}

/// Reads a body back, refusing whatever [`encode`] would not have written.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<T2qScorer, CodecError> {
    let mut r = Reader::new("t2-q model", body);
    let features = crate::file::read_features(&mut r)?;
    let p = features.len();
    let fleet = (read_baseline(&mut r, p)?, read_chart(&mut r, p)?);
    let fleet_calibration = Calibration::read(&mut r)?;
    let mut devices = HashMap::new();
    let (per_device, device_calibration) = match r.u8()? {
        0 => (None, None),
        1 => {
            let chart = read_chart(&mut r, p)?;
            let calibration = Calibration::read(&mut r)?;
            let count = r.count(4 + 16 * p)?;
            let mut baselines = Vec::with_capacity(count);
            let mut last: Option<&str> = None;
            for i in 0..count {
                let name = r.str()?;
                if last.is_some_and(|l| l >= name) {
                    return Err(r.invalid(format!("device `{name}` is out of order")));
                }
                last = Some(name);
                devices.insert(name.into(), i);
                baselines.push(Some(read_baseline(&mut r, p)?));
            }
            (Some(Devices { baselines, chart }), Some(calibration))
        }
        other => return Err(r.invalid(format!("baseline flag {other}"))),
    };
    r.finish()?;
    let model = T2q { fleet, devices: per_device };
    Ok(T2qScorer { hash, features, devices, model, fleet_calibration, device_calibration })
}

pub(crate) fn write_baseline(w: &mut Writer, b: &Baseline) {
    for v in b.mean.iter().chain(&b.scale) {
        w.f64(*v);
    }
}

pub(crate) fn read_baseline(r: &mut Reader<'_>, p: usize) -> Result<Baseline, CodecError> {
    let mut values = Vec::new();
    for i in 0..2 * p {
        let v = r.f64()?;
        if !v.is_finite() || (i >= p && v <= 0.0) {
            return Err(r.invalid("a baseline's mean must be finite and its scale positive"));
        }
        values.push(v);
    }
    let scale = values.split_off(p);
    Ok(Baseline::new(values, scale))
}

pub(crate) fn write_chart(w: &mut Writer, c: &Chart) {
    w.u32(c.components as u32);
    w.f64(c.shrinkage);
    w.f64(c.t2_limit);
    match c.q_limit {
        None => w.u8(0),
        Some(q) => {
            w.u8(1);
            w.f64(q);
        }
    }
    for v in c.eigenvalues.iter().chain(&c.root) {
        w.f64(*v);
    }
}

pub(crate) fn read_chart(r: &mut Reader<'_>, p: usize) -> Result<Chart, CodecError> {
    let components = r.u32()? as usize;
    let shrinkage = r.f64()?;
    let t2_limit = r.f64()?;
    let q_limit = match r.u8()? {
        0 => None,
        1 => Some(r.f64()?),
        other => return Err(r.invalid(format!("Q limit flag {other}"))),
    };
    let mut finite = |n: usize| -> Result<Vec<f64>, CodecError> {
        let mut out = Vec::new();
        for _ in 0..n {
            let v = r.f64()?;
            if !v.is_finite() {
                return Err(r.invalid("a chart's values must be finite"));
            }
            out.push(v);
        }
        Ok(out)
    };
    let eigenvalues = finite(p)?;
    let root = finite(p.saturating_mul(p))?;
    let positive = |v: f64| v > 0.0 && v.is_finite();
    let consistent = (1..=p).contains(&components)
        && (components == p) == q_limit.is_none()
        && (0.0..=1.0).contains(&shrinkage)
        && positive(t2_limit)
        && q_limit.is_none_or(positive)
        && eigenvalues.iter().all(|v| positive(*v));
    if !consistent {
        return Err(r.invalid("a chart's components, limits and eigenvalues do not fit together"));
    }
    Ok(Chart { eigenvalues, components, shrinkage, t2_limit, q_limit, root })
}
