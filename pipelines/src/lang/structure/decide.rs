//! `decide = { … }` of a model step.

use avouch_engine::decide::{Comparison, Quantity, Threshold};

use super::super::decide::{Budget, Decide, parse_condition, shown};
use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, Rule};
use super::super::span::Spanned;
use super::super::tree::NodeValue;

pub(super) const DECIDE: Keys = Keys::new(
    "decide",
    "How what the model says becomes a severity.",
    &[
        Key::may("severity", Kind::Table(&SEVERITY), "The thresholds; may be left out where there is `false_alarms`."),
        Key::may(
            "false_alarms",
            Kind::Literal,
            "How often a healthy device may be called, such as `1 per device per week`: the thresholds are lowered together \
             until the mildest keeps to it.",
        ),
        Key::may(
            "incident",
            Kind::LiteralDuration(0),
            "Alarms of a device that are at most so far apart are one incident, with an id of its own.",
        )
        .or("each stands alone"),
        Key::may("unit", Kind::Choice(&UNIT), "Of a prognosis: the unit of remaining life.").or("hours"),
        Key::may(
            "coverage",
            Kind::Number(0.5, 1.0, false),
            "Of a prognosis: the share of cases in which the truth lies within its interval.",
        )
        .or("0.9"),
    ],
)
.rules(&[Rule::OneOf(&["severity", "false_alarms"])]);
const UNIT: Choices = Choices { what: "unit", known: &["seconds", "minutes", "hours", "days"], planned: &[] };
const SEVERITY: Keys = Keys::new(
    "severity",
    "When a verdict is that grave; at least one. A number is the p-value at or below which it is. Of a prognosis, a condition \
     on `value`, `lower` or `upper`.",
    &[
        Key::may("warning", Kind::Threshold, "When a verdict is a warning: `0.01`, or `lower < 168`."),
        Key::may("critical", Kind::Threshold, "When it is critical, not before it is a warning."),
    ],
)
.rules(&[Rule::NotEmpty]);
const EXAMPLE: &str = "decide = { severity = { warning = 0.01, critical = 0.001 } }";
const BUDGET_EXAMPLE: &str = "false_alarms = \"1 per device per week\"";

pub(super) fn read(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Decide> {
    let d = f.table(cx, Need::Must, "decide", &DECIDE, EXAMPLE)?;
    let false_alarms = match d.get("false_alarms") {
        Some(_) => Some(Some(read_budget(cx, &d)?)),
        None => Some(None),
    };
    let severity = match (d.get("severity"), d.get("false_alarms")) {
        (None, Some(_)) => Some((None, None)),
        _ => read_severity(cx, &d),
    };
    let unit = match d.get("unit") {
        Some(_) => d.choice(cx, Need::May, "unit", &UNIT, "unit = \"hours\"").map(Some),
        None => Some(None),
    };
    let coverage = match d.get("coverage") {
        Some(_) => read_share(cx, &d).map(Some),
        None => Some(None),
    };
    let incident = match d.get("incident") {
        Some(_) => d.literal_duration(cx, Need::May, "incident", 0, "incident = \"10m\"").map(Some),
        None => Some(None),
    };
    let (warning, critical) = severity?;
    let decide = Decide {
        warning,
        critical,
        false_alarms: false_alarms?,
        incident: incident?,
        unit: unit?,
        coverage: coverage?,
    };
    if let Some(budget) = &decide.false_alarms
        && let Some(t) = [&decide.warning, &decide.critical].into_iter().flatten().find(|t| !is_p_value(&t.value))
    {
        cx.diags.error(
            "budget-without-p-values",
            budget.span,
            format!("`false_alarms` bounds p-values, but a threshold here is `{}`", shown(&t.value)),
            "remove `false_alarms`, or give p-values as thresholds",
        );
        cx.diags.relate(budget.span, t.span, "the threshold stands");
        return None;
    }
    Some(decide)
}

fn is_p_value(t: &Threshold) -> bool {
    t.quantity == Quantity::PValue
}

fn read_budget(cx: &mut Reading<'_>, d: &Fields<'_>) -> Option<Spanned<Budget>> {
    let text = d.literal(cx, Need::May, "false_alarms", BUDGET_EXAMPLE)?;
    match Budget::parse(&text.value) {
        Ok(budget) => Some(Spanned::new(budget, text.span)),
        Err(why) => {
            cx.diags.error(
                "bad-budget",
                text.span,
                format!("`{}` {why}", d.name("false_alarms")),
                format!("write for example `{BUDGET_EXAMPLE}`"),
            );
            None
        }
    }
}

fn read_share(cx: &mut Reading<'_>, d: &Fields<'_>) -> Option<Spanned<f64>> {
    let share = d.number(cx, Need::May, "coverage", "coverage = 0.9")?;
    if !(share.value > 0.5 && share.value < 1.0) {
        cx.diags.error(
            "out-of-range",
            share.span,
            format!("`{}` is {}, but a coverage lies between 0.5 and 1", d.name("coverage"), share.value),
            "write for example `coverage = 0.9`: nine intervals in ten hold the truth",
        );
        return None;
    }
    Some(share)
}

type Thresholds = (Option<Spanned<Threshold>>, Option<Spanned<Threshold>>);

fn read_severity(cx: &mut Reading<'_>, d: &Fields<'_>) -> Option<Thresholds> {
    let s = d.table(cx, Need::Must, "severity", &SEVERITY, "severity = { warning = 0.01, critical = 0.001 }")?;
    let [warning, critical] = ["warning", "critical"].map(|key| read_threshold(cx, &s, key));
    let (warning, critical) = (warning?, critical?);
    match (&warning, &critical) {
        (None, None) => {
            cx.diags.error(
                "missing-key",
                s.at,
                format!("`{}` gives no threshold, so no verdict could be more than normal", s.path),
                "write for example `severity = { warning = 0.01, critical = 0.001 }`",
            );
            None
        }
        (Some(w), Some(c)) => in_order(cx, w, c).then_some((warning, critical)),
        _ => Some((warning, critical)),
    }
}

/// Whether a warning is reached before a critical verdict.
fn in_order(cx: &mut Reading<'_>, w: &Spanned<Threshold>, c: &Spanned<Threshold>) -> bool {
    let falling = |t: &Threshold| matches!(t.comparison, Comparison::AtMost | Comparison::Below);
    let (a, b) = (&w.value, &c.value);
    if a.quantity != b.quantity || falling(a) != falling(b) {
        return true;
    }
    if is_p_value(a) && b.limit > a.limit {
        cx.diags.error(
            "threshold-order",
            c.span,
            format!(
                "critical ({}) is reached before warning ({}): p-values get smaller as it gets worse",
                b.limit, a.limit
            ),
            "make `critical` at most `warning`",
        );
        return false;
    }
    if (falling(a) && b.limit > a.limit) || (!falling(a) && b.limit < a.limit) {
        cx.diags.error(
            "threshold-order",
            c.span,
            format!("critical (`{}`) is reached before warning (`{}`)", shown(b), shown(a)),
            "let the value go further before it is critical",
        );
        return false;
    }
    true
}

/// `None` if it is wrong, `Some(None)` if it is not there.
fn read_threshold(cx: &mut Reading<'_>, s: &Fields<'_>, key: &str) -> Option<Option<Spanned<Threshold>>> {
    let example = if key == "warning" { "warning = 0.01" } else { "critical = 0.001" };
    let Some(e) = s.get(key) else {
        return Some(None);
    };
    if matches!(&e.node.value, NodeValue::Str(_)) {
        let text = s.literal(cx, Need::May, key, example)?;
        return match parse_condition(&text.value) {
            Ok(t) if is_p_value(&t) && t.comparison != Comparison::AtMost => condition_error(
                cx,
                &text,
                s,
                key,
                "compares a p-value, which is grave when it is small",
                "p_value <= 0.01",
            ),
            Ok(t) => Some(Some(Spanned::new(t, text.span))),
            Err(why) => condition_error(cx, &text, s, key, &why, "lower < 168"),
        };
    }
    let p = s.number(cx, Need::May, key, example)?;
    if !(p.value > 0.0 && p.value < 1.0) {
        cx.diags.error(
            "out-of-range",
            p.span,
            format!("`{}` is {}, but a p-value lies between 0 and 1", s.name(key), p.value),
            format!(
                "write for example `{example}`: about one healthy window in {} is called",
                if key == "warning" { 100 } else { 1000 }
            ),
        );
        return None;
    }
    Some(Some(Spanned::new(Threshold::p_value(p.value), p.span)))
}

fn condition_error<T>(
    cx: &mut Reading<'_>,
    text: &Spanned<String>,
    s: &Fields<'_>,
    key: &str,
    why: &str,
    example: &str,
) -> Option<T> {
    cx.diags.error(
        "bad-condition",
        text.span,
        format!("`{}` {why}", s.name(key)),
        format!("give a p-value such as `{key} = 0.01`, or of a prognosis a condition such as `{key} = \"{example}\"`"),
    );
    None
}

#[cfg(test)]
mod tests {
    use super::super::super::decide::UNITS;
    use super::*;

    #[test]
    fn the_declared_units_are_those_there_are() {
        assert_eq!(UNIT.known, UNITS.map(|(name, _)| name));
    }
}
