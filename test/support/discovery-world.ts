// Objects as text for DiscoveryBench: services whose only endpoint is on loopback, and rules whose answers say by which
// route they came.

/** MeshConfig, policies and the Pod of the one sidecar, which nothing captures. @param clusterDiscovery as in the namespace's label */
export function sidecarWorld(clusterDiscovery: "eager" | "on-demand"): string {
  return `
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-d }
data: { mesh: "{ enableAutoMtls: false, outboundTrafficPolicy: { mode: REGISTRY_ONLY } }" }
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: istio-d }
spec: { mtls: { mode: DISABLE } }
---
apiVersion: v1
kind: Namespace
metadata: { name: default, labels: { mizzen.io/cluster-discovery: ${clusterDiscovery} } }
---
apiVersion: v1
kind: Pod
metadata:
  name: sleep-1
  namespace: default
  labels: { app: sleep }
  annotations: { sidecar.istio.io/interceptionMode: NONE }
spec: { serviceAccountName: sleep, containers: [{ name: app }] }
status: { phase: Running, podIP: 127.0.0.1 }
`;
}

/** @param at makes its address */
export function serviceText(
  name: string,
  at: number,
  port: number,
  backendPort: number,
  portName = "http",
): string {
  return `
apiVersion: v1
kind: Service
metadata: { name: ${name}, namespace: default }
spec:
  clusterIP: 10.96.${Math.floor(at / 250) + 1}.${(at % 250) + 1}
  selector: { app: ${name} }
  ports: [{ name: ${portName}, port: ${port}, protocol: TCP }]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: ${name}-1, namespace: default, labels: { kubernetes.io/service-name: ${name} } }
addressType: IPv4
ports: [{ name: ${portName}, port: ${backendPort}, protocol: TCP }]
endpoints: [{ addresses: [127.0.0.1], conditions: { ready: true } }]
`;
}

/** A VirtualService whose answers carry a mark. @param destinations in YAML's flow style */
export function routeTo(name: string, mark: string, destinations: string): string {
  return `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: ${name}, namespace: default }
spec:
  hosts: [${name}]
  http:
    - headers: { response: { set: { x-route: ${mark} } } }
      route: ${destinations}
`;
}

export function joinTexts(...texts: readonly string[]): string {
  return texts.join("\n---\n");
}
