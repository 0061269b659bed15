// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {MerkleLog} from "../../src/MerkleLog.sol";
import {Rfc9162} from "../Rfc9162.sol";

/// @notice Takes a proof from memory to calldata.
contract Verifier {
    function includes(bytes32 root, uint64 size, bytes32 entry, uint64 index, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        return MerkleLog.includes(root, size, entry, index, proof);
    }

    function extends_(bytes32 oldRoot, uint64 oldSize, bytes32 newRoot, uint64 newSize, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        return MerkleLog.extends_(oldRoot, oldSize, newRoot, newSize, proof);
    }
}

/// @notice For halmos (./analyse), which tries all roots, entries and nodes at once: the verifiers answer what the RFC's text answers, for
/// every place in every log of up to eight entries, and for proofs of every length up to one too many.
contract ProofsSymbolicTest {
    Verifier private immutable _verifier = new Verifier();

    function some(uint256 n, bytes32[5] memory from) private pure returns (bytes32[] memory proof) {
        proof = new bytes32[](n);
        for (uint256 i = 0; i < n; ++i) {
            proof[i] = from[i];
        }
    }

    function inclusions(uint64 size, bytes32 root, bytes32 entry, bytes32[5] memory nodes) private view {
        for (uint64 index = 0; index <= size; ++index) {
            for (uint256 n = 0; n <= 5; ++n) {
                bytes32[] memory proof = some(n, nodes);
                bool expected = Rfc9162.includes(root, size, entry, index, proof);
                assert(_verifier.includes(root, size, entry, index, proof) == expected);
            }
        }
    }

    function consistencies(uint64 size, bytes32 oldRoot, bytes32 newRoot, bytes32[5] memory nodes) private view {
        for (uint64 old = 1; old < size; ++old) {
            for (uint256 n = 0; n <= 5; ++n) {
                bytes32[] memory proof = some(n, nodes);
                bool expected = Rfc9162.consistent(oldRoot, old, newRoot, size, proof);
                assert(_verifier.extends_(oldRoot, old, newRoot, size, proof) == expected);
            }
        }
    }

    function check_inclusion_in_1_to_3(bytes32 root, bytes32 entry, bytes32[5] calldata nodes) external view {
        for (uint64 size = 1; size <= 3; ++size) {
            inclusions(size, root, entry, nodes);
        }
    }

    function check_inclusion_in_4_and_5(bytes32 root, bytes32 entry, bytes32[5] calldata nodes) external view {
        inclusions(4, root, entry, nodes);
        inclusions(5, root, entry, nodes);
    }

    function check_inclusion_in_6_to_8(bytes32 root, bytes32 entry, bytes32[5] calldata nodes) external view {
        for (uint64 size = 6; size <= 8; ++size) {
            inclusions(size, root, entry, nodes);
        }
    }

    function check_consistency_to_2_to_5(bytes32 oldRoot, bytes32 newRoot, bytes32[5] calldata nodes) external view {
        for (uint64 size = 2; size <= 5; ++size) {
            consistencies(size, oldRoot, newRoot, nodes);
        }
    }

    function check_consistency_to_6(bytes32 oldRoot, bytes32 newRoot, bytes32[5] calldata nodes) external view {
        consistencies(6, oldRoot, newRoot, nodes);
    }

    function check_consistency_to_7(bytes32 oldRoot, bytes32 newRoot, bytes32[5] calldata nodes) external view {
        consistencies(7, oldRoot, newRoot, nodes);
    }

    function check_consistency_to_8(bytes32 oldRoot, bytes32 newRoot, bytes32[5] calldata nodes) external view {
        consistencies(8, oldRoot, newRoot, nodes);
    }
}
