//! What a lane is made of, as plain data: the pipeline language builds it, the engine plans it.

use std::sync::Arc;

pub use crate::decide::{DecideSpec, Quantity, Threshold};
use crate::identity::SignatureIn;
use crate::model::Scorer;
use crate::reference::Reference;
use crate::verdict::Hash32;

/// The type of a reading's field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// UTF-8 text.
    Utf8,
    /// true or false.
    Bool,
    /// 64-bit signed integer.
    I64,
    /// 64-bit float; always finite in a reading.
    F64,
    /// Milliseconds since the Unix epoch, UTC. In JSON an integer of milliseconds, or a string in RFC 3339 or
    /// `YYYY-MM-DD HH:MM:SS[.fff]` (taken as UTC).
    TimestampMs,
}

impl FieldType {
    /// All, with their names in TOML.
    pub const ALL: [(&'static str, FieldType); 5] = [
        ("utf8", FieldType::Utf8),
        ("bool", FieldType::Bool),
        ("i64", FieldType::I64),
        ("f64", FieldType::F64),
        ("timestamp_ms", FieldType::TimestampMs),
    ];

    /// The name in TOML.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, t)| *t == self).map_or("?", |(n, _)| n)
    }

    /// The type of a name in TOML.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
    }
}

/// One field of a reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSpec {
    /// Name, in the payload and in SQL.
    pub name: String,
    /// Type.
    pub ty: FieldType,
    /// Whether a row without it dies (`!` in TOML).
    pub required: bool,
}

/// What a record's value is.
#[derive(Debug, Clone, Default)]
pub enum FormatSpec {
    /// One JSON object.
    #[default]
    Json,
    /// One Avro record in Confluent framing: a zero byte, the schema's id (4 bytes, big-endian), the body. The lane is
    /// told the schemas by [`crate::lane::Lane::learn_schema`].
    Avro,
    /// One Protobuf message.
    Protobuf(ProtobufSpec),
    /// An Arrow IPC stream: a schema and record batches, of any number of rows.
    Arrow,
}

/// Which Protobuf message a record's value is.
#[derive(Debug, Clone)]
pub struct ProtobufSpec {
    /// A serialized `google.protobuf.FileDescriptorSet`, as `protoc --include_imports --descriptor_set_out` writes it.
    pub descriptor: Arc<[u8]>,
    /// The message's full name, such as `acme.Reading`.
    pub message: String,
    /// What stands before the message.
    pub framing: Framing,
}

/// What stands before a Protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// Nothing.
    #[default]
    None,
    /// What Confluent's serializers write: a zero byte, the schema's id (4 bytes), and the path of indexes that leads to
    /// the message in its file. The id is not looked up; a path to another message is refused.
    Confluent,
}

/// Where readings come from and how they are admitted.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// The source's name, which is its table name in SQL.
    pub name: String,
    /// Topic, as it goes into evidence and input digests.
    pub topic: String,
    /// What a record's value is.
    pub format: FormatSpec,
    /// Fields, in the order that canonical rows and Arrow batches have them. (The pipeline language gives them by name.)
    pub fields: Vec<FieldSpec>,
    /// The field that names the device. Must be `utf8!`.
    pub key: String,
    /// Whether records are told apart by their key, which then must be the device: so it is where they were repartitioned.
    /// A row of another device than its record's key dies, since the lane of its device is another. (Not for Arrow.)
    pub keyed: bool,
    /// The field that carries event time. Must be `timestamp_ms!`.
    pub time: String,
    /// How far rows may be out of order, milliseconds: the watermark is the highest event time minus this.
    pub max_disorder_ms: i64,
    /// How far event time may be ahead of the record's broker timestamp, milliseconds.
    pub max_future_ms: i64,
    /// Devices idle for longer, by the watermark, are forgotten, milliseconds; `None`: never. At least as long as the
    /// longest window.
    pub device_ttl_ms: Option<i64>,
    /// Records with a larger value die undecoded.
    pub max_record_bytes: usize,
    /// Where readings carry their device's signature, if they must: see [`crate::identity`]. (Not for Arrow.)
    pub signature: Option<SignatureIn>,
}

/// Event-time windows, `[start, end)`; tumbling and sliding ones are aligned to the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowSpec {
    /// Back to back.
    Tumbling {
        /// Length in milliseconds.
        size_ms: i64,
    },
    /// Overlapping.
    Sliding {
        /// Length in milliseconds.
        size_ms: i64,
        /// Distance between starts in milliseconds; divides into `size_ms` or not.
        every_ms: i64,
    },
    /// A device's rows that follow each other by less than a gap.
    Session {
        /// A row that comes so many milliseconds after the one before begins a session.
        gap_ms: i64,
        /// The greatest length in milliseconds: a session is cut at the last multiple of the gap that is at most so long
        /// after its first row. At least the gap.
        max_ms: i64,
    },
}

impl WindowSpec {
    /// The greatest length in milliseconds.
    pub fn size_ms(self) -> i64 {
        match self {
            WindowSpec::Tumbling { size_ms } | WindowSpec::Sliding { size_ms, .. } => size_ms,
            WindowSpec::Session { max_ms, .. } => max_ms,
        }
    }
    /// Distance between starts in milliseconds; of sessions, the gap.
    pub fn every_ms(self) -> i64 {
        match self {
            WindowSpec::Tumbling { size_ms } => size_ms,
            WindowSpec::Sliding { every_ms, .. } => every_ms,
            WindowSpec::Session { gap_ms, .. } => gap_ms,
        }
    }
    /// How long a window lasts at least, milliseconds.
    pub fn shortest_ms(self) -> i64 {
        match self {
            WindowSpec::Session { gap_ms, .. } => gap_ms,
            fixed => fixed.size_ms(),
        }
    }
    /// Whether a row of time `t` is late: at this watermark all windows it could be in are closed, or, for sessions, may be.
    #[inline]
    pub fn is_closed(self, t: i64, watermark: i64) -> bool {
        match self {
            WindowSpec::Tumbling { size_ms } => t.div_euclid(size_ms) * size_ms + size_ms <= watermark,
            WindowSpec::Sliding { size_ms, every_ms } => t.div_euclid(every_ms) * every_ms + size_ms <= watermark,
            WindowSpec::Session { .. } => t < watermark,
        }
    }
}

/// A SQL step. Without a window it maps and filters rows; with one it aggregates per device and window.
#[derive(Debug, Clone)]
pub struct SqlStepSpec {
    /// The step's name, which is its table name for the steps after it.
    pub name: String,
    /// The source or step it reads.
    pub from: String,
    /// The query.
    pub sql: String,
    /// The window, if it aggregates.
    pub window: Option<WindowSpec>,
}

/// A model step: one verdict a window and device.
#[derive(Debug, Clone)]
pub struct ScoreStepSpec {
    /// The step's name.
    pub name: String,
    /// The windowed step it reads.
    pub from: String,
    /// The features given to the model, in the model's order.
    pub features: Vec<String>,
    /// The model.
    pub model: Arc<dyn Scorer>,
    /// How what the model says becomes a severity.
    pub decide: DecideSpec,
}

/// A whole lane.
#[derive(Debug, Clone)]
pub struct LaneSpec {
    /// The pipeline's name.
    pub pipeline: String,
    /// SHA-256 of the canonical pipeline file.
    pub config_hash: Hash32,
    /// Where readings come from.
    pub source: SourceSpec,
    /// Reference tables that steps may join, sorted by name, each in the version to begin with.
    pub references: Vec<Arc<Reference>>,
    /// SQL steps in any order; each reads the source or another step.
    pub sql: Vec<SqlStepSpec>,
    /// Model steps.
    pub scores: Vec<ScoreStepSpec>,
}
