//! What differs between two versions of a pipeline file, and when each difference takes effect.

use serde_json::Value;

use super::pipeline::{Pipeline, SourceKind};

/// When a changed key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// At once, by a reload.
    Reload,
    /// When the process is started again, for this reason.
    Restart(&'static str),
    /// Never under the same name: the log would be another one.
    NewName(&'static str),
}

/// A key whose value differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path, such as `steps.anomaly.decide.severity.warning`.
    pub key: String,
    /// When it takes effect.
    pub takes: Takes,
}

/// Where lanes and their input lie.
const CONNECTION: &str = "the connection to the source stays as it is while the process runs";

/// The keys that differ between two pipelines, sorted. Where checkpoints are kept, which the canonical form leaves out, and
/// the value of the secret are compared too; other values that came from the environment or from files are not.
pub fn changes(old: &Pipeline, new: &Pipeline) -> Vec<Change> {
    let mut out = canonical_changes(&old.canonical.json, &new.canonical.json);
    // Of a Kafka topic the lane decodes the records itself; other sources, and a repartitioning, decode beside it.
    let beside = !matches!(new.source.kind, SourceKind::Kafka(_)) || new.source.repartition().is_some();
    for change in out.iter_mut().filter(|c| beside && c.takes == Takes::Reload) {
        let mut path = change.key.split('.');
        let (table, key) = (path.next(), path.nth(1).unwrap_or_default());
        if table == Some("sources") && !["time", "device_ttl"].contains(&key) {
            change.takes = Takes::Restart("what reads the source decodes its records too, and goes on as it is");
        }
    }
    let expose = |p: &Pipeline| p.secret.as_ref().map(|s| s.value.expose().to_owned());
    if expose(old) != expose(new) && !out.iter().any(|c| c.key == "pipeline.secret") {
        out.push(Change { key: "pipeline.secret".into(), takes: SECRET });
    }
    let url = |p: &Pipeline| p.checkpoint.object_store.as_ref().map(|o| (o.url.clone(), o.endpoint.clone()));
    let (a, b) = (&old.checkpoint, &new.checkpoint);
    if (&a.dir, a.keep, url(old)) != (&b.dir, b.keep, url(new)) {
        let why = "the store of the lanes is opened once";
        out.push(Change { key: "pipeline.checkpoint".into(), takes: Takes::Restart(why) });
    }
    if old.http_tap != new.http_tap {
        out.push(Change { key: "http.tap".into(), takes: Takes::Reload });
    }
    if old.http_log != new.http_log {
        let why = "what is served is decided when the process starts";
        out.push(Change { key: "http.log".into(), takes: Takes::Restart(why) });
    }
    if matches!(new.source.kind, SourceKind::Mqtt(_)) {
        let why = "the journal of an MQTT source is open for as long as the process runs";
        out.push(Change { key: format!("sources.{}", new.source.name.value), takes: Takes::Restart(why) });
    }
    out.sort_by(|a, b| a.key.cmp(&b.key));
    out
}

/// Why a running process cannot go over to a file with these changes, and what to do; `None` if it can.
pub fn refusal(changes: &[Change]) -> Option<String> {
    let (mut out, mut restart, mut new_name) = ("it changes what cannot be reloaded:".to_owned(), false, false);
    for change in changes {
        let (what, why) = match change.takes {
            Takes::Reload => continue,
            Takes::Restart(why) => {
                restart = true;
                ("takes effect at a restart", why)
            }
            Takes::NewName(why) => {
                new_name = true;
                ("needs a new `pipeline.name`", why)
            }
        };
        out += &format!("\n  `{}` {what}: {why}", change.key);
    }
    let help = match (new_name, restart) {
        (false, false) => return None,
        (true, _) => {
            "start a pipeline of another name with this file, which begins a log of its own, or put the value back"
        }
        (false, true) => "restart the process, with --accept-change, or put the value back",
    };
    Some(format!("{out}\n  help: {help}"))
}

/// The keys that differ between two canonical forms.
pub fn canonical_changes(old: &str, new: &str) -> Vec<Change> {
    let read = |json: &str| serde_json::from_str::<Value>(json).unwrap_or(Value::Null);
    let mut out = Vec::new();
    differ(&read(old), &read(new), &mut Vec::new(), &mut out);
    out
}

fn differ<'v>(old: &'v Value, new: &'v Value, path: &mut Vec<&'v str>, out: &mut Vec<Change>) {
    match (old, new) {
        (a, b) if a == b => {}
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                path.push(key);
                differ(a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null), path, out);
                path.pop();
            }
        }
        _ => out.push(Change { key: path.join("."), takes: takes(path) }),
    }
}

const SECRET: Takes = Takes::NewName("pseudonyms and salts of the whole log are made under one secret");

fn takes(path: &[&str]) -> Takes {
    match path {
        ["pipeline", "name"] => Takes::NewName("it names the log"),
        ["pipeline", "secret"] => SECRET,
        ["sources", _] => Takes::NewName("the log is of one source"),
        ["sources", _, "kind" | "topic" | "repartition", ..] => {
            Takes::NewName("the lanes' places in their input would mean nothing in another one")
        }
        ["sources", _, "key"] => Takes::NewName("it says what a device is"),
        ["sources", _, "schema" | "time" | "format" | "registry" | "descriptor" | "message" | "framing", ..]
        | ["sources", _, "device_ttl" | "max_record_bytes"] => Takes::Reload,
        ["sources", ..] => Takes::Restart(CONNECTION),
        ["http", ..] => Takes::Restart("the HTTP server is started once"),
        ["anchor", ..] => Takes::Restart("anchoring is one of the things that are started once"),
        _ => Takes::Reload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_changed_key_with_when_it_takes_effect() {
        let old = r#"{"http":{"listen":"a"},"pipeline":{"name":"p"},"sources":{"r":{"brokers":"a","key":"d","schema":{"d":"utf8!"},"topic":"t"}},"steps":{"a":{"decide":{"severity":{"warning":0.1}}}}}"#;
        let new = r#"{"http":{"listen":"b"},"pipeline":{"name":"p"},"sources":{"r":{"brokers":"b","key":"e","schema":{"d":"utf8!","x":"f64"},"topic":"t"}},"steps":{"a":{"decide":{"severity":{"warning":0.2}}},"b":{}}}"#;
        let found: Vec<String> = canonical_changes(old, new)
            .into_iter()
            .map(|c| {
                let takes = match c.takes {
                    Takes::Reload => "reload",
                    Takes::Restart(_) => "restart",
                    Takes::NewName(_) => "new name",
                };
                format!("{} {takes}", c.key)
            })
            .collect();
        assert_eq!(
            found,
            [
                "http.listen restart",
                "sources.r.brokers restart",
                "sources.r.key new name",
                "sources.r.schema.x reload",
                "steps.a.decide.severity.warning reload",
                "steps.b reload"
            ]
        );
        assert!(canonical_changes(old, old).is_empty());
    }
}
