// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Testing} from "../Testing.sol";

/// @notice The cheatcodes by which gas is measured.
interface Meter {
    /// @dev As forge has it.
    struct LastCall {
        uint64 gasLimit;
        uint64 gasTotalUsed;
        uint64 gasMemoryUsed;
        int64 gasRefunded;
        uint64 gasRemaining;
    }

    function lastCallGas() external view returns (LastCall memory);
    function parseJsonBytes(string calldata json, string calldata key) external pure returns (bytes memory);
    function readFile(string calldata path) external view returns (string memory);
    function setEvmVersion(string calldata evm) external;
    function snapshotGasLastCall(string calldata group, string calldata name) external returns (uint256);
    function snapshotValue(string calldata group, string calldata name, uint256 value) external;
}

/// @notice Measures whole transactions: run with `--isolate`, forge makes one of each call, with 21,000 for it and its calldata,
/// cold storage and refunds, by the rules of Osaka. `tools/gas.js` makes GAS.md of what is measured.
abstract contract Gas is Testing {
    Meter internal constant meter = Meter(address(vm));

    function osaka() internal {
        meter.setEvmVersion("osaka");
    }

    /// @dev Notes what the last transaction took.
    function note(string memory group, string memory name) internal returns (uint256) {
        return meter.snapshotGasLastCall(group, name);
    }
}
