//! What is allowed but probably not meant, as far as only the plan shows it.

use avouch_connectors::files::there_is;
use avouch_engine::plan::LanePlan;
use avouch_engine::sql::Condition;
use avouch_engine::verdict::Severity;

use super::diagnostics::Diagnostics;
use super::fields::{either, list};
use super::pipeline::{ModelStep, Pipeline, SignaturePlace};
use super::sink::Sink;
use crate::verdict_table::{TABLE, condition_schema};

/// Warns of fields that nothing reads, and of sinks that nothing can reach. For pipelines without errors.
pub(super) fn of_plan(pipeline: &Pipeline, plan: &LanePlan, diags: &mut Diagnostics) {
    let unread = plan.unread_fields();
    let signature = pipeline.source.identity.as_ref().map(|i| &i.signature.value);
    let signs = |name: &str| matches!(signature, Some(SignaturePlace::Field(field)) if field == name);
    let unread = |name: &str| unread.contains(&name) && !signs(name);
    for field in pipeline.source.fields.iter().filter(|f| unread(&f.value.name)) {
        // Of a field that must be there, rows without it die: it is of use.
        if !field.value.required {
            diags.warning(
                "unread-field",
                field.span,
                format!(
                    "no step reads the field `{}`: neither a feature nor a condition rests on it",
                    field.value.name
                ),
                "remove it from `schema`, or use it; records may have fields that the schema does not name",
            );
        }
    }
    for sink in &pipeline.sinks {
        unreachable(pipeline, sink, diags);
    }
    for test in &pipeline.tests {
        for input in test.input.iter().filter(|i| !there_is(&i.pattern)) {
            diags.warning(
                "missing-test-input",
                input.text.span,
                format!(
                    "there is no file `{}`, so the test `{}` fails",
                    input.text.value.escape_debug(),
                    test.name.value.escape_debug()
                ),
                "correct the path, which begins at this file's directory, or put the recorded readings there",
            );
        }
    }
}

/// The severities that a step's verdicts can have.
fn severities(pipeline: &Pipeline, step: &ModelStep) -> Vec<&'static str> {
    let spec = pipeline.thresholds(step);
    let given = [(Severity::Warning, spec.warning.is_some()), (Severity::Critical, spec.critical.is_some())];
    let graver = given.into_iter().filter(|(_, given)| *given).map(|(s, _)| s.name());
    std::iter::once(Severity::Normal.name()).chain(graver).collect()
}

fn unreachable(pipeline: &Pipeline, sink: &Sink, diags: &mut Diagnostics) {
    let Some(condition) = &sink.condition else { return };
    let steps: Vec<&ModelStep> = sink.from.iter().filter_map(|f| pipeline.model_step(&f.value)).collect();
    let words: Vec<Vec<(&str, &str)>> = steps
        .iter()
        .flat_map(|s| {
            severities(pipeline, s).into_iter().map(|v| vec![("step", s.name.value.as_str()), ("severity", v)])
        })
        .collect();
    let schema = condition_schema(&pipeline.features_of(&sink.from));
    if !Condition::never(&condition.value, TABLE, schema, &words, &["p_value"]) {
        return;
    }
    let mut known: Vec<&str> = words.iter().flatten().filter(|(c, _)| *c == "severity").map(|(_, v)| *v).collect();
    known.sort_unstable();
    known.dedup();
    let names: Vec<&str> = steps.iter().map(|s| s.name.value.as_str()).collect();
    diags.warning(
        "sink-never",
        condition.span,
        format!("no verdict of {} can fulfil this condition, so the sink `{}` gets nothing", list(&names), sink.name.value),
        format!(
            "correct it: `step` is {} here, `severity` {} (by the thresholds in `decide.severity`), and `p_value` lies between \
             0 and 1",
            either(&names),
            either(&known)
        ),
    );
}
