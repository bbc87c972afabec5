// Writes deploy/crds/*.yaml and src/objects/generated/schemas.json from the API modules that Istio and Gateway API publish.
// Development-time only: it needs Go, which downloads the modules and checks their sums. What it writes is committed.
// Taken over: types, bounds, enums, patterns, CEL rules, printer columns. Not taken over: sentences, so descriptions and
// messages are dropped; our own messages stand in scripts/crd-messages.ts.

import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { parseAllDocuments, stringify } from "yaml";

import { messageOf } from "./crd-messages.ts";

export const istioModule = "istio.io/api@v1.31.1";
const gatewayModule = "sigs.k8s.io/gateway-api@v1.6.3";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type JsonObject = { [key: string]: Json };

interface Crd extends JsonObject {
  metadata: { name: string; [key: string]: Json };
  spec: {
    group: string;
    names: { kind: string; [key: string]: Json };
    versions: (JsonObject & { name: string; served: boolean; storage: boolean })[];
    [key: string]: Json;
  };
}

export function generateCrds(): void {
  const istio = readCrds([
    join(moduleDirectory(istioModule), "kubernetes/customresourcedefinitions.gen.yaml"),
  ]);
  for (const crd of istio) addNewerFields(crd);

  // The experimental channel holds all of the standard one, more versions and more fields.
  const channel = join(moduleDirectory(gatewayModule), "config/crd/experimental");
  const files = readdirSync(channel).filter((file) =>
    /^gateway\.networking\.(x-)?k8s\.io_(?!vap_)/.test(file),
  );
  const gateway = readCrds(files.toSorted().map((file) => join(channel, file)));

  mkdirSync(join(root, "deploy/crds"), { recursive: true });
  mkdirSync(join(root, "src/objects/generated"), { recursive: true });
  writeYaml("deploy/crds/istio.yaml", istioModule, istio.map(plainCrd));
  writeYaml("deploy/crds/gateway-api.yaml", gatewayModule, gateway.map(plainCrd));
  writeFileSync(
    join(root, "src/objects/generated/schemas.json"),
    `${JSON.stringify(schemaTable([...istio, ...gateway].map(plainCrd)))}\n`,
  );
}

export function moduleDirectory(module: string): string {
  const answer = execFileSync("go", ["mod", "download", "-json", module], {
    encoding: "utf8",
    cwd: root,
  });
  return (JSON.parse(answer) as { Dir: string }).Dir;
}

function readCrds(files: readonly string[]): Crd[] {
  return files.flatMap((file) =>
    parseAllDocuments(readFileSync(file, "utf8"))
      .map((document) => document.toJS() as Crd | null)
      .filter((crd) => crd !== null),
  );
}

/** Fields that Istio 1.32 has and the released API module has not yet; their schemas are written by hand. */
function addNewerFields(crd: Crd): void {
  const { kind } = crd.spec.names;
  for (const version of crd.spec.versions) {
    const schema = (version["schema"] as JsonObject)["openAPIV3Schema"] as JsonObject;
    visitSchemas(schema, "", (node, path) => {
      const properties = node["properties"] as JsonObject | undefined;
      if (properties === undefined) return;
      if (kind === "DestinationRule" && path.endsWith(".loadBalancer")) addBackendUtilization(node);
      if (kind === "EnvoyFilter" && path.endsWith(".listener.filterChain"))
        properties["transportSocket"] = { type: "string" };
      if ((kind === "Gateway" || kind === "Sidecar") && path.endsWith(".tls") && "cipherSuites" in properties)
        properties["ecdhCurves"] = { type: "array", items: { type: "string" } };
      if (kind === "RequestAuthentication" && path.endsWith(".jwtRules"))
        properties["presence"] = { type: "string", enum: ["OPTIONAL", "REQUIRED"] };
    });
  }
}

function addBackendUtilization(loadBalancer: JsonObject): void {
  const properties = loadBalancer["properties"] as JsonObject;
  if ("backendUtilization" in properties) return;
  properties["backendUtilization"] = {
    type: "object",
    properties: {
      errorUtilizationPenaltyPercent: { type: "integer", minimum: 0, maximum: 4294967295 },
      metricNamesForComputingUtilization: { type: "array", items: { type: "string" } },
      weightExpirationPeriod: { type: "string" },
      weightStabilizationPeriod: { type: "string" },
      weightUpdatePeriod: { type: "string" },
    },
  };
  const choices = ["simple", "consistentHash", "backendUtilization"].map((name) => ({ required: [name] }));
  loadBalancer["oneOf"] = [{ not: { anyOf: choices } }, ...choices];
}

/** Calls back for every schema that describes a value of its own, with the path of its properties (lists add nothing). */
function visitSchemas(node: JsonObject, path: string, visit: (node: JsonObject, path: string) => void): void {
  visit(node, path);
  for (const [name, child] of Object.entries((node["properties"] as JsonObject | undefined) ?? {}))
    visitSchemas(child as JsonObject, `${path}.${name}`, visit);
  if (typeof node["items"] === "object") visitSchemas(node["items"] as JsonObject, path, visit);
  if (typeof node["additionalProperties"] === "object")
    visitSchemas(node["additionalProperties"] as JsonObject, `${path}{}`, visit);
}

/** The CRD without sentences, generator's marks and status. */
function plainCrd(crd: Crd): Crd {
  const kept: JsonObject = {};
  const channel = "gateway.networking.k8s.io/channel";
  const notes = crd.metadata["annotations"] as JsonObject | undefined;
  for (const key of ["api-approved.kubernetes.io", "gateway.networking.k8s.io/bundle-version", channel])
    if (notes?.[key] !== undefined) kept[key] = notes[key];
  const metadata: Crd["metadata"] = { name: crd.metadata.name };
  if (Object.keys(kept).length > 0) metadata["annotations"] = kept;
  return {
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata,
    spec: withoutSentences(crd.spec, false) as Crd["spec"],
  };
}

/** `names` says that the keys of `value` are a user's field names, not a schema's words. */
function withoutSentences(value: Json, names: boolean): Json {
  if (Array.isArray(value)) return value.map((item) => withoutSentences(item, false));
  if (value === null || typeof value !== "object") return value;
  const result: JsonObject = {};
  for (const [key, child] of Object.entries(value)) {
    if (
      !names &&
      (key === "description" ||
        key === "message" ||
        key === "messageExpression" ||
        key === "deprecationWarning")
    )
      continue;
    result[key] = withoutSentences(child, !names && key === "properties");
  }
  if (!names && typeof result["rule"] === "string") {
    const message = messageOf(result["rule"]);
    if (message !== undefined) result["message"] = message;
  }
  return result;
}

interface SchemaEntry {
  readonly versions: Record<string, number>;
  readonly schemas: Json[];
}

/** By `group/kind`: the distinct schemas (of `spec` and the other top fields, without metadata and status) and which version has which. */
function schemaTable(crds: readonly Crd[]): Record<string, SchemaEntry> {
  const table: Record<string, SchemaEntry> = {};
  for (const { spec } of crds) {
    const entry: SchemaEntry = { versions: {}, schemas: [] };
    const seen: string[] = [];
    for (const version of spec.versions.filter(({ served }) => served)) {
      const schema = (version["schema"] as JsonObject)["openAPIV3Schema"] as JsonObject;
      const {
        status: _status,
        metadata: _metadata,
        apiVersion: _v,
        kind: _k,
        ...properties
      } = schema["properties"] as JsonObject;
      const own: Json = { ...schema, properties };
      const text = JSON.stringify(own);
      if (!seen.includes(text)) {
        seen.push(text);
        entry.schemas.push(own);
      }
      entry.versions[version.name] = seen.indexOf(text);
    }
    table[`${spec.group}/${spec.names.kind}`] = entry;
  }
  return table;
}

function writeYaml(file: string, module: string, crds: readonly Crd[]): void {
  const header =
    `# Written by \`npm run generate\` from the API schemas of ${module} (Apache License 2.0); descriptions are left out.\n` +
    "# Do not edit: change scripts/generate-crds.ts.\n";
  const documents = crds.map((crd) => stringify(crd, { lineWidth: 0, aliasDuplicateObjects: false }));
  writeFileSync(join(root, file), header + documents.join("---\n"));
}

if (import.meta.main) generateCrds();
