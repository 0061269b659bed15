//! The HTTP side of a running pipeline: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever restarts it, `/tap` for
//! who looks on ([`Live`]), `/log` for who watches the log; whoever asks these from outside ([`Process`]); and what it posts: alerts to Alertmanager
//! ([`Alertmanager`]), batches to a webhook ([`Webhook`]).

mod alert;
mod live;
mod logs;
mod post;
mod process;
mod webhook;

pub use alert::{Alert, Alertmanager};
pub use live::{Live, LiveQuestion, LiveRefusal};
pub use process::{LiveAnswer, Process, ProcessError};
pub use webhook::{Webhook, WebhookBatch};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus::{Encoder, Registry, TextEncoder};
use thiserror::Error;
use tokio::net::TcpListener;

/// What can go wrong with the HTTP server.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}; set `http.listen` to a free address")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// The server ended.
    #[error("the HTTP server stopped: {0}")]
    Serve(std::io::Error),
}

/// What is not ready yet, by part. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    /// Says why `part` is not ready.
    pub fn waiting(&self, part: &str, why: &str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(part.to_owned(), why.to_owned());
    }

    /// Says that `part` is ready.
    pub fn ready(&self, part: &str) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    fn report(&self) -> Result<(), String> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return Ok(());
        }
        Err(waiting.iter().map(|(part, why)| format!("{part}: {why}\n")).collect())
    }
}

/// A bound server, not serving yet: so that the address is known, and errors come before work begins.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    app: Router,
}

#[derive(Clone)]
struct App {
    registry: Registry,
    readiness: Readiness,
}

impl HttpServer {
    /// Binds the address (port 0 takes a free one). `live` shows rows at `/tap`.
    pub async fn bind(
        address: SocketAddr,
        registry: Registry,
        readiness: Readiness,
        live: Arc<dyn Live>,
    ) -> Result<Self, HttpError> {
        let bind = |source| HttpError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let app = Router::new()
            .route("/metrics", get(metrics))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .with_state(App { registry, readiness })
            .merge(Router::new().route("/tap", get(live::tap)).with_state(live));
        Ok(Self { listener, address, app })
    }

    /// Serves the published logs of a pipeline's lanes too, at `/log/<lane>/…` in the tlog-tiles layout: `state` is the directory
    /// in which each lane has its own.
    pub fn with_logs(mut self, state: &std::path::Path) -> Self {
        self.app = self.app.merge(logs::routes(state));
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the task is dropped.
    pub async fn serve(self) -> Result<(), HttpError> {
        axum::serve(self.listener, self.app).await.map_err(HttpError::Serve)
    }
}

async fn metrics(State(app): State<App>) -> impl IntoResponse {
    let mut body = Vec::new();
    match TextEncoder::new().encode(&app.registry.gather(), &mut body) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body),
        Err(e) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], e.to_string().into_bytes())
        }
    }
}

async fn readyz(State(app): State<App>) -> impl IntoResponse {
    match app.readiness.report() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}
