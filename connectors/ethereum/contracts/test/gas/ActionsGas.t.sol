// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Cases} from "../../src/Cases.sol";
import {DeviceRegistry} from "../../src/DeviceRegistry.sol";
import {Desk, State} from "../../src/ICases.sol";
import {Enrolment} from "../../src/IDeviceRegistry.sol";
import {ModelRegistry} from "../../src/ModelRegistry.sol";
import {P256Verifier} from "../../src/P256Verifier.sol";
import {Class, Proof, Severity, Verdict} from "../../src/Verdict.sol";
import {VerdictLog} from "../../src/VerdictLog.sol";
import {ColdChainShipment, ShipmentTerms} from "../../src/consumers/ColdChainShipment.sol";
import {MachineRental, Offer} from "../../src/consumers/MachineRental.sol";
import {MaintenanceOrder, MaintenanceTerms} from "../../src/consumers/MaintenanceOrder.sol";
import {Subject} from "../../src/consumers/VerdictConsumer.sol";
import {ConsumerFixture} from "../ConsumerFixture.sol";
import {Gas} from "./Gas.sol";

/// @notice Everything that people and programs do with the other contracts, once each. Logs hold 1,024 entries, so that proofs have
/// ten nodes; subjects name a registry of models and a desk.
contract ActionsGasTest is Gas, ConsumerFixture {
    address private constant OVERSEER = address(0x0777);
    bytes32 private constant REASON = keccak256("a reason");

    ModelRegistry private models;
    bytes32 private registry;
    Cases private cases;
    bytes32 private desk;

    function setUp() public override {
        super.setUp();
        osaka();
        (models, cases) = (new ModelRegistry(), new Cases());
        registry = models.register(REASON, A, B);
        vm.prank(A);
        models.propose(registry, MODEL, REASON, "");
        vm.prank(B);
        models.activate(registry, MODEL, 0, type(uint64).max);
        desk = opened(1 ether);
        for (uint256 i = 0; i < 1022; ++i) {
            ghost.push(keccak256(abi.encode(i)));
            said.push();
        }
    }

    function opened(uint96 bond) private returns (bytes32) {
        vm.prank(owner);
        return cases.openDesk(Desk(owner, OVERSEER, ARBITER, verdictLog, logId, bond, 1 days, 7 days));
    }

    function subject() internal view override returns (Subject memory s) {
        s = super.subject();
        (s.models, s.registryId, s.cases) = (models, registry, cases);
    }

    /// @dev As most wallets do it: an allowance without end, which a transfer does not write.
    function endow(address who, address to, uint256 amount) private {
        coin.mint(who, amount);
        vm.prank(who);
        coin.approve(to, type(uint256).max);
    }

    /// @dev A creation is a transaction too; what it took is what is gone of this one's gas, without the price of the opcode, which
    /// a transaction does not pay.
    function create(string memory name, bytes memory code) private {
        (address made, uint256 gas) = created(code);
        (, uint256 opcode) = created("");
        meter.snapshotValue("deployment", name, gas - (opcode - 53_000) - 2 * ((code.length + 31) / 32));
        check(made.code.length != 0, "not deployed");
    }

    function created(bytes memory code) private returns (address made, uint256 used) {
        assembly ("memory-safe") {
            let before := gas()
            made := create(0, add(code, 32), mload(code))
            used := sub(before, gas())
        }
    }

    function test_gas_of_deployments() public {
        create("1 VerdictLog", type(VerdictLog).creationCode);
        create("2 ModelRegistry", type(ModelRegistry).creationCode);
        create("3 DeviceRegistry", type(DeviceRegistry).creationCode);
        create("4 P256Verifier", type(P256Verifier).creationCode);
        create("5 Cases", type(Cases).creationCode);
        create("6 MaintenanceOrder", type(MaintenanceOrder).creationCode);
        create("7 ColdChainShipment", type(ColdChainShipment).creationCode);
        create("8 MachineRental", type(MachineRental).creationCode);
    }

    function test_gas_of_a_log() public {
        vm.prank(owner);
        bytes32 id = verdictLog.register(REASON, signer);
        note("1 VerdictLog", "1 register");
        vm.prank(owner);
        verdictLog.setSigner(id, A);
        note("1 VerdictLog", "2 setSigner");
        vm.prank(owner);
        verdictLog.setSuccessor(id, B);
        note("1 VerdictLog", "3 setSuccessor");
    }

    function test_gas_of_models() public {
        models.register("another", A, B);
        note("2 ModelRegistry", "1 register");
        vm.prank(A);
        models.propose(registry, REASON, keccak256("data"), "https://models.example/pumps/7.onnx");
        note("2 ModelRegistry", "2 propose, with an address of 36 bytes");
        vm.prank(B);
        models.activate(registry, REASON, 0, type(uint64).max);
        note("2 ModelRegistry", "3 activate");
        vm.prank(B);
        models.revoke(registry, REASON, keccak256("a flaw"));
        note("2 ModelRegistry", "4 revoke");
    }

    function test_gas_of_devices() public {
        DeviceRegistry devices = new DeviceRegistry();
        bytes32 fleet = devices.register(REASON, A);
        note("3 DeviceRegistry", "1 register");
        bytes memory key = abi.encodePacked(vm.addr(1));
        bytes memory yes = signed(1, devices.digestOf(Enrolment(fleet, DEVICE, 0, key)));
        vm.prank(A);
        devices.enrol(fleet, DEVICE, key, yes);
        note("3 DeviceRegistry", "2 enrol, an account's key (secp256k1)");
        bytes memory signature = signed(1, REASON);
        verified(devices, abi.encodeCall(devices.verify, (fleet, DEVICE, 7, key, REASON, signature)));
        note("3 DeviceRegistry", "6 verify, as a transaction: an account's key");
        P256Verifier p256 = new P256Verifier();
        (uint256 x, uint256 y) = vm.publicKeyP256(2);
        key = abi.encodePacked(address(p256), x, y);
        yes = signedP256(2, devices.digestOf(Enrolment(fleet, DEVICE, 100, key)));
        vm.prank(A);
        devices.rotate(fleet, DEVICE, 100, key, yes);
        note("3 DeviceRegistry", "3 rotate, to a P-256 key");
        signature = signedP256(2, REASON);
        verified(devices, abi.encodeCall(devices.verify, (fleet, DEVICE, 107, key, REASON, signature)));
        note("3 DeviceRegistry", "7 verify, as a transaction: a P-256 key");
        // The rules before Osaka, which brought the precompile to Ethereum.
        meter.setEvmVersion("prague");
        verified(devices, abi.encodeCall(devices.verify, (fleet, DEVICE, 107, key, REASON, signature)));
        note("3 DeviceRegistry", "8 the same on a chain without the precompile for it");
        osaka();
        key = abi.encodePacked(devices.ED25519(), keccak256("an ed25519 key"));
        yes = bytes.concat(REASON, REASON);
        vm.prank(A);
        devices.rotate(fleet, DEVICE, 200, key, yes);
        note("3 DeviceRegistry", "4 rotate, to an Ed25519 key");
        vm.prank(A);
        devices.revoke(fleet, DEVICE, 2, 250, REASON);
        note("3 DeviceRegistry", "5 revoke");
    }

    /// @dev As a transaction: forge makes none of a call that may change nothing.
    function verified(DeviceRegistry devices, bytes memory call) private {
        (bool done, bytes memory answer) = address(devices).call(call);
        check(done && abi.decode(answer, (bool)), "it is the device's");
    }

    function signed(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return abi.encodePacked(r, s, v);
    }

    function signedP256(uint256 key, bytes32 digest) private pure returns (bytes memory) {
        uint256 n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551;
        (bytes32 r, bytes32 s) = vm.signP256(key, digest);
        return abi.encodePacked(r, uint256(s) > n / 2 ? bytes32(n - uint256(s)) : s);
    }

    function test_gas_of_cases() public {
        cases = new Cases();
        opened(1 ether);
        note("4 Cases", "01 openDesk");
        uint64 first = critical();
        uint64 second = critical();
        Proof memory proof = proofOf(second);
        bytes32 id = cases.open(desk, said[second], proof);
        note("4 Cases", "02 open");
        vm.prank(OVERSEER);
        cases.acknowledge(id, REASON);
        note("4 Cases", "03 acknowledge");
        vm.prank(OVERSEER);
        cases.overrule(id, REASON);
        note("4 Cases", "04 overrule, after an acknowledgement");
        vm.deal(A, 2 ether);
        vm.prank(A);
        cases.dispute{value: 1 ether}(id, State.Overridden, REASON);
        note("4 Cases", "05 dispute");
        vm.prank(ARBITER);
        cases.resolve(id, true, REASON);
        note("4 Cases", "06 resolve");
        vm.prank(A);
        cases.withdraw();
        note("4 Cases", "07 withdraw");
        proof = proofOf(first);
        id = cases.open(desk, said[first], proof);
        vm.prank(OVERSEER);
        cases.overrule(id, REASON);
        note("4 Cases", "08 overrule, at once");
        vm.prank(A);
        cases.dispute{value: 1 ether}(id, State.Overridden, REASON);
        pass(7 days);
        cases.lapse(id);
        note("4 Cases", "09 lapse");
        Verdict memory label = verdictNow(Severity.NORMAL);
        (label.class_, label.modelHash) = (Class.LABEL_FALSE_ALARM, bytes32(0));
        (label.windowStart, label.windowEnd) = (said[first].windowStart, said[first].windowEnd);
        uint64 index = log(label);
        proof = proofOf(index);
        cases.link(id, said[first], label, proof);
        note("4 Cases", "10 link");
    }

    function test_gas_of_maintenance() public {
        MaintenanceOrder orders = new MaintenanceOrder();
        endow(A, address(orders), 5_000);
        MaintenanceTerms memory t = maintenanceTerms();
        vm.prank(A);
        uint256 id = orders.agree(t);
        note("5 MaintenanceOrder", "01 agree");
        vm.prank(B);
        orders.accept(id);
        note("5 MaintenanceOrder", "02 accept");
        vm.prank(A);
        orders.fund(id, 2_000);
        note("5 MaintenanceOrder", "03 fund");
        uint64 index = critical();
        Proof memory proof = proofOf(index);
        orders.consume(id, said[index], proof);
        note("5 MaintenanceOrder", "04 consume: an order is opened");
        vm.prank(B);
        orders.report(id, REASON);
        note("5 MaintenanceOrder", "05 report");
        vm.prank(A);
        orders.challenge(id, REASON);
        note("5 MaintenanceOrder", "06 challenge");
        vm.prank(ARBITER);
        orders.resolve(id, true);
        note("5 MaintenanceOrder", "07 resolve");
        index = critical();
        proof = proofOf(index);
        orders.consume(id, said[index], proof);
        note("5 MaintenanceOrder", "08 consume: another order");
        vm.prank(B);
        orders.report(id, REASON);
        pass(1 days);
        orders.settle(id);
        note("5 MaintenanceOrder", "09 settle");
        index = critical();
        proof = proofOf(index);
        orders.consume(id, said[index], proof);
        pass(3 days);
        vm.prank(A);
        orders.cancel(id);
        note("5 MaintenanceOrder", "10 cancel");
        vm.prank(A);
        orders.release(id, 1_000);
        note("5 MaintenanceOrder", "11 release");
        vm.prank(B);
        orders.withdraw(coin);
        note("5 MaintenanceOrder", "12 withdraw");
    }

    function test_gas_of_a_shipment() public {
        ColdChainShipment shipments = new ColdChainShipment();
        endow(A, address(shipments), 5_000);
        ShipmentTerms memory t = shipmentTerms();
        vm.prank(A);
        uint256 id = shipments.agree(t);
        note("6 ColdChainShipment", "01 agree, with two milestones");
        vm.prank(B);
        shipments.accept(id);
        note("6 ColdChainShipment", "02 accept");
        uint64 index = critical();
        Proof memory proof = proofOf(index);
        shipments.consume(id, said[index], proof);
        note("6 ColdChainShipment", "03 consume: the first excursion");
        uint64 next_ = critical();
        proof = proofOf(next_);
        shipments.consume(id, said[next_], proof);
        note("6 ColdChainShipment", "04 consume: another");
        bytes32 case_ = cases.open(desk, said[next_], proof);
        vm.prank(OVERSEER);
        cases.overrule(case_, REASON);
        pass(1 days);
        uint64 slot = said[next_].windowStart / 60_000;
        shipments.retract(id, slot);
        note("6 ColdChainShipment", "05 retract");
        vm.prank(B);
        shipments.report(id, REASON);
        note("6 ColdChainShipment", "06 report");
        vm.prank(A);
        shipments.confirm(id);
        note("6 ColdChainShipment", "07 confirm");
        vm.prank(B);
        shipments.report(id, REASON);
        vm.prank(A);
        shipments.challenge(id, REASON);
        note("6 ColdChainShipment", "08 challenge");
        vm.prank(ARBITER);
        shipments.resolve(id, false);
        note("6 ColdChainShipment", "09 resolve");
        vm.prank(B);
        shipments.report(id, REASON);
        pass(1 days);
        shipments.proceed(id);
        note("6 ColdChainShipment", "10 proceed: delivered");
        pass(1 days);
        shipments.settle(id);
        note("6 ColdChainShipment", "11 settle");
        vm.prank(B);
        shipments.withdraw(coin);
        note("6 ColdChainShipment", "12 withdraw");
    }

    function test_gas_of_a_rental() public {
        MachineRental rentals = new MachineRental();
        endow(A, address(rentals), 5_000);
        Offer memory o = rentalOffer(1);
        vm.prank(o.machine);
        rentals.cancel(o);
        note("7 MachineRental", "01 cancel");
        o = rentalOffer(2);
        bytes memory by = signed(MACHINE_KEY, rentals.digestOf(o));
        vm.prank(A);
        uint256 id = rentals.rent(o, by);
        note("7 MachineRental", "02 rent: a machine's first offer");
        uint64 index = usage(1);
        Proof memory proof = proofOf(index);
        rentals.consume(id, said[index], proof);
        note("7 MachineRental", "04 consume: the first usage");
        index = usage(1);
        proof = proofOf(index);
        rentals.consume(id, said[index], proof);
        note("7 MachineRental", "05 consume: more usage");
        pass(3 days);
        rentals.settle(id);
        note("7 MachineRental", "06 settle");
        o = rentalOffer(3);
        by = signed(MACHINE_KEY, rentals.digestOf(o));
        vm.prank(A);
        id = rentals.rent(o, by);
        note("7 MachineRental", "03 rent: another");
        index = usage(1);
        proof = proofOf(index);
        rentals.consume(id, said[index], proof);
        vm.prank(A);
        rentals.dispute(id, REASON);
        note("7 MachineRental", "07 dispute");
        pass(2 days);
        vm.prank(ARBITER);
        rentals.resolve(id, 5e5);
        note("7 MachineRental", "08 resolve");
        vm.prank(o.machine);
        rentals.withdraw(coin);
        note("7 MachineRental", "09 withdraw");
    }
}
