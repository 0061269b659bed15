//! `avouch check`: says what is wrong with a pipeline before it runs. Needs no network, unless it is asked to try it.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::sarif;
use crate::lang::{self, Canonical, Delivery, Diagnostics, Level, Pipeline, Sink, format_duration, hex, plural};

/// Check pipeline files: keys, names, guarantees, SQL, features and models. Needs no network but with --connect.
///
/// Exit code 0 if every file can run (warnings are allowed), 1 if one cannot, 2 if the command line is wrong.
#[derive(Debug, Clone, Default, Args)]
pub struct CheckArgs {
    /// The pipeline files
    #[arg(required = true, value_name = "PIPELINE.toml")]
    pub files: Vec<PathBuf>,

    /// How findings are written: text (on standard error), one JSON object a file and line, or one SARIF 2.1.0 log for all
    /// files
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,

    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Also ask the brokers, the registry, the chain's endpoint, object stores and whoever takes alerts whether they are
    /// there, let us in, and have what the file names, and look for the files it names
    #[arg(long, conflicts_with = "canonical")]
    pub connect: bool,

    /// Print the canonical form whose SHA-256 stands in every verdict as configHash, and check nothing else
    #[arg(long, conflicts_with_all = ["json", "format"])]
    pub canonical: bool,
}

/// How findings are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a file, each on its line.
    Json,
    /// One SARIF 2.1.0 log.
    Sarif,
}

/// Checks the files and prints what was found: errors and warnings on standard error (with `json` and `sarif`, everything
/// on standard output). Exit code 0 if every file can run, 1 if not.
pub fn run(args: &CheckArgs) -> ExitCode {
    let (ok, out, err) = report(args);
    // A closed pipe is the reader's choice, not an error of ours.
    let _ = std::io::stdout().write_all(out.as_bytes());
    let _ = std::io::stderr().write_all(err.as_bytes());
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether every file can run, and what stands on standard output and on standard error.
pub fn report(args: &CheckArgs) -> (bool, String, String) {
    let format = if args.json { OutputFormat::Json } else { args.format };
    let (mut ok, mut out, mut err) = (true, String::new(), String::new());
    let mut found = Vec::new();
    for path in &args.files {
        let report = if args.canonical { canonical(path) } else { check(path, args.connect) };
        ok &= report.ok;
        match format {
            OutputFormat::Text => {
                out.push_str(&report.out);
                err.push_str(&report.err);
            }
            OutputFormat::Json => out.push_str(&report.json),
            OutputFormat::Sarif => found.extend(report.diags),
        }
    }
    if format == OutputFormat::Sarif && !args.canonical {
        out = format!("{:#}\n", sarif::log(&found));
    }
    (ok, out, err)
}

struct Report {
    ok: bool,
    out: String,
    err: String,
    json: String,
    diags: Option<Diagnostics>,
}

fn check(path: &Path, connect: bool) -> Report {
    let mut found = Vec::new();
    let (pipeline, diags) = match Pipeline::load(path) {
        Ok(p) => {
            let mut diags = lang::check(&p);
            if connect && !diags.has_errors() {
                found = super::connect::try_all(&p, &mut diags);
            }
            (Some(p), diags)
        }
        Err(diags) => (None, diags),
    };
    let mut json = diags.to_json();
    let mut out = String::new();
    if let (Some(p), Some(map)) = (&pipeline, json.as_object_mut()) {
        map.insert("pipeline".into(), p.name.value.clone().into());
        map.insert("config_hash".into(), hex(&p.config_hash()).into());
        if !diags.has_errors() {
            out = summary(p, &diags, &found);
        }
    }
    Report {
        ok: !diags.has_errors(),
        out,
        err: diags.render_text(colour()),
        json: format!("{json}\n"),
        diags: Some(diags),
    }
}

fn canonical(path: &Path) -> Report {
    match lang::read_file(path).and_then(|file| Canonical::of(&file)) {
        // No newline: what is printed is what is hashed, `avouch check --canonical p.toml | sha256sum`.
        Ok(c) => Report { ok: true, out: c.json, err: String::new(), json: String::new(), diags: None },
        Err(diags) => {
            let err = diags.render_text(colour());
            Report { ok: false, out: String::new(), err, json: String::new(), diags: Some(diags) }
        }
    }
}

pub(crate) fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn reads(p: &Pipeline) -> String {
    let fields = plural(p.source.fields.len(), "field");
    match p.source.repartition() {
        None => format!("{} ({fields})", p.source.reads()),
        Some(r) => format!(
            "{} ({fields}), repartitioned through {} ({})",
            p.source.reads(),
            r.topic.raw(),
            plural(r.partitions as usize, "partition")
        ),
    }
}

fn summary(p: &Pipeline, diags: &Diagnostics, found: &[String]) -> String {
    let models: Vec<&str> = p.model_steps.iter().map(|s| s.name.value.as_str()).collect();
    let places: Vec<&str> = p.sinks.iter().map(Sink::writes).collect();
    let anchor = match &p.anchor {
        None => "none".to_owned(),
        Some(a) => format!("chain {}, within {}", a.chain_id, format_duration(a.max_merge_delay_ms)),
    };
    let delivery = match p.delivery.value {
        Delivery::ExactlyOnce => "exactly-once",
        Delivery::AtLeastOnce => "at-least-once",
    };
    let warnings = match diags.count(Level::Warning) {
        0 => String::new(),
        n => format!(", with {}", plural(n, "warning")),
    };
    let mut rows = vec![
        (
            "pipeline",
            format!("{}, {delivery}, a checkpoint every {}", p.name.value, format_duration(p.checkpoint.every_ms)),
        ),
        ("reads", reads(p)),
        ("steps", format!("{} of SQL; models: {}", p.sql_steps.len(), models.join(", "))),
        ("writes", if places.is_empty() { "the verdict log only".to_owned() } else { places.join(", ") }),
        ("anchor", anchor),
        ("configHash", hex(&p.config_hash())),
    ];
    if !found.is_empty() {
        rows.insert(rows.len() - 1, ("found", found.join(", ")));
    }
    let mut out = format!("{}: no mistake found{warnings}\n", p.file.path().display());
    for (what, value) in rows {
        out.push_str(&format!("  {what:<10}  {value}\n"));
    }
    out
}
