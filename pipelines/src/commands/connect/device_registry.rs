//! The registry of devices' keys: whether the endpoint serves the chain, the contract is ours, and the fleet is there.

use avouch_connectors::ethereum::EthereumError;

use crate::lang::{Diagnostics, KeyRegistry, Pipeline, plural};
use crate::runtime::device_registry;

use super::{ANSWER, runtime};

/// Tries all of it; returns what was found. A file of keys was read by the check itself.
pub(super) fn try_all(pipeline: &Pipeline, diags: &mut Diagnostics) -> Option<String> {
    let identity = pipeline.source.identity.as_ref()?;
    let KeyRegistry::Chain(keys) = &identity.registry else { return None };
    let away = |why: String, diags: &mut Diagnostics| {
        let help = "correct `rpc`, or start the node; a run would not start before it has read the keys once";
        super::error(diags, "no-connection", keys.rpc.span, &why, help);
        None
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(e) => return away(e.to_string(), diags),
    };
    let asked = async {
        let registry = device_registry(keys).await?;
        let roles = registry.roles().await?;
        let mut fleet = registry.begin(keys.from_block);
        registry.follow(&mut fleet, false).await?;
        Ok::<_, EthereumError>((roles, fleet.len()))
    };
    match runtime.block_on(async { tokio::time::timeout(ANSWER, asked).await }) {
        Err(_) => away(format!("the device registry: no answer in {} s", ANSWER.as_secs()), diags),
        Ok(Err(e @ EthereumError::WrongChain { .. })) => {
            let help = "correct `chain_id`, or name an endpoint of that chain in `rpc`";
            super::error(diags, "wrong-chain", keys.chain_id_span, &e.to_string(), help);
            None
        }
        Ok(Err(e @ (EthereumError::NoContract { .. } | EthereumError::WrongCode { .. }))) => {
            let help = "correct `contract`: `avouch deploy device-registry` prints its address";
            super::error(diags, "wrong-contract", keys.contract.span, &e.to_string(), help);
            None
        }
        Ok(Err(e)) => away(e.to_string(), diags),
        Ok(Ok((None, _))) => {
            let message = "the registry has no fleet of this id";
            let help = "correct `fleet`: `avouch device register` makes one and prints its id";
            super::error(diags, "no-fleet", keys.fleet.span, message, help);
            None
        }
        Ok(Ok((Some(_), 0))) => {
            let message = "no device of the fleet is enrolled in a final block, so all readings would be dead letters";
            diags.warning("no-devices", keys.fleet.span, message, "enrol devices with `avouch device enrol`");
            None
        }
        Ok(Ok((Some(_), devices))) => Some(plural(devices, "enrolled device")),
    }
}
