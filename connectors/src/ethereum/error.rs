//! What can go wrong with the chain, and what to do about it.

use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::{Address, hex};
use avouch_engine::verdict::Hash32;
use thiserror::Error;

use super::artifact::Contract;
use super::kms_error::KmsError;

/// A hash as people see it.
pub(crate) fn show(hash: &Hash32) -> String {
    hex::encode_prefixed(hash)
}

/// Two roots of one log at one size, which ought to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roots {
    /// The log's here.
    pub ours: Hash32,
    /// The chain's.
    pub chain: Hash32,
}

/// Two answers to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dissent {
    /// The RPC method.
    pub method: &'static str,
    /// An endpoint and what it says.
    pub first: (String, String),
    /// Another one and what that says.
    pub second: (String, String),
}

/// Why something did not work on, or on the way to, the chain. Endpoints are shown without credentials, path and query.
#[derive(Debug, Error)]
pub enum EthereumError {
    /// The text is no URL of an RPC endpoint.
    #[error("{url}: {reason}; an RPC endpoint is an http:// or https:// URL")]
    InvalidEndpoint {
        /// As given, without credentials, path and query.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answered at the endpoint.
    #[error("{endpoint}: cannot connect ({reason}); check that the node runs there and that this machine may reach it")]
    Unreachable {
        /// The endpoint.
        endpoint: String,
        /// The innermost cause.
        reason: String,
    },
    /// The endpoint took too long.
    #[error("{endpoint}: no answer to {method} within {after:?}; the node is overloaded or the connection is broken")]
    Timeout {
        /// The endpoint.
        endpoint: String,
        /// The RPC method.
        method: String,
        /// How long was waited.
        after: Duration,
    },
    /// The endpoint answered with an HTTP error.
    #[error("{endpoint}: HTTP {status} to {method}{}", advice(*status))]
    Http {
        /// The endpoint.
        endpoint: String,
        /// The RPC method.
        method: String,
        /// The HTTP status.
        status: u16,
    },
    /// The node refused the call.
    #[error("{endpoint}: {method} was refused: {message} (code {code})")]
    Rpc {
        /// The endpoint.
        endpoint: String,
        /// The RPC method.
        method: String,
        /// JSON-RPC error code.
        code: i64,
        /// The node's words.
        message: String,
        /// What the contract said, if it was a call that reverted.
        revert: Option<Vec<u8>>,
    },
    /// The answer is not what the method answers.
    #[error("{endpoint}: cannot read the answer to {method}: {reason}; is this an Ethereum JSON-RPC endpoint?")]
    Malformed {
        /// The endpoint.
        endpoint: String,
        /// The RPC method.
        method: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two endpoints contradict each other.
    #[error(
        "{} answers {} with {}, but {} with {}; one of them is wrong or on a fork of its own: nothing is sent until a quorum agrees. Compare both with a third, and remove the wrong one",
        .0.first.0, .0.method, .0.first.1, .0.second.0, .0.second.1
    )]
    Disagreement(Box<Dissent>),
    /// Too few endpoints answered.
    #[error(
        "{quorum} endpoints must agree on {method}, and {agreeing} did ({endpoints}){}",
        cause.as_ref().map(|c| format!("; {c}")).unwrap_or_default()
    )]
    NoQuorum {
        /// All of them.
        endpoints: String,
        /// The RPC method.
        method: &'static str,
        /// How many gave the same answer.
        agreeing: usize,
        /// How many have to.
        quorum: usize,
        /// Why one of the others did not.
        cause: Option<Box<EthereumError>>,
    },
    /// An endpoint does not have the newest blocks.
    #[error(
        "{endpoint} stands at block {at}, but block {wanted} was seen before; it lags behind the chain and is waited for: check that its node is in sync"
    )]
    Lagging {
        /// The endpoint.
        endpoint: String,
        /// Where it is.
        at: u64,
        /// What it should have.
        wanted: u64,
    },
    /// The endpoint serves another chain.
    #[error("{endpoint} serves chain {found}, but chain {expected} is configured; change the endpoint or chain_id")]
    WrongChain {
        /// The endpoint.
        endpoint: String,
        /// The configured chain id.
        expected: u64,
        /// The endpoint's chain id.
        found: u64,
    },
    /// No contract lives at the address.
    #[error(
        "{endpoint}: there is no contract at {contract} on chain {chain_id}; check the address, or deploy {} there with `avouch deploy`",
        what.name()
    )]
    NoContract {
        /// The endpoint.
        endpoint: String,
        /// The contract's name.
        what: Contract,
        /// The configured address.
        contract: Address,
        /// The endpoint's chain id.
        chain_id: u64,
    },
    /// Another contract lives at the address.
    #[error(
        "{endpoint}: the contract at {contract} is not this version's {} (its code hash is {}, not {}); check the address, or deploy one with `avouch deploy`",
        what.name(),
        show(found),
        show(expected)
    )]
    WrongCode {
        /// The endpoint.
        endpoint: String,
        /// The contract's name.
        what: Contract,
        /// The configured address.
        contract: Address,
        /// keccak256 of VerdictLog's code.
        expected: Hash32,
        /// keccak256 of the code found.
        found: Hash32,
    },
    /// Nobody registered the log.
    #[error(
        "{contract}: log {} is not registered; register it with `avouch deploy`, or check the owner and the pipeline's name",
        show(log_id)
    )]
    UnknownLog {
        /// The contract.
        contract: Address,
        /// The log.
        log_id: Hash32,
    },
    /// The log exists with another signer than asked for.
    #[error(
        "{contract}: log {} is registered with signer {found}, not {expected}; use that key, or hand the log over to this one with `avouch rotate`",
        show(log_id)
    )]
    OtherSigner {
        /// The contract.
        contract: Address,
        /// The log.
        log_id: Hash32,
        /// The signer on chain.
        found: Address,
        /// The signer asked for.
        expected: Address,
    },
    /// The log was closed by its owner.
    #[error("{contract}: log {} is closed and continues in {successor}; anchor there", show(log_id))]
    LogClosed {
        /// The contract.
        contract: Address,
        /// The log.
        log_id: Hash32,
        /// Where it continues.
        successor: Address,
    },
    /// The chain is not where the checkpoint starts.
    #[error(
        "{contract}: log {} stands at size {head_size} on chain, but the checkpoint starts at {old_size}; make the next one from size {head_size}",
        show(log_id)
    )]
    HeadMoved {
        /// The contract.
        contract: Address,
        /// The log.
        log_id: Hash32,
        /// Where the checkpoint starts.
        old_size: u64,
        /// The chain's size.
        head_size: u64,
        /// The chain's root.
        head_root: Hash32,
    },
    /// Chain and log disagree about the past: nothing is sent any more.
    #[error(
        "{contract}: log {} has root {} at size {size} on chain, but {} here: the log was altered or restored wrongly after it was anchored, or another writer uses its key; stop, and compare the two",
        show(log_id),
        show(&roots.chain),
        show(&roots.ours)
    )]
    Diverged {
        /// The contract.
        contract: Address,
        /// The log.
        log_id: Hash32,
        /// The size both have.
        size: u64,
        /// The two roots.
        roots: Box<Roots>,
    },
    /// The contract does not accept the signature.
    #[error(
        "{contract}: the signature on log {} is not one of its signer {signer}; the log was handed over to that key, or this one was never its signer: use that key, or hand the log over with `avouch rotate`",
        show(log_id)
    )]
    WrongSigner {
        /// The contract.
        contract: Address,
        /// The log.
        log_id: Hash32,
        /// The signer on chain.
        signer: Address,
    },
    /// The contract found the consistency proof wrong.
    #[error(
        "{contract}: the proof does not show that log {} at size {new_size} extends it at {old_size}; the log here was altered after size {old_size} was anchored, or the proof is for other sizes",
        show(log_id)
    )]
    Inconsistent {
        /// The contract.
        contract: Address,
        /// The log.
        log_id: Hash32,
        /// Size on chain.
        old_size: u64,
        /// Size of the checkpoint.
        new_size: u64,
    },
    /// No checkpoint of this size is among those the contract remembers.
    #[error(
        "{contract}: log {} has no checkpoint of size {size} among its last 64; make the proof against the head, or search the CheckpointAdvanced events",
        show(log_id)
    )]
    UnknownCheckpoint {
        /// The contract.
        contract: Address,
        /// The log.
        log_id: Hash32,
        /// The size asked for.
        size: u64,
    },
    /// A transaction was included but refused by the contract, for a reason without a variant of its own.
    #[error("{contract}: {action} was refused by the contract: {reason}")]
    Reverted {
        /// The contract.
        contract: Address,
        /// What was tried.
        action: String,
        /// The contract's reason.
        reason: String,
    },
    /// The transaction is sent and journaled but not in a block yet.
    #[error(
        "{endpoint}: transaction {} (nonce {nonce}) is not in a block after {waited:?} and {attempts} fee levels; it stays in the journal and is followed up by the next call",
        show(transaction)
    )]
    NotIncluded {
        /// The endpoint.
        endpoint: String,
        /// The latest replacement.
        transaction: Hash32,
        /// Its nonce.
        nonce: u64,
        /// How long was waited.
        waited: Duration,
        /// How many transactions were made for it.
        attempts: usize,
    },
    /// The account cannot pay.
    #[error("{endpoint}: account {account} cannot pay for the transaction; it holds {balance} wei: send it some ether")]
    Underfunded {
        /// The endpoint.
        endpoint: String,
        /// The paying account.
        account: Address,
        /// What it holds, in wei.
        balance: String,
    },
    /// Gas costs more than allowed.
    #[error(
        "{endpoint}: a transaction needs {needed} wei per gas now, more than the configured limit of {limit}; wait, or raise the limit"
    )]
    FeeLimit {
        /// The endpoint.
        endpoint: String,
        /// Fee needed, in wei per gas.
        needed: u128,
        /// Configured limit, in wei per gas.
        limit: u128,
    },
    /// The day's budget is spent.
    #[error(
        "{account}: {spent} of the day's budget of {budget} wei for gas are spent or on their way, and a transaction may cost {needed} more; nothing is sent before the next day (UTC, by the chain's clock). What waits goes out then in one checkpoint; to send it now, raise `anchor.gas.per_day`"
    )]
    BudgetSpent {
        /// The paying account.
        account: Address,
        /// Wei spent today, or reserved for what is on its way.
        spent: u128,
        /// Wei that may be spent a day.
        budget: u128,
        /// Wei that the transaction may cost.
        needed: u128,
    },
    /// A signature that is no signature of the expected account.
    #[error("the signature on the checkpoint of log {} is not valid: {reason}", show(log_id))]
    BadSignature {
        /// The log.
        log_id: Hash32,
        /// What is wrong with it.
        reason: String,
    },
    /// The key could not sign.
    #[error("account {account} cannot sign: {reason}")]
    Signing {
        /// The account.
        account: Address,
        /// Why.
        reason: String,
    },
    /// The key in AWS KMS cannot be used.
    #[error(transparent)]
    Kms(Box<KmsError>),
    /// The keystore file does not open.
    #[error("keystore {}: {reason}; check the path and the password", path.display())]
    Keystore {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The environment variable holds no key.
    #[error("environment variable {variable}: {reason}")]
    KeyVariable {
        /// Its name.
        variable: String,
        /// Why.
        reason: String,
    },
    /// The journal cannot be read or written.
    #[error("journal {}: {reason}; without it nothing is sent: free the disk or repair the path, then start again", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Another process writes with this journal.
    #[error(
        "journal {}: another writer holds its lease; one key has one writer: stop the other, or give this one a key and journal of its own",
        path.display()
    )]
    JournalBusy {
        /// The file.
        path: PathBuf,
    },
    /// The journal is damaged in its middle, where a crash cannot have done it.
    #[error(
        "journal {}: damaged at byte {at}: {reason}; restore it from a copy, or, if every transaction of this key is settled, move it away",
        path.display()
    )]
    JournalDamaged {
        /// The file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong there.
        reason: String,
    },
    /// The journal belongs to another key, chain or contract.
    #[error("journal {}: it was written for {found}, not for {expected}; give each key, chain and contract a journal of its own", path.display())]
    JournalForeign {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
}

fn advice(status: u16) -> &'static str {
    match status {
        401 | 403 => "; check the credentials in the endpoint's URL",
        404 | 405 => "; check the endpoint's path",
        429 => "; the endpoint's rate limit is reached",
        500.. => "; the node has a fault of its own",
        _ => "",
    }
}

impl From<KmsError> for EthereumError {
    fn from(error: KmsError) -> Self {
        Self::Kms(Box::new(error))
    }
}

impl EthereumError {
    /// Whether the same call can succeed later without anybody changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::NotIncluded { .. } | Self::FeeLimit { .. } => true,
            Self::BudgetSpent { .. } => true,
            Self::Kms(error) => error.retryable(),
            // An endpoint that is wrong must not stop what runs: the delay is the alarm.
            Self::Disagreement(_) | Self::Lagging { .. } => true,
            Self::NoQuorum { cause, .. } => cause.as_ref().is_none_or(|c| c.retryable()),
            Self::Http { status, .. } => *status == 408 || *status == 429 || *status >= 500,
            // -32603 internal error, -32005 limit exceeded, -32000…-32099 server's own, as far as they are not reverts.
            Self::Rpc { code, revert, message, .. } => {
                revert.is_none() && !message.contains("revert") && (*code == -32603 || (-32099..=-32000).contains(code))
            }
            _ => false,
        }
    }

    /// What the contract said, if this is a call it refused.
    pub(crate) fn revert_data(&self) -> Option<&[u8]> {
        match self {
            Self::Rpc { revert, .. } => revert.as_deref(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_cheap_to_return() {
        assert!(size_of::<EthereumError>() < 128, "{}", size_of::<EthereumError>());
    }
}
