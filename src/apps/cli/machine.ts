// A machine's part in the mesh while it lasts: capture rules, and the sidecar as an ordinary process of its own user. Both go
// together: whoever ends it finds the machine's network as it was.

import { spawn } from "node:child_process";
import { chmodSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { ports } from "#base";

export interface MachineOptions {
  /** As `mizzen vm configure` wrote it. */
  readonly folder: string;
  readonly settings: Readonly<Record<string, string>>;
  readonly uid: number;
  readonly address: string;
  /** Inbound ports that are left alone, as `22,9100`. */
  readonly excluded: string;
  /** The agent. */
  readonly program: string;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Resolves with the sidecar's exit code, when it was asked to end or ended by itself. */
export async function runMachine(options: MachineOptions): Promise<number> {
  const { settings, uid, program } = options;
  const env = environmentOf(options);
  const ownPorts = [ports.envoyStats, ports.ready, ports.agent];
  const excluded = [...ownPorts, ...options.excluded.split(",").filter((port) => port !== "")].join(",");
  const capture = [
    ...["capture", "-p", String(ports.outbound), "-z", String(ports.inbound), "-u", String(uid)],
    ...["-m", "REDIRECT", "-i", "*", "-x", "", "-b", "*", "-d", excluded],
  ];
  const captured = await end(spawn(process.execPath, [program, ...capture], { env, stdio: "inherit" }));
  if (captured !== 0) return captured;
  try {
    const args = [program, "proxy", "sidecar", "--domain", `${settings["POD_NAMESPACE"]}.svc.cluster.local`];
    const agent = spawn(process.execPath, args, { env, uid, gid: uid, stdio: "inherit" });
    const stop = (): void => void agent.kill("SIGTERM");
    process.on("SIGTERM", stop).on("SIGINT", stop);
    try {
      return await end(agent);
    } finally {
      process.off("SIGTERM", stop).off("SIGINT", stop);
    }
  } finally {
    const words = [program, ...capture, "--cleanup-only"];
    await end(spawn(process.execPath, words, { env, stdio: "inherit" }));
  }
}

/** The agent's environment: Istio's names, and the folder in place of a Pod's volumes. */
function environmentOf({ folder, settings, address, env }: MachineOptions): Record<string, string> {
  // The proxy's user has to get in.
  chmodSync(folder, 0o755);
  const given = ["PATH", "MIZZEN_ENVOY", "NODE_COMPILE_CACHE"].flatMap((name) =>
    env[name] === undefined ? [] : [[name, env[name]] as const],
  );
  return {
    ...Object.fromEntries(given),
    ...settings,
    POD_NAME: hostname().toLowerCase().replaceAll(".", "-"),
    INSTANCE_IP: address,
    MIZZEN_TOKEN_PATH: join(folder, "istio-token"),
    MIZZEN_ROOT_PATH: join(folder, "root-cert.pem"),
    MIZZEN_IDENTITY_DIR: join(folder, "identity"),
    MIZZEN_SDS_SOCKET: join(folder, "proxy/sds.sock"),
    MIZZEN_PROXY_DIR: join(folder, "proxy"),
    MIZZEN_PODINFO: folder,
  };
}

function end(child: ReturnType<typeof spawn>): Promise<number> {
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (code, signal) => resolve(code ?? (signal === "SIGTERM" ? 0 : 1)));
  });
}
