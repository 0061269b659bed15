// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Cases} from "../src/Cases.sol";
import {Desk, State} from "../src/ICases.sol";
import {IVerdictConsumer} from "../src/IVerdictConsumer.sol";
import {Class, Severity, Verdict} from "../src/Verdict.sol";
import {ColdChainShipment, ShipmentState, ShipmentTerms} from "../src/consumers/ColdChainShipment.sol";
import {MachineRental, Offer, RentalState} from "../src/consumers/MachineRental.sol";
import {Purse} from "../src/consumers/Purse.sol";
import {Subject} from "../src/consumers/VerdictConsumer.sol";
import {ConsumerFixture} from "./ConsumerFixture.sol";
import {Testing} from "./Testing.sol";

/// @notice Everything that shippers, carriers, renters, arbiters, overseer and strangers can do, in any order, also out of turn. The
/// machine of the rental has its key here.
contract Carriage is ConsumerFixture {
    /// Shipper and renter, carrier, arbiter, stranger, machine.
    address[5] public parties = [A, B, ARBITER, STRANGER, vm.addr(MACHINE_KEY)];
    ColdChainShipment public shipments;
    MachineRental public rentals;
    Cases public cases;
    bytes32 public deskId;
    uint256 public shipped;
    uint256 public rented;
    uint256 private _nonce;
    /// Calls that did something, so that the invariants are not about nothing.
    uint256 public done;
    /// What must never be: usage or excursions beyond what was said, anchors that failed, ended agreements that began again.
    uint256 public wrongs;
    /// Of each minute how often it was billed, whoever rented.
    mapping(uint64 windowStart => uint256) private _billed;
    /// Of each shipment the slots in which an excursion counts.
    mapping(uint256 id => mapping(uint64 slot => bool)) private _counted;
    /// Of each shipment the verdicts that were taken.
    mapping(uint256 id => uint64[]) private _excursions;

    function begin() external {
        setUp();
        (shipments, rentals, cases) = (new ColdChainShipment(), new MachineRental(), new Cases());
        vm.prank(owner);
        deskId = cases.openDesk(Desk(owner, parties[3], parties[2], verdictLog, logId, 0, 1 hours, 1 hours));
        for (uint256 i = 0; i < parties.length; ++i) {
            coin.mint(parties[i], 100_000);
            vm.prank(parties[i]);
            coin.approve(address(shipments), type(uint256).max);
            vm.prank(parties[i]);
            coin.approve(address(rentals), type(uint256).max);
        }
    }

    function subject() internal view override returns (Subject memory s) {
        s = super.subject();
        s.cases = cases;
    }

    function time(uint32 seconds_) external {
        // Whole minutes: usage is metered by them.
        pass(uint256(seconds_ % 1 days) / 60 * 60);
    }

    function ship(uint64 days_) external {
        if (shipped == 4) return;
        ShipmentTerms memory t = shipmentTerms();
        (t.slot, t.arbitration) = (300, 2 days);
        t.deadline = present() + (1 + days_ % 10) * 1 days;
        vm.prank(parties[0]);
        shipments.agree(t);
        ++shipped;
    }

    function rent(uint64 days_) external {
        if (rented == 4) return;
        Offer memory o = rentalOffer(_nonce++);
        (o.price, o.arbitration) = (7, 2 days);
        o.until = present() + (1 + days_ % 3) * 1 days;
        bytes memory by = signedBy(MACHINE_KEY, rentals, o);
        vm.prank(parties[0]);
        rentals.rent(o, by);
        ++rented;
    }

    function verdict(uint8 kind, uint16 units) external {
        uint256 before = said.length;
        pass(60);
        Verdict memory v = verdictNow(kind % 4 == 0 ? Severity.WARNING : Severity.CRITICAL);
        if (kind % 2 == 0) (v.class_, v.scoreE6) = (USAGE, int64(uint64(units)) * 1e5);
        log(v);
        if (verdictLog.head(logId).size != before + 1) ++wrongs;
    }

    function bring(bool rental, uint256 id, uint256 which) external {
        if (said.length == 0) return;
        uint64 index = uint64(which % 4 == 0 ? (which >> 8) % said.length : said.length - 1);
        Verdict memory v = said[index];
        IVerdictConsumer to = rental ? IVerdictConsumer(rentals) : IVerdictConsumer(shipments);
        id %= 4;
        bytes memory call = abi.encodeCall(IVerdictConsumer.consume, (id, v, proofOf(index)));
        bool before = to.consumed(id, v.seq);
        (bool made,) = address(to).call(call);
        if (!made) return;
        ++done;
        if (before || !cases.stands(deskId, index)) ++wrongs;
        if (rental && (v.class_ != USAGE || ++_billed[v.windowStart] > 1)) ++wrongs;
        if (rental) return;
        uint64 slot = v.windowStart / 300_000;
        if (v.class_ != Class.ANOMALY || v.severity != Severity.CRITICAL || _counted[id][slot]) ++wrongs;
        _counted[id][slot] = true;
        _excursions[id].push(index);
    }

    function carry(uint256 by, uint256 act, uint256 id) external {
        id %= 4;
        bytes[8] memory calls = [
            abi.encodeCall(ColdChainShipment.accept, (id)),
            abi.encodeCall(ColdChainShipment.report, (id, "")),
            abi.encodeCall(ColdChainShipment.confirm, (id)),
            abi.encodeCall(ColdChainShipment.challenge, (id, "")),
            abi.encodeCall(ColdChainShipment.resolve, (id, by % 3 != 0)),
            abi.encodeCall(ColdChainShipment.proceed, (id)),
            abi.encodeCall(ColdChainShipment.settle, (id)),
            abi.encodeCall(Purse.withdraw, (coin))
        ];
        uint8[8] memory turn = [1, 1, 0, 0, 2, 3, 3, uint8(by >> 8) % 2];
        bool settled = id < shipped && shipments.shipmentOf(id).state == ShipmentState.Settled;
        vm.prank(parties[by % 5 == 0 ? (by >> 16) % 5 : turn[act % 8]]);
        (bool made,) = address(shipments).call(calls[act % 8]);
        if (!made) return;
        ++done;
        if (settled && act % 8 < 7) ++wrongs;
    }

    /// @dev As carry, of one act that otherwise would come too seldom: the verdict must have been overruled an hour before.
    function retract(uint256 which) external {
        uint256 id = which % 4;
        for (uint256 tried = 0; tried < 4 && _excursions[id].length == 0; ++tried) {
            id = (id + 1) % 4;
        }
        uint64 slot = slotOf(id, which >> 8);
        (bool made,) = address(shipments).call(abi.encodeCall(ColdChainShipment.retract, (id, slot)));
        if (!made) return;
        ++done;
        if (!_counted[id][slot]) ++wrongs;
        _counted[id][slot] = false;
    }

    /// @dev A slot in which an excursion of the shipment was counted once, if there is one.
    function slotOf(uint256 id, uint256 which) private view returns (uint64) {
        uint64[] storage all = _excursions[id];
        return all.length == 0 ? 0 : said[all[which % all.length]].windowStart / 300_000;
    }

    function use(uint256 by, uint256 act, uint256 id) external {
        id %= 4;
        bytes[4] memory calls = [
            abi.encodeCall(MachineRental.dispute, (id, "")),
            abi.encodeCall(MachineRental.resolve, (id, uint128(by >> 32) % 1e9)),
            abi.encodeCall(MachineRental.settle, (id)),
            abi.encodeCall(Purse.withdraw, (coin))
        ];
        uint8[4] memory turn = [0, 2, 3, by % 2 == 0 ? 0 : 4];
        bool settled = id < rented && rentals.rentalOf(id).state == RentalState.Settled;
        vm.prank(parties[by % 5 == 0 ? (by >> 16) % 5 : turn[act % 4]]);
        (bool made,) = address(rentals).call(calls[act % 4]);
        if (!made) return;
        ++done;
        if (settled && act % 4 < 3) ++wrongs;
    }

    function question(uint256 which, bool answer) external {
        if (said.length == 0) return;
        uint64 index = uint64(which % said.length);
        // Mostly about what was taken as an excursion, and so that it is overruled.
        uint64[] storage taken = _excursions[(which >> 16) % 4];
        if (taken.length != 0 && which % 8 < 6) (index, answer) = (taken[(which >> 8) % taken.length], false);
        bytes32 id = cases.caseIdOf(deskId, index);
        if (cases.caseOf(id).state == State.None) cases.open(deskId, said[index], proofOf(index));
        vm.prank(parties[3]);
        (bool made,) = address(cases)
            .call(
                abi.encodeWithSignature(answer ? "acknowledge(bytes32,bytes32)" : "overrule(bytes32,bytes32)", id, "")
            );
        if (made) ++done;
    }

    function owedByShipments() external view returns (uint256 owed) {
        for (uint256 i = 0; i < shipped; ++i) {
            if (shipments.shipmentOf(i).state != ShipmentState.Settled) owed += PAY;
        }
        for (uint256 i = 0; i < parties.length; ++i) {
            owed += shipments.balanceOf(parties[i], coin);
        }
    }

    function owedByRentals() external view returns (uint256 owed) {
        for (uint256 i = 0; i < rented; ++i) {
            if (rentals.rentalOf(i).state != RentalState.Settled) owed += PAY;
        }
        for (uint256 i = 0; i < parties.length; ++i) {
            owed += rentals.balanceOf(parties[i], coin);
        }
    }
}

contract CarriageInvariantTest is Testing {
    Carriage private carriage;

    function setUp() public {
        carriage = new Carriage();
        carriage.begin();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(carriage);
    }

    struct Excluded {
        address target;
        bytes4[] selectors;
    }

    function excludeSelectors() external view returns (Excluded[] memory excluded) {
        excluded = new Excluded[](1);
        bytes4[] memory selectors = new bytes4[](2);
        (selectors[0], selectors[1]) = (Carriage.begin.selector, carriage.setUp.selector);
        excluded[0] = Excluded(address(carriage), selectors);
    }

    /// forge-config: default.invariant.depth = 300
    /// @dev Coins are where they are owed: nothing is made, nothing lost, nothing paid twice.
    function invariant_shipments_and_rentals_have_exactly_what_they_owe() public view {
        equal(carriage.coin().balanceOf(address(carriage.shipments())), carriage.owedByShipments(), "shipments");
        equal(carriage.coin().balanceOf(address(carriage.rentals())), carriage.owedByRentals(), "rentals");
        equal(carriage.coin().totalSupply(), 500_000, "all coins there are");
    }

    /// forge-config: default.invariant.depth = 300
    /// @dev No verdict is taken twice, overruled, or of another class; no minute is billed twice; nothing that has ended begins
    /// again; and the log goes on.
    function invariant_nothing_is_taken_that_must_not_be() public view {
        equal(carriage.wrongs(), 0, "wrongs");
    }
}
