// One YAML document as a plain value.

import { parseDocument } from "yaml";

/** The value, or one sentence with line and column. */
export function parseYamlValue(text: string): { readonly value: unknown } | { readonly fault: string } {
  const document = parseDocument(text, { prettyErrors: true });
  const [error] = document.errors;
  if (error !== undefined) return { fault: error.message.split("\n")[0] ?? "the text is not YAML" };
  return { value: document.toJS() as unknown };
}
