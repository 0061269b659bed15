//! Avouch's pipelines: the language they are written in, the runtime that drives them, and the program's commands.

pub mod commands;
pub mod lang;
pub mod simulator;
pub mod runtime;
