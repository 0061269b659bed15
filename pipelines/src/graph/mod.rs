//! A pipeline as a graph: what is read, computed, written and kept, and what leads where.
//!
//! One graph, three ways to show it: [`mermaid`], [`dot`] and [`svg`]. Nodes and edges stand in an order that follows from the
//! pipeline's names, so the same pipeline gives the same text.
//!
//! Nothing secret is in it: places are shown as they stand in the pipeline file, and of URLs only scheme and host, since
//! user, path and query may carry a password or a key.

mod dot;
mod mermaid;
mod place;
mod svg;

pub use dot::dot;
pub use mermaid::mermaid;
pub use svg::svg;

use avouch_engine::plan::{Input, LanePlan};
use avouch_engine::spec::WindowSpec;

use crate::lang::{
    DeadLetterKind, EarlyTo, Pipeline, ReferenceTable, Sink, SinkKind, SourceKind, SqlStep, format_duration, plural,
    shown_threshold,
};
use place::{shown, wrapped};

/// What a node stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Where readings come from.
    Source,
    /// A table that steps join.
    Reference,
    /// SQL over rows.
    Rows,
    /// SQL over windows.
    Window,
    /// A model.
    Model,
    /// Where verdicts go.
    Sink,
    /// Where dead letters go.
    DeadLetters,
    /// The chain that witnesses the log.
    Anchor,
}

impl Kind {
    /// Every kind, in the order of the flow.
    pub const ALL: [Kind; 8] = [
        Kind::Source,
        Kind::Reference,
        Kind::Rows,
        Kind::Window,
        Kind::Model,
        Kind::Sink,
        Kind::DeadLetters,
        Kind::Anchor,
    ];

    /// What a reader calls it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Source => "source",
            Kind::Reference => "reference",
            Kind::Rows => "SQL",
            Kind::Window => "window",
            Kind::Model => "model",
            Kind::Sink => "sink",
            Kind::DeadLetters => "dead letters",
            Kind::Anchor => "anchor",
        }
    }

    /// Its name as a class of shapes.
    fn class(self) -> &'static str {
        match self {
            Kind::Rows => "rows",
            Kind::DeadLetters => "dead",
            other => other.name(),
        }
    }

    /// Colours of its inside and its border; text is dark on all of them.
    fn colours(self) -> (&'static str, &'static str) {
        match self {
            Kind::Source => ("#dbeafe", "#2563eb"),
            Kind::Reference => ("#ede9fe", "#7c3aed"),
            Kind::Rows => ("#f1f5f9", "#64748b"),
            Kind::Window => ("#cffafe", "#0891b2"),
            Kind::Model => ("#fef3c7", "#d97706"),
            Kind::Sink => ("#dcfce7", "#16a34a"),
            Kind::DeadLetters => ("#fee2e2", "#dc2626"),
            Kind::Anchor => ("#fae8ff", "#c026d3"),
        }
    }
}

/// One thing of a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Its name in the pipeline file.
    pub name: String,
    /// What else there is to say, a line each.
    pub lines: Vec<String>,
}

/// What leads from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edge {
    /// Index of the node it leaves.
    pub from: usize,
    /// Index of the node it reaches.
    pub to: usize,
    /// Whether only what is refused goes this way.
    pub dead: bool,
}

/// A pipeline's graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graph {
    /// The pipeline's name.
    pub name: String,
    /// Its parts.
    pub nodes: Vec<Node>,
    /// What leads where.
    pub edges: Vec<Edge>,
}

impl Graph {
    /// The graph of a pipeline and its plan, which may be without models.
    pub fn of(pipeline: &Pipeline, plan: &LanePlan) -> Self {
        let mut graph = Self { name: pipeline.name.value.clone(), nodes: Vec::new(), edges: Vec::new() };
        let source = graph.add(Kind::Source, &pipeline.source.name.value, source_lines(pipeline));
        let references: Vec<usize> = pipeline
            .references
            .iter()
            .map(|r| graph.add(Kind::Reference, &r.name.value, reference_lines(pipeline, r)))
            .collect();
        // In the order of the plan, in which every step comes after what it reads.
        let mut rows = Vec::new();
        for step in &plan.rows {
            let columns = plural(step.query.schema().fields().len(), "column");
            let node = graph.add(Kind::Rows, &step.name, vec![columns]);
            graph.join(of_input(step.input, source, &rows), node);
            for name in step.query.joined() {
                if let Some(i) = pipeline.references.iter().position(|r| r.name.value == name) {
                    graph.join(references[i], node);
                }
            }
            rows.push(node);
        }
        for step in &plan.windows {
            let mut lines = Vec::new();
            if let Some(written) = pipeline.sql_step(&step.name) {
                lines.extend(window_lines(step.window, written));
            }
            lines.push(plural(step.query.schema().fields().len(), "column"));
            let node = graph.add(Kind::Window, &step.name, lines);
            graph.join(of_input(step.input, source, &rows), node);
        }
        for step in &pipeline.model_steps {
            let file = pipeline.file.slice(step.model_file.span);
            let mut lines = wrapped(&shown(file));
            lines.push(plural(step.features.len(), "feature"));
            let spec = pipeline.thresholds(step);
            for (name, t) in [("warning", spec.warning), ("critical", spec.critical)] {
                lines.extend(t.map(|t| format!("{name} at {}", shown_threshold(&t))));
            }
            let node = graph.add(Kind::Model, &step.name.value, lines);
            if let Some(from) = graph.find(Kind::Window, &step.from.value) {
                graph.join(from, node);
            }
        }
        for sink in &pipeline.sinks {
            let node = graph.add(Kind::Sink, &sink.name.value, sink_lines(sink));
            for from in &sink.from {
                if let Some(from) = graph.find(Kind::Model, &from.value) {
                    graph.join(from, node);
                }
            }
        }
        let dead = graph.add(Kind::DeadLetters, "dead_letter", dead_lines(pipeline));
        graph.edges.push(Edge { from: source, to: dead, dead: true });
        if let Some(anchor) = &pipeline.anchor {
            let contract: String = anchor.contract.value.iter().map(|b| format!("{b:02x}")).collect();
            let mut every = Vec::new();
            if let Some(n) = anchor.every_verdicts {
                every.push(plural(n as usize, "verdict"));
            }
            if let Some(ms) = anchor.every_ms {
                every.push(format_duration(ms));
            }
            let lines = vec![
                format!("ethereum chain {}", anchor.chain_id),
                format!("0x{contract}"),
                format!("every {}", every.join(" or ")),
                format!("at the latest after {}", format_duration(anchor.max_merge_delay_ms)),
            ];
            let node = graph.add(Kind::Anchor, "anchor", lines);
            for step in &pipeline.model_steps {
                if let Some(from) = graph.find(Kind::Model, &step.name.value) {
                    graph.join(from, node);
                }
            }
        }
        graph
    }

    fn add(&mut self, kind: Kind, name: &str, lines: Vec<String>) -> usize {
        self.nodes.push(Node { kind, name: name.to_owned(), lines });
        self.nodes.len() - 1
    }

    fn find(&self, kind: Kind, name: &str) -> Option<usize> {
        self.nodes.iter().position(|n| n.kind == kind && n.name == name)
    }

    fn join(&mut self, from: usize, to: usize) {
        let edge = Edge { from, to, dead: false };
        if !self.edges.contains(&edge) {
            self.edges.push(edge);
        }
    }
}

fn of_input(input: Input, source: usize, rows: &[usize]) -> usize {
    match input {
        Input::Source => source,
        Input::Step(i) => rows[i],
    }
}

fn source_lines(pipeline: &Pipeline) -> Vec<String> {
    let source = &pipeline.source;
    let kind = match &source.kind {
        SourceKind::Kafka(_) => "kafka",
        SourceKind::Files(_) => "files",
        SourceKind::Mqtt(_) => "mqtt",
        SourceKind::Ethereum(_) => "ethereum",
    };
    let mut lines = wrapped(&format!("{kind} {}", shown(source.reads())));
    if let Some(through) = source.repartition() {
        let lanes = plural(through.partitions as usize, "partition");
        lines.extend(wrapped(&format!("repartitioned through {}, {lanes}", shown(through.topic.raw()))));
    }
    lines.push(format!("{}, {}", source.format.name(), plural(source.fields.len(), "field")));
    lines.extend(wrapped(&format!("device in {}", source.key.value)));
    let time = &source.time;
    lines.extend(wrapped(&format!(
        "time in {}, {} out of order",
        time.column.value,
        format_duration(time.max_disorder_ms.value)
    )));
    lines
}

fn reference_lines(pipeline: &Pipeline, table: &ReferenceTable) -> Vec<String> {
    let mut lines = wrapped(&shown(pipeline.file.slice(table.file.span)));
    lines.extend(wrapped(&format!("key {}", table.key.value)));
    lines
}

fn window_lines(window: WindowSpec, step: &SqlStep) -> Vec<String> {
    let mut lines = vec![window_words(window)];
    if let Some(early) = &step.early {
        lines.push(format!("early results every {}", format_duration(early.value)));
    }
    lines
}

/// A window in words.
pub(crate) fn window_words(window: WindowSpec) -> String {
    match window {
        WindowSpec::Tumbling { size_ms } => format!("tumbling, {}", format_duration(size_ms)),
        WindowSpec::Sliding { size_ms, every_ms } => {
            format!("sliding, {} every {}", format_duration(size_ms), format_duration(every_ms))
        }
        WindowSpec::Session { gap_ms, max_ms } => {
            format!("session, gap {}, at most {}", format_duration(gap_ms), format_duration(max_ms))
        }
    }
}

fn sink_lines(sink: &Sink) -> Vec<String> {
    let kind = match &sink.kind {
        SinkKind::Kafka(_) => "kafka",
        SinkKind::Parquet(_) => "parquet",
        SinkKind::Alertmanager(_) => "alertmanager",
        SinkKind::Webhook(_) => "webhook",
        SinkKind::Stdout => "",
    };
    let mut lines = wrapped(format!("{kind} {}", shown(sink.writes())).trim());
    if let Some(condition) = &sink.condition {
        lines.extend(wrapped(&format!("where {}", condition.value)));
    }
    match &sink.early {
        Some(EarlyTo::Topic(topic)) => lines.extend(wrapped(&format!("early results to {}", shown(topic.raw())))),
        Some(EarlyTo::Beside) => lines.push("early results too".to_owned()),
        None => {}
    }
    lines
}

fn dead_lines(pipeline: &Pipeline) -> Vec<String> {
    let mut lines = match &pipeline.dead_letter.kind {
        DeadLetterKind::Kafka(kafka) => wrapped(&format!("kafka {}", shown(kafka.topic.raw()))),
        DeadLetterKind::Files(files) => {
            let dir = files.dir.strip_prefix(pipeline.file.dir()).unwrap_or(&files.dir);
            wrapped(&format!("files {}", dir.display()))
        }
        DeadLetterKind::Stdout => vec!["stdout".to_owned()],
    };
    lines.push("rows that cannot be used,".to_owned());
    lines.push("what a sink refuses".to_owned());
    lines
}
