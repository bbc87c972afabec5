// `mizzen proxy-status`: which proxies are connected, and whether they have what they should.

import { type Access, askControlPlanes, openAccess, parsePodName } from "../access.ts";
import { clusterFlags, type Command, NotSoError, textFlag } from "../command.ts";
import { renderTable } from "../table.ts";

/** One row of istiod's /debug/syncz. */
interface ProxyStatus {
  readonly proxy: string;
  readonly connectedAtMs?: number;
  readonly types: readonly {
    readonly type: string;
    readonly held: number;
    readonly onDemand?: number;
    readonly state: string;
    readonly rejection?: string;
  }[];
}

interface Row extends ProxyStatus {
  readonly istiod: string;
}

/** Istio's names for the columns, and what syncz calls the types. Routes come whole or by virtual host. */
const columns: readonly (readonly [title: string, types: readonly string[]])[] = [
  ["CDS", ["cluster", "CDS"]],
  ["LDS", ["listener", "LDS"]],
  ["EDS", ["endpoint", "EDS"]],
  ["RDS", ["route", "virtualHost", "RDS"]],
  ["SDS", ["secret", "SDS"]],
];
/** From best to worst. */
const states = ["IGNORED", "NOT SENT", "SYNCED", "STALE", "ERROR"];

export const proxyStatus: Command = {
  name: "proxy-status",
  alias: "ps",
  summary: "which proxies are connected, and whether they have what they should",
  arguments: "[pod]",
  flags: [
    ...clusterFlags,
    { syntax: "-n, --namespace <namespace>", help: "only proxies of this namespace" },
    { syntax: "-o, --output <format>", help: "table or json", default: "table", choices: ["table", "json"] },
  ],
  examples: [
    { line: "mizzen proxy-status", does: "all proxies" },
    { line: "mizzen ps reviews-v1-6d8f.default", does: "one proxy" },
  ],
  async run(invocation) {
    const { args, flags, io } = invocation;
    const access = await openAccess(invocation);
    const rows = (await fetchStatus(access)).filter(filterOf(args[0], textFlag(flags, "namespace")));
    if (rows.length === 0)
      throw new NotSoError(
        args[0] === undefined
          ? "no proxy is connected to istiod"
          : `no proxy ${args[0]} is connected to istiod`,
      );
    io.out(textFlag(flags, "output") === "json" ? JSON.stringify(rows, undefined, 2) : renderStatus(rows));
    if (rows.some(({ types }) => types.some(({ rejection }) => rejection))) {
      throw new NotSoError(
        "a proxy rejected a part of its configuration and keeps the last good one; see REJECTED above",
      );
    }
  },
};

async function fetchStatus(access: Access): Promise<Row[]> {
  const answers = (await askControlPlanes(access, "/debug/syncz")).map(({ istiod, answer }) =>
    (answer as ProxyStatus[]).map((row) => ({ ...row, istiod })),
  );
  return answers.flat().toSorted((a, b) => (a.proxy < b.proxy ? -1 : 1));
}

function filterOf(pod: string | undefined, namespace: string | undefined): (row: Row) => boolean {
  const wanted = pod === undefined ? undefined : parsePodName(pod, namespace);
  return ({ proxy }) => {
    const [name = "", of = ""] = shortName(proxy).split(".");
    if (wanted !== undefined)
      return of === wanted.namespace && (name === wanted.name || name.startsWith(`${wanted.name}-`));
    return namespace === undefined || of === namespace;
  };
}

/** `sidecar~10.0.0.1~reviews-v1.default~default.svc.cluster.local` is `reviews-v1.default`. */
function shortName(proxy: string): string {
  return proxy.split("~")[2] ?? proxy;
}

export function renderStatus(rows: readonly Row[]): string {
  const lines = rows.map((row) => [
    shortName(row.proxy),
    ...columns.map(([, types]) => {
      const shown = row.types.filter(({ type }) => types.includes(type));
      const onDemand = shown.reduce((sum, one) => sum + (one.onDemand ?? 0), 0);
      return worst(shown.map(({ state }) => state)) + (onDemand === 0 ? "" : ` (${onDemand} on demand)`);
    }),
    row.istiod,
  ]);
  const rejections = rows.flatMap((row) =>
    row.types.flatMap(({ type, rejection }) =>
      rejection ? [`REJECTED by ${shortName(row.proxy)} (${type}): ${rejection}`] : [],
    ),
  );
  return [renderTable(["NAME", ...columns.map(([title]) => title), "ISTIOD"], lines), ...rejections].join(
    "\n",
  );
}

function worst(found: readonly string[]): string {
  const ranked = found.toSorted((a, b) => states.indexOf(b) - states.indexOf(a));
  return ranked[0] ?? "IGNORED";
}
