//! Reading the chain, as an auditor does: no key, no journal; one endpoint, or several that check each other.

use alloy::primitives::{Address, B256, Bytes, U64};
use alloy::rpc::types::Log;
use alloy::sol_types::{SolCall, SolEvent, SolInterface};
use avouch_engine::verdict::Hash32;
use serde_json::json;

use super::artifact::Contract;
use super::bindings::VerdictLog as contract;
use super::bindings::VerdictLog::VerdictLogErrors as ContractError;
use super::checkpoint::Domain;
use super::error::{EthereumError, show};
use super::rpc::{At, Endpoint, RpcOptions};

/// A VerdictLog contract behind an endpoint, checked to be one.
#[derive(Debug, Clone)]
pub struct ChainReader {
    endpoint: Endpoint,
    domain: Domain,
}

/// A checkpoint as the contract remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainCheckpoint {
    /// Entries; 0 before the first checkpoint.
    pub size: u64,
    /// RFC 9162 root (SHA-256) at `size`; zero before the first checkpoint.
    pub root: Hash32,
    /// The signer's claim of when it signed: milliseconds since the Unix epoch.
    pub issued_at: u64,
    /// Time of the block that holds it: seconds since the Unix epoch.
    pub anchored_at: u64,
    /// Number of the block that holds it.
    pub block_number: u64,
}

/// Where a log ends on chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// In the newest block; a reorg may take it back.
    pub latest: ChainCheckpoint,
    /// In the newest final block; nothing takes it back.
    pub finalized: ChainCheckpoint,
}

/// The transaction that carries a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Size the checkpoint advanced the log to.
    pub size: u64,
    /// Size before.
    pub old_size: u64,
    /// Root at `size`.
    pub root: Hash32,
    /// As signed.
    pub data_commitment: Hash32,
    /// As signed: milliseconds since the Unix epoch.
    pub issued_at: u64,
    /// The transaction's hash.
    pub transaction: Hash32,
    /// Number of its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: Hash32,
    /// The block's time, seconds since the Unix epoch, where the endpoint says it with the event.
    pub block_time: Option<u64>,
}

/// Endpoints limit how many blocks one search for events may span; most allow this many.
const SEARCH_SPAN: u64 = 10_000;

impl ChainReader {
    /// Connects: checks the chain id (where one is expected) and that the code at `contract` is VerdictLog's, bytes by bytes.
    pub async fn connect(
        url: &str,
        chain_id: Option<u64>,
        contract: Address,
        options: RpcOptions,
    ) -> Result<Self, EthereumError> {
        Self::over(Endpoint::new(url, options)?, chain_id, contract).await
    }

    /// As [`ChainReader::connect`], by way of several nodes: each that answers is checked.
    pub async fn over(endpoint: Endpoint, chain_id: Option<u64>, contract: Address) -> Result<Self, EthereumError> {
        let chain_id = endpoint.chain(chain_id).await?;
        endpoint.require_code(Contract::VerdictLog, contract).await?;
        Ok(Self { endpoint, domain: Domain { chain_id, contract } })
    }

    /// What signatures for this contract are bound to.
    pub fn domain(&self) -> Domain {
        self.domain
    }

    /// The endpoint it reads from.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where a log ends at `at`. A log that nobody had registered by then ends at size 0 at `Finalized`, and is
    /// [`EthereumError::UnknownLog`] at `Latest`.
    pub async fn head(&self, log_id: &Hash32, at: At) -> Result<ChainCheckpoint, EthereumError> {
        let call = contract::headCall { logId: B256::from(*log_id) };
        match self.view(&call, at).await {
            Ok(Some(head)) => Ok(head.into()),
            // The final block may be older than the contract or the log's registration.
            Ok(None) | Err(EthereumError::UnknownLog { .. }) if at == At::Finalized => Ok(ChainCheckpoint::EMPTY),
            Ok(None) => Err(self.no_contract()),
            Err(error) => Err(error),
        }
    }

    /// Where a log ends at the newest block and at the newest final one.
    pub async fn heads(&self, log_id: &Hash32) -> Result<Heads, EthereumError> {
        let latest = self.head(log_id, At::Latest).await?;
        let finalized = self.head(log_id, At::Finalized).await?;
        Ok(Heads { latest, finalized })
    }

    /// One of the last 64 checkpoints of a log, by its exact size; `None` if the contract does not remember one.
    pub async fn checkpoint_of(
        &self,
        log_id: &Hash32,
        size: u64,
        at: At,
    ) -> Result<Option<ChainCheckpoint>, EthereumError> {
        let call = contract::checkpointOfCall { logId: B256::from(*log_id), size };
        match self.view(&call, at).await {
            Ok(found) => Ok(found.map(Into::into)),
            Err(EthereumError::UnknownCheckpoint { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks the contract whether `entry` (a verdict's struct hash) stands at `index` of the log, by an RFC 9162 inclusion
    /// proof against the checkpoint of exactly `size`. A size the contract does not remember is
    /// [`EthereumError::UnknownCheckpoint`]: make the proof against the head then, which covers every earlier index.
    pub async fn verify_inclusion_on_chain(
        &self,
        log_id: &Hash32,
        entry: &Hash32,
        index: u64,
        size: u64,
        proof: &[Hash32],
        at: At,
    ) -> Result<bool, EthereumError> {
        let call = contract::verifyInclusionCall {
            logId: B256::from(*log_id),
            entry: B256::from(*entry),
            index,
            size,
            proof: proof.iter().map(|p| B256::from(*p)).collect(),
        };
        self.view(&call, at).await?.ok_or_else(|| self.no_contract())
    }

    /// Who registered a log; `None` if nobody did.
    pub async fn owner_of(&self, log_id: &Hash32) -> Result<Option<Address>, EthereumError> {
        let owner = self.view(&contract::ownerOfCall { logId: B256::from(*log_id) }, At::Latest).await?;
        Ok(owner.filter(|a| !a.is_zero()))
    }

    /// Whose signature a log's checkpoints need; `None` if nobody registered it or it is closed.
    pub async fn signer_of(&self, log_id: &Hash32) -> Result<Option<Address>, EthereumError> {
        let signer = self.view(&contract::signerOfCall { logId: B256::from(*log_id) }, At::Latest).await?;
        Ok(signer.filter(|a| !a.is_zero()))
    }

    /// Where a closed log continues; `None` while it is open.
    pub async fn successor_of(&self, log_id: &Hash32) -> Result<Option<Address>, EthereumError> {
        let successor = self.view(&contract::successorOfCall { logId: B256::from(*log_id) }, At::Latest).await?;
        Ok(successor.filter(|a| !a.is_zero()))
    }

    /// The transaction that advanced a log to exactly `size`, by its `CheckpointAdvanced` event; `None` if there is none.
    ///
    /// While the contract remembers the size this asks for one block; else it searches backwards from the newest block
    /// down to `from_block` (0, or the block of the contract's deployment).
    pub async fn find_anchor(
        &self,
        log_id: &Hash32,
        size: u64,
        from_block: u64,
    ) -> Result<Option<Anchor>, EthereumError> {
        if let Some(remembered) = self.checkpoint_of(log_id, size, At::Latest).await? {
            let block = remembered.block_number;
            return Ok(self.anchors(log_id, Some(size), block, block).await?.pop());
        }
        let mut end: u64 = self.endpoint.block_number().await?;
        loop {
            let start = end.saturating_sub(SEARCH_SPAN - 1).max(from_block);
            if let Some(found) = self.anchors(log_id, Some(size), start, end).await?.pop() {
                return Ok(Some(found));
            }
            if start <= from_block {
                return Ok(None);
            }
            end = start - 1;
        }
    }

    /// The anchors of a log in a range of blocks, both ends included, oldest first; of one size only, if given. Endpoints
    /// limit how many blocks they search at once.
    pub async fn anchors(
        &self,
        log_id: &Hash32,
        size: Option<u64>,
        from_block: u64,
        to_block: u64,
    ) -> Result<Vec<Anchor>, EthereumError> {
        let mut topics = vec![json!(contract::CheckpointAdvanced::SIGNATURE_HASH), json!(B256::from(*log_id))];
        if let Some(size) = size {
            topics.push(json!(B256::from(alloy::primitives::U256::from(size))));
        }
        let filter = json!([{
            "address": self.domain.contract,
            "fromBlock": U64::from(from_block),
            "toBlock": U64::from(to_block),
            "topics": topics,
        }]);
        let logs = self.endpoint.logs(filter, to_block).await?;
        logs.iter().filter(|log| !log.removed).map(|log| self.anchor(log)).collect()
    }

    fn anchor(&self, log: &Log) -> Result<Anchor, EthereumError> {
        let malformed = |reason: String| EthereumError::Malformed {
            endpoint: self.endpoint.to_string(),
            method: "eth_getLogs".to_owned(),
            reason,
        };
        let event = contract::CheckpointAdvanced::decode_log(&log.inner).map_err(|e| malformed(e.to_string()))?;
        let (Some(transaction), Some(block_number), Some(block_hash)) =
            (log.transaction_hash, log.block_number, log.block_hash)
        else {
            return Err(malformed("an event without transaction or block".to_owned()));
        };
        Ok(Anchor {
            size: event.newSize,
            old_size: event.oldSize,
            root: event.newRoot.0,
            data_commitment: event.dataCommitment.0,
            issued_at: event.issuedAt,
            transaction: transaction.0,
            block_number,
            block_hash: block_hash.0,
            block_time: log.block_timestamp,
        })
    }

    /// Asks the contract; `None` if there was no contract at that block.
    async fn view<C: SolCall>(&self, call: &C, at: At) -> Result<Option<C::Return>, EthereumError> {
        let answer = self
            .endpoint
            .call(self.domain.contract, Bytes::from(call.abi_encode()), at)
            .await
            .map_err(|e| self.explain(e, C::SIGNATURE.split('(').next().unwrap_or(C::SIGNATURE), 0))?;
        if answer.is_empty() {
            return Ok(None);
        }
        C::abi_decode_returns(&answer).map(Some).map_err(|e| EthereumError::Malformed {
            endpoint: self.endpoint.to_string(),
            method: "eth_call".to_owned(),
            reason: e.to_string(),
        })
    }

    fn no_contract(&self) -> EthereumError {
        EthereumError::NoContract {
            what: Contract::VerdictLog,
            endpoint: self.endpoint.to_string(),
            contract: self.domain.contract,
            chain_id: self.domain.chain_id,
        }
    }

    /// Turns what the contract said into an error that says what to do; other errors pass. `old_size` is the size the
    /// refused checkpoint starts at, where there is one.
    pub(crate) fn explain(&self, error: EthereumError, action: &str, old_size: u64) -> EthereumError {
        let Some(data) = error.revert_data() else { return error };
        let contract = self.domain.contract;
        match ContractError::abi_decode(data) {
            Ok(ContractError::UnknownLog(e)) => EthereumError::UnknownLog { contract, log_id: e.logId.0 },
            Ok(ContractError::LogClosed(e)) => {
                EthereumError::LogClosed { contract, log_id: e.logId.0, successor: e.successor }
            }
            Ok(ContractError::StaleCheckpoint(e)) => EthereumError::HeadMoved {
                contract,
                log_id: e.logId.0,
                old_size,
                head_size: e.headSize,
                head_root: e.headRoot.0,
            },
            Ok(ContractError::InvalidSignature(e)) => {
                EthereumError::WrongSigner { contract, log_id: e.logId.0, signer: e.signer }
            }
            Ok(ContractError::InconsistentLog(e)) => {
                EthereumError::Inconsistent { contract, log_id: e.logId.0, old_size: e.oldSize, new_size: e.newSize }
            }
            Ok(ContractError::UnknownCheckpoint(e)) => {
                EthereumError::UnknownCheckpoint { contract, log_id: e.logId.0, size: e.size }
            }
            Ok(other) => {
                let reason = match other {
                    ContractError::AlreadyRegistered(e) => format!("log {} is registered already", show(&e.logId.0)),
                    ContractError::NotAuthorized(e) => format!("{} is neither owner nor signer of the log", e.caller),
                    ContractError::ZeroAddress(_) => "the zero address cannot be a signer or successor".to_owned(),
                    ContractError::NotLonger(e) => {
                        format!("a checkpoint from size {} to {} does not make the log longer", e.oldSize, e.newSize)
                    }
                    _ => "for a reason it did not give".to_owned(),
                };
                EthereumError::Reverted { contract, action: action.to_owned(), reason }
            }
            Err(_) => {
                let reason = format!("with {}", alloy::primitives::hex::encode_prefixed(data));
                EthereumError::Reverted { contract, action: action.to_owned(), reason }
            }
        }
    }
}

impl ChainCheckpoint {
    /// Before the first checkpoint.
    pub(crate) const EMPTY: Self = Self { size: 0, root: [0; 32], issued_at: 0, anchored_at: 0, block_number: 0 };
}

impl From<super::bindings::Anchored> for ChainCheckpoint {
    fn from(a: super::bindings::Anchored) -> Self {
        Self {
            size: a.size,
            root: a.root.0,
            issued_at: a.issuedAt,
            anchored_at: a.anchoredAt,
            block_number: a.blockNumber,
        }
    }
}
