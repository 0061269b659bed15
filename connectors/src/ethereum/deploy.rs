//! Deploying the contract and registering logs: what is done once, by a person, before a writer runs.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, Bytes, TxKind};
use alloy::rpc::types::TransactionReceipt;
use alloy::sol_types::SolCall;
use avouch_engine::verdict::Hash32;

use super::artifact::Contract;
use super::bindings::VerdictLog as contract;
use super::checkpoint::log_id;
use super::error::EthereumError;
use super::reader::ChainReader;
use super::rpc::{Endpoint, RpcOptions};
use super::signer::OperatorKey;
use super::transact::{self, Payload, Sent};

/// How long a deployment or registration waits for its block.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(250);

/// A contract that was just deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployed {
    /// Where it lives.
    pub contract: Address,
    /// The chain it lives on.
    pub chain_id: u64,
    /// The transaction that made it.
    pub transaction: Hash32,
    /// Its block: no event of the contract is older.
    pub block_number: u64,
    /// Gas it took.
    pub gas_used: u64,
}

/// A log that is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The log's id on chain.
    pub log_id: Hash32,
    /// Its owner: the account that registered it.
    pub owner: Address,
    /// Whose signature its checkpoints need.
    pub signer: Address,
    /// The transaction that registered it; `None` if it was registered before.
    pub transaction: Option<Hash32>,
    /// Gas it took; 0 if it was registered before.
    pub gas_used: u64,
}

/// Deploys one of our contracts with `key` paying, waits until it is in a block (three minutes at most) and checks the code
/// there. Not to be called while a writer uses the same key.
pub async fn deploy(
    what: Contract,
    url: &str,
    chain_id: Option<u64>,
    key: &OperatorKey,
    options: RpcOptions,
) -> Result<Deployed, EthereumError> {
    let endpoint = Endpoint::new(url, options)?;
    let found = endpoint.chain(chain_id).await?;
    let payload = Payload { chain_id: found, to: TxKind::Create, data: what.creation_code() };
    let receipt = transact_once(&endpoint, key, &payload).await?;
    let contract = receipt.contract_address.ok_or_else(|| EthereumError::Malformed {
        endpoint: endpoint.to_string(),
        method: "eth_getTransactionReceipt".to_owned(),
        reason: "a deployment without contract address".to_owned(),
    })?;
    endpoint.require_code(what, contract).await?;
    Ok(Deployed {
        contract,
        chain_id: found,
        transaction: receipt.transaction_hash.0,
        block_number: receipt.block_number.unwrap_or_default(),
        gas_used: receipt.gas_used,
    })
}

/// Registers the log `name` (`LogOrigin::log_id`) of the account of `key`, with `signer` to sign its checkpoints. Doing it
/// again with the same signer changes nothing; with another signer it is [`EthereumError::OtherSigner`]. Not to be called
/// while a writer uses the same key.
pub async fn register_log(
    reader: &ChainReader,
    key: &OperatorKey,
    name: &Hash32,
    signer: Address,
) -> Result<Registered, EthereumError> {
    let owner = key.address();
    let log_id = log_id(owner, name);
    let contract = reader.domain().contract;
    if reader.owner_of(&log_id).await?.is_some() {
        return match reader.signer_of(&log_id).await? {
            Some(found) if found == signer => Ok(Registered { log_id, owner, signer, transaction: None, gas_used: 0 }),
            Some(found) => Err(EthereumError::OtherSigner { contract, log_id, found, expected: signer }),
            None => {
                let successor = reader.successor_of(&log_id).await?.unwrap_or_default();
                Err(EthereumError::LogClosed { contract, log_id, successor })
            }
        };
    }
    let call = contract::registerCall { name: B256::from(*name), signer };
    let receipt = call_contract(reader, key, call.abi_encode(), "register").await?;
    Ok(Registered { log_id, owner, signer, transaction: Some(receipt.transaction_hash.0), gas_used: receipt.gas_used })
}

/// As [`register_log`], where the log may be another account's, `owner`'s, who handed it over to `key`: then it must be registered,
/// with `key` to sign its checkpoints.
///
/// # Errors
/// [`EthereumError::UnknownLog`], [`EthereumError::OtherSigner`], [`EthereumError::LogClosed`].
pub async fn register_log_of(
    reader: &ChainReader,
    key: &OperatorKey,
    owner: Address,
    name: &Hash32,
) -> Result<Registered, EthereumError> {
    let signer = key.address();
    if owner == signer {
        return register_log(reader, key, name, signer).await;
    }
    let log_id = log_id(owner, name);
    let contract = reader.domain().contract;
    if reader.owner_of(&log_id).await?.is_none() {
        return Err(EthereumError::UnknownLog { contract, log_id });
    }
    match reader.signer_of(&log_id).await? {
        Some(found) if found == signer => Ok(Registered { log_id, owner, signer, transaction: None, gas_used: 0 }),
        Some(found) => Err(EthereumError::OtherSigner { contract, log_id, found, expected: signer }),
        None => {
            let successor = reader.successor_of(&log_id).await?.unwrap_or_default();
            Err(EthereumError::LogClosed { contract, log_id, successor })
        }
    }
}

/// Makes `signer` the one whose signature the log's checkpoints need. `key` must be its owner's or its present signer's.
/// Returns the transaction's hash.
pub async fn set_signer(
    reader: &ChainReader,
    key: &OperatorKey,
    log_id: &Hash32,
    signer: Address,
) -> Result<Hash32, EthereumError> {
    let call = contract::setSignerCall { logId: B256::from(*log_id), signer };
    Ok(call_contract(reader, key, call.abi_encode(), "setSigner").await?.transaction_hash.0)
}

/// Closes a log for good and points to the contract where it continues. `key` must be its owner's. Returns the
/// transaction's hash.
pub async fn set_successor(
    reader: &ChainReader,
    key: &OperatorKey,
    log_id: &Hash32,
    successor: Address,
) -> Result<Hash32, EthereumError> {
    let call = contract::setSuccessorCall { logId: B256::from(*log_id), successor };
    Ok(call_contract(reader, key, call.abi_encode(), "setSuccessor").await?.transaction_hash.0)
}

async fn call_contract(
    reader: &ChainReader,
    key: &OperatorKey,
    data: Vec<u8>,
    action: &str,
) -> Result<TransactionReceipt, EthereumError> {
    let domain = reader.domain();
    let payload = Payload { chain_id: domain.chain_id, to: TxKind::Call(domain.contract), data: Bytes::from(data) };
    let receipt = transact_once(reader.endpoint(), key, &payload).await.map_err(|e| reader.explain(e, action, 0))?;
    if receipt.status() {
        return Ok(receipt);
    }
    Err(EthereumError::Reverted {
        contract: domain.contract,
        action: action.to_owned(),
        reason: "the chain changed between estimate and block".to_owned(),
    })
}

/// Signs, sends and waits. The hash is known before it is sent, so an answer that is lost loses nothing.
pub(super) async fn transact_once(
    endpoint: &Endpoint,
    key: &OperatorKey,
    payload: &Payload,
) -> Result<TransactionReceipt, EthereumError> {
    let account = key.address();
    if endpoint.balance(account).await?.is_zero() {
        return Err(transact::underfunded(endpoint, account).await);
    }
    let gas = transact::estimate_gas(endpoint, account, payload.to, &payload.data).await?;
    let fees = transact::market_fees(endpoint).await?;
    let nonce = endpoint.nonce(account).await?;
    let transaction = transact::sign(key, payload, nonce, gas, fees).await?;
    let started = Instant::now();
    let mut sent = false;
    loop {
        if !sent {
            sent = match transact::send(endpoint, &transaction).await {
                Sent::Taken | Sent::NonceUsed => true,
                Sent::Unknown(_) => false,
                Sent::Underfunded => return Err(transact::underfunded(endpoint, account).await),
                Sent::Underpriced(message) => {
                    return Err(EthereumError::Rpc {
                        endpoint: endpoint.to_string(),
                        method: "eth_sendRawTransaction".to_owned(),
                        code: -32000,
                        message: format!("{message}; another transaction of this account is waiting"),
                        revert: None,
                    });
                }
                Sent::Refused(error) => return Err(error),
            };
        }
        if let Some(receipt) = endpoint.receipt(&transaction.hash).await? {
            return Ok(receipt);
        }
        if started.elapsed() > PATIENCE {
            return Err(EthereumError::NotIncluded {
                endpoint: endpoint.to_string(),
                transaction: transaction.hash,
                nonce,
                waited: started.elapsed(),
                attempts: 1,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}
