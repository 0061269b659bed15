//! Every kind of sink, with every key of it, is read as it is meant.

use avouch::lang::{DeadLetterKind, Delivery, Pipeline, SinkKind};

use super::{VALID, findings};

const SINKS: &str = r#"
[sinks.archive]
from  = ["anomaly"]
kind  = "parquet"
path  = "s3://bucket/archive"
every = "5s"
rows  = 1_000
size  = "1MiB"
where = "severity <> 'normal' AND temp_mean > 80"

[sinks.hook]
from     = "anomaly"
kind     = "webhook"
url      = "https://hooks.example/verdicts"
secret   = "${file:secret}"
token    = "${file:keystore-password}"
timeout  = "3s"
batch    = 10
format   = "json"
delivery = "at-least-once"

[sinks.lines]
from     = "anomaly"
kind     = "stdout"
delivery = "at-least-once"

[sinks.other]
from    = "anomaly"
kind    = "kafka"
topic   = "pumps.verdicts"
brokers = "elsewhere:9092"

[sinks.pager]
from          = ["anomaly"]
where         = "severity = 'critical'"
kind          = "alertmanager"
url           = "http://localhost:9093"
token         = "${file:keystore-password}"
timeout       = "3s"
resolve_after = "30m"
generator_url = "https://dashboards.example/pumps"

"#;

fn with(sinks: &str, dead: &str) -> Pipeline {
    let at = VALID.find("[dead_letter]").unwrap();
    let end = at + VALID[at..].find("\n[").unwrap();
    let text = format!("{}{sinks}{dead}{}", &VALID[..at], &VALID[end..]);
    let (pipeline, diags) = findings("pipeline.toml", &text);
    assert!(!diags.has_errors(), "{}", diags.render_text(false));
    pipeline.unwrap()
}

#[test]
fn every_key_of_every_kind() {
    let p = with(SINKS, "[dead_letter]\nkind = \"files\"\npath = \"file:///var/dead\"\nsize = \"1MiB\"\n");
    let sink = |name: &str| p.sinks.iter().find(|s| s.name.value == name).unwrap();
    let SinkKind::Parquet(archive) = &sink("archive").kind else { panic!() };
    assert_eq!((archive.url.as_str(), archive.every_ms), ("s3://bucket/archive", 5_000));
    assert_eq!((archive.rows, archive.bytes), (1_000, 1 << 20));
    assert!(sink("archive").condition.is_some() && sink("archive").delivery.is_none());
    let SinkKind::Webhook(hook) = &sink("hook").kind else { panic!() };
    assert_eq!((hook.timeout_ms, hook.batch), (3_000, 10));
    assert!(hook.secret.is_some() && hook.token.is_some());
    assert_eq!(sink("hook").delivery, Some(Delivery::AtLeastOnce));
    assert!(matches!(sink("lines").kind, SinkKind::Stdout));
    let SinkKind::Kafka(other) = &sink("other").kind else { panic!() };
    assert_eq!(other.brokers.as_ref().unwrap().as_str(), "elsewhere:9092");
    let SinkKind::Alertmanager(pager) = &sink("pager").kind else { panic!() };
    assert_eq!((pager.timeout_ms, pager.resolve_after_ms), (3_000, 1_800_000));
    assert!(pager.token.is_some() && pager.generator_url.is_some());
    let DeadLetterKind::Files(files) = &p.dead_letter.kind else { panic!() };
    assert_eq!((files.dir.to_str().unwrap(), files.bytes), ("/var/dead", 1 << 20));
}

#[test]
fn what_is_not_written_has_its_default() {
    let sinks = r#"
[sinks.archive]
from = "anomaly"
kind = "parquet"
path = "file:///var/archive"

[sinks.pager]
from = "anomaly"
kind = "alertmanager"
url  = "http://localhost:9093"

"#;
    let dead = "[dead_letter]\nkind = \"stdout\"\ndelivery = \"at-least-once\"\n";
    let p = with(sinks, dead);
    let kinds: Vec<&SinkKind> = p.sinks.iter().map(|s| &s.kind).collect();
    let [SinkKind::Parquet(archive), SinkKind::Alertmanager(pager), ..] = kinds[..] else { panic!() };
    assert_eq!((archive.url.as_str(), archive.every_ms), ("file:///var/archive", 60_000));
    assert_eq!((archive.rows, archive.bytes), (50_000, 32 << 20));
    assert_eq!((pager.timeout_ms, pager.resolve_after_ms), (10_000, 3_600_000));
    assert!(matches!(p.dead_letter.kind, DeadLetterKind::Stdout));
    assert_eq!(p.dead_letter.delivery, Some(Delivery::AtLeastOnce));
}
