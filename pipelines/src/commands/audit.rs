//! `avouch audit`: a whole log against what was signed and anchored.

mod chain;
mod html;
mod render;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use avouch_connectors::ethereum::{Address, Checkpoint, Domain};
use avouch_engine::audit::{AuditReport, Claims, Grade, LogAudit};
use avouch_engine::bundle::SignedCheckpoint;
use avouch_engine::verdict::LogOrigin;
use clap::Args;

use super::fail;
use crate::handover::{Handover, HandoverError};
use crate::lang::parse_duration;

/// Audit a whole exported log: every record, checkpoint and anchor, gapless seq, offsets, models, delays. Needs nothing of
/// the operator's but the export.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// The export: `avouch export PIPELINE.toml --out DIR` makes it
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// JSON-RPC endpoint of the chain, one that you trust; of several, all must agree. Without it nothing shows when the log was fixed
    #[arg(long, value_name = "URL", requires = "contract")]
    pub rpc: Vec<String>,

    /// The VerdictLog contract you expect
    #[arg(long, value_name = "ADDRESS")]
    pub contract: Option<Address>,

    /// The account you expect to own the log
    #[arg(long, value_name = "ADDRESS")]
    pub owner: Option<Address>,

    /// The signer you expect; several if it was changed
    #[arg(long, value_name = "ADDRESS")]
    pub signer: Vec<Address>,

    /// Block to search for anchors from: that of the contract's deployment
    #[arg(long, value_name = "N", default_value_t = 0, requires = "rpc")]
    pub from_block: u64,

    /// Count anchors in blocks that are not final yet, which a reorganisation may still take back
    #[arg(long, requires = "rpc")]
    pub latest: bool,

    /// Address of the ModelRegistry contract
    #[arg(long, value_name = "ADDRESS", requires = "rpc", requires = "registry_owner")]
    pub registry: Option<Address>,

    /// Whose registry of models it is
    #[arg(long, value_name = "ADDRESS", requires = "registry")]
    pub registry_owner: Option<Address>,

    /// The owner's name for the registry
    #[arg(long, value_name = "NAME", default_value = "models")]
    pub registry_name: String,

    /// What was promised: how long after the end of its window a verdict is anchored [default: max_merge_delay and
    /// max_disorder of the pipeline]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub promise: Option<i64>,

    /// Write the report as one HTML page
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn duration(text: &str) -> Result<i64, String> {
    parse_duration(text).map_err(|e| e.to_string())
}

/// What was asked for and what was found.
pub(crate) struct Audit {
    pub report: AuditReport,
    pub handover: Handover,
    /// What the reader must know of how the chain was asked.
    pub chain: Option<String>,
}

/// Audits. Exit code 0 if no check that was made failed.
pub fn run(args: &AuditArgs) -> ExitCode {
    let audit = match audit(args) {
        Ok(audit) => audit,
        Err(e) => return fail(args.json, e),
    };
    if let Some(path) = &args.html
        && let Err(e) = std::fs::write(path, html::page(&audit))
    {
        return fail(args.json, format!("{}: {e}", path.display()));
    }
    if args.json {
        println!("{}", render::json(&audit));
    } else {
        print!("{}", render::text(&audit));
    }
    if audit.report.grade() == Grade::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Makes all checks. The error says why they could not be made at all.
pub(crate) fn audit(args: &AuditArgs) -> Result<Audit, String> {
    let handover = Handover::open(&args.dir).map_err(|e| e.to_string())?;
    let origin = LogOrigin::from_text(handover.head.log.clone());
    let asked = match args.rpc.is_empty() {
        true => None,
        false => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| format!("cannot start the async runtime: {e}"))?;
            let named = match args.registry {
                Some(_) => handover.models_named().map_err(|e| e.to_string())?,
                None => BTreeSet::new(),
            };
            let asking = chain::ask(args, &handover, &named, &origin);
            Some(runtime.block_on(asking).map_err(|e| format!("the chain could not be asked: {e}"))?)
        }
    };
    let (anchors, models, said) = match asked {
        Some(asked) => (Some(asked.anchors), asked.models, Some(asked.said)),
        None => (None, None, None),
    };
    let claims = Claims {
        origin,
        topic: handover.head.topic.clone(),
        partition: handover.head.partition,
        signed: handover.signed.clone(),
        offsets: handover.offsets.clone(),
        anchors,
        models,
        promise_ms: args.promise.or_else(|| promised(&handover)).and_then(|ms| u64::try_from(ms).ok()),
        model_files: handover.models.keys().copied().collect(),
        pipelines: handover.pipelines.keys().copied().collect(),
    };
    let report = records(&handover, claims, args).map_err(|e| e.to_string())?;
    Ok(Audit { report, handover, chain: said })
}

fn records(handover: &Handover, claims: Claims, args: &AuditArgs) -> Result<AuditReport, HandoverError> {
    let mut audit = LogAudit::new(claims);
    let mut records = handover.records()?;
    loop {
        let piece = records.next()?;
        if piece.is_empty() {
            break;
        }
        audit.take(&piece);
    }
    Ok(audit.finish(Some(&|c| signature(c, args))))
}

/// Checks a checkpoint's signature, and that it is by and for whom the auditor expects.
fn signature(c: &SignedCheckpoint, args: &AuditArgs) -> Result<String, String> {
    let (contract, owner, signer) = (Address::from(c.contract), Address::from(c.owner), Address::from(c.signer));
    if let Some(expected) = args.contract.filter(|e| *e != contract) {
        return Err(format!("it is for the contract {contract}, not for {expected}"));
    }
    if let Some(expected) = args.owner.filter(|e| *e != owner) {
        return Err(format!("it names {owner} as the log's owner, not {expected}"));
    }
    if !args.signer.is_empty() && !args.signer.contains(&signer) {
        return Err(format!("it names {signer} as signer, whom you do not expect"));
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
        .map(|()| format!("made by {signer}"))
        .map_err(|e| e.to_string())
}

/// The delay that the pipeline in force at the end promises: what it waits for disorder, and what an anchor may take.
fn promised(handover: &Handover) -> Option<i64> {
    let json = handover.pipelines.get(&handover.config().ok()?)?;
    let pipeline: serde_json::Value = serde_json::from_str(json).ok()?;
    let delay = parse_duration(pipeline.pointer("/anchor/max_merge_delay")?.as_str()?).ok()?;
    let sources = pipeline.get("sources")?.as_object()?;
    let disorder = |source: &serde_json::Value| {
        source.pointer("/time/max_disorder").and_then(|d| d.as_str()).and_then(|d| parse_duration(d).ok())
    };
    let disorder = sources.values().filter_map(disorder).max().unwrap_or(0);
    Some(delay.saturating_add(disorder))
}
