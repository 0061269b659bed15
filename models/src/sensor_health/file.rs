//! The body of a sensor-health model file.

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;

use super::scorer::SensorHealthScorer;
use super::{Check, End};
use crate::calibrate::Calibration;

/// The level, each feature with its median and check, and the calibration.
pub(super) fn encode(
    features: &[String],
    typical: &[f64],
    checks: &[Check],
    level: f64,
    calibration: &Calibration,
) -> Vec<u8> {
    let mut w = Writer::new();
    w.f64(level);
    w.u32(features.len() as u32);
    for ((f, t), c) in features.iter().zip(typical).zip(checks) {
        w.str(f);
        w.f64(*t);
        match *c {
            Check::Readings { full, share, dispersion } => {
                w.u8(0);
                [full, share, dispersion].into_iter().for_each(|v| w.f64(v));
            }
            Check::IntervalMax { most } => {
                w.u8(1);
                w.f64(most);
            }
            Check::IntervalSpread { most } => {
                w.u8(2);
                w.f64(most);
            }
            Check::Spread { least } => {
                w.u8(3);
                w.u8(u8::from(least.is_some()));
                least.into_iter().for_each(|v| w.f64(v));
            }
            Check::Low { high: other, end } | Check::High { low: other, end } => {
                w.u8(if matches!(c, Check::Low { .. }) { 4 } else { 5 });
                w.u32(other as u32);
                w.u8(end.map_or(0, |e| if e.touching { 2 } else { 1 }));
                end.into_iter().for_each(|e| w.f64(e.at));
            }
        }
    }
    calibration.write(&mut w);
    w.bytes
}

/// Reads a body back, refusing whatever [`encode`] would not have written.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<SensorHealthScorer, CodecError> {
    let mut r = Reader::new("sensor-health model", body);
    let level = number(&mut r, |v| v > 0.0 && v <= 0.1)?;
    let p = r.count(14)?;
    if p == 0 {
        return Err(r.invalid("no features"));
    }
    let (mut features, mut typical, mut checks) = (Vec::<String>::new(), Vec::new(), Vec::new());
    for _ in 0..p {
        let name = r.str()?.to_owned();
        if name.is_empty() || features.contains(&name) {
            return Err(r.invalid(format!("feature name `{name}` is empty or there twice")));
        }
        features.push(name);
        typical.push(number(&mut r, |_| true)?);
        checks.push(read_check(&mut r, p)?);
    }
    for (j, c) in checks.iter().enumerate() {
        let paired = match *c {
            Check::Low { high, .. } => matches!(checks[high], Check::High { low, .. } if low == j),
            Check::High { low, .. } => matches!(checks[low], Check::Low { high, .. } if high == j),
            _ => true,
        };
        if !paired {
            return Err(r.invalid(format!("feature {j} is not one of a pair of low and high")));
        }
    }
    let calibration = Calibration::read(&mut r)?;
    r.finish()?;
    Ok(SensorHealthScorer { hash, features, typical, checks, level, calibration })
}

fn read_check(r: &mut Reader<'_>, p: usize) -> Result<Check, CodecError> {
    let positive = |v: f64| v > 0.0;
    Ok(match r.u8()? {
        0 => Check::Readings {
            full: number(r, positive)?,
            share: number(r, |v| v > 0.0 && v < 1.0)?,
            dispersion: number(r, |v| v >= 1.0)?,
        },
        1 => Check::IntervalMax { most: number(r, positive)? },
        2 => Check::IntervalSpread { most: number(r, positive)? },
        3 => Check::Spread {
            least: match r.u8()? {
                0 => None,
                1 => Some(number(r, positive)?),
                other => return Err(r.invalid(format!("spread flag {other}"))),
            },
        },
        kind @ (4 | 5) => {
            let other = r.u32()? as usize;
            if other >= p {
                return Err(r.invalid(format!("there is no feature {other}")));
            }
            let end = match r.u8()? {
                0 => None,
                flag @ (1 | 2) => Some(End { at: number(r, |_| true)?, touching: flag == 2 }),
                flag => return Err(r.invalid(format!("end flag {flag}"))),
            };
            if kind == 4 { Check::Low { high: other, end } } else { Check::High { low: other, end } }
        }
        other => return Err(r.invalid(format!("check {other}"))),
    })
}

fn number(r: &mut Reader<'_>, good: impl Fn(f64) -> bool) -> Result<f64, CodecError> {
    let v = r.f64()?;
    if !v.is_finite() || !good(v) {
        return Err(r.invalid(format!("{v} is out of range")));
    }
    Ok(v)
}
