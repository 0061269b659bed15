//! The body of the model file: features, the fleet's detector and calibration, then those of each device if there are any.

use std::collections::HashMap;
use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;

use super::scorer::{Known, PerDeviceScorer};
use super::{Detector, PerDevice};
use crate::calibrate::Calibration;

/// The fewest bytes of a device's entry: its name's length, and the smallest calibration (one knot, no tail).
const LEAST_ENTRY: usize = 4 + 8 + 4 + 16 + 1;

/// Writes the body. `devices` names the devices in the order the model numbers them, sorted; `own` has their calibrations.
pub(super) fn encode<D: Detector>(
    features: &[String],
    devices: &[String],
    model: &PerDevice<D>,
    fleet: &Calibration,
    own: &[Option<Calibration>],
) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(features.len() as u32);
    for f in features {
        w.str(f);
    }
    model.fleet.write(&mut w);
    fleet.write(&mut w);
    match &model.devices {
        None => w.u8(0),
        Some(detectors) => {
            w.u8(1);
            let known: Vec<(&String, &D, &Calibration)> = devices
                .iter()
                .zip(detectors)
                .zip(own)
                .filter_map(|((name, d), c)| Some((name, d.as_ref()?, c.as_ref()?)))
                .collect();
            w.u32(known.len() as u32);
            for (name, detector, calibration) in known {
                w.str(name);
                detector.write(&mut w);
                calibration.write(&mut w);
            }
        }
    }
    w.bytes
}

/// Reads a body back, refusing whatever training would not have written.
pub(crate) fn decode<D: Detector>(body: &[u8], hash: Hash32) -> Result<PerDeviceScorer<D>, CodecError> {
    let mut r = Reader::new(D::KIND, body);
    let p = r.count(4)?;
    if p == 0 || p > usize::from(u16::MAX) {
        return Err(r.invalid(format!("{p} features")));
    }
    let mut features: Vec<String> = Vec::with_capacity(p);
    for _ in 0..p {
        let name = r.str()?.to_owned();
        if name.is_empty() || features.contains(&name) {
            return Err(r.invalid(format!("feature name `{name}` is empty or there twice")));
        }
        features.push(name);
    }
    let fleet = D::read(&mut r, p)?;
    let fleet_calibration = Calibration::read(&mut r)?;
    let (mut names, mut calibrations) = (HashMap::new(), Vec::new());
    let devices = match r.u8()? {
        0 => None,
        1 => {
            let count = r.count(LEAST_ENTRY)?;
            let mut detectors = Vec::new();
            let mut last: Option<&str> = None;
            for i in 0..count {
                let name = r.str()?;
                if last.is_some_and(|l| l >= name) {
                    return Err(r.invalid(format!("device `{name}` is out of order")));
                }
                last = Some(name);
                names.insert(name.into(), i);
                detectors.push(Some(D::read(&mut r, p)?));
                calibrations.push(Calibration::read(&mut r)?);
            }
            Some(detectors)
        }
        other => return Err(r.invalid(format!("baseline flag {other}"))),
    };
    r.finish()?;
    let model = PerDevice { fleet, devices };
    Ok(PerDeviceScorer { known: Arc::new(Known { hash, features, names, model, fleet_calibration, calibrations }) })
}
