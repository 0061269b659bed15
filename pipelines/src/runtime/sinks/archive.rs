//! The Parquet archive. Exactly once, by doing the same again: see [`avouch_connectors::files`] `Archive`.
//!
//! A range of the log becomes files when it has `rows` records, about `size` bytes, or when its first record has waited
//! for `every`; that bounds how far the archive is behind the log. A stop writes what there is.

use std::collections::BTreeMap;
use std::time::Duration;

use avouch_connectors::delivery::Failure;
use avouch_connectors::files::{Archive, ArchiveCursor};
use avouch_connectors::store::{Cursor, LaneReader};
use avouch_engine::control::sink::Gather;
use avouch_engine::decode::format_timestamp;
use avouch_engine::verdict::VerdictRecord;

use super::Target;
use super::feed::Record;
use super::writer::{Batch, Halt, Position, blocking};
use crate::lang::ParquetSink;
use crate::verdict_table::archive_rows;

#[derive(Debug, Clone)]
pub(super) struct Options {
    url: String,
    every: Duration,
    rows: usize,
    bytes: usize,
}

impl Options {
    pub fn new(p: &ParquetSink) -> Self {
        Self {
            url: p.url.clone(),
            every: Duration::from_millis(p.every_ms.max(0) as u64),
            rows: p.rows,
            bytes: p.bytes,
        }
    }
}

pub(super) struct ArchiveWriter {
    archive: Archive,
    at: ArchiveCursor,
    /// A copy in the lane's directory, which tells a first start from an archive that is gone.
    pub(super) copy: Cursor,
    options: Options,
    /// Bytes of a record, as far as known from the last range.
    record_bytes: usize,
}

impl ArchiveWriter {
    pub async fn open(target: &Target, options: &Options, reader: &LaneReader) -> Result<(Self, Position), Halt> {
        let copy = reader.cursor(&target.name)?;
        let mut archive = Archive::open(&options.url, &reader.committed().origin, &target.name)?;
        let found = archive.cursor().await?;
        // One that was killed in its first range has announced it and nothing else.
        let note = found.as_ref().filter(|c| c.next > 0).map(|c| c.root.clone());
        let (cursor, saved) = (found.as_ref().map(|c| c.next), copy.get());
        let at = found.unwrap_or_default();
        let announced = (at.until > at.next).then_some(at.until);
        let position = Position { cursor, note, saved, announced };
        Ok((Self { archive, at, copy, options: options.clone(), record_bytes: 0 }, position))
    }

    pub fn most(&self) -> (usize, usize) {
        (self.options.rows, self.options.bytes)
    }

    pub fn gather(&self) -> Gather {
        let by_size = self.options.bytes.checked_div(self.record_bytes).map_or(u64::MAX, |n| n as u64);
        let longest_ms = i64::try_from(self.options.every.as_millis()).unwrap_or(i64::MAX);
        Gather { enough: by_size.min(self.options.rows as u64), longest_ms }
    }

    pub fn forgotten(&self, target: &Target, archived: u64) -> String {
        format!(
            "sink \"{}\" has archived {archived} records, but there is no archive of this log at {}: it was moved or deleted. \
             Bring it back or correct `path`; to archive everything again, delete the lane's file cursor-{}",
            target.name, self.options.url, target.name
        )
    }

    pub async fn announce(&mut self, to: u64) -> Result<(), Halt> {
        if self.at.until != to {
            let announced = ArchiveCursor { until: to, ..self.at.clone() };
            self.archive.set_cursor(&announced).await?;
            self.at = announced;
        }
        Ok(())
    }

    pub async fn deliver(&mut self, batch: Batch<'_>) -> Result<(), Halt> {
        let mut days: BTreeMap<String, Vec<VerdictRecord>> = BTreeMap::new();
        for item in batch.items {
            if let Record::Verdict(r) = &item.record {
                let mut day = format_timestamp(r.verdict.window_end as i64);
                day.truncate("YYYY-MM-DD".len());
                days.entry(day).or_default().push(r.clone());
            }
        }
        let log = batch.log.to_owned();
        let days = blocking(move || {
            let mut out = BTreeMap::new();
            for (day, records) in days {
                let records: Vec<&VerdictRecord> = records.iter().collect();
                let rows =
                    archive_rows(&log, &records).map_err(|e| Failure::Fatal(format!("rows of the archive: {e}")))?;
                out.insert(day, rows);
            }
            Ok(out)
        })
        .await?;
        let (bytes, rows) =
            days.values().fold((0, 0), |(b, n), rows| (b + rows.get_array_memory_size(), n + rows.num_rows()));
        if let Some(each) = bytes.checked_div(rows) {
            self.record_bytes = each;
        }
        self.at = self.archive.write(&self.at, &days, batch.note).await?;
        Ok(())
    }
}
