//! `avouch deploy`: puts one of our contracts on a chain, once.

use std::process::ExitCode;

use avouch_connectors::ethereum::{Contract, RpcOptions, deploy};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::chain_args::{ChainArgs, KeyArgs};
use super::fail;
use crate::runtime::hex;

/// Deploy a contract. One serves everybody on its chain; nobody administers it. Logs register themselves when a pipeline first
/// anchors.
#[derive(Debug, Clone, Args)]
pub struct DeployArgs {
    /// Which contract
    #[arg(value_name = "CONTRACT", value_enum, default_value_t = Which::VerdictLog)]
    pub what: Which,

    /// The chain
    #[command(flatten)]
    pub chain: ChainArgs,

    /// The key
    #[command(flatten)]
    pub key: KeyArgs,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A contract, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// The witness of verdict logs: what `[anchor]` needs
    VerdictLog,
    /// Which models may decide, and since when: `avouch model`
    ModelRegistry,
    /// Which keys speak for which device: `avouch device`
    DeviceRegistry,
    /// Verifies the P-256 keys of devices: what `avouch device enrol --p256-verifier` names
    P256Verifier,
    /// A person's answer to a machine's verdict: open, acknowledge, override, dispute, resolve
    Cases,
    /// Orders that proven verdicts open, paid from escrow
    MaintenanceOrder,
    /// Shipments that proven excursions reduce the pay of
    ColdChainShipment,
    /// Machines that rent themselves out, paid by proven usage
    MachineRental,
}

impl Which {
    fn contract(self) -> Contract {
        match self {
            Which::VerdictLog => Contract::VerdictLog,
            Which::ModelRegistry => Contract::ModelRegistry,
            Which::DeviceRegistry => Contract::DeviceRegistry,
            Which::P256Verifier => Contract::P256Verifier,
            Which::Cases => Contract::Cases,
            Which::MaintenanceOrder => Contract::MaintenanceOrder,
            Which::ColdChainShipment => Contract::ColdChainShipment,
            Which::MachineRental => Contract::MachineRental,
        }
    }

    /// What to do with its address.
    fn next(self) -> &'static str {
        match self {
            Which::VerdictLog => "set it as `contract` in [anchor]",
            Which::ModelRegistry => "name it to `avouch model` with --registry",
            Which::DeviceRegistry => "make a fleet there with `avouch device register`, and set both in `identity`",
            Which::P256Verifier => {
                "name it to `avouch device enrol` and `rotate` with --p256-verifier, for a P-256 key"
            }
            Which::Cases | Which::MaintenanceOrder | Which::ColdChainShipment | Which::MachineRental => {
                "it is used with `cast` or a wallet: connectors/ethereum/contracts/README.md says how"
            }
        }
    }
}

/// Deploys. Exit code 0 once the contract is in a block and its code was read back.
pub fn run(args: &DeployArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(r) => r,
        Err(e) => return fail(args.json, format!("cannot start the async runtime: {e}")),
    };
    let key = match runtime.block_on(args.key.key()) {
        Ok(key) => key,
        Err(e) => return fail(args.json, e),
    };
    let what = args.what.contract();
    match runtime.block_on(deploy(what, &args.chain.rpc, args.chain.chain_id, &key, RpcOptions::default())) {
        Ok(d) if args.json => println!(
            "{}",
            json!({
                "name": what.name(),
                "contract": d.contract.to_string(),
                "chain_id": d.chain_id,
                "transaction": format!("0x{}", hex(&d.transaction)),
                "block": d.block_number,
                "gas_used": d.gas_used,
                "owner": key.address().to_string(),
            })
        ),
        Ok(d) => {
            println!(
                "{} is at {} on chain {}, since block {} ({} gas)",
                what.name(),
                d.contract,
                d.chain_id,
                d.block_number,
                d.gas_used
            );
            match args.what {
                Which::VerdictLog => {
                    println!("{}; the logs of {} can be anchored there", args.what.next(), key.address());
                }
                other => println!("{}", other.next()),
            }
        }
        Err(e) => return fail(args.json, e),
    }
    ExitCode::SUCCESS
}
