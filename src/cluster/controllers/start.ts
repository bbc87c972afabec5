// All controllers of workloads and services, started together.

import type { Logger } from "#base";
import type { ClusterStore } from "../api/index.ts";
import { EventRecorder } from "../node/events.ts";
import { startDaemonSetController } from "./daemon-set.ts";
import { startDeploymentController } from "./deployment.ts";
import { startEndpointSliceController } from "./endpoint-slice.ts";
import { startJobController } from "./job.ts";
import { startLoadBalancers } from "./load-balancer.ts";
import { startReplicaSetController } from "./replica-set.ts";
import { startScheduler } from "./scheduler.ts";
import { startStatefulSetController } from "./stateful-set.ts";

export interface ControllerOptions {
  readonly nodeName: string;
  readonly zone: string;
  /** Services (`namespace/name`) that are published on the machine's loopback. */
  readonly published: ReadonlySet<string>;
}

/** Returns the function that ends them. */
export function startControllers(store: ClusterStore, options: ControllerOptions, log: Logger): () => void {
  const events = (component: string) => new EventRecorder(store, component, options.nodeName, log);
  const stops = [
    startScheduler(store, options.nodeName, events("default-scheduler"), log),
    startDeploymentController(store, events("deployment-controller"), log),
    startReplicaSetController(store, events("replicaset-controller"), log),
    startStatefulSetController(store, events("statefulset-controller"), log),
    startDaemonSetController(store, events("daemonset-controller"), log),
    startJobController(store, events("job-controller"), log),
    startEndpointSliceController(store, options.zone, log),
    startLoadBalancers(store, options.published, log),
  ];
  return () => {
    for (const stop of stops) stop();
  };
}
