// Runs the folder `crds`: do our CRDs have the kinds, names, versions, schemas and CEL rules of Istio's? Sentences are our own.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";

import { parseAllDocuments } from "yaml";

import type { Failure, Score } from "./score.ts";

const name = "crds";
const ours = join(import.meta.dirname, "../../deploy/crds/istio.yaml");

interface Crd {
  readonly spec: {
    readonly group: string;
    readonly names: { readonly kind: string };
    readonly versions: readonly object[];
  };
}

export function run(dir: string): Promise<Score> {
  const own = new Map(readCrds(ours).map((crd) => [crd.spec.names.kind, crd]));
  const expected = readCrds(join(dir, "crd-all.gen.yaml"));
  const failures = expected.flatMap((crd): Failure[] => {
    const id = crd.spec.names.kind;
    const mine = own.get(id);
    const reason =
      mine === undefined ? "there is no such CRD" : difference(essence(mine.spec), essence(crd.spec), "spec");
    return reason === undefined ? [] : [{ id, reason }];
  });
  return Promise.resolve({
    name,
    passed: expected.length - failures.length,
    failed: failures.length,
    knownDifferences: 0,
    failures,
  });
}

function readCrds(file: string): Crd[] {
  return parseAllDocuments(readFileSync(file, "utf8"))
    .map((document) => document.toJS() as Crd | null)
    .filter((crd) => crd !== null);
}

/** What is left when sentences are taken away. `names` says that the keys are fields of the user's objects. */
function essence(value: unknown, names = false): unknown {
  if (Array.isArray(value)) return value.map((item) => essence(item));
  if (typeof value !== "object" || value === null) return value;
  const words = ["description", "message", "messageExpression", "deprecationWarning"];
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => names || !words.includes(key))
      .map(([key, child]) => [key, essence(child, !names && key === "properties")]),
  );
}

/** The first path at which two values differ. */
function difference(one: unknown, other: unknown, path: string): string | undefined {
  if (isDeepStrictEqual(one, other)) return undefined;
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null)
    return `${path}: ${JSON.stringify(one)} instead of ${JSON.stringify(other)}`;
  for (const key of new Set([...Object.keys(one), ...Object.keys(other)])) {
    const found = difference(
      (one as Record<string, unknown>)[key],
      (other as Record<string, unknown>)[key],
      `${path}.${key}`,
    );
    if (found !== undefined) return found;
  }
  return `${path}: lists of different lengths`;
}
