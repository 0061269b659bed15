//! Everything in Avouch that touches the outside, one room an outside world, each behind a cargo feature.
//!
//! ```text
//!   kafka ─► (a lane of avouch-engine) ─► store ─┬─► kafka      sinks, with a cursor in the transaction
//!   files ─┤                                     ├─► files      archive of Parquet, dead letters
//!   mqtt ─► journal                              ├─► http       Alertmanager, webhooks
//!                                                └─► ethereum   anchors, from a journal
//!   http: metrics and health of the process        delivery: how a sink fails
//!   published, witness: the log, as strangers read it and vouch for it
//! ```
//!
//! Nothing here decides what a verdict is. `store` has no feature: whoever reads a log needs it.

pub mod delivery;
#[cfg(feature = "ethereum")]
pub mod ethereum;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "mqtt")]
pub mod journal;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "mqtt")]
pub mod mqtt;
#[cfg(feature = "http")]
pub mod published;
#[cfg(feature = "http")]
pub mod schema_registry;
pub mod store;
#[cfg(feature = "http")]
pub mod witness;
