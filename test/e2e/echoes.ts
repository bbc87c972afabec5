// Echo workloads in a mesh, and calls from one to another.

import { stringify } from "yaml";
import type { Order, Result } from "../../src/apps/demo/echo/forward.ts";
import type { Echo } from "../../src/apps/demo/echo/server.ts";
import { eventually, type Mesh } from "./mesh.ts";

export type { Echo, Order, Result };

/** Where an echo takes orders; left alone by capture, so that the test reaches it from the node. */
export const orderPort = 8999;

export interface EchoPortSpec {
  readonly name: string;
  readonly servicePort: number | null;
  readonly workloadPort: number;
  readonly flag:
    | "http"
    | "https"
    | "tcp"
    | "tcp-server-first"
    | "udp"
    | "http-localhost"
    | "http-pod-ip"
    | "http-behind-proxy";
}

export interface EchoApp {
  readonly name: string;
  readonly namespace: string;
  readonly version?: string;
  /** The Service's name, where several versions share one; the app's name otherwise. */
  readonly service?: string;
  readonly ports: readonly EchoPortSpec[];
  readonly annotations?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
  /** The ServiceAccount's name, where another than the app's. */
  readonly account?: string;
  readonly headless?: boolean;
  /** A StatefulSet instead of a Deployment. */
  readonly stateful?: boolean;
  /** Left without a sidecar. */
  readonly naked?: boolean;
  /** Names on the certificate of its `https` ports. */
  readonly certificateNames?: readonly string[];
  readonly replicas?: number;
  /** What the pod gets to end; little without, so that tests need not wait. */
  readonly graceSeconds?: number;
}

/** The manifest of one echo: ServiceAccount, Service and Deployment. */
export function echoManifest(app: EchoApp): string {
  const { name, namespace, version = "v1", service = name, account = name } = app;
  const labels = { app: service, version, ...app.labels };
  const flags = [...new Set(app.ports.map((port) => port.flag))].flatMap((flag) => [
    `--${flag}`,
    app.ports
      .filter((port) => port.flag === flag)
      .map((port) => port.workloadPort)
      .join(","),
  ]);
  const args = [
    "echo",
    "--service",
    service,
    "--version",
    version,
    "--forward",
    String(orderPort),
    "--pod-ip",
    "$(POD_IP)",
    ...(app.certificateNames === undefined ? [] : ["--own-certificate", app.certificateNames.join(",")]),
    ...flags,
  ];
  const exposed = app.ports.filter((port) => port.servicePort !== null);
  const objects = [
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: account, namespace } },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: service, namespace, labels: { app: service } },
      spec: {
        selector: { app: service },
        ...(app.headless === true ? { clusterIP: "None" } : {}),
        ports: exposed.map((port) => ({
          name: port.name,
          port: port.servicePort,
          targetPort: port.workloadPort,
          ...(port.flag === "udp" ? { protocol: "UDP" } : {}),
        })),
      },
    },
    {
      apiVersion: "apps/v1",
      kind: app.stateful === true ? "StatefulSet" : "Deployment",
      metadata: { name, namespace },
      spec: {
        ...(app.stateful === true ? { serviceName: service } : {}),
        replicas: app.replicas ?? 1,
        selector: { matchLabels: labels },
        template: {
          metadata: {
            labels: { ...labels, ...(app.naked === true ? { "sidecar.istio.io/inject": "false" } : {}) },
            annotations: {
              "traffic.sidecar.istio.io/excludeInboundPorts": String(orderPort),
              ...app.annotations,
            },
          },
          spec: {
            serviceAccountName: account,
            terminationGracePeriodSeconds: app.graceSeconds ?? 2,
            containers: [
              {
                name: "echo",
                image: "mizzen/demo:latest",
                imagePullPolicy: "IfNotPresent",
                args,
                env: [{ name: "POD_IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } }],
                readinessProbe: { tcpSocket: { port: orderPort }, periodSeconds: 1 },
              },
            ],
          },
        },
      },
    },
  ];
  return objects.map((object) => stringify(object)).join("---\n");
}

/** Applies echoes and waits until they are rolled out. */
export async function deployEchoes(mesh: Mesh, apps: readonly EchoApp[]): Promise<void> {
  await mesh.kubectl(["apply", "-f", "-"], apps.map(echoManifest).join("---\n"));
  for (const app of apps) {
    const kind = app.stateful === true ? "statefulset" : "deployment";
    await mesh.kubectl(["rollout", "status", `${kind}/${app.name}`, "-n", app.namespace, "--timeout=60s"]);
  }
}

/** The address of a running pod of an echo. */
export async function podIp(mesh: Mesh, namespace: string, selector: string): Promise<string> {
  return eventually(`a running pod of ${selector}`, async () => {
    const out = await mesh.kubectl([
      "get",
      "pods",
      "-n",
      namespace,
      "-l",
      selector,
      "--field-selector=status.phase=Running",
      "-o",
      "jsonpath={.items[0].status.podIP}",
    ]);
    return out.trim() === "" ? undefined : out.trim();
  });
}

/** Has the echo at `address` make calls. */
export async function order(mesh: Mesh, address: string, what: Order): Promise<readonly Result[]> {
  const url = `http://${address}:${orderPort}/`;
  const ran = await mesh.inNode(
    ["curl", "-sS", "--max-time", "60", "--data-binary", "@-", "-H", "content-type: application/json", url],
    JSON.stringify(what),
  );
  if (ran.code !== 0) throw new Error(`echo at ${address} takes no orders: ${ran.stderr}`);
  return JSON.parse(ran.stdout) as readonly Result[];
}

/** What the server saw, as its answer says it; undefined when the answer is not an echo. */
export function echoIn(result: Result | undefined): Echo | undefined {
  try {
    return JSON.parse(result?.body ?? "") as Echo;
  } catch {
    return undefined;
  }
}
