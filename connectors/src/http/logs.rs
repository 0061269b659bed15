//! `/log/<lane>/…`: the published logs, in the tlog-tiles layout (<https://c2sp.org/tlog-tiles>), and their keys.

use std::path::{Path, PathBuf};

use axum::Router;
use axum::extract::{Path as Asked, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// The routes, over a directory in which each lane has its own.
pub(super) fn routes(state: &Path) -> Router {
    Router::new().route("/log/{lane}/{*path}", get(file)).with_state(state.to_path_buf())
}

/// What a published path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It changes with every checkpoint.
    Text,
    /// It never changes again.
    Tile,
}

/// What lies at a path, if anything can. Nothing else is ever looked for.
fn kind(path: &str) -> Option<Kind> {
    if path == "checkpoint" || path == "key" {
        return Some(Kind::Text);
    }
    let mut parts = path.strip_prefix("tile/")?.split('/').peekable();
    let level = parts.next()?;
    let digits =
        |text: &str, most: usize| !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_digit());
    if level != "entries" && !digits(level, 2) {
        return None;
    }
    // x001/x234/067 or x001/x234/067.p/12
    let mut last = None;
    while let Some(part) = parts.next() {
        match part.strip_prefix('x') {
            Some(n) if n.len() == 3 && digits(n, 3) && parts.peek().is_some() => {}
            Some(_) => return None,
            None => {
                last = Some(part);
                break;
            }
        }
    }
    let (last, width) = (last?, parts.next());
    let number = match width {
        Some(width) if digits(width, 3) => last.strip_suffix(".p")?,
        Some(_) => return None,
        None => last,
    };
    (number.len() == 3 && digits(number, 3) && parts.next().is_none()).then_some(Kind::Tile)
}

async fn file(State(state): State<PathBuf>, Asked((lane, path)): Asked<(String, String)>) -> Response {
    let nothing = || (StatusCode::NOT_FOUND, "there is nothing of a log at this path\n").into_response();
    let lane = lane.parse::<i32>().ok().filter(|n| *n >= 0 && n.to_string() == lane);
    let (Some(lane), Some(kind)) = (lane, kind(&path)) else { return nothing() };
    let at = state.join(lane.to_string()).join("public").join(&path);
    let read = tokio::task::spawn_blocking(move || std::fs::read(at)).await;
    match read {
        Ok(Ok(bytes)) => {
            let (what, keep) = match kind {
                Kind::Text => ("text/plain; charset=utf-8", "no-cache"),
                Kind::Tile => ("application/octet-stream", "public, max-age=604800, immutable"),
            };
            ([(header::CONTENT_TYPE, what), (header::CACHE_CONTROL, keep)], bytes).into_response()
        }
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => nothing(),
        Ok(Err(e)) => {
            tracing::warn!(lane, path, error = %e, "a part of the published log cannot be read");
            (StatusCode::INTERNAL_SERVER_ERROR, "it cannot be read; the log of the process says why\n").into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_the_layout_are_looked_for() {
        assert_eq!(kind("checkpoint"), Some(Kind::Text));
        assert_eq!(kind("key"), Some(Kind::Text));
        for path in [
            "tile/0/000",
            "tile/0/x001/x234/067",
            "tile/0/x001/067.p/12",
            "tile/entries/000",
            "tile/entries/000.p/1",
            "tile/3/000",
        ] {
            assert_eq!(kind(path), Some(Kind::Tile), "{path}");
        }
        for path in [
            "",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "tile/0/0",
            "tile/0/0000",
            "tile/0/x001",
            "tile/0/../000",
            "tile/a/000",
            "../checkpoint",
            "checkpoint/",
            "tile/0/000/000",
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/000.p/1/2",
            "tile/0/x01/000",
            "tile/0/000.p/abc",
            "tile/entries",
            "lock",
            "tile/0/000/..",
            "tile/0//000",
            "tile/0/x001//000",
        ] {
            assert_eq!(kind(path), None, "{path}");
        }
    }
}
