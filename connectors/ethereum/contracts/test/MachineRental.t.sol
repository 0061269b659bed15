// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IVerdictConsumer} from "../src/IVerdictConsumer.sol";
import {Proof, Verdict} from "../src/Verdict.sol";
import {MachineRental, Offer, RentalState} from "../src/consumers/MachineRental.sol";
import {Purse} from "../src/consumers/Purse.sol";
import {Subject} from "../src/consumers/VerdictConsumer.sol";
import {ConsumerFixture} from "./ConsumerFixture.sol";
import {Tithe} from "./VerdictsFixture.sol";

contract MachineRentalTest is ConsumerFixture {
    address private constant RENTER = A;
    uint128 private constant DEPOSIT = PAY;

    MachineRental private rentals;
    address private machine = vm.addr(MACHINE_KEY);
    uint256 private id;

    function setUp() public override {
        super.setUp();
        rentals = new MachineRental();
        id = rented(offer());
    }

    function offer() private view returns (Offer memory) {
        return rentalOffer(1);
    }

    function signature(Offer memory o, uint256 key) private view returns (bytes memory) {
        return signedBy(key, rentals, o);
    }

    function rented(Offer memory o) private returns (uint256) {
        bytes memory by = signature(o, MACHINE_KEY);
        pay();
        vm.prank(RENTER);
        return rentals.rent(o, by);
    }

    function pay() private {
        pay(RENTER, address(rentals), DEPOSIT);
    }

    function used(int64 units) private returns (uint64 index) {
        index = usage(units);
        bring(rentals, id, index);
    }

    function refusedBy(address who, bytes memory call, bytes memory reason) private {
        refusedBy(address(rentals), who, call, reason);
    }

    function timed(uint256 when) private view returns (bytes memory) {
        return abi.encodeWithSelector(MachineRental.WrongTime.selector, id, when);
    }

    function wrong(RentalState state) private view returns (bytes memory) {
        return abi.encodeWithSelector(MachineRental.WrongState.selector, id, state);
    }

    function test_proven_usage_is_paid_to_the_machine_and_the_rest_goes_back() public {
        used(30);
        used(12);
        uint256 until = rentals.rentalOf(id).offer.until + 2 days;
        refusedBy(STRANGER, abi.encodeCall(MachineRental.settle, (id)), timed(until));
        vm.warp(until);
        rentals.settle(id);
        vm.prank(machine);
        rentals.withdraw(coin);
        vm.prank(RENTER);
        rentals.withdraw(coin);
        equal(coin.balanceOf(machine), 420, "the machine's");
        equal(coin.balanceOf(RENTER), DEPOSIT - 420, "the renter's");
        refusedBy(STRANGER, abi.encodeCall(MachineRental.settle, (id)), wrong(RentalState.Settled));
    }

    function test_no_more_than_the_deposit_is_due() public {
        used(1_000_000);
        pass(4 days);
        rentals.settle(id);
        equal(rentals.balanceOf(machine, coin), DEPOSIT, "all of it");
        equal(rentals.balanceOf(RENTER, coin), 0, "and no more");
    }

    function test_usage_counts_within_the_time_once_and_of_its_class() public {
        uint64 before = log(usageNow(5));
        Proof memory proof = proofOf(before);
        refusedBy(
            STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[before], proof)), isNotAgreed(id, before)
        );
        uint64 index = used(5);
        proof = proofOf(index);
        refusedBy(
            STRANGER,
            abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof)),
            abi.encodeWithSelector(IVerdictConsumer.AlreadyConsumed.selector, id, index)
        );
        Verdict memory v = usageNow(5);
        v.class_ = 1;
        uint64 other = log(v);
        proof = proofOf(other);
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[other], proof)), isNotAgreed(id, other));
        uint64 negative = log(usageNow(-5));
        proof = proofOf(negative);
        refusedBy(
            STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[negative], proof)), isNotAgreed(id, negative)
        );
        vm.warp(rentals.rentalOf(id).offer.until + 60);
        uint64 after_ = log(usageNow(5));
        proof = proofOf(after_);
        refusedBy(
            STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[after_], proof)), isNotAgreed(id, after_)
        );
        equal(rentals.rentalOf(id).usageE6, 5e6, "one");
    }

    function test_usage_cannot_be_proven_after_the_window_for_objections() public {
        pass(60);
        uint64 index = log(usageNow(5));
        vm.warp(rentals.rentalOf(id).offer.until + 1 days);
        Proof memory proof = proofOf(index);
        refusedBy(STRANGER, abi.encodeCall(IVerdictConsumer.consume, (id, said[index], proof)), isNotAgreed(id, index));
    }

    function test_only_the_machines_own_key_offers_it_and_each_offer_is_taken_once() public {
        Offer memory o = offer();
        bytes memory forged = signature(o, 0xBAD);
        o.nonce = 2;
        bytes memory other = signature(o, MACHINE_KEY);
        o.price = 1;
        pay();
        bytes memory no = abi.encodeWithSelector(MachineRental.NotSigned.selector, machine);
        refusedBy(RENTER, abi.encodeCall(MachineRental.rent, (o, forged)), no);
        refusedBy(RENTER, abi.encodeCall(MachineRental.rent, (o, other)), no);
        o = offer();
        bytes memory again = signature(o, MACHINE_KEY);
        refusedBy(
            RENTER,
            abi.encodeCall(MachineRental.rent, (o, again)),
            abi.encodeWithSelector(MachineRental.AlreadyTaken.selector, rentals.digestOf(o))
        );
    }

    function test_an_offer_on_another_chain_or_contract_is_none() public {
        Offer memory o = offer();
        o.nonce = 3;
        bytes memory by = signature(o, MACHINE_KEY);
        pay();
        MachineRental elsewhere = new MachineRental();
        check(elsewhere.digestOf(o) != rentals.digestOf(o), "another contract");
        vm.chainId(5);
        refusedBy(
            RENTER,
            abi.encodeCall(MachineRental.rent, (o, by)),
            abi.encodeWithSelector(MachineRental.NotSigned.selector, machine)
        );
    }

    function test_a_machine_takes_its_offer_back() public {
        Offer memory o = offer();
        o.nonce = 4;
        bytes memory by = signature(o, MACHINE_KEY);
        refusedBy(
            STRANGER,
            abi.encodeCall(MachineRental.cancel, (o)),
            abi.encodeWithSelector(MachineRental.NotSigned.selector, machine)
        );
        vm.prank(machine);
        rentals.cancel(o);
        bytes memory gone = abi.encodeWithSelector(MachineRental.AlreadyTaken.selector, rentals.digestOf(o));
        refusedBy(RENTER, abi.encodeCall(MachineRental.rent, (o, by)), gone);
        refusedBy(machine, abi.encodeCall(MachineRental.cancel, (o)), gone);
    }

    function test_an_offer_to_one_renter_is_nobody_elses() public {
        Offer memory o = offer();
        (o.nonce, o.renter) = (5, RENTER);
        bytes memory by = signature(o, MACHINE_KEY);
        refusedBy(
            STRANGER,
            abi.encodeCall(MachineRental.rent, (o, by)),
            abi.encodeWithSelector(IVerdictConsumer.NotAuthorized.selector, 1, STRANGER)
        );
        pay();
        vm.prank(RENTER);
        equal(rentals.rent(o, by), 1, "taken");
    }

    function test_disputed_usage_is_the_arbiters_and_only_ever_less() public {
        used(50);
        refusedBy(
            STRANGER,
            abi.encodeCall(MachineRental.dispute, (id, "")),
            abi.encodeWithSelector(IVerdictConsumer.NotAuthorized.selector, id, STRANGER)
        );
        vm.prank(RENTER);
        rentals.dispute(id, "it stood still");
        refusedBy(RENTER, abi.encodeCall(MachineRental.dispute, (id, "")), wrong(RentalState.Disputed));
        uint64 until = rentals.rentalOf(id).offer.until + 1 days;
        refusedBy(ARBITER, abi.encodeCall(MachineRental.resolve, (id, 1)), timed(until));
        vm.warp(until);
        refusedBy(
            RENTER,
            abi.encodeCall(MachineRental.resolve, (id, 0)),
            abi.encodeWithSelector(IVerdictConsumer.NotAuthorized.selector, id, RENTER)
        );
        refusedBy(
            ARBITER,
            abi.encodeCall(MachineRental.resolve, (id, 50e6 + 1)),
            abi.encodeWithSelector(MachineRental.MoreThanProven.selector, 50e6 + 1, 50e6)
        );
        vm.prank(ARBITER);
        rentals.resolve(id, 20e6);
        equal(rentals.balanceOf(machine, coin), 200, "the machine's");
        equal(rentals.balanceOf(RENTER, coin), DEPOSIT - 200, "the renter's");
    }

    function test_an_arbiter_who_is_silent_leaves_what_was_proven() public {
        used(50);
        vm.prank(RENTER);
        rentals.dispute(id, "");
        uint256 until = rentals.rentalOf(id).offer.until + 9 days;
        vm.warp(until - 1);
        refusedBy(STRANGER, abi.encodeCall(MachineRental.settle, (id)), timed(until));
        vm.warp(until);
        rentals.settle(id);
        equal(rentals.balanceOf(machine, coin), 500, "the machine's");
    }

    function test_a_dispute_in_time_only() public {
        uint256 until = rentals.rentalOf(id).offer.until + 2 days;
        vm.warp(until);
        refusedBy(RENTER, abi.encodeCall(MachineRental.dispute, (id, "")), timed(until));
        refusedBy(ARBITER, abi.encodeCall(MachineRental.resolve, (id, 0)), wrong(RentalState.Rented));
        refusedBy(
            STRANGER,
            abi.encodeCall(MachineRental.settle, (99)),
            abi.encodeWithSelector(IVerdictConsumer.UnknownAgreement.selector, 99)
        );
    }

    function test_offers_that_cannot_be_kept_are_refused() public {
        Offer[10] memory bad =
            [offer(), offer(), offer(), offer(), offer(), offer(), offer(), offer(), offer(), offer()];
        bad[0].machine = address(0);
        bad[1].arbiter = address(0);
        bad[2].machine = RENTER;
        bad[3].arbiter = machine;
        bad[4].arbiter = RENTER;
        bad[5].deposit = 0;
        bad[6].until = bad[6].from;
        bad[7].challenge = 59 minutes;
        bad[8].arbitration = 59 minutes;
        bad[9].window = 0;
        for (uint256 i = 0; i < bad.length; ++i) {
            refusedBy(
                RENTER,
                abi.encodeCall(MachineRental.rent, (bad[i], "")),
                abi.encodeWithSelector(MachineRental.BadOffer.selector)
            );
        }
        Offer memory o = offer();
        o.until = type(uint64).max;
        refusedBy(
            RENTER, abi.encodeCall(MachineRental.rent, (o, "")), abi.encodeWithSelector(MachineRental.BadOffer.selector)
        );
        pass(2 days);
        o = offer();
        (o.from, o.until) = (1, 2);
        refusedBy(
            RENTER, abi.encodeCall(MachineRental.rent, (o, "")), abi.encodeWithSelector(MachineRental.BadOffer.selector)
        );
    }

    function test_a_token_that_keeps_a_part_is_refused() public {
        Tithe tithe = new Tithe();
        Offer memory o = offer();
        o.token = tithe;
        bytes memory by = signature(o, MACHINE_KEY);
        tithe.mint(RENTER, DEPOSIT);
        vm.prank(RENTER);
        tithe.approve(address(rentals), DEPOSIT);
        refusedBy(
            RENTER,
            abi.encodeCall(MachineRental.rent, (o, by)),
            abi.encodeWithSelector(Purse.LessArrived.selector, DEPOSIT * 9 / 10, DEPOSIT)
        );
    }

    function test_the_domain_is_the_one_that_is_signed() public view {
        (bytes1 fields, string memory name, string memory version, uint256 chain, address contract_,,) =
            rentals.eip712Domain();
        bytes32 separator = keccak256(
            abi.encode(
                keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
                keccak256(bytes(name)),
                keccak256(bytes(version)),
                chain,
                contract_
            )
        );
        check(fields == hex"0f" && contract_ == address(rentals), "domain");
        // The struct's hash by the type's own text, written out.
        Offer memory o = offer();
        Subject memory s = o.subject;
        bytes32 subject = keccak256(
            abi.encode(
                keccak256(
                    "Subject(address log,bytes32 logId,bytes32 deviceId,address models,bytes32 registryId,address cases)"
                ),
                s.log,
                s.logId,
                s.deviceId,
                s.models,
                s.registryId,
                s.cases
            )
        );
        bytes32 typeHash = keccak256(
            "Offer(address machine,address renter,address arbiter,address token,uint128 price,uint128 deposit,uint16 class_,uint64 window,uint64 from,uint64 until,uint32 challenge,uint32 arbitration,uint256 nonce,Subject subject)Subject(address log,bytes32 logId,bytes32 deviceId,address models,bytes32 registryId,address cases)"
        );
        bytes memory head = abi.encode(typeHash, o.machine, o.renter, o.arbiter, o.token, o.price, o.deposit);
        bytes memory tail =
            abi.encode(o.class_, o.window, o.from, o.until, o.challenge, o.arbitration, o.nonce, subject);
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", separator, keccak256(bytes.concat(head, tail))));
        equal(rentals.digestOf(o), digest, "digest");
    }

    /// @dev Whatever is proven and said, what the two get is what was put in.
    function testFuzz_nothing_is_made_and_nothing_lost(int64[3] calldata units, uint128 price, bool disputed) public {
        Offer memory o = offer();
        (o.nonce, o.price) = (6, price);
        id = rented(o);
        for (uint256 i = 0; i < 3; ++i) {
            int64 unit = int64(uint64(between(uint64(units[i]), 1, 9_000_000_000)));
            used(unit);
        }
        if (disputed) {
            vm.prank(RENTER);
            rentals.dispute(id, "");
        }
        pass(30 days);
        rentals.settle(id);
        equal(rentals.balanceOf(machine, coin) + rentals.balanceOf(RENTER, coin), DEPOSIT, "all of it");
    }
}
