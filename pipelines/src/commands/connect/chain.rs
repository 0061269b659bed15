//! The chain: whether the key can be had, the endpoint serves the chain, the contract is ours, and the key may and can sign.

use avouch_connectors::ethereum::{Address, ChainReader, EthereumError, OperatorKey, RpcOptions, log_id};
use avouch_engine::verdict::LogOrigin;

use crate::lang::{Anchor, Diagnostics, Pipeline, Signer, Span, Text};
use crate::runtime::{log_owner, operator_key};

use super::{ANSWER, runtime};

/// Tries all of it; returns what was found.
pub(super) fn try_all(pipeline: &Pipeline, lanes: i32, diags: &mut Diagnostics) -> Option<String> {
    let anchor = pipeline.anchor.as_ref()?;
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(e) => {
            super::error(
                diags,
                "no-connection",
                anchor.rpc.span,
                &e.to_string(),
                "free some threads, then check again",
            );
            return None;
        }
    };
    runtime.block_on(async {
        let key = key(anchor, diags).await;
        ask(pipeline, anchor, key.as_ref(), lanes, diags).await
    })
}

/// Where the signer's key stands, and its secret.
fn signer_spans(anchor: &Anchor) -> (Span, Span) {
    match &anchor.signer {
        Signer::Keystore { file, password } => (file.span, password.span),
        Signer::Key(key) => (key.span, key.span),
        Signer::Kms(kms) => (kms.key.span, kms.key.span),
    }
}

async fn key(anchor: &Anchor, diags: &mut Diagnostics) -> Option<OperatorKey> {
    let (place, secret) = signer_spans(anchor);
    if let Signer::Keystore { file, .. } = &anchor.signer
        && let Err(e) = std::fs::metadata(&file.value)
    {
        let message = format!("the keystore cannot be read ({})", e.kind());
        super::error(diags, "missing-file", place, &message, "correct `keystore`; it starts at the pipeline file");
        return None;
    }
    match operator_key(anchor, Some(ANSWER / 2)).await {
        Ok(key) => Some(key),
        Err(EthereumError::Kms(e)) => {
            let help =
                "`aws kms get-public-key --key-id …`, run with the same credentials, should answer; then check again";
            super::error(diags, "bad-key", place, &e.to_string(), help);
            None
        }
        Err(e) => {
            super::error(diags, "bad-key", secret, &e.to_string(), "correct `password`, or restore the keystore");
            None
        }
    }
}

const AWAY: &str = "correct `rpc`, or start the node";

fn away(anchor: &Anchor, e: &EthereumError, diags: &mut Diagnostics) -> Option<String> {
    super::error(diags, "no-connection", anchor.rpc.span, &e.to_string(), AWAY);
    None
}

/// Whether one endpoint answers, serves the chain and has the contract.
async fn ask_one(anchor: &Anchor, one: &Text, contract: Address, options: RpcOptions, diags: &mut Diagnostics) -> bool {
    match ChainReader::connect(one.as_str(), Some(anchor.chain_id), contract, options).await {
        Ok(_) => return true,
        Err(e @ EthereumError::WrongChain { .. }) => {
            let help = "correct `chain_id`, or name an endpoint of that chain in `rpc`";
            super::error(diags, "wrong-chain", anchor.chain_id_span, &e.to_string(), help);
        }
        Err(e @ (EthereumError::NoContract { .. } | EthereumError::WrongCode { .. })) => {
            let help = "write the address that `avouch deploy` printed for this chain";
            super::error(diags, "wrong-contract", anchor.contract.span, &e.to_string(), help);
        }
        Err(e) => super::error(diags, "no-connection", one.span, &e.to_string(), AWAY),
    }
    false
}

async fn ask(
    pipeline: &Pipeline,
    anchor: &Anchor,
    key: Option<&OperatorKey>,
    lanes: i32,
    diags: &mut Diagnostics,
) -> Option<String> {
    let options = RpcOptions { request_timeout: ANSWER / 2, read_budget: ANSWER / 2, ..RpcOptions::default() };
    let contract = Address::from(anchor.contract.value);
    // Each by itself: one that stands in for another one day must not turn out to be wrong on that day.
    let mut good = true;
    for one in &anchor.rpc.endpoints {
        good &= ask_one(anchor, one, contract, options.clone(), diags).await;
    }
    let endpoint = match anchor.rpc.endpoint(options) {
        Ok(endpoint) => endpoint,
        Err(e) => return away(anchor, &e, diags),
    };
    let reader = match good {
        true => match ChainReader::over(endpoint.clone(), Some(anchor.chain_id), contract).await {
            Ok(reader) => Some(reader),
            Err(e) => return away(anchor, &e, diags),
        },
        false => None,
    };
    let key = key?;
    let (place, _) = signer_spans(anchor);
    match endpoint.has_funds(key.address()).await {
        Ok(true) => {}
        Ok(false) => super::error(
            diags,
            "no-funds",
            place,
            &format!("the signer {} has nothing on chain {} to pay with", key.address(), anchor.chain_id),
            "send it some of the chain's currency; each anchor is a transaction",
        ),
        Err(e) => return away(anchor, &e, diags),
    }
    let reader = reader?;
    for lane in 0..lanes.max(1) {
        let id = log_id(log_owner(anchor, key), &LogOrigin::new(&pipeline.name.value, lane).log_id());
        match reader.signer_of(&id).await {
            // Nobody has registered the log: the first anchor does it, under this key.
            Ok(None) => {}
            Ok(Some(signer)) if signer == key.address() => {}
            Ok(Some(signer)) => {
                super::error(
                    diags,
                    "wrong-signer",
                    place,
                    &format!("the log of lane {lane} is signed by {signer}, not by {}", key.address()),
                    "use the key of that address, or hand the log over to this one with `avouch rotate`",
                );
                break;
            }
            Err(e) => return away(anchor, &e, diags),
        }
    }
    Some(match &anchor.signer {
        Signer::Kms(_) => {
            format!("the contract on chain {} and the key of {} in AWS KMS", anchor.chain_id, key.address())
        }
        Signer::Keystore { .. } | Signer::Key(_) => format!("the contract on chain {}", anchor.chain_id),
    })
}
