import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { parseAllDocuments } from "yaml";
import { isRecord, recordsOf, stringOf } from "../json.ts";
import { evaluate, ruleProblem } from "./cel.ts";

const manifests = join(import.meta.dirname, "../../../../deploy/crds");

function rulesIn(value: unknown): string[] {
  if (Array.isArray(value)) return value.flatMap(rulesIn);
  if (!isRecord(value)) return [];
  const own = recordsOf(value["x-kubernetes-validations"]).flatMap((rule) => [
    rule["rule"],
    rule["messageExpression"],
  ]);
  return [...own.map(stringOf).filter((text) => text !== ""), ...Object.values(value).flatMap(rulesIn)];
}

describe("CEL", () => {
  it("every rule of the definitions that Mizzen installs can be run", () => {
    const rules = globSync("*.yaml", { cwd: manifests }).flatMap((file) =>
      parseAllDocuments(readFileSync(join(manifests, file), "utf8")).flatMap((document) =>
        rulesIn(document.toJS()),
      ),
    );
    const problems = [...new Set(rules)].flatMap((rule) => {
      const problem = ruleProblem(rule);
      return problem === undefined ? [] : [`${rule}: ${problem}`];
    });
    assert.deepEqual(problems, []);
  });

  const cases: ReadonlyArray<readonly [string, unknown]> = [
    ["quantity('1Gi').isGreaterThan(quantity('1000M'))", true],
    ["isQuantity('100m') && !isQuantity('a lot')", true],
    ["url('https://a.b:8/c').getScheme() + url('https://a.b:8/c').getPort()", "https8"],
    ["format.dns1123Label().validate('a-b') == null", true],
    ["format.dns1123Label().validate('A') == null", false],
    ["[1, 2, 3].sum() == 6 && [3, 1].min() == 1", true],
    ["'a.b'.matches('^a[.]b$')", true],
    ["'A.b'.matches(r'^(?i)a[.]b$')", true],
    ["isIP('::1') && isCIDR('10.0.0.0/8') && isURL('http://x')", true],
  ];
  for (const [rule, expected] of cases) {
    it(`${rule} is ${String(expected)}`, () => assert.equal(evaluate(rule, {}), expected));
  }
});
