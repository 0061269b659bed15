//! `avouch produce`: replays files into a Kafka topic, at a chosen pace.

mod pace;
mod signing;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use avouch_connectors::files::{DeviceFrom, FilesError, Format, Header, Order, Replay, ReplayOptions, Row};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use thiserror::Error;

use crate::signing::SigningError;
use avouch_connectors::kafka::KafkaConnection;
pub use avouch_connectors::kafka::{PublishError, Publisher, TopicOptions, create_topic};
pub use pace::{Pace, Pacer};
use signing::{Signing, signing};

/// Replay CSV, NDJSON or Parquet files into a Kafka topic.
///
/// Every row becomes one JSON record keyed by its device, so that a device's readings stay in one partition and in
/// order. Records are sent idempotently and acknowledged by all in-sync replicas.
#[derive(Debug, Clone, Args)]
pub struct ProduceArgs {
    /// Files or quoted patterns, such as 'data/*.csv'
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub files: Vec<String>,

    /// Topic to send to
    #[arg(long, short)]
    pub topic: String,

    /// Brokers, as host:port separated by commas
    #[arg(long, short, env = "KAFKA_BROKERS", default_value = "localhost:9092")]
    pub brokers: String,

    /// What the files hold, where their names do not say
    #[arg(long, value_enum)]
    pub format: Option<FileFormat>,

    /// Field delimiter of CSV files; \t is a tab
    #[arg(long, default_value = ",", value_parser = delimiter, value_name = "CHAR")]
    pub delimiter: u8,

    /// Column names of CSV files without a header line, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub columns: Vec<String>,

    /// What names the device: a column, or `path` for the file's own path (such as valve1/0)
    #[arg(long, default_value = "device", value_name = "COLUMN|path")]
    pub device: String,

    /// Field that receives the device taken from the path
    #[arg(long, default_value = "device", value_name = "FIELD")]
    pub device_field: String,

    /// Column with the event time: milliseconds, RFC 3339, or YYYY-MM-DD HH:MM:SS (UTC). Files are merged by it
    #[arg(long, value_name = "COLUMN")]
    pub time: Option<String>,

    /// Column with the time of arrival at the broker, as `avouch simulate --arrival` writes it. Files are merged by it
    #[arg(long, value_name = "COLUMN")]
    pub arrival: Option<String>,

    /// Order of the rows
    #[arg(long, value_enum, default_value_t = RowOrder::Time)]
    pub order: RowOrder,

    /// Column that keys the records, if not the device
    #[arg(long, value_name = "COLUMN")]
    pub key: Option<String>,

    /// Leave out the first N rows of each device
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub skip: u64,

    /// Send at most N rows of each device
    #[arg(long, value_name = "N")]
    pub first: Option<u64>,

    /// Send lines that are no JSON as they stand, instead of stopping at them
    #[arg(long)]
    pub keep_unreadable: bool,

    /// Sign each reading as its device, for the source of this pipeline, which must have an `identity`
    #[arg(long, value_name = "PIPELINE.toml", requires = "device_keys")]
    pub sign_for: Option<PathBuf>,

    /// Directory with a file <device>.json for each device, from `avouch device keygen`
    #[arg(long, value_name = "DIR", requires = "sign_for")]
    pub device_keys: Option<PathBuf>,

    /// Sign so many readings of a device at once, by the root of a Merkle tree
    #[arg(long, value_name = "N", requires = "sign_for", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub sign_batch: u32,

    /// Pace in rows a second, such as 5000 or 5000/s; without --rate and --speed, as fast as it goes
    #[arg(long, value_parser = pace::rate, conflicts_with = "speed", value_name = "N/s")]
    pub rate: Option<f64>,

    /// Pace as a multiple of event time, such as 10x; needs --time or --arrival
    #[arg(long, value_parser = pace::speed, value_name = "Nx")]
    pub speed: Option<f64>,

    /// Timestamp of the records; `arrival` if --arrival is given, else `now`
    #[arg(long, value_enum)]
    pub timestamp: Option<RecordTime>,

    /// Create the topic if it is not there
    #[arg(long)]
    pub create_topic: bool,

    /// Partitions of a created topic; the broker's default if not given
    #[arg(long, requires = "create_topic", value_parser = clap::value_parser!(i32).range(1..), value_name = "N")]
    pub partitions: Option<i32>,

    /// A librdkafka setting, such as security.protocol=SASL_PLAINTEXT; may be repeated
    #[arg(short = 'X', value_parser = setting, value_name = "NAME=VALUE")]
    pub settings: Vec<(String, String)>,

    /// Print one JSON object instead of text, and no progress bar
    #[arg(long)]
    pub json: bool,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// Delimited text.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
}

/// Order of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RowOrder {
    /// Merge the files by time; each must be in order.
    Time,
    /// Read every file into memory, sort it, then merge.
    Sorted,
    /// File after file, as they stand.
    File,
}

/// The timestamp a record gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordTime {
    /// The moment it is sent.
    Now,
    /// Its event time.
    Event,
    /// Its arrival time.
    Arrival,
}

/// Why a replay failed.
#[derive(Debug, Error)]
pub enum ProduceError {
    /// The files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The brokers or the topic.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Arguments that contradict each other.
    #[error("{0}")]
    Arguments(String),
    /// The readings cannot be signed.
    #[error(transparent)]
    Sign(#[from] SigningError),
    /// The pipeline that readings are signed for has mistakes.
    #[error("{0}")]
    Pipeline(String),
    /// The replay stopped on the way.
    #[error("{cause}; rows delivered before it: {delivered}")]
    Stopped {
        /// Rows acknowledged until then.
        delivered: u64,
        /// Why it stopped.
        cause: Box<ProduceError>,
    },
    /// Some records were not acknowledged.
    #[error(
        "{failed} of {rows} rows were not delivered to `{topic}`; the first: {first}. Rows not counted as failed were acknowledged, so replay what is missing or start over with an empty topic"
    )]
    Undelivered {
        /// The topic.
        topic: String,
        /// Rows that failed.
        failed: u64,
        /// Rows sent.
        rows: u64,
        /// What the broker said of the first.
        first: String,
    },
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProduceSummary {
    /// The topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: usize,
    /// Files read.
    pub files: usize,
    /// Rows sent.
    pub rows: u64,
    /// Rows acknowledged.
    pub delivered: u64,
    /// Rows refused or timed out.
    pub failed: u64,
    /// Lines sent although they are no JSON.
    pub unreadable: u64,
    /// Bytes of JSON sent.
    pub bytes: u64,
    /// Wall time.
    pub seconds: f64,
}

impl std::fmt::Display for ProduceSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {} of {} rows delivered to {} partitions in {:.1} s ({:.0} rows/s, {:.1} MB)",
            self.topic,
            self.delivered,
            self.rows,
            self.partitions,
            self.seconds,
            self.rows as f64 / self.seconds.max(1e-9),
            self.bytes as f64 / 1e6
        )?;
        if self.unreadable > 0 {
            write!(f, "; {} were no JSON and went as they stood", self.unreadable)?;
        }
        Ok(())
    }
}

/// Replays the files and prints the summary on standard output. Errors if any row was not delivered. Blocks.
pub fn run(args: &ProduceArgs) -> Result<(), ProduceError> {
    let summary = produce(args)?;
    let line = if args.json { serde_json::json!(summary.0).to_string() } else { summary.0.to_string() };
    // A closed pipe is the reader's choice, not an error of ours.
    let _ = writeln!(std::io::stdout(), "{line}");
    match summary {
        (ProduceSummary { topic, rows, failed, .. }, Some(first)) => {
            Err(ProduceError::Undelivered { topic, failed, rows, first })
        }
        _ => Ok(()),
    }
}

/// Replays the files; returns what was done and, if a row failed, what was said of the first that did.
fn produce(args: &ProduceArgs) -> Result<(ProduceSummary, Option<String>), ProduceError> {
    let stamp = record_time(args)?;
    let pace = match (args.rate, args.speed) {
        (Some(rows_per_second), _) => Pace::Rate { rows_per_second },
        (_, Some(factor)) if args.time.is_some() || args.arrival.is_some() => Pace::Speed { factor },
        (_, Some(_)) => {
            return Err(ProduceError::Arguments("--speed follows event time; name its column with --time".into()));
        }
        (None, None) => Pace::Unlimited,
    };
    let connection = KafkaConnection::plaintext(&args.brokers);
    // Files first: what is wrong with them shows without a broker.
    let mut replay = replay_options(args).open()?;
    if args.create_topic {
        let options = TopicOptions { partitions: args.partitions, replication: None };
        create_topic(&connection, &args.topic, &options, &args.settings)?;
    }
    let mut signing = signing(args)?;
    let mut publisher = Publisher::connect(&connection, &args.topic, &args.settings)?;
    let bar = progress_bar(&replay, args.json);
    let started = Instant::now();
    let mut pacer = Pacer::new(pace);
    let mut counts = Counts::default();
    let sent = send_all(&mut replay, &mut publisher, &mut pacer, stamp, signing.as_mut(), &bar, &mut counts);
    let settled = signing.as_mut().map_or(Ok(()), |s| s.signer.settle());
    bar.set_message("waiting for the last acknowledgements");
    let finished = publisher.finish();
    bar.finish_and_clear();
    if let Err(cause) = sent {
        return Err(ProduceError::Stopped { delivered: publisher.delivered(), cause: Box::new(cause) });
    }
    finished?;
    settled?;
    let summary = ProduceSummary {
        topic: args.topic.clone(),
        partitions: publisher.partitions(),
        files: replay.files().len(),
        rows: counts.rows,
        delivered: publisher.delivered(),
        failed: publisher.failed(),
        unreadable: counts.unreadable,
        bytes: counts.bytes,
        seconds: started.elapsed().as_secs_f64(),
    };
    Ok((summary, publisher.first_failure()))
}

#[derive(Default)]
struct Counts {
    rows: u64,
    bytes: u64,
    unreadable: u64,
}

fn send_all(
    replay: &mut Replay,
    publisher: &mut Publisher,
    pacer: &mut Pacer,
    stamp: RecordTime,
    mut signing: Option<&mut Signing>,
    bar: &ProgressBar,
    counts: &mut Counts,
) -> Result<(), ProduceError> {
    let mut row = Row::default();
    while replay.next_row(&mut row)? {
        while let Some(wait) = pacer.wait(row.arrival_ms.or(row.time_ms)) {
            publisher.poll(wait.min(Duration::from_millis(100)));
            show(bar, replay, counts.rows);
        }
        let timestamp = match stamp {
            RecordTime::Now => None,
            RecordTime::Event => row.time_ms,
            RecordTime::Arrival => row.arrival_ms,
        };
        match &mut signing {
            Some(signing) => signing.send(&row, timestamp, publisher)?,
            None => {
                let key = (!row.key.is_empty()).then_some(row.key.as_bytes());
                publisher.send(key, &row.json, timestamp)?;
            }
        }
        counts.rows += 1;
        counts.bytes += row.json.len() as u64;
        counts.unreadable += u64::from(!row.readable);
        if counts.rows.is_multiple_of(1024) {
            publisher.poll(Duration::ZERO);
            show(bar, replay, counts.rows);
        }
    }
    match signing {
        Some(signing) => signing.flush(publisher),
        None => Ok(()),
    }
}

fn record_time(args: &ProduceArgs) -> Result<RecordTime, ProduceError> {
    let stamp = args.timestamp.unwrap_or(if args.arrival.is_some() { RecordTime::Arrival } else { RecordTime::Now });
    let missing = match stamp {
        RecordTime::Event if args.time.is_none() => {
            "--timestamp event needs the event time; name its column with --time"
        }
        RecordTime::Arrival if args.arrival.is_none() => {
            "--timestamp arrival needs the arrival time; name its column with --arrival"
        }
        _ => return Ok(stamp),
    };
    Err(ProduceError::Arguments(missing.into()))
}

fn replay_options(args: &ProduceArgs) -> ReplayOptions {
    let mut options = ReplayOptions::new(args.files.clone());
    options.format = args.format.map(|f| match f {
        FileFormat::Csv => Format::Csv,
        FileFormat::Ndjson => Format::Ndjson,
        FileFormat::Parquet => Format::Parquet,
    });
    options.delimiter = args.delimiter;
    if !args.columns.is_empty() {
        options.header = Header::Names(args.columns.clone());
    }
    options.device = Some(match args.device.as_str() {
        "path" => DeviceFrom::Path,
        column => DeviceFrom::Column(column.to_owned()),
    });
    options.device_field = Some(args.device_field.clone());
    options.key = args.key.clone();
    options.time = args.time.clone();
    options.arrival = args.arrival.clone();
    options.order = match args.order {
        RowOrder::Time => Order::Time,
        RowOrder::Sorted => Order::Sorted,
        RowOrder::File => Order::File,
    };
    options.skip = args.skip;
    options.first = args.first;
    options.keep_unreadable = args.keep_unreadable;
    options
}

/// Hidden when standard error is no terminal.
fn progress_bar(replay: &Replay, json: bool) -> ProgressBar {
    let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(5) };
    let bar = ProgressBar::with_draw_target(Some(replay.progress().1), target);
    // Invariant: the template is a constant that a test parses.
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

const TEMPLATE: &str = "{bar:30} {percent:>3} % {bytes}/{total_bytes}, {msg}, {eta} left";

fn show(bar: &ProgressBar, replay: &Replay, rows: u64) {
    if !bar.is_hidden() {
        bar.set_position(replay.progress().0);
        bar.set_message(format!("{rows} rows"));
    }
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [one] if one.is_ascii() => Ok(*one),
        _ => Err("write one ASCII character, or \\t for a tab".into()),
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}
