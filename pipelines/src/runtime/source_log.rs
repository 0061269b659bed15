//! A lane's input log read once more, by whoever wants to see what the lane saw. It joins no group and changes nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use avouch_connectors::kafka::Share;
use avouch_engine::decode::RawRecord;

use super::RunOptions;
use super::error::RuntimeError;
use super::inputs::Inputs;
use super::metrics::Metrics;
use crate::lang::Pipeline;

/// How long a source may be silent before it is taken for having no more.
const SILENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Gives the records of a lane's input before offset `until` to `take`, in order, until that says no. `false` when the source ended
/// before, or no longer has the records it began with.
///
/// Makes an async runtime of its own, so it must not be called within one; it blocks.
///
/// # Errors
/// When the source cannot be read; a journal (MQTT) that a running pipeline holds cannot.
pub fn read_source(
    pipeline: &Pipeline,
    state: &Path,
    lane: i32,
    until: i64,
    mut take: impl FnMut(&RawRecord<'_>) -> bool,
) -> Result<bool, RuntimeError> {
    if until <= 0 {
        return Ok(true);
    }
    let metrics = Metrics::new().map_err(|e| RuntimeError::Start(format!("metrics: {e}")))?;
    // It lives until the end of this function: what reads chains and buckets asks through it.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| RuntimeError::Start(format!("cannot start the async runtime: {e}")))?;
    let options = RunOptions { share: Share::All, until_end: true, ..RunOptions::default() };
    let inputs = runtime.block_on(Inputs::open(pipeline, state, options, &metrics))?.inputs;
    inputs.accept()?;
    let (input, _) = inputs.begin(lane, None, true)?;
    let mut input = if pipeline.source.repartition().is_some() { input.repartitioned() } else { input };
    let mut heard = Instant::now();
    loop {
        inputs.serve(Duration::ZERO)?;
        let batch = input.poll(POLL)?;
        let mut records = Vec::new();
        batch.records(&mut records);
        for record in &records {
            if record.offset >= until {
                return Ok(true);
            }
            if !take(record) {
                return Ok(false);
            }
            heard = Instant::now();
        }
        match batch.end() {
            Some(end) => return Ok(end >= until),
            None if heard.elapsed() > SILENCE => return Ok(false),
            None => {}
        }
    }
}
