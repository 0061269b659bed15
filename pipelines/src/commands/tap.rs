//! `avouch tap`: live rows at any step of a running pipeline.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use avouch_connectors::http::{LiveQuestion, Process};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::fail;
use crate::lang::Pipeline;
use crate::live_table::LiveTable;

/// Watch rows at a step of a running pipeline as they come: readings, rows, features or verdicts. Its `[http]` must have `tap =
/// true`
#[derive(Debug, Clone, Args)]
pub struct TapArgs {
    /// The pipeline file, for its `http.listen`; or the URL of the process, such as http://127.0.0.1:9464
    #[arg(value_name = "PIPELINE.toml|URL")]
    pub place: String,

    /// The source, or a step
    pub step: String,

    /// Only rows for which this holds: what stands after WHERE, such as "device = 'pump-7' AND temperature > 80"
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,

    /// End after so many rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,

    /// How rows are printed; if not given, a table on a terminal, and JSON elsewhere
    #[arg(long, value_enum)]
    pub format: Option<LiveFormat>,
}

/// How live rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LiveFormat {
    /// For a terminal: columns as wide as the rows that came first.
    Table,
    /// One object a line.
    Json,
}

/// The process that a pipeline file or a URL names. A file that cannot be read is reported here.
pub(super) fn process(place: &str) -> Result<Process, ExitCode> {
    let process = if place.contains("://") {
        Process::at(place)
    } else {
        match Pipeline::load_offline(Path::new(place)) {
            Ok(pipeline) => Process::listening(pipeline.http_listen),
            Err(diags) => {
                eprint!("{}", diags.render_text(super::check::colour()));
                return Err(ExitCode::FAILURE);
            }
        }
    };
    process.map_err(|e| fail(false, e))
}

/// Prints rows until the limit, Ctrl-C, or the end of the process.
pub fn run(args: &TapArgs) -> ExitCode {
    let process = match process(&args.place) {
        Ok(process) => process,
        Err(code) => return code,
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return fail(false, format!("cannot start the async runtime: {e}")),
    };
    match runtime.block_on(follow(args, &process)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(false, e),
    }
}

async fn follow(args: &TapArgs, process: &Process) -> Result<(), String> {
    let question = LiveQuestion { step: args.step.clone(), condition: args.condition.clone(), limit: args.limit };
    let mut rows = process.live(&question).await.map_err(|e| e.to_string())?;
    let terminal = std::io::stdout().is_terminal();
    let format = args.format.unwrap_or(if terminal { LiveFormat::Table } else { LiveFormat::Json });
    let mut printer = Printer { format, table: LiveTable::default(), dropped: 0, seen: 0, printed: 0 };
    while let Some(line) = rows.next().await.map_err(|e| e.to_string())? {
        let line: Value = serde_json::from_str(&line).map_err(|e| {
            format!("{} sends what is no row ({e}); is it a pipeline of this version?", process.address())
        })?;
        if let Some(row) = line.get("row") {
            if !printer.row(row) {
                // Who reads our output has gone.
                return Ok(());
            }
        } else if let Some(why) = printer.told(&line["tap"]) {
            let reached = args.limit == Some(printer.printed);
            return if reached { Ok(()) } else { Err(why) };
        }
    }
    Err(format!("{} has ended: the pipeline stopped", process.address()))
}

struct Printer {
    format: LiveFormat,
    table: LiveTable,
    dropped: u64,
    seen: u64,
    printed: u64,
}

impl Printer {
    /// Whether somebody still reads.
    fn row(&mut self, row: &Value) -> bool {
        self.printed += 1;
        let text = match self.format {
            LiveFormat::Json => format!("{row}\n"),
            LiveFormat::Table => self.table.line(row),
        };
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
    }

    /// What the process says beside rows; why it has ended, if it has.
    fn told(&mut self, said: &Value) -> Option<String> {
        if let Some(columns) = said["columns"].as_array() {
            self.table = LiveTable::new(columns.iter().filter_map(Value::as_str).map(str::to_owned).collect());
            eprintln!("tapping `{}`; Ctrl-C ends it", said["step"].as_str().unwrap_or_default());
        }
        if let Some(why) = said["error"].as_str() {
            eprintln!("rows that cannot be shown: {why}");
        }
        if let (Some(seen), Some(dropped)) = (said["seen"].as_u64(), said["dropped"].as_u64()) {
            if dropped > self.dropped {
                eprintln!("{} of {seen} rows were dropped: they came faster than they were read", dropped);
                self.dropped = dropped;
            } else if self.printed == 0 && seen > 0 && self.seen == 0 {
                eprintln!("{seen} rows came by, and the condition holds for none so far");
            }
            self.seen = seen;
        }
        said["end"].as_str().map(str::to_owned)
    }
}
