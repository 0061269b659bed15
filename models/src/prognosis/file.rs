//! The body of a prognosis's model file.

use std::sync::Arc;

use avouch_engine::codec::{CodecError, Reader, Writer};
use avouch_engine::verdict::Hash32;

use super::interval::Intervals;
use super::parts::Parts;
use super::platt::Platt;
use super::scorer::{Answer, Core, Input, Prognosis};
use crate::label::UNITS;
use crate::linear::finite;
use crate::recipe::Recipe;

pub(super) fn encode(core: &Core) -> Vec<u8> {
    let mut w = Writer::new();
    w.u32(core.features.len() as u32);
    for f in &core.features {
        w.str(f);
    }
    match &core.input {
        Input::Plain(mean) => {
            w.u8(0);
            for m in mean {
                w.f64(*m);
            }
        }
        Input::Made(recipe) => {
            w.u8(1);
            recipe.write(&mut w);
        }
    }
    core.parts.write(&mut w);
    match &core.answer {
        Answer::Estimate { unit, limits, intervals } => {
            w.u8(0);
            w.str(unit);
            w.f64(limits.0);
            w.f64(limits.1);
            intervals.write(&mut w);
        }
        Answer::Probability(platt) => {
            w.u8(1);
            platt.write(&mut w);
        }
    }
    w.bytes
}

/// Reads a body that [`encode`] wrote.
pub(crate) fn decode(body: &[u8], hash: Hash32) -> Result<Prognosis, CodecError> {
    let mut r = Reader::new("prognosis", body);
    let n = r.count(4)?;
    let mut features: Vec<String> = Vec::with_capacity(n);
    for _ in 0..n {
        let name = r.str()?.to_owned();
        if features.contains(&name) {
            return Err(r.invalid(format!("feature `{name}` is listed twice")));
        }
        features.push(name);
    }
    if features.is_empty() {
        return Err(r.invalid("there are no features"));
    }
    let input = match r.u8()? {
        0 => Input::Plain(finite(&mut r, n)?),
        1 => Input::Made(Box::new(Recipe::read(&mut r, n)?)),
        other => return Err(r.invalid(format!("inputs of kind {other}"))),
    };
    let parts = Parts::read(&mut r, input.width())?;
    let answer = match r.u8()? {
        0 => {
            let unit = r.str()?.to_owned();
            let limits = finite(&mut r, 2)?;
            if !UNITS.iter().any(|(u, _)| *u == unit) || limits[0] > limits[1] {
                return Err(r.invalid(format!("estimates from {} to {} {unit}", limits[0], limits[1])));
            }
            Answer::Estimate { unit, limits: (limits[0], limits[1]), intervals: Intervals::read(&mut r)? }
        }
        1 => Answer::Probability(Platt::read(&mut r)?),
        other => return Err(r.invalid(format!("answers of kind {other}"))),
    };
    r.finish()?;
    Ok(Prognosis { hash, core: Arc::new(Core::new(features, input, parts, answer)) })
}
