//! A pipeline as the rest of the program sees it: typed, checked, durations in milliseconds, paths resolved.
//!
//! Places are kept where something can still go wrong after the file was read: SQL, features, thresholds, paths,
//! endpoints. Fields and steps stand in the order of their names, not of the file, because the hash of the file does
//! not cover its order (see [`super::canonical`]) and the order of fields and steps decides bytes downstream.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use avouch_connectors::ethereum::source::Reads;
use avouch_connectors::ethereum::{Endpoint, EthereumError, RpcOptions};
use avouch_connectors::kafka::{GroupOptions, GroupProtocol, KafkaConnection, Sasl, Tls};
use avouch_engine::identity::SignatureIn;
use avouch_engine::spec::{DecideSpec, FieldSpec, WindowSpec};
use avouch_engine::verdict::Hash32;
use avouch_models::{AlgorithmConfig, LabelConfig, SplitConfig};

use super::canonical::Canonical;
use super::decide::Decide;
use super::diagnostics::Diagnostics;
use super::format::Format;
use super::interpolate::{SecretString, Text};
use super::sink::{DeadLetterSink, Sink};
use super::span::{SourceFile, Span, Spanned};
use super::testing::PipelineTest;

/// What a pipeline promises about every reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// No verdict is lost and none is seen twice by who reads committed messages.
    ExactlyOnce,
    /// No verdict is lost; after a crash some may be seen twice.
    AtLeastOnce,
}

impl Delivery {
    /// Its name in TOML.
    pub fn name(self) -> &'static str {
        match self {
            Delivery::ExactlyOnce => "exactly-once",
            Delivery::AtLeastOnce => "at-least-once",
        }
    }
}

/// A whole pipeline file.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The file, for messages about places in it.
    pub file: Arc<SourceFile>,
    /// The canonical form and its hash, which is `configHash` in every verdict.
    pub canonical: Canonical,
    /// What is allowed but probably not meant. Never holds an error.
    pub warnings: Diagnostics,
    /// `pipeline.name`.
    pub name: Spanned<String>,
    /// `pipeline.description`, empty if there is none.
    pub description: String,
    /// `pipeline.delivery`; `exactly-once` if not given.
    pub delivery: Spanned<Delivery>,
    /// `pipeline.checkpoint`.
    pub checkpoint: Checkpoint,
    /// `pipeline.secret`: the key of device pseudonyms and salts. When absent, a random one is kept beside the
    /// checkpoints.
    pub secret: Option<Spanned<SecretString>>,
    /// The one `[sources.*]`.
    pub source: Source,
    /// The `[references.*]`, by name.
    pub references: Vec<ReferenceTable>,
    /// The `[steps.*]` with `sql`, by name.
    pub sql_steps: Vec<SqlStep>,
    /// The `[steps.*]` with `model`, by name.
    pub model_steps: Vec<ModelStep>,
    /// The `[sinks.*]`, by name.
    pub sinks: Vec<Sink>,
    /// `[dead_letter]`.
    pub dead_letter: DeadLetterSink,
    /// `[anchor]`, if verdicts are anchored.
    pub anchor: Option<Anchor>,
    /// The `[train.*]`, by name.
    pub train: Vec<Train>,
    /// The `[[tests]]`, in the order of the file.
    pub tests: Vec<PipelineTest>,
    /// `http.listen`; 127.0.0.1:9464 if not given.
    pub http_listen: SocketAddr,
    /// `http.tap`: whether rows of the running pipeline are shown there.
    pub http_tap: bool,
    /// `http.log`: whether the published logs are served there.
    pub http_log: bool,
}

impl Pipeline {
    /// `configHash`: SHA-256 of the canonical form.
    pub fn config_hash(&self) -> Hash32 {
        self.canonical.hash
    }

    /// An error about a place in this file, for what is found wrong only later (an endpoint refuses, a model file is
    /// damaged).
    pub fn error_at(
        &self,
        code: &'static str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Diagnostics {
        let mut diags = self.no_findings();
        diags.error(code, span, message, help);
        diags
    }

    /// No findings, with the masks of this file's literal secrets.
    pub(super) fn no_findings(&self) -> Diagnostics {
        self.warnings.emptied()
    }

    /// A message that may name this pipeline's files, with paths as a reader of the pipeline file knows them.
    pub(super) fn shown(&self, message: &str) -> String {
        match self.file.dir().to_str() {
            Some(dir) if !dir.is_empty() && dir != "." => message.replace(&format!("{dir}/"), ""),
            _ => message.to_owned(),
        }
    }

    /// The model step of a name.
    pub fn model_step(&self, name: &str) -> Option<&ModelStep> {
        self.model_steps.iter().find(|s| s.name.value == name)
    }

    /// The distance at which windows of a model step's input begin, milliseconds; `None` if it is not fixed.
    pub fn judged_every(&self, step: &ModelStep) -> Option<i64> {
        match self.sql_step(&step.from.value)?.window.as_ref()?.value {
            WindowSpec::Session { .. } => None,
            fixed => Some(fixed.every_ms()),
        }
    }

    /// The thresholds of a model step as the engine takes them.
    pub fn thresholds(&self, step: &ModelStep) -> DecideSpec {
        step.decide.spec(self.judged_every(step))
    }

    /// The features of these model steps, each once, by name.
    pub fn features_of(&self, steps: &[Spanned<String>]) -> Vec<String> {
        let mut out: Vec<String> = self
            .model_steps
            .iter()
            .filter(|m| steps.iter().any(|s| s.value == m.name.value))
            .flat_map(|m| m.features.iter().map(|f| f.value.clone()))
            .collect();
        out.sort();
        out.dedup();
        out
    }

    /// The SQL step of a name.
    pub fn sql_step(&self, name: &str) -> Option<&SqlStep> {
        self.sql_steps.iter().find(|s| s.name.value == name)
    }
}

/// When and where the pipeline's state is made durable.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Milliseconds between checkpoints; 10 s if not given.
    pub every_ms: i64,
    /// The directory of a `file://` store, resolved; `./state` beside the pipeline file if not given. With an object store
    /// it is the working copy (`checkpoint.cache`), which may be lost.
    pub dir: PathBuf,
    /// How many checkpoints are kept; 5 if not given.
    pub keep: usize,
    /// The object store that every checkpoint is copied to, if it is one.
    pub object_store: Option<ObjectStore>,
    /// Where the store is named, or the pipeline's name if it is not.
    pub span: Span,
}

/// A checkpoint store in an object store. What is absent here comes from the environment (`AWS_*`).
#[derive(Debug, Clone)]
pub struct ObjectStore {
    /// Such as `s3://bucket/prefix`.
    pub url: String,
    /// URL of the service.
    pub endpoint: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Access key.
    pub access_key: Option<SecretString>,
    /// Secret key.
    pub secret_key: Option<SecretString>,
}

/// Where readings come from, and how they are read and admitted.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name, which is its table name in SQL.
    pub name: Spanned<String>,
    /// What a record's value is.
    pub format: Format,
    /// The fields of a reading, by name.
    pub fields: Vec<Spanned<FieldSpec>>,
    /// The field that names the device; `utf8!`.
    pub key: Spanned<String>,
    /// Event time.
    pub time: Time,
    /// Devices idle for longer, by the watermark, are forgotten, milliseconds; `None`: never.
    pub device_ttl_ms: Option<Spanned<i64>>,
    /// Records with a larger value die undecoded; 1 MiB if not given.
    pub max_record_bytes: usize,
    /// Who must have signed them, if anybody.
    pub identity: Option<Identity>,
    /// What is read, and how it is reached.
    pub kind: SourceKind,
}

/// `identity`: readings must be signed by their devices.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Where the signature stands.
    pub signature: Spanned<SignaturePlace>,
    /// Where the keys are.
    pub registry: KeyRegistry,
    /// Where the table stands.
    pub span: Span,
}

/// Where a reading's signature stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignaturePlace {
    /// In this header of the record.
    Header(String),
    /// In this field of the reading.
    Field(String),
}

impl SignaturePlace {
    /// As the engine takes it.
    pub fn spec(&self) -> SignatureIn {
        match self {
            SignaturePlace::Header(_) => SignatureIn::Header,
            SignaturePlace::Field(name) => SignatureIn::Field(name.clone()),
        }
    }
}

/// Where the keys of devices are.
#[derive(Debug, Clone)]
pub enum KeyRegistry {
    /// In a JSON file.
    File(Spanned<PathBuf>),
    /// In a DeviceRegistry on a chain.
    Chain(ChainKeys),
}

/// A fleet in a DeviceRegistry.
#[derive(Debug, Clone)]
pub struct ChainKeys {
    /// Whom to ask.
    pub rpc: Rpc,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Where it stands.
    pub chain_id_span: Span,
    /// The contract.
    pub contract: Spanned<[u8; 20]>,
    /// The fleet's id.
    pub fleet: Spanned<[u8; 32]>,
    /// The first block that is read.
    pub from_block: u64,
}

impl Source {
    /// The name of its input log, as it goes into evidence, input digests, dead letters and checkpoints: a Kafka source's
    /// topic, or the one it is repartitioned through; `files:`, `mqtt:` or `ethereum:` and the source's name for the others, which no
    /// topic can be called.
    pub fn log_name(&self) -> String {
        match &self.kind {
            SourceKind::Kafka(kafka) => kafka.lane_topic().as_str().to_owned(),
            SourceKind::Files(_) => format!("files:{}", self.name.value),
            SourceKind::Mqtt(_) => format!("mqtt:{}", self.name.value),
            SourceKind::Ethereum(_) => format!("ethereum:{}", self.name.value),
        }
    }

    /// How it is repartitioned, if it is.
    pub fn repartition(&self) -> Option<&Repartition> {
        match &self.kind {
            SourceKind::Kafka(kafka) => kafka.repartition.as_deref(),
            SourceKind::Files(_) | SourceKind::Mqtt(_) | SourceKind::Ethereum(_) => None,
        }
    }

    /// The header that records carry their signature in, if they do.
    pub fn signature_header(&self) -> Option<&str> {
        match &self.identity.as_ref()?.signature.value {
            SignaturePlace::Header(name) => Some(name),
            SignaturePlace::Field(_) => None,
        }
    }

    /// Whether it comes to an end by itself: files that are not followed.
    pub fn ends(&self) -> bool {
        matches!(&self.kind, SourceKind::Files(files) if !files.follow)
    }

    /// What it reads as it stands in the pipeline file, safe to show.
    pub fn reads(&self) -> &str {
        match &self.kind {
            SourceKind::Kafka(kafka) => kafka.topic.raw(),
            SourceKind::Files(files) => files.path.raw(),
            SourceKind::Mqtt(mqtt) => mqtt.url.raw(),
            SourceKind::Ethereum(chain) => chain.rpc.raw(),
        }
    }
}

/// What a source reads. Each kind gives every lane an input log: records with increasing offsets that can be read again.
#[derive(Debug, Clone)]
pub enum SourceKind {
    /// A Kafka topic, one lane a partition.
    Kafka(KafkaSource),
    /// Files, one after another in one lane.
    Files(FilesSource),
    /// An MQTT broker, through a journal that one lane reads.
    Mqtt(MqttSource),
    /// A chain's blocks, or events of its contracts, in one lane.
    Ethereum(ChainSource),
}

/// A Kafka topic as a source.
#[derive(Debug, Clone)]
pub struct KafkaSource {
    /// Comma-separated `host:port`.
    pub brokers: Text,
    /// Topic.
    pub topic: Text,
    /// The topic that records go through where this one is not keyed by device, if it is not.
    pub repartition: Option<Box<Repartition>>,
    /// Consumer group; the pipeline's name if not given.
    pub group: Text,
    /// How the brokers are reached.
    pub security: KafkaSecurity,
    /// How this process is a member of the group.
    pub membership: Membership,
}

/// `repartition`: the topic whose partitions become the lanes, each record in that of its device.
#[derive(Debug, Clone)]
pub struct Repartition {
    /// The topic, on the source's brokers. It belongs to this pipeline alone.
    pub topic: Text,
    /// How many partitions it has. Which lane follows a device depends on it, so the topic must have as many.
    pub partitions: i32,
    /// Where the table stands.
    pub span: Span,
}

/// `security`: how a Kafka cluster is reached. Sinks and dead letters go to the source's cluster, so they share it.
#[derive(Debug, Clone, Default)]
pub struct KafkaSecurity {
    /// Encryption, if there is any.
    pub tls: Option<Tls>,
    /// Who we are, if the brokers want to know.
    pub sasl: Option<Sasl>,
}

/// How this process is a member of the source's consumer group.
#[derive(Debug, Clone, Default)]
pub struct Membership {
    /// `instance`: its lasting name, so that a restart moves no lane.
    pub instance: Option<Text>,
    /// `group_protocol`; `classic` if not given.
    pub protocol: GroupProtocol,
    /// `session_timeout`; 45 s if not given, the broker's setting with `consumer`.
    pub session: Option<Duration>,
}

impl KafkaSource {
    /// The source's cluster, as every client reaches it.
    pub fn connection(&self) -> KafkaConnection {
        let mut connection = KafkaConnection::plaintext(self.brokers.as_str());
        if let Some(tls) = &self.security.tls {
            connection = connection.with_tls(tls.clone());
        }
        if let Some(sasl) = &self.security.sasl {
            connection = connection.with_sasl(sasl.clone());
        }
        connection
    }

    /// The topic whose partitions are the lanes.
    pub fn lane_topic(&self) -> &Text {
        self.repartition.as_ref().map_or(&self.topic, |r| &r.topic)
    }

    /// The group that repartitions the source, as this process joins it.
    pub fn repartition_group(&self) -> GroupOptions {
        let own = self.group_options();
        GroupOptions { group: format!("{}-repartition", own.group), ..own }
    }

    /// The source's group, as this process joins it.
    pub fn group_options(&self) -> GroupOptions {
        GroupOptions {
            group: self.group.as_str().to_owned(),
            instance: self.membership.instance.as_ref().map(|i| i.as_str().to_owned()),
            protocol: self.membership.protocol,
            session: self.membership.session,
        }
    }
}

/// Files as a source: see `avouch_connectors::files::log`.
#[derive(Debug, Clone)]
pub struct FilesSource {
    /// The pattern as it stands in the file.
    pub path: Text,
    /// Where that is.
    pub place: FilesPlace,
    /// What the files hold; by their names if not given.
    pub format: Option<FileFormat>,
    /// Field delimiter of CSV files; `,` if not given.
    pub delimiter: u8,
    /// Whether to wait for new files; if not, the run ends with the last file there is.
    pub follow: bool,
}

/// Where files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesPlace {
    /// A pattern of paths on this machine, resolved.
    Local(String),
    /// A pattern of keys in an S3 bucket. Endpoint, region and credentials come from the environment (`AWS_…`).
    S3 {
        /// The bucket.
        bucket: String,
        /// The pattern.
        pattern: String,
    },
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Delimited text with a header line.
    Csv,
    /// One JSON object a line.
    Ndjson,
    /// Apache Parquet with flat columns.
    Parquet,
}

/// An MQTT 5 broker as a source: see `avouch_connectors::mqtt`.
#[derive(Debug, Clone)]
pub struct MqttSource {
    /// The URL as it stands in the file.
    pub url: Text,
    /// Host of the broker.
    pub host: String,
    /// Port; 1883 if not given, 8883 with TLS.
    pub port: u16,
    /// Whether TLS is spoken (`mqtts://`).
    pub tls: bool,
    /// Topic filters.
    pub topics: Vec<Spanned<String>>,
    /// The name of the session; the pipeline's if not given.
    pub client_id: Text,
    /// User.
    pub username: Option<Text>,
    /// Password.
    pub password: Option<SecretString>,
    /// A file of authorities (PEM), resolved; those of the machine if not given.
    pub ca: Option<Spanned<PathBuf>>,
    /// How long the broker keeps the session while nobody is connected, milliseconds; 7 days if not given.
    pub session_expiry_ms: i64,
    /// The journal.
    pub journal: JournalSettings,
}

/// An Ethereum chain as a source: see `avouch_connectors::ethereum::source`.
#[derive(Debug, Clone)]
pub struct ChainSource {
    /// Whom to ask.
    pub rpc: Rpc,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Where it stands.
    pub chain_id_span: Span,
    /// The first block.
    pub from_block: Spanned<u64>,
    /// Blocks, or which events.
    pub reads: Reads,
}

/// JSON-RPC endpoints of one chain, http or https. They may carry keys in their paths, so show them with [`Rpc::raw`].
#[derive(Debug, Clone)]
pub struct Rpc {
    /// The preferred one first; at least one.
    pub endpoints: Vec<Text>,
    /// How many must agree.
    pub quorum: usize,
    /// Where they stand.
    pub span: Span,
}

impl Rpc {
    /// The preferred endpoint.
    pub fn as_str(&self) -> &str {
        self.endpoints.first().map_or("", Text::as_str)
    }

    /// The preferred endpoint as it stands in the file.
    pub fn raw(&self) -> &str {
        self.endpoints.first().map_or("", Text::raw)
    }

    /// All of them, as whom the connectors ask. Connects to nothing.
    pub fn endpoint(&self, options: RpcOptions) -> Result<Endpoint, EthereumError> {
        Endpoint::several(self.endpoints.iter().map(Text::as_str), self.quorum, options)
    }
}

/// The journal of a source that cannot be read twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalSettings {
    /// Bytes it may hold before nothing more is acknowledged; 10 GiB if not given.
    pub max_bytes: u64,
    /// How long records are kept after no checkpoint needs them, milliseconds; 0 if not given.
    pub keep_ms: i64,
}

/// How readings are placed in time.
#[derive(Debug, Clone)]
pub struct Time {
    /// The field with event time; `timestamp_ms!`.
    pub column: Spanned<String>,
    /// How far rows may be out of order, milliseconds.
    pub max_disorder_ms: Spanned<i64>,
    /// After how long without an admitted reading a partition's time goes on by the clock, milliseconds; `None`: never.
    pub idle_after_ms: Option<i64>,
    /// How far event time may be ahead of the broker's timestamp, milliseconds; 5 min if not given.
    pub max_future_ms: i64,
}

/// A table that steps may join.
#[derive(Debug, Clone)]
pub struct ReferenceTable {
    /// Its name, which is its table name in SQL.
    pub name: Spanned<String>,
    /// The file, resolved: CSV, NDJSON or Parquet by its ending.
    pub file: Spanned<PathBuf>,
    /// The column that is unique and that joins look up.
    pub key: Spanned<String>,
    /// Columns by name with their types; `None`: all there are, with the types their values have.
    pub fields: Option<Vec<FieldSpec>>,
}

/// A step with SQL; with a window it makes features.
#[derive(Debug, Clone)]
pub struct SqlStep {
    /// Its name, which is its table name for later steps.
    pub name: Spanned<String>,
    /// The source or step it reads.
    pub from: Spanned<String>,
    /// The query; its span is the text between the quotes.
    pub sql: Spanned<String>,
    /// The window, if it aggregates.
    pub window: Option<Spanned<WindowSpec>>,
    /// `window.early`: early results at every multiple of so many milliseconds that the watermark passes.
    pub early: Option<Spanned<i64>>,
}

/// A step with a model.
#[derive(Debug, Clone)]
pub struct ModelStep {
    /// Its name.
    pub name: Spanned<String>,
    /// The windowed step it reads.
    pub from: Spanned<String>,
    /// The model file, resolved.
    pub model_file: Spanned<PathBuf>,
    /// The SHA-256 the model file must have, if it is pinned.
    pub model_sha256: Option<Spanned<Hash32>>,
    /// The features given to the model, in its order. Where the file names none: the numbers of the windowed step, and
    /// none if its SQL cannot be planned.
    pub features: Vec<Spanned<String>>,
    /// How what the model says becomes a severity.
    pub decide: Decide,
}

/// Where and when checkpoints of the verdict log are anchored.
#[derive(Debug, Clone)]
pub struct Anchor {
    /// Whom to ask, and to send transactions to.
    pub rpc: Rpc,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Where it stands.
    pub chain_id_span: Span,
    /// Address of the VerdictLog contract.
    pub contract: Spanned<[u8; 20]>,
    /// Who signs and pays.
    pub signer: Signer,
    /// Who registered the logs, if the signer is another account now.
    pub owner: Option<Spanned<[u8; 20]>>,
    /// Anchor at the latest when so many verdicts wait; `None` if only time counts.
    pub every_verdicts: Option<u64>,
    /// Anchor at the latest when a verdict has waited so long, milliseconds; `None` if only verdicts count.
    pub every_ms: Option<i64>,
    /// What it may cost.
    pub gas: Gas,
    /// The promise watched: no verdict waits longer than this for its anchor, milliseconds; 5 min if not given.
    pub max_merge_delay_ms: i64,
    /// Where the table begins.
    pub span: Span,
}

/// What anchors may cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gas {
    /// Never offer more for a unit of gas, wei.
    pub max_fee: Option<u128>,
    /// Never spend more on a day, wei.
    pub per_day: Option<u128>,
    /// Wait for cheaper gas within the promise, and make the budget last the day.
    pub adapt: bool,
}

/// The key that signs checkpoints.
#[derive(Debug, Clone)]
pub enum Signer {
    /// An encrypted keystore file, resolved, and its password.
    Keystore {
        /// The file.
        file: Spanned<PathBuf>,
        /// Its password.
        password: Spanned<SecretString>,
    },
    /// 32 bytes in hexadecimal with or without `0x`; for development.
    Key(Spanned<SecretString>),
    /// A key in AWS KMS, which never leaves it.
    Kms(KmsKey),
}

/// A key in AWS KMS.
#[derive(Debug, Clone)]
pub struct KmsKey {
    /// ARN or id of the key, or ARN or name of an alias.
    pub key: Spanned<String>,
    /// Region, if it is neither the ARN's nor the environment's.
    pub region: Option<String>,
    /// URL of the service, if it is neither Amazon's nor the environment's.
    pub endpoint: Option<String>,
}

/// How a model is made.
#[derive(Debug, Clone)]
pub struct Train {
    /// Its name.
    pub name: Spanned<String>,
    /// The model step whose model it makes.
    pub step: Spanned<String>,
    /// The rows to train on.
    pub data: TrainData,
    /// The algorithm and its options. Options that contradict each other are found by training.
    pub algorithm: Spanned<AlgorithmConfig>,
    /// What is held back for calibration.
    pub split: SplitConfig,
    /// What a model that predicts is trained to say.
    pub label: Option<TrainLabel>,
}

/// What a prognosis is trained to say.
#[derive(Debug, Clone)]
pub struct TrainLabel {
    /// As the models crate takes it.
    pub config: LabelConfig,
    /// Of remaining life: where the times of failure are.
    pub failures: Option<TrainFailures>,
}

/// When devices failed.
#[derive(Debug, Clone)]
pub struct TrainFailures {
    /// The file, resolved against the pipeline file's directory.
    pub pattern: String,
    /// Its column that names the device; the source's key if not given.
    pub device: Option<String>,
    /// Its column with the time of failure.
    pub time: String,
}

/// Rows to train on.
#[derive(Debug, Clone)]
pub struct TrainData {
    /// A glob pattern as it stands in the file; see [`TrainData::pattern`].
    pub files: Text,
    /// The pattern resolved against the pipeline file's directory.
    pub pattern: String,
    /// Field delimiter of CSV files; `,` if not given.
    pub delimiter: u8,
    /// How a row's device is named.
    pub device: TrainDevice,
    /// Only the first so many rows of each device.
    pub first: Option<u64>,
}

/// How a training row's device is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrainDevice {
    /// By the source's key column, as in a reading.
    Key,
    /// By the path of the file the row is in, without its extension and relative to the pattern's fixed directory.
    Path,
    /// By another column.
    Column(Spanned<String>),
}
