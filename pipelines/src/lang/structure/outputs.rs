//! `[http]`: where a running pipeline can be seen.

use std::net::SocketAddr;

use super::super::fields::{Fields, Key, Keys, Kind, Need, Reading};
use super::super::interpolate::Text;

pub(super) const HTTP: Keys = Keys::new(
    "http",
    "Where a running pipeline can be seen.",
    &[Key::may("listen", Kind::Text, "Address of `/metrics`, `/livez` and `/readyz`.").or("\"127.0.0.1:9464\"")],
);

/// The address of metrics and health checks, or `None` if it is wrong.
pub(super) fn read_http(cx: &mut Reading<'_>, file: &Fields<'_>) -> Option<SocketAddr> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    if file.get("http").is_none() {
        return Some(default);
    }
    let f = file.table(cx, Need::Must, "http", &HTTP, "[http]")?;
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
