//! `avouch export`: a whole log, for an auditor.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::fail;
use crate::handover::{Wanted, export};
use crate::lang::Pipeline;

/// Export a lane's whole log for an auditor: records, checkpoints, models, pipelines. The pipeline may be running.
#[derive(Debug, Clone, Args)]
pub struct ExportArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// Source partition of the log
    #[arg(long, value_name = "PARTITION", default_value_t = 0)]
    pub lane: i32,

    /// Fetch the records of the source as well, as far as it still has them: `avouch replay` needs them
    #[arg(long)]
    pub readings: bool,

    /// Directory to write; it must not exist
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Exports. Exit code 0 if all of it is there.
pub fn run(args: &ExportArgs) -> ExitCode {
    let pipeline = match Pipeline::load(&args.file) {
        Ok(p) => p,
        Err(diags) => {
            eprint!("{}", diags.render_text(super::check::colour()));
            return ExitCode::FAILURE;
        }
    };
    let wanted = Wanted { lane: args.lane, out: args.out.clone(), readings: args.readings };
    let made = match export(&pipeline, &wanted) {
        Ok(made) => made,
        Err(e) => return fail(args.json, e),
    };
    let head = &made.head;
    if args.json {
        println!(
            "{}",
            json!({
                "directory": args.out, "log": head.log, "size": head.size, "checkpoints": made.checkpoints,
                "events": made.events, "readings": made.readings,
            })
        );
        return ExitCode::SUCCESS;
    }
    let readings = match made.readings {
        Some(n) => format!(", {n} records of {}/{}", head.topic, head.partition),
        None => String::new(),
    };
    println!(
        "wrote {}: {} records of {}, {} signed checkpoints, {} events{readings}",
        args.out.display(),
        head.size,
        head.log,
        made.checkpoints,
        made.events
    );
    println!("audit it: avouch audit {} [--rpc URL --contract ADDRESS]", args.out.display());
    if made.readings.is_some() {
        println!("run it again: avouch replay {}", args.out.display());
    }
    ExitCode::SUCCESS
}
