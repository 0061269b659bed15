//! Opens what feeds the lanes: a Kafka topic, files, a chain, or a journal with the bridge that fills it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avouch_connectors::ethereum::RpcOptions;
use avouch_connectors::ethereum::source::{ChainLog, ChainLogOptions, Columns};
use avouch_connectors::files::Format;
use avouch_connectors::files::log::{FileLog, FileLogOptions, Objects, Place, RowOptions};
use avouch_connectors::journal::{JournalHandle, JournalOptions, JournalWriter};
use avouch_connectors::kafka::{self, GroupEvent};
use avouch_connectors::mqtt::{self, Counts, MqttOptions};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::error::RuntimeError;
use super::lane_input::{JournalInput, LaneInput};
use super::lane_worker::Until;
use super::metrics::{BridgeMetrics, Metrics};
use super::{ANSWER, MOST_MESSAGES, RunOptions, blocking};
use crate::lang::{ChainSource, FileFormat, FilesPlace, FilesSource, MqttSource, Pipeline, Source, SourceKind};

/// A segment of a journal; smaller where the whole journal is small, so that there are some to delete.
const SEGMENT_BYTES: u64 = 64 << 20;

/// What feeds the lanes of this process.
pub enum Inputs {
    /// The consumer of a topic; which lanes are ours, its group decides.
    Kafka(kafka::Source),
    /// One lane, of files, a chain or a journal. It is ours if its store is.
    Local(Box<Local>),
}

/// Inputs that are open.
pub struct OpenInputs {
    pub inputs: Inputs,
    /// Which lanes are ours, as it changes.
    pub events: UnboundedReceiver<GroupEvent>,
    /// What fills a journal, once its lane is open.
    pub bridges: UnboundedReceiver<Bridge>,
}

/// What the one lane of files, a chain or a journal needs to open its input.
pub struct Local {
    source: Source,
    state: PathBuf,
    metrics: Metrics,
    runtime: Handle,
    bridges: UnboundedSender<Bridge>,
    until_end: bool,
}

/// How many lanes a pipeline has.
pub async fn lanes(pipeline: &Pipeline) -> Result<i32, RuntimeError> {
    let SourceKind::Kafka(kafka) = &pipeline.source.kind else { return Ok(1) };
    let (connection, topic) = (kafka.connection(), kafka.lane_topic().as_str().to_owned());
    blocking(move || Ok(kafka::partition_count(&connection, &topic, ANSWER)?)).await
}

impl Inputs {
    /// Opens what feeds the lanes. `state`: the pipeline's directory. With `until_end` lanes stop at the end their input has
    /// now; a journal is then judged as it is, and no MQTT broker is connected to.
    pub async fn open(
        pipeline: &Pipeline,
        state: &Path,
        options: RunOptions,
        metrics: &Metrics,
    ) -> Result<OpenInputs, RuntimeError> {
        let (bridge, bridges) = unbounded_channel();
        if let SourceKind::Kafka(kafka) = &pipeline.source.kind {
            let (connection, topic) = (kafka.connection(), kafka.lane_topic().as_str().to_owned());
            let group = kafka.group_options();
            let (source, events) =
                blocking(move || Ok(kafka::Source::open(&connection, &topic, group, options.share, MOST_MESSAGES)?))
                    .await?;
            let source = source.with_signature(pipeline.source.signature_header());
            return Ok(OpenInputs { inputs: Inputs::Kafka(source), events, bridges });
        }
        let (tell, events) = unbounded_channel();
        // The receiver is here.
        let _ = tell.send(GroupEvent::Assigned(vec![0]));
        let local = Local {
            source: pipeline.source.clone(),
            state: state.to_path_buf(),
            metrics: metrics.clone(),
            runtime: Handle::current(),
            bridges: bridge,
            until_end: options.until_end,
        };
        Ok(OpenInputs { inputs: Inputs::Local(Box::new(local)), events, bridges })
    }

    /// Whether lanes move between processes, so that one that another process has will be free soon.
    pub fn is_shared(&self) -> bool {
        matches!(self, Inputs::Kafka(_))
    }

    /// Call it all the time: it returns after `time` at most. An error is one after which nothing comes any more.
    pub fn serve(&self, time: Duration) -> Result<(), RuntimeError> {
        match self {
            Inputs::Kafka(source) => source.serve(time)?,
            Inputs::Local(_) => std::thread::sleep(time),
        }
        Ok(())
    }

    /// Answers [`GroupEvent::Assigned`].
    pub fn accept(&self) -> Result<(), RuntimeError> {
        if let Inputs::Kafka(source) = self {
            source.accept()?;
        }
        Ok(())
    }

    /// Begins to feed a lane that is ours and whose store is open, from `offset` (`None`: the beginning), and says when the
    /// lane stops by itself. Blocks.
    pub fn begin(&self, lane: i32, offset: Option<i64>, until_end: bool) -> Result<(LaneInput, Until), RuntimeError> {
        match self {
            Inputs::Kafka(source) => {
                let until = if until_end { Until::Offset(source.end_offset(lane)?) } else { Until::Stopped };
                Ok((LaneInput::Kafka(source.begin(lane, offset)?), until))
            }
            Inputs::Local(local) => local.begin(offset),
        }
    }

    /// Ends feeding these lanes. Answers [`GroupEvent::Revoked`].
    pub fn release(&self, lanes: &[i32]) -> Result<(), RuntimeError> {
        if let Inputs::Kafka(source) = self {
            source.release(lanes)?;
        }
        Ok(())
    }

    /// No lane is left.
    pub fn leave(&self) {
        if let Inputs::Kafka(source) = self {
            source.leave();
        }
    }

    /// Shows where the checkpoints are to tools that show lag.
    pub fn report(&self, offsets: &[(i32, i64)]) {
        if let Inputs::Kafka(source) = self {
            source.report(offsets);
        }
    }
}

impl Local {
    fn begin(&self, offset: Option<i64>) -> Result<(LaneInput, Until), RuntimeError> {
        match &self.source.kind {
            SourceKind::Mqtt(mqtt) => {
                let (bridge, input) = Bridge::open(&self.source, mqtt, &self.state, offset, &self.metrics)?;
                let until = if self.until_end { Until::Offset(bridge.end()) } else { Until::Stopped };
                if !self.until_end {
                    // Nobody takes it only when the process is ending.
                    let _ = self.bridges.send(bridge);
                }
                Ok((input, until))
            }
            SourceKind::Files(files) => {
                let input = open_files(&self.source, files, &self.state, offset, &self.runtime)?;
                Ok((input, if self.until_end { Until::End } else { Until::Stopped }))
            }
            SourceKind::Ethereum(chain) => {
                let log = ChainLog::open(chain_options(&self.source, chain)?, self.runtime.clone(), offset)?;
                let until = if self.until_end { Until::End } else { Until::Stopped };
                Ok((LaneInput::Chain(Box::new(log)), until))
            }
            // Invariant: `Inputs::open` has made a consumer of it.
            SourceKind::Kafka(_) => Err(RuntimeError::Start("a Kafka source is not local".into())),
        }
    }
}

/// How the chain of a source is read.
pub fn chain_options(readings: &Source, source: &ChainSource) -> Result<ChainLogOptions, RuntimeError> {
    let fields: Vec<_> = readings.fields.iter().map(|f| f.value.clone()).collect();
    // Invariant: `check` has refused fields that cannot be had.
    let columns = Columns::new(&source.reads, source.chain_id, &fields).map_err(|wrong| {
        RuntimeError::Start(wrong.into_iter().map(|(_, e)| e.to_string()).collect::<Vec<_>>().join("; "))
    })?;
    Ok(ChainLogOptions {
        endpoint: source.rpc.endpoint(RpcOptions::default())?,
        chain_id: source.chain_id,
        reads: source.reads.clone(),
        columns,
        from_block: source.from_block.value,
    })
}

/// Opens the files of a source to read on at `start`. Blocks, but not within the async runtime `handle` belongs to.
fn open_files(
    source: &Source,
    files: &FilesSource,
    state: &Path,
    start: Option<i64>,
    handle: &Handle,
) -> Result<LaneInput, RuntimeError> {
    let options = FileLogOptions {
        place: files_place(files, handle)?,
        rows: RowOptions {
            format: files.format.map(|f| match f {
                FileFormat::Csv => Format::Csv,
                FileFormat::Ndjson => Format::Ndjson,
                FileFormat::Parquet => Format::Parquet,
            }),
            delimiter: files.delimiter,
            fields: source.fields.iter().map(|f| f.value.clone()).collect(),
            key: source.key.value.clone(),
            max_record_bytes: source.max_record_bytes,
        },
        follow: files.follow,
    };
    Ok(LaneInput::Files(Box::new(FileLog::open(&state.join("input"), options, start)?)))
}

/// Where the files of a source are.
pub fn files_place(files: &FilesSource, handle: &Handle) -> Result<Place, RuntimeError> {
    Ok(match &files.place {
        FilesPlace::Local(pattern) => Place::Local(pattern.clone()),
        FilesPlace::S3 { bucket, pattern } => Place::Objects(Objects::s3(bucket, pattern, handle.clone())?),
    })
}

/// How the broker of a source is reached. Reads the file of authorities.
pub fn mqtt_options(readings: &Source, source: &MqttSource) -> Result<MqttOptions, RuntimeError> {
    let tls = match (&source.ca, source.tls) {
        (_, false) => None,
        (None, true) => Some(None),
        (Some(path), true) => {
            let path = path.value.clone();
            Some(Some(std::fs::read(&path).map_err(|source| RuntimeError::File { path, source })?))
        }
    };
    Ok(MqttOptions {
        host: source.host.clone(),
        port: source.port,
        tls,
        client_id: source.client_id.as_str().to_owned(),
        credentials: source.username.as_ref().map(|user| {
            let password = source.password.as_ref().map_or("", |p| p.expose());
            (user.as_str().to_owned(), password.to_owned())
        }),
        topics: source.topics.iter().map(|t| t.value.clone()).collect(),
        session_expiry: u32::try_from(source.session_expiry_ms / 1000).unwrap_or(u32::MAX),
        max_record_bytes: readings.max_record_bytes,
    })
}

/// A journal that is open, and what fills it.
pub struct Bridge {
    writer: JournalWriter,
    options: MqttOptions,
    handle: JournalHandle,
    counts: Arc<Counts>,
    metrics: BridgeMetrics,
    shown: [u64; 3],
}

impl Bridge {
    /// Opens the journal of a source, and the lane's reader of it.
    pub fn open(
        readings: &Source,
        source: &MqttSource,
        state: &Path,
        start: Option<i64>,
        metrics: &Metrics,
    ) -> Result<(Self, LaneInput), RuntimeError> {
        let settings = source.journal;
        let writer = JournalWriter::open(
            &state.join("journal"),
            JournalOptions {
                segment_bytes: SEGMENT_BYTES.min(settings.max_bytes / 16),
                max_bytes: settings.max_bytes,
                keep_ms: settings.keep_ms,
            },
        )?;
        let reader = writer.reader(start)?;
        let handle = writer.handle();
        let counts = Arc::new(Counts::default());
        let input = LaneInput::Journal(Box::new(JournalInput::new(reader, handle.clone(), counts.clone())));
        let options = mqtt_options(readings, source)?;
        let metrics = metrics.bridge(&readings.name.value);
        let bridge = Self { writer, options, handle, counts, metrics, shown: [0; 3] };
        Ok((bridge, input))
    }

    /// Offset after the last record the journal holds.
    pub fn end(&self) -> i64 {
        self.handle.end()
    }

    /// Shows its metrics every second, and fills the journal until `stop` turns true.
    pub async fn run(self, mut stop: watch::Receiver<bool>) -> Result<(), RuntimeError> {
        let Self { writer, options, handle, counts, metrics, mut shown } = self;
        let stopped = stop.clone();
        let filling = mqtt::run(options, writer, counts.clone(), stopped);
        tokio::pin!(filling);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        let outcome = loop {
            tokio::select! {
                outcome = &mut filling => break outcome,
                _ = tick.tick() => show(&handle, &counts, &metrics, &mut shown),
            }
        };
        show(&handle, &counts, &metrics, &mut shown);
        outcome?;
        // It ends by itself only when it was told to.
        drop(stop.wait_for(|s| *s).await);
        Ok(())
    }
}

fn show(handle: &JournalHandle, counts: &Counts, metrics: &BridgeMetrics, shown: &mut [u64; 3]) {
    metrics.journal_bytes.set(i64::try_from(handle.bytes()).unwrap_or(i64::MAX));
    metrics.journal_end.set(handle.end());
    metrics.connected.set(i64::from(counts.connected.load(Ordering::Relaxed)));
    let now = [&counts.messages, &counts.redeliveries, &counts.failures].map(|c| c.load(Ordering::Relaxed));
    for ((counter, now), shown) in
        [&metrics.messages, &metrics.redeliveries, &metrics.failures].into_iter().zip(now).zip(shown)
    {
        counter.inc_by(now - std::mem::replace(shown, now));
    }
}

/// Milliseconds since the epoch, for retention only.
pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
