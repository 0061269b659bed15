//! The committed artifact: the bytes that are deployed, and that deployed code is compared with.

use std::sync::OnceLock;

use alloy::primitives::{Bytes, hex, keccak256};
use avouch_engine::verdict::Hash32;
use serde::Deserialize;

const ARTIFACT: &str = include_str!("../../ethereum/contracts/artifacts/VerdictLog.json");

#[derive(Deserialize)]
struct Artifact {
    bytecode: String,
    #[serde(rename = "deployedBytecode")]
    deployed_bytecode: String,
}

struct Code {
    creation: Bytes,
    deployed: Bytes,
    deployed_hash: Hash32,
}

fn code() -> &'static Code {
    static CODE: OnceLock<Code> = OnceLock::new();
    CODE.get_or_init(|| {
        // Invariant: the artifact is part of the program, and a test reads it.
        let Ok(artifact) = serde_json::from_str::<Artifact>(ARTIFACT) else {
            unreachable!("the VerdictLog artifact compiled into this program is not readable");
        };
        let bytes = |text: &str| -> Bytes { hex::decode(text).unwrap_or_default().into() };
        let deployed = bytes(&artifact.deployed_bytecode);
        let deployed_hash = keccak256(&deployed).0;
        Code { creation: bytes(&artifact.bytecode), deployed, deployed_hash }
    })
}

/// What a transaction without recipient carries to deploy VerdictLog.
pub(crate) fn creation_code() -> Bytes {
    code().creation.clone()
}

/// VerdictLog's code on chain. It has no immutables, so it is the same on every chain and at every address.
pub(crate) fn deployed_code() -> &'static [u8] {
    &code().deployed
}

/// keccak256 of VerdictLog's code on chain: what `cast codehash` shows for a genuine one.
pub fn verdict_log_code_hash() -> Hash32 {
    code().deployed_hash
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use alloy::json_abi::JsonAbi;
    use alloy::sol_types::{SolCall, SolError, SolEvent, SolInterface};

    use super::*;
    use crate::ethereum::bindings::VerdictLog::{self, VerdictLogCalls, VerdictLogErrors};

    #[test]
    fn the_artifact_is_whole_and_has_no_immutables() {
        assert!(creation_code().len() > deployed_code().len());
        assert!(deployed_code().len() > 1000);
        // Code without immutables is deployed as it stands at the end of the creation code.
        assert!(creation_code().ends_with(deployed_code()));
    }

    #[test]
    fn the_bindings_are_the_artifacts_abi() {
        let artifact: serde_json::Value = serde_json::from_str(ARTIFACT).unwrap();
        let abi: JsonAbi = serde_json::from_value(artifact["abi"].clone()).unwrap();
        let mut functions: Vec<[u8; 4]> = abi.functions().map(|f| f.selector().0).collect();
        let mut bound: Vec<[u8; 4]> = VerdictLogCalls::selectors().collect();
        functions.sort_unstable();
        bound.sort_unstable();
        assert_eq!(functions, bound);
        // `SafeCast`-like errors of libraries may stand in the ABI too; every one of ours must.
        let errors: Vec<[u8; 4]> = abi.errors().map(|e| e.selector().0).collect();
        for selector in VerdictLogErrors::selectors() {
            assert!(errors.contains(&selector), "error {selector:02x?} is not in the artifact");
        }
        let events: Vec<[u8; 32]> = abi.events().map(|e| e.selector().0).collect();
        for hash in [
            VerdictLog::LogRegistered::SIGNATURE_HASH,
            VerdictLog::SignerChanged::SIGNATURE_HASH,
            VerdictLog::LogSucceeded::SIGNATURE_HASH,
            VerdictLog::CheckpointAdvanced::SIGNATURE_HASH,
        ] {
            assert!(events.contains(&hash.0));
        }
        assert_eq!(VerdictLog::advanceCall::SIGNATURE.split('(').next().unwrap(), "advance");
        assert_eq!(VerdictLog::ZeroAddress::SIGNATURE, "ZeroAddress()");
    }
}
