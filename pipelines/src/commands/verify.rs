//! `avouch verify`: checks an evidence bundle, offline, and with an endpoint against the chain.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use avouch_connectors::ethereum::{
    Address, At, ChainReader, Checkpoint, Domain, Endpoint, EthereumError, ModelRegistry, RpcOptions,
};
use avouch_engine::bundle::{
    Bundle, Files, Outcome, Part, SignedCheckpoint, Step, accepted, file, parse, verify_offline,
};
use avouch_engine::decode::format_timestamp;
use avouch_engine::verdict::{Hash32, NO_MODEL, class};
use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::fail;
use crate::dead::printable;

/// Verify an evidence bundle: offline first, then with --rpc against the chain. Needs nothing of the operator's.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The bundle's directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// JSON-RPC endpoint of the chain, one that you trust; of several, all must agree
    #[arg(long, value_name = "URL")]
    pub rpc: Vec<String>,

    /// The contract you expect; otherwise the one the bundle names is used, and it is yours to judge whether it is the right one
    #[arg(long, value_name = "ADDRESS")]
    pub contract: Option<Address>,

    /// The signer you expect
    #[arg(long, value_name = "ADDRESS")]
    pub signer: Option<Address>,

    /// The account you expect to own the log
    #[arg(long, value_name = "ADDRESS")]
    pub owner: Option<Address>,

    /// Address of the ModelRegistry contract: whether the model was active there
    #[arg(long, value_name = "ADDRESS", requires = "rpc", requires = "registry_owner")]
    pub registry: Option<Address>,

    /// Whose registry of models it is
    #[arg(long, value_name = "ADDRESS", requires = "registry")]
    pub registry_owner: Option<Address>,

    /// The owner's name for the registry
    #[arg(long, value_name = "NAME", default_value = "models")]
    pub registry_name: String,

    /// Accept that the bundle keeps this part back: evidence, model, pipeline, or of the evidence features, device, source, feature:NAME …; several may be given
    #[arg(long, value_name = "PART", value_parser = part)]
    pub allow_withheld: Vec<Part>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A part of a bundle that may be kept back, by its name.
pub(super) fn part(name: &str) -> Result<Part, String> {
    const PARTS: &str = "use evidence, model or pipeline; or, of the evidence, device, step, source, references, score, \
        incident, label, features or feature:NAME";
    Part::named(name).ok_or_else(|| PARTS.to_owned())
}

/// Verifies. Exit code 0 only if every step that was made passed.
pub fn run(args: &VerifyArgs) -> ExitCode {
    let (bundle, mut steps) = match offline(&args.dir, args.contract, args.signer) {
        Ok(checked) => checked,
        Err(e) => return refuse(args, &e),
    };
    let owner = Address::from(bundle.checkpoint.owner);
    if let (Some(expected), Some(step)) = (args.owner, steps.iter_mut().find(|s| s.name == "log"))
        && expected != owner
    {
        let why = format!("checkpoint.json: the log's owner is {owner}, not {expected}");
        step.outcome = Outcome::Failed { files: vec!["checkpoint.json"], why };
    }
    if !args.rpc.is_empty() {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(r) => r,
            Err(e) => return fail(args.json, format!("cannot start the async runtime: {e}")),
        };
        let asking = async {
            let endpoint = Endpoint::unanimous(&args.rpc, RpcOptions::default())?;
            let mut more = on_chain(endpoint.clone(), &bundle).await?;
            if let (Some(registry), Some(owner)) = (args.registry, args.registry_owner) {
                more.push(in_registry(endpoint, &bundle, registry, owner, &args.registry_name).await?);
            }
            Ok::<_, EthereumError>(more)
        };
        match runtime.block_on(asking) {
            Ok(mut more) => steps.append(&mut more),
            Err(e) => {
                // Not a verdict on the bundle: the question could not be asked.
                show(args, &bundle, &steps, Some(&format!("the chain could not be asked: {e}")));
                return ExitCode::FAILURE;
            }
        }
    }
    show(args, &bundle, &steps, None);
    if accepted(&steps, &args.allow_withheld) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads a bundle and makes every check that needs no chain. The error says why it is no bundle at all.
pub(crate) fn offline(
    dir: &Path,
    contract: Option<Address>,
    signer: Option<Address>,
) -> Result<(Bundle, Vec<Step>), String> {
    if dir.join("log.json").exists() && !dir.join("verdict.json").exists() {
        return Err(format!("{0} is the export of a whole log, not a bundle: avouch audit {0}", dir.display()));
    }
    let bundle = parse(&read(dir)?).map_err(|e| e.to_string())?;
    let signature = |c: &SignedCheckpoint| check_signature(c, contract, signer);
    let steps = verify_offline(&bundle, Some(&signature));
    Ok((bundle, steps))
}

/// Bytes of a file of a bundle but the model.
const LARGEST: u64 = 64 << 20;

fn read(dir: &Path) -> Result<Files, String> {
    let fail = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    let mut files = Files::new();
    for entry in std::fs::read_dir(dir).map_err(|e| fail(dir, e))? {
        let path = entry.map_err(|e| fail(dir, e))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        // A bundle comes from somebody who is not trusted: what is no file of one is not opened, and no file but the model is large.
        let about = std::fs::metadata(&path).map_err(|e| fail(&path, e))?;
        let is_one = file::REQUIRED.contains(&&*name) || [file::README, file::WITHHELD].contains(&&*name);
        if !is_one || !about.is_file() {
            return Err(format!("{}: does not belong to a bundle; move it out of the directory", printable(&name)));
        }
        if about.len() > LARGEST && name != file::MODEL {
            return Err(format!("{name}: {} bytes, more than any bundle has there", about.len()));
        }
        files.insert(name, std::fs::read(&path).map_err(|e| fail(&path, e))?);
    }
    Ok(files)
}

fn check_signature(
    c: &SignedCheckpoint,
    expected_contract: Option<Address>,
    expected_signer: Option<Address>,
) -> Result<String, String> {
    let contract = Address::from(c.contract);
    if let Some(expected) = expected_contract
        && expected != contract
    {
        return Err(format!("it is for the contract {contract}, not for {expected}"));
    }
    let signer = Address::from(c.signer);
    if let Some(expected) = expected_signer
        && expected != signer
    {
        return Err(format!("it names {signer} as signer, not {expected}"));
    }
    let checkpoint = Checkpoint {
        log_id: c.log_id,
        old_size: c.old_size,
        new_size: c.new_size,
        old_root: c.old_root,
        new_root: c.new_root,
        data_commitment: c.data_commitment,
        issued_at: c.issued_at,
    };
    checkpoint
        .verify(&Domain { chain_id: c.chain_id, contract }, &c.signature, signer)
        .map(|()| format!("made by {signer} for chain {} and contract {contract}", c.chain_id))
        .map_err(|e| e.to_string())
}

/// The checks against the chain.
pub(crate) async fn on_chain(endpoint: Endpoint, bundle: &Bundle) -> Result<Vec<Step>, EthereumError> {
    let c = &bundle.checkpoint;
    let contract = Address::from(c.contract);
    let chain = ChainReader::over(endpoint, Some(c.chain_id), contract).await?;
    let failed = |why: String| Outcome::Failed { files: vec!["checkpoint.json"], why };
    let mut steps = Vec::new();

    let signer = chain.signer_of(&c.log_id).await?;
    let owner = chain.owner_of(&c.log_id).await?;
    steps.push(Step {
        name: "registration",
        proves: "the contract knows this log, its owner and whose signature it takes",
        does_not_prove: "who is behind the account",
        outcome: match (owner, signer) {
            (Some(o), _) if o.into_array() != c.owner => failed(format!("checkpoint.json: the log's owner on chain is {o}")),
            (Some(o), Some(s)) if s.into_array() == c.signer => Outcome::Passed(format!("owner {o}, signer {s}")),
            (Some(o), Some(s)) => Outcome::Passed(format!("owner {o}; the log's signer is {s} now. That the checkpoint's was its signer before is for the anchor to show")),
            _ => failed("checkpoint.json: the contract does not know this log".into()),
        },
    });

    let anchor = chain.find_anchor(&c.log_id, c.new_size, 0).await?;
    let finalized = chain.head(&c.log_id, At::Finalized).await?.size >= c.new_size;
    steps.push(Step {
        name: "anchor",
        proves: "the contract itself checked that this checkpoint extends the one before and is signed, at the time of the block",
        does_not_prove: "when the readings were made: only that the verdict was decided before that block",
        outcome: match &anchor {
            None => failed(format!("checkpoint.json: no transaction advanced the log to size {}", c.new_size)),
            Some(a) if a.root != c.new_root => failed("checkpoint.json: the root anchored at that size is another one".into()),
            Some(a) if a.data_commitment != c.data_commitment || a.issued_at != c.issued_at || a.old_size != c.old_size => {
                failed("checkpoint.json: the checkpoint anchored at that size differs in its other fields".into())
            }
            Some(a) => Outcome::Passed(format!(
                "transaction 0x{} in block {}{}",
                crate::runtime::hex(&a.transaction),
                a.block_number,
                if finalized { ", final" } else { ", not final yet" }
            )),
        },
    });

    let remembered = chain.checkpoint_of(&c.log_id, c.new_size, At::Latest).await?;
    let outcome = match remembered {
        None => Outcome::Passed(
            "the contract keeps the last 64 checkpoints and this one is older; the anchor's transaction stands for it"
                .into(),
        ),
        Some(kept) => {
            let i = &bundle.inclusion;
            match chain.verify_inclusion_on_chain(&c.log_id, &i.entry, i.index, i.size, &i.path, At::Latest).await {
                Ok(true) => Outcome::Passed(format!("block time {}", format_timestamp(kept.anchored_at as i64 * 1000))),
                Ok(false) => failed("inclusion.json: the contract says that this entry is not in the log".into()),
                Err(e) => failed(format!("inclusion.json: {e}")),
            }
        }
    };
    steps.push(Step {
        name: "inclusion on chain",
        proves: "the contract, asked with the proof, says that the entry is in the log",
        does_not_prove: "anything about the endpoint: use one that you trust, or several",
        outcome,
    });
    Ok(steps)
}

/// Whether the model might decide, as a registry says.
async fn in_registry(
    endpoint: Endpoint,
    bundle: &Bundle,
    registry: Address,
    owner: Address,
    name: &str,
) -> Result<Step, EthereumError> {
    let name: Hash32 = Sha256::digest(name).into();
    let chain = Some(bundle.checkpoint.chain_id);
    let registry = ModelRegistry::over(endpoint, chain, registry, owner, name).await?;
    let v = &bundle.verdict;
    let when = v.window_end / 1000;
    let failed = |why: &str| Outcome::Failed { files: vec!["verdict.json"], why: format!("verdict.json: {why}") };
    let outcome = match registry.model(&v.model_hash).await? {
        _ if v.model_hash == NO_MODEL && class::is_label(v.class) => {
            Outcome::Passed("a person said this, and no model".into())
        }
        None => failed("its model was never proposed to the registry"),
        Some(m) => match m.window {
            None => failed("its model was proposed, and never activated"),
            Some(_) if !m.is_active(when) => failed("its model was not active at the end of its window"),
            Some((from, _)) => {
                let since = format_timestamp(i64::try_from(from).unwrap_or(0).saturating_mul(1000));
                Outcome::Passed(match m.revoked_at {
                    None => format!("active since {since}"),
                    Some(_) => format!("active since {since}; it was revoked after this window"),
                })
            }
        },
    };
    Ok(Step {
        name: "model registry",
        proves: "a second person had activated the model by the end of the window",
        does_not_prove: "that the model is right, or that the window's time is",
        outcome,
    })
}

fn refuse(args: &VerifyArgs, why: &str) -> ExitCode {
    if args.json {
        println!("{}", json!({ "accepted": false, "error": why }));
    } else {
        println!("REFUSED: {}", printable(why));
    }
    ExitCode::FAILURE
}

/// Prints the steps and what follows from them; `undecided` says why nothing does.
fn show(args: &VerifyArgs, bundle: &Bundle, steps: &[Step], undecided: Option<&str>) {
    let ok = accepted(steps, &args.allow_withheld);
    if args.json {
        let steps: Vec<_> = steps
            .iter()
            .map(|s| {
                let (outcome, detail) = match &s.outcome {
                    Outcome::Passed(d) => ("passed", d.clone()),
                    Outcome::Failed { why, .. } => ("failed", why.clone()),
                    Outcome::Withheld(parts) => ("withheld", Outcome::of_withheld(parts)),
                    other => ("not checked", format!("{other:?}")),
                };
                json!({ "step": s.name, "outcome": outcome, "detail": detail, "proves": s.proves, "does_not_prove": s.does_not_prove })
            })
            .collect();
        println!(
            "{}",
            json!({
                "accepted": if undecided.is_some() && ok { None } else { Some(ok) },
                "error": undecided,
                "log": bundle.origin.as_str(),
                "index": bundle.index,
                "steps": steps,
            })
        );
        return;
    }
    let v = &bundle.verdict;
    println!(
        "verdict {} of {}: {} {} about {}, window {} to {}",
        bundle.index,
        printable(bundle.origin.as_str()),
        avouch_engine::verdict::Severity::from_code(v.severity).map_or("unknown", |s| s.name()),
        crate::runtime::class_name(v.class),
        bundle
            .evidence
            .as_ref()
            .and_then(|e| e.device.as_deref())
            .map_or("a device that is kept back".into(), printable),
        format_timestamp(v.window_start as i64),
        format_timestamp(v.window_end as i64)
    );
    for s in steps {
        let (mark, detail) = match &s.outcome {
            Outcome::Passed(d) => ("ok     ", d.clone()),
            Outcome::Failed { why, .. } => ("REFUSED", why.clone()),
            Outcome::Withheld(parts) => ("withheld", Outcome::of_withheld(parts)),
            other => ("skipped", format!("{other:?}")),
        };
        let detail = printable(&detail);
        println!(
            "  {mark} {:<20} {detail}\n          proves: {}\n          not:    {}",
            s.name, s.proves, s.does_not_prove
        );
    }
    if args.rpc.is_empty() {
        println!("  (without --rpc the chain was not asked: the log may have been rewritten since)");
    }
    if args.contract.is_none() || args.signer.is_none() {
        println!(
            "  (without --contract and --signer the addresses are the bundle's own word: compare them with ones you know)"
        );
    }
    let kept_back = |s: &Step| {
        matches!(s.outcome, Outcome::Withheld(_)) && !accepted(std::slice::from_ref(s), &args.allow_withheld)
    };
    if undecided.is_none() && steps.iter().any(kept_back) {
        println!("  (parts are kept back; whoever does not need them says so with --allow-withheld)");
    }
    match undecided {
        Some(why) if ok => println!("NOT DECIDED: {why}"),
        _ => println!("{}", if ok { "ACCEPTED" } else { "REFUSED" }),
    }
}
