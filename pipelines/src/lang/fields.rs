//! Reading one table of the file: which keys it may have, which it must have, and of what kind their values are.
//! Every mistake is reported where it stands and reading goes on, so that all are found at once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;

use super::diagnostics::Diagnostics;
use super::interpolate::{Environment, SecretString, Text, has_interpolation, interpolate};
pub(super) use super::keys::{Choices, Key, Keys, Kind, Rule};
use super::span::{Span, Spanned};
use super::tree::{Entry, Node, NodeValue};
use super::units::{self, UnitError};

/// Which keys of which tables the readers asked for.
pub(super) type Asked = BTreeSet<(&'static str, String)>;

/// What reading needs besides the tree.
pub(super) struct Reading<'a> {
    pub env: &'a dyn Environment,
    pub dir: &'a Path,
    /// Whether values from outside may be missing where nothing but the network needs them.
    pub offline: bool,
    pub diags: Diagnostics,
    /// Kept so that a test can hold it against what is declared.
    pub asked: Rc<RefCell<Asked>>,
}

/// Whether a key must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Must,
    May,
}

/// A table being read.
pub(super) struct Fields<'t> {
    /// Such as `sources.readings.time`; empty for the file itself.
    pub path: String,
    /// Where to say that a key is missing.
    pub at: Span,
    entries: &'t [Entry],
    keys: Option<&'static Keys>,
    asked: Rc<RefCell<Asked>>,
}

impl<'t> Fields<'t> {
    /// Opens a table whose keys are names of the user's.
    pub fn open_any(cx: &mut Reading<'_>, node: &'t Node, path: &str, at: Span, example: &str) -> Option<Self> {
        let NodeValue::Table(entries) = &node.value else {
            cx.diags.error(
                "wrong-type",
                if node.span.end > node.span.start { node.span } else { at },
                format!("`{path}` must be a table, not {}", node.kind()),
                format!("write it as `{example}`"),
            );
            return None;
        };
        Some(Self { path: path.to_owned(), at, entries, keys: None, asked: cx.asked.clone() })
    }

    /// Opens a table with a fixed set of keys, and reports every other key.
    pub fn open(
        cx: &mut Reading<'_>,
        node: &'t Node,
        path: &str,
        at: Span,
        keys: &'static Keys,
        example: &str,
    ) -> Option<Self> {
        let fields = Self { keys: Some(keys), ..Self::open_any(cx, node, path, at, example)? };
        for e in fields.entries {
            if keys.has(&e.key) {
                continue;
            }
            if let Some((_, instead)) = keys.planned.iter().find(|(k, _)| *k == e.key) {
                unsupported(cx, e.key_span, &format!("`{}`", e.key), instead);
            } else {
                fields.unknown_key(cx, e, keys);
            }
        }
        Some(fields)
    }

    fn unknown_key(&self, cx: &mut Reading<'_>, e: &Entry, keys: &Keys) {
        let help = match keys.closest(&e.key) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("remove it; the keys here are {}", list(&keys.names())),
        };
        cx.diags.error("unknown-key", e.key_span, format!("unknown key `{}` in {}", e.key, self.place()), help);
    }

    /// `` `[sources.readings]` `` or "the file" for messages.
    pub fn place(&self) -> String {
        if self.path.is_empty() { "the pipeline file".to_owned() } else { format!("`{}`", self.path) }
    }

    /// The full name of a key, for messages.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// All entries in the order of the file.
    pub fn entries(&self) -> &'t [Entry] {
        self.entries
    }

    /// The entry of a key, if it is there.
    pub fn get(&self, key: &str) -> Option<&'t Entry> {
        if let Some(keys) = self.keys {
            let mut asked = self.asked.borrow_mut();
            asked.extend(keys.tables_with(key).into_iter().map(|table| (table, key.to_owned())));
        }
        self.entries.iter().find(|e| e.key == key)
    }

    /// The entry of a key; reports its absence if it must be there.
    pub fn entry(&self, cx: &mut Reading<'_>, need: Need, key: &str, example: &str) -> Option<&'t Entry> {
        let found = self.get(key);
        if found.is_none() && need == Need::Must && !self.misspelt(key) {
            cx.diags.error(
                "missing-key",
                self.at,
                format!("`{key}` is missing in {}", self.place()),
                format!("add `{example}`"),
            );
        }
        found
    }

    /// Whether a key is there, but under a name that was reported as unknown with this key as the likely meaning.
    pub fn misspelt(&self, key: &str) -> bool {
        let Some(keys) = self.keys else { return false };
        self.get(key).is_none() && self.entries.iter().any(|e| !keys.has(&e.key) && keys.closest(&e.key) == Some(key))
    }

    fn string(&self, cx: &mut Reading<'_>, need: Need, key: &str, example: &str) -> Option<(&'t str, &'t Entry)> {
        let e = self.entry(cx, need, key, example)?;
        match &e.node.value {
            NodeValue::Str(s) => Some((s, e)),
            _ => {
                self.wrong_type(cx, e, "a string", example);
                None
            }
        }
    }

    /// Reports a value of the wrong kind.
    pub fn wrong_type(&self, cx: &mut Reading<'_>, e: &Entry, wanted: &str, example: &str) {
        cx.diags.error(
            "wrong-type",
            value_span(e),
            format!("`{}` must be {wanted}, not {}", self.name(&e.key), e.node.kind()),
            format!("write for example `{example}`"),
        );
    }

    fn empty(&self, cx: &mut Reading<'_>, e: &Entry, after: bool, example: &str) {
        let after = if after { " after interpolation" } else { "" };
        cx.diags.error(
            "empty",
            value_span(e),
            format!("`{}` is empty{after}", self.name(&e.key)),
            format!("write for example `{example}`"),
        );
    }

    /// A non-empty string that decides verdicts or names things: the hash of the file must cover it, so nothing may
    /// be interpolated into it.
    pub fn literal(&self, cx: &mut Reading<'_>, need: Need, key: &str, example: &str) -> Option<Spanned<String>> {
        let (s, e) = self.string(cx, need, key, example)?;
        self.literal_of(cx, s, e, example)
    }

    fn literal_of(&self, cx: &mut Reading<'_>, s: &str, e: &Entry, example: &str) -> Option<Spanned<String>> {
        if has_interpolation(s) {
            let unescaped = cx.diags.file().slice(e.node.span) == s;
            let first = [s.find("${env:"), s.find("${file:")].into_iter().flatten().min();
            let span = match first {
                Some(i) if unescaped => {
                    let len = s[i..].find('}').map_or(2, |n| n + 1);
                    Span::new(e.node.span.start + i, e.node.span.start + i + len)
                }
                _ => value_span(e),
            };
            cx.diags.error(
                "must-stand-in-file",
                span,
                format!("`{}` must stand in the file and cannot be interpolated", self.name(&e.key)),
                "write the value itself: the hash of this file stands in every verdict and must cover what decides it",
            );
            return None;
        }
        if s.trim().is_empty() {
            self.empty(cx, e, false, example);
            return None;
        }
        Some(Spanned::new(s.to_owned(), e.node.span))
    }

    /// A non-empty string that may be interpolated.
    pub fn text(&self, cx: &mut Reading<'_>, need: Need, key: &str, example: &str) -> Option<Text> {
        let text = self.text_maybe_empty(cx, need, key, example)?;
        if text.as_str().trim().is_empty()
            && let Some(e) = self.get(key)
        {
            self.empty(cx, e, text.is_interpolated(), example);
            return None;
        }
        Some(text)
    }

    /// A string that may be interpolated, and may be empty.
    pub fn text_maybe_empty(&self, cx: &mut Reading<'_>, need: Need, key: &str, example: &str) -> Option<Text> {
        let (raw, e) = self.string(cx, need, key, example)?;
        self.text_of(cx, raw, e)
    }

    /// One or several non-empty strings that may be interpolated.
    pub fn texts(&self, cx: &mut Reading<'_>, need: Need, key: &str, example: &str) -> Option<Vec<Text>> {
        let e = self.entry(cx, need, key, example)?;
        let NodeValue::Array(items) = &e.node.value else {
            return self.text(cx, need, key, example).map(|text| vec![text]);
        };
        if items.is_empty() {
            self.empty(cx, e, false, example);
            return None;
        }
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let as_entry = Entry { key: e.key.clone(), key_span: e.key_span, node: item.clone() };
            match &item.value {
                NodeValue::Str(raw) => match self.text_of(cx, raw, &as_entry) {
                    Some(text) if text.as_str().trim().is_empty() => {
                        self.empty(cx, &as_entry, text.is_interpolated(), example);
                    }
                    text => out.extend(text),
                },
                _ => self.wrong_type(cx, &as_entry, "an array of strings", example),
            }
        }
        (out.len() == items.len()).then_some(out)
    }

    fn text_of(&self, cx: &mut Reading<'_>, raw: &str, e: &Entry) -> Option<Text> {
        let key = e.key.as_str();
        match interpolate(raw, cx.dir, cx.env) {
            Ok(value) => Some(Text::new(raw, value, e.node.span)),
            Err(errors) if cx.offline && errors.iter().all(|e| e.is_missing()) && !decides(&self.path, key) => {
                Some(Text::new(raw, stand_in(&self.path, key), e.node.span))
            }
            Err(errors) => {
                for error in errors {
                    // Offsets in the value are offsets in the file as long as nothing in it is escaped.
                    let unescaped = cx.diags.file().slice(e.node.span) == raw;
                    let span = if unescaped {
                        let start = e.node.span.start + error.at();
                        let len = raw[error.at()..].find('}').map_or(2, |i| i + 1);
                        Span::new(start, start + len)
                    } else {
                        value_span(e)
                    };
                    cx.diags.error(error.code(), span, error.to_string(), error.help());
                }
                None
            }
        }
    }

    /// A secret. One that stands in the file itself is masked in every message, and warned of.
    pub fn secret(&self, cx: &mut Reading<'_>, need: Need, key: &str, example: &str) -> Option<Spanned<SecretString>> {
        // Masked before anything can be said about it.
        if let Some(e) = self.get(key)
            && !matches!(&e.node.value, NodeValue::Str(s) if has_interpolation(s) && !s.contains(":-"))
            && e.node.span.end > e.node.span.start
        {
            cx.diags.mask(e.node.span);
        }
        let text = self.text(cx, need, key, example)?;
        if !text.is_interpolated() {
            cx.diags.warning(
                "secret-in-file",
                text.span,
                format!("`{}` is a secret and stands in the pipeline file itself", self.name(key)),
                format!("keep it in a file or in the environment: `{example}`"),
            );
        }
        Some(Spanned::new(SecretString::new(text.as_str()), text.span))
    }

    /// A secret that must come from outside the file, because the file's canonical form is given to others.
    pub fn outside_secret(
        &self,
        cx: &mut Reading<'_>,
        need: Need,
        key: &str,
        example: &str,
    ) -> Option<Spanned<SecretString>> {
        let default_stands = |s: &str| s.split(":-").skip(1).any(|rest| !rest.starts_with('}'));
        if let Some(e) = self.get(key)
            && let NodeValue::Str(s) = &e.node.value
            && (!has_interpolation(s) || default_stands(s))
        {
            if e.node.span.end > e.node.span.start {
                cx.diags.mask(e.node.span);
            }
            cx.diags.error(
                "secret-in-file",
                value_span(e),
                format!(
                    "`{}` is a secret and stands in the pipeline file itself, which auditors are given",
                    self.name(key)
                ),
                format!("keep it in a file or in the environment: `{example}`"),
            );
            return None;
        }
        let text = self.text(cx, need, key, example)?;
        Some(Spanned::new(SecretString::new(text.as_str()), text.span))
    }

    /// An integer in `[min, max]`.
    pub fn int(
        &self,
        cx: &mut Reading<'_>,
        need: Need,
        key: &str,
        (min, max): (i64, i64),
        example: &str,
    ) -> Option<Spanned<i64>> {
        let e = self.entry(cx, need, key, example)?;
        let NodeValue::Int(i) = e.node.value else {
            self.wrong_type(cx, e, "an integer", example);
            return None;
        };
        if i < min || i > max {
            let range = if max == i64::MAX { format!("at least {min}") } else { format!("from {min} to {max}") };
            cx.diags.error(
                "out-of-range",
                e.node.span,
                format!("`{}` is {i}, but must be {range}", self.name(key)),
                format!("write for example `{example}`"),
            );
            return None;
        }
        Some(Spanned::new(i, e.node.span))
    }

    /// A number, written as an integer or a float.
    pub fn number(&self, cx: &mut Reading<'_>, need: Need, key: &str, example: &str) -> Option<Spanned<f64>> {
        let e = self.entry(cx, need, key, example)?;
        match e.node.value {
            NodeValue::Int(i) => Some(Spanned::new(i as f64, e.node.span)),
            NodeValue::Float(f) => Some(Spanned::new(f, e.node.span)),
            _ => {
                self.wrong_type(cx, e, "a number", example);
                None
            }
        }
    }

    /// A duration of at least `min` milliseconds that decides verdicts.
    pub fn literal_duration(
        &self,
        cx: &mut Reading<'_>,
        need: Need,
        key: &str,
        min: i64,
        example: &str,
    ) -> Option<Spanned<i64>> {
        let text = self.literal(cx, need, key, example)?;
        self.to_duration(cx, &Text::new(text.value.clone(), text.value, text.span), key, min, example)
    }

    /// A duration of at least `min` milliseconds that may be interpolated.
    pub fn duration(
        &self,
        cx: &mut Reading<'_>,
        need: Need,
        key: &str,
        min: i64,
        example: &str,
    ) -> Option<Spanned<i64>> {
        let text = self.text(cx, need, key, example)?;
        self.to_duration(cx, &text, key, min, example)
    }

    fn to_duration(
        &self,
        cx: &mut Reading<'_>,
        text: &Text,
        key: &str,
        min: i64,
        example: &str,
    ) -> Option<Spanned<i64>> {
        match units::parse_duration(text.as_str()) {
            Ok(ms) if ms >= min => Some(Spanned::new(ms, text.span)),
            Ok(_) => {
                cx.diags.error(
                    "out-of-range",
                    text.span,
                    format!("`{}` must be at least {}", self.name(key), units::format_duration(min)),
                    format!("write for example `{example}`"),
                );
                None
            }
            Err(e) => {
                let why = unit_error(&e, text);
                cx.diags.error(
                    "bad-duration",
                    text.span,
                    format!("`{}` is not a duration: {why}", self.name(key)),
                    format!("a whole number and one of ms, s, m, h, d: `{example}`; at most 3650d"),
                );
                None
            }
        }
    }

    /// A size in bytes, `[min, max]`: an integer, or a string with a unit.
    pub fn size(
        &self,
        cx: &mut Reading<'_>,
        need: Need,
        key: &str,
        (min, max): (i64, i64),
        example: &str,
    ) -> Option<Spanned<i64>> {
        let e = self.entry(cx, need, key, example)?;
        let NodeValue::Str(s) = &e.node.value else {
            if matches!(e.node.value, NodeValue::Int(_)) {
                return self.int(cx, need, key, (min, max), example);
            }
            self.wrong_type(cx, e, "a size", example);
            return None;
        };
        let text = self.literal_of(cx, s, e, example)?;
        match units::parse_size(&text.value) {
            Ok(n) if (min..=max).contains(&n) => Some(Spanned::new(n, text.span)),
            Ok(n) => {
                cx.diags.error(
                    "out-of-range",
                    text.span,
                    format!("`{}` is {n} bytes, but must be from {min} to {max}", self.name(key)),
                    format!("write for example `{example}`"),
                );
                None
            }
            Err(error) => {
                let why = unit_error(&error, &Text::new(s.as_str(), s.as_str(), text.span));
                cx.diags.error(
                    "bad-size",
                    text.span,
                    format!("`{}` is not a size: {why}", self.name(key)),
                    format!("a whole number and one of B, kB, MB, GB, KiB, MiB, GiB: `{example}`"),
                );
                None
            }
        }
    }

    /// An amount of ether, in wei: a string with a number and a unit. More than nothing.
    pub fn ether(&self, cx: &mut Reading<'_>, need: Need, key: &str, example: &str) -> Option<Spanned<u128>> {
        let text = self.literal(cx, need, key, example)?;
        let why = match units::parse_ether(&text.value) {
            Ok(0) => "it is nothing".to_owned(),
            Ok(wei) => return Some(Spanned::new(wei, text.span)),
            Err(error) => format!("`{}` {error}", text.value.escape_debug()),
        };
        cx.diags.error(
            "bad-amount",
            text.span,
            format!("`{}` is not an amount of ether: {why}", self.name(key)),
            format!("a number and one of wei, gwei, ether: `{example}`"),
        );
        None
    }

    /// An array of non-empty strings that decide verdicts or name things; a single string counts as an array of one
    /// where `one` allows it.
    pub fn literals(
        &self,
        cx: &mut Reading<'_>,
        need: Need,
        key: &str,
        one: bool,
        example: &str,
    ) -> Option<Vec<Spanned<String>>> {
        let e = self.entry(cx, need, key, example)?;
        let items = match &e.node.value {
            NodeValue::Array(items) => items,
            NodeValue::Str(s) if one => return self.literal_of(cx, s, e, example).map(|s| vec![s]),
            _ => {
                self.wrong_type(cx, e, "an array of strings", example);
                return None;
            }
        };
        if items.is_empty() {
            self.empty(cx, e, false, example);
            return None;
        }
        let mut out = Vec::with_capacity(items.len());
        let mut whole = true;
        for item in items {
            let as_entry = Entry { key: e.key.clone(), key_span: e.key_span, node: item.clone() };
            let read = match &item.value {
                NodeValue::Str(s) => self.literal_of(cx, s, &as_entry, example),
                _ => {
                    self.wrong_type(cx, &as_entry, "an array of strings", example);
                    None
                }
            };
            match read {
                Some(s) => out.push(s),
                None => whole = false,
            }
        }
        whole.then_some(out)
    }

    /// One of a fixed set of names.
    pub fn choice(
        &self,
        cx: &mut Reading<'_>,
        need: Need,
        key: &str,
        choices: &Choices,
        example: &str,
    ) -> Option<Spanned<&'static str>> {
        let text = self.literal(cx, need, key, example)?;
        if let Some(known) = choices.known.iter().find(|k| **k == text.value) {
            return Some(Spanned::new(known, text.span));
        }
        if choices.planned.contains(&text.value.as_str()) {
            let what = format!("the {} `{}`", choices.what, text.value);
            unsupported(cx, text.span, &what, &format!("use {}", either(choices.known)));
        } else {
            let all = choices.known.iter().chain(choices.planned).copied();
            let help = match closest(&text.value, all) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("use {}", either(choices.known)),
            };
            cx.diags.error(
                "unknown-value",
                text.span,
                format!("`{}` is not a {}", text.value.escape_debug(), choices.what),
                help,
            );
        }
        None
    }

    /// A sub-table with a fixed set of keys.
    pub fn table(
        &self,
        cx: &mut Reading<'_>,
        need: Need,
        key: &str,
        keys: &'static Keys,
        example: &str,
    ) -> Option<Fields<'t>> {
        let e = self.entry(cx, need, key, example)?;
        Fields::open(cx, &e.node, &self.name(key), e.key_span, keys, example)
    }
}

/// Whether a value that may be interpolated is needed to judge readings.
fn decides(path: &str, key: &str) -> bool {
    let of = |table: &str| path.strip_prefix(table).is_some_and(|rest| rest.starts_with('.'));
    of("steps") || of("references") || key == "descriptor" || path.ends_with(".descriptor")
}

/// A value that is well-formed and leads nowhere, in the place of one that is missing.
fn stand_in(path: &str, key: &str) -> String {
    let of_source = path.strip_prefix("sources.").is_some_and(|name| !name.contains('.'));
    match key {
        "url" if of_source => "mqtt://unset.invalid".into(),
        "rpc" | "url" | "endpoint" | "token_endpoint" | "generator_url" => "http://unset.invalid".into(),
        "brokers" => "unset.invalid:9092".into(),
        "aws_kms" => "alias/unset".into(),
        "listen" => "127.0.0.1:9464".into(),
        "fleet" => format!("0x{}", "11".repeat(32)),
        "contract" => format!("0x{}", "11".repeat(20)),
        "key" => format!("0x{}", "11".repeat(32)),
        "store" | "cache" => "file://./unset".into(),
        "path" if of_source => "unset.jsonl".into(),
        "path" => "file://./unset".into(),
        "every" | "interval" | "max_merge_delay" | "session_timeout" | "timeout" | "resolve_after" => "10s".into(),
        _ => "unset-unset-unset-unset".into(),
    }
}

/// Where to point for a value. An empty array or table still has its brackets; the key is the fallback.
pub(super) fn value_span(e: &Entry) -> Span {
    if e.node.span.end > e.node.span.start { e.node.span } else { e.key_span }
}

/// Reports something the language has and this version has not.
pub(super) fn unsupported(cx: &mut Reading<'_>, span: Span, what: &str, instead: &str) {
    cx.diags.error(
        "not-supported-yet",
        span,
        format!("{what} is part of the pipeline language, but this version of avouch does not support it yet"),
        instead,
    );
}

fn unit_error(e: &UnitError, text: &Text) -> String {
    if text.is_interpolated() {
        // Neither the value nor a part of it: it came from outside and may be a secret put in the wrong place.
        return format!("the value of `{}` cannot be read as one", text.raw());
    }
    format!("`{}` {e}", text.raw().escape_debug())
}

/// The candidate a person most likely meant.
pub(crate) fn closest<'c>(typed: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let typed = typed.to_lowercase();
    candidates
        .map(|c| (strsim::damerau_levenshtein(&typed, c), strsim::jaro_winkler(&typed, c), c))
        .filter(|(edits, alike, c)| *edits <= 1.max(c.chars().count() / 3) || *alike > 0.9)
        .min_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(b.2)))
        .map(|(_, _, c)| c)
}

/// `` `a`, `b` and `c` ``.
pub(crate) fn list<S: AsRef<str>>(names: &[S]) -> String {
    joined(names, "and")
}

/// `` `a`, `b` or `c` ``.
pub(super) fn either<S: AsRef<str>>(names: &[S]) -> String {
    joined(names, "or")
}

fn joined<S: AsRef<str>>(names: &[S], word: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("`{}`", n.as_ref())).collect();
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {word} {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name() {
        let names = ["topic", "brokers", "group", "max_record_bytes"];
        assert_eq!(closest("topc", names.into_iter()), Some("topic"));
        assert_eq!(closest("Topic", names.into_iter()), Some("topic"));
        assert_eq!(closest("max_record_byte", names.into_iter()), Some("max_record_bytes"));
        assert_eq!(closest("colour", names.into_iter()), None);
        assert_eq!(closest("", names.into_iter()), None);
    }

    #[test]
    fn lists() {
        assert_eq!(list(&["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(either(&["a", "b"]), "`a` or `b`");
        assert_eq!(list(&["a"]), "`a`");
        assert_eq!(list::<&str>(&[]), "none");
    }
}
