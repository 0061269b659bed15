//! Guarantees: what the pipeline promises must be possible with the parts it is made of. And warnings: what is
//! possible, but probably not meant.

use super::diagnostics::Diagnostics;
use super::pipeline::{Delivery, SourceKind};
use super::references;
use super::span::{Span, Spanned};
use super::structure::{Draft, Section, SinkState, StepBody};
use super::units::format_duration;

/// Refuses promises that cannot be kept.
pub(super) fn check(draft: &Draft, diags: &mut Diagnostics) {
    let delivery = draft.head.as_ref().and_then(|h| h.delivery.as_ref());
    let exactly_once = delivery.filter(|d| d.value == Delivery::ExactlyOnce);
    if exactly_once.is_none() {
        for kind in draft.sinks.iter().filter_map(|s| s.kind.as_ref()).filter(|k| k.value.state == SinkState::Foreign) {
            diags.error("unknown-value", kind.span, format!("`{}` is not a sink kind", kind.value.name), "use `kafka`");
        }
    }
    if let Some(delivery) = exactly_once {
        for kind in draft.sinks.iter().filter_map(|s| s.kind.as_ref()).filter(|k| !k.value.transactional) {
            diags.error(
                "broken-guarantee",
                kind.span,
                format!(
                    "the sink kind `{}` has no transactions, so exactly-once delivery cannot be kept",
                    kind.value.name
                ),
                "use a `kafka` sink",
            );
            diags.relate(kind.span, delivery.span, "the promise stands");
        }
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
}

/// Two sinks that write the same verdicts to one topic put each verdict there twice.
fn one_topic_per_sink(draft: &Draft, diags: &mut Diagnostics) {
    let sinks: Vec<_> = draft.sinks.iter().filter_map(|s| s.body.as_ref()).collect();
    for (i, sink) in sinks.iter().enumerate() {
        let same = sinks[..i].iter().find(|other| {
            other.topic.as_str() == sink.topic.as_str()
                && other.from.iter().any(|f| sink.from.iter().any(|g| f.value == g.value))
        });
        if let Some(first) = same {
            diags.error(
                "broken-guarantee",
                sink.topic.span,
                format!(
                    "`{}` and `{}` write the same verdicts to one topic, so each would stand there twice",
                    first.name.value, sink.name.value
                ),
                "give one of the sinks another topic, or remove it",
            );
            diags.relate(sink.topic.span, first.topic.span, "the other topic stands");
        }
    }
}

/// Verdicts or dead letters in the source's topic would be read as readings again, without end.
fn topics_do_not_feed_back(draft: &Draft, diags: &mut Diagnostics) {
    let Some(source) = draft.sources.first().and_then(|s| s.body.as_ref()) else { return };
    let SourceKind::Kafka(source) = &source.kind;
    let dead = match &draft.dead_letter {
        Section::Read(d) => Some(("dead letters", &d.topic)),
        _ => None,
    };
    let sinks = draft.sinks.iter().filter_map(|s| s.body.as_ref()).map(|s| ("verdicts", &s.topic));
    for (what, topic) in sinks.chain(dead) {
        if topic.as_str() == source.topic.as_str() {
            diags.error(
                "topic-loop",
                topic.span,
                format!("{what} would go to the topic readings come from, and be read again"),
                "give them a topic of their own",
            );
            diags.relate(topic.span, source.topic.span, "the source's topic stands");
        }
    }
    if let Some((_, dead)) = dead
        && let Some(sink) =
            draft.sinks.iter().filter_map(|s| s.body.as_ref()).find(|s| s.topic.as_str() == dead.as_str())
    {
        diags.error(
            "topic-loop",
            dead.span,
            "dead letters and verdicts would go to the same topic, and no consumer could tell them apart",
            "give dead letters a topic of their own",
        );
        diags.relate(dead.span, sink.topic.span, "the sink's topic stands");
    }
}

/// Warns of what is allowed but probably not meant.
pub(super) fn warn(draft: &Draft, diags: &mut Diagnostics) {
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
        .map(|w| Spanned::new(w.value.size_ms(), w.span))
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
