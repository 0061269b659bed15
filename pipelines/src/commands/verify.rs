//! `avouch verify`: checks an evidence bundle, offline, and with an endpoint against the chain.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use avouch_connectors::ethereum::{Address, At, ChainReader, Checkpoint, Domain, EthereumError, RpcOptions};
use avouch_engine::bundle::{Bundle, Files, Outcome, SignedCheckpoint, Step, accepted, parse, verify_offline};
use avouch_engine::decode::format_timestamp;
use clap::Args;
use serde_json::json;

use super::fail;

/// Verify an evidence bundle: offline first, then with --rpc against the chain. Needs nothing of the operator's.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// The bundle's directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// JSON-RPC endpoint of the chain, one that you trust
    #[arg(long, value_name = "URL")]
    pub rpc: Option<String>,

    /// The contract you expect; otherwise the one the bundle names is used, and it is yours to judge whether it is the right one
    #[arg(long, value_name = "ADDRESS")]
    pub contract: Option<Address>,

    /// The signer you expect
    #[arg(long, value_name = "ADDRESS")]
    pub signer: Option<Address>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Verifies. Exit code 0 only if every step that was made passed.
pub fn run(args: &VerifyArgs) -> ExitCode {
    let (bundle, mut steps) = match offline(&args.dir, args.contract, args.signer) {
        Ok(checked) => checked,
        Err(e) => return refuse(args, &e),
    };
    if let Some(url) = &args.rpc {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(r) => r,
            Err(e) => return fail(args.json, format!("cannot start the async runtime: {e}")),
        };
        match runtime.block_on(on_chain(url, &bundle)) {
            Ok(mut more) => steps.append(&mut more),
            Err(e) => {
                // Not a verdict on the bundle: the question could not be asked.
                show(args, &bundle, &steps, Some(&format!("the chain could not be asked: {e}")));
                return ExitCode::FAILURE;
            }
        }
    }
    show(args, &bundle, &steps, None);
    if accepted(&steps) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads a bundle and makes every check that needs no chain. The error says why it is no bundle at all.
pub(crate) fn offline(
    dir: &Path,
    contract: Option<Address>,
    signer: Option<Address>,
) -> Result<(Bundle, Vec<Step>), String> {
    let bundle = parse(&read(dir)?).map_err(|e| e.to_string())?;
    let signature = |c: &SignedCheckpoint| check_signature(c, contract, signer);
    let steps = verify_offline(&bundle, Some(&signature));
    Ok((bundle, steps))
}

fn read(dir: &Path) -> Result<Files, String> {
    let fail = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    let mut files = Files::new();
    for entry in std::fs::read_dir(dir).map_err(|e| fail(dir, e))? {
        let path = entry.map_err(|e| fail(dir, e))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
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
pub(crate) async fn on_chain(url: &str, bundle: &Bundle) -> Result<Vec<Step>, EthereumError> {
    let c = &bundle.checkpoint;
    let contract = Address::from(c.contract);
    let chain = ChainReader::connect(url, Some(c.chain_id), contract, RpcOptions::default()).await?;
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

fn refuse(args: &VerifyArgs, why: &str) -> ExitCode {
    if args.json {
        println!("{}", json!({ "accepted": false, "error": why }));
    } else {
        println!("REFUSED: {why}");
    }
    ExitCode::FAILURE
}

/// Prints the steps and what follows from them; `undecided` says why nothing does.
fn show(args: &VerifyArgs, bundle: &Bundle, steps: &[Step], undecided: Option<&str>) {
    let ok = accepted(steps);
    if args.json {
        let steps: Vec<_> = steps
            .iter()
            .map(|s| {
                let (outcome, detail) = match &s.outcome {
                    Outcome::Passed(d) => ("passed", d.clone()),
                    Outcome::Failed { why, .. } => ("failed", why.clone()),
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
        bundle.origin.as_str(),
        avouch_engine::verdict::Severity::from_code(v.severity).map_or("unknown", |s| s.name()),
        crate::runtime::class_name(v.class),
        bundle.evidence.device,
        format_timestamp(v.window_start as i64),
        format_timestamp(v.window_end as i64)
    );
    for s in steps {
        let (mark, detail) = match &s.outcome {
            Outcome::Passed(d) => ("ok     ", d.clone()),
            Outcome::Failed { why, .. } => ("REFUSED", why.clone()),
            other => ("skipped", format!("{other:?}")),
        };
        println!(
            "  {mark} {:<20} {detail}\n          proves: {}\n          not:    {}",
            s.name, s.proves, s.does_not_prove
        );
    }
    if args.rpc.is_none() {
        println!("  (without --rpc the chain was not asked: the log may have been rewritten since)");
    }
    if args.contract.is_none() || args.signer.is_none() {
        println!(
            "  (without --contract and --signer the addresses are the bundle's own word: compare them with ones you know)"
        );
    }
    match undecided {
        Some(why) if ok => println!("NOT DECIDED: {why}"),
        _ => println!("{}", if ok { "ACCEPTED" } else { "REFUSED" }),
    }
}
