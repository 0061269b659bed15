// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {Proof, Verdict} from "./Verdict.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";

/// @title What acts on a proven verdict
/// @notice A consumer is pulled: somebody brings a verdict with its proof, and pays for it. It takes a verdict once for each of its
/// agreements, and no money moves before a challenge window has passed.
/// @dev It cannot hinder a log: nothing in VerdictLog calls it.
interface IVerdictConsumer is IERC165 {
    /// @notice There is no such agreement.
    error UnknownAgreement(uint256 agreement);
    /// @notice This takes another party.
    error NotAuthorized(uint256 agreement, address caller);
    /// @notice The device's verdict of this number was taken before, at this place of the log or another.
    error AlreadyConsumed(uint256 agreement, uint64 seq);
    /// @notice The verdict is about another device, too mild, of another class, of another time than was agreed, or of a window
    /// that has not ended.
    error NotAgreed(uint256 agreement, uint64 index);
    /// @notice The model that decided was not active then in the registry that was agreed on.
    error ModelNotActive(uint256 agreement, bytes32 modelHash);
    /// @notice At the desk that was agreed on the verdict was overruled, or is disputed.
    error DoesNotStand(uint256 agreement, uint64 index);
    /// @notice The witness took more gas than a proof can need, or failed without saying why.
    error ProofTooDear(uint256 agreement);

    /// @notice A verdict was acted on.
    /// @param agreement The agreement.
    /// @param entry The log's entry.
    /// @param index Its index in the log.
    /// @param seq Its number among the device's verdicts.
    /// @param by Who brought it.
    event VerdictConsumed(uint256 indexed agreement, bytes32 indexed entry, uint64 index, uint64 seq, address by);

    /// @notice Brings a proven verdict. Anybody may.
    /// @param agreement The agreement.
    /// @param verdict The verdict.
    /// @param proof Where it stands in the agreement's log.
    function consume(uint256 agreement, Verdict calldata verdict, Proof calldata proof) external;

    /// @notice Whether a verdict was taken for an agreement.
    /// @param agreement The agreement.
    /// @param seq The verdict's number among the device's.
    /// @return True if it was.
    function consumed(uint256 agreement, uint64 seq) external view returns (bool);
}
