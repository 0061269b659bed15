// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

/// @title The money of a consumer
/// @notice What is an account's waits to be withdrawn by it, so that nobody's refusal to take money blocks another.
/// @dev Balances are kept by token, so a token that lies or calls back harms nobody who did not agree to it. What a token's
/// contract does to balances by itself (rebasing, freezing, fees on paying out) is not seen here: of a token whose balance
/// shrinks the last to withdraw gets nothing, and what it grows by is nobody's.
abstract contract Purse is ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    /// @notice The token took something of the transfer, so that less arrived than is to be paid.
    error LessArrived(uint256 arrived, uint256 due);

    /// @notice An account took what was its.
    /// @param account The account.
    /// @param token In what.
    /// @param amount How much.
    event Withdrawn(address indexed account, IERC20 indexed token, uint256 amount);

    mapping(address account => mapping(IERC20 token => uint256)) private _balances;

    /// @notice Pays what is the caller's.
    /// @param token In what.
    function withdraw(IERC20 token) external nonReentrant {
        uint256 amount = _balances[msg.sender][token];
        _balances[msg.sender][token] = 0;
        token.safeTransfer(msg.sender, amount);
        emit Withdrawn(msg.sender, token, amount);
    }

    /// @notice What is an account's, to be withdrawn.
    /// @param account The account.
    /// @param token In what.
    /// @return The amount.
    function balanceOf(address account, IERC20 token) external view returns (uint256) {
        return _balances[account][token];
    }

    /// @dev Gives to an account what the contract has.
    function _give(address account, IERC20 token, uint256 amount) internal {
        _balances[account][token] += amount;
    }

    /// @dev Takes the caller's money in; less than `amount` is refused. Its callers are `nonReentrant`: the token is called.
    function _takeIn(IERC20 token, uint256 amount) internal {
        uint256 before = token.balanceOf(address(this));
        token.safeTransferFrom(msg.sender, address(this), amount);
        uint256 arrived = token.balanceOf(address(this)) - before;
        if (arrived < amount) revert LessArrived(arrived, amount);
    }
}
