//! Which records are meant, and whether they can go.

use std::ops::RangeInclusive;

use avouch_connectors::store::LaneReader;
use avouch_engine::verdict::{Logged, VerdictRecord, class};

use super::EraseError;
use crate::lang::Pipeline;
use crate::runtime::hex;

/// Records read at once.
const AT_ONCE: usize = 2_000;

/// What is meant: records for which all that is given holds.
#[derive(Debug, Clone, Default)]
pub struct What {
    /// Those about this device, labels among them.
    pub device: Option<String>,
    /// Those whose window reaches into these milliseconds since the epoch, the second not among them.
    pub within: Option<(u64, u64)>,
    /// Those with one of these indices; none: any.
    pub indices: Vec<RangeInclusive<u64>>,
}

impl What {
    fn means(&self, record: &VerdictRecord) -> bool {
        let v = &record.verdict;
        // A window without length is in it, too, if it is not outside.
        let reaches = |(from, to): (u64, u64)| v.window_start < to && v.window_end.max(v.window_start + 1) > from;
        self.device.as_ref().is_none_or(|d| *d == record.evidence.device)
            && self.within.is_none_or(reaches)
            && (self.indices.is_empty() || self.indices.iter().any(|r| r.contains(&record.index)))
    }
}

/// What was chosen of one lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// The source partition.
    pub lane: i32,
    /// The log.
    pub log: String,
    /// How many records it has.
    pub size: u64,
    /// How many of them were erased before.
    pub erased: u64,
    /// Indices of those that are meant, in order.
    pub indices: Vec<u64>,
    /// How many of them are labels.
    pub labels: u64,
    /// Begin of their first window, and end of the last.
    pub windows: (u64, u64),
    /// Hashes of the reasons of labels among them, hexadecimal.
    pub reasons: Vec<String>,
}

/// Goes through a lane's log.
///
/// # Errors
/// When it cannot be read.
pub fn choose(what: &What, lane: i32, reader: &LaneReader) -> Result<Chosen, EraseError> {
    let committed = reader.committed();
    let mut chosen = Chosen {
        lane,
        log: committed.origin.clone(),
        size: committed.log_size,
        erased: 0,
        indices: Vec::new(),
        labels: 0,
        windows: (u64::MAX, 0),
        reasons: Vec::new(),
    };
    each(reader, |logged| {
        let Logged::Record(record) = logged else {
            chosen.erased += 1;
            return;
        };
        if what.means(&record) {
            chosen.indices.push(record.index);
            chosen.labels += u64::from(class::is_label(record.verdict.class));
            let (from, to) = chosen.windows;
            chosen.windows = (from.min(record.verdict.window_start), to.max(record.verdict.window_end));
            chosen.reasons.extend(record.evidence.label.and_then(|l| l.reason).map(|hash| hex(&hash)));
        }
    })?;
    Ok(chosen)
}

/// The indices of all records of a log that were erased.
///
/// # Errors
/// When it cannot be read.
pub(super) fn erased(reader: &LaneReader) -> Result<Vec<u64>, EraseError> {
    let mut out = Vec::new();
    each(reader, |logged| out.extend(logged.is_erased().then_some(logged.index())))?;
    Ok(out)
}

/// Goes through all that is committed of a log, without holding it.
fn each(reader: &LaneReader, mut take: impl FnMut(Logged)) -> Result<(), EraseError> {
    let size = reader.committed().log_size;
    let mut at = 0;
    while at < size {
        let logged = reader.records(at, AT_ONCE)?;
        if logged.is_empty() {
            break;
        }
        at += logged.len() as u64;
        logged.into_iter().for_each(&mut take);
    }
    Ok(())
}

/// The sinks that have not had the last of these records yet, and how far each has got.
///
/// # Errors
/// When a cursor cannot be read.
pub fn waiting_sinks(
    pipeline: &Pipeline,
    chosen: &Chosen,
    reader: &LaneReader,
) -> Result<Vec<(String, u64)>, EraseError> {
    let Some(last) = chosen.indices.last() else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for sink in &pipeline.sinks {
        let at = reader.cursor(&sink.name.value)?.get();
        if at <= *last {
            out.push((sink.name.value.clone(), at));
        }
    }
    Ok(out)
}
