// What is deployed for a Gateway of Gateway API: a ServiceAccount, a Deployment of proxies, a Service in front of them, and
// what the Gateway's parameters ask for besides. The injector makes the proxy of the pod, as for any other gateway.

import { ports as meshPorts } from "#base";
import { controllerVersion, parseParameter, type DeploymentFacts } from "#model";
import type { KubeObject } from "#objects";

const gatewayGroup = "gateway.networking.k8s.io";
const nameLabel = `${gatewayGroup}/gateway-name`;
const classLabel = `${gatewayGroup}/gateway-class-name`;
const managedLabel = "gateway.istio.io/managed";
const controllerLabel = "istio.io-gateway-controller";
const dataplaneLabel = "istio.io/dataplane-mode";

/** Said to us, not to what we deploy. */
const ownAnnotations: ReadonlySet<string> = new Set([
  controllerVersion.annotation,
  "gateway.istio.io/name-override",
  "gateway.istio.io/service-account",
  "kubectl.kubernetes.io/last-applied-configuration",
]);

/** Of the name of a port for HTTP/3. */
const quicSuffix = "-quic";

/** Kubernetes' limit for a port's name. */
const portNameLengthMax = 63;

type Fields = Readonly<Record<string, unknown>>;

/** An object as it is applied: some have fields beside `spec`. */
export type AppliedObject = KubeObject & Fields;

/**
 * The objects to apply, in order.
 * @param revision the control plane that injects the proxies
 * @throws for parameters that cannot be used; nothing is deployed then
 */
export function deploymentObjects(facts: DeploymentFacts, revision: string): AppliedObject[] {
  const { namespace, name } = facts.gateway;
  const claim: AppliedObject = {
    apiVersion: `${gatewayGroup}/v1`,
    kind: "Gateway",
    metadata: {
      name,
      namespace,
      annotations: { [controllerVersion.annotation]: String(controllerVersion.own) },
    },
  };
  return [claim, ...deployed(facts, revision)];
}

function deployed(facts: DeploymentFacts, revision: string): AppliedObject[] {
  const base = baseOf(facts);
  const texts = (parameter: string): string[] => facts.parameters.flatMap((one) => one[parameter] ?? []);
  const overlaid = (object: AppliedObject, parameter: string): AppliedObject =>
    texts(parameter).reduce((under, text) => overlay(under, text, parameter), object);
  const scaled = texts("horizontalPodAutoscaler").length === 0 ? [] : [autoscaler(facts, base)];
  const guarded = texts("podDisruptionBudget").length === 0 ? [] : [disruptionBudget(facts, base)];
  return [
    overlaid(
      {
        apiVersion: "v1",
        kind: "ServiceAccount",
        metadata: { ...base, name: facts.serviceAccount },
      },
      "serviceAccount",
    ),
    overlaid(deployment(facts, base, revision), "deployment"),
    overlaid(service(facts, base), "service"),
    ...scaled.map((object) => overlaid(object, "horizontalPodAutoscaler")),
    ...guarded.map((object) => overlaid(object, "podDisruptionBudget")),
  ];
}

type Base = Pick<
  Required<KubeObject["metadata"]>,
  "name" | "namespace" | "labels" | "annotations" | "ownerReferences"
>;

function baseOf({ gateway, name, className, labels, annotations }: DeploymentFacts): Base {
  const others = Object.entries(labels).filter(([label]) => !label.startsWith(`${gatewayGroup}/`));
  const kept = Object.entries(annotations).filter(
    ([annotation]) => !annotation.startsWith(`${gatewayGroup}/`) && !ownAnnotations.has(annotation),
  );
  return {
    name,
    namespace: gateway.namespace,
    labels: {
      // A mesh without sidecars must not capture the proxy's traffic as well.
      [dataplaneLabel]: "none",
      ...Object.fromEntries(others),
      [managedLabel]: controllerLabel,
      [classLabel]: className,
      [nameLabel]: gateway.name,
    },
    annotations: Object.fromEntries(kept),
    ownerReferences: [
      { apiVersion: `${gatewayGroup}/v1`, kind: "Gateway", name: gateway.name, uid: gateway.uid },
    ],
  };
}

function deployment(facts: DeploymentFacts, base: Base, revision: string): AppliedObject {
  const selector = { [nameLabel]: facts.gateway.name };
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: base,
    spec: {
      selector: { matchLabels: selector },
      template: {
        metadata: {
          labels: {
            ...base.labels,
            "service.istio.io/canonical-name": facts.name,
            "service.istio.io/canonical-revision": "latest",
            "sidecar.istio.io/inject": "true",
            ...(revision === "default" ? {} : { "istio.io/rev": revision }),
          },
          annotations: {
            ...base.annotations,
            "inject.istio.io/templates": "gateway",
            "istio.io/rev": revision,
            "prometheus.io/path": "/stats/prometheus",
            "prometheus.io/port": String(meshPorts.agent),
            "prometheus.io/scrape": "true",
          },
        },
        spec: {
          serviceAccountName: facts.serviceAccount,
          terminationGracePeriodSeconds: 30,
          securityContext: {
            // Listeners keep their numbers, which may be below 1024.
            sysctls: [{ name: "net.ipv4.ip_unprivileged_port_start", value: "0" }],
            runAsNonRoot: true,
            seccompProfile: { type: "RuntimeDefault" },
          },
          containers: [
            {
              name: "istio-proxy",
              image: "auto",
              securityContext: {
                allowPrivilegeEscalation: false,
                privileged: false,
                readOnlyRootFilesystem: true,
                capabilities: { drop: ["ALL"] },
              },
              resources: {
                requests: { cpu: "100m", memory: "128Mi" },
                limits: { cpu: "2", memory: "1Gi" },
              },
            },
          ],
        },
      },
    },
  };
}

function service(facts: DeploymentFacts, base: Base): AppliedObject {
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: base,
    spec: {
      type: facts.serviceType,
      ipFamilyPolicy: "PreferDualStack",
      ...(facts.loadBalancerIp === "" ? {} : { loadBalancerIP: facts.loadBalancerIp }),
      selector: { [nameLabel]: facts.gateway.name },
      ports: servicePorts(facts),
    },
  };
}

/** One port for each number and transport, named by its first listener. */
function servicePorts({ ports, quicListeners }: DeploymentFacts): readonly Fields[] {
  const status = { name: "status-port", port: meshPorts.ready, protocol: "TCP", appProtocol: "tcp" };
  const used = new Set([status.name]);
  const taken = new Set<string>();
  const asked = new Set(ports.filter(({ protocol }) => protocol === "UDP").map(({ port }) => port));
  const ofListeners = ports.flatMap(({ name, port, protocol }) => {
    const transport = protocol === "UDP" ? "UDP" : "TCP";
    if (taken.has(`${transport} ${port}`)) return [];
    taken.add(`${transport} ${port}`);
    const unique = portName(name, port, used);
    used.add(unique);
    if (transport === "UDP") return [{ name: unique, port, protocol: "UDP" }];
    const appProtocol = protocol.toLowerCase();
    const tcp = { name: unique, port, protocol: "TCP", appProtocol };
    if (!quicListeners || appProtocol !== "https" || asked.has(port)) return [tcp];
    const quic = portName(
      `${unique.slice(0, portNameLengthMax - quicSuffix.length)}${quicSuffix}`,
      port,
      used,
    );
    used.add(quic);
    return [tcp, { name: quic, port, protocol: "UDP", appProtocol }];
  });
  return [status, ...ofListeners];
}

/** A listener's name may have dots and be longer than a port's may. */
function portName(name: string, port: number, used: ReadonlySet<string>): string {
  const plain = name.replaceAll(".", "-").slice(0, portNameLengthMax).replace(/-+$/, "");
  if (!used.has(plain)) return plain;
  const suffix = `-${port}`;
  return `${plain.slice(0, portNameLengthMax - suffix.length)}${suffix}`;
}

function autoscaler({ name }: DeploymentFacts, base: Base): AppliedObject {
  const scaleTargetRef = { apiVersion: "apps/v1", kind: "Deployment", name };
  return {
    apiVersion: "autoscaling/v2",
    kind: "HorizontalPodAutoscaler",
    metadata: base,
    spec: { scaleTargetRef, maxReplicas: 1 },
  };
}

function disruptionBudget({ gateway }: DeploymentFacts, base: Base): AppliedObject {
  return {
    apiVersion: "policy/v1",
    kind: "PodDisruptionBudget",
    metadata: base,
    spec: { selector: { matchLabels: { [nameLabel]: gateway.name } } },
  };
}

/** Lays a parameter's YAML over an object as a strategic merge does: lists of named things by their names. */
function overlay(object: AppliedObject, text: string, parameter: string): AppliedObject {
  const parsed = parseParameter(parameter, text);
  if (parsed.kind === "unfit") throw new Error(parsed.fault);
  return merged(object, parsed.fields) as AppliedObject;
}

function merged(base: unknown, given: unknown): unknown {
  if (Array.isArray(base) && Array.isArray(given)) return mergedLists(base, given);
  if (!isFields(base) || !isFields(given)) return given;
  const result: Record<string, unknown> = { ...base };
  for (const [name, value] of Object.entries(given)) {
    if (value === null) delete result[name];
    else result[name] = Object.hasOwn(base, name) ? merged(base[name], value) : value;
  }
  return result;
}

function mergedLists(base: readonly unknown[], given: readonly unknown[]): readonly unknown[] {
  const nameOf = (one: unknown): unknown => (isFields(one) ? one["name"] : undefined);
  if (![...base, ...given].every((one) => nameOf(one) !== undefined)) return given;
  const names = new Set(given.map(nameOf));
  const kept = base.filter((one) => !names.has(nameOf(one)));
  const laid = given.map((one) =>
    merged(
      base.find((other) => nameOf(other) === nameOf(one)),
      one,
    ),
  );
  return [...kept, ...laid];
}

function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
