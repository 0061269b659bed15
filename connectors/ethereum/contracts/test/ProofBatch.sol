// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {MerkleLog} from "../src/MerkleLog.sol";

/// @notice Answers many proofs in one call, for the test that holds these verifiers against Rust's. Nothing else uses it.
contract ProofBatch {
    struct Inclusion {
        bytes32 root;
        uint64 size;
        bytes32 entry;
        uint64 index;
        bytes32[] proof;
    }

    struct Consistency {
        bytes32 oldRoot;
        uint64 oldSize;
        bytes32 newRoot;
        uint64 newSize;
        bytes32[] proof;
    }

    function inclusions(Inclusion[] calldata all) external view returns (bool[] memory answers) {
        answers = new bool[](all.length);
        for (uint256 i = 0; i < all.length; ++i) {
            Inclusion calldata one = all[i];
            answers[i] = MerkleLog.includes(one.root, one.size, one.entry, one.index, one.proof);
        }
    }

    /// @dev Sizes are checked as VerdictLog checks them.
    function consistencies(Consistency[] calldata all) external view returns (bool[] memory answers) {
        answers = new bool[](all.length);
        for (uint256 i = 0; i < all.length; ++i) {
            Consistency calldata one = all[i];
            answers[i] = one.oldSize != 0 && one.oldSize < one.newSize
                && MerkleLog.extends_(one.oldRoot, one.oldSize, one.newRoot, one.newSize, one.proof);
        }
    }
}
