//! `avouch rotate`: hands the logs of a pipeline over to another key.

use std::path::PathBuf;
use std::process::ExitCode;

use avouch_connectors::ethereum::{
    Address, ChainReader, Domain, EthereumError, OperatorKey, RpcOptions, WriterConfig, WriterOptions, log_id,
    set_signer,
};
use avouch_engine::verdict::{Hash32, LogOrigin};
use clap::Args;
use serde_json::{Value, json};
use thiserror::Error;

use super::bundle::{BundleFailure, lanes};
use super::fail;
use crate::lang::{Anchor, Pipeline};
use crate::runtime::{AnchorLease, JOURNAL, RuntimeError, hex, log_owner, open_writer, operator_key, state_dir};

/// Hand the logs of a pipeline over to another key: from then on their checkpoints need its signature. What the old key has signed
/// stays as valid as it was. Stop the run first; it would end at its next anchor.
#[derive(Debug, Clone, Args)]
pub struct RotateArgs {
    /// The pipeline file, with the key that signs now, or the owner's
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// Address of the key that takes over
    #[arg(long, value_name = "ADDRESS")]
    pub to: Address,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Why the logs were not handed over, or not all of them.
#[derive(Debug, Error)]
pub enum RotateFailure {
    /// The pipeline anchors nothing.
    #[error("{0} has no [anchor], so no key signs for it")]
    NoAnchor(PathBuf),
    /// It runs.
    #[error(
        "{0} anchors these logs at this moment; stop it, then rotate, so that nothing is on its way under the old key"
    )]
    Runs(String),
    /// Nothing was ever anchored.
    #[error(
        "none of the {0} lanes has a log on the chain yet; write the new key as `signer`, and the first anchor registers it"
    )]
    NoLog(usize),
    /// The state cannot be read.
    #[error(transparent)]
    Lanes(#[from] BundleFailure),
    /// The lease cannot be taken.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The chain cannot be read or written. Handing over what is left goes on where this stopped.
    #[error("{0}; run it again to go on")]
    Chain(#[from] EthereumError),
}

/// What became of one lane's log.
struct Handed {
    lane: i32,
    log_id: Hash32,
    /// `None`: it was this key's already.
    transaction: Option<Hash32>,
}

/// Hands over. Exit code 0 once the contract knows the new key for every log.
pub fn run(args: &RotateArgs) -> ExitCode {
    let pipeline = match Pipeline::load(&args.file) {
        Ok(p) => p,
        Err(diags) => {
            eprint!("{}", diags.render_text(super::check::colour()));
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return fail(args.json, format!("cannot start the async runtime: {e}")),
    };
    match runtime.block_on(rotate(args, &pipeline)) {
        Ok((owner, handed)) if args.json => println!("{}", as_json(owner, args.to, &handed)),
        Ok((owner, handed)) => {
            for h in &handed {
                let how = match &h.transaction {
                    Some(transaction) => format!("handed over (transaction 0x{})", hex(transaction)),
                    None => "handed over already".to_owned(),
                };
                println!("lane {}: log 0x{} {how}", h.lane, hex(&h.log_id));
            }
            println!("{} signs from now on. In [anchor], write the new key as `signer`, and", args.to);
            println!("owner = \"{owner}\"");
        }
        Err(e) => return fail(args.json, e),
    }
    ExitCode::SUCCESS
}

fn as_json(owner: Address, signer: Address, handed: &[Handed]) -> Value {
    let logs: Vec<Value> = handed
        .iter()
        .map(|h| {
            let transaction = h.transaction.map(|t| format!("0x{}", hex(&t)));
            json!({ "lane": h.lane, "log_id": format!("0x{}", hex(&h.log_id)), "transaction": transaction })
        })
        .collect();
    json!({ "owner": owner.to_string(), "signer": signer.to_string(), "logs": logs })
}

async fn rotate(args: &RotateArgs, pipeline: &Pipeline) -> Result<(Address, Vec<Handed>), RotateFailure> {
    let anchor = pipeline.anchor.as_ref().ok_or_else(|| RotateFailure::NoAnchor(args.file.clone()))?;
    let state = state_dir(pipeline);
    let lanes = lanes(&state)?;
    let _lease = AnchorLease::try_take(&state)?.map_err(RotateFailure::Runs)?;
    let key = operator_key(anchor, None).await?;
    let owner = log_owner(anchor, &key);
    let domain = Domain { chain_id: anchor.chain_id, contract: Address::from(anchor.contract.value) };
    let chain =
        ChainReader::over(anchor.rpc.endpoint(RpcOptions::default())?, Some(domain.chain_id), domain.contract).await?;
    settle(anchor, &state, &key, domain).await?;
    let mut handed = Vec::new();
    for lane in &lanes {
        let log_id = log_id(owner, &LogOrigin::new(&pipeline.name.value, *lane).log_id());
        let transaction = match chain.signer_of(&log_id).await? {
            None => continue,
            Some(signer) if signer == args.to => None,
            Some(_) => Some(set_signer(&chain, &key, &log_id, args.to).await?),
        };
        handed.push(Handed { lane: *lane, log_id, transaction });
    }
    if handed.is_empty() {
        return Err(RotateFailure::NoLog(lanes.len()));
    }
    Ok((owner, handed))
}

/// Brings what the old key has signed onto the chain: afterwards it would be refused.
async fn settle(
    anchor: &Anchor,
    state: &std::path::Path,
    key: &OperatorKey,
    domain: Domain,
) -> Result<(), EthereumError> {
    let config = WriterConfig {
        urls: anchor.rpc.endpoints.iter().map(|url| url.as_str().to_owned()).collect(),
        quorum: anchor.rpc.quorum,
        domain,
        signer: key.clone(),
        payer: key.clone(),
        journal: state.join(JOURNAL),
        options: WriterOptions::default(),
    };
    open_writer(config).await?.recover().await.map(drop)
}
