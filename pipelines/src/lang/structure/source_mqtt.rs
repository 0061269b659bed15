//! `[sources.*]` with `kind = "mqtt"`.

use super::super::fields::{Fields, Key, Keys, Kind, Need, Reading, Rule};
use super::super::interpolate::Text;
use super::super::pipeline::{JournalSettings, MqttSource};
use super::super::span::Spanned;
use super::format::FORMAT_KEYS;
use super::identity::IDENTITY;
use super::source::{DEVICE, DEVICE_TTL, MAX_RECORD_BYTES, SCHEMA, TIMES, is};

pub(super) const MQTT_SOURCE: Keys = Keys::new(
    "mqtt_source",
    "Readings from an MQTT 5 broker, through a journal that one lane reads.",
    &[
        is("mqtt"),
        Key::must("url", Kind::Text, "`mqtt://host:1883`, or `mqtts://host:8883` for TLS."),
        Key::must("topics", Kind::Names(true), "Topic filters."),
        Key::may("client_id", Kind::Text, "The name of the session.").or("the pipeline's name"),
        Key::may("username", Kind::Text, "User."),
        Key::may("password", Kind::Secret, "Password."),
        Key::may("ca", Kind::Text, "PEM file of the authorities that sign the broker's certificate.")
            .or("the system's"),
        Key::may(
            "session_expiry",
            Kind::Duration(1_000),
            "How long the broker keeps the session while nobody is there.",
        )
        .or("\"7d\""),
        Key::may("journal", Kind::Table(&JOURNAL), "Where messages are kept until checkpoints cover them."),
        FORMAT_KEYS[0],
        FORMAT_KEYS[1],
        FORMAT_KEYS[2],
        FORMAT_KEYS[3],
        FORMAT_KEYS[4],
        SCHEMA,
        DEVICE,
        TIMES,
        DEVICE_TTL,
        MAX_RECORD_BYTES,
        IDENTITY,
    ],
)
.planned(&[
    ("device", "remove it and name a field of the payload: `key = \"device\"`"),
    ("lanes", "remove it; one lane reads the journal"),
    ("qos", "remove it; subscriptions ask for QoS 1"),
])
.rules(&[
    Rule::When("format", &["avro"], &["registry"]),
    Rule::When("format", &["protobuf"], &["descriptor", "message"]),
    Rule::Needs("password", "username"),
]);
const JOURNAL: Keys = Keys::new(
    "journal",
    "Where messages are kept until checkpoints cover them.",
    &[
        Key::may("max_size", Kind::Size(LEAST_MAX_BYTES, i64::MAX), "Nothing more is acknowledged at so many bytes.")
            .or("\"10GiB\""),
        Key::may("keep", Kind::Duration(0), "How long records are kept after no checkpoint needs them.").or("\"0s\""),
    ],
);
const URL_EXAMPLE: &str = "url = \"mqtt://broker:1883\"";
const DEFAULT_MAX_BYTES: i64 = 10 << 30;
const LEAST_MAX_BYTES: i64 = 64 << 20;
const DEFAULT_SESSION_MS: i64 = 7 * 86_400_000;

pub(super) fn read(cx: &mut Reading<'_>, f: &Fields<'_>, default_client: Option<Text>) -> Option<MqttSource> {
    let url = f.text(cx, Need::Must, "url", URL_EXAMPLE);
    let address = url.as_ref().and_then(|u| address(cx, u));
    let topics = f.literals(cx, Need::Must, "topics", true, "topics = [\"plant/+/telemetry\"]");
    let mut topics_are_fine = true;
    for topic in topics.iter().flatten() {
        topics_are_fine &= check_filter(cx, topic);
    }
    let client_id = match f.get("client_id") {
        None => default_client,
        Some(_) => f.text(cx, Need::May, "client_id", "client_id = \"avouch-pumps\""),
    };
    let username = f.get("username").map(|_| f.text(cx, Need::May, "username", "username = \"avouch\""));
    let password =
        f.get("password").map(|_| f.secret(cx, Need::May, "password", "password = \"${file:/run/secrets/mqtt}\""));
    if let (Some(Some(p)), None) = (&password, &username) {
        cx.diags.error("missing-key", p.span, "there is a password but no `username`", "add `username = \"avouch\"`");
    }
    let ca = f.get("ca").map(|_| f.text(cx, Need::May, "ca", "ca = \"certs/ca.pem\""));
    if let (Some(Some(ca)), Some((_, _, false))) = (&ca, &address) {
        cx.diags.error("bad-url", ca.span, "`ca` is for TLS, but the URL is `mqtt://`", "write `mqtts://` in `url`");
    }
    let session_expiry_ms = match f.get("session_expiry") {
        None => Some(DEFAULT_SESSION_MS),
        Some(_) => f.duration(cx, Need::May, "session_expiry", 1_000, "session_expiry = \"7d\"").map(|d| d.value),
    };
    let journal = read_journal(cx, f);
    let (host, port, tls) = address?;
    if !topics_are_fine {
        return None;
    }
    Some(MqttSource {
        url: url?,
        host,
        port,
        tls,
        topics: topics?,
        client_id: client_id?,
        username: match username {
            None => None,
            Some(u) => Some(u?),
        },
        password: match password {
            None => None,
            Some(p) => Some(p?.value),
        },
        ca: match ca {
            None => None,
            Some(ca) => {
                let ca = ca?;
                Some(Spanned::new(cx.dir.join(ca.as_str()), ca.span))
            }
        },
        session_expiry_ms: session_expiry_ms?,
        journal: journal?,
    })
}

fn read_journal(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<JournalSettings> {
    let mut out = JournalSettings { max_bytes: DEFAULT_MAX_BYTES as u64, keep_ms: 0 };
    if f.get("journal").is_none() {
        return Some(out);
    }
    let j = f.table(cx, Need::Must, "journal", &JOURNAL, "journal = { max_size = \"10GiB\", keep = \"7d\" }")?;
    let mut whole = true;
    if j.get("max_size").is_some() {
        match j.size(cx, Need::May, "max_size", (LEAST_MAX_BYTES, i64::MAX), "max_size = \"10GiB\"") {
            Some(s) => out.max_bytes = s.value as u64,
            None => whole = false,
        }
    }
    if j.get("keep").is_some() {
        match j.duration(cx, Need::May, "keep", 0, "keep = \"7d\"") {
            Some(d) => out.keep_ms = d.value,
            None => whole = false,
        }
    }
    whole.then_some(out)
}

/// Host, port and whether TLS is spoken.
fn address(cx: &mut Reading<'_>, url: &Text) -> Option<(String, u16, bool)> {
    let read = |text: &str| {
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme {
            "mqtt" => false,
            "mqtts" => true,
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|p| *p > 0)?),
            None => (rest, if tls { 8883 } else { 1883 }),
        };
        let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ', ':']);
        plain.then(|| (host.to_owned(), port, tls))
    };
    let found = read(url.as_str());
    if found.is_none() {
        cx.diags.error(
            "bad-url",
            url.span,
            format!("`{}` is not the URL of an MQTT broker", url.raw().escape_debug()),
            "write `mqtt://host:1883`, or `mqtts://host:8883` for TLS; user and password are keys of their own",
        );
    }
    found
}

/// MQTT 5, section 4.7: `+` and `#` stand for whole levels, `#` only at the end.
fn check_filter(cx: &mut Reading<'_>, topic: &Spanned<String>) -> bool {
    let text = topic.value.as_str();
    // A shared subscription is `$share/<group>/<filter>`.
    let (group, filter) = match text.strip_prefix("$share/").map(|rest| rest.split_once('/')) {
        None => (None, text),
        Some(Some((group, filter))) => (Some(group), filter),
        Some(None) => (Some(""), ""),
    };
    let levels: Vec<&str> = filter.split('/').collect();
    let fine = group.is_none_or(|g| !g.is_empty() && !g.contains(['+', '#']))
        && !filter.is_empty()
        && text.len() <= usize::from(u16::MAX)
        && !text.contains('\0')
        && levels.iter().enumerate().all(|(i, l)| match *l {
            "#" => i + 1 == levels.len(),
            "+" => true,
            level => !level.contains(['+', '#']),
        });
    if !fine {
        cx.diags.error(
            "bad-topic",
            topic.span,
            format!("`{}` is not an MQTT topic filter", topic.value.escape_debug()),
            "`+` stands for one whole level and `#` for all that follow, at the end: `plant/+/telemetry`, `plant/#`",
        );
    }
    fine
}
