// What the mesh and its sessions report, as metrics, log lines, and words to the objects at fault.

import type { Logger } from "#base";
import type { AdsServerOptions, MeshReports } from "#xds";
import type { ControlPlaneLimit } from "./limits.ts";
import { serviceOf, type Metrics } from "./metrics.ts";
import { objectsAtFault, type RejectionWriter } from "./rejection-writer.ts";

export function meshReports(to: {
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly reached: (limit: ControlPlaneLimit) => void;
  /** Undefined where there is no API server. */
  readonly rejections: RejectionWriter | undefined;
}): MeshReports {
  const { metrics, log, rejections } = to;
  const standing = new Map<string, number>();
  const count = (service: string, by: number): void => {
    standing.set(service, (standing.get(service) ?? 0) + by);
    metrics.rejects[service]?.set(standing.get(service) ?? 0);
  };
  return {
    failed: ({ query, keyText, error }) => {
      metrics.pushErrors.inc();
      log.error(
        { query, key: keyText, error: String(error) },
        "cannot be computed; the last good value stays",
      );
    },
    rejected: (rejection, news) => {
      const { type, name, proxy, reason } = rejection;
      if (!news) return;
      log.warn({ type, name, proxy, reason }, "resource rejected; the last good version stays in use");
      count(serviceOf[type], 1);
      for (const object of objectsAtFault(rejection)) metrics.rejectedObjects.set({ ...object }, 1);
      rejections?.rejected(rejection);
    },
    cleared: (rejection) => {
      const { type, name } = rejection;
      log.info({ type, name }, "rejected resource replaced");
      count(serviceOf[type], -1);
      for (const object of objectsAtFault(rejection)) metrics.rejectedObjects.remove({ ...object });
      rejections?.cleared(rejection);
    },
    published: () => {},
    reached: to.reached,
  };
}

export function sessionReports(to: {
  readonly metrics: Metrics;
  readonly version: string;
  readonly reached: (limit: ControlPlaneLimit) => void;
  /** @param id Envoy's node id */
  readonly connected: (id: string) => void;
  readonly disconnected: (id: string) => void;
}): AdsServerOptions<unknown, unknown>["reports"] {
  const { metrics, version } = to;
  return {
    connected: (id) => {
      metrics.connected.inc({ version });
      to.connected(id);
    },
    disconnected: (id) => {
      metrics.connected.dec({ version });
      to.disconnected(id);
    },
    refused: () => metrics.refused.inc(),
    sent: (type, resources, bytes) => {
      metrics.pushes.inc({ type: serviceOf[type] });
      metrics.resourcesSent.inc({ type: serviceOf[type] }, resources);
      metrics.bytesSent.inc({ type: serviceOf[type] }, bytes);
    },
    acknowledged: (_type, sinceMs) => metrics.convergence.observe(sinceMs / 1000),
    rejected: (type) => metrics.rejectsTotal.inc({ type: serviceOf[type] }),
    reached: to.reached,
  };
}
