//! One pipeline over the files: its verdicts, small enough to keep all of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use avouch_engine::lane::Counters;
use avouch_engine::spec::DecideSpec;
use avouch_engine::verdict::{Severity, VerdictRecord, class};
use indicatif::ProgressBar;

use super::BacktestError;
use crate::history::{History, HistoryOptions};
use crate::lang::{self, Diagnostics, Models, Pipeline, hex};

/// A verdict as the report needs it.
#[derive(Debug)]
pub(in crate::commands) struct Judged {
    /// Index in [`Side::steps`].
    pub step: u16,
    /// Index in [`Side::devices`].
    pub device: u32,
    pub window_start: i64,
    pub window_end: i64,
    pub severity: Severity,
    /// Whether there was no score, because a feature was null or not finite.
    pub unscored: bool,
    pub score: f64,
    pub p_value: f64,
    /// What the model saw, where it is kept.
    pub features: Box<[Part]>,
}

impl Judged {
    /// A warning or worse.
    pub fn alarm(&self) -> bool {
        self.severity >= Severity::Warning
    }
}

/// One feature's part in a verdict.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) struct Part {
    /// Index in [`Side::features`].
    pub name: u32,
    pub value: f64,
    pub contribution: f64,
}

/// A model step.
#[derive(Debug)]
pub(in crate::commands) struct Step {
    pub name: String,
    pub model: String,
    pub decide: DecideSpec,
    /// The greatest length of its windows, milliseconds.
    pub window_ms: i64,
}

/// What a pipeline gave.
#[derive(Debug)]
pub(in crate::commands) struct Side {
    pub name: String,
    pub config_hash: String,
    /// By name.
    pub steps: Vec<Step>,
    /// By name; those that verdicts are about.
    pub devices: Vec<String>,
    /// Those of whom a dead letter is, whether or not there are verdicts.
    pub of_the_dead: BTreeSet<String>,
    pub features: Vec<Arc<str>>,
    /// By step, device and time.
    pub verdicts: Vec<Judged>,
    pub counters: Counters,
}

/// The models of a pipeline; warnings go to standard error.
pub(in crate::commands) fn models(pipeline: &Pipeline, colour: bool) -> Result<Models, BacktestError> {
    let (models, warnings) = lang::load_models(pipeline).map_err(|d| BacktestError::Pipeline(d.render_text(colour)))?;
    eprint!("{}", warnings.render_text(colour));
    Ok(models)
}

/// Numbers for names, in the order in which they first come.
#[derive(Default)]
struct Names {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

impl Names {
    fn number(&mut self, name: &str) -> u32 {
        if let Some(n) = self.numbers.get(name) {
            return *n;
        }
        let (n, name) = (self.names.len() as u32, Arc::<str>::from(name));
        self.names.push(name.clone());
        self.numbers.insert(name, n);
        n
    }
}

impl Side {
    pub fn run(
        pipeline: &Pipeline,
        models: &Models,
        options: HistoryOptions,
        keep_features: bool,
        colour: bool,
        bar: &ProgressBar,
    ) -> Result<Self, BacktestError> {
        let text = |d: Diagnostics| BacktestError::Pipeline(d.render_text(colour));
        let plan = lang::plan(pipeline, models).map_err(text)?;
        let mut history = History::open(plan, options)?;
        bar.reset();
        bar.set_length(history.progress().1);
        let steps = steps(pipeline, models);
        let (mut devices, mut features) = (Names::default(), Names::default());
        let mut of_the_dead = BTreeSet::new();
        let mut verdicts = Vec::new();
        while let Some(piece) = history.next()? {
            for record in piece.output.verdicts {
                let Some(step) = steps.iter().position(|s| s.name == *record.evidence.step) else { continue };
                let device = devices.number(&record.evidence.device);
                let features = if keep_features { parts(&record, &mut features) } else { Box::default() };
                verdicts.push(judged(&record, step as u16, device, features));
            }
            for letter in &piece.output.dead {
                if let Some(name) = letter.key.as_deref().and_then(|k| std::str::from_utf8(k).ok())
                    && !of_the_dead.contains(name)
                {
                    of_the_dead.insert(name.to_owned());
                }
            }
            bar.set_position(history.progress().0);
        }
        // Numbers in the order of names, so that verdicts sort by device.
        let mut order: Vec<u32> = (0..devices.names.len() as u32).collect();
        order.sort_by(|a, b| devices.names[*a as usize].cmp(&devices.names[*b as usize]));
        let mut place = vec![0_u32; order.len()];
        for (new, old) in (0..).zip(&order) {
            place[*old as usize] = new;
        }
        verdicts.iter_mut().for_each(|v| v.device = place[v.device as usize]);
        verdicts.sort_by_key(|v| (v.step, v.device, v.window_end, v.window_start));
        Ok(Self {
            name: pipeline.name.value.clone(),
            config_hash: hex(&pipeline.config_hash()),
            steps,
            devices: order.iter().map(|old| devices.names[*old as usize].to_string()).collect(),
            of_the_dead,
            features: features.names,
            verdicts,
            counters: history.counters(),
        })
    }

    pub fn step(&self, v: &Judged) -> &Step {
        &self.steps[v.step as usize]
    }

    pub fn device(&self, v: &Judged) -> &str {
        &self.devices[v.device as usize]
    }

    /// The number of a device that verdicts are about.
    pub fn device_number(&self, name: &str) -> Option<u32> {
        self.devices.binary_search_by(|d| d.as_str().cmp(name)).ok().map(|n| n as u32)
    }

    /// The verdicts of a step about a device, by time.
    pub fn of(&self, step: u16, device: u32) -> &[Judged] {
        let from = self.verdicts.partition_point(|v| (v.step, v.device) < (step, device));
        let to = self.verdicts.partition_point(|v| (v.step, v.device) <= (step, device));
        &self.verdicts[from..to]
    }

    /// First instant judged, and the first after the last one.
    pub fn span(&self) -> Option<(i64, i64)> {
        let first = self.verdicts.iter().map(|v| v.window_start).min()?;
        Some((first, self.verdicts.iter().map(|v| v.window_end).max()?))
    }
}

fn steps(pipeline: &Pipeline, models: &Models) -> Vec<Step> {
    pipeline
        .model_steps
        .iter()
        .map(|s| Step {
            name: s.name.value.clone(),
            model: models.get(&s.name.value).map(|m| hex(&m.hash())).unwrap_or_default(),
            decide: pipeline.thresholds(s),
            window_ms: pipeline
                .sql_step(&s.from.value)
                .and_then(|from| from.window.as_ref())
                .map_or(0, |w| w.value.size_ms()),
        })
        .collect()
}

fn parts(record: &VerdictRecord, names: &mut Names) -> Box<[Part]> {
    let features = record.evidence.features.iter();
    features.map(|f| Part { name: names.number(&f.name), value: f.value, contribution: f.contribution }).collect()
}

fn judged(record: &VerdictRecord, step: u16, device: u32, features: Box<[Part]>) -> Judged {
    let v = &record.verdict;
    Judged {
        step,
        device,
        window_start: v.window_start as i64,
        window_end: v.window_end as i64,
        // The lane gives no other codes.
        severity: Severity::from_code(v.severity).unwrap_or(Severity::Critical),
        unscored: v.class == class::NOT_A_NUMBER,
        score: record.evidence.score,
        p_value: record.evidence.p_value,
        features,
    }
}
