//! The committed artifacts: the bytes that are deployed, and that deployed code is compared with.

use std::sync::OnceLock;

use alloy::primitives::{Bytes, hex, keccak256};
use avouch_engine::verdict::Hash32;
use serde::Deserialize;

/// A contract that comes with this program. None has a constructor or immutables, so each has one code on every chain and at
/// every address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contract {
    /// The witness of verdict logs.
    VerdictLog,
    /// Which models may decide, and since when.
    ModelRegistry,
    /// Which keys speak for which device.
    DeviceRegistry,
    /// Verifies the P-256 keys of devices.
    P256Verifier,
    /// A person's answer to a machine's verdict.
    Cases,
    /// Orders that proven verdicts open, paid from escrow.
    MaintenanceOrder,
    /// Shipments that proven excursions reduce the pay of.
    ColdChainShipment,
    /// Machines that rent themselves out, paid by proven usage.
    MachineRental,
}

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

impl Contract {
    /// All of them.
    pub const ALL: [Contract; 8] = [
        Contract::VerdictLog,
        Contract::ModelRegistry,
        Contract::DeviceRegistry,
        Contract::P256Verifier,
        Contract::Cases,
        Contract::MaintenanceOrder,
        Contract::ColdChainShipment,
        Contract::MachineRental,
    ];

    /// Its name in Solidity.
    pub fn name(self) -> &'static str {
        match self {
            Contract::VerdictLog => "VerdictLog",
            Contract::ModelRegistry => "ModelRegistry",
            Contract::DeviceRegistry => "DeviceRegistry",
            Contract::P256Verifier => "P256Verifier",
            Contract::Cases => "Cases",
            Contract::MaintenanceOrder => "MaintenanceOrder",
            Contract::ColdChainShipment => "ColdChainShipment",
            Contract::MachineRental => "MachineRental",
        }
    }

    /// keccak256 of its code on chain: what `cast codehash` shows for a genuine one.
    pub fn code_hash(self) -> Hash32 {
        self.code().deployed_hash
    }

    /// What a transaction without recipient carries to deploy it.
    pub(crate) fn creation_code(self) -> Bytes {
        self.code().creation.clone()
    }

    /// Its code on chain.
    pub(crate) fn deployed_code(self) -> &'static [u8] {
        &self.code().deployed
    }

    fn artifact(self) -> &'static str {
        match self {
            Contract::VerdictLog => include_str!("../../ethereum/contracts/artifacts/VerdictLog.json"),
            Contract::ModelRegistry => include_str!("../../ethereum/contracts/artifacts/ModelRegistry.json"),
            Contract::DeviceRegistry => include_str!("../../ethereum/contracts/artifacts/DeviceRegistry.json"),
            Contract::P256Verifier => include_str!("../../ethereum/contracts/artifacts/P256Verifier.json"),
            Contract::Cases => include_str!("../../ethereum/contracts/artifacts/Cases.json"),
            Contract::MaintenanceOrder => include_str!("../../ethereum/contracts/artifacts/MaintenanceOrder.json"),
            Contract::ColdChainShipment => include_str!("../../ethereum/contracts/artifacts/ColdChainShipment.json"),
            Contract::MachineRental => include_str!("../../ethereum/contracts/artifacts/MachineRental.json"),
        }
    }

    fn code(self) -> &'static Code {
        static CODE: [OnceLock<Code>; Contract::ALL.len()] = [const { OnceLock::new() }; Contract::ALL.len()];
        CODE[self as usize].get_or_init(|| {
            // Invariant: the artifact is part of the program, and a test reads it.
            let Ok(artifact) = serde_json::from_str::<Artifact>(self.artifact()) else {
                unreachable!("the {} artifact compiled into this program is not readable", self.name());
            };
            let bytes = |text: &str| -> Bytes { hex::decode(text).unwrap_or_default().into() };
            let deployed = bytes(&artifact.deployed_bytecode);
            let deployed_hash = keccak256(&deployed).0;
            Code { creation: bytes(&artifact.bytecode), deployed, deployed_hash }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use alloy::json_abi::JsonAbi;
    use alloy::sol_types::{SolCall, SolError, SolEvent, SolInterface};

    use super::*;
    use crate::ethereum::bindings::DeviceRegistry::{self, DeviceRegistryCalls, DeviceRegistryErrors};
    use crate::ethereum::bindings::ModelRegistry::{self, ModelRegistryCalls, ModelRegistryErrors};
    use crate::ethereum::bindings::VerdictLog::{self, VerdictLogCalls, VerdictLogErrors};

    fn abi(contract: Contract) -> JsonAbi {
        let artifact: serde_json::Value = serde_json::from_str(contract.artifact()).unwrap();
        assert_eq!(artifact["contract"], contract.name());
        serde_json::from_value(artifact["abi"].clone()).unwrap()
    }

    #[test]
    fn the_artifacts_are_whole_and_have_no_immutables() {
        for contract in Contract::ALL {
            let (creation, deployed) = (contract.creation_code(), contract.deployed_code());
            assert!(creation.len() > deployed.len() && deployed.len() > 1000, "{contract:?}");
            // EIP-170: a chain takes no longer code.
            assert!(deployed.len() <= 24_576, "{contract:?}: {}", deployed.len());
            // Code without immutables is deployed as it stands at the end of the creation code.
            assert!(creation.ends_with(deployed), "{contract:?}");
        }
    }

    fn bound(contract: Contract, mut calls: Vec<[u8; 4]>, errors: Vec<[u8; 4]>, events: &[[u8; 32]]) {
        let abi = abi(contract);
        let mut functions: Vec<[u8; 4]> = abi.functions().map(|f| f.selector().0).collect();
        functions.sort_unstable();
        calls.sort_unstable();
        assert_eq!(functions, calls, "{contract:?}");
        // `SafeCast`-like errors of libraries may stand in the ABI too; every one of ours must.
        let known: Vec<[u8; 4]> = abi.errors().map(|e| e.selector().0).collect();
        for selector in errors {
            assert!(known.contains(&selector), "{contract:?}: error {selector:02x?} is not in the artifact");
        }
        let known: Vec<[u8; 32]> = abi.events().map(|e| e.selector().0).collect();
        for hash in events {
            assert!(known.contains(hash), "{contract:?}: event {hash:02x?} is not in the artifact");
        }
    }

    #[test]
    fn the_bindings_are_the_artifacts_abi() {
        bound(
            Contract::VerdictLog,
            VerdictLogCalls::selectors().collect(),
            VerdictLogErrors::selectors().collect(),
            &[
                VerdictLog::LogRegistered::SIGNATURE_HASH.0,
                VerdictLog::SignerChanged::SIGNATURE_HASH.0,
                VerdictLog::LogSucceeded::SIGNATURE_HASH.0,
                VerdictLog::CheckpointAdvanced::SIGNATURE_HASH.0,
            ],
        );
        assert_eq!(VerdictLog::advanceCall::SIGNATURE.split('(').next().unwrap(), "advance");
        assert_eq!(VerdictLog::ZeroAddress::SIGNATURE, "ZeroAddress()");
        bound(
            Contract::ModelRegistry,
            ModelRegistryCalls::selectors().collect(),
            ModelRegistryErrors::selectors().collect(),
            &[
                ModelRegistry::RolesSet::SIGNATURE_HASH.0,
                ModelRegistry::ModelProposed::SIGNATURE_HASH.0,
                ModelRegistry::ModelActivated::SIGNATURE_HASH.0,
                ModelRegistry::ModelRevoked::SIGNATURE_HASH.0,
            ],
        );
        bound(
            Contract::DeviceRegistry,
            DeviceRegistryCalls::selectors().collect(),
            DeviceRegistryErrors::selectors().collect(),
            &[
                DeviceRegistry::EnrollerSet::SIGNATURE_HASH.0,
                DeviceRegistry::DeviceKeySet::SIGNATURE_HASH.0,
                DeviceRegistry::DeviceRevoked::SIGNATURE_HASH.0,
            ],
        );
    }
}
