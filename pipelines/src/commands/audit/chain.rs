//! What the chain says of a log: its anchors, and what a registry says of its models.

use std::collections::{BTreeMap, BTreeSet};

use avouch_connectors::ethereum::{
    Address, At, ChainReader, Endpoint, EthereumError, ModelRegistry, RpcOptions, log_id,
};
use avouch_engine::audit::{ChainAnchor, ModelWindow};
use avouch_engine::verdict::{Hash32, LogOrigin};
use sha2::{Digest as _, Sha256};

use super::AuditArgs;
use crate::handover::Handover;

/// Blocks searched at once.
const SPAN: u64 = 10_000;

/// What the chain said.
pub(super) struct Asked {
    pub anchors: Vec<ChainAnchor>,
    pub models: Option<BTreeMap<Hash32, Option<ModelWindow>>>,
    pub said: String,
}

/// Asks. Anchors count up to the newest final block, or the newest of all where that was asked for.
pub(super) async fn ask(
    args: &AuditArgs,
    handover: &Handover,
    named: &BTreeSet<Hash32>,
    origin: &LogOrigin,
) -> Result<Asked, EthereumError> {
    let contract = args.contract.unwrap_or_default();
    let endpoint = Endpoint::unanimous(&args.rpc, RpcOptions::default())?;
    let chain = ChainReader::over(endpoint.clone(), None, contract).await?;
    // Whoever handed it over says whose log it is; whether that is whom the auditor expects, the signatures' check says.
    let owner = args.owner.or_else(|| handover.signed.first().map(|c| Address::from(c.owner))).unwrap_or_default();
    let id = log_id(owner, &origin.log_id());
    let (last, which) = match args.latest {
        true => (chain.endpoint().newest_block().await?, "newest"),
        false => (chain.endpoint().final_block().await?, "final"),
    };
    let mut anchors = Vec::new();
    let mut from = args.from_block;
    while from <= last {
        let to = from.saturating_add(SPAN - 1).min(last);
        for a in chain.anchors(&id, None, from, to).await? {
            let block_time = match a.block_time {
                Some(time) => time,
                None => chain.endpoint().block_time(a.block_number).await?,
            };
            anchors.push(ChainAnchor {
                old_size: a.old_size,
                size: a.size,
                root: a.root,
                data_commitment: a.data_commitment,
                issued_at: a.issued_at,
                block_time,
                block: a.block_number,
            });
        }
        from = to + 1;
    }
    let latest = chain.head(&id, At::Latest).await.map(|h| h.size).unwrap_or(0);
    let finalized = anchors.last().map_or(0, |a| a.size);
    let mut said = format!(
        "chain {}, contract {contract}, owner {owner}: {} anchors up to the {which} block {last}",
        chain.domain().chain_id,
        anchors.len()
    );
    if latest > finalized {
        said.push_str(&format!("; up to size {latest} it is anchored but not final yet"));
    }
    let models = match (args.registry, args.registry_owner) {
        (Some(registry), Some(owner)) => {
            let name: Hash32 = Sha256::digest(&args.registry_name).into();
            let id = Some(chain.domain().chain_id);
            let registry = ModelRegistry::over(endpoint, id, registry, owner, name).await?;
            let mut models = BTreeMap::new();
            for hash in named {
                let found = registry.model(hash).await?;
                let window = found
                    .and_then(|m| m.window.map(|(from, until)| ModelWindow { from, until, revoked_at: m.revoked_at }));
                models.insert(*hash, window);
            }
            Some(models)
        }
        _ => None,
    };
    Ok(Asked { anchors, models, said })
}
