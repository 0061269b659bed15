//! `[train.*]`: how models are made.

use avouch_models::{AlgorithmConfig, SplitConfig};
use serde_json::{Map, Value};

use super::super::fields::{Choices, Fields, Keys, Need, Reading, closest, value_span};
use super::super::pipeline::{Train, TrainData, TrainDevice};
use super::super::span::Spanned;
use super::super::tree::{Entry, Node, NodeValue};
use super::{TrainDraft, name_of};

const TRAIN: Keys = Keys {
    known: &["step", "data", "algorithm", "split"],
    planned: &[("label", "remaining life is not trained yet; remove the table")],
};
const DATA: Keys = Keys { known: &["files", "delimiter", "device", "first"], planned: &[] };
const ALGORITHM: Choices = Choices {
    what: "training algorithm",
    known: &AlgorithmConfig::KINDS,
    planned: &["gaussian-mixture", "gradient-boosting"],
};
const DATA_EXAMPLE: &str = "data = \"data/healthy/*.parquet\"";

pub(super) fn read(cx: &mut Reading<'_>, e: &Entry) -> TrainDraft {
    let mut draft = TrainDraft { step: None, body: None };
    let path = format!("train.{}", e.key);
    let Some(f) = Fields::open(cx, &e.node, &path, e.key_span, &TRAIN, &format!("[{path}]")) else {
        return draft;
    };
    draft.step = f.literal(cx, Need::Must, "step", &format!("step = \"{}\"", e.key.escape_debug()));
    let data = read_data(cx, &f);
    let algorithm = read_algorithm(cx, &f);
    let split = match f.get("split") {
        None => Some(SplitConfig::default()),
        Some(e) => read_split(cx, &f, e),
    };
    if let (Some(step), Some(data), Some(algorithm), Some(split)) = (draft.step.clone(), data, algorithm, split) {
        draft.body = Some(Train { name: name_of(e), step, data, algorithm, split });
    }
    draft
}

fn read_data(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<TrainData> {
    let entry = f.entry(cx, Need::Must, "data", DATA_EXAMPLE)?;
    let with_files = |cx: &mut Reading<'_>, files: super::Text| {
        let pattern = cx.dir.join(files.as_str()).to_string_lossy().into_owned();
        TrainData { files, pattern, delimiter: b',', device: TrainDevice::Key, first: None }
    };
    if matches!(entry.node.value, NodeValue::Str(_)) {
        let files = f.text(cx, Need::Must, "data", DATA_EXAMPLE)?;
        return Some(with_files(cx, files));
    }
    let d = f.table(cx, Need::Must, "data", &DATA, DATA_EXAMPLE)?;
    let files = d.text(cx, Need::Must, "files", "files = \"data/*.csv\"");
    let delimiter = super::read_delimiter(cx, &d);
    let device = match d.get("device") {
        None => Some(TrainDevice::Key),
        Some(_) => d.literal(cx, Need::May, "device", "device = \"path\"").map(|name| match name.value.as_str() {
            "path" => TrainDevice::Path,
            _ => TrainDevice::Column(name),
        }),
    };
    let first = match d.get("first") {
        None => Some(None),
        Some(_) => d.int(cx, Need::May, "first", (1, i64::MAX), "first = 400").map(|n| u64::try_from(n.value).ok()),
    };
    let mut data = with_files(cx, files?);
    (data.delimiter, data.device, data.first) = (delimiter?, device?, first?);
    Some(data)
}

fn read_algorithm(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Spanned<AlgorithmConfig>> {
    let example = "algorithm = { kind = \"t2-q\" }";
    let e = f.entry(cx, Need::Must, "algorithm", example)?;
    let table = Fields::open_any(cx, &e.node, &f.name("algorithm"), e.key_span, example)?;
    table.choice(cx, Need::Must, "kind", &ALGORITHM, "kind = \"t2-q\"")?;
    let config = from_table(cx, &table, e)?;
    Some(Spanned::new(config, value_span(e)))
}

fn read_split(cx: &mut Reading<'_>, f: &Fields<'_>, e: &Entry) -> Option<SplitConfig> {
    let example = "split = { by = \"time\", hold_back = 0.2 }";
    let table = Fields::open_any(cx, &e.node, &f.name("split"), e.key_span, example)?;
    let split: SplitConfig = from_table(cx, &table, e)?;
    if let Err(error) = split.check() {
        let span = table.get("hold_back").map_or(value_span(e), value_span);
        cx.diags.error("bad-option", span, error.to_string(), format!("write for example `{example}`"));
        return None;
    }
    Some(split)
}

/// A table whose keys the models crate defines. It decides what the model is, so nothing is interpolated.
fn from_table<T: serde::de::DeserializeOwned>(cx: &mut Reading<'_>, table: &Fields<'_>, e: &Entry) -> Option<T> {
    let error = match serde_json::from_value(to_json(&e.node)) {
        Ok(value) => return Some(value),
        Err(error) => error.to_string(),
    };
    // "unknown field `x`, expected one of `a`, `b`": the first quoted word is what is wrong, the rest what is allowed.
    let mut words = error.split('`').skip(1).step_by(2);
    let wrong = words.next().unwrap_or_default();
    let allowed: Vec<&str> = words.collect();
    let span = table
        .entries()
        .iter()
        .find_map(|x| match &x.node.value {
            _ if x.key == wrong => Some(x.key_span),
            NodeValue::Str(s) if s == wrong => Some(x.node.span),
            _ => None,
        })
        .unwrap_or(value_span(e));
    let help = match closest(wrong, allowed.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "correct the table; `avouch train --help` and the models' README list what it may hold".to_owned(),
    };
    cx.diags.error("bad-option", span, format!("`{}`: {error}", table.path), help);
    None
}

fn to_json(node: &Node) -> Value {
    match &node.value {
        NodeValue::Str(s) => Value::from(s.as_str()),
        NodeValue::Int(i) => Value::from(*i),
        NodeValue::Float(x) => Value::from(*x),
        NodeValue::Bool(b) => Value::from(*b),
        NodeValue::Array(items) => Value::Array(items.iter().map(to_json).collect()),
        NodeValue::Table(entries) => {
            Value::Object(entries.iter().map(|e| (e.key.clone(), to_json(&e.node))).collect::<Map<_, _>>())
        }
    }
}
