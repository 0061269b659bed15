//! Planning: from a [`Pipeline`] to the engine's lane, and the engine's findings back to places in the file.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_connectors::files::{FilesError, read_keys, read_reference};
use avouch_engine::identity::KeySet;
use avouch_engine::model::Scorer;
use avouch_engine::plan::{LanePlan, PlanError};
use avouch_engine::reference::Reference;
use avouch_engine::spec::{FieldSpec, LaneSpec, ScoreStepSpec, SourceSpec, SqlStepSpec};
use avouch_engine::sql::Condition;
use avouch_models::LabelConfig;

use super::assertions;
use super::canonical::hex;
use super::decisions;
use super::diagnostics::Diagnostics;
use super::fields::{closest, list};
use super::pipeline::{KeyRegistry, ModelStep, Pipeline};
use super::span::{Span, Spanned};
use super::warnings;
use crate::verdict_table::{TABLE, condition_schema};

/// Loaded models by the name of their model step.
pub type Models = BTreeMap<String, Arc<dyn Scorer>>;

/// The lane a pipeline describes, with the models it was given and without its reference tables, which are read from
/// their files by [`plan`]. A model step without a model in `models` is left out,
/// which is how training and checking plan the features before there is a model. A pure function of the arguments.
pub fn lane_spec(pipeline: &Pipeline, models: &Models) -> LaneSpec {
    let source = &pipeline.source;
    LaneSpec {
        pipeline: pipeline.name.value.clone(),
        config_hash: pipeline.config_hash(),
        source: SourceSpec {
            name: source.name.value.clone(),
            topic: source.log_name(),
            format: source.format.spec(),
            fields: source.fields.iter().map(|f| f.value.clone()).collect::<Vec<FieldSpec>>(),
            key: source.key.value.clone(),
            keyed: source.repartition().is_some(),
            time: source.time.column.value.clone(),
            max_disorder_ms: source.time.max_disorder_ms.value,
            max_future_ms: source.time.max_future_ms,
            device_ttl_ms: source.device_ttl_ms.as_ref().map(|d| d.value),
            max_record_bytes: source.max_record_bytes,
            signature: source.identity.as_ref().map(|i| i.signature.value.spec()),
        },
        references: Vec::new(),
        sql: pipeline
            .sql_steps
            .iter()
            .map(|s| SqlStepSpec {
                name: s.name.value.clone(),
                from: s.from.value.clone(),
                sql: s.sql.value.clone(),
                window: s.window.as_ref().map(|w| w.value),
            })
            .collect(),
        scores: pipeline
            .model_steps
            .iter()
            .filter_map(|s| {
                Some(ScoreStepSpec {
                    name: s.name.value.clone(),
                    from: s.from.value.clone(),
                    features: s.features.iter().map(|f| f.value.clone()).collect(),
                    model: models.get(&s.name.value)?.clone(),
                    decide: pipeline.thresholds(s),
                })
            })
            .collect(),
    }
}

/// Loads the model files of all model steps and checks them against the pipeline: pinned hash, features, thresholds.
/// All mistakes are returned, each at its place in the pipeline file; warnings come with the models.
pub fn load_models(pipeline: &Pipeline) -> Result<(Models, Diagnostics), Diagnostics> {
    let mut diags = pipeline.no_findings();
    let mut models = Models::new();
    for step in &pipeline.model_steps {
        if let Some(model) = load_model(pipeline, step, true, &mut diags) {
            models.insert(step.name.value.clone(), model);
        }
    }
    if diags.has_errors() { Err(diags) } else { Ok((models, diags)) }
}

/// [`load_models`] of those whose files are there; what is said of the others comes beside them, as errors.
///
/// # Errors
/// What is wrong with a file that is there.
pub fn load_models_there(pipeline: &Pipeline) -> Result<(Models, Diagnostics), Diagnostics> {
    let (mut wrong, mut missing) = (pipeline.no_findings(), pipeline.no_findings());
    let mut models = Models::new();
    for step in &pipeline.model_steps {
        let diags = if step.model_file.value.exists() { &mut wrong } else { &mut missing };
        if let Some(model) = load_model(pipeline, step, true, diags) {
            models.insert(step.name.value.clone(), model);
        }
    }
    if wrong.has_errors() { Err(wrong) } else { Ok((models, missing)) }
}

/// Plans the pipeline: SQL with its columns, types and functions, features against the steps that make them, and
/// models against both. Returns the plan, ready to run lanes.
pub fn plan(pipeline: &Pipeline, models: &Models) -> Result<LanePlan, Diagnostics> {
    let mut diags = pipeline.no_findings();
    let tables = load_references(pipeline, &mut diags);
    let found = plan_features(pipeline, &tables, &mut diags).is_some();
    plan_conditions(pipeline, &mut diags);
    if found && !diags.has_errors() {
        match LanePlan::new(&LaneSpec { references: tables, ..lane_spec(pipeline, models) }) {
            Ok(plan) => return Ok(plan),
            Err(errors) => report(pipeline, &errors, &mut diags),
        }
    }
    Err(diags)
}

/// Everything `avouch check` does beyond the file itself: plans the SQL, checks features, and checks those models
/// that exist. A model that is still to be trained is a warning.
pub fn check(pipeline: &Pipeline) -> Diagnostics {
    let mut diags = pipeline.warnings.clone();
    let tables = load_references(pipeline, &mut diags);
    let plan = plan_features(pipeline, &tables, &mut diags);
    let planned = plan.is_some();
    plan_conditions(pipeline, &mut diags);
    if let Some(plan) = &plan {
        assertions::check(pipeline, plan, &mut diags);
    }
    if let Some(plan) = plan.filter(|_| !diags.has_errors()) {
        warnings::of_plan(pipeline, &plan, &mut diags);
    }
    check_keys(pipeline, &mut diags);
    let mut models = Models::new();
    for step in &pipeline.model_steps {
        let trained_here = pipeline.train.iter().find(|t| t.step.value == step.name.value);
        if let Some(model) = load_model(pipeline, step, trained_here.is_none(), &mut diags) {
            models.insert(step.name.value.clone(), model);
        } else if let Some(train) = trained_here {
            decisions::of_kind(step, train.algorithm.value.says(train.label.as_ref().map(|l| &l.config)), &mut diags);
        }
    }
    // With the models in place: what is still wrong now is between model and features.
    if planned
        && !diags.has_errors()
        && let Err(errors) = LanePlan::new(&LaneSpec { references: tables, ..lane_spec(pipeline, &models) })
    {
        report(pipeline, &errors, &mut diags);
    }
    diags
}

/// Plans SQL without models, and checks that every feature is a number its step computes.
fn plan_features(pipeline: &Pipeline, tables: &[Arc<Reference>], diags: &mut Diagnostics) -> Option<LanePlan> {
    if tables.len() < pipeline.references.len() {
        // Without a table's columns nothing can be said of the SQL that joins it.
        return None;
    }
    let spec = LaneSpec { references: tables.to_vec(), ..lane_spec(pipeline, &Models::new()) };
    let plan = match LanePlan::new(&spec) {
        Ok(plan) => plan,
        Err(errors) => {
            report(pipeline, &errors, diags);
            return None;
        }
    };
    for step in &pipeline.model_steps {
        let Some(window) = plan.windows.iter().find(|w| w.name == step.from.value) else { continue };
        let schema = window.query.schema();
        let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        for feature in &step.features {
            match schema.fields().iter().find(|f| *f.name() == feature.value) {
                Some(f) if f.data_type().is_numeric() => {}
                Some(f) => diags.error(
                    "wrong-type",
                    feature.span,
                    format!("the feature `{}` is {}, not a number", feature.value, f.data_type()),
                    format!("remove it, or compute a number in the step `{}`", step.from.value),
                ),
                None => {
                    let help = match closest(&feature.value, columns.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("`{}` computes {}", step.from.value, list(&columns)),
                    };
                    diags.error(
                        "unknown-feature",
                        feature.span,
                        format!("the step `{}` has no column `{}`", step.from.value, feature.value.escape_debug()),
                        help,
                    );
                }
            }
        }
    }
    Some(plan)
}

/// Gives model steps that name no features the numbers that their windowed step computes, in its order: all but the key and
/// a column that is the label. Where the SQL cannot be planned they stay without, and planning says why.
pub(super) fn default_features(pipeline: &mut Pipeline) {
    if pipeline.model_steps.iter().all(|s| !s.features.is_empty()) {
        return;
    }
    let mut unsaid = pipeline.no_findings();
    let tables = load_references(pipeline, &mut unsaid);
    if tables.len() < pipeline.references.len() {
        return;
    }
    let spec = LaneSpec { references: tables, ..lane_spec(pipeline, &Models::new()) };
    let Ok(plan) = LanePlan::new(&spec) else { return };
    let (key, train) = (&pipeline.source.key.value, &pipeline.train);
    for step in pipeline.model_steps.iter_mut().filter(|s| s.features.is_empty()) {
        let Some(window) = plan.windows.iter().find(|w| w.name == step.from.value) else { continue };
        let label =
            train.iter().filter(|t| t.step.value == step.name.value).find_map(|t| match &t.label.as_ref()?.config {
                LabelConfig::Failure { column } => Some(column),
                LabelConfig::RemainingLife { .. } => None,
            });
        let fields = window.query.schema().fields();
        let columns = fields.iter().filter(|f| f.data_type().is_numeric()).map(|f| f.name());
        step.features = columns
            .filter(|name| *name != key && Some(*name) != label)
            .map(|name| Spanned::new(name.clone(), step.name.span))
            .collect();
    }
}

/// Reads the file of keys, if there is one.
fn check_keys(pipeline: &Pipeline, diags: &mut Diagnostics) {
    let Some(KeyRegistry::File(file)) = pipeline.source.identity.as_ref().map(|i| &i.registry) else { return };
    if let Err(e) = read_keys(&file.value, &KeySet::name_of(&pipeline.source.name.value)) {
        let message = format!("the keys cannot be used: {}", pipeline.shown(&e.to_string()));
        let help = "correct the file; `avouch device enrol` writes one";
        diags.error("bad-keys", file.span, message, help);
    }
}

/// Reads the reference tables, sorted by name. One that cannot be read is reported and left out.
fn load_references(pipeline: &Pipeline, diags: &mut Diagnostics) -> Vec<Arc<Reference>> {
    let mut tables = Vec::new();
    for r in &pipeline.references {
        match read_reference(&r.file.value, &r.name.value, &r.key.value, r.fields.as_deref()) {
            Ok(table) => tables.push(table),
            Err(FilesError::NoColumn { column, have, .. }) if column == r.key.value => {
                let help = match closest(&column, have.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("its columns are {}", list(&have.iter().map(String::as_str).collect::<Vec<_>>())),
                };
                let message = format!("the reference `{}` has no column `{column}`", r.name.value);
                diags.error("unknown-column", r.key.span, message, help);
            }
            Err(e) => diags.error(
                "bad-reference",
                r.file.span,
                format!("the reference `{}` cannot be used: {}", r.name.value, pipeline.shown(&e.to_string())),
                "correct the file; it needs one row for each key",
            ),
        }
    }
    tables
}

fn load_model(pipeline: &Pipeline, step: &ModelStep, must: bool, diags: &mut Diagnostics) -> Option<Arc<dyn Scorer>> {
    let at = step.model_file.span;
    let shown = pipeline.file.slice(at).to_owned();
    let bytes = match std::fs::read(&step.model_file.value) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must => {
            // Nobody trains a pipeline that is broken otherwise.
            if !diags.has_errors() {
                diags.warning(
                    "no-model-yet",
                    at,
                    format!("the model `{shown}` is not there yet"),
                    format!("make it with `avouch train {}`", pipeline.file.path().display()),
                );
            }
            return None;
        }
        Err(e) => {
            let help = match pipeline.train.iter().find(|t| t.step.value == step.name.value) {
                Some(_) => format!("make it with `avouch train {}`", pipeline.file.path().display()),
                None => format!("correct the path, or add a `[train.{}]` that makes the model", step.name.value),
            };
            diags.error("missing-file", at, format!("the model `{shown}` cannot be read ({})", e.kind()), help);
            return None;
        }
    };
    let model = match avouch_models::load(&bytes) {
        Ok(model) => model,
        Err(e) => {
            diags.error(
                "bad-model",
                at,
                format!("`{shown}`: {e}"),
                "use the file as `avouch train` wrote it, or train the model again",
            );
            return None;
        }
    };
    if let Some(pinned) = &step.model_sha256
        && pinned.value != model.hash()
    {
        diags.error(
            "wrong-model",
            pinned.span,
            format!("the model file hashes to {}, not to {}", hex(&model.hash()), hex(&pinned.value)),
            "use the model that was approved, or approve this one by writing its hash here",
        );
        return None;
    }
    check_against(pipeline, step, model.as_ref(), diags);
    Some(model)
}

fn check_against(pipeline: &Pipeline, step: &ModelStep, model: &dyn Scorer, diags: &mut Diagnostics) {
    let given: Vec<&str> = step.features.iter().map(|f| f.value.as_str()).collect();
    let wanted: Vec<&str> = model.features().iter().map(String::as_str).collect();
    if given != wanted
        && let (Some(first), Some(last)) = (step.features.first(), step.features.last())
    {
        diags.error(
            "wrong-features",
            Span::new(first.span.start, last.span.end),
            format!("the model of `{}` was trained on other features, or in another order", step.name.value),
            format!("train it again, or write `features = {wanted:?}`"),
        );
    }
    decisions::check(pipeline, step, model, diags);
}

fn report(pipeline: &Pipeline, errors: &[PlanError], diags: &mut Diagnostics) {
    for e in errors {
        if let Some(step) = pipeline.sql_step(&e.step) {
            let span = locate(pipeline, &step.sql, &e.message);
            let (message, help) = advice(&e.message, &step.from.value);
            diags.error("sql", span, format!("step `{}`: {message}", e.step), help);
        } else {
            let span = pipeline
                .model_step(&e.step)
                .map(|s| &s.name)
                .or((pipeline.source.name.value == e.step).then_some(&pipeline.source.name))
                .map_or(pipeline.name.span, |n| n.span);
            let ttl = pipeline.source.device_ttl_ms.as_ref().filter(|_| e.message.starts_with("device_ttl"));
            let span = ttl.map_or(span, |t| t.span);
            let help = "correct the step, then run `avouch check` again";
            diags.error("plan", span, format!("`{}`: {}", e.step, e.message), help);
        }
    }
}

/// Plans the `where` of every sink, over the columns of a verdict.
fn plan_conditions(pipeline: &Pipeline, diags: &mut Diagnostics) {
    for sink in &pipeline.sinks {
        let Some(condition) = &sink.condition else { continue };
        let schema = condition_schema(&pipeline.features_of(&sink.from));
        if let Err(message) = Condition::plan(&condition.value, TABLE, schema) {
            let span = locate(pipeline, condition, &message);
            let (message, help) = advice(&message, TABLE);
            diags.error("sql", span, format!("`where` of the sink `{}`: {message}", sink.name.value), help);
        }
    }
}

/// The planner's message without what only its authors need, and what to do about it.
pub(crate) fn advice(message: &str, table: &str) -> (String, String) {
    let message = message
        .trim_start_matches("SQL error: ")
        .trim_start_matches("Schema error: ")
        .trim_start_matches("Error during planning: ");
    // A parser's error is wrapped as `ParserError("…")`.
    let message = match message.strip_prefix("ParserError(\"") {
        Some(inner) => inner.trim_end_matches("\")").replace("\\\"", "\""),
        None => message.to_owned(),
    };
    let message = message.trim_end_matches('.').to_owned();
    if let Some((message, near)) = message.split_once("\nDid you mean ") {
        let near = near.trim_end_matches('?').replace('\'', "`");
        return (message.trim_end_matches('.').replace('\'', "`"), format!("did you mean {near}?"));
    }
    let message = message.replace('\n', " ");
    if let Some((wrong, valid)) = unknown_name(&message) {
        let help = match closest(&wrong, valid.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None if valid.is_empty() => format!("correct the name; `{table}` has no columns"),
            None => format!("`{table}` has the columns {}", list(&valid)),
        };
        return (format!("there is no column `{wrong}`"), help);
    }
    (message, format!("correct the SQL; it reads the one table `{table}`"))
}

/// DataFusion's "No field named x. Valid fields are t.a, t.b": the name and the columns.
fn unknown_name(message: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix("No field named ")?;
    let (wrong, rest) = rest.split_once(". ").unwrap_or((rest.trim_end_matches('.'), ""));
    let bare = |name: &str| name.rsplit('.').next().unwrap_or(name).trim_matches('"').to_owned();
    let valid = rest
        .split_once("Valid fields are ")
        .map(|(_, names)| names.trim_end_matches('.').split(", ").map(bare).collect())
        .unwrap_or_default();
    Some((bare(wrong), valid))
}

/// The place in the SQL a planner's message is about: a line and column it names, or a name it quotes; else all of it.
pub(super) fn locate(pipeline: &Pipeline, text: &Spanned<String>, message: &str) -> Span {
    let whole = first_line(text);
    // Offsets in the SQL are offsets in the file only where TOML did not unescape anything.
    if pipeline.file.slice(text.span) != text.value {
        return whole;
    }
    match place(&text.value, message) {
        Some((at, len)) => Span::new(text.span.start + at, text.span.start + at + len),
        None => whole,
    }
}

/// Where in the SQL a message's matter is, and how long.
fn place(sql: &str, message: &str) -> Option<(usize, usize)> {
    let at = line_and_column(message).and_then(|(line, column)| offset(sql, line, column));
    if let Some(at) = at {
        return Some((at, word(&sql[at..]).max(sql[at..].chars().next().map_or(0, char::len_utf8))));
    }
    names(message).into_iter().find_map(|name| find_word(sql, name).map(|at| (at, name.len())))
}

/// What is wrong with a condition that stands in no file: the planner's message, what to do, and the line with a mark under
/// the place, where the message says which that is.
pub(crate) fn condition_mistake(condition: &str, message: &str, table: &str) -> String {
    let (said, help) = advice(message, table);
    let mut out = format!("the condition cannot be used: {said}");
    if let Some((at, len)) = place(condition, message) {
        let start = condition[..at].rfind('\n').map_or(0, |i| i + 1);
        let line = condition[start..].lines().next().unwrap_or_default();
        let before = condition[start..at].chars().count();
        let marks = condition[at..at + len].chars().count().max(1);
        out.push_str(&format!("\n  | {line}\n  | {}{}", " ".repeat(before), "^".repeat(marks)));
    }
    let own = format!("correct the condition; its columns are those of `{table}`");
    let help = if help.starts_with("correct the SQL") { own } else { help };
    out.push_str(&format!("\n  help: {help}"));
    out
}

fn first_line(sql: &Spanned<String>) -> Span {
    let start = sql.value.len() - sql.value.trim_start().len();
    if start > 0 && sql.span.start + start <= sql.span.end {
        return Span::new(sql.span.start + start, sql.span.end);
    }
    sql.span
}

/// `… at Line: 3, Column: 14`.
fn line_and_column(message: &str) -> Option<(usize, usize)> {
    let number = |after: &str| {
        let rest = &message[message.rfind(after)? + after.len()..];
        rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse::<usize>().ok()
    };
    Some((number("Line: ")?, number("Column: ")?)).filter(|(l, c)| *l > 0 && *c > 0)
}

fn offset(sql: &str, line: usize, column: usize) -> Option<usize> {
    let start = std::iter::once(0).chain(sql.match_indices('\n').map(|(i, _)| i + 1)).nth(line - 1)?;
    let end = sql[start..].find('\n').map_or(sql.len(), |i| start + i);
    let at = sql[start..end].char_indices().nth(column - 1).map(|(i, _)| start + i)?;
    (at < sql.len()).then_some(at)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(text: &str) -> usize {
    text.find(|c: char| !is_word(c)).unwrap_or(text.len())
}

/// Names a message quotes, then the one after "field named", in this order.
fn names(message: &str) -> Vec<&str> {
    let mut out: Vec<&str> = Vec::new();
    if let Some((_, rest)) = message.split_once("No field named ") {
        let name = rest.split([' ', ',']).next().unwrap_or_default().trim_end_matches('.');
        out.push(name.rsplit('.').next().unwrap_or(name).trim_matches('"'));
    }
    for quote in ['\'', '"', '`'] {
        out.extend(message.split(quote).skip(1).step_by(2).filter(|n| n.len() < 64));
    }
    out.retain(|n| !n.is_empty() && n.chars().all(is_word));
    out
}

fn find_word(text: &str, name: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    let name = name.to_ascii_lowercase();
    lower.match_indices(&name).map(|(i, _)| i).find(|&i| {
        let before = lower[..i].chars().next_back().is_none_or(|c| !is_word(c));
        before && lower[i + name.len()..].chars().next().is_none_or(|c| !is_word(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_sql() {
        let sql = "SELECT device,\n  avg(tmp) AS m\nFROM readings";
        assert_eq!(offset(sql, 2, 7), Some(21));
        assert_eq!(&sql[21..21 + word(&sql[21..])], "tmp");
        assert_eq!(offset(sql, 9, 1), None);
        assert_eq!(offset(sql, 1, 99), None);
        assert_eq!(line_and_column("Expected: x, found: y at Line: 12, Column: 3"), Some((12, 3)));
        assert_eq!(line_and_column("nothing"), None);
        assert_eq!(find_word("tmps + tmp", "tmp"), Some(7));
        assert_eq!(find_word("TMP", "tmp"), Some(0));
        assert_eq!(names("Invalid function 'avgg' here"), ["avgg"]);
    }

    #[test]
    fn a_condition_without_a_file_is_marked_at_its_place() {
        let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new(
            "device",
            arrow::datatypes::DataType::Utf8,
            true,
        )]));
        let mistake = |condition: &str| match Condition::plan(condition, "readings", schema.clone()) {
            Err(message) => condition_mistake(condition, &message, "readings"),
            Ok(_) => String::new(),
        };
        assert_eq!(
            mistake("devise = 'ä'"),
            "the condition cannot be used: there is no column `devise`\n  | devise = 'ä'\n  | ^^^^^^\n  \
             help: did you mean `device`?"
        );
        let parsed = mistake("device =\n  'ä' = = 1");
        assert!(parsed.contains("\n  |   'ä' = = 1\n  |         ^\n"), "{parsed}");
    }

    #[test]
    fn what_datafusion_says_of_columns() {
        let (name, valid) = unknown_name("No field named tmp. Valid fields are readings.device, readings.\"Temp\".")
            .unwrap_or_default();
        assert_eq!(name, "tmp");
        assert_eq!(valid, ["device", "Temp"]);
        assert_eq!(unknown_name("something else"), None);
    }
}
