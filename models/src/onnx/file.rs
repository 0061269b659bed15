//! The body of a model file that holds an ONNX file.

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;

use super::config::{HigherIs, OnnxConfig, OnnxSays};
use super::scorer::{OnnxScorer, Value, Wanted};
use crate::calibrate::Calibration;

/// Features with their reference, what is taken from the output, the calibration of a score, and the ONNX file as it came.
pub(super) fn encode(
    features: &[String],
    config: &OnnxConfig,
    reference: &[f64],
    calibration: Option<&Calibration>,
) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(features.len() as u32);
    for (f, v) in features.iter().zip(reference) {
        w.str(f);
        w.f64(*v);
    }
    w.str(&config.output);
    match config.column {
        None => w.u8(0),
        Some(i) => {
            w.u8(1);
            w.u32(i as u32);
        }
    }
    w.u8(u8::from(config.higher_is == HigherIs::Normal));
    w.u8(match config.says {
        OnnxSays::Anomaly => 0,
        OnnxSays::Probability => 1,
        OnnxSays::Estimate => 2,
    });
    if let Some(c) = calibration {
        c.write(&mut w);
    }
    w.bytes(&config.contents);
    w.bytes
}

/// Reads a body back, and checks the ONNX file in it as training does.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<OnnxScorer, CodecError> {
    let mut r = Reader::new("onnx model", body);
    let p = r.count(12)?;
    if p == 0 {
        return Err(r.invalid("no features"));
    }
    let (mut features, mut reference): (Vec<String>, Vec<f64>) = (Vec::with_capacity(p), Vec::with_capacity(p));
    for _ in 0..p {
        let (name, v) = (r.str()?.to_owned(), r.f64()?);
        if name.is_empty() || features.contains(&name) || !v.is_finite() {
            return Err(r.invalid(format!("feature `{name}` has no name, is there twice, or has no finite reference")));
        }
        features.push(name);
        reference.push(v);
    }
    let output = r.str()?.to_owned();
    let column = match r.u8()? {
        0 => None,
        1 => Some(r.u32()? as usize),
        other => return Err(r.invalid(format!("column flag {other}"))),
    };
    let higher_is = match r.u8()? {
        0 => HigherIs::Stranger,
        1 => HigherIs::Normal,
        other => return Err(r.invalid(format!("direction {other}"))),
    };
    let says = match r.u8()? {
        0 => OnnxSays::Anomaly,
        1 if higher_is == HigherIs::Stranger => OnnxSays::Probability,
        2 if higher_is == HigherIs::Stranger => OnnxSays::Estimate,
        other => return Err(r.invalid(format!("meaning {other} of the value, or its direction"))),
    };
    let calibration = match says {
        OnnxSays::Anomaly => Some(Calibration::read(&mut r)?),
        _ => None,
    };
    let bytes = r.bytes()?;
    let value = Value::of(Wanted { output: &output, column, higher_is, says }, bytes, &features, reference)
        .map_err(|e| r.invalid(e.to_string()))?;
    r.finish()?;
    Ok(OnnxScorer { hash, features, value, calibration })
}
