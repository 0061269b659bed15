//! Bearer tokens: kept while they are good, fetched again when most of their time is over.
//!
//! librdkafka can fetch tokens itself only where it is built with curl, which it is not here.

use std::ffi::{CStr, CString};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::client::OAuthToken;
use rdkafka_sys as sys;
use serde_json::Value;

use super::connection::TokenSource;

/// How long a token endpoint may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a token is taken to be good that does not say, and how soon a lasting one is looked at again.
const UNSAID_MS: i64 = 3_600_000;

/// Tokens of one connection, shared by its clients.
#[derive(Debug)]
pub(super) struct Tokens {
    source: TokenSource,
    current: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Token {
    text: String,
    principal: String,
    /// When it was had and when it ends, milliseconds since the epoch.
    from_ms: i64,
    until_ms: i64,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, until {})", self.principal, self.until_ms)
    }
}

impl Tokens {
    pub fn new(source: TokenSource) -> Self {
        Self { source, current: Mutex::new(None) }
    }

    /// A token that is good for a while. The error says what to look at, and holds no secret.
    pub fn current(&self) -> Result<OAuthToken, String> {
        let now = now_ms();
        let mut held = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Clients ask when four fifths are over; one that asks a little earlier should not get the old one again.
        let good = |t: &Token| now - t.from_ms < (t.until_ms - t.from_ms) * 3 / 4;
        let token = match held.as_ref().filter(|t| good(t)) {
            Some(token) => token.clone(),
            None => {
                let token = self.fetch(now)?;
                *held = Some(token.clone());
                token
            }
        };
        Ok(OAuthToken { token: token.text, principal_name: token.principal, lifetime_ms: token.until_ms })
    }

    fn fetch(&self, now: i64) -> Result<Token, String> {
        match &self.source {
            TokenSource::Token(token) => Token::read(token.expose().trim(), None, "avouch", now),
            TokenSource::ClientCredentials { endpoint, client_id, client_secret, scope } => {
                let mut body = format!(
                    "grant_type=client_credentials&client_id={}&client_secret={}",
                    form(client_id),
                    form(client_secret.expose())
                );
                if let Some(scope) = scope {
                    body.push_str(&format!("&scope={}", form(scope)));
                }
                let answer = post(endpoint, body).map_err(|why| format!("no token from {endpoint}: {why}"))?;
                let token = answer.get("access_token").and_then(Value::as_str);
                let token = token.ok_or_else(|| format!("the answer of {endpoint} has no `access_token`"))?;
                let seconds = answer.get("expires_in").and_then(Value::as_i64);
                Token::read(token, seconds, client_id, now)
            }
        }
    }

    /// Sets the current token on a client.
    pub fn give(&self, client: *mut sys::rd_kafka_t) -> Result<(), String> {
        let token = self.current()?;
        let nul = |_| "the token holds a NUL byte".to_owned();
        let text = CString::new(token.token).map_err(nul)?;
        let principal = CString::new(token.principal_name).map_err(nul)?;
        let mut why = [0 as std::os::raw::c_char; 512];
        // SAFETY: `client` is a live handle of the caller's; the strings are NUL-terminated; `why` has the length given, and
        // librdkafka terminates what it writes there.
        let code = unsafe {
            sys::rd_kafka_oauthbearer_set_token(
                client,
                text.as_ptr(),
                token.lifetime_ms,
                principal.as_ptr(),
                std::ptr::null_mut(),
                0,
                why.as_mut_ptr(),
                why.len(),
            )
        };
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        // SAFETY: as above.
        let why = unsafe { CStr::from_ptr(why.as_ptr()) };
        Err(format!("the token is refused: {}", why.to_string_lossy()))
    }
}

impl Token {
    /// Takes time and name from a JWT's claims, where it is one.
    fn read(text: &str, seconds: Option<i64>, otherwise: &str, now: i64) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the token is empty".into());
        }
        let claims = claims(text).unwrap_or(Value::Null);
        let expires = claims.get("exp").and_then(Value::as_f64).map(|s| (s * 1000.0) as i64);
        let until_ms = seconds.map(|s| now + s.saturating_mul(1000)).or(expires).unwrap_or(now + UNSAID_MS);
        if until_ms <= now {
            return Err("the token has expired; give a new one".into());
        }
        let principal = claims.get("sub").and_then(Value::as_str).unwrap_or(otherwise).to_owned();
        Ok(Self { text: text.to_owned(), principal, from_ms: now, until_ms })
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64)
}

/// The claims of a JWT, unverified: the broker verifies them.
fn claims(token: &str) -> Option<Value> {
    serde_json::from_slice(&base64url(token.split('.').nth(1)?)?).ok()
}

fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut have) = (0u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'-' | b'+' => 62,
            b'_' | b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    Some(out)
}

/// application/x-www-form-urlencoded.
fn form(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => out.push(char::from(b)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

/// Posts a form and reads JSON. librdkafka asks from a thread of its own making, which may or may not belong to an async
/// runtime, so the call has a thread to itself.
fn post(endpoint: &str, body: String) -> Result<Value, String> {
    let ask = || -> Result<Value, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        runtime.block_on(async {
            let client = reqwest::Client::builder().timeout(ANSWER).build().map_err(|e| words(&e))?;
            let request = client
                .post(endpoint)
                .header("content-type", "application/x-www-form-urlencoded")
                .header("accept", "application/json")
                .body(body);
            let answer = request.send().await.map_err(|e| words(&e))?;
            let status = answer.status();
            let bytes = answer.bytes().await.map_err(|e| words(&e))?;
            if !status.is_success() {
                // RFC 6749 §5.2 names errors by a word; anything else could hold what we sent.
                let error = serde_json::from_slice::<Value>(&bytes).ok();
                let error = error.as_ref().and_then(|v| v.get("error")).and_then(Value::as_str);
                let error = error.filter(|e| e.len() < 64 && e.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
                return Err(match error {
                    Some(e) => format!("it answers {status}: {e}"),
                    None => format!("it answers {status}"),
                });
            }
            serde_json::from_slice(&bytes).map_err(|_| "its answer is not JSON".to_owned())
        })
    };
    std::thread::scope(|scope| scope.spawn(ask).join()).unwrap_or_else(|_| Err("the request broke off".into()))
}

/// An error with its causes, without the URL that the caller names anyway.
fn words(e: &reqwest::Error) -> String {
    let mut out = String::new();
    let mut source: Option<&dyn std::error::Error> = std::error::Error::source(e);
    while let Some(cause) = source {
        if !out.is_empty() {
            out.push_str(": ");
        }
        out.push_str(&cause.to_string());
        source = cause.source();
    }
    if out.is_empty() { e.to_string() } else { out }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::connection::Password;
    use super::*;

    #[test]
    fn a_jwt_says_whose_it_is_and_how_long_it_is_good() {
        // {"alg":"none"} . {"sub":"pumps","exp":4102444800}
        let jwt = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJwdW1wcyIsImV4cCI6NDEwMjQ0NDgwMH0.";
        let token = Token::read(jwt, None, "avouch", 1_000).unwrap();
        assert_eq!((token.principal.as_str(), token.until_ms), ("pumps", 4_102_444_800_000));
        let opaque = Token::read("opaque", Some(60), "me", 1_000).unwrap();
        assert_eq!((opaque.principal.as_str(), opaque.until_ms), ("me", 61_000));
        assert!(Token::read(jwt, Some(-1), "me", 1_000).is_err());
        assert_eq!(form("a b&c=ä"), "a+b%26c%3D%C3%A4");
    }

    #[test]
    fn a_token_is_kept_while_it_is_good() {
        let tokens = Tokens::new(TokenSource::Token(Password::new("opaque")));
        let first = tokens.current().unwrap();
        assert_eq!(tokens.current().unwrap().lifetime_ms, first.lifetime_ms);
        assert!(!format!("{tokens:?}").contains("opaque"));
    }
}
