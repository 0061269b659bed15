//! `[train.*]`: how models are made.

use avouch_models::{AlgorithmConfig, SplitConfig};
use serde_json::{Map, Value};

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, closest, value_span};
use super::super::pipeline::{Train, TrainData, TrainDevice};
use super::super::span::Spanned;
use super::super::tree::{Entry, Node, NodeValue};
use super::{TrainDraft, name_of};

pub(super) const TRAIN: Keys = Keys::new(
    "train",
    "How a model is made (`avouch train`).",
    &[
        Key::must("step", Kind::Literal, "The model step whose file it writes."),
        Key::must("data", Kind::TextOr(&DATA), "The rows to train on: a pattern of files, or a table."),
        Key::must(
            "algorithm",
            Kind::OneOf(&[&HALF_SPACE, &NEAREST, &RANDOM_CUT, &T2Q]),
            "The algorithm with its options; see the models' README.",
        ),
        Key::may("split", Kind::Table(&SPLIT), "What is held back for calibration.").or("by time, 0.2"),
    ],
)
.planned(&[("label", "remaining life is not trained yet; remove the table")]);
const DATA: Keys = Keys::new(
    "train_data",
    "The rows to train on.",
    &[
        Key::must("files", Kind::Text, "A pattern of files: CSV, NDJSON or Parquet by their endings."),
        Key::may("delimiter", Kind::Character, "Between the fields of CSV files.").or("\",\""),
        Key::may("device", Kind::Literal, "How a row's device is named: a column, or `path`.").or("the source's key"),
        Key::may("first", Kind::Int(1, i64::MAX), "Only the first so many rows of each device."),
    ],
);
/// What the models crate reads ([`avouch_models::AlgorithmConfig`]); a test holds the two together.
const HALF_SPACE: Keys = Keys::new(
    "half_space_trees",
    "Half-space trees: how thick the healthy data lie in random cells.",
    &[
        Key::must("kind", Kind::Is("half-space-trees"), "Which algorithm."),
        Key::may("trees", COUNT, "Number of trees, 1 to 1,000.").or("50"),
        Key::may("depth", COUNT, "Cuts from root to leaf, 1 to 12.").or("8"),
        Key::may("online", Kind::Bool, "Whether masses are those of the device's own last window.").or("false"),
        Key::may("window", SMALL, "With `online`: vectors a window, at least 2.").or("256"),
        BASELINE,
        SEED,
    ],
);
const NEAREST: Keys = Keys::new(
    "nearest_neighbours",
    "Distance to the nearest healthy rows.",
    &[
        Key::must("kind", Kind::Is("nearest-neighbours"), "Which algorithm."),
        Key::may("neighbours", COUNT, "Over how many neighbours the distance is averaged, 1 to 16.").or("1"),
        Key::may("sample", COUNT, "Rows kept at most, 16 to 16,384.").or("512"),
        Key::may("recent", SMALL, "Own vectors remembered of each device, up to 4,096; above 0 it is online.").or("0"),
        Key::may("every", SMALL, "With `recent`: one vector in how many is remembered, 1 to 4,096.").or("10"),
        Key::may("delay", SMALL, "With `recent`: after how many vectors one begins to count, 1 to 4,096.").or("30"),
        BASELINE,
        SEED,
    ],
);
const RANDOM_CUT: Keys = Keys::new(
    "random_cut_forest",
    "Random cut forest: how much of a sample of healthy rows would have to move.",
    &[
        Key::must("kind", Kind::Is("random-cut-forest"), "Which algorithm."),
        Key::may("trees", COUNT, "Number of trees, 1 to 1,000.").or("40"),
        Key::may("sample", COUNT, "Rows a tree, 2 to 4,096.").or("256"),
        BASELINE,
        SEED,
    ],
);
/// Of `usize`, and of `u32`; what is too small or large for the algorithm is found by training.
const COUNT: Kind = Kind::Int(0, i64::MAX);
const SMALL: Kind = Kind::Int(0, u32::MAX as i64);
const BASELINE: Key =
    Key::may("baseline", Kind::Word(&["fleet", "device"]), "One detector for all devices, or for each its own.")
        .or("\"fleet\"");
const SEED: Key = Key::may("seed", Kind::Int(0, i64::MAX), "Seed of what is drawn at random.").or("0");
const T2Q: Keys = Keys::new(
    "t2q",
    "Hotelling T² on the retained principal components and Q on the rest.",
    &[
        Key::must("kind", Kind::Is("t2-q"), "Which algorithm."),
        Key::may(
            "variance",
            Kind::Number(f64::MIN, f64::MAX, true),
            "Share of the variance that is retained, above 0 and at most 1.",
        )
        .or("0.95"),
        Key::may("components", Kind::Int(0, i64::MAX), "Number of retained components, instead of `variance`."),
        Key::may("shrinkage", Kind::AutoOrShare, "How far correlations are drawn towards none.").or("\"auto\""),
        Key::may("baseline", Kind::Word(&["fleet", "device"]), "What a device is compared with.").or("\"fleet\""),
        Key::may("scale", Kind::Word(&["fleet", "device"]), "Whose spread features are divided by.").or("\"fleet\""),
        Key::may("seed", Kind::Int(0, i64::MAX), "Recorded in the card; nothing is drawn at random.").or("0"),
    ],
);
/// [`SplitConfig`], likewise.
const SPLIT: Keys = Keys::new(
    "split",
    "What is held back for calibration.",
    &[
        Key::must("by", Kind::Word(&["device", "time"]), "Whole devices, or the last rows of each."),
        Key::may("hold_back", Kind::Number(0.0, 0.9, true), "Share held back, above 0 and at most 0.9.").or("0.2"),
        Key::may("seed", Kind::Int(0, i64::MAX), "Seed of the draw of devices.").or("0"),
    ],
);
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
