// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity 0.8.37;

/// @notice What of the Ethereum Attestation Service is measured, as its package declares it.
interface IEas {
    struct Data {
        address recipient;
        uint64 expirationTime;
        bool revocable;
        bytes32 refUID;
        bytes data;
        uint256 value;
    }

    struct Request {
        bytes32 schema;
        Data data;
    }

    struct MultiRequest {
        bytes32 schema;
        Data[] data;
    }

    function attest(Request calldata request) external payable returns (bytes32);
    function multiAttest(MultiRequest[] calldata requests) external payable returns (bytes32[] memory);
    function multiTimestamp(bytes32[] calldata data) external returns (uint64);
    function timestamp(bytes32 data) external returns (uint64);
}

/// @notice EAS's registry of schemas.
interface IEasSchemas {
    function register(string calldata schema, address resolver, bool revocable) external returns (bytes32);
}
