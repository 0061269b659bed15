// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @notice The cheatcodes these tests use; forge answers at this fixed address.
interface Cheats {
    function addr(uint256 key) external pure returns (address);
    function assume(bool condition) external pure;
    function chainId(uint256 id) external;
    function etch(address target, bytes calldata code) external;
    function expectEmit(bool topic1, bool topic2, bool topic3, bool data, address emitter) external;
    function expectRevert(bytes calldata reason) external;
    function load(address target, bytes32 slot) external view returns (bytes32);
    function deal(address account, uint256 wei_) external;
    function prank(address sender) external;
    function signP256(uint256 key, bytes32 digest) external pure returns (bytes32 r, bytes32 s);
    function publicKeyP256(uint256 key) external pure returns (uint256 x, uint256 y);
    function roll(uint256 number) external;
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function store(address target, bytes32 slot, bytes32 value) external;
    function warp(uint256 time) external;
}

/// @notice Assertions that say what was expected.
abstract contract Testing {
    Cheats internal constant vm = Cheats(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D);

    error NotTrue(string what);
    error NotEqual(string what, uint256 got, uint256 expected);

    function IS_TEST() external pure returns (bool) {
        return true;
    }

    function check(bool condition, string memory what) internal pure {
        if (!condition) revert NotTrue(what);
    }

    function equal(uint256 got, uint256 expected, string memory what) internal pure {
        if (got != expected) revert NotEqual(what, got, expected);
    }

    function equal(bytes32 got, bytes32 expected, string memory what) internal pure {
        equal(uint256(got), uint256(expected), what);
    }

    /// @dev The next call must revert, whatever with.
    function refused(address target, bytes memory call) internal returns (bytes memory reason) {
        (bool done, bytes memory answer) = target.call(call);
        if (done) revert NotTrue("a call that must be refused was not");
        return answer;
    }

    function equal(address got, address expected, string memory what) internal pure {
        equal(uint256(uint160(got)), uint256(uint160(expected)), what);
    }

    function between(uint256 value, uint256 low, uint256 high) internal pure returns (uint256) {
        unchecked {
            uint256 range = high - low + 1;
            return range == 0 ? value : low + value % range;
        }
    }
}
