//! `avouch check --connect`: tries every endpoint of a pipeline, with the clients that a run would use.

use std::time::Duration;

use avouch_connectors::ethereum::{Address, ChainReader, RpcOptions};
use avouch_connectors::kafka::{KafkaError, partition_count};

use crate::lang::{DeadLetterKind, Diagnostics, KafkaSink, Pipeline, SinkKind, SourceKind, Span};
use crate::runtime::kafka_connection;

const ANSWER: Duration = Duration::from_secs(10);

/// Adds an error for each endpoint that a run would fail on.
pub fn try_all(pipeline: &Pipeline, diags: &mut Diagnostics) {
    brokers(pipeline, diags);
    chain(pipeline, diags);
}

fn brokers(pipeline: &Pipeline, diags: &mut Diagnostics) {
    // Each cluster with the place of its address in the file.
    let mut topics = Vec::new();
    if let SourceKind::Kafka(source) = &pipeline.source.kind {
        topics.push((source.connection(), source.brokers.span, &source.topic));
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
            topics.push((connection, address, &k.topic));
        }
    }
    if let DeadLetterKind::Kafka(k) = &pipeline.dead_letter.kind {
        let (connection, address) = place(k);
        topics.push((connection, address, &k.topic));
    }
    let mut away: Vec<String> = Vec::new();
    for (connection, address, topic) in topics {
        // The same would be said of every other topic.
        if away.iter().any(|b| b == connection.brokers()) {
            continue;
        }
        match partition_count(&connection, topic.as_str(), ANSWER) {
            Ok(_) => {}
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
}

fn chain(pipeline: &Pipeline, diags: &mut Diagnostics) {
    let Some(anchor) = &pipeline.anchor else { return };
    let contract = Address::from(anchor.contract.value);
    let asked = tokio::runtime::Builder::new_current_thread().enable_all().build().map(|runtime| {
        runtime.block_on(ChainReader::connect(
            anchor.rpc.as_str(),
            Some(anchor.chain_id),
            contract,
            RpcOptions::default(),
        ))
    });
    let why = match asked {
        Ok(Ok(_)) => return,
        Ok(Err(e)) => e.to_string(),
        Err(e) => e.to_string(),
    };
    error(diags, "no-connection", anchor.rpc.span, &why, "correct `rpc`, `chain_id` or `contract`");
}

fn error(diags: &mut Diagnostics, code: &'static str, span: Span, why: &str, help: &str) {
    diags.error(code, span, why.to_owned(), help);
}
