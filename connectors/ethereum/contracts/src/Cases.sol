// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Case, Desk, ICases, State, deskIdFor} from "./ICases.sol";
import {IVerdictLog} from "./IVerdictLog.sol";
import {Class, Proof, Verdict, Verdicts} from "./Verdict.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @title Cases
/// @notice See {ICases}. No constructor, no immutables: its code hash is the same on every chain.
contract Cases is ICases {
    uint32 private constant LEAST_TIME = 1 hours;

    mapping(bytes32 deskId => Desk) private _desks;
    mapping(bytes32 caseId => Case) private _cases;
    mapping(bytes32 caseId => bytes32 deskId) private _deskOf;
    /// @dev Labels that were tied to a case.
    mapping(bytes32 caseId => mapping(uint64 index => bool)) private _linked;
    mapping(address account => uint256) private _balances;

    // ── changing ────────────────────────────────────────────────────────────

    /// @inheritdoc ICases
    function openDesk(Desk calldata desk) external returns (bytes32 deskId) {
        deskId = deskIdOf(desk.log, desk.logId);
        if (
            desk.owner == address(0) || desk.overseer == address(0) || desk.arbiter == address(0)
                || desk.owner == desk.overseer || desk.owner == desk.arbiter || desk.overseer == desk.arbiter
                || desk.disputeWindow < LEAST_TIME || desk.arbitration < LEAST_TIME
        ) revert BadDesk();
        if (
            _desks[deskId].owner != address(0) || msg.sender != desk.owner || desk.log.ownerOf(desk.logId) != msg.sender
        ) revert DeskRefused(deskId);
        _desks[deskId] = desk;
        emit DeskOpened(deskId, msg.sender, desk.logId, desk);
    }

    /// @inheritdoc ICases
    function open(bytes32 deskId, Verdict calldata verdict, Proof calldata proof) external returns (bytes32 caseId) {
        Desk storage desk = _desks[deskId];
        if (desk.owner == address(0)) revert UnknownDesk(deskId);
        caseId = caseIdOf(deskId, proof.index);
        Case storage c = _cases[caseId];
        if (c.state != State.None) revert WrongState(caseId, c.state);
        Verdicts.requireIn(desk.log, desk.logId, verdict, proof);
        (c.state, c.since, c.index, c.stands) = (State.Open, _now(), proof.index, true);
        c.entry = Verdicts.entryOf(verdict);
        _deskOf[caseId] = deskId;
        emit CaseOpened(caseId, deskId, verdict.deviceId, proof.index, msg.sender, verdict);
    }

    /// @inheritdoc ICases
    function acknowledge(bytes32 caseId, bytes32 reasonHash) external {
        _answer(caseId, State.Acknowledged, reasonHash);
    }

    /// @inheritdoc ICases
    function overrule(bytes32 caseId, bytes32 reasonHash) external {
        _answer(caseId, State.Overridden, reasonHash);
    }

    /// @inheritdoc ICases
    function dispute(bytes32 caseId, State answer, bytes32 reasonHash) external payable {
        Case storage c = _cases[caseId];
        Desk storage desk = _desks[_deskOf[caseId]];
        if ((c.state != State.Acknowledged && c.state != State.Overridden) || c.state != answer) {
            revert WrongState(caseId, c.state);
        }
        uint64 until = c.since + desk.disputeWindow;
        if (_now() >= until) revert WrongTime(caseId, until);
        if (msg.value != desk.bond) revert WrongBond(msg.value, desk.bond);
        (c.state, c.since, c.disputer, c.bond) = (State.Disputed, _now(), msg.sender, desk.bond);
        c.reasonHash = reasonHash;
        emit CaseDisputed(caseId, msg.sender, answer, msg.value, reasonHash);
    }

    /// @inheritdoc ICases
    function resolve(bytes32 caseId, bool upheld, bytes32 reasonHash) external {
        Case storage c = _disputed(caseId);
        Desk storage desk = _desks[_deskOf[caseId]];
        if (msg.sender != desk.arbiter) revert NotAuthorized(caseId, msg.sender);
        uint64 until = c.since + desk.arbitration;
        if (_now() >= until) revert WrongTime(caseId, until);
        if (upheld) c.stands = !c.stands;
        c.reasonHash = reasonHash;
        _end(caseId, c, upheld ? c.disputer : desk.owner, upheld);
    }

    /// @inheritdoc ICases
    function lapse(bytes32 caseId) external {
        Case storage c = _disputed(caseId);
        uint64 until = c.since + _desks[_deskOf[caseId]].arbitration;
        if (_now() < until) revert WrongTime(caseId, until);
        _end(caseId, c, c.disputer, false);
    }

    /// @inheritdoc ICases
    function link(bytes32 caseId, Verdict calldata answered, Verdict calldata label, Proof calldata proof) external {
        Case storage c = _cases[caseId];
        if (c.state == State.None) revert WrongState(caseId, State.None);
        bool about = Verdicts.entryOf(answered) == c.entry && answered.deviceId == label.deviceId
            && answered.windowStart == label.windowStart && answered.windowEnd == label.windowEnd;
        bool isLabel = label.class_ >= Class.LABEL_FIRST && label.class_ <= Class.LABEL_LAST
            && label.modelHash == bytes32(0) && proof.index > c.index;
        if (!about || !isLabel || _linked[caseId][proof.index]) revert NotALink(caseId, proof.index);
        Desk storage desk = _desks[_deskOf[caseId]];
        Verdicts.requireIn(desk.log, desk.logId, label, proof);
        _linked[caseId][proof.index] = true;
        emit CaseLinked(caseId, proof.index, label.class_, Verdicts.entryOf(label));
    }

    /// @inheritdoc ICases
    function withdraw() external {
        uint256 amount = _balances[msg.sender];
        _balances[msg.sender] = 0;
        emit Withdrawn(msg.sender, amount);
        // Nobody can change the balance from outside: it is what was given, or nothing.
        // slither-disable-next-line incorrect-equality
        (bool taken,) = amount == 0 ? (false, bytes("")) : msg.sender.call{value: amount}("");
        if (!taken) revert NotWithdrawn(msg.sender, amount);
    }

    // ── reading ─────────────────────────────────────────────────────────────

    /// @inheritdoc ICases
    function balanceOf(address account) external view returns (uint256) {
        return _balances[account];
    }

    /// @inheritdoc ICases
    function stands(bytes32 deskId, uint64 index) external view returns (bool) {
        Case storage c = _cases[caseIdOf(deskId, index)];
        return c.state == State.None || (c.stands && c.state != State.Disputed);
    }

    /// @inheritdoc ICases
    function isFinal(bytes32 deskId, uint64 index) external view returns (bool) {
        Case storage c = _cases[caseIdOf(deskId, index)];
        if (c.state == State.Resolved) return true;
        bool answered = c.state == State.Acknowledged || c.state == State.Overridden;
        return answered && _now() >= c.since + _desks[deskId].disputeWindow;
    }

    /// @inheritdoc ICases
    function caseOf(bytes32 caseId) external view returns (Case memory) {
        return _cases[caseId];
    }

    /// @inheritdoc ICases
    function deskOf(bytes32 deskId) external view returns (Desk memory) {
        return _desks[deskId];
    }

    /// @inheritdoc ICases
    function deskIdOf(IVerdictLog log, bytes32 logId) public pure returns (bytes32) {
        return deskIdFor(log, logId);
    }

    /// @inheritdoc ICases
    function caseIdOf(bytes32 deskId, uint64 index) public pure returns (bytes32) {
        return keccak256(abi.encode(deskId, index));
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(ICases).interfaceId || interfaceId == type(IERC165).interfaceId;
    }

    // ── the steps ───────────────────────────────────────────────────────────

    function _answer(bytes32 caseId, State state, bytes32 reasonHash) private {
        Case storage c = _cases[caseId];
        if (msg.sender != _desks[_deskOf[caseId]].overseer) revert NotAuthorized(caseId, msg.sender);
        // An answer may be taken back until it is disputed, but not after its time to be disputed: then it is final.
        bool first = c.state == State.Open;
        bool changed = c.state == State.Acknowledged && state == State.Overridden;
        if (!first && !changed) revert WrongState(caseId, c.state);
        if (changed) {
            uint64 until = c.since + _desks[_deskOf[caseId]].disputeWindow;
            if (_now() >= until) revert WrongTime(caseId, until);
        }
        (c.state, c.since, c.stands) = (state, _now(), state == State.Acknowledged);
        c.reasonHash = reasonHash;
        emit CaseAnswered(caseId, state, msg.sender, reasonHash);
    }

    function _disputed(bytes32 caseId) private view returns (Case storage c) {
        c = _cases[caseId];
        if (c.state != State.Disputed) revert WrongState(caseId, c.state);
    }

    function _end(bytes32 caseId, Case storage c, address to, bool upheld) private {
        (c.state, c.since) = (State.Resolved, _now());
        _balances[to] += c.bond;
        c.bond = 0;
        emit CaseResolved(caseId, upheld, c.stands, c.reasonHash);
    }

    function _now() private view returns (uint64) {
        return uint64(block.timestamp);
    }
}
