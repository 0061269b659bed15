//! `avouch model`: what is in a model file, and its right to decide.

mod registry;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::fail;
use crate::lang::hex;
pub use registry::{ActivateArgs, ProposeArgs, RegisterArgs, RegistryArgs, RevokeArgs, StatusArgs};

/// Look at a model file, or say in a registry on chain when it may decide.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done with a model.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Show a model's card: data, features, options, calibration. The file is checked whole before anything is shown
    Show(ShowArgs),
    /// Make a registry of models on chain, or give its roles to others: one account proposes, another activates
    Register(RegisterArgs),
    /// Propose a model to a registry: its hash, and the digest of what it was trained on
    Propose(ProposeArgs),
    /// Let a proposed model decide, from now or later on; another account than the one that proposed it must
    Activate(ActivateArgs),
    /// End a model's right to decide, now and for good
    Revoke(RevokeArgs),
    /// Say whether a model may decide. Exit code 0 if it may, now
    Status(StatusArgs),
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

/// Does it. What is shown is a model that this program would score with, or the exit code is 1.
pub fn run(args: &ModelArgs) -> ExitCode {
    match &args.action {
        Action::Show(args) => show(args),
        Action::Register(args) => registry::register(args),
        Action::Propose(args) => registry::propose(args),
        Action::Activate(args) => registry::activate(args),
        Action::Revoke(args) => registry::revoke(args),
        Action::Status(args) => registry::status(args),
    }
}

fn show(args: &ShowArgs) -> ExitCode {
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
