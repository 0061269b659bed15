//! One RPC endpoint: calls with a time limit, reads repeated within a budget, errors that name the endpoint.

use std::error::Error as StdError;
use std::future::Future;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, Bytes, U64, U256, keccak256};
use alloy::rpc::client::RpcClient;
use alloy::rpc::types::{Block, BlockNumberOrTag, TransactionReceipt};
use alloy::transports::http::reqwest;
use alloy::transports::{RpcError, TransportError, TransportErrorKind};
use avouch_engine::verdict::Hash32;
use serde_json::{Value, json};

use super::artifact::Contract;
use super::error::EthereumError;

/// Limits of time for one endpoint.
#[derive(Debug, Clone)]
pub struct RpcOptions {
    /// For one request, from connecting to the last byte of the answer.
    pub request_timeout: Duration,
    /// For one read with all its repetitions; a read is repeated while its failure may pass.
    pub read_budget: Duration,
    /// Pause before the first repetition; it doubles, with jitter, up to 32 times this.
    pub first_pause: Duration,
}

impl Default for RpcOptions {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            read_budget: Duration::from_secs(30),
            first_pause: Duration::from_millis(200),
        }
    }
}

/// A JSON-RPC endpoint over HTTP. Cloning shares its connections. Its `Display` form has no credentials in it.
#[derive(Clone)]
pub struct Endpoint {
    client: RpcClient,
    shown: String,
    options: RpcOptions,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({})", self.shown)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
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

/// Scheme, host and port: user names, passwords, paths and queries may hold keys.
fn shown(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or("?");
    let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
    let rest = if url.path().len() > 1 || url.query().is_some() { "/…" } else { "" };
    format!("{}://{host}{port}{rest}", url.scheme())
}

/// Up to a whole turn of the pause more, so that writers that failed together do not return together.
fn jittered(pause: Duration) -> Duration {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    pause + pause.mul_f64((random % 1024) as f64 / 1024.0)
}

/// What an answer is read into.
pub(crate) trait Answer: serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + Unpin + 'static {}
impl<T: serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + Unpin + 'static> Answer for T {}

impl Endpoint {
    /// Takes an `http://` or `https://` URL; user name and password in it become basic authentication. Connects to nothing.
    pub fn new(url: &str, options: RpcOptions) -> Result<Self, EthereumError> {
        let invalid = |url: String, reason: &str| EthereumError::InvalidEndpoint { url, reason: reason.to_owned() };
        // An unreadable URL is not repeated as it stands: what follows the scheme may be a password.
        let parsed: reqwest::Url = url.trim().parse().map_err(|e| {
            let scheme = url.split("://").next().filter(|s| s.len() < url.len()).unwrap_or("");
            invalid(format!("endpoint {scheme}://…"), &format!("it is no URL ({e})"))
        })?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(invalid(shown(&parsed), "its scheme is not supported"));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(options.request_timeout)
            .timeout(options.request_timeout)
            .user_agent(concat!("avouch/", env!("CARGO_PKG_VERSION")));
        // A proxy for the outside world cannot reach this machine's own loopback.
        if matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| invalid(shown(&parsed), &innermost(&e)))?;
        let shown = shown(&parsed);
        Ok(Self { client: RpcClient::new_http_with_client(http, parsed), shown, options })
    }

    /// The chain's id.
    pub async fn chain_id(&self) -> Result<u64, EthereumError> {
        Ok(self.read::<U64>("eth_chainId", json!([])).await?.to())
    }

    /// Checks that the endpoint serves this chain.
    pub async fn require_chain(&self, expected: u64) -> Result<(), EthereumError> {
        self.chain(Some(expected)).await.map(drop)
    }

    /// The chain's id, which must be this one where one is expected.
    pub(crate) async fn chain(&self, expected: Option<u64>) -> Result<u64, EthereumError> {
        let found = self.chain_id().await?;
        match expected.filter(|expected| *expected != found) {
            None => Ok(found),
            Some(expected) => Err(EthereumError::WrongChain { endpoint: self.shown.clone(), expected, found }),
        }
    }

    /// Whether an address has anything to pay with.
    pub async fn has_funds(&self, address: Address) -> Result<bool, EthereumError> {
        Ok(!self.read::<U256>("eth_getBalance", json!([address, "latest"])).await?.is_zero())
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
            endpoint: self.shown.clone(),
            method: method.to_owned(),
            reason: format!("it has no block {number}, of which it gave an event"),
        })
    }

    /// Whether there is a contract at an address.
    pub async fn has_code(&self, address: Address) -> Result<bool, EthereumError> {
        Ok(!self.read::<Bytes>("eth_getCode", json!([address, "latest"])).await?.is_empty())
    }

    /// Checks that the code at an address is that of one of our contracts, by comparing it whole with the committed artifact.
    /// None has immutables, so the comparison leaves nothing out.
    pub async fn require_code(&self, what: Contract, contract: Address) -> Result<(), EthereumError> {
        let code: Bytes = self.read("eth_getCode", json!([contract, "latest"])).await?;
        if code.is_empty() {
            let chain_id = self.chain_id().await?;
            return Err(EthereumError::NoContract { endpoint: self.shown.clone(), what, contract, chain_id });
        }
        if code.as_ref() != what.deployed_code() {
            return Err(EthereumError::WrongCode {
                endpoint: self.shown.clone(),
                what,
                contract,
                expected: what.code_hash(),
                found: keccak256(&code).0,
            });
        }
        Ok(())
    }

    /// One request, once.
    pub(crate) async fn once<R: Answer>(&self, method: &'static str, params: Value) -> Result<R, EthereumError> {
        let limit = self.options.request_timeout;
        // The HTTP client has a limit of its own; this one holds for whatever lies above it too.
        let answer = tokio::time::timeout(limit + limit / 4, self.client.request::<Value, R>(method, params)).await;
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.describe(method, error)),
            Err(_) => {
                Err(EthereumError::Timeout { endpoint: self.shown.clone(), method: method.to_owned(), after: limit })
            }
        }
    }

    /// A request that changes nothing, repeated with growing pauses while its failure may pass, within the budget.
    pub(crate) async fn read<R: Answer>(&self, method: &'static str, params: Value) -> Result<R, EthereumError> {
        self.repeat(|| self.once(method, params.clone())).await
    }

    async fn repeat<T, F: Future<Output = Result<T, EthereumError>>>(
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
                    tracing::debug!(endpoint = %self.shown, %error, "repeating in {wait:?}");
                    tokio::time::sleep(wait).await;
                    pause = (pause * 2).min(self.options.first_pause * 32);
                }
                done => return done,
            }
        }
    }

    /// A read-only call of a contract at a block.
    pub(crate) async fn call(&self, to: Address, data: Bytes, at: At) -> Result<Bytes, EthereumError> {
        self.read("eth_call", json!([{ "to": to, "input": data }, at.tag()])).await
    }

    pub(crate) async fn receipt(&self, hash: &Hash32) -> Result<Option<TransactionReceipt>, EthereumError> {
        self.read("eth_getTransactionReceipt", json!([B256::from(*hash)])).await
    }

    pub(crate) async fn nonce(&self, account: Address) -> Result<u64, EthereumError> {
        Ok(self.read::<U64>("eth_getTransactionCount", json!([account, "latest"])).await?.to())
    }

    pub(crate) async fn balance(&self, account: Address) -> Result<U256, EthereumError> {
        self.read("eth_getBalance", json!([account, "latest"])).await
    }

    pub(crate) async fn block(&self, at: At) -> Result<Option<Block>, EthereumError> {
        self.read("eth_getBlockByNumber", json!([at.tag(), false])).await
    }

    fn describe(&self, method: &str, error: TransportError) -> EthereumError {
        let endpoint = self.shown.clone();
        let method = method.to_owned();
        match error {
            RpcError::ErrorResp(payload) => EthereumError::Rpc {
                endpoint,
                method,
                code: payload.code,
                revert: payload.as_revert_data().map(|b| b.to_vec()),
                message: payload.message.into_owned(),
            },
            RpcError::Transport(TransportErrorKind::HttpError(http)) => {
                EthereumError::Http { endpoint, method, status: http.status }
            }
            RpcError::Transport(TransportErrorKind::HttpErrorWithRetryAfter { error, .. }) => {
                EthereumError::Http { endpoint, method, status: error.status }
            }
            RpcError::Transport(TransportErrorKind::Custom(cause) | TransportErrorKind::NonRetryable(cause)) => {
                match cause.downcast_ref::<reqwest::Error>() {
                    Some(e) if e.is_timeout() => {
                        EthereumError::Timeout { endpoint, method, after: self.options.request_timeout }
                    }
                    Some(e) if e.is_builder() => EthereumError::InvalidEndpoint { url: endpoint, reason: innermost(e) },
                    _ => EthereumError::Unreachable { endpoint, reason: innermost(cause.as_ref()) },
                }
            }
            RpcError::Transport(other) => EthereumError::Unreachable { endpoint, reason: other.to_string() },
            RpcError::NullResp => EthereumError::Malformed { endpoint, method, reason: "it is null".to_owned() },
            RpcError::DeserError { err, .. } => EthereumError::Malformed { endpoint, method, reason: err.to_string() },
            other => EthereumError::Malformed { endpoint, method, reason: other.to_string() },
        }
    }
}

/// The last cause of an error: the ones above it may repeat the URL, which may hold a key.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last: &(dyn StdError + 'static) = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    match last.downcast_ref::<reqwest::Error>() {
        // A cause of its own would be innermost; without one its text is the kind and the URL.
        Some(_) => "the HTTP request failed".to_owned(),
        None => last.to_string(),
    }
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
    }

    #[test]
    fn what_is_no_endpoint_is_refused_without_repeating_it() {
        for url in ["", "node:8545", "ws://user:secret@node", "ftp://node", "http://[::secret", "secret"] {
            let message = Endpoint::new(url, RpcOptions::default()).unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
            assert!(message.contains("http://"), "{message}");
        }
    }
}
