//! The canonical form: what does not change it, and what does.

use std::collections::BTreeMap;

use avouch::lang::{Canonical, Models, Pipeline, lane_spec};
use proptest::prelude::*;

use super::{Fixed, VALID, file};

/// A TOML value without places, which can be written in many ways.
#[derive(Debug, Clone, PartialEq)]
enum Toml {
    Str(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Array(Vec<Toml>),
    Table(BTreeMap<String, Toml>),
}

fn leaf() -> impl Strategy<Value = Toml> {
    prop_oneof![
        "[ -~äé\n\t\"\\\\']{0,12}".prop_map(Toml::Str),
        any::<i64>().prop_map(Toml::Int),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(Toml::Float),
        (-1000i32..1000).prop_map(|n| Toml::Float(f64::from(n) / 8.0)),
        any::<bool>().prop_map(Toml::Bool),
    ]
}

fn table() -> impl Strategy<Value = BTreeMap<String, Toml>> {
    let value = leaf().prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Toml::Array),
            prop::collection::btree_map("[a-z_]{1,5}|[ -~]{0,5}", inner, 0..4).prop_map(Toml::Table),
        ]
    });
    prop::collection::btree_map("[a-z]{1,6}", value, 0..6)
}

/// Choices of style, used up one after the other.
struct Style<'a> {
    choices: &'a [u8],
    at: usize,
}

impl Style<'_> {
    fn pick(&mut self, n: usize) -> usize {
        let c = self.choices.get(self.at % self.choices.len().max(1)).copied().unwrap_or(0);
        self.at += 1;
        usize::from(c) % n
    }
    fn blank(&mut self) -> &'static str {
        ["", " ", "  ", "\t"][self.pick(4)]
    }
    fn comment(&mut self) -> &'static str {
        ["", "", "# a comment = \"x\"\n", "\n\n", "   # [table]\n"][self.pick(5)]
    }
    fn order<'t>(&mut self, table: &'t BTreeMap<String, Toml>) -> Vec<(&'t String, &'t Toml)> {
        let mut left: Vec<_> = table.iter().collect();
        let mut out = Vec::new();
        while !left.is_empty() {
            let i = self.pick(left.len());
            out.push(left.remove(i));
        }
        out
    }
}

fn quoted(s: &str, style: &mut Style<'_>) -> String {
    let plain = !s.contains(['\'', '\n', '\t', '\r']);
    match style.pick(3) {
        0 if plain => format!("'{s}'"),
        1 if !s.contains("\"") && !s.contains('\\') && !s.contains('\r') => format!("\"\"\"\n{s}\"\"\""),
        _ => {
            let mut out = String::from("\"");
            for c in s.chars() {
                match c {
                    '"' => out.push_str("\\\""),
                    '\\' => out.push_str("\\\\"),
                    '\n' => out.push_str("\\n"),
                    '\t' => out.push_str("\\t"),
                    c if style.pick(5) == 0 => out.push_str(&format!("\\U{:08X}", u32::from(c))),
                    c => out.push(c),
                }
            }
            out + "\""
        }
    }
}

fn key(k: &str, style: &mut Style<'_>) -> String {
    let bare = !k.is_empty() && k.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if bare && style.pick(3) > 0 {
        return k.to_owned();
    }
    format!("\"{}\"", k.replace('\\', "\\\\").replace('"', "\\\""))
}

fn value(v: &Toml, style: &mut Style<'_>) -> String {
    match v {
        Toml::Str(s) => quoted(s, style),
        Toml::Bool(b) => b.to_string(),
        Toml::Int(i) if *i >= 0 && style.pick(3) == 0 => format!("0x{i:x}"),
        Toml::Int(i) if *i >= 10_000 && style.pick(2) == 0 => {
            let s = i.to_string();
            let (a, b) = s.split_at(s.len() - 3);
            format!("{a}_{b}")
        }
        Toml::Int(i) => i.to_string(),
        Toml::Float(f) if style.pick(2) == 0 => {
            let s = format!("{f:e}");
            if s.contains('.') { s } else { s.replacen('e', ".0e", 1) }
        }
        Toml::Float(f) => format!("{f:?}"),
        Toml::Array(items) => {
            let mut out = String::from("[");
            for item in items {
                out.push_str(["", " ", "\n", "\n# in between\n"][style.pick(4)]);
                out.push_str(&value(item, style));
                out.push_str(style.blank());
                out.push(',');
            }
            if style.pick(2) == 0 && !items.is_empty() {
                out.pop();
            }
            out + ["", "\n"][style.pick(2)] + "]"
        }
        Toml::Table(t) => {
            let parts: Vec<String> = style
                .order(t)
                .into_iter()
                .map(|(k, v)| format!("{}{}={}{}", key(k, style), style.blank(), style.blank(), value(v, style)))
                .collect();
            format!("{{ {} }}", parts.join(" , "))
        }
    }
}

/// Writes a table in some style: keys in any order, sub-tables inline, dotted or under their own header.
fn write(table: &BTreeMap<String, Toml>, path: &[String], style: &mut Style<'_>, out: &mut String) {
    let mut later = Vec::new();
    for (k, v) in style.order(table) {
        out.push_str(style.comment());
        match v {
            Toml::Table(t) if style.pick(3) > 0 => later.push((k, t)),
            Toml::Table(t) if !t.is_empty() && style.pick(2) == 0 => {
                let k = key(k, style);
                for (inner, v) in style.order(t) {
                    let inner = key(inner, style);
                    out.push_str(&format!("{k} . {inner} = {}\n", value(v, style)));
                }
            }
            v => {
                let (k, v) = (key(k, style), value(v, style));
                out.push_str(&format!("{}{k}{}={}{v}{}\n", style.blank(), style.blank(), style.blank(), style.blank()));
            }
        }
    }
    for (k, t) in later {
        let mut path = path.to_vec();
        path.push(key(k, style));
        out.push_str(&format!("{}[{}] # header\n", style.comment(), path.join(".")));
        write(t, &path, style, out);
    }
}

fn render(table: &BTreeMap<String, Toml>, choices: &[u8]) -> String {
    let mut style = Style { choices, at: 0 };
    let mut out = String::new();
    write(table, &[], &mut style, &mut out);
    out
}

/// An independent word on which two values are the same setting: numbers by value, everything else by identity.
fn same(a: &Toml, b: &Toml) -> bool {
    match (a, b) {
        (Toml::Int(i), Toml::Float(f)) | (Toml::Float(f), Toml::Int(i)) => *i as f64 == *f,
        (Toml::Float(a), Toml::Float(b)) => a == b,
        (Toml::Array(a), Toml::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Toml::Table(a), Toml::Table(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
        }
        (a, b) => a == b,
    }
}

/// Changes the leaf or container that `choice` leads to.
fn change(t: &mut BTreeMap<String, Toml>, choice: usize, to: &Toml) {
    if t.is_empty() {
        t.insert("new".into(), to.clone());
        return;
    }
    let n = t.len();
    if let Some(v) = t.values_mut().nth(choice % n) {
        match v {
            Toml::Table(inner) if choice.is_multiple_of(2) => change(inner, choice / n, to),
            v => *v = to.clone(),
        }
    }
}

fn canonical(text: &str) -> Canonical {
    match Canonical::of(&file(text)) {
        Ok(c) => c,
        Err(e) => panic!("{e}\n{text}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn style_does_not_change_it(
        table in table(),
        one in prop::collection::vec(any::<u8>(), 1..200),
        other in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let (a, b) = (render(&table, &one), render(&table, &other));
        prop_assert_eq!(canonical(&a), canonical(&b), "{}\n────\n{}", a, b);
        // CRLF line ends are formatting too, outside of texts over several lines.
        if !a.contains("\"\"\"") {
            prop_assert_eq!(canonical(&a), canonical(&a.replace('\n', "\r\n")));
        }
    }

    #[test]
    fn a_changed_value_changes_it(
        table in table(),
        style in prop::collection::vec(any::<u8>(), 1..200),
        choice in any::<usize>(),
        to in leaf(),
    ) {
        let mut changed = table.clone();
        change(&mut changed, choice, &to);
        let (a, b) = (canonical(&render(&table, &style)), canonical(&render(&changed, &style)));
        let equal = same(&Toml::Table(table), &Toml::Table(changed));
        prop_assert_eq!(a.json == b.json, equal, "{}\n{}", a.json, b.json);
        prop_assert_eq!(a.hash == b.hash, equal);
    }

    #[test]
    fn it_is_json_that_others_read(table in table(), style in prop::collection::vec(any::<u8>(), 1..200)) {
        let c = canonical(&render(&table, &style));
        let read: serde_json::Value = serde_json::from_str(&c.json).unwrap();
        prop_assert_eq!(read.as_object().unwrap().len(), table.len());
    }
}

#[test]
fn the_environment_does_not_change_it() {
    let c = canonical(VALID);
    let p = Pipeline::read(file(VALID), &Fixed).unwrap();
    assert_eq!(p.config_hash(), c.hash);
    assert!(c.json.contains("\"contract\":\"${env:VERDICT_LOG}\""));
}

/// The hash does not cover the order of keys and tables, so the lane must not depend on it either.
#[test]
fn what_the_hash_does_not_cover_does_not_reach_the_lane() {
    let mut parts: Vec<&str> = VALID.split("\n\n").collect();
    parts[1..].reverse();
    let reordered = format!("version = 1\n\n{}", parts[1..].join("\n\n")).replace(
        "{ device = \"utf8!\", ts = \"timestamp_ms!\", temperature = \"f64\",",
        "{ temperature = \"f64\", ts = \"timestamp_ms!\", device = \"utf8!\",",
    );
    assert_ne!(reordered, VALID);
    let one = Pipeline::read(file(VALID), &Fixed).unwrap();
    let other = match Pipeline::read(file(&reordered), &Fixed) {
        Ok(p) => p,
        Err(e) => panic!("{e}"),
    };
    assert_eq!(one.config_hash(), other.config_hash());
    let spec = |p: &Pipeline| format!("{:?}", lane_spec(p, &Models::new()));
    assert_eq!(spec(&one), spec(&other));
}

/// The page that documents the form says what the program does.
#[test]
fn the_documented_example_is_right() {
    let page = include_str!("../../../docs/canonical.md");
    let block = |language: &str| {
        let from = page.split_once(&format!("```{language}\n")).unwrap().1;
        from.split_once("\n```").unwrap().0
    };
    let c = canonical(block("toml"));
    assert_eq!(c.json, block("json"));
    assert!(page.contains(&avouch::lang::hex(&c.hash)), "{}", avouch::lang::hex(&c.hash));
    // The line for editors is a comment.
    assert_eq!(canonical(&format!("#:schema x.json\n{VALID}")), canonical(VALID));
}
