//! `avouch bundle`: the evidence for one verdict, as a directory an auditor can take away.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use avouch_connectors::ethereum::{Address, ChainReader, EthereumError, RpcOptions};
use avouch_connectors::store::{LaneReader, StoreError};
use avouch_engine::bundle::{BundleError, Files, Part, Parts, SignedCheckpoint, build};
use avouch_engine::verdict::{LogOrigin, Logged, NO_MODEL, Severity, VerdictRecord, class};
use clap::Args;
use serde_json::json;
use thiserror::Error;

use super::fail;
use crate::lang::{Anchor, Pipeline};
use crate::runtime::{
    self, Artifacts, CheckpointStore, RuntimeError, lane_dir, lanes_here, model_path, pipeline_path, signed,
};

/// Bundle the evidence for one verdict: the verdict, its proof, the signed checkpoint, the model and the pipeline.
#[derive(Debug, Clone, Args)]
pub struct BundleArgs {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub file: PathBuf,

    /// Source partition of the verdict's log
    #[arg(long, value_name = "PARTITION")]
    pub lane: Option<i32>,

    /// Index of the verdict in its log
    #[arg(long, value_name = "N", requires = "lane")]
    pub index: Option<u64>,

    /// Without an index: the newest anchored verdict of this device
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,

    /// Without an index: the newest anchored verdict at least this grave
    #[arg(long, value_name = "warning|critical", value_parser = severity)]
    pub severity: Option<Severity>,

    /// Directory to write; it must not exist
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Keep this part back: evidence, model, pipeline, or of the evidence features, device, source, feature:NAME …; several may be given. The verdict commits to it, so that it can be shown later
    #[arg(long, value_name = "PART", value_parser = super::verify::part)]
    pub withhold: Vec<Part>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn severity(text: &str) -> Result<Severity, String> {
    Severity::ALL.into_iter().find(|s| s.name() == text).ok_or_else(|| "use normal, warning or critical".to_owned())
}

/// Why no bundle was made.
#[derive(Debug, Error)]
pub enum BundleFailure {
    /// The pipeline anchors nothing.
    #[error("{0} has no [anchor], so its verdicts are not anchored and cannot be bundled")]
    NoAnchor(PathBuf),
    /// No such verdict.
    #[error("no anchored verdict fits; {0}")]
    NoVerdict(String),
    /// The directory is there already.
    #[error("{0} exists already; choose another directory")]
    Exists(PathBuf),
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The runtime's files cannot be read.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The chain cannot be read.
    #[error(transparent)]
    Chain(#[from] EthereumError),
    /// What is kept does not belong together.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
}

/// Writes the bundle. Exit code 0 if it is complete and consistent.
pub fn run(args: &BundleArgs) -> ExitCode {
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
    match runtime.block_on(bundle(args, &pipeline)) {
        Ok(made) if args.json => println!(
            "{}",
            json!({
                "directory": args.out,
                "log": made.origin.as_str(),
                "index": made.record.index,
                "size": made.checkpoint.new_size,
                "entry": format!("0x{}", runtime::hex(&made.record.entry())),
                "verdict": runtime::verdict_json(made.origin.as_str(), &made.record),
            })
        ),
        Ok(made) => println!(
            "wrote {}: verdict {} of {} about {}, anchored at size {}\ncheck it: avouch verify {} [--rpc URL]",
            args.out.display(),
            made.record.index,
            made.origin.as_str(),
            made.record.evidence.device,
            made.checkpoint.new_size,
            args.out.display()
        ),
        Err(e) => return fail(args.json, e),
    }
    ExitCode::SUCCESS
}

/// What was bundled.
pub(crate) struct Made {
    pub(crate) origin: LogOrigin,
    pub(crate) record: VerdictRecord,
    pub(crate) checkpoint: SignedCheckpoint,
}

pub(crate) async fn bundle(args: &BundleArgs, pipeline: &Pipeline) -> Result<Made, BundleFailure> {
    let Some(anchor) = &pipeline.anchor else {
        return Err(BundleFailure::NoAnchor(args.file.clone()));
    };
    if args.out.exists() {
        return Err(BundleFailure::Exists(args.out.clone()));
    }
    let state = lanes_here(pipeline)?;
    let artifacts = Artifacts::new(&pipeline.name.value, &state, &CheckpointStore::open(pipeline)?);
    let lanes = match args.lane {
        Some(lane) => vec![lane],
        None => lanes(&state)?,
    };
    let mut seen = 0;
    for lane in lanes {
        let dir = lane_dir(&state, lane);
        let reader = LaneReader::open_read_only(&dir)?;
        let kept = signed::all(&dir)?;
        let Some(newest) = kept.iter().map(|c| c.new_size).max() else { continue };
        seen = seen.max(newest);
        let wanted = Wanted { index: args.index, device: args.device.as_deref(), severity: args.severity };
        if let Some(record) = find(&wanted, &reader, newest.min(reader.committed().log_size))? {
            let Some(checkpoint) = anchored(anchor, &kept, record.index).await? else { continue };
            write(args, &artifacts, &reader, &record, &checkpoint)?;
            let origin = LogOrigin::from_text(reader.committed().origin.clone());
            return Ok(Made { origin, record, checkpoint });
        }
    }
    let what = match args.index {
        Some(i) => format!("index {i} is beyond what is anchored ({seen})"),
        None => format!("{seen} verdicts are anchored, none of them of this device and severity"),
    };
    Err(BundleFailure::NoVerdict(what))
}

/// The lanes that have state, in order.
pub(crate) fn lanes(state: &Path) -> Result<Vec<i32>, BundleFailure> {
    let fail = |source| BundleFailure::File { path: state.to_path_buf(), source };
    let mut out: Vec<i32> = Vec::new();
    for entry in std::fs::read_dir(state).map_err(fail)? {
        if let Some(lane) = entry.map_err(fail)?.file_name().to_str().and_then(|n| n.parse().ok()) {
            out.push(lane);
        }
    }
    out.sort_unstable();
    Ok(out)
}

/// Which verdict is meant.
pub(super) struct Wanted<'a> {
    pub index: Option<u64>,
    pub device: Option<&'a str>,
    /// At least.
    pub severity: Option<Severity>,
}

/// The verdict asked for, or the newest one before `size` that fits.
pub(super) fn find(wanted: &Wanted<'_>, reader: &LaneReader, size: u64) -> Result<Option<VerdictRecord>, StoreError> {
    if let Some(index) = wanted.index {
        return Ok(if index < size { Some(reader.verdict(index)?) } else { None });
    }
    const CHUNK: u64 = 1_000;
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        let mut at = start;
        let mut found = None;
        while at < end {
            let records = reader.records(at, (end - at) as usize)?;
            if records.is_empty() {
                break;
            }
            at += records.len() as u64;
            for r in records.iter().filter_map(Logged::record) {
                let device = wanted.device.is_none_or(|d| *d == *r.evidence.device);
                // What a person says of a verdict is none, and is found by its index.
                if device
                    && !class::is_label(r.verdict.class)
                    && wanted.severity.is_none_or(|s| r.verdict.severity >= s.code())
                {
                    found = Some(r.index);
                }
            }
        }
        if let Some(index) = found {
            return Ok(Some(reader.verdict(index)?));
        }
        end = start;
    }
    Ok(None)
}

/// The first checkpoint that covers the index and is on chain as it was signed.
async fn anchored(
    anchor: &Anchor,
    kept: &[SignedCheckpoint],
    index: u64,
) -> Result<Option<SignedCheckpoint>, BundleFailure> {
    let contract = Address::from(anchor.contract.value);
    let chain = ChainReader::over(anchor.rpc.endpoint(RpcOptions::default())?, Some(anchor.chain_id), contract).await?;
    let mut candidates: Vec<&SignedCheckpoint> = kept
        .iter()
        .filter(|c| c.new_size > index && c.chain_id == anchor.chain_id && c.contract == anchor.contract.value)
        .collect();
    candidates.sort_by_key(|c| (c.new_size, std::cmp::Reverse(c.issued_at)));
    for c in candidates {
        if let Some(found) = chain.find_anchor(&c.log_id, c.new_size, 0).await?
            && found.issued_at == c.issued_at
            && found.old_size == c.old_size
        {
            return Ok(Some(c.clone()));
        }
    }
    Ok(None)
}

fn write(
    args: &BundleArgs,
    artifacts: &Artifacts,
    reader: &LaneReader,
    record: &VerdictRecord,
    checkpoint: &SignedCheckpoint,
) -> Result<(), BundleFailure> {
    let state = artifacts.state();
    let model = match record.verdict.model_hash {
        // Of a label.
        NO_MODEL => Vec::new(),
        hash => artifacts.read(&model_path(state, &hash))?,
    };
    let parts = Parts {
        origin: &LogOrigin::from_text(reader.committed().origin.clone()),
        record,
        inclusion: &reader.inclusion_proof(record.index, checkpoint.new_size)?,
        checkpoint,
        coverage: &reader.coverage(checkpoint.old_size, checkpoint.new_size)?,
        model: &model,
        pipeline: &artifacts.read(&pipeline_path(state, &record.verdict.config_hash))?,
    };
    let files: Files = build(&parts, &args.withhold)?;
    let fail = |path: &Path| {
        let path = path.to_path_buf();
        move |source| BundleFailure::File { path, source }
    };
    std::fs::create_dir_all(&args.out).map_err(fail(&args.out))?;
    for (name, bytes) in &files {
        let path = args.out.join(name);
        std::fs::write(&path, bytes).map_err(fail(&path))?;
    }
    Ok(())
}
