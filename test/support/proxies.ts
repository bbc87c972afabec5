// Proxies for tests that care for one or two of their facts.

import type { ProxyClass } from "#model";

/** A sidecar of namespace `default` without any particulars, but for what is given. */
export function proxyOf(facts: Partial<ProxyClass>): ProxyClass {
  return {
    kind: "sidecar",
    namespace: "default",
    labels: {},
    serviceAccount: "default",
    network: "",
    locality: "",
    clusterId: "Kubernetes",
    dnsDomain: "default.svc.cluster.local",
    interception: "REDIRECT",
    envoyVersion: "1.40.0",
    metadata: {},
    ...facts,
  };
}
