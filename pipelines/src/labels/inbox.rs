//! The lane's side of labels: takes requests, once each, and deletes them when what they led to is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use avouch_connectors::store::{LaneReader, StoreError};
use avouch_engine::event::LaneEvent;
use avouch_engine::label::Label;
use avouch_engine::verdict::{Hash32, Logged, class};

use super::request::{Request, inbox_dir, put, waiting};

/// How often a lane looks for requests.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The lane took it.
    Taken,
    /// The log had it already.
    Repeated,
    /// It cannot be.
    Refused,
}

impl Outcome {
    /// All, in the order of the metric.
    pub const ALL: [Outcome; 3] = [Outcome::Taken, Outcome::Repeated, Outcome::Refused];

    /// Its name in the metric.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Taken => "taken",
            Outcome::Repeated => "repeated",
            Outcome::Refused => "refused",
        }
    }
}

/// What a lane is to do with the requests that are there.
#[derive(Debug, Default)]
pub struct Taken {
    /// Labels that it is to take, in this order.
    pub labels: Vec<Label>,
    /// What became of the others.
    pub others: Vec<Outcome>,
}

/// The inbox of one lane.
///
/// ```text
///   request there ─ take ─► the lane takes it ─ its record is durable ─► settled: the request is deleted
///        └─ the log has it already: deleted       └─ killed before that: the log has no trace of it, and the request is still there
/// ```
#[derive(Debug)]
pub struct Inbox {
    dir: PathBuf,
    looked: Option<Instant>,
    /// Labels that the log has, or that the lane has taken; of those before this process, once somebody asked.
    ids: BTreeSet<Hash32>,
    read: bool,
    /// Taken and not durable yet: the request, and the size of the log that covers it.
    unsettled: BTreeMap<Hash32, (PathBuf, u64)>,
    /// Said to be unreadable, so that it is not said again and again.
    said: bool,
    /// Files that are done with and could not be moved or deleted.
    stuck: BTreeSet<PathBuf>,
}

impl Inbox {
    /// Of a lane in a pipeline's state directory.
    pub fn new(state: &Path, lane: i32) -> Self {
        Self {
            dir: inbox_dir(state, lane),
            looked: None,
            ids: BTreeSet::new(),
            read: false,
            unsettled: BTreeMap::new(),
            said: false,
            stuck: BTreeSet::new(),
        }
    }

    /// Whether it is time to look.
    pub fn is_due(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY)
    }

    /// The lane has made these events, or was given them again.
    pub fn seen(&mut self, events: &[LaneEvent]) {
        self.ids.extend(events.iter().filter_map(|e| match e {
            LaneEvent::Label { label, .. } => Some(label.id()),
            _ => None,
        }));
    }

    /// Looks for requests. `reader` is of the lane's log; what is said of verdicts is held against what is durable there.
    ///
    /// # Errors
    /// When the log cannot be read. Trouble with requests is no reason for a lane to stop: it is logged.
    pub fn take(&mut self, reader: &LaneReader) -> Result<Taken, StoreError> {
        self.looked = Some(Instant::now());
        let mut out = Taken::default();
        let paths = match waiting(&self.dir) {
            Ok(paths) => paths,
            Err(e) => {
                if !std::mem::replace(&mut self.said, true) {
                    tracing::warn!(dir = %self.dir.display(), error = %e, "labels cannot be read");
                }
                return Ok(out);
            }
        };
        self.said = false;
        let mut requests = Vec::new();
        for path in paths {
            if self.stuck.contains(&path) || self.unsettled.values().any(|(taken, _)| *taken == path) {
                continue;
            }
            let read = std::fs::read(&path).map_err(|e| e.to_string());
            match read.and_then(|bytes| Request::from_bytes(&bytes).map_err(|e| e.to_string())) {
                Ok(request) => requests.push((path, request)),
                Err(why) => out.others.push(self.refuse(path, &why)),
            }
        }
        if requests.is_empty() {
            return Ok(out);
        }
        if !std::mem::replace(&mut self.read, true) {
            self.ids.extend(super::events(reader)?.iter().map(Label::id));
        }
        // As they were said.
        requests.sort_by_key(|(_, r)| (r.label.at, r.label.id()));
        for (path, Request { log, label }) in requests {
            let id = label.id();
            if self.ids.contains(&id) {
                out.others.push(Outcome::Repeated);
                self.remove(path);
                continue;
            }
            match stands(&log, &label, reader)? {
                Stands::Yes => {
                    self.ids.insert(id);
                    // Until the lane says which index it got, no log covers it.
                    self.unsettled.insert(id, (path, u64::MAX));
                    out.labels.push(label);
                }
                Stands::NotYet => {}
                Stands::No(why) => out.others.push(self.refuse(path, &why)),
            }
        }
        Ok(out)
    }

    /// The lane has taken a label; `size` is that of its log with it.
    pub fn taken(&mut self, label: &Label, size: u64) {
        if let Some((_, covered)) = self.unsettled.get_mut(&label.id()) {
            *covered = size;
        }
    }

    /// So much of the log is durable: requests that led to it are done with.
    pub fn settled(&mut self, size: u64) {
        let done: Vec<Hash32> =
            self.unsettled.iter().filter(|(_, (_, covered))| *covered <= size).map(|(id, _)| *id).collect();
        for id in done {
            if let Some((path, _)) = self.unsettled.remove(&id) {
                self.remove(path);
            }
        }
    }

    /// Puts a request aside, with the reason beside it.
    fn refuse(&mut self, path: PathBuf, why: &str) -> Outcome {
        tracing::warn!(request = %path.display(), why, "a label is refused");
        let aside = self.dir.join("refused").join(path.file_name().unwrap_or_default());
        let moved = put(&aside.with_extension("why"), why.as_bytes()).and_then(|()| std::fs::rename(&path, &aside));
        if let Err(e) = moved {
            tracing::warn!(request = %path.display(), error = %e, "it cannot be put aside");
            self.stuck.insert(path);
        }
        Outcome::Refused
    }

    /// A request that led to a record of the log. Left behind, it would be found there the next time.
    fn remove(&mut self, path: PathBuf) {
        if let Err(e) = std::fs::remove_file(&path)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(request = %path.display(), error = %e, "a label that is in the log cannot be deleted");
            self.stuck.insert(path);
        }
    }
}

enum Stands {
    Yes,
    /// The log has not regrown up to the verdict.
    NotYet,
    No(String),
}

/// Whether a request is of this log, and the verdict it is about is as it says.
fn stands(log: &str, label: &Label, reader: &LaneReader) -> Result<Stands, StoreError> {
    let committed = reader.committed();
    if log != committed.origin {
        return Ok(Stands::No(format!("it is for the log {log} and not for {}", committed.origin)));
    }
    let Some(index) = label.verdict else { return Ok(Stands::Yes) };
    if index >= committed.log_size {
        return Ok(Stands::NotYet);
    }
    let Logged::Record(r) = reader.record(index)? else {
        return Ok(Stands::No(format!("record {index} of the log was erased")));
    };
    let is = (&*r.evidence.device, &*r.evidence.step, r.verdict.window_start, r.verdict.window_end);
    if class::is_label(r.verdict.class) {
        return Ok(Stands::No(format!("record {index} of the log is a label itself")));
    }
    if is != (&*label.device, &*label.step, label.from, label.to) {
        return Ok(Stands::No(format!("verdict {index} is of another device, step or window than it says")));
    }
    Ok(Stands::Yes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use avouch_connectors::store::{Commit, LaneStore, StoreOptions};
    use avouch_engine::label::Opinion;
    use avouch_engine::lane::Snapshot;
    use avouch_engine::verdict::LogOrigin;

    use super::*;

    fn request(log: &str, verdict: Option<u64>, at: i64) -> Request {
        let label = Label {
            device: "pump-1".into(),
            verdict,
            step: "anomaly".into(),
            from: 0,
            to: 1,
            opinion: Opinion::Healthy,
            reason: None,
            by: [0; 32],
            at,
        };
        Request { log: log.into(), label }
    }

    fn commit(store: &mut LaneStore) {
        let state = Commit {
            next_offset: 1,
            lane_state: Snapshot::default(),
            config_hash: [0; 32],
            topic: "t",
            partition: 0,
            watermark: None,
            counters: &[],
        };
        store.commit(state).unwrap();
    }

    #[test]
    fn a_request_is_taken_once_in_the_order_of_what_was_said_and_goes_when_it_is_durable() {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) =
            LaneStore::open(&dir.path().join("0"), &LogOrigin::new("p", 0), StoreOptions::default()).unwrap();
        commit(&mut store);
        let inbox = inbox_dir(dir.path(), 0);
        let log = "avouch/p/0";
        let paths = [20, 10, 30].map(|at| request(log, None, at).put(&inbox).unwrap());
        // One about a verdict that the log does not have yet, and one for another lane.
        let early = request(log, Some(4), 0).put(&inbox).unwrap();
        let other = request("avouch/p/1", None, 0).put(&inbox).unwrap();

        let mut lane = Inbox::new(dir.path(), 0);
        assert!(lane.is_due());
        let taken = lane.take(&store.reader()).unwrap();
        assert!(!lane.is_due());
        assert_eq!(taken.labels.iter().map(|l| l.at).collect::<Vec<_>>(), [10, 20, 30]);
        assert_eq!(taken.others, [Outcome::Refused]);
        assert!(early.exists() && !other.exists() && inbox.join("refused").join(other.file_name().unwrap()).exists());
        for (label, size) in taken.labels.iter().zip(1..) {
            lane.taken(label, size);
            store.append_event(&LaneEvent::Label { after_offset: 0, label: label.clone() }).unwrap();
        }
        assert!(lane.take(&store.reader()).unwrap().labels.is_empty(), "they are taken");

        // A checkpoint that covers the first two.
        lane.settled(2);
        assert_eq!(paths.each_ref().map(|p| p.exists()), [false, false, true]);
        commit(&mut store);
        lane.settled(3);
        assert!(!paths[2].exists());

        // Another process finds one of them again, and knows it from the log.
        request(log, None, 20).put(&inbox).unwrap();
        let mut next = Inbox::new(dir.path(), 0);
        let again = next.take(&store.reader()).unwrap();
        assert!(again.labels.is_empty() && again.others == [Outcome::Repeated] && !paths[0].exists());
        // And one that its lane was given again, before any checkpoint covers it.
        let given = request(log, None, 40);
        next.seen(&[LaneEvent::Label { after_offset: 0, label: given.label.clone() }]);
        given.put(&inbox).unwrap();
        assert_eq!(next.take(&store.reader()).unwrap().others, [Outcome::Repeated]);
    }
}
