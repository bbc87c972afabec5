// All unit tests of src in one process: 1,500 of them then take half a second instead of a process a file.
// That is why no unit test may use hooks outside of a `describe` (walls.test.ts holds that).

import { globSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
for (const file of globSync("src/**/*.test.ts", { cwd: root }).toSorted()) {
  await import(pathToFileURL(join(root, file)).href);
}
