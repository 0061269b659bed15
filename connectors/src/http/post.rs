//! One POST, and what its answer means.
//!
//! | answer | means |
//! | --- | --- |
//! | 2xx | taken |
//! | 400, 406, 409–417, 422, 424, 428, 431, 451 and other 4xx | these records are refused |
//! | 401–405, 407, 408, 421, 423, 425, 426, 429 | the sink is down for us: rights, address, method, haste; not the records' fault |
//! | 5xx, no answer, no connection | the sink is down |
//! | 3xx | the sink is down: a redirected POST would become a GET, whose 200 says nothing |
//!
//! `Retry-After` (seconds or a date) is obeyed, up to an hour.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::{Client, StatusCode, Url};

use crate::delivery::{DownKind, Failure};

/// More of an answer than this is not kept.
const MOST_WORDS: usize = 400;
/// An answer is read no further than this.
const MOST_ANSWER: usize = 64 * 1024;
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Where to post.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    client: Client,
    url: Url,
    token: Option<String>,
    /// The address for messages: without user, password and query, which may be secrets.
    shown: String,
}

impl Endpoint {
    /// `path` is appended to the URL's own. `token` is sent as a bearer token. Opens no connection.
    ///
    /// # Errors
    /// [`Failure::Fatal`] when the URL is none; [`Failure::Down`] when this machine has no certificates to trust.
    pub fn new(url: &str, path: &str, token: Option<String>, timeout: Duration) -> Result<Self, Failure> {
        let fatal = |why: String| Failure::Fatal(format!("the URL of the sink cannot be used: {why}"));
        let mut url = Url::parse(url).map_err(|e| fatal(e.to_string()))?;
        if !path.is_empty() {
            let whole = format!("{}{path}", url.path().trim_end_matches('/'));
            url.set_path(&whole);
        }
        let shown = format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), port(&url)) + url.path();
        let client = Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("avouch/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Failure::down(DownKind::Failed, format!("the HTTP client cannot be made: {e}")))?;
        Ok(Self { client, url, token, shown })
    }

    /// Posts JSON. Returns once the other side has said that it has it.
    pub async fn post(&self, headers: &[(&'static str, String)], body: Vec<u8>) -> Result<(), Failure> {
        let mut request = self.client.post(self.url.clone()).header("content-type", "application/json").body(body);
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let mut answer = request.send().await.map_err(|e| self.unanswered(e))?;
        let status = answer.status();
        let after = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()).and_then(retry_after);
        // Read even when it is not needed, so that the connection can be used again.
        let mut words = Vec::new();
        while words.len() < MOST_ANSWER
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            words.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(());
        }
        Err(self.judged(status, after, &words))
    }

    fn judged(&self, status: StatusCode, retry_after: Option<Duration>, words: &[u8]) -> Failure {
        let words = String::from_utf8_lossy(words);
        let words: String =
            words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_WORDS).collect();
        let said = if words.is_empty() { String::new() } else { format!(": {words}") };
        let why = format!("{} answers {status}{said}", self.shown);
        let kind = match status.as_u16() {
            429 | 503 => DownKind::Busy,
            408 | 504 => DownKind::Timeout,
            425 | 423 => DownKind::Busy,
            300..=399 | 401..=405 | 407 | 421 | 426 => DownKind::Denied,
            400..=499 => return Failure::Refused { status: status.as_u16().to_string(), why, among: None },
            _ => DownKind::Failed,
        };
        Failure::Down { kind, why, retry_after }
    }

    fn unanswered(&self, e: reqwest::Error) -> Failure {
        let kind = if e.is_timeout() {
            DownKind::Timeout
        } else if e.is_connect() {
            DownKind::Unreachable
        } else {
            DownKind::Failed
        };
        // The error's own words may hold the URL with what is secret in it.
        let e = e.without_url();
        let mut why = e.to_string();
        let mut cause = std::error::Error::source(&e);
        while let Some(c) = cause {
            why.push_str(&format!(": {c}"));
            cause = c.source();
        }
        Failure::down(kind, format!("{}: {why}", self.shown))
    }
}

fn port(url: &Url) -> String {
    url.port().map_or_else(String::new, |p| format!(":{p}"))
}

/// Seconds, or a date as RFC 9110 prescribes it (`Sun, 06 Nov 1994 08:49:37 GMT`).
fn retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
    }
    let at = Duration::from_secs(http_date(text)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some(at.saturating_sub(now).min(LONGEST_WAIT))
}

/// Seconds since the epoch of an HTTP date.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.trim().strip_suffix("GMT")?.split_ascii_whitespace().skip(1);
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|m| *m == month)? + 1;
    let iso = format!("{year:0>4}-{month:02}-{day:0>2}T{time}Z");
    let ms = avouch_engine::decode::parse_timestamp(iso.as_bytes())?;
    u64::try_from(ms / 1000).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn when_to_come_back() {
        assert_eq!(retry_after("120"), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("999999999"), Some(LONGEST_WAIT));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn what_an_answer_means() {
        let e = Endpoint::new("http://u:p@x:1/a?key=k", "/api", Some("t".into()), Duration::from_secs(1)).unwrap();
        assert_eq!(e.shown, "http://x:1/a/api");
        let judged = |code: u16| e.judged(StatusCode::from_u16(code).unwrap(), None, b"because\n");
        for code in [400, 409, 413, 415, 422] {
            assert!(matches!(judged(code), Failure::Refused { status, .. } if status == code.to_string()), "{code}");
        }
        for (code, kind) in [
            (302, DownKind::Denied),
            (401, DownKind::Denied),
            (404, DownKind::Denied),
            (408, DownKind::Timeout),
            (429, DownKind::Busy),
            (500, DownKind::Failed),
            (503, DownKind::Busy),
        ] {
            assert!(matches!(judged(code), Failure::Down { kind: k, .. } if k == kind), "{code}");
        }
        assert_eq!(judged(500).to_string(), "http://x:1/a/api answers 500 Internal Server Error: because");
    }
}
