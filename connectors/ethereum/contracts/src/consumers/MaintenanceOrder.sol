// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Severity, Verdict} from "../Verdict.sol";
import {Subject, VerdictConsumer} from "./VerdictConsumer.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

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
    None,
    Open,
    Reported,
    Challenged,
    Paid,
    Cancelled
}

/// @notice A machine that must be seen to.
struct Order {
    OrderState state;
    /// Since when it stands there, in seconds since the Unix epoch.
    uint64 since;
    /// The verdict that opened it.
    uint64 index;
    /// SHA-256 of the contractor's report.
    bytes32 reportHash;
}

/// @title MaintenanceOrder
/// @notice A proven critical verdict opens an order for a contractor, whose price is set aside from what the plant has put in.
/// The contractor reports; if the plant does not challenge within the window, the price is the contractor's.
/// @dev A machine has one order at a time; verdicts meanwhile are about the same fault and open none (they are refused, and can be brought later). One contract serves
/// everyone; nobody administers it. Tokens that take a fee of a transfer are counted by what arrived.
contract MaintenanceOrder is VerdictConsumer {
    using SafeERC20 for IERC20;

    struct Agreement {
        MaintenanceTerms terms;
        /// When the contractor accepted; 0 before.
        uint64 acceptedAt;
        /// The plant's, not set aside.
        uint128 free;
        /// The last order.
        Order order;
        uint64 orders;
    }

    /// @notice Parties must differ and not be zero, times be at least an hour, the price above zero.
    error BadTerms();
    /// @notice Where the order stands this cannot be done.
    error WrongState(uint256 agreement, OrderState state);
    /// @notice Too late, or too early: the time that matters is `when`.
    error WrongTime(uint256 agreement, uint64 when);
    /// @notice The plant has not put in the price of another order.
    error NotFunded(uint256 agreement, uint256 free, uint256 price);
    /// @notice The machine has an order that is not done.
    error OrderUnderWay(uint256 agreement);

    event Agreed(uint256 indexed agreement, address indexed plant, address indexed contractor, MaintenanceTerms terms);
    event Accepted(uint256 indexed agreement);
    event Funded(uint256 indexed agreement, uint256 amount);
    event OrderOpened(uint256 indexed agreement, uint64 order, uint64 index);
    event OrderReported(uint256 indexed agreement, uint64 order, bytes32 reportHash);
    event OrderChallenged(uint256 indexed agreement, uint64 order, bytes32 reasonHash);
    event OrderEnded(uint256 indexed agreement, uint64 order, OrderState state);
    event Withdrawn(address indexed account, IERC20 indexed token, uint256 amount);

    Agreement[] private _agreements;
    /// @dev What is an account's, to be withdrawn: nobody's refusal to take it blocks another.
    mapping(address account => mapping(IERC20 token => uint256)) private _balances;

    // ── the agreement ───────────────────────────────────────────────────────

    /// @notice The plant offers terms; they bind once the contractor accepts them.
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
    function accept(uint256 agreement) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.contractor || a.acceptedAt != 0) revert NotAuthorized(agreement, msg.sender);
        a.acceptedAt = uint64(block.timestamp);
        emit Accepted(agreement);
    }

    /// @notice Puts money in for orders. Anybody may; it is the plant's.
    function fund(uint256 agreement, uint128 amount) external nonReentrant {
        Agreement storage a = _agreementOf(agreement);
        IERC20 token = a.terms.token;
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 arrived = token.balanceOf(address(this)) - before;
        a.free += uint128(arrived > amount ? amount : arrived);
        emit Funded(agreement, arrived);
    }

    /// @notice Takes back what is not set aside.
    function release(uint256 agreement, uint128 amount) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.plant) revert NotAuthorized(agreement, msg.sender);
        a.free -= amount;
        _balances[msg.sender][a.terms.token] += amount;
    }

    // ── the order ───────────────────────────────────────────────────────────

    /// @notice The contractor says that the machine is mended.
    function report(uint256 agreement, bytes32 reportHash) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.contractor) revert NotAuthorized(agreement, msg.sender);
        Order storage order = _inState(agreement, a, OrderState.Open);
        uint64 until = order.since + a.terms.service;
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        (order.state, order.since, order.reportHash) = (OrderState.Reported, uint64(block.timestamp), reportHash);
        emit OrderReported(agreement, a.orders, reportHash);
    }

    /// @notice The plant takes back what was set aside for an order that was not reported done in time.
    function cancel(uint256 agreement) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.plant) revert NotAuthorized(agreement, msg.sender);
        Order storage order = _inState(agreement, a, OrderState.Open);
        uint64 from = order.since + a.terms.service;
        if (block.timestamp < from) revert WrongTime(agreement, from);
        _end(agreement, a, OrderState.Cancelled);
    }

    /// @notice The plant says that the machine is not mended.
    function challenge(uint256 agreement, bytes32 reasonHash) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.plant) revert NotAuthorized(agreement, msg.sender);
        Order storage order = _inState(agreement, a, OrderState.Reported);
        uint64 until = order.since + a.terms.challenge;
        if (block.timestamp >= until) revert WrongTime(agreement, until);
        (order.state, order.since) = (OrderState.Challenged, uint64(block.timestamp));
        emit OrderChallenged(agreement, a.orders, reasonHash);
    }

    /// @notice The arbiter decides a challenge.
    function resolve(uint256 agreement, bool mended) external {
        Agreement storage a = _agreementOf(agreement);
        if (msg.sender != a.terms.arbiter) revert NotAuthorized(agreement, msg.sender);
        _inState(agreement, a, OrderState.Challenged);
        _end(agreement, a, mended ? OrderState.Paid : OrderState.Cancelled);
    }

    /// @notice Pays for an order once nobody has challenged its report in time, or the arbiter has not decided in time. Anybody may.
    function settle(uint256 agreement) external {
        Agreement storage a = _agreementOf(agreement);
        OrderState state = a.order.state;
        if (state != OrderState.Reported && state != OrderState.Challenged) revert WrongState(agreement, state);
        uint64 wait = state == OrderState.Reported ? a.terms.challenge : a.terms.arbitration;
        uint64 from = a.order.since + wait;
        if (block.timestamp < from) revert WrongTime(agreement, from);
        _end(agreement, a, OrderState.Paid);
    }

    /// @notice Pays what is the caller's.
    function withdraw(IERC20 token) external nonReentrant {
        uint256 amount = _balances[msg.sender][token];
        _balances[msg.sender][token] = 0;
        token.safeTransfer(msg.sender, amount);
        emit Withdrawn(msg.sender, token, amount);
    }

    // ── reading ─────────────────────────────────────────────────────────────

    /// @notice Terms, when they were accepted, what is free, and the last order with its number.
    function agreementOf(uint256 agreement) external view returns (Agreement memory) {
        return _agreementOf(agreement);
    }

    /// @notice What is an account's, to be withdrawn.
    function balanceOf(address account, IERC20 token) external view returns (uint256) {
        return _balances[account][token];
    }

    // ── what the verdict does ───────────────────────────────────────────────

    function _subjectOf(uint256 agreement) internal view override returns (Subject storage) {
        return _agreementOf(agreement).terms.subject;
    }

    function _isAgreed(uint256 agreement, Verdict calldata verdict) internal view override returns (bool) {
        uint64 accepted = _agreements[agreement].acceptedAt;
        return accepted != 0 && verdict.severity == Severity.CRITICAL && verdict.windowEnd / 1000 >= accepted;
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
        a.order = Order({state: OrderState.Open, since: uint64(block.timestamp), index: index, reportHash: bytes32(0)});
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
        if (state == OrderState.Paid) _balances[a.terms.contractor][a.terms.token] += a.terms.price;
        else a.free += a.terms.price;
        emit OrderEnded(agreement, a.orders, state);
    }
}
