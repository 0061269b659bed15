//! A pipeline over history: its whole lane over files, in memory, without network, clock or keys.
//!
//! ```text
//!   files ─ rows of JSON ─ records (offset, timestamp, key) ─┬─► lane 0 ─┐
//!           in file order,   by arrival or event time        ├─► lane 1 ─┼─► Piece: rows of steps, verdicts, early results,
//!           or by time                                       └─► …      ─┘          dead letters, events
//! ```
//!
//! It is the engine's own lane that runs, so what it gives is what a run would give of the same records: `avouch test` and
//! backtests rest on that. The same files, options, plan and secret give the same pieces.
//!
//! **Records.** Rows of CSV and Parquet become JSON objects. A line of NDJSON is a record's value as it stands, also one
//! that is no JSON; empty lines are passed over. The key is the device, as `avouch produce` sends it. The timestamp is the
//! event time, so that no row is from the future, or a column of arrival times; a row that has none that can be read takes
//! that of the row before (of the first row: 0). Offsets count from 0 in each lane. Whatever the source's format is, values
//! are JSON here.
//!
//! **Lanes.** One, or as many as a topic has partitions: a row goes to the one that Kafka's default partitioner gives its
//! key. Rows without a device go to the first.
//!
//! **The end.** `avouch run --until-end` ends with the last record, and windows that the watermark has not passed stay
//! open in its checkpoint. So does this, unless [`Ending`] says otherwise.
//!
//! ```no_run
//! use avouch::history::{History, HistoryOptions};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let pipeline = avouch::lang::Pipeline::load("pipeline.toml").map_err(|d| d.render_text(false))?;
//! # let plan = avouch::lang::plan(&pipeline, &avouch::lang::Models::new()).map_err(|d| d.render_text(false))?;
//! let mut options = HistoryOptions::of(&pipeline, ["fixtures/*.jsonl"]);
//! options.watch = vec!["features".into()];
//! let mut history = History::open(plan, options)?;
//! while let Some(piece) = history.next()? {
//!     println!("{} verdicts, {} dead letters", piece.output.verdicts.len(), piece.output.dead.len());
//! }
//! println!("{:?}", history.counters());
//! # Ok(())
//! # }
//! ```

mod options;
mod runner;

pub use options::{Ending, HistoryOptions};
pub use runner::{History, HistoryError, Piece};
