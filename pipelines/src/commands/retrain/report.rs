//! The report of a proposal, as JSON and as Markdown.

use std::fmt::Write as _;
use std::path::Path;

use avouch_engine::verdict::Severity;
use avouch_models::ModelCard;
use avouch_models::frame::FeatureProfile;
use serde::Serialize;

use crate::commands::backtest::alarms::{Episode, covered_ms};
use crate::commands::backtest::differences::{Comparison, Difference};
use crate::commands::backtest::figures::{count, number, percent, round, show, time};
use crate::commands::backtest::judged::Side;

use super::known::Labels;

const WEEK_MS: f64 = 604_800_000.0;

/// So many differences stand in the Markdown; the others are in differences.ndjson.
const LISTED: usize = 10;

/// What a report is made of.
pub(super) struct Parts {
    pub entry: String,
    pub step: String,
    pub data: Vec<String>,
    pub since: Option<String>,
    pub running: ModelFacts,
    pub candidate: ModelFacts,
    pub pinned: bool,
    pub older_rows: String,
    pub features: Vec<FeatureShift>,
    pub held_back: Option<(i64, i64)>,
    pub labels: Option<Labels>,
    /// Of the model that runs, and of the candidate.
    pub verdicts: (Verdicts, Verdicts),
    pub comparison: Comparison,
}

/// report.json. "Here" in the comparison is the candidate, "there" the model that runs.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    format: &'static str,
    entry: String,
    step: String,
    data: Vec<String>,
    since: Option<String>,
    running: ModelFacts,
    candidate: ModelFacts,
    /// What the features of the candidate's rows are held against.
    older_rows: String,
    features: Vec<FeatureShift>,
    held_back: Option<HeldBack>,
    /// What people said, if they said anything of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Labels>,
    verdicts: Both,
    comparison: Comparison,
    /// What to do to activate the candidate, in order.
    activate: Vec<String>,
}

/// A model file and its card.
#[derive(Debug, Serialize)]
pub(super) struct ModelFacts {
    file: String,
    sha256: String,
    card: ModelCard,
}

impl ModelFacts {
    pub fn new(file: &Path, sha256: String, card: ModelCard) -> Self {
        // As it would be typed.
        let file = file.strip_prefix(".").unwrap_or(file);
        Self { file: file.display().to_string(), sha256, card }
    }
}

/// A feature in the older training rows and in the newer ones.
#[derive(Debug, Serialize)]
pub(super) struct FeatureShift {
    feature: String,
    older: Option<FeatureProfile>,
    newer: Option<FeatureProfile>,
    /// How far the mean moved, in deviations of the older rows.
    moved: Option<f64>,
    /// Population stability index in ten quantile bins of the older rows.
    psi: Option<f64>,
}

impl FeatureShift {
    pub fn new(name: &str, older: Option<FeatureProfile>, newer: Option<FeatureProfile>, psi: Option<f64>) -> Self {
        let moved = match (&older, &newer) {
            (Some(a), Some(b)) if a.deviation > 0.0 => round((b.mean - a.mean) / a.deviation),
            _ => None,
        };
        Self { feature: name.to_owned(), older, newer, moved, psi: psi.and_then(round) }
    }

    /// The customary words.
    fn words(&self) -> &'static str {
        match self.psi {
            None => "–",
            Some(psi) if psi < 0.1 => "stable",
            Some(psi) if psi < 0.25 => "shifted",
            Some(_) => "another population",
        }
    }
}

/// The windows that are compared.
#[derive(Debug, Serialize)]
struct HeldBack {
    first: String,
    last: String,
}

/// What one model says of them.
#[derive(Debug, Serialize)]
pub(super) struct Verdicts {
    normal: u64,
    warning: u64,
    critical: u64,
    not_a_number: u64,
    episodes: u64,
    #[serde(serialize_with = "number")]
    alarms_per_device_week: f64,
    #[serde(serialize_with = "number")]
    share_of_alarms: f64,
}

impl Verdicts {
    pub fn of(side: &Side, episodes: &[Episode]) -> Self {
        let of = |s: Severity| side.verdicts.iter().filter(|v| v.severity == s).count() as u64;
        let (normal, warning, critical) = (of(Severity::Normal), of(Severity::Warning), of(Severity::Critical));
        let alarms = (warning + critical) as f64;
        Self {
            normal,
            warning,
            critical,
            not_a_number: side.verdicts.iter().filter(|v| v.unscored).count() as u64,
            episodes: episodes.len() as u64,
            alarms_per_device_week: alarms / (covered_ms(side) as f64 / WEEK_MS),
            share_of_alarms: alarms / side.verdicts.len() as f64,
        }
    }
}

/// Of both models.
#[derive(Debug, Serialize)]
struct Both {
    running: Verdicts,
    candidate: Verdicts,
}

impl Report {
    pub fn new(parts: Parts) -> Self {
        let (running, candidate) = (&parts.running.file, &parts.candidate);
        let mut activate = vec![
            "Read this report. If machines changed because something is wrong with them, mend them and do not activate: the \
             candidate would call the fault normal."
                .to_owned(),
            format!("Put the candidate in the model's place: `cp {} {running}`", candidate.file),
            format!(
                "{} in the pipeline file: `sha256 = \"{}\"` in `model` of [steps.{}]",
                if parts.pinned { "Replace the pinned hash" } else { "Pin its hash" },
                candidate.sha256,
                parts.step
            ),
        ];
        activate.push(format!(
            "Where the hashes of models are registered on chain, register this one: 0x{}",
            candidate.sha256
        ));
        activate.push(
            "Check with `avouch check` and `avouch test`, then reload: SIGHUP to `avouch run`, or start it anew"
                .to_owned(),
        );
        Self {
            format: "avouch-retrain/1",
            entry: parts.entry,
            step: parts.step,
            data: parts.data,
            since: parts.since,
            running: parts.running,
            candidate: parts.candidate,
            older_rows: parts.older_rows,
            features: parts.features,
            held_back: parts.held_back.map(|(first, last)| HeldBack { first: time(first), last: time(last) }),
            labels: parts.labels,
            verdicts: Both { running: parts.verdicts.0, candidate: parts.verdicts.1 },
            comparison: parts.comparison,
            activate,
        }
    }

    /// report.json.
    pub fn json(&self) -> String {
        // Text keys and plain values: it cannot fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// report.md.
    pub fn markdown(&self) -> String {
        let mut s = String::new();
        // Writing into a String cannot fail.
        let _ = self.write(&mut s);
        s
    }

    fn write(&self, s: &mut String) -> std::fmt::Result {
        let c = &self.comparison;
        writeln!(s, "# A candidate for the model of step {}\n", self.step)?;
        writeln!(s, "Trained by [train.{}] on {}{}. Nothing has been activated.\n", self.entry, code(&self.data), {
            self.since.as_ref().map_or(String::new(), |t| format!(", windows that end after {t}"))
        })?;
        self.write_cards(s)?;
        self.write_features(s)?;
        if let Some(labels) = &self.labels {
            write_labels(s, labels)?;
        }

        let held = self.held_back.as_ref().map_or("no window".to_owned(), |h| format!("{} to {} UTC", h.first, h.last));
        writeln!(s, "## Verdicts on windows that the candidate was not fitted on\n")?;
        let without = if self.labels.is_some() { ", without windows that were said to be faults" } else { "" };
        writeln!(s, "{held}{without}; both models judged them in the engine, with the pipeline's thresholds.\n")?;
        writeln!(s, "| | running | candidate |\n| --- | ---: | ---: |")?;
        let (a, b) = (&self.verdicts.running, &self.verdicts.candidate);
        let mut row = |name: &str, of: fn(&Verdicts) -> String| writeln!(s, "| {name} | {} | {} |", of(a), of(b));
        row("normal", |v| count(v.normal))?;
        row("warning", |v| count(v.warning))?;
        row("critical", |v| count(v.critical))?;
        row("of the normal ones, without a score", |v| count(v.not_a_number))?;
        row("share of alarms", |v| percent(v.share_of_alarms))?;
        row("alarms per device-week", |v| show(v.alarms_per_device_week))?;
        row("episodes", |v| count(v.episodes))?;

        writeln!(
            s,
            "\n{} of {} windows have the same severity; {} differ.\n",
            count(c.agreed()),
            count(c.matched()),
            count(c.differences())
        )?;
        if !c.first.is_empty() {
            writeln!(s, "| device | window end | running | candidate | features whose contributions differ most |")?;
            writeln!(s, "| --- | --- | --- | --- | --- |")?;
            for d in c.first.iter().take(LISTED) {
                write_difference(s, d)?;
            }
            let more = c.differences().saturating_sub(c.first.len().min(LISTED) as u64);
            if more > 0 {
                writeln!(s, "\n{} more are in `{}.differences.ndjson`.", count(more), self.candidate.file)?;
            }
            writeln!(s)?;
        }

        writeln!(s, "## To activate it\n")?;
        for (i, step) in (1..).zip(&self.activate) {
            writeln!(s, "{i}. {step}")?;
        }
        Ok(())
    }

    fn write_cards(&self, s: &mut String) -> std::fmt::Result {
        writeln!(s, "## The cards\n\n| | running | candidate |\n| --- | --- | --- |")?;
        let (a, b) = (&self.running, &self.candidate);
        let mut row = |name: &str, of: fn(&ModelFacts) -> String| writeln!(s, "| {name} | {} | {} |", of(a), of(b));
        row("file", |m| format!("`{}`", m.file))?;
        row("SHA-256", |m| format!("`{}`", m.sha256))?;
        row("created", |m| m.card.created.clone())?;
        row("algorithm", |m| format!("`{}`", serde_json::to_string(&m.card.algorithm).unwrap_or_default()))?;
        row("training data", |m| format!("`{}`", m.card.training.data))?;
        row("window ends", |m| {
            format!("{} to {} UTC", time(m.card.training.first_window_end), time(m.card.training.last_window_end))
        })?;
        row("rows, devices", |m| format!("{}, {}", count(m.card.training.rows), count(m.card.training.devices)))?;
        row("rows dropped", |m| count(m.card.training.rows_dropped))?;
        // Near 0.05 where the rows are stable: what a calibration on the earlier held-back rows calls of the later ones.
        row("later held-back rows called at 0.05 by the earlier", |m| {
            let all = m.card.calibration.iter().map(|c| c.second_half_at_5_percent.map_or("–".to_owned(), percent));
            all.collect::<Vec<_>>().join(", ")
        })?;
        row("smallest p-value", |m| {
            let all = m.card.calibration.iter().map(|c| show(c.smallest_p_value));
            all.collect::<Vec<_>>().join(", ")
        })?;
        writeln!(s)
    }

    fn write_features(&self, s: &mut String) -> std::fmt::Result {
        writeln!(s, "## Drift of the features\n")?;
        writeln!(
            s,
            "From the older training rows to those of the candidate. The population stability index is over ten quantile \
             bins of the older rows: {}.\n",
            self.older_rows
        )?;
        writeln!(s, "| feature | mean then | mean now | moved, in deviations | PSI | |")?;
        writeln!(s, "| --- | ---: | ---: | ---: | ---: | --- |")?;
        for f in &self.features {
            let mean = |p: &Option<FeatureProfile>| p.as_ref().map_or("–".to_owned(), |p| show(p.mean));
            let figure = |v: Option<f64>| v.map_or("–".to_owned(), show);
            writeln!(
                s,
                "| `{}` | {} | {} | {} | {} | {} |",
                f.feature,
                mean(&f.older),
                mean(&f.newer),
                figure(f.moved),
                figure(f.psi),
                f.words()
            )?;
        }
        writeln!(s)
    }
}

fn write_labels(s: &mut String, l: &Labels) -> std::fmt::Result {
    writeln!(s, "## What people said\n")?;
    let kinds = l.kinds().into_iter().filter(|(_, n)| *n > 0);
    let kinds: Vec<String> = kinds.map(|(o, n)| format!("{} {}", count(n), o.name())).collect();
    write!(s, "{} of the step in the logs ({}). ", plural(l.of_the_step, "label"), kinds.join(", "))?;
    match l.decided {
        true => writeln!(
            s,
            "By them, {} that were said to be faults were not trained on, and {} that would have been left out were trained on \
             as healthy.\n",
            plural(l.left_out, "window"),
            plural(l.taken_in, "window")
        )?,
        false => writeln!(s, "The model learns from failures of its own, so they decided nothing of its rows.\n")?,
    }
    writeln!(s, "| | running | candidate |\n| --- | ---: | ---: |")?;
    let (a, b) = (&l.running, &l.candidate);
    let of = |part: u64, all: u64| format!("{} of {}", count(part), count(all));
    writeln!(
        s,
        "| known faults that it calls | {} | {} |",
        of(a.faults_called, a.faults),
        of(b.faults_called, b.faults)
    )?;
    writeln!(
        s,
        "| windows said to be healthy that it calls, of those the candidate was not fitted on | {} | {} |\n",
        of(a.healthy_called, a.healthy_windows),
        of(b.healthy_called, b.healthy_windows)
    )
}

fn plural(n: u64, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

fn write_difference(s: &mut String, d: &Difference) -> std::fmt::Result {
    let opinion = |o: &Option<crate::commands::backtest::differences::Opinion>| {
        o.as_ref().map_or("not judged".to_owned(), |o| format!("{}, p = {}", o.severity.name(), show(o.p_value)))
    };
    let features: Vec<String> = d
        .features
        .iter()
        .map(|f| {
            let part = |v: Option<f64>| v.map_or("–".to_owned(), show);
            format!("`{}` {} → {}", f.name, part(f.contribution_there), part(f.contribution_here))
        })
        .collect();
    writeln!(
        s,
        "| `{}` | {} | {} | {} | {} |",
        d.device,
        time(d.window_end),
        opinion(&d.there),
        opinion(&d.here),
        features.join(", ")
    )
}

fn code(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}
