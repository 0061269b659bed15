//! Event-time windows: statistics per device and pane, and their firing when the watermark passes.

mod operator;
mod stats;

pub use operator::{Aggregate, Channel, ChannelValues, Fired, FiredWindow, WindowOperator};
pub use stats::{Layout, Needs, Statistic};
