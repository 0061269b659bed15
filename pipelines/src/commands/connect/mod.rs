//! `avouch check --connect`: tries every endpoint of a pipeline, with the clients that a run would use.

mod chain;
mod chain_source;
mod device_registry;
mod places;

use std::sync::mpsc;
use std::time::Duration;

use avouch_connectors::files::Format;
use avouch_connectors::files::log::matching;
use avouch_connectors::kafka::{KafkaError, partition_count};
use avouch_connectors::mqtt::{self, MqttError};
use tokio::runtime::{Builder, Runtime};

use crate::lang::{
    DeadLetterKind, Diagnostics, EarlyTo, FilesSource, KafkaSink, MqttSource, Pipeline, SinkKind, SourceKind, Span,
    plural,
};
use crate::runtime::{RuntimeError, files_place, kafka_connection, mqtt_options};

const ANSWER: Duration = Duration::from_secs(10);

/// Adds an error for each endpoint that a run would fail on. Returns what was found at the others.
pub fn try_all(pipeline: &Pipeline, diags: &mut Diagnostics) -> Vec<String> {
    let mut found = Vec::new();
    match &pipeline.source.kind {
        SourceKind::Kafka(_) => {}
        SourceKind::Files(source) => found.extend(files(source, diags)),
        SourceKind::Mqtt(source) => found.extend(broker(pipeline, source, diags)),
        SourceKind::Ethereum(source) => found.extend(chain_source::try_all(pipeline, source, diags)),
    }
    found.extend(device_registry::try_all(pipeline, diags));
    let (there, lanes) = topics(pipeline, diags);
    found.extend(there);
    found.extend(places::try_all(pipeline, diags));
    found.extend(chain::try_all(pipeline, lanes, diags));
    found
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

fn files(source: &FilesSource, diags: &mut Diagnostics) -> Option<String> {
    let span = source.path.span;
    let names = match runtime().map_err(|e| e.to_string()).and_then(|r| names(source, r)) {
        Ok(names) => names,
        Err(why) => {
            error(diags, "no-connection", span, &why, "correct `path`, or the rights to read there");
            return None;
        }
    };
    if names.is_empty() {
        let message = format!("no file matches `{}`", source.path.raw().escape_debug());
        if source.follow {
            diags.warning("no-files", span, message, "nothing need be done if files are still to come");
        } else {
            error(diags, "no-files", span, &message, "correct `path`, or write `follow = true` to wait for files");
        }
        return None;
    }
    let untold = |name: &&String| source.format.is_none() && Format::of(name.as_ref()).is_none();
    let unread: Vec<&String> = names.iter().filter(untold).collect();
    if let Some(first) = unread.first() {
        let others = match unread.len() - 1 {
            0 => String::new(),
            n => format!(" and {}", plural(n, "other file")),
        };
        diags.warning(
            "unknown-format",
            span,
            format!(
                "the format of `{}`{others} cannot be told from the name, so each would be one dead letter",
                first.escape_debug()
            ),
            "unpack what is packed, narrow `path`, or give `file_format`",
        );
    }
    Some(plural(names.len(), "file"))
}

/// The names, if they can be had in time: an object store that is away is asked again for minutes.
fn names(source: &FilesSource, runtime: Runtime) -> Result<Vec<String>, String> {
    let place = files_place(source, runtime.handle()).map_err(|e| e.to_string())?;
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(matching(&place)));
    let names = match told.recv_timeout(ANSWER) {
        Ok(names) => names.map_err(|e| e.to_string()),
        Err(_) => Err(format!("{}: no answer in {} s", source.path.raw().escape_debug(), ANSWER.as_secs())),
    };
    runtime.shutdown_background();
    names
}

fn broker(pipeline: &Pipeline, source: &MqttSource, diags: &mut Diagnostics) -> Option<String> {
    let options = match mqtt_options(&pipeline.source, source) {
        Ok(options) => options,
        Err(e) => {
            let span = source.ca.as_ref().map_or(source.url.span, |ca| ca.span);
            error(diags, "missing-file", span, &e.to_string(), "correct `ca`");
            return None;
        }
    };
    let tried = match runtime() {
        Ok(runtime) => runtime.block_on(mqtt::probe(&options, ANSWER)).map_err(RuntimeError::Mqtt),
        Err(e) => Err(RuntimeError::Start(e.to_string())),
    };
    let (span, help) = match &tried {
        Ok(()) => return Some(format!("the MQTT broker {}:{}", options.host, options.port)),
        Err(RuntimeError::Mqtt(MqttError::Refused { filter, .. })) => {
            let span = source.topics.iter().find(|t| t.value == *filter).map(|t| t.span);
            (span.unwrap_or(source.url.span), "correct `topics`, or the broker's access list")
        }
        Err(RuntimeError::Mqtt(MqttError::Rejected { .. })) => {
            let span = source.username.as_ref().map(|u| u.span);
            (span.unwrap_or(source.url.span), "a run would stop with this")
        }
        Err(_) => (source.url.span, "correct `url` or `ca`, or start the broker; a run would wait for it"),
    };
    if let Err(e) = &tried {
        error(diags, "no-connection", span, &e.to_string(), help);
    }
    None
}

/// What was found, and how many lanes there are; 1 where that is not known.
fn topics(pipeline: &Pipeline, diags: &mut Diagnostics) -> (Option<String>, i32) {
    // Each cluster with the place of its address in the file.
    let mut topics = Vec::new();
    if let SourceKind::Kafka(source) = &pipeline.source.kind {
        topics.push((source.connection(), source.brokers.span, &source.topic));
        if let Some(through) = &source.repartition {
            topics.push((source.connection(), source.brokers.span, &through.topic));
        }
    }
    let place = |k: &KafkaSink| {
        let connection = kafka_connection(pipeline, k);
        let address = match (&k.brokers, &pipeline.source.kind) {
            (Some(own), _) => own.span,
            (None, SourceKind::Kafka(source)) => source.brokers.span,
            (None, _) => k.topic.span,
        };
        (connection, address)
    };
    for sink in &pipeline.sinks {
        if let SinkKind::Kafka(k) = &sink.kind {
            let (connection, address) = place(k);
            if let Some(EarlyTo::Topic(early)) = &sink.early {
                topics.push((connection.clone(), address, early));
            }
            topics.push((connection, address, &k.topic));
        }
    }
    if let DeadLetterKind::Kafka(k) = &pipeline.dead_letter.kind {
        let (connection, address) = place(k);
        topics.push((connection, address, &k.topic));
    }
    let mut away: Vec<String> = Vec::new();
    let (mut there, mut lanes) = (0, 1);
    let (source, through) = match &pipeline.source.kind {
        SourceKind::Kafka(k) => (Some(k.lane_topic().span), k.repartition.as_ref()),
        SourceKind::Files(_) | SourceKind::Mqtt(_) | SourceKind::Ethereum(_) => (None, None),
    };
    for (connection, address, topic) in topics {
        // The same would be said of every other topic.
        if away.iter().any(|b| b == connection.brokers()) {
            continue;
        }
        match partition_count(&connection, topic.as_str(), ANSWER) {
            Ok(partitions) => {
                there += 1;
                if source == Some(topic.span) {
                    lanes = partitions;
                }
                if let Some(through) = through.filter(|t| t.topic.span == topic.span && t.partitions != partitions) {
                    error(
                        diags,
                        "wrong-partitions",
                        through.topic.span,
                        &format!(
                            "the topic `{}` has {partitions} partitions, but `repartition` says {}",
                            topic.raw(),
                            through.partitions
                        ),
                        &format!(
                            "write `partitions = {partitions}` if no run has used the topic yet, else use another topic"
                        ),
                    );
                }
            }
            Err(e @ KafkaError::NoTopic { .. }) => {
                error(
                    diags,
                    "no-topic",
                    topic.span,
                    &e.to_string(),
                    "create it, or let `avouch run --create-topics` do it",
                );
            }
            Err(e) => {
                error(diags, "no-connection", address, &e.to_string(), "correct `brokers` or `security`");
                away.push(connection.brokers().to_owned());
            }
        }
    }
    ((there > 0).then(|| plural(there, "topic")), lanes)
}

fn error(diags: &mut Diagnostics, code: &'static str, span: Span, why: &str, help: &str) {
    diags.error(code, span, why.to_owned(), help);
}
