//! As much of JSON Schema as the language's schema uses. A keyword that it does not know is a mistake, too.

use serde_json::Value;

/// What a schema finds wrong with a value.
pub fn mistakes(root: &Value, value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    check(root, root, value, "", &mut out);
    out
}

fn fits(root: &Value, schema: &Value, value: &Value) -> bool {
    let mut out = Vec::new();
    check(root, schema, value, "", &mut out);
    out.is_empty()
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    let mut say = |what: String| out.push(format!("{at}: {what}"));
    let keywords = schema.as_object().unwrap();
    let (text, number) = (value.as_str(), value.as_f64());
    let (table, array) = (value.as_object(), value.as_array());
    let count = |v: &Value| v.as_u64().unwrap() as usize;
    for (keyword, with) in keywords {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "default" | "$defs" | "then" => {}
            "type" => {
                let right = match with.as_str().unwrap() {
                    "object" => table.is_some(),
                    "array" => array.is_some(),
                    "string" => text.is_some(),
                    "boolean" => value.is_boolean(),
                    "number" => number.is_some(),
                    "integer" => number.is_some_and(|n| n.fract() == 0.0) && !value.is_f64(),
                    other => panic!("the type {other}"),
                };
                if !right {
                    say(format!("is no {with}"));
                }
            }
            "const" if with != value => say(format!("is not {with}")),
            "enum" if !with.as_array().unwrap().contains(value) => say(format!("is none of {with}")),
            "const" | "enum" => {}
            "pattern" if text.is_some_and(|t| !matches(with.as_str().unwrap(), t)) => {
                say(format!("does not match {with}"));
            }
            "pattern" => {}
            "minLength" if text.is_some_and(|t| t.chars().count() < count(with)) => say("is too short".into()),
            "maxLength" if text.is_some_and(|t| t.chars().count() > count(with)) => say("is too long".into()),
            "minItems" if array.is_some_and(|a| a.len() < count(with)) => say("has too few items".into()),
            "maxItems" if array.is_some_and(|a| a.len() > count(with)) => say("has too many items".into()),
            "minProperties" if table.is_some_and(|t| t.len() < count(with)) => say("has too few keys".into()),
            "minimum" if number.is_some_and(|n| n < with.as_f64().unwrap()) => say("is too small".into()),
            "maximum" if number.is_some_and(|n| n > with.as_f64().unwrap()) => say("is too large".into()),
            "exclusiveMinimum" if number.is_some_and(|n| n <= with.as_f64().unwrap()) => say("is too small".into()),
            "exclusiveMaximum" if number.is_some_and(|n| n >= with.as_f64().unwrap()) => say("is too large".into()),
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" => {}
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {}
            "required" => {
                for name in with.as_array().unwrap().iter().filter_map(Value::as_str) {
                    if table.is_some_and(|t| !t.contains_key(name)) {
                        say(format!("lacks {name}"));
                    }
                }
            }
            "dependentRequired" => {
                for (name, needs) in with.as_object().unwrap() {
                    for other in needs.as_array().unwrap().iter().filter_map(Value::as_str) {
                        if table.is_some_and(|t| t.contains_key(name) && !t.contains_key(other)) {
                            say(format!("has {name} but lacks {other}"));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    for (keyword, with) in keywords {
        match keyword.as_str() {
            "$ref" => {
                let name = with.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                check(root, &root["$defs"][name], value, at, out);
            }
            "properties" => {
                for (name, schema) in with.as_object().unwrap() {
                    if let Some(v) = value.get(name) {
                        check(root, schema, v, &format!("{at}.{name}"), out);
                    }
                }
            }
            "additionalProperties" => {
                for (name, v) in table.into_iter().flatten() {
                    if keywords.get("properties").is_some_and(|p| p.get(name).is_some()) {
                        continue;
                    }
                    match with {
                        Value::Bool(false) => out.push(format!("{at}: has the unknown key {name}")),
                        schema => check(root, schema, v, &format!("{at}.{name}"), out),
                    }
                }
            }
            "propertyNames" => {
                for name in table.into_iter().flat_map(|t| t.keys()) {
                    check(root, with, &Value::from(name.as_str()), &format!("{at}.{name}"), out);
                }
            }
            "items" => {
                for (i, v) in array.into_iter().flatten().enumerate() {
                    check(root, with, v, &format!("{at}[{i}]"), out);
                }
            }
            "allOf" => with.as_array().unwrap().iter().for_each(|s| check(root, s, value, at, out)),
            "anyOf" if !with.as_array().unwrap().iter().any(|s| fits(root, s, value)) => {
                out.push(format!("{at}: is none of what it may be"));
            }
            "oneOf" if with.as_array().unwrap().iter().filter(|s| fits(root, s, value)).count() != 1 => {
                out.push(format!("{at}: is not exactly one of what it may be"));
            }
            "not" if fits(root, with, value) => out.push(format!("{at}: has what contradicts itself")),
            "if" if fits(root, with, value) => check(root, &keywords["then"], value, at, out),
            "anyOf" | "oneOf" | "not" | "if" => {}
            "$schema" | "title" | "description" | "default" | "$defs" | "then" | "type" | "const" | "enum"
            | "pattern" | "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "minimum"
            | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "required" | "dependentRequired" => {}
            other => panic!("the keyword {other}"),
        }
    }
}

/// A regular expression of ECMAScript, as far as the schema has them: anchors, groups of alternatives, classes, `\S`,
/// escaped characters, `*` and `+`.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    (0..=text.len()).any(|from| !ends(&pattern, &text, from).is_empty())
}

/// Where a match of the pattern that begins at `from` can end.
fn ends(pattern: &[char], text: &[char], from: usize) -> Vec<usize> {
    let Some(first) = pattern.first() else { return vec![from] };
    if *first == '^' {
        return if from == 0 { ends(&pattern[1..], text, from) } else { Vec::new() };
    }
    if *first == '$' {
        return if from == text.len() { ends(&pattern[1..], text, from) } else { Vec::new() };
    }
    let len = match first {
        '\\' => 2,
        '[' => pattern.iter().position(|c| *c == ']').unwrap() + 1,
        '(' => pattern.iter().position(|c| *c == ')').unwrap() + 1,
        _ => 1,
    };
    let (atom, mut rest) = pattern.split_at(len);
    let once = |at: usize| -> Vec<usize> {
        if *first == '(' {
            let inside = &atom[1..atom.len() - 1];
            return inside.split(|c| *c == '|').flat_map(|way| ends(way, text, at)).collect();
        }
        let Some(c) = text.get(at) else { return Vec::new() };
        let fits = match atom {
            ['\\', 'S'] => !c.is_whitespace(),
            ['\\', escaped] => c == escaped,
            ['[', class @ .., ']'] => in_class(class, *c),
            [plain] => c == plain,
            _ => panic!("{atom:?}"),
        };
        if fits { vec![at + 1] } else { Vec::new() }
    };
    let mut reached = vec![from];
    match rest.first() {
        Some(times @ ('*' | '+')) => {
            let at_least_once = *times == '+';
            rest = &rest[1..];
            let mut all: Vec<usize> = if at_least_once { Vec::new() } else { vec![from] };
            while !reached.is_empty() {
                reached = reached.into_iter().flat_map(once).filter(|e| !all.contains(e)).collect();
                all.extend(&reached);
            }
            reached = all;
        }
        _ => reached = reached.into_iter().flat_map(once).collect(),
    }
    reached.into_iter().flat_map(|at| ends(rest, text, at)).collect()
}

fn in_class(class: &[char], c: char) -> bool {
    let mut at = 0;
    while at < class.len() {
        if class.get(at + 1) == Some(&'-') && at + 2 < class.len() {
            if (class[at]..=class[at + 2]).contains(&c) {
                return true;
            }
            at += 3;
        } else {
            if class[at] == c {
                return true;
            }
            at += 1;
        }
    }
    false
}

#[test]
fn what_patterns_match() {
    for (pattern, yes, no) in [
        (r"\S", "a", " "),
        ("^0*[1-9][0-9]*(ms|s|m|h|d)$", "010s", "0s"),
        (r"\$\{(env|file):", "x ${env:A}", "$(env:A)"),
        ("^[a-z][a-z0-9_]*$", "a_1", "1a"),
        ("^[0-9]+(B|kB|MB|GB|KiB|MiB|GiB)$", "10MiB", "10 MiB"),
        (r"^[0-9]+(\.[0-9]+ |\.[0-9]+| |)(wei|gwei|ether)$", "0.05 ether", "1.2.3 gwei"),
    ] {
        assert!(matches(pattern, yes), "{pattern} {yes}");
        assert!(!matches(pattern, no), "{pattern} {no}");
    }
}
