// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

import {ERC7913P256Verifier} from "@openzeppelin/contracts/utils/cryptography/verifiers/ERC7913P256Verifier.sol";

/// @title P256Verifier
/// @notice Verifies P-256 (ES256) signatures by ERC-7913: its address goes before the 64 bytes (x, y) of a key in
/// {IDeviceRegistry}. It is OpenZeppelin's, which asks the chain's precompile (EIP-7951, RIP-7212) and computes where there
/// is none. No constructor, no immutables, no state: its code hash is the same on every chain.
/// @dev Of one message and key there is one signature that it takes, in one writing: with the lower `s`, by OpenZeppelin's
/// check, and of 64 bytes, which OpenZeppelin's lets be followed by others. So it says what the programs say that judge
/// readings off chain.
contract P256Verifier is ERC7913P256Verifier {
    /// @notice Whether `signature` (r, s) is the key's over `hash`, as ERC-7913 says it.
    /// @param key The key's coordinates (x, y), 32 bytes each.
    /// @param hash What was signed.
    /// @param signature `r` and the lower `s`, 32 bytes each.
    /// @return The selector of this function if it is, else 0xffffffff.
    function verify(bytes calldata key, bytes32 hash, bytes calldata signature) public view override returns (bytes4) {
        if (signature.length != 64) return 0xffffffff;
        return super.verify(key, hash, signature);
    }
}
