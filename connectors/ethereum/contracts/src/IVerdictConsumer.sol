// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Proof, Verdict} from "./Verdict.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @title What acts on a proven verdict
/// @notice A consumer is pulled: somebody brings a verdict with its proof, and pays for it. It takes a place in a log once for each of its agreements,
/// and no money moves before a challenge window has passed.
/// @dev It cannot hinder a log: nothing in VerdictLog calls it.
interface IVerdictConsumer is IERC165 {
    /// @notice There is no such agreement.
    error UnknownAgreement(uint256 agreement);
    /// @notice This takes another party.
    error NotAuthorized(uint256 agreement, address caller);
    /// @notice The verdict at this place was taken before.
    error AlreadyConsumed(uint256 agreement, uint64 index);
    /// @notice The verdict is about another device, too mild, of another class, or of another time than was agreed.
    error NotAgreed(uint256 agreement, uint64 index);
    /// @notice The model that decided was not active then in the registry that was agreed on.
    error ModelNotActive(uint256 agreement, bytes32 modelHash);
    /// @notice The witness took more gas than a proof can need.
    error ProofTooDear(uint256 agreement);

    /// @notice A verdict was acted on.
    event VerdictConsumed(uint256 indexed agreement, bytes32 indexed entry, uint64 index, address by);

    /// @notice Brings a proven verdict.
    function consume(uint256 agreement, Verdict calldata verdict, Proof calldata proof) external;

    /// @notice Whether the verdict at an index was taken for an agreement.
    function consumed(uint256 agreement, uint64 index) external view returns (bool);
}
