//! `[pipeline]`: name, delivery, checkpoints, secret.

use std::path::PathBuf;

use super::super::fields::{Choices, Fields, Keys, Need, Reading, closest, unsupported};
use super::super::interpolate::{SecretString, Text};
use super::super::pipeline::{Checkpoint, Delivery};
use super::super::span::{Span, Spanned};

pub(in super::super) struct Head {
    pub name: Spanned<String>,
    pub description: String,
    pub delivery: Option<Spanned<Delivery>>,
    pub checkpoint: Option<Checkpoint>,
    pub secret: Option<Spanned<SecretString>>,
}

const PIPELINE: Keys = Keys { known: &["name", "description", "delivery", "checkpoint", "secret"], planned: &[] };
const CHECKPOINT: Keys = Keys { known: &["every", "store"], planned: &[] };
const DELIVERY: Choices = Choices { what: "delivery", known: &["exactly-once", "at-least-once"], planned: &[] };
const DEFAULT_STORE: &str = "file://./state";

pub(super) fn read(cx: &mut Reading<'_>, file: &Fields<'_>) -> Option<Head> {
    let f = file.table(cx, Need::Must, "pipeline", &PIPELINE, "[pipeline]")?;
    let name = f.literal(cx, Need::Must, "name", "name = \"pump-health\"").filter(|n| check_name(cx, n));
    let description = f.text_maybe_empty(cx, Need::May, "description", "description = \"Bearing wear on pumps\"");
    let delivery = match f.get("delivery") {
        None => Some(Spanned::new(Delivery::ExactlyOnce, f.at)),
        Some(_) => f.choice(cx, Need::May, "delivery", &DELIVERY, "delivery = \"exactly-once\"").map(|d| {
            let value = if d.value == "exactly-once" { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce };
            Spanned::new(value, d.span)
        }),
    };
    let checkpoint = read_checkpoint(cx, &f);
    let secret = f.secret(cx, Need::May, "secret", "secret = \"${file:/run/secrets/pipeline}\"");
    if let Some(s) = &secret
        && s.value.expose().len() < 16
    {
        cx.diags.error(
            "weak-secret",
            s.span,
            "`pipeline.secret` is shorter than 16 bytes, so that device names could be guessed from the log",
            "make one with `openssl rand -hex 32 > secret` and write `secret = \"${file:secret}\"`",
        );
    }
    Some(Head {
        name: name?,
        description: description.map(|d| d.as_str().to_owned()).unwrap_or_default(),
        delivery,
        checkpoint,
        secret,
    })
}

/// The name becomes a directory, a metric label and part of Kafka's transactional id.
fn check_name(cx: &mut Reading<'_>, name: &Spanned<String>) -> bool {
    let n = &name.value;
    let fits = n.len() <= 64
        && n.starts_with(|c: char| c.is_ascii_alphanumeric())
        && n.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    if !fits {
        cx.diags.error(
            "bad-name",
            name.span,
            format!("`{}` cannot be the name of a pipeline", n.escape_debug()),
            "use letters, digits, `-`, `_` and `.`, beginning with a letter or digit, at most 64; prose goes into \
             `description`",
        );
    }
    fits
}

fn read_checkpoint(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Checkpoint> {
    let default = |cx: &Reading<'_>, span: Span| Checkpoint { every_ms: 10_000, dir: cx.dir.join("./state"), span };
    if f.get("checkpoint").is_none() {
        return Some(default(cx, f.at));
    }
    let example = "checkpoint = { every = \"10s\", store = \"file://./state\" }";
    let c = f.table(cx, Need::Must, "checkpoint", &CHECKPOINT, example)?;
    let mut out = default(cx, c.at);
    let mut whole = true;
    if c.get("every").is_some() {
        match c.duration(cx, Need::May, "every", 10, "every = \"10s\"") {
            Some(every) => out.every_ms = every.value,
            None => whole = false,
        }
    }
    if c.get("store").is_some() {
        let store = c.text(cx, Need::May, "store", "store = \"file://./state\"");
        match store.and_then(|store| Some((store.span, store_dir(cx, &store)?))) {
            Some((span, dir)) => (out.span, out.dir) = (span, dir),
            None => whole = false,
        }
    }
    whole.then_some(out)
}

/// The directory of a `file://` URL. Other stores are refused here: an object store is planned, anything else would
/// not survive a restart.
fn store_dir(cx: &mut Reading<'_>, store: &Text) -> Option<PathBuf> {
    let help = format!("use a directory: `store = \"{DEFAULT_STORE}\"`");
    let Some((scheme, path)) = store.as_str().split_once("://") else {
        cx.diags.error(
            "bad-store",
            store.span,
            format!("`{}` is not the URL of a checkpoint store", store.raw().escape_debug()),
            help,
        );
        return None;
    };
    match scheme {
        "file" if !path.is_empty() => Some(cx.dir.join(path)),
        "file" => {
            cx.diags.error("bad-store", store.span, "this checkpoint store names no directory", help);
            None
        }
        "s3" | "gs" | "az" => {
            unsupported(cx, store.span, "a checkpoint store in an object store", &help);
            None
        }
        other => {
            let help = match closest(other, ["file"].into_iter()) {
                Some(_) => "did you mean `file://`?".to_owned(),
                None => help,
            };
            cx.diags.error(
                "bad-store",
                store.span,
                "checkpoints in this store would not survive a restart, so no delivery guarantee could be kept",
                help,
            );
            None
        }
    }
}
