//! What the program does, a file for each subcommand.

pub mod audit;
pub mod backtest;
pub mod bench;
pub mod bundle;
pub mod chain_args;
pub mod check;
mod connect;
pub mod dead;
pub mod demo;
pub mod deploy;
pub mod device;
pub mod erase;
pub mod evaluate;
pub mod explain;
pub mod explain_verdict;
pub mod export;
pub mod graph;
pub mod label;
pub mod model;
pub mod monitor;
pub mod new;
pub mod produce;
pub mod query;
pub mod replay;
pub mod retrain;
pub mod rotate;
pub mod run;
mod sarif;
pub mod schema;
pub mod simulate;
pub mod state;
pub mod tap;
pub mod test;
pub mod top;
pub mod train;
mod train_rows;
pub mod verify;
pub mod witness;

use std::fmt::Display;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

/// What is logged: as RUST_LOG says, but never a span that names an endpoint's whole URL, where user and password may stand.
pub fn log_filter() -> EnvFilter {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,librdkafka=warn"));
    match "alloy_transport_http=off".parse() {
        Ok(without) => filter.add_directive(without),
        Err(_) => filter,
    }
}

/// Prints an error as people read it, or as one JSON object on standard output, and gives the exit code of failure.
pub(crate) fn fail(json: bool, error: impl Display) -> ExitCode {
    if json {
        println!("{}", serde_json::json!({ "error": error.to_string() }));
    } else {
        eprintln!("error: {error}");
    }
    ExitCode::FAILURE
}
