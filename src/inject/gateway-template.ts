// The built-in template `gateway`: a pod whose container `istio-proxy` has the image `auto` becomes an Envoy that routes, without capture.

import { ports } from "#base";
import { image, type InjectionContext } from "./context.ts";
import {
  canonicalLabels,
  containerAnnotations,
  logArguments,
  proxyEnvironment,
  proxyMounts,
  proxyGroup,
  proxyUser,
  proxyVolumes,
  pullPolicy,
  pullSecrets,
  readinessProbe,
} from "./parts.ts";
import type { Pod } from "./pod.ts";
import { proxyContainerName } from "./pod.ts";

export function gatewayTemplate(context: InjectionContext): Pod {
  const { global, gateways } = context.values;
  const secrets = pullSecrets(context);
  const ownSecurity = Object.keys(gateways.securityContext).length > 0;
  return {
    metadata: { labels: canonicalLabels(context), annotations: containerAnnotations(context) },
    spec: {
      securityContext: ownSecurity
        ? gateways.securityContext
        : // Lets the proxy listen on 80 and 443 without root or a capability.
          { sysctls: [{ name: "net.ipv4.ip_unprivileged_port_start", value: "0" }] },
      containers: [
        {
          name: proxyContainerName,
          image: image(context, global.proxy.image),
          ports: [{ containerPort: ports.envoyStats, protocol: "TCP", name: "http-envoy-prom" }],
          args: [
            "proxy",
            "router",
            "--domain",
            `$(POD_NAMESPACE).svc.${global.proxy.clusterDomain}`,
            ...logArguments(context),
          ],
          securityContext: { runAsUser: proxyUser(context), runAsGroup: proxyGroup(context) },
          env: proxyEnvironment(context),
          ...pullPolicy(context),
          readinessProbe: readinessProbe(context),
          volumeMounts: proxyMounts(context),
        },
      ],
      volumes: proxyVolumes(context),
      ...(secrets && { imagePullSecrets: secrets }),
    },
  };
}
