// In which form objects are sent: as they are, as a Table (what `kubectl get` prints), or as their metadata alone.

import { apiVersionOf, inVersion } from "../kinds/kind.ts";
import type { Column } from "../kinds/kind.ts";
import type { Target } from "../objects.ts";
import type { ApiObject } from "../store.ts";
import type { Call } from "./call.ts";

export type Form = "object" | "table" | "metadata";

const meta = "meta.k8s.io/v1";

/** The first form in the Accept header that is offered. */
export function formOf(call: Call): Form {
  for (const part of call.accept.split(",")) {
    const fields = part.split(";").map((field) => field.trim());
    if (fields[0] !== "application/json" && fields[0] !== "*/*" && fields[0] !== "application/*") continue;
    if (fields.includes("as=Table") && fields.includes("v=v1")) return "table";
    if (fields.some((field) => field.startsWith("as=PartialObjectMetadata")) && fields.includes("v=v1"))
      return "metadata";
    if (!fields.some((field) => field.startsWith("as="))) return "object";
  }
  return "object";
}

interface Listing {
  readonly items: readonly ApiObject[];
  readonly metadata: Record<string, unknown>;
}

/** A list in the wanted form. */
export function renderList(call: Call, target: Target, listing: Listing, nowMs: number): unknown {
  const { kind, version } = target;
  const items = listing.items.map((object) => inVersion(object, kind, version.name));
  switch (formOf(call)) {
    case "table":
      return tableOf(call, target.version.columns, items, listing.metadata, nowMs, true);
    case "metadata":
      return {
        kind: "PartialObjectMetadataList",
        apiVersion: meta,
        metadata: listing.metadata,
        items: items.map(metadataOf),
      };
    case "object":
      return {
        kind: kind.listKind,
        apiVersion: apiVersionOf(kind.group, version.name),
        metadata: listing.metadata,
        items,
      };
  }
}

/** One object in the wanted form. `headers` asks for a table's column definitions. */
export function renderObject(
  call: Call,
  target: Target,
  object: ApiObject,
  nowMs: number,
  headers = true,
): unknown {
  const versioned = inVersion(object, target.kind, target.version.name);
  switch (formOf(call)) {
    case "table": {
      const metadata = { resourceVersion: object.metadata.resourceVersion };
      return tableOf(call, target.version.columns, [versioned], metadata, nowMs, headers);
    }
    case "metadata":
      return metadataOf(versioned);
    case "object":
      return versioned;
  }
}

function metadataOf(object: ApiObject): unknown {
  return { kind: "PartialObjectMetadata", apiVersion: meta, metadata: object.metadata };
}

function tableOf(
  call: Call,
  columns: readonly Column[],
  objects: readonly ApiObject[],
  metadata: Record<string, unknown>,
  nowMs: number,
  headers: boolean,
): unknown {
  const include = call.query.get("includeObject") ?? "Metadata";
  return {
    kind: "Table",
    apiVersion: meta,
    metadata,
    columnDefinitions: headers ? columns.map(definitionOf) : null,
    rows: objects.map((object) => ({
      cells: columns.map((column) => column.cell(object, nowMs) ?? null),
      ...(include === "None" ? {} : { object: include === "Object" ? object : metadataOf(object) }),
    })),
  };
}

function definitionOf({ name, type, format, description, priority }: Column): unknown {
  return { name, type, format: format ?? "", description: description ?? "", priority };
}
