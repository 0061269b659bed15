//! A published log (tlog-tiles), read from where anybody can: a URL or a directory. No tile is believed that the signed head
//! does not vouch for ([`PublishedLog`]).

use std::path::PathBuf;
use std::time::Duration;

use avouch_engine::log::{Lack, LogError, PublishedLog, TileRef, TreeHead, verify_note};
use avouch_engine::verdict::Hash32;
use reqwest::{Client, StatusCode, Url};
use thiserror::Error;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(15);
/// No file of a log is larger.
const MOST_BYTES: usize = 1 << 20;

/// What is wrong with a published log, or with asking for it.
#[derive(Debug, Error)]
pub enum PublishedError {
    /// The place is none.
    #[error("`{0}` is no place of a log: give the URL below which `checkpoint` and `tile/` lie, or a directory")]
    Place(String),
    /// Nobody answers.
    #[error("{place}/{path} cannot be had: {why}")]
    Unreachable {
        /// Where.
        place: String,
        /// Which part.
        path: String,
        /// The system's words.
        why: String,
    },
    /// A part that must be there is not.
    #[error("{place} has no {path}, which its signed head speaks of")]
    Missing {
        /// Where.
        place: String,
        /// Which part.
        path: String,
    },
    /// The head is not signed by the log's key, or the parts do not belong to it.
    #[error("{place}: {source}")]
    Log {
        /// Where.
        place: String,
        /// What is wrong.
        source: LogError,
    },
}

impl PublishedError {
    /// Whether it says something about the log, as against about the way to it.
    pub fn is_evidence(&self) -> bool {
        matches!(self, PublishedError::Missing { .. } | PublishedError::Log { .. })
    }
}

#[derive(Debug, Clone)]
enum Place {
    Directory(PathBuf),
    Url(Client, Url),
}

/// Where a log is published, and the key that signs its heads.
#[derive(Debug, Clone)]
pub struct PublishedAt {
    place: Place,
    shown: String,
    key: String,
}

impl PublishedAt {
    /// A URL (`http`, `https`) or a directory, and the verifier key that its heads must be signed with. Nothing is asked yet.
    ///
    /// # Errors
    /// [`PublishedError::Place`].
    pub fn new(place: &str, key: &str) -> Result<Self, PublishedError> {
        let wrong = || PublishedError::Place(place.to_owned());
        let (at, shown) = if place.starts_with("http://") || place.starts_with("https://") {
            let url = Url::parse(&format!("{}/", place.trim_end_matches('/'))).map_err(|_| wrong())?;
            let client = Client::builder().timeout(ANSWER).build().map_err(|_| wrong())?;
            let host = url.host_str().unwrap_or_default();
            let port = url.port().map_or_else(String::new, |p| format!(":{p}"));
            let shown = format!("{}://{host}{port}{}", url.scheme(), url.path().trim_end_matches('/'));
            (Place::Url(client, url), shown)
        } else if place.is_empty() || place.contains("://") {
            return Err(wrong());
        } else {
            (Place::Directory(PathBuf::from(place)), place.to_owned())
        };
        Ok(Self { place: at, shown, key: key.to_owned() })
    }

    /// The place, without a password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// A file of the log; `None` if there is none.
    async fn get(&self, path: &str) -> Result<Option<Vec<u8>>, PublishedError> {
        let fail = |why: String| PublishedError::Unreachable { place: self.shown.clone(), path: path.to_owned(), why };
        match &self.place {
            Place::Directory(dir) => match std::fs::read(dir.join(path)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(fail(e.to_string())),
            },
            Place::Url(client, base) => {
                let url = base.join(path).map_err(|e| fail(e.to_string()))?;
                let words = |e: reqwest::Error| fail(e.without_url().to_string());
                let mut answer = client.get(url).send().await.map_err(words)?;
                match answer.status() {
                    StatusCode::OK => {}
                    StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
                    other => return Err(fail(format!("the answer is {other}"))),
                }
                let mut bytes = Vec::new();
                while let Some(chunk) = answer.chunk().await.map_err(words)? {
                    bytes.extend_from_slice(&chunk);
                    if bytes.len() > MOST_BYTES {
                        return Err(fail(format!("it has more than {MOST_BYTES} bytes")));
                    }
                }
                Ok(Some(bytes))
            }
        }
    }

    /// The newest signed head: its note as it stands, and what it says.
    ///
    /// # Errors
    /// [`PublishedError::Log`] when the log's key did not sign it.
    pub async fn head(&self) -> Result<(Vec<u8>, TreeHead), PublishedError> {
        let note = self.get("checkpoint").await?;
        let note =
            note.ok_or_else(|| PublishedError::Missing { place: self.shown.clone(), path: "checkpoint".into() })?;
        let head = verify_note(&note, &self.key).map_err(|source| self.log(source))?;
        Ok((note, head))
    }

    fn log(&self, source: LogError) -> PublishedError {
        PublishedError::Log { place: self.shown.clone(), source }
    }

    async fn tile(&self, tile: TileRef) -> Result<Vec<u8>, PublishedError> {
        if let Some(bytes) = self.get(&tile.path()).await? {
            return Ok(bytes);
        }
        // The log may have grown since the head was signed: the full tile stands where the partial one stood.
        let filled = tile.filled();
        if filled != tile
            && let Some(bytes) = self.get(&filled.path()).await?
        {
            return Ok(bytes);
        }
        Err(PublishedError::Missing { place: self.shown.clone(), path: tile.path() })
    }

    /// Asks a question of a log, fetching the tiles that the answer takes.
    async fn answer<T>(
        &self,
        log: &mut PublishedLog,
        question: impl Fn(&PublishedLog) -> Result<T, Lack>,
    ) -> Result<T, PublishedError> {
        loop {
            match question(log) {
                Ok(answer) => return Ok(answer),
                Err(Lack::Log(source)) => return Err(self.log(source)),
                Err(Lack::Tiles(lacks)) => {
                    for tile in lacks {
                        let bytes = self.tile(tile).await?;
                        log.insert(tile, bytes).map_err(|source| self.log(source))?;
                    }
                }
            }
        }
    }

    /// The root the log had at an earlier size, as its tiles show.
    ///
    /// # Errors
    /// [`PublishedError`]; those that are evidence speak against who publishes the log.
    pub async fn root(&self, log: &mut PublishedLog, size: u64) -> Result<Hash32, PublishedError> {
        self.answer(log, |log| log.root(size)).await
    }

    /// The consistency proof from an earlier size to the head.
    ///
    /// # Errors
    /// As [`PublishedAt::root`].
    pub async fn consistency(&self, log: &mut PublishedLog, old: u64) -> Result<Vec<Hash32>, PublishedError> {
        self.answer(log, |log| log.consistency(old)).await
    }

    /// The leaf at an index.
    ///
    /// # Errors
    /// As [`PublishedAt::root`].
    pub async fn leaf(&self, log: &mut PublishedLog, index: u64) -> Result<Hash32, PublishedError> {
        self.answer(log, |log| log.leaf(index)).await
    }
}
