// The control plane as a program: `discovery` with flags, see `usage`.

import { setFlagsFromString } from "node:v8";
import { systemClock } from "./clock.ts";
import { ControlPlane } from "./control-plane.ts";
import { createLog } from "./log.ts";
import { parseSettings, usage, UsageError, type Settings } from "./settings.ts";

const version = "0.1.0";

/**
 * By how much the heap may grow over what lives in it before it is collected. V8 lets it grow to several times that, which buys little
 * time once the mesh is known, and is most of what the process is larger than its contents. While proxies come back after a start
 * all of it is new, and there V8 is right. It cannot be said in NODE_OPTIONS.
 */
const heapGrowthPercent = 60;
const fillingMs = 30_000;

await main();

async function main(): Promise<void> {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) {
    console.log(usage);
    return;
  }
  let settings: Settings;
  try {
    settings = parseSettings(args, process.env);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    console.error(`${error.message}\n\n${usage}`);
    process.exitCode = 2;
    return;
  }
  await run(settings);
}

async function run(settings: Settings): Promise<void> {
  const log = createLog(settings.logLevel);
  try {
    const controlPlane = new ControlPlane({
      settings,
      version,
      clock: systemClock,
      random: () => Math.random(),
      log,
    });
    const stop = (signal: string): void => {
      log.info({ signal }, "stopping");
      void controlPlane.stop().finally(() => process.exit(0));
    };
    process.once("SIGTERM", () => stop("SIGTERM"));
    process.once("SIGINT", () => stop("SIGINT"));
    await controlPlane.start();
    systemClock.after(fillingMs, () => setFlagsFromString(`--heap-growing-percent=${heapGrowthPercent}`));
  } catch (error) {
    log.error({ error: error instanceof Error ? error.message : String(error) }, "cannot start");
    process.exit(1);
  }
}
