//! Stages of a lane on records in memory: decoding, windows, everything up to the verdicts.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Float64Type;
use avouch_engine::admit::Admission;
use avouch_engine::decode::{RawRecord, SchemaAnswer};
use avouch_engine::device::DeviceTable;
use avouch_engine::ingest::Ingest;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::plan::LanePlan;
use serde_json::json;

use super::{BATCH, BenchError, RecordFormat, Stopwatch, Took, encode, planned, secret};
use crate::lang::Pipeline;

/// Decoding alone is repeated for at least so long, since the system counts CPU time in hundredths of a second.
const LONG_ENOUGH: Duration = Duration::from_millis(500);

/// Measures every stage, JSON first.
pub(super) fn measure(pipeline: &Pipeline, plan: &Arc<LanePlan>, lines: &[&[u8]]) -> Result<(), BenchError> {
    let json = records(lines.iter().copied());
    decode("decode", plan, &json, json.len())?;
    windows(plan, &json)?;
    lane("lane in memory", plan, &json, json.len())?;
    drop(json);
    // What the other formats are encoded from is decoded before the clock starts.
    let fields = &plan.source.fields;
    let rows = encode::rows(fields, lines);
    for format in [RecordFormat::Avro, RecordFormat::Protobuf, RecordFormat::Arrow] {
        let values = encode::records(format, fields, &rows)?;
        let plan = planned(pipeline, plan, format)?;
        let records = records(values.iter().map(Vec::as_slice));
        decode(&format!("decode, {}", format.title()), &plan, &records, rows.len())?;
        lane(&format!("lane in memory, {}", format.title()), &plan, &records, rows.len())?;
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
            signature: None,
        })
        .collect()
}

fn decode(name: &str, plan: &Arc<LanePlan>, records: &[RawRecord<'_>], rows: usize) -> Result<(), BenchError> {
    let mut passes = 0;
    let mut dead = Vec::new();
    let watch = Stopwatch::start()?;
    let mut took = watch.stop()?;
    while took.cpu < LONG_ENOUGH {
        let mut ingest = Ingest::new(&plan.source, &plan.decoding, plan.key, plan.time);
        let mut admission = Admission::new(plan.source.max_disorder_ms, plan.source.max_future_ms, Vec::new());
        let mut devices = DeviceTable::new(secret(), None);
        dead.clear();
        if let Some((_, id)) = ingest.schema_needed(records) {
            ingest.learn_schema(id, SchemaAnswer::Avro(encode::avro_schema(&plan.source.fields).as_bytes()));
        }
        for batch in records.chunks(BATCH) {
            let mut rest = batch;
            while !rest.is_empty() {
                let run = std::hint::black_box(ingest.run(rest, &mut admission, &mut devices, None, &mut dead)?);
                rest = &rest[run.taken..];
            }
        }
        passes += 1;
        took = watch.stop()?;
    }
    let one = Took { cpu: took.cpu / passes, wall: took.wall / passes };
    one.report(name, rows, json!({ "dead": dead.len() }));
    Ok(())
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
    let took = watch.stop()?;
    let windows: usize = closed.iter().map(|f| f.devices.len()).sum();
    let check: f64 = closed
        .iter()
        .flat_map(|f| f.batch.columns())
        .filter_map(|c| c.as_primitive_opt::<Float64Type>())
        .map(|c| c.iter().flatten().sum::<f64>())
        .sum();
    took.report("decode+window", records.len(), json!({ "windows": windows, "check": check }));
    Ok(())
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
    watch.stop()?.report(name, rows, json!({ "verdicts": verdicts }));
    Ok(())
}
