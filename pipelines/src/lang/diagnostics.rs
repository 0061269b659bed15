//! What is wrong with a pipeline file: every finding with its place, its line, and what to do next.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::span::{SourceFile, Span};

/// Whether a finding stops the pipeline from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The pipeline does not run.
    Error,
    /// It runs, but probably not as meant.
    Warning,
}

impl Level {
    /// `error` or `warning`.
    pub fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    /// How grave it is.
    pub level: Level,
    /// A stable name for this kind of finding, such as `unknown-key`.
    pub code: &'static str,
    /// Where; `None` only when the file itself could not be read.
    pub span: Option<Span>,
    /// What is wrong. Never holds an interpolated value.
    pub message: String,
    /// What to do next.
    pub help: String,
    /// Another place that matters, and why.
    pub related: Option<(Span, String)>,
}

/// All findings about one file, in the order of their places. Rendering shows source lines with literal secrets masked.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    file: Arc<SourceFile>,
    items: Vec<Diagnostic>,
    masked: Vec<Span>,
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render_text(false))
    }
}

/// Lines longer than this are cut around the caret.
const MAX_LINE: usize = 140;

impl Diagnostics {
    /// No findings about `file`.
    pub fn new(file: Arc<SourceFile>) -> Self {
        Self { file, items: Vec::new(), masked: Vec::new() }
    }

    /// No findings about the same file, with the same masks.
    pub(super) fn emptied(&self) -> Self {
        Self { file: self.file.clone(), items: Vec::new(), masked: self.masked.clone() }
    }

    /// The file.
    pub fn file(&self) -> &SourceFile {
        &self.file
    }

    /// The findings, ordered by place.
    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many findings of a level there are.
    pub fn count(&self, level: Level) -> usize {
        self.items.iter().filter(|d| d.level == level).count()
    }

    /// Whether the pipeline must not run.
    pub fn has_errors(&self) -> bool {
        self.count(Level::Error) > 0
    }

    /// Adds an error at a place.
    pub fn error(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(Diagnostic {
            level: Level::Error,
            code,
            span: Some(span),
            message: message.into(),
            help: help.into(),
            related: None,
        });
    }

    /// Adds a warning at a place.
    pub fn warning(&mut self, code: &'static str, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.push(Diagnostic {
            level: Level::Warning,
            code,
            span: Some(span),
            message: message.into(),
            help: help.into(),
            related: None,
        });
    }

    /// Adds a finding. Findings stay ordered by place; equal ones are kept once.
    pub fn push(&mut self, d: Diagnostic) {
        if self.items.contains(&d) {
            return;
        }
        let key = |d: &Diagnostic| d.span.map_or(0, |s| s.start);
        let at = self.items.partition_point(|other| key(other) <= key(&d));
        self.items.insert(at, d);
    }

    /// Names another place for the finding last added at `span`.
    pub(super) fn relate(&mut self, span: Span, place: Span, why: impl Into<String>) {
        if let Some(d) = self.items.iter_mut().rev().find(|d| d.span == Some(span)) {
            d.related = Some((place, why.into()));
        }
    }

    /// The errors, without those of one code.
    pub fn errors_without(&self, code: &str) -> Self {
        let mut out = self.emptied();
        self.items.iter().filter(|d| d.level == Level::Error && d.code != code).for_each(|d| out.push(d.clone()));
        out
    }

    /// Adds all findings of another run over the same file.
    pub fn extend(&mut self, other: Diagnostics) {
        self.masked.extend(other.masked);
        for d in other.items {
            self.push(d);
        }
    }

    /// From now on the text of `span` is rendered as asterisks, because it is a secret.
    pub(super) fn mask(&mut self, span: Span) {
        self.masked.push(span);
    }

    /// For a person: per finding `file:line:column: level[code]: message`, the line, a caret and a help line; then a
    /// count. Deterministic; ANSI colours only on request.
    pub fn render_text(&self, colour: bool) -> String {
        let paint = Paint(colour);
        let mut out = String::new();
        for d in &self.items {
            self.render_one(d, paint, &mut out);
            out.push('\n');
        }
        let (errors, warnings) = (self.count(Level::Error), self.count(Level::Warning));
        let mut counts = Vec::new();
        if errors > 0 {
            counts.push(plural(errors, "error"));
        }
        if warnings > 0 {
            counts.push(plural(warnings, "warning"));
        }
        if !counts.is_empty() {
            out.push_str(&format!("{}: {}\n", self.file.path().display(), counts.join(", ")));
        }
        out
    }

    fn render_one(&self, d: &Diagnostic, paint: Paint, out: &mut String) {
        let path = self.file.path().display();
        let level = match d.level {
            Level::Error => paint.red(&format!("error[{}]", d.code)),
            Level::Warning => paint.yellow(&format!("warning[{}]", d.code)),
        };
        match d.span {
            None => out.push_str(&format!("{path}: {level}: {}\n", paint.bold(&d.message))),
            Some(span) => {
                let (line, column) = self.file.line_col(span.start);
                out.push_str(&format!("{path}:{line}:{column}: {level}: {}\n", paint.bold(&d.message)));
                let caret = match d.level {
                    Level::Error => Paint::red,
                    Level::Warning => Paint::yellow,
                };
                self.render_line(span, |s| caret(paint, s), out);
            }
        }
        if let Some((place, why)) = &d.related {
            let (line, column) = self.file.line_col(place.start);
            out.push_str(&format!("  note: {why} at {path}:{line}:{column}\n"));
        }
        out.push_str(&format!("  {} {}\n", paint.cyan("help:"), d.help.replace('\n', "\n        ")));
    }

    fn render_line(&self, span: Span, caret: impl Fn(&str) -> String, out: &mut String) {
        let (line, column) = self.file.line_col(span.start);
        let shown = self.shown_line(line);
        let (raw, start) = self.file.line(line);
        let end = span.end.min(start + raw.len());
        let width = self.file.slice(Span::new(span.start.min(end), end)).chars().count().max(1);
        let (shown, column) = cut(&shown, column);
        let width = width.min(shown.chars().count().saturating_sub(column - 1)).max(1);
        let number = line.to_string();
        let gutter = " ".repeat(number.len().max(4));
        out.push_str(format!("{number:>4} | {shown}").trim_end());
        out.push('\n');
        out.push_str(&format!("{gutter} | {}{}\n", " ".repeat(column - 1), caret(&"^".repeat(width))));
    }

    /// A line as it may be shown: secrets masked, tabs and control characters as one space each.
    fn shown_line(&self, line: usize) -> String {
        let (raw, start) = self.file.line(line);
        raw.char_indices()
            .map(|(i, c)| {
                let at = start + i;
                if self.masked.iter().any(|m| m.start <= at && at < m.end) {
                    '*'
                } else if c.is_control() {
                    ' '
                } else {
                    c
                }
            })
            .collect()
    }

    /// For a machine: the same data as one JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        let items: Vec<_> = self.items.iter().map(|d| self.item_json(d)).collect();
        serde_json::json!({
            "file": self.file.path().display().to_string(),
            "ok": !self.has_errors(),
            "errors": self.count(Level::Error),
            "warnings": self.count(Level::Warning),
            "diagnostics": items,
        })
    }

    fn item_json(&self, d: &Diagnostic) -> serde_json::Value {
        let place = |span: Span| {
            let (line, column) = self.file.line_col(span.start);
            let (end_line, end_column) = self.file.line_col(span.end);
            serde_json::json!({
                "line": line, "column": column, "end_line": end_line, "end_column": end_column,
                "offset": span.start, "length": span.end.saturating_sub(span.start),
                "source": self.shown_line(line),
            })
        };
        serde_json::json!({
            "level": d.level,
            "code": d.code,
            "message": d.message,
            "help": d.help,
            "place": d.span.map(place),
            "related": d.related.as_ref().map(|(span, why)| serde_json::json!({ "why": why, "place": place(*span) })),
        })
    }
}

/// `1 error`, `2 errors`.
pub(crate) fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A number with a comma for every thousand.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// Cuts a long line so that the character at `column` (from 1) stays visible; gives the cut line and the new column.
fn cut(line: &str, column: usize) -> (String, usize) {
    let chars: Vec<char> = line.chars().collect();
    if chars.len() <= MAX_LINE {
        return (line.to_owned(), column);
    }
    let from = (column - 1).saturating_sub(MAX_LINE / 2);
    let to = (from + MAX_LINE).min(chars.len());
    let mut out = String::new();
    let mut column = column - from;
    if from > 0 {
        out.push('…');
        column += 1;
    }
    out.extend(&chars[from..to]);
    if to < chars.len() {
        out.push('…');
    }
    (out, column)
}

#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn wrap(self, code: &str, s: &str) -> String {
        if self.0 { format!("\x1b[{code}m{s}\x1b[0m") } else { s.to_owned() }
    }
    fn red(self, s: &str) -> String {
        self.wrap("1;31", s)
    }
    fn yellow(self, s: &str) -> String {
        self.wrap("1;33", s)
    }
    fn cyan(self, s: &str) -> String {
        self.wrap("36", s)
    }
    fn bold(self, s: &str) -> String {
        self.wrap("1", s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Diagnostics {
        let file = Arc::new(SourceFile::new("p.toml", "a = 1\n\tsecret = \"hunter2\" # x\n"));
        let mut d = Diagnostics::new(file);
        d.error("second", Span::new(17, 24), "bad secret", "use a file");
        d.warning("first", Span::new(0, 1), "odd", "look");
        d.mask(Span::new(17, 24));
        d
    }

    #[test]
    fn text_is_ordered_and_masks_secrets() {
        let text = sample().render_text(false);
        assert_eq!(
            text,
            "p.toml:1:1: warning[first]: odd\n   1 | a = 1\n     | ^\n  help: look\n\n\
             p.toml:2:12: error[second]: bad secret\n   2 |  secret = \"*******\" # x\n     |            ^^^^^^^\n  \
             help: use a file\n\np.toml: 1 error, 1 warning\n"
        );
        assert!(sample().render_text(true).contains("\x1b[1;31merror[second]"));
        let json = sample().to_json().to_string();
        assert!(!json.contains("hunter2"), "{json}");
        assert!(json.contains("\"line\":2"), "{json}");
    }

    #[test]
    fn long_lines_are_cut_around_the_caret() {
        let line = "x".repeat(300) + "y" + &"z".repeat(300);
        let (shown, column) = cut(&line, 301);
        assert_eq!(shown.chars().nth(column - 1), Some('y'));
        assert!(shown.starts_with('…') && shown.ends_with('…'));
    }

    #[test]
    fn equal_findings_are_kept_once() {
        let mut d = sample();
        let again = d.items()[0].clone();
        d.push(again);
        assert_eq!(d.items().len(), 2);
    }
}
