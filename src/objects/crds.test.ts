import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";

import { parseAllDocuments } from "yaml";

import { kinds } from "./kinds.ts";
import { schemaOf } from "./schema.ts";

interface Crd {
  readonly spec: {
    readonly group: string;
    readonly scope: string;
    readonly names: {
      readonly kind: string;
      readonly plural: string;
      readonly shortNames?: readonly string[];
    };
    readonly versions: readonly {
      readonly name: string;
      readonly served: boolean;
      readonly storage: boolean;
      readonly schema: {
        readonly openAPIV3Schema: { readonly properties: Readonly<Record<string, unknown>> };
      };
    }[];
  };
}

function readCrds(name: string): Crd[] {
  const text = readFileSync(join(import.meta.dirname, "../../deploy/crds", name), "utf8");
  return parseAllDocuments(text).map((document) => document.toJS() as Crd);
}

describe("the committed CRDs", () => {
  const crds = [...readCrds("istio.yaml"), ...readCrds("gateway-api.yaml")];

  test("agree with the table of kinds in names, scope and versions", () => {
    for (const info of kinds.filter(({ family }) => family !== "kubernetes")) {
      const spec = crds.find(
        (crd) => crd.spec.group === info.group && crd.spec.names.kind === info.kind,
      )?.spec;
      assert.ok(spec, `deploy/crds has no ${info.kind} of ${info.group}: run \`npm run generate -- crds\``);
      const served = spec.versions.filter((version) => version.served).map(({ name }) => name);
      assert.deepEqual(
        {
          plural: spec.names.plural,
          shortNames: spec.names.shortNames ?? [],
          namespaced: spec.scope === "Namespaced",
          versions: served.toSorted(),
          storage: spec.versions.find(({ storage }) => storage)?.name,
        },
        {
          plural: info.plural,
          shortNames: [...info.shortNames],
          namespaced: info.namespaced,
          versions: [...info.versions].toSorted(),
          storage: info.storageVersion,
        },
        info.kind,
      );
    }
  });

  test("hold the very schemas that validation reads", () => {
    for (const { spec } of crds)
      for (const { name, schema } of spec.versions.filter(({ served }) => served))
        assert.deepEqual(
          schemaOf(`${spec.group}/${name}`, spec.names.kind)?.properties?.["spec"],
          schema.openAPIV3Schema.properties["spec"],
          `${spec.names.kind} ${name}: run \`npm run generate -- crds\``,
        );
  });
});
