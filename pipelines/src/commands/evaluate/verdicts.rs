//! The verdicts of a pipeline, from the logs of its lanes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use avouch_connectors::store::LaneReader;
use avouch_engine::decode::format_timestamp;
use avouch_engine::verdict::{Hash32, Logged, Severity, VerdictRecord, class};

use super::EvaluateError;
use crate::lang::{Pipeline, hex, plural};
use crate::runtime::lanes_here;

/// What one verdict says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Judged {
    /// Warning or worse.
    pub alarm: bool,
    /// NaN when the window could not be scored.
    pub score: f64,
    pub p_value: f64,
    pub lane: i32,
}

impl Judged {
    /// What a record says.
    pub fn of(record: &VerdictRecord, lane: i32) -> Self {
        let v = &record.verdict;
        Self {
            alarm: v.class != class::NOT_A_NUMBER && v.severity >= Severity::Warning.code(),
            score: record.evidence.score,
            p_value: record.evidence.p_value,
            lane,
        }
    }
}

/// All verdicts of one model step.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// By device, then by window end in milliseconds.
    by_device: BTreeMap<String, BTreeMap<u64, Judged>>,
    pub count: u64,
    /// Verdicts whose score is not a number.
    pub not_a_number: u64,
    /// Records of the logs that were erased; what they said is not known.
    pub erased: u64,
    pub lanes: Vec<i32>,
    /// Whether they come from a run in memory, not from logs.
    pub in_memory: bool,
    /// The models that made them.
    pub models: BTreeSet<Hash32>,
}

impl Verdicts {
    pub fn of(&self, device: &str) -> Option<&BTreeMap<u64, Judged>> {
        self.by_device.get(device)
    }

    pub fn devices(&self) -> impl Iterator<Item = &str> {
        self.by_device.keys().map(String::as_str)
    }

    /// Adds a verdict; a device's window has one.
    pub fn add(&mut self, device: &str, window_end: u64, judged: Judged) -> Result<(), EvaluateError> {
        self.count += 1;
        self.not_a_number += u64::from(judged.score.is_nan());
        if !self.by_device.contains_key(device) {
            self.by_device.insert(device.to_owned(), BTreeMap::new());
        }
        let earlier = self.by_device.get_mut(device).and_then(|windows| windows.insert(window_end, judged));
        match earlier {
            None => Ok(()),
            Some(earlier) => Err(EvaluateError::Twice {
                device: device.to_owned(),
                window_end: format_timestamp(window_end as i64),
                first: earlier.lane,
                second: judged.lane,
            }),
        }
    }
}

/// Reads what the durable checkpoints of all lanes cover; a running pipeline is not disturbed. Every verdict is checked
/// against the log's entry and its evidence against the verdict.
pub(super) fn read(
    pipeline: &Pipeline,
    step: &str,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verdicts, EvaluateError> {
    let state = lanes_here(pipeline)?;
    let lanes = lanes(&state)?;
    if lanes.is_empty() {
        return Err(EvaluateError::NoState { dir: state, pipeline: pipeline.name.value.clone() });
    }
    let readers: Vec<(i32, LaneReader)> = lanes
        .into_iter()
        .map(|(lane, dir)| Ok((lane, LaneReader::open_read_only(&dir)?)))
        .collect::<Result<_, EvaluateError>>()?;
    let all = readers.iter().map(|(_, r)| r.committed().log_size).sum();
    let mut out = Verdicts { lanes: readers.iter().map(|(lane, _)| *lane).collect(), ..Verdicts::default() };
    let mut done = 0;
    for (lane, reader) in &readers {
        let committed = reader.committed();
        // Checkpoint 0 is that of a store nothing was written to.
        if committed.seq > 0 {
            same(pipeline, reader.dir(), &committed.config_hash, || "newest checkpoint".into())?;
        }
        for index in 0..committed.log_size {
            done += 1;
            let Logged::Record(record) = reader.record(index)? else {
                out.erased += 1;
                continue;
            };
            let v = &record.verdict;
            same(pipeline, reader.dir(), &v.config_hash, || format!("verdict {index}"))?;
            // What a person says of a verdict is none.
            if *record.evidence.step == *step && !class::is_label(v.class) {
                out.models.insert(v.model_hash);
                out.add(&record.evidence.device, v.window_end, Judged::of(&record, *lane))?;
            }
            if done % 1024 == 0 {
                progress(done, all);
            }
        }
    }
    if out.count == 0 {
        return Err(EvaluateError::NoVerdicts {
            dir: state,
            step: step.to_owned(),
            lanes: plural(out.lanes.len(), "lane"),
            topic: pipeline.source.reads().to_owned(),
        });
    }
    Ok(out)
}

fn same(pipeline: &Pipeline, dir: &Path, found: &Hash32, what: impl FnOnce() -> String) -> Result<(), EvaluateError> {
    if *found == pipeline.config_hash() {
        return Ok(());
    }
    Err(EvaluateError::OtherPipeline {
        dir: dir.to_path_buf(),
        what: what(),
        found: hex(found),
        expected: hex(&pipeline.config_hash()),
    })
}

/// The lanes of a state directory: its subdirectories whose name is a partition's number.
fn lanes(state: &Path) -> Result<Vec<(i32, PathBuf)>, EvaluateError> {
    let io = |source| EvaluateError::Io { path: state.to_path_buf(), source };
    let entries = match std::fs::read_dir(state) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io(e)),
    };
    let mut out = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Ok(lane) = name.parse::<u16>()
            && path.is_dir()
        {
            out.push((i32::from(lane), path));
        }
    }
    out.sort();
    Ok(out)
}
