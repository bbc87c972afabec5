// `mizzen proxy-config`: what an Envoy really has, read from its own configuration dump; of a pod, or of a file.

import { readFileSync } from "node:fs";
import { ports } from "#base";
import { findPod, openAccess } from "../access.ts";
import {
  clusterFlags,
  type Command,
  type Flag,
  type Invocation,
  NotSoError,
  numberFlag,
  textFlag,
  UsageError,
} from "../command.ts";
import { clustersView, endpointsView, listenersView, routesView, type View } from "../dump/views.ts";
import { bootstrapView, secretsView } from "../dump/secrets.ts";
import { type ConfigDump, parseDump } from "../dump/dump.ts";
import { originsOfPod, renderWithOrigins, type Origins } from "../dump/origins.ts";
import { renderTable } from "../table.ts";

const parts: Readonly<Record<string, (dump: ConfigDump, nowMs: number) => View>> = {
  clusters: clustersView,
  listeners: listenersView,
  routes: routesView,
  endpoints: endpointsView,
  secret: secretsView,
  bootstrap: bootstrapView,
};

/** istioctl takes these too. */
const otherWords: Readonly<Record<string, string>> = {
  cluster: "clusters",
  c: "clusters",
  listener: "listeners",
  l: "listeners",
  route: "routes",
  r: "routes",
  endpoint: "endpoints",
  ep: "endpoints",
  secrets: "secret",
  s: "secret",
  b: "bootstrap",
};

const filters: readonly Flag[] = [
  { syntax: "--fqdn <host>", help: "clusters, endpoints: only of this service" },
  { syntax: "--port <port>", help: "only of this port" },
  { syntax: "--subset <subset>", help: "clusters: only of this subset" },
  {
    syntax: "--direction <direction>",
    help: "clusters: inbound or outbound",
    choices: ["inbound", "outbound"],
  },
  { syntax: "--address <address>", help: "listeners, endpoints: only at this address" },
  { syntax: "--cluster <name>", help: "endpoints: only of this cluster, by its whole name" },
  { syntax: "--resource-name <name>", help: "routes, listeners, secrets: only of this name" },
];

export const proxyConfig: Command = {
  name: "proxy-config",
  alias: "pc",
  summary: "what an Envoy has: clusters, listeners, routes, endpoints, certificates, bootstrap",
  arguments: "<what> [pod]",
  argumentChoices: ["clusters", "listeners", "routes", "endpoints", "secret", "bootstrap", "all"],
  flags: [
    ...clusterFlags,
    { syntax: "-n, --namespace <namespace>", help: "the pod's namespace", default: "default" },
    {
      syntax: "-f, --file <file>",
      help: "a config_dump of any Envoy instead of a pod; - reads standard input",
    },
    {
      syntax: "-o, --output <format>",
      help: "short, json or yaml",
      default: "short",
      choices: ["short", "json", "yaml"],
    },
    ...filters,
  ],
  examples: [
    { line: "mizzen proxy-config clusters productpage-v1-7c9.default", does: "where a proxy can send to" },
    {
      line: "mizzen pc routes deployment/istio-ingressgateway.sm-gateways -o yaml",
      does: "a gateway's routes as Envoy has them",
    },
    { line: "mizzen pc secret deploy/reviews-v1", does: "its SPIFFE identity and when it ends" },
    { line: "mizzen pc listeners -f dump.json --port 9080", does: "the listeners in a file" },
  ],
  run,
};

async function run(invocation: Invocation): Promise<void> {
  const { args, flags, io } = invocation;
  const word = args[0] ?? "";
  const what = otherWords[word] ?? word;
  const chosen =
    what === "all" ? Object.entries(parts) : Object.entries(parts).filter(([name]) => name === what);
  if (chosen.length === 0)
    throw new UsageError(
      `proxy-config knows no '${word}'; there are ${[...Object.keys(parts), "all"].join(", ")}`,
    );
  const port = numberFlag(flags, "port");
  const format = textFlag(flags, "output") ?? "short";
  const { text, origins } = await readDump(invocation, format === "yaml");
  const dump = parseDump(text);
  const nowMs = Date.now();
  const results: Record<string, unknown> = {};
  const texts: string[] = [];
  for (const [name, view] of chosen) {
    const { header, rows, raw } = view(dump, nowMs);
    const kept = rows.filter((row) => fits(row.facts, flags, port));
    results[name] = rows.length === 0 ? raw : kept.map((row) => row.resource);
    if (header.length > 0)
      texts.push(
        renderTable(
          header,
          kept.map(({ cells }) => cells),
        ),
      );
    else if (chosen.length === 1) texts.push(JSON.stringify(raw, undefined, 2));
  }
  const result = chosen.length === 1 ? Object.values(results)[0] : results;
  if (format === "json") io.out(JSON.stringify(result, undefined, 2));
  else if (format === "yaml") io.out(renderWithOrigins(results, origins, chosen.length === 1));
  else io.out(texts.join("\n\n"));
}

/** A configuration dump; on request with what its resources are made from, which a file does not say. */
async function readDump(
  invocation: Invocation,
  withOrigins: boolean,
): Promise<{ readonly text: string; readonly origins: Origins }> {
  const { args, flags } = invocation;
  const file = textFlag(flags, "file");
  if (file !== undefined) {
    try {
      return { text: readFileSync(file === "-" ? 0 : file, "utf8"), origins: {} };
    } catch (cause) {
      throw new NotSoError(
        `${file} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
        { cause },
      );
    }
  }
  const pod = args[1];
  if (pod === undefined)
    throw new UsageError(
      "proxy-config wants a pod, as `mizzen pc clusters reviews-v1.default`, or a file with -f",
    );
  const access = await openAccess(invocation);
  const found = await findPod(access, pod, textFlag(flags, "namespace"));
  const { name, namespace = "default" } = found.metadata;
  const [text, origins] = await Promise.all([
    access.askPod(found, ports.admin, "/config_dump?include_eds"),
    withOrigins ? originsOfPod(access, `${name}.${namespace}`) : {},
  ]);
  return { text, origins };
}

function fits(
  facts: View["rows"][number]["facts"],
  flags: Readonly<Record<string, unknown>>,
  port: number | undefined,
): boolean {
  const equal = (flag: string, value: string | undefined) => {
    const wanted = textFlag(flags, flag);
    return wanted === undefined || value === wanted;
  };
  const host = textFlag(flags, "fqdn");
  return (
    (host === undefined || facts.host === host || (facts.host?.startsWith(`${host}.`) ?? false)) &&
    (port === undefined || facts.port === port) &&
    equal("subset", facts.subset) &&
    equal("direction", facts.direction) &&
    equal("address", facts.address) &&
    equal("cluster", facts.cluster) &&
    equal("resourceName", facts.name)
  );
}
