//! `avouch model`: what is in a model file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::fail;
use crate::lang::hex;

/// Look at a model file.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done with a model file.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Show a model's card: data, features, options, calibration. The file is checked whole before anything is shown
    Show(ShowArgs),
}

/// What `avouch model show` needs.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// The model file
    #[arg(value_name = "FILE.model")]
    pub file: PathBuf,

    /// Print the card as JSON, with the file's hash
    #[arg(long)]
    pub json: bool,
}

/// Shows. Exit code 0 if the file is a model that this program would score with.
pub fn run(args: &ModelArgs) -> ExitCode {
    let Action::Show(args) = &args.action;
    let place = args.file.display();
    let bytes = match std::fs::read(&args.file) {
        Ok(bytes) => bytes,
        Err(e) => return fail(args.json, format!("{place}: {e}")),
    };
    // Loading checks the body, too, which the card alone does not show.
    if let Err(e) = avouch_models::load(&bytes) {
        return fail(args.json, format!("{place}: {e}"));
    }
    let model = match avouch_models::file::open(&bytes) {
        Ok(model) => model,
        Err(e) => return fail(args.json, format!("{place}: {e}")),
    };
    if args.json {
        let card: serde_json::Value = serde_json::from_str(&model.card_json).unwrap_or_default();
        let bytes = bytes.len();
        println!(
            "{}",
            json!({ "file": args.file, "sha256": hex(&model.hash), "kind": model.kind, "bytes": bytes, "card": card })
        );
    } else {
        println!(
            "{}\n`{place}`: {}, {} bytes, SHA-256 {}",
            model.card.to_markdown(),
            model.kind,
            bytes.len(),
            hex(&model.hash)
        );
    }
    ExitCode::SUCCESS
}
