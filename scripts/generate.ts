// `npm run generate`: renders everything that is derived, by each scripts/generate-*.ts in turn. `npm run generate -- protos` runs those
// whose name contains the word. Some need tools that only development needs (Go for the API schemas); each says what it lacks.

import { spawnSync } from "node:child_process";
import { globSync } from "node:fs";
import { join } from "node:path";
import { root } from "./steps.ts";

const [word = ""] = process.argv.slice(2);
const scripts = globSync("scripts/generate-*.ts", { cwd: root }).filter((script) => script.includes(word));
const failed: string[] = [];
for (const script of scripts.toSorted()) {
  console.log(`generate: ${script}`);
  const { status } = spawnSync(process.execPath, [join(root, script)], { cwd: root, stdio: "inherit" });
  if (status !== 0) failed.push(script);
}
if (failed.length > 0 || scripts.length === 0) {
  console.error(
    scripts.length === 0
      ? `generate: no script's name contains '${word}'`
      : `generate: failed: ${failed.join(", ")}`,
  );
  process.exit(1);
}
