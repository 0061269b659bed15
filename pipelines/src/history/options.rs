//! What to run a pipeline over, and how.

use avouch_connectors::files::{DeviceFrom, Format, Order, ReplayOptions};
use avouch_engine::verdict::Secret;

use crate::lang::Pipeline;

/// What happens to time after the last row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    /// Nothing, as after `avouch run --until-end`: windows that the watermark has not passed stay open and give nothing.
    #[default]
    Stop,
    /// So many milliseconds pass in which no row comes: time goes on from each lane's watermark by as much, in ticks, as
    /// `time.idle_after` lets a running pipeline's do.
    Silence(i64),
    /// Time goes on, in ticks, until every window is closed.
    CloseAll,
}

/// What to run over and how. Made by [`HistoryOptions::of`].
#[derive(Debug, Clone)]
pub struct HistoryOptions {
    /// File names or patterns; relative ones start at the working directory.
    pub files: Vec<String>,
    /// What they hold, where their names do not say.
    pub format: Option<Format>,
    /// Field delimiter of CSV.
    pub delimiter: u8,
    /// What names the device of a row; the pipeline's key column if not said otherwise.
    pub device: DeviceFrom,
    /// The order of rows: as they stand, file after file, if not said otherwise.
    pub order: Order,
    /// The column with the time of arrival, which becomes the record's timestamp; without it that is the event time.
    pub arrival: Option<String>,
    /// At most so many rows of each device.
    pub first: Option<u64>,
    /// How many lanes.
    pub lanes: i32,
    /// The steps whose rows are wanted; the source by its name.
    pub watch: Vec<String>,
    /// What happens after the last row.
    pub ending: Ending,
    /// The key of pseudonyms and salts. It is no secret here, and is the same wherever this runs.
    pub secret: Secret,
    pub(super) key: String,
    pub(super) time: String,
}

impl HistoryOptions {
    /// Rows of these files as the pipeline's source names their fields.
    pub fn of<S: Into<String>>(pipeline: &Pipeline, files: impl IntoIterator<Item = S>) -> Self {
        let (key, time) = (&pipeline.source.key.value, &pipeline.source.time.column.value);
        Self {
            files: files.into_iter().map(Into::into).collect(),
            format: None,
            delimiter: b',',
            device: DeviceFrom::Column(key.clone()),
            order: Order::File,
            arrival: None,
            first: None,
            lanes: 1,
            watch: Vec::new(),
            ending: Ending::Stop,
            secret: Secret::new(b"avouch history"),
            key: key.clone(),
            time: time.clone(),
        }
    }

    pub(super) fn replay(&self) -> ReplayOptions {
        let mut replay = ReplayOptions::new(self.files.iter().cloned());
        replay.format = self.format;
        replay.delimiter = self.delimiter;
        replay.device = Some(self.device.clone());
        replay.device_field = Some(self.key.clone());
        replay.time = Some(self.time.clone());
        replay.arrival = self.arrival.clone();
        replay.order = self.order;
        replay.first = self.first;
        // What is wrong with a row is the lane's to say.
        replay.keep_unreadable = true;
        replay.keep_undated = true;
        replay
    }
}
