//! The chain: whether the key can be had, the endpoint serves the chain, the contract is ours, and the key may and can sign.

use avouch_connectors::ethereum::{Address, ChainReader, Endpoint, EthereumError, OperatorKey, RpcOptions, log_id};
use avouch_engine::verdict::LogOrigin;

use crate::lang::{Anchor, Diagnostics, Pipeline, Signer, Span};
use crate::runtime::operator_key;

use super::{ANSWER, runtime};

/// Tries all of it; returns what was found.
pub(super) fn try_all(pipeline: &Pipeline, lanes: i32, diags: &mut Diagnostics) -> Option<String> {
    let anchor = pipeline.anchor.as_ref()?;
    let key = key(anchor, diags);
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
    runtime.block_on(ask(pipeline, anchor, key.as_ref(), lanes, diags))
}

/// Where the signer's key stands, and its secret.
fn signer_spans(anchor: &Anchor) -> (Span, Span) {
    match &anchor.signer {
        Signer::Keystore { file, password } => (file.span, password.span),
        Signer::Key(key) => (key.span, key.span),
    }
}

fn key(anchor: &Anchor, diags: &mut Diagnostics) -> Option<OperatorKey> {
    let (place, secret) = signer_spans(anchor);
    if let Signer::Keystore { file, .. } = &anchor.signer
        && let Err(e) = std::fs::metadata(&file.value)
    {
        let message = format!("the keystore cannot be read ({})", e.kind());
        super::error(diags, "missing-file", place, &message, "correct `keystore`; it starts at the pipeline file");
        return None;
    }
    match operator_key(anchor) {
        Ok(key) => Some(key),
        Err(e) => {
            super::error(diags, "bad-key", secret, &e.to_string(), "correct `password`, or restore the keystore");
            None
        }
    }
}

fn away(anchor: &Anchor, e: &EthereumError, diags: &mut Diagnostics) -> Option<String> {
    super::error(diags, "no-connection", anchor.rpc.span, &e.to_string(), "correct `rpc`, or start the node");
    None
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
    let endpoint = match Endpoint::new(anchor.rpc.as_str(), options.clone()) {
        Ok(endpoint) => endpoint,
        Err(e) => return away(anchor, &e, diags),
    };
    match endpoint.require_chain(anchor.chain_id).await {
        Ok(()) => {}
        Err(e @ EthereumError::WrongChain { .. }) => {
            let help = "correct `chain_id`, or name an endpoint of that chain in `rpc`";
            super::error(diags, "wrong-chain", anchor.chain_id_span, &e.to_string(), help);
            return None;
        }
        Err(e) => return away(anchor, &e, diags),
    }
    let reader = match ChainReader::connect(anchor.rpc.as_str(), Some(anchor.chain_id), contract, options).await {
        Ok(reader) => Some(reader),
        Err(e @ (EthereumError::NoContract { .. } | EthereumError::WrongCode { .. })) => {
            let help = "write the address that `avouch deploy` printed for this chain";
            super::error(diags, "wrong-contract", anchor.contract.span, &e.to_string(), help);
            None
        }
        Err(e) => return away(anchor, &e, diags),
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
        let id = log_id(key.address(), &LogOrigin::new(&pipeline.name.value, lane).log_id());
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
                    "use the key of that address, or let the log's owner name this one (setSigner)",
                );
                break;
            }
            Err(e) => return away(anchor, &e, diags),
        }
    }
    Some(format!("the contract on chain {}", anchor.chain_id))
}
