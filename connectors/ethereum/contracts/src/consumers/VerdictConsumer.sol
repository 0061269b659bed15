// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IModelRegistry} from "../IModelRegistry.sol";
import {IVerdictConsumer} from "../IVerdictConsumer.sol";
import {IVerdictLog} from "../IVerdictLog.sol";
import {Proof, Verdict, Verdicts} from "../Verdict.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @notice Whose verdicts an agreement goes by: settled when it is made, by those who make it.
struct Subject {
    /// The log's witness.
    IVerdictLog log;
    /// The log.
    bytes32 logId;
    /// The device.
    bytes32 deviceId;
    /// Where the model must have been active at the window's end; zero: any model of the log's.
    IModelRegistry models;
    /// The registry there.
    bytes32 registryId;
}

/// @title The part that all consumers share
/// @notice Proof, device, model and once-only, with a bound on the gas of what is called.
abstract contract VerdictConsumer is IVerdictConsumer, ReentrancyGuardTransient {
    /// @dev A proof of 64 nodes takes about 40,000; what is called gets no more than this, whatever it does.
    uint256 internal constant PROOF_GAS = 200_000;

    /// @dev A bit for each index, 256 in a word.
    mapping(uint256 agreement => mapping(uint256 word => uint256)) private _taken;

    /// @inheritdoc IVerdictConsumer
    function consume(uint256 agreement, Verdict calldata verdict, Proof calldata proof) external nonReentrant {
        Subject storage subject = _subjectOf(agreement);
        if (consumed(agreement, proof.index)) revert AlreadyConsumed(agreement, proof.index);
        if (verdict.deviceId != subject.deviceId || !_isAgreed(agreement, verdict)) {
            revert NotAgreed(agreement, proof.index);
        }
        bytes32 entry = _requireProven(agreement, subject, verdict, proof);
        IModelRegistry models = subject.models;
        if (address(models) != address(0)) {
            uint64 when = verdict.windowEnd / 1000;
            if (!models.isActive{gas: PROOF_GAS}(subject.registryId, verdict.modelHash, when)) {
                revert ModelNotActive(agreement, verdict.modelHash);
            }
        }
        _taken[agreement][proof.index >> 8] |= 1 << (proof.index & 0xff);
        emit VerdictConsumed(agreement, entry, proof.index, msg.sender);
        _act(agreement, verdict, proof.index);
    }

    /// @inheritdoc IVerdictConsumer
    function consumed(uint256 agreement, uint64 index) public view returns (bool) {
        return _taken[agreement][index >> 8] >> (index & 0xff) & 1 == 1;
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IVerdictConsumer).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    /// @dev The subject of an agreement that exists and can be acted on; reverts otherwise.
    function _subjectOf(uint256 agreement) internal view virtual returns (Subject storage);

    /// @dev Whether a verdict about the device is one that the agreement is about.
    function _isAgreed(uint256 agreement, Verdict calldata verdict) internal view virtual returns (bool);

    /// @dev Acts on a proven verdict. It moves no money out.
    function _act(uint256 agreement, Verdict calldata verdict, uint64 index) internal virtual;

    function _requireProven(uint256 agreement, Subject storage subject, Verdict calldata verdict, Proof calldata proof)
        private
        view
        returns (bytes32 entry)
    {
        IVerdictLog log = subject.log;
        entry = Verdicts.entryOf(verdict);
        try log.verifyInclusion{gas: PROOF_GAS}(subject.logId, entry, proof.index, proof.size, proof.nodes) returns (
            bool included
        ) {
            if (!included) revert Verdicts.NotInLog(address(log), subject.logId, proof.index);
        } catch (bytes memory reason) {
            // Out of gas has no reason; what the witness says is passed on.
            if (reason.length == 0) revert ProofTooDear(agreement);
            assembly ("memory-safe") {
                revert(add(reason, 32), mload(reason))
            }
        }
    }
}
