//! Whether a model can be decided on as its step says.

use avouch_engine::decide::{Quantity, Threshold};
use avouch_engine::model::{Says, Scorer};

use super::decide::shown;
use super::diagnostics::Diagnostics;
use super::pipeline::{ModelStep, Pipeline};
use super::span::Spanned;

/// Checks a step's thresholds, unit and coverage against what its model says.
pub(super) fn check(pipeline: &Pipeline, step: &ModelStep, model: &dyn Scorer, diags: &mut Diagnostics) {
    of_kind(step, model.says(), diags);
    match model.says() {
        Says::Anomaly => within_reach(pipeline, step, model, diags),
        Says::Estimate | Says::Probability => as_trained(step, model, diags),
    }
}

/// What can be said before the model is trained: whether a model of this kind can be decided on like that.
pub(super) fn of_kind(step: &ModelStep, says: Says, diags: &mut Diagnostics) {
    match says {
        Says::Anomaly => detector(step, diags),
        Says::Estimate | Says::Probability => prognosis(step, says, diags),
    }
}

fn thresholds(step: &ModelStep) -> impl Iterator<Item = (&'static str, &Spanned<Threshold>)> {
    [("warning", &step.decide.warning), ("critical", &step.decide.critical)]
        .into_iter()
        .filter_map(|(name, t)| Some((name, t.as_ref()?)))
}

fn detector(step: &ModelStep, diags: &mut Diagnostics) {
    let prognosis = [
        step.decide.unit.as_ref().map(|u| ("unit", u.span)),
        step.decide.coverage.as_ref().map(|c| ("coverage", c.span)),
    ];
    for (key, span) in prognosis.into_iter().flatten() {
        diags.error(
            "not-a-prognosis",
            span,
            format!(
                "the model of `{}` is a detector: it gives a p-value and nothing that `{key}` could be of",
                step.name.value
            ),
            format!("remove `{key}`, or use a model of remaining life or of failures"),
        );
    }
    for (name, t) in thresholds(step).filter(|(_, t)| t.value.quantity != Quantity::PValue) {
        diags.error(
            "not-a-prognosis",
            t.span,
            format!("`{name}` is `{}`, but the model is a detector, which gives a p-value", shown(&t.value)),
            format!("give a p-value such as `{name} = 0.01`, or use a model of remaining life or of failures"),
        );
    }
}

/// Warns of thresholds that the model's p-values never reach.
fn within_reach(pipeline: &Pipeline, step: &ModelStep, model: &dyn Scorer, diags: &mut Diagnostics) {
    let smallest = model.smallest_p_value();
    if let Some(budget) = &step.decide.false_alarms {
        let spec = pipeline.thresholds(step);
        let graver = [("warning", spec.warning), ("critical", spec.critical)];
        for (name, limit) in graver.into_iter().filter_map(|(n, t)| Some((n, t?.limit))) {
            if limit < smallest {
                diags.warning(
                    "threshold-cannot-fire",
                    budget.span,
                    format!(
                        "within this budget `{name}` can never fire: it takes a p-value of at most {limit:.3e}, and the model's \
                         smallest is {smallest:.3e}"
                    ),
                    "calibrate the model on more held-back windows, judge less often, or allow more false alarms",
                );
            }
        }
        return;
    }
    let p_values = thresholds(step).filter(|(_, t)| t.value.quantity == Quantity::PValue);
    for (name, t) in p_values.filter(|(_, t)| t.value.limit < smallest) {
        diags.warning(
            "threshold-cannot-fire",
            t.span,
            format!("`{name} = {}` can never fire: the model's smallest p-value is {smallest:.3e}", t.value.limit),
            "raise the threshold, or calibrate the model on more held-back windows",
        );
    }
}

fn prognosis(step: &ModelStep, says: Says, diags: &mut Diagnostics) {
    if let Some(budget) = &step.decide.false_alarms {
        diags.error(
            "not-a-detector",
            budget.span,
            format!("the model of `{}` gives no p-values, so false alarms cannot be bounded by them", step.name.value),
            "remove `false_alarms`, and give conditions such as `severity = { warning = \"lower < 168\" }`",
        );
    }
    for (name, t) in thresholds(step).filter(|(_, t)| t.value.quantity == Quantity::PValue) {
        diags.error(
            "not-a-detector",
            t.span,
            format!("`{name} = {}` is a p-value, but the model of `{}` gives none", t.value.limit, step.name.value),
            match says {
                Says::Probability => format!("give a probability: `{name} = \"value >= 0.5\"`"),
                _ => format!("give a condition on remaining life: `{name} = \"lower < 168\"`"),
            },
        );
    }
}

/// Checks unit and coverage against those that the model was trained for.
fn as_trained(step: &ModelStep, model: &dyn Scorer, diags: &mut Diagnostics) {
    if let (Some(unit), Some(made)) = (&step.decide.unit, model.unit())
        && unit.value != made
    {
        diags.error(
            "wrong-unit",
            unit.span,
            format!("the model of `{}` was trained to estimate {made}, not {}", step.name.value, unit.value),
            format!("train it again, or write `unit = \"{made}\"` and thresholds to go with it"),
        );
    }
    if let (Some(coverage), Some(made)) = (&step.decide.coverage, model.coverage())
        && coverage.value != made
    {
        diags.error(
            "wrong-coverage",
            coverage.span,
            format!("the intervals of this model were calibrated to a coverage of {made}, not {}", coverage.value),
            format!("train it again, or write `coverage = {made}`"),
        );
    }
}
