//! Where lanes are: behind a pipeline file, in a directory, in an object store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use avouch_connectors::store::{
    ObjectStoreOptions, ObjectStoreRoot, RemoteLane, inspect_dir, inspect_remote, open_object_store,
};

use super::{LaneState, StateError};
use crate::lang::Pipeline;
use crate::runtime::{CheckpointStore, state_dir};

/// How long a failing object store is asked again.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) enum Place {
    /// Lanes in directories: pipeline, lane, directory.
    Directories(String, Vec<(String, i32, PathBuf)>),
    /// Lanes in an object store: pipeline, lane, path below the root.
    Remote(String, ObjectStoreRoot, Vec<(String, i32, String)>),
}

fn bad(place: &str, why: impl Into<String>) -> StateError {
    StateError::Place { place: place.to_owned(), why: why.into() }
}

fn number(name: &str) -> Option<i32> {
    name.parse().ok().filter(|n: &i32| *n >= 0 && n.to_string() == name)
}

impl Place {
    pub fn find(text: &str) -> Result<Self, StateError> {
        if text.contains("://") && !text.starts_with("file://") {
            let root = open_object_store(text, &ObjectStoreOptions::default()).map_err(|why| bad(text, why))?;
            return Self::remote(text, root, None);
        }
        let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
        if path.is_file() {
            let pipeline = Pipeline::load(path).map_err(|d| StateError::Pipeline(d.render_text(false)))?;
            let name = pipeline.name.value.clone();
            return match CheckpointStore::open(&pipeline).map_err(|e| bad(text, e.to_string()))?.root() {
                Some(root) => Self::remote(text, root.clone(), Some(&name)),
                None => Self::directories(text, &state_dir(&pipeline)),
            };
        }
        if !path.is_dir() {
            return Err(bad(text, "there is no such file or directory"));
        }
        Self::directories(text, path)
    }

    pub fn directories(text: &str, dir: &Path) -> Result<Self, StateError> {
        let mut found = Vec::new();
        let name = |dir: &Path| dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let canonical = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
        let lane = |dir: &Path| number(&name(dir)).filter(|_| has_checkpoint(dir));
        if let Some(n) = lane(&canonical) {
            let pipeline = canonical.parent().map(name).unwrap_or_default();
            found.push((pipeline, n, dir.to_path_buf()));
        } else {
            for inner in below(dir) {
                if let Some(n) = lane(&inner) {
                    found.push((name(&canonical), n, inner));
                } else {
                    found.extend(below(&inner).into_iter().filter_map(|d| Some((name(&inner), lane(&d)?, d))));
                }
            }
        }
        found.sort();
        if found.is_empty() {
            return Err(bad(text, format!("there are no checkpoints in {}", dir.display())));
        }
        Ok(Place::Directories(text.to_owned(), found))
    }

    fn remote(text: &str, root: ObjectStoreRoot, pipeline: Option<&str>) -> Result<Self, StateError> {
        let ask = |path: &str| root.directories(path).map_err(|e| bad(text, e.to_string()));
        let mut found = Vec::new();
        match pipeline {
            Some(name) => {
                for lane in ask(name)? {
                    found.extend(number(&lane).map(|n| (name.to_owned(), n, format!("{name}/{lane}"))));
                }
            }
            None => {
                let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
                for inner in ask("")? {
                    match number(&inner) {
                        Some(n) => found.push((last.clone(), n, inner)),
                        None => {
                            for lane in ask(&inner)? {
                                found.extend(number(&lane).map(|n| (inner.clone(), n, format!("{inner}/{lane}"))));
                            }
                        }
                    }
                }
            }
        }
        found.sort();
        if found.is_empty() {
            return Err(bad(text, "there are no checkpoints there"));
        }
        Ok(Place::Remote(text.to_owned(), root, found))
    }

    /// The directory of one lane of one pipeline.
    pub fn directory(&self, lane: i32) -> Result<PathBuf, StateError> {
        let (place, found) = match self {
            Place::Directories(place, found) => (place, found),
            Place::Remote(place, ..) => {
                let why =
                    "events are read from a lane's directory; name the pipeline file or the directory it works in";
                return Err(bad(place, why));
            }
        };
        let mut here = found.iter().filter(|(_, n, _)| *n == lane);
        match (here.next(), here.next()) {
            (Some((_, _, dir)), None) => Ok(dir.clone()),
            (Some((a, ..)), Some((b, ..))) => {
                Err(bad(place, format!("holds the pipelines {a} and {b}; name one of them")))
            }
            (None, _) => {
                let there: Vec<String> = found.iter().map(|(_, n, _)| n.to_string()).collect();
                Err(StateError::NoLane { place: place.clone(), lane, there: there.join(", ") })
            }
        }
    }

    /// The lanes, or the one of a number in each pipeline.
    pub fn lanes(&self, only: Option<i32>, verify: bool) -> Result<Vec<LaneState>, StateError> {
        let wanted = |n: i32| only.is_none_or(|o| o == n);
        let mut out = Vec::new();
        match self {
            Place::Directories(_, found) => {
                for (pipeline, lane, dir) in found.iter().filter(|(_, n, _)| wanted(*n)) {
                    out.push(LaneState {
                        pipeline: pipeline.clone(),
                        lane: *lane,
                        place: dir.display().to_string(),
                        checkpoints: inspect_dir(dir)?,
                    });
                }
            }
            Place::Remote(_, root, found) => {
                for (pipeline, lane, path) in found.iter().filter(|(_, n, _)| wanted(*n)) {
                    let objects = root.under(path);
                    let place = objects.url();
                    let checkpoints = inspect_remote(&RemoteLane::new(objects, PATIENCE), verify)?;
                    out.push(LaneState { pipeline: pipeline.clone(), lane: *lane, place, checkpoints });
                }
            }
        }
        match only {
            Some(lane) if out.is_empty() => {
                let (place, mut there) = match self {
                    Place::Directories(place, f) => (place, f.iter().map(|f| f.1).collect::<Vec<_>>()),
                    Place::Remote(place, _, f) => (place, f.iter().map(|f| f.1).collect()),
                };
                there.sort_unstable();
                there.dedup();
                let there = there.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
                Err(StateError::NoLane { place: place.clone(), lane, there })
            }
            _ => Ok(out),
        }
    }
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.map(|e| e.path()).filter(|p| p.is_dir()).collect()
}

fn has_checkpoint(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries.map(|e| e.file_name()).any(|n| n.to_string_lossy().starts_with("checkpoint-"))
}
