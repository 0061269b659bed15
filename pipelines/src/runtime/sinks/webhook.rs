//! A webhook. The cursor is the lane's file, set after the answer: a crash in between posts a batch twice, under the same
//! idempotency key where it is cut the same way, and always with the same `log` and `index` in each verdict.

use std::time::Duration;

use avouch_connectors::delivery::Failure;
use avouch_connectors::http::{Webhook, WebhookBatch};
use avouch_connectors::store::{Cursor, LaneReader};

use super::Target;
use super::writer::{Batch, Halt, Position};
use crate::lang::{SecretString, WebhookSink};

#[derive(Debug, Clone)]
pub(super) struct Options {
    url: String,
    secret: Option<SecretString>,
    token: Option<SecretString>,
    timeout: Duration,
    batch: usize,
}

impl Options {
    pub fn new(w: &WebhookSink) -> Self {
        Self {
            url: w.url.as_str().to_owned(),
            secret: w.secret.as_ref().map(|s| s.value.clone()),
            token: w.token.as_ref().map(|s| s.value.clone()),
            timeout: Duration::from_millis(w.timeout_ms.max(1) as u64),
            batch: w.batch,
        }
    }

    /// The most records of a request.
    pub fn most(&self) -> usize {
        self.batch
    }

    /// The endpoint; no connection is opened yet.
    pub fn connect(&self) -> Result<Webhook, Failure> {
        let secret = self.secret.as_ref().map(|s| s.expose().as_bytes().to_vec());
        let token = self.token.as_ref().map(|s| s.expose().to_owned());
        Webhook::new(&self.url, secret, token, self.timeout)
    }
}

pub(super) struct WebhookWriter {
    webhook: Webhook,
    pub(super) cursor: Cursor,
    batch: usize,
}

impl WebhookWriter {
    pub fn open(target: &Target, options: &Options, reader: &LaneReader) -> Result<(Self, Position), Halt> {
        let cursor = reader.cursor(&target.name)?;
        let webhook = options.connect()?;
        let position = Position::of(&cursor);
        Ok((Self { webhook, cursor, batch: options.batch }, position))
    }

    pub fn most(&self) -> usize {
        self.batch
    }

    pub async fn deliver(&mut self, target: &Target, batch: Batch<'_>) -> Result<(), Halt> {
        if let Some(first) = batch.items.first() {
            let verdicts: Vec<String> = batch.items.iter().map(|i| i.json(batch.log, target).to_string()).collect();
            let post = WebhookBatch { log: batch.log, sink: &target.name, first: first.number, verdicts: &verdicts };
            self.webhook.post(post).await?;
        }
        Ok(())
    }
}
