// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Verdict} from "../Verdict.sol";
import {Subject, VerdictConsumer} from "./VerdictConsumer.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

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
    /// What each proven excursion takes off, in ten thousandths of all that is paid.
    uint16 penaltyBps;
    /// What all of them take off at most, in ten thousandths.
    uint16 maxPenaltyBps;
    /// From which severity on a verdict is an excursion: 1 warning, 2 critical.
    uint8 severity;
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
    Offered,
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
/// @dev One contract serves everyone; nobody administers it. Verdicts count whose window lies between acceptance and delivery,
/// and a verdict counts once; so a long excursion costs as many penalties as it has windows, up to the limit.
contract ColdChainShipment is VerdictConsumer {
    using SafeERC20 for IERC20;

    struct Shipment {
        ShipmentTerms terms;
        ShipmentState state;
        /// Milestones earned.
        uint8 earned;
        /// Since when it stands there, in seconds since the Unix epoch.
        uint64 since;
        /// When the carrier accepted.
        uint64 acceptedAt;
        /// When the last milestone was reported.
        uint64 reportedAt;
        /// When the delivery was reported; 0 until it is earned.
        uint64 deliveredAt;
        /// Excursions proven.
        uint32 excursions;
        /// SHA-256 of the last proof of a milestone.
        bytes32 milestoneHash;
    }

    /// @notice Parties must differ and not be zero, there must be 1 to 8 milestones that pay, shares be at most 10,000.
    error BadTerms();
    /// @notice Where the shipment stands this cannot be done.
    error WrongState(uint256 agreement, ShipmentState state);
    /// @notice Too late, or too early: the time that matters is `when`.
    error WrongTime(uint256 agreement, uint64 when);
    /// @notice The token took something of the transfer, so that less arrived than is to be paid.
    error LessArrived(uint256 arrived, uint256 due);

    event Agreed(uint256 indexed agreement, address indexed shipper, address indexed carrier, ShipmentTerms terms);
    event Accepted(uint256 indexed agreement);
    event MilestoneReported(uint256 indexed agreement, uint8 milestone, bytes32 proofHash);
    event MilestoneChallenged(uint256 indexed agreement, uint8 milestone, bytes32 reasonHash);
    event MilestoneEnded(uint256 indexed agreement, uint8 milestone, bool earned);
    event ExcursionProven(uint256 indexed agreement, uint64 index, uint32 excursions);
    event Settled(uint256 indexed agreement, uint256 toCarrier, uint256 toShipper);
    event Withdrawn(address indexed account, IERC20 indexed token, uint256 amount);

    Shipment[] private _shipments;
    mapping(address account => mapping(IERC20 token => uint256)) private _balances;

    // ── the agreement ───────────────────────────────────────────────────────

    /// @notice The shipper offers terms and puts the whole pay in.
    function agree(ShipmentTerms calldata terms) external nonReentrant returns (uint256 agreement) {
        uint256 due = _sum(terms.milestones);
        if (
            terms.shipper != msg.sender || terms.carrier == address(0) || terms.arbiter == address(0)
                || terms.carrier == terms.shipper || terms.arbiter == terms.shipper || terms.arbiter == terms.carrier
                || terms.milestones.length == 0 || terms.milestones.length > 8 || due == 0 || terms.penaltyBps > 10_000
                || terms.maxPenaltyBps > 10_000 || terms.severity == 0 || terms.challenge < 1 hours
                || terms.arbitration < 1 hours || terms.deadline <= block.timestamp
        ) revert BadTerms();
        agreement = _shipments.length;
        Shipment storage s = _shipments.push();
        (s.terms, s.since) = (terms, uint64(block.timestamp));
        emit Agreed(agreement, terms.shipper, terms.carrier, terms);
        uint256 before = terms.token.balanceOf(address(this));
        terms.token.safeTransferFrom(msg.sender, address(this), due);
        uint256 arrived = terms.token.balanceOf(address(this)) - before;
        if (arrived < due) revert LessArrived(arrived, due);
    }

    /// @notice The carrier takes the goods; verdicts about windows from now on count.
    function accept(uint256 agreement) external {
        Shipment storage s = _inState(agreement, ShipmentState.Offered);
        if (msg.sender != s.terms.carrier) revert NotAuthorized(agreement, msg.sender);
        if (block.timestamp >= s.terms.deadline) revert WrongTime(agreement, s.terms.deadline);
        (s.state, s.since, s.acceptedAt) = (ShipmentState.UnderWay, uint64(block.timestamp), uint64(block.timestamp));
        emit Accepted(agreement);
    }

    // ── milestones ──────────────────────────────────────────────────────────

    /// @notice The carrier says that the next milestone is reached.
    function report(uint256 agreement, bytes32 proofHash) external {
        Shipment storage s = _inState(agreement, ShipmentState.UnderWay);
        if (msg.sender != s.terms.carrier) revert NotAuthorized(agreement, msg.sender);
        if (block.timestamp >= s.terms.deadline) revert WrongTime(agreement, s.terms.deadline);
        uint64 present = uint64(block.timestamp);
        (s.state, s.since, s.reportedAt, s.milestoneHash) = (ShipmentState.Reported, present, present, proofHash);
        emit MilestoneReported(agreement, s.earned, proofHash);
    }

    /// @notice The shipper agrees that it is, without waiting.
    function confirm(uint256 agreement) external {
        Shipment storage s = _inState(agreement, ShipmentState.Reported);
        if (msg.sender != s.terms.shipper) revert NotAuthorized(agreement, msg.sender);
        _endMilestone(agreement, s, true);
    }

    /// @notice The shipper says that it is not.
    function challenge(uint256 agreement, bytes32 reasonHash) external {
        Shipment storage s = _inState(agreement, ShipmentState.Reported);
        if (msg.sender != s.terms.shipper) revert NotAuthorized(agreement, msg.sender);
        uint64 until = s.since + s.terms.challenge;
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        (s.state, s.since) = (ShipmentState.Challenged, uint64(block.timestamp));
        emit MilestoneChallenged(agreement, s.earned, reasonHash);
    }

    /// @notice The arbiter decides.
    function resolve(uint256 agreement, bool reached) external {
        Shipment storage s = _inState(agreement, ShipmentState.Challenged);
        if (msg.sender != s.terms.arbiter) revert NotAuthorized(agreement, msg.sender);
        _endMilestone(agreement, s, reached);
    }

    /// @notice Goes on once nobody has challenged a milestone in time, or the arbiter has not decided in time. Anybody may.
    function proceed(uint256 agreement) external {
        Shipment storage s = _shipmentOf(agreement);
        if (s.state != ShipmentState.Reported && s.state != ShipmentState.Challenged) {
            revert WrongState(agreement, s.state);
        }
        uint64 from = s.since + (s.state == ShipmentState.Reported ? s.terms.challenge : s.terms.arbitration);
        if (block.timestamp < from) revert WrongTime(agreement, from);
        _endMilestone(agreement, s, true);
    }

    // ── money ───────────────────────────────────────────────────────────────

    /// @notice Divides the pay: once the challenge window after the delivery has passed, or an undelivered shipment's after its
    /// deadline. Anybody may.
    function settle(uint256 agreement) external {
        Shipment storage s = _shipmentOf(agreement);
        uint64 from = (s.state == ShipmentState.Delivered ? s.since : s.terms.deadline) + s.terms.challenge;
        if (
            s.state == ShipmentState.Settled || s.state == ShipmentState.Reported || s.state == ShipmentState.Challenged
        ) {
            revert WrongState(agreement, s.state);
        }
        if (block.timestamp < from) revert WrongTime(agreement, from);
        (uint256 toCarrier, uint256 toShipper) = _division(s);
        (s.state, s.since) = (ShipmentState.Settled, uint64(block.timestamp));
        _balances[s.terms.carrier][s.terms.token] += toCarrier;
        _balances[s.terms.shipper][s.terms.token] += toShipper;
        emit Settled(agreement, toCarrier, toShipper);
    }

    /// @notice Pays what is the caller's.
    function withdraw(IERC20 token) external nonReentrant {
        uint256 amount = _balances[msg.sender][token];
        _balances[msg.sender][token] = 0;
        token.safeTransfer(msg.sender, amount);
        emit Withdrawn(msg.sender, token, amount);
    }

    // ── reading ─────────────────────────────────────────────────────────────

    /// @notice All that is known of a shipment.
    function shipmentOf(uint256 agreement) external view returns (Shipment memory) {
        return _shipmentOf(agreement);
    }

    /// @notice What carrier and shipper would get as things stand.
    function divisionOf(uint256 agreement) external view returns (uint256 toCarrier, uint256 toShipper) {
        return _division(_shipmentOf(agreement));
    }

    /// @notice What is an account's, to be withdrawn.
    function balanceOf(address account, IERC20 token) external view returns (uint256) {
        return _balances[account][token];
    }

    // ── what the verdict does ───────────────────────────────────────────────

    function _subjectOf(uint256 agreement) internal view override returns (Subject storage) {
        return _shipmentOf(agreement).terms.subject;
    }

    function _isAgreed(uint256 agreement, Verdict calldata verdict) internal view override returns (bool) {
        Shipment storage s = _shipments[agreement];
        bool under = s.acceptedAt != 0 && s.state != ShipmentState.Settled;
        // Windows are in milliseconds.
        bool after_ = verdict.windowStart / 1000 >= s.acceptedAt;
        bool before = s.deliveredAt == 0 || verdict.windowEnd / 1000 <= s.deliveredAt;
        return under && after_ && before && verdict.severity >= s.terms.severity;
    }

    function _act(uint256 agreement, Verdict calldata, uint64 index) internal override {
        Shipment storage s = _shipments[agreement];
        s.excursions += 1;
        emit ExcursionProven(agreement, index, s.excursions);
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

    function _endMilestone(uint256 agreement, Shipment storage s, bool earned) private {
        emit MilestoneEnded(agreement, s.earned, earned);
        if (earned) s.earned += 1;
        bool delivered = earned && s.earned == s.terms.milestones.length;
        // The goods were there when it was said, not when nobody had disagreed.
        if (delivered) s.deliveredAt = s.reportedAt;
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
        uint256 earned;
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
