//! Event-time windows: statistics per device and pane, and their firing when the watermark passes.
//!
//! ```text
//!   row ─► pane of its device ─┬─ words      what statistics need, merged pane by pane   (stats, pairs, words)
//!          (panes, grid)       ├─ digest     SHA-256 of the rows, chained pane by pane
//!                              └─ gathered   rows kept whole, for what cannot be merged  (gather)
//!   watermark ─► a window ends ─► fold of its panes ─► one row of aggregates a device    (fold, session, operator)
//! ```

mod early;
mod fold;
mod gather;
mod grid;
mod operator;
mod pairs;
mod panes;
mod session;
mod size;
mod snapshot;
mod stats;
mod words;

pub use early::EarlyWindow;
pub use gather::{CellArray, CellType, GatherSpec, GatheredRows, Keep, Reduce};
pub use operator::{Aggregate, Column, Fired, FiredWindow, Inputs, WindowDefinition, WindowOperator};
pub use pairs::PairStatistic;
pub use size::PaneSize;
pub use stats::{Layout, Needs, Statistic};
pub use words::{ChannelValues, Shape};
