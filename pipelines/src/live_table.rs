//! Rows that come one by one, as a table: a column is as wide as its name and what came so far, and never narrower again.

use serde_json::Value;

/// After how many rows the heading is printed again.
const PAGE: usize = 40;
/// A cell is no wider than this.
const WIDEST: usize = 40;

/// The columns, and how wide they are.
#[derive(Debug, Default)]
pub struct LiveTable {
    columns: Vec<String>,
    widths: Vec<usize>,
    printed: usize,
}

impl LiveTable {
    /// With these columns.
    pub fn new(columns: Vec<String>) -> Self {
        let widths = columns.iter().map(|c| c.chars().count()).collect();
        Self { columns, widths, printed: 0 }
    }

    /// A row's line; with the heading before it where it is due: at first, again after a page, and where a column grew.
    pub fn line(&mut self, row: &Value) -> String {
        let cells: Vec<(String, bool)> = self.columns.iter().map(|c| cell(&row[c.as_str()])).collect();
        let mut grew = false;
        for ((text, _), width) in cells.iter().zip(&mut self.widths) {
            let needed = text.chars().count();
            grew |= needed > *width;
            *width = needed.max(*width);
        }
        let mut out = String::new();
        if self.printed.is_multiple_of(PAGE) || grew {
            self.printed = 0;
            let numbers = cells.iter().map(|(_, number)| *number);
            let heads: Vec<(String, bool)> = self.columns.iter().cloned().zip(numbers).collect();
            out.push_str(&self.put(&heads));
        }
        self.printed += 1;
        out.push_str(&self.put(&cells));
        out
    }

    fn put(&self, cells: &[(String, bool)]) -> String {
        let put = |((text, right), width): (&(String, bool), &usize)| match right {
            true => format!("{text:>width$}"),
            false => format!("{text:<width$}"),
        };
        let line: Vec<String> = cells.iter().zip(&self.widths).map(put).collect();
        format!("{}\n", line.join("  ").trim_end())
    }
}

/// A cell's text on one line, and whether it is a number.
fn cell(value: &Value) -> (String, bool) {
    let (text, number) = match value {
        Value::Null => ("null".to_owned(), true),
        Value::String(s) => (s.clone(), false),
        Value::Number(n) => (number(n), true),
        other => (other.to_string(), false),
    };
    // One row, one line, whatever a text holds.
    let plain = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
    let mut text: String = plain.take(WIDEST + 1).collect();
    if text.chars().count() > WIDEST {
        text = text.chars().take(WIDEST - 1).chain(['…']).collect();
    }
    (text, number)
}

/// A number for the eye: of a fraction six digits.
fn number(n: &serde_json::Number) -> String {
    match n.as_f64().filter(|_| n.is_f64()) {
        Some(x) if x != 0.0 && (x.abs() < 1e-4 || x.abs() >= 1e9) => format!("{x:.5e}"),
        Some(x) => {
            let places = (5 - x.abs().max(1.0).log10().floor() as i32).clamp(0, 6) as usize;
            let text = format!("{x:.places$}");
            if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
        }
        None => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_that_come_one_by_one() {
        let mut table = LiveTable::new(vec!["device".into(), "t".into(), "n".into()]);
        let lines = [
            json!({ "device": "p-1", "t": 20.123_456_789, "n": 3, "unseen": true }),
            json!({ "device": "p-2", "t": null, "n": 1_000 }),
            json!({ "device": "a\nb", "t": 0.000_012_3, "n": 7 }),
        ]
        .map(|row| table.line(&row));
        assert_eq!(
            lines.concat(),
            "device        t  n\np-1     20.1235  3\ndevice        t     n\np-2        null  1000\n\
             device           t     n\na\u{fffd}b     1.23000e-5     7\n"
        );
        let (long, _) = cell(&Value::from("x".repeat(99)));
        assert_eq!(long.chars().count(), WIDEST);
    }
}
