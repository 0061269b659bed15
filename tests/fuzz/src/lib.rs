//! Everything that reads bytes from outside, fed with any bytes: no panic, no allocation that the input does not pay for, and
//! what was read is read the same again.
//!
//! `tests/fuzz/run [TARGET] [SECONDS]` fuzzes; `cargo test -p avouch-fuzz` runs the inputs kept under `tests/fuzz/seeds`. An
//! input that once broke something is kept there.

mod formats;
mod lanes;
mod parts;
mod signed;
mod stores;
#[path = "../../../engine/tests/sum_model/mod.rs"]
mod sum_model;
mod tables;

/// Something that reads bytes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its directory under `seeds`.
    pub name: &'static str,
    /// Reads the bytes; panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Well-formed inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "json", run: lanes::json, seeds: lanes::json_seeds },
    Target { name: "avro", run: lanes::avro, seeds: lanes::avro_seeds },
    Target { name: "avro_schema", run: lanes::avro_schema, seeds: lanes::avro_schema_seeds },
    Target { name: "protobuf", run: lanes::protobuf, seeds: lanes::protobuf_seeds },
    Target { name: "protobuf_descriptor", run: lanes::protobuf_descriptor, seeds: lanes::descriptor_seeds },
    Target { name: "arrow", run: lanes::arrow, seeds: lanes::arrow_seeds },
    Target { name: "lane_state", run: lanes::state, seeds: lanes::state_seeds },
    Target { name: "checkpoint", run: stores::checkpoint, seeds: stores::checkpoint_seeds },
    Target { name: "journal", run: stores::journal, seeds: stores::journal_seeds },
    Target { name: "records", run: parts::records, seeds: parts::record_seeds },
    Target { name: "log", run: parts::log, seeds: parts::log_seeds },
    Target { name: "bundle", run: parts::bundle, seeds: parts::bundle_seeds },
    Target { name: "model", run: parts::model, seeds: parts::model_seeds },
    Target { name: "pipeline", run: parts::pipeline, seeds: parts::pipeline_seeds },
    Target { name: "signed", run: signed::envelopes, seeds: signed::envelope_seeds },
    Target { name: "keys", run: signed::keys, seeds: signed::key_seeds },
    Target { name: "rows", run: tables::rows, seeds: tables::row_seeds },
];
