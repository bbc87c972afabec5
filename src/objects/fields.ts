// The table of fields: every path of Istio's API and the Gateway API with what the mesh does with it. Paths come from the schemas, their status from the
// marks; so a new field of the API shows up by itself, as one without effect.

import type { Problem } from "#base";

import { parseRoutingClaim } from "./claims.ts";
import { fieldMarks, type FieldStatus } from "./field-marks.ts";
import { kindOf, kinds } from "./kinds.ts";
import { annotations, labels } from "./labels.ts";
import type { MeshConfig } from "./mesh-config-shape.ts";
import { parseProxyConfig } from "./mesh-config.ts";
import { refOf, type KubeObject } from "./object.ts";
import { openReport, pathOf, type Report } from "./report.ts";
import { meshSchemaOf, schemaOf, type Schema } from "./schema.ts";

export interface FieldRow {
  readonly kind: string;
  /** `spec.http[].match[].uri`; entries of maps are `{}`. */
  readonly path: string;
  /** As the schema names it: "string", "list of object", ... */
  readonly type: string;
  readonly status: FieldStatus;
  /** Why it has no effect, where that will stay so; otherwise "". */
  readonly reason: string;
}

/** What becomes of a path, and why where it has no effect for good; "" for no reason but that it is not there yet. */
interface Mark {
  readonly status: FieldStatus;
  readonly reason: string;
}

type Marks = ReadonlyMap<string, Mark>;

const marksByKind: ReadonlyMap<string, Marks> = parseMarks(fieldMarks);

function parseMarks(text: string): Map<string, Map<string, Mark>> {
  const marks = new Map<string, Map<string, Mark>>();
  for (const line of text.split("\n").filter((entry) => entry !== "")) {
    const [kind = "", path = "", status = "", ...reason] = line.split(" ");
    const ofKind = marks.get(kind) ?? new Map<string, Mark>();
    marks.set(kind, ofKind.set(path, { status: status as FieldStatus, reason: reason.join(" ") }));
  }
  return marks;
}

const noMarks: Marks = new Map();
const marksOf = (kind: string): Marks => marksByKind.get(kind) ?? noMarks;

/** The status of a path: that of the longest mark that covers it. */
export function fieldStatus(kind: string, path: string): FieldStatus {
  return markFor(kind, path).status;
}

const unmarked: Mark = { status: "warns", reason: "" };

function markFor(kind: string, path: string): Mark {
  const marks = marksOf(kind);
  for (let end = path.length; end > 0; end = lastBoundary(path, end)) {
    const mark = marks.get(path.slice(0, end));
    if (mark !== undefined) return mark;
  }
  return unmarked;
}

function withoutEffect(what: string, reason: string): string {
  return reason === "" ? `${what} has no effect yet` : `${what} has no effect: ${reason}`;
}

/** Where the path's last step begins: `a.b[]` ends at `a.b`, then at `a`. */
function lastBoundary(path: string, end: number): number {
  return Math.max(
    path.lastIndexOf(".", end - 1),
    path.lastIndexOf("[", end - 1),
    path.lastIndexOf("{", end - 1),
    0,
  );
}

/** Whether something below the path has a mark of its own. */
function marksBelow(kind: string, path: string): boolean {
  for (const marked of marksOf(kind).keys())
    if (marked.length > path.length && marked.startsWith(path) && /[.[{]/.test(marked[path.length] ?? ""))
      return true;
  return false;
}

/**
 * A warning (or, for refused fields, an error) for each field of the object that has no effect, named by the topmost path below which
 * nothing works. Looks at the object only. Kinds of Kubernetes itself have none.
 */
export function unsupportedFieldWarnings(object: KubeObject): readonly Problem[] {
  const info = kindOf(object);
  const schema = schemaOf(object.apiVersion, object.kind)?.properties?.["spec"];
  if (info === undefined || info.family === "kubernetes" || schema === undefined || object.spec === undefined)
    return [];
  const report = openReport(refOf(object));
  visit(
    object.spec,
    schema,
    { kind: markKind(info.group, info.kind), general: "spec", exact: "spec" },
    report,
  );
  return report.problems;
}

/** Whose annotations are all the mesh's own: one that is not in the table is misspelt, or of another time. */
const ownPrefixes = [
  "sidecar.istio.io/",
  "traffic.sidecar.istio.io/",
  "status.sidecar.istio.io/",
  "readiness.status.sidecar.istio.io/",
  "proxy.istio.io/",
  "networking.istio.io/",
  "topology.istio.io/",
];

/** A warning for each annotation and label of Istio's that has no effect, of the object and of the Pods that it makes. */
export function unsupportedMetadataWarnings(object: KubeObject): readonly Problem[] {
  const report = openReport(refOf(object));
  metadataWarnings(object.metadata, "metadata", report);
  const spec = object.spec as Template | undefined;
  const [template, path] =
    spec?.jobTemplate === undefined
      ? [spec?.template, "spec.template.metadata"]
      : [spec.jobTemplate.spec?.template, "spec.jobTemplate.spec.template.metadata"];
  if (makesPods.has(object.kind)) metadataWarnings(template?.metadata, path, report);
  return report.problems;
}

const makesPods: ReadonlySet<string> = new Set([
  ...["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"],
]);

interface Template {
  readonly template?: { readonly metadata?: Partial<KubeObject["metadata"]> };
  readonly jobTemplate?: { readonly spec?: Template };
}

function metadataWarnings(
  metadata: Partial<KubeObject["metadata"]> | undefined,
  path: string,
  report: Report,
): void {
  for (const [name, text] of Object.entries(metadata?.annotations ?? {})) {
    if (name === annotations.proxyConfig) proxyConfigWarnings(text, `${path}.annotations`, report);
    const marked = marksOf("annotation").get(name);
    const isKnown = marked !== undefined || knownAnnotations.has(name);
    if (marked?.status === "works" || (!isKnown && !ownPrefixes.some((prefix) => name.startsWith(prefix))))
      continue;
    const fault = isKnown
      ? withoutEffect(`annotation ${name}`, marked?.reason ?? "")
      : `annotation ${name} is not known`;
    report.add("MZ0301", `${path}.annotations[${JSON.stringify(name)}]`, fault);
  }
  for (const name of Object.keys(metadata?.labels ?? {})) {
    if (!knownLabels.has(name) || marksOf("label").get(name)?.status === "works") continue;
    report.add("MZ0301", `${path}.labels[${JSON.stringify(name)}]`, `label ${name} has no effect yet`);
  }
}

/** What a Pod says of its own proxy: the fields without effect, and mistakes, for which all of it has none on listeners and routes. */
function proxyConfigWarnings(text: string, path: string, report: Report): void {
  const exact = `${path}[${JSON.stringify(annotations.proxyConfig)}]`;
  const { config, problems } = parseProxyConfig(text, {});
  for (const { at, text: fault } of problems)
    report.add("MZ0301", exact, `${at?.path === undefined ? "" : `${at.path}: `}${fault}`);
  const schema = meshSchemaOf("MeshConfig").properties?.["defaultConfig"];
  if (schema !== undefined)
    visit(config, schema, { kind: "MeshConfig", general: "defaultConfig", exact }, report);
}

const knownAnnotations: ReadonlySet<string> = new Set(
  Object.values(annotations).filter((name) => name.includes("istio")),
);
const knownLabels: ReadonlySet<string> = new Set(
  Object.values(labels).filter((name) => name.includes("istio")),
);

/** The same for MeshConfig. Values that equal the defaults ask for nothing. */
export function unsupportedMeshFields(mesh: MeshConfig, defaults: MeshConfig): readonly Problem[] {
  const report = openReport();
  for (const [name, value] of Object.entries(mesh)) {
    const schema = meshSchemaOf("MeshConfig").properties?.[name];
    const usual = (defaults as Readonly<Record<string, unknown>>)[name];
    if (schema === undefined || same(value, usual)) continue;
    const changed = name === "defaultConfig" ? changedFields(value, usual) : value;
    visit(changed, schema, { kind: "MeshConfig", general: name, exact: name }, report);
  }
  return report.problems;
}

const same = (one: unknown, other: unknown) => JSON.stringify(one) === JSON.stringify(other);

function changedFields(value: unknown, usual: unknown): unknown {
  const before = (usual ?? {}) as Readonly<Record<string, unknown>>;
  return Object.fromEntries(
    Object.entries(value as object).filter(([key, child]) => !same(child, before[key])),
  );
}

/** Istio's Gateway and that of Gateway API are marked apart. */
function markKind(group: string, kind: string): string {
  return group.startsWith("gateway.networking.") ? `gateway-api/${kind}` : kind;
}

interface Place {
  readonly kind: string;
  /** With `[]` and `{}`. */
  readonly general: string;
  /** With indices and keys. */
  readonly exact: string;
}

function visit(value: unknown, schema: Schema, place: Place, report: Report): void {
  if (value === undefined || value === null) return;
  if (marksBelow(place.kind, place.general) && typeof value === "object") {
    visitChildren(value, schema, place, report);
    return;
  }
  const { status, reason } = markFor(place.kind, place.general);
  if (status === "refused")
    report.add("MZ0302", place.exact, `this field is not supported${reason === "" ? "" : `: ${reason}`}`);
  else if (status === "warns") report.add("MZ0301", place.exact, withoutEffect("this field", reason));
}

function visitChildren(value: object, schema: Schema, { kind, general, exact }: Place, report: Report): void {
  if (Array.isArray(value)) {
    for (const [index, item] of value.entries())
      visit(item, schema.items ?? {}, { kind, general: `${general}[]`, exact: pathOf(exact, index) }, report);
    return;
  }
  const additional =
    typeof schema.additionalProperties === "object" ? schema.additionalProperties : undefined;
  for (const [key, child] of Object.entries(value)) {
    const property = schema.properties?.[key];
    const step =
      property !== undefined
        ? `.${key}`
        : parseRoutingClaim(key) !== undefined
          ? "{@request.auth.claims}"
          : "{}";
    visit(
      child,
      property ?? additional ?? {},
      { kind, general: `${general}${step}`, exact: pathOf(exact, key) },
      report,
    );
  }
}

/** Every row of the table: kinds of Istio and the Gateway API in the order of the table of kinds, MeshConfig, annotations, labels. */
export function fieldTable(): readonly FieldRow[] {
  const rows: FieldRow[] = [];
  for (const { kind, group, storageVersion, family } of kinds) {
    if (family === "kubernetes") continue;
    const spec = schemaOf(`${group}/${storageVersion}`, kind)?.properties?.["spec"];
    if (spec !== undefined) collect(spec, markKind(group, kind), "spec", rows);
  }
  for (const [name, schema] of Object.entries(meshSchemaOf("MeshConfig").properties ?? {}))
    collect(schema, "MeshConfig", name, rows);
  for (const [name, schema] of Object.entries(meshSchemaOf("MeshNetworks").properties ?? {}))
    collect(schema, "MeshNetworks", name, rows);
  for (const [kind, names] of [
    ["annotation", Object.values(annotations)],
    ["label", Object.values(labels)],
  ] as const)
    for (const path of new Set([...names.filter((name) => name.includes("istio")), ...marksOf(kind).keys()])
      .values()
      .toArray()
      .toSorted())
      rows.push({ kind, path, type: "string", ...(marksOf(kind).get(path) ?? unmarked) });
  return rows;
}

function collect(schema: Schema, kind: string, path: string, rows: FieldRow[]): void {
  // An object of which some fields work and some do not has no status of its own.
  const mark = markFor(kind, path);
  if (mark.status !== "warns" || !marksBelow(kind, path))
    rows.push({ kind, path, type: typeOf(schema), ...mark });
  const inner =
    schema.items ??
    (typeof schema.additionalProperties === "object" ? schema.additionalProperties : undefined);
  const below = schema.items !== undefined ? `${path}[]` : inner === undefined ? path : `${path}{}`;
  const properties = schema.properties ?? inner?.properties;
  for (const [name, child] of Object.entries(properties ?? {}))
    collect(child, kind, `${schema.properties === undefined ? below : path}.${name}`, rows);
}

function typeOf(schema: Schema): string {
  if (schema.items !== undefined) return `list of ${typeOf(schema.items)}`;
  if (typeof schema.additionalProperties === "object") return `map of ${typeOf(schema.additionalProperties)}`;
  if (schema.enum !== undefined) return schema.enum.filter((word) => word !== "").join(", ");
  return schema.format === "duration" ? "duration" : (schema.type ?? "any");
}

/** docs/reference/supported-fields.md. */
export function renderFieldTable(): string {
  const rows = fieldTable();
  const groups = Map.groupBy(rows, ({ kind }) => kind);
  const count = (status: FieldStatus) => rows.filter((row) => row.status === status).length;
  const head = [
    "# Supported fields",
    "",
    "Every field of Istio's API and of the Gateway API, and what this mesh does with it. Written by `npm run generate`; do not edit.",
    "",
    "- **works**: it has its effect.",
    "- **warns**: the object is taken, the field has no effect yet (or never, for the reason behind it), and the admission warning says so.",
    "- **refused**: the object is refused, and the error names the field.",
    "",
    `${count("works")} of ${rows.length} rows work, ${count("warns")} warn, ${count("refused")} are refused.`,
  ];
  const sections = [...groups].flatMap(([kind, list]) => [
    "",
    `## ${titleOf(kind)}`,
    "",
    "| field | type | status |",
    "|---|---|---|",
    ...list.map(
      ({ path, type, status, reason }) =>
        `| \`${path}\` | ${type} | ${status}${reason === "" ? "" : `: ${reason}`} |`,
    ),
  ]);
  return `${[...head, ...sections].join("\n")}\n`;
}

const titles: Readonly<Record<string, string>> = { annotation: "Annotations", label: "Labels" };

function titleOf(kind: string): string {
  return titles[kind] ?? kind.replace(/^gateway-api\/(.*)$/, "$1 (Gateway API)");
}
