// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @title RFC 9162 proofs over SHA-256
/// @notice Leaf = SHA-256(0x00 ‖ entry), node = SHA-256(0x01 ‖ left ‖ right), as in RFC 6962.
/// @dev A wrong proof makes the functions return false; they never revert.
///
/// Both walks climb from a node of the tree to its root with `fn`, the node's place in its level, and `sn`, the last
/// place in that level, in two phases. While `fn` is not `sn`, every level has one node of the proof: on the left if `fn`
/// is odd, else on the right. Once they are equal the node is the last of its level, and only levels where it has
/// something on its left (the bits set in `fn`) have a node of the proof. This is the RFC's loop without its inner one;
/// the tests hold it against the RFC's definition for sizes up to 2^64 - 1.
///
/// In assembly because a checkpoint's gas is mostly these loops: hashing calls the SHA-256 precompile on one fixed
/// buffer, where `sha256(abi.encodePacked(…))` would allocate anew for every node. The buffer lies past the free memory
/// pointer: prefix at +31, left at +32, right at +64. The precompile fails only when out of gas; then the proof does too.
library MerkleLog {
    /// @notice Whether `entry` stands at `index` of the log with `root` at `size` (RFC 9162 §2.1.3.2).
    function includes(bytes32 root, uint64 size, bytes32 entry, uint64 index, bytes32[] calldata proof)
        internal
        view
        returns (bool included)
    {
        if (index >= size) return false;
        assembly ("memory-safe") {
            let buffer := mload(0x40)
            let input := add(buffer, 31)
            let left := add(buffer, 32)
            let right := add(buffer, 64)
            let fn := index
            let sn := sub(size, 1)
            let at := proof.offset
            let end := add(at, shl(5, proof.length))

            mstore(buffer, 0)
            mstore(left, entry)
            let good := staticcall(gas(), 2, input, 33, 0x00, 32)
            mstore(buffer, 1)

            for {} and(lt(at, end), iszero(eq(fn, sn))) { at := add(at, 32) } {
                switch and(fn, 1)
                case 0 {
                    mstore(left, mload(0x00))
                    mstore(right, calldataload(at))
                }
                default {
                    mstore(left, calldataload(at))
                    mstore(right, mload(0x00))
                }
                good := and(good, staticcall(gas(), 2, input, 65, 0x00, 32))
                fn := shr(1, fn)
                sn := shr(1, sn)
            }
            good := and(good, eq(fn, sn))
            for {} and(lt(at, end), iszero(iszero(fn))) { at := add(at, 32) } {
                mstore(left, calldataload(at))
                mstore(right, mload(0x00))
                good := and(good, staticcall(gas(), 2, input, 65, 0x00, 32))
                fn := and(fn, sub(fn, 1))
            }
            included := and(and(good, iszero(fn)), and(eq(at, end), eq(mload(0x00), root)))
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
            let buffer := mload(0x40)
            let input := add(buffer, 31)
            let left := add(buffer, 32)
            let right := add(buffer, 64)
            mstore(buffer, 1)

            // The climb starts at the largest full subtree that ends the old log: its size is the lowest bit of oldSize.
            let subtree := and(oldSize, sub(0, oldSize))
            let fn := sub(div(oldSize, subtree), 1)
            let sn := div(sub(newSize, 1), subtree)
            let at := proof.offset
            let end := add(at, shl(5, proof.length))

            // That subtree's hash comes first in the proof, unless it is the whole old log, whose root is known.
            let fr := oldRoot
            let good := 1
            if fn {
                good := lt(at, end)
                fr := calldataload(at)
                at := add(at, 32)
            }
            let sr := fr

            for {} and(lt(at, end), iszero(eq(fn, sn))) { at := add(at, 32) } {
                switch and(fn, 1)
                case 0 {
                    mstore(left, sr)
                    mstore(right, calldataload(at))
                    good := and(good, staticcall(gas(), 2, input, 65, 0x00, 32))
                    sr := mload(0x00)
                }
                default {
                    mstore(left, calldataload(at))
                    mstore(right, fr)
                    good := and(good, staticcall(gas(), 2, input, 65, 0x00, 32))
                    let next := mload(0x00)
                    // Up to the first node on the right of the old log, both roots share every hash.
                    switch eq(fr, sr)
                    case 0 {
                        mstore(right, sr)
                        good := and(good, staticcall(gas(), 2, input, 65, 0x00, 32))
                        sr := mload(0x00)
                    }
                    default { sr := next }
                    fr := next
                }
                fn := shr(1, fn)
                sn := shr(1, sn)
            }
            good := and(good, eq(fn, sn))
            for {} and(lt(at, end), iszero(iszero(fn))) { at := add(at, 32) } {
                mstore(left, calldataload(at))
                mstore(right, fr)
                good := and(good, staticcall(gas(), 2, input, 65, 0x00, 32))
                fr := mload(0x00)
                mstore(right, sr)
                good := and(good, staticcall(gas(), 2, input, 65, 0x00, 32))
                sr := mload(0x00)
                fn := and(fn, sub(fn, 1))
            }
            consistent := and(and(good, iszero(fn)), and(eq(at, end), and(eq(fr, oldRoot), eq(sr, newRoot))))
        }
    }
}
