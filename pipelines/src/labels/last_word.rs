//! What was said last of each window.

use std::collections::BTreeMap;
use std::path::Path;

use avouch_connectors::store::{LaneReader, StoreError};
use avouch_engine::label::{Label, Opinion};

use super::recorded;
use crate::runtime::lane_dirs;

/// The labels in a pipeline's logs. Of several about one window the last in the log counts, whoever said it: a later label is how an
/// earlier one is corrected.
#[derive(Debug, Clone, Default)]
pub struct LastWord {
    /// By device, whose labels are in one log, in its order.
    labels: BTreeMap<String, Vec<Label>>,
}

impl LastWord {
    /// Of these labels, in the order of their logs.
    pub fn new(labels: impl IntoIterator<Item = Label>) -> Self {
        let mut out = Self::default();
        for label in labels {
            out.labels.entry(label.device.clone()).or_default().push(label);
        }
        out
    }

    /// Of the logs in a pipeline's state directory; none where there is no directory, or no checkpoint yet.
    ///
    /// # Errors
    /// When a log cannot be read.
    pub fn read(state: &Path) -> Result<Self, StoreError> {
        let lanes =
            lane_dirs(state).map_err(|source| StoreError::Io { doing: "list", path: state.to_path_buf(), source })?;
        let mut all = Vec::new();
        for (_, dir) in lanes {
            match LaneReader::open_read_only(&dir) {
                Ok(reader) => all.extend(recorded(&reader)?.into_iter().map(|r| r.label)),
                Err(StoreError::NoStore { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self::new(all))
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// What was said last of the window `[start, end)` that this step judged.
    pub fn of(&self, device: &str, step: &str, window: (i64, i64)) -> Option<Opinion> {
        self.last(device, step, window).map(|l| l.opinion)
    }

    /// The label that counts for a window.
    pub fn last(&self, device: &str, step: &str, window: (i64, i64)) -> Option<&Label> {
        self.labels.get(device)?.iter().rfind(|l| l.covers(device, step, window))
    }

    /// The labels that say something of a step's windows, device by device.
    pub fn of_step<'a>(&'a self, step: &'a str) -> impl Iterator<Item = &'a Label> {
        self.labels.values().flatten().filter(move |l| l.step.is_empty() || l.step == step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(device: &str, verdict: Option<u64>, (from, to): (u64, u64), opinion: Opinion) -> Label {
        Label {
            device: device.into(),
            verdict,
            step: if verdict.is_some() { "anomaly".into() } else { String::new() },
            from,
            to,
            opinion,
            reason: None,
            by: [0; 32],
            at: 0,
        }
    }

    #[test]
    fn the_last_that_covers_a_window_counts() {
        let word = LastWord::new([
            label("a", None, (0, 1_000), Opinion::Missed),
            label("a", Some(3), (200, 300), Opinion::FalseAlarm),
            label("b", None, (0, 1_000), Opinion::Healthy),
            label("a", None, (900, 1_100), Opinion::Healthy),
        ]);
        assert_eq!(word.of("a", "anomaly", (100, 200)), Some(Opinion::Missed));
        assert_eq!(word.of("a", "anomaly", (200, 300)), Some(Opinion::FalseAlarm));
        assert_eq!(word.of("a", "life", (200, 300)), Some(Opinion::Missed), "that verdict was of another step");
        assert_eq!(word.of("a", "anomaly", (850, 950)), Some(Opinion::Healthy));
        assert_eq!(word.of("a", "anomaly", (1_100, 1_200)), None);
        assert_eq!(word.of("c", "anomaly", (100, 200)), None);
        assert_eq!((word.of_step("anomaly").count(), word.of_step("life").count()), (4, 3));
        assert!(LastWord::default().is_empty());
    }
}
