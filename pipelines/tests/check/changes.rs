//! What a running process says to a file that it cannot go over to: which key, why, and what to do.

use avouch::lang::{Pipeline, changes, refusal};

use super::{Fixed, VALID, file};

fn pipeline(text: &str) -> Pipeline {
    Pipeline::read(file(text), &Fixed).unwrap_or_else(|d| panic!("{}", d.render_text(false)))
}

fn refused(old: &str, new: &str) -> Option<String> {
    assert!(VALID.contains(old), "{old}");
    refusal(&changes(&pipeline(VALID), &pipeline(&VALID.replacen(old, new, 1))))
}

#[test]
fn what_takes_effect_at_a_restart_is_named_with_the_reason() {
    let connection = "the connection to the source stays as it is while the process runs";
    let anchor = "anchoring is one of the things that are started once";
    let store = "the store of the lanes is opened once";
    for (old, new, key, why) in [
        ("${env:KAFKA_BROKERS:-localhost:9092}", "other:9092", "sources.readings.brokers", connection),
        ("group    = \"pump-health\"", "group = \"others\"", "sources.readings.group", connection),
        ("group    = \"pump-health\"", "security = { protocol = \"SSL\" }", "sources.readings.security", connection),
        ("127.0.0.1:9464", "127.0.0.1:9999", "http.listen", "the HTTP server is started once"),
        ("31337", "1", "anchor.chain_id", anchor),
        ("${env:ETH_RPC:-http://localhost:8545}", "http://other:8545", "anchor.rpc", anchor),
        ("verdicts = 10_000", "verdicts = 5_000", "anchor.every.verdicts", anchor),
        ("file://./state", "file://./elsewhere", "pipeline.checkpoint", store),
        ("every = \"10s\", store", "every = \"10s\", keep = 9, store", "pipeline.checkpoint", store),
    ] {
        let said = refused(old, new).unwrap_or_else(|| panic!("{key} is taken by a reload"));
        assert!(said.starts_with("it changes what cannot be reloaded:\n"), "{said}");
        assert!(said.contains(&format!("`{key}` takes effect at a restart: {why}")), "{said}");
        assert!(said.ends_with("help: restart the process, with --accept-change, or put the value back"), "{said}");
    }
    let (head, rest) = VALID.split_once("[anchor]").unwrap();
    let (_, rest) = rest.split_once("[train.anomaly]").unwrap();
    let without = pipeline(&format!("{head}[train.anomaly]{rest}"));
    let said = refusal(&changes(&pipeline(VALID), &without)).unwrap();
    assert!(said.contains(&format!("`anchor` takes effect at a restart: {anchor}")), "{said}");
}

#[test]
fn what_makes_another_log_needs_another_name() {
    for (old, new, key) in [
        ("name        = \"pump-health\"", "name = \"other\"", "pipeline.name"),
        ("pumps.telemetry", "pumps.other", "sources.readings.topic"),
        ("${file:secret}", "another secret, in the file itself", "pipeline.secret"),
    ] {
        let said = refused(old, new).unwrap_or_else(|| panic!("{key} is taken by a reload"));
        assert!(said.contains(&format!("`{key}` needs a new `pipeline.name`: ")), "{said}");
        assert!(said.contains("help: start a pipeline of another name with this file"), "{said}");
    }
}

#[test]
fn all_else_is_taken_by_a_reload() {
    for (old, new) in [
        ("warning = 0.01", "warning = 0.05"),
        ("avg(load)", "max(load)"),
        ("max_disorder = \"30s\"", "max_disorder = \"1m\""),
        ("every = \"10s\", store", "every = \"20s\", store"),
        ("pumps.verdicts", "pumps.others"),
        ("pumps.dead", "pumps.corpses"),
        ("rpm = \"i64\" }", "rpm = \"i64\", flow = \"f64\" }"),
    ] {
        assert_eq!(refused(old, new), None, "{new}");
    }
}
