//! Learning what is usual, and the model file of it.

use super::config::{Role, SensorHealthConfig};
use super::{Check, End, INTERVAL_LIMIT, SPREAD_LIMIT, few, file, off};
use crate::ModelError;
use crate::calibrate::Calibration;
use crate::card::{CalibrationCard, Fitted};
use crate::frame::{Rows, TrainingFrame};
use crate::train::Parts;

/// Rows it takes to tell what is usual.
const MIN_ROWS: usize = 30;

/// In so many windows the extreme reading of all must stand, to be an end of the range.
const REPEATS: usize = 3;

pub(crate) fn train(
    frame: &TrainingFrame,
    config: &SensorHealthConfig,
    fit: &Rows,
    held_back: &Rows,
) -> Result<Parts, ModelError> {
    let features = frame.features();
    let roles = config.roles(features)?;
    if fit.device.len() < MIN_ROWS {
        return Err(ModelError::Rows(format!(
            "{} windows are too few to tell what is usual, it takes {MIN_ROWS}; give more data or hold less of it back",
            fit.device.len()
        )));
    }
    let columns: Vec<Vec<f64>> = fit.values.columns().into_iter().map(|c| c.to_vec()).collect();
    let checks = roles
        .iter()
        .enumerate()
        .map(|(j, role)| check(config, &features[j], *role, &roles, &columns, j))
        .collect::<Result<Vec<_>, _>>()?;

    let mut contributions = vec![0.0; features.len()];
    let (mut scores, mut halves, mut found) = (Vec::new(), (Vec::new(), Vec::new()), 0usize);
    let mut count = vec![0usize; frame.devices().len()];
    held_back.device.iter().for_each(|d| count[*d] += 1);
    let mut seen = vec![0usize; count.len()];
    for (row, &d) in held_back.values.outer_iter().zip(&held_back.device) {
        let (score, finding) = off(&checks, config.level, &row.to_vec(), &mut contributions);
        scores.push(score);
        let half = if seen[d] < count[d] / 2 { &mut halves.0 } else { &mut halves.1 };
        half.push(score);
        seen[d] += 1;
        found += usize::from(finding.is_some());
    }
    let calibration = Calibration::of(&scores)?;
    let typical: Vec<f64> = columns.iter().map(|c| ranked(c, c.len().saturating_sub(1) / 2)).collect();
    let mut fitted: Vec<Fitted> = features.iter().zip(&checks).map(|(f, c)| fact(f, c, config.level)).collect();
    fitted.push(Fitted {
        name: "share of held-back windows with a finding".to_owned(),
        value: vec![found as f64 / scores.len() as f64],
    });
    Ok(Parts {
        model: "Limits of what readings usually do: their number in a window (Chernoff's bound of the binomial tail), the time \
                between them, how much a sensor's readings differ and where its range ends, learnt from healthy windows; \
                split-conformal p-values.",
        fitted,
        calibration: vec![CalibrationCard::of("all devices", &calibration, &scores, (&halves.0, &halves.1))],
        body: file::encode(features, &typical, &checks, config.level, &calibration),
    })
}

/// The value with so many smaller ones.
fn ranked(column: &[f64], rank: usize) -> f64 {
    let mut sorted = column.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(rank).copied().unwrap_or(0.0)
}

fn check(
    config: &SensorHealthConfig,
    feature: &str,
    role: Role,
    roles: &[Role],
    columns: &[Vec<f64>],
    j: usize,
) -> Result<Check, ModelError> {
    let column = &columns[j];
    // So many may be further off.
    let aside = (config.level * column.len() as f64) as usize;
    let most = || {
        let most = ranked(column, column.len() - 1 - aside);
        match most > 0.0 {
            true => Ok(most),
            false => Err(ModelError::Rows(format!("feature `{feature}` is never above 0 in the rows fitted on"))),
        }
    };
    Ok(match role {
        Role::Readings => {
            if column.iter().any(|v| *v < 0.0) {
                return Err(ModelError::Rows(format!("feature `{feature}` is negative, so it counts no readings")));
            }
            let (full, n) = (most()?, column.len() as f64);
            let mean = column.iter().sum::<f64>() / n;
            let share = ((column.iter().map(|v| v.min(full)).sum::<f64>() + 1.0) / (full * n + 2.0)).min(1.0 - 1e-9);
            let variance = column.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
            Check::Readings { full, share, dispersion: (variance / (full * share * (1.0 - share))).max(1.0) }
        }
        Role::IntervalMax => Check::IntervalMax { most: most()? },
        Role::IntervalSpread => Check::IntervalSpread { most: most()? },
        Role::Spread => Check::Spread { least: Some(ranked(column, aside)).filter(|v| *v > 0.0) },
        Role::Low(i) => {
            let high = place(roles, Role::High(i));
            let end = end(config, config.range.get(i).map(|r| r[0]), column, &columns[high], |a, b| a <= b);
            Check::Low { high, end }
        }
        Role::High(i) => {
            let low = place(roles, Role::Low(i));
            let end = end(config, config.range.get(i).map(|r| r[1]), column, &columns[low], |a, b| a >= b);
            Check::High { low, end }
        }
    })
}

/// Where a role is; lows and highs come in pairs.
fn place(roles: &[Role], role: Role) -> usize {
    roles.iter().position(|r| *r == role).unwrap_or(0)
}

/// The end of a range on the side of `near`, which is the reading closest to it in each window; `far` is the one
/// furthest from it. `beyond` is what being there means. None where healthy windows sit there.
fn end(
    config: &SensorHealthConfig,
    given: Option<f64>,
    near: &[f64],
    far: &[f64],
    beyond: impl Fn(f64, f64) -> bool,
) -> Option<End> {
    let aside = config.level * near.len() as f64;
    let count = |column: &[f64], at: f64| column.iter().filter(|v| beyond(**v, at)).count();
    let learnt = || {
        let extreme = near.iter().copied().reduce(|a, b| if beyond(a, b) { a } else { b })?;
        (count(near, extreme) >= REPEATS).then_some(extreme)
    };
    let at = given.or_else(learnt)?;
    let sits = count(far, at) as f64;
    let touching = given.is_some() && count(near, at) as f64 <= aside;
    (sits <= aside).then_some(End { at, touching })
}

/// What the card says of a feature.
fn fact(feature: &str, check: &Check, level: f64) -> Fitted {
    let of = |what: &str, value: Vec<f64>| Fitted { name: format!("`{feature}`: {what}"), value };
    match *check {
        Check::Readings { full, share, dispersion } => {
            let gap = |n: &f64| few(*n, full, share) / dispersion >= -libm::log(level);
            // Counts are whole; the largest that is a gap, by halving.
            let (mut low, mut high) = (-1.0, full.floor());
            while high - low > 1.0 {
                let middle = ((low + high) / 2.0).floor();
                if gap(&middle) { low = middle } else { high = middle }
            }
            of(
                "readings of a full window, share that comes, and up to how many are a gap (−1: none)",
                vec![full, share, low],
            )
        }
        Check::IntervalMax { most } => {
            of("longest interval, and beyond which it is a gap", vec![most, INTERVAL_LIMIT * most])
        }
        Check::IntervalSpread { most } => {
            of("largest spread of intervals, and beyond which it is irregular", vec![most, INTERVAL_LIMIT * most])
        }
        Check::Spread { least: Some(least) } => {
            of("least spread, and up to which the sensor is stuck", vec![least, least / SPREAD_LIMIT])
        }
        Check::Spread { least: None } => of("healthy windows stand still, so a stuck sensor is not told", Vec::new()),
        Check::Low { end, .. } | Check::High { end, .. } => match end {
            Some(e) => of("end of the range", vec![e.at]),
            None => of("no end of the range is known, or healthy windows sit there", Vec::new()),
        },
    }
}
