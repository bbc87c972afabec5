// Writes docs/reference/supported-fields.md from the table of fields, and its count into the README.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { renderFieldTable } from "#objects";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const table = renderFieldTable();
const file = join(root, "docs/reference/supported-fields.md");
mkdirSync(dirname(file), { recursive: true });
writeFileSync(file, table);

const readme = join(root, "README.md");
const [, works = "", all = ""] = /^(\d+) of (\d+) rows work/m.exec(table) ?? [];
writeFileSync(
  readme,
  readFileSync(readme, "utf8").replace(/\[\d+ of \d+ fields\]/, `[${works} of ${all} fields]`),
);
