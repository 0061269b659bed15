//! The body of a univariate model file: features, rest, calibration. What a device is like is in no file; it is learned.

use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;

use super::params::LONGEST_REST;
use super::scorer::UnivariateScorer;
use crate::calibrate::Calibration;

pub(super) fn encode(features: &[String], rest: u32, calibration: &Calibration) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(features.len() as u32);
    for f in features {
        w.str(f);
    }
    w.u32(rest);
    calibration.write(&mut w);
    w.bytes
}

/// Reads a body back, refusing whatever [`encode`] would not have written.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<UnivariateScorer, CodecError> {
    let mut r = Reader::new("univariate model", body);
    let features = crate::file::read_features(&mut r)?;
    let rest = r.u32()?;
    if rest > LONGEST_REST {
        return Err(r.invalid(format!("a rest of {rest} readings")));
    }
    let calibration = Arc::new(Calibration::read(&mut r)?);
    r.finish()?;
    Ok(UnivariateScorer { hash, features, rest, calibration })
}
