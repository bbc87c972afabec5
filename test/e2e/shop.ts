// A shop behind the ingress gateway: what the tests of the control plane's resilience put under load.

import { stringify } from "yaml";
import { deployEchoes, order, type EchoApp, type Result } from "./echoes.ts";
import { startLoad, type LoadReport } from "./load.ts";
import { curl, eventually, pause, type Mesh } from "./mesh.ts";

export const httpPort = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;

const gateway = {
  apiVersion: "networking.istio.io/v1",
  kind: "Gateway",
  metadata: { name: "shop", namespace: "shop" },
  spec: {
    selector: { istio: "ingressgateway" },
    servers: [{ port: { number: 80, name: "http", protocol: "HTTP" }, hosts: ["*"] }],
  },
};

/** Sends a host of the gateway to a destination. */
export function shopRoute(name: string, host: string, http: readonly object[]): object {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "VirtualService",
    metadata: { name, namespace: "shop" },
    spec: { hosts: [host], gateways: ["shop"], http },
  };
}

/** Makes the namespace, its gateway and the apps, and waits until `host` is answered. */
export async function openShop(
  mesh: Mesh,
  apps: readonly EchoApp[],
  routes: readonly object[],
  host: string,
): Promise<void> {
  await mesh.kubectl(["create", "namespace", "shop"]);
  await mesh.kubectl(["label", "namespace", "shop", "istio-injection=enabled"]);
  await deployEchoes(mesh, apps);
  await mesh.kubectl(["apply", "-f", "-"], [gateway, ...routes].map((one) => stringify(one)).join("---\n"));
  await eventually(`${host} answers`, async () =>
    (await curl([`${mesh.gatewayUrl}/`, "-H", `Host: ${host}`])).status === 200 ? true : undefined,
  );
}

/** Does something under a steady load of requests, and says how these fared. */
export async function underLoad(
  mesh: Mesh,
  host: string,
  perSecond: number,
  work: () => Promise<void>,
  answered?: (body: string, sentAtMs: number) => void,
): Promise<LoadReport> {
  const load = startLoad(`${mesh.gatewayUrl}/`, perSecond, { host }, undefined, answered);
  try {
    await work();
  } catch (error) {
    await load.stop();
    throw error;
  }
  return load.stop();
}

export interface CallsReport {
  readonly sent: number;
  readonly failures: readonly string[];
}

const callsPerOrder = 20;
/** Between two orders: the calls are to be many, and the machine has others to serve. */
const orderPauseMs = 200;

/** Has an echo in the mesh call a URL again and again while something is done: its sidecar routes these calls. */
export async function whileCalling(
  mesh: Mesh,
  address: string,
  url: string,
  work: () => Promise<void>,
): Promise<CallsReport> {
  let sent = 0;
  const failures: string[] = [];
  const stop = new AbortController();
  const calling = (async () => {
    while (!stop.signal.aborted) {
      const results = await order(mesh, address, { url, count: callsPerOrder, concurrency: 2 });
      sent += results.length;
      failures.push(...results.filter(({ status }) => status !== 200).map(renderFailure));
      await pause(orderPauseMs);
    }
  })();
  try {
    await work();
  } finally {
    stop.abort();
    await calling;
  }
  return { sent, failures };
}

function renderFailure({ status, headers, body, error }: Result): string {
  return `${status} ${headers["x-envoy-response-flags"] ?? ""} ${error ?? body.slice(0, 80)}`;
}

/** The gateway's own words about requests that it answered with 503: its access log, the last lines first. */
export async function refusals(mesh: Mesh): Promise<string> {
  const log = await mesh.kubectl([
    "logs",
    "-n",
    "sm-gateways",
    "deployment/istio-ingressgateway",
    "--tail=5000",
  ]);
  const lines = log.split("\n").filter((line) => line.includes(" 503 "));
  return lines.slice(-refusalsShown).toReversed().join("\n");
}

const refusalsShown = 8;
