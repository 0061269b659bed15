//! The body of a MEWMA model file.

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;

use super::fit::{Mewma, Scale};
use super::scorer::MewmaScorer;
use crate::calibrate::Calibration;
use crate::standard::{read_features, write_features};
use crate::t2q::{read_baseline, read_chart, write_baseline, write_chart};

/// Writes features, calibration, baseline and charts.
pub(crate) fn encode(features: &[String], model: &Mewma, calibration: &Calibration) -> Vec<u8> {
    let mut w = Writer::new();
    write_features(&mut w, features);
    calibration.write(&mut w);
    write_baseline(&mut w, &model.baseline);
    w.u32(model.scales.len() as u32);
    for scale in &model.scales {
        w.f64(scale.lambda);
        w.f64(scale.limit);
        write_chart(&mut w, &scale.chart);
    }
    w.bytes
}

/// Reads a body back, refusing whatever [`encode`] would not have written.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<MewmaScorer, CodecError> {
    let mut r = Reader::new("mewma model", body);
    let features = read_features(&mut r)?;
    let p = features.len();
    let calibration = Calibration::read(&mut r)?;
    let baseline = read_baseline(&mut r, p)?;
    let count = r.count(16 + 8 * p)?;
    if count == 0 {
        return Err(r.invalid("no charts"));
    }
    let mut scales: Vec<Scale> = Vec::with_capacity(count);
    for k in 0..count {
        let (lambda, limit) = (r.f64()?, r.f64()?);
        let falls = scales.last().is_none_or(|last| last.lambda > lambda);
        if !(lambda > 0.0 && lambda <= 1.0 && falls && limit > 0.0 && limit.is_finite()) {
            return Err(r.invalid(format!("smoothing or limit of chart {k} is out of range or order")));
        }
        let chart = read_chart(&mut r, p)?;
        if chart.components != p {
            return Err(r.invalid(format!("chart {k} does not retain all components")));
        }
        scales.push(Scale { lambda, chart, limit });
    }
    r.finish()?;
    Ok(MewmaScorer::new(hash, features, Mewma { baseline, scales }, calibration))
}
