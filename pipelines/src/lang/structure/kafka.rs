//! How a Kafka cluster is reached (`security`), and how processes share a topic (`instance`, `group_protocol`,
//! `session_timeout`). None of it decides a verdict, so all of it may be interpolated; secrets must be.

use std::path::PathBuf;
use std::time::Duration;

use avouch_connectors::kafka::{GroupProtocol, Password, Sasl, Tls, TlsIdentity, TokenSource};

use super::super::fields::{Choices, Fields, Key, Keys, Kind, Need, Reading, Rule, either, list};
use super::super::interpolate::Text;
use super::super::pipeline::{KafkaSecurity, Membership};

const EXAMPLE: &str = "security = { protocol = \"SASL_SSL\", mechanism = \"SCRAM-SHA-512\", username = \"avouch\", \
                       password = \"${file:/run/secrets/kafka}\" }";
pub(super) const SECURITY: Keys = Keys::new(
    "security",
    "How the cluster is reached, also by sinks and dead letters on the source's brokers.",
    &[
        Key::must("protocol", Kind::Choice(&PROTOCOL), "Whether the way is encrypted, and whether we say who we are."),
        Key::may("mechanism", Kind::Choice(&MECHANISM), "How we say who we are; with `SASL_…`."),
        Key::may("username", Kind::Text, "User; with `PLAIN` and `SCRAM-…`."),
        Key::may("password", Kind::OutsideSecret, "Password; with `PLAIN` and `SCRAM-…`. Must be interpolated."),
        Key::may("ca", Kind::Text, "PEM file of the authorities that sign brokers' certificates.").or("the system's"),
        Key::may("certificate", Kind::Text, "PEM file of our certificate, where a broker asks for it."),
        Key::may("key", Kind::Text, "PEM file of its key."),
        Key::may("key_password", Kind::OutsideSecret, "The key's password. Must be interpolated."),
        Key::may("token", Kind::OutsideSecret, "One lasting token; with `OAUTHBEARER`. Must be interpolated."),
        Key::may("token_endpoint", Kind::Text, "Where tokens come from; with `OAUTHBEARER`."),
        Key::may("client_id", Kind::Text, "Who we are there."),
        Key::may("client_secret", Kind::OutsideSecret, "Our secret there. Must be interpolated."),
        Key::may("scope", Kind::Text, "What the token is for."),
    ],
)
.rules(&[
    Rule::When("protocol", &["SASL_PLAINTEXT", "SASL_SSL"], &["mechanism"]),
    Rule::When("mechanism", &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], &["username", "password"]),
    Rule::Needs("certificate", "key"),
    Rule::Needs("key", "certificate"),
    Rule::Needs("key_password", "key"),
    Rule::Needs("token_endpoint", "client_id"),
    Rule::Needs("token_endpoint", "client_secret"),
    Rule::Not("token", "token_endpoint"),
]);
/// The keys of membership in the source's group.
pub(super) const MEMBERSHIP_KEYS: [Key; 3] = [
    Key::may("group_protocol", Kind::Choice(&PROTOCOLS), "`classic`, or `consumer`: the broker decides (KIP-848).")
        .or("\"classic\""),
    Key::may(
        "instance",
        Kind::AnyText,
        "A lasting name of this process in the group: a restart within the session moves no lane. Empty is none.",
    ),
    Key::may(
        "session_timeout",
        Kind::Duration(SHORTEST_SESSION_MS),
        "After how long a silent process loses its lanes; with `consumer` the broker's setting.",
    )
    .or("\"45s\""),
];
const PROTOCOL: Choices =
    Choices { what: "security protocol", known: &["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], planned: &[] };
const MECHANISM: Choices = Choices {
    what: "SASL mechanism",
    known: &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"],
    planned: &["GSSAPI"],
};
const TLS_KEYS: [&str; 4] = ["ca", "certificate", "key", "key_password"];
const USER_KEYS: [&str; 2] = ["username", "password"];
const TOKEN_KEYS: [&str; 5] = ["token", "token_endpoint", "client_id", "client_secret", "scope"];
const PROTOCOLS: Choices = Choices { what: "group protocol", known: &["classic", "consumer"], planned: &[] };
/// A session that ends sooner than a few heartbeats would end by accident.
const SHORTEST_SESSION_MS: i64 = 1_000;

/// The table `security`; plaintext without one. `None` where something is wrong.
pub(super) fn read_security(cx: &mut Reading<'_>, source: &Fields<'_>) -> Option<KafkaSecurity> {
    if source.get("security").is_none() {
        return Some(KafkaSecurity::default());
    }
    let f = source.table(cx, Need::Must, "security", &SECURITY, EXAMPLE)?;
    let protocol = f.choice(cx, Need::Must, "protocol", &PROTOCOL, "protocol = \"SASL_SSL\"")?;
    let (tls, sasl) = (protocol.value.ends_with("SSL"), protocol.value.starts_with("SASL_"));
    let mut whole = true;
    if !tls {
        whole &=
            none_of(cx, &f, &TLS_KEYS, &format!("the protocol {} has no TLS", protocol.value), "SASL_SSL` or `SSL");
    }
    if !sasl {
        let keys: Vec<&str> = ["mechanism"].into_iter().chain(USER_KEYS).chain(TOKEN_KEYS).collect();
        let why = format!("the protocol {} says nobody's name", protocol.value);
        whole &= none_of(cx, &f, &keys, &why, if tls { "SASL_SSL" } else { "SASL_PLAINTEXT` or `SASL_SSL" });
    }
    let tls = if tls { read_tls(cx, &f).map(Some) } else { Some(None) };
    let sasl = if sasl { read_sasl(cx, &f, tls.as_ref().is_some_and(Option::is_some)).map(Some) } else { Some(None) };
    let security = KafkaSecurity { tls: tls?, sasl: sasl? };
    whole.then_some(security)
}

/// Reports keys that the protocol or mechanism has no use for: whoever wrote them believes in a protection there is not.
fn none_of(cx: &mut Reading<'_>, f: &Fields<'_>, keys: &[&str], why: &str, instead: &str) -> bool {
    let found: Vec<_> = f.entries().iter().filter(|e| keys.contains(&e.key.as_str())).collect();
    for e in &found {
        let help = format!("remove `{}`, or use `{instead}`", e.key);
        cx.diags.error("contradiction", e.key_span, format!("`{}` has no effect here: {why}", e.key), help);
    }
    found.is_empty()
}

fn path(cx: &Reading<'_>, text: &Text) -> PathBuf {
    cx.dir.join(text.as_str())
}

fn read_tls(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Tls> {
    let file = |cx: &mut Reading<'_>, key: &str, example: &str| match f.get(key) {
        None => Some(None),
        Some(_) => f.text(cx, Need::May, key, example).map(|t| Some(path(cx, &t))),
    };
    let ca = file(cx, "ca", "ca = \"certificates/ca.pem\"");
    let certificate = file(cx, "certificate", "certificate = \"certificates/avouch.pem\"");
    let key = file(cx, "key", "key = \"certificates/avouch.key\"");
    let key_password = secret(cx, f, Need::May, "key_password", "key_password = \"${file:/run/secrets/key}\"");
    let (ca, certificate, key) = (ca?, certificate?, key?);
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsIdentity { certificate, key, key_password: key_password? }),
        (None, None) if f.get("key_password").is_none() => None,
        (certificate, _) => {
            let (has, lacks) = match (certificate, f.get("key")) {
                (Some(_), _) => ("certificate", "key"),
                (None, Some(_)) => ("key", "certificate"),
                (None, None) => ("key_password", "key"),
            };
            let at = f.get(has).map_or(f.at, |e| e.key_span);
            cx.diags.error(
                "missing-key",
                at,
                format!("`{has}` needs `{lacks}`"),
                format!("add `{lacks} = \"certificates/avouch.{}\"`", if lacks == "key" { "key" } else { "pem" }),
            );
            return None;
        }
    };
    Some(Tls { ca, identity })
}

fn read_sasl(cx: &mut Reading<'_>, f: &Fields<'_>, tls: bool) -> Option<Sasl> {
    let mechanism = f.choice(cx, Need::Must, "mechanism", &MECHANISM, "mechanism = \"SCRAM-SHA-512\"")?;
    if mechanism.value == "OAUTHBEARER" {
        let fine =
            none_of(cx, f, &USER_KEYS, "OAUTHBEARER knows tokens, not passwords", "mechanism = \"SCRAM-SHA-512\"");
        let source = read_tokens(cx, f);
        return source.filter(|_| fine).map(Sasl::OAuthBearer);
    }
    let why = format!("{} knows passwords, not tokens", mechanism.value);
    let fine = none_of(cx, f, &TOKEN_KEYS, &why, "mechanism = \"OAUTHBEARER\"");
    let username = f.text(cx, Need::Must, "username", "username = \"avouch\"");
    let password = secret(cx, f, Need::Must, "password", "password = \"${file:/run/secrets/kafka}\"");
    if mechanism.value == "PLAIN" && !tls {
        cx.diags.warning(
            "readable-password",
            mechanism.span,
            "PLAIN without TLS sends the password so that everyone on the way can read it",
            "use `protocol = \"SASL_SSL\"`, or a SCRAM mechanism",
        );
    }
    let (username, password) = (username?.as_str().to_owned(), password??);
    fine.then(|| match mechanism.value {
        "PLAIN" => Sasl::Plain { username, password },
        other => Sasl::Scram { sha512: other == "SCRAM-SHA-512", username, password },
    })
}

fn read_tokens(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<TokenSource> {
    let endpoint_example = "token_endpoint = \"https://login.example.com/oauth2/token\"";
    let (Some(token), endpoint) = (f.get("token"), f.get("token_endpoint")) else {
        if f.get("token_endpoint").is_none() && !f.misspelt("token_endpoint") {
            let keys = list(&["client_id", "client_secret"]);
            cx.diags.error(
                "missing-key",
                f.at,
                "OAUTHBEARER needs to know where tokens come from",
                format!(
                    "add `{endpoint_example}` with {keys}, or a lasting `token = \"${{file:/run/secrets/token}}\"`"
                ),
            );
            return None;
        }
        return read_endpoint(cx, f, endpoint_example);
    };
    let more = ["token_endpoint", "client_id", "client_secret", "scope"];
    if endpoint.is_some() || more.iter().any(|k| f.get(k).is_some()) {
        let help = format!("keep `token`, or {}", either(&more[..3]));
        cx.diags.error("contradiction", token.key_span, "tokens come from two places here", help);
        return None;
    }
    secret(cx, f, Need::Must, "token", "token = \"${file:/run/secrets/token}\"").flatten().map(TokenSource::Token)
}

fn read_endpoint(cx: &mut Reading<'_>, f: &Fields<'_>, example: &str) -> Option<TokenSource> {
    let endpoint = f.text(cx, Need::Must, "token_endpoint", example);
    let endpoint = endpoint.filter(|e| {
        let url = e.as_str();
        let good = url.starts_with("http://") || url.starts_with("https://");
        if !good {
            cx.diags.error(
                "bad-url",
                e.span,
                format!("`{}` is not the URL of a token endpoint", e.raw().escape_debug()),
                format!("write an http:// or https:// URL: `{example}`"),
            );
        } else if url.starts_with("http://")
            && !["localhost", "127.0.0.1", "[::1]"].iter().any(|h| url[7..].starts_with(h))
        {
            cx.diags.warning(
                "readable-password",
                e.span,
                "the client's secret goes to the token endpoint so that everyone on the way can read it",
                "use an https:// URL",
            );
        }
        good
    });
    let client_id = f.text(cx, Need::Must, "client_id", "client_id = \"avouch\"");
    let client_secret = secret(cx, f, Need::Must, "client_secret", "client_secret = \"${file:/run/secrets/client}\"");
    let scope = match f.get("scope") {
        None => Some(None),
        Some(_) => f.text(cx, Need::May, "scope", "scope = \"kafka\"").map(|s| Some(s.as_str().to_owned())),
    };
    Some(TokenSource::ClientCredentials {
        endpoint: endpoint?.as_str().to_owned(),
        client_id: client_id?.as_str().to_owned(),
        client_secret: client_secret??,
        scope: scope?,
    })
}

/// A secret from outside the file: what stands in it is in the canonical form, which auditors are given. The outer option
/// is `None` where something is wrong, the inner where there is none.
fn secret(cx: &mut Reading<'_>, f: &Fields<'_>, need: Need, key: &str, example: &str) -> Option<Option<Password>> {
    if f.get(key).is_none() && need == Need::May {
        return Some(None);
    }
    f.outside_secret(cx, need, key, example).map(|s| Some(Password::new(s.value.expose())))
}

/// How this process is a member of the source's group. `None` where something is wrong.
pub(super) fn read_membership(cx: &mut Reading<'_>, f: &Fields<'_>) -> Option<Membership> {
    let instance = match f.get("instance") {
        None => Some(None),
        // An empty one is none, so that one file serves processes with and without a name.
        Some(_) => f
            .text_maybe_empty(cx, Need::May, "instance", "instance = \"${env:HOSTNAME}\"")
            .map(|i| Some(i).filter(|i| !i.as_str().trim().is_empty())),
    };
    let protocol = match f.get("group_protocol") {
        None => Some(None),
        Some(_) => f.choice(cx, Need::May, "group_protocol", &PROTOCOLS, "group_protocol = \"consumer\"").map(Some),
    };
    let session = match f.get("session_timeout") {
        None => Some(None),
        Some(_) => {
            f.duration(cx, Need::May, "session_timeout", SHORTEST_SESSION_MS, "session_timeout = \"45s\"").map(Some)
        }
    };
    let (instance, protocol, session) = (instance?, protocol?, session?);
    let consumer = protocol.as_ref().is_some_and(|p| p.value == "consumer");
    if let (true, Some(session), Some(protocol)) = (consumer, &session, &protocol) {
        cx.diags.error(
            "contradiction",
            session.span,
            "with `group_protocol = \"consumer\"` the broker decides how long a session lasts",
            "remove `session_timeout`, and set `consumer.session.timeout.ms` of the group on the broker",
        );
        cx.diags.relate(session.span, protocol.span, "the protocol stands");
        return None;
    }
    Some(Membership {
        instance,
        protocol: if consumer { GroupProtocol::Consumer } else { GroupProtocol::Classic },
        session: session.and_then(|s| u64::try_from(s.value).ok()).map(Duration::from_millis),
    })
}
