//! `[train.*] label`: what a prognosis is trained to say.

use avouch_models::LabelConfig;

use super::super::fields::{Fields, Key, Keys, Kind, Need, Reading};
use super::super::keys::Rule;
use super::super::pipeline::{TrainFailures, TrainLabel};

/// Milliseconds of the unit in which remaining life is given.
const HOUR: f64 = 3_600_000.0;

pub(super) const LABEL: Keys = Keys::new(
    "label",
    "What the model is trained to say: the remaining life of a device, or whether it failed.",
    &[
        Key::may("file", Kind::Text, "A file of failures: CSV, NDJSON or Parquet by its ending."),
        Key::may("on", Kind::Literal, "Its column that names the device.").or("the source's key"),
        Key::may("time", Kind::Literal, "Its column that says when the device failed.").or("\"failed_at\""),
        Key::may("cap", Kind::LiteralDuration(1), "Longer remaining lives count as this long."),
        Key::may("column", Kind::Literal, "Instead: a column of the windowed step that is 0, or 1 if it failed."),
    ],
)
.rules(&[
    Rule::OneOf(&["file", "column"]),
    Rule::Not("file", "column"),
    Rule::Needs("on", "file"),
    Rule::Needs("time", "file"),
    Rule::Needs("cap", "file"),
]);

const EXAMPLE: &str = "label = { file = \"data/failures.csv\", time = \"failed_at\", cap = \"500h\" }";

/// `None` if it is wrong.
pub(super) fn read(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<TrainLabel> {
    let t = f.table(cx, Need::Must, "label", &LABEL, EXAMPLE)?;
    if t.get("column").is_some() {
        if let Some(other) = ["file", "on", "time", "cap"].iter().find_map(|key| t.get(key)) {
            cx.diags.error(
                "contradiction",
                other.key_span,
                format!("`{}.{}` is about times of failure, `{}.column` about a column", t.path, other.key, t.path),
                "keep either `file` with its keys, or `column`",
            );
            return None;
        }
        let column = t.literal(cx, Need::Must, "column", "column = \"failed\"")?;
        return Some(TrainLabel { config: LabelConfig::Failure { column: column.value }, failures: None });
    }
    let file = t.text(cx, Need::Must, "file", "file = \"data/failures.csv\"")?;
    let on = match t.get("on") {
        None => None,
        Some(_) => Some(t.literal(cx, Need::May, "on", "on = \"device\"")?.value),
    };
    let time = match t.get("time") {
        None => "failed_at".to_owned(),
        Some(_) => t.literal(cx, Need::May, "time", "time = \"failed_at\"")?.value,
    };
    let cap = match t.get("cap") {
        None => None,
        Some(_) => Some(t.literal_duration(cx, Need::May, "cap", 1, "cap = \"500h\"")?.value as f64 / HOUR),
    };
    let pattern = cx.dir.join(file.as_str()).to_string_lossy().into_owned();
    Some(TrainLabel {
        config: LabelConfig::remaining_life(cap),
        failures: Some(TrainFailures { pattern, device: on, time }),
    })
}
