//! The report: report.json as it is, and the summary for the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use avouch_engine::dead_letter::DeadReason;
use avouch_engine::decode::format_timestamp;
use avouch_engine::verdict::Severity;
use serde::Serialize;

use super::alarms::{Episode, covered_ms};
use super::differences::Comparison;
use super::figures::{count, number, percent, show, span, time};
use super::judged::Side;
use super::labels::Labels;
use super::truth::Truth;
use crate::lang::shown_threshold;

const WEEK_MS: f64 = 604_800_000.0;

/// So many devices are listed.
const DEVICES: usize = 20;

/// What an alarm is, for whoever reads the figures.
pub(super) const DEFINITIONS: &str = "An alarm is a verdict of severity warning or critical. Alarms of one device and step that follow each other by one window's length at most are one episode. Device-weeks are the time that windows with a verdict cover, summed over devices.";

/// What a report is made of.
pub(super) struct Parts<'a> {
    pub data: &'a [String],
    pub side: &'a Side,
    pub episodes: &'a [Episode],
    pub labels: Option<&'a Labels>,
    pub truth: Option<Truth>,
    pub against: Option<(&'a Side, Comparison)>,
}

/// report.json.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub format: &'static str,
    pub pipeline: PipelineFacts,
    pub data: Vec<String>,
    pub first: Option<String>,
    pub last: Option<String>,
    pub rows: Rows,
    pub verdicts: Vec<StepVerdicts>,
    pub alarms: Alarms,
    pub days: Vec<Day>,
    pub devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truth: Option<Truth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    pub warnings: Vec<String>,
}

/// Which pipeline it was.
#[derive(Debug, Serialize)]
pub(super) struct PipelineFacts {
    pub name: String,
    pub config_hash: String,
    pub steps: Vec<StepFacts>,
}

/// A model step of it.
#[derive(Debug, Serialize)]
pub(super) struct StepFacts {
    pub step: String,
    pub model: String,
    /// When a verdict is a warning, such as `p ≤ 0.01`.
    pub warning: Option<String>,
    /// When it is critical.
    pub critical: Option<String>,
    pub window_ms: i64,
}

/// What became of the rows.
#[derive(Debug, Serialize)]
pub(super) struct Rows {
    pub r#in: u64,
    pub used: u64,
    /// Every reason, also those that no row died of.
    pub dead: BTreeMap<&'static str, u64>,
}

/// Verdicts of a step.
#[derive(Debug, Serialize)]
pub(super) struct StepVerdicts {
    pub step: String,
    pub normal: u64,
    pub warning: u64,
    pub critical: u64,
    /// Among the normal ones: those without a score.
    pub not_a_number: u64,
}

/// Alarms over all steps.
#[derive(Debug, Serialize)]
pub(super) struct Alarms {
    pub definition: &'static str,
    pub alarms: u64,
    pub episodes: u64,
    #[serde(serialize_with = "number")]
    pub device_weeks: f64,
    #[serde(serialize_with = "number")]
    pub alarms_per_device_week: f64,
    #[serde(serialize_with = "number")]
    pub episodes_per_device_week: f64,
}

/// Verdicts whose window ends on a day, UTC.
#[derive(Debug, Serialize)]
pub(super) struct Day {
    pub day: String,
    pub normal: u64,
    pub warning: u64,
    pub critical: u64,
}

/// A device, those with most alarms first.
#[derive(Debug, Serialize)]
pub(super) struct Device {
    pub device: String,
    pub verdicts: u64,
    pub warning: u64,
    pub critical: u64,
    pub episodes: u64,
    pub first_alarm: Option<String>,
    pub longest_episode_ms: Option<i64>,
}

/// The other pipeline.
#[derive(Debug, Serialize)]
pub(super) struct Against {
    pub pipeline: PipelineFacts,
    pub rows: Rows,
    pub verdicts: Vec<StepVerdicts>,
    pub comparison: Comparison,
}

fn facts(side: &Side) -> PipelineFacts {
    let steps = side.steps.iter().map(|s| StepFacts {
        step: s.name.clone(),
        model: s.model.clone(),
        warning: s.decide.warning.map(|t| shown_threshold(&t)),
        critical: s.decide.critical.map(|t| shown_threshold(&t)),
        window_ms: s.window_ms,
    });
    PipelineFacts { name: side.name.clone(), config_hash: side.config_hash.clone(), steps: steps.collect() }
}

fn rows(side: &Side) -> Rows {
    let c = &side.counters;
    let dead = DeadReason::ALL.iter().map(|r| (r.name(), c.dead[r.index()])).collect();
    Rows { r#in: c.rows_in, used: c.rows_used, dead }
}

fn verdicts(side: &Side) -> Vec<StepVerdicts> {
    let mut out: Vec<StepVerdicts> = side
        .steps
        .iter()
        .map(|s| StepVerdicts { step: s.name.clone(), normal: 0, warning: 0, critical: 0, not_a_number: 0 })
        .collect();
    for v in &side.verdicts {
        let of = &mut out[v.step as usize];
        match v.severity {
            Severity::Normal => of.normal += 1,
            Severity::Warning => of.warning += 1,
            Severity::Critical => of.critical += 1,
        }
        of.not_a_number += u64::from(v.unscored);
    }
    out
}

fn days(side: &Side) -> Vec<Day> {
    let mut by_day: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    let (mut number, mut name) = (None, String::new());
    for v in &side.verdicts {
        // The end is not in the window.
        let last = v.window_end - 1;
        if number != Some(last.div_euclid(86_400_000)) {
            number = Some(last.div_euclid(86_400_000));
            name = format_timestamp(last).chars().take(10).collect();
        }
        by_day.entry(name.clone()).or_default()[v.severity as usize] += 1;
    }
    let day = |(day, [normal, warning, critical]): (String, [u64; 3])| Day { day, normal, warning, critical };
    by_day.into_iter().map(day).collect()
}

fn devices(side: &Side, episodes: &[Episode]) -> Vec<Device> {
    let mut all: Vec<Device> = side
        .devices
        .iter()
        .map(|name| Device {
            device: name.clone(),
            verdicts: 0,
            warning: 0,
            critical: 0,
            episodes: 0,
            first_alarm: None,
            longest_episode_ms: None,
        })
        .collect();
    for v in &side.verdicts {
        let device = &mut all[v.device as usize];
        device.verdicts += 1;
        device.warning += u64::from(v.severity == Severity::Warning);
        device.critical += u64::from(v.severity == Severity::Critical);
    }
    for e in episodes {
        let device = &mut all[e.device as usize];
        device.episodes += 1;
        let first = format_timestamp(e.first_ms);
        device.first_alarm = Some(device.first_alarm.take().map_or(first.clone(), |f| f.min(first)));
        device.longest_episode_ms = device.longest_episode_ms.max(Some(e.last_ms - e.first_ms));
    }
    all.retain(|d| d.warning + d.critical > 0);
    // Stable: by name where they have as many.
    all.sort_by_key(|d| std::cmp::Reverse(d.warning + d.critical));
    all.truncate(DEVICES);
    all
}

/// What a reader must know before believing the figures.
fn warnings(parts: &Parts<'_>) -> Vec<String> {
    let side = parts.side;
    let mut out = Vec::new();
    let c = &side.counters;
    if side.verdicts.is_empty() {
        out.push(format!(
            "there is no verdict: {} rows were used, and no window closed; is there enough data, and is it in order of time (--order)?",
            count(c.rows_used)
        ));
    }
    let late = c.dead[DeadReason::Late.index()];
    if late > 0 && late >= c.rows_in / 100 {
        out.push(format!(
            "{} of {} rows are late ({}): if files are not in the order of time, or hold a device each, take --order time or --order sorted",
            count(late),
            count(c.rows_in),
            percent(late as f64 / c.rows_in as f64)
        ));
    }
    let unscored = side.verdicts.iter().filter(|v| v.unscored).count();
    if unscored > 0 {
        out.push(format!(
            "{} verdicts have no score, because a feature was null or not finite; they count as normal",
            count(unscored as u64)
        ));
    }
    if let Some((there, comparison)) = &parts.against {
        let shared = side.steps.iter().any(|a| there.steps.iter().any(|b| a.name == b.name));
        if !shared {
            out.push(
                "the two pipelines have no model step of the same name, so none of their verdicts are matched".into(),
            );
        } else if comparison.matched() == 0 {
            out.push("the two pipelines have no window of the same step, device and end, so none of their verdicts are matched".into());
        }
    }
    out
}

impl Report {
    pub fn new(parts: Parts<'_>) -> Self {
        let side = parts.side;
        let weeks = covered_ms(side) as f64 / WEEK_MS;
        let alarms = side.verdicts.iter().filter(|v| v.alarm()).count() as u64;
        let episodes = parts.episodes.len() as u64;
        Self {
            format: "avouch-backtest/1",
            pipeline: facts(side),
            data: parts.data.to_vec(),
            first: side.span().map(|s| format_timestamp(s.0)),
            last: side.span().map(|s| format_timestamp(s.1)),
            rows: rows(side),
            verdicts: verdicts(side),
            alarms: Alarms {
                definition: DEFINITIONS,
                alarms,
                episodes,
                device_weeks: weeks,
                alarms_per_device_week: alarms as f64 / weeks,
                episodes_per_device_week: episodes as f64 / weeks,
            },
            days: days(side),
            devices: devices(side, parts.episodes),
            labels: parts.labels.map(|l| l.path.display().to_string()),
            warnings: warnings(&parts),
            truth: parts.truth,
            against: parts.against.map(|(there, comparison)| Against {
                pipeline: facts(there),
                rows: rows(there),
                verdicts: verdicts(there),
                comparison,
            }),
        }
    }

    /// report.json.
    pub fn json(&self) -> String {
        // Text keys and plain values: it cannot fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The summary.
    pub fn text(&self, out: &Path) -> String {
        let mut text = String::new();
        let dead: Vec<String> = self.dead().map(|(reason, n)| format!("{reason} {}", count(n))).collect();
        let mut line = |what: &str, value: String| {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{what:<12}  {value}");
        };
        line("pipeline", format!("{} ({})", self.pipeline.name, &self.pipeline.config_hash));
        line(
            "rows",
            format!(
                "{} in, {} used, dead letters: {}",
                count(self.rows.r#in),
                count(self.rows.used),
                if dead.is_empty() { "none".into() } else { dead.join(", ") }
            ),
        );
        for v in &self.verdicts {
            let (n, w, c) = (count(v.normal), count(v.warning), count(v.critical));
            line("verdicts", format!("{}: {n} normal, {w} warning, {c} critical", v.step));
        }
        let a = &self.alarms;
        line(
            "alarms",
            format!(
                "{} in {} episodes; per device-week {} alarms, {} episodes ({} device-weeks)",
                count(a.alarms),
                count(a.episodes),
                show(a.alarms_per_device_week),
                show(a.episodes_per_device_week),
                show(a.device_weeks)
            ),
        );
        match &self.truth {
            None => {}
            Some(Truth::Failures(f)) => {
                let median = f.median_lead_ms.map_or("–".into(), span);
                line(
                    "failures",
                    format!(
                        "{} of {} warned of, {} missed, {} not judged; median lead {median}; {} episodes elsewhere",
                        f.warned, f.failures, f.missed, f.not_judged, f.episodes_elsewhere
                    ),
                );
            }
            Some(Truth::Windows(w)) => {
                line("windows", format!("{} of {} labelled windows found", w.found, w.labelled));
                for s in &w.steps {
                    line(
                        "",
                        format!(
                            "{}: precision {}, recall {}, F1 {}",
                            s.step,
                            percent(s.precision),
                            percent(s.recall),
                            percent(s.f1)
                        ),
                    );
                }
            }
        }
        if let Some(against) = &self.against {
            let c = &against.comparison;
            line(
                "against",
                format!(
                    "{}: {} of {} windows agree; {} differences (threshold {}, score {}, both {}, only here {}, only there {})",
                    against.pipeline.name,
                    count(c.agreed()),
                    count(c.matched()),
                    count(c.differences()),
                    count(c.why.threshold),
                    count(c.why.score),
                    count(c.why.score_and_threshold),
                    count(c.why.only_here),
                    count(c.why.only_there)
                ),
            );
        }
        for warning in &self.warnings {
            line("warning", warning.clone());
        }
        line("report", out.join("report.html").display().to_string());
        text
    }

    /// The reasons that rows died of.
    pub fn dead(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.rows.dead.iter().filter(|(_, n)| **n > 0).map(|(reason, n)| (*reason, *n))
    }

    /// What the data covers, as text.
    pub fn covers(&self, side: &Side) -> String {
        match side.span() {
            Some((first, last)) => format!("{} to {} UTC", time(first), time(last)),
            None => "no window".into(),
        }
    }
}
