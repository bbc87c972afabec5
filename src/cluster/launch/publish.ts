// A Service's port on the machine's loopback. A unix socket is the way between the machine's network and the cluster's: the host side
// listens on 127.0.0.1 and hands bytes to the socket, the cluster side takes them from the socket to an endpoint. Both only splice.

import {
  createServer,
  connect,
  type AddressInfo,
  type NetConnectOpts,
  type Server,
  type Socket,
} from "node:net";
import { rm } from "node:fs/promises";
import type { Logger } from "#base";
import type { ClusterStore } from "../api/index.ts";
import { targetsOf } from "../node/service-rules.ts";
import type { EndpointSlice, Service } from "../types.ts";

export interface Publication {
  /** `namespace/name` of a Service of type LoadBalancer. */
  readonly service: string;
  readonly port: number;
  /** On 127.0.0.1; 0 takes any free one. */
  readonly hostPort: number;
  /** The flag by which the user chose the port, for when it is taken. */
  readonly flag?: string;
}

/** Where the ingress gateway is found unless told otherwise. */
export const defaultPublications: readonly Publication[] = [
  { service: "sm-gateways/istio-ingressgateway", port: 80, hostPort: 8080 },
  { service: "sm-gateways/istio-ingressgateway", port: 443, hostPort: 8443 },
];

/** Parses `namespace/service:port=hostPort`. Throws with the expected form. */
export function parsePublication(text: string): Publication {
  const match = /^([a-z0-9.-]+\/[a-z0-9.-]+):(\d+)=(\d+)$/.exec(text);
  if (match === null) throw new Error(`"${text}" is not of the form namespace/service:port=hostPort`);
  return { service: match[1] ?? "", port: Number(match[2]), hostPort: Number(match[3]) };
}

const connectionsMax = 4_096; // of one listener; beyond it connections are refused

/** Takes connections on 127.0.0.1 to a unix socket. Resolves when it listens; throws EADDRINUSE for a port that is taken. */
export async function listenOnHost(
  port: number,
  socketPath: string,
): Promise<{ port: number; close: () => Promise<void> }> {
  const open = new Set<Socket>();
  const server = spliceServer(() => ({ path: socketPath }), open);
  await listen(server, { host: "127.0.0.1", port });
  return { port: (server.address() as AddressInfo).port, close: () => closeServer(server, open) };
}

/** Takes connections on a unix socket to a ready endpoint of the Service, another one each time. */
export async function listenInCluster(
  store: ClusterStore,
  publication: Publication,
  socketPath: string,
  log: Logger,
): Promise<() => Promise<void>> {
  const open = new Set<Socket>();
  let turn = 0;
  const server = spliceServer(() => {
    const targets = endpointsOf(store, publication);
    const target = targets[turn++ % Math.max(1, targets.length)];
    if (target === undefined) {
      log.debug(
        { service: publication.service, port: publication.port },
        "no endpoint is ready for a published port",
      );
      return undefined;
    }
    const colon = target.lastIndexOf(":");
    return { host: target.slice(0, colon), port: Number(target.slice(colon + 1)) };
  }, open);
  await rm(socketPath, { force: true });
  await listen(server, { path: socketPath });
  return () => closeServer(server, open);
}

function endpointsOf(store: ClusterStore, publication: Publication): string[] {
  const [namespace = "", name = ""] = publication.service.split("/");
  const service = store.get("services", namespace, name) as Service | undefined;
  const port = service?.spec.ports?.find((one) => one.port === publication.port);
  if (port === undefined) return [];
  const labelSelector = `kubernetes.io/service-name=${name}`;
  return targetsOf(
    port,
    store.list("endpointslices.discovery.k8s.io", { namespace, labelSelector }).items as EndpointSlice[],
  );
}

/** Joins each connection to one that `target` names; without a target it is closed. */
function spliceServer(target: () => NetConnectOpts | undefined, open: Set<Socket>): Server {
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (inner) => {
    const options = target();
    if (options === undefined) {
      inner.destroy();
      return;
    }
    const outer = connect({ ...options, allowHalfOpen: true, noDelay: true } as NetConnectOpts);
    for (const [one, other] of [
      [inner, outer],
      [outer, inner],
    ] as const) {
      open.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        open.delete(one);
        other.destroy();
      });
      one.pipe(other);
    }
  });
  server.maxConnections = connectionsMax;
  return server;
}

function listen(server: Server, options: { host: string; port: number } | { path: string }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(options, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

function closeServer(server: Server, open: ReadonlySet<Socket>): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    for (const socket of open) socket.destroy();
  });
}
