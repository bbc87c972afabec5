// Cases of traffic-matrix, and how a call of one becomes an order that an echo carries out.

import { order, type Order, type Result } from "../e2e/echoes.ts";
import type { Called, Check } from "./traffic-checks.ts";
import {
  externalHost,
  externalNamespace,
  headless,
  namespace,
  type Ground,
  type PortRow,
} from "./traffic-ground.ts";

export interface Case {
  readonly id: string;
  readonly family: string;
  readonly name: string;
  readonly mode: "every-src-dst-pair" | "fixed";
  readonly via?: string;
  readonly config?: string;
  readonly toN?: number | string;
  readonly call?: CaseCall;
  readonly calls?: readonly CaseCall[];
  readonly dynamicCheck?: { readonly describe?: string };
  readonly skippedUpstream?: unknown;
  readonly targetMatchers?: readonly string[];
  readonly setupOpts?: string;
}

export interface CaseCall {
  readonly name?: string;
  readonly from?: string;
  readonly opts: {
    readonly to?: string;
    readonly toWorkload?: string;
    readonly address?: string;
    readonly port?: { readonly name?: string; readonly servicePort?: number; readonly protocol?: string };
    readonly scheme?: string;
    readonly count?: number;
    readonly timeoutMs?: number;
    readonly message?: string;
    readonly proxyProtocolVersion?: number;
    readonly tls?: { readonly serverName?: string; readonly alpn?: readonly string[] };
    readonly tcp?: { readonly expectedResponse?: { readonly value?: string } };
    readonly http?: {
      readonly path?: string;
      readonly method?: string;
      readonly headers?: Readonly<Record<string, string | readonly string[]>>;
      readonly http2?: boolean;
      readonly followRedirects?: boolean;
    };
    readonly check?: Check;
  };
}

/** Who calls, and whom, with the further targets of cases that want several. */
export interface Pair {
  readonly from: string;
  readonly to: readonly string[];
}

/** Less than this is no time on a machine that does other things as well. */
const timeoutMinMs = 1_000;

/** Carries a call out. */
export async function carryOut(
  ground: Ground,
  given: Case,
  call: CaseCall,
  pair: Pair,
): Promise<{ readonly called: Called; readonly results: readonly Result[] }> {
  const made = orderOf(ground, given, call, pair);
  const address = ground.pods.get(made.from);
  if (address === undefined) throw new Error(`there is no workload ${made.from}`);
  const results = await order(ground.mesh, address, made.order);
  const addresses = (service: string): readonly string[] => [
    (headless.has(service) ? ground.pods : ground.services).get(service) ?? "",
  ];
  return { results, called: { scheme: made.scheme, host: made.host, addresses } };
}

interface MadeOrder {
  readonly from: string;
  readonly order: Order;
  readonly scheme: string;
  readonly host: string;
}

function orderOf(ground: Ground, given: Case, call: CaseCall, pair: Pair): MadeOrder {
  const { opts } = call;
  const fill = (text: string): string => filled(ground, text, pair);
  const viaGateway = given.via === "ingress-gateway" || call.from === "ingress-gateway";
  const target = opts.to ?? pair.to[0] ?? "";
  const row = ground.ports.find((one) => one.name === opts.port?.name);
  const scheme = opts.scheme ?? schemeOf(opts.port?.protocol ?? row?.protocol ?? "HTTP");
  const headers = headersOf(call, given, fill);
  const service = `${target}.${namespace}.svc.cluster.local`;
  const asked = headers["Host"] ?? (opts.address === undefined ? service : fill(opts.address));
  const own = given.setupOpts?.startsWith("address=own pod IP") === true;
  const dialled = viaGateway
    ? (ground.services.get("ingress-gateway") ?? "")
    : own
      ? (ground.pods.get(pair.from) ?? "")
      : opts.toWorkload !== undefined
        ? (ground.pods.get(opts.toWorkload) ?? "")
        : opts.address === undefined
          ? service
          : fill(opts.address);
  const host = own ? dialled : asked;
  // The gateway is outside of the workloads' naming of ports: there, a protocol says all.
  const port = opts.port?.servicePort ?? (viaGateway ? (scheme === "https" ? 443 : 80) : portIn(row, target));
  const isHttp = scheme === "http" || scheme === "https" || scheme === "grpc";
  return {
    from: viaGateway ? "naked" : (call.from ?? pair.from),
    scheme,
    host,
    order: {
      url:
        scheme === "dns"
          ? `dns://${dialled}`
          : `${scheme}://${dialled}:${port}${scheme === "grpc" ? "/proto.EchoTestService/Echo" : (opts.http?.path ?? "/").split("#")[0]}`,
      count: opts.count ?? 1,
      method: opts.http?.method ?? "GET",
      ...(isHttp ? { headers: { ...headers, Host: host } } : {}),
      timeoutMs: Math.max(opts.timeoutMs ?? 5_000, timeoutMinMs),
      ...(opts.http?.http2 === undefined ? {} : { http2: opts.http.http2 }),
      ...(opts.http?.followRedirects === undefined ? {} : { followRedirects: opts.http.followRedirects }),
      ...(scheme === "https" ? tlsOf(opts.tls, host, fill) : {}),
      ...(opts.message === undefined ? {} : { message: opts.message }),
      ...(opts.tcp?.expectedResponse?.value === undefined ? {} : { expect: opts.tcp.expectedResponse.value }),
      ...(row?.serverFirst === true ? { serverFirst: true } : {}),
      ...(opts.proxyProtocolVersion === undefined ? {} : { proxyProtocol: true }),
    },
  };
}

function tlsOf(
  tls: CaseCall["opts"]["tls"],
  host: string,
  fill: (text: string) => string,
): Pick<Order, "serverName" | "alpn"> {
  const name = tls?.serverName === undefined ? (host.split(":")[0] ?? "") : fill(tls.serverName);
  return {
    // An address is no server name.
    ...(/^[\d.]+$/.test(name) ? {} : { serverName: name }),
    ...(tls?.alpn === undefined ? {} : { alpn: tls.alpn }),
  };
}

function headersOf(call: CaseCall, given: Case, fill: (text: string) => string): Record<string, string> {
  const headers: Record<string, string> = {};
  const host = /^hostHeader=(.*)$/.exec(given.setupOpts ?? "")?.[1];
  if (host !== undefined) headers["Host"] = fill(host);
  for (const [name, value] of Object.entries(call.opts.http?.headers ?? {}))
    headers[name] = fill(typeof value === "string" ? value : value.join(","));
  return headers;
}

function schemeOf(protocol: string): string {
  const lower = protocol.toLowerCase();
  return ["https", "grpc", "tcp"].includes(lower) ? lower : "http";
}

function portIn(row: PortRow | undefined, target: string): number {
  if (row === undefined) return 80;
  return headless.has(target) ? row.workloadPort : (row.servicePort ?? row.workloadPort);
}

/** A case's text with what its placeholders stand for. */
export function filled(ground: Ground, text: string, { to }: Pair): string {
  return text.replaceAll(
    /\$\{([A-Z_]+)(\d*)(?::([\w-]+))?\}/g,
    (whole, name: string, number: string, of: string) => {
      switch (name) {
        case "NS":
          return namespace;
        case "EXTERNAL_NS":
          return externalNamespace;
        case "EXTERNAL_HOST_HEADER":
          return externalHost;
        case "DST":
          return to[Number(number === "" ? 1 : number) - 1] ?? "";
        case "VIP":
          return ground.services.get(of) ?? "";
        case "POD_IP":
          return ground.pods.get(of) ?? "";
        case "EXTRA_VIP_":
          return ground.services.get(`extra-${number}`) ?? "";
        case "GATEWAY_ADDRESS":
          return ground.services.get("ingress-gateway") ?? "";
        default:
          return whole;
      }
    },
  );
}
