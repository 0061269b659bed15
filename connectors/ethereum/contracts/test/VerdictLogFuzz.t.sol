// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Checkpoint} from "../src/IVerdictLog.sol";
import {MerkleLog} from "../src/MerkleLog.sol";
import {UniformLog} from "./ReferenceLog.sol";
import {VerdictLogFixture} from "./VerdictLogFixture.sol";

/// @notice Calldata for the library.
contract Proofs {
    function included(bytes32 root, uint64 size, bytes32 entry, uint64 index, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        return MerkleLog.includes(root, size, entry, index, proof);
    }

    function consistent(bytes32 oldRoot, uint64 oldSize, bytes32 newRoot, uint64 newSize, bytes32[] calldata proof)
        external
        view
        returns (bool)
    {
        return MerkleLog.extends_(oldRoot, oldSize, newRoot, newSize, proof);
    }
}

contract VerdictLogFuzzTest is VerdictLogFixture {
    Proofs private proofs;
    UniformLog private uniform;

    function setUp() public override {
        super.setUp();
        proofs = new Proofs();
        uniform = new UniformLog();
    }

    function testFuzz_consistency_of_any_sizes(uint64 a, uint64 b) public view {
        uint64 newSize = uint64(between(b, 2, type(uint64).max));
        uint64 oldSize = uint64(between(a, 1, newSize - 1));
        bytes32 oldRoot = uniform.rootAt(oldSize);
        bytes32 newRoot = uniform.rootAt(newSize);
        bytes32[] memory proof = uniform.consistency(oldSize, newSize);
        check(proofs.consistent(oldRoot, oldSize, newRoot, newSize, proof), "consistent");
        check(!proofs.consistent(oldRoot, oldSize, bytes32(uint256(newRoot) ^ 1), newSize, proof), "another new root");
        check(!proofs.consistent(bytes32(uint256(oldRoot) ^ 1), oldSize, newRoot, newSize, proof), "another old root");
    }

    function testFuzz_a_bit_anywhere_in_a_consistency_proof_counts(uint64 a, uint64 b, uint256 where, uint8 bit)
        public
        view
    {
        uint64 newSize = uint64(between(b, 2, type(uint64).max));
        uint64 oldSize = uint64(between(a, 1, newSize - 1));
        bytes32[] memory proof = uniform.consistency(oldSize, newSize);
        proof[where % proof.length] ^= bytes32(uint256(1) << bit);
        check(
            !proofs.consistent(uniform.rootAt(oldSize), oldSize, uniform.rootAt(newSize), newSize, proof),
            "an altered proof passes"
        );
    }

    function testFuzz_inclusion_of_any_size(uint64 a, uint64 b, uint256 where, uint8 bit) public view {
        uint64 size = uint64(between(b, 1, type(uint64).max));
        uint64 index = uint64(between(a, 0, size - 1));
        bytes32 root = uniform.rootAt(size);
        bytes32[] memory proof = uniform.inclusion(index, size);
        check(proofs.included(root, size, uniform.ENTRY(), index, proof), "included");
        check(!proofs.included(root, size, bytes32(uint256(uniform.ENTRY()) ^ (1 << bit)), index, proof), "entry");
        check(!proofs.included(bytes32(uint256(root) ^ (1 << bit)), size, uniform.ENTRY(), index, proof), "root");
        if (proof.length != 0) {
            proof[where % proof.length] ^= bytes32(uint256(1) << bit);
            check(!proofs.included(root, size, uniform.ENTRY(), index, proof), "proof");
        }
    }

    /// @dev Whatever is thrown at the verifiers they answer, and no random proof is a proof.
    function testFuzz_noise_never_passes_nor_reverts(
        bytes32 oldRoot,
        bytes32 newRoot,
        uint64 oldSize,
        uint64 newSize,
        bytes32[] calldata noise
    ) public view {
        vm.assume(oldSize > 0 && newSize > oldSize && oldRoot != newRoot);
        check(!proofs.consistent(oldRoot, oldSize, newRoot, newSize, noise), "noise is consistent");
        check(!proofs.included(newRoot, newSize, oldRoot, oldSize, noise), "noise is included");
    }

    function testFuzz_no_byte_of_a_signature_is_free(uint8 n, uint256 where, uint8 flip) public {
        vm.assume(flip != 0);
        grow(between(n, 1, 20));
        (Checkpoint memory c, bytes32[] memory proof) = next();
        bytes memory signature = sign(c, KEY);
        uint256 i = where % 65;
        signature[i] = bytes1(uint8(signature[i]) ^ flip);
        vm.expectRevert(invalid(signer));
        verdictLog.advance(c, proof, signature);
    }

    function testFuzz_any_bytes_are_no_signature(bytes calldata signature) public {
        grow(4);
        (Checkpoint memory c, bytes32[] memory proof) = next();
        vm.expectRevert(invalid(signer));
        verdictLog.advance(c, proof, signature);
    }

    function testFuzz_any_two_steps(uint8 a, uint8 b, uint256 index) public {
        uint64 oldSize = uint64(between(a, 1, 40));
        uint64 newSize = oldSize + uint64(between(b, 1, 40));
        advanceBy(oldSize);
        advanceBy(newSize - oldSize);
        uint64 m = uint64(index % newSize);
        check(verdictLog.verifyInclusion(logId, ghost.entries(m), m, newSize, ghost.inclusion(m, newSize)), "new");
        m = uint64(index % oldSize);
        check(verdictLog.verifyInclusion(logId, ghost.entries(m), m, oldSize, ghost.inclusion(m, oldSize)), "old");
    }
}
