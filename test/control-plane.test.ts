// The control-plane program, fed from files, with a real Envoy on loopback: what it acknowledges, what it rejects, and what a
// restart of the control plane costs it. No root needed.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { silentLog } from "#base";
import { ControlPlane } from "../src/apps/control/control-plane.ts";
import { parseSettings } from "../src/apps/control/settings.ts";
import { RealClock } from "./support/real-clock.ts";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const envoyPath = process.env["MIZZEN_ENVOY"] ?? join(root, ".cache/bin/envoy");

/** Timers that do not keep the test process. */
const clock = new RealClock();

const world = `
apiVersion: v1
kind: Namespace
metadata: { name: default }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-d }
data: { mesh: "enableAutoMtls: false" }
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: { name: default, namespace: istio-d }
spec: { mtls: { mode: DISABLE } }
---
apiVersion: v1
kind: Pod
metadata: { name: sleep-1, namespace: default, labels: { app: sleep } }
spec: { serviceAccountName: sleep, containers: [{ name: app }] }
status: { phase: Running, podIP: 127.0.0.1 }
---
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: default }
spec: { clusterIP: 10.96.0.5, selector: { app: reviews }, ports: [{ name: http, port: 9080, protocol: TCP }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: reviews-1, namespace: default, labels: { kubernetes.io/service-name: reviews } }
addressType: IPv4
ports: [{ name: http, port: 9080, protocol: TCP }]
endpoints: [{ addresses: [10.1.0.2], conditions: { ready: true } }]
`;

const virtualService = (header: string) => `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: default }
spec:
  hosts: [reviews]
  http:
    - match: [{ headers: { ${JSON.stringify(header)}: { exact: jason } } }]
      route: [{ destination: { host: reviews } }]
      timeout: 7s
    - route: [{ destination: { host: reviews } }]
`;

interface Status {
  readonly proxy: string;
  readonly types: readonly { type: string; state: string; held: number; rejection?: string }[];
}

class Bench {
  readonly directory = mkdtempSync(join(tmpdir(), "mizzen-control-plane-"));
  readonly #objects = join(this.directory, "objects");
  readonly #settings: string[];
  controlPlane: ControlPlane;
  #envoy: ChildProcess | undefined;

  constructor() {
    this.#settings = [
      ...["--config-dir", this.#objects, "--host", "127.0.0.1"],
      ...["--monitoring-port", "0", "--webhook-port", "0", "--xds-port", "0", "--drain-ms", "0"],
    ];
    mkdirSync(this.#objects);
    this.write("world.yaml", world);
    this.controlPlane = this.#newControlPlane(0);
  }

  write(file: string, text: string): void {
    writeFileSync(join(this.#objects, file), text);
  }

  #newControlPlane(plaintextPort: number): ControlPlane {
    const settings = parseSettings([...this.#settings, "--plaintext", `127.0.0.1:${plaintextPort}`], {});
    return new ControlPlane({ settings, version: "test", clock, random: () => 0.5, log: silentLog });
  }

  async restart(): Promise<void> {
    const port = this.controlPlane.ports.plaintext ?? 0;
    await this.controlPlane.stop();
    this.controlPlane = this.#newControlPlane(port);
    await this.controlPlane.start();
  }

  startEnvoy(): void {
    const file = join(this.directory, "bootstrap.json");
    writeFileSync(file, JSON.stringify(bootstrap(this.controlPlane.ports.plaintext ?? 0)));
    const flags = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "off"];
    this.#envoy = spawn(envoyPath, ["-c", file, ...flags], { stdio: "ignore" });
  }

  async close(): Promise<void> {
    const gone = new Promise((resolve) => this.#envoy?.once("exit", resolve) ?? resolve(undefined));
    this.#envoy?.kill("SIGKILL");
    await gone;
    await this.controlPlane.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }

  get<T>(path: string): Promise<T> {
    const url = `http://127.0.0.1:${this.controlPlane.ports.monitoring}${path}`;
    return fetch(url).then((answer) => answer.json() as Promise<T>);
  }

  /** Waits for what is to come, looking now and then; fails with what is there instead. */
  async until(claim: string, holds: (status: Status | undefined) => boolean): Promise<Status> {
    const untilMs = performance.now() + 20_000;
    for (;;) {
      const [status] = await this.get<Status[]>("/debug/syncz");
      if (holds(status)) return status!;
      assert.ok(performance.now() < untilMs, `${claim}: ${JSON.stringify(status)}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.controlPlane.ports.monitoring}/metrics`)).text();
    return text
      .split("\n")
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
      .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  }
}

function bootstrap(port: number): object {
  const endpoint = { address: { socket_address: { address: "127.0.0.1", port_value: port } } };
  const http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
  return {
    node: { id: "sidecar~127.0.0.1~sleep-1.default~default.svc.cluster.local", cluster: "sleep" },
    dynamic_resources: {
      ads_config: {
        api_type: "DELTA_GRPC",
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
          load_assignment: { cluster_name: "xds-grpc", endpoints: [{ lb_endpoints: [{ endpoint }] }] },
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

const isSynced = (status: Status | undefined): boolean =>
  ["cluster", "endpoint", "listener", "route", "virtualHost"].every((wanted) =>
    status?.types.some(({ type, state, held }) => type === wanted && state === "SYNCED" && held > 0),
  );

async function startBench(context: TestContext): Promise<Bench> {
  const bench = new Bench();
  context.after(() => bench.close());
  await bench.controlPlane.start();
  bench.startEnvoy();
  await bench.until("Envoy takes everything", isSynced);
  return bench;
}

const skip = existsSync(envoyPath) ? false : "there is no Envoy; run sh scripts/run.sh setup";

test(
  "a real Envoy takes everything, and after a restart of the control plane gets nothing again",
  { skip },
  async (context) => {
    const bench = await startBench(context);
    assert.ok((await bench.metric("pilot_xds_resources_sent")) > 0);
    await bench.restart();
    await bench.until("Envoy comes back", isSynced);
    assert.equal(await bench.metric("pilot_xds_resources_sent"), 0);
    bench.write("reviews.yaml", virtualService("end-user"));
    const untilMs = performance.now() + 10_000;
    while ((await bench.metric("pilot_xds_resources_sent")) === 0 && performance.now() < untilMs) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.equal(
      await bench.metric("pilot_xds_resources_sent"),
      1,
      "one changed virtual host, and nothing else",
    );
  },
);

test(
  "what Envoy rejects is named with its object, and a corrected object flows at once",
  { skip },
  async (context) => {
    const bench = await startBench(context);
    bench.write("reviews.yaml", virtualService("no\nheader"));
    const status = await bench.until(
      "the rejection is seen",
      (now) => now?.types.some(({ state }) => state === "ERROR") ?? false,
    );
    assert.match(status.types.find(({ type }) => type === "virtualHost")?.rejection ?? "", /./);
    const [rejection] =
      await bench.get<{ name: string; origins: { object: { kind: string; name: string } }[] }[]>(
        "/debug/rejectz",
      );
    assert.equal(rejection?.name, "9080/reviews.default.svc.cluster.local:9080");
    assert.ok(
      rejection.origins.some(({ object }) => object.kind === "VirtualService" && object.name === "reviews"),
    );
    assert.equal(await bench.metric("pilot_total_xds_rejects"), 1, "it is not offered again and again");
    bench.write("reviews.yaml", virtualService("end-user"));
    await bench.until("the corrected one is taken", isSynced);
  },
);
