// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICases, deskIdFor} from "../ICases.sol";
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
    /// Where the log's desk is: a verdict that was overruled there, or is disputed, is not taken; zero: no desk is asked.
    ICases cases;
}

/// @title The part that all consumers share
/// @notice Proof, device, model, desk and once-only, with a bound on the gas of what is called.
/// @dev A verdict is known by its device's number `seq`, of which a log has one each, so that the same one logged again at
/// another place counts once. Witness, registry and desk are contracts that the parties chose: they are called read-only, and
/// one that lies or fails harms the agreement that names it and no other.
abstract contract VerdictConsumer is IVerdictConsumer, ReentrancyGuardTransient {
    /// @dev A proof of 64 nodes takes about 40,000; what is called gets no more than this, whatever it does.
    uint256 internal constant PROOF_GAS = 200_000;

    /// @dev A bit for each `seq`, 256 in a word.
    mapping(uint256 agreement => mapping(uint256 word => uint256)) private _taken;

    /// @inheritdoc IVerdictConsumer
    function consume(uint256 agreement, Verdict calldata verdict, Proof calldata proof) external nonReentrant {
        Subject storage subject = _subjectOf(agreement);
        if (consumed(agreement, verdict.seq)) revert AlreadyConsumed(agreement, verdict.seq);
        // A window that has not ended cannot have been judged; and its model could still be revoked before it ends.
        bool ended = verdict.windowStart <= verdict.windowEnd && verdict.windowEnd <= block.timestamp * 1000;
        if (verdict.deviceId != subject.deviceId || !ended || !_isAgreed(agreement, verdict)) {
            revert NotAgreed(agreement, proof.index);
        }
        bytes32 entry = _requireProven(agreement, subject, verdict, proof);
        _requireActive(agreement, subject, verdict);
        _requireStands(agreement, subject, proof.index);
        _taken[agreement][verdict.seq >> 8] |= 1 << (verdict.seq & 0xff);
        emit VerdictConsumed(agreement, entry, proof.index, verdict.seq, msg.sender);
        _act(agreement, verdict, proof.index);
    }

    /// @inheritdoc IVerdictConsumer
    function consumed(uint256 agreement, uint64 seq) public view returns (bool) {
        return _taken[agreement][seq >> 8] >> (seq & 0xff) & 1 == 1;
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IVerdictConsumer).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    /// @dev The subject of an agreement that exists; reverts otherwise.
    function _subjectOf(uint256 agreement) internal view virtual returns (Subject storage);

    /// @dev Whether a verdict about the device is one that the agreement is about, now. Its window has ended, and not before it
    /// began.
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

    function _requireActive(uint256 agreement, Subject storage subject, Verdict calldata verdict) private view {
        IModelRegistry models = subject.models;
        if (address(models) == address(0)) return;
        uint64 when = verdict.windowEnd / 1000;
        if (!models.isActive{gas: PROOF_GAS}(subject.registryId, verdict.modelHash, when)) {
            revert ModelNotActive(agreement, verdict.modelHash);
        }
    }

    function _requireStands(uint256 agreement, Subject storage subject, uint64 index) private view {
        ICases cases = subject.cases;
        if (address(cases) == address(0)) return;
        if (!cases.stands{gas: PROOF_GAS}(deskIdFor(subject.log, subject.logId), index)) {
            revert DoesNotStand(agreement, index);
        }
    }
}
