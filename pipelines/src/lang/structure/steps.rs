//! `[steps.*]`: SQL over rows, SQL over windows, and models.

use avouch_engine::spec::WindowSpec;
use avouch_engine::verdict::Hash32;

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, value_span};
use super::super::interpolate::Text;
use super::super::pipeline::{ModelStep, SqlStep};
use super::super::span::{Span, Spanned};
use super::super::tree::{Entry, NodeValue};
use super::super::units::format_duration;
use super::decide::{self, DECIDE};
use super::{Role, StepBody, StepDraft, name_of};

const FROM: Key = Key::must("from", Kind::Literal, "The source or step it reads.");
const SQL_STEP: Keys = Keys::new(
    "sql_step",
    "One `SELECT`; with a window it makes features.",
    &[
        FROM,
        Key::must(
            "sql",
            Kind::Literal,
            "One `SELECT` over `from`. Without a window: projection and `WHERE`. With one: `GROUP BY` the key, aggregates, \
             `WHERE`, `HAVING`.",
        ),
        Key::may("window", Kind::OneOf(&[&TUMBLING, &SLIDING, &SESSION]), "Over which rows it aggregates.").or("none"),
    ],
);
const MODEL_STEP: Keys = Keys::new(
    "model_step",
    "A model, which judges each window of a device.",
    &[
        Key::must("from", Kind::Literal, "The windowed step it reads."),
        Key::must("model", Kind::Table(&MODEL), "The model's file."),
        Key::may("features", Kind::Names(false), "Columns of the windowed step, in the model's order.")
            .or("its numbers, in its order"),
        Key::must("decide", Kind::Table(&DECIDE), "How what the model says becomes a severity."),
    ],
);
pub(super) const STEP_TABLES: [&Keys; 2] = [&SQL_STEP, &MODEL_STEP];
const ANY_STEP: Keys = Keys::any(&STEP_TABLES);
const SIZE: Key = Key::must("size", Kind::LiteralDuration(1), "How long a window is.");
const EARLY: Key = Key::may(
    "early",
    Kind::LiteralDuration(1),
    "How often, in event time, the rows so far of open windows are judged too; shorter than the window.",
)
.or("never");
const fn window_is(kind: &'static str) -> Key {
    Key::must("kind", Kind::Is(kind), "How windows lie.")
}
const TUMBLING: Keys = Keys::new("tumbling_window", "One window after another.", &[window_is("tumbling"), SIZE, EARLY]);
const SLIDING: Keys = Keys::new(
    "sliding_window",
    "Windows that overlap.",
    &[
        window_is("sliding"),
        SIZE,
        Key::must("every", Kind::LiteralDuration(1), "How often one begins; at most the size."),
        EARLY,
    ],
);
const WINDOW: Keys = Keys::any(&[&TUMBLING, &SLIDING]);
const SESSION: Keys = Keys::new(
    "session_window",
    "Windows that end when a device is silent.",
    &[
        window_is("session"),
        Key::must("gap", Kind::LiteralDuration(1), "The silence that ends it."),
        Key::must("max", Kind::LiteralDuration(1), "How long it lasts at most; at least the gap."),
    ],
)
.planned(&[("early", "remove it; tumbling and sliding windows have early results")]);
const WINDOW_KIND: Choices = Choices { what: "window kind", known: &["tumbling", "sliding", "session"], planned: &[] };
const MODEL: Keys = Keys::new(
    "model",
    "A model's file.",
    &[
        Key::must("file", Kind::Text, "The file, as `avouch train` writes it."),
        Key::may("sha256", Kind::AnyText, "The hash it must have, 64 hexadecimal digits; empty counts as none."),
    ],
);
const WINDOW_EXAMPLE: &str = "window = { kind = \"sliding\", size = \"1m\", every = \"10s\" }";

pub(super) fn read(cx: &mut Reading<'_>, e: &Entry) -> StepDraft {
    let mut draft = StepDraft { name: name_of(e), role: Role::Unclear, from: None, body: None };
    let path = format!("steps.{}", e.key);
    let has = |key: &str| matches!(&e.node.value, NodeValue::Table(t) if t.iter().any(|x| x.key == key));
    draft.role = match (has("sql"), has("model"), has("window")) {
        (true, false, false) => Role::Rows,
        (true, false, true) => Role::Window,
        (false, true, _) => Role::Model,
        _ => Role::Unclear,
    };
    let keys = match draft.role {
        Role::Rows | Role::Window => &SQL_STEP,
        Role::Model => &MODEL_STEP,
        Role::Unclear => &ANY_STEP,
    };
    let example = format!("[{path}]");
    let Some(f) = Fields::open(cx, &e.node, &path, e.key_span, keys, &example) else {
        return draft;
    };
    draft.from = f.literal(cx, Need::Must, "from", "from = \"readings\"");
    match draft.role {
        Role::Rows | Role::Window => {
            draft.body = read_sql(cx, &f, e, draft.from.clone()).map(StepBody::Sql);
        }
        Role::Model => draft.body = read_model(cx, &f, e, draft.from.clone()).map(|m| StepBody::Model(Box::new(m))),
        Role::Unclear if has("sql") => cx.diags.error(
            "two-kinds",
            e.key_span,
            format!("the step `{}` has both `sql` and `model`", e.key),
            "make two steps: one computes features, the next, reading `from` it, scores them",
        ),
        Role::Unclear => cx.diags.error(
            "missing-key",
            e.key_span,
            format!("the step `{}` has neither `sql` nor `model`", e.key),
            "add `sql = \"SELECT …\"`, or `model = { file = \"models/….model\" }`",
        ),
    }
    draft
}

fn read_sql(cx: &mut Reading<'_>, f: &Fields<'_>, e: &Entry, from: Option<Spanned<String>>) -> Option<SqlStep> {
    let sql = f.literal(cx, Need::Must, "sql", "sql = \"SELECT * FROM readings\"");
    let (window, early) = match f.get("window") {
        None => (Some(None), Some(None)),
        Some(w) => match read_window(cx, f, w) {
            Some((window, early)) => (Some(Some(window)), Some(early)),
            None => (None, None),
        },
    };
    Some(SqlStep { name: name_of(e), from: from?, sql: sql?, window: window?, early: early? })
}

type Window = (Spanned<WindowSpec>, Option<Spanned<i64>>);

fn read_window(cx: &mut Reading<'_>, f: &Fields<'_>, entry: &Entry) -> Option<Window> {
    let is_session = match &entry.node.value {
        NodeValue::Table(t) => t.iter().any(|x| x.key == "kind" && x.node.value == NodeValue::Str("session".into())),
        _ => false,
    };
    let keys = if is_session { &SESSION } else { &WINDOW };
    let w = f.table(cx, Need::Must, "window", keys, WINDOW_EXAMPLE)?;
    let kind = w.choice(cx, Need::Must, "kind", &WINDOW_KIND, "kind = \"sliding\"");
    if kind.is_none() && w.get("kind").is_some() {
        return None;
    }
    let span = value_span(entry);
    if is_session {
        return Some((Spanned::new(read_session(cx, &w)?, span), None));
    }
    let size = w.literal_duration(cx, Need::Must, "size", 1, "size = \"1m\"");
    if kind.as_ref()?.value == "tumbling" {
        if let Some(every) = w.get("every") {
            cx.diags.error(
                "unknown-key",
                every.key_span,
                "a tumbling window has no `every`: one begins where the other ends",
                "remove it, or write `kind = \"sliding\"`",
            );
            return None;
        }
        let early = read_early(cx, &w, size.as_ref());
        return Some((Spanned::new(WindowSpec::Tumbling { size_ms: size?.value }, span), early?));
    }
    let every = w.literal_duration(cx, Need::Must, "every", 1, "every = \"10s\"");
    let early = read_early(cx, &w, size.as_ref());
    let (size, every) = (size?, every?);
    if every.value > size.value {
        cx.diags.error(
            "window-gap",
            every.span,
            format!(
                "windows of {} every {} leave gaps: readings between them would be in no window",
                format_duration(size.value),
                format_duration(every.value)
            ),
            format!("make `every` at most {}", format_duration(size.value)),
        );
        return None;
    }
    let whole = size.value / every.value;
    let panes = if size.value % every.value == 0 { whole } else { 2 * whole + 1 };
    many_panes(
        cx,
        every.span,
        panes,
        format!("a window of {} every {}", format_duration(size.value), format_duration(every.value)),
        "choose a longer `every`: each device also gets a verdict that often",
    );
    Some((Spanned::new(WindowSpec::Sliding { size_ms: size.value, every_ms: every.value }, span), early?))
}

/// `None` if it is wrong, `Some(None)` if it is not there.
fn read_early(cx: &mut Reading<'_>, w: &Fields<'_>, size: Option<&Spanned<i64>>) -> Option<Option<Spanned<i64>>> {
    if w.get("early").is_none() {
        return Some(None);
    }
    let early = w.literal_duration(cx, Need::May, "early", 1, "early = \"1m\"")?;
    if let Some(size) = size.filter(|s| early.value >= s.value) {
        cx.diags.error(
            "early-too-late",
            early.span,
            format!(
                "early results every {} come no earlier than the verdict of a window of {}",
                format_duration(early.value),
                format_duration(size.value)
            ),
            format!("make `early` shorter than {}, or remove it", format_duration(size.value)),
        );
        cx.diags.relate(early.span, size.span, "the size stands");
        return None;
    }
    Some(Some(early))
}

fn read_session(cx: &mut Reading<'_>, w: &Fields<'_>) -> Option<WindowSpec> {
    let gap = w.literal_duration(cx, Need::Must, "gap", 1, "gap = \"5m\"");
    let max = w.literal_duration(cx, Need::Must, "max", 1, "max = \"1h\"");
    let (gap, max) = (gap?, max?);
    if max.value < gap.value {
        cx.diags.error(
            "session-max",
            max.span,
            format!(
                "sessions of at most {} cannot have gaps of {}: each would end before its gap",
                format_duration(max.value),
                format_duration(gap.value)
            ),
            format!("make `max` at least {}", format_duration(gap.value)),
        );
        cx.diags.relate(max.span, gap.span, "the gap stands");
        return None;
    }
    many_panes(
        cx,
        max.span,
        max.value / gap.value,
        format!("a session of up to {} with gaps of {}", format_duration(max.value), format_duration(gap.value)),
        "choose a shorter `max`, or a longer `gap`",
    );
    Some(WindowSpec::Session { gap_ms: gap.value, max_ms: max.value })
}

fn many_panes(cx: &mut Reading<'_>, span: Span, panes: i64, what: String, help: &str) {
    if panes > 3_600 {
        cx.diags.warning(
            "many-panes",
            span,
            format!("{what} has {panes} panes, and each that has readings costs memory for every device"),
            help,
        );
    }
}

fn read_model(cx: &mut Reading<'_>, f: &Fields<'_>, e: &Entry, from: Option<Spanned<String>>) -> Option<ModelStep> {
    let model = f.table(cx, Need::Must, "model", &MODEL, "model = { file = \"models/pump.model\" }");
    let file = model.as_ref().and_then(|m| {
        let text = m.text(cx, Need::Must, "file", "file = \"models/pump.model\"")?;
        Some(Spanned::new(cx.dir.join(text.as_str()), text.span))
    });
    let sha256: Option<Option<Spanned<Hash32>>> = match &model {
        Some(m) if m.get("sha256").is_some() => read_sha256(cx, m),
        _ => Some(None),
    };
    let features = match f.get("features") {
        // Found once the SQL is planned.
        None => Some(Vec::new()),
        Some(_) => f.literals(cx, Need::May, "features", false, "features = [\"temp_mean\", \"vib_rms\"]"),
    };
    let features = features.filter(|fs| no_duplicates(cx, fs, "the feature"));
    let decide = decide::read(cx, f);
    Some(ModelStep {
        name: name_of(e),
        from: from?,
        model_file: file?,
        model_sha256: sha256?,
        features: features?,
        decide: decide?,
    })
}

/// `Some(None)` when the hash is given but empty, as `${env:MODEL_SHA256:-}` is where nothing is pinned.
pub(super) fn read_sha256(cx: &mut Reading<'_>, m: &Fields<'_>) -> Option<Option<Spanned<Hash32>>> {
    let text = m.text_maybe_empty(cx, Need::May, "sha256", "sha256 = \"${env:PUMP_MODEL_SHA256:-}\"")?;
    if text.as_str().is_empty() {
        return Some(None);
    }
    let Some(hash) = hex_bytes::<32>(text.as_str()) else {
        bad_hex(cx, &text, "a SHA-256", 64, "take it from `sha256sum models/pump.model`");
        return None;
    };
    Some(Some(Spanned::new(hash, text.span)))
}

/// Reports names given twice.
pub(super) fn no_duplicates(cx: &mut Reading<'_>, names: &[Spanned<String>], what: &str) -> bool {
    let mut good = true;
    for (i, name) in names.iter().enumerate() {
        if let Some(first) = names[..i].iter().find(|n| n.value == name.value) {
            cx.diags.error(
                "given-twice",
                name.span,
                format!("{what} `{}` is given twice", name.value.escape_debug()),
                "remove one of the two",
            );
            cx.diags.relate(name.span, first.span, "it first stands");
            good = false;
        }
    }
    good
}

/// Bytes of hexadecimal digits, with or without `0x`.
pub(crate) fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(out)
}

/// Reports a text that is not so many hexadecimal digits, without showing one that came from outside.
pub(super) fn bad_hex(cx: &mut Reading<'_>, text: &Text, what: &str, digits: usize, help: &str) {
    let found = text.as_str().strip_prefix("0x").unwrap_or(text.as_str()).chars().count();
    cx.diags.error(
        "bad-hex",
        text.span,
        format!(
            "`{}` is not {what}: {digits} hexadecimal digits are needed, here are {found} characters",
            text.raw().escape_debug()
        ),
        help,
    );
}
