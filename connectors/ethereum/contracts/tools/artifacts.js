// Compares or writes artifacts/<Contract>.json: what of forge's output the programs need, and nothing that changes from
// machine to machine. ./check has it compiled, into cache/src/out. Of a contract test/<Contract>, which is no program's,
// it is test/artifacts/<Contract>.json. Usage: node tools/artifacts.js compare|update [test/]<Contract>...
"use strict";
const fs = require("fs");
const path = require("path");
const project = path.resolve(__dirname, "..");

const [mode, ...names] = process.argv.slice(2);
if (!["compare", "update"].includes(mode) || names.length === 0) {
  console.error("usage: node tools/artifacts.js compare|update <Contract>...");
  process.exit(2);
}

let differing = 0;
for (const given of names) {
  const name = path.basename(given);
  const into = path.join(path.dirname(given), "artifacts");
  const built = JSON.parse(fs.readFileSync(path.join(project, "cache", "src", "out", `${name}.sol`, `${name}.json`), "utf8"));
  if (Object.keys(built.deployedBytecode.immutableReferences ?? {}).length !== 0) {
    console.error(`${name} has immutables: its deployed code would differ from the artifact, which programs compare with`);
    process.exit(1);
  }
  const text =
    JSON.stringify(
      {
        contract: name,
        compiler: require(path.join(project, "node_modules", "solc", "package.json")).version,
        abi: built.abi,
        bytecode: built.bytecode.object,
        deployedBytecode: built.deployedBytecode.object,
      },
      null,
      2,
    ) + "\n";
  const file = path.join(project, into, `${name}.json`);
  if (mode === "update") {
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
    console.log(`${name}: artifact written`);
  } else if (!fs.existsSync(file) || fs.readFileSync(file, "utf8") !== text) {
    console.error(`${name}: the committed artifact is not what the sources compile to; run ./check --update and commit it`);
    differing += 1;
  } else {
    console.log(`${name}: the committed artifact is what the sources compile to`);
  }
}
process.exit(differing === 0 ? 0 : 1);
