// The standalone cluster's program. It runs inside the node's network namespace and is started by `launchCluster`, whose IPC channel
// keeps it alive: when that closes, it ends everything and cleans up.

import { parseArgs } from "node:util";
import { setTimeout as delay } from "node:timers/promises";
import { pino } from "pino";
import type { Clock, Logger } from "#base";
import {
  isStop,
  layoutOf,
  packagePaths,
  parsePublication,
  removeLeftovers,
  runCluster,
  type ClusterProcess,
  type FromCluster,
} from "#cluster";

const { values } = parseArgs({
  options: {
    name: { type: "string", default: "mizzen" },
    "state-dir": { type: "string" },
    "run-dir": { type: "string" },
    publish: { type: "string", multiple: true, default: [] },
    "pod-cidr": { type: "string" },
    "service-cidr": { type: "string" },
    images: { type: "string" },
    "allow-host-path": { type: "string", multiple: true, default: [] },
    "log-level": { type: "string", default: "info" },
  },
});

const log = wrap(pino({ level: values["log-level"], timestamp: pino.stdTimeFunctions.isoTime }));
const layout = layoutOf(values.name, { stateDir: values["state-dir"], runDir: values["run-dir"] });
const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

let starting: Promise<ClusterProcess> | undefined;
let ending = false;

async function end(why: string, code: number): Promise<void> {
  if (ending) return;
  ending = true;
  log.info({ why }, "the cluster ends");
  const stopMaxMs = 9_000; // then what is left is removed the hard way
  const stopped = starting?.then((cluster) => cluster.stop()); // one that is still starting is stopped once it runs
  await Promise.race([stopped, delay(stopMaxMs)]).catch((error: unknown) => {
    log.error({ error: String(error) }, "the cluster did not end in order");
  });
  // With the host side gone nobody else cleans up; with it there, this is only done earlier.
  await removeLeftovers(layout).catch((error: unknown) => {
    log.error({ error: String(error) }, "something is left over");
  });
  process.exit(code);
}

function tell(message: FromCluster): void {
  if (process.connected) process.send?.(message);
}

process.on("SIGTERM", () => void end("SIGTERM", 0));
process.on("SIGINT", () => void end("SIGINT", 0));
process.on("message", (message: unknown) => {
  if (isStop(message)) void end("asked to", 0);
});
process.on("disconnect", () => void end("the host side is gone", 0));
process.on("unhandledRejection", (error) =>
  log.error({ error: String(error) }, "a promise failed unobserved"),
);

// A channel that closed while this program was still being read tells nobody any more.
if (process.send !== undefined && !process.connected) await end("the host side is gone", 0);

try {
  starting = runCluster({
    layout,
    podCidr: values["pod-cidr"],
    serviceCidr: values["service-cidr"],
    publish: values.publish.map(parsePublication),
    paths: packagePaths(process.env["MIZZEN_ENVOY"]),
    imagesFile: values.images,
    hostPathsAllowed: values["allow-host-path"],
    clock,
    log,
  });
  const cluster = await starting;
  tell({ kind: "ready", kubeconfigTemplate: cluster.kubeconfigTemplate });
  log.info({ name: layout.name }, "the cluster runs");
} catch (error) {
  log.error({ error: error instanceof Error ? error.stack : String(error) }, "the cluster did not start");
  tell({ kind: "failed", text: error instanceof Error ? error.message : String(error) });
  await end("it did not start", 1);
}

function wrap(inner: pino.Logger): Logger {
  return {
    debug: (fields, message) => inner.debug(fields, message),
    info: (fields, message) => inner.info(fields, message),
    warn: (fields, message) => inner.warn(fields, message),
    error: (fields, message) => inner.error(fields, message),
    child: (fields) => wrap(inner.child(fields)),
  };
}
