//! `avouch erase`: takes records out of the verdict logs, for good.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use avouch_engine::decode::{format_timestamp, parse_timestamp};
use clap::Args;
use serde_json::json;

use super::fail;
use crate::erasure::{Chosen, Done, EraseError, Erasing, Lanes, OfLane, What, carry_out, choose, waiting_sinks};
use crate::lang::{Pipeline, SinkKind, plural};
use crate::runtime::state_dir;

/// Erase records of a device, of a period, or single ones from the verdict logs
///
/// In each one's place stays its entry, a hash, so that the log, its proofs and its anchors stay valid; the record, and the key that its
/// salt was made from, are gone. It cannot be taken back. Stop the pipeline first. What was broken off is finished by running it again.
///
/// Exit code 0 if all is erased, 1 if not, 2 if the command line is wrong.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  avouch erase pumps.toml --device pump-7
  avouch erase pumps.toml --from 2025-01-01T00:00:00Z --to 2025-02-01T00:00:00Z --yes
  avouch erase pumps.toml --lane 0 --index 1041 --index 2000-2099
  avouch erase pumps.toml                        finishes one that was broken off")]
pub struct EraseArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// Those about this device, as the readings name it, labels among them
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,

    /// Those whose windows reach beyond this time, RFC 3339
    #[arg(long, value_name = "TIME", requires = "to", value_parser = time)]
    pub from: Option<u64>,

    /// … and begin before this one
    #[arg(long, value_name = "TIME", requires = "from", value_parser = time)]
    pub to: Option<u64>,

    /// Those with this index in the lane's log, or with one of these; may be given again
    #[arg(long, value_name = "N|N-M", requires = "lane", value_parser = indices)]
    pub index: Vec<RangeInclusive<u64>>,

    /// Only those of this lane
    #[arg(long, value_name = "PARTITION")]
    pub lane: Option<i32>,

    /// Where to write what is left of a secret that the pipeline file gives. Put it in the old one's place
    #[arg(long, value_name = "FILE")]
    pub secret_out: Option<PathBuf>,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Print JSON
    #[arg(long, requires = "yes")]
    pub json: bool,
}

fn time(text: &str) -> Result<u64, String> {
    let time = parse_timestamp(text.as_bytes()).ok_or("this is not a time such as 2026-01-07T08:00:00Z")?;
    u64::try_from(time).map_err(|_| "this is before 1970, where no window is".to_owned())
}

fn indices(text: &str) -> Result<RangeInclusive<u64>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(first..=last),
        (Ok(_), Ok(_)) => Err("the last one is before the first".into()),
        _ => Err("say an index such as 1041, or the first and the last such as 2000-2099".into()),
    }
}

impl EraseArgs {
    fn what(&self) -> Option<What> {
        let within = self.from.zip(self.to);
        let some = self.device.is_some() || within.is_some() || !self.index.is_empty();
        some.then(|| What { device: self.device.clone(), within, indices: self.index.clone() })
    }
}

/// Erases. See [`EraseArgs`].
pub fn run(args: &EraseArgs) -> ExitCode {
    let pipeline = match Pipeline::load(&args.file) {
        Ok(p) => p,
        Err(diags) => {
            eprint!("{}", diags.render_text(super::check::colour()));
            return ExitCode::FAILURE;
        }
    };
    match erase(args, &pipeline) {
        Ok(Outcome::Erased(done, secret_out)) => {
            let what = json!({ "records": done.records, "reasons": done.reasons, "secret_bytes": done.secret_bytes });
            println!("{}", if args.json { what.to_string() } else { erased(&done, secret_out.as_deref()) });
            ExitCode::SUCCESS
        }
        Ok(Outcome::Declined) => {
            println!("nothing was erased");
            ExitCode::FAILURE
        }
        Err(e) => fail(args.json, e),
    }
}

enum Outcome {
    Erased(Done, Option<PathBuf>),
    Declined,
}

fn erase(args: &EraseArgs, pipeline: &Pipeline) -> Result<Outcome, EraseError> {
    let refused = |why: String| Err(EraseError::Refused(why));
    let state = state_dir(pipeline);
    let begun = Erasing::read(&state)?;
    let what = args.what();
    if begun.is_none() && what.is_none() {
        return refused("say what to erase: --device, --from and --to, or --lane and --index".into());
    }
    if what.as_ref().and_then(|w| w.within).is_some_and(|(from, to)| to <= from) {
        return refused("--to is not after --from".into());
    }
    let mut lanes = Lanes::open(pipeline)?;
    if let Some(erasing) = begun {
        let done = carry_out(pipeline, &erasing, &mut lanes, &mut |_| Ok(()))?;
        if !args.json {
            print!("an erasure had been broken off and is finished: ");
        }
        if what.is_none() {
            return Ok(Outcome::Erased(done, erasing.secret_out));
        }
        if !args.json {
            println!("{}", erased(&done, erasing.secret_out.as_deref()));
        }
        // Its stores have made checkpoints meanwhile.
        drop(lanes);
        lanes = Lanes::open(pipeline)?;
    }
    let Some(what) = what else { return refused("say what to erase".into()) };

    let mut chosen = Vec::new();
    let (mut erased_before, mut looked_through) = (0, Vec::new());
    for (lane, store) in lanes.each().filter(|(lane, _)| args.lane.is_none_or(|l| l == *lane)) {
        let reader = store.reader();
        let of = choose(&what, lane, &reader)?;
        erased_before += of.erased;
        looked_through.push(lane.to_string());
        if of.indices.is_empty() {
            continue;
        }
        if let Some(why) = store.not_erasable() {
            return refused(format!("lane {lane}: {why}"));
        }
        if let Some((sink, at)) = waiting_sinks(pipeline, &of, &reader)?.first() {
            return refused(format!(
                "the sink {sink} has taken the records of lane {lane} up to {at} only, and would never get those that are to be erased, up to \
                 {}: let the pipeline run until it has, or take the sink out of the file",
                of.indices.last().unwrap_or(at)
            ));
        }
        chosen.push(of);
    }
    if chosen.is_empty() {
        let lanes = match (args.lane, looked_through.len()) {
            (Some(lane), 0) => return refused(format!("there is no lane {lane} in {}", state.display())),
            (None, 0) => {
                return refused(format!("there is no log in {}; nothing has been judged yet", state.display()));
            }
            _ => looked_through.join(", "),
        };
        let before = match erased_before {
            0 => String::new(),
            n => format!(" ({} erased before)", plural(n as usize, "record")),
        };
        return refused(format!(
            "no record in the logs of lane {lanes} fits{before}; `avouch query` lists those there are"
        ));
    }
    if let Some(path) = &args.secret_out
        && path.exists()
    {
        return refused(format!("{} exists already; choose another file", path.display()));
    }
    let secret_out = match (&pipeline.secret, &args.secret_out) {
        (None, Some(_)) => {
            return refused(
                "--secret-out is for a secret that the pipeline file gives; this one is kept beside the lanes".into(),
            );
        }
        (_, out) => out
            .as_ref()
            .map(std::path::absolute)
            .transpose()
            .map_err(|source| EraseError::File { path: args.file.clone(), source })?,
    };
    if pipeline.secret.is_some() && secret_out.is_none() {
        return refused(
            "the secret of this pipeline is in its file, which is not mine to write: say --secret-out FILE, and put what is written there \
             in its place"
                .into(),
        );
    }
    if !args.json {
        print!("{}", overview(&chosen, pipeline));
    }
    if !args.yes && !confirmed(chosen.iter().map(|c| c.indices.len()).sum())? {
        return Ok(Outcome::Declined);
    }
    let erasing = Erasing::new(
        chosen.iter().map(|c| OfLane::new(c.lane, &c.indices)).collect(),
        chosen.iter().flat_map(|c| c.reasons.iter().cloned()).collect(),
        secret_out,
    );
    let done = carry_out(pipeline, &erasing, &mut lanes, &mut |_| Ok(()))?;
    Ok(Outcome::Erased(done, erasing.secret_out))
}

/// What goes, and what cannot be reached.
fn overview(chosen: &[Chosen], pipeline: &Pipeline) -> String {
    let mut out = String::new();
    for c in chosen {
        let (first, last) = (c.indices.first().copied().unwrap_or(0), c.indices.last().copied().unwrap_or(0));
        let labels = match c.labels {
            0 => String::new(),
            n => format!(", {} among them", plural(n as usize, "label")),
        };
        let _ = writeln!(
            out,
            "lane {}: {} of {} in {}, from {first} to {last}, windows from {} to {}{labels}",
            c.lane,
            plural(c.indices.len(), "record"),
            c.size,
            c.log,
            format_timestamp(c.windows.0 as i64),
            format_timestamp(c.windows.1 as i64)
        );
    }
    out.push_str("Their entries stay, so that the log stays valid. Out of reach, and yours to see to:\n");
    for sink in &pipeline.sinks {
        let what = match &sink.kind {
            SinkKind::Kafka(k) => format!("the topic {}", k.topic),
            SinkKind::Parquet(_) => "the Parquet archive".into(),
            SinkKind::Alertmanager(_) => "Alertmanager".into(),
            SinkKind::Webhook(_) => "who answers the webhook".into(),
            SinkKind::Stdout => "standard output".into(),
        };
        let _ = writeln!(out, "  - what the sink {} was given: {what}", sink.name.value);
    }
    let _ = writeln!(out, "  - the readings themselves ({})", pipeline.source.reads());
    out.push_str("  - dead letters, which hold raw readings: in the lane, and where they were sent\n");
    out.push_str(
        "  - labels as the lane was given them (its events), and what a lane remembers of a device that still sends\n",
    );
    out.push_str("  - what sinks said of records they refused\n");
    out.push_str("  - exports, bundles, backups, and copies of the secret\n");
    out
}

fn erased(done: &Done, secret_out: Option<&Path>) -> String {
    let mut out = format!("{} erased", plural(done.records as usize, "record"));
    if done.reasons > 0 {
        let _ = write!(out, ", with {}", plural(done.reasons as usize, "reason"));
    }
    let _ = match secret_out {
        None => write!(out, "; the secret is without their keys ({} bytes). Destroy its copies", done.secret_bytes),
        Some(path) => write!(
            out,
            "; what is left of the secret is in {} ({} bytes). Put it in the old one's place and destroy that: until then the keys are \
             still there",
            path.display(),
            done.secret_bytes
        ),
    };
    out
}

fn confirmed(records: usize) -> Result<bool, EraseError> {
    if !std::io::stdin().is_terminal() {
        let why = format!("{} would be erased, for good; say --yes", plural(records, "record"));
        return Err(EraseError::Refused(why));
    }
    eprint!("erase {}, for good? [y/N] ", plural(records, "record"));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.map_err(|source| EraseError::File { path: PathBuf::from("standard input"), source })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
