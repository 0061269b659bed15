//! Where things go: `[sinks.*]`, `[dead_letter]`, `[http]`.

use std::net::SocketAddr;

use super::super::fields::{Choices, Fields, Keys, Need, Reading, closest, list, unsupported};
use super::super::interpolate::Text;
use super::super::pipeline::{DeadLetterTopic, KafkaSink};
use super::super::span::Spanned;
use super::super::tree::{Entry, NodeValue};
use super::{Section, check_topic, name_of};

/// A sink as far as it could be read.
pub(in super::super) struct SinkDraft {
    pub from: Vec<Spanned<String>>,
    /// The kind and whether it can take part in an exactly-once pipeline.
    pub kind: Option<Spanned<SinkKind>>,
    pub body: Option<KafkaSink>,
}

/// What a kind of sink is, so that a pipeline which promises more than it can keep is refused.
#[derive(Clone, Copy)]
pub(in super::super) struct SinkKind {
    pub name: &'static str,
    /// Whether it writes verdicts and its cursor in one transaction.
    pub transactional: bool,
    pub state: SinkState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum SinkState {
    Supported,
    Planned,
    /// Known from other programs; named so that the reason it is refused can be said.
    Foreign,
}

const KINDS: [SinkKind; 5] = [
    SinkKind { name: "kafka", transactional: true, state: SinkState::Supported },
    SinkKind { name: "parquet", transactional: true, state: SinkState::Planned },
    SinkKind { name: "alertmanager", transactional: false, state: SinkState::Planned },
    SinkKind { name: "stdout", transactional: false, state: SinkState::Foreign },
    SinkKind { name: "http", transactional: false, state: SinkState::Foreign },
];
const KAFKA_SINK: Keys = Keys {
    known: &["from", "kind", "topic", "format"],
    planned: &[("where", "remove it and filter on `severity` in the consumer")],
};
/// Keys of planned kinds, so that a planned kind is one error, not several.
const ANY_SINK: Keys = Keys { known: &["from", "kind", "topic", "format", "where", "path", "url"], planned: &[] };
const FORMAT: Choices = Choices { what: "format", known: &["json"], planned: &["avro", "protobuf", "arrow"] };
const DEAD_LETTER: Keys = Keys { known: &["kind", "topic"], planned: &[] };
const DEAD_LETTER_KIND: Choices =
    Choices { what: "dead-letter kind", known: &["kafka"], planned: &["files", "parquet"] };
const HTTP: Keys = Keys { known: &["listen"], planned: &[] };

pub(super) fn read_sink(cx: &mut Reading<'_>, e: &Entry) -> SinkDraft {
    let mut draft = SinkDraft { from: Vec::new(), kind: None, body: None };
    let path = format!("sinks.{}", e.key);
    let is_kafka = match &e.node.value {
        NodeValue::Table(t) => !t.iter().any(|x| x.key == "kind" && x.node.value != NodeValue::Str("kafka".into())),
        _ => true,
    };
    let keys = if is_kafka { &KAFKA_SINK } else { &ANY_SINK };
    let Some(f) = Fields::open(cx, &e.node, &path, e.key_span, keys, &format!("[{path}]")) else {
        return draft;
    };
    let from = f.literals(cx, Need::Must, "from", true, "from = [\"anomaly\"]");
    let from = from.filter(|names| super::steps::no_duplicates(cx, names, "the step"));
    draft.from = from.clone().unwrap_or_default();
    draft.kind = read_kind(cx, &f);
    let kafka = draft.kind.as_ref().is_some_and(|k| k.value.state == SinkState::Supported);
    if kafka {
        let topic = f.text(cx, Need::Must, "topic", "topic = \"pumps.verdicts\"");
        if let Some(t) = &topic {
            check_topic(cx, t);
        }
        let format_is_fine =
            f.get("format").is_none() || f.choice(cx, Need::May, "format", &FORMAT, "format = \"json\"").is_some();
        if let (Some(from), Some(topic), true) = (from, topic, format_is_fine) {
            draft.body = Some(KafkaSink { name: name_of(e), from, topic });
        }
    }
    draft
}

fn read_kind(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Spanned<SinkKind>> {
    let text = f.literal(cx, Need::Must, "kind", "kind = \"kafka\"")?;
    let names = KINDS.iter().filter(|k| k.state != SinkState::Foreign).map(|k| k.name);
    let Some(kind) = KINDS.iter().find(|k| k.name == text.value) else {
        let help = match closest(&text.value, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use {}", list(&["kafka"])),
        };
        cx.diags.error("unknown-value", text.span, format!("`{}` is not a sink kind", text.value.escape_debug()), help);
        return None;
    };
    if kind.state == SinkState::Planned {
        unsupported(cx, text.span, &format!("the sink kind `{}`", kind.name), "use `kafka` and consume the topic");
    }
    Some(Spanned::new(*kind, text.span))
}

pub(super) fn read_dead_letter(cx: &mut Reading<'_>, file: &Fields<'_>) -> Section<DeadLetterTopic> {
    if file.get("dead_letter").is_none() {
        // Absence breaks a promise; a misspelling was reported already.
        return if file.misspelt("dead_letter") { Section::Broken } else { Section::Absent };
    }
    let read = |cx: &mut Reading<'_>| {
        let f = file.table(cx, Need::Must, "dead_letter", &DEAD_LETTER, "[dead_letter]")?;
        let kind = f.choice(cx, Need::Must, "kind", &DEAD_LETTER_KIND, "kind = \"kafka\"");
        let topic = f.text(cx, Need::Must, "topic", "topic = \"pumps.dead\"")?;
        check_topic(cx, &topic);
        kind.map(|_| DeadLetterTopic { topic })
    };
    read(cx).map_or(Section::Broken, Section::Read)
}

/// The address of metrics and health checks, or `None` if it is wrong.
pub(super) fn read_http(cx: &mut Reading<'_>, file: &Fields<'_>) -> Option<SocketAddr> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    if file.get("http").is_none() {
        return Some(default);
    }
    let f = file.table(cx, Need::Must, "http", &HTTP, "[http]")?;
    if f.get("listen").is_none() {
        return Some(default);
    }
    let text: Text = f.text(cx, Need::May, "listen", "listen = \"127.0.0.1:9464\"")?;
    match text.as_str().parse() {
        Ok(address) => Some(address),
        Err(_) => {
            cx.diags.error(
                "bad-address",
                text.span,
                format!("`{}` is not an address to listen on", text.raw().escape_debug()),
                "write an IP address and a port: \"127.0.0.1:9464\" for this machine alone, \"0.0.0.0:9464\" for all",
            );
            None
        }
    }
}
