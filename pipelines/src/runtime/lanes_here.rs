//! The lanes of a pipeline, for those who only look: where their files are on this machine.

use std::path::PathBuf;
use std::time::Duration;

use avouch_connectors::store::{RemoteLane, bring};
use avouch_engine::verdict::LogOrigin;

use super::checkpoint_store::CheckpointStore;
use super::error::RuntimeError;
use super::{lane_dir, state_dir};
use crate::lang::Pipeline;

/// How long a failing object store is asked again.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pipeline's state directory, with all its lanes in it. Those that are kept in an object store are brought there first, as far
/// as they are not there yet: into the working copy (`checkpoint.cache`), where a process that runs a lane keeps it too.
/// Blocks.
///
/// # Errors
/// When the object store cannot be read.
pub fn lanes_here(pipeline: &Pipeline) -> Result<PathBuf, RuntimeError> {
    let state = state_dir(pipeline);
    let stores = CheckpointStore::open(pipeline)?;
    let Some(root) = stores.root() else { return Ok(state) };
    let name = &pipeline.name.value;
    let there = root.directories(name).map_err(|e| {
        let place = root.under(name).url();
        RuntimeError::Start(format!("the lanes in {place} cannot be listed: {e}"))
    })?;
    for (text, lane) in there.iter().filter_map(|d| Some((d, d.parse::<i32>().ok().filter(|n| *n >= 0)?))) {
        let remote = RemoteLane::new(root.under(&format!("{name}/{text}")), PATIENCE);
        bring(&lane_dir(&state, lane), &LogOrigin::new(name, lane), &remote)?;
    }
    Ok(state)
}
