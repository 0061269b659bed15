//! `avouch bench`: rows per CPU-second of a pipeline, stage by stage, on a file of readings.
//!
//! Each stage prints one JSON line: its name, rows, CPU seconds (user and system, all threads of this process) and wall
//! seconds. What is measured is the code that `avouch run` drives, with this pipeline's SQL, windows and models.

mod checkpoints;
mod encode;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use avouch_connectors::kafka::{GroupOptions, KafkaError, Share, Source};
use avouch_connectors::store::{Commit, LaneStore, StoreError, StoreOptions};
use avouch_engine::admit::Admission;
use avouch_engine::decode::{RawRecord, SchemaAnswer};
use avouch_engine::device::DeviceTable;
use avouch_engine::ingest::Ingest;
use avouch_engine::lane::{Lane, LaneError, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::spec::FormatSpec;
use avouch_engine::verdict::{LogOrigin, Secret};
use clap::Args;
use serde_json::json;
use thiserror::Error;

use super::fail;
use crate::lang::SourceKind;

/// As in the runtime.
const BATCH: usize = 4_096;

/// Measure a pipeline on a file of readings (NDJSON), and from Kafka where the topic holds the same.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub pipeline: PathBuf,

    /// NDJSON file of readings
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,

    /// Also measure from Kafka: the pipeline's topic must hold these rows in one partition
    #[arg(long)]
    pub kafka: bool,

    /// Measure checkpoints instead, with so many devices of state
    #[arg(long, value_name = "DEVICES", conflicts_with = "kafka", requires = "state")]
    pub checkpoints: Option<usize>,

    /// Where the measured log is written; it must be empty
    #[arg(long, value_name = "DIR", required_if_eq("kafka", "true"))]
    pub state: Option<PathBuf>,
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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pipeline cannot be planned for another format.
    #[error("{0}")]
    Plan(String),
    /// The first row of the file is no JSON object.
    #[error("the first row of the file is no JSON object: {0}")]
    Row(String),
    /// The pipeline reads something else.
    #[error("the pipeline's source is not Kafka; leave --kafka out")]
    NotKafka,
    /// The pipeline has no windowed step.
    #[error("the pipeline has no windowed step to measure")]
    NoWindow,
}

/// Measures. Exit code 0 if every stage ran.
pub fn run(args: &BenchArgs) -> ExitCode {
    let plan = match super::run::load(&args.pipeline) {
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

    fn report(&self, name: &str, rows: usize, more: serde_json::Value) -> Result<(), BenchError> {
        let mut line = json!({
            "name": name,
            "by": "Avouch",
            "rows": rows,
            "cpu_seconds": (cpu()? - self.0).as_secs_f64(),
            "wall_seconds": self.1.elapsed().as_secs_f64(),
        });
        if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        println!("{line}");
        Ok(())
    }
}

fn measure(args: &BenchArgs, pipeline: &crate::lang::Pipeline, plan: &Arc<LanePlan>) -> Result<(), BenchError> {
    let text = std::fs::read(&args.file).map_err(|source| BenchError::File { path: args.file.clone(), source })?;
    let rows: Vec<&[u8]> = text.split(|b| *b == b'\n').filter(|l| !l.is_empty()).collect();
    let records = records(rows.iter().copied());
    if let Some(devices) = args.checkpoints {
        let state = args.state.clone().unwrap_or_default();
        return checkpoints::measure(plan, rows.first().copied().unwrap_or_default(), devices, &state);
    }
    decode("decode", plan, &records, records.len())?;
    windows(plan, &records)?;
    lane("lane in memory", plan, &records, records.len())?;
    formats(pipeline, plan, &rows)?;
    if args.kafka {
        let state = args.state.clone().unwrap_or_default();
        from_kafka(pipeline, plan, &state, records.len())?;
    }
    Ok(())
}

/// The same rows in the other formats. What they are encoded from is decoded before the clock starts.
fn formats(pipeline: &crate::lang::Pipeline, plan: &Arc<LanePlan>, lines: &[&[u8]]) -> Result<(), BenchError> {
    let (models, _) = crate::lang::load_models(pipeline).map_err(|e| BenchError::Plan(e.render_text(false)))?;
    let fields = &plan.source.fields;
    let rows = encode::rows(fields, lines);
    for (name, format) in [
        ("Avro", FormatSpec::Avro),
        ("Protobuf", encode::protobuf_format(fields)),
        ("Arrow, 1,000 rows a record", FormatSpec::Arrow),
    ] {
        let values = match &format {
            FormatSpec::Avro => encode::avro(fields, &rows),
            FormatSpec::Arrow => encode::arrow(fields, &rows)?,
            _ => encode::protobuf(fields, &rows),
        };
        let mut spec = crate::lang::lane_spec(pipeline, &models);
        spec.source.format = format;
        // Room for a batch, whatever the pipeline allows a row.
        spec.source.max_record_bytes = spec.source.max_record_bytes.max(1 << 24);
        let plan = LanePlan::new(&spec).map_err(|e| BenchError::Plan(format!("{e:?}")))?;
        let plan = Arc::new(plan);
        let records = records(values.iter().map(Vec::as_slice));
        decode(&format!("decode {name}"), &plan, &records, rows.len())?;
        lane(&format!("lane in memory, {name}"), &plan, &records, rows.len())?;
    }
    Ok(())
}

fn records<'a>(values: impl Iterator<Item = &'a [u8]>) -> Vec<RawRecord<'a>> {
    values
        .enumerate()
        // As if written now: nothing in the file is from the future.
        .map(|(i, value)| RawRecord {
            offset: i as i64,
            timestamp: i64::MAX / 2,
            key: None,
            value: Some(value),
            origin: None,
        })
        .collect()
}

fn decode(name: &str, plan: &Arc<LanePlan>, records: &[RawRecord<'_>], rows: usize) -> Result<(), BenchError> {
    let mut ingest = Ingest::new(&plan.source, &plan.decoding, plan.key, plan.time);
    let mut admission = Admission::new(plan.source.max_disorder_ms, plan.source.max_future_ms, Vec::new());
    let mut devices = DeviceTable::new(secret(), None);
    let mut dead = Vec::new();
    if let Some((_, id)) = ingest.schema_needed(records) {
        ingest.learn_schema(id, SchemaAnswer::Avro(encode::avro_schema(&plan.source.fields).as_bytes()));
    }
    let watch = Stopwatch::start()?;
    for batch in records.chunks(BATCH) {
        let mut rest = batch;
        while !rest.is_empty() {
            let run = std::hint::black_box(ingest.run(rest, &mut admission, &mut devices, &mut dead)?);
            rest = &rest[run.taken..];
        }
    }
    watch.report(name, rows, json!({ "dead": dead.len() }))
}

fn windows(plan: &Arc<LanePlan>, records: &[RawRecord<'_>]) -> Result<(), BenchError> {
    if plan.windows.is_empty() {
        return Err(BenchError::NoWindow);
    }
    let mut lane = Lane::new(plan.clone(), 0, secret());
    lane.begin_references(&mut Output::default())?;
    let (mut dead, mut closed) = (Vec::new(), Vec::new());
    let watch = Stopwatch::start()?;
    for batch in records.chunks(BATCH) {
        closed.extend(lane.step_features(batch, 0, &mut dead)?);
    }
    closed.extend(lane.finish_features(0)?);
    let windows: usize = closed.iter().map(|f| f.devices.len()).sum();
    let check: f64 = closed
        .iter()
        .flat_map(|f| f.batch.columns())
        .filter_map(|c| c.as_primitive_opt::<Float64Type>())
        .map(|c| c.iter().flatten().sum::<f64>())
        .sum();
    watch.report("decode+window", records.len(), json!({ "windows": windows, "check": check }))
}

fn lane(name: &str, plan: &Arc<LanePlan>, records: &[RawRecord<'_>], rows: usize) -> Result<(), BenchError> {
    let mut lane = Lane::new(plan.clone(), 0, secret());
    lane.learn_schema(encode::SCHEMA_ID, SchemaAnswer::Avro(encode::avro_schema(&plan.source.fields).as_bytes()));
    lane.begin_references(&mut Output::default())?;
    let mut out = Output::default();
    let mut verdicts = 0;
    let watch = Stopwatch::start()?;
    for batch in records.chunks(BATCH) {
        lane.step(batch, &mut out)?;
        verdicts += out.verdicts.len();
        out = Output::default();
    }
    watch.report(name, rows, json!({ "verdicts": verdicts }))
}

/// Everything from the broker to the durable log; what `avouch run` does besides is delivering.
fn from_kafka(
    pipeline: &crate::lang::Pipeline,
    plan: &Arc<LanePlan>,
    state: &std::path::Path,
    rows: usize,
) -> Result<(), BenchError> {
    let watch = Stopwatch::start()?;
    let (mut store, _) = LaneStore::open(state, &LogOrigin::new(&plan.pipeline, 0), StoreOptions::default())?;
    let mut lane = Lane::new(plan.clone(), 0, secret());
    lane.begin_references(&mut Output::default())?;
    let SourceKind::Kafka(kafka) = &pipeline.source.kind else { return Err(BenchError::NotKafka) };
    let group = GroupOptions { group: "avouch-bench".into(), ..kafka.group_options() };
    let (source, _events) = Source::open(&kafka.connection(), &plan.source.topic, group, Share::All, BATCH)?;
    let mut reader = source.begin(0, None)?;
    let (mut seen, mut next) = (0, 0);
    let mut out = Output::default();
    let mut last = Instant::now();
    loop {
        let batch = reader.poll(Duration::from_millis(20))?;
        let mut records = Vec::new();
        batch.records(&mut records);
        if let Some(r) = records.last() {
            next = r.offset + 1;
        }
        seen += records.len();
        lane.step(&records, &mut out)?;
        store.append_all(&out.verdicts)?;
        out.verdicts.clear();
        for d in out.dead.drain(..) {
            store.append_dead(&d)?;
        }
        out.events.clear();
        let ended = seen >= rows;
        if ended || last.elapsed() >= Duration::from_millis(pipeline.checkpoint.every_ms.max(1) as u64) {
            store.commit(Commit {
                next_offset: next,
                lane_state: lane.snapshot(),
                watermark: lane.watermark(),
                config_hash: plan.config_hash,
                topic: &plan.source.topic,
                partition: 0,
                counters: &[],
            })?;
            last = Instant::now();
        }
        if ended {
            break;
        }
    }
    watch.report("lane from Kafka to the durable log", seen, json!({ "verdicts": store.size() }))
}
