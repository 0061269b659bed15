//! The archive: verdicts as Parquet files, partitioned by day, in a directory or an object store.
//!
//! ```text
//!   <path>/day=2026-11-22/<log>.<sink>.<first>-<last>.parquet      the verdicts of a range of the log that fall on a day
//!   <path>/_cursors/<log>.<sink>.json                              how far the archive has got, and what it is writing
//! ```
//!
//! Exactly once, by doing the same thing again: a file's name and rows are a function of the log and a range in it, and
//! the range is made durable in the cursor (`until`) before the first file of it is written. After a crash the same range
//! is written again, over whatever is there of it; the cursor's `next` moves only after every file of the range is durable.
//! So there is never a row twice, and never one missing below `next`. (A file written again by another version of the
//! Parquet writer may differ in bytes, never in rows.)
//!
//! One writer: where the store can compare before it writes (S3), a cursor that another writer has moved fails the
//! write; on a local directory the lane's lock keeps others out.

use std::collections::BTreeMap;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutResult, RetryConfig, UpdateVersion,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use crate::delivery::{DownKind, Failure};

/// How far an archive has got.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArchiveCursor {
    /// Index of the first verdict not in it yet.
    pub next: u64,
    /// What is being written: up to here, exclusive. Equal to `next` when nothing is.
    pub until: u64,
    /// The root of the log at `next`, in hexadecimal: whose log this is.
    pub root: String,
}

/// Where the archive of one sink and log is.
#[derive(Debug)]
pub struct Archive {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    name: String,
    /// The version of the cursor that we wrote or read last, where the store has versions.
    version: Option<UpdateVersion>,
    #[cfg(test)]
    kill: tests::Kill,
}

/// Letters, digits and a few signs stay; `/` becomes `-`, everything else `_`.
fn file_name(text: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.chars()
        .map(|c| {
            if c == '/' {
                '-'
            } else if fits(c) {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// The bucket of an `s3://` URL, with S3's settings from the environment.
fn s3(url: &str) -> AmazonS3Builder {
    AmazonS3Builder::from_env().with_url(url)
}

/// The store and the prefix in it of an archive at `s3://<bucket>/<prefix>`, to be read with the settings that
/// [`Archive::open`] writes it with. Whoever reads does not wait as long as the sink does: a request that fails is tried
/// again twice, within 20 s.
///
/// # Errors
/// Settings that contradict each other, in words.
pub fn archive_in_s3(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), String> {
    let prefix = url.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).map_or("", |(_, p)| p);
    let retry = RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(20), ..RetryConfig::default() };
    let store = s3(url).with_retry(retry).build().map_err(|e| e.to_string())?;
    Ok((Arc::new(store), Path::from(prefix)))
}

impl Archive {
    /// Opens the archive of a sink and a log at `file://<absolute path>` (created if need be) or `s3://<bucket>/<prefix>`,
    /// with S3's settings from the environment (`AWS_ACCESS_KEY_ID`, `AWS_REGION`, `AWS_ENDPOINT`, …).
    ///
    /// # Errors
    /// [`Failure::Fatal`] for a URL that is neither, [`Failure::Down`] for a directory that cannot be made.
    pub fn open(url: &str, log: &str, sink: &str) -> Result<Self, Failure> {
        let (store, prefix): (Arc<dyn ObjectStore>, Path) = match url.split_once("://") {
            Some(("file", dir)) => {
                let dir = FsPath::new(dir);
                let down = |e: &dyn std::fmt::Display| {
                    Failure::down(DownKind::Failed, format!("the directory {} cannot be used: {e}", dir.display()))
                };
                std::fs::create_dir_all(dir).map_err(|e| down(&e))?;
                let store = LocalFileSystem::new_with_prefix(dir).map_err(|e| down(&e))?.with_fsync(true);
                (Arc::new(store), Path::default())
            }
            Some(("s3", rest)) => {
                let prefix = rest.split_once('/').map_or("", |(_, p)| p);
                let store = s3(url).build().map_err(|e| Failure::Fatal(format!("{url}: {e}")))?;
                (Arc::new(store), Path::from(prefix))
            }
            _ => return Err(Failure::Fatal(format!("{url} is neither file:// nor s3://"))),
        };
        Ok(Self::with_store(store, prefix, log, sink))
    }

    fn with_store(store: Arc<dyn ObjectStore>, prefix: Path, log: &str, sink: &str) -> Self {
        Self {
            store,
            prefix,
            name: format!("{}.{}", file_name(log), file_name(sink)),
            version: None,
            #[cfg(test)]
            kill: tests::Kill::default(),
        }
    }

    fn cursor_path(&self) -> Path {
        self.prefix.clone().join("_cursors").join(format!("{}.json", self.name))
    }

    fn file_path(&self, day: &str, first: u64, last: u64) -> Path {
        self.prefix.clone().join(format!("day={day}")).join(format!("{}.{first:012}-{last:012}.parquet", self.name))
    }

    /// The cursor; `None` when there is none yet.
    ///
    /// # Errors
    /// [`Failure::Fatal`] when it is damaged: it is never taken for 0. [`Failure::Down`].
    pub async fn cursor(&mut self) -> Result<Option<ArchiveCursor>, Failure> {
        let path = self.cursor_path();
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => {
                self.version = None;
                return Ok(None);
            }
            Err(e) => return Err(failed("reading", &path, &e)),
        };
        self.version = Some(UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() });
        let bytes = found.bytes().await.map_err(|e| failed("reading", &path, &e))?;
        match serde_json::from_slice::<ArchiveCursor>(&bytes) {
            Ok(c) if c.until >= c.next => Ok(Some(c)),
            _ => Err(Failure::Fatal(format!(
                "{path} is not the cursor of an archive, or was altered; restore it, or delete it with the archive's files \
                 named {}.* to archive everything again",
                self.name
            ))),
        }
    }

    /// Makes a cursor durable.
    ///
    /// # Errors
    /// [`Failure::Fatal`] when another writer has moved it since; [`Failure::Down`].
    pub async fn set_cursor(&mut self, cursor: &ArchiveCursor) -> Result<(), Failure> {
        let path = self.cursor_path();
        let bytes = serde_json::to_vec(cursor).map_err(|e| Failure::Fatal(format!("{path}: {e}")))?;
        let mode = match self.version.clone() {
            Some(version) => PutMode::Update(version),
            None => PutMode::Create,
        };
        let outcome = match self.put(&path, bytes.clone(), mode).await {
            // A local directory compares nothing; there the lane's lock keeps other writers out.
            Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
                self.put(&path, bytes, PutMode::Overwrite).await
            }
            other => other,
        };
        match outcome {
            Ok(put) => {
                self.version = Some(put.into());
                Ok(())
            }
            // Our own write may have arrived although its answer did not; then what is there is what we wrote.
            Err(StoreError::Precondition { .. } | StoreError::AlreadyExists { .. }) => match self.cursor().await? {
                Some(there) if there == *cursor => Ok(()),
                _ => Err(Failure::Fatal(format!(
                    "{path} was written by another process meanwhile: two processes archive the same log to one place; \
                     stop one"
                ))),
            },
            Err(e) => Err(failed("writing", &path, &e)),
        }
    }

    /// Writes the range `[cursor.next, cursor.until)` that [`Archive::set_cursor`] has announced: a file for each day with
    /// rows, each over one of the same name, and when all are durable the cursor. `root` is the log's root at its end.
    ///
    /// # Errors
    /// [`Failure::Down`]; [`Failure::Fatal`] when the rows cannot be encoded, or as [`Archive::set_cursor`].
    pub async fn write(
        &mut self,
        cursor: &ArchiveCursor,
        days: &BTreeMap<String, RecordBatch>,
        root: &str,
    ) -> Result<ArchiveCursor, Failure> {
        for (day, rows) in days {
            let path = self.file_path(day, cursor.next, cursor.until.saturating_sub(1));
            let bytes = encode(rows).map_err(|e| Failure::Fatal(format!("{path}: {e}")))?;
            self.put(&path, bytes, PutMode::Overwrite).await.map_err(|e| failed("writing", &path, &e))?;
        }
        let done = ArchiveCursor { next: cursor.until, until: cursor.until, root: root.to_owned() };
        self.set_cursor(&done).await?;
        Ok(done)
    }

    async fn put(&self, path: &Path, bytes: Vec<u8>, mode: PutMode) -> Result<PutResult, StoreError> {
        #[cfg(test)]
        self.kill.before()?;
        let put = self.store.put_opts(path, bytes.into(), PutOptions::from(mode)).await;
        #[cfg(test)]
        self.kill.after()?;
        put
    }
}

/// One Parquet file: a function of the rows and of this version of the writer.
fn encode(rows: &RecordBatch) -> Result<Vec<u8>, parquet::errors::ParquetError> {
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(rows)?;
    writer.into_inner()
}

fn failed(doing: &str, path: &Path, e: &StoreError) -> Failure {
    let kind = match e {
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => DownKind::Denied,
        _ => DownKind::Failed,
    };
    Failure::down(kind, format!("{doing} {path} of the archive: {e}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicI64, Ordering};

    use arrow::array::{AsArray as _, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use object_store::memory::InMemory;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    /// Stops an archive at its n-th write as a kill would: before it, or after it but before its answer. Every later write is
    /// refused too.
    #[derive(Debug)]
    pub(super) struct Kill {
        left: AtomicI64,
        after: bool,
    }

    impl Default for Kill {
        fn default() -> Self {
            Self { left: AtomicI64::new(i64::MAX), after: false }
        }
    }

    impl Kill {
        fn stop() -> StoreError {
            StoreError::Generic { store: "test", source: "killed".into() }
        }
        pub fn before(&self) -> Result<(), StoreError> {
            let left = self.left.fetch_sub(1, Ordering::Relaxed);
            if left < 0 || (left == 0 && !self.after) { Err(Self::stop()) } else { Ok(()) }
        }
        pub fn after(&self) -> Result<(), StoreError> {
            if self.left.load(Ordering::Relaxed) < 0 { Err(Self::stop()) } else { Ok(()) }
        }
    }

    fn day(index: u64) -> String {
        // Three days, interleaved, as late verdicts make them.
        format!("2026-01-0{}", 1 + (index / 7 + index % 2) % 3)
    }

    fn rows(indices: &[i64]) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("index", DataType::Int64, false)]);
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(Int64Array::from(indices.to_vec()))]).unwrap()
    }

    /// Archives a log of `have` entries in ranges of `roll`, as a process would until it is killed.
    async fn run(archive: &mut Archive, have: u64, roll: u64) -> Result<(), Failure> {
        let mut at = archive.cursor().await?.unwrap_or_default();
        while at.next < have {
            if at.until == at.next {
                at.until = (at.next + roll).min(have);
                archive.set_cursor(&at).await?;
            }
            let mut days: BTreeMap<String, Vec<i64>> = BTreeMap::new();
            for index in at.next..at.until {
                days.entry(day(index)).or_default().push(index as i64);
            }
            let days = days.iter().map(|(day, indices)| (day.clone(), rows(indices))).collect();
            at = archive.write(&at, &days, "root").await?;
        }
        Ok(())
    }

    /// Every row of every file, in order; each in the directory of its day.
    fn read(dir: &FsPath) -> Vec<i64> {
        let mut out = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let Some(of) = name.strip_prefix("day=") else { continue };
            for file in std::fs::read_dir(entry.path()).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_none_or(|e| e != "parquet") {
                    continue;
                }
                let file = std::fs::File::open(path).unwrap();
                for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                    let batch = batch.unwrap();
                    let indices = batch.column(0).as_primitive::<Int64Type>().values();
                    assert!(indices.iter().all(|i| day(*i as u64) == of));
                    out.extend_from_slice(indices);
                }
            }
        }
        out.sort_unstable();
        out
    }

    #[tokio::test]
    async fn killed_at_every_write_each_row_is_there_once() {
        let (mut kills, mut step) = (0, 0);
        loop {
            let mut killed = false;
            for after in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let url = format!("file://{}", dir.path().display());
                let open = || Archive::open(&url, "avouch/pumps/0", "archive").unwrap();
                let mut first = open();
                first.kill = Kill { left: AtomicI64::new(step), after };
                if run(&mut first, 40, 16).await.is_err() {
                    killed = true;
                    kills += 1;
                }
                // The next process finds a longer log and rolls otherwise.
                run(&mut open(), 64, 10).await.unwrap();
                assert_eq!(read(dir.path()), (0..64).collect::<Vec<i64>>(), "killed at write {step}, after: {after}");
                assert_eq!(open().cursor().await.unwrap().unwrap().next, 64);
            }
            if !killed {
                break;
            }
            step += 1;
        }
        assert!(kills >= 20, "{kills}");
    }

    #[tokio::test]
    async fn a_repeat_writes_the_same_bytes_and_a_second_writer_is_kept_out() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let open = || Archive::with_store(store.clone(), Path::from("a/b"), "avouch/pumps/0", "archive");
        let mut one = open();
        run(&mut one, 10, 10).await.unwrap();
        let path = one.file_path("2026-01-01", 0, 9);
        assert_eq!(path.as_ref(), "a/b/day=2026-01-01/avouch-pumps-0.archive.000000000000-000000000009.parquet");
        let before = store.get(&path).await.unwrap().bytes().await.unwrap();
        let (mut two, mut three) = (open(), open());
        let at = two.cursor().await.unwrap().unwrap();
        assert_eq!(three.cursor().await.unwrap(), Some(at.clone()));
        let again = ArchiveCursor { next: 0, until: 10, root: String::new() };
        let indices: Vec<i64> = (0..10).filter(|i| day(*i) == "2026-01-01").map(|i| i as i64).collect();
        two.write(&again, &BTreeMap::from([("2026-01-01".to_owned(), rows(&indices))]), "root").await.unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), before);
        let theirs = ArchiveCursor { until: 12, ..at };
        assert!(matches!(three.set_cursor(&theirs).await, Err(Failure::Fatal(_))));
        store.put(&one.cursor_path(), "{\"next\":".into()).await.unwrap();
        assert!(matches!(open().cursor().await, Err(Failure::Fatal(_))));
    }
}
