// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Severity, Verdict} from "../Verdict.sol";
import {Purse} from "./Purse.sol";
import {Subject, VerdictConsumer} from "./VerdictConsumer.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

/// @notice What plant and contractor agree on.
struct MaintenanceTerms {
    /// Whose machine it is; pays.
    address plant;
    /// Who mends it; is paid.
    address contractor;
    /// Decides what the two disagree about; neither of them.
    address arbiter;
    /// What is paid in.
    IERC20 token;
    /// For each order.
    uint128 price;
    /// The class of verdicts that open an order: for instance 1, an anomaly, or 3, an expected failure.
    uint16 class_;
    /// How long the contractor has to report an order done, in seconds.
    uint32 service;
    /// How long the plant has to challenge that, in seconds.
    uint32 challenge;
    /// How long the arbiter has, in seconds.
    uint32 arbitration;
    /// The machine's verdicts.
    Subject subject;
}

/// @notice Where an order stands.
enum OrderState {
    /// There was none yet.
    None,
    /// The machine must be seen to.
    Open,
    /// The contractor says that it is mended.
    Reported,
    /// The plant says that it is not.
    Challenged,
    /// The contractor has earned the price.
    Paid,
    /// The price is the plant's again.
    Cancelled
}

/// @notice A machine that must be seen to.
struct Order {
    /// Where it stands.
    OrderState state;
    /// Since when it stands there, in seconds since the Unix epoch.
    uint64 since;
    /// Index of the verdict that opened it.
    uint64 index;
    /// When it was reported done; 0 before.
    uint64 reportedAt;
    /// SHA-256 of the contractor's report.
    bytes32 reportHash;
}

/// @title MaintenanceOrder
/// @notice A proven critical verdict opens an order for a contractor, whose price is set aside from what the plant has put in.
/// The contractor reports; if the plant does not challenge within the window, the price is the contractor's.
/// @dev A machine has one order at a time; verdicts meanwhile are about the same fault and open none. Once an order is paid, a
/// verdict counts only if its window began after the machine was reported mended, so one fault is paid once, and a window that
/// reaches over the mending opens nothing. An order that was cancelled leaves the fault, which the next verdict, or one that was
/// not brought, opens again. The plant's remedy against an order it did not need (an old verdict, a false alarm) is its
/// challenge. One contract serves everyone; nobody administers it.
contract MaintenanceOrder is VerdictConsumer, Purse {
    /// @notice What is known of an agreement.
    struct Agreement {
        /// What was agreed.
        MaintenanceTerms terms;
        /// When the contractor accepted; 0 before.
        uint64 acceptedAt;
        /// The plant's, not set aside.
        uint128 free;
        /// How many orders there were.
        uint64 orders;
        /// When the last order that was paid was reported done: verdicts about windows that began before are about a fault that
        /// is mended.
        uint64 mendedAt;
        /// The last order.
        Order order;
    }

    /// @notice Parties must differ and not be zero, times be at least an hour, the price above zero.
    error BadTerms();
    /// @notice Where the order stands this cannot be done.
    error WrongState(uint256 agreement, OrderState state);
    /// @notice Too late, or too early: the time that matters is `when`.
    error WrongTime(uint256 agreement, uint64 when);
    /// @notice The plant has not put in the price of another order, or not as much as it would take back.
    error NotFunded(uint256 agreement, uint256 free, uint256 needed);
    /// @notice The machine has an order that is not done.
    error OrderUnderWay(uint256 agreement);

    /// @notice A plant offers terms.
    /// @param agreement The agreement's number.
    /// @param plant The plant.
    /// @param contractor The contractor.
    /// @param terms What it offers.
    event Agreed(uint256 indexed agreement, address indexed plant, address indexed contractor, MaintenanceTerms terms);
    /// @notice The contractor accepts them.
    /// @param agreement The agreement.
    event Accepted(uint256 indexed agreement);
    /// @notice Money for orders came in.
    /// @param agreement The agreement.
    /// @param amount How much.
    event Funded(uint256 indexed agreement, uint256 amount);
    /// @notice The plant took money back that was not set aside; it can be withdrawn.
    /// @param agreement The agreement.
    /// @param amount How much.
    event Released(uint256 indexed agreement, uint256 amount);
    /// @notice A verdict opened an order, and its price is set aside.
    /// @param agreement The agreement.
    /// @param order The order's number, from 1.
    /// @param index The verdict's index in the log.
    event OrderOpened(uint256 indexed agreement, uint64 order, uint64 index);
    /// @notice The contractor says that the machine is mended.
    /// @param agreement The agreement.
    /// @param order The order's number.
    /// @param reportHash SHA-256 of its report.
    event OrderReported(uint256 indexed agreement, uint64 order, bytes32 reportHash);
    /// @notice The plant says that it is not.
    /// @param agreement The agreement.
    /// @param order The order's number.
    /// @param reasonHash SHA-256 of the reason.
    event OrderChallenged(uint256 indexed agreement, uint64 order, bytes32 reasonHash);
    /// @notice An order is over.
    /// @param agreement The agreement.
    /// @param order The order's number.
    /// @param state `Paid` or `Cancelled`.
    event OrderEnded(uint256 indexed agreement, uint64 order, OrderState state);

    Agreement[] private _agreements;

    // ── the agreement ───────────────────────────────────────────────────────

    /// @notice The plant offers terms; they bind once the contractor accepts them.
    /// @param terms What it offers. The plant must be the caller.
    /// @return agreement The agreement's number.
    function agree(MaintenanceTerms calldata terms) external returns (uint256 agreement) {
        if (
            terms.plant != msg.sender || terms.contractor == address(0) || terms.arbiter == address(0)
                || terms.contractor == terms.plant || terms.arbiter == terms.plant || terms.arbiter == terms.contractor
                || terms.price == 0 || terms.service < 1 hours || terms.challenge < 1 hours
                || terms.arbitration < 1 hours
        ) revert BadTerms();
        agreement = _agreements.length;
        _agreements.push().terms = terms;
        emit Agreed(agreement, terms.plant, terms.contractor, terms);
    }

    /// @notice The contractor accepts; verdicts about windows that end later open orders.
    /// @param agreement The agreement.
    function accept(uint256 agreement) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.contractor || a.acceptedAt != 0) revert NotAuthorized(agreement, msg.sender);
        a.acceptedAt = uint64(block.timestamp);
        emit Accepted(agreement);
    }

    /// @notice Puts the caller's money in for orders. Anybody may; it is the plant's.
    /// @param agreement The agreement.
    /// @param amount How much.
    function fund(uint256 agreement, uint128 amount) external nonReentrant {
        Agreement storage a = _agreementOf(agreement);
        a.free += amount;
        emit Funded(agreement, amount);
        _takeIn(a.terms.token, amount);
    }

    /// @notice The plant takes back what is not set aside; it can be withdrawn then.
    /// @param agreement The agreement.
    /// @param amount How much.
    function release(uint256 agreement, uint128 amount) external nonReentrant {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.plant) revert NotAuthorized(agreement, msg.sender);
        if (amount > a.free) revert NotFunded(agreement, a.free, amount);
        a.free -= amount;
        emit Released(agreement, amount);
        _give(msg.sender, a.terms.token, amount);
    }

    // ── the order ───────────────────────────────────────────────────────────

    /// @notice The contractor says that the machine is mended.
    /// @param agreement The agreement.
    /// @param reportHash SHA-256 of its report, which is kept elsewhere.
    function report(uint256 agreement, bytes32 reportHash) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.contractor) revert NotAuthorized(agreement, msg.sender);
        Order storage order = _inState(agreement, a, OrderState.Open);
        uint64 until = order.since + a.terms.service;
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        uint64 present = uint64(block.timestamp);
        (order.state, order.since, order.reportedAt) = (OrderState.Reported, present, present);
        order.reportHash = reportHash;
        emit OrderReported(agreement, a.orders, reportHash);
    }

    /// @notice The plant takes back what was set aside for an order that was not reported done in time.
    /// @param agreement The agreement.
    function cancel(uint256 agreement) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.plant) revert NotAuthorized(agreement, msg.sender);
        Order storage order = _inState(agreement, a, OrderState.Open);
        uint64 from = order.since + a.terms.service;
        if (block.timestamp < from) revert WrongTime(agreement, from);
        _end(agreement, a, OrderState.Cancelled);
    }

    /// @notice The plant says that the machine is not mended.
    /// @param agreement The agreement.
    /// @param reasonHash SHA-256 of the reason, which is kept elsewhere.
    function challenge(uint256 agreement, bytes32 reasonHash) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.plant) revert NotAuthorized(agreement, msg.sender);
        Order storage order = _inState(agreement, a, OrderState.Reported);
        uint64 until = order.since + a.terms.challenge;
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        (order.state, order.since) = (OrderState.Challenged, uint64(block.timestamp));
        emit OrderChallenged(agreement, a.orders, reasonHash);
    }

    /// @notice The arbiter decides a challenge, in its time.
    /// @param agreement The agreement.
    /// @param mended Whether the contractor is right.
    function resolve(uint256 agreement, bool mended) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.arbiter) revert NotAuthorized(agreement, msg.sender);
        Order storage order = _inState(agreement, a, OrderState.Challenged);
        uint64 until = order.since + a.terms.arbitration;
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        _end(agreement, a, mended ? OrderState.Paid : OrderState.Cancelled);
    }

    /// @notice Pays for an order once nobody has challenged its report in time, or the arbiter has not decided in time. Anybody may.
    /// @param agreement The agreement.
    function settle(uint256 agreement) external {
        Agreement storage a = _agreementOf(agreement);
        OrderState state = a.order.state;
        if (state != OrderState.Reported && state != OrderState.Challenged) revert WrongState(agreement, state);
        uint64 wait = state == OrderState.Reported ? a.terms.challenge : a.terms.arbitration;
        uint64 from = a.order.since + wait;
        if (block.timestamp < from) revert WrongTime(agreement, from);
        _end(agreement, a, OrderState.Paid);
    }

    // ── reading ─────────────────────────────────────────────────────────────

    /// @notice Terms, when they were accepted, what is free, and the last order with its number.
    /// @param agreement The agreement.
    /// @return All that is known of it.
    function agreementOf(uint256 agreement) external view returns (Agreement memory) {
        return _agreementOf(agreement);
    }

    // ── what the verdict does ───────────────────────────────────────────────

    function _subjectOf(uint256 agreement) internal view override returns (Subject storage) {
        return _agreementOf(agreement).terms.subject;
    }

    function _isAgreed(uint256 agreement, Verdict calldata verdict) internal view override returns (bool) {
        Agreement storage a = _agreements[agreement];
        // Windows are in milliseconds.
        return a.acceptedAt != 0 && verdict.severity == Severity.CRITICAL && verdict.class_ == a.terms.class_
            && verdict.windowEnd / 1000 >= a.acceptedAt && verdict.windowStart / 1000 >= a.mendedAt;
    }

    function _act(uint256 agreement, Verdict calldata, uint64 index) internal override {
        Agreement storage a = _agreements[agreement];
        OrderState state = a.order.state;
        if (state != OrderState.None && state != OrderState.Paid && state != OrderState.Cancelled) {
            revert OrderUnderWay(agreement);
        }
        if (a.free < a.terms.price) revert NotFunded(agreement, a.free, a.terms.price);
        a.free -= a.terms.price;
        a.orders += 1;
        a.order = Order({
            state: OrderState.Open, since: uint64(block.timestamp), index: index, reportedAt: 0, reportHash: bytes32(0)
        });
        emit OrderOpened(agreement, a.orders, index);
    }

    // ── the steps ───────────────────────────────────────────────────────────

    function _agreementOf(uint256 agreement) private view returns (Agreement storage) {
        if (agreement >= _agreements.length) revert UnknownAgreement(agreement);
        return _agreements[agreement];
    }

    function _inState(uint256 agreement, Agreement storage a, OrderState state)
        private
        view
        returns (Order storage order)
    {
        order = a.order;
        if (order.state != state) revert WrongState(agreement, order.state);
    }

    function _end(uint256 agreement, Agreement storage a, OrderState state) private {
        (a.order.state, a.order.since) = (state, uint64(block.timestamp));
        if (state == OrderState.Paid) {
            a.mendedAt = a.order.reportedAt;
            _give(a.terms.contractor, a.terms.token, a.terms.price);
        } else {
            a.free += a.terms.price;
        }
        emit OrderEnded(agreement, a.orders, state);
    }
}
