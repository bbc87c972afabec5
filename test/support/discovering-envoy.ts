// A real Envoy on loopback that asks a control plane of the test for everything, as a sidecar does, but without capture.

import { spawn, type ChildProcess } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { envoyPath } from "./envoy.ts";
import { freePorts } from "./free-ports.ts";

export class DiscoveringEnvoy {
  readonly #adminPort: number;
  readonly #process: ChildProcess;

  private constructor(adminPort: number, child: ChildProcess) {
    this.#adminPort = adminPort;
    this.#process = child;
  }

  /** @param pod `name.namespace` of the pod that it stands for */
  static async start(folder: string, xdsPort: number, pod: string): Promise<DiscoveringEnvoy> {
    const [adminPort = 0] = await freePorts(1);
    const file = join(folder, `${pod}.json`);
    writeFileSync(file, JSON.stringify(discoveringBootstrap(xdsPort, adminPort, pod)));
    const flags = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "off"];
    const child = spawn(envoyPath, ["-c", file, ...flags], { stdio: "ignore" });
    return new DiscoveringEnvoy(adminPort, child);
  }

  /** Whether it has had its first answers. */
  async isLive(): Promise<boolean> {
    const answer = await fetch(`http://127.0.0.1:${this.#adminPort}/ready`).catch(() => undefined);
    return answer?.status === 200;
  }

  /** How many updates it has rejected, of all kinds together. */
  async rejections(): Promise<number> {
    const text = await this.#ask("/stats?filter=update_rejected$");
    return text
      .split("\n")
      .filter((line) => line.includes(": "))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(": ") + 2)), 0);
  }

  /** All that it holds and uses, in Envoy's words; without what it has rejected. */
  async dump(): Promise<string> {
    const { configs } = JSON.parse(await this.#ask("/config_dump")) as { configs: object[] };
    return JSON.stringify(configs, (key, value: unknown) => (key === "error_state" ? undefined : value));
  }

  async close(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGKILL");
    await gone;
  }

  async #ask(path: string): Promise<string> {
    return (await fetch(`http://127.0.0.1:${this.#adminPort}${path}`)).text();
  }
}

/** @param pod `name.namespace` of the pod that it stands for */
export function discoveringBootstrap(
  xdsPort: number,
  adminPort: number,
  pod: string,
  api = "DELTA_GRPC",
): object {
  const socket = (port: number): object => ({
    socket_address: { address: "127.0.0.1", port_value: port },
  });
  const http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
  return {
    node: { id: `sidecar~127.0.0.1~${pod}~default.svc.cluster.local`, cluster: "test" },
    admin: { address: socket(adminPort) },
    stats_eviction_interval: "1800s",
    stats_flush_interval: "10s",
    dynamic_resources: {
      ads_config: {
        api_type: api,
        transport_api_version: "V3",
        set_node_on_first_message_only: true,
        grpc_services: [
          {
            envoy_grpc: {
              cluster_name: "xds-grpc",
              retry_policy: { retry_back_off: { base_interval: "0.1s", max_interval: "0.2s" } },
            },
          },
        ],
      },
      cds_config: { ads: {}, resource_api_version: "V3" },
      lds_config: { ads: {}, resource_api_version: "V3" },
    },
    static_resources: {
      clusters: [
        {
          name: "xds-grpc",
          type: "STATIC",
          load_assignment: {
            cluster_name: "xds-grpc",
            endpoints: [{ lb_endpoints: [{ endpoint: { address: socket(xdsPort) } }] }],
          },
          typed_extension_protocol_options: {
            [http2]: {
              "@type": `type.googleapis.com/${http2}`,
              explicit_http_config: { http2_protocol_options: {} },
            },
          },
        },
      ],
    },
  };
}
