//! Guarantees: what the pipeline promises must be possible with the parts it is made of. And warnings: what is
//! possible, but probably not meant.

use super::diagnostics::Diagnostics;
use super::pipeline::{Delivery, SourceKind};
use super::references;
use super::sink::{DeadLetterKind, KafkaSink, SinkKind};
use super::span::{Span, Spanned};
use super::structure::{Draft, KindFacts, Section, StepBody};
use super::units::format_duration;

/// Refuses promises that cannot be kept.
pub(super) fn check(draft: &Draft, diags: &mut Diagnostics) {
    let delivery = draft.head.as_ref().and_then(|h| h.delivery.as_ref());
    let sinks = draft.sinks.iter().filter_map(|s| Some((s.kind.as_ref()?, s.delivery.as_ref())));
    let dead = match &draft.dead_letter {
        Section::Read(d) => Some((&d.kind, d.delivery.as_ref())),
        _ => None,
    };
    for (kind, own) in sinks.chain(dead) {
        if let Some(promise) = own.or(delivery) {
            kind_keeps(kind, promise, diags);
        }
    }
    if delivery.is_some_and(|d| d.value == Delivery::ExactlyOnce) {
        one_topic_per_sink(draft, diags);
    }
    if let Section::Absent = draft.dead_letter {
        let span = delivery.map_or(Span::default(), |d| d.span);
        let name = delivery.map_or("exactly-once", |d| d.value.name());
        diags.error(
            "broken-guarantee",
            span,
            format!(
                "{name} delivery promises that no reading is lost, but rows that cannot be used have nowhere to go"
            ),
            "add `[dead_letter]` with `kind = \"kafka\"` and a `topic`",
        );
    }
    topics_do_not_feed_back(draft, diags);
    kafka_is_somewhere(draft, diags);
    input_is_where_state_is(draft, diags);
}

/// With an object store any machine can go on with a lane, and the working copy may be lost. What these sources know of their
/// input is kept in the state directory alone.
fn input_is_where_state_is(draft: &Draft, diags: &mut Diagnostics) {
    let Some(source) = draft.sources.first().and_then(|s| s.body.as_ref()) else { return };
    let (span, what) = match &source.kind {
        // Both can be read by any machine.
        SourceKind::Kafka(_) | SourceKind::Ethereum(_) => return,
        SourceKind::Files(files) => (files.path.span, "which files were read, and how far, is"),
        SourceKind::Mqtt(mqtt) => (mqtt.url.span, "the journal of what the broker handed over is"),
    };
    if let Some(checkpoint) = draft.head.as_ref().and_then(|h| h.checkpoint.as_ref())
        && checkpoint.object_store.is_some()
    {
        diags.error(
            "broken-guarantee",
            checkpoint.span,
            format!("{what} kept on one machine, so no other could go on from checkpoints in a bucket"),
            "keep the checkpoints on that machine: `store = \"file://./state\"`; or bring the readings into Kafka",
        );
        diags.relate(checkpoint.span, span, "the source stands");
    }
}

/// A Kafka sink writes to the source's brokers; where the source is no Kafka, there are none.
fn kafka_is_somewhere(draft: &Draft, diags: &mut Diagnostics) {
    let Some(source) = draft.sources.first().and_then(|s| s.body.as_ref()) else { return };
    if matches!(source.kind, SourceKind::Kafka(_)) {
        return;
    }
    let dead = match &draft.dead_letter {
        Section::Read(d) => match &d.body.kind {
            DeadLetterKind::Kafka(kafka) => Some(kafka),
            _ => None,
        },
        _ => None,
    };
    for kafka in topics(draft).iter().map(|t| t.kafka).chain(dead).filter(|k| k.brokers.is_none()) {
        diags.error(
            "missing-key",
            kafka.topic.span,
            format!("`{}` is a topic, but nothing says on which brokers: the source is not Kafka", kafka.topic.raw()),
            "add `brokers = \"localhost:9092\"` beside it, or use another kind",
        );
        diags.relate(kafka.topic.span, source.name.span, "the source stands");
    }
}

/// A kind whose records may be seen twice promises exactly once to nobody.
fn kind_keeps(kind: &Spanned<&'static KindFacts>, promise: &Spanned<Delivery>, diags: &mut Diagnostics) {
    let Some(why) = kind.value.repeats.filter(|_| promise.value == Delivery::ExactlyOnce) else { return };
    diags.error(
        "broken-guarantee",
        kind.span,
        format!("{why}, so `{}` cannot keep exactly-once delivery", kind.value.name),
        "if whoever reads it can drop repeats (each verdict has `log` and `index`), say so here: \
         `delivery = \"at-least-once\"`",
    );
    diags.relate(kind.span, promise.span, "the promise stands");
}

/// A sink of a Kafka topic, with its name, for checks between topics.
struct TopicUse<'d> {
    name: &'d str,
    from: &'d [Spanned<String>],
    filtered: bool,
    kafka: &'d KafkaSink,
}

fn topics(draft: &Draft) -> Vec<TopicUse<'_>> {
    let sinks = draft.sinks.iter().filter_map(|s| s.body.as_ref());
    sinks
        .filter_map(|s| match &s.kind {
            SinkKind::Kafka(kafka) => {
                Some(TopicUse { name: &s.name.value, from: &s.from, filtered: s.condition.is_some(), kafka })
            }
            _ => None,
        })
        .collect()
}

/// Whether two topics are one, as far as the file tells.
fn same_topic(a: &KafkaSink, b: &KafkaSink) -> bool {
    let brokers = |k: &KafkaSink| k.brokers.as_ref().map(|b| b.as_str().to_owned());
    a.topic.as_str() == b.topic.as_str() && brokers(a) == brokers(b)
}

/// Two sinks that write the same verdicts to one topic put each verdict there twice.
fn one_topic_per_sink(draft: &Draft, diags: &mut Diagnostics) {
    let sinks = topics(draft);
    for (i, sink) in sinks.iter().enumerate() {
        let same = sinks[..i].iter().find(|other| {
            same_topic(other.kafka, sink.kafka)
                && !(other.filtered && sink.filtered)
                && other.from.iter().any(|f| sink.from.iter().any(|g| f.value == g.value))
        });
        if let Some(first) = same {
            diags.error(
                "broken-guarantee",
                sink.kafka.topic.span,
                format!(
                    "`{}` and `{}` write the same verdicts to one topic, so each would stand there twice",
                    first.name, sink.name
                ),
                "give one of the sinks another topic, or remove it",
            );
            diags.relate(sink.kafka.topic.span, first.kafka.topic.span, "the other topic stands");
        }
    }
}

/// What an MQTT broker hands over twice is two readings; only from the journal on does each count once.
fn mqtt_is_at_least_once(draft: &Draft, diags: &mut Diagnostics) {
    let delivery = draft.head.as_ref().and_then(|h| h.delivery.as_ref());
    if let Some(source) = draft.sources.first().and_then(|s| s.body.as_ref())
        && let SourceKind::Mqtt(mqtt) = &source.kind
        && let Some(delivery) = delivery.filter(|d| d.value == Delivery::ExactlyOnce)
    {
        diags.warning(
            "mqtt-at-least-once",
            mqtt.url.span,
            "MQTT hands every message over at least once, so exactly-once delivery holds from the journal on",
            "nothing need be done: what devices publish twice, or a broker repeats beyond what the journal recognises, is \
             judged twice",
        );
        diags.relate(mqtt.url.span, delivery.span, "the promise stands");
    }
}

/// Verdicts or dead letters in the source's topic would be read as readings again, without end.
fn topics_do_not_feed_back(draft: &Draft, diags: &mut Diagnostics) {
    let sinks = topics(draft);
    let dead = match &draft.dead_letter {
        Section::Read(d) => match &d.body.kind {
            DeadLetterKind::Kafka(kafka) => Some(kafka),
            _ => None,
        },
        _ => None,
    };
    let source = draft.sources.first().and_then(|s| s.body.as_ref());
    if let Some(SourceKind::Kafka(source)) = source.map(|s| &s.kind) {
        let all = sinks.iter().map(|s| ("verdicts", s.kafka)).chain(dead.map(|d| ("dead letters", d)));
        for (what, kafka) in all {
            let elsewhere = kafka.brokers.as_ref().is_some_and(|b| b.as_str() != source.brokers.as_str());
            if kafka.topic.as_str() == source.topic.as_str() && !elsewhere {
                diags.error(
                    "topic-loop",
                    kafka.topic.span,
                    format!("{what} would go to the topic readings come from, and be read again"),
                    "give them a topic of their own",
                );
                diags.relate(kafka.topic.span, source.topic.span, "the source's topic stands");
            }
            if let Some(through) = source.repartition.as_ref().map(|r| &r.topic)
                && kafka.topic.as_str() == through.as_str()
                && !elsewhere
            {
                diags.error(
                    "topic-loop",
                    through.span,
                    format!("readings would be repartitioned through the topic that {what} go to, and both be read as readings"),
                    "give `repartition` a topic of its own",
                );
                diags.relate(through.span, kafka.topic.span, "that topic stands");
            }
        }
    }
    if let Some(dead) = dead
        && let Some(sink) = sinks.iter().find(|s| same_topic(s.kafka, dead))
    {
        diags.error(
            "topic-loop",
            dead.topic.span,
            "dead letters and verdicts would go to the same topic, and no consumer could tell them apart",
            "give dead letters a topic of their own",
        );
        diags.relate(dead.topic.span, sink.kafka.topic.span, "the sink's topic stands");
    }
}

/// Warns of what is allowed but probably not meant.
pub(super) fn warn(draft: &Draft, diags: &mut Diagnostics) {
    mqtt_is_at_least_once(draft, diags);
    // Where a name is wrong, the step it means only seems unused.
    let whole = !diags.has_errors();
    for name in references::unused(draft).filter(|_| whole) {
        diags.warning(
            "unused-step",
            name.span,
            format!("nothing uses the step `{}`", name.value),
            "let a model step read it, or remove it",
        );
    }
    for name in references::unheard(draft).filter(|_| whole) {
        diags.warning(
            "unheard-step",
            name.span,
            format!("no sink takes the verdicts of `{}`; they only go to the verdict log", name.value),
            format!("add it to a sink: `from = [\"{}\"]`", name.value),
        );
    }
    let disorder = draft.sources.first().and_then(|s| s.body.as_ref()).map(|s| s.time.max_disorder_ms.clone());
    let shortest = draft
        .steps
        .iter()
        .filter_map(|s| match &s.body {
            Some(StepBody::Sql(step)) => step.window.as_ref(),
            _ => None,
        })
        .map(|w| Spanned::new(w.value.shortest_ms(), w.span))
        .min_by_key(|w| w.value);
    if let (Some(disorder), Some(window)) = (disorder, shortest)
        && disorder.value > window.value
    {
        diags.warning(
            "long-disorder",
            disorder.span,
            format!(
                "readings may be {} out of order, longer than a window of {}: every verdict waits that long",
                format_duration(disorder.value),
                format_duration(window.value)
            ),
            "lower `max_disorder` to what your devices really need; later rows become dead letters",
        );
        diags.relate(disorder.span, window.span, "the window stands");
    }
}
