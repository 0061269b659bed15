// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Cases} from "../src/Cases.sol";
import {Case, Desk, State} from "../src/ICases.sol";
import {IVerdictConsumer} from "../src/IVerdictConsumer.sol";
import {Severity} from "../src/Verdict.sol";
import {MaintenanceOrder, MaintenanceTerms, OrderState} from "../src/consumers/MaintenanceOrder.sol";
import {Purse} from "../src/consumers/Purse.sol";
import {ConsumerFixture} from "./ConsumerFixture.sol";
import {Testing} from "./Testing.sol";

/// @notice Everything that plant, contractor, arbiter, overseer and strangers can do, in any order, also out of turn.
contract Parties is ConsumerFixture {
    address[4] public parties = [A, B, ARBITER, STRANGER];
    uint96 public constant BOND = 1 ether;

    MaintenanceOrder public orders;
    Cases public cases;
    uint256 public agreement;
    bytes32 public deskId;
    uint64[] public opened;
    /// Verdicts taken twice, anchors that failed, cases that came back from their end.
    uint256 public wrongs;
    /// Orders that were paid although the fault was mended before.
    uint256 public paidAgain;
    mapping(bytes32 caseId => bytes32) private _resolved;
    uint256 public ended;

    function begin() external {
        setUp();
        (orders, cases) = (new MaintenanceOrder(), new Cases());
        MaintenanceTerms memory terms = maintenanceTerms();
        vm.prank(parties[0]);
        agreement = orders.agree(terms);
        vm.prank(parties[1]);
        orders.accept(agreement);
        vm.prank(owner);
        deskId = cases.openDesk(
            Desk({
                owner: owner,
                overseer: parties[1],
                arbiter: parties[2],
                log: verdictLog,
                logId: logId,
                bond: BOND,
                disputeWindow: 1 days,
                arbitration: 7 days
            })
        );
        for (uint256 i = 0; i < parties.length; ++i) {
            coin.mint(parties[i], 100_000);
            vm.deal(parties[i], 1_000 ether);
            vm.prank(parties[i]);
            coin.approve(address(orders), type(uint256).max);
        }
    }

    /// @dev What is the contract's to give: free, set aside, and waiting to be withdrawn.
    function owedByOrders() external view returns (uint256 owed) {
        MaintenanceOrder.Agreement memory a = orders.agreementOf(agreement);
        OrderState state = a.order.state;
        bool under = state == OrderState.Open || state == OrderState.Reported || state == OrderState.Challenged;
        owed = a.free + (under ? PRICE : 0);
        for (uint256 i = 0; i < parties.length; ++i) {
            owed += orders.balanceOf(parties[i], coin);
        }
    }

    function owedByCases() external view returns (uint256 owed) {
        for (uint256 i = 0; i < opened.length; ++i) {
            Case memory c = cases.caseOf(cases.caseIdOf(deskId, opened[i]));
            owed += c.bond;
        }
        owed += cases.balanceOf(owner);
        for (uint256 i = 0; i < parties.length; ++i) {
            owed += cases.balanceOf(parties[i]);
        }
    }

    function time(uint32 seconds_) external {
        pass(seconds_ % 2 days);
    }

    function verdict(uint8 severity) external {
        uint256 before = said.length;
        pass(60);
        log(verdictNow(uint8(severity % 3)));
        if (verdictLog.head(logId).size != before + 1) ++wrongs;
    }

    function bring(uint256 which) external {
        if (said.length == 0) return;
        uint64 index = uint64(which % said.length);
        bool before = orders.consumed(agreement, said[index].seq);
        MaintenanceOrder.Agreement memory a = orders.agreementOf(agreement);
        bytes memory call = abi.encodeCall(IVerdictConsumer.consume, (agreement, said[index], proofOf(index)));
        (bool done,) = address(orders).call(call);
        if (done && (before || said[index].severity != Severity.CRITICAL)) ++wrongs;
        // The ghost's own account of what is mended: it asks the order that was paid, not the agreement.
        if (done && a.order.state == OrderState.Paid && said[index].windowStart < uint256(a.order.reportedAt) * 1000) {
            ++paidAgain;
        }
    }

    function order(uint256 by, uint256 act, uint128 amount) external {
        bytes[8] memory calls = [
            abi.encodeCall(MaintenanceOrder.fund, (agreement, amount % 2_000)),
            abi.encodeCall(MaintenanceOrder.release, (agreement, amount % 2_000)),
            abi.encodeCall(MaintenanceOrder.report, (agreement, "")),
            abi.encodeCall(MaintenanceOrder.cancel, (agreement)),
            abi.encodeCall(MaintenanceOrder.challenge, (agreement, "")),
            abi.encodeCall(MaintenanceOrder.resolve, (agreement, amount % 2 == 0)),
            abi.encodeCall(MaintenanceOrder.settle, (agreement)),
            abi.encodeCall(Purse.withdraw, (coin))
        ];
        // Mostly whose turn it is, so that orders get to their ends; and now and then anybody.
        uint8[8] memory turn = [0, 0, 1, 0, 0, 2, 3, uint8(by >> 8) % 4];
        vm.prank(parties[by % 4 == 0 ? (by >> 16) % 4 : turn[act % 8]]);
        (bool done,) = address(orders).call(calls[act % 8]);
        if (done) ++ended;
    }

    function question(uint256 by, uint256 act, uint256 which) external {
        if (act % 6 == 0 && said.length > 0) {
            uint64 index = uint64(which % said.length);
            bytes memory call = abi.encodeCall(cases.open, (deskId, said[index], proofOf(index)));
            (bool made,) = address(cases).call(call);
            if (made) opened.push(index);
            return;
        }
        if (opened.length == 0) return;
        bytes32 id = cases.caseIdOf(deskId, opened[which % opened.length]);
        bytes[6] memory calls = [
            abi.encodeCall(cases.withdraw, ()),
            abi.encodeCall(cases.acknowledge, (id, "")),
            abi.encodeCall(cases.overrule, (id, "")),
            abi.encodeCall(cases.dispute, (id, cases.caseOf(id).state, "")),
            abi.encodeCall(cases.resolve, (id, which % 2 == 0, "")),
            abi.encodeCall(cases.lapse, (id))
        ];
        uint8[6] memory turn = [3, 1, 1, 3, 2, 3];
        vm.prank(parties[by % 4 == 0 ? (by >> 16) % 4 : turn[act % 6]]);
        (bool done,) = address(cases).call{value: act % 6 == 3 ? BOND : 0}(calls[act % 6]);
        if (done) ++ended;
        watchResolved();
    }

    /// @dev What is resolved stays as it was resolved.
    function watchResolved() private {
        for (uint256 i = 0; i < opened.length; ++i) {
            bytes32 id = cases.caseIdOf(deskId, opened[i]);
            bytes32 seen = _resolved[id];
            Case memory c = cases.caseOf(id);
            if (seen != bytes32(0) && seen != keccak256(abi.encode(c))) ++wrongs;
            if (seen == bytes32(0) && c.state == State.Resolved) _resolved[id] = keccak256(abi.encode(c));
        }
    }

    function takeBond(uint256 by) external {
        vm.prank(parties[by % 4]);
        (bool done,) = address(cases).call(abi.encodeCall(cases.withdraw, ()));
        if (done) ++ended;
    }
}

contract MoneyInvariantTest is Testing {
    Parties private parties;

    function setUp() public {
        parties = new Parties();
        parties.begin();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(parties);
    }

    function excludeSelectors() external view returns (Excluded[] memory excluded) {
        excluded = new Excluded[](1);
        bytes4[] memory selectors = new bytes4[](2);
        (selectors[0], selectors[1]) = (Parties.begin.selector, parties.setUp.selector);
        excluded[0] = Excluded(address(parties), selectors);
    }

    struct Excluded {
        address target;
        bytes4[] selectors;
    }

    /// forge-config: default.invariant.depth = 300
    /// @dev Coins are where they are owed: nothing is made, nothing lost, nothing paid twice.
    function invariant_orders_have_exactly_what_they_owe() public view {
        equal(parties.coin().balanceOf(address(parties.orders())), parties.owedByOrders(), "coins");
        uint256 all = parties.coin().balanceOf(address(parties.orders()));
        for (uint256 i = 0; i < 4; ++i) {
            all += parties.coin().balanceOf(parties.parties(i));
        }
        equal(all, 400_000, "all coins there are");
    }

    /// forge-config: default.invariant.depth = 300
    function invariant_cases_have_exactly_what_they_owe() public view {
        equal(address(parties.cases()).balance, parties.owedByCases(), "wei");
    }

    /// forge-config: default.invariant.depth = 300
    /// @dev No verdict is taken twice or without being critical, no case leaves its end, and whatever the consumers do, the log
    /// goes on.
    function invariant_nothing_is_consumed_twice_no_case_comes_back_and_the_log_goes_on() public view {
        equal(parties.wrongs(), 0, "wrongs");
    }

    /// forge-config: default.invariant.depth = 300
    function invariant_one_fault_is_paid_once() public view {
        equal(parties.paidAgain(), 0, "paid again");
    }
}
