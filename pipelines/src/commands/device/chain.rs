//! A fleet in a DeviceRegistry on a chain. Devices are known there by their pseudonyms, made under the pipeline's secret.

use avouch_connectors::ethereum::{Address, DeviceRegistry, FleetKeys, RegisteredKey, RpcOptions, fleet_id};
use avouch_engine::verdict::Hash32;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{DeviceError, EnrolArgs, Known, RegisterArgs, RevokeArgs, RotateArgs, Said, said_of};
use crate::lang::{ChainKeys, Pipeline, hex};
use crate::runtime::{device_registry, secret, state_dir};
use crate::signing::DeviceKeyFile;

fn runtime() -> Result<tokio::runtime::Runtime, DeviceError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(DeviceError::Runtime)
}

/// A device's pseudonym, as in the pipeline's verdicts.
fn pseudonym(pipeline: &Pipeline, device: &str) -> Result<Hash32, DeviceError> {
    let state = state_dir(pipeline);
    std::fs::create_dir_all(&state).map_err(|source| DeviceError::Write { path: state.clone(), source })?;
    Ok(secret(pipeline, &state)?.device_id(device))
}

pub(super) fn register(args: &RegisterArgs) -> Result<Said, DeviceError> {
    let runtime = runtime()?;
    let key = runtime.block_on(args.key.key())?;
    let name: Hash32 = Sha256::digest(args.name.as_bytes()).into();
    let id = fleet_id(key.address(), &name);
    let enroller = args.enroller.unwrap_or(key.address());
    runtime.block_on(async {
        let (url, chain) = (&args.chain.rpc, args.chain.chain_id);
        let registry = DeviceRegistry::connect(url, chain, args.registry, id, RpcOptions::default()).await?;
        let made = registry.roles().await?.is_none();
        let transaction = registry.register(&key, &name, enroller).await?;
        let fleet = format!("0x{}", hex(&id));
        let done = if made { "made" } else { "given another enroller" };
        Ok(Said {
            text: format!(
                "fleet `{}` of {} is {done}: {enroller} enrols, rotates and revokes\nits id is {fleet}; set it as `fleet` in \
                 `identity`",
                args.name,
                key.address()
            ),
            json: json!({ "fleet": fleet, "owner": key.address().to_string(), "enroller": enroller.to_string(),
                "done": done, "transaction": format!("0x{}", hex(&transaction)) }),
        })
    })
}

/// A key's bytes as the registry takes them.
fn erc7913(key: &DeviceKeyFile, verifier: Option<Address>) -> Result<Vec<u8>, DeviceError> {
    let public = key.key().public();
    if public.kind() == "p256" && verifier.is_none() {
        let why = "a P-256 key goes with the contract that verifies it: name one with --p256-verifier \
                   (`avouch deploy p256-verifier` puts it on a chain, once for everybody there)";
        return Err(DeviceError::Asked(why.to_owned()));
    }
    Ok(public.to_erc7913(&verifier.unwrap_or_default().0.0))
}

fn consent(
    registry: &DeviceRegistry,
    key: &DeviceKeyFile,
    device: &Hash32,
    from_seq: u64,
    bytes: &[u8],
) -> Result<Vec<u8>, DeviceError> {
    let digest = registry.consent_digest(device, from_seq, bytes);
    key.key().sign_digest(&digest).map_err(|e| DeviceError::Asked(e.to_string()))
}

pub(super) fn enrol(
    pipeline: &Pipeline,
    keys: &ChainKeys,
    args: &EnrolArgs,
    key: &DeviceKeyFile,
) -> Result<Said, DeviceError> {
    let runtime = runtime()?;
    let operator = runtime.block_on(args.key.key())?;
    let (device, bytes) = (pseudonym(pipeline, key.device())?, erc7913(key, args.p256_verifier)?);
    runtime.block_on(async {
        let registry = device_registry(keys).await?;
        let consent = consent(&registry, key, &device, 0, &bytes)?;
        let transaction = registry.enrol(&operator, &device, &bytes, &consent).await?;
        changed(&registry, keys, key.device(), &device, &transaction).await
    })
}

pub(super) fn rotate(
    pipeline: &Pipeline,
    keys: &ChainKeys,
    args: &RotateArgs,
    key: &DeviceKeyFile,
) -> Result<Said, DeviceError> {
    let runtime = runtime()?;
    let operator = runtime.block_on(args.key.key())?;
    let (device, bytes) = (pseudonym(pipeline, key.device())?, erc7913(key, args.p256_verifier)?);
    runtime.block_on(async {
        let registry = device_registry(keys).await?;
        let consent = consent(&registry, key, &device, args.from_seq, &bytes)?;
        let transaction = registry.rotate(&operator, &device, args.from_seq, &bytes, &consent).await?;
        changed(&registry, keys, key.device(), &device, &transaction).await
    })
}

pub(super) fn revoke(pipeline: &Pipeline, keys: &ChainKeys, args: &RevokeArgs) -> Result<Said, DeviceError> {
    let runtime = runtime()?;
    let operator = runtime.block_on(args.key.key())?;
    let device = pseudonym(pipeline, &args.device)?;
    let reason: Hash32 = Sha256::digest(args.reason.as_bytes()).into();
    runtime.block_on(async {
        let registry = device_registry(keys).await?;
        let number = match args.number {
            Some(number) => number,
            None => now(&registry, keys).await?.device(&device).len().saturating_sub(1),
        };
        let transaction = registry.revoke(&operator, &device, number, args.from_seq, &reason).await?;
        changed(&registry, keys, &args.device, &device, &transaction).await
    })
}

/// The fleet's keys at the newest block: what a person did is there at once, though it is not final.
async fn now(registry: &DeviceRegistry, keys: &ChainKeys) -> Result<FleetKeys, DeviceError> {
    let mut fleet = registry.begin(keys.from_block);
    registry.follow(&mut fleet, true).await?;
    Ok(fleet)
}

async fn changed(
    registry: &DeviceRegistry,
    keys: &ChainKeys,
    name: &str,
    device: &Hash32,
    transaction: &Hash32,
) -> Result<Said, DeviceError> {
    let mut said = said_of(name, &known(now(registry, keys).await?.device(device)));
    said.text += "\n  pipelines take it up once its block is final";
    said.json["device_id"] = json!(format!("0x{}", hex(device)));
    said.json["transaction"] = json!(format!("0x{}", hex(transaction)));
    Ok(said)
}

fn known(keys: &[RegisteredKey]) -> Vec<Known> {
    let kind = |k: &RegisteredKey| match k.consents {
        true => k.key().kind().to_owned(),
        false => "no consent".to_owned(),
    };
    keys.iter().map(|k| Known { kind: kind(k), from_seq: k.from_seq, until_seq: k.until_seq }).collect()
}

pub(super) fn keys_of(pipeline: &Pipeline, keys: &ChainKeys, device: &str) -> Result<Vec<Known>, DeviceError> {
    let id = pseudonym(pipeline, device)?;
    runtime()?.block_on(async {
        let registry = device_registry(keys).await?;
        Ok(known(now(&registry, keys).await?.device(&id)))
    })
}

/// The devices by pseudonym: the chain knows no names.
pub(super) fn all(keys: &ChainKeys) -> Result<Vec<(String, Vec<Known>)>, DeviceError> {
    runtime()?.block_on(async {
        let registry = device_registry(keys).await?;
        let fleet = now(&registry, keys).await?;
        Ok(fleet.devices().map(|(id, keys)| (format!("0x{id}"), known(keys))).collect())
    })
}
