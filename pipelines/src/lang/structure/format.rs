//! `format` of a source, with `registry`, `descriptor`, `message` and `framing`.

use std::sync::Arc;

use avouch_engine::decode::MessagePlan;
use avouch_engine::spec::{FieldSpec, Framing};
use avouch_engine::verdict::Hash32;
use sha2::{Digest, Sha256};

use super::super::canonical::hex;
use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, Rule};
use super::super::format::{Format, Protobuf, Registry, RegistryLogin};
use super::super::span::Spanned;
use super::super::tree::NodeValue;
use super::steps::read_sha256;

const FORMAT: Choices = Choices { what: "format", known: &["json", "avro", "protobuf", "arrow"], planned: &[] };
const FRAMING: Choices = Choices { what: "framing", known: &["none", "confluent"], planned: &[] };
const REGISTRY: Keys = Keys::new(
    "registry",
    "A schema registry that speaks Confluent's interface. Each schema is fetched once and kept.",
    &[
        Key::must("url", Kind::Text, "http or https."),
        Key::may("username", Kind::Text, "User, or API key."),
        Key::may("password", Kind::Secret, "Password, or API secret."),
        Key::may("token", Kind::Secret, "A bearer token, instead of user and password."),
    ],
)
.rules(&[
    Rule::Needs("username", "password"),
    Rule::Needs("password", "username"),
    Rule::Not("token", "username"),
    Rule::Not("token", "password"),
]);
const DESCRIPTOR: Keys = Keys::new(
    "descriptor",
    "A file that `protoc --include_imports --descriptor_set_out` wrote, and the hash it must have.",
    &[
        Key::must("file", Kind::Text, "The file."),
        Key::may("sha256", Kind::AnyText, "The hash it must have, 64 hexadecimal digits; empty counts as none."),
    ],
);
/// The keys of formats.
pub(super) const FORMAT_KEYS: [Key; 5] = [
    Key::must(
        "format",
        Kind::Choice(&FORMAT),
        "What a record's value is. `json`: one flat object. `avro`: one record after a zero byte and a schema id. \
         `protobuf`: one message. `arrow`: an IPC stream of any number of rows.",
    ),
    Key::may("registry", Kind::Table(&REGISTRY), "The schema registry; only with `format = \"avro\"`."),
    Key::may(
        "descriptor",
        Kind::TextOr(&DESCRIPTOR),
        "What `protoc --include_imports --descriptor_set_out` writes; only with `format = \"protobuf\"`.",
    ),
    Key::may("message", Kind::Literal, "The message's full name; only with `format = \"protobuf\"`."),
    Key::may(
        "framing",
        Kind::Choice(&FRAMING),
        "`confluent` where a schema id stands before each message; only with `format = \"protobuf\"`.",
    )
    .or("\"none\""),
];
pub(super) const FORMAT_RULES: [Rule; 2] =
    [Rule::When("format", &["avro"], &["registry"]), Rule::When("format", &["protobuf"], &["descriptor", "message"])];
const REGISTRY_EXAMPLE: &str = "registry = { url = \"http://localhost:8081\" }";
/// The keys that belong to one format only, with an example of what they need.
const COMPANIONS: [(&str, &str); 4] =
    [("registry", "avro"), ("descriptor", "protobuf"), ("message", "protobuf"), ("framing", "protobuf")];

/// Reads a source's format. `fields` are its schema, to check a Protobuf message against.
pub(super) fn read(cx: &mut Reading<'_>, f: &Fields<'_>, fields: Option<&[Spanned<FieldSpec>]>) -> Option<Format> {
    let format = f.choice(cx, Need::Must, "format", &FORMAT, "format = \"json\"")?;
    for (key, owner) in COMPANIONS {
        if let Some(e) = f.get(key)
            && format.value != owner
        {
            cx.diags.error(
                "other-format",
                e.key_span,
                format!("`{key}` belongs to `format = \"{owner}\"`, but the format is \"{}\"", format.value),
                format!("remove `{key}`, or write `format = \"{owner}\"`"),
            );
        }
    }
    match format.value {
        "json" => Some(Format::Json),
        "arrow" => Some(Format::Arrow),
        "avro" => read_registry(cx, f).map(Format::Avro),
        _ => read_protobuf(cx, f, fields).map(Format::Protobuf),
    }
}

fn read_registry(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Registry> {
    let r = f.table(cx, Need::Must, "registry", &REGISTRY, REGISTRY_EXAMPLE)?;
    let url = r.text(cx, Need::Must, "url", "url = \"http://localhost:8081\"");
    let url = url.filter(|url| {
        let rest = url.as_str().strip_prefix("http://").or_else(|| url.as_str().strip_prefix("https://"));
        let good =
            rest.is_some_and(|r| !r.is_empty() && !r.starts_with(['/', ':']) && !r.contains(char::is_whitespace));
        if !good {
            cx.diags.error(
                "bad-url",
                url.span,
                format!("`{}` is not the URL of a schema registry", url.raw().escape_debug()),
                "write an http:// or https:// URL, such as \"http://localhost:8081\"",
            );
        }
        good
    });
    let token_entry = r.get("token");
    let basic = r.get("username").is_some() || r.get("password").is_some();
    let login = match token_entry {
        Some(_) => r
            .secret(cx, Need::Must, "token", "token = \"${file:/run/secrets/registry-token}\"")
            .map(RegistryLogin::Token),
        None if basic => {
            let username = r.text(cx, Need::Must, "username", "username = \"avouch\"");
            let password = r.secret(cx, Need::Must, "password", "password = \"${file:/run/secrets/registry}\"");
            match (username, password) {
                (Some(username), Some(password)) => Some(RegistryLogin::Basic { username, password }),
                _ => None,
            }
        }
        None => Some(RegistryLogin::None),
    };
    if let Some(token) = token_entry
        && basic
    {
        cx.diags.error(
            "two-logins",
            token.key_span,
            "the registry has both a `token` and a `username` or `password`",
            "keep the one that the registry asks for",
        );
        return None;
    }
    Some(Registry { url: url?, login: login? })
}

fn read_protobuf(cx: &mut Reading<'_>, f: &Fields<'_>, fields: Option<&[Spanned<FieldSpec>]>) -> Option<Protobuf> {
    let message = f.literal(cx, Need::Must, "message", "message = \"acme.Reading\"");
    let framing = match f.get("framing") {
        None => Some(Framing::None),
        Some(_) => f.choice(cx, Need::May, "framing", &FRAMING, "framing = \"confluent\"").map(|c| match c.value {
            "confluent" => Framing::Confluent,
            _ => Framing::None,
        }),
    };
    let descriptor = read_descriptor(cx, f);
    let (file, descriptor) = descriptor?;
    let out = Protobuf { file, descriptor, message: message?, framing: framing? };
    check_message(cx, &out, fields?)?;
    Some(out)
}

/// A path, or a table that pins the file's hash.
fn read_descriptor(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<(Spanned<std::path::PathBuf>, Arc<[u8]>)> {
    let example = "descriptor = \"telemetry.desc\"";
    let entry = f.entry(cx, Need::Must, "descriptor", example)?;
    let (text, pinned): (_, Option<Option<Spanned<Hash32>>>) = match entry.node.value {
        NodeValue::Table(_) => {
            let t = f.table(cx, Need::Must, "descriptor", &DESCRIPTOR, example)?;
            let text = t.text(cx, Need::Must, "file", "file = \"telemetry.desc\"");
            let pinned = if t.get("sha256").is_some() { read_sha256(cx, &t) } else { Some(None) };
            (text, pinned)
        }
        _ => (f.text(cx, Need::Must, "descriptor", example), Some(None)),
    };
    let (text, pinned) = (text?, pinned?);
    let path = cx.dir.join(text.as_str());
    let bytes = match cx.env.read(&path) {
        Ok(bytes) => bytes,
        Err(e) => {
            cx.diags.error(
                "missing-file",
                text.span,
                format!("the descriptor `{}` cannot be read ({})", text.raw().escape_debug(), e.kind()),
                "make it with `protoc --include_imports --descriptor_set_out=FILE`, or correct the path",
            );
            return None;
        }
    };
    let hash: Hash32 = Sha256::digest(&bytes).into();
    if let Some(pinned) = pinned
        && pinned.value != hash
    {
        cx.diags.error(
            "wrong-descriptor",
            pinned.span,
            format!("the descriptor hashes to {}, not to {}", hex(&hash), hex(&pinned.value)),
            "use the descriptor that was approved, or approve this one by writing its hash here",
        );
        return None;
    }
    Some((Spanned::new(path, text.span), bytes.into()))
}

/// Resolves the schema against the message, so that what does not fit is said at its field.
fn check_message(cx: &mut Reading<'_>, p: &Protobuf, fields: &[Spanned<FieldSpec>]) -> Option<()> {
    let specs: Vec<FieldSpec> = fields.iter().map(|f| f.value.clone()).collect();
    let place = |name: &str| fields.iter().find(|f| f.value.name == name).map_or(p.message.span, |f| f.span);
    match MessagePlan::new(&p.spec(), &specs) {
        Ok(plan) => {
            for name in plan.absent_fields() {
                cx.diags.warning(
                    "always-null",
                    place(name),
                    format!("the message `{}` has no field `{name}`, so it is always null", p.message.value),
                    "correct the name, or use a newer descriptor",
                );
            }
            Some(())
        }
        Err(errors) => {
            for e in errors {
                let span = e.field.as_deref().map_or(p.message.span, place);
                let help = match e.field {
                    Some(_) => "correct the field's name or type in the schema, or use a newer descriptor",
                    None => "correct `message` or `descriptor`",
                };
                cx.diags.error("wrong-message", span, e.message, help);
            }
            None
        }
    }
}
