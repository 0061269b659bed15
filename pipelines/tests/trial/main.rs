//! Pipelines over files: the runner behind `avouch test`, the command itself, and `avouch new`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod history;
mod starting;
