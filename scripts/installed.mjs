// Exits 0 when node_modules holds what package-lock.json names, 1 when `npm install` is due. Plain JavaScript, as it runs on the
// machine's own Node before the newer one is there.

import { existsSync, readFileSync } from "node:fs";

function packagesOf(path) {
  return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")).packages : {};
}

const wanted = packagesOf("package-lock.json");
const present = packagesOf("node_modules/.package-lock.json");

// Optional packages are those of other platforms: npm leaves them out.
const missing = Object.entries(wanted).filter(
  ([path, entry]) => path !== "" && !entry.optional && present[path]?.version !== entry.version,
);
process.exit(missing.length === 0 && existsSync("node_modules/.bin/node") ? 0 : 1);
