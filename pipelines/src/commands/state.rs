//! `avouch state`: what a pipeline's checkpoints are, which of them can be used, and what is inside. Changes nothing, and
//! may be asked while the pipeline runs.

mod events;
mod place;
mod render;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use avouch_connectors::store::{CheckpointReport, StoreError};
use clap::{Args, Subcommand, ValueEnum};
use thiserror::Error;

use super::fail;
use crate::runtime::RuntimeError;
use place::Place;

/// Look at checkpoints: which there are, which are damaged, what is inside. Changes nothing.
#[derive(Debug, Clone, Args)]
pub struct StateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// All checkpoints of all lanes, newest first, and whether each can be used. Exit code 1 if one cannot
    List(ListArgs),
    /// What is inside one checkpoint: devices, windows, watermark, counters, cursors, files. Exit code 1 if it cannot be used
    Show(ShowArgs),
    /// What happened to a lane besides rows: ticks, changes of reference tables, devices forgotten. A replay needs them
    Events(events::EventsArgs),
}

#[derive(Debug, Clone, Args)]
struct ListArgs {
    /// The pipeline file, a state directory (of one lane, one pipeline or several), or an s3:// URL (credentials: AWS_*)
    #[arg(value_name = "PIPELINE.toml|DIR|URL")]
    place: String,

    /// Download every object of an object store and compare it with its digest. Directories are always read in full
    #[arg(long)]
    verify: bool,

    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Args)]
struct ShowArgs {
    /// The pipeline file, a state directory (of one lane or one pipeline), or an s3:// URL (credentials: AWS_*)
    #[arg(value_name = "PIPELINE.toml|DIR|URL")]
    place: String,

    /// The lane, which is the source's partition
    #[arg(long, value_name = "N")]
    lane: i32,

    /// Number of the checkpoint; the newest that can be used if not given
    #[arg(long, value_name = "SEQ")]
    checkpoint: Option<u64>,

    /// Download every object of an object store and compare it with its digest. Directories are always read in full
    #[arg(long)]
    verify: bool,

    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How the answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Why there is nothing to show.
#[derive(Debug, Error)]
enum StateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("{place}: {why}")]
    Place { place: String, why: String },
    #[error("{place}: there is no lane {lane}; there are {there}")]
    NoLane { place: String, lane: i32, there: String },
    #[error("lane {lane} has no checkpoint {seq}; it has {there}")]
    NoCheckpoint { lane: i32, seq: u64, there: String },
    #[error("lane {lane} has no checkpoint that can be used; `avouch state list` says why")]
    NoneUsable { lane: i32 },
    #[error("{0}")]
    Pipeline(String),
}

/// A lane and its checkpoints.
#[derive(Debug)]
struct LaneState {
    pipeline: String,
    lane: i32,
    place: String,
    checkpoints: Vec<CheckpointReport>,
}

/// Lists or shows. Exit code 0 if all that was asked for can be used.
pub fn run(args: &StateArgs) -> ExitCode {
    let (json, outcome) = match &args.what {
        What::List(a) => (a.format == Format::Json, list(a)),
        What::Show(a) => (a.format == Format::Json, show(a)),
        What::Events(a) => (a.json(), events::events(a)),
    };
    match outcome {
        Ok((text, good)) => {
            print!("{text}");
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(e) => fail(json, e),
    }
}

fn list(args: &ListArgs) -> Result<(String, bool), StateError> {
    let lanes = Place::find(&args.place)?.lanes(None, args.verify)?;
    let good = lanes.iter().flat_map(|l| &l.checkpoints).all(|c| c.damaged.is_none());
    let text = match args.format {
        Format::Text => render::list(&lanes),
        Format::Json => render::list_json(&lanes),
    };
    Ok((text, good))
}

fn show(args: &ShowArgs) -> Result<(String, bool), StateError> {
    let lanes = Place::find(&args.place)?.lanes(Some(args.lane), args.verify)?;
    let Some(lane) = lanes.first() else {
        return Err(StateError::NoLane { place: args.place.clone(), lane: args.lane, there: "none".into() });
    };
    if let Some(other) = lanes.get(1) {
        let why = format!("holds the pipelines {} and {}; name one of them", lane.pipeline, other.pipeline);
        return Err(StateError::Place { place: args.place.clone(), why });
    }
    let chosen = match args.checkpoint {
        Some(seq) => lane.checkpoints.iter().find(|c| c.number == seq).ok_or_else(|| StateError::NoCheckpoint {
            lane: args.lane,
            seq,
            there: lane.checkpoints.iter().map(|c| c.number.to_string()).collect::<Vec<_>>().join(", "),
        })?,
        None => {
            lane.checkpoints.iter().find(|c| c.damaged.is_none()).ok_or(StateError::NoneUsable { lane: args.lane })?
        }
    };
    let text = match args.format {
        Format::Text => render::show(lane, chosen),
        Format::Json => render::show_json(lane, chosen),
    };
    Ok((text, chosen.damaged.is_none()))
}
