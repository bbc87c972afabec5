// What the control plane is told: flags and environment, parsed once into plain data.

import { parseArgs } from "node:util";
import { ports } from "#base";
import type { ForeignRoutes, RouteDelivery } from "#model";

export interface Settings {
  /** The namespace of the control plane: its own objects, and the policies of the whole mesh. */
  readonly namespace: string;
  readonly podName: string;
  readonly revision: string;
  readonly clusterId: string;
  readonly clusterDomain: string;
  readonly network: string;
  /** How sidecars get the virtual hosts of their route tables. */
  readonly routeDelivery: RouteDelivery;
  readonly gatewayLabels: "copied" | "left-out";
  /** Whether problems and the generation in use are written into the status of Istio's objects. */
  readonly objectStatus: boolean;
  /** Whether keys of JWT issuers and Wasm modules may be fetched from addresses of this machine and its link. */
  readonly jwksAllowLocal: boolean;
  /** Hosts that Wasm modules are fetched from by any certificate or, of images, without TLS; `*` for all. */
  readonly insecureRegistries: readonly string[];
  /** Whose calls VirtualServices of other namespaces than the host's may route. */
  readonly foreignRoutes: ForeignRoutes;
  /** Whether gateways speak HTTP/3. */
  readonly gatewaySelectors: "everywhere" | "own-namespace";
  readonly quicListeners: boolean;
  readonly logLevel: string;
  readonly host: string;
  readonly ports: { readonly xds: number; readonly monitoring: number; readonly webhook: number };
  /** Where plaintext xDS listens; off without. */
  readonly plaintext: { readonly host: string; readonly port: number } | undefined;
  readonly source: ObjectSource;
  /** How long streams are let go after a termination signal. */
  readonly drainMs: number;
}

/** Where objects come from. */
export type ObjectSource =
  | { readonly kind: "kubeconfig"; readonly path: string; readonly context: string | undefined }
  | { readonly kind: "in-cluster"; readonly host: string; readonly port: string }
  | { readonly kind: "directory"; readonly path: string };

export const usage = `usage: discovery [flags]

  --kubeconfig FILE          the API server to use; inside of a cluster it is found without
  --context NAME             a context of that file other than its current one
  --config-dir DIR           take objects from the YAML files of a directory instead of an API server
  --plaintext ADDRESS:PORT   also serve xDS without TLS and without proof of identity (off unless given)
  --host ADDRESS             where to listen (0.0.0.0)
  --xds-port, --monitoring-port, --webhook-port PORT
                             other ports than ${ports.xds}, ${ports.monitoring}, ${ports.webhook}; 0 takes a free one
  --drain-ms MS              how long proxies are spread over when the program ends (2000)
  --log-level LEVEL          debug, info, warn or error (info)

Environment: POD_NAME, POD_NAMESPACE, REVISION, CLUSTER_ID, CLUSTER_DOMAIN, NETWORK, KUBECONFIG; ROUTE_DELIVERY: virtual-hosts
(sidecars get each virtual host as a resource of its own; clients that cannot get whole tables) or tables (everyone does);
GATEWAY_LABELS_COPIED: true (what is deployed for a Gateway bears its labels and annotations, unless it
names others) or false; OBJECT_STATUS: true (what is wrong with an object stands in its status) or false; JWKS_ALLOW_LOCAL: true lets keys of JWT issuers
and Wasm modules be fetched from loopback and link-local addresses (false); WASM_INSECURE_REGISTRIES: hosts, by commas, whose images
and modules may come by any certificate or without TLS (* for all);
FOREIGN_ROUTES: own-clients (a VirtualService for a host of another namespace routes its own namespace's calls alone) or all-clients;
SCOPE_GATEWAY_TO_NAMESPACE: true has a Gateway choose proxies of its own namespace alone (false);
QUIC_LISTENERS: true has HTTPS servers of gateways speak HTTP/3 as well, where the gateway's Service has the port for UDP too (false).

Example: discovery --kubeconfig ~/.kube/config --plaintext 127.0.0.1:15010`;

/** A flag or its value that makes no sense; the message says what to give instead. */
export class UsageError extends Error {}

/** Parses the command line (without the program's name) and the environment. Throws UsageError. */
export function parseSettings(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Settings {
  const { values, positionals } = parse(args);
  if (positionals.length > 1 || (positionals[0] ?? "discovery") !== "discovery")
    throw new UsageError(`there is one command, discovery, and not ${positionals.join(" ")}`);
  const network = env["NETWORK"] ?? "";
  return {
    namespace: env["POD_NAMESPACE"] ?? "istio-d",
    podName: env["POD_NAME"] ?? "istiod",
    revision: env["REVISION"] ?? "default",
    clusterId: env["CLUSTER_ID"] ?? "Kubernetes",
    clusterDomain: env["CLUSTER_DOMAIN"] ?? "cluster.local",
    network,
    routeDelivery: routeDeliveryOf(env["ROUTE_DELIVERY"]),
    gatewayLabels: switchOf("GATEWAY_LABELS_COPIED", env["GATEWAY_LABELS_COPIED"], true)
      ? "copied"
      : "left-out",
    objectStatus: switchOf("OBJECT_STATUS", env["OBJECT_STATUS"], true),
    jwksAllowLocal: switchOf("JWKS_ALLOW_LOCAL", env["JWKS_ALLOW_LOCAL"], false),
    insecureRegistries: (env["WASM_INSECURE_REGISTRIES"] ?? "")
      .split(",")
      .map((host) => host.trim())
      .filter((host) => host !== ""),
    foreignRoutes: foreignRoutesOf(env["FOREIGN_ROUTES"]),
    gatewaySelectors: switchOf("SCOPE_GATEWAY_TO_NAMESPACE", env["SCOPE_GATEWAY_TO_NAMESPACE"], false)
      ? "own-namespace"
      : "everywhere",
    quicListeners: switchOf("QUIC_LISTENERS", env["QUIC_LISTENERS"], false),
    logLevel: values["log-level"] ?? "info",
    host: values.host ?? "0.0.0.0",
    ports: {
      xds: portOf("--xds-port", values["xds-port"], ports.xds),
      monitoring: portOf("--monitoring-port", values["monitoring-port"], ports.monitoring),
      webhook: portOf("--webhook-port", values["webhook-port"], ports.webhook),
    },
    plaintext: values.plaintext === undefined ? undefined : addressOf(values.plaintext),
    source: sourceOf(values, env),
    drainMs: numberOf("--drain-ms", values["drain-ms"], 2_000),
  };
}

function routeDeliveryOf(text = ""): RouteDelivery {
  if (text === "" || text === "virtual-hosts") return "virtual-hosts";
  if (text === "tables") return text;
  throw new UsageError(`ROUTE_DELIVERY is virtual-hosts or tables, not ${text}`);
}

function switchOf(name: string, text: string | undefined, otherwise: boolean): boolean {
  if (text === undefined || text === "") return otherwise;
  if (text === "true" || text === "false") return text === "true";
  throw new UsageError(`${name} is true or false, not ${text}`);
}

function foreignRoutesOf(text = ""): ForeignRoutes {
  if (text === "" || text === "own-clients") return "own-clients";
  if (text === "all-clients") return text;
  throw new UsageError(`FOREIGN_ROUTES is own-clients or all-clients, not ${text}`);
}

const flags = {
  kubeconfig: { type: "string" },
  context: { type: "string" },
  "config-dir": { type: "string" },
  plaintext: { type: "string" },
  host: { type: "string" },
  "xds-port": { type: "string" },
  "monitoring-port": { type: "string" },
  "webhook-port": { type: "string" },
  "drain-ms": { type: "string" },
  "log-level": { type: "string" },
} as const;

function parse(args: readonly string[]): {
  values: { readonly [Flag in keyof typeof flags]?: string };
  positionals: readonly string[];
} {
  try {
    return parseArgs({ args: [...args], options: flags, allowPositionals: true });
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function sourceOf(
  values: { readonly kubeconfig?: string; readonly context?: string; readonly "config-dir"?: string },
  env: Readonly<Record<string, string | undefined>>,
): ObjectSource {
  if (values["config-dir"] !== undefined) return { kind: "directory", path: values["config-dir"] };
  const path = values.kubeconfig ?? env["KUBECONFIG"];
  if (path !== undefined && path !== "") return { kind: "kubeconfig", path, context: values.context };
  const host = env["KUBERNETES_SERVICE_HOST"];
  if (host === undefined)
    throw new UsageError("no API server: give --kubeconfig or --config-dir, or run in a cluster");
  return { kind: "in-cluster", host, port: env["KUBERNETES_SERVICE_PORT"] ?? "443" };
}

function addressOf(text: string): { host: string; port: number } {
  const at = text.lastIndexOf(":");
  const host = text.slice(0, Math.max(at, 0));
  return {
    host: host === "" ? "127.0.0.1" : host,
    port: portOf("--plaintext", text.slice(at + 1), ports.xdsPlaintext),
  };
}

function portOf(flag: string, text: string | undefined, otherwise: number): number {
  const port = numberOf(flag, text, otherwise);
  if (port > 65_535) throw new UsageError(`${flag} takes a port from 0 to 65535, not ${text}`);
  return port;
}

function numberOf(flag: string, text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  if (!/^\d{1,9}$/.test(text)) throw new UsageError(`${flag} takes a whole number, not ${text}`);
  return Number(text);
}
