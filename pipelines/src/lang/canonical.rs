//! The canonical form of a pipeline file, and its hash, which stands in every verdict as `configHash`.
//!
//! The canonical form is one JSON value in UTF-8, made from the TOML tree *before* interpolation, so that neither the
//! environment nor any secret file changes it. To the byte:
//!
//! - A table is `{"key":value,…}`, its keys sorted by their UTF-8 bytes. An array is `[value,…]` in its order.
//!   There is no whitespace between tokens and no newline at the end.
//! - An integer is its decimal digits, with `-` in front of a negative one.
//! - A float is written as ECMAScript's `Number::toString` writes it (and RFC 8785 with it): the fewest digits that
//!   read back as the same double; plain from 1e-6 up to below 1e21, else as `d.ddde±x`; `-0.0` is `0`. A float
//!   without a fraction therefore looks like the integer of the same value: `1.0` and `1` are the same setting.
//! - A boolean is `true` or `false`.
//! - A string stands between `"`, with `\"`, `\\`, `\b`, `\t`, `\n`, `\f`, `\r` for these, `\u00xx` (lower-case
//!   hexadecimal) for every other character below U+0020, and everything else as it is.
//!
//! The table `checkpoint` of `[pipeline]` is left out: where and how often a lane is saved decides no verdict, and lanes must
//! be able to move to another store without becoming another pipeline's. So is `tests` of the file: what a pipeline is held
//! against decides no verdict either. So are `tap` and `log` of `[http]`, and a table `[http]` that has nothing else in it: whether somebody may
//! look on decides no verdict.
//!
//! Comments, formatting, the kind of quotes, `[header]` or `{inline}` or dotted keys, and the order of keys and tables
//! do not survive into it, so they do not change the hash. Nothing that decides a verdict may depend on what does not
//! survive: the lane takes fields and steps in the order of their names, and values that decide verdicts refuse
//! interpolation.
//!
//! `config_hash` is SHA-256 of these bytes.

use std::sync::Arc;

use avouch_engine::verdict::Hash32;
use sha2::{Digest, Sha256};

use super::diagnostics::Diagnostics;
use super::span::SourceFile;
use super::tree::{self, Node, NodeValue};

/// A pipeline's canonical form and hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Canonical {
    /// The canonical JSON.
    pub json: String,
    /// SHA-256 of [`Canonical::json`].
    pub hash: Hash32,
}

impl std::fmt::Debug for Canonical {
    // Only the hash: a literal secret would stand in the JSON.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Canonical({})", hex(&self.hash))
    }
}

impl Canonical {
    /// The canonical form of a pipeline file's text, which must be TOML but need not be a valid pipeline. Needs
    /// neither the environment nor any other file.
    pub fn of(file: &Arc<SourceFile>) -> Result<Self, Diagnostics> {
        Ok(Self::of_tree(&tree::parse(file)?))
    }

    pub(super) fn of_tree(node: &Node) -> Self {
        let mut json = String::new();
        write_node(node, &LEFT_OUT, &mut json);
        let hash = Sha256::digest(json.as_bytes()).into();
        Self { json, hash }
    }
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// What decides no verdict, by the path of its keys.
const LEFT_OUT: [&[&str]; 4] = [&["pipeline", "checkpoint"], &["tests"], &["http", "tap"], &["http", "log"]];

/// Whether an entry is left out: it lies at one of the paths, or it is the table of some and has nothing else in it.
fn gone(entry: &tree::Entry, left_out: &[&[&str]]) -> bool {
    left_out.iter().any(|path| match path {
        [key] => entry.key == *key,
        [table, _] => {
            let below = |key: &str| left_out.iter().any(|other| *other == [*table, key]);
            let only = |entries: &[tree::Entry]| !entries.is_empty() && entries.iter().all(|e| below(&e.key));
            entry.key == *table && matches!(&entry.node.value, NodeValue::Table(entries) if only(entries))
        }
        _ => false,
    })
}

/// Writes a node, without what lies at the paths `left_out` below it.
fn write_node(node: &Node, left_out: &[&[&str]], out: &mut String) {
    match &node.value {
        NodeValue::Str(s) => write_string(s, out),
        NodeValue::Int(i) => out.push_str(&i.to_string()),
        NodeValue::Float(f) => write_float(*f, out),
        NodeValue::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        NodeValue::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_node(item, &[], out);
            }
            out.push(']');
        }
        NodeValue::Table(entries) => {
            let mut entries: Vec<_> = entries.iter().filter(|e| !gone(e, left_out)).collect();
            entries.sort_by(|a, b| a.key.as_bytes().cmp(b.key.as_bytes()));
            out.push('{');
            for (i, e) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(&e.key, out);
                out.push(':');
                let below = left_out.iter().filter(|path| path.first() == Some(&e.key.as_str()));
                let below: Vec<&[&str]> = below.map(|path| &path[1..]).collect();
                write_node(&e.node, &below, out);
            }
            out.push('}');
        }
    }
}

fn write_string(s: &str, out: &mut String) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// ECMAScript's `Number::toString` of a finite double.
fn write_float(value: f64, out: &mut String) {
    if value == 0.0 {
        out.push('0');
        return;
    }
    if value < 0.0 {
        out.push('-');
    }
    // Rust's `{:e}` gives the shortest digits that read back as the same double, which is what ECMAScript asks for.
    let text = format!("{:e}", value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let k = digits.len() as i32;
    // The value is 0.digits × 10^n.
    let n = exponent + 1;
    if k <= n && n <= 21 {
        out.push_str(&digits);
        out.extend(std::iter::repeat_n('0', (n - k) as usize));
    } else if 0 < n && n <= 21 {
        out.push_str(&digits[..n as usize]);
        out.push('.');
        out.push_str(&digits[n as usize..]);
    } else if -6 < n && n <= 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-n) as usize));
        out.push_str(&digits);
    } else {
        out.push_str(&digits[..1]);
        if k > 1 {
            out.push('.');
            out.push_str(&digits[1..]);
        }
        out.push_str(&format!("e{}{}", if n > 0 { '+' } else { '-' }, (n - 1).abs()));
    }
}

/// A pipeline file that has this canonical form: what an auditor reads a pipeline from who has nothing else of it. `None` if it is no
/// JSON object.
pub fn toml_of_canonical(json: &str) -> Option<String> {
    let serde_json::Value::Object(tables) = serde_json::from_str(json).ok()? else { return None };
    let mut out = String::new();
    for (key, value) in &tables {
        write_string(key, &mut out);
        out.push_str(" = ");
        write_toml(value, &mut out)?;
        out.push('\n');
    }
    Some(out)
}

/// As an inline value of TOML, whose strings may be written as those of JSON are here.
fn write_toml(value: &serde_json::Value, out: &mut String) -> Option<()> {
    use serde_json::Value;
    let list = |open, close, n: usize, out: &mut String, item: &mut dyn FnMut(usize, &mut String) -> Option<()>| {
        out.push(open);
        for i in 0..n {
            if i > 0 {
                out.push_str(", ");
            }
            item(i, out)?;
        }
        out.push(close);
        Some(())
    };
    match value {
        // TOML has none.
        Value::Null => return None,
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(s) => write_string(s, out),
        Value::Array(items) => list('[', ']', items.len(), out, &mut |i, out| write_toml(&items[i], out))?,
        Value::Object(entries) => {
            let entries: Vec<_> = entries.iter().collect();
            list('{', '}', entries.len(), out, &mut |i, out| {
                write_string(entries[i].0, out);
                out.push_str(" = ");
                write_toml(entries[i].1, out)
            })?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(text: &str) -> String {
        Canonical::of(&Arc::new(SourceFile::new("p.toml", text))).unwrap().json
    }

    #[test]
    fn to_the_byte() {
        let text = r#"
            # a comment
            version = 1
            z = { b = [1, 2.50, "ä\t\u0001\"\\/"], a = true }
            n = 10_000
            h = 0xff
            [pipeline]
            name = 'x'
        "#;
        let json = of(text);
        assert_eq!(
            json,
            "{\"h\":255,\"n\":10000,\"pipeline\":{\"name\":\"x\"},\"version\":1,\
             \"z\":{\"a\":true,\"b\":[1,2.5,\"ä\\t\\u0001\\\"\\\\/\"]}}"
        );
        // An outside reader of JSON agrees on what it says.
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["z"]["b"][2], "ä\t\u{1}\"\\/");
    }

    #[test]
    fn where_checkpoints_lie_is_not_in_it() {
        let rest = "{\"checkpoint\":{\"checkpoint\":1},\"pipeline\":{\"name\":\"x\"}}";
        for text in [
            "pipeline = { name = 'x' }\ncheckpoint.checkpoint = 1",
            "[pipeline]\nname = 'x'\ncheckpoint = { store = 's3://a/b', every = '5s' }\n[checkpoint]\ncheckpoint = 1",
            "checkpoint.checkpoint = 1\n[pipeline]\nname = 'x'\n[pipeline.checkpoint]\nkeep = 9",
        ] {
            assert_eq!(of(text), rest);
        }
    }

    #[test]
    fn tests_are_not_in_it() {
        let rest = "{\"steps\":{\"tests\":{\"tests\":1}},\"version\":1}";
        for text in [
            "version = 1\nsteps.tests.tests = 1",
            "version = 1\n[steps.tests]\ntests = 1\n[[tests]]\nname = 'a'\ninput = 'x.jsonl'\n[[tests]]\nname = 'b'",
            "version = 1\ntests = [{ name = 'c', expect = { late = 2 } }]\n[steps.tests]\ntests = 1",
        ] {
            assert_eq!(of(text), rest);
        }
    }

    #[test]
    fn that_somebody_may_look_on_is_not_in_it() {
        assert_eq!(of("version = 1\n[http]\ntap = true"), of("version = 1"));
        assert_eq!(of("version = 1\n[http]\ntap = true\nlog = true"), of("version = 1"));
        let listens = "{\"http\":{\"listen\":\"a:1\"},\"version\":1}";
        assert_eq!(of("version = 1\n[http]\ntap = true\nlisten = 'a:1'"), listens);
        assert_eq!(of("version = 1\nhttp.listen = 'a:1'"), listens);
        assert_eq!(of("version = 1\n[http]"), "{\"http\":{},\"version\":1}");
        assert_eq!(of("tap = 1\n[a.http]\ntap = 2"), "{\"a\":{\"http\":{\"tap\":2}},\"tap\":1}");
    }

    #[test]
    fn the_hash_is_sha256_of_the_json() {
        let c = Canonical::of(&Arc::new(SourceFile::new("p.toml", "version = 1\n"))).unwrap();
        assert_eq!(c.json, "{\"version\":1}");
        // printf '{"version":1}' | sha256sum
        assert_eq!(hex(&c.hash), "2430f1a2ad2982d0067885488a4c89e21ad1d7c83b115ba8f1b20acc88dfaea8");
    }

    #[test]
    fn a_file_made_of_it_has_it() {
        for text in [
            "version = 1\nz = { b = [1, 2.50, 'ä\\u0001', { c = [] }], a = true }\n[pipeline]\nname = 'x\"y\\'\nn = -4\n",
            "a = 1e30\nb = 1e-9\nc = 123456789.125\n'a key' = { 'b.c' = {} }",
            "s = \"\"\"\n two\n lines\t\"\"\"",
        ] {
            let json = of(text);
            assert_eq!(of(&toml_of_canonical(&json).unwrap()), json);
        }
        assert_eq!(toml_of_canonical("[1]"), None);
        assert_eq!(toml_of_canonical("{\"a\":null}"), None);
    }

    #[test]
    fn floats_as_rfc_8785_writes_them() {
        // From RFC 8785, appendix B.
        for (bits, text) in [
            (0x0000000000000000u64, "0"),
            (0x8000000000000000, "0"),
            (0x0000000000000001, "5e-324"),
            (0x8000000000000001, "-5e-324"),
            (0x7fefffffffffffff, "1.7976931348623157e+308"),
            (0x4340000000000000, "9007199254740992"),
            (0xc340000000000000, "-9007199254740992"),
            (0x4430000000000000, "295147905179352830000"),
            (0x44b52d02c7e14af5, "9.999999999999997e+22"),
            (0x44b52d02c7e14af6, "1e+23"),
            (0x44b52d02c7e14af7, "1.0000000000000001e+23"),
            (0x444b1ae4d6e2ef4e, "999999999999999700000"),
            (0x444b1ae4d6e2ef50, "1e+21"),
            (0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"),
            (0x3eb0c6f7a0b5ed8d, "0.000001"),
            (0x41b3de4355555553, "333333333.3333332"),
            (0x41b3de4355555557, "333333333.33333343"),
            (0xbecbf647612f3696, "-0.0000033333333333333333"),
        ] {
            let mut out = String::new();
            write_float(f64::from_bits(bits), &mut out);
            assert_eq!(out, text);
        }
    }
}
