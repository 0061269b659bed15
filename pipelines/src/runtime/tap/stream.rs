//! What goes to one who looks on, a JSON object a line:
//!
//! | line | meaning |
//! | --- | --- |
//! | `{"tap":{"step":…,"kind":…,"columns":[…]}}` | the first: `kind` is `rows`, `windows` or `verdicts` |
//! | `{"row":{…}}` | a row |
//! | `{"tap":{"seen":…,"dropped":…}}` | so far: rows that the step gave, and those of them that were not looked at, because the reader was too slow for them; whenever more were dropped, and every 5 s |
//! | `{"tap":{"error":…}}` | rows that cannot be shown |
//! | `{"tap":{"end":…}}` | the last, and why |

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::rows::Shown;
use super::{Piece, Tap};

/// How often it says that it is there.
const ALIVE: Duration = Duration::from_secs(5);
/// How long a reader may take nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most bytes of lines that are sent at once.
const AT_ONCE: usize = 256 << 10;

/// Sends a tap's rows for as long as they are read.
pub(super) struct Stream {
    /// The hub's list has it; once that lets go of it, no more comes.
    tap: Weak<Tap>,
    step: String,
    shown: Shown,
    /// How many rows may still go.
    left: Option<u64>,
    send: mpsc::Sender<Vec<u8>>,
    said_dropped: u64,
}

/// Nobody reads any more.
struct Gone;

impl Stream {
    pub fn new(tap: Arc<Tap>, shown: Shown, limit: Option<u64>, send: mpsc::Sender<Vec<u8>>) -> Self {
        Self { step: tap.step.clone(), tap: Arc::downgrade(&tap), shown, left: limit, send, said_dropped: 0 }
    }

    /// Until nobody reads, the limit is reached, or the tap is ended by a reload.
    pub async fn run(mut self, mut pieces: mpsc::Receiver<(Piece, usize)>) {
        // That nobody reads ends it at any time.
        let send = self.send.clone();
        tokio::select! {
            _ = self.go(&mut pieces) => {}
            () = send.closed() => {}
        }
    }

    async fn go(&mut self, pieces: &mut mpsc::Receiver<(Piece, usize)>) -> Result<(), Gone> {
        let head = json!({ "step": self.step, "kind": self.shown.kind.name(), "columns": self.shown.columns() });
        self.say(head).await?;
        let mut alive = Instant::now() + ALIVE;
        loop {
            if self.left == Some(0) {
                return self.say(json!({ "end": "the limit is reached" })).await;
            }
            match tokio::time::timeout_at(alive, pieces.recv()).await {
                Ok(Some((piece, bytes))) => {
                    if let Some(tap) = self.tap.upgrade() {
                        tap.waiting.fetch_sub(bytes, Ordering::Relaxed);
                    }
                    match self.shown.rows(&piece) {
                        Ok(rows) => self.rows(rows).await?,
                        Err(why) => self.say(json!({ "error": why })).await?,
                    }
                    if self.counts().is_some_and(|(_, dropped)| dropped > self.said_dropped) {
                        self.say_counts().await?;
                    }
                }
                Ok(None) => {
                    self.say_counts().await?;
                    let why = "the pipeline was reloaded, and its steps may have changed; tap it again";
                    return self.say(json!({ "end": why })).await;
                }
                // Nothing came.
                Err(_) => {}
            }
            if Instant::now() >= alive {
                self.say_counts().await?;
                alive = Instant::now() + ALIVE;
            }
        }
    }

    /// Rows that came by, and those that were dropped.
    fn counts(&self) -> Option<(u64, u64)> {
        let tap = self.tap.upgrade()?;
        Some((tap.seen.load(Ordering::Relaxed), tap.dropped.load(Ordering::Relaxed)))
    }

    async fn say_counts(&mut self) -> Result<(), Gone> {
        let Some((seen, dropped)) = self.counts() else { return Ok(()) };
        self.said_dropped = dropped;
        self.say(json!({ "seen": seen, "dropped": dropped })).await
    }

    async fn say(&mut self, what: Value) -> Result<(), Gone> {
        self.put(format!("{}\n", json!({ "tap": what })).into_bytes()).await
    }

    async fn rows(&mut self, rows: Vec<Value>) -> Result<(), Gone> {
        let mut lines = Vec::new();
        for row in rows {
            if self.left == Some(0) {
                break;
            }
            self.left = self.left.map(|left| left - 1);
            lines.extend_from_slice(format!("{{\"row\":{row}}}\n").as_bytes());
            if lines.len() >= AT_ONCE {
                self.put(std::mem::take(&mut lines)).await?;
            }
        }
        if lines.is_empty() { Ok(()) } else { self.put(lines).await }
    }

    async fn put(&mut self, lines: Vec<u8>) -> Result<(), Gone> {
        match timeout(PATIENCE, self.send.send(lines)).await {
            Ok(Ok(())) => Ok(()),
            // The reader is gone, or as good as gone.
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}
