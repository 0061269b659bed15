//! A running pipeline, asked from outside: its metrics, and live rows of its steps.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::{Client, Response, Url};
use thiserror::Error;

use super::live::LiveQuestion;

/// How long a connection, and metrics, may take.
const ANSWER: Duration = Duration::from_secs(5);
/// A process that shows rows says every few seconds that it is there.
const SILENCE: Duration = Duration::from_secs(30);
/// More is no answer of ours.
const MOST_METRICS: usize = 64 << 20;
const MOST_REFUSAL: usize = 64 << 10;
const MOST_LINE: usize = 64 << 20;

/// Why a running pipeline gives no answer.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// The address is none.
    #[error("`{url}` is not an address of a running pipeline: {why}; write it as http://127.0.0.1:9464")]
    Address {
        /// As given.
        url: String,
        /// Why.
        why: String,
    },
    /// Nobody answers there.
    #[error(
        "no pipeline answers at {address} ({why}); start it with `avouch run`, or give the URL that its log names \
         (\"serving /metrics …\")"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// The system's words.
        why: String,
    },
    /// It answers that it does not.
    #[error("{why}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its words.
        why: String,
    },
    /// The connection broke, or what came is not an answer.
    #[error("the connection to {address} was lost: {why}; the pipeline has stopped, or is being started again")]
    Lost {
        /// Where.
        address: String,
        /// Why.
        why: String,
    },
}

/// A running pipeline.
#[derive(Debug, Clone)]
pub struct Process {
    client: Client,
    base: Url,
    address: String,
}

impl Process {
    /// The one that listens at an address of this machine or another, `http.listen` of its file. An address that stands for
    /// all of a machine's is taken as this machine's own.
    ///
    /// # Errors
    /// [`ProcessError::Address`] for port 0, which is another one at each start.
    pub fn listening(address: SocketAddr) -> Result<Self, ProcessError> {
        let url = format!("http://{address}");
        if address.port() == 0 {
            let why =
                "`http.listen` has port 0, so each start takes another one; give the URL that the log names".into();
            return Err(ProcessError::Address { url, why });
        }
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
            ip => ip,
        };
        Self::at(&format!("http://{}", SocketAddr::new(ip, address.port())))
    }

    /// The one at a URL such as `http://127.0.0.1:9464`. Opens no connection.
    ///
    /// # Errors
    /// [`ProcessError::Address`].
    pub fn at(url: &str) -> Result<Self, ProcessError> {
        let wrong = |why: String| ProcessError::Address { url: url.to_owned(), why };
        let mut base = Url::parse(url).map_err(|e| wrong(e.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong("it is neither http:// nor https://".into()));
        }
        base.set_query(None);
        base.set_fragment(None);
        let trimmed = base.path().trim_end_matches('/').trim_end_matches("/metrics").to_owned();
        base.set_path(&trimmed);
        let here = matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let mut builder = Client::builder()
            .connect_timeout(ANSWER)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("avouch/", env!("CARGO_PKG_VERSION")));
        if here {
            // A proxy that the environment names is for other machines.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| wrong(e.to_string()))?;
        let port = base.port().map_or_else(String::new, |p| format!(":{p}"));
        // Without user and password, which may be secrets.
        let address = format!("{}://{}{port}{trimmed}", base.scheme(), base.host_str().unwrap_or_default());
        Ok(Self { client, base, address })
    }

    /// Its address, for people.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let whole = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&whole);
        url
    }

    /// What stands on `/metrics`.
    ///
    /// # Errors
    /// [`ProcessError`].
    pub async fn metrics(&self) -> Result<String, ProcessError> {
        let asked = self.client.get(self.url("metrics")).timeout(ANSWER).send().await;
        let answer = self.answered(asked).await?;
        let text = self.text(answer, MOST_METRICS).await?;
        if !text.contains("avouch_") {
            let why = "what answers there is no pipeline: /metrics has nothing of ours".into();
            return Err(ProcessError::Address { url: self.address.clone(), why });
        }
        Ok(text)
    }

    /// Rows of a step from now on.
    ///
    /// # Errors
    /// [`ProcessError`]; [`ProcessError::Refused`] with the process's own words.
    pub async fn live(&self, question: &LiveQuestion) -> Result<LiveAnswer, ProcessError> {
        let mut url = self.url("tap");
        {
            let mut pairs = url.query_pairs_mut();
            pairs.append_pair("step", &question.step);
            if let Some(condition) = &question.condition {
                pairs.append_pair("where", condition);
            }
            if let Some(limit) = question.limit {
                pairs.append_pair("limit", &limit.to_string());
            }
        }
        let asked = self.client.get(url).send().await;
        let answer = self.answered(asked).await?;
        Ok(LiveAnswer { answer, address: self.address.clone(), held: Vec::new(), at: 0, ended: false })
    }

    async fn answered(&self, asked: Result<Response, reqwest::Error>) -> Result<Response, ProcessError> {
        let answer = asked.map_err(|e| ProcessError::Unreachable { address: self.address.clone(), why: words(e) })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let words = self.text(answer, MOST_REFUSAL).await.unwrap_or_default();
        let words = words.trim();
        let why = match words.is_empty() {
            true => format!("{} answers {status}: it is no pipeline, or one of another version", self.address),
            false => words.to_owned(),
        };
        Err(ProcessError::Refused { status: status.as_u16(), why })
    }

    async fn text(&self, mut answer: Response, most: usize) -> Result<String, ProcessError> {
        let mut bytes = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() <= most => bytes.extend_from_slice(&chunk),
                Ok(Some(_)) => return Err(self.lost(format!("its answer has more than {most} bytes"))),
                Ok(None) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Err(e) => return Err(self.lost(words(e))),
            }
        }
    }

    fn lost(&self, why: String) -> ProcessError {
        ProcessError::Lost { address: self.address.clone(), why }
    }
}

/// Lines that a process sends.
#[derive(Debug)]
pub struct LiveAnswer {
    answer: Response,
    address: String,
    held: Vec<u8>,
    /// How much of what is held was given already.
    at: usize,
    ended: bool,
}

impl LiveAnswer {
    /// The next line, without its end; `None` when the process has ended it.
    ///
    /// # Errors
    /// [`ProcessError::Lost`].
    pub async fn next(&mut self) -> Result<Option<String>, ProcessError> {
        loop {
            if let Some(end) = self.held[self.at..].iter().position(|b| *b == b'\n') {
                let line = String::from_utf8_lossy(&self.held[self.at..self.at + end]).into_owned();
                self.at += end + 1;
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            self.held.drain(..self.at);
            self.at = 0;
            let lost = |why: String| ProcessError::Lost { address: self.address.clone(), why };
            match self.answer.chunk().await {
                Ok(Some(chunk)) => self.held.extend_from_slice(&chunk),
                Ok(None) => self.ended = true,
                Err(e) => return Err(lost(words(e))),
            }
            if self.held.len() > MOST_LINE {
                return Err(lost(format!("it sends a line of more than {MOST_LINE} bytes")));
            }
        }
    }
}

/// An error's words, without the URL, in which something secret may stand.
fn words(e: reqwest::Error) -> String {
    let e = e.without_url();
    let mut why = e.to_string();
    let mut cause = std::error::Error::source(&e);
    while let Some(c) = cause {
        // The innermost says it best.
        why = c.to_string();
        cause = c.source();
    }
    why
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses() {
        let at = |url: &str| Process::at(url).unwrap();
        assert_eq!(at("http://u:p@host:9464/metrics").address(), "http://host:9464");
        assert_eq!(at("https://host/pumps/").url("tap").as_str(), "https://host/pumps/tap");
        assert_eq!(at("http://host:1").url("metrics").as_str(), "http://host:1/metrics");
        for wrong in ["host:9464", "ftp://host", "nothing"] {
            assert!(Process::at(wrong).unwrap_err().to_string().contains("http://127.0.0.1:9464"), "{wrong}");
        }
        let of = |address: &str| Process::listening(address.parse().unwrap());
        assert_eq!(of("0.0.0.0:9464").unwrap().address(), "http://127.0.0.1:9464");
        assert_eq!(of("[::]:9464").unwrap().address(), "http://[::1]:9464");
        assert_eq!(of("10.0.0.1:9464").unwrap().address(), "http://10.0.0.1:9464");
        assert!(of("127.0.0.1:0").unwrap_err().to_string().contains("port 0"));
    }
}
