//! An explanation as people read it.

use std::fmt::Write as _;

use super::{Column, Explanation, Model, Part};

/// Where the words of a line begin.
const INDENT: usize = 15;
const WIDTH: usize = 110;
/// Baselines shown of a model; it may have one a device.
const BASELINES: usize = 3;

/// The explanation as text, of lines that fit a terminal where their words do.
pub fn text(explanation: &Explanation) -> String {
    let mut out = format!("{}  configHash {}\n", explanation.pipeline, explanation.config_hash);
    for part in &explanation.steps {
        of_part(&mut out, part);
    }
    out
}

fn of_part(out: &mut String, part: &Part) {
    let from = part.from.as_ref().map(|f| format!(", from {f}")).unwrap_or_default();
    let _ = writeln!(out, "\n{} ({}{from})", part.name, part.kind);
    for done in &part.plan {
        lines(out, done.operator, done.expressions.iter().cloned());
    }
    if !part.columns.is_empty() {
        let columns: Vec<String> = part.columns.iter().map(column).collect();
        lines(out, "columns", [columns.join(", ")]);
    }
    let kept = part.state.iter().map(|k| match k.bytes {
        Some(bytes) => format!("{bytes} B a {}: {}", k.per, k.what),
        None => format!("a {}: {}", k.per, k.what),
    });
    match part.state.is_empty() {
        true => lines(out, "keeps", ["nothing".to_owned()]),
        false => lines(out, "keeps", kept),
    }
    lines(out, "time", part.time.iter().cloned());
    lines(out, "same bytes", part.determinism.iter().cloned());
    if let Some(model) = &part.model {
        of_model(out, model);
    }
}

fn column(c: &Column) -> String {
    format!("{} {}{}", c.name, c.ty, if c.nullable { "" } else { "!" })
}

fn of_model(out: &mut String, model: &Model) {
    lines(
        out,
        "model",
        [model.algorithm.clone(), format!("SHA-256 {}", model.hash), format!("created {}", model.created)],
    );
    let mut calibration = vec![format!(
        "fitted on {} rows, calibrated on {}; smallest p-value {:.3e}",
        model.rows_fitted, model.rows_held_back, model.smallest_p_value
    )];
    for c in model.calibration.iter().take(BASELINES) {
        let at = |score: Option<f64>| score.map_or("beyond the held-back scores".to_owned(), |s| format!("{s:.4}"));
        calibration.push(format!(
            "{}: {} rows, median score {:.4}; p <= 0.05 from {}, 0.01 from {}, 0.001 from {}",
            c.applies_to,
            c.rows,
            c.median_score,
            at(c.score_at_5_percent),
            at(c.score_at_1_percent),
            at(c.score_at_1_permille)
        ));
    }
    if model.calibration.len() > BASELINES {
        calibration.push(format!("and {} more; --json has all", model.calibration.len() - BASELINES));
    }
    lines(out, "calibration", calibration);
}

/// One entry a line, under a word at the left, broken between words.
fn lines(out: &mut String, head: &str, entries: impl IntoIterator<Item = String>) {
    let mut head = head;
    for entry in entries {
        let mut line = format!("  {head:<width$}", width = INDENT - 2);
        let mut empty = true;
        for word in entry.split_whitespace() {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                let _ = writeln!(out, "{line}");
                line = " ".repeat(INDENT + 2);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        let _ = writeln!(out, "{}", line.trim_end());
        head = "";
    }
}
