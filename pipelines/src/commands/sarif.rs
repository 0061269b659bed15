//! Findings as SARIF 2.1.0, the form in which CI systems show them at their lines.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::lang::{Diagnostic, Diagnostics, Level, Span};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// One log with one run about all these files.
pub fn log(files: &[Diagnostics]) -> Value {
    let rules: Vec<&str> =
        files.iter().flat_map(|f| f.items().iter().map(|d| d.code)).collect::<BTreeSet<_>>().into_iter().collect();
    let of_file = |f: &Diagnostics| f.items().iter().map(|d| result(f, d, &rules)).collect::<Vec<_>>();
    let results: Vec<Value> = files.iter().flat_map(of_file).collect();
    let rules: Vec<Value> = rules
        .iter()
        .map(|code| json!({ "id": code, "shortDescription": { "text": code.replace('-', " ") } }))
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "avouch", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            // Columns count characters, not UTF-16 units.
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn result(file: &Diagnostics, d: &Diagnostic, rules: &[&str]) -> Value {
    let mut out = json!({
        "ruleId": d.code,
        "ruleIndex": rules.iter().position(|r| *r == d.code),
        "level": match d.level {
            Level::Error => "error",
            Level::Warning => "warning",
        },
        // SARIF has no place for advice of one finding but its message.
        "message": { "text": format!("{}. Help: {}", d.message, d.help) },
        "locations": [location(file, d.span, None)],
    });
    if let Some((place, why)) = &d.related {
        out["relatedLocations"] = json!([location(file, Some(*place), Some(why))]);
    }
    out
}

fn location(file: &Diagnostics, span: Option<Span>, why: Option<&str>) -> Value {
    let mut physical = json!({ "artifactLocation": { "uri": uri(&file.file().path().to_string_lossy()) } });
    if let Some(span) = span {
        let (line, column) = file.file().line_col(span.start);
        let (end_line, end_column) = file.file().line_col(span.end.max(span.start));
        physical["region"] =
            json!({ "startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column });
    }
    let mut out = json!({ "physicalLocation": physical });
    if let Some(why) = why {
        out["message"] = json!({ "text": why });
    }
    out
}

/// A path as a URI reference: absolute ones with their scheme, relative ones as they are, odd bytes escaped.
fn uri(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn paths_are_uris() {
        assert_eq!(uri("/a/b c.toml"), "file:///a/b%20c.toml");
        assert_eq!(uri("a/ä.toml"), "a/%C3%A4.toml");
    }
}
