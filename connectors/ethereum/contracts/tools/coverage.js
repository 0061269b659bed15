// Says how much of the sources the tests reach, from what `forge coverage` wrote (cache/lcov.info), and fails below 95 % of lines or
// branches. Lines within assembly are left out: forge does not see which of them are run. Usage: node tools/coverage.js
"use strict";
const fs = require("fs");
const path = require("path");
const project = path.resolve(__dirname, "..");
const LEAST = 95;

// The numbers of the lines within assembly blocks.
function assembly(file) {
  const within = new Set();
  let depth = 0;
  fs.readFileSync(path.join(project, file), "utf8")
    .split("\n")
    .forEach((line, i) => {
      const starts = depth === 0 && /^\s*assembly\b.*\{/.test(line);
      if (starts || depth > 0) {
        within.add(i + 1);
        depth += (line.match(/\{/g) ?? []).length - (line.match(/\}/g) ?? []).length;
      }
    });
  return within;
}

const files = [];
let at;
for (const line of fs.readFileSync(path.join(project, "cache", "lcov.info"), "utf8").split("\n")) {
  const [kind, rest] = [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)];
  if (kind === "SF") {
    const name = path.relative(project, path.resolve(project, rest));
    at = { name, lines: [0, 0], branches: [0, 0], missed: [], skip: assembly(name), unseen: 0 };
    files.push(at);
  } else if (kind === "DA") {
    const [number, hits] = rest.split(",").map(Number);
    if (at.skip.has(number)) {
      at.unseen += 1;
      continue;
    }
    at.lines[1] += 1;
    if (hits > 0) at.lines[0] += 1;
    else at.missed.push(number);
  } else if (kind === "BRDA") {
    const parts = rest.split(",");
    if (at.skip.has(Number(parts[0]))) continue;
    at.branches[1] += 1;
    if (parts[3] !== "-" && Number(parts[3]) > 0) at.branches[0] += 1;
    else at.missed.push(`${parts[0]} (a branch)`);
  }
}
const part = ([hit, all]) => `${hit} of ${all}`;
const share = (what) => {
  const hit = files.reduce((sum, f) => sum + f[what][0], 0);
  const all = files.reduce((sum, f) => sum + f[what][1], 0);
  return all === 0 ? 0 : (100 * hit) / all;
};
for (const f of files) {
  const missed = f.missed.length === 0 ? "" : `; not reached: ${f.missed.join(", ")}`;
  const unseen = f.unseen === 0 ? "" : `; ${f.unseen} lines of assembly, which forge cannot see`;
  console.log(`${f.name}: ${part(f.lines)} lines, ${part(f.branches)} branches${missed}${unseen}`);
}
const [lines, branches] = [share("lines"), share("branches")];
console.log(`coverage: ${lines.toFixed(1)} % of lines, ${branches.toFixed(1)} % of branches`);
if (files.length === 0 || lines < LEAST || branches < LEAST) {
  console.error(`coverage: at least ${LEAST} % of lines and of branches must be reached`);
  process.exit(1);
}
