//! What a pipeline's steps do and keep: the plan of each, its columns, its state, its rules of time, and why it gives the same
//! bytes everywhere. Drawn from the plan that runs, not from the file.

mod text;
mod verdict;

pub use text::text;
pub use verdict::{labels_in_words, verdict_in_words};

use std::path::Path;

use avouch_engine::plan::{Input, LanePlan, WindowStep};
use avouch_engine::spec::{FieldType, WindowSpec};
use avouch_engine::sql::{FunctionsUsed, Operator};
use avouch_models::card::CalibrationCard;
use serde::Serialize;

use arrow::datatypes::{DataType, SchemaRef, TimeUnit};

use crate::graph::window_words;
use crate::lang::{ModelStep, Pipeline, format_duration, hex, shown_threshold};

/// A pipeline, explained.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// Its name.
    pub pipeline: String,
    /// SHA-256 of its canonical form.
    pub config_hash: String,
    /// The source, then steps, each after what it reads.
    pub steps: Vec<Part>,
}

/// The source or a step.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// `source`, `sql`, `window` or `model`.
    pub kind: &'static str,
    /// What it reads.
    pub from: Option<String>,
    /// What is done, in order.
    pub plan: Vec<Done>,
    /// The columns after it.
    pub columns: Vec<Column>,
    /// What it keeps between rows.
    pub state: Vec<Kept>,
    /// Which rules of time apply.
    pub time: Vec<String>,
    /// Why it gives the same bytes everywhere.
    pub determinism: Vec<String>,
    /// The model, where the file is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Model>,
}

/// One operator.
#[derive(Debug, Clone, Serialize)]
pub struct Done {
    /// What it does.
    pub operator: &'static str,
    /// Its expressions.
    pub expressions: Vec<String>,
}

/// One column.
#[derive(Debug, Clone, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as the pipeline language names it where it does.
    #[serde(rename = "type")]
    pub ty: String,
    /// Whether it may be null.
    pub nullable: bool,
}

/// One thing that is kept.
#[derive(Debug, Clone, Serialize)]
pub struct Kept {
    /// What.
    pub what: String,
    /// Of what each: a device, a device and pane.
    pub per: &'static str,
    /// Bytes of each in memory, where they do not depend on the readings.
    pub bytes: Option<usize>,
}

/// A model.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// SHA-256 of the file.
    pub hash: String,
    /// The algorithm in words.
    pub algorithm: String,
    /// When it was made, as training was told.
    pub created: String,
    /// Rows it was fitted on, and held back for calibration.
    pub rows_fitted: u64,
    /// Rows held back for calibration.
    pub rows_held_back: u64,
    /// The smallest p-value it can give.
    pub smallest_p_value: f64,
    /// Whether it goes on learning of each device.
    pub online: bool,
    /// How scores become p-values, by baseline.
    pub calibration: Vec<CalibrationCard>,
}

/// Why a pipeline cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// There is no such step.
    #[error("there is no step `{name}`{}", near.as_ref().map_or_else(|| format!("; there are {have}"), |n| format!("; did you mean `{n}`?")))]
    NoStep {
        /// As asked for.
        name: String,
        /// The one that was probably meant.
        near: Option<String>,
        /// All there are.
        have: String,
    },
}

impl Explanation {
    /// Explains a pipeline from its plan, which may be without models; their files are read where they are there.
    pub fn of(pipeline: &Pipeline, plan: &LanePlan) -> Self {
        let mut steps = vec![source(pipeline, plan)];
        let of_input = |input: Input| match input {
            Input::Source => plan.source.name.clone(),
            Input::Step(i) => plan.rows[i].name.clone(),
        };
        for step in &plan.rows {
            let used = step.query.functions();
            let mut determinism = functions(&used);
            let remembered = step.query.remembered();
            if !remembered.is_empty() {
                determinism.push("row functions go over a device's rows in the order of their offsets".to_owned());
            }
            for name in step.query.joined() {
                determinism.push(format!(
                    "which version of `{name}` rows are joined with is an input: each change is recorded at its offset"
                ));
            }
            let kept = |r: avouch_engine::sql::Remembered| Kept {
                what: match r.bytes {
                    Some(_) => r.call,
                    None => format!("{}: the texts themselves", r.call),
                },
                per: "device",
                bytes: r.bytes,
            };
            steps.push(Part {
                name: step.name.clone(),
                kind: "sql",
                from: Some(of_input(step.input)),
                plan: done(step.query.operators()),
                columns: columns(step.query.schema()),
                state: remembered.into_iter().map(kept).collect(),
                time: Vec::new(),
                determinism,
                model: None,
            });
        }
        for step in &plan.windows {
            steps.push(window(step, of_input(step.input), plan));
        }
        steps.extend(pipeline.model_steps.iter().map(|step| model(pipeline, step)));
        Self { pipeline: pipeline.name.value.clone(), config_hash: hex(&pipeline.config_hash()), steps }
    }

    /// With one step alone.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn only(mut self, name: &str) -> Result<Self, ExplainError> {
        if !self.steps.iter().any(|s| s.name == name) {
            let names: Vec<&str> = self.steps.iter().map(|s| s.name.as_str()).collect();
            return Err(ExplainError::NoStep {
                name: name.to_owned(),
                near: crate::lang::closest(name, names.iter().copied()).map(str::to_owned),
                have: crate::lang::list(&names),
            });
        }
        self.steps.retain(|s| s.name == name);
        Ok(self)
    }
}

fn done(operators: Vec<Operator>) -> Vec<Done> {
    operators.into_iter().map(|o| Done { operator: o.name, expressions: o.expressions }).collect()
}

fn type_name(ty: &DataType) -> String {
    let field = match ty {
        DataType::Utf8 => FieldType::Utf8,
        DataType::Boolean => FieldType::Bool,
        DataType::Int64 => FieldType::I64,
        DataType::Float64 => FieldType::F64,
        DataType::Timestamp(TimeUnit::Millisecond, None) => FieldType::TimestampMs,
        other => return other.to_string(),
    };
    field.name().to_owned()
}

fn columns(schema: &SchemaRef) -> Vec<Column> {
    let column = |f: &arrow::datatypes::Field| Column {
        name: f.name().clone(),
        ty: type_name(f.data_type()),
        nullable: f.is_nullable(),
    };
    schema.fields().iter().map(|f| column(f)).collect()
}

fn functions(used: &FunctionsUsed) -> Vec<String> {
    let joined = |names: &std::collections::BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut out = Vec::new();
    if !used.exact.is_empty() {
        out.push(format!("exact or correctly rounded on every machine: {}", joined(&used.exact)));
    }
    if !used.transcendental.is_empty() {
        out.push(format!("from one library, libm, on every machine: {}", joined(&used.transcendental)));
    }
    if out.is_empty() {
        out.push("comparison and IEEE 754 arithmetic alone".to_owned());
    }
    out
}

fn source(pipeline: &Pipeline, plan: &LanePlan) -> Part {
    let time = &pipeline.source.time;
    let mut rules = vec![
        format!(
            "watermark: the highest `{}` of the rows admitted (at most the record's timestamp), minus {}",
            time.column.value,
            format_duration(time.max_disorder_ms.value)
        ),
        format!("future: a row more than {} ahead of its record's timestamp dies", format_duration(time.max_future_ms)),
    ];
    if !plan.windows.is_empty() {
        let names: Vec<&str> = plan.windows.iter().map(|w| w.name.as_str()).collect();
        rules.push(format!(
            "late: a row that comes when all its windows in {} are closed dies",
            crate::lang::list(&names)
        ));
    }
    rules.push(match time.idle_after_ms {
        Some(ms) => {
            format!("idle: after {} without a row, ticks take time on at the clock's pace", format_duration(ms))
        }
        None => "idle: time stands still without rows, and open windows wait".to_owned(),
    });
    let ttl = match pipeline.source.device_ttl_ms.as_ref() {
        Some(ttl) => format!("forgotten after {} without a row", format_duration(ttl.value)),
        None => "never forgotten".to_owned(),
    };
    let mut determinism = vec![
        "rows are taken in the order of their offsets, and time moves row by row, however they are read".to_owned(),
    ];
    if time.idle_after_ms.is_some() {
        determinism
            .push("every tick is recorded, with its place in the input, before its effects are durable".to_owned());
    }
    let required = |f: &avouch_engine::spec::FieldSpec| Column {
        name: f.name.clone(),
        ty: f.ty.name().to_owned(),
        nullable: !f.required,
    };
    Part {
        name: plan.source.name.clone(),
        kind: "source",
        from: None,
        plan: vec![
            Done { operator: "decode", expressions: vec![pipeline.source.format.name().to_owned()] },
            Done { operator: "admit", expressions: vec![format!("by event time, `{}`", time.column.value)] },
        ],
        columns: plan.source.fields.iter().map(required).collect(),
        state: vec![Kept {
            what: format!("its name, pseudonym and the number of its next verdict; {ttl}"),
            per: "device",
            bytes: None,
        }],
        time: rules,
        determinism,
        model: None,
    }
}

fn window(step: &WindowStep, from: String, plan: &LanePlan) -> Part {
    let parts = step.query.parts();
    let size = step.query.definition(step.window).pane_size();
    let per = "device and pane";
    let mut state: Vec<Kept> = Vec::new();
    state.extend(parts.channels.iter().map(|(e, bytes)| Kept {
        what: format!("statistics of {e}"),
        per,
        bytes: Some(*bytes),
    }));
    if parts.pairs > 0 {
        state.push(Kept { what: "statistics of pairs of them".to_owned(), per, bytes: Some(parts.pairs) });
    }
    for gathered in &parts.gathered {
        let (values, of) = (gathered.values.join(", "), gathered.aggregates.join(", "));
        state.push(Kept { what: format!("{} whole, with {values}, for {of}", gathered.keep), per, bytes: None });
    }
    state.push(Kept { what: "digest of its rows, count, offsets".to_owned(), per, bytes: Some(size.fixed) });
    if size.partial > 0 {
        let what = "sums over several panes, which can be computed again".to_owned();
        state.push(Kept { what, per, bytes: Some(size.partial) });
    }
    let whole = if parts.gathered.is_empty() { "" } else { ", and the rows kept whole" };
    let panes = match step.window {
        WindowSpec::Session { .. } => format!("the longest session lies in {} panes", size.panes),
        _ => format!("a window is {} of them", crate::lang::plural(size.panes as usize, "pane")),
    };
    state.push(Kept { what: format!("in all, with rows in it{whole}; {panes}"), per, bytes: Some(size.bytes()) });
    let mut time = vec![
        match step.window {
            WindowSpec::Session { .. } => {
                "a session closes when the watermark is a gap past its last row, or past its greatest length".to_owned()
            }
            _ => "a window closes when the watermark reaches its end, and is judged once".to_owned(),
        },
        format!("so rows out of order by up to {} are in it", format_duration(plan.source.max_disorder_ms)),
    ];
    if plan.windows.len() > 1 {
        time.push("a row late for this step and not for another is left out here, and does not die".to_owned());
    }
    if let Some(early) = step.early_ms {
        time.push(format!("open windows give early results every {}, which are no verdicts", format_duration(early)));
    }
    let mut determinism = functions(&step.query.functions());
    determinism
        .push("sums add in the order of offsets within a pane; panes are merged in the order of time".to_owned());
    if !parts.gathered.is_empty() {
        determinism.push("aggregates over rows kept whole see them by event time, then offset".to_owned());
    }
    let mut operators = vec![Done { operator: "window", expressions: vec![window_words(step.window)] }];
    operators.extend(done(parts.operators));
    Part {
        name: step.name.clone(),
        kind: "window",
        from: Some(from),
        plan: operators,
        columns: columns(step.query.schema()),
        state,
        time,
        determinism,
        model: None,
    }
}

fn model(pipeline: &Pipeline, step: &ModelStep) -> Part {
    let shown = pipeline.file.slice(step.model_file.span);
    let features: Vec<&str> = step.features.iter().map(|f| f.value.as_str()).collect();
    let mut plan = vec![Done { operator: "score", expressions: vec![features.join(", ")] }];
    let spec = pipeline.thresholds(step);
    let thresholds = [("warning", spec.warning), ("critical", spec.critical)];
    let mut thresholds: Vec<String> = thresholds
        .into_iter()
        .filter_map(|(name, t)| t.map(|t| format!("{name} if {}", shown_threshold(&t))))
        .collect();
    thresholds.extend(step.decide.budget_in_words(pipeline.judged_every(step)));
    plan.push(Done { operator: "decide", expressions: thresholds });
    let found = opened(&step.model_file.value);
    let mut determinism = Vec::new();
    let mut state = Vec::new();
    match &found {
        Ok(m) if m.online => {
            determinism.push(
                "a score is a function of the device's windows so far and the model file, whose hash is in every verdict"
                    .to_owned(),
            );
            let what = "what the model has learnt of it, bounded, and forgotten with it".to_owned();
            state.push(Kept { what, per: "device", bytes: None });
        }
        Ok(_) => determinism.push(
            "a score is a function of the features and the model file, whose hash is in every verdict".to_owned(),
        ),
        Err(why) => determinism.push(format!("the model `{shown}` {why}: nothing can be said of it")),
    }
    determinism.push("a feature that is null or not finite gives the class not_a_number and no score".to_owned());
    Part {
        name: step.name.value.clone(),
        kind: "model",
        from: Some(step.from.value.clone()),
        plan,
        columns: Vec::new(),
        state,
        time: vec!["one verdict a device and window, when the window closes".to_owned()],
        determinism,
        model: found.ok(),
    }
}

fn opened(path: &Path) -> Result<Model, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err("is not there yet".to_owned()),
        Err(e) => return Err(format!("cannot be read ({})", e.kind())),
    };
    let file = avouch_models::file::open(&bytes).map_err(|e| format!("cannot be used ({e})"))?;
    let scorer = avouch_models::load(&bytes).map_err(|e| format!("cannot be used ({e})"))?;
    Ok(Model {
        hash: hex(&file.hash),
        algorithm: file.card.model,
        created: file.card.created,
        rows_fitted: file.card.training.rows_fitted,
        rows_held_back: file.card.training.rows_held_back,
        smallest_p_value: scorer.smallest_p_value(),
        online: scorer.memory("").is_some(),
        calibration: file.card.calibration,
    })
}
