//! Early results: what windows and sinks say of them must fit together.

use avouch_engine::plan::{LanePlan, PlanError};
use avouch_engine::spec::WindowSpec;

use super::diagnostics::Diagnostics;
use super::interpolate::Text;
use super::pipeline::{Pipeline, SourceKind, SqlStep};
use super::sink::{DeadLetterKind, EarlyTo, Sink, SinkKind};
use super::span::Spanned;
use super::structure::{Draft, Section, StepBody};
use super::units::format_duration;

/// From so many open windows a device on, a warning says what early results of all of them cost.
const MANY_WINDOWS: i64 = 60;

/// Adds to a plan what the pipeline's sinks ask for: the early results of a step that none of them takes cost nothing.
///
/// # Errors
/// None for a plan of this pipeline.
pub fn with_early(pipeline: &Pipeline, mut plan: LanePlan) -> Result<LanePlan, PlanError> {
    for step in &pipeline.sql_steps {
        let Some(early) = &step.early else { continue };
        let of_step = |model: &str| pipeline.model_step(model).is_some_and(|m| m.from.value == step.name.value);
        if pipeline.sinks.iter().any(|s| s.early.is_some() && s.from.iter().any(|f| of_step(&f.value))) {
            plan = plan.with_early(&step.name.value, early.value)?;
        }
    }
    Ok(plan)
}

/// Early results are no part of a log, so they stand in no topic that holds one, or that readings come from.
pub(super) fn check(draft: &Draft, diags: &mut Diagnostics) {
    let source = draft.sources.first().and_then(|s| s.body.as_ref());
    let source = source.and_then(|s| match &s.kind {
        SourceKind::Kafka(kafka) => Some(kafka),
        _ => None,
    });
    let mut holds: Vec<Holds<'_>> = Vec::new();
    if let Some(kafka) = source {
        let mut of_source = |what, topic| holds.push(Holds { what, topic, brokers: None });
        of_source("readings", &kafka.topic);
        if let Some(through) = &kafka.repartition {
            of_source("repartitioned readings", &through.topic);
        }
    }
    if let Section::Read(dead) = &draft.dead_letter
        && let DeadLetterKind::Kafka(kafka) = &dead.body.kind
    {
        holds.push(Holds { what: "dead letters", topic: &kafka.topic, brokers: kafka.brokers.as_ref() });
    }
    for sink in sinks(draft) {
        if let SinkKind::Kafka(kafka) = &sink.kind {
            holds.push(Holds { what: "verdicts", topic: &kafka.topic, brokers: kafka.brokers.as_ref() });
        }
    }
    let address = |brokers: Option<&Text>| match (brokers, source) {
        (Some(b), _) => Some(b.as_str().to_owned()),
        (None, Some(kafka)) => Some(kafka.brokers.as_str().to_owned()),
        (None, None) => None,
    };
    for sink in sinks(draft) {
        let (Some(EarlyTo::Topic(topic)), SinkKind::Kafka(kafka)) = (&sink.early, &sink.kind) else { continue };
        let same = |h: &&Holds<'_>| {
            h.topic.as_str() == topic.as_str() && address(h.brokers) == address(kafka.brokers.as_ref())
        };
        if let Some(other) = holds.iter().find(same) {
            diags.error(
                "topic-loop",
                topic.span,
                format!(
                    "early results would go to the topic of {}, and nobody could trust what stands there",
                    other.what
                ),
                "give `early_topic` a topic of its own",
            );
            diags.relate(topic.span, other.topic.span, "that topic stands");
        }
    }
}

/// A topic that holds something else.
struct Holds<'d> {
    what: &'static str,
    topic: &'d Text,
    brokers: Option<&'d Text>,
}

fn sinks(draft: &Draft) -> impl Iterator<Item = &Sink> {
    draft.sinks.iter().filter_map(|s| s.body.as_ref())
}

/// Warns of early results that nobody takes or nobody makes, that come at odd instants, or that are very many.
pub(super) fn warn(draft: &Draft, diags: &mut Diagnostics) {
    // Where something is wrong, more would only seem to be.
    if diags.has_errors() {
        return;
    }
    let models = |name: &str| {
        draft
            .steps
            .iter()
            .filter_map(|s| match &s.body {
                Some(StepBody::Model(m)) => Some(&**m),
                _ => None,
            })
            .find(|m| m.name.value == name)
    };
    let steps: Vec<(&SqlStep, &Spanned<i64>)> = draft
        .steps
        .iter()
        .filter_map(|s| match &s.body {
            Some(StepBody::Sql(step)) => Some((step, step.early.as_ref()?)),
            _ => None,
        })
        .collect();
    let asks = |sink: &Sink, step: &SqlStep| {
        sink.early.is_some()
            && sink.from.iter().any(|f| models(&f.value).is_some_and(|m| m.from.value == step.name.value))
    };
    for (step, early) in &steps {
        if !sinks(draft).any(|s| asks(s, step)) {
            diags.warning(
                "early-unheard",
                early.span,
                format!("no sink takes the early results of `{}`, so there will be none", step.name.value),
                "add `early_topic = \"…\"` to a Kafka sink or `early = true` to a webhook or stdout sink of its verdicts",
            );
        }
        if let Some(window) = &step.window {
            of_window(window.value, early, diags);
        }
    }
    for sink in sinks(draft) {
        if sink.early.is_some() && !steps.iter().any(|(step, _)| asks(sink, step)) {
            diags.warning(
                "early-nothing",
                sink.name.span,
                format!("`{}` takes early results, but no window its verdicts come from gives any", sink.name.value),
                "say how often in the window, for example `early = \"1m\"`",
            );
        }
    }
}

fn of_window(window: WindowSpec, early: &Spanned<i64>, diags: &mut Diagnostics) {
    let (every, what) = match window {
        WindowSpec::Tumbling { size_ms } => (size_ms, "size"),
        WindowSpec::Sliding { every_ms, .. } => (every_ms, "every"),
        WindowSpec::Session { .. } => return,
    };
    if every % early.value != 0 {
        diags.warning(
            "early-uneven",
            early.span,
            format!(
                "`early` = {} does not divide `{what}` = {}: early results come at multiples of it since 1970, which lie \
                 elsewhere in each window",
                format_duration(early.value),
                format_duration(every)
            ),
            format!("choose one that divides {}", format_duration(every)),
        );
    }
    let open = (window.size_ms() + every - 1) / every;
    if open > MANY_WINDOWS {
        diags.warning(
            "early-many",
            early.span,
            format!(
                "{open} windows of a device are open at once, and each gives an early result every {}",
                format_duration(early.value)
            ),
            "choose a longer `early` or a longer `every`; what sinks do not take in time is dropped",
        );
    }
}
