//! `avouch replay`: the decisions made again from the readings, and compared.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use avouch_engine::verdict::{Secret, SecretError};
use clap::Args;
use serde_json::json;

use super::fail;
use crate::handover::{Handover, ReplayFailure, Replayed, replay};
use crate::lang::Pipeline;

/// Run the readings of an exported log through its pipelines and models again, and compare every record. Needs nothing of
/// the operator's but the export.
#[derive(Debug, Clone, Args)]
pub struct ReplayArgs {
    /// The export: `avouch export PIPELINE.toml --readings --out DIR` makes it
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// Pipeline files, where a canonical form is not enough (a Protobuf descriptor set, or a step that has decided nothing)
    #[arg(value_name = "PIPELINE.toml")]
    pub pipelines: Vec<PathBuf>,

    /// File with the pipeline's secret. With it pseudonyms and salts are made again as well, so that entries are compared to
    /// the bit; without it all the rest is
    #[arg(long, value_name = "FILE")]
    pub secret: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Replays. Exit code 0 if every record came out the same.
pub fn run(args: &ReplayArgs) -> ExitCode {
    let mut given = Vec::new();
    for file in &args.pipelines {
        match Pipeline::load_offline(file) {
            Ok(p) => given.push(p),
            Err(diags) => {
                eprint!("{}", diags.render_text(super::check::colour()));
                return ExitCode::FAILURE;
            }
        }
    }
    let secret = match args.secret.as_ref().map(|path| (path, std::fs::read(path))) {
        None => None,
        Some((path, Ok(bytes))) => match secret_of(&bytes) {
            Ok(secret) => Some(secret),
            Err(e) => return fail(args.json, format!("{}: {e}", path.display())),
        },
        Some((path, Err(e))) => return fail(args.json, format!("{}: {e}", path.display())),
    };
    let began = Instant::now();
    let outcome =
        Handover::open(&args.dir).map_err(ReplayFailure::from).and_then(|h| Ok((replay(&h, &given, secret)?, h)));
    let (replayed, handover) = match outcome {
        Ok(done) => done,
        Err(e) => return fail(args.json, e),
    };
    if args.json {
        println!("{}", as_json(&replayed, &handover));
    } else {
        print!("{}", as_text(&replayed, &handover, began.elapsed().as_secs_f64()));
    }
    if replayed.difference.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A secret that was made for the pipeline has 32 bytes, or is what is left of it; one that was written is text, and its last line
/// break is none of it.
fn secret_of(bytes: &[u8]) -> Result<Secret, SecretError> {
    if bytes.len() == 32 {
        return Ok(Secret::new(bytes));
    }
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    match Secret::from_stored(bytes)? {
        punctured if punctured.is_punctured() => Ok(punctured),
        _ => Ok(Secret::new(text.strip_suffix(b"\r").unwrap_or(text))),
    }
}

fn as_json(r: &Replayed, h: &Handover) -> serde_json::Value {
    json!({
        "log": h.head.log, "size": h.head.size, "readings": r.readings, "rows": r.rows, "dead": r.dead, "events": r.events,
        "pipelines": r.pipelines, "agreed": r.agreed, "erased": r.erased, "unsalted": r.unsalted, "same": r.difference.is_none(), "with_secret": r.with_secret,
        "difference": r.difference.as_ref().map(|d| json!({
            "index": d.index, "field": d.field, "log": d.log, "replay": d.replay,
        })),
    })
}

fn as_text(r: &Replayed, h: &Handover, seconds: f64) -> String {
    let head = &h.head;
    let mut out = format!(
        "{}: {} records of {}/{} ({} rows, {} of them dead letters) and {} recorded events, under {} pipeline{}, in {seconds:.1} s\n",
        head.log,
        r.readings,
        head.topic,
        head.partition,
        r.rows,
        r.dead,
        r.events,
        r.pipelines,
        if r.pipelines == 1 { "" } else { "s" }
    );
    if r.erased > 0 {
        out.push_str(&format!(
            "{} records were erased: there is one again at each of their places, and no more is compared\n",
            r.erased
        ));
    }
    if r.unsalted > 0 {
        out.push_str(&format!(
            "the keys of {} records were erased from the secret: their salts are not compared\n",
            r.unsalted
        ));
    }
    let all = if r.erased > 0 { "all other" } else { "all" };
    match &r.difference {
        None if r.with_secret => {
            out.push_str(&format!("{all} {} records came out the same, byte for byte\n", r.agreed))
        }
        None => out.push_str(&format!(
            "{all} {} records came out the same, but for deviceId, salts and evidenceHash, which take the secret (--secret)\n",
            r.agreed
        )),
        Some(d) => out.push_str(&format!(
            "{} records came out the same; then record {} differs in {}\n  the log has    {}\n  the replay has {}\n",
            r.agreed, d.index, d.field, d.log, d.replay
        )),
    }
    out
}
