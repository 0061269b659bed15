// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @notice The two verifications of RFC 9162, step by step as its text has them, to hold `MerkleLog` against.
library Rfc9162 {
    function leaf(bytes32 entry) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x00), entry));
    }

    function node(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }

    /// @dev §2.1.3.2.
    function includes(bytes32 root, uint64 size, bytes32 entry, uint64 index, bytes32[] memory proof)
        internal
        pure
        returns (bool)
    {
        if (index >= size) return false;
        (uint64 fn, uint64 sn) = (index, size - 1);
        bytes32 r = leaf(entry);
        for (uint256 i = 0; i < proof.length; ++i) {
            if (sn == 0) return false;
            if (fn & 1 == 1 || fn == sn) {
                r = node(proof[i], r);
                if (fn & 1 == 0) {
                    while (fn & 1 == 0 && fn != 0) (fn, sn) = (fn >> 1, sn >> 1);
                }
            } else {
                r = node(r, proof[i]);
            }
            (fn, sn) = (fn >> 1, sn >> 1);
        }
        return sn == 0 && r == root;
    }

    /// @dev §2.1.4.2, for `0 < first < second`.
    function consistent(bytes32 firstHash, uint64 first, bytes32 secondHash, uint64 second, bytes32[] memory proof)
        internal
        pure
        returns (bool)
    {
        if (proof.length == 0) return false;
        bool power = first & (first - 1) == 0;
        (uint64 fn, uint64 sn) = (first - 1, second - 1);
        while (fn & 1 == 1) (fn, sn) = (fn >> 1, sn >> 1);
        (bytes32 fr, bytes32 sr) = power ? (firstHash, firstHash) : (proof[0], proof[0]);
        for (uint256 i = power ? 0 : 1; i < proof.length; ++i) {
            if (sn == 0) return false;
            if (fn & 1 == 1 || fn == sn) {
                (fr, sr) = (node(proof[i], fr), node(proof[i], sr));
                if (fn & 1 == 0) {
                    while (fn & 1 == 0 && fn != 0) (fn, sn) = (fn >> 1, sn >> 1);
                }
            } else {
                sr = node(sr, proof[i]);
            }
            (fn, sn) = (fn >> 1, sn >> 1);
        }
        return sn == 0 && fr == firstHash && sr == secondHash;
    }
}
