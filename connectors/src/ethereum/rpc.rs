//! RPC endpoints: one node, or several that stand in for each other and, where a quorum is asked for, check each other.
//!
//! - **Fail-over.** Reads go to the first node in line. One that is away, too slow or not itself is asked last for a while
//!   ([`RpcOptions::rest`]) and then stands in line again. A read is repeated, with growing pauses and jitter, within a budget.
//! - **Quorum.** What decides anything (heads, nonces, code, the chain's id) is asked of all nodes at one block, and believed
//!   when so many agree. A node that lags is waited for; one that contradicts is [`EthereumError::Disagreement`], which names both
//!   answers. See [`super::quorum`].
//! - **Sends** go to all ([`super::transact`]).
//! - **Before a node is first asked** with others beside it, and after each time it failed, its chain id and the code of the
//!   contracts in use are checked.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, Bytes, U64, U256, keccak256};
use alloy::rpc::types::{Block, BlockNumberOrTag, TransactionReceipt};
use avouch_engine::verdict::Hash32;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::artifact::Contract;
use super::error::EthereumError;
use super::node::{Answer, Node};

/// Where a node has no `finalized` blocks, so many blocks deep is taken to be final.
pub(super) const DEPTH_WITHOUT_FINALITY: u64 = 64;

/// Limits of time.
#[derive(Debug, Clone)]
pub struct RpcOptions {
    /// For one request, from connecting to the last byte of the answer.
    pub request_timeout: Duration,
    /// For one read with all its repetitions; a read is repeated while its failure may pass.
    pub read_budget: Duration,
    /// Pause before the first repetition; it doubles, with jitter, up to 32 times this.
    pub first_pause: Duration,
    /// How long a node that failed is asked after the others.
    pub rest: Duration,
}

impl Default for RpcOptions {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            read_budget: Duration::from_secs(30),
            first_pause: Duration::from_millis(200),
            rest: Duration::from_secs(30),
        }
    }
}

/// What every node has to serve.
#[derive(Debug, Default, Clone)]
struct Expected {
    chain: Option<u64>,
    code: Vec<(Contract, Address)>,
}

/// JSON-RPC over HTTP, from one node or several. Cloning shares connections. Its `Display` form has no credentials in it.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) nodes: Arc<[Node]>,
    pub(super) quorum: usize,
    pub(super) options: RpcOptions,
    expected: Arc<Mutex<Expected>>,
    /// The highest block that a quorum has shown.
    pub(super) floor: Arc<AtomicU64>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, node) in self.nodes.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, node.shown)?;
        }
        Ok(())
    }
}

/// At which block a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The newest block; a reorg may still replace it.
    Latest,
    /// The newest block that the chain will not replace.
    Finalized,
}

impl At {
    pub(crate) fn tag(self) -> BlockNumberOrTag {
        match self {
            At::Latest => BlockNumberOrTag::Latest,
            At::Finalized => BlockNumberOrTag::Finalized,
        }
    }
}

/// Up to a whole turn of the pause more, so that writers that failed together do not return together.
pub(super) fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    pause + pause.mul_f64((random % 1024) as f64 / 1024.0)
}

impl Endpoint {
    /// One node. Takes an `http://` or `https://` URL; user name and password in it become basic authentication. Connects to
    /// nothing.
    pub fn new(url: &str, options: RpcOptions) -> Result<Self, EthereumError> {
        Self::several([url], 1, options)
    }

    /// Several nodes of one chain, the preferred first, of which `quorum` must agree on what decides anything. Connects to
    /// nothing.
    ///
    /// # Errors
    /// [`EthereumError::InvalidEndpoint`]: a URL is none, or there are fewer than `quorum`, or none.
    pub fn several<S: AsRef<str>>(
        urls: impl IntoIterator<Item = S>,
        quorum: usize,
        options: RpcOptions,
    ) -> Result<Self, EthereumError> {
        let nodes: Vec<Node> =
            urls.into_iter().map(|u| Node::new(u.as_ref(), options.request_timeout)).collect::<Result<_, _>>()?;
        if quorum == 0 || nodes.len() < quorum {
            return Err(EthereumError::InvalidEndpoint {
                url: format!("{} endpoints with a quorum of {quorum}", nodes.len()),
                reason: "the quorum must be at least 1 and no more than there are endpoints".to_owned(),
            });
        }
        Ok(Self { nodes: nodes.into(), quorum, options, expected: Arc::default(), floor: Arc::default() })
    }

    /// One node or several, all of which must agree: for whoever trusts none of them alone. Connects to nothing.
    ///
    /// # Errors
    /// As [`Endpoint::several`].
    pub fn unanimous<S: AsRef<str>>(urls: &[S], options: RpcOptions) -> Result<Self, EthereumError> {
        Self::several(urls, urls.len(), options)
    }

    /// Whether other nodes stand beside the first.
    pub(super) fn is_several(&self) -> bool {
        self.nodes.len() > 1
    }

    /// The chain's id.
    pub async fn chain_id(&self) -> Result<u64, EthereumError> {
        self.chain(None).await
    }

    /// Checks that every node that answers serves this chain.
    pub async fn require_chain(&self, expected: u64) -> Result<(), EthereumError> {
        self.chain(Some(expected)).await.map(drop)
    }

    /// The chain's id, which must be this one where one is expected, and the same of all nodes that answer.
    pub(crate) async fn chain(&self, expected: Option<u64>) -> Result<u64, EthereumError> {
        let found = self
            .repeat(|| async {
                let (answers, failed) = self.ask_all::<U64>("eth_chainId", json!([])).await;
                let mut expected = expected;
                for (i, found) in &answers {
                    let found: u64 = found.to();
                    match expected {
                        Some(expected) if expected != found => {
                            let endpoint = self.nodes[*i].shown.clone();
                            return Err(EthereumError::WrongChain { endpoint, expected, found });
                        }
                        _ => expected = Some(found),
                    }
                }
                self.enough("eth_chainId", answers.len(), failed)?;
                Ok(expected.unwrap_or_default())
            })
            .await?;
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).chain = Some(found);
        Ok(found)
    }

    /// Whether an address has anything to pay with.
    pub async fn has_funds(&self, address: Address) -> Result<bool, EthereumError> {
        Ok(!self.balance(address).await?.is_zero())
    }

    /// The number of the newest final block; 0 on a chain that has just begun.
    pub async fn final_block(&self) -> Result<u64, EthereumError> {
        Ok(self.block(At::Finalized).await?.map_or(0, |b| b.header.number))
    }

    /// The number of the newest block.
    pub async fn newest_block(&self) -> Result<u64, EthereumError> {
        Ok(self.read::<U64>("eth_blockNumber", json!([])).await?.to())
    }

    /// The time of a block, seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`EthereumError::Malformed`] where the endpoint does not have it.
    pub async fn block_time(&self, number: u64) -> Result<u64, EthereumError> {
        let method = "eth_getBlockByNumber";
        let block: Option<Block> = self.read(method, json!([U64::from(number), false])).await?;
        block.map(|b| b.header.timestamp).ok_or_else(|| EthereumError::Malformed {
            endpoint: self.to_string(),
            method: method.to_owned(),
            reason: format!("it has no block {number}, of which it gave an event"),
        })
    }

    /// Whether there is a contract at an address.
    pub async fn has_code(&self, address: Address) -> Result<bool, EthereumError> {
        Ok(!self.read::<Bytes>("eth_getCode", json!([address, "latest"])).await?.is_empty())
    }

    /// Checks that the code at an address is that of one of our contracts, by comparing it whole with the committed artifact:
    /// of every node that answers, and a quorum must. None has immutables, so the comparison leaves nothing out.
    pub async fn require_code(&self, what: Contract, contract: Address) -> Result<(), EthereumError> {
        self.repeat(|| async {
            let (answers, mut failed) =
                self.ask_all::<Bytes>("eth_getCode", json!([contract, BlockNumberOrTag::Latest])).await;
            let mut good = 0;
            for (i, code) in &answers {
                match self.judge_code(&self.nodes[*i], what, contract, code) {
                    Ok(()) => good += 1,
                    // A node that lags may not have it yet, so long as the others do.
                    Err(e @ EthereumError::NoContract { .. }) => failed.push(e),
                    Err(e) => return Err(e),
                }
            }
            self.enough("eth_getCode", good, failed)
        })
        .await?;
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.code.push((what, contract));
        self.nodes.iter().for_each(|n| n.checked.store(false, Ordering::Relaxed));
        Ok(())
    }

    fn judge_code(&self, node: &Node, what: Contract, contract: Address, code: &Bytes) -> Result<(), EthereumError> {
        let endpoint = node.shown.clone();
        if code.is_empty() {
            let chain_id = self.expected.lock().unwrap_or_else(PoisonError::into_inner).chain.unwrap_or_default();
            return Err(EthereumError::NoContract { endpoint, what, contract, chain_id });
        }
        if code.as_ref() != what.deployed_code() {
            return Err(EthereumError::WrongCode {
                endpoint,
                what,
                contract,
                expected: what.code_hash(),
                found: keccak256(code).0,
            });
        }
        Ok(())
    }

    /// Checks a node's chain and contracts before it is asked anything, if others stand beside it. A single one was checked
    /// when it was connected to.
    async fn ready(&self, node: &Node) -> Result<(), EthereumError> {
        if !self.is_several() || node.checked.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Expected { chain, code } = self.expected.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(expected) = chain {
            let found: u64 = node.once::<U64>("eth_chainId", json!([])).await?.to();
            if found != expected {
                return Err(EthereumError::WrongChain { endpoint: node.shown.clone(), expected, found });
            }
        }
        for (what, contract) in code {
            let found = node.once::<Bytes>("eth_getCode", json!([contract, BlockNumberOrTag::Latest])).await?;
            self.judge_code(node, what, contract, &found)?;
        }
        node.checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// One request to one node, after [`Endpoint::ready`].
    pub(super) async fn ask<R: Answer>(
        &self,
        node: &Node,
        method: &'static str,
        params: Value,
    ) -> Result<R, EthereumError> {
        let answer = match self.ready(node).await {
            Ok(()) => node.once(method, params).await,
            Err(error) => {
                if !error.retryable() {
                    tracing::warn!(%error, "an endpoint is not what it should be, and not asked");
                }
                Err(error)
            }
        };
        match &answer {
            Ok(_) => node.answered(),
            Err(error) => node.failed(error, self.options.rest),
        }
        answer
    }

    /// The nodes in the order in which to ask them: those in line, then those that rest, first who has rested longest.
    pub(super) fn in_line(&self) -> Vec<usize> {
        let rests: Vec<Option<Instant>> = self.nodes.iter().map(Node::rests_until).collect();
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|i| rests[*i]);
        order
    }

    /// Whom to ask where a quorum is needed: those in line, or all, if those are too few.
    pub(super) fn jury(&self) -> Vec<usize> {
        let awake: Vec<usize> = (0..self.nodes.len()).filter(|i| self.nodes[*i].rests_until().is_none()).collect();
        if awake.len() >= self.quorum { awake } else { (0..self.nodes.len()).collect() }
    }

    /// One request to each node at the same time, without checks of the node; what was answered, by node, and what failed.
    async fn ask_all<R: Answer>(&self, method: &'static str, params: Value) -> (Vec<(usize, R)>, Vec<EthereumError>) {
        let mut asked = JoinSet::new();
        for i in 0..self.nodes.len() {
            let (nodes, params) = (self.nodes.clone(), params.clone());
            asked.spawn(async move { (i, nodes[i].once::<R>(method, params).await) });
        }
        let mut all = asked.join_all().await;
        all.sort_by_key(|(i, _)| *i);
        let (mut answers, mut failed) = (Vec::new(), Vec::new());
        for (i, answer) in all {
            match answer {
                Ok(answer) => answers.push((i, answer)),
                Err(error) => failed.push(error),
            }
        }
        (answers, failed)
    }

    /// Whether so many agreeing answers are a quorum; else why not.
    pub(super) fn enough(
        &self,
        method: &'static str,
        agreeing: usize,
        failed: Vec<EthereumError>,
    ) -> Result<(), EthereumError> {
        if agreeing >= self.quorum {
            return Ok(());
        }
        let worst = worst(failed);
        if self.quorum == 1
            && let Some(error) = worst
        {
            return Err(error);
        }
        Err(EthereumError::NoQuorum {
            endpoints: self.to_string(),
            method,
            agreeing,
            quorum: self.quorum,
            cause: worst.map(Box::new),
        })
    }

    /// One request to each node in line, until one has an answer.
    pub(super) async fn attempt<R: Answer>(&self, method: &'static str, params: Value) -> Result<R, EthereumError> {
        let mut failed = Vec::new();
        for i in self.in_line() {
            match self.ask(&self.nodes[i], method, params.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failed.push(error),
            }
        }
        Err(worst(failed).unwrap_or_else(|| self.nobody(method)))
    }

    /// A request that changes nothing, repeated with growing pauses while its failure may pass, within the budget.
    pub(crate) async fn read<R: Answer>(&self, method: &'static str, params: Value) -> Result<R, EthereumError> {
        self.repeat(|| self.attempt(method, params.clone())).await
    }

    pub(super) async fn repeat<T, F: Future<Output = Result<T, EthereumError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, EthereumError> {
        let started = Instant::now();
        let mut pause = self.options.first_pause;
        loop {
            match call().await {
                Err(error) if error.retryable() => {
                    let wait = jittered(pause);
                    if started.elapsed() + wait > self.options.read_budget {
                        return Err(error);
                    }
                    tracing::debug!(endpoint = %self, %error, "repeating in {wait:?}");
                    tokio::time::sleep(wait).await;
                    pause = (pause * 2).min(self.options.first_pause * 32);
                }
                done => return done,
            }
        }
    }

    /// A read-only call of a contract at a block.
    pub(crate) async fn call(&self, to: Address, data: Bytes, at: At) -> Result<Bytes, EthereumError> {
        let call = json!({ "to": to, "input": data });
        Ok(self.state::<Bytes>("eth_call", vec![call], at).await?.unwrap_or_default())
    }

    /// The receipt of a transaction, if any node has it: one that lags may not.
    pub(crate) async fn receipt(&self, hash: &Hash32) -> Result<Option<TransactionReceipt>, EthereumError> {
        let (method, params) = ("eth_getTransactionReceipt", json!([B256::from(*hash)]));
        if !self.is_several() {
            return self.read(method, params).await;
        }
        self.repeat(|| async {
            let (mut failed, mut answered) = (Vec::new(), false);
            for i in self.in_line() {
                // Those that rest are asked only if nobody else answers.
                if answered && self.nodes[i].rests_until().is_some() {
                    break;
                }
                match self.ask::<Option<TransactionReceipt>>(&self.nodes[i], method, params.clone()).await {
                    Ok(Some(receipt)) => return Ok(Some(receipt)),
                    Ok(None) => answered = true,
                    Err(error) => failed.push(error),
                }
            }
            if answered { Ok(None) } else { Err(worst(failed).unwrap_or_else(|| self.nobody(method))) }
        })
        .await
    }

    /// How many transactions of an account are in blocks.
    pub(crate) async fn nonce(&self, account: Address) -> Result<u64, EthereumError> {
        let used = self.state::<U64>("eth_getTransactionCount", vec![json!(account)], At::Latest).await?;
        Ok(used.unwrap_or_default().to())
    }

    pub(crate) async fn balance(&self, account: Address) -> Result<U256, EthereumError> {
        self.read("eth_getBalance", json!([account, "latest"])).await
    }

    pub(super) fn nobody(&self, method: &'static str) -> EthereumError {
        EthereumError::NoQuorum { endpoints: self.to_string(), method, agreeing: 0, quorum: self.quorum, cause: None }
    }

    /// The newest block of a kind, as a quorum has it; `None` if no block is final yet.
    pub(crate) async fn block(&self, at: At) -> Result<Option<Block>, EthereumError> {
        self.repeat(|| self.newest(at)).await
    }

    /// The number of the newest block that a quorum has.
    pub(crate) async fn block_number(&self) -> Result<u64, EthereumError> {
        if self.is_several() {
            return Ok(self.block(At::Latest).await?.map_or(0, |b| b.header.number));
        }
        Ok(self.read::<U64>("eth_blockNumber", json!([])).await?.to())
    }
}

/// Of several failures the one that says most: an answer that refuses, before one that may pass, before the rest.
fn worst(mut failed: Vec<EthereumError>) -> Option<EthereumError> {
    let rank = |e: &EthereumError| match e {
        EthereumError::Rpc { revert: Some(_), .. } => 0,
        EthereumError::Rpc { .. } => 1,
        e if e.retryable() => 2,
        _ => 3,
    };
    let best = failed.iter().map(rank).enumerate().min_by_key(|(_, r)| *r)?.0;
    Some(failed.swap_remove(best))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_secret_of_an_endpoint_is_shown() {
        let e =
            Endpoint::new("https://user:pass@node.example:8443/v3/SECRET?key=SECRET", RpcOptions::default()).unwrap();
        assert_eq!(e.to_string(), "https://node.example:8443/…");
        assert_eq!(format!("{e:?}"), "Endpoint(https://node.example:8443/…)");
        assert_eq!(
            Endpoint::new("http://localhost:8545", RpcOptions::default()).unwrap().to_string(),
            "http://localhost:8545"
        );
        let two = Endpoint::several(["http://u:p@a/key", "http://b:1"], 2, RpcOptions::default()).unwrap();
        assert_eq!(two.to_string(), "http://a/…, http://b:1");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_without_repeating_it() {
        for url in ["", "node:8545", "ws://user:secret@node", "ftp://node", "http://[::secret", "secret"] {
            let message = Endpoint::new(url, RpcOptions::default()).unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
            assert!(message.contains("http://"), "{message}");
        }
    }

    #[test]
    fn a_quorum_needs_as_many_endpoints() {
        for quorum in [0, 3] {
            let error = Endpoint::several(["http://a", "http://b"], quorum, RpcOptions::default()).unwrap_err();
            assert!(error.to_string().contains("quorum"), "{error}");
        }
    }

    #[test]
    fn who_failed_is_asked_last() {
        let options = RpcOptions::default();
        let e = Endpoint::several(["http://a", "http://b", "http://c"], 2, options).unwrap();
        assert_eq!((e.in_line(), e.jury()), (vec![0, 1, 2], vec![0, 1, 2]));
        let away = |i: usize| EthereumError::Unreachable { endpoint: i.to_string(), reason: String::new() };
        e.nodes[0].failed(&away(0), Duration::from_secs(60));
        assert_eq!((e.in_line(), e.jury()), (vec![1, 2, 0], vec![1, 2]));
        e.nodes[2].failed(&away(2), Duration::from_secs(50));
        assert_eq!((e.in_line(), e.jury()), (vec![1, 2, 0], vec![0, 1, 2]), "too few stand in line: all are asked");
    }
}
