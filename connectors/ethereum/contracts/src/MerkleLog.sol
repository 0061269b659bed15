// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title RFC 9162 proofs over SHA-256
/// @notice Leaf = SHA-256(0x00 ‖ entry), node = SHA-256(0x01 ‖ left ‖ right), as in RFC 6962.
/// @dev A wrong proof makes the functions return false; they never revert.
///
/// Both walks climb from a node of the tree to its root, in two phases. As long as the node is not the last one of its
/// level, every level has one node of the proof: on the left if the node's place in the level is odd, else on the right.
/// Once it is the last one, only levels where it has something on its left (the bits set in its place) have a node of the
/// proof. This is the RFC's loop without its inner one, and without its shifts: `bit` is the level's bit in the places that
/// the bottom level counts. The tests hold it against the RFC's definition for sizes up to 2^64 - 1.
///
/// How many nodes a proof must have follows from the sizes, so the loops do not ask whether there is one more: a proof that
/// is too short is read past its end, and it is refused in the end, as one that is too long is.
///
/// In assembly because a checkpoint's gas is mostly these loops: hashing calls the SHA-256 precompile on one fixed
/// buffer, where `sha256(abi.encodePacked(…))` would allocate anew for every node, and the hash is written to where the
/// next one needs it. The buffer lies past the free memory pointer: prefix at +31, left at +32, right at +64. Whether the
/// precompile answered is not looked at: it fails only when out of gas, and then what is left does not pay another step.
library MerkleLog {
    /// @notice Whether `entry` stands at `index` of the log with `root` at `size` (RFC 9162 §2.1.3.2).
    function includes(bytes32 root, uint64 size, bytes32 entry, uint64 index, bytes32[] calldata proof)
        internal
        view
        returns (bool included)
    {
        if (index >= size) return false;
        assembly ("memory-safe") {
            // What SHA-256 is given: 0x00 and the entry, then 0x01, left, right.
            let left := add(mload(0x40), 32)
            let input := sub(left, 1)
            let right := add(left, 32)
            let at := proof.offset
            mstore(sub(left, 32), 0)
            mstore(left, entry)
            pop(staticcall(gas(), 2, input, 33, left, 32))
            mstore(sub(left, 32), 1)

            // Up to the highest bit in which the entry's index and the last one differ.
            let bit := 1
            for { let apart := xor(index, sub(size, 1)) } iszero(lt(apart, bit)) { bit := shl(1, bit) } {
                let node := calldataload(at)
                at := add(at, 32)
                switch and(index, bit)
                case 0 { mstore(right, node) }
                default {
                    mstore(right, mload(left))
                    mstore(left, node)
                }
                pop(staticcall(gas(), 2, input, 65, left, 32))
            }
            // From here on the nodes stand on the left, and nothing on the right.
            mstore(right, mload(left))
            for { let place := and(index, sub(0, bit)) } place { place := and(place, sub(place, 1)) } {
                mstore(left, calldataload(at))
                at := add(at, 32)
                pop(staticcall(gas(), 2, input, 65, right, 32))
            }
            included := and(eq(at, add(proof.offset, shl(5, proof.length))), eq(mload(right), root))
        }
    }

    /// @notice Whether the log with `newRoot` at `newSize` extends the one with `oldRoot` at `oldSize` (RFC 9162
    /// §2.1.4.2). `0 < oldSize < newSize` is the caller's to check.
    function extends_(bytes32 oldRoot, uint64 oldSize, bytes32 newRoot, uint64 newSize, bytes32[] calldata proof)
        internal
        view
        returns (bool consistent)
    {
        assembly ("memory-safe") {
            // Two buffers, since a node on the left is hashed with both roots: the new one's, and the old one's.
            let left := add(mload(0x40), 32)
            let input := sub(left, 1)
            let right := add(left, 32)
            let oldLeft := add(left, 96)
            let oldInput := add(left, 95)
            let oldRight := add(left, 128)
            mstore(sub(left, 32), 1)
            mstore(sub(oldLeft, 32), 1)

            // The climb starts at the largest full subtree that ends the old log: its size is the lowest bit of oldSize.
            let bit := and(oldSize, sub(0, oldSize))
            // The subtree's place, and the bits in which the new log's last entry has another.
            let place := xor(oldSize, bit)
            let apart := xor(place, sub(newSize, 1))
            let at := proof.offset

            // That subtree's hash comes first in the proof, unless it is the whole old log, whose root is known.
            let start := oldRoot
            if place {
                start := calldataload(at)
                at := add(at, 32)
            }
            mstore(left, start)
            mstore(oldRight, start)

            // The new log is longer, so there is a level at least. With its end here the loop takes 19 gas a node less.
            for {} 1 {} {
                let node := calldataload(at)
                at := add(at, 32)
                switch and(place, bit)
                case 0 { mstore(right, node) }
                default {
                    mstore(right, mload(left))
                    mstore(left, node)
                    mstore(oldLeft, node)
                    pop(staticcall(gas(), 2, oldInput, 65, oldRight, 32))
                }
                pop(staticcall(gas(), 2, input, 65, left, 32))
                bit := shl(1, bit)
                if lt(apart, bit) { break }
            }
            // From here on the nodes stand on the left of both, and nothing on the right.
            place := and(place, sub(0, bit))
            mstore(right, mload(left))
            for {} place { place := and(place, sub(place, 1)) } {
                let node := calldataload(at)
                at := add(at, 32)
                mstore(left, node)
                mstore(oldLeft, node)
                pop(staticcall(gas(), 2, input, 65, right, 32))
                pop(staticcall(gas(), 2, oldInput, 65, oldRight, 32))
            }
            consistent := and(
                eq(at, add(proof.offset, shl(5, proof.length))),
                and(eq(mload(oldRight), oldRoot), eq(mload(right), newRoot))
            )
        }
    }
}
