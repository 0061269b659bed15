//! The body of a drift model file: what judging needs, and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;

use super::fit::{Calibrations, DriftModel, Limits, Yardstick};
use super::params::{BINS, MOST_TOLERANCE, WINDOW};
use super::scorer::DriftScorer;
use super::stability::{Bins, logs};
use crate::calibrate::Calibration;

/// Writes the body: features, options, the fleet's level, yardstick and calibration, then the same per device if there are
/// any. `devices` names the devices the model was fitted on, sorted, in the order it numbers them.
pub(super) fn encode(
    features: &[String],
    devices: &[String],
    model: &DriftModel,
    calibrations: &Calibrations,
) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(features.len() as u32);
    for f in features {
        w.str(f);
    }
    w.u32(model.window as u32);
    w.f64(model.tolerance);
    w.f64(model.confidence);
    w.u8(u8::from(model.adapt));
    model.fleet_mean.iter().for_each(|v| w.f64(*v));
    write_yardstick(&mut w, &model.fleet);
    calibrations.fleet.write(&mut w);
    match (&model.devices, &calibrations.devices) {
        (Some((means, yardstick)), Some(calibration)) => {
            w.u8(1);
            write_yardstick(&mut w, yardstick);
            calibration.write(&mut w);
            let known: Vec<(&String, &Vec<f64>)> =
                devices.iter().zip(means).filter_map(|(name, m)| m.as_ref().map(|m| (name, m))).collect();
            w.u32(known.len() as u32);
            for (name, mean) in known {
                w.str(name);
                mean.iter().for_each(|v| w.f64(*v));
            }
        }
        _ => w.u8(0),
    }
    w.bytes
}

/// Reads a body back, refusing whatever [`encode`] would not have written.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<DriftScorer, CodecError> {
    let mut r = Reader::new("drift model", body);
    let features = crate::file::read_features(&mut r)?;
    let p = features.len();
    let window = r.u32()? as usize;
    let (tolerance, confidence) = (r.f64()?, r.f64()?);
    let adapt = match r.u8()? {
        0 => false,
        1 => true,
        other => return Err(r.invalid(format!("adapt flag {other}"))),
    };
    let consistent = WINDOW.contains(&window)
        && tolerance > 0.0
        && tolerance <= MOST_TOLERANCE
        && confidence > 0.0
        && confidence < 1.0;
    if !consistent {
        return Err(r.invalid("window, tolerance or confidence is out of range"));
    }
    let fleet_mean = read_mean(&mut r, p)?;
    let fleet = read_yardstick(&mut r, p, window)?;
    let fleet_calibration = Calibration::read(&mut r)?;
    let mut numbers = HashMap::new();
    let (devices, device_calibration) = match r.u8()? {
        0 => (None, None),
        1 => {
            let yardstick = read_yardstick(&mut r, p, window)?;
            let calibration = Calibration::read(&mut r)?;
            let count = r.count(4 + 8 * p)?;
            let mut means = Vec::with_capacity(count);
            let mut last: Option<&str> = None;
            for i in 0..count {
                let name = r.str()?;
                if last.is_some_and(|l| l >= name) {
                    return Err(r.invalid(format!("device `{name}` is out of order")));
                }
                last = Some(name);
                numbers.insert(name.into(), i);
                means.push(Some(read_mean(&mut r, p)?));
            }
            (Some((means, yardstick)), Some(calibration))
        }
        other => return Err(r.invalid(format!("baseline flag {other}"))),
    };
    r.finish()?;
    let model = DriftModel { window, tolerance, confidence, adapt, logs: logs(window), fleet_mean, fleet, devices };
    let calibrations = Calibrations { fleet: fleet_calibration, devices: device_calibration };
    Ok(DriftScorer { hash, features, devices: numbers, model: Arc::new((model, calibrations)) })
}

fn read_mean(r: &mut Reader<'_>, p: usize) -> Result<Vec<f64>, CodecError> {
    let mut mean = Vec::new();
    for _ in 0..p {
        let v = r.f64()?;
        if !v.is_finite() {
            return Err(r.invalid("a mean is not finite"));
        }
        mean.push(v);
    }
    Ok(mean)
}

fn write_yardstick(w: &mut Writer, y: &Yardstick) {
    for ((scale, bins), limits) in y.scale.iter().zip(&y.bins).zip(&y.limits) {
        w.f64(limits.page_hinkley);
        w.f64(limits.adwin);
        w.f64(limits.psi);
        w.f64(*scale);
        bins.write(w);
    }
}

fn read_yardstick(r: &mut Reader<'_>, p: usize, window: usize) -> Result<Yardstick, CodecError> {
    let positive = |v: f64| v > 0.0 && v.is_finite();
    let (mut scale, mut bins, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..p {
        let l = Limits { page_hinkley: r.f64()?, adwin: r.f64()?, psi: r.f64()? };
        let adwin = l.adwin >= 1.0 && l.adwin.is_finite();
        if !(positive(l.page_hinkley) && positive(l.psi) && adwin) {
            return Err(r.invalid("a limit is out of range"));
        }
        limits.push(l);
        let s = r.f64()?;
        if !positive(s) {
            return Err(r.invalid("a spread is not above 0"));
        }
        scale.push(s);
        bins.push(Bins::read(r, *BINS.end())?);
    }
    Ok(Yardstick::new(scale, bins, limits, window))
}
