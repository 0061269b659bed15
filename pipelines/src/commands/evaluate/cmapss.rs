//! C-MAPSS: remaining life of turbofan engines (Saxena and others 2008).
//!
//! Protocol: the target is the remaining life in cycles, at most 125; one prediction for each test engine, at its last row;
//! the test's remaining life is cut at 125, too. RMSE, and the PHM 2008 score: the sum of exp(−d/13) − 1 for predictions that
//! are d cycles early and exp(d/10) − 1 for late ones. The model is trained on training engines only.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use avouch_engine::decode::format_timestamp;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::in_memory::Shipped;
use super::prognoses::{Rows, Said, run};
use super::scratch::Scratch;
use super::{EvaluateError, estimate_plot, gzip};

const CAP: f64 = 125.0;
const HOUR: i64 = 3_600_000;

/// Cycle 0 of every engine: the first hour of 2000.
const START: i64 = 946_684_800_000;

const COLUMNS: [&str; 24] = [
    "altitude",
    "mach",
    "throttle",
    "T2",
    "T24",
    "T30",
    "T50",
    "P2",
    "P15",
    "P30",
    "Nf",
    "Nc",
    "epr",
    "Ps30",
    "phi",
    "NRf",
    "NRc",
    "BPR",
    "farB",
    "htBleed",
    "Nf_dmd",
    "PCNfR_dmd",
    "W31",
    "W32",
];

/// What others published, RMSE and score.
const PUBLISHED: [(Set, &str, f64, f64); 9] = [
    (Set::Fd001, "SVR", 20.96, 1380.0),
    (Set::Fd001, "deep CNN", 18.45, 1299.0),
    (Set::Fd001, "deep LSTM", 16.14, 338.0),
    (Set::Fd001, "FFVE", 12.31, 280.0),
    (Set::Fd001, "MS-DCNN", 11.44, 196.0),
    (Set::Fd001, "MTSTAN", 10.97, 175.0),
    (Set::Fd002, "deep LSTM", 24.49, 4450.0),
    (Set::Fd002, "MTSTAN", 16.81, 1154.0),
    (Set::Fd002, "FFVE", 12.55, 772.0),
];

/// The pipeline that is judged if no other is named.
const TURBOFAN: Shipped =
    Shipped { name: "turbofan/pipeline.toml", text: include_str!("../../../turbofan/pipeline.toml") };

/// What `avouch evaluate cmapss` needs.
#[derive(Debug, Clone, Args)]
pub struct CmapssArgs {
    /// The data set: a directory with train_FD001.txt, test_FD001.txt, RUL_FD001.txt … in it, also packed (.gz)
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// Which of the sets
    #[arg(long, value_name = "SET", value_enum, default_values_t = [Set::Fd001, Set::Fd002])]
    pub set: Vec<Set>,

    /// The pipeline file that is trained and run [default: pipelines/turbofan, which this program carries]
    #[arg(long, value_name = "PIPELINE.toml")]
    pub pipeline: Option<PathBuf>,

    /// Write a CSV file for each set into this directory: engine, cycle, estimate, lower, upper, remaining
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,

    /// Draw a few test engines of each set into this directory, as SVG
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    pub json: bool,
}

/// A set of C-MAPSS that has test engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Set {
    /// One flight condition, one fault
    #[value(name = "FD001")]
    Fd001,
    /// Six flight conditions, one fault
    #[value(name = "FD002")]
    Fd002,
}

impl Set {
    fn name(self) -> &'static str {
        match self {
            Self::Fd001 => "FD001",
            Self::Fd002 => "FD002",
        }
    }
}

/// One engine's row.
struct Row {
    engine: usize,
    cycle: i64,
    line: String,
}

/// The figures of one set.
#[derive(Debug)]
pub(super) struct Figures {
    pub set: Set,
    pub engines: usize,
    pub rmse: f64,
    pub score: f64,
    /// Share of test engines whose remaining life was in the interval.
    pub covered: f64,
    /// Mean width of these intervals.
    pub width: f64,
    model: String,
    config_hash: String,
}

pub(super) fn evaluate(args: &CmapssArgs, bar: &ProgressBar) -> Result<Vec<Figures>, EvaluateError> {
    args.set.iter().map(|set| one(args, *set, bar)).collect()
}

fn one(args: &CmapssArgs, set: Set, bar: &ProgressBar) -> Result<Figures, EvaluateError> {
    let name = set.name();
    let place = Scratch::new(name)?;
    let train = rows(&args.data.join(format!("train_{name}.txt")))?;
    let test = rows(&args.data.join(format!("test_{name}.txt")))?;
    let left = remaining(&args.data.join(format!("RUL_{name}.txt")))?;
    let mut last = BTreeMap::new();
    for row in &train {
        last.insert(row.engine, row.cycle);
    }
    let mut failures = "engine,failed_at\n".to_owned();
    for (engine, cycle) in &last {
        // The window of a cycle ends an hour after it begins: at the end of the last cycle nothing remains.
        let _ = writeln!(failures, "{},{}", device(*engine), format_timestamp(START + (cycle + 1) * HOUR));
    }
    let failures = place.write("failures.csv", &failures)?;
    let (train, judge) = (place.write("train.csv", &csv(train))?, place.write("test.csv", &csv(test))?);
    let ran =
        run(args.pipeline.as_deref(), TURBOFAN, Rows { train: &train, failures: Some(&failures), judge: &judge }, bar)?;

    let mut by_device: BTreeMap<&str, Vec<&Said>> = BTreeMap::new();
    for said in &ran.said {
        by_device.entry(&said.device).or_default().push(said);
    }
    let (mut squares, mut score, mut inside, mut width) = (0.0, 0.0, 0, 0.0);
    let mut scores = "engine,cycle,estimate,lower,upper,remaining\n".to_owned();
    for (i, left) in left.iter().enumerate() {
        let name = device(i + 1);
        let verdicts = by_device.get(name.as_str()).ok_or_else(|| {
            EvaluateError::Step(format!("{}: no verdict about engine {}", args.data.display(), i + 1))
        })?;
        let end = verdicts[verdicts.len() - 1];
        let (truth, interval) = (left.min(CAP), end.interval);
        let d = end.value - truth;
        squares += d * d;
        score += libm::exp(if d < 0.0 { -d / 13.0 } else { d / 10.0 }) - 1.0;
        if let Some(interval) = interval {
            inside += usize::from(interval.lower <= truth && truth <= interval.upper);
            width += interval.upper - interval.lower;
        }
        for said in verdicts {
            let cycles_before = (end.window_end - said.window_end) / HOUR;
            let (lower, upper) = said.interval.map_or((f64::NAN, f64::NAN), |i| (i.lower, i.upper));
            let cycle = (said.window_end - START) / HOUR - 1;
            let truth = left + cycles_before as f64;
            let _ = writeln!(scores, "{},{cycle},{},{lower},{upper},{truth}", i + 1, said.value);
        }
    }
    let n = left.len() as f64;
    if let Some(dir) = &args.scores {
        write(dir, &format!("{name}.csv"), &scores)?;
    }
    if let Some(dir) = &args.plots {
        // Those that are nearest to failure have most to show.
        let mut order: Vec<usize> = (0..left.len()).collect();
        order.sort_by(|a, b| left[*a].total_cmp(&left[*b]).then(a.cmp(b)));
        for i in order.into_iter().take(4) {
            let Some(verdicts) = by_device.get(device(i + 1).as_str()) else { continue };
            let points: Vec<estimate_plot::Point> = verdicts
                .iter()
                .enumerate()
                .map(|(at, s)| estimate_plot::Point {
                    x: (s.window_end - START) as f64 / HOUR as f64 - 1.0,
                    value: s.value,
                    interval: s.interval,
                    truth: (left[i] + (verdicts.len() - 1 - at) as f64).min(CAP),
                })
                .collect();
            let title = format!("{name}, test engine {}: remaining cycles (at most 125)", i + 1);
            write(dir, &format!("{name}-{}.svg", i + 1), &estimate_plot::estimates(&title, "cycle", &points)?)?;
        }
    }
    Ok(Figures {
        set,
        engines: left.len(),
        rmse: (squares / n).sqrt(),
        score,
        covered: inside as f64 / n,
        width: width / n,
        model: ran.model,
        config_hash: ran.config_hash,
    })
}

fn write(dir: &Path, name: &str, text: &str) -> Result<(), EvaluateError> {
    let path = dir.join(name);
    std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&path, text))
        .map_err(|source| EvaluateError::Io { path, source })
}

fn device(engine: usize) -> String {
    format!("engine-{engine:03}")
}

fn rows(path: &Path) -> Result<Vec<Row>, EvaluateError> {
    let text = gzip::read(path)?;
    let mut out = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let wrong =
            |why: &str| EvaluateError::Label { path: path.to_path_buf(), line: n as u64 + 1, why: why.to_owned() };
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [engine, cycle, readings @ ..] = fields.as_slice() else { continue };
        if readings.len() != COLUMNS.len() {
            return Err(wrong("has not 26 columns"));
        }
        if readings.iter().any(|v| v.parse::<f64>().is_err()) {
            return Err(wrong("has a reading that is no number"));
        }
        let (Ok(engine), Ok(cycle)) = (engine.parse(), cycle.parse::<i64>()) else {
            return Err(wrong("does not begin with an engine's and a cycle's number"));
        };
        out.push(Row { engine, cycle, line: readings.join(",") });
    }
    Ok(out)
}

fn remaining(path: &Path) -> Result<Vec<f64>, EvaluateError> {
    gzip::read(path)?
        .lines()
        .enumerate()
        .map(|(n, line)| {
            line.trim().parse().map_err(|_| EvaluateError::Label {
                path: path.to_path_buf(),
                line: n as u64 + 1,
                why: "is not a number of cycles".to_owned(),
            })
        })
        .collect()
}

/// As the pipeline's source reads them, in the order of time.
fn csv(mut rows: Vec<Row>) -> String {
    rows.sort_by_key(|r| (r.cycle, r.engine));
    let mut out = format!("engine,at,cycle,{}\n", COLUMNS.join(","));
    for r in rows {
        let at = format_timestamp(START + r.cycle * HOUR);
        let _ = writeln!(out, "{},{at},{},{}", device(r.engine), r.cycle, r.line);
    }
    out
}

pub(super) fn text(figures: &[Figures]) -> String {
    let mut out = String::new();
    for f in figures {
        let _ = writeln!(
            out,
            "C-MAPSS {}, {} test engines, remaining life cut at {CAP} cycles on both sides\nmodel       {}\nconfigHash  {}\n\n\
             {:<24} {:>6} {:>7}",
            f.set.name(),
            f.engines,
            f.model,
            f.config_hash,
            "",
            "RMSE",
            "score"
        );
        let _ = writeln!(out, "{:<24} {:>6.2} {:>7.0}", "this pipeline", f.rmse, f.score);
        for (_, name, rmse, score) in PUBLISHED.iter().filter(|p| p.0 == f.set) {
            let _ = writeln!(out, "{:<24} {rmse:>6.2} {score:>7.0}", format!("{name}, published"));
        }
        let _ = writeln!(
            out,
            "\nintervals held {:.0} % of the remaining lives and were {:.1} cycles wide on average\n",
            100.0 * f.covered,
            f.width
        );
    }
    out
}

pub(super) fn to_json(figures: &[Figures]) -> Value {
    let sets: serde_json::Map<String, Value> = figures
        .iter()
        .map(|f| {
            let value = json!({ "engines": f.engines, "rmse": f.rmse, "score": f.score, "interval_coverage": f.covered,
                                "interval_width": f.width, "model": f.model, "config_hash": f.config_hash });
            (f.set.name().to_owned(), value)
        })
        .collect();
    json!({ "benchmark": "cmapss", "cap": CAP, "sets": sets })
}
