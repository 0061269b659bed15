//! One verdict's evidence: bundled, verified as an auditor would, and refused once a byte of it is another.

use std::path::{Path, PathBuf};

use avouch_connectors::ethereum::{Address, Endpoint, RpcOptions};
use avouch_engine::bundle::{Outcome, Step, accepted, file};
use serde::Serialize;

use super::DemoError;
use crate::commands::bundle::{BundleArgs, Made, bundle};
use crate::commands::verify;
use crate::lang::Pipeline;

/// What became of one verification.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Verified {
    pub(super) accepted: bool,
    /// Steps that passed and all steps.
    pub(super) passed: usize,
    pub(super) steps: usize,
    /// Why it was refused, in the words of the first step that failed.
    pub(super) why: Option<String>,
}

/// A copy with one byte changed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Tampered {
    pub(super) file: &'static str,
    /// Where the byte is.
    pub(super) at: usize,
    pub(super) verified: Verified,
}

/// Bundles one verdict into `out`.
pub(super) async fn make(
    pipeline: &Pipeline,
    file: &Path,
    lane: i32,
    index: u64,
    out: &Path,
) -> Result<Made, DemoError> {
    let args = BundleArgs {
        file: file.to_path_buf(),
        lane: Some(lane),
        index: Some(index),
        device: None,
        severity: None,
        out: out.to_path_buf(),
        withhold: Vec::new(),
        json: false,
    };
    Ok(bundle(&args, pipeline).await?)
}

fn verdict_on(steps: &[Step]) -> Verified {
    let why = steps.iter().find_map(|s| match &s.outcome {
        Outcome::Passed(_) => None,
        Outcome::Failed { why, .. } | Outcome::NotChecked(why) => Some(format!("{}: {why}", s.name)),
        Outcome::Withheld(parts) => Some(format!("{}: {}", s.name, Outcome::of_withheld(parts))),
    });
    let passed = steps.iter().filter(|s| matches!(s.outcome, Outcome::Passed(_))).count();
    Verified { accepted: accepted(steps, &[]), passed, steps: steps.len(), why }
}

/// What `avouch verify DIR --contract … --signer …` says.
pub(super) fn offline(dir: &Path, contract: Address, signer: Address) -> Verified {
    match verify::offline(dir, Some(contract), Some(signer)) {
        Ok((_, steps)) => verdict_on(&steps),
        Err(why) => Verified { accepted: false, passed: 0, steps: 1, why: Some(why) },
    }
}

/// What `avouch verify DIR --rpc URL` says of the chain.
pub(super) async fn on_chain(dir: &Path, rpc: &str, contract: Address, signer: Address) -> Result<Verified, DemoError> {
    let bundle = match verify::offline(dir, Some(contract), Some(signer)) {
        Ok((bundle, _)) => bundle,
        Err(why) => return Ok(Verified { accepted: false, passed: 0, steps: 1, why: Some(why) }),
    };
    Ok(verdict_on(&verify::on_chain(Endpoint::new(rpc, RpcOptions::default())?, &bundle).await?))
}

/// Copies the bundle and changes one byte in each of three files, one at a time; says what the verification makes of it.
pub(super) fn tamper(dir: &Path, contract: Address, signer: Address) -> Result<Vec<Tampered>, DemoError> {
    [file::VERDICT, file::INCLUSION, file::MODEL]
        .into_iter()
        .map(|name| {
            let copy = PathBuf::from(format!("{}-tampered-{}", dir.display(), name.trim_end_matches(".json")));
            std::fs::create_dir(&copy).map_err(|e| DemoError::file(&copy, e))?;
            for entry in std::fs::read_dir(dir).map_err(|e| DemoError::file(dir, e))? {
                let path = entry.map_err(|e| DemoError::file(dir, e))?.path();
                let to = copy.join(path.file_name().unwrap_or_default());
                std::fs::copy(&path, &to).map_err(|e| DemoError::file(&path, e))?;
            }
            let path = copy.join(name);
            let mut bytes = std::fs::read(&path).map_err(|e| DemoError::file(&path, e))?;
            let at = change(&mut bytes);
            std::fs::write(&path, &bytes).map_err(|e| DemoError::file(&path, e))?;
            Ok(Tampered { file: name, at, verified: offline(&copy, contract, signer) })
        })
        .collect()
}

/// Changes the first digit from the middle on into another one, so that text stays well-formed; any byte where there is none.
fn change(bytes: &mut [u8]) -> usize {
    let middle = bytes.len() / 2;
    let at = bytes[middle..].iter().position(u8::is_ascii_digit).map_or(middle, |i| middle + i);
    if let Some(b) = bytes.get_mut(at) {
        // 0 ↔ 1, 2 ↔ 3, …: a digit stays a digit.
        *b ^= 1;
    }
    at
}
