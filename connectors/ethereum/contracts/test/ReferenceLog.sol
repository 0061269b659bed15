// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @notice RFC 9162 §2.1 written as the text defines it, by recursion over lists, sharing nothing with the contract.
abstract contract ReferenceTree {
    function _leafHash(uint256 index) internal view virtual returns (bytes32);

    /// @dev Largest power of two below n.
    function _split(uint256 n) internal pure returns (uint256 k) {
        k = 1;
        while (k * 2 < n) k *= 2;
    }

    function _pair(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x01), left, right));
    }

    /// @dev MTH(D[start:start+n]).
    function _mth(uint256 start, uint256 n) internal view virtual returns (bytes32) {
        if (n == 1) return _leafHash(start);
        uint256 k = _split(n);
        return _pair(_mth(start, k), _mth(start + k, n - k));
    }

    /// @dev PATH(m, D_n), leaf to root.
    function _path(uint256 m, uint256 start, uint256 n) internal view returns (bytes32[] memory) {
        if (n == 1) return new bytes32[](0);
        uint256 k = _split(n);
        if (m < k) return _append(_path(m, start, k), _mth(start + k, n - k));
        return _append(_path(m - k, start + k, n - k), _mth(start, k));
    }

    /// @dev SUBPROOF(m, D_n, b).
    function _subproof(uint256 m, uint256 start, uint256 n, bool complete) internal view returns (bytes32[] memory) {
        if (m == n) return complete ? new bytes32[](0) : _append(new bytes32[](0), _mth(start, n));
        uint256 k = _split(n);
        if (m <= k) return _append(_subproof(m, start, k, complete), _mth(start + k, n - k));
        return _append(_subproof(m - k, start + k, n - k, false), _mth(start, k));
    }

    function _append(bytes32[] memory list, bytes32 last) private pure returns (bytes32[] memory longer) {
        longer = new bytes32[](list.length + 1);
        for (uint256 i = 0; i < list.length; ++i) {
            longer[i] = list[i];
        }
        longer[list.length] = last;
    }

    function rootAt(uint256 size) public view returns (bytes32) {
        return _mth(0, size);
    }

    function inclusion(uint256 index, uint256 size) public view returns (bytes32[] memory) {
        return _path(index, 0, size);
    }

    function consistency(uint256 oldSize, uint256 newSize) public view returns (bytes32[] memory) {
        return oldSize == 0 ? new bytes32[](0) : _subproof(oldSize, 0, newSize, true);
    }
}

/// @notice A log of explicit entries.
contract ReferenceLog is ReferenceTree {
    bytes32[] public entries;

    function push(bytes32 entry) external {
        entries.push(entry);
    }

    function size() external view returns (uint256) {
        return entries.length;
    }

    function _leafHash(uint256 index) internal view override returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x00), entries[index]));
    }
}

/// @notice A log whose entries are all the same, so that trees of any size up to 2^64 - 1 are cheap to compute.
contract UniformLog is ReferenceTree {
    bytes32 public constant ENTRY = keccak256("the same entry again and again");

    bytes32[65] private _perfect;

    constructor() {
        _perfect[0] = _leafHash(0);
        for (uint256 level = 1; level < 65; ++level) {
            _perfect[level] = _pair(_perfect[level - 1], _perfect[level - 1]);
        }
    }

    function _leafHash(uint256) internal pure override returns (bytes32) {
        return sha256(abi.encodePacked(bytes1(0x00), ENTRY));
    }

    function _mth(uint256 start, uint256 n) internal view override returns (bytes32) {
        if (n & (n - 1) == 0) {
            uint256 level = 0;
            while (n > 1) {
                n >>= 1;
                ++level;
            }
            return _perfect[level];
        }
        uint256 k = _split(n);
        return _pair(_mth(start, k), _mth(start + k, n - k));
    }
}
