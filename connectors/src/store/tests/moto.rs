//! Where moto is, the stand-in for Amazon's services, for the tests of this crate that start it.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

/// Its Python, and a port that is free now, since it does not choose its own. Without it a test says so and passes, but not in CI,
/// where it must be there.
pub fn python_and_port() -> Option<(PathBuf, u16)> {
    let cache = std::env::var_os("AVOUCH_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/avouch"),
        PathBuf::from,
    );
    let python = cache.join("moto-venv/bin/python");
    if !python.exists() {
        let advice = "run tests/setup/install moto";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI has no moto: {advice}");
        eprintln!("SKIPPED: no moto here; {advice}");
        return None;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    Some((python, port))
}
