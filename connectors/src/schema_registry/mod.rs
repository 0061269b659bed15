//! Schemas by id, from a Confluent-compatible schema registry (Confluent, Karapace, Apicurio's ccompat, Redpanda).
//!
//! An id's schema never changes, so what was once fetched is kept as a file and never asked for again: a lane that is
//! restarted decodes old records without the registry, and an auditor has the schemas beside the log. That there is no
//! schema of an id is kept nowhere: it is the registry's answer of the moment, and the dead letter is its record.
//!
//! Files: `<dir>/<first 16 hex digits of the URL's SHA-256>/<id>.avsc`, each the schema as the registry gave it, whole or not
//! there. Ids of two registries are not mixed up, as their directories differ.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// Longest answer taken from a registry.
const MOST_BYTES: usize = 8 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);
/// The error code of an id the registry does not have; a 404 without it comes from something else.
const SCHEMA_NOT_FOUND: i64 = 40403;

/// How to show who one is.
#[derive(Clone, Default)]
pub enum RegistryAuth {
    /// Not at all.
    #[default]
    None,
    /// HTTP basic authentication.
    Basic {
        /// User, or API key.
        username: String,
        /// Password, or API secret.
        password: String,
    },
    /// A bearer token.
    Token(String),
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Basic { .. } => "Basic(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

/// What a registry says of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistrySchema {
    /// An Avro schema: its JSON.
    Avro(Vec<u8>),
    /// A schema that cannot be used, and why.
    Unusable(String),
    /// There is none.
    Unknown,
}

/// Why there is no answer. Asking again can help.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The URL or the client's settings are wrong.
    #[error("the schema registry {url}: {why}")]
    Setup {
        /// As configured, without a password.
        url: String,
        /// What.
        why: String,
    },
    /// No answer, or none that a schema registry gives.
    #[error("the schema registry {url} does not answer: {why}")]
    Unreachable {
        /// As configured, without a password.
        url: String,
        /// What.
        why: String,
    },
    /// It refuses us.
    #[error(
        "the schema registry {url} refuses access ({status}); check `username` and `password`, or `token`, of `registry`"
    )]
    Denied {
        /// As configured, without a password.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// A kept schema could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// A client of one registry.
#[derive(Debug)]
pub struct SchemaRegistry {
    client: Client,
    url: Url,
    shown: String,
    auth: RegistryAuth,
    dir: PathBuf,
}

#[derive(Deserialize)]
struct Answer {
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Refusal {
    error_code: i64,
}

impl SchemaRegistry {
    /// A client of the registry at `url`, which keeps schemas below `dir`. Nothing is asked yet.
    pub fn new(url: &str, auth: RegistryAuth, dir: &Path) -> Result<Self, RegistryError> {
        // A URL that cannot be read is not repeated: a password may stand in it.
        let setup = |why: String| RegistryError::Setup { url: "the URL given".to_owned(), why };
        let mut base = Url::parse(url).map_err(|e| setup(e.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(setup("write http://host:port or https://host:port".into()));
        }
        let mut auth = auth;
        if !base.username().is_empty() {
            if matches!(auth, RegistryAuth::None) {
                auth = RegistryAuth::Basic {
                    username: base.username().to_owned(),
                    password: base.password().unwrap_or_default().to_owned(),
                };
            }
            // What stands in messages and in the directory's name is without it.
            let _ = base.set_username("");
            let _ = base.set_password(None);
        }
        // A key may stand in its path.
        let origin = base.origin().ascii_serialization();
        let shown = if base.path().trim_matches('/').is_empty() { origin } else { format!("{origin}/…") };
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let hash: String = Sha256::digest(base.as_str()).iter().take(8).map(|b| format!("{b:02x}")).collect();
        let client = Client::builder()
            .timeout(TIMEOUT)
            .build()
            .map_err(|e| RegistryError::Setup { url: shown.clone(), why: words(&e) })?;
        Ok(Self { client, url: base, shown, auth, dir: dir.join(hash) })
    }

    /// The URL, without a password and without its path.
    pub fn url(&self) -> &str {
        &self.shown
    }

    fn path(&self, id: u32) -> PathBuf {
        self.dir.join(format!("{id}.avsc"))
    }

    /// What the registry says of an id: from the files, or by asking it once.
    ///
    /// # Errors
    /// When it gives no answer; nothing is kept then.
    pub async fn schema(&self, id: u32) -> Result<RegistrySchema, RegistryError> {
        let path = self.path(id);
        match std::fs::read(&path) {
            Ok(json) => return Ok(RegistrySchema::Avro(json)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(RegistryError::File { path, source }),
        }
        let answer = self.ask(id).await?;
        if let RegistrySchema::Avro(json) = &answer {
            keep(&path, json).map_err(|source| RegistryError::File { path, source })?;
        }
        Ok(answer)
    }

    /// Whether the registry answers and lets us in: said early, since a schema is asked for only when a record needs it.
    pub async fn ping(&self) -> Result<(), RegistryError> {
        let (status, _) = self.get("subjects").await?;
        if status.is_success() { Ok(()) } else { Err(self.odd(status)) }
    }

    async fn ask(&self, id: u32) -> Result<RegistrySchema, RegistryError> {
        let (status, body) = self.get(&format!("schemas/ids/{id}")).await?;
        if status == StatusCode::NOT_FOUND {
            return match serde_json::from_slice::<Refusal>(&body) {
                Ok(Refusal { error_code: SCHEMA_NOT_FOUND }) => Ok(RegistrySchema::Unknown),
                _ => Err(self.odd(status)),
            };
        }
        if !status.is_success() {
            return Err(self.odd(status));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|e| self.unreachable(format!("its answer is not that of a schema registry ({e})")))?;
        let kind = answer.kind.as_deref().unwrap_or("AVRO");
        Ok(if kind != "AVRO" {
            RegistrySchema::Unusable(format!("it is {kind}, not AVRO"))
        } else if !answer.references.is_empty() {
            RegistrySchema::Unusable(
                "it refers to other schemas of the registry; register it with their types written out".into(),
            )
        } else {
            RegistrySchema::Avro(answer.schema.into_bytes())
        })
    }

    async fn get(&self, path: &str) -> Result<(StatusCode, Vec<u8>), RegistryError> {
        let url = self.url.join(path).map_err(|e| self.unreachable(e.to_string()))?;
        let mut request =
            self.client.get(url).header("accept", "application/vnd.schemaregistry.v1+json, application/json");
        request = match &self.auth {
            RegistryAuth::None => request,
            RegistryAuth::Basic { username, password } => request.basic_auth(username, Some(password)),
            RegistryAuth::Token(token) => request.bearer_auth(token),
        };
        let failed = |e: reqwest::Error| self.unreachable(words(&e));
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(RegistryError::Denied { url: self.shown.clone(), status: status.as_u16() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(self.unreachable(format!("its answer is longer than {MOST_BYTES} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    fn unreachable(&self, why: String) -> RegistryError {
        RegistryError::Unreachable { url: self.shown.clone(), why }
    }

    fn odd(&self, status: StatusCode) -> RegistryError {
        self.unreachable(format!("HTTP status {status}, which is not what a schema registry says"))
    }
}

/// An HTTP error with its causes, which reqwest leaves to whoever asks; without the URL, which is said already.
fn words(e: &reqwest::Error) -> String {
    let mut out = String::new();
    let mut cause = std::error::Error::source(e);
    while let Some(c) = cause {
        out = c.to_string();
        cause = c.source();
    }
    if e.is_timeout() {
        return format!("no answer within {} s", TIMEOUT.as_secs());
    }
    if out.is_empty() { e.to_string() } else { out }
}

/// Writes a schema: whole or not at all, and durable before a record decoded with it can be.
fn keep(path: &Path, json: &[u8]) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir)?;
    // Lanes fetch the same schema at the same time; each writes the same bytes under a name of its own.
    let temporary = path.with_extension(format!("{:?}.tmp", std::thread::current().id()));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(json)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
