// Rewrites an application's probes and HTTP hooks to go to the agent, which asks the application from inside the pod. So they pass under
// STRICT mutual TLS, where the node, which has no certificate, would be refused at the application's port.
// Paths and the JSON that the agent reads are Istio's: /app-health/<container>/livez, readyz, startupz; /app-lifecycle/<container>/...

import type { Container, ContainerPort, Handler, Plain, Pod } from "./pod.ts";
import { allContainers, findContainer, proxyContainerName } from "./pod.ts";

interface Hook {
  readonly path: string;
  readonly read: (container: Container) => Handler | undefined;
  readonly write: (container: Container, handler: Handler) => void;
}

const hooks: readonly Hook[] = [
  probeHook("readinessProbe", "readyz"),
  probeHook("livenessProbe", "livez"),
  probeHook("startupProbe", "startupz"),
  lifecycleHook("preStop", "prestopz"),
  lifecycleHook("postStart", "poststartz"),
];

function probeHook(field: "readinessProbe" | "livenessProbe" | "startupProbe", word: string): Hook {
  return {
    path: `/app-health/%/${word}`,
    read: (container) => container[field],
    write: (container, handler) => {
      container[field] = handler;
    },
  };
}

function lifecycleHook(field: "preStop" | "postStart", word: string): Hook {
  return {
    path: `/app-lifecycle/%/${word}`,
    read: (container) => container.lifecycle?.[field],
    write: (container, handler) => {
      container.lifecycle = { ...container.lifecycle, [field]: handler };
    },
  };
}

/** Changes `pod` in place. Without a sidecar, or with `statusPort` 0, there is nobody to ask, and nothing changes. */
export function rewriteProbes(pod: Pod, statusPort: number): void {
  const proxy = findContainer(pod, proxyContainerName);
  if (proxy === undefined || statusPort === 0) return;
  const probers = new Map<string, Plain>();
  for (const container of allContainers(pod)) {
    if (container.name === proxyContainerName) continue;
    for (const hook of hooks) {
      const handler = hook.read(container);
      const question = handler && questionOf(handler, container.ports ?? []);
      if (handler === undefined || question === undefined) continue;
      const path = hook.path.replace("%", container.name);
      probers.set(path, question);
      hook.write(container, rewritten(handler, path, statusPort));
    }
  }
  if (probers.size === 0) return;
  const sorted = Object.fromEntries([...probers].toSorted(([a], [b]) => (a < b ? -1 : 1)));
  proxy.env = [...(proxy.env ?? []), { name: "ISTIO_KUBE_APP_PROBERS", value: JSON.stringify(sorted) }];
}

/** What the agent has to ask, with the port as a number; undefined for `exec`, or when the port's name is nowhere in the container. */
function questionOf(handler: Handler, ports: readonly ContainerPort[]): Plain | undefined {
  const { httpGet, tcpSocket, grpc, timeoutSeconds } = handler;
  const timeout = timeoutSeconds === undefined || timeoutSeconds === 0 ? {} : { timeoutSeconds };
  if (httpGet !== undefined) {
    const port = portNumber(httpGet.port, ports);
    return port === undefined ? undefined : { httpGet: { ...httpGet, port }, ...timeout };
  }
  if (tcpSocket !== undefined) {
    const port = portNumber(tcpSocket.port, ports);
    return port === undefined ? undefined : { tcpSocket: { ...tcpSocket, port }, ...timeout };
  }
  return grpc === undefined ? undefined : { grpc, ...timeout };
}

function portNumber(port: number | string | undefined, ports: readonly ContainerPort[]): number | undefined {
  if (typeof port === "number") return port;
  return ports.find(({ name }) => name === port)?.containerPort;
}

/** Same timing, other question: plain HTTP to the agent. */
function rewritten(handler: Handler, path: string, port: number): Handler {
  const { tcpSocket: _tcp, grpc: _grpc, httpGet, ...timing } = handler;
  const scheme = httpGet?.scheme === "HTTPS" ? { scheme: "HTTP" } : {};
  return { ...timing, httpGet: { ...httpGet, ...scheme, path, port } };
}
