// OpenAPI v3 documents, as far as kubectl reads them: which kinds take fieldValidation and dryRun, and the schemas for `explain`.

import { createHash } from "node:crypto";
import { noSuchPath } from "../errors.ts";
import { isRecord } from "../json.ts";
import type { Kind } from "../kinds/kind.ts";
import type { Registry } from "../registry.ts";
import { builtinSchemas } from "../schema/schema.ts";
import type { Schema } from "../schema/schema.ts";
import type { Call } from "./call.ts";

type Document = Record<string, unknown>;

const cache = new WeakMap<Registry, { generation: number; texts: Map<string, string> }>();

/** Answers /openapi/v3, /openapi/v3/... and /openapi/v2; false for other paths. */
export function serveOpenApi(call: Call, registry: Registry): boolean {
  const match = /^\/openapi\/(v2|v3)(?:\/(.*))?$/.exec(call.path);
  if (!match) return false;
  if (match[1] === "v2") {
    // kubectl asks for v2 in protobuf alone, for kinds that it does not find in v3; an empty document lets it say which kind is missing.
    if (call.accept.includes("proto-openapi.spec.v2")) {
      call.begin(200, protobufType);
      call.response.end(emptyV2);
    } else call.json(200, { swagger: "2.0", info, paths: {}, definitions: {} });
    return true;
  }
  if (match[2] === undefined || match[2] === "") {
    const versions = groupVersions(registry).map((path) => [
      path,
      { serverRelativeURL: `/openapi/v3/${path}?hash=${hashOf(registry, path)}` },
    ]);
    call.json(200, { paths: Object.fromEntries(versions) as Document });
    return true;
  }
  if (!groupVersions(registry).includes(match[2])) throw noSuchPath();
  call.begin(200, "application/json");
  call.response.end(textOf(registry, match[2]));
  return true;
}

const protobufType = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
// Field 1 (swagger) with the text "2.0", field 2 (info) with title and version of one letter.
const emptyV2 = Buffer.from("0a03322e3012060a014d120176", "hex");

const info = { title: "Mizzen", version: "v1" };

function groupVersions(registry: Registry): string[] {
  const named = registry
    .groups()
    .flatMap((group) => group.versions.map((version) => `apis/${group.name}/${version}`));
  return ["api/v1", ...named];
}

function hashOf(registry: Registry, path: string): string {
  return createHash("sha256").update(textOf(registry, path)).digest("hex").slice(0, 32).toUpperCase();
}

function textOf(registry: Registry, path: string): string {
  let kept = cache.get(registry);
  if (kept?.generation !== registry.generation) {
    kept = { generation: registry.generation, texts: new Map() };
    cache.set(registry, kept);
  }
  const text = kept.texts.get(path) ?? JSON.stringify(documentOf(registry, path));
  kept.texts.set(path, text);
  return text;
}

function documentOf(registry: Registry, path: string): Document {
  const [group, version] = path === "api/v1" ? ["", "v1"] : (path.split("/").slice(1) as [string, string]);
  const kinds = registry
    .kinds()
    .filter(
      (kind) => kind.group === group && kind.versions.some((one) => one.name === version && one.served),
    );
  const schemas: Record<string, unknown> = {};
  const paths: Document = {};
  for (const kind of kinds) {
    schemas[schemaName(kind, version)] = kindSchema(kind, version, schemas);
    Object.assign(paths, pathsOf(kind, version, `/${path}`));
  }
  return { openapi: "3.0.0", info, paths, components: { schemas } };
}

/** Reverse domain, version and kind, as Kubernetes names its schemas. */
function schemaName(kind: Kind, version: string): string {
  const domain = kind.group === "" ? "core" : kind.group.split(".").toReversed().join(".");
  return `${domain}.${version}.${kind.kind}`;
}

function kindSchema(kind: Kind, version: string, schemas: Record<string, unknown>): unknown {
  const schema = kind.versions.find((one) => one.name === version)?.schema ?? {};
  const written = written3(schema, schemas) as Document;
  const properties = isRecord(written["properties"]) ? written["properties"] : {};
  return {
    description: `${kind.kind} is a resource of ${kind.group === "" ? "the core API" : kind.group}.`,
    ...written,
    type: "object",
    properties: {
      apiVersion: { type: "string" },
      kind: { type: "string" },
      ...properties,
      metadata: written3({ $ref: "V1ObjectMeta" }, schemas),
    },
    "x-kubernetes-group-version-kind": [{ group: kind.group, version, kind: kind.kind }],
  };
}

/** The schema with its references pointing into the document, which is given what they point at. */
function written3(schema: Schema, schemas: Record<string, unknown>): unknown {
  if (schema.$ref !== undefined) {
    const name = schema.$ref;
    if (schemas[name] === undefined) {
      schemas[name] = {};
      schemas[name] = written3(builtinSchemas[name] ?? {}, schemas);
    }
    return { allOf: [{ $ref: `#/components/schemas/${name}` }], default: {} };
  }
  const result: Document = { ...schema };
  if (schema.properties) {
    result["properties"] = Object.fromEntries(
      Object.entries(schema.properties).map(([name, property]) => [name, written3(property, schemas)]),
    );
  }
  if (schema.items) result["items"] = written3(schema.items, schemas);
  if (isRecord(schema.additionalProperties)) {
    result["additionalProperties"] = written3(schema.additionalProperties as Schema, schemas);
  }
  if (schema["x-kubernetes-int-or-string"] && schema.anyOf === undefined) {
    result["anyOf"] = [{ type: "integer" }, { type: "string" }];
  }
  return result;
}

function pathsOf(kind: Kind, version: string, base: string): Document {
  const gvk = { group: kind.group, version, kind: kind.kind };
  const query = (name: string): Document => ({
    name,
    in: "query",
    schema: { type: "string", uniqueItems: true },
  });
  const writing = ["dryRun", "fieldManager", "fieldValidation"].map(query);
  const schema = { $ref: `#/components/schemas/${schemaName(kind, version)}` };
  const content = { "application/json": { schema } };
  const responses = { 200: { description: "OK", content } };
  const operation = (action: string, parameters: Document[]): Document => ({
    "x-kubernetes-action": action,
    "x-kubernetes-group-version-kind": gvk,
    parameters,
    responses,
  });
  const collection = kind.namespaced
    ? `${base}/namespaces/{namespace}/${kind.plural}`
    : `${base}/${kind.plural}`;
  const create = { post: { ...operation("post", writing), requestBody: { content } } };
  if (kind.verbs.length === 1) return { [collection]: create };
  return {
    [collection]: { get: operation("list", []), ...create },
    [`${collection}/{name}`]: {
      get: operation("get", []),
      put: operation("put", writing),
      patch: operation("patch", [...writing, query("force")]),
      delete: operation("delete", [query("dryRun")]),
    },
  };
}
