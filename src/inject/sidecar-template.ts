// The built-in template `sidecar`: what a pod of the mesh gets. It yields a patch, which is merged into the pod like any other template.

import { ports } from "#base";
import {
  annotation,
  choose,
  holdsApplication,
  image,
  type InjectionContext,
  interceptionMode,
  label,
  proxyMetadata,
  statusPort,
} from "./context.ts";
import {
  canonicalLabels,
  containerAnnotations,
  jsonAnnotation,
  logArguments,
  metadataEnvironment,
  proxyEnvironment,
  proxyMounts,
  proxyResources,
  proxyGroup,
  proxyUser,
  proxyVolumes,
  pullPolicy,
  pullSecrets,
  readinessProbe,
} from "./parts.ts";
import { resourceAttributes } from "./resource-attributes.ts";
import type { Container, Plain, Pod } from "./pod.ts";
import { initContainerName, proxyContainerName, validationContainerName } from "./pod.ts";

export function sidecarTemplate(context: InjectionContext): Pod {
  const proxy = proxyContainer(context);
  const captures = interceptionMode(context) !== "NONE";
  const initContainers = [
    ...(captures ? [captureContainer(context)] : []),
    ...(context.nativeSidecar ? [proxy] : []),
  ];
  const userVolumes = Object.entries(jsonAnnotation(context, "sidecar.istio.io/userVolume"));
  const secrets = pullSecrets(context);
  return {
    metadata: {
      labels: {
        "security.istio.io/tlsMode": label(context, "security.istio.io/tlsMode") || "istio",
        ...canonicalLabels(context),
      },
      annotations: { ...containerAnnotations(context), ...cniAnnotations(context) },
    },
    spec: {
      ...(initContainers.length === 0 ? {} : { initContainers }),
      ...(context.nativeSidecar ? {} : { containers: [proxy] }),
      volumes: [...proxyVolumes(context), ...userVolumes.map(([name, source]) => ({ ...source, name }))],
      ...(secrets && { imagePullSecrets: secrets }),
    },
  };
}

/** Sets the pod's iptables before anything else runs; with Istio's CNI plug-in it only checks that they are set. */
function captureContainer(context: InjectionContext): Container {
  const { cni, global } = context.values;
  const env = metadataEnvironment(context);
  const asRoot = { readOnlyRootFilesystem: false, runAsGroup: 0, runAsNonRoot: false, runAsUser: 0 };
  const asProxy = {
    readOnlyRootFilesystem: true,
    runAsGroup: proxyGroup(context),
    runAsNonRoot: true,
    runAsUser: proxyUser(context),
  };
  return {
    name: cni.enabled ? validationContainerName : initContainerName,
    image: image(context, global.proxy_init.image),
    args: captureArguments(context),
    ...pullPolicy(context),
    ...(env.length === 0 ? {} : { env }),
    resources: proxyResources(context),
    securityContext: {
      allowPrivilegeEscalation: global.proxy.privileged,
      privileged: global.proxy.privileged,
      capabilities: { ...(cni.enabled ? {} : { add: ["NET_ADMIN", "NET_RAW"] }), drop: ["ALL"] },
      ...(cni.enabled ? asProxy : asRoot),
      ...seccomp(context),
    },
  };
}

/** The flags are those of istio-iptables. */
function captureArguments(context: InjectionContext): string[] {
  const { mesh, values } = context;
  const { proxy, proxy_init: init, logging } = values.global;
  const traffic = (name: string, otherwise: string) =>
    choose(context, `traffic.sidecar.istio.io/${name}`, otherwise);
  const optional = (flag: string, value: string) => (value === "" ? [] : [flag, value]);
  const rerouted =
    annotation(context, "istio.io/reroute-virtual-interfaces") ?? traffic("kubevirtInterfaces", "");
  return [
    "capture",
    ...["-p", String(mesh.proxyListenPort || ports.outbound)],
    ...["-z", String(mesh.proxyInboundListenPort || ports.inbound)],
    ...["-u", String(proxyUser(context))],
    ...["-m", interceptionMode(context)],
    ...["-i", traffic("includeOutboundIPRanges", proxy.includeIPRanges)],
    ...["-x", traffic("excludeOutboundIPRanges", proxy.excludeIPRanges)],
    ...["-b", traffic("includeInboundPorts", proxy.includeInboundPorts)],
    ...["-d", [ports.envoyStats, ports.ready, ...excludedInbound(context)].join(",")],
    ...optional("-q", traffic("includeOutboundPorts", proxy.includeOutboundPorts)),
    ...optional("-o", traffic("excludeOutboundPorts", proxy.excludeOutboundPorts)),
    ...optional("-k", rerouted),
    ...optional("-c", traffic("excludeInterfaces", "")),
    `--log_output_level=${choose(context, "sidecar.istio.io/agentLogLevel", logging.level)}`,
    ...(values.global.logAsJson ? ["--log_as_json"] : []),
    ...(values.cni.enabled
      ? ["--run-validation", "--skip-rule-apply"]
      : init.forceApplyIptables
        ? ["--force-apply"]
        : []),
  ];
}

/** Excluded inbound ports, the agent's own among them unless it does not listen. */
function excludedInbound(context: InjectionContext): string[] {
  const { excludeInboundPorts } = context.values.global.proxy;
  const listed = choose(context, "traffic.sidecar.istio.io/excludeInboundPorts", excludeInboundPorts);
  const excluded = listed
    .split(",")
    .map((port) => port.trim())
    .filter((port) => port !== "");
  const status = String(statusPort(context));
  return status === "0" || excluded.includes(status) ? excluded : [...excluded, status];
}

function proxyContainer(context: InjectionContext): Container {
  const { proxy } = context.values.global;
  const userMounts = Object.entries(jsonAnnotation(context, "sidecar.istio.io/userVolumeMount"));
  const localhost = context.mesh.inboundTrafficPolicy?.mode === "LOCALHOST";
  return {
    name: proxyContainerName,
    image: image(context, proxy.image),
    ...(context.nativeSidecar ? { restartPolicy: "Always" } : {}),
    ports: [{ containerPort: ports.envoyStats, protocol: "TCP", name: "http-envoy-prom" }],
    args: [
      "proxy",
      "sidecar",
      "--domain",
      `$(POD_NAMESPACE).svc.${proxy.clusterDomain}`,
      ...logArguments(context),
      ...(proxy.outlierLogPath === "" ? [] : [`--outlierLogPath=${proxy.outlierLogPath}`]),
    ],
    ...proxyLifecycle(context),
    env: [
      ...(localhost ? [{ name: "REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", value: "true" }] : []),
      ...proxyEnvironment(context),
      ...resourceAttributes(context).filter(({ name }) => !isSetByMesh(context, name)),
    ],
    ...pullPolicy(context),
    ...proxyProbes(context),
    securityContext: { ...proxySecurity(context), ...seccomp(context) },
    resources: proxyResources(context),
    volumeMounts: [...proxyMounts(context), ...userMounts.map(([name, mount]) => ({ ...mount, name }))],
  };
}

/** Attributes that ProxyConfig's proxyMetadata names are the user's own word, and one variable has one value. */
function isSetByMesh(context: InjectionContext, variable: string): boolean {
  return proxyMetadata(context)[variable] !== undefined;
}

/**
 * A plain container that holds the application back blocks the start of the next one by a hook. A native sidecar needs none: its start-up
 * probe holds, and the node ends it after the application, when the agent drains on SIGTERM.
 */
function proxyLifecycle(context: InjectionContext): { lifecycle?: Plain } {
  const { lifecycle } = context.values.global.proxy;
  if (lifecycle !== undefined) return { lifecycle };
  if (context.nativeSidecar || !holdsApplication(context)) return {};
  return { lifecycle: { postStart: { exec: { command: agentCommand("wait") } } } };
}

/** The agent's own command inside the proxy's image. */
function agentCommand(...args: readonly string[]): string[] {
  return ["/opt/mizzen/bin/node", "/opt/mizzen/dist/agent.mjs", ...args];
}

function proxyProbes(context: InjectionContext): Partial<Container> {
  if (statusPort(context) === 0) return {};
  const { startupProbe: startup } = context.values.global.proxy;
  const readiness = readinessProbe(context);
  if (!startup.enabled) return { readinessProbe: readiness };
  const httpGet = { path: "/healthz/ready", port: ports.ready };
  return {
    startupProbe: {
      httpGet,
      periodSeconds: 1,
      timeoutSeconds: 3,
      failureThreshold: startup.failureThreshold,
    },
    readinessProbe: readiness,
  };
}

/** Transparent capture and ports below 1024 need root in the container, with that one capability and no other. */
function proxySecurity(context: InjectionContext): Plain {
  const { proxy } = context.values.global;
  const transparent = interceptionMode(context) === "TPROXY";
  const lowPorts = choose(context, "sidecar.istio.io/capNetBindService", proxy.capNetBindService) === "true";
  const add = [...(transparent ? ["NET_ADMIN"] : []), ...(lowPorts ? ["NET_BIND_SERVICE"] : [])];
  const asRoot = add.length > 0;
  return {
    allowPrivilegeEscalation: proxy.privileged,
    capabilities: { ...(asRoot ? { add } : {}), drop: ["ALL"] },
    privileged: proxy.privileged,
    readOnlyRootFilesystem: true,
    runAsNonRoot: !asRoot,
    runAsUser: asRoot ? 0 : proxyUser(context),
    runAsGroup: proxyGroup(context),
  };
}

function seccomp(context: InjectionContext): Plain {
  const { seccompProfile } = context.values.global.proxy;
  return Object.keys(seccompProfile).length === 0 ? {} : { seccompProfile };
}

/** With the CNI plug-in it is the annotations that say what to capture. */
function cniAnnotations(context: InjectionContext): Record<string, string> {
  const { cni, global } = context.values;
  if (!cni.enabled) return {};
  const traffic = (name: string, otherwise: string) => {
    const value = choose(context, `traffic.sidecar.istio.io/${name}`, otherwise);
    return value === "" ? {} : { [`traffic.sidecar.istio.io/${name}`]: value };
  };
  return {
    ...(cni.provider === "multus" ? { "k8s.v1.cni.cncf.io/networks": multusNetworks(context) } : {}),
    "sidecar.istio.io/interceptionMode": interceptionMode(context),
    ...traffic("includeOutboundIPRanges", global.proxy.includeIPRanges),
    ...traffic("excludeOutboundIPRanges", global.proxy.excludeIPRanges),
    ...traffic("includeInboundPorts", global.proxy.includeInboundPorts),
    "traffic.sidecar.istio.io/excludeInboundPorts": excludedInbound(context).join(","),
    ...traffic("includeOutboundPorts", global.proxy.includeOutboundPorts),
    ...traffic("excludeOutboundPorts", global.proxy.excludeOutboundPorts),
  };
}

/** Adds Istio's network to those that the pod names, in the form that it names them: a list of names, or JSON. */
function multusNetworks(context: InjectionContext): string {
  const own = "default/istio-cni";
  const present = annotation(context, "k8s.v1.cni.cncf.io/networks") ?? "";
  if (present === "") return own;
  if (present.split(",").includes(own)) return present;
  if (!present.trimStart().startsWith("[")) return `${present}, ${own}`;
  try {
    const networks: unknown = JSON.parse(present);
    if (Array.isArray(networks))
      return JSON.stringify([...networks, { name: "istio-cni", namespace: "default" }]);
  } catch {
    // Not JSON after all: left as it is, and multus says what is wrong with it.
  }
  return present;
}
