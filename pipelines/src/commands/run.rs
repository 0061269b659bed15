//! `avouch run`: drives a pipeline until it is told to stop.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use avouch_engine::dead_letter::DeadReason;
use avouch_engine::verdict::Severity;
use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::fail;
use crate::lang::{self, Pipeline};
use crate::runtime::{self, Reloads, RunOptions, Share, Summary};

/// Run a pipeline: read, judge, log, deliver and anchor. SIGTERM or Ctrl-C stops it after a last checkpoint; SIGHUP reloads
/// the pipeline file.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// Stop when every partition was read up to its present end, and everything is delivered and anchored (reads all
    /// partitions)
    #[arg(long)]
    pub until_end: bool,

    /// Read all partitions, whatever the consumer group says; without it, processes of one pipeline share them
    #[arg(long)]
    pub all_partitions: bool,

    /// Create the verdict and dead-letter topics that do not exist, with as many partitions as the source (and the topic it is
    /// repartitioned through, with its own)
    #[arg(long)]
    pub create_topics: bool,

    /// Reload the pipeline file also when it changes, not only on SIGHUP. A file that is wrong is said, and the pipeline goes on
    /// as it was
    #[arg(long)]
    pub reload_on_change: bool,

    /// The pipeline file has changed since its lanes were run last: carry them over. The state of steps that changed is
    /// dropped, and the log goes on under the new configHash
    #[arg(long)]
    pub accept_change: bool,

    /// Print a JSON summary at the end instead of text
    #[arg(long)]
    pub json: bool,
}

/// Runs the pipeline. Exit code 0 after a clean stop, 1 if it could not start or had to give up.
pub fn run(args: &RunArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return fail(args.json, format!("cannot start the async runtime: {e}")),
    };
    // Before anything takes long: until then a SIGHUP would end the process.
    let hangup = {
        let _inside = runtime.enter();
        signal(SignalKind::hangup())
    };
    let (pipeline, plan) = match load(&args.file) {
        Ok(loaded) => loaded,
        Err(diags) => {
            eprint!("{}", diags.render_text(super::check::colour()));
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(stop_on_signal(stop));
        let file = args.file.clone();
        let (ask, reloads) = Reloads::new(Arc::new(move || reload(&file)));
        if args.reload_on_change {
            tokio::spawn(runtime::ask_on_change(args.file.clone(), ask.clone()));
        }
        tokio::spawn(reload_on_signal(hangup, ask));
        runtime::run(
            &pipeline,
            plan,
            RunOptions {
                share: if args.until_end || args.all_partitions { Share::All } else { Share::Group },
                until_end: args.until_end,
                create_topics: args.create_topics,
                accept_change: args.accept_change,
            },
            reloads,
            stopped,
        )
        .await
    });
    // A write whose writer was fenced may never return; nothing depends on it any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match outcome {
        Ok(summary) if args.json => println!("{}", summary_json(&summary)),
        Ok(summary) => eprintln!("{}", summary_text(&summary)),
        Err(e) => return fail(args.json, e),
    }
    ExitCode::SUCCESS
}

/// Loads a pipeline with its models and plans it, printing warnings.
pub(crate) fn load(file: &Path) -> Result<(Pipeline, Arc<avouch_engine::plan::LanePlan>), lang::Diagnostics> {
    let pipeline = Pipeline::load(file)?;
    let (models, warnings) = lang::load_models(&pipeline)?;
    let plan = lang::with_early(&pipeline, lang::plan(&pipeline, &models)?).map_err(|e| {
        pipeline.error_at("plan", pipeline.name.span, e.to_string(), "correct `early` in the step's window")
    })?;
    eprint!("{}", pipeline.warnings.render_text(super::check::colour()));
    eprint!("{}", warnings.render_text(super::check::colour()));
    Ok((pipeline, Arc::new(plan)))
}

/// What a reload reads: the same as a start, and all that `avouch check` finds beside it.
fn reload(file: &Path) -> Result<(Pipeline, Arc<avouch_engine::plan::LanePlan>), String> {
    let said = |diags: lang::Diagnostics| format!("\n{}", diags.render_text(false));
    let pipeline = Pipeline::load(file).map_err(said)?;
    let found = lang::check(&pipeline);
    if found.has_errors() {
        return Err(said(found));
    }
    load(file).map_err(said)
}

async fn reload_on_signal(hangup: std::io::Result<Signal>, ask: mpsc::UnboundedSender<&'static str>) {
    let mut hangup = match hangup {
        Ok(hangup) => hangup,
        Err(e) => {
            tracing::error!(error = %e, "SIGHUP cannot be caught: it ends this process instead of reloading its file");
            return;
        }
    };
    while hangup.recv().await.is_some() && ask.send("SIGHUP").is_ok() {}
}

async fn stop_on_signal(stop: watch::Sender<bool>) {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("signals cannot be caught: only SIGKILL will stop this process, which it survives");
        // Dropping the sender would look like a stop.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    tracing::info!("stopping: last checkpoint, then deliveries");
    stop.send_replace(true);
    // A second signal does not wait.
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    std::process::exit(130);
}

/// The summary for machines.
pub(crate) fn summary_json(s: &Summary) -> Value {
    let c = &s.counters;
    let dead: serde_json::Map<String, Value> =
        DeadReason::ALL.iter().map(|r| (r.name().to_owned(), c.dead[r.index()].into())).collect();
    let verdicts: serde_json::Map<String, Value> =
        Severity::ALL.iter().map(|s| (s.name().to_owned(), c.verdicts[*s as usize].into())).collect();
    json!({
        "rows_in": c.rows_in,
        "rows_used": c.rows_used,
        "dead_letters": dead,
        "verdicts": verdicts,
        "log_size": s.log_size,
    })
}

fn summary_text(s: &Summary) -> String {
    let c = &s.counters;
    let dead: Vec<String> = DeadReason::ALL
        .iter()
        .filter(|r| c.dead[r.index()] > 0)
        .map(|r| format!("{} {}", c.dead[r.index()], r.name()))
        .collect();
    let dead = if dead.is_empty() { "none".to_owned() } else { dead.join(", ") };
    format!(
        "rows in {} = used {} + dead letters {} ({dead})\nverdicts {}: {} normal, {} warning, {} critical",
        c.rows_in,
        c.rows_used,
        c.dead.iter().sum::<u64>(),
        s.log_size,
        c.verdicts[0],
        c.verdicts[1],
        c.verdicts[2]
    )
}
