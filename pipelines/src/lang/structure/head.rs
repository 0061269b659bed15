//! `[pipeline]`: name, delivery, checkpoints, secret.

use std::path::PathBuf;

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, Rule, closest, unsupported};
use super::super::interpolate::{SecretString, Text};
use super::super::pipeline::{Checkpoint, Delivery, ObjectStore};
use super::super::span::{Span, Spanned};

pub(in super::super) struct Head {
    pub name: Spanned<String>,
    pub description: String,
    pub delivery: Option<Spanned<Delivery>>,
    pub checkpoint: Option<Checkpoint>,
    pub secret: Option<Spanned<SecretString>>,
}

pub(super) const PIPELINE: Keys = Keys::new(
    "pipeline",
    "The pipeline's name, its promise, and where its state is kept.",
    &[
        Key::must(
            "name",
            Kind::Literal,
            "Letters, digits, `-`, `_` and `.`, at most 64. Names the log: `avouch/<name>/<partition>`.",
        ),
        Key::may("description", Kind::AnyText, "For people.").or("\"\""),
        Key::may("delivery", Kind::Choice(&DELIVERY), "What is promised of every verdict.").or("\"exactly-once\""),
        Key::may("checkpoint", Kind::Table(&CHECKPOINT), "When and where state is made durable."),
        Key::may(
            "secret",
            Kind::Secret,
            "Key of pseudonyms and salts, 16 bytes or more. Without one it is made once and kept in the store.",
        ),
    ],
);
const CHECKPOINT: Keys = Keys::new(
    "checkpoint",
    "When and where state is made durable. It is no part of the configHash.",
    &[
        Key::may("every", Kind::Duration(10), "How often; verdicts are delivered after that.").or("\"10s\""),
        Key::may("store", Kind::Text, "A directory, or a bucket: `s3://bucket/prefix`.").or("\"file://./state\""),
        Key::may("keep", Kind::Int(KEEP.0, KEEP.1), "How many checkpoints are kept.").or("5"),
        Key::may("cache", Kind::Text, "With a bucket: the directory of the working copy.").or("\"./state\""),
        Key::may("endpoint", Kind::Text, "With a bucket: URL of the S3 service.").or("the environment's"),
        Key::may("region", Kind::Text, "With a bucket: its region.").or("the environment's"),
        Key::may("access_key", Kind::Secret, "With a bucket: access key.").or("the environment's"),
        Key::may("secret_key", Kind::Secret, "With a bucket: secret key.").or("the environment's"),
    ],
)
.rules(&[Rule::Needs("access_key", "secret_key"), Rule::Needs("secret_key", "access_key")]);
pub(super) const DELIVERY: Choices =
    Choices { what: "delivery", known: &["exactly-once", "at-least-once"], planned: &[] };
const DEFAULT_STORE: &str = "file://./state";
/// Fewer would leave nothing to fall back to; more than this is a backup, which is another thing.
const KEEP: (i64, i64) = (2, 1000);
/// Keys that only an object store has.
const OF_OBJECT_STORES: [&str; 5] = ["cache", "endpoint", "region", "access_key", "secret_key"];

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
    if let Some(Checkpoint { object_store: Some(_), span, .. }) = &checkpoint
        && f.get("secret").is_none()
    {
        cx.diags.error(
            "broken-guarantee",
            *span,
            "with checkpoints in an object store any machine can take a lane over, and must go on with the same secret; \
             but without `pipeline.secret` each machine makes its own",
            "make one with `openssl rand -hex 32 > secret` and write `secret = \"${file:secret}\"` in `[pipeline]`",
        );
    }
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
    let default = |cx: &Reading<'_>, span: Span| Checkpoint {
        every_ms: 10_000,
        dir: cx.dir.join("./state"),
        keep: 5,
        object_store: None,
        span,
    };
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
    if c.get("keep").is_some() {
        match c.int(cx, Need::May, "keep", KEEP, "keep = 5") {
            Some(keep) => out.keep = usize::try_from(keep.value).unwrap_or(5),
            None => whole = false,
        }
    }
    let mut place = Some(Place::Directory(out.dir.clone()));
    if c.get("store").is_some() {
        let store = c.text(cx, Need::May, "store", "store = \"file://./state\"");
        if let Some(store) = &store {
            out.span = store.span;
        }
        place = store.and_then(|store| store_place(cx, &store));
    }
    match place {
        None => whole = false,
        Some(Place::Directory(dir)) => {
            out.dir = dir;
            for key in OF_OBJECT_STORES {
                if let Some(e) = c.get(key) {
                    cx.diags.error(
                        "unused-key",
                        e.key_span,
                        format!(
                            "`{}` is for a checkpoint store in an object store, and this one is a directory",
                            c.name(key)
                        ),
                        "remove it, or use an object store: `store = \"s3://bucket/prefix\"`",
                    );
                    whole = false;
                }
            }
        }
        Some(Place::S3(url)) => match object_store(cx, &c, url, &mut out) {
            Some(store) => out.object_store = Some(store),
            None => whole = false,
        },
    }
    whole.then_some(out)
}

/// The keys of an object store.
fn object_store(cx: &mut Reading<'_>, c: &Fields<'_>, url: String, out: &mut Checkpoint) -> Option<ObjectStore> {
    let mut whole = true;
    if c.get("cache").is_some() {
        match c.text(cx, Need::May, "cache", "cache = \"./state\"") {
            // A plain path; the URL of a directory is taken, too.
            Some(dir) => out.dir = cx.dir.join(dir.as_str().strip_prefix("file://").unwrap_or(dir.as_str())),
            None => whole = false,
        }
    }
    let mut text = |cx: &mut Reading<'_>, key: &str, example: &str| -> Option<Text> {
        c.get(key)?;
        let text = c.text(cx, Need::May, key, example);
        whole &= text.is_some();
        text
    };
    let endpoint = text(cx, "endpoint", "endpoint = \"https://s3.example.com\"");
    let region = text(cx, "region", "region = \"eu-central-1\"").map(|t| t.as_str().to_owned());
    if let Some(endpoint) = &endpoint
        && !["http://", "https://"]
            .iter()
            .any(|s| endpoint.as_str().strip_prefix(s).is_some_and(|host| !host.is_empty()))
    {
        cx.diags.error(
            "bad-endpoint",
            endpoint.span,
            format!("`{}` must be the URL of an S3 service", c.name("endpoint")),
            "write for example `endpoint = \"https://s3.example.com\"`",
        );
        whole = false;
    }
    let mut key = |cx: &mut Reading<'_>, key: &str, example: &str| -> Option<SecretString> {
        c.get(key)?;
        let secret = c.secret(cx, Need::May, key, example);
        whole &= secret.is_some();
        secret.map(|s| s.value)
    };
    let access_key = key(cx, "access_key", "access_key = \"${env:S3_ACCESS_KEY}\"");
    let secret_key = key(cx, "secret_key", "secret_key = \"${file:/run/secrets/s3}\"");
    for (there, missing) in [("access_key", "secret_key"), ("secret_key", "access_key")] {
        if let (Some(e), None) = (c.get(there), c.get(missing)) {
            cx.diags.error(
                "missing-key",
                e.key_span,
                format!("`{}` is given without `{missing}`", c.name(there)),
                "give both, or neither: then the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`) or the machine's role is used",
            );
            whole = false;
        }
    }
    whole.then(|| ObjectStore {
        url,
        endpoint: endpoint.map(|t| t.as_str().to_owned()),
        region,
        access_key,
        secret_key,
    })
}

enum Place {
    Directory(PathBuf),
    S3(String),
}

/// The directory of a `file://` URL, or an `s3://` URL. Other object stores are refused by name; anything else would not
/// survive a restart.
fn store_place(cx: &mut Reading<'_>, store: &Text) -> Option<Place> {
    let help =
        format!("use a directory or an S3 bucket: `store = \"{DEFAULT_STORE}\"`, `store = \"s3://bucket/prefix\"`");
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
        "file" if !path.is_empty() => Some(Place::Directory(cx.dir.join(path))),
        "file" => {
            cx.diags.error("bad-store", store.span, "this checkpoint store names no directory", help);
            None
        }
        "s3" if path.split('/').next().is_some_and(is_bucket) => {
            Some(Place::S3(store.as_str().trim_end_matches('/').to_owned()))
        }
        "s3" => {
            cx.diags.error("bad-store", store.span, "this checkpoint store names no bucket", help);
            None
        }
        "gs" => {
            unsupported(cx, store.span, "a checkpoint store in Google Cloud Storage", &help);
            None
        }
        "az" | "azure" | "abfs" | "abfss" => {
            unsupported(cx, store.span, "a checkpoint store in Azure Blob Storage", &help);
            None
        }
        other => {
            let help = match closest(other, ["file", "s3"].into_iter()) {
                Some(near) => format!("did you mean `{near}://`?"),
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

/// S3's rule for names of buckets, as far as letters go.
fn is_bucket(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}
