// What the control plane is started with where it is deployed: benchmarks measure that.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";

interface Deployment {
  readonly kind?: string;
  readonly spec?: {
    readonly template?: {
      readonly spec?: {
        readonly containers?: readonly {
          readonly env?: readonly { readonly name: string; readonly value?: string }[];
        }[];
      };
    };
  };
}

/** Node's flags of the control plane's Deployment. Throws when there are none. */
export function deployedNodeFlags(): readonly string[] {
  const text = readFileSync(join(import.meta.dirname, "../deploy/istiod.yaml"), "utf8");
  for (const document of parseAllDocuments(text)) {
    const { kind, spec } = document.toJS() as Deployment;
    const env = kind === "Deployment" ? (spec?.template?.spec?.containers?.[0]?.env ?? []) : [];
    const options = env.find(({ name }) => name === "NODE_OPTIONS")?.value;
    if (options !== undefined) return options.split(" ");
  }
  throw new Error("deploy/istiod.yaml sets no NODE_OPTIONS");
}
