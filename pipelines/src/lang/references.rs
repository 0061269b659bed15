//! References: every name leads somewhere, to something of the right kind, and never back to itself.

use super::diagnostics::Diagnostics;
use super::fields::{closest, list};
use super::span::Spanned;
use super::structure::{Draft, Role, Section};

/// Checks all names of the draft.
pub(super) fn check(draft: &Draft, diags: &mut Diagnostics) {
    names_are_unique(draft, diags);
    tables_are_unique(draft, diags);
    for step in &draft.steps {
        if let Some(from) = &step.from {
            step_reads(draft, step.role, &step.name.value, from, diags);
        }
    }
    cycles(draft, diags);
    for sink in &draft.sinks {
        for from in &sink.from {
            model_step_named(draft, from, "a sink takes verdicts, which only model steps make", diags);
        }
    }
    for train in &draft.train {
        if let Some(step) = &train.step {
            model_step_named(draft, step, "only model steps are trained", diags);
        }
    }
    let roles: Vec<Role> = draft.steps.iter().map(|s| s.role).collect();
    if let Some(first) = draft.steps.first()
        && !roles.iter().any(|r| matches!(r, Role::Model | Role::Unclear))
    {
        diags.error(
            "no-model",
            first.name.span,
            "no step has a model, so the pipeline makes no verdicts",
            "add a step with `from`, `model`, `features` and `decide`",
        );
    }
}

fn names_are_unique(draft: &Draft, diags: &mut Diagnostics) {
    for step in &draft.steps {
        if let Some(source) = draft.sources.iter().find(|s| s.name.value == step.name.value) {
            diags.error(
                "given-twice",
                step.name.span,
                format!("`{}` is both a source and a step", step.name.value),
                "give the step another name: both are table names in SQL",
            );
            diags.relate(step.name.span, source.name.span, "the source stands");
        }
    }
}

fn tables_are_unique(draft: &Draft, diags: &mut Diagnostics) {
    for table in &draft.references {
        let sources = draft.sources.iter().map(|s| ("source", &s.name));
        let steps = draft.steps.iter().map(|s| ("step", &s.name));
        if let Some((what, other)) = sources.chain(steps).find(|(_, n)| n.value == table.name.value) {
            diags.error(
                "given-twice",
                table.name.span,
                format!("`{}` is both a {what} and a reference", table.name.value),
                "give the reference another name: both are table names in SQL",
            );
            diags.relate(table.name.span, other.span, format!("the {what} stands"));
        }
    }
}

fn role_of(draft: &Draft, name: &str) -> Option<Role> {
    if draft.sources.iter().any(|s| s.name.value == name) {
        return Some(Role::Rows);
    }
    draft.steps.iter().find(|s| s.name.value == name).map(|s| s.role)
}

fn step_reads(draft: &Draft, role: Role, name: &str, from: &Spanned<String>, diags: &mut Diagnostics) {
    let Some(read) = role_of(draft, &from.value) else {
        let steps = draft.steps.iter().filter(|s| s.name.value != name).map(|s| &s.name);
        let names: Vec<&str> = draft.sources.iter().map(|s| &s.name).chain(steps).map(|n| n.value.as_str()).collect();
        let help = match closest(&from.value, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", list(&names)),
        };
        diags.error(
            "unknown-name",
            from.span,
            format!("there is no source or step `{}`", from.value.escape_debug()),
            help,
        );
        return;
    };
    let windowed: Vec<&str> =
        draft.steps.iter().filter(|s| s.role == Role::Window).map(|s| s.name.value.as_str()).collect();
    match (role, read) {
        (Role::Rows | Role::Window, Role::Model) => diags.error(
            "wrong-input",
            from.span,
            format!("`{}` makes verdicts, and SQL steps read readings", from.value),
            "send verdicts to a sink; let this step read the source or a SQL step without a window",
        ),
        (Role::Rows | Role::Window, Role::Window) => diags.error(
            "wrong-input",
            from.span,
            format!("`{}` is a windowed step, which only model steps can read", from.value),
            "compute everything the model needs in the windowed step itself",
        ),
        (Role::Model, Role::Rows | Role::Model) => diags.error(
            "wrong-input",
            from.span,
            format!("a model step judges windows, but `{}` is not a windowed step", from.value),
            match windowed.as_slice() {
                [] => "add a step with `window` and `sql`, and read from it".to_owned(),
                some => format!("read from {}", list(some)),
            },
        ),
        _ => {}
    }
}

fn model_step_named(draft: &Draft, name: &Spanned<String>, why: &str, diags: &mut Diagnostics) {
    let models: Vec<&str> =
        draft.steps.iter().filter(|s| s.role == Role::Model).map(|s| s.name.value.as_str()).collect();
    match role_of(draft, &name.value) {
        Some(Role::Model | Role::Unclear) => {}
        Some(_) => diags.error(
            "wrong-input",
            name.span,
            format!("`{}` is not a model step; {why}", name.value),
            format!("the model steps are {}", list(&models)),
        ),
        None => {
            let help = match closest(&name.value, models.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the model steps are {}", list(&models)),
            };
            let shown = name.value.escape_debug();
            diags.error("unknown-name", name.span, format!("there is no step `{shown}`"), help);
        }
    }
}

/// Reports each circle of steps once, at the step of it that stands first.
fn cycles(draft: &Draft, diags: &mut Diagnostics) {
    let next = |name: &str| {
        let is_source = draft.sources.iter().any(|s| s.name.value == name);
        draft.steps.iter().find(|s| s.name.value == name && !is_source).and_then(|s| s.from.as_ref())
    };
    let mut reported: Vec<&str> = Vec::new();
    for step in &draft.steps {
        let start = step.name.value.as_str();
        let mut circle = vec![start];
        let mut at = start;
        while let Some(from) = next(at) {
            at = from.value.as_str();
            if circle.contains(&at) {
                break;
            }
            circle.push(at);
        }
        let closes = circle.len() > 1 || next(start).is_some_and(|f| f.value == start);
        if !closes || next(circle[circle.len() - 1]).is_none_or(|f| f.value != start) || reported.contains(&start) {
            continue;
        }
        reported.extend(&circle);
        if let Some(from) = &step.from {
            circle.push(start);
            diags.error(
                "cycle",
                from.span,
                format!("steps read each other in a circle: {}", circle.join(" ← ")),
                "let one of them read the source",
            );
        }
    }
}

/// Steps whose output nothing uses, directly or through other steps.
pub(super) fn unused(draft: &Draft) -> impl Iterator<Item = &Spanned<String>> {
    let mut used: Vec<&str> = Vec::new();
    for step in draft.steps.iter().filter(|s| matches!(s.role, Role::Model | Role::Unclear)) {
        let mut at = step.from.as_ref();
        while let Some(from) = at {
            if used.contains(&from.value.as_str()) {
                break;
            }
            used.push(&from.value);
            at = draft.steps.iter().find(|s| s.name.value == from.value).and_then(|s| s.from.as_ref());
        }
    }
    draft
        .steps
        .iter()
        .filter(move |s| matches!(s.role, Role::Rows | Role::Window) && !used.contains(&s.name.value.as_str()))
        .map(|s| &s.name)
}

/// Model steps no sink takes, where there are sinks or an anchor at all.
pub(super) fn unheard(draft: &Draft) -> impl Iterator<Item = &Spanned<String>> {
    let anchored = !matches!(draft.anchor, Section::Absent);
    draft
        .steps
        .iter()
        .filter(|s| s.role == Role::Model)
        .filter(move |s| !anchored && !draft.sinks.iter().flat_map(|k| &k.from).any(|f| f.value == s.name.value))
        .map(|s| &s.name)
}
