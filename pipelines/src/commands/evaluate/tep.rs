//! The Tennessee Eastman process: its files as readings, and which rows are under a fault.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use avouch_connectors::files::Order;
use avouch_engine::decode::format_timestamp;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::alarm_plot::{self, Point, Series};
use super::in_memory::Shipped;
use super::verdicts::Verdicts;
use super::{EvaluateError, TepArgs, bar, in_memory, step};
use crate::history::{Ending, HistoryOptions};
use crate::lang::{Pipeline, hex};

/// The pipeline that is judged if no other is named.
const PIPELINE: Shipped =
    Shipped { name: "tennessee-eastman/pipeline.toml", text: include_str!("../../../tennessee-eastman/pipeline.toml") };

/// Measured and manipulated variables.
const VARIABLES: usize = 52;

/// Measured ones.
const XMEAS: usize = 41;

/// Rows of a fault's run before the fault.
const BEFORE: usize = 160;

/// Rows are three minutes apart.
const EVERY_MS: i64 = 180_000;

/// When every run begins: 2000-01-01. The data set has no times.
const START_MS: i64 = 946_684_800_000;

/// Rows of the run that is fitted on, and of the one that sets the threshold.
const PROTOCOL: (u64, u64) = (500, 960);

/// Held to be undetectable, and left out of means.
const UNDETECTABLE: [u32; 3] = [3, 9, 15];

/// Runs that are drawn.
const PLOTTED: [&str; 4] = ["d00_te", "d05_te", "d10_te", "d21_te"];

/// What simpler charts reach by the same protocol on the same runs: name, mean detection, false alarms.
const REFERENCES: [(&str, f64, f64); 1] = [("T² of single rows, all components", 0.903, 0.004)];

/// Runs the evaluation.
pub(super) fn evaluate(args: &TepArgs) -> Result<Report, EvaluateError> {
    let mut pipeline = PIPELINE.unless(args.pipeline.as_deref())?;
    let step = step(&pipeline, args.step.as_deref())?;
    let bar = bar(args.json);
    bar.set_message("reading runs");
    let runs = load(&args.data)?;
    let readings = match &args.readings {
        Some(dir) => Readings { dir: dir.clone(), keep: true },
        None => Readings { dir: std::env::temp_dir().join(format!("avouch-tep-{}", std::process::id())), keep: false },
    };
    let mut files = Vec::with_capacity(runs.len());
    for run in &runs {
        files.push(readings.write(run)?);
    }
    for entry in &mut pipeline.train {
        entry.data.pattern = readings.dir.join("d00*.csv").to_string_lossy().into_owned();
    }
    let mut options = HistoryOptions::of(&pipeline, files);
    (options.order, options.ending) = (Order::Sorted, Ending::CloseAll);
    let ran = in_memory::run(&pipeline, &step, options, args.json, &bar)?;
    bar.finish_and_clear();
    if let Some(dead) = &ran.dead {
        let why = format!("{} of its rows are no readings of this pipeline; the first: {}", dead.rows, dead.first);
        return Err(EvaluateError::Tep { path: args.data.clone(), why });
    }
    let judged: Vec<Judged<'_>> = runs.iter().map(|run| Judged::of(run, &ran.verdicts)).collect();
    if judged.iter().all(|j| j.rows.iter().all(|r| r.p_value.is_nan())) {
        let why = "no verdict is about a row of these runs; let windows of three minutes end with every row";
        return Err(EvaluateError::Tep { path: args.data.clone(), why: why.into() });
    }
    if let Some(dir) = &args.scores {
        for j in &judged {
            j.write(dir)?;
        }
    }
    if let Some(dir) = &args.plots {
        for j in judged.iter().filter(|j| PLOTTED.contains(&j.run.name.as_str())) {
            alarm_plot::write(dir, &j.series())?;
        }
    }
    let rows = (ran.card.training.rows_fitted, ran.card.training.rows_held_back);
    Ok(Report::new(&pipeline, &step, &judged, &ran.verdicts, rows))
}

/// One file.
struct Run {
    /// As the file's: `d01_te`.
    name: String,
    /// None: nothing is wrong in this run.
    fault: Option<u32>,
    rows: Vec<Vec<f64>>,
}

/// The runs of the protocol: d00, d00_te, and every fault's test run that is there.
fn load(data: &Path) -> Result<Vec<Run>, EvaluateError> {
    let mut out = Vec::new();
    for (name, fault) in [("d00".to_owned(), None), ("d00_te".to_owned(), None)]
        .into_iter()
        .chain((1..=21).map(|f| (format!("d{f:02}_te"), Some(f))))
    {
        let Some((path, text)) = text(data, &name)? else {
            if fault.is_none() {
                let why = format!("holds no {name}.dat or {name}.dat.gz; name the directory of the data set");
                return Err(EvaluateError::Tep { path: data.to_path_buf(), why });
            }
            continue;
        };
        let rows = rows(&path, &text)?;
        if fault.is_some() && rows.len() <= BEFORE {
            let why = format!("has {} rows; the fault comes after {BEFORE}", rows.len());
            return Err(EvaluateError::Tep { path, why });
        }
        out.push(Run { name, fault, rows });
    }
    if out.iter().all(|r| r.fault.is_none()) {
        let why = "holds no run with a fault, such as d01_te.dat.gz".to_owned();
        return Err(EvaluateError::Tep { path: data.to_path_buf(), why });
    }
    Ok(out)
}

fn text(data: &Path, name: &str) -> Result<Option<(PathBuf, String)>, EvaluateError> {
    for ending in ["dat", "dat.gz"] {
        let path = data.join(format!("{name}.{ending}"));
        let io = |source| EvaluateError::Io { path: path.clone(), source };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(io(e)),
        };
        let mut text = String::new();
        match ending {
            "dat" => bytes.as_slice().read_to_string(&mut text),
            _ => GzDecoder::new(bytes.as_slice()).read_to_string(&mut text),
        }
        .map_err(io)?;
        return Ok(Some((path, text)));
    }
    Ok(None)
}

/// Rows of 52 numbers. One file of the data set has its rows as columns.
fn rows(path: &Path, text: &str) -> Result<Vec<Vec<f64>>, EvaluateError> {
    let wrong = |why: String| EvaluateError::Tep { path: path.to_path_buf(), why };
    let mut out: Vec<Vec<f64>> = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let row: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        let row = row.map_err(|e| wrong(format!("line {}: {e}", i + 1)))?;
        if out.first().is_some_and(|first| first.len() != row.len()) || row.iter().any(|v| !v.is_finite()) {
            return Err(wrong(format!("line {}: not as many finite numbers as in the lines before it", i + 1)));
        }
        out.push(row);
    }
    let columns = out.first().map_or(0, Vec::len);
    match (out.len(), columns) {
        (_, VARIABLES) => Ok(out),
        (VARIABLES, n) => Ok((0..n).map(|c| out.iter().map(|r| r[c]).collect()).collect()),
        (n, m) => Err(wrong(format!("{n} lines of {m} numbers: {VARIABLES} of one or the other are needed"))),
    }
}

/// A directory of readings.
struct Readings {
    dir: PathBuf,
    keep: bool,
}

impl Readings {
    /// Writes a run: run, time, then the variables under the names that the pipeline's schema has.
    fn write(&self, run: &Run) -> Result<String, EvaluateError> {
        let path = self.dir.join(format!("{}.csv", run.name));
        let io = |source| EvaluateError::Io { path: path.clone(), source };
        let mut text = String::from("run,time");
        for v in 0..VARIABLES {
            let (name, n) = if v < XMEAS { ("xmeas", v + 1) } else { ("xmv", v + 1 - XMEAS) };
            // Writing into a String cannot fail.
            let _ = write!(text, ",{name}_{n:02}");
        }
        text.push('\n');
        for (i, row) in run.rows.iter().enumerate() {
            let _ = write!(text, "{},{}", run.name, format_timestamp(START_MS + i as i64 * EVERY_MS));
            for v in row {
                let _ = write!(text, ",{v}");
            }
            text.push('\n');
        }
        std::fs::create_dir_all(&self.dir).map_err(io)?;
        std::fs::write(&path, text).map_err(io)?;
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for Readings {
    fn drop(&mut self) {
        if !self.keep {
            // Nothing rests on it.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// What was said of a row.
struct JudgedRow {
    score: f64,
    p_value: f64,
    alarm: bool,
    /// Whether the fault is on.
    fault: bool,
}

/// A run and what was said of it.
struct Judged<'a> {
    run: &'a Run,
    rows: Vec<JudgedRow>,
}

impl<'a> Judged<'a> {
    /// The verdict of the window that ends three minutes after a row judges it; a row without one is no alarm.
    fn of(run: &'a Run, verdicts: &Verdicts) -> Self {
        let of_run = verdicts.of(&run.name);
        let rows = (0..run.rows.len()).map(|i| {
            let end = START_MS + (i as i64 + 1) * EVERY_MS;
            let verdict = of_run.and_then(|v| v.get(&(end as u64)));
            JudgedRow {
                score: verdict.map_or(f64::NAN, |v| v.score),
                p_value: verdict.map_or(f64::NAN, |v| v.p_value),
                alarm: verdict.is_some_and(|v| v.alarm),
                fault: run.fault.is_some() && i >= BEFORE,
            }
        });
        Self { run, rows: rows.collect() }
    }

    fn line(&self) -> Line {
        let count = |fault: bool| {
            let rows = self.rows.iter().filter(|r| r.fault == fault);
            (rows.clone().filter(|r| r.alarm).count(), rows.count())
        };
        Line {
            name: self.run.name.clone(),
            fault: self.run.fault,
            without: count(false),
            with: count(true),
            delay: self.rows.iter().skip_while(|r| !r.fault).position(|r| r.alarm),
        }
    }

    /// Writes `<dir>/<run>.csv`.
    fn write(&self, dir: &Path) -> Result<(), EvaluateError> {
        let path = dir.join(format!("{}.csv", self.run.name));
        let io = |source| EvaluateError::Io { path: path.clone(), source };
        let number = |x: f64| if x.is_nan() { String::new() } else { x.to_string() };
        let mut text = String::from("row,score,p_value,alarm,fault\n");
        for (i, r) in self.rows.iter().enumerate() {
            let (alarm, fault) = (u8::from(r.alarm), u8::from(r.fault));
            let _ = writeln!(text, "{},{},{},{alarm},{fault}", i + 1, number(r.score), number(r.p_value));
        }
        std::fs::create_dir_all(dir).map_err(io)?;
        std::fs::write(&path, text).map_err(io)
    }

    fn series(&self) -> Series {
        let point = |r: &JudgedRow| Point { p_value: r.p_value, alarm: r.alarm, labelled: r.fault };
        Series {
            name: self.run.name.clone(),
            unit: "row, three minutes apart".to_owned(),
            points: self.rows.iter().map(point).collect(),
        }
    }
}

/// Alarms and rows of a run, without and with the fault.
#[derive(Debug)]
struct Line {
    name: String,
    fault: Option<u32>,
    without: (usize, usize),
    with: (usize, usize),
    /// Rows from the fault to the first alarm.
    delay: Option<usize>,
}

fn share((alarms, rows): (usize, usize)) -> f64 {
    alarms as f64 / rows as f64
}

/// The figures.
#[derive(Debug)]
pub(super) struct Report {
    pipeline: String,
    step: String,
    config_hash: String,
    models: Vec<String>,
    lines: Vec<Line>,
    warnings: Vec<String>,
}

impl Report {
    fn new(pipeline: &Pipeline, step: &str, judged: &[Judged<'_>], verdicts: &Verdicts, rows: (u64, u64)) -> Self {
        let mut warnings = Vec::new();
        if rows != PROTOCOL {
            warnings.push(format!(
                "the model was fitted on {} rows and its threshold set on {}; the protocol has {} of d00 and {} of d00_te",
                rows.0, rows.1, PROTOCOL.0, PROTOCOL.1
            ));
        }
        let missing: usize = judged.iter().map(|j| j.rows.iter().filter(|r| r.p_value.is_nan()).count()).sum();
        if missing > 0 {
            warnings.push(format!("{missing} rows without a verdict, counted as no alarm"));
        }
        Self {
            pipeline: pipeline.name.value.clone(),
            step: step.to_owned(),
            config_hash: hex(&pipeline.config_hash()),
            models: verdicts.models.iter().map(|m| hex(m)).collect(),
            lines: judged.iter().map(Judged::line).collect(),
            warnings,
        }
    }

    fn faults(&self) -> impl Iterator<Item = (&Line, bool)> {
        self.lines.iter().filter_map(|l| l.fault.map(|f| (l, !UNDETECTABLE.contains(&f))))
    }

    /// Mean detection over the detectable faults.
    pub(super) fn detection(&self) -> f64 {
        let shares: Vec<f64> = self.faults().filter(|(_, counts)| *counts).map(|(l, _)| share(l.with)).collect();
        shares.iter().sum::<f64>() / shares.len() as f64
    }

    /// Alarms before the faults, in all their runs.
    pub(super) fn false_alarms(&self) -> f64 {
        share(self.faults().fold((0, 0), |sum, (l, _)| (sum.0 + l.without.0, sum.1 + l.without.1)))
    }

    /// The tables.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{}, step {}, on the Tennessee Eastman process: fitted on d00, threshold set on d00_te\n\
             verdicts of the engine over the files, in memory\nmodel       {}\nconfigHash  {}\n\n",
            self.pipeline,
            self.step,
            self.models.join(", "),
            self.config_hash,
        );
        // Writing into a String cannot fail.
        let _ = writeln!(out, "{:<8} {:>10}  {:>13}  {:>11}", "run", "detected %", "false alarms %", "delay, rows");
        for l in &self.lines {
            let detected = if l.with.1 == 0 { "–".to_owned() } else { format!("{:.1}", 100.0 * share(l.with)) };
            let delay = l.delay.map_or("–".to_owned(), |d| d.to_string());
            let remark = match l.fault {
                None if l.name == "d00" => "fitted on",
                None => "sets the threshold",
                Some(f) if UNDETECTABLE.contains(&f) => "held to be undetectable; not in the mean",
                Some(_) => "",
            };
            let line =
                format!("{:<8} {detected:>10}  {:>14.1}  {delay:>11}  {remark}", l.name, 100.0 * share(l.without));
            out.push_str(line.trim_end());
            out.push('\n');
        }
        let _ = writeln!(out, "\n{:<36} {:>14}  {:>14}", "", "mean detection", "false alarms %");
        let mut row = |name: &str, detection: f64, false_alarms: f64, remark: &str| {
            let line = format!("{name:<36} {detection:>14.3}  {:>14.2}  {remark}", 100.0 * false_alarms);
            out.push_str(line.trim_end());
            out.push('\n');
        };
        let counted = self.faults().filter(|(_, counts)| *counts).count();
        row("this pipeline", self.detection(), self.false_alarms(), &format!("over {counted} faults"));
        for (name, detection, false_alarms) in REFERENCES {
            row(name, detection, false_alarms, "measured on the same runs");
        }
        for warning in &self.warnings {
            let _ = write!(out, "\nwarning: {warning}");
        }
        if !self.warnings.is_empty() {
            out.push('\n');
        }
        out
    }

    /// The same for machines. Rates are 0 to 1.
    pub fn json(&self) -> Value {
        let line = |l: &Line| {
            json!({
                "fault": l.fault,
                "rows_under_fault": l.with.1,
                "alarms_under_fault": l.with.0,
                "detection": (l.with.1 > 0).then(|| share(l.with)),
                "rows_without_fault": l.without.1,
                "alarms_without_fault": l.without.0,
                "false_alarm_rate": share(l.without),
                "delay_rows": l.delay,
                "in_mean": l.fault.is_some_and(|f| !UNDETECTABLE.contains(&f)),
            })
        };
        let runs: serde_json::Map<String, Value> = self.lines.iter().map(|l| (l.name.clone(), line(l))).collect();
        let references: Vec<Value> = REFERENCES
            .iter()
            .map(|(name, d, f)| json!({ "name": name, "mean_detection": d, "false_alarm_rate": f }))
            .collect();
        json!({
            "benchmark": "tep",
            "pipeline": self.pipeline,
            "step": self.step,
            "config_hash": self.config_hash,
            "models": self.models,
            "mean_detection": self.detection(),
            "false_alarm_rate": self.false_alarms(),
            "runs": runs,
            "references": references,
            "warnings": self.warnings,
        })
    }
}

#[cfg(test)]
#[path = "tep_tests.rs"]
mod tests;
