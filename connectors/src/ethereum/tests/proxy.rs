//! An RPC endpoint that misbehaves on command, in front of anvil.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What happens to one request.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Forwarded and answered.
    Pass,
    /// Answered with this HTTP status, and not forwarded.
    Fail(u16),
    /// Never forwarded, never answered.
    Swallow,
    /// Forwarded, but the answer never comes.
    LoseAnswer,
    /// Answered with this JSON-RPC error, and not forwarded.
    Error(i64, String),
    /// Answered with this result, and not forwarded.
    Answer(Value),
    /// Forwarded with these parameters instead of its own.
    Instead(Value),
}

/// Decides by method, how many requests of that method came before, and the request itself.
pub type Plan = Box<dyn FnMut(&str, u64, &Value) -> Fate + Send>;

struct Shared {
    upstream: String,
    plan: Mutex<Plan>,
    seen: Mutex<BTreeMap<String, Vec<Value>>>,
    /// Told when a request met a fate that leaves its sender without an answer.
    stuck: Notify,
}

pub struct Proxy {
    pub url: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn start(upstream: &str, plan: impl FnMut(&str, u64, &Value) -> Fate + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            upstream: upstream.trim_start_matches("http://").to_owned(),
            plan: Mutex::new(Box::new(plan)),
            seen: Mutex::default(),
            stuck: Notify::new(),
        });
        let for_task = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = for_task.clone();
                tokio::spawn(async move {
                    let _ = serve(stream, &shared).await;
                });
            }
        });
        Self { url, shared, task }
    }

    /// Waits until a request is left without an answer.
    pub async fn stuck(&self) {
        self.shared.stuck.notified().await;
    }

    /// The parameters of all requests of a method so far.
    pub fn requests(&self, method: &str) -> Vec<Value> {
        self.shared.seen.lock().unwrap().get(method).cloned().unwrap_or_default()
    }

    /// How many requests of a method there were so far.
    pub fn count(&self, method: &str) -> usize {
        self.shared.seen.lock().unwrap().get(method).map_or(0, Vec::len)
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
            let length: usize =
                head.lines().find_map(|l| l.strip_prefix("content-length:")).map_or(0, |v| v.trim().parse().unwrap());
            let total = end + 4 + length;
            if buffer.len() >= total {
                let body = buffer[end + 4..total].to_vec();
                buffer.drain(..total);
                return Ok(Some(body));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

async fn forward(upstream: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {upstream}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let start = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |i| i + 4);
    let body = answer.split_off(start);
    let chunked = String::from_utf8_lossy(&answer).to_lowercase().contains("transfer-encoding: chunked");
    Ok(if chunked { joined(&body) } else { body })
}

/// A body that came in chunks.
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|w| w == b"\r\n") {
        let length = usize::from_str_radix(String::from_utf8_lossy(&body[..end]).trim(), 16).unwrap();
        out.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[(end + 4 + length).min(body.len())..];
        if length == 0 {
            break;
        }
    }
    out
}

/// Asks an endpoint something, and gives the whole answer.
pub async fn ask(url: &str, method: &str, params: &Value) -> Value {
    let request = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let answer = forward(url.trim_start_matches("http://"), request.to_string().as_bytes()).await.unwrap();
    serde_json::from_slice(&answer).unwrap_or_else(|e| panic!("{method}: {e}: {}", String::from_utf8_lossy(&answer)))
}

/// Asks an endpoint something that must succeed.
pub async fn post(url: &str, method: &str, params: &Value) -> Value {
    let answer = ask(url, method, params).await;
    assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
    answer["result"].clone()
}

async fn respond(stream: &mut TcpStream, status: u16, body: &[u8]) -> std::io::Result<()> {
    let head =
        format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    // In one write: two would wait for each other's acknowledgement.
    stream.write_all(&[head.as_bytes(), body].concat()).await
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(body) = read_request(&mut stream, &mut buffer).await? {
        let request: Value = serde_json::from_slice(&body).unwrap();
        let method = request["method"].as_str().unwrap_or_default().to_owned();
        let fate = {
            let mut seen = shared.seen.lock().unwrap();
            let of_method = seen.entry(method.clone()).or_default();
            let before = of_method.len() as u64;
            of_method.push(request["params"].clone());
            (shared.plan.lock().unwrap())(&method, before, &request["params"])
        };
        match fate {
            Fate::Pass => {
                let answer = forward(&shared.upstream, &body).await?;
                respond(&mut stream, 200, &answer).await?;
            }
            Fate::Fail(status) => respond(&mut stream, status, b"out of order").await?,
            Fate::Error(code, message) => {
                let answer = serde_json::json!({
                    "jsonrpc": "2.0", "id": request["id"], "error": { "code": code, "message": message },
                });
                respond(&mut stream, 200, answer.to_string().as_bytes()).await?;
            }
            Fate::Answer(result) => {
                let answer = serde_json::json!({ "jsonrpc": "2.0", "id": request["id"], "result": result });
                respond(&mut stream, 200, answer.to_string().as_bytes()).await?;
            }
            Fate::Instead(params) => {
                let mut other = request.clone();
                other["params"] = params;
                let answer = forward(&shared.upstream, other.to_string().as_bytes()).await?;
                respond(&mut stream, 200, &answer).await?;
            }
            Fate::Swallow | Fate::LoseAnswer => {
                if matches!(fate, Fate::LoseAnswer) {
                    forward(&shared.upstream, &body).await?;
                }
                shared.stuck.notify_one();
                // The connection stays open and silent until the other side gives up.
                let mut rest = [0; 1024];
                while stream.read(&mut rest).await? > 0 {}
                return Ok(());
            }
        }
    }
    Ok(())
}
