//! From a closed window to verdicts: features, scores, severities and evidence.

use arrow::array::{Array, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::{Lane, LaneError, Switch, step_error};
use crate::plan::ScoreStep;
use crate::spec::DecideSpec;
use crate::sql::Selection;
use crate::verdict::{Evidence, FeatureEvidence, ReferenceVersion, Severity, Verdict, VerdictRecord, class, score_e6};
use crate::window::FiredWindow;

impl Lane {
    /// The versions that rows from `first` to `last` were joined with, for the windowed step `step`.
    pub(super) fn versions(&self, step: usize, first: i64, last: i64) -> Vec<ReferenceVersion> {
        let mut out = Vec::new();
        if self.plan.windows[step].references.is_empty() {
            return out;
        }
        // In the order of their places.
        let of = |from: i64| self.switches.partition_point(|s| s.after_offset < from);
        let (before, rest) = self.switches.split_at(of(first));
        let within = &rest[..of(last).saturating_sub(before.len())];
        for &reference in &self.plan.windows[step].references {
            let own = |s: &&Switch| s.reference as usize == reference;
            out.extend(before.iter().rfind(own).into_iter().chain(within.iter().filter(own)).map(|s| {
                ReferenceVersion { name: self.plan.references[reference].spec().name.clone(), version: s.version }
            }));
        }
        out
    }

    pub(super) fn features(&self, step: usize, window: &FiredWindow) -> Result<Selection, LaneError> {
        let step = &self.plan.windows[step];
        step.query.features(window, &self.devices).map_err(|e| step_error(&step.name, &e))
    }

    pub(super) fn judge(
        &mut self,
        step: usize,
        window: &FiredWindow,
        out: &mut Vec<VerdictRecord>,
    ) -> Result<(), LaneError> {
        let plan = self.plan.clone();
        if plan.scores.iter().all(|s| s.input != step) {
            return Ok(());
        }
        let features = self.features(step, window)?;
        for score in plan.scores.iter().filter(|s| s.input == step) {
            let columns = columns(score, &features)?;
            let n = columns.len();
            let (mut x, mut expected, mut parts) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            for (k, &row) in features.rows.iter().enumerate() {
                for (x, c) in x.iter_mut().zip(&columns) {
                    *x = if c.is_null(k) { f64::NAN } else { c.value(k) };
                }
                let fired = &window.devices[row as usize];
                let name = self.devices.name(fired.device);
                let s = score.model.score(name, &x, &mut expected, &mut parts);
                let (class, severity) = decide(&score.decide, s.value, s.p_value);
                let evidence = Evidence {
                    device: name.to_owned(),
                    step: score.name.clone(),
                    topic: plan.source.topic.clone(),
                    partition: self.partition,
                    first_offset: fired.first_offset,
                    last_offset: fired.last_offset,
                    rows: fired.rows,
                    references: self.versions(step, fired.first_offset, fired.last_offset),
                    score: s.value,
                    p_value: s.p_value,
                    features: score
                        .model
                        .features()
                        .iter()
                        .enumerate()
                        .map(|(i, name)| FeatureEvidence {
                            name: name.clone(),
                            value: x[i],
                            expected: expected[i],
                            contribution: parts[i],
                        })
                        .collect(),
                };
                let index = self.next_index;
                self.next_index += 1;
                out.push(VerdictRecord {
                    index,
                    verdict: Verdict {
                        device_id: *self.devices.id(fired.device),
                        seq: self.devices.take_seq(fired.device),
                        // Admitted times are not negative, so a window can begin before 1970 only by its alignment.
                        window_start: fired.start.max(0) as u64,
                        window_end: fired.end.max(0) as u64,
                        model_hash: score.model.hash(),
                        config_hash: plan.config_hash,
                        input_digest: fired.digest,
                        score_e6: score_e6(s.value),
                        severity: severity.code(),
                        class,
                        evidence_hash: evidence.hash(),
                        salt: self.secret.salt(&self.log_id, index),
                    },
                    evidence,
                });
            }
        }
        Ok(())
    }
}

pub(super) fn columns(score: &ScoreStep, features: &Selection) -> Result<Vec<Float64Array>, LaneError> {
    let fail = |message: String| LaneError::Step { step: score.name.clone(), message };
    score
        .columns
        .iter()
        .map(|&c| {
            let as_f64 = cast(features.batch.column(c), &DataType::Float64).map_err(|e| fail(e.to_string()))?;
            match as_f64.as_any().downcast_ref::<Float64Array>() {
                Some(a) => Ok(a.clone()),
                None => Err(fail("a feature is not a number".into())),
            }
        })
        .collect()
}

pub(super) fn decide(spec: &DecideSpec, score: f64, p: f64) -> (u16, Severity) {
    if score.is_nan() || p.is_nan() {
        return (class::NOT_A_NUMBER, Severity::Normal);
    }
    if spec.critical.is_some_and(|t| p <= t) {
        return (class::ANOMALY, Severity::Critical);
    }
    if spec.warning.is_some_and(|t| p <= t) {
        return (class::ANOMALY, Severity::Warning);
    }
    (class::NORMAL, Severity::Normal)
}
