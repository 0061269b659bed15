// Makes GAS.md of what the tests in test/gas have measured (cache/gas), and compares or writes it.
// Usage: node tools/gas.js compare|update
"use strict";
const fs = require("fs");
const path = require("path");
const project = path.resolve(__dirname, "..");
const measured = path.join(project, "cache", "gas");
const file = path.join(project, "GAS.md");

const mode = process.argv[2];
if (!["compare", "update"].includes(mode)) {
  console.error("usage: node tools/gas.js compare|update");
  process.exit(2);
}

const version = (name) => require(path.join(project, "node_modules", name, "package.json")).version;
const group = (name) => {
  const from = path.join(measured, `${name}.json`);
  if (!fs.existsSync(from)) {
    console.error(`GAS.md: nothing was measured for "${name}": run forge test --isolate --match-path 'test/gas/*' first`);
    process.exit(1);
  }
  return JSON.parse(fs.readFileSync(from, "utf8"));
};
const whole = (n) => String(Math.round(Number(n))).replace(/\B(?=(\d{3})+$)/g, ",");
const each = (n) => (n >= 100 ? whole(n) : n >= 10 ? n.toFixed(1) : n.toFixed(2));
// Names begin with the place they have in the table.
const rows = (values) => Object.keys(values).sort().map((name) => [name.replace(/^\d+ /, ""), values[name]]);

const checkpoint = group("checkpoint");
const record = group("eas-record");
const hash = group("eas-hash");
const stamp = group("eas-timestamp");
const root = group("eas-root");
const sizes = [1, 10, 100, 1000, 10000, 100000];
const lines = [];
const say = (...text) => lines.push(...text);

say(
  "# Gas",
  "",
  "What `./check` measures, by the rules of Osaka, and compares with this file; `./check --update` writes it. Each figure is the gas",
  "of a whole transaction: 21,000, its calldata, and execution with cold storage. The Ethereum Attestation Service (EAS,",
  `${version("@ethereum-attestation-service/eas-contracts")}) is deployed from its npm package in the same run.`,
  "",
  "## A batch of verdicts",
  "",
  "Avouch anchors a batch by one checkpoint, whatever its size: the contract checks the consistency proof and the signature. A log of",
  "1,000,000 entries grows by 32 such batches, once its ring of 64 checkpoints is full; signer and relayer are one account. EAS attests",
  "the full record (twelve fields, under a schema that names them), or its 32-byte hash, or takes a timestamp of the hash. A transaction,",
  "which may take 16,777,216 gas, holds 42 full records at most; 100 hashes, or 500 timestamps, are sent together.",
  "",
  "| verdicts in a batch | checkpoint: mean | least | most | EAS, full records | EAS, hashes | EAS, timestamps |",
  "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
);
for (const n of sizes) {
  const of = (what) => whole(checkpoint[`${n} ${what}`]);
  say(`| ${whole(n)} | ${of("mean")} | ${of("least")} | ${of("most")} | ${whole(record[n])} | ${whole(hash[n])} | ${whole(stamp[n])} |`);
}
say(
  "",
  "The same for each verdict:",
  "",
  "| verdicts in a batch | Avouch | EAS, full record | EAS, hash | EAS, timestamp |",
  "| ---: | ---: | ---: | ---: | ---: |",
);
for (const n of sizes) {
  const per = (total) => each(Number(total) / n);
  say(`| ${whole(n)} | ${per(checkpoint[`${n} mean`])} | ${per(record[n])} | ${per(hash[n])} | ${per(stamp[n])} |`);
}
say(
  "",
  `A Merkle root of a batch can be put into EAS too, for ${whole(root.attest)} as an attestation and ${whole(root.timestamp)} as a timestamp, of any batch. The timestamp`,
  "is cheaper than a checkpoint. It shows that somebody knew a root at a time: neither whose it is, nor that it extends the root",
  "before it, nor what stands in it; a proof against it has no contract that checks it.",
  "",
  "| other checkpoints | gas |",
  "| --- | ---: |",
  `| the first of a log | ${whole(checkpoint.first)} |`,
  `| its second (until the ring of 64 is full each fills new slots) | ${whole(checkpoint.second)} |`,
  `| 997 verdicts onto 100,000, mean of 32 | ${whole(checkpoint["997 mean"])} |`,
  `| the same, sent by another account than the signer's | ${whole(checkpoint["997 relayed mean"])} |`,
  `| from 1,048,575 entries to 1,049,575: the longest proof of a log of that size, all but three nodes hashed twice | ${whole(checkpoint.dearest)} |`,
  "",
  "The spread is that of the consistency proofs: a node is 32 bytes of calldata (512) and one hash or two (196 each, with the call).",
  "How long one is follows from the two sizes, by RFC 9162. Once the ring is full 48,000 of each figure are the transaction's 21,000, three",
  "words of storage written and one read, the event, the signature, and the calldata beside the proof.",
  "",
  "## Proofs",
  "",
  "Execution alone: what a contract pays beside the call and the calldata of the proof.",
  "",
  "| nodes | inclusion | consistency |",
  "| ---: | ---: | ---: |",
);
const inclusion = group("inclusion");
const consistency = group("consistency");
// Names are the number of nodes and 1000, so that they are in order.
for (const key of [...new Set([...Object.keys(inclusion), ...Object.keys(consistency)])].sort()) {
  const cell = (values) => (values[key] === undefined ? "" : whole(values[key]));
  say(`| ${Number(key) - 1000} | ${cell(inclusion)} | ${cell(consistency)} |`);
}
say("", "## Deployment", "", "| contract | gas |", "| --- | ---: |");
for (const [name, gas] of rows(group("deployment"))) say(`| ${name} | ${whole(gas)} |`);
say(
  "",
  "## Actions",
  "",
  "Each once, in the order of the tests. Proofs have ten nodes; the agreements of the consumers name a registry of models and a desk, and",
  "pay in a plain ERC-20.",
);
for (const contract of ["1 VerdictLog", "2 ModelRegistry", "3 DeviceRegistry", "4 Cases", "5 MaintenanceOrder", "6 ColdChainShipment", "7 MachineRental"]) {
  say("", `| ${contract.slice(2)} | gas |`, "| --- | ---: |");
  for (const [name, gas] of rows(group(contract))) say(`| ${name} | ${whole(gas)} |`);
}
const text = lines.join("\n") + "\n";

if (mode === "update") {
  fs.writeFileSync(file, text);
  console.log("GAS.md: written");
} else if (!fs.existsSync(file) || fs.readFileSync(file, "utf8") !== text) {
  const old = fs.existsSync(file) ? fs.readFileSync(file, "utf8").split("\n") : [];
  const differing = text.split("\n").filter((line) => !old.includes(line));
  console.error(["GAS.md is not what was measured; run ./check --update, look at it, and commit it. Measured otherwise:", ...differing].join("\n"));
  process.exit(1);
} else {
  console.log("GAS.md: what was measured");
}
