// The standalone cluster's API server: storage, admission, identities and listeners, wired together.

import { rmSync } from "node:fs";
import { createServer } from "node:https";
import type { Server } from "node:https";
import type { AddressInfo } from "node:net";
import type { Clock, Logger } from "#base";
import { WebhookAdmission } from "./admission/webhooks.ts";
import type { ResolveService } from "./admission/webhooks.ts";
import { ServiceAddresses } from "./admission/service-addresses.ts";
import { bootstrapBindings, bootstrapRoles } from "./auth/bootstrap-roles.ts";
import { ClusterCa } from "./auth/cluster-ca.ts";
import type { KeyPem } from "./auth/cluster-ca.ts";
import { kubeconfigOf } from "./auth/kubeconfig.ts";
import { Authorizer } from "./auth/rbac.ts";
import { TokenIssuer } from "./auth/tokens.ts";
import { mastersGroup } from "./context.ts";
import { startGarbageCollector } from "./controllers/garbage.ts";
import { startNamespaces } from "./controllers/namespaces.ts";
import { Database } from "./database.ts";
import { ApiError } from "./errors.ts";
import type { ExecProvider } from "./http/exec.ts";
import { requestListener, upgradeListener } from "./http/serve.ts";
import type { LogsProvider } from "./http/subresources.ts";
import { localStore } from "./local-store.ts";
import { Objects } from "./objects.ts";
import { Registry } from "./registry.ts";
import { serviceEndpoint } from "./service-endpoint.ts";
import type { ClusterStore, NewObject } from "./store.ts";

/** Where to listen: a TCP address (port 0: any free one) or a unix socket. All speak TLS. */
export type ListenAt = { readonly host: string; readonly port: number } | { readonly path: string };

export interface ApiServerOptions {
  /** Objects, the cluster's CA and the token key live here. Only this process may use it. */
  readonly dataDir: string;
  readonly listen: readonly ListenAt[];
  readonly clock: Clock;
  readonly log: Logger;
  /** Default 10.96.0.0/16. */
  readonly serviceCidr?: string;
  /** DNS names and IP addresses for the server's certificate, beside localhost, the listeners and the kubernetes Service's. */
  readonly serverNames?: readonly string[];
  /** Default https://kubernetes.default.svc.cluster.local. */
  readonly issuer?: string;
  readonly logs?: LogsProvider;
  readonly exec?: ExecProvider;
  /** Where a webhook's Service is reached; by default at a ready endpoint of its EndpointSlices. */
  readonly resolveService?: ResolveService;
  /** Whether the garbage collector and the namespace controllers run in here too. Default true. */
  readonly controllers?: boolean;
}

export interface ApiServer {
  /** One for each TCP listener, in their order: `https://127.0.0.1:6443`. */
  readonly urls: readonly string[];
  /** The cluster's CA certificate. */
  readonly caPem: string;
  readonly store: ClusterStore;
  /** A kubeconfig for an administrator (client certificate, group system:masters) at a URL. */
  adminKubeconfig(serverUrl: string): string;
  /** A client certificate for a user with groups, e.g. a node's. */
  clientCertificate(username: string, groups: readonly string[]): Promise<KeyPem>;
  /** Ends listeners and watches, then the storage. */
  close(): Promise<void>;
}

const issuerDefault = "https://kubernetes.default.svc.cluster.local";
const serviceCidrDefault = "10.96.0.0/16";
// A request whose head does not come within it is dropped.
const headersTimeoutMs = 30_000;

export async function startApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const { clock, log } = options;
  const database = new Database(options.dataDir, log);
  const closing = new AbortController();
  try {
    const ca = await ClusterCa.open(options.dataDir, clock.nowMs());
    const tokens = await TokenIssuer.open(options.dataDir, options.issuer ?? issuerDefault, database, clock);
    const registry = new Registry();
    for (const crd of database.list("customresourcedefinitions.apiextensions.k8s.io")) registry.define(crd);
    const addresses = new ServiceAddresses(database, options.serviceCidr ?? serviceCidrDefault);
    const resolveService = options.resolveService ?? serviceEndpoint(database);
    const admission = new WebhookAdmission({ database, clock, resolveService });
    const objects = new Objects({ database, registry, admission, addresses, clock });
    const store = localStore(objects, tokens);
    await bootstrap(store, addresses);
    const authorizer = new Authorizer(database);
    const serve = requestListener({
      objects,
      tokens,
      authorizer,
      logs: options.logs,
      exec: options.exec,
      clock,
      log,
      closing: closing.signal,
    });
    const names = serverNames(options, addresses);
    const certificate = await ca.server(names, clock.nowMs());
    const servers = await listenAll(options.listen, certificate, ca.certPem, serve);
    const admin = await ca.client("kubernetes-admin", [mastersGroup], clock.nowMs());
    const stops =
      options.controllers === false
        ? []
        : startControllers({ objects, store, caPem: ca.certPem, clock, log });
    return {
      urls: servers.flatMap((server) => urlOf(server) ?? []),
      caPem: ca.certPem,
      store,
      adminKubeconfig: (serverUrl) => kubeconfigOf(serverUrl, ca.certPem, admin),
      clientCertificate: (username, groups) => ca.client(username, groups, clock.nowMs()),
      close: async () => {
        stops.forEach((stop) => stop());
        closing.abort();
        await Promise.all(servers.map(closeServer));
        database.close();
      },
    };
  } catch (error) {
    database.close();
    throw error;
  }
}

// Events are looked through this often for those past their hour.
const expiryEveryMs = 300_000;

function startControllers(parts: {
  objects: Objects;
  store: ClusterStore;
  caPem: string;
  clock: Clock;
  log: Logger;
}): Array<() => void> {
  const { objects, store, caPem, clock, log } = parts;
  let cancel = (): void => {};
  const expire = (): void => {
    objects.expireEvents();
    cancel = clock.after(expiryEveryMs, expire);
  };
  expire();
  return [
    startGarbageCollector({ store, registry: objects.registry, clock, log }),
    startNamespaces({ store, registry: objects.registry, caPem, clock, log }),
    () => cancel(),
  ];
}

function serverNames(options: ApiServerOptions, addresses: ServiceAddresses): string[] {
  const hosts = options.listen.flatMap((at) => ("host" in at ? [at.host] : []));
  const service = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
  ];
  return [
    "localhost",
    "127.0.0.1",
    ...hosts,
    ...service,
    addresses.apiServerAddress,
    ...(options.serverNames ?? []),
  ];
}

async function listenAll(
  places: readonly ListenAt[],
  certificate: KeyPem,
  caPem: string,
  serve: ReturnType<typeof requestListener>,
): Promise<Server[]> {
  const servers: Server[] = [];
  try {
    for (const at of places) {
      const server = createServer(
        {
          key: certificate.keyPem,
          cert: certificate.certPem,
          ca: caPem,
          requestCert: true,
          // A foreign certificate gets an answer, 401, rather than a broken connection.
          rejectUnauthorized: false,
          minVersion: "TLSv1.2",
          headersTimeout: headersTimeoutMs,
          // Watches and big uploads take their time.
          requestTimeout: 0,
        },
        serve,
      );
      server.on("upgrade", upgradeListener(serve));
      await listen(server, at);
      servers.push(server);
    }
  } catch (error) {
    await Promise.all(servers.map(closeServer));
    throw error;
  }
  return servers;
}

function listen(server: Server, at: ListenAt): Promise<void> {
  // A socket file that a killed process left behind would refuse us.
  if ("path" in at) rmSync(at.path, { force: true });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen("path" in at ? { path: at.path } : { host: at.host, port: at.port }, () => {
      server.off("error", reject);
      resolve();
    });
  });
}

function urlOf(server: Server): string | undefined {
  const address: AddressInfo | string | null = server.address();
  if (address === null || typeof address === "string") return undefined;
  const host = address.family === "IPv6" ? `[${address.address}]` : address.address;
  return `https://${host}:${address.port}`;
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}

/** What every cluster has from the start. */
async function bootstrap(store: ClusterStore, addresses: ServiceAddresses): Promise<void> {
  const namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"];
  for (const name of namespaces)
    await ensure(store, "namespaces", { apiVersion: "v1", kind: "Namespace", metadata: { name } });
  for (const role of bootstrapRoles) await ensure(store, "clusterroles.rbac.authorization.k8s.io", role);
  for (const binding of bootstrapBindings)
    await ensure(store, "clusterrolebindings.rbac.authorization.k8s.io", binding);
  await ensure(store, "services", {
    apiVersion: "v1",
    kind: "Service",
    metadata: {
      name: "kubernetes",
      namespace: "default",
      labels: { component: "apiserver", provider: "kubernetes" },
    },
    spec: { clusterIP: addresses.apiServerAddress, ports: [{ name: "https", port: 443, targetPort: 6443 }] },
  });
}

async function ensure(store: ClusterStore, resource: string, object: NewObject): Promise<void> {
  if (store.get(resource, object.metadata.namespace ?? "", object.metadata.name ?? "")) return;
  try {
    await store.create(resource, object);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status.reason !== "AlreadyExists") throw error;
  }
}
