// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Cases} from "../src/Cases.sol";
import {Case, Desk, ICases, State} from "../src/ICases.sol";
import {Class, Proof, Severity, Verdict, Verdicts} from "../src/Verdict.sol";
import {VerdictsFixture} from "./VerdictsFixture.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @notice Disputes, and takes no money.
contract Miser {
    function dispute(ICases cases, bytes32 id) external payable {
        cases.dispute{value: msg.value}(id, State.Acknowledged, "mine");
    }

    function withdraw(ICases cases) external {
        cases.withdraw();
    }
}

/// @notice Takes its money, and asks for it again meanwhile.
contract Thief {
    ICases private cases;

    function dispute(ICases cases_, bytes32 id) external payable {
        cases = cases_;
        cases.dispute{value: msg.value}(id, State.Acknowledged, "mine");
    }

    function withdraw() external {
        cases.withdraw();
    }

    receive() external payable {
        try cases.withdraw() {} catch {}
    }
}

contract CasesTest is VerdictsFixture {
    address private constant OVERSEER = address(0x0222);
    address private constant ARBITER = address(0x0333);
    address private constant STRANGER = address(0x0444);
    uint96 private constant BOND = 1 ether;

    Cases private cases;
    bytes32 private deskId;

    function setUp() public override {
        super.setUp();
        cases = new Cases();
        vm.prank(owner);
        deskId = cases.openDesk(desk());
        vm.deal(STRANGER, 100 ether);
    }

    function desk() private view returns (Desk memory) {
        return Desk({
            owner: owner,
            overseer: OVERSEER,
            arbiter: ARBITER,
            log: verdictLog,
            logId: logId,
            bond: BOND,
            disputeWindow: 1 days,
            arbitration: 7 days
        });
    }

    function opened() private returns (bytes32 id, uint64 index) {
        Verdict memory v = verdictNow(Severity.CRITICAL);
        log(verdictNow(Severity.NORMAL));
        index = log(v);
        vm.prank(STRANGER);
        id = cases.open(deskId, v, proofOf(index));
    }

    function acknowledge(bytes32 id) private {
        vm.prank(OVERSEER);
        cases.acknowledge(id, "seen");
    }

    function overrule(bytes32 id) private {
        vm.prank(OVERSEER);
        cases.overrule(id, "a cleaning cycle");
    }

    function dispute(bytes32 id) private {
        State answer = cases.caseOf(id).state;
        vm.prank(STRANGER);
        cases.dispute{value: BOND}(id, answer, "no");
    }

    function disputing(bytes32 id, State answer) private pure returns (bytes memory) {
        return abi.encodeCall(ICases.dispute, (id, answer, ""));
    }

    function refusedBy(address who, uint256 value, bytes memory call, bytes memory reason) private {
        vm.expectRevert(reason);
        vm.prank(who);
        (bool done,) = address(cases).call{value: value}(call);
        done;
    }

    function wrong(bytes32 id, State state) private pure returns (bytes memory) {
        return abi.encodeWithSelector(ICases.WrongState.selector, id, state);
    }

    function test_a_verdict_counts_until_it_is_overruled() public {
        (bytes32 id, uint64 index) = opened();
        check(cases.stands(deskId, index), "open");
        acknowledge(id);
        check(cases.stands(deskId, index), "acknowledged");
        overrule(id);
        check(!cases.stands(deskId, index), "overruled, also after an acknowledgement");
        Case memory c = cases.caseOf(id);
        check(c.state == State.Overridden && c.reasonHash == "a cleaning cycle", "with the reason");
        check(cases.stands(deskId, 99), "what nobody questioned counts");
    }

    function test_only_what_is_proven_is_opened_and_once() public {
        (bytes32 id, uint64 index) = opened();
        Verdict memory v = said[index];
        Proof memory proof = proofOf(index);
        refusedBy(STRANGER, 0, abi.encodeCall(ICases.open, (deskId, v, proof)), wrong(id, State.Open));
        v.severity = Severity.NORMAL;
        Proof memory first = proofOf(0);
        bytes memory notThere =
            abi.encodeWithSelector(Verdicts.NotInLog.selector, address(verdictLog), logId, uint64(0));
        refusedBy(STRANGER, 0, abi.encodeCall(ICases.open, (deskId, v, first)), notThere);
        refusedBy(
            STRANGER,
            0,
            abi.encodeCall(ICases.open, ("no desk", said[0], first)),
            abi.encodeWithSelector(ICases.UnknownDesk.selector, bytes32("no desk"))
        );
    }

    function test_only_the_overseer_answers() public {
        (bytes32 id,) = opened();
        bytes memory notIt = abi.encodeWithSelector(ICases.NotAuthorized.selector, id, owner);
        refusedBy(owner, 0, abi.encodeCall(ICases.acknowledge, (id, "")), notIt);
        refusedBy(owner, 0, abi.encodeCall(ICases.overrule, (id, "")), notIt);
        overrule(id);
        refusedBy(OVERSEER, 0, abi.encodeCall(ICases.acknowledge, (id, "")), wrong(id, State.Overridden));
    }

    function test_an_answer_is_final_once_it_cannot_be_disputed_any_more() public {
        (bytes32 id,) = opened();
        acknowledge(id);
        uint64 until = uint64(block.timestamp + 1 days);
        vm.warp(until);
        bytes memory late = abi.encodeWithSelector(ICases.WrongTime.selector, id, until);
        refusedBy(OVERSEER, 0, abi.encodeCall(ICases.overrule, (id, "")), late);
        refusedBy(STRANGER, BOND, disputing(id, State.Acknowledged), late);
    }

    function test_a_dispute_that_is_upheld_turns_the_answer_round_and_the_bond_goes_back() public {
        (bytes32 id, uint64 index) = opened();
        overrule(id);
        dispute(id);
        check(!cases.stands(deskId, index), "while it is disputed nothing counts");
        vm.prank(ARBITER);
        cases.resolve(id, true, "it was a fault");
        check(cases.stands(deskId, index), "the verdict stands after all");
        uint256 before = STRANGER.balance;
        vm.prank(STRANGER);
        cases.withdraw();
        equal(STRANGER.balance - before, BOND, "bond");
        equal(address(cases).balance, 0, "nothing is left");
    }

    function test_a_dispute_that_is_not_upheld_costs_the_bond() public {
        (bytes32 id, uint64 index) = opened();
        acknowledge(id);
        dispute(id);
        check(!cases.stands(deskId, index), "disputed");
        vm.prank(ARBITER);
        cases.resolve(id, false, "no");
        check(cases.stands(deskId, index), "as it was answered");
        equal(cases.balanceOf(owner), BOND, "the owner's");
        refusedBy(
            STRANGER,
            0,
            abi.encodeCall(ICases.withdraw, ()),
            abi.encodeWithSelector(ICases.NotWithdrawn.selector, STRANGER, 0)
        );
    }

    function test_a_dispute_nobody_decides_lapses_and_the_bond_goes_back() public {
        (bytes32 id, uint64 index) = opened();
        overrule(id);
        dispute(id);
        uint64 until = uint64(block.timestamp + 7 days);
        refusedBy(
            STRANGER,
            0,
            abi.encodeCall(ICases.lapse, (id)),
            abi.encodeWithSelector(ICases.WrongTime.selector, id, until)
        );
        vm.warp(until);
        cases.lapse(id);
        check(!cases.stands(deskId, index), "the answer stands");
        equal(cases.balanceOf(STRANGER), BOND, "bond");
        refusedBy(ARBITER, 0, abi.encodeCall(ICases.resolve, (id, true, "")), wrong(id, State.Resolved));
        refusedBy(STRANGER, 0, abi.encodeCall(ICases.lapse, (id)), wrong(id, State.Resolved));
    }

    function test_a_dispute_needs_an_answer_its_exact_bond_and_is_made_once() public {
        (bytes32 id,) = opened();
        bytes memory call = disputing(id, State.Acknowledged);
        refusedBy(STRANGER, BOND, disputing(id, State.Open), wrong(id, State.Open));
        refusedBy(STRANGER, BOND, disputing("no case", State.None), wrong("no case", State.None));
        acknowledge(id);
        refusedBy(STRANGER, BOND - 1, call, abi.encodeWithSelector(ICases.WrongBond.selector, BOND - 1, BOND));
        refusedBy(STRANGER, BOND + 1, call, abi.encodeWithSelector(ICases.WrongBond.selector, BOND + 1, BOND));
        dispute(id);
        refusedBy(STRANGER, BOND, call, wrong(id, State.Disputed));
        refusedBy(OVERSEER, 0, abi.encodeCall(ICases.overrule, (id, "")), wrong(id, State.Disputed));
        refusedBy(
            OVERSEER,
            0,
            abi.encodeCall(ICases.resolve, (id, false, "")),
            abi.encodeWithSelector(ICases.NotAuthorized.selector, id, OVERSEER)
        );
        vm.prank(ARBITER);
        cases.resolve(id, false, "");
        refusedBy(STRANGER, BOND, call, wrong(id, State.Resolved));
    }

    function test_who_takes_no_money_blocks_nobody() public {
        (bytes32 id,) = opened();
        acknowledge(id);
        Miser miser = new Miser();
        vm.deal(address(this), BOND);
        miser.dispute{value: BOND}(cases, id);
        vm.prank(ARBITER);
        cases.resolve(id, true, "");
        refused(address(miser), abi.encodeCall(Miser.withdraw, (cases)));
        equal(cases.balanceOf(address(miser)), BOND, "it waits");
    }

    function test_who_asks_again_while_it_is_paid_gets_it_once() public {
        (bytes32 id,) = opened();
        acknowledge(id);
        Thief thief = new Thief();
        vm.deal(address(this), BOND);
        thief.dispute{value: BOND}(cases, id);
        vm.deal(address(cases), 10 ether);
        vm.prank(ARBITER);
        cases.resolve(id, true, "");
        thief.withdraw();
        equal(address(thief).balance, BOND, "once");
        equal(address(cases).balance, 10 ether - BOND, "and the rest is others'");
    }

    function test_a_dispute_is_not_turned_round_by_another_answer() public {
        (bytes32 id, uint64 index) = opened();
        acknowledge(id);
        // The stranger disputes the acknowledgement; the overseer, who sees it coming, overrules first.
        overrule(id);
        refusedBy(STRANGER, BOND, disputing(id, State.Acknowledged), wrong(id, State.Overridden));
        equal(address(cases).balance, 0, "no bond is in danger");
        // Who disputes the new answer knows which.
        vm.prank(STRANGER);
        vm.expectEmit(true, true, true, true, address(cases));
        emit ICases.CaseDisputed(id, STRANGER, State.Overridden, BOND, "it was a fault");
        cases.dispute{value: BOND}(id, State.Overridden, "it was a fault");
        vm.prank(ARBITER);
        cases.resolve(id, true, "");
        check(cases.stands(deskId, index), "upheld: the verdict stands");
        equal(cases.balanceOf(STRANGER), BOND, "and the bond goes back");
    }

    function test_an_arbiter_decides_in_its_time_only() public {
        (bytes32 id,) = opened();
        acknowledge(id);
        dispute(id);
        uint64 until = uint64(block.timestamp + 7 days);
        vm.warp(until);
        refusedBy(
            ARBITER,
            0,
            abi.encodeCall(ICases.resolve, (id, false, "")),
            abi.encodeWithSelector(ICases.WrongTime.selector, id, until)
        );
        cases.lapse(id);
        equal(cases.balanceOf(STRANGER), BOND, "the bond goes back");
        equal(cases.balanceOf(owner), 0, "and is not the owner's");
    }

    function test_an_answer_is_final_when_it_cannot_change_any_more() public {
        (bytes32 id, uint64 index) = opened();
        check(!cases.isFinal(deskId, index) && !cases.isFinal(deskId, 99), "no answer");
        overrule(id);
        vm.warp(uint256(cases.caseOf(id).since) + 1 days - 1);
        check(!cases.isFinal(deskId, index), "it can be disputed");
        dispute(id);
        vm.warp(uint256(cases.caseOf(id).since) + 30 days);
        check(!cases.isFinal(deskId, index), "a dispute that nobody has ended");
        cases.lapse(id);
        check(cases.isFinal(deskId, index) && !cases.stands(deskId, index), "resolved");
        (id, index) = opened();
        acknowledge(id);
        vm.warp(uint256(cases.caseOf(id).since) + 1 days);
        check(cases.isFinal(deskId, index) && cases.stands(deskId, index), "not disputed in time");
    }

    function label(uint64 index, uint16 class_) private view returns (Verdict memory v) {
        v = verdictNow(Severity.NORMAL);
        (v.class_, v.modelHash, v.scoreE6) = (class_, bytes32(0), 0);
        (v.windowStart, v.windowEnd) = (said[index].windowStart, said[index].windowEnd);
    }

    function notLinked(bytes32 id, uint64 index, Verdict memory entry) private {
        uint64 at_ = log(entry);
        Proof memory proof = proofOf(at_);
        bytes memory notIt = abi.encodeWithSelector(ICases.NotALink.selector, id, at_);
        refusedBy(STRANGER, 0, abi.encodeCall(ICases.link, (id, said[index], entry, proof)), notIt);
    }

    function test_the_label_in_the_log_is_tied_to_the_case() public {
        (bytes32 id, uint64 index) = opened();
        overrule(id);
        Verdict memory entry = label(index, Class.LABEL_FALSE_ALARM);
        uint64 at_ = log(entry);
        Proof memory proof = proofOf(at_);
        vm.expectEmit(true, true, true, true, address(cases));
        emit ICases.CaseLinked(id, at_, Class.LABEL_FALSE_ALARM, hasher.entryOf(entry));
        cases.link(id, said[index], entry, proof);
        bytes memory notIt = abi.encodeWithSelector(ICases.NotALink.selector, id, at_);
        refusedBy(STRANGER, 0, abi.encodeCall(ICases.link, (id, said[index], entry, proof)), notIt);
        // A second label stands beside the first, as in the log.
        entry = label(index, Class.LABEL_LAST);
        at_ = log(entry);
        proof = proofOf(at_);
        cases.link(id, said[index], entry, proof);
        // Not under a verdict that is another's than the case's.
        entry = label(index, Class.LABEL_FIRST);
        at_ = log(entry);
        proof = proofOf(at_);
        notIt = abi.encodeWithSelector(ICases.NotALink.selector, id, at_);
        refusedBy(STRANGER, 0, abi.encodeCall(ICases.link, (id, entry, entry, proof)), notIt);
        // And not what the log does not have there.
        entry.evidenceHash = "forged";
        proof = proofOf(at_);
        refusedBy(
            STRANGER,
            0,
            abi.encodeCall(ICases.link, (id, said[index], entry, proof)),
            abi.encodeWithSelector(Verdicts.NotInLog.selector, address(verdictLog), logId, at_)
        );
        refusedBy(
            STRANGER, 0, abi.encodeCall(ICases.link, ("no case", entry, entry, proof)), wrong("no case", State.None)
        );
    }

    function test_what_is_no_label_about_the_same_window_is_not_tied() public {
        (bytes32 id, uint64 index) = opened();
        // Any later verdict, of a model, and at the edges of the labels' classes.
        notLinked(id, index, verdictNow(Severity.CRITICAL));
        notLinked(id, index, label(index, Class.LABEL_FIRST - 1));
        notLinked(id, index, label(index, Class.LABEL_LAST + 1));
        Verdict memory entry = label(index, Class.LABEL_FALSE_ALARM);
        entry.modelHash = MODEL;
        notLinked(id, index, entry);
        entry = label(index, Class.LABEL_FALSE_ALARM);
        entry.deviceId = keccak256("another");
        notLinked(id, index, entry);
        entry = label(index, Class.LABEL_FALSE_ALARM);
        entry.windowStart += 1;
        notLinked(id, index, entry);
        entry = label(index, Class.LABEL_FALSE_ALARM);
        entry.windowEnd += 1;
        notLinked(id, index, entry);
        // A label that the log had before the verdict.
        entry = label(index, Class.LABEL_FALSE_ALARM);
        uint64 before = log(entry);
        uint64 after_ = log(said[index]);
        bytes32 second = cases.open(deskId, said[after_], proofOf(after_));
        Proof memory proof = proofOf(before);
        refusedBy(
            STRANGER,
            0,
            abi.encodeCall(ICases.link, (second, said[after_], entry, proof)),
            abi.encodeWithSelector(ICases.NotALink.selector, second, before)
        );
    }

    function test_a_desk_without_a_bond_lets_disputes_be_free() public {
        cases = new Cases();
        Desk memory d = desk();
        d.bond = 0;
        vm.prank(owner);
        cases.openDesk(d);
        (bytes32 id,) = opened();
        acknowledge(id);
        vm.prank(STRANGER);
        cases.dispute(id, State.Acknowledged, "");
        vm.prank(ARBITER);
        cases.resolve(id, false, "");
        equal(cases.balanceOf(owner), 0, "nothing");
    }

    function test_only_the_logs_owner_opens_its_desk_and_once() public {
        Desk memory d = desk();
        bytes memory call = abi.encodeCall(ICases.openDesk, (d));
        bytes memory no = abi.encodeWithSelector(ICases.DeskRefused.selector, deskId);
        refusedBy(owner, 0, call, no);
        cases = new Cases();
        refusedBy(STRANGER, 0, call, no);
        d.owner = STRANGER;
        refusedBy(STRANGER, 0, abi.encodeCall(ICases.openDesk, (d)), no);
    }

    function test_a_desk_has_three_people_and_time() public {
        cases = new Cases();
        Desk[5] memory bad = [desk(), desk(), desk(), desk(), desk()];
        bad[0].arbiter = owner;
        bad[1].overseer = owner;
        bad[2].overseer = ARBITER;
        bad[3].disputeWindow = 59 minutes;
        bad[4].arbitration = 59 minutes;
        for (uint256 i = 0; i < bad.length; ++i) {
            refusedBy(
                owner, 0, abi.encodeCall(ICases.openDesk, (bad[i])), abi.encodeWithSelector(ICases.BadDesk.selector)
            );
        }
        Desk memory d = desk();
        d.arbiter = address(0);
        refusedBy(owner, 0, abi.encodeCall(ICases.openDesk, (d)), abi.encodeWithSelector(ICases.BadDesk.selector));
        equal(cases.deskOf(deskId).owner, address(0), "none");
    }

    function test_it_says_what_it_is() public view {
        check(cases.supportsInterface(type(ICases).interfaceId), "its interface");
        check(cases.supportsInterface(type(IERC165).interfaceId), "ERC-165");
        check(!cases.supportsInterface(0xffffffff), "and no other");
        equal(cases.deskOf(deskId).bond, BOND, "desk");
    }
}
