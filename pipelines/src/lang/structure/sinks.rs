//! `[sinks.*]` and `[dead_letter]`.

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, closest, either, value_span};
use super::super::interpolate::Text;
use super::super::pipeline::Delivery;
use super::super::sink::{
    AlertmanagerSink, DeadLetterFiles, DeadLetterKind, DeadLetterSink, EarlyTo, KafkaSink, ParquetSink, Sink, SinkKind,
    WebhookSink,
};
use super::super::span::Spanned;
use super::super::tree::{Entry, NodeValue};
use super::head::DELIVERY;
use super::source::check_brokers;
use super::{Section, check_topic, name_of};

/// A sink as far as it could be read.
pub(in super::super) struct SinkDraft {
    pub from: Vec<Spanned<String>>,
    pub kind: Option<Spanned<&'static KindFacts>>,
    /// A promise of its own.
    pub delivery: Option<Spanned<Delivery>>,
    pub body: Option<Sink>,
}

/// Dead letters as far as they could be read.
pub(in super::super) struct DeadLetterDraft {
    pub kind: Spanned<&'static KindFacts>,
    pub delivery: Option<Spanned<Delivery>>,
    pub body: DeadLetterSink,
}

/// What a kind is, so that a pipeline which promises more than it can keep is refused.
pub(in super::super) struct KindFacts {
    pub name: &'static str,
    /// Why a record may be seen twice after a crash; `None` where it is not.
    pub repeats: Option<&'static str>,
}

const KAFKA: KindFacts = KindFacts { name: "kafka", repeats: None };
const PARQUET: KindFacts = KindFacts { name: "parquet", repeats: None };
const FILES: KindFacts = KindFacts { name: "files", repeats: None };
const ALERTMANAGER: KindFacts = KindFacts { name: "alertmanager", repeats: None };
const WEBHOOK: KindFacts =
    KindFacts { name: "webhook", repeats: Some("after a crash a webhook may be called again with the same verdicts") };
const STDOUT: KindFacts =
    KindFacts { name: "stdout", repeats: Some("after a crash lines that were written before may be written again") };

const KINDS: [&KindFacts; 5] = [&KAFKA, &PARQUET, &ALERTMANAGER, &WEBHOOK, &STDOUT];
const DEAD_KINDS: [&KindFacts; 3] = [&KAFKA, &FILES, &STDOUT];

/// Keys that Kafka sinks will have.
const KAFKA_PLANNED: &[(&str, &str)] =
    &[("security", "remove it and connect to a plaintext listener on a network you trust")];
/// Keys of sinks that take verdicts only.
const EARLY_PLANNED: &[(&str, &str)] =
    &[("early", "remove it; Kafka (`early_topic`), webhook and stdout sinks take early results")];

const FROM: Key = Key::must("from", Kind::Names(true), "The model steps whose verdicts it takes.");
const WHERE: Key = Key::may(
    "where",
    Kind::Literal,
    "Which verdicts: an SQL condition over the columns of a verdict and its features by name. For Alertmanager, for which \
     an alert is open; those that are not normal if not given.",
)
.or("all");
const OWN_DELIVERY: Key =
    Key::may("delivery", Kind::Choice(&DELIVERY), "`at-least-once` where the kind cannot keep exactly-once.")
        .or("the pipeline's");
const TOPIC: Key = Key::must("topic", Kind::Text, "The topic.");
const BROKERS: Key =
    Key::may("brokers", Kind::Text, "`host:port`, several with commas; reached without security.").or("the source's");
const SINK_FORMAT: Key = Key::may("format", Kind::Choice(&FORMAT), "What is written.").or("\"json\"");
const URL: Key = Key::must("url", Kind::Text, "http or https.");
const TOKEN: Key = Key::may("token", Kind::Secret, "Sent as a bearer token.");
const TIMEOUT: Key = Key::may("timeout", Kind::Duration(10), "How long a request may take.").or("\"10s\"");
const EARLY: Key = Key::may("early", Kind::Bool, "Whether early results go there, too.").or("false");
const fn is(kind: &'static str) -> Key {
    Key::must("kind", Kind::Is(kind), "What it writes to.")
}

const KAFKA_SINK: Keys = Keys::new(
    "kafka_sink",
    "Verdicts into a Kafka topic, one message each.",
    &[
        FROM,
        is("kafka"),
        WHERE,
        OWN_DELIVERY,
        TOPIC,
        BROKERS,
        SINK_FORMAT,
        Key::may("early_topic", Kind::Text, "A topic of their own for early results."),
    ],
)
.planned(KAFKA_PLANNED);
const PARQUET_SINK: Keys = Keys::new(
    "parquet_sink",
    "The archive: Parquet files, a directory a day.",
    &[
        FROM,
        is("parquet"),
        WHERE,
        OWN_DELIVERY,
        Key::must("path", Kind::Text, "`file://` and a directory, or `s3://bucket/prefix`."),
        Key::may("every", Kind::Duration(100), "A verdict waits at most so long for its file.").or("\"1m\""),
        Key::may("rows", Kind::Int(1, 1_000_000), "A file has at most so many verdicts.").or("50_000"),
        Key::may("size", Kind::Size(1 << 16, 1 << 30), "A file is closed at so many bytes.").or("\"32MiB\""),
    ],
)
.planned(EARLY_PLANNED);
const ALERTMANAGER_SINK: Keys = Keys::new(
    "alertmanager_sink",
    "Alerts in Prometheus Alertmanager.",
    &[
        FROM,
        is("alertmanager"),
        WHERE,
        OWN_DELIVERY,
        URL,
        TOKEN,
        TIMEOUT,
        Key::may(
            "resolve_after",
            Kind::Duration(1_000),
            "An alert ends so long after the last verdict that kept it open.",
        )
        .or("\"1h\""),
        Key::may("generator_url", Kind::Text, "The page an alert links to."),
    ],
)
.planned(EARLY_PLANNED);
const WEBHOOK_SINK: Keys = Keys::new(
    "webhook_sink",
    "Verdicts to an HTTP endpoint that takes JSON.",
    &[
        FROM,
        is("webhook"),
        WHERE,
        OWN_DELIVERY,
        URL,
        Key::may("secret", Kind::Secret, "Key of the signature; without it requests are not signed."),
        TOKEN,
        TIMEOUT,
        Key::may("batch", Kind::Int(1, 10_000), "The most verdicts in one request.").or("500"),
        SINK_FORMAT,
        EARLY,
    ],
);
const STDOUT_SINK: Keys = Keys::new(
    "stdout_sink",
    "Verdicts on standard output, one JSON object a line.",
    &[FROM, is("stdout"), WHERE, OWN_DELIVERY, SINK_FORMAT, EARLY],
);
pub(super) const SINK_TABLES: [&Keys; 5] =
    [&KAFKA_SINK, &PARQUET_SINK, &ALERTMANAGER_SINK, &WEBHOOK_SINK, &STDOUT_SINK];
/// Keys of all kinds, so that an unknown kind is one error, not several.
const ANY_SINK: Keys = Keys::any(&SINK_TABLES);

const DEAD_KAFKA: Keys =
    Keys::new("kafka_dead_letter", "Dead letters into a Kafka topic.", &[is("kafka"), TOPIC, BROKERS, OWN_DELIVERY])
        .planned(KAFKA_PLANNED);
const DEAD_FILES: Keys = Keys::new(
    "files_dead_letter",
    "Dead letters as files of JSON lines.",
    &[
        is("files"),
        Key::must("path", Kind::Text, "`file://` and a directory."),
        Key::may("size", Kind::Size(1, 1 << 40), "A file is closed at so many bytes.").or("\"64MiB\""),
        OWN_DELIVERY,
    ],
);
const DEAD_STDOUT: Keys = Keys::new(
    "stdout_dead_letter",
    "Dead letters on standard output, one JSON object a line.",
    &[is("stdout"), OWN_DELIVERY],
);
pub(super) const DEAD_TABLES: [&Keys; 3] = [&DEAD_KAFKA, &DEAD_FILES, &DEAD_STDOUT];
const DEAD_ANY: Keys = Keys::any(&DEAD_TABLES);

const FORMAT: Choices = Choices { what: "format", known: &["json"], planned: &["avro", "protobuf", "arrow"] };

const DEFAULT_EVERY_MS: i64 = 60_000;
const DEFAULT_ROWS: i64 = 50_000;
const DEFAULT_FILE_BYTES: i64 = 32 << 20;
const DEFAULT_DEAD_FILE_BYTES: i64 = 64 << 20;
const DEFAULT_TIMEOUT_MS: i64 = 10_000;
const DEFAULT_RESOLVE_AFTER_MS: i64 = 3_600_000;
const DEFAULT_BATCH: i64 = 500;

/// The kind a table names, if it names one of these.
fn kind_in(e: &Entry, kinds: &[&'static KindFacts]) -> Option<&'static KindFacts> {
    let NodeValue::Table(entries) = &e.node.value else { return None };
    let kind = entries.iter().find(|x| x.key == "kind")?;
    kinds.iter().find(|k| kind.node.value == NodeValue::Str(k.name.into())).copied()
}

fn read_kind(
    cx: &mut Reading<'_>,
    f: &Fields<'_>,
    what: &str,
    kinds: &[&'static KindFacts],
) -> Option<Spanned<&'static KindFacts>> {
    let text = f.literal(cx, Need::Must, "kind", "kind = \"kafka\"")?;
    if let Some(kind) = kinds.iter().find(|k| k.name == text.value) {
        return Some(Spanned::new(kind, text.span));
    }
    let names: Vec<&str> = kinds.iter().map(|k| k.name).collect();
    let help = match closest(&text.value, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("use {}", either(&names)),
    };
    cx.diags.error("unknown-value", text.span, format!("`{}` is not a {what}", text.value.escape_debug()), help);
    None
}

pub(super) fn read_sink(cx: &mut Reading<'_>, e: &Entry) -> SinkDraft {
    let mut draft = SinkDraft { from: Vec::new(), kind: None, delivery: None, body: None };
    if e.key == "dead_letter" {
        cx.diags.error(
            "bad-name",
            e.key_span,
            "`dead_letter` cannot be the name of a sink: metrics and cursors of the dead letters have it",
            "give the sink another name; where dead letters go stands in `[dead_letter]`",
        );
    }
    let path = format!("sinks.{}", e.key);
    let keys = match kind_in(e, &KINDS).map(|k| k.name) {
        Some("kafka") => &KAFKA_SINK,
        Some("parquet") => &PARQUET_SINK,
        Some("alertmanager") => &ALERTMANAGER_SINK,
        Some("webhook") => &WEBHOOK_SINK,
        Some("stdout") => &STDOUT_SINK,
        _ => &ANY_SINK,
    };
    let Some(f) = Fields::open(cx, &e.node, &path, e.key_span, keys, &format!("[{path}]")) else {
        return draft;
    };
    let from = f.literals(cx, Need::Must, "from", true, "from = [\"anomaly\"]");
    let from = from.filter(|names| super::steps::no_duplicates(cx, names, "the step"));
    draft.from = from.clone().unwrap_or_default();
    draft.kind = read_kind(cx, &f, "sink kind", &KINDS);
    let condition = optional(&f, "where", || f.literal(cx, Need::May, "where", "where = \"severity = 'critical'\""));
    draft.delivery = read_delivery(cx, &f);
    let delivery_is_fine = f.get("delivery").is_none() || draft.delivery.is_some();
    let format_is_fine =
        f.get("format").is_none() || f.choice(cx, Need::May, "format", &FORMAT, "format = \"json\"").is_some();
    let kind = match draft.kind.as_ref().map(|k| k.value.name) {
        Some("kafka") => read_kafka(cx, &f, "topic = \"pumps.verdicts\"").map(SinkKind::Kafka),
        Some("parquet") => read_parquet(cx, &f).map(SinkKind::Parquet),
        Some("alertmanager") => read_alertmanager(cx, &f).map(SinkKind::Alertmanager),
        Some("webhook") => read_webhook(cx, &f).map(SinkKind::Webhook),
        Some("stdout") => Some(SinkKind::Stdout),
        _ => None,
    };
    let early = match draft.kind.as_ref().map(|k| k.value.name) {
        Some("kafka") => optional(&f, "early_topic", || read_early_topic(cx, &f)),
        Some("webhook" | "stdout") => read_early(cx, &f),
        _ => Some(None),
    };
    if let (Some(from), Some(kind), Some(condition), Some(early), true, true) =
        (from, kind, condition, early, delivery_is_fine, format_is_fine)
    {
        let delivery = draft.delivery.as_ref().map(|d| d.value);
        draft.body = Some(Sink { name: name_of(e), from, condition, delivery, early, kind });
    }
    draft
}

/// `None` when the key is there but wrong; `Some(None)` when it is not there.
fn optional<T>(f: &Fields<'_>, key: &str, read: impl FnOnce() -> Option<T>) -> Option<Option<T>> {
    if f.get(key).is_none() { Some(None) } else { read().map(Some) }
}

fn read_delivery(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Spanned<Delivery>> {
    f.get("delivery")?;
    f.choice(cx, Need::May, "delivery", &DELIVERY, "delivery = \"at-least-once\"").map(|d| {
        let value = if d.value == "exactly-once" { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce };
        Spanned::new(value, d.span)
    })
}

fn read_kafka(cx: &mut Reading<'_>, f: &Fields<'_>, topic_example: &str) -> Option<KafkaSink> {
    let topic = f.text(cx, Need::Must, "topic", topic_example);
    if let Some(t) = &topic {
        check_topic(cx, t);
    }
    let brokers = optional(f, "brokers", || {
        f.text(cx, Need::May, "brokers", "brokers = \"${env:KAFKA_BROKERS:-localhost:9092}\"")
    });
    if let Some(Some(b)) = &brokers {
        check_brokers(cx, b);
    }
    Some(KafkaSink { brokers: brokers?, topic: topic? })
}

fn read_early_topic(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<EarlyTo> {
    let topic = f.text(cx, Need::May, "early_topic", "early_topic = \"pumps.early\"")?;
    check_topic(cx, &topic);
    Some(EarlyTo::Topic(topic))
}

/// `None` if it is wrong, `Some(None)` if it is not there or says no.
fn read_early(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Option<EarlyTo>> {
    let Some(e) = f.get("early") else { return Some(None) };
    let NodeValue::Bool(wanted) = &e.node.value else {
        f.wrong_type(cx, e, "true or false", "early = true");
        return None;
    };
    Some(wanted.then_some(EarlyTo::Beside))
}

fn read_parquet(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<ParquetSink> {
    let example = "path = \"file://./archive\"";
    let path = f.text(cx, Need::Must, "path", example);
    let url = path.as_ref().and_then(|p| archive_url(cx, p, example));
    let every = optional(f, "every", || f.duration(cx, Need::May, "every", 100, "every = \"1m\""));
    let rows = optional(f, "rows", || f.int(cx, Need::May, "rows", (1, 1_000_000), "rows = 50_000"));
    let size = optional(f, "size", || f.size(cx, Need::May, "size", (1 << 16, 1 << 30), "size = \"32MiB\""));
    Some(ParquetSink {
        path: path?,
        url: url?,
        every_ms: every?.map_or(DEFAULT_EVERY_MS, |d| d.value),
        rows: usize::try_from(rows?.map_or(DEFAULT_ROWS, |r| r.value)).ok()?,
        bytes: usize::try_from(size?.map_or(DEFAULT_FILE_BYTES, |s| s.value)).ok()?,
    })
}

/// A `file://` URL with its path resolved, or an `s3://` one as it is.
fn archive_url(cx: &mut Reading<'_>, path: &Text, example: &str) -> Option<String> {
    match path.as_str().split_once("://") {
        Some(("file", dir)) if !dir.is_empty() => Some(format!("file://{}", cx.dir.join(dir).display())),
        Some(("s3", rest)) if !rest.is_empty() && !rest.starts_with('/') => Some(path.as_str().to_owned()),
        _ => {
            cx.diags.error(
                "bad-url",
                path.span,
                format!("`{}` is not the URL of a directory or of a bucket", path.raw().escape_debug()),
                format!("write `{example}`, or \"s3://bucket/prefix\""),
            );
            None
        }
    }
}

fn read_url(cx: &mut Reading<'_>, f: &Fields<'_>, need: Need, key: &str, example: &str) -> Option<Text> {
    let url = f.text(cx, need, key, &format!("{key} = \"{example}\""))?;
    let rest = url.as_str().strip_prefix("http://").or_else(|| url.as_str().strip_prefix("https://"));
    if rest.is_some_and(|r| !r.is_empty() && !r.starts_with(['/', ':']) && !r.contains(char::is_whitespace)) {
        return Some(url);
    }
    cx.diags.error(
        "bad-url",
        url.span,
        format!("`{}` is not an http:// or https:// URL", url.raw().escape_debug()),
        format!("write for example \"{example}\""),
    );
    None
}

fn read_timeout(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<i64> {
    let timeout = optional(f, "timeout", || f.duration(cx, Need::May, "timeout", 10, "timeout = \"10s\""));
    Some(timeout?.map_or(DEFAULT_TIMEOUT_MS, |d| d.value))
}

fn read_alertmanager(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<AlertmanagerSink> {
    let url = read_url(cx, f, Need::Must, "url", "http://localhost:9093");
    let token = optional(f, "token", || f.secret(cx, Need::May, "token", "token = \"${file:/run/secrets/pager}\""));
    let timeout_ms = read_timeout(cx, f);
    let resolve_after =
        optional(f, "resolve_after", || f.duration(cx, Need::May, "resolve_after", 1_000, "resolve_after = \"1h\""));
    let generator_url = optional(f, "generator_url", || {
        read_url(cx, f, Need::May, "generator_url", "https://dashboards.example/pumps")
    });
    Some(AlertmanagerSink {
        url: url?,
        token: token?,
        timeout_ms: timeout_ms?,
        resolve_after_ms: resolve_after?.map_or(DEFAULT_RESOLVE_AFTER_MS, |d| d.value),
        generator_url: generator_url?,
    })
}

fn read_webhook(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<WebhookSink> {
    let url = read_url(cx, f, Need::Must, "url", "https://hooks.example/verdicts");
    let secret = optional(f, "secret", || f.secret(cx, Need::May, "secret", "secret = \"${file:/run/secrets/hook}\""));
    let token = optional(f, "token", || f.secret(cx, Need::May, "token", "token = \"${file:/run/secrets/token}\""));
    let timeout_ms = read_timeout(cx, f);
    let batch = optional(f, "batch", || f.int(cx, Need::May, "batch", (1, 10_000), "batch = 500"));
    Some(WebhookSink {
        url: url?,
        secret: secret?,
        token: token?,
        timeout_ms: timeout_ms?,
        batch: usize::try_from(batch?.map_or(DEFAULT_BATCH, |b| b.value)).ok()?,
    })
}

pub(super) fn read_dead_letter(cx: &mut Reading<'_>, file: &Fields<'_>) -> Section<DeadLetterDraft> {
    let Some(e) = file.get("dead_letter") else {
        // Absence breaks a promise; a misspelling was reported already.
        return if file.misspelt("dead_letter") { Section::Broken } else { Section::Absent };
    };
    let keys = match kind_in(e, &DEAD_KINDS).map(|k| k.name) {
        Some("kafka") => &DEAD_KAFKA,
        Some("files") => &DEAD_FILES,
        Some("stdout") => &DEAD_STDOUT,
        _ => &DEAD_ANY,
    };
    let read = |cx: &mut Reading<'_>| {
        let f = file.table(cx, Need::Must, "dead_letter", keys, "[dead_letter]")?;
        let kind = read_kind(cx, &f, "dead-letter kind", &DEAD_KINDS);
        let delivery = optional(&f, "delivery", || read_delivery(cx, &f));
        let to = match kind.as_ref().map(|k| k.value.name) {
            Some("kafka") => read_kafka(cx, &f, "topic = \"pumps.dead\"").map(DeadLetterKind::Kafka),
            Some("files") => read_dead_files(cx, &f).map(DeadLetterKind::Files),
            Some("stdout") => Some(DeadLetterKind::Stdout),
            _ => None,
        };
        let delivery = delivery?;
        let span = f.get("path").or(f.get("topic")).map_or(f.at, value_span);
        let body = DeadLetterSink { delivery: delivery.as_ref().map(|d| d.value), kind: to?, span };
        Some(DeadLetterDraft { kind: kind?, delivery, body })
    };
    read(cx).map_or(Section::Broken, Section::Read)
}

fn read_dead_files(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<DeadLetterFiles> {
    let example = "path = \"file://./dead\"";
    let path = f.text(cx, Need::Must, "path", example);
    let size = optional(f, "size", || f.size(cx, Need::May, "size", (1, 1 << 40), "size = \"64MiB\""));
    let path = path?;
    let dir = match path.as_str().strip_prefix("file://") {
        Some(dir) if !dir.is_empty() => Some(cx.dir.join(dir)),
        _ => {
            cx.diags.error(
                "bad-url",
                path.span,
                format!("`{}` is not the URL of a directory", path.raw().escape_debug()),
                format!("write `{example}`"),
            );
            None
        }
    };
    Some(DeadLetterFiles { dir: dir?, bytes: u64::try_from(size?.map_or(DEFAULT_DEAD_FILE_BYTES, |s| s.value)).ok()? })
}
