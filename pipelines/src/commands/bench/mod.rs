//! `avouch bench`: rows per CPU-second of a pipeline, stage by stage, on a file of readings.
//!
//! Each stage prints one JSON line: its name, rows, CPU seconds (user and system, all threads of this process) and wall
//! seconds. What is measured is the code that `avouch run` drives, with this pipeline's SQL, windows and models.
//!
//! ```text
//!   memory.rs       decode, windows, whole lane, on records in memory
//!   kafka.rs        the same rows as records of a topic, and from there to the durable log
//!   latency.rs      rows at a pace, and when their verdicts are seen, beside a running `avouch run`
//!   checkpoints.rs  how long a lane stands still with many devices of state
//!   encode.rs       readings in the other formats
//! ```

mod checkpoints;
mod encode;
mod kafka;
mod latency;
mod memory;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch_connectors::kafka::{KafkaError, PublishError};
use avouch_connectors::store::StoreError;
use avouch_engine::lane::LaneError;
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::{FieldSpec, FormatSpec};
use avouch_engine::verdict::Secret;
use clap::{Args, ValueEnum};
use serde_json::json;
use thiserror::Error;

use super::fail;
use crate::lang::{KafkaSource, Pipeline, SourceKind};

/// As in the runtime.
const BATCH: usize = 4_096;

/// Measure a pipeline on a file of readings (NDJSON): in memory, from Kafka, at a pace, or its checkpoints.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub pipeline: PathBuf,

    /// NDJSON file of readings
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,

    /// What to measure
    #[arg(long, value_enum, default_value_t = Measured::Memory)]
    pub measure: Measured,

    /// What the records in the pipeline's topic are, whatever the pipeline says
    #[arg(long, value_enum, default_value_t = RecordFormat::Json)]
    pub format: RecordFormat,

    /// Where the measured log is written; it must be empty
    #[arg(long, value_name = "DIR", required_if_eq_any([("measure", "kafka"), ("measure", "checkpoints")]))]
    pub state: Option<PathBuf>,

    /// Devices of state, for --measure checkpoints
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub devices: usize,

    /// Rows a second, for --measure latency
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), required_if_eq("measure", "latency"))]
    pub rate: Option<u64>,

    /// How long rows are sent, for --measure latency
    #[arg(long, value_name = "N", default_value_t = 65)]
    pub seconds: u64,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Measured {
    /// Decoding, windows and the whole lane in memory, in every format
    Memory,
    /// Nothing: the rows are put into the pipeline's topic, which is created with one partition
    Produce,
    /// The lane from the pipeline's topic, which holds these rows, to the durable log
    Kafka,
    /// Sends rows at a pace to the pipeline's topic while another process runs the pipeline, and tells when each window was
    /// closed and when its verdicts were seen in the sink's topic
    Latency,
    /// Checkpoints, with many devices of state
    Checkpoints,
}

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    /// One JSON object
    Json,
    /// One Avro record in Confluent's framing
    Avro,
    /// One Protobuf message
    Protobuf,
    /// An Arrow IPC stream of 1,000 rows
    Arrow,
}

impl RecordFormat {
    /// In a measurement's name.
    fn title(self) -> &'static str {
        match self {
            Self::Json => "JSON",
            Self::Avro => "Avro",
            Self::Protobuf => "Protobuf",
            Self::Arrow => "Arrow, 1,000 rows a record",
        }
    }

    /// As the engine has it, if it is not the pipeline's own.
    fn spec(self, fields: &[FieldSpec]) -> FormatSpec {
        match self {
            Self::Json => FormatSpec::Json,
            Self::Avro => FormatSpec::Avro,
            Self::Protobuf => encode::protobuf_format(fields),
            Self::Arrow => FormatSpec::Arrow,
        }
    }
}

/// Why there is no measurement.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The file cannot be read, or the system does not say how much CPU time was used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The engine failed.
    #[error(transparent)]
    Lane(#[from] LaneError),
    /// Arrow failed.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// Kafka failed.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Rows could not be sent.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Some rows were not acknowledged.
    #[error("{failed} records were not delivered to `{topic}`; the first: {first}")]
    Undelivered {
        /// The topic.
        topic: String,
        /// How many.
        failed: u64,
        /// What was said of the first.
        first: String,
    },
    /// The topic holds other rows than the file.
    #[error(
        "`{topic}` holds {found} rows and not the {wanted} of the file; put them into a fresh topic by --measure produce"
    )]
    OtherRows {
        /// The topic.
        topic: String,
        /// Rows read.
        found: usize,
        /// Rows of the file.
        wanted: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pipeline cannot be planned for another format.
    #[error("{0}")]
    Plan(String),
    /// A row of the file cannot be used.
    #[error("{0}")]
    Row(String),
    /// The pipeline reads something else.
    #[error("the pipeline's source is not Kafka; only --measure memory and checkpoints are possible")]
    NotKafka,
    /// The pipeline writes its verdicts elsewhere.
    #[error("the pipeline has no sink of kind \"kafka\" to see verdicts in")]
    NoSink,
    /// Readings would have to be signed.
    #[error(
        "readings of this pipeline must be signed, and those of the benchmark are not; measure a copy without `identity`. What \
         signatures cost is in docs/signed-readings.md"
    )]
    Signed,
    /// The pipeline has no windowed step.
    #[error("the pipeline has no windowed step to measure")]
    NoWindow,
}

/// Measures. Exit code 0 if every stage ran.
pub fn run(args: &BenchArgs) -> ExitCode {
    let plan = match super::run::load(&args.pipeline) {
        Ok((pipeline, _)) if pipeline.source.identity.is_some() => return fail(false, BenchError::Signed),
        Ok((pipeline, plan)) => (pipeline, plan),
        Err(diags) => {
            eprint!("{}", diags.render_text(super::check::colour()));
            return ExitCode::FAILURE;
        }
    };
    match measure(args, &plan.0, &plan.1) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(false, e),
    }
}

fn secret() -> Secret {
    Secret::new(b"bench")
}

/// User and system time of all threads of this process so far.
fn cpu() -> Result<Duration, BenchError> {
    let path = PathBuf::from("/proc/self/stat");
    let text = std::fs::read_to_string(&path).map_err(|source| BenchError::File { path: path.clone(), source })?;
    // Fields 14 and 15, counted after the program's name, which may hold spaces; in ticks of 1/100 s.
    let ticks: Option<u64> = text
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum());
    match ticks {
        Some(t) => Ok(Duration::from_millis(t * 10)),
        None => Err(BenchError::File { path, source: std::io::Error::other("not as Linux writes it") }),
    }
}

struct Stopwatch(Duration, Instant);

impl Stopwatch {
    fn start() -> Result<Self, BenchError> {
        Ok(Self(cpu()?, Instant::now()))
    }

    fn stop(&self) -> Result<Took, BenchError> {
        Ok(Took { cpu: cpu()? - self.0, wall: self.1.elapsed() })
    }
}

struct Took {
    cpu: Duration,
    wall: Duration,
}

impl Took {
    fn report(&self, name: &str, rows: usize, more: serde_json::Value) {
        let mut line = json!({
            "name": name,
            "by": "Avouch",
            "rows": rows,
            "cpu_seconds": self.cpu.as_secs_f64(),
            "wall_seconds": self.wall.as_secs_f64(),
        });
        if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        println!("{line}");
    }
}

fn measure(args: &BenchArgs, pipeline: &Pipeline, plan: &Arc<LanePlan>) -> Result<(), BenchError> {
    let text = std::fs::read(&args.file).map_err(|source| BenchError::File { path: args.file.clone(), source })?;
    let rows: Vec<&[u8]> = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
    let state = args.state.clone().unwrap_or_default();
    match args.measure {
        Measured::Memory => memory::measure(pipeline, plan, &rows),
        Measured::Produce => kafka::produce(source(pipeline)?, plan, args.format, &rows),
        Measured::Kafka => {
            let plan = planned(pipeline, plan, args.format)?;
            kafka::measure(pipeline, source(pipeline)?, &plan, args.format, &state, rows.len())
        }
        Measured::Latency => {
            let pace = latency::Load { rate: args.rate.unwrap_or(1), seconds: args.seconds };
            latency::measure(pipeline, source(pipeline)?, plan, &rows, pace)
        }
        Measured::Checkpoints => {
            checkpoints::measure(plan, rows.first().copied().unwrap_or_default(), args.devices, &state)
        }
    }
}

fn source(pipeline: &Pipeline) -> Result<&KafkaSource, BenchError> {
    match &pipeline.source.kind {
        SourceKind::Kafka(kafka) => Ok(kafka),
        _ => Err(BenchError::NotKafka),
    }
}

/// The pipeline for records of another format.
fn planned(pipeline: &Pipeline, plan: &Arc<LanePlan>, format: RecordFormat) -> Result<Arc<LanePlan>, BenchError> {
    if format == RecordFormat::Json {
        return Ok(plan.clone());
    }
    let (models, _) = crate::lang::load_models(pipeline).map_err(|e| BenchError::Plan(e.render_text(false)))?;
    let mut spec = crate::lang::lane_spec(pipeline, &models);
    spec.source.format = format.spec(&plan.source.fields);
    // Room for a batch, whatever the pipeline allows a row.
    spec.source.max_record_bytes = spec.source.max_record_bytes.max(1 << 24);
    LanePlan::new(&spec).map(Arc::new).map_err(|e| BenchError::Plan(format!("{e:?}")))
}
