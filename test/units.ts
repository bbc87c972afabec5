// All unit tests of src in one process: 1,500 of them then take half a second instead of a process a file.
// That is why no unit test may use hooks outside of a `describe` (walls.test.ts holds that).

import { globSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/** Tests that take seconds, since they start programs or try thousands of cases. `npm run check` leaves them to `npm test`. */
const slow: ReadonlySet<string> = new Set([
  "src/apps/agent/status.test.ts",
  "src/apps/control/ca-service.test.ts",
  "src/cluster/api/durability.test.ts",
  "src/cluster/api/kubectl.test.ts",
  "src/cluster/api/watch.test.ts",
  "src/envoy/incremental.test.ts",
  "src/xds/simulation.test.ts",
]);
const leaveOutSlow = process.env.MIZZEN_TESTS === "fast";

for (const file of globSync("src/**/*.test.ts", { cwd: root }).toSorted()) {
  if (leaveOutSlow && slow.has(file)) continue;
  await import(pathToFileURL(join(root, file)).href);
}
