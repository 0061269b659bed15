//! `avouch device`: keys of devices, and which of them a fleet's registry lets speak.

mod chain;
mod in_file;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use avouch_connectors::ethereum::{Address, EthereumError};
use avouch_connectors::files::FilesError;
use avouch_engine::identity::DeviceKey;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use thiserror::Error;

use super::chain_args::{ChainArgs, KeyArgs};
use super::fail;
use crate::lang::{Identity, KeyRegistry, Pipeline, hex};
use crate::runtime::RuntimeError;
use crate::signing::{DeviceKeyFile, KeyFileError};

/// Make keys of devices, and say in a fleet's registry which of them speak for which device: the one that `identity` of a
/// pipeline's source names, on chain or in a file.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What can be done.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Make a device's secret key, in a file that only its owner may read
    Keygen(KeygenArgs),
    /// Make a fleet in a registry on chain, or give it another enroller
    Register(RegisterArgs),
    /// Enrol a device with its first key
    Enrol(EnrolArgs),
    /// Give a device another key, from one of its readings on
    Rotate(RotateArgs),
    /// Let one of a device's keys speak no longer, from one of its readings on
    Revoke(RevokeArgs),
    /// Say which keys a device has. Exit code 0 if one speaks for its next readings
    Status(StatusArgs),
    /// List the devices of a fleet
    List(ListArgs),
}

/// A kind of key, as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyKind {
    /// Ed25519: short, and the cheapest to verify
    Ed25519,
    /// P-256 (ES256), which secure elements have
    P256,
    /// secp256k1, whose address is the device's account
    Secp256k1,
}

impl KeyKind {
    fn name(self) -> &'static str {
        match self {
            KeyKind::Ed25519 => "ed25519",
            KeyKind::P256 => "p256",
            KeyKind::Secp256k1 => "secp256k1",
        }
    }
}

/// What `avouch device keygen` needs.
#[derive(Debug, Clone, Args)]
pub struct KeygenArgs {
    /// The device's name, as its readings have it
    #[arg(long, value_name = "NAME")]
    pub device: String,

    /// Directory for the file <device>.json
    #[arg(long, value_name = "DIR", default_value = "device-keys")]
    pub dir: PathBuf,

    /// Another file
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    pub out: Option<PathBuf>,

    /// What kind of key
    #[arg(long, value_enum, default_value_t = KeyKind::Ed25519)]
    pub kind: KeyKind,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `avouch device register` needs.
#[derive(Debug, Clone, Args)]
pub struct RegisterArgs {
    /// Address of the DeviceRegistry contract: `avouch deploy device-registry` prints it
    #[arg(long, env = "DEVICE_REGISTRY", value_name = "ADDRESS")]
    pub registry: Address,

    /// The owner's name for the fleet
    #[arg(long, value_name = "NAME")]
    pub name: String,

    /// Account that enrols, rotates and revokes [default: that of the key]
    #[arg(long, value_name = "ADDRESS")]
    pub enroller: Option<Address>,

    /// The chain
    #[command(flatten)]
    pub chain: ChainArgs,

    /// The owner's key
    #[command(flatten)]
    pub key: KeyArgs,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Which fleet.
#[derive(Debug, Clone, Args)]
pub struct FleetArgs {
    /// The pipeline whose source's `identity` names the registry
    #[arg(value_name = "PIPELINE.toml")]
    pub pipeline: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `avouch device enrol` needs.
#[derive(Debug, Clone, Args)]
pub struct EnrolArgs {
    /// The fleet
    #[command(flatten)]
    pub of: FleetArgs,

    /// The device's key file, from `avouch device keygen`
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,

    /// Of a file of keys that is not there yet: the fleet's name, which every signature covers
    #[arg(long, value_name = "NAME")]
    pub fleet: Option<String>,

    /// On chain, for a P-256 key: the contract that verifies it (ERC-7913); `avouch deploy p256-verifier` prints it
    #[arg(long, value_name = "ADDRESS")]
    pub p256_verifier: Option<Address>,

    /// The enroller's key, for a registry on chain
    #[command(flatten)]
    pub key: KeyArgs,
}

/// What `avouch device rotate` needs.
#[derive(Debug, Clone, Args)]
pub struct RotateArgs {
    /// The fleet
    #[command(flatten)]
    pub of: FleetArgs,

    /// The device's new key file, from `avouch device keygen --out`
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,

    /// The number of the first reading that the new key signs
    #[arg(long, value_name = "SEQ")]
    pub from_seq: u64,

    /// On chain, for a P-256 key: the contract that verifies it (ERC-7913); `avouch deploy p256-verifier` prints it
    #[arg(long, value_name = "ADDRESS")]
    pub p256_verifier: Option<Address>,

    /// The enroller's key, for a registry on chain
    #[command(flatten)]
    pub key: KeyArgs,
}

/// What `avouch device revoke` needs.
#[derive(Debug, Clone, Args)]
pub struct RevokeArgs {
    /// The fleet
    #[command(flatten)]
    pub of: FleetArgs,

    /// The device's name
    #[arg(long, value_name = "NAME")]
    pub device: String,

    /// The number of the first reading that the key does not speak for any more
    #[arg(long, value_name = "SEQ")]
    pub from_seq: u64,

    /// Which of its keys, counted from 0 [default: the last]
    #[arg(long, value_name = "N")]
    pub number: Option<usize>,

    /// Why; on chain only the text's SHA-256 is recorded, so keep it
    #[arg(long, value_name = "TEXT")]
    pub reason: String,

    /// The enroller's key, for a registry on chain
    #[command(flatten)]
    pub key: KeyArgs,
}

/// What `avouch device status` needs.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The fleet
    #[command(flatten)]
    pub of: FleetArgs,

    /// The device's name
    #[arg(long, value_name = "NAME")]
    pub device: String,
}

/// What `avouch device list` needs.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// The fleet
    #[command(flatten)]
    pub of: FleetArgs,
}

/// Why a command about devices failed.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// The pipeline has mistakes.
    #[error("{0}")]
    Pipeline(String),
    /// Its source needs no signature.
    #[error("the source of {0} has no `identity`, so it has no registry of keys")]
    NoIdentity(String),
    /// The chain, or what the contract said.
    #[error(transparent)]
    Chain(#[from] EthereumError),
    /// A device's secret key.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The file of keys.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The pipeline's secret, which pseudonyms are made under.
    #[error(transparent)]
    Secret(#[from] RuntimeError),
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Asked(String),
    /// No async runtime.
    #[error("cannot start the async runtime: {0}")]
    Runtime(std::io::Error),
}

/// What a command says.
struct Said {
    text: String,
    json: Value,
}

/// A key of a device, whatever its registry.
struct Known {
    kind: String,
    from_seq: u64,
    until_seq: u64,
}

/// Does it. Exit code 0 once it is done: on chain, once it is in a block.
pub fn run(args: &DeviceArgs) -> ExitCode {
    match &args.action {
        Action::Keygen(a) => answer(a.json, keygen(a)),
        Action::Register(a) => answer(a.json, chain::register(a)),
        Action::Enrol(a) => answer(a.of.json, enrol(a)),
        Action::Rotate(a) => answer(a.of.json, rotate(a)),
        Action::Revoke(a) => answer(a.of.json, revoke(a)),
        Action::Status(a) => {
            let mut speaks = false;
            let code = answer(a.of.json, status(a, &mut speaks));
            if speaks || code != ExitCode::SUCCESS { code } else { ExitCode::FAILURE }
        }
        Action::List(a) => answer(a.of.json, list(a)),
    }
}

fn answer(json: bool, said: Result<Said, DeviceError>) -> ExitCode {
    match said {
        Ok(said) if json => println!("{}", said.json),
        Ok(said) => println!("{}", said.text),
        Err(e) => return fail(json, e),
    }
    ExitCode::SUCCESS
}

fn load(path: &Path) -> Result<(Pipeline, Identity), DeviceError> {
    let pipeline = Pipeline::load(path).map_err(|d| DeviceError::Pipeline(d.render_text(super::check::colour())))?;
    let identity = pipeline.source.identity.clone();
    let identity = identity.ok_or_else(|| DeviceError::NoIdentity(path.display().to_string()))?;
    Ok((pipeline, identity))
}

/// A key's bytes as a file of keys has them: hexadecimal.
fn public(key: &DeviceKey) -> String {
    match key {
        DeviceKey::Ed25519(k) => hex(k.as_bytes()),
        DeviceKey::P256(k) => hex(k.as_bytes()),
        DeviceKey::Account(a) => hex(a),
        DeviceKey::Other(b) => hex(b),
    }
}

fn keygen(args: &KeygenArgs) -> Result<Said, DeviceError> {
    let path = match &args.out {
        Some(path) => path.clone(),
        None => DeviceKeyFile::path_in(&args.dir, &args.device)?,
    };
    let file = DeviceKeyFile::make(&path, &args.device, args.kind.name())?;
    let (kind, key) = (args.kind.name(), public(&file.key().public()));
    Ok(Said {
        text: format!(
            "{} holds the secret key of `{}`\nits public key is {kind} {key}\nenrol it with `avouch device enrol PIPELINE.toml --key-file {}`",
            path.display(),
            args.device,
            path.display()
        ),
        json: json!({ "device": args.device, "kind": kind, "key": key, "file": path }),
    })
}

fn enrol(args: &EnrolArgs) -> Result<Said, DeviceError> {
    let (pipeline, identity) = load(&args.of.pipeline)?;
    let key = DeviceKeyFile::read(&args.key_file)?;
    match &identity.registry {
        KeyRegistry::File(path) => in_file::enrol(&path.value, args.fleet.as_deref(), &key),
        KeyRegistry::Chain(keys) => chain::enrol(&pipeline, keys, args, &key),
    }
}

fn rotate(args: &RotateArgs) -> Result<Said, DeviceError> {
    let (pipeline, identity) = load(&args.of.pipeline)?;
    let mut key = DeviceKeyFile::read(&args.key_file)?;
    let said = match &identity.registry {
        KeyRegistry::File(path) => in_file::rotate(&path.value, &key, args.from_seq)?,
        KeyRegistry::Chain(keys) => chain::rotate(&pipeline, keys, args, &key)?,
    };
    if key.next_seq() < args.from_seq {
        key.begin_at(args.from_seq)?;
    }
    Ok(said)
}

fn revoke(args: &RevokeArgs) -> Result<Said, DeviceError> {
    let (pipeline, identity) = load(&args.of.pipeline)?;
    match &identity.registry {
        KeyRegistry::File(path) => in_file::revoke(&path.value, args),
        KeyRegistry::Chain(keys) => chain::revoke(&pipeline, keys, args),
    }
}

fn status(args: &StatusArgs, speaks: &mut bool) -> Result<Said, DeviceError> {
    let (pipeline, identity) = load(&args.of.pipeline)?;
    let known = match &identity.registry {
        KeyRegistry::File(path) => in_file::keys_of(&path.value, &args.device)?,
        KeyRegistry::Chain(keys) => chain::keys_of(&pipeline, keys, &args.device)?,
    };
    *speaks = known.iter().any(|k| k.from_seq < k.until_seq && k.until_seq == u64::MAX);
    Ok(said_of(&args.device, &known))
}

/// A device's keys in words.
fn said_of(device: &str, known: &[Known]) -> Said {
    let mut text = match known {
        [] => format!("`{device}` was never enrolled: its readings are dead letters (unknown_device)"),
        _ => format!("`{device}`"),
    };
    for (n, k) in known.iter().enumerate() {
        let speaks = match (k.from_seq == k.until_seq, k.until_seq) {
            (true, _) => "speaks for nothing: revoked from its first reading on".to_owned(),
            (false, u64::MAX) => format!("speaks for readings from {} on", k.from_seq),
            (false, until) => format!("speaks for readings {} to before {until}", k.from_seq),
        };
        text += &format!("\n  key {n}  {:<9}  {speaks}", k.kind);
    }
    let keys: Vec<Value> = known
        .iter()
        .map(|k| {
            let until = (k.until_seq != u64::MAX).then_some(k.until_seq);
            json!({ "kind": k.kind, "from_seq": k.from_seq, "until_seq": until })
        })
        .collect();
    Said { text, json: json!({ "device": device, "enrolled": !known.is_empty(), "keys": keys }) }
}

fn list(args: &ListArgs) -> Result<Said, DeviceError> {
    let (_, identity) = load(&args.of.pipeline)?;
    let devices = match &identity.registry {
        KeyRegistry::File(path) => in_file::all(&path.value)?,
        KeyRegistry::Chain(keys) => chain::all(keys)?,
    };
    let said: Vec<Said> = devices.iter().map(|(name, keys)| said_of(name, keys)).collect();
    let text = match said.as_slice() {
        [] => "no device is enrolled".to_owned(),
        some => some.iter().map(|s| s.text.as_str()).collect::<Vec<_>>().join("\n"),
    };
    let json = Value::from(said.into_iter().map(|s| s.json).collect::<Vec<_>>());
    Ok(Said { text, json: json!({ "devices": json }) })
}
