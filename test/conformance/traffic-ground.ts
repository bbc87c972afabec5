// The ground of traffic-matrix: echo workloads of every kind in a standalone mesh, and a client outside of it.

import { stringify } from "yaml";
import { deployEchoes, podIp, type EchoApp, type EchoPortSpec } from "../e2e/echoes.ts";
import type { Mesh } from "../e2e/mesh.ts";
import { CertificateAuthority, createSelfSignedMaterial } from "#identity";

/** Where the workloads are, where the server outside of the mesh is, and where gateways and what is theirs live. */
export const namespace = "echo1";
export const externalNamespace = "external";
export const gatewayNamespace = "sm-gateways";
const rootNamespace = "istio-d";
export const externalHost = "fake.external.com";

/** A row of ports.json. */
export interface PortRow {
  readonly name: string;
  readonly protocol: string;
  readonly servicePort: number | null;
  readonly workloadPort: number;
  readonly serverFirst?: boolean;
  readonly localhostIP?: boolean;
  readonly instanceIP?: boolean;
  readonly tLS?: boolean;
  readonly mTLS?: boolean;
  readonly proxyProtocol?: boolean;
}

export interface Ground {
  readonly mesh: Mesh;
  readonly ports: readonly PortRow[];
  /** Addresses of the workloads' Pods. */
  readonly pods: ReadonlyMap<string, string>;
  /** Addresses of Services: `a`, `external`, `ingress-gateway`, `extra-1`. */
  readonly services: ReadonlyMap<string, string>;
  readonly certificate: { readonly key: string; readonly chain: string; readonly root: string };
  /** Workloads that cannot be had here, and why. */
  readonly missing: ReadonlyMap<string, string>;
}

/** Services without an address of their own: their ports are those of the Pods. */
export const headless: ReadonlySet<string> = new Set(["headless", "statefulset"]);
/** Where echo listens whatever Services say: calls to a Pod's own address go there. */
const directPort: EchoPortSpec = { name: "direct", servicePort: null, workloadPort: 8080, flag: "http" };
/** Members of the Service over several workloads, which consistent hashing chooses from. */
const standard = { "test.istio.io/class": "standard" };

export async function layGround(mesh: Mesh, ports: readonly PortRow[]): Promise<Ground> {
  for (const name of [namespace, externalNamespace]) await mesh.kubectl(["create", "namespace", name]);
  await mesh.kubectl(["label", "namespace", namespace, "istio-injection=enabled"]);
  const apps = workloads(ports);
  await deployEchoes(mesh, apps);
  await mesh.kubectl(["apply", "-f", "-"], surroundings(ports));
  const pods = new Map<string, string>();
  for (const { name, namespace: of } of apps) pods.set(name, await podIp(mesh, of, `echo=${name}`));
  return {
    mesh,
    ports,
    pods,
    services: await serviceAddresses(mesh),
    certificate: await ownCertificate(),
    missing: new Map(),
  };
}

function workloads(ports: readonly PortRow[]): EchoApp[] {
  const of = (row: PortRow): EchoPortSpec => portOf(row, false);
  const usual = [...ports.filter((row) => row.mTLS !== true).map(of), directPort];
  const same = [...ports.filter((row) => row.mTLS !== true).map((row) => portOf(row, true)), directPort];
  const app = (name: string, more: Partial<EchoApp> = {}): EchoApp => ({
    name,
    namespace,
    ports: headless.has(name) ? same : usual,
    certificateNames: [`${name}.${namespace}.svc.cluster.local`],
    ...more,
    labels: { echo: name, ...more.labels },
    annotations: { "proxy.istio.io/config": dnsCapture, ...more.annotations },
  });
  const external = (version: string): EchoApp =>
    app(`external-${version}`, {
      namespace: externalNamespace,
      service: "external",
      version,
      naked: true,
      certificateNames: ["server.default.svc", "server.default.svc.cluster.local"],
    });
  return [
    app("a", { labels: standard }),
    app("b", { labels: standard }),
    app("c", { labels: standard }),
    app("tproxy", { annotations: { "sidecar.istio.io/interceptionMode": "TPROXY" } }),
    app("vm"),
    app("headless", { headless: true }),
    app("statefulset", { headless: true, stateful: true }),
    app("naked", { naked: true }),
    external("v1"),
    external("v2"),
  ];
}

/** The workloads' proxies answer the questions of their DNS. */
const dnsCapture = JSON.stringify({
  proxyMetadata: { ISTIO_META_DNS_CAPTURE: "true" },
});

function portOf(row: PortRow, isHeadless: boolean): EchoPortSpec {
  return {
    name: row.name,
    servicePort: row.servicePort === null ? null : isHeadless ? row.workloadPort : row.servicePort,
    workloadPort: row.workloadPort,
    flag: flagOf(row),
  };
}

function flagOf(row: PortRow): EchoPortSpec["flag"] {
  if (row.localhostIP) return "http-localhost";
  if (row.instanceIP) return "http-pod-ip";
  if (row.proxyProtocol) return "http-behind-proxy";
  if (row.tLS) return "https";
  if (row.protocol !== "TCP") return "http";
  return row.serverFirst ? "tcp-server-first" : "tcp";
}

/** What the namespace sees, the server outside by its name in the mesh, and two more addresses of that server. */
function surroundings(ports: readonly PortRow[]): string {
  const exposed = ports.filter((row) => row.servicePort !== null && row.mTLS !== true);
  const network = "networking.istio.io/v1";
  const extra = (index: number): object => ({
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: `extra-${index}`, namespace: externalNamespace },
    spec: {
      selector: { app: "external" },
      ports: [{ name: "https", port: 443, targetPort: 18443 }],
    },
  });
  const objects = [
    {
      apiVersion: network,
      kind: "Sidecar",
      metadata: { name: "restrict-to-namespace", namespace },
      // Unknown hosts are let through, as the cases suppose; those that do not want it say so.
      spec: {
        outboundTrafficPolicy: { mode: "ALLOW_ANY" },
        egress: [{ hosts: [`${gatewayNamespace}/*`, `${namespace}/*`, `${externalNamespace}/*`] }],
      },
    },
    {
      apiVersion: "security.istio.io/v1",
      kind: "PeerAuthentication",
      // Plaintext is taken in the whole mesh, as the cases suppose; a mesh comes up with mutual TLS demanded. Cases put a
      // policy of this name into their own namespace and take it away again.
      metadata: { name: "default", namespace: rootNamespace },
      spec: { mtls: { mode: "PERMISSIVE" } },
    },
    {
      apiVersion: network,
      kind: "ServiceEntry",
      metadata: { name: "external-service", namespace },
      spec: {
        exportTo: ["."],
        hosts: [externalHost],
        location: "MESH_EXTERNAL",
        resolution: "DNS",
        endpoints: [{ address: `external.${externalNamespace}.svc.cluster.local` }],
        ports: [
          { name: "http-tls-origination", number: 8888, protocol: "HTTP", targetPort: 443 },
          { name: "http2-tls-origination", number: 8882, protocol: "HTTP2", targetPort: 443 },
          ...exposed.map((row) => ({
            name: row.name,
            number: row.servicePort,
            // Ports by the name of auto-* are to be sniffed.
            ...(row.name.startsWith("auto-") ? {} : { protocol: row.protocol }),
          })),
        ],
      },
    },
    extra(1),
    extra(2),
  ];
  return objects.map((object) => stringify(object)).join("---\n");
}

async function serviceAddresses(mesh: Mesh): Promise<ReadonlyMap<string, string>> {
  const rows = await mesh.kubectl([
    "get",
    "services",
    "-A",
    "-o",
    'jsonpath={range .items[*]}{.metadata.namespace}{" "}{.metadata.name}{" "}{.spec.clusterIP}{"\\n"}{end}',
  ]);
  const found = new Map<string, string>();
  for (const row of rows.split("\n")) {
    const [of, name = "", address = ""] = row.split(" ");
    if (of === namespace || of === externalNamespace) found.set(name, address);
    if (of === gatewayNamespace && name === "istio-ingressgateway") found.set("ingress-gateway", address);
  }
  return found;
}

/** What the ingress shows: a certificate for every name under the namespace. */
async function ownCertificate(): Promise<Ground["certificate"]> {
  const clock = {
    nowMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    after: (): (() => void) => () => {},
  };
  const authority = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
  return authority.issueServing([`*.${namespace}.svc.cluster.local`, "ingress.example.com"]);
}
