// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Anchored, Checkpoint} from "../src/IVerdictLog.sol";
import {UniformLog} from "./ReferenceLog.sol";
import {VerdictLogFixture} from "./VerdictLogFixture.sol";

/// @notice Execution gas of a checkpoint once the ring is full; a transaction adds 21,000 and its calldata.
contract VerdictLogGasTest is VerdictLogFixture {
    function test_gas_of_a_steady_checkpoint_is_bounded() public {
        UniformLog log = new UniformLog();
        uint64 size = 1_000_000;
        uint256 worst;
        for (uint256 i = 0; i < 80; ++i) {
            Anchored memory head = verdictLog.head(logId);
            Checkpoint memory c =
                Checkpoint(logId, head.size, size, head.root, log.rootAt(size), keccak256("data"), uint64(i) + 1e12);
            bytes32[] memory proof = log.consistency(head.size, size);
            bytes memory signature = sign(c, KEY);
            uint256 before = gasleft();
            verdictLog.advance(c, proof, signature);
            uint256 used = before - gasleft();
            if (i >= 64 && used > worst) worst = used;
            size += 997;
        }
        check(worst < 28_000, "a checkpoint has become dear");
    }
}
