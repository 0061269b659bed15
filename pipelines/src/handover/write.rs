//! Making an export.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use avouch_connectors::store::LaneReader;
use avouch_engine::event::LaneEvent;
use avouch_engine::identity::KeySet;
use avouch_engine::verdict::{Hash32, Logged, NO_MODEL};

use super::frames::{Frames, failed};
use super::reading::Reading;
use super::{FORMAT, HandoverError, Head, file};
use crate::lang::{Pipeline, load_models_there};
use crate::runtime::{
    Artifacts, CheckpointStore, hex, keys_path, lane_dir, lanes_here, model_path, pipeline_path, read_source,
    reference_path, signed,
};

/// What to export.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which lane.
    pub lane: i32,
    /// The directory to make.
    pub out: PathBuf,
    /// Whether to fetch the records of the source, too.
    pub readings: bool,
}

/// What was exported.
#[derive(Debug, Clone)]
pub struct Exported {
    /// What the directory says of itself.
    pub head: Head,
    /// Signed checkpoints.
    pub checkpoints: usize,
    /// Events.
    pub events: u64,
    /// Records of the source, if they were wanted.
    pub readings: Option<u64>,
}

/// Records read at once.
const AT_ONCE: usize = 4_096;

/// Exports a lane's log as far as a durable checkpoint covers it. The pipeline may be running. Blocks; within an async runtime, call
/// it where that is allowed.
///
/// # Errors
/// Where something is missing, no directory is left that looks whole: `log.json` is written last.
pub fn export(pipeline: &Pipeline, wanted: &Wanted) -> Result<Exported, HandoverError> {
    let out = &wanted.out;
    if out.exists() {
        return Err(HandoverError::Exists(out.clone()));
    }
    let state = lanes_here(pipeline)?;
    let artifacts = Artifacts::new(&pipeline.name.value, &state, &CheckpointStore::open(pipeline)?);
    let dir = lane_dir(&state, wanted.lane);
    let reader = LaneReader::open_read_only(&dir)?;
    let committed = reader.committed();
    std::fs::create_dir_all(out).map_err(failed(out))?;

    let (mut models, mut pipelines) = (BTreeSet::new(), BTreeSet::from([committed.config_hash]));
    // Of a configuration, which model each step had.
    let mut steps: BTreeMap<String, Hash32> = BTreeMap::new();
    let mut frames = Frames::create(out.join(file::RECORDS))?;
    let (mut at, mut bytes) = (0, Vec::new());
    while at < committed.log_size {
        let records = reader.records(at, AT_ONCE)?;
        for logged in records.iter().take_while(|r| r.index() < committed.log_size) {
            at = logged.index() + 1;
            let Logged::Record(r) = logged else {
                frames.push(&logged.to_bytes())?;
                continue;
            };
            bytes.clear();
            r.write(&mut bytes);
            frames.push(&bytes)?;
            pipelines.insert(r.verdict.config_hash);
            if r.verdict.model_hash != NO_MODEL {
                models.insert(r.verdict.model_hash);
                if r.verdict.config_hash == committed.config_hash && !steps.contains_key(&*r.evidence.step) {
                    steps.insert(r.evidence.step.to_string(), r.verdict.model_hash);
                }
            }
        }
        if records.is_empty() {
            break;
        }
    }
    frames.finish()?;
    // A step that has decided nothing yet is part of the pipeline as well.
    if pipeline.config_hash() == committed.config_hash
        && let Ok((loaded, _)) = load_models_there(pipeline)
    {
        for (step, model) in loaded {
            steps.entry(step).or_insert_with(|| model.hash());
            models.insert(model.hash());
        }
    }

    let (events, references) = write_events(out, &reader, committed.event_count, &mut pipelines)?;
    let checkpoints = write_checkpoints(out, &dir, &reader, committed.log_size)?;
    let copy = |from: PathBuf, to: PathBuf| -> Result<(), HandoverError> {
        let bytes = match artifacts.read(&from) {
            Ok(bytes) => bytes,
            // A model that has decided nothing is kept by the first run under it.
            Err(e) => match pipeline
                .model_steps
                .iter()
                .map(|s| std::fs::read(&s.model_file.value))
                .find_map(|read| read.ok().filter(|bytes| from.ends_with(format!("{}.model", hex(&sha256(bytes))))))
            {
                Some(bytes) => bytes,
                None => return Err(e.into()),
            },
        };
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).map_err(failed(parent))?;
        }
        std::fs::write(&to, bytes).map_err(failed(&to))
    };
    for hash in &models {
        copy(model_path(&state, hash), model_path(out, hash))?;
    }
    for hash in &pipelines {
        copy(pipeline_path(&state, hash), pipeline_path(out, hash))?;
    }
    for (is_keys, hash) in &references {
        let path = if *is_keys { keys_path } else { reference_path };
        copy(path(&state, hash), path(out, hash))?;
    }
    copy_schemas(&state, out)?;
    let readings = match wanted.readings {
        true => Some(write_readings(out, pipeline, &state, wanted.lane, committed.next_offset)?),
        false => None,
    };
    let head = Head {
        format: FORMAT.to_owned(),
        log: committed.origin.clone(),
        topic: committed.topic.clone(),
        partition: committed.partition,
        size: committed.log_size,
        next_offset: committed.next_offset,
        config: hex(&committed.config_hash),
        models: steps.into_iter().map(|(step, model)| (step, hex(&model))).collect(),
        readings: wanted.readings,
    };
    let path = out.join(file::HEAD);
    let text = serde_json::to_string_pretty(&head).map_err(|e| failed(&path)(std::io::Error::other(e)))?;
    std::fs::write(&path, text + "\n").map_err(failed(&path))?;
    Ok(Exported { head, checkpoints, events, readings })
}

/// What a schema registry has said, as it is kept beside the lanes.
fn copy_schemas(state: &Path, out: &Path) -> Result<(), HandoverError> {
    let (from, to) = (state.join("schemas"), out.join("schemas"));
    let entries = match std::fs::read_dir(&from) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(&from)(e)),
    };
    std::fs::create_dir_all(&to).map_err(failed(&to))?;
    for entry in entries {
        let path = entry.map_err(failed(&from))?.path();
        if let Some(name) = path.file_name().filter(|_| path.is_file()) {
            std::fs::copy(&path, to.join(name)).map_err(failed(&path))?;
        }
    }
    Ok(())
}

fn sha256(bytes: &[u8]) -> Hash32 {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(bytes).into()
}

/// Returns how many events there are, and the versions they name: of keys of devices, or of references. What pipelines they name
/// is added.
fn write_events(
    out: &Path,
    reader: &LaneReader,
    count: u64,
    pipelines: &mut BTreeSet<Hash32>,
) -> Result<(u64, BTreeSet<(bool, Hash32)>), HandoverError> {
    let mut references = BTreeSet::new();
    let mut frames = Frames::create(out.join(file::EVENTS))?;
    let mut at = 0;
    while at < count {
        let events = reader.events(at, AT_ONCE)?;
        if events.is_empty() {
            break;
        }
        for event in events.iter().take(usize::try_from(count - at).unwrap_or(usize::MAX)) {
            frames.push(&event.to_bytes())?;
            match event {
                LaneEvent::Reference { name, version, .. } => {
                    references.insert((KeySet::is_name(name), *version));
                }
                LaneEvent::Pipeline { from, to, .. } => pipelines.extend([*from, *to]),
                LaneEvent::Tick(_) | LaneEvent::Evicted { .. } | LaneEvent::Label { .. } => {}
            }
            at += 1;
        }
    }
    frames.finish()?;
    Ok((at, references))
}

/// Checkpoints that were signed of this log, and the offsets read at their sizes.
fn write_checkpoints(out: &Path, dir: &Path, reader: &LaneReader, size: u64) -> Result<usize, HandoverError> {
    let kept: Vec<_> = signed::all(dir)?.into_iter().filter(|c| c.new_size <= size).collect();
    let mut offsets = String::new();
    let sizes: BTreeSet<u64> = kept.iter().flat_map(|c| [c.old_size, c.new_size]).collect();
    for size in sizes {
        let next = reader.at_size(size)?.next_offset;
        offsets.push_str(&format!("{{\"size\":{size},\"next_offset\":{next}}}\n"));
    }
    let path = out.join(file::OFFSETS);
    std::fs::write(&path, offsets).map_err(failed(&path))?;
    let lines = std::fs::File::create_new(out.join(signed::FILE));
    lines.map_err(failed(&out.join(signed::FILE)))?;
    for c in &kept {
        signed::keep(out, c)?;
    }
    Ok(kept.len())
}

fn write_readings(out: &Path, pipeline: &Pipeline, state: &Path, lane: i32, until: i64) -> Result<u64, HandoverError> {
    let mut frames = Frames::create(out.join(file::READINGS))?;
    let (mut count, mut bytes, mut last, mut failure) = (0, Vec::new(), None, None);
    let reached = read_source(pipeline, state, lane, until, |record| {
        bytes.clear();
        Reading::write(record, &mut bytes);
        match frames.push(&bytes) {
            Ok(()) => {
                (count, last) = (count + 1, Some(record.offset));
                true
            }
            Err(e) => {
                failure = Some(e);
                false
            }
        }
    })?;
    if let Some(e) = failure {
        return Err(e);
    }
    if !reached {
        return Err(HandoverError::ReadingsGone { missing: last.map_or(0, |n: i64| n + 1), until });
    }
    frames.finish()?;
    Ok(count)
}
