// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IVerdictLog} from "./IVerdictLog.sol";

/// @notice A decision of Avouch, as its log holds it.
/// @dev The EIP-712 struct of the same name (`class_` has the name it has there); its struct hash is the log's entry. It
/// names no device and no model in words: what it commits to is in the evidence, off chain.
struct Verdict {
    /// Pseudonym of the device: HMAC-SHA-256 of its name under the pipeline's secret.
    bytes32 deviceId;
    /// Number among the device's verdicts, from 0 without a gap.
    uint64 seq;
    /// Start of the window that was judged, milliseconds since the Unix epoch.
    uint64 windowStart;
    /// End of the window, milliseconds since the Unix epoch.
    uint64 windowEnd;
    /// SHA-256 of the model file.
    bytes32 modelHash;
    /// SHA-256 of the canonical pipeline file.
    bytes32 configHash;
    /// Digest of the rows used, with their topic, partition and offsets.
    bytes32 inputDigest;
    /// The model's score, times 10^6.
    int64 scoreE6;
    /// 0 normal, 1 warning, 2 critical.
    uint8 severity;
    /// What was found: 1 an anomaly, 3 an expected failure, …; 9 to 12 are labels, by which people speak (see `Class`).
    uint16 class_;
    /// SHA-256 of the evidence.
    bytes32 evidenceHash;
    /// Blinds the entry.
    bytes32 salt;
}

/// @notice Where a verdict stands in a log, with the proof of it.
struct Proof {
    /// Index of the verdict, from 0.
    uint64 index;
    /// Size of the checkpoint that the proof leads to: one of the last 64.
    uint64 size;
    /// RFC 9162 §2.1.3 inclusion proof.
    bytes32[] nodes;
}

/// @notice Severities of verdicts.
library Severity {
    /// Nothing to do.
    uint8 internal constant NORMAL = 0;
    /// Look at it.
    uint8 internal constant WARNING = 1;
    /// Act on it.
    uint8 internal constant CRITICAL = 2;
}

/// @notice Classes of verdicts, as far as contracts need them; the numbers never change meaning.
library Class {
    /// The window does not look like the training data.
    uint16 internal constant ANOMALY = 1;
    /// A prognosis is beyond a threshold: the machine is expected to fail.
    uint16 internal constant FAILURE_EXPECTED = 3;
    /// Readings are missing.
    uint16 internal constant GAP = 4;
    /// Labels: there was an alarm, and something was wrong.
    uint16 internal constant LABEL_FIRST = 9;
    /// There was an alarm, and nothing was wrong.
    uint16 internal constant LABEL_FALSE_ALARM = 10;
    /// The last label: nothing was wrong.
    uint16 internal constant LABEL_LAST = 12;
}

/// @title What every contract that acts on verdicts needs
library Verdicts {
    /// @notice The log does not have this verdict at this index, or the proof is not one.
    error NotInLog(address log, bytes32 logId, uint64 index);

    /// @notice The EIP-712 type hash of a verdict.
    bytes32 internal constant TYPE_HASH = keccak256(
        "Verdict(bytes32 deviceId,uint64 seq,uint64 windowStart,uint64 windowEnd,bytes32 modelHash,bytes32 configHash,bytes32 inputDigest,int64 scoreE6,uint8 severity,uint16 class_,bytes32 evidenceHash,bytes32 salt)"
    );

    /// @notice The log's entry of a verdict: its EIP-712 struct hash.
    /// @dev Every member is one word, so the struct's calldata is its encoding: 12 words, copied as they are. A member with
    /// higher bits set gives the hash of no verdict, and reading the member reverts.
    /// @param verdict The verdict.
    /// @return hash Its struct hash.
    function entryOf(Verdict calldata verdict) internal pure returns (bytes32 hash) {
        bytes32 typeHash = TYPE_HASH;
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            mstore(buffer, typeHash)
            calldatacopy(add(buffer, 32), verdict, 384)
            hash := keccak256(buffer, 416)
        }
    }

    /// @notice Reverts unless the verdict stands in the log.
    /// @param log The witness. It is called read-only; what it is must be settled before, by whoever trusts it.
    /// @param logId The log.
    /// @param verdict The verdict.
    /// @param proof Where it stands.
    function requireIn(IVerdictLog log, bytes32 logId, Verdict calldata verdict, Proof calldata proof) internal view {
        if (!log.verifyInclusion(logId, entryOf(verdict), proof.index, proof.size, proof.nodes)) {
            revert NotInLog(address(log), logId, proof.index);
        }
    }
}
