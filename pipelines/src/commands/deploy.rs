//! `avouch deploy`: puts VerdictLog on a chain, once.

use std::path::PathBuf;
use std::process::ExitCode;

use avouch_connectors::ethereum::{EthereumError, OperatorKey, RpcOptions, deploy_verdict_log};
use clap::Args;
use serde_json::json;

use super::fail;
use crate::runtime::hex;

/// Deploy the VerdictLog contract. Logs register themselves when a pipeline first anchors.
#[derive(Debug, Clone, Args)]
pub struct DeployArgs {
    /// JSON-RPC endpoint
    #[arg(long, env = "ETH_RPC", default_value = "http://localhost:8545", value_name = "URL")]
    pub rpc: String,

    /// Refuse any other chain
    #[arg(long, value_name = "ID")]
    pub chain_id: Option<u64>,

    /// Encrypted keystore file of the account that pays
    #[arg(long, value_name = "FILE", requires = "password_file")]
    pub keystore: Option<PathBuf>,

    /// File with the keystore's password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// Environment variable with the private key, for development
    #[arg(long, value_name = "NAME", default_value = "AVOUCH_KEY", conflicts_with = "keystore")]
    pub key_env: String,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Deploys. Exit code 0 once the contract is in a block and its code was read back.
pub fn run(args: &DeployArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return fail(args.json, format!("cannot start the async runtime: {e}")),
    };
    let key = match key(args) {
        Ok(key) => key,
        Err(e) => return fail(args.json, e),
    };
    match runtime.block_on(deploy_verdict_log(&args.rpc, args.chain_id, &key, RpcOptions::default())) {
        Ok(d) if args.json => println!(
            "{}",
            json!({
                "contract": d.contract.to_string(),
                "chain_id": d.chain_id,
                "transaction": format!("0x{}", hex(&d.transaction)),
                "block": d.block_number,
                "gas_used": d.gas_used,
                "owner": key.address().to_string(),
            })
        ),
        Ok(d) => println!(
            "VerdictLog is at {} on chain {}, since block {} ({} gas)\nset it as `contract` in [anchor]; the logs of {} can be anchored there",
            d.contract,
            d.chain_id,
            d.block_number,
            d.gas_used,
            key.address()
        ),
        Err(e) => return fail(args.json, e),
    }
    ExitCode::SUCCESS
}

fn key(args: &DeployArgs) -> Result<OperatorKey, EthereumError> {
    let (Some(keystore), Some(password)) = (&args.keystore, &args.password_file) else {
        return OperatorKey::from_env(&args.key_env);
    };
    let text = std::fs::read_to_string(password)
        .map_err(|e| EthereumError::Keystore { path: password.clone(), reason: e.to_string() })?;
    OperatorKey::from_keystore(keystore, &text)
}
