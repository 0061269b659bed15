//! Whatever the bytes, reading ends with a pipeline or with findings, never with a panic.

use avouch::lang::{Canonical, Environment, Pipeline, SourceFile};
use proptest::prelude::*;
use std::sync::Arc;

use super::{Fixed, VALID, file, findings};

#[derive(Debug, Clone)]
enum Mutation {
    Delete(prop::sample::Index, usize),
    Insert(prop::sample::Index, String),
    Duplicate(prop::sample::Index, usize, prop::sample::Index),
    SwapLines(prop::sample::Index, prop::sample::Index),
    Replace(prop::sample::Index, &'static str),
}

const WORDS: &[&str] = &[
    "\"\"\"",
    "'''",
    "\"",
    "'",
    "[[",
    "]]",
    "{",
    "}",
    "[",
    "]",
    "=",
    "\n",
    "\r\n",
    "#",
    ",",
    ".",
    "-",
    "0x",
    "nan",
    "inf",
    "1e999",
    "99999999999999999999",
    "-0.0",
    "true",
    "\\u0000",
    "\\",
    "${",
    "${env:",
    "${file:/}",
    "$${",
    "\u{feff}",
    "ä",
    "🦀",
    "[steps.clean]",
    "from = \"anomaly\"",
    "x.y.z = 1",
    "[[sources]]",
    "steps.clean.sql = 3",
    "1979-05-27",
    "\"30s\"",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1usize..40).prop_map(|(i, n)| Mutation::Delete(i, n)),
        (at(), "\\PC{0,6}").prop_map(|(i, s)| Mutation::Insert(i, s)),
        (at(), prop::sample::select(WORDS)).prop_map(|(i, s)| Mutation::Insert(i, s.to_owned())),
        (at(), 1usize..200, at()).prop_map(|(i, n, j)| Mutation::Duplicate(i, n, j)),
        (at(), at()).prop_map(|(i, j)| Mutation::SwapLines(i, j)),
        (at(), prop::sample::select(WORDS)).prop_map(|(i, s)| Mutation::Replace(i, s)),
    ]
}

/// The nearest character boundary at or before `i`.
fn boundary(text: &str, mut i: usize) -> usize {
    i = i.min(text.len());
    while !text.is_char_boundary(i) {
        i -= 1;
    }
    i
}

fn apply(text: &mut String, m: &Mutation) {
    let len = text.len() + 1;
    match m {
        Mutation::Delete(i, n) => {
            let start = boundary(text, i.index(len));
            let end = boundary(text, start + n);
            text.replace_range(start..end.max(start), "");
        }
        Mutation::Insert(i, s) => {
            let at = boundary(text, i.index(len));
            text.insert_str(at, s);
        }
        Mutation::Duplicate(i, n, j) => {
            let start = boundary(text, i.index(len));
            let end = boundary(text, start + n).max(start);
            let copy = text[start..end].to_owned();
            let at = boundary(text, j.index(len));
            text.insert_str(at, &copy);
        }
        Mutation::SwapLines(i, j) => {
            let mut lines: Vec<&str> = text.split('\n').collect();
            let (a, b) = (i.index(lines.len()), j.index(lines.len()));
            lines.swap(a, b);
            *text = lines.join("\n");
        }
        Mutation::Replace(i, s) => {
            // A whole token: from a place to the next blank.
            let start = boundary(text, i.index(len));
            let end = text[start..].find([' ', '\n', ',']).map_or(text.len(), |n| start + n);
            text.replace_range(start..end, s);
        }
    }
}

fn survives(text: &str) {
    let (pipeline, diags) = findings("p.toml", text);
    assert_eq!(pipeline.is_none(), diags.has_errors() && pipeline.is_none());
    let shown = diags.render_text(false);
    assert_eq!(shown.is_empty(), diags.is_empty());
    assert!(!diags.items().iter().any(|d| d.code == "internal"), "{shown}");
    diags.to_json();
    let _ = Canonical::of(&file(text));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_pipelines_never_panic(mutations in prop::collection::vec(mutation(), 1..6)) {
        let mut text = VALID.to_owned();
        for m in &mutations {
            apply(&mut text, m);
        }
        survives(&text);
    }

    #[test]
    fn any_text_never_panics(text in "[\\PC\n\t]{0,200}") {
        survives(&text);
    }

    #[test]
    fn toml_like_text_never_panics(parts in prop::collection::vec(prop::sample::select(WORDS), 0..40)) {
        survives(&parts.concat());
    }
}

#[test]
fn every_prefix_of_a_pipeline_is_survived() {
    for end in (0..VALID.len()).filter(|i| VALID.is_char_boundary(*i)) {
        let text = &VALID[..end];
        if let Err(diags) = Pipeline::read(file(text), &Fixed) {
            assert!(diags.has_errors());
            assert!(!diags.render_text(false).is_empty());
        }
    }
}

#[test]
fn what_comes_from_outside_cannot_change_the_structure() {
    struct Hostile;
    impl Environment for Hostile {
        fn var(&self, name: &str) -> Option<String> {
            match name {
                "VERDICT_LOG" => Some("0x5FbDB2315678afecb367f032d93F642f64180aa3".into()),
                "KAFKA_BROKERS" => Some("a:1\"\n[sinks.evil]\ntopic = \"x".into()),
                _ => None,
            }
        }
        fn read(&self, _: &std::path::Path) -> std::io::Result<Vec<u8>> {
            Ok(b"0123456789abcdef".to_vec())
        }
    }
    let diags = Pipeline::read(Arc::new(SourceFile::new("p.toml", VALID)), &Hostile).unwrap_err();
    assert_eq!(diags.items().iter().map(|d| d.code).collect::<Vec<_>>(), ["bad-brokers"]);
    assert!(!diags.render_text(false).contains("evil"));
}
