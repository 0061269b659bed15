// A node of its own and nothing else: no contract is compiled here. Blocks are mined when a test says so.
module.exports = { solidity: "0.8.28", networks: { hardhat: { chainId: 31337, mining: { auto: true, mempool: { order: "fifo" } } } } };
