//! `avouch check --connect`: tries every endpoint of a pipeline, with the clients that a run would use.

use std::time::Duration;

use avouch_connectors::ethereum::{Address, ChainReader, RpcOptions};
use avouch_connectors::kafka::{KafkaError, partition_count};

use crate::lang::{DeadLetterKind, Diagnostics, KafkaSink, Pipeline, SinkKind, SourceKind, Span};

const ANSWER: Duration = Duration::from_secs(10);

/// Adds an error for each endpoint that a run would fail on.
pub fn try_all(pipeline: &Pipeline, diags: &mut Diagnostics) {
    brokers(pipeline, diags);
    chain(pipeline, diags);
}

fn brokers(pipeline: &Pipeline, diags: &mut Diagnostics) {
    let SourceKind::Kafka(source) = &pipeline.source.kind;
    let connection = source.connection();
    let on_the_same = |k: &KafkaSink| k.brokers.as_ref().is_none_or(|b| b.as_str() == source.brokers.as_str());
    let mut topics = vec![&source.topic];
    for sink in &pipeline.sinks {
        if let SinkKind::Kafka(k) = &sink.kind
            && on_the_same(k)
        {
            topics.push(&k.topic);
        }
    }
    if let DeadLetterKind::Kafka(k) = &pipeline.dead_letter.kind
        && on_the_same(k)
    {
        topics.push(&k.topic);
    }
    for topic in topics {
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
                // The same would be said of every other topic.
                error(diags, "no-connection", source.brokers.span, &e.to_string(), "correct `brokers` or `security`");
                return;
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
