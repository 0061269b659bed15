//! A witness that listens (tlog-witness), and whoever brings it heads. What it does with a head, the engine decides
//! ([`avouch_engine::log::judge`]); here it is heard, remembered and answered.
//!
//! What was signed last of each log is kept in a file of its own, replaced whole and fsynced before the signature leaves: a witness
//! that forgot what it signed could sign a fork.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avouch_engine::log::{AddCheckpoint, Cosigner, Judgement, PublishedLog, Witnessed, judge, parse_checkpoint_text};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::published::{PublishedAt, PublishedError};
use crate::store::hash_of_hex;

/// A request is never larger: a head, and 63 hashes.
const MOST_BYTES: usize = 64 << 10;
const ANSWER: Duration = Duration::from_secs(15);

/// What keeps a witness from working.
#[derive(Debug, Error)]
pub enum WitnessError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// As given.
        address: SocketAddr,
        /// The system's words.
        source: std::io::Error,
    },
    /// The memory cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The memory is not what was written.
    #[error("{path}: {why}; restore it: a witness that does not know what it signed must not sign again")]
    Memory {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Another process uses the memory.
    #[error("{path} is used by another witness")]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// The server ended.
    #[error("the witness stopped: {0}")]
    Serve(std::io::Error),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    origin: String,
    size: u64,
    root: String,
}

/// What was signed, by origin.
#[derive(Debug)]
struct Memory {
    path: PathBuf,
    known: BTreeMap<String, Witnessed>,
    _lock: std::fs::File,
}

impl Memory {
    fn open(directory: &Path) -> Result<Self, WitnessError> {
        let fail = |path: &Path| {
            let path = path.to_path_buf();
            move |source| WitnessError::File { path, source }
        };
        std::fs::create_dir_all(directory).map_err(fail(directory))?;
        let lock_path = directory.join("lock");
        let lock = std::fs::File::create(&lock_path).map_err(fail(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(WitnessError::Locked { path: lock_path }),
            Err(std::fs::TryLockError::Error(e)) => return Err(fail(&lock_path)(e)),
        }
        let path = directory.join("witnessed.jsonl");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(fail(&path)(e)),
        };
        let mut known = BTreeMap::new();
        for (n, line) in text.lines().enumerate() {
            let wrong =
                |why: String| WitnessError::Memory { path: path.clone(), why: format!("line {}: {why}", n + 1) };
            let line: Line = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
            let root = hash_of_hex(line.root.as_bytes()).ok_or_else(|| wrong("its root is no hash".into()))?;
            known.insert(line.origin, Witnessed { size: line.size, root });
        }
        Ok(Self { path, known, _lock: lock })
    }

    fn remember(&mut self, origin: &str, now: Witnessed) -> std::io::Result<()> {
        use std::io::Write as _;
        let mut next = self.known.clone();
        next.insert(origin.to_owned(), now);
        let mut text = String::new();
        for (origin, w) in &next {
            let root = w.root.iter().map(|b| format!("{b:02x}")).collect();
            let line = Line { origin: origin.clone(), size: w.size, root };
            text.push_str(&serde_json::to_string(&line)?);
            text.push('\n');
        }
        let temporary = self.path.with_extension("tmp");
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)?;
        if let Some(parent) = self.path.parent() {
            std::fs::File::open(parent)?.sync_all()?;
        }
        self.known = next;
        Ok(())
    }
}

struct Shared {
    key: Cosigner,
    logs: Vec<String>,
    memory: Mutex<Memory>,
}

/// A witness, bound and not serving yet.
pub struct Witness {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Witness {
    /// Binds the address. `logs`: the verifier keys of the logs it knows; what it signed is kept in `directory`.
    ///
    /// # Errors
    /// When the address is taken, or the memory cannot be used.
    pub async fn bind(
        address: SocketAddr,
        key: Cosigner,
        logs: Vec<String>,
        directory: &Path,
    ) -> Result<Self, WitnessError> {
        let memory = Mutex::new(Memory::open(directory)?);
        let bind = |source| WitnessError::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        Ok(Self { listener, address, shared: Arc::new(Shared { key, logs, memory }) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the task is dropped.
    ///
    /// # Errors
    /// [`WitnessError::Serve`].
    pub async fn serve(self) -> Result<(), WitnessError> {
        let app = Router::new()
            .route("/add-checkpoint", post(add_checkpoint))
            .layer(DefaultBodyLimit::max(MOST_BYTES))
            .with_state(self.shared);
        axum::serve(self.listener, app).await.map_err(WitnessError::Serve)
    }
}

async fn add_checkpoint(State(shared): State<Arc<Shared>>, body: Bytes) -> Response {
    // It fsyncs; one at a time, or two heads could both extend the same one.
    let done = tokio::task::spawn_blocking(move || shared.answer(&body)).await;
    done.unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

impl Shared {
    fn answer(&self, body: &[u8]) -> Response {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let say = |status: StatusCode, why: String| (status, why + "\n").into_response();
        let size = |n: u64| {
            (StatusCode::CONFLICT, [(header::CONTENT_TYPE, "text/x.tlog.size")], format!("{n}\n")).into_response()
        };
        match judge(body, &self.logs, |origin| memory.known.get(origin).copied()) {
            Judgement::Cosign { now, text } => {
                let origin = match parse_checkpoint_text(&text) {
                    Ok(head) => head.origin.as_str().to_owned(),
                    Err(e) => return say(StatusCode::BAD_REQUEST, e.to_string()),
                };
                if let Err(e) = memory.remember(&origin, now) {
                    tracing::error!(error = %e, "what is to be signed cannot be remembered, so it is not signed");
                    return say(StatusCode::INTERNAL_SERVER_ERROR, "the witness cannot remember what it signs".into());
                }
                let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
                match self.key.cosign(&text, time) {
                    Ok(line) => {
                        tracing::info!(log = origin, size = now.size, "cosigned");
                        (StatusCode::OK, line).into_response()
                    }
                    Err(e) => say(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()),
                }
            }
            Judgement::Malformed(why) => say(StatusCode::BAD_REQUEST, why),
            Judgement::Unsigned(why) => say(StatusCode::FORBIDDEN, why),
            Judgement::UnknownLog(origin) => say(StatusCode::NOT_FOUND, format!("no log {origin:?} is witnessed here")),
            Judgement::Conflict(last) => size(last),
            Judgement::Forked(last) => {
                tracing::error!(
                    size = last.size,
                    "a FORK: a head of the same size with another root was signed before"
                );
                size(last.size)
            }
            Judgement::Inconsistent => {
                tracing::error!(
                    "a head was signed by the log's key that does not extend the one before: a FORK, or a bad proof"
                );
                say(StatusCode::UNPROCESSABLE_ENTITY, "the proof does not show that it extends the last head".into())
            }
        }
    }
}

/// What came of bringing a head to a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// It signed: the note with its line added.
    Cosigned(Vec<u8>),
    /// It refused, for this reason. 409 at the head's own size, and 422, speak against the log.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        why: String,
    },
}

/// Why a head could not be brought.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// The log cannot be read.
    #[error(transparent)]
    Published(#[from] PublishedError),
    /// The witness does not answer.
    #[error("the witness at {url} cannot be asked: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// The system's words.
        why: String,
    },
}

/// Brings the newest head of a published log to a witness: asks it what it signed last, proves from the tiles that the head
/// extends that, and returns the note with the witness's signature. Anybody may: it takes no key.
///
/// # Errors
/// When log or witness cannot be asked. That the witness refuses is no error.
pub async fn submit(log: &PublishedAt, witness: &str) -> Result<Submitted, SubmitError> {
    let url = format!("{}/add-checkpoint", witness.trim_end_matches('/'));
    let fail =
        |e: reqwest::Error| SubmitError::Unreachable { url: witness.to_owned(), why: e.without_url().to_string() };
    let client = reqwest::Client::builder().timeout(ANSWER).build().map_err(fail)?;
    let (note, head) = log.head().await?;
    let mut published = PublishedLog::new(head.clone());
    let mut old_size = 0;
    // Its answer to a wrong old size is the right one; somebody else may be bringing heads at the same time.
    for _ in 0..4 {
        let proof = log.consistency(&mut published, old_size).await?;
        let body = AddCheckpoint { old_size, proof, note: note.clone() }.to_bytes();
        let answer = client.post(&url).body(body).send().await.map_err(fail)?;
        let status = answer.status();
        let text = answer.bytes().await.map_err(fail)?;
        let said = String::from_utf8_lossy(&text).trim().to_owned();
        match status.as_u16() {
            200 => {
                let mut cosigned = note;
                cosigned.extend_from_slice(&text);
                return Ok(Submitted::Cosigned(cosigned));
            }
            409 => match said.parse::<u64>() {
                Ok(size) if size != old_size && size <= head.size => old_size = size,
                Ok(size) if size > head.size => {
                    let why = format!("it has signed size {size}, which is beyond the published head of {}", head.size);
                    return Ok(Submitted::Refused { status: 409, why });
                }
                _ => {
                    let why = format!("it has signed another root at size {old_size}: this log is a fork");
                    return Ok(Submitted::Refused { status: 409, why });
                }
            },
            status => return Ok(Submitted::Refused { status, why: said }),
        }
    }
    Ok(Submitted::Refused { status: 409, why: "others bring it heads faster; try again".into() })
}
