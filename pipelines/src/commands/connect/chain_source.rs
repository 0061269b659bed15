//! The chain that readings come from: whether the endpoint serves it, has got as far as the first block, and knows the contracts.

use avouch_connectors::ethereum::EthereumError;
use avouch_connectors::ethereum::source::Reads;

use crate::lang::{ChainSource, Diagnostics, Pipeline, plural};
use crate::runtime::chain_options;

use super::{ANSWER, runtime};

/// Tries all of it; returns what was found.
pub(super) fn try_all(pipeline: &Pipeline, source: &ChainSource, diags: &mut Diagnostics) -> Option<String> {
    let span = source.rpc.span;
    let away = |why: String, diags: &mut Diagnostics| {
        super::error(
            diags,
            "no-connection",
            span,
            &why,
            "correct `rpc`, or start the node; a run would stop or wait for it",
        );
        None
    };
    let (options, runtime) = match (chain_options(&pipeline.source, source), runtime()) {
        (Ok(options), Ok(runtime)) => (options, runtime),
        (Err(e), _) => return away(e.to_string(), diags),
        (_, Err(e)) => return away(e.to_string(), diags),
    };
    let asked = async {
        options.endpoint.require_chain(source.chain_id).await?;
        let last = options.endpoint.final_block().await?;
        let mut strangers = Vec::new();
        if let Reads::Events { contracts, .. } = &source.reads {
            for contract in contracts {
                if !options.endpoint.has_code(*contract).await? {
                    strangers.push(*contract);
                }
            }
        }
        Ok::<_, EthereumError>((last, strangers))
    };
    let answer = runtime.block_on(async { tokio::time::timeout(ANSWER, asked).await });
    let (last, strangers) = match answer {
        Err(_) => return away(format!("{}: no answer in {} s", options.endpoint, ANSWER.as_secs()), diags),
        Ok(Err(e @ EthereumError::WrongChain { .. })) => {
            let help = "correct `chain_id`, or name an endpoint of that chain in `rpc`";
            super::error(diags, "wrong-chain", source.chain_id_span, &e.to_string(), help);
            return None;
        }
        Ok(Err(e)) => return away(e.to_string(), diags),
        Ok(Ok(found)) => found,
    };
    for contract in strangers {
        let message = format!("there is no contract at {contract} on chain {}", source.chain_id);
        diags.warning("no-contract", span, message, "correct `contracts`; an address without code has no events");
    }
    if source.from_block.value > last {
        diags.warning(
            "future-block",
            source.from_block.span,
            format!("the newest final block is {last}, so nothing is read before the chain is as far as this one"),
            "nothing need be done if that is meant",
        );
    }
    let blocks = (last + 1).saturating_sub(source.from_block.value);
    Some(format!(
        "{} of chain {}",
        plural(usize::try_from(blocks).unwrap_or(usize::MAX), "final block"),
        source.chain_id
    ))
}
