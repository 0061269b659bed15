//! Making and sending one transaction: fees, replacement, and what a node means when it says no.

use alloy::consensus::TxEip1559;
use alloy::eips::eip2930::AccessList;
use alloy::primitives::{Address, B256, Bytes, TxKind, U64, U128, U256};
use avouch_engine::verdict::Hash32;
use serde_json::json;
use tokio::task::JoinSet;

use super::error::EthereumError;
use super::rpc::{At, Endpoint};
use super::signer::OperatorKey;

/// The two fees of an EIP-1559 transaction, in wei per gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fees {
    pub max_fee: u128,
    pub priority: u128,
}

/// At least 12.5 % more, rounded up, and at least one wei: what the strictest common node asks of a replacement.
fn raised(fee: u128) -> u128 {
    fee.saturating_add(fee.div_ceil(8)).max(fee.saturating_add(1))
}

impl Fees {
    /// Fees with which a replacement of a transaction with these fees is taken: both raised, and not below the market.
    pub(crate) fn replacing(self, market: Fees) -> Fees {
        let priority = raised(self.priority).max(market.priority);
        Fees { max_fee: raised(self.max_fee).max(market.max_fee).max(priority), priority }
    }
}

/// What gas costs by the newest block, and that block's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Market {
    /// Wei per gas that every transaction of the block paid.
    pub base: u64,
    /// What to offer for the next blocks.
    pub fees: Fees,
    /// Seconds since the Unix epoch.
    pub time: u64,
}

/// What the next blocks ask for: twice the base fee, which covers six full blocks in a row, and the node's tip.
pub(crate) async fn market_fees(endpoint: &Endpoint) -> Result<Fees, EthereumError> {
    Ok(market(endpoint).await?.fees)
}

/// What gas costs at this moment.
pub(crate) async fn market(endpoint: &Endpoint) -> Result<Market, EthereumError> {
    let header = endpoint.block(At::Latest).await?.map(|b| b.header.inner);
    let found = header.and_then(|h| Some((h.base_fee_per_gas?, h.timestamp)));
    let (base, time) = found.ok_or_else(|| EthereumError::Malformed {
        endpoint: endpoint.to_string(),
        method: "eth_getBlockByNumber".to_owned(),
        reason: "the newest block has no base fee (EIP-1559)".to_owned(),
    })?;
    let priority = match endpoint.read::<U128>("eth_maxPriorityFeePerGas", json!([])).await {
        Ok(tip) => tip.to::<u128>(),
        // Not every node has this method; one gwei is the old custom.
        Err(EthereumError::Rpc { .. }) => 1_000_000_000,
        Err(error) => return Err(error),
    };
    Ok(Market { base, fees: Fees { max_fee: u128::from(base) * 2 + priority, priority }, time })
}

/// Gas for a call, with a margin for what changes until it is included. A call that would be refused fails here, and
/// nothing is sent.
pub(crate) async fn estimate_gas(
    endpoint: &Endpoint,
    from: Address,
    to: TxKind,
    data: &Bytes,
) -> Result<u64, EthereumError> {
    let mut call = json!({ "from": from, "input": data });
    if let TxKind::Call(to) = to {
        call["to"] = json!(to);
    }
    let gas: u64 = endpoint.read::<U64>("eth_estimateGas", json!([call])).await?.to();
    Ok(gas + gas / 5)
}

/// A signed transaction, ready to be sent any number of times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SignedTransaction {
    pub nonce: u64,
    pub gas_limit: u64,
    pub fees: Fees,
    pub hash: Hash32,
    pub raw: Vec<u8>,
}

impl SignedTransaction {
    /// The most that it can cost, in wei.
    pub(crate) fn worst(&self) -> u128 {
        self.fees.max_fee.saturating_mul(u128::from(self.gas_limit))
    }
}

/// What is sent; nonce, gas and fees come when it is signed.
pub(crate) struct Payload {
    pub chain_id: u64,
    pub to: TxKind,
    pub data: Bytes,
}

pub(crate) async fn sign(
    key: &OperatorKey,
    payload: &Payload,
    nonce: u64,
    gas_limit: u64,
    fees: Fees,
) -> Result<SignedTransaction, EthereumError> {
    let signed = key.sign_transaction(TxEip1559 {
        chain_id: payload.chain_id,
        nonce,
        gas_limit,
        max_fee_per_gas: fees.max_fee,
        max_priority_fee_per_gas: fees.priority,
        to: payload.to,
        value: U256::ZERO,
        access_list: AccessList::default(),
        input: payload.data.clone(),
    });
    let (hash, raw) = signed.await?;
    Ok(SignedTransaction { nonce, gas_limit, fees, hash, raw: raw.to_vec() })
}

/// What became of sending a transaction.
#[derive(Debug)]
pub(crate) enum Sent {
    /// The node has it, from now or from before.
    Taken,
    /// Its nonce is used up: it, or another transaction of the account, is in a block.
    NonceUsed,
    /// The node wants more for it than it offers, or more than for the one it replaces.
    Underpriced(String),
    /// The account cannot pay.
    Underfunded,
    /// No answer, or none that says whether it was taken: it may have been.
    Unknown(EthereumError),
    /// The node will not have it.
    Refused(EthereumError),
}

/// Sends once, to every node. That one has it is enough to go on: the others are left to take it in the background.
pub(crate) async fn send(endpoint: &Endpoint, transaction: &SignedTransaction) -> Sent {
    let raw = Bytes::from(transaction.raw.clone());
    if !endpoint.is_several() {
        return send_to(endpoint, 0, raw).await;
    }
    let mut asked = JoinSet::new();
    for i in 0..endpoint.nodes.len() {
        let (endpoint, raw) = (endpoint.clone(), raw.clone());
        asked.spawn(async move { send_to(&endpoint, i, raw).await });
    }
    let mut all = Vec::new();
    while let Some(joined) = asked.join_next().await {
        match joined {
            Ok(Sent::Taken) => {
                asked.detach_all();
                return Sent::Taken;
            }
            Ok(other) => all.push(other),
            Err(_) => {}
        }
    }
    // What says most about whether it is, or may be, under way.
    let rank = |sent: &Sent| match sent {
        Sent::Taken => 0,
        Sent::NonceUsed => 1,
        Sent::Underpriced(_) => 2,
        Sent::Unknown(_) => 3,
        Sent::Underfunded => 4,
        Sent::Refused(_) => 5,
    };
    all.into_iter().min_by_key(rank).unwrap_or_else(|| Sent::Unknown(endpoint.nobody("eth_sendRawTransaction")))
}

/// Sends once to one node. Every one has its own words for the same refusals.
async fn send_to(endpoint: &Endpoint, node: usize, raw: Bytes) -> Sent {
    let error = match endpoint.ask::<B256>(&endpoint.nodes[node], "eth_sendRawTransaction", json!([raw])).await {
        Ok(_) => return Sent::Taken,
        Err(error) => error,
    };
    let EthereumError::Rpc { message, .. } = &error else {
        return if error.retryable() || matches!(error, EthereumError::Malformed { .. }) {
            Sent::Unknown(error)
        } else {
            Sent::Refused(error)
        };
    };
    let text = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if says(&[
        "already known",
        "alreadyknown",
        "already imported",
        "known transaction",
        "already exists",
        "existing tx",
    ]) {
        Sent::Taken
    } else if says(&["nonce too low", "nonce is too low", "oldnonce", "nonce_too_low"]) {
        Sent::NonceUsed
    } else if says(&[
        "underpriced",
        "replacementnotallowed",
        "too low to replace",
        "max fee per gas less than block base fee",
    ]) {
        Sent::Underpriced(message.clone())
    } else if says(&["insufficient funds", "insufficientfunds", "insufficient balance"]) {
        Sent::Underfunded
    } else if error.retryable() && !says(&["invalid", "exceeds", "too large", "intrinsic"]) {
        Sent::Unknown(error)
    } else {
        Sent::Refused(error)
    }
}

/// The error for an account that cannot pay.
pub(crate) async fn underfunded(endpoint: &Endpoint, account: Address) -> EthereumError {
    let balance = endpoint.balance(account).await.map_or_else(|_| "an unknown number of".to_owned(), |b| b.to_string());
    EthereumError::Underfunded { endpoint: endpoint.to_string(), account, balance }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_raises_both_fees_by_an_eighth_rounded_up() {
        let market = Fees { max_fee: 0, priority: 0 };
        let next = Fees { max_fee: 1_000_000_001, priority: 9 }.replacing(market);
        assert_eq!(next, Fees { max_fee: 1_125_000_002, priority: 11 });
        assert_eq!(Fees { max_fee: 0, priority: 0 }.replacing(market), Fees { max_fee: 1, priority: 1 });
        for fee in 0..10_000u128 {
            assert!(raised(fee) * 8 >= fee * 9 && raised(fee) > fee);
        }
    }

    #[test]
    fn a_replacement_is_not_below_the_market() {
        let market = Fees { max_fee: 500, priority: 100 };
        assert_eq!(Fees { max_fee: 80, priority: 8 }.replacing(market), market);
        // The tip may not be above the whole fee.
        let odd = Fees { max_fee: 8, priority: 8 }.replacing(Fees { max_fee: 0, priority: 50 });
        assert!(odd.max_fee >= odd.priority);
    }
}
