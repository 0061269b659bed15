//! Avouch's engine: pure and deterministic. No I/O, no clock, no randomness of its own; time enters as data.
//!
//! ```text
//!   records ─ decode ─ admit ─ sql ─ window ─ model ─► verdict ─► log ─► bundle
//!             └─ ingest ─┘    └────── lane ─────┘         │        │
//!                 └─► dead_letter                         └ codec ─┘  the one encoding under every hash
//! ```
//!
//! Start at [`lane`]: everything before it serves one step of it, everything after it is about what it gives. [`spec`] is
//! what a lane is made of, [`plan`] makes it run, [`model`] is what a model must be able to do, [`control`] decides when to
//! checkpoint, deliver and anchor. ARCHITECTURE.md lists what must stay absent here.

pub mod admit;
pub mod audit;
pub mod bundle;
pub mod codec;
pub mod control;
pub mod dead_letter;
pub mod decide;
pub mod decode;
pub mod device;
pub mod event;
pub mod identity;
pub mod idle;
pub mod ingest;
pub mod label;
pub mod lane;
pub mod log;
pub mod migrate;
pub mod model;
pub mod plan;
pub mod reference;
pub mod replay;
mod sha256;
pub mod spec;
pub mod sql;
pub mod verdict;
pub mod window;
