//! `avouch dead`: dead letters listed, shown, and given back to the source after a fix.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use avouch_engine::dead_letter::DeadReason;
use avouch_engine::decode::{format_timestamp, parse_timestamp};
use clap::{Args, Subcommand};
use serde_json::json;

use super::fail;
use crate::dead::{DeadError, Filter, Letter, Requeue, each, printable};
use crate::lang::{Pipeline, parse_duration, plural};
use crate::runtime::lanes_here;

/// Look at dead letters, and give them back to the source once what killed them is mended
#[derive(Debug, Clone, Args)]
pub struct DeadArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// How many there are by reason, and the last of them
    List(ListArgs),
    /// One letter: where it came from, why it died, and its bytes
    Show(ShowArgs),
    /// Write letters back to the source, each once: key and value as they were. For files and MQTT, write a file of JSON lines
    Requeue(RequeueArgs),
}

#[derive(Debug, Clone, Args)]
struct Which {
    /// Only those that died for this reason; may be given several times
    #[arg(long = "reason", value_name = "REASON", value_parser = reason)]
    reasons: Vec<DeadReason>,

    /// Only those whose record is not older: a time such as 2026-01-07T08:00:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<i64>,

    /// Only those of this device
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

#[derive(Debug, Clone, Args)]
struct ListArgs {
    #[command(flatten)]
    which: Which,

    /// How many letters to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Args)]
struct ShowArgs {
    /// Where it came from, as `list` shows it: partition/offset, or partition/offset/row
    #[arg(value_name = "PARTITION/OFFSET")]
    place: String,

    /// Show bytes in hexadecimal, also where they are text
    #[arg(long)]
    hex: bool,

    /// Print JSON
    #[arg(long, conflicts_with = "hex")]
    json: bool,
}

#[derive(Debug, Clone, Args)]
struct RequeueArgs {
    #[command(flatten)]
    which: Which,

    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn reason(text: &str) -> Result<DeadReason, String> {
    let names = DeadReason::ALL.map(DeadReason::name);
    DeadReason::ALL.into_iter().find(|r| r.name() == text).ok_or_else(|| {
        match crate::lang::closest(text, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the reasons are {}", crate::lang::list(&names)),
        }
    })
}

fn since(text: &str) -> Result<i64, String> {
    if let Some(ms) = parse_timestamp(text.as_bytes()) {
        return Ok(ms);
    }
    let ago = parse_duration(text).map_err(|_| "write a time such as 2026-01-07T08:00:00Z, or 2h".to_owned())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    Ok(now.saturating_sub(ago))
}

impl Which {
    fn filter(&self, pipeline: &Pipeline) -> Filter {
        Filter {
            reasons: self.reasons.clone(),
            since: self.since,
            device: self.device.clone(),
            key: pipeline.source.key.value.clone(),
        }
    }
}

/// Lists, shows or gives back.
pub fn run(args: &DeadArgs) -> ExitCode {
    let pipeline = match Pipeline::load(&args.file) {
        Ok(pipeline) => pipeline,
        Err(diags) => {
            eprint!("{}", diags.render_text(super::check::colour()));
            return ExitCode::FAILURE;
        }
    };
    let (json, outcome) = match &args.what {
        What::List(a) => (a.json, list(&pipeline, a).map_err(|e| e.to_string())),
        What::Show(a) => (a.json, show(&pipeline, a).map_err(|e| e.to_string())),
        What::Requeue(a) => (a.json, requeue(&pipeline, a)),
    };
    match outcome {
        Ok(text) => {
            // A closed pipe is the reader's choice, not an error of ours.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(e) => fail(json, e),
    }
}

fn list(pipeline: &Pipeline, args: &ListArgs) -> Result<String, DeadError> {
    let mut counts = [0u64; DeadReason::ALL.len()];
    let mut last: VecDeque<Letter> = VecDeque::new();
    each(&lanes_here(pipeline)?, &args.which.filter(pipeline), |letter| {
        counts[letter.letter.reason.index()] += 1;
        last.push_back(letter);
        if last.len() > args.limit {
            last.pop_front();
        }
        Ok::<(), DeadError>(())
    })?;
    let topic = pipeline.source.log_name();
    let by_reason = || DeadReason::ALL.iter().map(|r| (r.name(), counts[r.index()])).filter(|(_, n)| *n > 0);
    let all: u64 = counts.iter().sum();
    if args.json {
        let reasons: serde_json::Map<String, serde_json::Value> =
            by_reason().map(|(name, n)| (name.to_owned(), n.into())).collect();
        let letters: Vec<_> = last.iter().map(|l| l.json(&topic)).collect();
        return Ok(format!("{}\n", json!({ "count": all, "reasons": reasons, "letters": letters })));
    }
    if all == 0 {
        return Ok("no dead letters\n".to_owned());
    }
    let mut out = format!("{} from {topic}\n", plural(all as usize, "dead letter"));
    by_reason().for_each(|(name, n)| out.push_str(&format!("{n:>8}  {name}\n")));
    if all > last.len() as u64 && !last.is_empty() {
        out.push_str(&format!("\nthe last {}:\n", last.len()));
    } else if !last.is_empty() {
        out.push('\n');
    }
    let reasons = last.iter().map(|l| l.letter.reason.name().len()).max().unwrap_or(0).max(11);
    let key = |l: &Letter| l.letter.key.as_deref().map_or_else(String::new, |k| printable(&String::from_utf8_lossy(k)));
    let width = |f: &dyn Fn(&Letter) -> usize| last.iter().map(f).max().unwrap_or(0);
    let (places, keys) = (width(&|l| l.place().len()), width(&|l| key(l).chars().count()).min(24));
    for l in &last {
        let time = format_timestamp(l.letter.timestamp);
        out.push_str(&format!(
            "{:<places$}  {time}  {:<reasons$}  {:<keys$}  {}\n",
            l.place(),
            l.letter.reason.name(),
            key(l),
            printable(&l.letter.detail)
        ));
    }
    Ok(out)
}

fn show(pipeline: &Pipeline, args: &ShowArgs) -> Result<String, DeadError> {
    let mut found = None;
    each(&lanes_here(pipeline)?, &Filter::default(), |letter| {
        if found.is_none() && letter.place() == args.place {
            found = Some(letter);
        }
        Ok::<(), DeadError>(())
    })?;
    let letter = found.ok_or_else(|| DeadError::NoLetter { place: args.place.clone() })?;
    let topic = pipeline.source.log_name();
    Ok(match args.json {
        true => format!("{}\n", letter.json(&topic)),
        false => letter.text(&topic, args.hex),
    })
}

fn requeue(pipeline: &Pipeline, args: &RequeueArgs) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot start the async runtime: {e}"))?;
    let plan = runtime.block_on(Requeue::plan(pipeline, &args.which.filter(pipeline))).map_err(|e| e.to_string())?;
    let (count, target) = (plan.letters().len(), plan.target());
    let (before, unfit, late) = (plan.before, plan.unfit, plan.late);
    let mut left = Vec::new();
    if before > 0 {
        left.push(format!("{} given back before", plural(before, "letter")));
    }
    if late > 0 {
        left.push(format!(
            "{} would be late again (--reason late gives them back all the same)",
            plural(late, "letter")
        ));
    }
    if unfit > 0 {
        left.push(format!(
            "{} cannot be written back: rows of larger records, or not one line of text",
            plural(unfit, "letter")
        ));
    }
    let given = if args.dry_run || count == 0 {
        0
    } else {
        if !args.yes && !confirmed(count, &target)? {
            return Err("nothing was written".to_owned());
        }
        plan.give().map_err(|e| e.to_string())?.given
    };
    if args.json {
        let summary = json!({
            "requeued": given, "meant": count, "to": target, "dry_run": args.dry_run,
            "given_before": before, "late": late, "unfit": unfit,
        });
        return Ok(format!("{summary}\n"));
    }
    let mut out = match (count, args.dry_run) {
        (0, _) => "nothing to give back\n".to_owned(),
        (n, true) => format!("{} would be written to {target}\n", plural(n, "letter")),
        (n, false) => format!("{} written to {target}\n", plural(n, "letter")),
    };
    if given > 0 && !target.starts_with("topic ") {
        out.push_str("move the file to where the source finds it, or publish its lines\n");
    }
    left.iter().for_each(|l| out.push_str(&format!("left out: {l}\n")));
    Ok(out)
}

fn confirmed(count: usize, target: &str) -> Result<bool, String> {
    if !std::io::stdin().is_terminal() {
        return Err(format!("{} would be written to {target}; say --yes", plural(count, "letter")));
    }
    eprint!("write {} to {target}? [y/N] ", plural(count, "letter"));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| e.to_string())?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
