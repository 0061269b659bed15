//! One node behind an RPC endpoint: single requests with a time limit, and errors that name it.

use std::error::Error as StdError;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alloy::rpc::client::RpcClient;
use alloy::transports::http::reqwest;
use alloy::transports::{RpcError, TransportError, TransportErrorKind};
use serde_json::Value;

use super::error::EthereumError;

/// What a request that failed says about the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// It stands in line.
    Waiting,
    /// It failed, and is asked last until then.
    Resting(Instant),
}

/// One node, by its URL.
pub(super) struct Node {
    client: RpcClient,
    pub(super) shown: String,
    timeout: Duration,
    line: Mutex<Line>,
    /// Whether its chain and contracts were found to be what is expected, since it last failed.
    pub(super) checked: AtomicBool,
    /// It does not know the block tag `finalized`.
    pub(super) untagged: AtomicBool,
}

/// Scheme, host and port: user names, passwords, paths and queries may hold keys.
pub(super) fn shown(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or("?");
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let rest = if url.path().len() > 1 || url.query().is_some() { "/…" } else { "" };
    format!("{}://{host}{port}{rest}", url.scheme())
}

/// An HTTP client for one host, whose requests take no longer than `timeout`.
pub(super) fn http_client(url: &reqwest::Url, timeout: Duration) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(timeout)
        .timeout(timeout)
        // Whoever sends elsewhere would be sent what is for this host: keys in a path or in a header.
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("avouch/", env!("CARGO_PKG_VERSION")));
    // A proxy for the outside world cannot reach this machine's own loopback.
    if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
        builder = builder.no_proxy();
    }
    builder.build()
}

/// What an answer is read into.
pub(crate) trait Answer: serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + Unpin + 'static {}
impl<T: serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + Unpin + 'static> Answer for T {}

impl Node {
    /// Takes an `http://` or `https://` URL; user name and password in it become basic authentication. Connects to nothing.
    pub(super) fn new(url: &str, timeout: Duration) -> Result<Self, EthereumError> {
        let invalid = |url: String, reason: &str| EthereumError::InvalidEndpoint { url, reason: reason.to_owned() };
        // An unreadable URL is not repeated as it stands: what follows the scheme may be a password.
        let parsed: reqwest::Url = url.trim().parse().map_err(|e| {
            let scheme = url.split("://").next().filter(|s| s.len() < url.len()).unwrap_or("");
            invalid(format!("endpoint {scheme}://…"), &format!("it is no URL ({e})"))
        })?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(invalid(shown(&parsed), "its scheme is not supported"));
        }
        let http = http_client(&parsed, timeout).map_err(|e| invalid(shown(&parsed), &innermost(&e)))?;
        let shown = shown(&parsed);
        Ok(Self {
            client: RpcClient::new_http_with_client(http, parsed),
            shown,
            timeout,
            line: Mutex::new(Line::Waiting),
            checked: AtomicBool::new(false),
            untagged: AtomicBool::new(false),
        })
    }

    /// One request, once.
    pub(super) async fn once<R: Answer>(&self, method: &'static str, params: Value) -> Result<R, EthereumError> {
        // The HTTP client has a limit of its own; this one holds for whatever lies above it too.
        let limit = self.timeout + self.timeout / 4;
        match tokio::time::timeout(limit, self.client.request::<Value, R>(method, params)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.describe(method, error)),
            Err(_) => Err(EthereumError::Timeout {
                endpoint: self.shown.clone(),
                method: method.to_owned(),
                after: self.timeout,
            }),
        }
    }

    /// Until when it is asked last; `None` while it stands in line.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        let line = self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match *line {
            Line::Resting(until) if until > Instant::now() => Some(until),
            _ => None,
        }
    }

    /// Takes it out of the line for a while, if `error` is its own fault and not an answer.
    pub(super) fn failed(&self, error: &EthereumError, rest: Duration) {
        if matches!(error, EthereumError::Rpc { .. } | EthereumError::Lagging { .. }) {
            return;
        }
        let mut line = self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *line == Line::Waiting {
            tracing::debug!(endpoint = %self.shown, %error, ?rest, "asking the other endpoints first");
        }
        *line = Line::Resting(Instant::now() + rest);
        // Whoever answers there after a pause may be somebody else.
        self.checked.store(false, Ordering::Relaxed);
    }

    /// It has answered: back in line.
    pub(super) fn answered(&self) {
        *self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Line::Waiting;
    }

    fn describe(&self, method: &str, error: TransportError) -> EthereumError {
        let endpoint = self.shown.clone();
        let method = method.to_owned();
        match error {
            RpcError::ErrorResp(payload) => EthereumError::Rpc {
                endpoint,
                method,
                code: payload.code,
                revert: payload.as_revert_data().map(|b| b.to_vec()),
                message: payload.message.into_owned(),
            },
            RpcError::Transport(TransportErrorKind::HttpError(http)) => {
                EthereumError::Http { endpoint, method, status: http.status }
            }
            RpcError::Transport(TransportErrorKind::HttpErrorWithRetryAfter { error, .. }) => {
                EthereumError::Http { endpoint, method, status: error.status }
            }
            RpcError::Transport(TransportErrorKind::Custom(cause) | TransportErrorKind::NonRetryable(cause)) => {
                match cause.downcast_ref::<reqwest::Error>() {
                    Some(e) if e.is_timeout() => EthereumError::Timeout { endpoint, method, after: self.timeout },
                    Some(e) if e.is_builder() => EthereumError::InvalidEndpoint { url: endpoint, reason: innermost(e) },
                    _ => EthereumError::Unreachable { endpoint, reason: innermost(cause.as_ref()) },
                }
            }
            RpcError::Transport(other) => EthereumError::Unreachable { endpoint, reason: other.to_string() },
            RpcError::NullResp => EthereumError::Malformed { endpoint, method, reason: "it is null".to_owned() },
            RpcError::DeserError { err, .. } => EthereumError::Malformed { endpoint, method, reason: err.to_string() },
            other => EthereumError::Malformed { endpoint, method, reason: other.to_string() },
        }
    }
}

/// The last cause of an error: the ones above it may repeat the URL, which may hold a key.
pub(super) fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last: &(dyn StdError + 'static) = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    match last.downcast_ref::<reqwest::Error>() {
        // A cause of its own would be innermost; without one its text is the kind and the URL.
        Some(_) => "the HTTP request failed".to_owned(),
        None => last.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_node_that_failed_rests_and_one_that_refused_does_not() {
        let node = Node::new("http://localhost:1", Duration::from_secs(1)).unwrap();
        let refused = EthereumError::Rpc {
            endpoint: node.shown.clone(),
            method: "eth_call".to_owned(),
            code: 3,
            message: "execution reverted".to_owned(),
            revert: None,
        };
        node.failed(&refused, Duration::from_secs(60));
        assert_eq!(node.rests_until(), None);
        let broken = EthereumError::Unreachable { endpoint: node.shown.clone(), reason: "refused".to_owned() };
        node.failed(&broken, Duration::from_secs(60));
        assert!(node.rests_until().is_some());
        node.answered();
        assert_eq!(node.rests_until(), None);
        node.failed(&broken, Duration::ZERO);
        assert_eq!(node.rests_until(), None, "a rest ends by itself");
    }
}
