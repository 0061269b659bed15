//! `[train.*]`: how models are made.

use avouch_models::{AlgorithmConfig, SplitConfig};
use serde_json::{Map, Value};

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, closest, value_span};
use super::super::pipeline::{Train, TrainData, TrainDevice};
use super::super::span::Spanned;
use super::super::tree::{Entry, Node, NodeValue};
use super::prognosis::{BLEND, GRADIENT_BOOSTING, KERNEL_RIDGE, LINEAR};
use super::{TrainDraft, label, name_of};

pub(super) const TRAIN: Keys = Keys::new(
    "train",
    "How a model is made (`avouch train`).",
    &[
        Key::must("step", Kind::Literal, "The model step whose file it writes."),
        Key::must("data", Kind::TextOr(&DATA), "The rows to train on: a pattern of files, or a table."),
        Key::must(
            "algorithm",
            Kind::OneOf(&[
                &BLEND,
                &DRIFT,
                &GAUSSIAN_MIXTURE,
                &GRADIENT_BOOSTING,
                &HALF_SPACE,
                &K_MEANS,
                &KERNEL_RIDGE,
                &LINEAR,
                &MEWMA,
                &NEAREST,
                &ONE_CLASS_SVM,
                &ONNX,
                &RANDOM_CUT,
                &SENSOR_HEALTH,
                &T2Q,
                &UNIVARIATE,
            ]),
            "The algorithm with its options; see the models' README.",
        ),
        Key::may("split", Kind::Table(&SPLIT), "What is held back for calibration.").or("by time, 0.2"),
        Key::may("label", Kind::Table(&label::LABEL), "What a model that predicts is trained to say."),
    ],
);
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
const ONNX: Keys = Keys::new(
    "onnx",
    "A model trained elsewhere, as an ONNX file.",
    &[
        Key::must("kind", Kind::Is("onnx"), "Which algorithm."),
        Key::must("file", Kind::Literal, "The ONNX file; it becomes part of the model file."),
        Key::must("output", Kind::Literal, "The output that is the model's value."),
        Key::may("column", Kind::Int(0, i64::MAX), "Which of the output's values, where it has several."),
        Key::may("higher_is", Kind::Word(&["stranger", "normal"]), "What a high score means.").or("\"stranger\""),
        Key::may("says", Kind::Word(&["anomaly", "probability", "estimate"]), "What the value is.").or("\"anomaly\""),
        Key::may("seed", Kind::Int(0, i64::MAX), "Recorded in the card; nothing is drawn at random.").or("0"),
    ],
);
const SENSOR_HEALTH: Keys = Keys::new(
    "sensor_health",
    "Gaps, stuck and saturated sensors, irregular cadence. Every feature of the step has a role.",
    &[
        Key::must("kind", Kind::Is("sensor-health"), "Which algorithm."),
        Key::may("readings", Kind::Literal, "The number of readings in the window."),
        Key::may("interval_max", Kind::Literal, "The longest time between two readings."),
        Key::may("interval_spread", Kind::Literal, "How much these times differ."),
        Key::may("spread", Kind::Names(false), "How much each sensor's readings differ."),
        Key::may("low", Kind::Names(false), "The smallest reading of each sensor."),
        Key::may("high", Kind::Names(false), "The largest reading of each sensor, in the same order."),
        Key::may("range", Kind::Ranges, "Where these sensors' ranges end.").or("learnt"),
        Key::may(
            "level",
            Kind::Number(f64::MIN, f64::MAX, true),
            "Share of healthy windows that may be called, above 0.",
        )
        .or("0.001"),
        Key::may("seed", Kind::Int(0, i64::MAX), "Recorded in the card; nothing is drawn at random.").or("0"),
    ],
);
/// What the models crate reads ([`avouch_models::AlgorithmConfig`]); a test holds the two together.
const GAUSSIAN_MIXTURE: Keys = Keys::new(
    "gaussian_mixture",
    "A mixture of Gaussians, for machines with several operating conditions.",
    &[
        Key::must("kind", Kind::Is("gaussian-mixture"), "Which algorithm."),
        Key::must("components", Kind::Int(0, i64::MAX), "How many conditions are looked for, 1 to 256."),
        Key::may("seed", Kind::Int(0, i64::MAX), "Seed of the starts.").or("0"),
    ],
);
/// Likewise.
const K_MEANS: Keys = Keys::new(
    "k_means",
    "Distance from the nearest of several centres.",
    &[
        Key::must("kind", Kind::Is("k-means"), "Which algorithm."),
        Key::must("clusters", Kind::Int(0, i64::MAX), "How many centres are looked for, 1 to 256."),
        Key::may("seed", Kind::Int(0, i64::MAX), "Seed of the starts.").or("0"),
    ],
);
/// Likewise.
const MEWMA: Keys = Keys::new(
    "mewma",
    "Multivariate EWMA control charts, for small shifts that last.",
    &[
        Key::must("kind", Kind::Is("mewma"), "Which algorithm."),
        Key::may("smoothing", Kind::Number(f64::MIN, f64::MAX, true), "Weight of the newest window, 0.001 to 1.")
            .or("0.2"),
        Key::may("scales", Kind::Int(0, i64::MAX), "How many charts, 1 to 8, from no smoothing to `smoothing`.")
            .or("1"),
        Key::may("shrinkage", Kind::AutoOrShare, "How far correlations are drawn towards none.").or("\"auto\""),
        Key::may("seed", Kind::Int(0, i64::MAX), "Recorded in the card; nothing is drawn at random.").or("0"),
    ],
);
/// Likewise.
const ONE_CLASS_SVM: Keys = Keys::new(
    "one_class_svm",
    "The smallest region of any shape that holds all but a share of the training rows.",
    &[
        Key::must("kind", Kind::Is("one-class-svm"), "Which algorithm."),
        Key::may("nu", Kind::Number(f64::MIN, f64::MAX, true), "Share left outside, above 0 and at most 1.").or("0.05"),
        Key::may("eps", Kind::Number(f64::MIN, f64::MAX, true), "Width of the Gaussian kernel.")
            .or("twice the features"),
        Key::may("seed", Kind::Int(0, i64::MAX), "Seed of the draw of rows, where there are many.").or("0"),
    ],
);
/// Likewise.
const DRIFT: Keys = Keys::new(
    "drift",
    "Page-Hinkley, ADWIN and the population stability index of each feature.",
    &[
        Key::must("kind", Kind::Is("drift"), "Which algorithm."),
        Key::may("baseline", Kind::Word(&["fleet", "device"]), "What a device is compared with.").or("\"fleet\""),
        Key::may("window", Kind::Int(0, i64::MAX), "Recent rows the population stability index is over, 20 to 1,000.")
            .or("200"),
        Key::may("bins", Kind::Int(0, i64::MAX), "Quantile bins of the index, 2 to 50.").or("10"),
        Key::may("tolerance", Kind::Number(f64::MIN, f64::MAX, true), "Page-Hinkley: deviations that are let pass.")
            .or("0.5"),
        Key::may("page_hinkley", Kind::Number(f64::MIN, f64::MAX, true), "Its limit, in deviations summed up.")
            .or("15"),
        Key::may("confidence", Kind::Number(f64::MIN, f64::MAX, true), "ADWIN: the chance of a false cut.").or("0.002"),
        Key::may("psi", Kind::Number(f64::MIN, f64::MAX, true), "Limit of the population stability index.").or("0.25"),
        Key::may(
            "limits",
            Kind::Word(&["fixed", "held-back"]),
            "Whether limits are raised to what the training rows reach.",
        )
        .or("\"held-back\""),
        Key::may("adapt", Kind::Bool, "Whether the reference is learnt anew after a detection.").or("false"),
        Key::may("seed", Kind::Int(0, i64::MAX), "Recorded in the card; nothing is drawn at random.").or("0"),
    ],
);
/// Likewise.
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
        Key::may("baseline", Kind::Word(&["fleet", "device", "adaptive"]), "What a device is compared with.")
            .or("\"fleet\""),
        Key::may("scale", Kind::Word(&["fleet", "device"]), "Whose spread features are divided by.").or("\"fleet\""),
        Key::may("seed", Kind::Int(0, i64::MAX), "Recorded in the card; nothing is drawn at random.").or("0"),
    ],
);
const UNIVARIATE: Keys = Keys::new(
    "univariate",
    "Streaming views of single values, learned online for each device.",
    &[
        Key::must("kind", Kind::Is("univariate"), "Which algorithm."),
        Key::may(
            "rest",
            Kind::Int(0, 1_000_000),
            "Readings after an alarm in which only what is clearly louder is said.",
        )
        .or("200"),
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
const ALGORITHM: Choices = Choices { what: "training algorithm", known: &AlgorithmConfig::KINDS, planned: &[] };
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
    let label = match f.get("label") {
        None => Some(None),
        Some(_) => label::read(cx, &f).map(Some),
    };
    if let (Some(step), Some(data), Some(algorithm), Some(split), Some(label)) =
        (draft.step.clone(), data, algorithm, split, label)
    {
        draft.body = Some(Train { name: name_of(e), step, data, algorithm, split, label });
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
    let mut config: AlgorithmConfig = from_table(cx, &table, e)?;
    let empty = table.entries().iter().find(|x| match &x.node.value {
        NodeValue::Str(text) => text.is_empty(),
        NodeValue::Array(items) => items.is_empty() && matches!(config, AlgorithmConfig::SensorHealth(_)),
        _ => false,
    });
    if let Some(empty) = empty {
        cx.diags.error(
            "empty",
            value_span(empty),
            format!("`{}` is empty", table.name(&empty.key)),
            format!("give it a value, or remove `{}`", empty.key),
        );
        return None;
    }
    if let AlgorithmConfig::Onnx(onnx) = &mut config {
        onnx.path = cx.dir.join(&onnx.file);
    }
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
