//! How long a lane stands still for a checkpoint, and what a checkpoint writes, with many devices of state.
//!
//! Every device sends one row in ten seconds of event time, and a checkpoint follows. The rows are the first row of the file
//! with other devices and times.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use avouch_connectors::store::{Commit, LaneStore, StoreOptions, inspect_dir};
use avouch_engine::decode::RawRecord;
use avouch_engine::lane::{Lane, Output};
use avouch_engine::plan::LanePlan;
use avouch_engine::verdict::LogOrigin;
use serde_json::{Map, Value, json};

use super::{BATCH, BenchError, secret};

const CHECKPOINTS: i64 = 5;
/// Event time between two rows of a device.
const APART_MS: i64 = 10_000;

/// Measures checkpoints into an empty directory.
pub(super) fn measure(plan: &Arc<LanePlan>, first: &[u8], devices: usize, state: &Path) -> Result<(), BenchError> {
    if plan.windows.is_empty() {
        return Err(BenchError::NoWindow);
    }
    let mut row: Map<String, Value> = serde_json::from_slice(first).map_err(|e| BenchError::Row(e.to_string()))?;
    let (key, time) = (plan.source.key.clone(), plan.source.time.clone());
    let (mut store, _) = LaneStore::open(state, &LogOrigin::new(&plan.pipeline, 0), StoreOptions::default())?;
    let mut lane = Lane::new(plan.clone(), 0, secret());
    let mut out = Output::default();
    let mut offset = 0;
    for round in 0..CHECKPOINTS {
        let at = 1_700_000_000_000_i64 + round * APART_MS;
        row.insert(time.clone(), json!(at));
        for from in (0..devices).step_by(BATCH) {
            let rows: Vec<Vec<u8>> = (from..devices.min(from + BATCH))
                .map(|n| {
                    row.insert(key.clone(), json!(format!("device-{n:07}")));
                    Value::Object(row.clone()).to_string().into_bytes()
                })
                .collect();
            let records: Vec<RawRecord<'_>> = (offset..)
                .zip(&rows)
                .map(|(offset, row)| RawRecord {
                    offset,
                    timestamp: i64::MAX / 2,
                    key: None,
                    value: Some(row),
                    origin: None,
                    signature: None,
                })
                .collect();
            lane.step(&records, &mut out)?;
            offset += rows.len() as i64;
            store.append_all(&out.verdicts)?;
            out.verdicts.clear();
            out.dead.clear();
        }
        let began = Instant::now();
        let snapshot = lane.snapshot();
        let copied = began.elapsed();
        store.begin_commit(Commit {
            next_offset: offset,
            lane_state: snapshot,
            config_hash: plan.config_hash,
            topic: &plan.source.topic,
            partition: 0,
            watermark: lane.watermark(),
            counters: &[],
        })?;
        let paused = began.elapsed();
        let Some(c) = store.finish_commit()? else { continue };
        println!(
            "{}",
            json!({
                "name": "checkpoint",
                "by": "Avouch",
                "number": c.seq,
                "devices": lane.devices(),
                "state_bytes": c.state_bytes,
                "new_bytes": c.new_state_bytes,
                "copy_seconds": copied.as_secs_f64(),
                "pause_seconds": paused.as_secs_f64(),
                "durable_seconds": began.elapsed().as_secs_f64(),
            })
        );
    }
    drop(store);
    let began = Instant::now();
    let (_, checkpoint) = LaneStore::open(state, &LogOrigin::new(&plan.pipeline, 0), StoreOptions::default())?;
    let read = began.elapsed();
    if let Some(c) = checkpoint {
        let lane = Lane::restore(plan.clone(), 0, secret(), &c.lane_state)?;
        println!(
            "{}",
            json!({
                "name": "restore",
                "by": "Avouch",
                "devices": lane.devices(),
                "state_bytes": c.lane_state.len(),
                "open_seconds": read.as_secs_f64(),
                "whole_seconds": began.elapsed().as_secs_f64(),
                "checkpoints": inspect_dir(state)?.len(),
            })
        );
    }
    Ok(())
}
