//! AI4I 2020: failures of a milling machine (Matzka 2020).
//!
//! Protocol: stratified five-fold cross-validation, F1 of `Machine failure` over all held-out rows at a probability of one
//! half. The five columns of causes are never inputs. The folds are ours (drawn with a seed), as they are everybody's.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use avouch_engine::decode::format_timestamp;
use avouch_models::Confusion;
use clap::Args;
use indicatif::ProgressBar;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde_json::{Value, json};

use super::in_memory::Shipped;
use super::prognoses::{Rows, run};
use super::scratch::Scratch;
use super::{EvaluateError, estimate_plot, gzip};

const FOLDS: usize = 5;
const MINUTE: i64 = 60_000;

/// Job 0: the first minute of 2000.
const START: i64 = 946_684_800_000;

/// A failure is expected from here.
const HALF: f64 = 0.5;

/// The pipeline that is judged if no other is named.
const MILLING: Shipped =
    Shipped { name: "milling/pipeline.toml", text: include_str!("../../../milling/pipeline.toml") };

/// What `avouch evaluate ai4i` needs.
#[derive(Debug, Clone, Args)]
pub struct Ai4iArgs {
    /// The data set: a directory with ai4i2020.csv in it, also packed (.gz)
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,

    /// The pipeline file that is trained and run [default: pipelines/milling, which this program carries]
    #[arg(long, value_name = "PIPELINE.toml")]
    pub pipeline: Option<PathBuf>,

    /// Seed of the folds
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,

    /// Write a CSV file into this directory: UDI, fold, probability, failure
    #[arg(long, value_name = "DIR")]
    pub scores: Option<PathBuf>,

    /// Draw said against seen probabilities into this directory, as SVG
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,

    /// Print one JSON object instead of a table
    #[arg(long)]
    pub json: bool,
}

struct Job {
    udi: String,
    failed: bool,
    line: String,
}

/// Said against seen, in tenths of probability.
#[derive(Debug, Default, Clone, Copy)]
struct Tenth {
    rows: u64,
    said: f64,
    seen: f64,
}

/// The figures.
#[derive(Debug)]
pub(super) struct Figures {
    pub confusion: Confusion,
    pub brier: f64,
    rows: usize,
    reliability: [Tenth; 10],
    models: Vec<String>,
    config_hash: String,
}

pub(super) fn evaluate(args: &Ai4iArgs, bar: &ProgressBar) -> Result<Figures, EvaluateError> {
    let jobs = jobs(&args.data.join("ai4i2020.csv"))?;
    let fold = folds(&jobs, args.seed);
    let place = Scratch::new("ai4i")?;
    let mut probability = vec![f64::NAN; jobs.len()];
    let (mut models, mut config_hash) = (Vec::new(), String::new());
    for f in 0..FOLDS {
        let part = |held: bool| csv(jobs.iter().enumerate().filter(|(i, _)| (fold[*i] == f) == held));
        let (train, judge) = (place.write("train.csv", &part(false))?, place.write("test.csv", &part(true))?);
        let ran = run(args.pipeline.as_deref(), MILLING, Rows { train: &train, failures: None, judge: &judge }, bar)?;
        for said in ran.said {
            let i = (said.window_end - START) / MINUTE - 1;
            if let Some(p) = usize::try_from(i).ok().and_then(|i| probability.get_mut(i)) {
                *p = said.value;
            }
        }
        models.push(ran.model);
        config_hash = ran.config_hash;
    }
    let mut figures = Figures {
        confusion: Confusion::default(),
        brier: 0.0,
        rows: jobs.len(),
        reliability: [Tenth::default(); 10],
        models,
        config_hash,
    };
    let mut scores = "UDI,fold,probability,failure\n".to_owned();
    for ((job, p), fold) in jobs.iter().zip(&probability).zip(&fold) {
        if p.is_nan() {
            return Err(EvaluateError::Step(format!("{}: no verdict about job {}", args.data.display(), job.udi)));
        }
        let truth = f64::from(u8::from(job.failed));
        figures.confusion.add(*p >= HALF, job.failed);
        figures.brier += (p - truth) * (p - truth) / jobs.len() as f64;
        let tenth = &mut figures.reliability[((p * 10.0) as usize).min(9)];
        tenth.rows += 1;
        tenth.said += p;
        tenth.seen += truth;
        let _ = writeln!(scores, "{},{fold},{p},{}", job.udi, u8::from(job.failed));
    }
    let write = |dir: &Path, name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::create_dir_all(dir)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|source| EvaluateError::Io { path, source })
    };
    if let Some(dir) = &args.scores {
        write(dir, "ai4i.csv", &scores)?;
    }
    if let Some(dir) = &args.plots {
        let points: Vec<(f64, f64)> = figures
            .reliability
            .iter()
            .filter(|t| t.rows > 0)
            .map(|t| (t.said / t.rows as f64, t.seen / t.rows as f64))
            .collect();
        let even = vec![(0.0, 0.0), (1.0, 1.0)];
        let title = "AI4I: probability of failure said, against the share that failed";
        write(dir, "ai4i-reliability.svg", &estimate_plot::draw(title, "said", &[], points, even)?)?;
    }
    Ok(figures)
}

fn jobs(path: &Path) -> Result<Vec<Job>, EvaluateError> {
    let text = gzip::read(path)?;
    let mut out = Vec::new();
    for (n, line) in text.lines().enumerate().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [udi, product, quality, air, process, speed, torque, wear, failed, ..] = fields.as_slice() else {
            let why = "has not the data set's columns".to_owned();
            return Err(EvaluateError::Label { path: path.to_path_buf(), line: n as u64 + 1, why });
        };
        if !["0", "1"].contains(failed) || [air, process, speed, torque, wear].iter().any(|v| v.parse::<f64>().is_err())
        {
            let why = "has a reading that is no number, or a label that is neither 0 nor 1".to_owned();
            return Err(EvaluateError::Label { path: path.to_path_buf(), line: n as u64 + 1, why });
        }
        let at = format_timestamp(START + out.len() as i64 * MINUTE);
        let line = format!("{product},{at},{quality},{air},{process},{speed},{torque},{wear},{failed}");
        out.push(Job { udi: (*udi).to_owned(), failed: *failed == "1", line });
    }
    Ok(out)
}

/// The fold of each job: failures and others are dealt out in turn, in an order drawn with the seed.
fn folds(jobs: &[Job], seed: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    for i in 0..order.len() {
        let pick = i + ((u128::from(rng.next_u64()) * (order.len() - i) as u128) >> 64) as usize;
        order.swap(i, pick);
    }
    let mut out = vec![0; jobs.len()];
    for failed in [false, true] {
        for (n, i) in order.iter().filter(|i| jobs[**i].failed == failed).enumerate() {
            out[*i] = n % FOLDS;
        }
    }
    out
}

fn csv<'a>(jobs: impl Iterator<Item = (usize, &'a Job)>) -> String {
    let mut out = "product,at,quality,air,process,speed,torque,wear,failed\n".to_owned();
    for (_, job) in jobs {
        out.push_str(&job.line);
        out.push('\n');
    }
    out
}

pub(super) fn text(f: &Figures) -> String {
    let c = &f.confusion;
    let mut out = format!(
        "AI4I 2020, {} jobs, each judged by a model that was not trained on its fold (of {FOLDS}); failure expected from {HALF}\n\
         configHash  {}\n\n{:<36} {:>5} {:>6} {:>6} {:>6}\n",
        f.rows, f.config_hash, "", "F1", "TP", "FP", "FN"
    );
    let _ = writeln!(
        out,
        "{:<36} {:>5.3} {:>6} {:>6} {:>6}",
        "this pipeline",
        c.f1(),
        c.true_positives,
        c.false_positives,
        c.false_negatives
    );
    let _ = writeln!(out, "{:<36} {:>5}", "XGBoost, published", "0.89");
    let _ = writeln!(
        out,
        "\nBrier score {:.4}\n\n{:>11} {:>6} {:>6} {:>6}",
        f.brier, "probability", "rows", "said", "seen"
    );
    for (i, t) in f.reliability.iter().enumerate().filter(|(_, t)| t.rows > 0) {
        let n = t.rows as f64;
        let range = format!("{:.1} to {:.1}", i as f64 / 10.0, (i + 1) as f64 / 10.0);
        let _ = writeln!(out, "{range:>11} {:>6} {:>6.3} {:>6.3}", t.rows, t.said / n, t.seen / n);
    }
    out
}

pub(super) fn to_json(f: &Figures) -> Value {
    let c = &f.confusion;
    json!({
        "benchmark": "ai4i", "rows": f.rows, "f1": c.f1(), "true_positives": c.true_positives,
        "false_positives": c.false_positives, "false_negatives": c.false_negatives, "brier": f.brier,
        "models": f.models, "config_hash": f.config_hash,
        "reliability": f.reliability.iter().filter(|t| t.rows > 0).map(|t| json!({
            "rows": t.rows, "said": t.said / t.rows as f64, "seen": t.seen / t.rows as f64,
        })).collect::<Vec<_>>(),
    })
}
