//! Structure: from the tree to typed parts, table by table. What is broken is reported and left out, so that the
//! phases after it can still check the rest.

mod anchor;
mod decide;
mod format;
mod head;
mod identity;
mod kafka;
mod label;
mod outputs;
mod prognosis;
mod reference;
mod repartition;
mod sinks;
mod source;
mod source_ethereum;
mod source_files;
mod source_mqtt;
mod steps;
pub(crate) use steps::hex_bytes;
mod tests;
mod train;

use super::fields::{Fields, Key, Keys, Kind, Need, Reading, list, value_span};
use super::interpolate::Text;
use super::pipeline::{Anchor, ModelStep, ReferenceTable, Source, SqlStep, Train};
use super::span::{Span, Spanned};
use super::testing::PipelineTest;
use super::tree::{Entry, Node, NodeValue};

pub(super) use head::Head;
pub(super) use sinks::{DeadLetterDraft, KindFacts, SinkDraft};

/// The parts that could be read. Names are kept also of parts that are broken otherwise, so that references to them
/// are not reported as well.
#[derive(Default)]
pub(super) struct Draft {
    pub head: Option<Head>,
    pub sources: Vec<SourceDraft>,
    pub references: Vec<ReferenceDraft>,
    pub steps: Vec<StepDraft>,
    pub sinks: Vec<SinkDraft>,
    pub dead_letter: Section<DeadLetterDraft>,
    pub anchor: Section<Anchor>,
    pub train: Vec<TrainDraft>,
    pub tests: Vec<PipelineTest>,
    pub http: Option<outputs::Http>,
}

/// A table that may be absent, or there but broken.
#[derive(Default)]
pub(super) enum Section<T> {
    #[default]
    Absent,
    Broken,
    Read(T),
}

pub(super) struct SourceDraft {
    pub name: Spanned<String>,
    pub body: Option<Source>,
}

pub(super) struct ReferenceDraft {
    pub name: Spanned<String>,
    pub body: Option<ReferenceTable>,
}

/// What a step is, as far as its keys tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Rows,
    Window,
    Model,
    Unclear,
}

pub(super) struct StepDraft {
    pub name: Spanned<String>,
    pub role: Role,
    pub from: Option<Spanned<String>>,
    pub body: Option<StepBody>,
}

pub(super) enum StepBody {
    Sql(SqlStep),
    Model(Box<ModelStep>),
}

pub(super) struct TrainDraft {
    pub step: Option<Spanned<String>>,
    pub body: Option<Train>,
}

/// The whole file.
pub(super) const FILE: Keys = Keys::new(
    "file",
    "A pipeline of Avouch: where readings come from, what is computed, and where verdicts go.",
    &[
        Key::must("version", Kind::Version, "The version of the pipeline language."),
        Key::must(
            "pipeline",
            Kind::Table(&head::PIPELINE),
            "The pipeline's name, its promise, and where its state is.",
        ),
        Key::must("sources", Kind::Named(&source::SOURCE_TABLES), "Where readings come from: exactly one."),
        Key::may("references", Kind::Named(&[&reference::REFERENCE]), "Tables that row steps may join."),
        Key::must("steps", Kind::Named(&steps::STEP_TABLES), "What is computed."),
        Key::may("sinks", Kind::Named(&sinks::SINK_TABLES), "Where verdicts go."),
        Key::must(
            "dead_letter",
            Kind::OneOf(&sinks::DEAD_TABLES),
            "Where rows go that cannot be used: bad, late and future ones, with the reason and their bytes.",
        ),
        Key::may("anchor", Kind::Table(&anchor::ANCHOR), "Where and when the verdict log is anchored.").or("none"),
        Key::may("train", Kind::Named(&[&train::TRAIN]), "How models are made."),
        Key::may("http", Kind::Table(&outputs::HTTP), "Where a running pipeline can be seen."),
        Key::may(
            "tests",
            Kind::Tables(&tests::TEST),
            "How it is tested (`avouch test`): `[[tests]]`, one after another.",
        ),
    ],
);

/// Reads the whole tree.
pub(super) fn read(cx: &mut Reading<'_>, root: &Node) -> Draft {
    let mut draft = Draft::default();
    let Some(file) = Fields::open(cx, root, "", Span::default(), &FILE, "") else {
        return draft;
    };
    let version = file.int(cx, Need::Must, "version", (i64::MIN, i64::MAX), "version = 1");
    if let Some(v) = version.filter(|v| v.value != 1) {
        cx.diags.error(
            "unknown-version",
            v.span,
            format!("the file is written in version {} of the pipeline language, this avouch reads version 1", v.value),
            "write `version = 1`, or use the avouch the file was written for",
        );
    }
    draft.head = head::read(cx, &file);
    let group = draft.head.as_ref().map(|h| Text::new(&h.name.value, &h.name.value, h.name.span));
    for e in named(cx, &file, Need::Must, "sources", "[sources.readings]") {
        draft.sources.push(source::read(cx, e, group.clone()));
    }
    if let Some([first, rest @ ..]) = draft.sources.get(..)
        && let Some(second) = rest.first()
    {
        let all: Vec<&str> = draft.sources.iter().map(|s| s.name.value.as_str()).collect();
        cx.diags.error(
            "one-source",
            second.name.span,
            format!("a pipeline has exactly one source, but here are {}", list(&all)),
            "keep one; write one pipeline file for each topic",
        );
        cx.diags.relate(second.name.span, first.name.span, "the first one stands");
    }
    for e in named(cx, &file, Need::May, "references", "[references.devices]") {
        draft.references.push(reference::read(cx, e));
    }
    for e in named(cx, &file, Need::Must, "steps", "[steps.features]") {
        draft.steps.push(steps::read(cx, e));
    }
    for e in named(cx, &file, Need::May, "sinks", "[sinks.verdicts]") {
        draft.sinks.push(sinks::read_sink(cx, e));
    }
    draft.dead_letter = sinks::read_dead_letter(cx, &file);
    draft.anchor = anchor::read(cx, &file);
    for e in named(cx, &file, Need::May, "train", "[train.anomaly]") {
        draft.train.push(train::read(cx, e));
    }
    draft.http = outputs::read_http(cx, &file);
    draft.tests = tests::read(cx, &file);
    draft
}

/// The entries of a table whose keys are names, such as `[sources.*]`; each with a name that SQL can use.
fn named<'t>(cx: &mut Reading<'_>, file: &Fields<'t>, need: Need, key: &str, example: &str) -> Vec<&'t Entry> {
    let Some(entry) = file.entry(cx, need, key, example) else {
        return Vec::new();
    };
    let Some(table) = Fields::open_any(cx, &entry.node, key, entry.key_span, example) else {
        return Vec::new();
    };
    if table.entries().is_empty() && need == Need::Must {
        cx.diags.error("missing-key", entry.key_span, format!("`{key}` names nothing"), format!("add `{example}`"));
    }
    for e in table.entries() {
        if !is_identifier(&e.key) {
            cx.diags.error(
                "bad-name",
                e.key_span,
                format!("`{}` cannot be a name in `{key}`", e.key.escape_debug()),
                "use lower-case letters, digits and _, beginning with a letter, at most 63: it is a table name in SQL",
            );
        }
    }
    table.entries().iter().collect()
}

fn is_identifier(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn name_of(e: &Entry) -> Spanned<String> {
    Spanned::new(e.key.clone(), e.key_span)
}

/// `delimiter` of CSV files; `,` if not given.
fn read_delimiter(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<u8> {
    let Some(e) = f.get("delimiter") else { return Some(b',') };
    match &e.node.value {
        NodeValue::Str(s) if s.len() == 1 && !s.contains(['"', '\n', '\r']) => Some(s.as_bytes()[0]),
        NodeValue::Str(_) => {
            cx.diags.error(
                "bad-delimiter",
                value_span(e),
                format!("`{}` must be one ASCII character", f.name("delimiter")),
                "write for example `delimiter = \";\"`, or \"\\t\" for a tab",
            );
            None
        }
        _ => {
            f.wrong_type(cx, e, "a string", "delimiter = \";\"");
            None
        }
    }
}

/// Reports a topic Kafka would refuse. The value is not shown when it came from outside.
fn check_topic(cx: &mut Reading<'_>, topic: &Text) {
    let t = topic.as_str();
    let fits = t.len() <= 249
        && t != "."
        && t != ".."
        && t.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if !fits {
        cx.diags.error(
            "bad-topic",
            topic.span,
            format!("`{}` is not a name Kafka allows for a topic", topic.raw().escape_debug()),
            "use letters, digits, `.`, `_` and `-`, at most 249 of them",
        );
    }
}
