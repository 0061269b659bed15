//! `[http]`: where a running pipeline can be seen.

use std::net::SocketAddr;

use super::super::fields::{Fields, Key, Keys, Kind, Need, Reading};
use super::super::interpolate::Text;
use super::super::tree::NodeValue;

pub(super) const HTTP: Keys = Keys::new(
    "http",
    "Where a running pipeline can be seen.",
    &[
        Key::may("listen", Kind::Text, "Address of `/metrics`, `/livez`, `/readyz`, `/tap` and `/log`.").or("\"127.0.0.1:9464\""),
        Key::may(
            "tap",
            Kind::Bool,
            "Whether `/tap` shows readings, features and verdicts to whoever reaches that address. No part of the configHash.",
        )
        .or("false"),
        Key::may(
            "log",
            Kind::Bool,
            "Whether `/log/<lane>/…` serves the published log (tlog-tiles): hashes, which say nothing of devices. No part of the \
             configHash.",
        )
        .or("false"),
    ],
);

/// `[http]`.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Http {
    pub listen: SocketAddr,
    pub tap: bool,
    pub log: bool,
}

/// Where a running pipeline can be seen, or `None` if that is wrong.
pub(super) fn read_http(cx: &mut Reading<'_>, file: &Fields<'_>) -> Option<Http> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    if file.get("http").is_none() {
        return Some(Http { listen: default, tap: false, log: false });
    }
    let f = file.table(cx, Need::Must, "http", &HTTP, "[http]")?;
    let tap = read_flag(cx, &f, "tap", "tap = true");
    let log = read_flag(cx, &f, "log", "log = true");
    let listen = read_listen(cx, &f, default);
    let http = Http { listen: listen?, tap: tap?, log: log? };
    if let Some(e) = f.get("tap").filter(|_| http.tap && !http.listen.ip().is_loopback()) {
        cx.diags.warning(
            "tap-exposed",
            e.key_span,
            format!("`/tap` shows the readings to everyone who reaches {}, without a password", http.listen),
            "listen on this machine alone (`listen = \"127.0.0.1:9464\"`), see that only those reach the port who may see \
             the readings, or remove `tap`",
        );
    }
    Some(http)
}

fn read_flag(cx: &mut Reading<'_>, f: &Fields<'_>, key: &'static str, example: &str) -> Option<bool> {
    match f.get(key).map(|e| (e, &e.node.value)) {
        None => Some(false),
        Some((_, NodeValue::Bool(flag))) => Some(*flag),
        Some((e, _)) => {
            f.wrong_type(cx, e, "true or false", example);
            None
        }
    }
}

fn read_listen(cx: &mut Reading<'_>, f: &Fields<'_>, default: SocketAddr) -> Option<SocketAddr> {
    if f.get("listen").is_none() {
        return Some(default);
    }
    let text: Text = f.text(cx, Need::May, "listen", "listen = \"127.0.0.1:9464\"")?;
    match text.as_str().parse() {
        Ok(address) => Some(address),
        Err(_) => {
            cx.diags.error(
                "bad-address",
                text.span,
                format!("`{}` is not an address to listen on", text.raw().escape_debug()),
                "write an IP address and a port: \"127.0.0.1:9464\" for this machine alone, \"0.0.0.0:9464\" for all",
            );
            None
        }
    }
}
