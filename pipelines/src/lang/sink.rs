//! Where verdicts and dead letters go, as the rest of the program sees it.

use std::path::PathBuf;

use super::interpolate::{SecretString, Text};
use super::pipeline::Delivery;
use super::span::{Span, Spanned};

/// One `[sinks.*]`.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Its name.
    pub name: Spanned<String>,
    /// The model steps whose verdicts it takes.
    pub from: Vec<Spanned<String>>,
    /// `where`: which of these verdicts, as SQL over [`crate::verdict_table`]; all if not given. For Alertmanager, for which
    /// verdicts an alert is open; those that are not normal if not given.
    pub condition: Option<Spanned<String>>,
    /// What this sink promises, where that is not what the pipeline promises.
    pub delivery: Option<Delivery>,
    /// Where early results of its steps go, if it takes them.
    pub early: Option<EarlyTo>,
    /// What it writes to.
    pub kind: SinkKind,
}

/// Where a sink's early results go: results of windows that are still open, which are no part of the log.
#[derive(Debug, Clone)]
pub enum EarlyTo {
    /// A Kafka topic of their own, on the sink's brokers.
    Topic(Text),
    /// Where its verdicts go; each says what it is.
    Beside,
}

impl Sink {
    /// Where it writes as it stands in the pipeline file, safe to show.
    pub fn writes(&self) -> &str {
        match &self.kind {
            SinkKind::Kafka(k) => k.topic.raw(),
            SinkKind::Parquet(p) => p.path.raw(),
            SinkKind::Alertmanager(a) => a.url.raw(),
            SinkKind::Webhook(w) => w.url.raw(),
            SinkKind::Stdout => "stdout",
        }
    }
}

/// What a sink writes to.
#[derive(Debug, Clone)]
pub enum SinkKind {
    /// A Kafka topic.
    Kafka(KafkaSink),
    /// Parquet files, a directory a day.
    Parquet(ParquetSink),
    /// Prometheus Alertmanager.
    Alertmanager(AlertmanagerSink),
    /// Any HTTP endpoint that takes JSON.
    Webhook(WebhookSink),
    /// Standard output, one JSON object a line.
    Stdout,
}

/// A Kafka topic to write to.
#[derive(Debug, Clone)]
pub struct KafkaSink {
    /// Comma-separated `host:port`; the source's if not given.
    pub brokers: Option<Text>,
    /// Topic.
    pub topic: Text,
}

/// The Parquet archive.
#[derive(Debug, Clone)]
pub struct ParquetSink {
    /// As it stands in the file.
    pub path: Text,
    /// `file://` with the path resolved, or `s3://`.
    pub url: String,
    /// A verdict waits at most so long for its file, milliseconds; 1 min if not given.
    pub every_ms: i64,
    /// A file is closed at so many rows; 50,000 if not given.
    pub rows: usize,
    /// A file is closed at about so many bytes in memory; 32 MiB if not given.
    pub bytes: usize,
}

/// Prometheus Alertmanager.
#[derive(Debug, Clone)]
pub struct AlertmanagerSink {
    /// Its address, without `/api`. May carry credentials, so show it with [`Text::raw`].
    pub url: Text,
    /// Sent as a bearer token.
    pub token: Option<Spanned<SecretString>>,
    /// How long a request may take, milliseconds; 10 s if not given.
    pub timeout_ms: i64,
    /// An alert ends so long after the last verdict that kept it open, milliseconds; 1 h if not given.
    pub resolve_after_ms: i64,
    /// The page an alert links to.
    pub generator_url: Option<Text>,
}

/// Any HTTP endpoint that takes JSON.
#[derive(Debug, Clone)]
pub struct WebhookSink {
    /// Its address. May carry credentials, so show it with [`Text::raw`].
    pub url: Text,
    /// Key of the signature; unsigned if not given.
    pub secret: Option<Spanned<SecretString>>,
    /// Sent as a bearer token.
    pub token: Option<Spanned<SecretString>>,
    /// How long a request may take, milliseconds; 10 s if not given.
    pub timeout_ms: i64,
    /// The most verdicts in one request; 500 if not given.
    pub batch: usize,
}

/// `[dead_letter]`.
#[derive(Debug, Clone)]
pub struct DeadLetterSink {
    /// What it promises, where that is not what the pipeline promises.
    pub delivery: Option<Delivery>,
    /// What it writes to.
    pub kind: DeadLetterKind,
    /// Where that stands.
    pub span: Span,
}

/// Where dead letters go.
#[derive(Debug, Clone)]
pub enum DeadLetterKind {
    /// A Kafka topic.
    Kafka(KafkaSink),
    /// Files of JSON lines.
    Files(DeadLetterFiles),
    /// Standard output, one JSON object a line.
    Stdout,
}

/// Dead letters as files of JSON lines.
#[derive(Debug, Clone)]
pub struct DeadLetterFiles {
    /// The directory, resolved.
    pub dir: PathBuf,
    /// A file is closed at so many bytes; 64 MiB if not given.
    pub bytes: u64,
}
