// Writes docs/reference/supported-fields.md from the table of fields, and its counts into the README.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { renderFieldTable } from "#objects";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const file = join(root, "docs/reference/supported-fields.md");
const table = renderFieldTable();
mkdirSync(dirname(file), { recursive: true });
writeFileSync(file, table);

const counts = /^\d+ of \d+ rows work/m.exec(table)?.[0];
const readme = join(root, "README.md");
const text = readFileSync(readme, "utf8");
if (counts !== undefined) writeFileSync(readme, text.replace(/\d+ of \d+ rows work/, counts));
