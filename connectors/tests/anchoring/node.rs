//! A second node of the same chain: it may be away, lag behind, or lie.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::proxy::{Fate, Proxy};

/// What a [`Node`] does wrong at this moment.
#[derive(Default)]
pub struct Faults {
    /// It answers nothing but HTTP 503.
    pub away: AtomicBool,
    /// It has no block above this one; 0: it is in sync.
    pub stands_at: AtomicU64,
    /// What it answers to any `eth_call`.
    pub lie: Mutex<Option<Value>>,
    /// It does not know the tag `finalized`.
    pub untagged: AtomicBool,
}

/// A proxy in front of anvil that stands for another node.
pub struct Node {
    pub proxy: Proxy,
    pub faults: Arc<Faults>,
}

fn number(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

impl Faults {
    pub fn fate(&self, method: &str, params: &Value) -> Fate {
        if self.away.load(Ordering::SeqCst) {
            return Fate::Fail(503);
        }
        if self.untagged.load(Ordering::SeqCst) && params.to_string().contains("\"finalized\"") {
            return Fate::Error(-32602, "invalid argument 0: hex string without 0x prefix".to_owned());
        }
        if method == "eth_call"
            && let Some(lie) = self.lie.lock().unwrap().clone()
        {
            return Fate::Answer(lie);
        }
        let stands_at = self.stands_at.load(Ordering::SeqCst);
        if stands_at == 0 {
            return Fate::Pass;
        }
        match method {
            "eth_blockNumber" => Fate::Answer(json!(format!("{stands_at:#x}"))),
            "eth_getTransactionReceipt" => Fate::Answer(Value::Null),
            "eth_getBlockByNumber" => match params[0].as_str() {
                Some("latest") => Fate::Instead(json!([format!("{stands_at:#x}"), false])),
                _ if number(&params[0]).is_some_and(|n| n > stands_at) => Fate::Answer(Value::Null),
                _ => Fate::Pass,
            },
            // What a node says of a range that it does not have is not an error, but that there is nothing.
            "eth_getLogs" if number(&params[0]["toBlock"]).is_some_and(|n| n > stands_at) => Fate::Answer(json!([])),
            "eth_call" | "eth_estimateGas" | "eth_getTransactionCount" => {
                let last = params.as_array().map_or(0, Vec::len) - 1;
                let mut params = params.clone();
                match params[last].as_str() {
                    Some("latest") => params[last] = json!(format!("{stands_at:#x}")),
                    _ => return Fate::Pass,
                }
                Fate::Instead(params)
            }
            _ => Fate::Pass,
        }
    }
}

impl Node {
    pub async fn start(upstream: &str) -> Self {
        let faults = Arc::new(Faults::default());
        let plan = faults.clone();
        let proxy = Proxy::start(upstream, move |method, _, params| plan.fate(method, params)).await;
        Self { proxy, faults }
    }

    pub fn url(&self) -> &str {
        &self.proxy.url
    }

    pub fn set_away(&self, away: bool) {
        self.faults.away.store(away, Ordering::SeqCst);
    }

    pub fn stand_at(&self, block: u64) {
        self.faults.stands_at.store(block, Ordering::SeqCst);
    }

    pub fn lie(&self, answer: Option<Value>) {
        *self.faults.lie.lock().unwrap() = answer;
    }

    pub fn sent(&self) -> usize {
        self.proxy.requests("eth_sendRawTransaction").len()
    }
}
