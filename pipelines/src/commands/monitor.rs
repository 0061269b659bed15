//! `avouch monitor`: follows a published log and its anchors for years, and says when they contradict each other.

mod round;
mod verdicts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avouch_connectors::ethereum::Address;
use avouch_connectors::published::PublishedAt;
use avouch_engine::bundle::utc;
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::fail;
use crate::lang::parse_duration;
use round::{Kind, Round, Watcher};

/// Watch a published log and the chain: a fork, a gap, a checkpoint that is late, a model that nobody activated. Needs nothing of the
/// operator's but what is published.
#[derive(Debug, Clone, Args)]
pub struct MonitorArgs {
    /// Where the log is published: a URL such as http://host:9464/log/0, or a directory
    #[arg(value_name = "URL|DIR")]
    pub log: String,

    /// The log's verifier key, <name>+<id>+<key>: `key` beside `checkpoint`, which you compare with what the operator told you
    #[arg(long, value_name = "KEY")]
    pub key: String,

    /// JSON-RPC endpoint of the chain, one that you trust; of several, all must agree
    #[arg(long, value_name = "URL", requires = "contract", requires = "owner")]
    pub rpc: Vec<String>,

    /// The VerdictLog contract
    #[arg(long, value_name = "ADDRESS")]
    pub contract: Option<Address>,

    /// The account that owns the log
    #[arg(long, value_name = "ADDRESS")]
    pub owner: Option<Address>,

    /// Block to follow from: that of the contract's deployment
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub from_block: u64,

    /// How long a published record may wait for its anchor, and an anchored one for its publication
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub promise: i64,

    /// Verdicts as the pipeline delivers them, a JSON object a line, in a file that may grow: each must stand in the log, with no seq
    /// missing
    #[arg(long, value_name = "FILE")]
    pub verdicts: Option<PathBuf>,

    /// Address of the ModelRegistry contract: models of these verdicts must be active there
    #[arg(long, value_name = "ADDRESS", requires = "rpc", requires = "registry_owner", requires = "verdicts")]
    pub registry: Option<Address>,

    /// Whose registry of models it is
    #[arg(long, value_name = "ADDRESS")]
    pub registry_owner: Option<Address>,

    /// The owner's name for the registry
    #[arg(long, value_name = "NAME", default_value = "models")]
    pub registry_name: String,

    /// File in which it remembers what it has seen, so that a log that is rewritten while it is not running is noticed, too
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,

    /// How often to look
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub every: i64,

    /// Look once. Exit code 1 if there is an alarm
    #[arg(long)]
    pub once: bool,

    /// Print a JSON object a line
    #[arg(long)]
    pub json: bool,
}

fn duration(text: &str) -> Result<i64, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

/// Watches until it is told to stop. Exit code 1 if an alarm stood at the end.
pub fn run(args: &MonitorArgs) -> ExitCode {
    let log = match PublishedAt::new(&args.log, &args.key) {
        Ok(log) => log,
        Err(e) => return fail(args.json, e),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return fail(args.json, format!("cannot start the async runtime: {e}")),
    };
    let mut watcher = match Watcher::new(args.clone(), log) {
        Ok(watcher) => watcher,
        Err(e) => return fail(args.json, e),
    };
    match runtime.block_on(watch(args, &mut watcher)) {
        Ok(true) => ExitCode::FAILURE,
        Ok(false) => ExitCode::SUCCESS,
        Err(e) => fail(args.json, e),
    }
}

/// Whether an alarm stood at the end.
async fn watch(args: &MonitorArgs, watcher: &mut Watcher) -> Result<bool, String> {
    let fail = |e: std::io::Error| e.to_string();
    let mut term = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    let pause = Duration::from_millis(u64::try_from(args.every).unwrap_or(0).max(100));
    let mut before: Option<Round> = None;
    loop {
        let round = watcher.round(now_ms()).await?;
        tell(args.json, before.as_ref(), &round);
        let alarmed = !round.alarms.is_empty();
        before = Some(round);
        if args.once {
            return Ok(alarmed);
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = term.recv() => return Ok(alarmed),
            _ = interrupt.recv() => return Ok(alarmed),
        }
    }
}

/// Says what is new: alarms that began or ended, and where the log stands if it moved.
fn tell(as_json: bool, before: Option<&Round>, now: &Round) {
    let time = utc(u64::try_from(now_ms()).unwrap_or(0));
    let say = |event: &str, kind: Option<Kind>, text: &str| {
        if as_json {
            println!("{}", json!({ "time": time, "event": event, "kind": kind.map(Kind::name), "text": text }));
        } else {
            match kind {
                Some(kind) => println!("{time}  {:<6}  {}: {text}", event.to_uppercase(), kind.name()),
                None => println!("{time}  {event:<6}  {text}"),
            }
        }
    };
    let stood = |kind: &Kind| before.is_some_and(|b| b.alarms.contains_key(kind));
    for (kind, text) in &now.alarms {
        if before.and_then(|b| b.alarms.get(kind)) != Some(text) {
            say("alarm", Some(*kind), text);
        }
    }
    for kind in before.iter().flat_map(|b| b.alarms.keys()).filter(|k| stood(k) && !now.alarms.contains_key(k)) {
        say("ended", Some(*kind), "it no longer stands");
    }
    if before.is_none_or(|b| b.said != now.said) {
        say("state", None, &now.said);
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
