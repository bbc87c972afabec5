// `agent proxy`: puts the parts together, hands them the real clock, environment and sockets, and ends them in order.

import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import type { Http2Server } from "node:http2";
import type { Server } from "node:http";
import { lookup } from "node:dns/promises";
import { isIP } from "node:net";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ports, traceEnvironment, type Clock, type Logger } from "#base";
import { addedRoots, certificateBlocks } from "./added-roots.ts";
import { EnvoyAdmin } from "./admin.ts";
import { renderBootstrap } from "./bootstrap.ts";
import { fetchCertificate, hostOf, portOf } from "./ca-client.ts";
import { parseConfig, parseDownward, type AgentConfig } from "./config.ts";
import { DnsProxy } from "./dns.ts";
import { drain } from "./drain.ts";
import { envoyArgs, envoyEnvironment, EnvoySupervisor } from "./envoy.ts";
import { FileSecrets } from "./file-secrets.ts";
import { createStreamServer } from "./grpc.ts";
import { HealthReporter, sendHealth } from "./health.ts";
import { IdentityFiles } from "./identity-files.ts";
import { layered } from "./layers.ts";
import { ListenerLimits } from "./listener-limits.ts";
import { createLog } from "./log.ts";
import { recordPaths, TelemetryRecords } from "./records.ts";
import { Rotator } from "./rotator.ts";
import { secretNames, secretPaths, SecretStore } from "./sds.ts";
import { systemRootsPem } from "./system-roots.ts";
import { createStatusServer } from "./status.ts";

const version = "0.1.0";
/** The root's volume is looked at this often; Kubernetes itself needs up to a minute to write it. */
const rootPollMs = 5_000;
/** When the root has changed, pods ask for new certificates spread over this time. */
const rootRenewWithinMs = 30_000;

const clock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
};

export function runProxy(args: readonly string[]): void {
  const config = parseConfig({
    env: process.env,
    args,
    labels: readDownward("/etc/istio/pod/labels", process.env["MIZZEN_PODINFO"], "labels"),
    annotations: readDownward("/etc/istio/pod/annotations", process.env["MIZZEN_PODINFO"], "annotations"),
    envoyPath: findEnvoy(),
  });
  const log = createLog(config.agentLogLevel, (line) => void process.stdout.write(line), {
    component: "agent",
  });
  lookUpStatsd(config, log).then(
    (found) => startProxy(found, log),
    (error: unknown) => {
      log.error({ reason: String(error) }, "the proxy cannot be started");
      process.exit(1);
    },
  );
}

function startProxy(config: AgentConfig, log: Logger): void {
  const agent = new ProxyAgent(config, log);
  agent.start();
  let signals = 0;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      signals += 1;
      // Whoever asks twice does not want to wait.
      agent.stop({ drainFirst: signals === 1 });
    });
  }
}

/** Envoy takes no names there. One that cannot be looked up is left out: traffic is worth more than statistics. */
async function lookUpStatsd(config: AgentConfig, log: Logger): Promise<AgentConfig> {
  if (config.statsd === "" || isIP(hostOf(config.statsd)) !== 0) return config;
  try {
    const { address } = await lookup(hostOf(config.statsd));
    return { ...config, statsd: `${address}:${portOf(config.statsd)}` };
  } catch (error) {
    log.warn({ address: config.statsd, reason: String(error) }, "statsd is not found; nothing is sent there");
    return { ...config, statsd: "" };
  }
}

class ProxyAgent {
  readonly #config: AgentConfig;
  readonly #log: Logger;
  readonly #admin: EnvoyAdmin;
  readonly #secrets: SecretStore;
  readonly #files: FileSecrets;
  readonly #records = new TelemetryRecords(() => clock.monotonicMs());
  readonly #rotator: Rotator;
  readonly #envoy: EnvoySupervisor;
  readonly #spiffeId: string;
  readonly #identity: IdentityFiles;
  /** What the agent has by itself of roots, by the secret's name. */
  readonly #roots = new Map<string, string>();
  #rootPem = "";
  /** PEM of the roots that ProxyConfig adds, and of those that MeshConfig does. */
  readonly #addedRoots: string;
  #meshRoots = "";
  #meshRootsText = "";
  readonly #limits: ListenerLimits | undefined;
  #status: Server | undefined;
  #sds: Http2Server | undefined;
  #dns: DnsProxy | undefined;
  #health: HealthReporter | undefined;
  #draining = false;
  #rootTimer: NodeJS.Timeout | undefined;

  constructor(config: AgentConfig, log: Logger) {
    const { trustDomain, namespace, serviceAccount, paths } = config;
    this.#config = config;
    this.#log = log;
    this.#admin = new EnvoyAdmin(config.ports.admin);
    this.#identity = new IdentityFiles(paths.identity);
    this.#secrets = new SecretStore(log, (name) => this.#files.want(name));
    this.#files = new FileSecrets({
      read: (path) => readFileSync(path, "utf8"),
      rootsOf: (name) => this.#roots.get(name),
      set: (name, value) => this.#secrets.set(name, value),
      log,
    });
    this.#addedRoots = addedRoots(config.proxyConfig.caCertificatesPem ?? [], log);
    const roots = systemRootsPem();
    if (roots !== undefined) this.#trust(secretNames.systemRoots, roots);
    this.#spiffeId = `spiffe://${trustDomain}/ns/${namespace}/sa/${serviceAccount}`;
    this.#rotator = new Rotator({
      clock,
      log,
      random: Math.random,
      fetch: () => this.#fetch(),
      onCertificate: () => this.#publish(),
    });
    const bootstrapPath = join(paths.configDir, "envoy-rev.json");
    this.#limits = this.#listenerLimits();
    this.#envoy = new EnvoySupervisor({
      clock,
      log,
      command: paths.envoy,
      env: envoyEnvironment(config, process.env[traceEnvironment.resource]),
      args: envoyArgs(config, bootstrapPath, overrideOf(config)),
      onGiveUp: (code) => this.#exit(code),
    });
    mkdirSync(paths.configDir, { recursive: true });
    writeFileSync(`${bootstrapPath}.new`, JSON.stringify(renderBootstrap(config)));
    renameSync(`${bootstrapPath}.new`, bootstrapPath);
  }

  /** A router's listeners are known to Envoy alone. */
  #listenerLimits(): ListenerLimits | undefined {
    const { role, proxyConfig } = this.#config;
    const limit = proxyConfig.connectionSettings?.listenerConnectionLimit;
    if (limit === undefined || role !== "router") return undefined;
    return new ListenerLimits({
      clock,
      log: this.#log,
      admin: this.#admin,
      limit,
      restarts: () => this.#envoy.restarts,
    });
  }

  start(): void {
    this.#limits?.start();
    this.#followRoot();
    this.#rotator.start();
    this.#listenSecrets();
    this.#listenDns();
    this.#reportHealth();
    this.#status = createStatusServer({
      config: this.#config,
      log: this.#log,
      admin: this.#admin,
      principal: this.#spiffeId,
      records: this.#records,
      counts: () => this.#counts(),
      isDraining: () => this.#draining,
      onQuit: () => this.stop({ drainFirst: true }),
    });
    this.#status.on("error", (error) => this.#fail("the status port cannot be opened", error));
    this.#status.listen(this.#config.ports.agent);
  }

  /** Drains, ends Envoy, ends the process. Called again while draining it ends at once. */
  stop(how: { readonly drainFirst: boolean }): void {
    if (this.#draining && how.drainFirst) return;
    this.#draining = true;
    void this.#end(how.drainFirst);
  }

  async #end(drainFirst: boolean): Promise<void> {
    await this.#health?.leave();
    if (drainFirst) await drain({ clock, log: this.#log, admin: this.#admin, config: this.#config });
    await this.#envoy.stop();
    this.#exit(0);
  }

  #exit(code: number): void {
    this.#rotator.stop();
    this.#limits?.stop();
    clearInterval(this.#rootTimer);
    this.#status?.close();
    this.#sds?.close();
    this.#dns?.close();
    rmSync(this.#config.paths.sdsSocket, { force: true });
    process.exit(code);
  }

  #fail(what: string, error: Error): void {
    this.#log.error({ reason: error.message }, what);
    void this.#envoy.stop().then(() => this.#exit(1));
  }

  /** Envoy starts when the socket is there; the certificate may come later, Envoy waits for it. */
  #listenSecrets(): void {
    const { sdsSocket } = this.#config.paths;
    mkdirSync(dirname(sdsSocket), { recursive: true });
    rmSync(sdsSocket, { force: true });
    this.#sds = createStreamServer({ ...secretPaths(this.#secrets), ...recordPaths(this.#records) });
    this.#sds.on("error", (error) => this.#fail("the socket for secrets cannot be opened", error));
    this.#sds.listen(sdsSocket, () => this.#envoy.start());
  }

  #listenDns(): void {
    const { dns, dnsDomain } = this.#config;
    if (!dns.capture) return;
    this.#dns = new DnsProxy({
      port: ports.dns,
      tablePort: ports.dnsTable,
      servers: [...readIfThere("/etc/resolv.conf").matchAll(/^nameserver\s+(\S+)/gm)].map(
        ([, server = ""]) => server,
      ),
      serverPort: 53,
      // `default.svc.cluster.local` lies in the cluster's own domain.
      ownDomains: [dnsDomain.replace(/^.*?\.svc\./, "")],
      unknownNames: dns.unknownNames,
      log: this.#log,
    });
    this.#dns.listen().catch((error: Error) => this.#fail("the DNS port cannot be opened", error));
  }

  #reportHealth(): void {
    const { machine, proxyConfig, instanceIps, caAddress } = this.#config;
    if (machine === undefined) return;
    this.#health = new HealthReporter({
      clock,
      log: this.#log,
      probe: proxyConfig.readinessProbe,
      proxyReady: async () => (await this.#admin.readiness()).ready,
      report: async (healthy, message) => {
        const certificate = this.#rotator.current;
        if (certificate === undefined) throw new Error("there is no certificate yet");
        const rootPem = this.#rootPem;
        const place = { ...machine, machine: instanceIps[0] ?? "" };
        await sendHealth({ address: caAddress, rootPem, certificate, ...place, healthy, message });
      },
    });
    this.#health.start();
  }

  #fetch(): ReturnType<typeof fetchCertificate> {
    const { caAddress, certTtlSeconds, paths } = this.#config;
    if (this.#rootPem === "") this.#readRoot();
    if (this.#rootPem === "") throw new Error(`there is no root certificate at ${paths.root}`);
    const certificate = this.#identity.load(this.#rotator.current, clock.nowMs());
    return fetchCertificate({
      address: caAddress,
      spiffeId: this.#spiffeId,
      // Read each time: the kubelet replaces the token before it expires. A machine's is good for the first time alone.
      token: certificate === undefined ? readFileSync(paths.token, "utf8").trim() : "",
      ...(certificate === undefined ? {} : { certificate }),
      rootPem: this.#rootPem,
      ttlSeconds: certTtlSeconds,
    });
  }

  #publish(): void {
    const certificate = this.#rotator.current;
    if (certificate !== undefined) {
      const { chainPem, keyPem } = certificate;
      this.#identity.keep(certificate);
      this.#secrets.set(secretNames.workload, { kind: "certificate", chainPem, keyPem });
    }
    const rootsPem = uniqueCertificates(`${this.#rootPem}\n${certificate?.rootPem ?? ""}`);
    if (rootsPem === "") return;
    this.#trust(secretNames.meshRoot, rootsPem);
    this.#trust(
      secretNames.root,
      uniqueCertificates(`${rootsPem}
${this.#addedRoots}
${this.#meshRoots}`),
    );
  }

  #trust(name: string, rootsPem: string): void {
    this.#roots.set(name, rootsPem);
    this.#secrets.set(name, { kind: "trust", rootsPem });
  }

  #followRoot(): void {
    this.#readMeshRoots();
    this.#readRoot();
    this.#rootTimer = setInterval(() => {
      this.#files.look();
      if (this.#readMeshRoots()) this.#publish();
      if (!this.#readRoot()) return;
      this.#log.info({}, "the root has changed");
      this.#publish();
      this.#rotator.renewWithin(rootRenewWithinMs);
    }, rootPollMs);
    this.#rootTimer.unref();
  }

  /** The file beside the root's; without one MeshConfig adds none. True when others are added than before. */
  #readMeshRoots(): boolean {
    const text = readIfThere(join(dirname(this.#config.paths.root), "added-roots.pem"));
    if (text === this.#meshRootsText) return false;
    this.#meshRootsText = text;
    this.#meshRoots = text === "" ? "" : addedRoots([text], this.#log);
    return true;
  }

  /** True when the file holds something new. A missing file changes nothing: the volume may be on its way. */
  #readRoot(): boolean {
    const pem = readIfThere(this.#config.paths.root);
    if (pem === "" || pem === this.#rootPem) return false;
    const isChange = this.#rootPem !== "";
    this.#rootPem = pem;
    return isChange;
  }

  #counts(): Parameters<typeof import("./metrics.ts").renderAgentMetrics>[0] {
    const expiresMs = this.#rotator.current?.notAfterMs;
    return {
      certificateExpirySeconds: expiresMs === undefined ? undefined : (expiresMs - clock.nowMs()) / 1_000,
      caFailures: this.#rotator.failures,
      rotations: this.#rotator.rotations,
      envoyRestarts: this.#envoy.restarts,
      recordsDropped: this.#records.dropped,
      residentBytes: process.memoryUsage.rss(),
      version,
    };
  }
}

function readIfThere(path: string): string {
  return existsSync(path) ? readFileSync(path, "utf8") : "";
}

/** Envoy takes one text over its bootstrap. */
function overrideOf({ bootstrapOverlay, bootstrapOverride = "" }: AgentConfig): string {
  const own = readIfThere(bootstrapOverride);
  return bootstrapOverlay === "" || own === "" ? own + bootstrapOverlay : layered(bootstrapOverlay, own);
}

function readDownward(path: string, dir: string | undefined, name: string): Record<string, string> {
  return parseDownward(readIfThere(dir === undefined ? path : join(dir, name)));
}

/** The certificates of a PEM text, each once. */
function uniqueCertificates(pem: string): string {
  const blocks = pem.match(certificateBlocks) ?? [];
  return [...new Set(blocks.map((block) => block.replace(/\r/g, "")))].map((block) => `${block}\n`).join("");
}

/** MIZZEN_ENVOY, or the one that the set-up installed beside this package, or whatever PATH holds. */
function findEnvoy(): string {
  const named = process.env["MIZZEN_ENVOY"];
  if (named !== undefined && named !== "") return named;
  const here = dirname(fileURLToPath(import.meta.url));
  const beside = ["..", "../../.."].map((up) => join(here, up, ".cache/bin/envoy"));
  return beside.find((path) => existsSync(path)) ?? "envoy";
}
