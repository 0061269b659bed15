//! `[sources.*]` with `kind = "files"`.

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading};
use super::super::interpolate::Text;
use super::super::pipeline::{FileFormat, FilesPlace, FilesSource};
use super::super::tree::NodeValue;
use super::identity::IDENTITY;
use super::source::{DEVICE, DEVICE_TTL, MAX_RECORD_BYTES, SCHEMA, TIMES, is};

pub(super) const FILES_SOURCE: Keys = Keys::new(
    "files_source",
    "Readings from files, one after another in one lane.",
    &[
        is("files"),
        Key::must("path", Kind::Text, "A path of this machine or `s3://bucket/keys`, with `*`, `?`, `**` and `[ab]`."),
        Key::may("file_format", Kind::Choice(&FILE_FORMAT), "What the files hold.").or("by their names"),
        Key::may("delimiter", Kind::Character, "Between the fields of CSV files.").or("\",\""),
        Key::may("follow", Kind::Bool, "Whether to wait for new files; if not, the run ends with the last one.")
            .or("false"),
        SCHEMA,
        DEVICE,
        TIMES,
        DEVICE_TTL,
        MAX_RECORD_BYTES,
        IDENTITY,
    ],
);
const FILE_FORMAT: Choices =
    Choices { what: "file format", known: &["csv", "ndjson", "parquet"], planned: &["avro", "arrow"] };
const PATH_EXAMPLE: &str = "path = \"data/*.csv\"";

pub(super) fn read(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<FilesSource> {
    let path = f.text(cx, Need::Must, "path", PATH_EXAMPLE);
    let place = path.as_ref().and_then(|p| place(cx, p));
    let format = match f.get("file_format") {
        None => Some(None),
        Some(_) => f.choice(cx, Need::May, "file_format", &FILE_FORMAT, "file_format = \"csv\"").map(|c| {
            Some(match c.value {
                "csv" => FileFormat::Csv,
                "ndjson" => FileFormat::Ndjson,
                _ => FileFormat::Parquet,
            })
        }),
    };
    let delimiter = super::read_delimiter(cx, f);
    let follow = match f.get("follow").map(|e| (e, &e.node.value)) {
        None => Some(false),
        Some((_, NodeValue::Bool(follow))) => Some(*follow),
        Some((e, _)) => {
            f.wrong_type(cx, e, "true or false", "follow = true");
            None
        }
    };
    Some(FilesSource { path: path?, place: place?, format: format?, delimiter: delimiter?, follow: follow? })
}

/// A path of this machine, `file://` or not, or a bucket.
fn place(cx: &mut Reading<'_>, path: &Text) -> Option<FilesPlace> {
    let text = path.as_str();
    let bad = |cx: &mut Reading<'_>, message: String, help: &str| {
        cx.diags.error("bad-path", path.span, message, help);
        None
    };
    if let Some(rest) = text.strip_prefix("s3://") {
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || key.is_empty() {
            let help = "write the bucket and a pattern of keys: `path = \"s3://telemetry/day-*.parquet\"`";
            return bad(cx, format!("`{}` does not name objects of a bucket", path.raw().escape_debug()), help);
        }
        return Some(FilesPlace::S3 { bucket: bucket.to_owned(), pattern: key.to_owned() });
    }
    let local = text.strip_prefix("file://").unwrap_or(text);
    if let Some((scheme, _)) = local.split_once("://") {
        let message = if path.is_interpolated() {
            "files cannot be read from there".to_owned()
        } else {
            format!("files cannot be read from `{}://`", scheme.escape_debug())
        };
        return bad(cx, message, "use a path of this machine, or an `s3://` URL");
    }
    if local.is_empty() {
        return bad(cx, "this path names no file".to_owned(), PATH_EXAMPLE);
    }
    let pattern = cx.dir.join(local).to_string_lossy().into_owned();
    if let Err(e) = avouch_connectors::files::check_pattern(&pattern) {
        let message = format!("`{}` is not a file pattern: {e}", path.raw().escape_debug());
        return bad(
            cx,
            message,
            "`*` and `?` stand for parts of a name, `**` for directories, `[ab]` for one of these",
        );
    }
    Some(FilesPlace::Local(pattern))
}
