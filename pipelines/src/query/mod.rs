//! SQL over a pipeline's verdicts: the Parquet archive, in a directory or an object store, read file by file and only the days
//! that are asked for; or, where there is no archive, the verdict logs.

mod objects;
mod rows;

pub(crate) use rows::objects;
pub use rows::{RowsError, csv, json, table};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use avouch_connectors::files::archive_in_s3;
use avouch_connectors::store::{LaneReader, StoreError};
use avouch_engine::decode::format_timestamp;
use avouch_engine::sql::registered_functions;
use avouch_engine::verdict::{Logged, VerdictRecord};
use datafusion::datasource::MemTable;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::SessionContext;
use thiserror::Error;

use objects::ReadOnly;

use crate::lang::{Pipeline, SinkKind, advice, closest, list};
use crate::runtime::{RuntimeError, lane_dirs, lanes_here};
use crate::verdict_table::{TABLE, archive_rows, archive_schema};

/// The partition column of the archive.
const DAY: &str = "day";
/// Verdicts read from a log at once.
const AT_ONCE: usize = 8_192;

/// Why a query has no answer.
#[derive(Debug, Error)]
pub enum QueryError {
    /// The SQL cannot be planned or run.
    #[error("{message}\n  help: {help}")]
    Sql {
        /// What is wrong.
        message: String,
        /// What to do.
        help: String,
    },
    /// There is nothing to ask.
    #[error("{0}")]
    Nothing(String),
    /// An object store does not give its archive.
    #[error(
        "the archive {url} cannot be read: {why}; the address, region and credentials of S3 are those of the sink, from the \
         environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT, AWS_ALLOW_HTTP)"
    )]
    Objects {
        /// Which.
        url: String,
        /// Why.
        why: String,
    },
    /// Lanes in an object store cannot be brought here.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A verdict log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A directory cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Where verdicts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdicts {
    /// An archive's directory; `only` the files of one sink, where several share it.
    Archive {
        /// The directory with the days.
        dir: PathBuf,
        /// The sink whose files are meant.
        only: Option<String>,
    },
    /// The same in an object store.
    Bucket {
        /// `s3://<bucket>/<prefix>`.
        url: String,
        /// The sink whose files are meant.
        only: Option<String>,
    },
    /// The lanes of a state directory.
    Logs(PathBuf),
}

impl Verdicts {
    /// Those of a pipeline: the archive of its Parquet sink, of the one named if there are several, or else its logs.
    ///
    /// # Errors
    /// [`QueryError::Nothing`] when `sink` names none of its archives, or when it must be named; [`QueryError::Runtime`] when
    /// logs in an object store cannot be brought here.
    pub fn of(pipeline: &Pipeline, sink: Option<&str>) -> Result<Self, QueryError> {
        let archives: Vec<(&str, &str)> = pipeline
            .sinks
            .iter()
            .filter_map(|s| match &s.kind {
                SinkKind::Parquet(p) => Some((s.name.value.as_str(), p.url.as_str())),
                _ => None,
            })
            .collect();
        let names: Vec<&str> = archives.iter().map(|(n, _)| *n).collect();
        let (name, url) = match (sink, archives.as_slice()) {
            (Some(wanted), all) => match all.iter().find(|(n, _)| *n == wanted) {
                Some(found) => *found,
                None => {
                    let help = match closest(wanted, names.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if names.is_empty() => "this pipeline has none; leave --sink out to ask its logs".into(),
                        None => format!("there are {}", list(&names)),
                    };
                    return Err(QueryError::Nothing(format!("there is no parquet sink `{wanted}`; {help}")));
                }
            },
            (None, []) => return Ok(Self::Logs(lanes_here(pipeline)?)),
            (None, [one]) => *one,
            (None, _) => {
                let why = format!("there are several archives, {}; choose one with --sink", list(&names));
                return Err(QueryError::Nothing(why));
            }
        };
        let shared = archives.iter().filter(|(_, u)| *u == url).count() > 1;
        let only = shared.then(|| name.to_owned());
        match url.strip_prefix("file://") {
            Some(dir) => {
                let dir = std::path::absolute(dir).map_err(|source| QueryError::File { path: dir.into(), source })?;
                Ok(Self::Archive { dir, only })
            }
            None => Ok(Self::Bucket { url: url.to_owned(), only }),
        }
    }

    /// Those of an archive at `s3://<bucket>/<prefix>`.
    pub fn in_bucket(url: &str) -> Self {
        Self::Bucket { url: url.to_owned(), only: None }
    }

    /// Those in a directory: an archive, or a state directory of one pipeline.
    ///
    /// # Errors
    /// [`QueryError::Nothing`] when it is neither.
    pub fn in_directory(dir: &Path) -> Result<Self, QueryError> {
        let dir = std::path::absolute(dir).map_err(|source| QueryError::File { path: dir.to_owned(), source })?;
        if dir.join("_cursors").is_dir() || !files(&dir, None)?.is_empty() {
            return Ok(Self::Archive { dir, only: None });
        }
        match lane_dirs(&dir).map_err(|source| QueryError::File { path: dir.clone(), source })?.is_empty() {
            false => Ok(Self::Logs(dir)),
            true => Err(QueryError::Nothing(format!(
                "{} is neither an archive (with day=… in it) nor a pipeline's state (with lanes in it)",
                dir.display()
            ))),
        }
    }

    /// Runs a query over the table `verdicts`.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query(&self, sql: &str) -> Result<(SchemaRef, Vec<RecordBatch>), QueryError> {
        let context = SessionContext::new();
        let (scalar, aggregate) = registered_functions();
        scalar.into_iter().for_each(|f| context.register_udf(f));
        aggregate.into_iter().for_each(|f| context.register_udaf(f));
        let provider: Arc<dyn datafusion::catalog::TableProvider> = match self {
            Self::Archive { dir, only } => Arc::new(archive(dir, only.as_deref())?),
            Self::Bucket { url, only } => Arc::new(bucket(url, only.as_deref(), &context).await?),
            Self::Logs(state) => Arc::new(logs(state)?),
        };
        context.register_table(TABLE, provider).map_err(|e| said(&e))?;
        let reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = context.sql_with_options(sql, reads).await.map_err(|e| said(&e))?;
        let schema: SchemaRef = Arc::new(frame.schema().as_arrow().clone());
        let batches = frame.collect().await.map_err(|e| said(&e))?;
        Ok((schema, batches))
    }
}

/// What DataFusion says, for who wrote the query.
fn said(e: &DataFusionError) -> QueryError {
    let text = e.strip_backtrace();
    if let Some((_, rest)) = text.split_once("table '") {
        let name = rest.split('\'').next().unwrap_or_default();
        if text.contains("not found") {
            let name = name.rsplit('.').next().unwrap_or(name);
            let help = format!("there is one table, `{TABLE}`");
            return QueryError::Sql { message: format!("there is no table `{name}`"), help };
        }
    }
    let (message, help) = advice(&text, TABLE);
    QueryError::Sql { message, help }
}

/// The archive's Parquet files.
fn files(dir: &Path, only: Option<&str>) -> Result<Vec<PathBuf>, QueryError> {
    let read = |dir: &Path| -> Result<Vec<PathBuf>, QueryError> {
        let failed = |source| QueryError::File { path: dir.to_owned(), source };
        match std::fs::read_dir(dir) {
            Ok(entries) => entries.map(|e| e.map(|e| e.path()).map_err(failed)).collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(failed(e)),
        }
    };
    let name = |p: &Path| p.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    let mut out = Vec::new();
    for day in read(dir)?.into_iter().filter(|p| name(p).starts_with("day=") && p.is_dir()) {
        out.extend(read(&day)?.into_iter().filter(|p| {
            let name = name(p);
            name.ends_with(".parquet") && only.is_none_or(|sink| name.contains(&format!(".{sink}.")))
        }));
    }
    out.sort();
    Ok(out)
}

fn archive(dir: &Path, only: Option<&str>) -> Result<ListingTable, QueryError> {
    if files(dir, only)?.is_empty() {
        return Err(QueryError::Nothing(format!(
            "the archive {} is empty: no verdict has been written to it yet; a file is closed at the sink's `rows`, `size` or \
             `every`, and when the pipeline stops",
            dir.display()
        )));
    }
    let path = match only {
        None => format!("{}/", dir.display()),
        Some(sink) => format!("{}/day=*/*.{sink}.*.parquet", dir.display()),
    };
    listing(&path)
}

/// The archive in an object store, which the context can read from here on.
async fn bucket(url: &str, only: Option<&str>, context: &SessionContext) -> Result<ListingTable, QueryError> {
    let failed = |why: String| QueryError::Objects { url: url.to_owned(), why };
    let (store, prefix) = archive_in_s3(url).map_err(failed)?;
    let store = ReadOnly::new(store, only);
    if !store.has_files(&prefix).await.map_err(|e| failed(innermost(&e)))? {
        return Err(QueryError::Nothing(format!(
            "the archive {url} is empty: no verdict has been written to it yet; a file is closed at the sink's `rows`, `size` \
             or `every`, and when the pipeline stops"
        )));
    }
    let path = format!("{}/", url.trim_end_matches('/'));
    let place = ListingTableUrl::parse(&path).map_err(|e| said(&e))?.object_store();
    context.register_object_store(place.as_ref(), Arc::new(store));
    listing(&path)
}

/// An error with what caused it: the outer words of an object store often say little.
fn innermost(e: &dyn std::error::Error) -> String {
    let mut why = e.to_string();
    let mut source = e.source();
    while let Some(e) = source {
        let said = e.to_string();
        if !why.contains(&said) {
            why = format!("{why}: {said}");
        }
        source = e.source();
    }
    why.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The table of the days under a directory or prefix.
fn listing(path: &str) -> Result<ListingTable, QueryError> {
    let url = ListingTableUrl::parse(path).map_err(|e| said(&e))?;
    let options = ListingOptions::new(Arc::new(ParquetFormat::default()))
        .with_file_extension(".parquet")
        .with_table_partition_cols(vec![(DAY.to_owned(), DataType::Utf8)]);
    let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(archive_schema());
    ListingTable::try_new(config).map_err(|e| said(&e))
}

/// All verdicts that the lanes' checkpoints cover and that were not erased, in memory, with the columns of the archive.
fn logs(state: &Path) -> Result<MemTable, QueryError> {
    let lanes = lane_dirs(state).map_err(|source| QueryError::File { path: state.to_owned(), source })?;
    if lanes.is_empty() {
        return Err(QueryError::Nothing(format!(
            "there is no verdict log in {}; start the pipeline with `avouch run`, or name the directory of an archive",
            state.display()
        )));
    }
    let mut fields: Vec<_> = archive_schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(DAY, DataType::Utf8, false)));
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let mut partitions = Vec::new();
    for (_, dir) in lanes {
        let reader = LaneReader::open_read_only(&dir)?;
        let (mut next, mut batches) = (0, Vec::new());
        loop {
            let logged = reader.records(next, AT_ONCE)?;
            let Some(last) = logged.last() else { break };
            next = last.index() + 1;
            // What was erased has no row.
            let records: Vec<VerdictRecord> = logged.into_iter().filter_map(Logged::into_record).collect();
            let refs: Vec<&VerdictRecord> = records.iter().collect();
            let rows = archive_rows(&reader.committed().origin, &refs);
            let batch = rows.and_then(|rows| {
                let mut columns = rows.columns().to_vec();
                let day = |r: &VerdictRecord| format_timestamp(r.verdict.window_end as i64)[..10].to_owned();
                let days: ArrayRef = Arc::new(records.iter().map(|r| Some(day(r))).collect::<StringArray>());
                columns.push(days);
                RecordBatch::try_new(schema.clone(), columns)
            });
            batches.push(batch.map_err(|e| said(&e.into()))?);
        }
        partitions.push(batches);
    }
    MemTable::try_new(schema, partitions).map_err(|e| said(&e))
}
