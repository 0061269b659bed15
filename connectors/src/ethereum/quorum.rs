//! What several nodes say, and when it is believed.
//!
//! A question about the chain's state is asked in two steps: at which block, then what. The block is the highest one that a
//! quorum has, and its hash must be the same to a quorum; the question goes with that hash to all, and a quorum's answers must be
//! the same, byte for byte. So a node that lags can hold back, but not mislead; one that lies is found out by its block's hash or,
//! under a right hash, by its answer.
//!
//! Nodes that lag behind what a quorum had shown before are waited for, within the budget of a read; unless nobody has that
//! height any more: then a reorg has made the chain shorter.
//!
//! With a single node there is nothing to compare, and its word is taken.

use std::sync::atomic::Ordering;

use alloy::primitives::U64;
use alloy::rpc::types::{Block, BlockNumberOrTag, Log};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::error::{Dissent, EthereumError};
use super::node::{Answer, Node};
use super::rpc::{At, DEPTH_WITHOUT_FINALITY, Endpoint};

/// An answer as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Value(Value),
    Revert(Vec<u8>),
}

impl Said {
    /// As people see it, cut where it is long.
    fn show(&self) -> String {
        let text = match self {
            Self::Value(Value::String(s)) => s.clone(),
            Self::Value(value) => value.to_string(),
            Self::Revert(data) => format!("reverts with {}", alloy::primitives::hex::encode_prefixed(data)),
        };
        if text.chars().count() <= 140 { text } else { text.chars().take(137).collect::<String>() + "…" }
    }
}

/// Who said what.
#[derive(Debug, Default)]
struct Tally {
    groups: Vec<(Said, Vec<usize>)>,
}

impl Tally {
    /// Counts an answer; true if its group is a quorum now.
    fn add(&mut self, node: usize, said: Said, quorum: usize) -> bool {
        let group = match self.groups.iter_mut().find(|(s, _)| *s == said) {
            Some((_, nodes)) => nodes,
            None => {
                self.groups.push((said, Vec::new()));
                let last = self.groups.len() - 1;
                &mut self.groups[last].1
            }
        };
        group.push(node);
        group.len() >= quorum
    }

    /// The largest group's size.
    fn most(&self) -> usize {
        self.groups.iter().map(|(_, nodes)| nodes.len()).max().unwrap_or(0)
    }

    /// The first two answers that differ.
    fn dissent(&self, method: &'static str, nodes: &[Node]) -> Option<EthereumError> {
        let [(a, of_a), (b, of_b), ..] = self.groups.as_slice() else { return None };
        let name = |of: &[usize]| of.first().map(|i| nodes[*i].shown.clone()).unwrap_or_default();
        Some(EthereumError::Disagreement(Box::new(Dissent {
            method,
            first: (name(of_a), a.show()),
            second: (name(of_b), b.show()),
        })))
    }
}

/// What two nodes' answers with events must have in common. Some add the block's time, some do not.
pub(super) fn compared_of_logs(answer: &Value) -> Value {
    let parts = ["address", "topics", "data", "blockHash", "blockNumber", "logIndex", "removed"];
    let of = |log: &Value| -> Value { parts.iter().map(|part| log.get(part).cloned()).collect() };
    answer.as_array().map_or_else(|| answer.clone(), |logs| logs.iter().map(of).collect())
}

/// Whether a node's refusal means that it does not know the tag `finalized` at all, not that nothing is final yet.
fn knows_no_tag(error: &EthereumError) -> bool {
    let EthereumError::Rpc { code, message, .. } = error else { return false };
    let text = message.to_lowercase();
    *code == -32602
        || ["invalid block number", "unknown block tag", "invalid block tag", "hex string", "unsupported block"]
            .iter()
            .any(|words| text.contains(words))
}

/// Whether it means that nothing is final yet: a young chain.
fn nothing_final(error: &EthereumError) -> bool {
    matches!(error, EthereumError::Rpc { message, .. } if message.to_lowercase().contains("finalized block not found"))
}

impl Endpoint {
    /// A node's newest block of a kind. A node without the tag `finalized` is asked for the one a fixed depth below its newest.
    async fn newest_of(&self, node: &Node, at: At) -> Result<Option<Block>, EthereumError> {
        let method = "eth_getBlockByNumber";
        if at == At::Latest || !node.untagged.load(Ordering::Relaxed) {
            match self.ask::<Option<Block>>(node, method, json!([at.tag(), false])).await {
                Err(error) if at == At::Finalized && knows_no_tag(&error) => {
                    tracing::warn!(endpoint = %node.shown,
                        "the node knows no final blocks; {DEPTH_WITHOUT_FINALITY} blocks deep is taken to be final");
                    node.untagged.store(true, Ordering::Relaxed);
                }
                Err(error) if at == At::Finalized && nothing_final(&error) => return Ok(None),
                answer => return answer,
            }
        }
        let latest: Option<Block> = self.ask(node, method, json!([BlockNumberOrTag::Latest, false])).await?;
        let deep = latest.and_then(|b| b.header.number.checked_sub(DEPTH_WITHOUT_FINALITY));
        match deep {
            Some(number) => self.ask(node, method, json!([U64::from(number), false])).await,
            None => Ok(None),
        }
    }

    /// The newest block of a kind that a quorum has, asked once. `None`: no block is final yet.
    pub(super) async fn newest(&self, at: At) -> Result<Option<Block>, EthereumError> {
        let method = "eth_getBlockByNumber";
        if !self.is_several() {
            return self.newest_of(&self.nodes[0], at).await;
        }
        let mut asked = JoinSet::new();
        for i in self.jury() {
            let this = self.clone();
            asked.spawn(async move { (i, this.newest_of(&this.nodes[i], at).await) });
        }
        let (mut heads, mut failed) = (Vec::new(), Vec::new());
        for (i, answer) in asked.join_all().await {
            match answer {
                Ok(block) => heads.push((i, block)),
                Err(error) => failed.push(error),
            }
        }
        self.enough(method, heads.len(), failed)?;
        let number = |block: &Option<Block>| block.as_ref().map(|b| b.header.number);
        heads.sort_by_key(|(i, block)| (std::cmp::Reverse(number(block)), *i));
        let Some(height) = number(&heads[self.quorum - 1].1) else { return Ok(None) };
        if at == At::Latest {
            self.wait_for_laggards(&heads, height)?;
        }
        let block = self.agree_at(heads, height, method).await?;
        if at == At::Latest {
            self.floor.store(height, Ordering::Relaxed);
        }
        Ok(block)
    }

    /// Refuses a height below what a quorum had before, unless nobody has that any more.
    fn wait_for_laggards(&self, heads: &[(usize, Option<Block>)], height: u64) -> Result<(), EthereumError> {
        let floor = self.floor.load(Ordering::Relaxed);
        let highest = heads.iter().filter_map(|(_, b)| b.as_ref().map(|b| b.header.number)).max().unwrap_or(0);
        if height < floor && highest >= floor {
            let (laggard, _) = &heads[self.quorum - 1];
            let endpoint = self.nodes[*laggard].shown.clone();
            return Err(EthereumError::Lagging { endpoint, at: height, wanted: floor });
        }
        Ok(())
    }

    /// The block of this height, if its hash is the same to a quorum.
    async fn agree_at(
        &self,
        heads: Vec<(usize, Option<Block>)>,
        height: u64,
        method: &'static str,
    ) -> Result<Option<Block>, EthereumError> {
        let (mut tally, mut failed) = (Tally::default(), Vec::new());
        for (i, head) in heads {
            let block = match head.filter(|b| b.header.number <= height) {
                Some(block) if block.header.number < height => continue,
                Some(block) => Some(block),
                // It is ahead: what has it at this height?
                None => match self.ask(&self.nodes[i], method, json!([U64::from(height), false])).await {
                    Ok(block) => block,
                    Err(error) => {
                        failed.push(error);
                        continue;
                    }
                },
            };
            let Some(block) = block else { continue };
            if tally.add(i, Said::Value(json!(block.header.hash)), self.quorum) {
                if let Some(dissent) = tally.dissent(method, &self.nodes) {
                    tracing::warn!(%dissent, "outvoted");
                }
                return Ok(Some(block));
            }
        }
        match tally.dissent(method, &self.nodes) {
            Some(dissent) => Err(dissent),
            None => self.enough(method, tally.most(), failed).map(|()| None),
        }
    }

    /// State of the chain at a block: what a quorum says. `None` if no block is final yet.
    pub(super) async fn state<R: Answer>(
        &self,
        method: &'static str,
        args: Vec<Value>,
        at: At,
    ) -> Result<Option<R>, EthereumError> {
        let at_block = |block: Value| {
            let mut params = args.clone();
            params.push(block);
            Value::Array(params)
        };
        self.repeat(|| async {
            if !self.is_several() {
                let node = &self.nodes[0];
                if at == At::Latest || !node.untagged.load(Ordering::Relaxed) {
                    match self.ask::<R>(node, method, at_block(json!(at.tag()))).await {
                        Err(error) if at == At::Finalized && nothing_final(&error) => return Ok(None),
                        Err(error) if at == At::Finalized && knows_no_tag(&error) => {}
                        answer => return answer.map(Some),
                    }
                }
                return match self.newest_of(node, at).await? {
                    Some(block) => {
                        self.ask(node, method, at_block(json!(U64::from(block.header.number)))).await.map(Some)
                    }
                    None => Ok(None),
                };
            }
            let Some(block) = self.newest(at).await? else { return Ok(None) };
            let pinned = json!({ "blockHash": block.header.hash, "requireCanonical": true });
            self.agreed(method, at_block(pinned), None, |v| v.clone()).await.map(Some)
        })
        .await
    }

    /// Asks all, once, and believes what a quorum says; what of the answers is compared, `compared` says. Where a block is
    /// named, a node that does not have it is not asked: it could leave something out.
    pub(super) async fn agreed<R: Answer>(
        &self,
        method: &'static str,
        params: Value,
        must_have: Option<u64>,
        compared: fn(&Value) -> Value,
    ) -> Result<R, EthereumError> {
        let mut asked = JoinSet::new();
        for i in self.jury() {
            let (this, params) = (self.clone(), params.clone());
            asked.spawn(async move {
                let node = &this.nodes[i];
                let answer = async {
                    if let Some(number) = must_have {
                        this.require_block(node, number).await?;
                    }
                    this.ask::<Value>(node, method, params).await
                };
                (i, answer.await)
            });
        }
        let (mut tally, mut failed) = (Tally::default(), Vec::new());
        while let Some(joined) = asked.join_next().await {
            let Ok((i, answer)) = joined else { continue };
            let (said, outcome) = match answer {
                Ok(value) => (Said::Value(compared(&value)), Ok(value)),
                Err(error) => match error.revert_data().map(<[u8]>::to_vec) {
                    Some(data) => (Said::Revert(data), Err(error)),
                    None => {
                        failed.push(error);
                        continue;
                    }
                },
            };
            if tally.add(i, said, self.quorum) {
                if let Some(dissent) = tally.dissent(method, &self.nodes) {
                    tracing::warn!(%dissent, "outvoted");
                }
                let endpoint = self.nodes[i].shown.clone();
                return serde_json::from_value(outcome?).map_err(|e| EthereumError::Malformed {
                    endpoint,
                    method: method.to_owned(),
                    reason: e.to_string(),
                });
            }
        }
        match tally.dissent(method, &self.nodes) {
            Some(dissent) => Err(dissent),
            None => Err(match self.enough(method, tally.most(), failed) {
                Err(error) => error,
                Ok(()) => self.nobody(method),
            }),
        }
    }

    /// Events, from nodes that have the last block of the range: one that lags would leave the newest out.
    pub(super) async fn logs(&self, filter: Value, to_block: u64) -> Result<Vec<Log>, EthereumError> {
        if !self.is_several() {
            return self.read("eth_getLogs", filter).await;
        }
        self.repeat(|| self.agreed("eth_getLogs", filter.clone(), Some(to_block), compared_of_logs)).await
    }

    /// Refuses a node that does not have this block: what it says of it would be empty, not true.
    async fn require_block(&self, node: &Node, number: u64) -> Result<(), EthereumError> {
        let has: Option<Block> = self.ask(node, "eth_getBlockByNumber", json!([U64::from(number), false])).await?;
        match has {
            Some(_) => Ok(()),
            None => {
                let endpoint = node.shown.clone();
                let latest: U64 = self.ask(node, "eth_blockNumber", json!([])).await?;
                Err(EthereumError::Lagging { endpoint, at: latest.to(), wanted: number })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ethereum::RpcOptions;

    fn said(text: &str) -> Said {
        Said::Value(json!(text))
    }

    #[test]
    fn a_quorum_is_so_many_of_the_same_answer() {
        let e = Endpoint::several(["http://a", "http://b", "http://c"], 2, RpcOptions::default()).unwrap();
        let mut tally = Tally::default();
        assert!(!tally.add(0, said("0x01"), 2));
        assert!(!tally.add(1, Said::Revert(vec![1]), 2));
        let dissent = tally.dissent("eth_call", &e.nodes).unwrap().to_string();
        for words in ["http://a", "0x01", "http://b", "reverts with 0x01", "eth_call"] {
            assert!(dissent.contains(words), "{dissent}");
        }
        assert!(tally.add(2, said("0x01"), 2));
        assert_eq!(tally.most(), 2);
    }

    #[test]
    fn a_node_without_the_tag_is_told_from_a_young_chain() {
        let rpc = |code, message: &str| EthereumError::Rpc {
            endpoint: String::new(),
            method: String::new(),
            code,
            message: message.to_owned(),
            revert: None,
        };
        assert!(knows_no_tag(&rpc(-32602, "invalid argument 0: hex string without 0x prefix")));
        assert!(!knows_no_tag(&rpc(-39001, "finalized block not found")));
        assert!(nothing_final(&rpc(-39001, "finalized block not found")));
        assert!(!knows_no_tag(&rpc(-32603, "internal error")));
    }
}
