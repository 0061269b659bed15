// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ICases, deskIdFor} from "../ICases.sol";
import {Verdict} from "../Verdict.sol";
import {Purse} from "./Purse.sol";
import {Subject, VerdictConsumer} from "./VerdictConsumer.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @notice What shipper and carrier agree on.
struct ShipmentTerms {
    /// Sends the goods; pays.
    address shipper;
    /// Carries them; is paid.
    address carrier;
    /// Decides about milestones that are challenged; neither of them.
    address arbiter;
    /// What is paid in.
    IERC20 token;
    /// What each milestone pays, the last of which is the delivery; 1 to 8 of them.
    uint128[] milestones;
    /// What each excursion takes off, in ten thousandths of all that is paid.
    uint16 penaltyBps;
    /// What all of them take off at most, in ten thousandths.
    uint16 maxPenaltyBps;
    /// The class of verdicts that are excursions.
    uint16 class_;
    /// From which severity on a verdict is an excursion: 1 warning, 2 critical.
    uint8 severity;
    /// Of what length of time one excursion is counted, in seconds: of all verdicts whose windows begin in one such slot (counted
    /// from the Unix epoch) one takes its part, however many windows slide over it.
    uint32 slot;
    /// How long a milestone can be challenged, and excursions be proven after the delivery, in seconds.
    uint32 challenge;
    /// How long the arbiter has, in seconds.
    uint32 arbitration;
    /// When it must be delivered, in seconds since the Unix epoch; after that the shipper takes back what no milestone has earned.
    uint64 deadline;
    /// The data logger's verdicts.
    Subject subject;
}

/// @notice Where a shipment stands.
enum ShipmentState {
    /// The carrier has not accepted.
    Offered,
    /// The carrier has the goods.
    UnderWay,
    /// The carrier says that the next milestone is reached.
    Reported,
    /// The shipper says that it is not.
    Challenged,
    /// All milestones are earned; excursions can still be proven.
    Delivered,
    /// Paid.
    Settled
}

/// @title ColdChainShipment
/// @notice The carrier's pay lies here, earned milestone by milestone. Every excursion of the temperature that is proven by a
/// verdict takes a part of it off, down to a limit. Nothing is paid before the last one's challenge window has passed.
/// @dev Verdicts count whose window lies between acceptance and the report of the delivery. While a delivery is said and not
/// decided, what came after it waits: if it was none, it counts then. An excursion whose verdict was overruled for good at the
/// subject's desk is taken back by `retract`; so the challenge window should be longer than the desk's times, and a carrier
/// that wants a say about verdicts agrees on a desk. An arbiter who is silent leaves a milestone earned. One contract serves
/// everyone; nobody administers it.
contract ColdChainShipment is VerdictConsumer, Purse {
    /// @notice What is known of a shipment.
    struct Shipment {
        /// What was agreed.
        ShipmentTerms terms;
        /// Where it stands.
        ShipmentState state;
        /// Milestones earned.
        uint8 earned;
        /// Since when it stands there, in seconds since the Unix epoch.
        uint64 since;
        /// When the carrier accepted.
        uint64 acceptedAt;
        /// When the last milestone was reported.
        uint64 reportedAt;
        /// Excursions proven.
        uint32 excursions;
        /// When it must be delivered: as agreed, and later by the time that milestones waited which were earned, since the
        /// carrier could not report another meanwhile.
        uint64 deadline;
        /// SHA-256 of the last proof of a milestone.
        bytes32 milestoneHash;
    }

    /// @notice Parties must differ and not be zero, there must be 1 to 8 milestones that pay, shares be at most 10,000, a slot not
    /// be 0, times be at least an hour, the deadline later than now.
    error BadTerms();
    /// @notice Where the shipment stands this cannot be done.
    error WrongState(uint256 agreement, ShipmentState state);
    /// @notice Too late, or too early: the time that matters is `when`.
    error WrongTime(uint256 agreement, uint64 when);
    /// @notice An excursion in this slot was counted already.
    error SlotTaken(uint256 agreement, uint64 slot);
    /// @notice No excursion was counted in this slot, there is no desk, or its verdict was not overruled for good there.
    error NotOverruled(uint256 agreement, uint64 slot);

    /// @notice A shipper offers terms and has put the pay in.
    /// @param agreement The agreement's number.
    /// @param shipper The shipper.
    /// @param carrier The carrier.
    /// @param terms What it offers.
    event Agreed(uint256 indexed agreement, address indexed shipper, address indexed carrier, ShipmentTerms terms);
    /// @notice The carrier has the goods.
    /// @param agreement The agreement.
    event Accepted(uint256 indexed agreement);
    /// @notice The carrier says that a milestone is reached.
    /// @param agreement The agreement.
    /// @param milestone Its number, from 0.
    /// @param proofHash SHA-256 of the carrier's proof.
    event MilestoneReported(uint256 indexed agreement, uint8 milestone, bytes32 proofHash);
    /// @notice The shipper says that it is not.
    /// @param agreement The agreement.
    /// @param milestone Its number.
    /// @param reasonHash SHA-256 of the reason.
    event MilestoneChallenged(uint256 indexed agreement, uint8 milestone, bytes32 reasonHash);
    /// @notice It is decided whether a milestone is earned.
    /// @param agreement The agreement.
    /// @param milestone Its number.
    /// @param earned Whether it is.
    event MilestoneEnded(uint256 indexed agreement, uint8 milestone, bool earned);
    /// @notice A verdict has proven an excursion.
    /// @param agreement The agreement.
    /// @param slot The slot of time it is counted in.
    /// @param index The verdict's index in the log.
    /// @param excursions How many there are now.
    event ExcursionProven(uint256 indexed agreement, uint64 slot, uint64 index, uint32 excursions);
    /// @notice An excursion was taken back, because its verdict was overruled for good.
    /// @param agreement The agreement.
    /// @param slot The slot of time, which is free again.
    /// @param index The verdict's index in the log.
    /// @param excursions How many there are now.
    event ExcursionRetracted(uint256 indexed agreement, uint64 slot, uint64 index, uint32 excursions);
    /// @notice The pay is divided; it can be withdrawn.
    /// @param agreement The agreement.
    /// @param toCarrier The carrier's.
    /// @param toShipper The shipper's.
    event Settled(uint256 indexed agreement, uint256 toCarrier, uint256 toShipper);

    Shipment[] private _shipments;
    /// @dev Of each slot of time the index of the verdict that counts there, and 1; 0 where there is none.
    mapping(uint256 agreement => mapping(uint64 slot => uint256)) private _slots;

    // ── the agreement ───────────────────────────────────────────────────────

    /// @notice The shipper offers terms and puts the whole pay in.
    /// @param terms What it offers. The shipper must be the caller.
    /// @return agreement The agreement's number.
    function agree(ShipmentTerms calldata terms) external nonReentrant returns (uint256 agreement) {
        uint256 due = _sum(terms.milestones);
        if (
            terms.shipper != msg.sender || terms.carrier == address(0) || terms.arbiter == address(0)
                || terms.carrier == terms.shipper || terms.arbiter == terms.shipper || terms.arbiter == terms.carrier
                || terms.milestones.length == 0 || terms.milestones.length > 8 || due == 0
        ) revert BadTerms();
        if (
            terms.penaltyBps > 10_000 || terms.maxPenaltyBps > 10_000 || terms.severity == 0 || terms.slot == 0
                || terms.challenge < 1 hours || terms.arbitration < 1 hours || terms.deadline <= block.timestamp
                || terms.deadline > type(uint64).max / 2
        ) revert BadTerms();
        agreement = _shipments.length;
        Shipment storage s = _shipments.push();
        (s.terms, s.since, s.deadline) = (terms, uint64(block.timestamp), terms.deadline);
        emit Agreed(agreement, terms.shipper, terms.carrier, terms);
        _takeIn(terms.token, due);
    }

    /// @notice The carrier takes the goods; verdicts about windows from now on count.
    /// @param agreement The agreement.
    function accept(uint256 agreement) external {
        Shipment storage s = _inState(agreement, ShipmentState.Offered);
        if (msg.sender != s.terms.carrier) revert NotAuthorized(agreement, msg.sender);
        if (block.timestamp >= s.deadline) revert WrongTime(agreement, s.deadline);
        (s.state, s.since, s.acceptedAt) = (ShipmentState.UnderWay, uint64(block.timestamp), uint64(block.timestamp));
        emit Accepted(agreement);
    }

    // ── milestones ──────────────────────────────────────────────────────────

    /// @notice The carrier says that the next milestone is reached.
    /// @param agreement The agreement.
    /// @param proofHash SHA-256 of its proof, which is kept elsewhere.
    function report(uint256 agreement, bytes32 proofHash) external {
        Shipment storage s = _inState(agreement, ShipmentState.UnderWay);
        if (msg.sender != s.terms.carrier) revert NotAuthorized(agreement, msg.sender);
        if (block.timestamp >= s.deadline) revert WrongTime(agreement, s.deadline);
        uint64 present = uint64(block.timestamp);
        (s.state, s.since, s.reportedAt, s.milestoneHash) = (ShipmentState.Reported, present, present, proofHash);
        emit MilestoneReported(agreement, s.earned, proofHash);
    }

    /// @notice The shipper agrees that it is, without waiting.
    /// @param agreement The agreement.
    function confirm(uint256 agreement) external {
        Shipment storage s = _inState(agreement, ShipmentState.Reported);
        if (msg.sender != s.terms.shipper) revert NotAuthorized(agreement, msg.sender);
        _endMilestone(agreement, s, true);
    }

    /// @notice The shipper says that it is not.
    /// @param agreement The agreement.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    function challenge(uint256 agreement, bytes32 reasonHash) external {
        Shipment storage s = _inState(agreement, ShipmentState.Reported);
        if (msg.sender != s.terms.shipper) revert NotAuthorized(agreement, msg.sender);
        uint64 until = s.since + s.terms.challenge;
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        (s.state, s.since) = (ShipmentState.Challenged, uint64(block.timestamp));
        emit MilestoneChallenged(agreement, s.earned, reasonHash);
    }

    /// @notice The arbiter decides, in its time.
    /// @param agreement The agreement.
    /// @param reached Whether the carrier is right.
    function resolve(uint256 agreement, bool reached) external {
        Shipment storage s = _inState(agreement, ShipmentState.Challenged);
        if (msg.sender != s.terms.arbiter) revert NotAuthorized(agreement, msg.sender);
        uint64 until = s.since + s.terms.arbitration;
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        _endMilestone(agreement, s, reached);
    }

    /// @notice Goes on once nobody has challenged a milestone in time, or the arbiter has not decided in time. Anybody may.
    /// @param agreement The agreement.
    function proceed(uint256 agreement) external {
        Shipment storage s = _shipmentOf(agreement);
        if (s.state != ShipmentState.Reported && s.state != ShipmentState.Challenged) {
            revert WrongState(agreement, s.state);
        }
        uint64 from = _decidedFrom(s);
        if (block.timestamp < from) revert WrongTime(agreement, from);
        _endMilestone(agreement, s, true);
    }

    /// @notice Takes back an excursion whose verdict was overruled for good at the desk that was agreed on, before the pay is
    /// divided. Anybody may. The verdict does not count again; another one of the same slot may.
    /// @param agreement The agreement.
    /// @param slot The slot of time it is counted in.
    function retract(uint256 agreement, uint64 slot) external nonReentrant {
        Shipment storage s = _shipmentOf(agreement);
        if (s.state == ShipmentState.Settled) revert WrongState(agreement, s.state);
        ICases cases = s.terms.subject.cases;
        uint256 taken = _slots[agreement][slot];
        if (taken == 0 || address(cases) == address(0)) revert NotOverruled(agreement, slot);
        uint64 index = uint64(taken - 1);
        bytes32 desk = deskIdFor(s.terms.subject.log, s.terms.subject.logId);
        if (cases.stands{gas: PROOF_GAS}(desk, index) || !cases.isFinal{gas: PROOF_GAS}(desk, index)) {
            revert NotOverruled(agreement, slot);
        }
        _slots[agreement][slot] = 0;
        s.excursions -= 1;
        emit ExcursionRetracted(agreement, slot, index, s.excursions);
    }

    // ── money ───────────────────────────────────────────────────────────────

    /// @notice Divides the pay: once the challenge window after the delivery has passed, or an undelivered shipment's after its
    /// deadline. Anybody may.
    /// @param agreement The agreement.
    function settle(uint256 agreement) external {
        Shipment storage s = _shipmentOf(agreement);
        if (
            s.state == ShipmentState.Settled || s.state == ShipmentState.Reported || s.state == ShipmentState.Challenged
        ) {
            revert WrongState(agreement, s.state);
        }
        uint64 from = _settledFrom(s);
        if (block.timestamp < from) revert WrongTime(agreement, from);
        (uint256 toCarrier, uint256 toShipper) = _division(s);
        (s.state, s.since) = (ShipmentState.Settled, uint64(block.timestamp));
        emit Settled(agreement, toCarrier, toShipper);
        _give(s.terms.carrier, s.terms.token, toCarrier);
        _give(s.terms.shipper, s.terms.token, toShipper);
    }

    // ── reading ─────────────────────────────────────────────────────────────

    /// @notice All that is known of a shipment.
    /// @param agreement The agreement.
    /// @return The shipment.
    function shipmentOf(uint256 agreement) external view returns (Shipment memory) {
        return _shipmentOf(agreement);
    }

    /// @notice What carrier and shipper would get as things stand.
    /// @param agreement The agreement.
    /// @return toCarrier The carrier's.
    /// @return toShipper The shipper's.
    function divisionOf(uint256 agreement) external view returns (uint256 toCarrier, uint256 toShipper) {
        return _division(_shipmentOf(agreement));
    }

    // ── what the verdict does ───────────────────────────────────────────────

    function _subjectOf(uint256 agreement) internal view override returns (Subject storage) {
        return _shipmentOf(agreement).terms.subject;
    }

    function _isAgreed(uint256 agreement, Verdict calldata verdict) internal view override returns (bool) {
        Shipment storage s = _shipments[agreement];
        bool waits = s.state == ShipmentState.Reported || s.state == ShipmentState.Challenged;
        bool delivered =
            s.state == ShipmentState.Delivered || (waits && uint256(s.earned) + 1 == s.terms.milestones.length);
        bool open = s.state == ShipmentState.UnderWay || s.state == ShipmentState.Delivered;
        // Proofs end when the division begins, so that nobody brings one and divides in one breath.
        if (!waits && (!open || block.timestamp >= _settledFrom(s))) return false;
        // Windows are in milliseconds. The goods were there when it was said, not when nobody had disagreed.
        return verdict.windowStart / 1000 >= s.acceptedAt
            && (!delivered || verdict.windowEnd <= uint256(s.reportedAt) * 1000) && verdict.severity >= s.terms.severity
            && verdict.class_ == s.terms.class_;
    }

    function _act(uint256 agreement, Verdict calldata verdict, uint64 index) internal override {
        Shipment storage s = _shipments[agreement];
        uint64 slot = verdict.windowStart / 1000 / s.terms.slot;
        if (_slots[agreement][slot] != 0) revert SlotTaken(agreement, slot);
        _slots[agreement][slot] = uint256(index) + 1;
        s.excursions += 1;
        emit ExcursionProven(agreement, slot, index, s.excursions);
    }

    // ── the steps ───────────────────────────────────────────────────────────

    function _shipmentOf(uint256 agreement) private view returns (Shipment storage) {
        if (agreement >= _shipments.length) revert UnknownAgreement(agreement);
        return _shipments[agreement];
    }

    function _inState(uint256 agreement, ShipmentState state) private view returns (Shipment storage s) {
        s = _shipmentOf(agreement);
        if (s.state != state) revert WrongState(agreement, s.state);
    }

    /// @dev When a milestone that waits is earned without anybody's word.
    function _decidedFrom(Shipment storage s) private view returns (uint64) {
        return s.since + (s.state == ShipmentState.Reported ? s.terms.challenge : s.terms.arbitration);
    }

    /// @dev When the pay is divided, if nothing waits.
    function _settledFrom(Shipment storage s) private view returns (uint64) {
        return (s.state == ShipmentState.Delivered ? s.since : s.deadline) + s.terms.challenge;
    }

    function _endMilestone(uint256 agreement, Shipment storage s, bool earned) private {
        emit MilestoneEnded(agreement, s.earned, earned);
        bool delivered = false;
        if (earned) {
            // Not longer than it had to wait: the carrier could have gone on.
            uint64 end = _decidedFrom(s);
            if (block.timestamp < end) end = uint64(block.timestamp);
            s.deadline += end - s.reportedAt;
            s.earned += 1;
            // One at a time, so the last is met.
            // slither-disable-next-line incorrect-equality
            delivered = s.earned == s.terms.milestones.length;
        }
        (s.state, s.since) = (delivered ? ShipmentState.Delivered : ShipmentState.UnderWay, uint64(block.timestamp));
    }

    function _sum(uint128[] memory parts) private pure returns (uint256 sum) {
        for (uint256 i = 0; i < parts.length; ++i) {
            sum += parts[i];
        }
    }

    function _division(Shipment storage s) private view returns (uint256 toCarrier, uint256 toShipper) {
        uint128[] memory parts = s.terms.milestones;
        uint256 all = _sum(parts);
        uint256 earned = 0;
        for (uint256 i = 0; i < s.earned; ++i) {
            earned += parts[i];
        }
        uint256 bps = uint256(s.excursions) * s.terms.penaltyBps;
        if (bps > s.terms.maxPenaltyBps) bps = s.terms.maxPenaltyBps;
        uint256 penalty = all * bps / 10_000;
        toCarrier = earned > penalty ? earned - penalty : 0;
        toShipper = all - toCarrier;
    }
}
