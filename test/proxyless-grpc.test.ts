// gRPC without a proxy: @grpc/grpc-js-xds, a client of state-of-the-world ADS that others wrote, calls real gRPC servers
// as the control plane tells it to.

import assert from "node:assert/strict";
import { fork, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { silentLog } from "#base";
import { ControlPlane } from "../src/apps/control/control-plane.ts";
import { parseSettings } from "../src/apps/control/settings.ts";
import type { ProxyStatus } from "#xds";
import { whoAmI, type CallResult } from "./support/grpc-xds-client.ts";
import { RealClock } from "./support/real-clock.ts";

const clock = new RealClock();

const host = "reviews.default.svc.cluster.local";

const world = `
apiVersion: v1
kind: Pod
metadata: { name: client-1, namespace: default, labels: { app: client } }
spec: { serviceAccountName: client, containers: [{ name: app }] }
status: { phase: Running, podIP: 127.0.0.1 }
---
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: default }
spec: { clusterIP: 10.96.0.5, selector: { app: reviews }, ports: [{ name: grpc, port: 9080, protocol: TCP }] }
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: { name: reviews, namespace: default }
spec:
  host: reviews
  subsets: [{ name: v1, labels: { version: v1 } }, { name: v2, labels: { version: v2 } }]
`;

/** A ServiceEntry's endpoints may all be at one address; Pods and their ports would not. */
const endpoints = (places: readonly { readonly version: string; readonly port: number }[]): string =>
  places
    .map(
      ({ version, port }, at) => `
apiVersion: v1
kind: Pod
metadata: { name: reviews-${version}-${at}, namespace: default, labels: { app: reviews, version: ${version} } }
spec: { serviceAccountName: reviews, containers: [{ name: app }] }
status: { phase: Running, podIP: 127.0.0.1 }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: reviews-${version}-${at}, namespace: default, labels: { kubernetes.io/service-name: reviews } }
addressType: IPv4
ports: [{ name: grpc, port: ${port}, protocol: TCP }]
endpoints:
  - addresses: [127.0.0.1]
    conditions: { ready: true }
    targetRef: { kind: Pod, name: reviews-${version}-${at}, namespace: default }
`,
    )
    .join("---");

const routes = (http: string): string => `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: reviews, namespace: default }
spec: { hosts: [reviews], http: ${http} }
`;

const to = (subset: string, weight = 100): string =>
  `{ destination: { host: reviews, subset: ${subset} }, weight: ${weight} }`;

/** A gRPC server that answers its name to everything. */
async function startServer(name: string): Promise<{ port: number; stop: () => void }> {
  const server = new Server();
  server.addService(
    {
      WhoAmI: {
        path: whoAmI,
        requestStream: false,
        responseStream: false,
        requestSerialize: (text: string) => Buffer.from(text),
        requestDeserialize: (bytes: Buffer) => bytes.toString(),
        responseSerialize: (text: string) => Buffer.from(text),
        responseDeserialize: (bytes: Buffer) => bytes.toString(),
      },
    },
    { WhoAmI: (_call: unknown, answer: (error: null, text: string) => void) => answer(null, name) },
  );
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  return { port, stop: () => server.forceShutdown() };
}

describe("a gRPC client without a proxy", () => {
  const directory = mkdtempSync(join(tmpdir(), "mizzen-proxyless-"));
  const stops: (() => void | Promise<void>)[] = [];
  const ports = new Map<string, number>();
  let controlPlane: ControlPlane;
  let client: ChildProcess;
  let calls = 0;

  const write = (name: string, text: string): void => writeFileSync(join(directory, `${name}.yaml`), text);

  async function startControlPlane(plaintextPort: number): Promise<ControlPlane> {
    const flags = ["--xds-port", "0", "--monitoring-port", "0", "--webhook-port", "0", "--host", "127.0.0.1"];
    const plaintext = ["--plaintext", `127.0.0.1:${plaintextPort}`];
    const settings = parseSettings(["discovery", "--config-dir", directory, ...plaintext, ...flags], {});
    const started = new ControlPlane({ settings, version: "test", clock, random: () => 0.5, log: silentLog });
    await started.start();
    return started;
  }

  function startClient(target: string): ChildProcess {
    const bootstrap = {
      xds_servers: [
        {
          server_uri: `127.0.0.1:${controlPlane.ports.plaintext}`,
          channel_creds: [{ type: "insecure" }],
          server_features: ["xds_v3"],
        },
      ],
      node: {
        id: "sidecar~127.0.0.1~client-1.default~default.svc.cluster.local",
        metadata: { GENERATOR: "grpc" },
        locality: {},
      },
    };
    const program = new URL("support/grpc-xds-client.ts", import.meta.url).pathname;
    const env = { ...process.env, GRPC_XDS_BOOTSTRAP_CONFIG: JSON.stringify(bootstrap) };
    const child = fork(program, [`xds:///${target}`], { env });
    child.setMaxListeners(0);
    child.once("exit", (code) => assert.ok(code === 0 || code === null, `the client ended with ${code}`));
    stops.push(() => void child.kill());
    return child;
  }

  function call(metadata: Readonly<Record<string, string>> = {}, of = client): Promise<CallResult> {
    const id = ++calls;
    return new Promise((resolve, reject) => {
      const taken = (result: CallResult): void => {
        if (result.id !== id) return;
        of.off("message", taken);
        resolve(result);
      };
      of.on("message", taken);
      of.send({ id, metadata }, (error) => {
        if (error !== null) reject(error);
      });
    });
  }

  /** Calls until the answers are as wanted; how many it took is not the matter. */
  async function until(
    wanted: (answers: readonly string[]) => boolean,
    metadata: Readonly<Record<string, string>> = {},
    of = client,
  ): Promise<void> {
    const untilMs = performance.now() + 30_000;
    let answers: string[] = [];
    while (performance.now() < untilMs) {
      const results = await Promise.all(Array.from({ length: 20 }, () => call(metadata, of)));
      answers = results.map(({ code, text }) => (code === "OK" ? text : `${code}: ${text}`));
      if (wanted(answers)) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.fail(`the answers stay ${[...new Set(answers)].join(", ")}`);
  }

  const all =
    (...names: readonly string[]) =>
    (answers: readonly string[]): boolean =>
      names.every((name) => answers.includes(name)) && answers.every((answer) => names.includes(answer));

  before(async () => {
    for (const name of ["v1", "v2", "v2-more"]) {
      const { port, stop } = await startServer(name);
      ports.set(name, port);
      stops.push(stop);
    }
    write("world", world);
    write(
      "endpoints",
      endpoints([
        { version: "v1", port: ports.get("v1")! },
        { version: "v2", port: ports.get("v2")! },
      ]),
    );
    controlPlane = await startControlPlane(0);
    stops.push(() => controlPlane.stop());
    client = startClient(`${host}:9080`);
  });

  after(async () => {
    for (const stop of stops.toReversed()) await stop();
    rmSync(directory, { recursive: true, force: true });
  });

  test("it reaches all endpoints of a service by the service's name", async () => {
    await until(all("v1", "v2"));
  });

  test("it gets what it names and nothing else, and nothing else is computed", async () => {
    const monitoring = `http://127.0.0.1:${controlPlane.ports.monitoring}`;
    const proxies = (await (await fetch(`${monitoring}/debug/syncz`)).json()) as readonly ProxyStatus[];
    const held = Object.fromEntries(proxies.flatMap(({ types }) => types.map((one) => [one.type, one.held])));
    assert.deepEqual(held, { listener: 1, route: 1, cluster: 1, endpoint: 1 });
    const metrics = await (await fetch(`${monitoring}/metrics`)).text();
    assert.match(metrics, /views 2\n/);
  });

  test("it follows a VirtualService to a subset, splits, and matches headers", async () => {
    write("routes", routes(`[{ route: [${to("v1")}] }]`));
    await until(all("v1"));
    write("routes", routes(`[{ route: [${to("v1", 50)}, ${to("v2", 50)}] }]`));
    await until(all("v1", "v2"));
    const jason = `{ match: [{ headers: { end-user: { exact: jason } } }], route: [${to("v2")}] }`;
    write("routes", routes(`[${jason}, { route: [${to("v1")}] }]`));
    await until(all("v1"));
    await until(all("v2"), { "end-user": "jason" });
  });

  test("a fault is injected, and an answer that only a proxy could give fails the call with its status", async () => {
    const abort = "fault: { abort: { httpStatus: 503, percentage: { value: 100 } } }";
    write("routes", routes(`[{ ${abort}, route: [${to("v1")}] }]`));
    await until((answers) => answers.every((answer) => answer.startsWith("UNAVAILABLE")));
    write("routes", routes(`[{ directResponse: { status: 403 } }]`));
    await until((answers) => answers.every((answer) => answer.startsWith("PERMISSION_DENIED")));
    write("routes", routes(`[{ redirect: { uri: / } }]`));
    await until((answers) => answers.every((answer) => answer.startsWith("UNKNOWN")));
    write("routes", routes(`[{ route: [${to("v2")}] }]`));
    await until(all("v2"));
  });

  test("a new endpoint is called, and one that is gone no longer", async () => {
    const places = [
      { version: "v1", port: ports.get("v1")! },
      { version: "v2", port: ports.get("v2")! },
      { version: "v2", port: ports.get("v2-more")! },
    ];
    write("endpoints", endpoints(places));
    await until(all("v2", "v2-more"));
    write("endpoints", endpoints(places.toSpliced(1, 1)));
    await until(all("v2-more"));
  });

  test("calls go on while the control plane is away, and a restarted one is followed", async () => {
    const port = controlPlane.ports.plaintext!;
    await controlPlane.stop();
    assert.deepEqual(await call(), { id: calls, code: "OK", text: "v2-more" });
    write("routes", routes(`[{ route: [${to("v1")}] }]`));
    controlPlane = await startControlPlane(port);
    await until(all("v1"));
  });

  test("a name that a resolver would complete works", async () => {
    const short = startClient("reviews.default:9080");
    await until(all("v1"), {}, short);
  });
});
