//! A webhook: verdicts as a JSON array, in batches that name themselves.
//!
//! ```text
//!   POST <url>
//!   Content-Type: application/json
//!   Idempotency-Key: <log>/<sink>/<first index>/<count>
//!   Avouch-Signature: v1=<hex of HMAC-SHA-256(secret, idempotency key ‖ "." ‖ body)>     with a secret only
//!   Authorization: Bearer <token>                                                         with a token only
//!
//!   [{"log":…,"index":…,…}, …]
//! ```
//!
//! A batch is offered until it is answered with 2xx, so it may arrive twice: a receiver that remembers the key drops the
//! repeat of a whole batch, and `log` with `index` in each verdict tells verdicts apart for good, however they were cut
//! into batches. Early results come in requests of their own, whose key is made of their contents.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256};

use super::post::Endpoint;
use crate::delivery::Failure;

/// One batch for a webhook.
#[derive(Debug, Clone, Copy)]
pub struct WebhookBatch<'a> {
    /// The log its verdicts are in.
    pub log: &'a str,
    /// The sink's name: two sinks of one log take different verdicts.
    pub sink: &'a str,
    /// Index of the first verdict in it.
    pub first: u64,
    /// The verdicts, each a JSON object.
    pub verdicts: &'a [String],
}

impl WebhookBatch<'_> {
    /// What the batch is known by.
    pub fn key(&self) -> String {
        format!("{}/{}/{}/{}", self.log, self.sink, self.first, self.verdicts.len())
    }

    /// The JSON array.
    pub fn body(&self) -> String {
        format!("[{}]", self.verdicts.join(","))
    }
}

/// Posts batches to one address.
#[derive(Debug, Clone)]
pub struct Webhook {
    endpoint: Endpoint,
    secret: Option<Vec<u8>>,
}

impl Webhook {
    /// Opens no connection. `secret` signs, `token` is sent as a bearer token.
    ///
    /// # Errors
    /// [`Failure::Fatal`] when the URL is none.
    pub fn new(url: &str, secret: Option<Vec<u8>>, token: Option<String>, timeout: Duration) -> Result<Self, Failure> {
        Ok(Self { endpoint: Endpoint::new(url, "", token, timeout)?, secret })
    }

    /// Posts a batch; returns once the other side has it.
    ///
    /// # Errors
    /// [`Failure::Refused`] when it refuses at least one of the verdicts, [`Failure::Down`].
    pub async fn post(&self, batch: WebhookBatch<'_>) -> Result<(), Failure> {
        self.send(batch.key(), batch.body()).await
    }

    /// Posts early results of a log: what is in no log has no index to be known by, so its key is
    /// `<log>/<sink>/early/<SHA-256 of the body>`.
    ///
    /// # Errors
    /// Those of [`Webhook::post`].
    pub async fn post_early(&self, log: &str, sink: &str, results: &[String]) -> Result<(), Failure> {
        let body = format!("[{}]", results.join(","));
        let digest: String = Sha256::digest(&body).iter().map(|b| format!("{b:02x}")).collect();
        self.send(format!("{log}/{sink}/early/{digest}"), body).await
    }

    async fn send(&self, key: String, body: String) -> Result<(), Failure> {
        let body = body.into_bytes();
        let mut headers = Vec::with_capacity(2);
        if let Some(secret) = &self.secret {
            headers.push(("avouch-signature", signature(secret, &key, &body)));
        }
        headers.push(("idempotency-key", key));
        self.endpoint.post(&headers, body).await
    }
}

/// The value of `Avouch-Signature`.
fn signature(secret: &[u8], key: &str, body: &[u8]) -> String {
    let mut mac = match Hmac::<Sha256>::new_from_slice(secret) {
        Ok(mac) => mac,
        // Invariant: HMAC takes keys of every length.
        Err(_) => unreachable!("HMAC-SHA-256 accepts any key length"),
    };
    mac.update(key.as_bytes());
    mac.update(b".");
    mac.update(body);
    let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    format!("v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_names_and_signs_itself() {
        let verdicts = ["{\"index\":3}".to_owned(), "{\"index\":5}".to_owned()];
        let batch = WebhookBatch { log: "avouch/pumps/0", sink: "hook", first: 3, verdicts: &verdicts };
        assert_eq!(batch.key(), "avouch/pumps/0/hook/3/2");
        assert_eq!(batch.body(), r#"[{"index":3},{"index":5}]"#);
        // printf 'avouch/pumps/0/hook/3/2.[{"index":3},{"index":5}]' | openssl dgst -sha256 -hmac geheim
        assert_eq!(
            signature(b"geheim", &batch.key(), batch.body().as_bytes()),
            "v1=b7182d834e73e9a885ce54bbf528d40f11fb4fc0347c9b632b74e605a3b5cc89"
        );
    }
}
