//! `/tap`: what a running pipeline computes at this moment, as lines of JSON, for as long as somebody reads them.
//!
//! ```text
//!   GET /tap?step=<name>&where=<condition>&limit=<rows>
//! ```
//!
//! What is shown, and to whom nothing is shown, is decided by who [`opens`](Live::open) it; here is only HTTP: a body that
//! is sent as fast as it is read and no faster.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::mpsc;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveQuestion {
    /// The step's name.
    pub step: String,
    /// Which rows: what stands after WHERE.
    pub condition: Option<String>,
    /// After how many rows it ends.
    pub limit: Option<u64>,
}

/// Why nothing is shown: an HTTP status, and words for who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveRefusal {
    /// 400 for a wrong question, 403 where showing is not allowed, 404 for an unknown step, 503 when it is not possible now.
    pub status: u16,
    /// What is wrong and what to do.
    pub why: String,
}

/// Who shows rows of a running pipeline.
pub trait Live: fmt::Debug + Send + Sync {
    /// Begins to show rows: whole lines, each ended, in pieces. They end when the sender is dropped; that the receiver is
    /// dropped means that nobody reads them any more.
    ///
    /// # Errors
    /// [`LiveRefusal`].
    fn open(&self, question: LiveQuestion) -> Result<mpsc::Receiver<Vec<u8>>, LiveRefusal>;
}

fn question(query: &str) -> Result<LiveQuestion, LiveRefusal> {
    let wrong = |why: String| LiveRefusal { status: 400, why };
    // Only the query is of interest; a URL around it decodes it.
    let url = reqwest::Url::parse(&format!("http://localhost/?{query}")).map_err(|e| wrong(e.to_string()))?;
    let mut out = LiveQuestion::default();
    for (key, value) in url.query_pairs() {
        match &*key {
            "step" => out.step = value.into_owned(),
            "where" => out.condition = Some(value.into_owned()).filter(|v| !v.trim().is_empty()),
            "limit" => match value.parse() {
                Ok(limit) => out.limit = Some(limit),
                Err(_) => return Err(wrong(format!("`limit` is a whole number, not `{}`", value.escape_debug()))),
            },
            other => {
                let other = other.escape_debug();
                return Err(wrong(format!("`{other}` is not known here; there are `step`, `where` and `limit`")));
            }
        }
    }
    match out.step.is_empty() {
        true => Err(wrong("say which step: /tap?step=NAME".to_owned())),
        false => Ok(out),
    }
}

pub(super) async fn tap(State(live): State<Arc<dyn Live>>, RawQuery(query): RawQuery) -> Response {
    let opened = question(&query.unwrap_or_default()).and_then(|q| live.open(q));
    match opened {
        Ok(pieces) => {
            let next = |mut pieces: mpsc::Receiver<Vec<u8>>| async move {
                let piece = pieces.recv().await?;
                Some((Ok::<_, std::convert::Infallible>(piece), pieces))
            };
            let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
            (headers, Body::from_stream(futures_util::stream::unfold(pieces, next))).into_response()
        }
        Err(LiveRefusal { status, why }) => {
            (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), why + "\n").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let asked = question("step=features&where=device+%3D+%27p%C3%BCmp%27+AND+a%2Bb+%3E+1&limit=5").unwrap();
        assert_eq!(asked.step, "features");
        assert_eq!(asked.condition.as_deref(), Some("device = 'pümp' AND a+b > 1"));
        assert_eq!(asked.limit, Some(5));
        assert_eq!(question("step=a&where=").unwrap().condition, None);
        for (query, says) in [("", "which step"), ("step=a&limit=x", "whole number"), ("step=a&filter=1", "`filter`")] {
            let refusal = question(query).unwrap_err();
            assert_eq!(refusal.status, 400);
            assert!(refusal.why.contains(says), "{}", refusal.why);
        }
    }
}
