//! `avouch model register|propose|activate|revoke|status`: a model's right to decide, in a ModelRegistry on a chain.

use std::path::Path;
use std::process::ExitCode;

use avouch_connectors::ethereum::{Address, EthereumError, ModelOnChain, ModelRegistry, OperatorKey, RpcOptions};
use avouch_engine::decode::{format_timestamp, parse_timestamp};
use avouch_engine::verdict::Hash32;
use clap::Args;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::commands::chain_args::{ChainArgs, KeyArgs};
use crate::commands::fail;
use crate::lang::hex_bytes;
use crate::runtime::hex;

/// Which registry.
#[derive(Debug, Clone, Args)]
pub struct RegistryArgs {
    /// Address of the ModelRegistry contract: `avouch deploy model-registry` prints it
    #[arg(long, env = "MODEL_REGISTRY", value_name = "ADDRESS")]
    pub registry: Address,

    /// The owner's name for the registry
    #[arg(long, default_value = "models", value_name = "NAME")]
    pub name: String,

    /// Whose registry it is [default: that of the account of the key]
    #[arg(long, value_name = "ADDRESS")]
    pub owner: Option<Address>,

    /// The chain
    #[command(flatten)]
    pub chain: ChainArgs,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `avouch model register` needs.
#[derive(Debug, Clone, Args)]
pub struct RegisterArgs {
    /// Account that may propose models
    #[arg(long, value_name = "ADDRESS")]
    pub publisher: Address,

    /// Account that may activate them: another one
    #[arg(long, value_name = "ADDRESS")]
    pub approver: Address,

    /// The registry
    #[command(flatten)]
    pub of: RegistryArgs,

    /// The owner's key
    #[command(flatten)]
    pub key: KeyArgs,
}

/// What `avouch model propose` needs.
#[derive(Debug, Clone, Args)]
pub struct ProposeArgs {
    /// The model file, which is checked whole
    #[arg(value_name = "FILE.model")]
    pub model: String,

    /// Where others find the file; what counts is its hash
    #[arg(long, default_value = "", value_name = "URI")]
    pub uri: String,

    /// The registry
    #[command(flatten)]
    pub of: RegistryArgs,

    /// The publisher's key
    #[command(flatten)]
    pub key: KeyArgs,
}

/// What `avouch model activate` needs.
#[derive(Debug, Clone, Args)]
pub struct ActivateArgs {
    /// The model file, or its SHA-256 in hexadecimal
    #[arg(value_name = "MODEL")]
    pub model: String,

    /// When its window begins, now or later [default: now]
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,

    /// When it ends [default: when it is revoked]
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// The registry
    #[command(flatten)]
    pub of: RegistryArgs,

    /// The approver's key
    #[command(flatten)]
    pub key: KeyArgs,
}

/// What `avouch model revoke` needs.
#[derive(Debug, Clone, Args)]
pub struct RevokeArgs {
    /// The model file, or its SHA-256 in hexadecimal
    #[arg(value_name = "MODEL")]
    pub model: String,

    /// Why; only the text's SHA-256 goes on chain, so keep it
    #[arg(long, value_name = "TEXT")]
    pub reason: String,

    /// The registry
    #[command(flatten)]
    pub of: RegistryArgs,

    /// The key of publisher, approver or owner
    #[command(flatten)]
    pub key: KeyArgs,
}

/// What `avouch model status` needs.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// The model file, or its SHA-256 in hexadecimal
    #[arg(value_name = "MODEL")]
    pub model: String,

    /// The registry; --owner must be given, for there is no key
    #[command(flatten)]
    pub of: RegistryArgs,
}

/// Why a command about a registry failed.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// The chain, or what the contract said.
    #[error(transparent)]
    Chain(#[from] EthereumError),
    /// What was named is no model.
    #[error("{model}: {why}; name a model file, or the SHA-256 of one in 64 hexadecimal digits")]
    Model {
        /// As given.
        model: String,
        /// What is wrong.
        why: String,
    },
    /// A time cannot be read.
    #[error("`{0}` is no time; write it as 2026-11-26T08:00:00Z")]
    Time(String),
    /// Reading needs no key, and so does not know whose registry is meant.
    #[error("say whose registry it is: --owner ADDRESS")]
    NoOwner,
    /// No async runtime.
    #[error("cannot start the async runtime: {0}")]
    Runtime(std::io::Error),
}

/// A model by its file or its hash, and the digest of what it was trained on, if the file is here.
fn model_of(named: &str) -> Result<(Hash32, Option<Hash32>), RegistryError> {
    let wrong = |why: String| RegistryError::Model { model: named.to_owned(), why };
    let path = Path::new(named);
    if !path.exists() {
        return match hex_bytes(named) {
            Some(hash) => Ok((hash, None)),
            None => Err(wrong("there is no such file, and it is no hash".into())),
        };
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    avouch_models::load(&bytes).map_err(|e| wrong(e.to_string()))?;
    let model = avouch_models::file::open(&bytes).map_err(|e| wrong(e.to_string()))?;
    Ok((model.hash, hex_bytes(&model.card.training.digest)))
}

fn seconds(text: Option<&String>) -> Result<Option<u64>, RegistryError> {
    text.map(|t| {
        let ms = parse_timestamp(t.as_bytes()).filter(|ms| *ms >= 0);
        ms.map(|ms| ms.unsigned_abs() / 1000).ok_or_else(|| RegistryError::Time(t.clone()))
    })
    .transpose()
}

fn time(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|s| s.checked_mul(1000))
        .map_or_else(|| "for ever".to_owned(), format_timestamp)
}

impl RegistryArgs {
    async fn open(&self, owner: Address) -> Result<ModelRegistry, EthereumError> {
        let name: Hash32 = Sha256::digest(self.name.as_bytes()).into();
        let (url, chain) = (&self.chain.rpc, self.chain.chain_id);
        ModelRegistry::connect(url, chain, self.registry, owner, name, RpcOptions::default()).await
    }
}

/// Runs one command, and prints what came of it.
fn answer(json: bool, done: impl FnOnce(tokio::runtime::Runtime) -> Result<Said, RegistryError>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RegistryError::Runtime);
    match runtime.and_then(done) {
        Ok(said) => {
            if json {
                println!("{}", said.json)
            } else {
                println!("{}", said.text)
            }
            ExitCode::SUCCESS
        }
        Err(e) => fail(json, e),
    }
}

struct Said {
    text: String,
    json: Value,
}

/// Makes the registry, or gives its roles to others. Exit code 0 once that is in a block.
pub fn register(args: &RegisterArgs) -> ExitCode {
    answer(args.of.json, |runtime| {
        let key = runtime.block_on(args.key.key())?;
        runtime.block_on(async {
            let registry = args.of.open(args.of.owner.unwrap_or(key.address())).await?;
            let (publisher, approver) = (args.publisher, args.approver);
            let (done, transaction) = match registry.roles().await? {
                None => ("made", registry.register(&key, publisher, approver).await?),
                Some(_) => ("given other roles", registry.set_roles(&key, publisher, approver).await?),
            };
            let id = hex(&registry.id());
            Ok(Said {
                text: format!(
                    "registry `{}` of {} is {done}: {publisher} proposes, {approver} activates\nits id is 0x{id}",
                    args.of.name,
                    key.address()
                ),
                json: json!({ "registry_id": format!("0x{id}"), "owner": key.address().to_string(), "done": done,
                    "publisher": publisher.to_string(), "approver": approver.to_string(),
                    "transaction": format!("0x{}", hex(&transaction)) }),
            })
        })
    })
}

/// Changes a model's right to decide, and says what it is now.
fn change<'a, F>(
    of: &RegistryArgs,
    key: &KeyArgs,
    model: Hash32,
    act: impl FnOnce(ModelRegistry, OperatorKey) -> F + 'a,
) -> ExitCode
where
    F: Future<Output = Result<(ModelRegistry, Hash32), EthereumError>>,
{
    answer(of.json, |runtime| {
        let key = runtime.block_on(key.key())?;
        runtime.block_on(async {
            let registry = of.open(of.owner.unwrap_or(key.address())).await?;
            let (registry, transaction) = act(registry, key).await?;
            let now = registry.model(&model).await?;
            let mut said = status_of(&model, now.as_ref());
            said.json["transaction"] = json!(format!("0x{}", hex(&transaction)));
            Ok(said)
        })
    })
}

/// Proposes. Exit code 0 once that is in a block.
pub fn propose(args: &ProposeArgs) -> ExitCode {
    let (model, data) = match model_of(&args.model) {
        Ok((model, Some(data))) => (model, data),
        Ok((_, None)) => {
            let why = "the file is needed, for its card says what it was trained on".to_owned();
            return fail(args.of.json, RegistryError::Model { model: args.model.clone(), why });
        }
        Err(e) => return fail(args.of.json, e),
    };
    change(&args.of, &args.key, model, |registry, key| async move {
        let transaction = registry.propose(&key, &model, &data, &args.uri).await?;
        Ok((registry, transaction))
    })
}

/// Activates. Exit code 0 once that is in a block.
pub fn activate(args: &ActivateArgs) -> ExitCode {
    let read = || -> Result<_, RegistryError> {
        Ok((model_of(&args.model)?.0, seconds(args.from.as_ref())?, seconds(args.until.as_ref())?))
    };
    let (model, from, until) = match read() {
        Ok(read) => read,
        Err(e) => return fail(args.of.json, e),
    };
    change(&args.of, &args.key, model, |registry, key| async move {
        let transaction = registry.activate(&key, &model, from, until).await?;
        Ok((registry, transaction))
    })
}

/// Revokes. Exit code 0 once that is in a block.
pub fn revoke(args: &RevokeArgs) -> ExitCode {
    let model = match model_of(&args.model) {
        Ok((model, _)) => model,
        Err(e) => return fail(args.of.json, e),
    };
    let reason: Hash32 = Sha256::digest(args.reason.as_bytes()).into();
    change(&args.of, &args.key, model, |registry, key| async move {
        let transaction = registry.revoke(&key, &model, &reason).await?;
        Ok((registry, transaction))
    })
}

/// Says what the registry knows of a model. Exit code 0 if it may decide now.
pub fn status(args: &StatusArgs) -> ExitCode {
    let mut active = false;
    let code = answer(args.of.json, |runtime| {
        let owner = args.of.owner.ok_or(RegistryError::NoOwner)?;
        let (model, _) = model_of(&args.model)?;
        runtime.block_on(async {
            let registry = args.of.open(owner).await?;
            let now = registry.model(&model).await?;
            active = now.as_ref().is_some_and(|m| m.is_active(present()));
            Ok(status_of(&model, now.as_ref()))
        })
    });
    if active || code != ExitCode::SUCCESS { code } else { ExitCode::FAILURE }
}

fn present() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

fn status_of(model: &Hash32, now: Option<&ModelOnChain>) -> Said {
    let hash = hex(model);
    let Some(m) = now else {
        return Said {
            text: format!("model {hash} was not proposed here: it may not decide"),
            json: json!({ "model": hash, "proposed": false, "active": false }),
        };
    };
    let mut text = format!("model {hash}\n  proposed  {} by {}", time(m.proposed_at), m.proposer);
    match m.window {
        None => text += "\n  active    not yet: its approver has to activate it",
        Some((from, until)) => {
            let until =
                if until == u64::MAX { "until it is revoked".to_owned() } else { format!("until {}", time(until)) };
            text += &format!("\n  active    from {} {until}", time(from));
        }
    }
    if let Some(at) = m.revoked_at {
        text += &format!("\n  revoked   {}", time(at));
    }
    let json = json!({
        "model": hash,
        "proposed": true,
        "proposed_at": time(m.proposed_at),
        "proposer": m.proposer.to_string(),
        "training_digest": hex(&m.data_hash),
        "active_from": m.window.map(|w| time(w.0)),
        "active_until": m.window.filter(|w| w.1 != u64::MAX).map(|w| time(w.1)),
        "revoked_at": m.revoked_at.map(time),
        "active": m.is_active(present()),
    });
    Said { text, json }
}
