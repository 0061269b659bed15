//! The JSON Schema of the language (draft 2020-12), made of what the readers declare: `avouch schema` prints it, editors
//! complete and document every key by it. It refuses no file that the readers accept.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_engine::spec::FieldType;
use serde_json::{Map, Value, json};

use super::diagnostics::Diagnostics;
use super::fields::Reading;
use super::interpolate::Environment;
use super::keys::{Key, Keys, Kind, Rule};
use super::span::SourceFile;
use super::structure::{self, FILE};
use super::tree;

/// What stands where a value comes from outside the file.
const OUTSIDE: &str = r"\$\{(env|file):";
const THRESHOLD: &str = r"^[ ]*(value|lower|upper|p_value)[ ]*(<=|>=|<|>)[ ]*[-+0-9.eE]+[ ]*$";
const NOT_BLANK: &str = r"\S";
const NAME: &str = "^[a-z][a-z0-9_]*$";

/// The schema of a whole pipeline file.
pub fn json_schema() -> Value {
    let mut defs = BTreeMap::new();
    let mut root = table(&FILE, &mut defs);
    if let Some(map) = root.as_object_mut() {
        map.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
        map.insert("title".into(), "Avouch pipeline, version 1".into());
        map.insert("$defs".into(), defs.into_iter().collect::<Map<_, _>>().into());
    }
    root
}

/// [`json_schema`] as it is printed and committed.
pub fn text() -> String {
    format!("{:#}\n", json_schema())
}

/// Every key of every table that the schema has, as `table.key`.
pub fn declared() -> Vec<String> {
    let mut defs = BTreeMap::new();
    let root = table(&FILE, &mut defs);
    let tables = defs.iter().map(|(name, t)| (name.as_str(), t)).chain([("file", &root)]);
    let mut out = Vec::new();
    for (name, table) in tables {
        let keys = table["properties"].as_object().into_iter().flat_map(Map::keys);
        out.extend(keys.map(|key| format!("{name}.{key}")));
    }
    out.sort();
    out
}

/// Every key that the readers ask for while they read a file, in the same form.
///
/// # Errors
/// When the file is not TOML.
pub fn asked(file: &Arc<SourceFile>, env: &dyn Environment) -> Result<Vec<String>, Diagnostics> {
    let root = tree::parse(file)?;
    let dir = file.dir();
    let mut cx =
        Reading { env, dir: &dir, offline: false, diags: Diagnostics::new(file.clone()), asked: Default::default() };
    structure::read(&mut cx, &root);
    Ok(cx.asked.borrow().iter().map(|(table, key)| format!("{table}.{key}")).collect())
}

fn reference(keys: &'static Keys, defs: &mut BTreeMap<String, Value>) -> Value {
    let made_before = defs.contains_key(keys.name);
    if !made_before {
        // Before its keys are looked at, so that a table in itself would end.
        defs.insert(keys.name.to_owned(), Value::Null);
        let made = table(keys, defs);
        defs.insert(keys.name.to_owned(), made);
    }
    json!({ "$ref": format!("#/$defs/{}", keys.name) })
}

fn table(keys: &'static Keys, defs: &mut BTreeMap<String, Value>) -> Value {
    let properties: Map<String, Value> =
        keys.known.iter().map(|k| (k.name.to_owned(), property(keys, k, defs))).collect();
    let required: Vec<&str> = keys.known.iter().filter(|k| k.must).map(|k| k.name).collect();
    let mut out = json!({
        "type": "object",
        "description": keys.doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    });
    let mut all = Vec::new();
    for rule in keys.rules {
        match rule {
            Rule::NotEmpty => out["minProperties"] = 1.into(),
            Rule::Needs(one, other) => all.push(json!({ "dependentRequired": { *one: [other] } })),
            Rule::Not(one, other) => all.push(json!({ "not": { "required": [one, other] } })),
            Rule::OneOf(names) => {
                let each: Vec<Value> = names.iter().map(|n| json!({ "required": [n] })).collect();
                all.push(json!({ "anyOf": each }));
            }
            Rule::When(key, words, must) => all.push(json!({
                "if": { "properties": { *key: { "enum": words } }, "required": [key] },
                "then": { "required": must },
            })),
        }
    }
    if !all.is_empty() {
        out["allOf"] = all.into();
    }
    out
}

fn property(keys: &Keys, key: &Key, defs: &mut BTreeMap<String, Value>) -> Value {
    let mut out = value(&key.is, defs);
    let mut doc = key.doc.to_owned();
    if let Some(default) = key.default {
        doc.push_str(&format!(" Default: {default}."));
        if let Ok(default) = serde_json::from_str::<Value>(&default.replace('_', "")) {
            out["default"] = default;
        }
    }
    let outside = match key.is {
        Kind::Text | Kind::AnyText | Kind::OneOrMore | Kind::Duration(_) => " May be interpolated.",
        Kind::Secret if keys.name != "file" => " Keep it in a file or in the environment.",
        _ => "",
    };
    doc.push_str(outside);
    out["description"] = doc.into();
    out
}

fn one_of(tables: &[&'static Keys], defs: &mut BTreeMap<String, Value>) -> Value {
    let mut each: Vec<Value> = tables.iter().map(|t| reference(t, defs)).collect();
    match each.len() {
        1 => each.remove(0),
        _ => json!({ "oneOf": each }),
    }
}

fn value(kind: &Kind, defs: &mut BTreeMap<String, Value>) -> Value {
    match kind {
        Kind::Text | Kind::Secret => json!({ "type": "string", "pattern": NOT_BLANK }),
        Kind::AnyText => json!({ "type": "string" }),
        Kind::Literal => json!({ "type": "string", "pattern": NOT_BLANK }),
        Kind::OutsideSecret => json!({ "type": "string", "pattern": OUTSIDE }),
        Kind::Is(word) => json!({ "const": word }),
        Kind::Choice(choices) => json!({ "enum": choices.known }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Character => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
        Kind::Version => json!({ "const": 1 }),
        Kind::Int(min, max) => {
            let mut out = json!({ "type": "integer", "minimum": min });
            if *max != i64::MAX {
                out["maximum"] = (*max).into();
            }
            out
        }
        Kind::Number(min, max, _) if *min == f64::MIN && *max == f64::MAX => json!({ "type": "number" }),
        Kind::Number(min, max, true) => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Number(min, max, false) => {
            json!({ "type": "number", "exclusiveMinimum": min, "exclusiveMaximum": max })
        }
        Kind::Threshold => json!({ "anyOf": [
            { "type": "number", "exclusiveMinimum": 0.0, "exclusiveMaximum": 1.0 },
            { "type": "string", "pattern": THRESHOLD },
        ] }),
        Kind::AutoOrShare => json!({ "anyOf": [{ "const": "auto" }, { "type": "number" }] }),
        Kind::Ranges => {
            let pair = json!({ "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 2 });
            json!({ "type": "array", "items": pair, "minItems": 1 })
        }
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::LiteralDuration(min) => json!({ "type": "string", "pattern": duration(*min) }),
        Kind::Duration(min) => json!({
            "anyOf": [{ "type": "string", "pattern": duration(*min) }, { "type": "string", "pattern": OUTSIDE }],
        }),
        Kind::Size(min, max) => {
            let mut bytes = json!({ "type": "integer", "minimum": min });
            if *max != i64::MAX {
                bytes["maximum"] = (*max).into();
            }
            json!({ "anyOf": [bytes, { "type": "string", "pattern": "^[0-9]+(B|kB|MB|GB|KiB|MiB|GiB)$" }] })
        }
        Kind::Names(one) => {
            let name = json!({ "type": "string", "pattern": NOT_BLANK });
            let several = json!({ "type": "array", "items": name, "minItems": 1 });
            if *one { json!({ "anyOf": [name, several] }) } else { several }
        }
        Kind::OneOrMore => {
            let text = json!({ "type": "string", "pattern": NOT_BLANK });
            json!({ "anyOf": [text, { "type": "array", "items": text, "minItems": 1 }] })
        }
        Kind::Ether => json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]+ |\\.[0-9]+| |)(wei|gwei|ether)$" }),
        Kind::Fields => {
            let types: Vec<String> =
                FieldType::ALL.iter().flat_map(|(n, _)| [(*n).to_owned(), format!("{n}!")]).collect();
            json!({ "type": "object", "additionalProperties": { "enum": types }, "minProperties": 1 })
        }
        Kind::Table(keys) => reference(keys, defs),
        Kind::OneOf(tables) => one_of(tables, defs),
        Kind::Named(tables) => json!({
            "type": "object",
            "propertyNames": { "pattern": NAME, "maxLength": 63 },
            "additionalProperties": one_of(tables, defs),
        }),
        Kind::Tables(keys) => json!({ "type": "array", "items": reference(keys, defs) }),
        Kind::TablesOf(tables) => json!({ "type": "array", "items": one_of(tables, defs) }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Ints => json!({ "type": "array", "items": { "type": "integer", "minimum": 0 } }),
        Kind::TextOr(keys) => {
            json!({ "anyOf": [{ "type": "string", "pattern": NOT_BLANK }, reference(keys, defs)] })
        }
    }
}

/// A whole number and a unit; with a least of more than nothing, not zero.
fn duration(min: i64) -> &'static str {
    if min > 0 { "^0*[1-9][0-9]*(ms|s|m|h|d)$" } else { "^[0-9]+(ms|s|m|h|d)$" }
}
