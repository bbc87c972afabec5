// Writes docs/reference/supported-fields.md from the table of fields.

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { renderFieldTable } from "#objects";

const file = join(dirname(dirname(fileURLToPath(import.meta.url))), "docs/reference/supported-fields.md");
mkdirSync(dirname(file), { recursive: true });
writeFileSync(file, renderFieldTable());
