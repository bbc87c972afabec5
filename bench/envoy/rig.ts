// What the benchmarks of the data plane stand on: our configuration for a world, served over plaintext delta ADS with
// secrets beside it, and real Envoys started with the agent's bootstrap. All on loopback.

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import type { Http2Server } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { silentLog } from "#base";
import { Engine } from "#engine";
import { resourceOf } from "#envoy";
import { objectChange, worldChanges, type ProxyClass, type RouteDelivery } from "#model";
import type { KubeObject, MeshConfig } from "#objects";
import { planOf, viewsOf, type View } from "#plan";
import { AdsServer, adsPath, GrpcServer, Mesh } from "#xds";
import { renderBootstrap } from "../../src/apps/agent/bootstrap.ts";
import { parseConfig } from "../../src/apps/agent/config.ts";
import { createStreamServer } from "../../src/apps/agent/grpc.ts";
import { SecretStore, secretNames, secretPaths } from "../../src/apps/agent/sds.ts";
import { envoyPath } from "../../test/support/envoy.ts";
import { freePorts } from "../../test/support/free-ports.ts";

export interface RigOptions {
  readonly objects: readonly KubeObject[];
  readonly mesh?: MeshConfig;
  readonly routeDelivery?: RouteDelivery;
  /** The class of a proxy by its node id. */
  readonly classOf: (id: string) => ProxyClass;
}

/** A control plane without anything but translation and streams. */
export class Rig {
  readonly folder = mkdtempSync(join(tmpdir(), "mizzen-bench-envoy-"));
  readonly #engine = new Engine();
  readonly #mesh: Mesh<ProxyClass, View>;
  readonly #options: RigOptions;
  #server: GrpcServer | undefined;
  #secrets: Http2Server | undefined;
  #ticks: NodeJS.Timeout | undefined;
  /** Bytes of responses sent so far. */
  sentBytes = 0;

  constructor(options: RigOptions) {
    this.#options = options;
    const { objects, mesh = {}, routeDelivery = "virtual-hosts" } = options;
    this.#engine.apply(worldChanges(objects, { mesh, routeDelivery }));
    this.#mesh = new Mesh<ProxyClass, View>({
      engine: this.#engine,
      translation: { viewsOf, planOf, resourceOf },
      nowMs: () => performance.now(),
      after: (delayMs, callback) => {
        const timer = setTimeout(callback, delayMs).unref();
        return () => clearTimeout(timer);
      },
      reports: {
        failed: ({ error }) => console.error(error),
        rejected,
        cleared() {},
        published() {},
        reached() {},
      },
    });
  }

  async start(): Promise<void> {
    const ads = new AdsServer<ProxyClass, View>({
      mesh: this.#mesh,
      admit: async (node) => {
        const id = String(node["id"]);
        return { id, proxyClass: this.#options.classOf(id) };
      },
      nowMs: () => performance.now(),
      log: silentLog,
      reports: {
        connected() {},
        disconnected() {},
        refused: (reason) => console.error(`refused: ${reason}`),
        sent: (_type, _resources, bytes) => void (this.sentBytes += bytes),
        acknowledged() {},
        reached() {},
        rejected() {},
      },
    });
    const streams = { [adsPath]: ads.method };
    this.#server = await GrpcServer.listen({
      host: "127.0.0.1",
      port: 0,
      streams,
      unary: {},
      log: silentLog,
    });
    this.#ticks = setInterval(() => ads.tick(), 1_000);
    makeCertificates(this.folder);
    const store = new SecretStore(silentLog);
    const pem = (name: string): string => readFileSync(join(this.folder, name), "utf8");
    store.set(secretNames.workload, {
      kind: "certificate",
      chainPem: pem("leaf.pem"),
      keyPem: pem("leaf.key"),
    });
    store.set(secretNames.root, { kind: "trust", rootsPem: pem("root.pem") });
    const secrets = createStreamServer(secretPaths(store));
    await new Promise<void>((resolve) => secrets.listen(this.secretsSocket, resolve));
    this.#secrets = secrets;
  }

  get secretsSocket(): string {
    return join(this.folder, "sds.sock");
  }

  get port(): number {
    return this.#server?.port ?? 0;
  }

  /** Publishes one changed object. */
  put(object: KubeObject): void {
    this.#mesh.publish(objectChange(object));
  }

  async stop(): Promise<void> {
    clearInterval(this.#ticks);
    this.#secrets?.close();
    await this.#server?.close(0);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function rejected({ name, reason }: { readonly name: string; readonly reason: string }): void {
  console.error(`rejected: ${name}: ${reason}`);
}

/** A root and one leaf with a SPIFFE id, by openssl. */
function makeCertificates(folder: string): void {
  const openssl = (...args: string[]): void => {
    execFileSync("openssl", args, { cwd: folder, stdio: "ignore" });
  };
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl(
    "req",
    "-x509",
    ...key,
    "-keyout",
    "root.key",
    "-out",
    "root.pem",
    "-subj",
    "/O=bench",
    "-days",
    "1",
  );
  openssl("req", ...key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/O=bench");
  writeFileSync(
    join(folder, "leaf.ext"),
    "subjectAltName=URI:spiffe://cluster.local/ns/default/sa/default\nextendedKeyUsage=serverAuth,clientAuth\n",
  );
  const signed = ["-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-extfile", "leaf.ext"];
  openssl("x509", "-req", "-in", "leaf.csr", ...signed, "-out", "leaf.pem", "-days", "1");
}

/** A JSON object that is changed on its way to Envoy. */
type Json = Record<string, unknown>;

export interface EnvoyOptions {
  readonly folder: string;
  readonly name: string;
  readonly bootstrap: (adminPort: number) => object;
  readonly concurrency: number;
}

/** One real Envoy, with what `/proc` says of it. */
export class MeasuredEnvoy {
  readonly #child: ChildProcess;
  readonly adminPort: number;

  private constructor(child: ChildProcess, adminPort: number) {
    this.#child = child;
    this.adminPort = adminPort;
  }

  static async start({ folder, name, bootstrap, concurrency }: EnvoyOptions): Promise<MeasuredEnvoy> {
    const [adminPort = 0] = await freePorts(1);
    const file = join(folder, `${name}.json`);
    mkdirSync(folder, { recursive: true });
    writeFileSync(file, JSON.stringify(bootstrap(adminPort)));
    const flags = ["--disable-hot-restart", "--concurrency", String(concurrency), "-l", "error"];
    const child = spawn(envoyPath, ["-c", file, ...flags], { stdio: ["ignore", "inherit", "inherit"] });
    return new MeasuredEnvoy(child, adminPort);
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  /** Waits until all of the first configuration is there: Envoy's own word for it. */
  async ready(limitMs = 60_000): Promise<void> {
    const untilMs = performance.now() + limitMs;
    for (;;) {
      const ok = await fetch(`http://127.0.0.1:${this.adminPort}/ready`).then(
        (answer) => answer.ok,
        () => false,
      );
      if (ok) return;
      if (this.#child.exitCode !== null) throw new Error(`Envoy ended with ${this.#child.exitCode}`);
      if (performance.now() > untilMs) throw new Error("Envoy does not get ready");
      await sleep(5);
    }
  }

  async admin(path: string): Promise<string> {
    return (await fetch(`http://127.0.0.1:${this.adminPort}${path}`)).text();
  }

  /** CPU time of all threads. */
  get cpuMs(): number {
    return cpuMsOf(this.pid);
  }

  /** CPU time of the main thread, exact to a microsecond. */
  get mainThreadMs(): number {
    const text = readFileSync(`/proc/${this.pid}/task/${this.pid}/schedstat`, "utf8");
    return Number(text.split(" ")[0]) / 1e6;
  }

  get residentMiB(): number {
    return residentMiBOf(this.pid);
  }

  async stop(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#child.kill("SIGKILL");
    await gone;
  }
}

/** CPU time of a process, user and system; the kernel counts in ticks of 10 ms. */
export function cpuMsOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

export function residentMiBOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}

export interface AgentBootstrapOptions {
  readonly rig: Rig;
  readonly adminPort: number;
  readonly podName: string;
  readonly namespace: string;
  readonly address: string;
}

/** The bootstrap that the agent writes, with the control plane in plaintext and without the two listeners for people. */
export function agentBootstrap({ rig, adminPort, podName, namespace, address }: AgentBootstrapOptions): Json {
  const config = parseConfig({
    env: {
      POD_NAME: podName,
      POD_NAMESPACE: namespace,
      INSTANCE_IP: address,
      PROXY_CONFIG: JSON.stringify({ discoveryAddress: `127.0.0.1:${rig.port}`, proxyAdminPort: adminPort }),
      MIZZEN_SDS_SOCKET: rig.secretsSocket,
    },
    args: ["proxy", "sidecar"],
    labels: {},
    annotations: {},
    envoyPath,
  });
  const bootstrap = structuredClone(renderBootstrap(config)) as Json;
  const resources = bootstrap["static_resources"] as { listeners: Json[]; clusters: Json[] };
  resources.listeners = [];
  for (const cluster of resources.clusters)
    if (cluster["name"] === "xds-grpc") delete cluster["transport_socket"];
  return bootstrap;
}
