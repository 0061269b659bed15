//! Doing it, so that it may be killed anywhere and done again.

use std::path::Path;

use avouch_connectors::store::{Checkpoint, LaneStore, StoreError};
use avouch_engine::verdict::{LogOrigin, Secret};

use super::choose::erased;
use super::{EraseError, Erasing, file_failed};
use crate::labels::reason_path;
use crate::lang::Pipeline;
use crate::runtime::{CheckpointStore, keep_secret, lane_dirs, state_dir, stored_secret, write_secret};

/// All lanes of a pipeline, locked: it does not run.
pub struct Lanes {
    each: Vec<(i32, LaneStore, Option<Checkpoint>)>,
}

impl Lanes {
    /// Locks them, and mends what is to be mended, as starting the pipeline does.
    ///
    /// # Errors
    /// When the pipeline runs, its checkpoints are in an object store, or a lane cannot be opened.
    pub fn open(pipeline: &Pipeline) -> Result<Self, EraseError> {
        let stores = CheckpointStore::open(pipeline)?;
        if stores.root().is_some() {
            return Err(EraseError::Refused(
                "the checkpoints of this pipeline are in an object store, whose parts hold the records too, and erasing there is not \
                 supported: end the log (a new pipeline.name begins another) and delete the whole of it, with the secret"
                    .into(),
            ));
        }
        let state = state_dir(pipeline);
        let secret = stored_secret(pipeline, &state)?;
        let mut each = Vec::new();
        for (lane, dir) in lane_dirs(&state).map_err(file_failed(&state))? {
            let origin = LogOrigin::new(&pipeline.name.value, lane);
            let opened = LaneStore::open(&dir, &origin, stores.options(lane, &secret)?);
            let (store, restored) = opened.map_err(|e| match e {
                StoreError::Locked { holder, .. } => EraseError::Refused(format!(
                    "this pipeline runs ({holder} has lane {lane}); stop it, then erase: a running one has the keys in memory"
                )),
                e => e.into(),
            })?;
            each.push((lane, store, restored));
        }
        Ok(Self { each })
    }

    fn of(&mut self, lane: i32) -> Result<(&mut LaneStore, &Checkpoint), EraseError> {
        match self.each.iter_mut().find(|(of, ..)| *of == lane) {
            Some((_, store, Some(restored))) => Ok((store, restored)),
            _ => Err(EraseError::Refused(format!("lane {lane} has no checkpoint any more; restore its directory"))),
        }
    }

    /// Each lane and its store.
    pub fn each(&self) -> impl Iterator<Item = (i32, &LaneStore)> {
        self.each.iter().map(|(lane, store, _)| (*lane, store))
    }
}

/// What was just done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is durable what is to be erased.
    Begun,
    /// The secret is without the keys.
    Secret,
    /// A lane has its tombstones.
    Lane(i32),
    /// The reasons are deleted.
    Reasons,
}

/// What was erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Records that have tombstones since now.
    pub records: u64,
    /// Files of reasons.
    pub reasons: u64,
    /// Bytes of the secret's stored form.
    pub secret_bytes: u64,
}

/// Erases, from the beginning or from wherever it was broken off. `between` is told of each step that is durable; where it fails,
/// nothing more is done.
///
/// # Errors
/// When a step fails. Once the first one is done, doing it again goes on.
pub fn carry_out(
    pipeline: &Pipeline,
    erasing: &Erasing,
    lanes: &mut Lanes,
    between: &mut dyn FnMut(Step) -> Result<(), EraseError>,
) -> Result<Done, EraseError> {
    let state = state_dir(pipeline);
    let mut done = Done { records: 0, reasons: 0, secret_bytes: 0 };
    if pipeline.secret.is_some() != erasing.secret_out.is_some() {
        return Err(EraseError::Refused(match &erasing.secret_out {
            None => "the secret of this pipeline is in its file, which is not mine to write: say --secret-out FILE, and put what is \
                     written there in its place"
                .into(),
            Some(path) => format!(
                "what is left of the secret was to be written to {}, but the pipeline file gives no secret any more; give it again, as it \
                 was or as it is there",
                path.display()
            ),
        }));
    }
    // While the keys are still there: once they are not, a lane that fell back to an earlier checkpoint could not go on.
    for of in &erasing.lanes {
        let (store, restored) = lanes.of(of.lane)?;
        if let Some(last) = of.indices().last() {
            store.prepare_to_erase(restored, last)?;
        }
    }
    erasing.begin(&state)?;
    between(Step::Begun)?;

    // Before the tombstones: whoever still has a record's bytes in a torn file has no key to find its entry with.
    let mut secret = stored_secret(pipeline, &state)?;
    for of in &erasing.lanes {
        secret.puncture(&LogOrigin::new(&pipeline.name.value, of.lane).log_id(), of.indices());
    }
    // And those of all that was erased before: where somebody else keeps the secret, the one in its place may be an older one.
    for (lane, store) in lanes.each() {
        secret.puncture(&LogOrigin::new(&pipeline.name.value, lane).log_id(), erased(&store.reader())?);
    }
    done.secret_bytes = store_secret(&secret, &state, erasing.secret_out.as_deref())?;
    between(Step::Secret)?;

    for of in &erasing.lanes {
        let (store, restored) = lanes.of(of.lane)?;
        let indices: Vec<u64> = of.indices().collect();
        done.records += store.erase(restored, &indices)?;
        between(Step::Lane(of.lane))?;
    }

    for reason in &erasing.reasons {
        let path = reason_path(&state, reason);
        match std::fs::remove_file(&path) {
            Ok(()) => done.reasons += 1,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(file_failed(&path)(e)),
        }
    }
    if done.reasons > 0
        && let Some(dir) = reason_path(&state, "").parent()
    {
        std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(file_failed(dir))?;
    }
    between(Step::Reasons)?;
    Erasing::end(&state)?;
    Ok(done)
}

/// Puts what is left of the secret where it belongs. Returns its bytes.
fn store_secret(secret: &Secret, state: &Path, out: Option<&Path>) -> Result<u64, EraseError> {
    match out {
        None => Ok(keep_secret(secret, state)?),
        Some(path) => Ok(write_secret(path, format!("{}\n", secret.to_text()).as_bytes())?),
    }
}
