// Lets one scrape of the agent return the application's metrics and the proxy's: the pod's prometheus.io annotations point to the agent,
// and the agent learns where they pointed.

import { ports } from "#base";
import type { Pod } from "./pod.ts";
import { findContainer, proxyContainerName } from "./pod.ts";
import { isTrue } from "./policy.ts";

/** Changes `pod` in place, unless the operator or the pod turns merging off, or the pod asks not to be scraped. */
export function mergePrometheus(pod: Pod, enabled: boolean): void {
  const annotations = pod.metadata?.annotations ?? {};
  const own = annotations["prometheus.istio.io/merge-metrics"];
  const proxy = findContainer(pod, proxyContainerName);
  if (proxy === undefined || !(own === undefined ? enabled : isTrue(own))) return;
  // The form with dots is a common slip that Istio honours.
  if ((annotations["prometheus.io/scrape"] ?? annotations["prometheus.io.scrape"]) === "false") return;
  // Points to the agent already: the pod was written for it.
  if (annotations["prometheus.io/port"] === String(ports.agent)) return;

  const application = scrapeConfiguration(annotations);
  if (application !== undefined) {
    proxy.env = [
      ...(proxy.env ?? []),
      { name: "ISTIO_PROMETHEUS_ANNOTATIONS", value: JSON.stringify(application) },
    ];
  }
  const { "prometheus.istio.io/scrape-targets": _targets, ...kept } = annotations;
  pod.metadata = {
    ...pod.metadata,
    annotations: {
      ...kept,
      "prometheus.io/port": String(ports.agent),
      "prometheus.io/path": "/stats/prometheus",
      "prometheus.io/scrape": "true",
    },
  };
}

/** Undefined when the pod names nothing of its own to scrape. `prometheus.istio.io/scrape-targets` lists several, as `port:path`. */
function scrapeConfiguration(annotations: Readonly<Record<string, string>>): object | undefined {
  const targets = (annotations["prometheus.istio.io/scrape-targets"] ?? "")
    .split(",")
    .map((target) => /^\s*(\d+):(\S+)\s*$/.exec(target))
    .filter((match) => match !== null)
    .map(([, port = "", path = ""]) => ({ port, path }));
  const scrape = annotations["prometheus.io/scrape"];
  const path = annotations["prometheus.io/path"] ?? targets[0]?.path;
  const port = annotations["prometheus.io/port"] ?? targets[0]?.port;
  const configuration = {
    ...(scrape && { scrape }),
    ...(path && { path }),
    ...(port && { port }),
    ...(targets.length > 0 && { targets }),
  };
  return Object.keys(configuration).length === 0 ? undefined : configuration;
}
