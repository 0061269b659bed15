//! Syntax: TOML text to a tree whose every key and value knows its place. Nothing is interpolated here.

use std::sync::Arc;

use toml_span::value::{Value, ValueInner};
use toml_span::{Error as TomlError, ErrorKind};

use super::diagnostics::Diagnostics;
use super::span::{SourceFile, Span};

/// A value of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub value: NodeValue,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum NodeValue {
    Str(String),
    Int(i64),
    /// Always finite.
    Float(f64),
    Bool(bool),
    Array(Vec<Node>),
    /// In the order of the file.
    Table(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub key_span: Span,
    pub node: Node,
}

impl Node {
    /// What a person calls this kind of value, with its article.
    pub fn kind(&self) -> &'static str {
        match self.value {
            NodeValue::Str(_) => "a string",
            NodeValue::Int(_) => "an integer",
            NodeValue::Float(_) => "a float",
            NodeValue::Bool(_) => "a boolean",
            NodeValue::Array(_) => "an array",
            NodeValue::Table(_) => "a table",
        }
    }
}

/// Parses the file; a syntax error is the only finding then, since nothing after it can be trusted.
pub(super) fn parse(file: &Arc<SourceFile>) -> Result<Node, Diagnostics> {
    let mut diags = Diagnostics::new(file.clone());
    let text = file.text();
    match toml_span::parse(text) {
        Ok(mut value) => {
            let node = convert(&mut value, &mut diags);
            if diags.has_errors() { Err(diags) } else { Ok(node) }
        }
        Err(e) => {
            report(&e, file, &mut diags);
            mask_likely_secrets(file, &e, &mut diags);
            Err(diags)
        }
    }
}

fn convert(value: &mut Value<'_>, diags: &mut Diagnostics) -> Node {
    let span = Span::from(value.span);
    let value = match value.take() {
        ValueInner::String(s) => NodeValue::Str(s.into_owned()),
        ValueInner::Integer(i) => NodeValue::Int(i),
        ValueInner::Float(f) => {
            if !f.is_finite() {
                diags.error(
                    "not-a-number",
                    span,
                    "`inf` and `nan` are not values of the pipeline language",
                    "write a finite number",
                );
            }
            NodeValue::Float(f)
        }
        ValueInner::Boolean(b) => NodeValue::Bool(b),
        ValueInner::Array(items) => {
            NodeValue::Array(items.into_iter().map(|mut item| convert(&mut item, diags)).collect())
        }
        ValueInner::Table(table) => {
            let mut entries: Vec<Entry> = table
                .into_iter()
                .map(|(key, mut value)| Entry {
                    key_span: key.span.into(),
                    key: key.name.into_owned(),
                    node: convert(&mut value, diags),
                })
                .collect();
            entries.sort_by_key(|e| e.key_span.start);
            NodeValue::Table(entries)
        }
    };
    Node { value, span }
}

fn report(e: &TomlError, file: &SourceFile, diags: &mut Diagnostics) {
    let span = Span::from(e.span);
    let at_end = span.start >= file.text().len();
    let (message, help) = match &e.kind {
        ErrorKind::UnterminatedString => (
            "a string is not closed".to_owned(),
            "close it with the quote it began with; text over several lines stands between \"\"\" and \"\"\"",
        ),
        ErrorKind::InvalidCharInString('\n') => (
            "a string is not closed on its line".to_owned(),
            "close it with the quote it began with; text over several lines stands between \"\"\" and \"\"\"",
        ),
        ErrorKind::InvalidCharInString(c) => (
            format!("the character U+{:04X} must not stand in a string", u32::from(*c)),
            "remove it, or write it as an escape such as \\u0007",
        ),
        ErrorKind::InvalidEscape(c) => (
            format!("`\\{}` is not an escape", c.escape_default()),
            "write a backslash as \\\\, or put the text between single quotes, where backslashes mean nothing",
        ),
        ErrorKind::InvalidHexEscape(_) | ErrorKind::InvalidEscapeValue(_) => {
            ("this escape names no character".to_owned(), "write \\u and four hexadecimal digits, such as \\u00e4")
        }
        ErrorKind::InvalidNumber => (
            "this is not a number TOML knows".to_owned(),
            "write 10_000, 0.01 or 1e-3; durations and dates are strings, such as \"30s\"",
        ),
        ErrorKind::UnquotedString => {
            ("this value has no quotes".to_owned(), "put text between double quotes; booleans are true and false")
        }
        ErrorKind::DuplicateKey { key, .. } => {
            (format!("`{key}` is given twice in the same table"), "keep one of the two")
        }
        ErrorKind::DuplicateTable { .. } => (
            format!("`{}` is opened twice", file.slice(span).trim()),
            "put all its keys under one header, or give the second table another name",
        ),
        ErrorKind::RedefineAsArray | ErrorKind::DottedKeyInvalidType { .. } => {
            ("this name is already used for another kind of value".to_owned(), "give one of the two another name")
        }
        ErrorKind::MultilineStringKey => {
            ("a key must stand on one line".to_owned(), "write the key without quotes or between single ones")
        }
        ErrorKind::ExceededDepthLimit => {
            ("the values are nested too deeply".to_owned(), "a pipeline needs four levels")
        }
        ErrorKind::UnexpectedEof => {
            ("the file ends in the middle of a value".to_owned(), "complete the last line, or restore the whole file")
        }
        ErrorKind::Unexpected(c) => (
            format!("`{}` is not expected here", c.escape_default()),
            "a line is `key = value`, a `[table]` header, or a comment after #",
        ),
        ErrorKind::Wanted { expected, found } => {
            let found = if at_end { "the end of the file" } else { found };
            let help = match *expected {
                "a right bracket" => "close the array or header with `]`; values in an array are separated by commas",
                "a right brace" | "a comma" => "separate the keys of `{ … }` by commas, and close it with `}`",
                _ => "a line is `key = value`, a `[table]` header, or a comment after #",
            };
            (format!("{expected} is expected here, not {found}"), help)
        }
        other => (format!("this is not TOML ({other})"), "compare the line with https://toml.io"),
    };
    diags.error("syntax", span, message, help);
    let first = match &e.kind {
        ErrorKind::DuplicateTable { first, .. }
        | ErrorKind::DuplicateKey { first, .. }
        | ErrorKind::DottedKeyInvalidType { first } => Some(Span::from(*first)),
        _ => None,
    };
    if let Some(first) = first {
        diags.relate(span, first, "it first stands");
    }
}

/// Where the syntax is broken there is no tree that says which strings are secrets, so the shown line is masked by
/// the names of the keys that hold them.
fn mask_likely_secrets(file: &SourceFile, e: &TomlError, diags: &mut Diagnostics) {
    let (line, _) = file.line_col(e.span.start);
    let (text, start) = file.line(line);
    for name in ["secret", "password", "key"] {
        for (i, _) in text.match_indices(name) {
            let rest = &text[i + name.len()..];
            let value = rest.trim_start_matches(['"', '\'']).trim_start();
            let Some(value) = value.strip_prefix('=') else { continue };
            let value = value.trim_start();
            let bare = value.trim_start_matches(['"', '\'']);
            let looks_harmless = bare.starts_with("${") || (name == "key" && !bare.starts_with("0x"));
            if !looks_harmless {
                diags.mask(Span::new(start + text.len() - bare.len(), start + text.len()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(text: &str) -> Arc<SourceFile> {
        Arc::new(SourceFile::new("p.toml", text))
    }

    #[test]
    fn tables_keep_the_order_of_the_file_and_keys_their_places() {
        let text = "[b]\nz = 1\na = 2.5\n[a]\ns = \"x\"\n";
        let node = parse(&file(text)).unwrap();
        let NodeValue::Table(entries) = node.value else { panic!() };
        assert_eq!(entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!(&text[entries[0].key_span.start..entries[0].key_span.end], "b");
        let NodeValue::Table(b) = &entries[0].node.value else { panic!() };
        assert_eq!(b[1].node.value, NodeValue::Float(2.5));
    }

    #[test]
    fn a_broken_line_does_not_show_its_secret() {
        for text in ["secret = \"hunter2\n", "signer = { key = \"0xhunter2 }\n", "password = 'hunter2\n"] {
            let shown = parse(&file(text)).unwrap_err().render_text(false);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        let shown = parse(&file("a = inf\nb = [nan]\n"));
        // Whether the parser or we refuse it, it must not pass.
        assert!(shown.is_err());
    }
}
