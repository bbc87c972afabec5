// Writes docs/reference/limits.md from the tables of limits.

import { writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { renderLimits } from "../src/apps/control/limits.ts";

writeFileSync(
  join(dirname(dirname(fileURLToPath(import.meta.url))), "docs/reference/limits.md"),
  renderLimits(),
);
