//! Rows of an answer, and when two answers are the same.

use std::collections::BTreeMap;

use datafusion::common::ScalarValue;

/// Rows by the end of their window and their device.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub names: Vec<String>,
    pub rows: BTreeMap<(i64, String), Vec<ScalarValue>>,
}

impl Answer {
    /// As text, one line a row.
    pub fn text(&self) -> String {
        let mut out = format!("end | {}\n", self.names.join(" | "));
        for ((end, _), values) in &self.rows {
            let values: Vec<String> = values.iter().map(show).collect();
            out.push_str(&format!("{} | {}\n", seconds(*end), values.join(" | ")));
        }
        out
    }
}

/// Milliseconds as seconds.
pub fn seconds(ms: i64) -> String {
    (ms as f64 / 1000.0).to_string()
}

fn show(value: &ScalarValue) -> String {
    match value {
        v if v.is_null() => "null".into(),
        // What both engines agree on.
        ScalarValue::Float64(Some(v)) => {
            format!("{:.9e}", if *v == 0.0 { 0.0 } else { *v }).parse::<f64>().unwrap().to_string()
        }
        ScalarValue::TimestampMillisecond(Some(v), _) => seconds(*v),
        ScalarValue::Utf8(Some(v)) if v.is_empty() => "''".into(),
        v => v.to_string(),
    }
}

/// Whether two answers are equal: doubles to 1e-9 of the larger, or of `scale` where rounding errors are of that size;
/// everything else exactly. Says where they differ.
pub fn compare(streamed: &Answer, batch: &Answer, scale: f64) -> Result<(), String> {
    let keys = |a: &Answer| a.rows.keys().cloned().collect::<Vec<_>>();
    if keys(streamed) != keys(batch) {
        return Err(format!("windows differ\nstreamed:\n{}\nbatch:\n{}", streamed.text(), batch.text()));
    }
    for (key, ours) in &streamed.rows {
        let theirs = &batch.rows[key];
        if ours.len() != theirs.len() {
            return Err(format!("{} columns against {}", ours.len(), theirs.len()));
        }
        for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
            // Types may differ in width or nullability of text; the engine's is what the plan promised.
            let b = b.cast_to(&a.data_type()).map_err(|e| e.to_string())?;
            let same = match (a, &b) {
                (ScalarValue::Float64(Some(a)), ScalarValue::Float64(Some(b))) => {
                    a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(scale) || (a.is_nan() && b.is_nan())
                }
                (a, b) => a == b,
            };
            if !same {
                return Err(format!(
                    "{} of {} at {}: streamed {a:?}, batch {b:?}",
                    streamed.names[i],
                    key.1,
                    seconds(key.0)
                ));
            }
        }
    }
    Ok(())
}
