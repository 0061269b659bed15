//! `avouch explain`: what a pipeline's steps do and keep.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::fail;
use crate::explain::{Explanation, text};
use crate::lang::{self, Models, Pipeline};

/// Explain a pipeline's steps: plan, columns, state, rules of time, and why they give the same bytes everywhere
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// Only this step, or the source
    pub step: Option<String>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Explains the pipeline. Exit code 1 if the file has mistakes; its models need not be there.
pub fn run(args: &ExplainArgs) -> ExitCode {
    let planned = Pipeline::load(&args.file).and_then(|p| Ok((lang::plan(&p, &Models::new())?, p)));
    let (plan, pipeline) = match planned {
        Ok(planned) => planned,
        Err(diags) => {
            eprint!("{}", diags.render_text(super::check::colour()));
            return ExitCode::FAILURE;
        }
    };
    let plan = match lang::with_early(&pipeline, plan) {
        Ok(plan) => plan,
        Err(e) => return fail(args.json, e),
    };
    let mut explained = Explanation::of(&pipeline, &plan);
    if let Some(step) = &args.step {
        explained = match explained.only(step) {
            Ok(explained) => explained,
            Err(e) => return fail(args.json, e),
        };
    }
    let shown = match args.json {
        true => match serde_json::to_string_pretty(&explained) {
            Ok(json) => json + "\n",
            Err(e) => return fail(true, e),
        },
        false => text(&explained),
    };
    // A closed pipe is the reader's choice, not an error of ours.
    let _ = std::io::stdout().write_all(shown.as_bytes());
    ExitCode::SUCCESS
}
