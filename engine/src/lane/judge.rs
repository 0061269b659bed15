//! From a closed window to verdicts: features, scores, severities and evidence.

use std::sync::Arc;

use arrow::array::{Array, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::online::Memories;
use super::{Lane, LaneError, Switch, step_error};
use crate::model::Memory;
use crate::plan::ScoreStep;
use crate::sha256::Messages;
use crate::sql::Selection;
use crate::verdict::{Evidence, FeatureEvidence, ReferenceVersion, Severity, Verdict, VerdictRecord, score_e6};
use crate::window::{Fired, FiredWindow};

/// Devices of a window that are judged at a time: their hashes are made side by side, and what is made on the way stays
/// in the cache.
const TOGETHER: usize = 256;

impl Lane {
    /// The versions that rows from `first` to `last` were joined with, and their signatures checked with, for the windowed step
    /// `step`.
    fn versions(&self, step: usize, first: i64, last: i64) -> Vec<ReferenceVersion> {
        let mut out = Vec::new();
        let tables = &self.plan.windows[step].references;
        // The keys decide which rows there are, whatever they are joined with.
        let keys = self.identity.as_ref().map(|_| self.plan.references.len());
        if tables.is_empty() && keys.is_none() {
            return out;
        }
        // In the order of their places.
        let of = |from: i64| self.switches.partition_point(|s| s.after_offset < from);
        let (before, rest) = self.switches.split_at(of(first));
        let within = &rest[..of(last).saturating_sub(before.len())];
        let names = self.versioned_names();
        for reference in tables.iter().copied().chain(keys) {
            let own = |s: &&Switch| s.reference as usize == reference;
            let used = before.iter().rfind(own).into_iter().chain(within.iter().filter(own));
            out.extend(used.map(|s| ReferenceVersion { name: names[reference].clone(), version: s.version }));
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
        for (number, score) in plan.scores.iter().enumerate().filter(|(_, s)| s.input == step) {
            let mut judging = Judging::new(self, step, score, &features)?;
            // Out of the lane while it is used; a lane that failed in between is of no use any more.
            let mut online = self.online[number].take();
            let model_hash = score.model.hash();
            out.reserve(features.rows.len());
            for (first, group) in (0..).step_by(TOGETHER).zip(features.rows.chunks(TOGETHER)) {
                let (start, index) = (out.len(), self.next_index);
                let mut messages = Messages::default();
                for (k, &row) in (first..).zip(group) {
                    let fired = &window.devices[row as usize];
                    let Judged { class, severity, mut evidence } = judging.judge(self, k, fired, online.as_mut());
                    if severity > Severity::Normal
                        && let Some(incidents) = &mut self.incidents[number]
                    {
                        let (index, devices) = (self.next_index, &self.devices);
                        evidence.incident = Some(incidents.of(fired.device, devices, index, fired.start, fired.end));
                    }
                    evidence.append(&mut messages.bytes);
                    messages.end();
                    out.push(VerdictRecord {
                        index: self.next_index,
                        verdict: Verdict {
                            device_id: *self.devices.id(fired.device),
                            seq: self.devices.take_seq(fired.device),
                            // Admitted times are not negative, so a window can begin before 1970 only by its alignment.
                            window_start: fired.start.max(0) as u64,
                            window_end: fired.end.max(0) as u64,
                            model_hash,
                            config_hash: plan.config_hash,
                            input_digest: fired.digest,
                            score_e6: score_e6(evidence.score),
                            severity: severity.code(),
                            class,
                            // Both are made for the whole group, below.
                            evidence_hash: [0; 32],
                            salt: [0; 32],
                        },
                        evidence,
                    });
                    self.next_index += 1;
                }
                let salts = self.secret.record_salts(&self.log_id, index, group.len());
                for ((record, hash), salt) in out[start..].iter_mut().zip(messages.digests()).zip(salts) {
                    (record.verdict.evidence_hash, record.verdict.salt) = (hash, salt.salt);
                }
            }
            self.online[number] = online;
        }
        Ok(())
    }
}

/// What a step says of one device's rows in a window.
pub(super) struct Judged {
    pub class: u16,
    pub severity: Severity,
    pub evidence: Evidence,
}

/// Judges the devices of one window, one by one.
pub(super) struct Judging<'a> {
    step: usize,
    score: &'a ScoreStep,
    columns: Vec<Float64Array>,
    x: Vec<f64>,
    expected: Vec<f64>,
    parts: Vec<f64>,
    /// What all evidence has in common.
    name: Arc<str>,
    topic: Arc<str>,
    names: Vec<Arc<str>>,
}

impl<'a> Judging<'a> {
    /// By `score`, on the features of the windowed step `step`.
    pub fn new(lane: &Lane, step: usize, score: &'a ScoreStep, features: &Selection) -> Result<Self, LaneError> {
        let columns = columns(score, features)?;
        let none = vec![0.0; columns.len()];
        Ok(Self {
            step,
            score,
            columns,
            x: none.clone(),
            expected: none.clone(),
            parts: none,
            name: score.name.as_str().into(),
            topic: lane.plan.source.topic.as_str().into(),
            names: score.model.features().iter().map(|f| f.as_str().into()).collect(),
        })
    }

    /// The device whose features are the `k`-th and whose rows are `fired`. Changes nothing but what an online model
    /// remembers.
    pub fn judge(&mut self, lane: &Lane, k: usize, fired: &Fired, online: Option<&mut Memories>) -> Judged {
        let model = self.score.model.as_ref();
        let memory = online.and_then(|m| m.get(fired.device, &lane.devices, model));
        self.judge_by(lane, k, fired, memory)
    }

    /// The same without learning: `memory` is a copy, or none for a device that was not judged yet.
    pub fn judge_early(&mut self, lane: &Lane, k: usize, fired: &Fired, memories: Option<&Memories>) -> Judged {
        let mut copy = memories.and_then(|m| m.copy(fired.device, &lane.devices));
        match &mut copy {
            Some(memory) => self.judge_by(lane, k, fired, Some(&mut **memory)),
            None => self.judge_by(lane, k, fired, None),
        }
    }

    fn judge_by(&mut self, lane: &Lane, k: usize, fired: &Fired, memory: Option<&mut dyn Memory>) -> Judged {
        for (x, c) in self.x.iter_mut().zip(&self.columns) {
            *x = if c.is_null(k) { f64::NAN } else { c.value(k) };
        }
        let device = lane.devices.name(fired.device);
        let s = match memory {
            Some(memory) => memory.score(fired.end, &self.x, &mut self.expected, &mut self.parts),
            None => self.score.model.score(device, &self.x, &mut self.expected, &mut self.parts),
        };
        let (class, severity) = self.score.decide.decide(self.score.model.says(), &s);
        let features = self.names.iter().zip(&self.x).zip(&self.expected).zip(&self.parts);
        let evidence = Evidence {
            device: device.to_owned(),
            step: self.name.clone(),
            topic: self.topic.clone(),
            partition: lane.partition,
            first_offset: fired.first_offset,
            last_offset: fired.last_offset,
            rows: fired.rows,
            references: lane.versions(self.step, fired.first_offset, fired.last_offset),
            score: s.value,
            p_value: s.p_value,
            interval: s.interval,
            // An early result begins no incident.
            incident: None,
            label: None,
            features: features
                .map(|(((name, &value), &expected), &contribution)| FeatureEvidence {
                    name: name.clone(),
                    value,
                    expected,
                    contribution,
                })
                .collect(),
        };
        Judged { class, severity, evidence }
    }
}

fn columns(score: &ScoreStep, features: &Selection) -> Result<Vec<Float64Array>, LaneError> {
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
