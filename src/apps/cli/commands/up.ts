// `mizzen up`: a whole mesh on this machine: cluster, control plane, gateways, and a demo or your own objects.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, openSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { defaultApiPort, layoutOf, packageRoot } from "#cluster";
import pc from "picocolors";
import { standaloneHome } from "../access.ts";
import { type Command, type Invocation, type Io, NotSoError, numberFlag, textFlag } from "../command.ts";
import { KubeClient, type KubeObjectLike, readKubeconfig } from "../kube.ts";
import { applyAll, manifestFiles, ownManifests, readManifest } from "../manifests.ts";
import { Progress } from "../progress.ts";
import { ShippedObjects } from "../shipped.ts";
import { launchStandalone, type RunningStandalone, type StandaloneOptions } from "../standalone.ts";
import { waitForAnswer, waitForDeployments, waitUntil } from "../wait.ts";

/** Long enough for a slow machine's first start; what takes longer is stuck. */
const startTimeoutMs = 120_000;
const demoDeployments = [
  "productpage-v1",
  "details-v1",
  "ratings-v1",
  "reviews-v1",
  "reviews-v2",
  "reviews-v3",
];

export const up: Command = {
  name: "up",
  summary: "brings up a whole mesh on this machine, and keeps it up until Ctrl-C",
  flags: [
    { syntax: "--demo", help: "with Bookinfo, reachable through the ingress gateway" },
    { syntax: "-f, --file <path>", help: "apply the objects of a file or folder, too" },
    { syntax: "--images <file>", help: "a YAML file with more images: which program stands for which name" },
    { syntax: "--detach", help: "leave it running and return; `mizzen down` ends it" },
    {
      syntax: "--name <cluster>",
      help: "the cluster's name; several can run side by side on other ports",
      default: "mizzen",
    },
    {
      syntax: "--port <port>",
      help: "where the ingress gateway's HTTP is published on 127.0.0.1",
      default: "8080",
    },
    { syntax: "--https-port <port>", help: "where its HTTPS is published", default: "8443" },
    {
      syntax: "--api-port <port>",
      help: "where the Kubernetes API is published",
      default: String(defaultApiPort),
    },
  ],
  examples: [
    { line: "mizzen up --demo", does: "the mesh with Bookinfo on http://127.0.0.1:8080/productpage" },
    {
      line: "mizzen up --detach --name two --port 8090 --https-port 9443 --api-port 16444 -f my-app/",
      does: "a second one in the background, with your own objects",
    },
  ],
  run: (invocation) =>
    invocation.flags["detach"] === true ? runDetached(invocation) : runInForeground(invocation),
};

async function runInForeground({ flags, io }: Invocation): Promise<void> {
  const options = standaloneOptions(flags, io);
  // Read before anything starts: a mistake in a file should not cost a start.
  const own = ownObjects(textFlag(flags, "file"));
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => stop.abort());

  const progress = new Progress({
    write: (text) => process.stderr.write(text),
    isTerminal: io.isTerminal,
    nowMs: () => performance.now(),
  });
  const running = await progress.phase("cluster", () => launchStandalone(options));
  try {
    await interruptible(stop.signal, install(running, options, flags["demo"] === true, own, progress));
    announce(io, options, running, flags["demo"] === true, progress.elapsedMs());
    process.send?.({ kind: "ready" });
    await Promise.race([running.failed, aborted(stop.signal)]);
    if (!stop.signal.aborted) throw new NotSoError(`the cluster ended by itself; see ${running.log}`);
  } catch (cause) {
    if (!stop.signal.aborted) throw cause;
    progress.abandon();
  } finally {
    await progress.phase("taking everything down", () => running.stop());
  }
}

function standaloneOptions(flags: Invocation["flags"], io: Io): StandaloneOptions {
  return {
    name: textFlag(flags, "name") ?? "mizzen",
    ...standaloneHome(io.env),
    httpPort: numberFlag(flags, "port") ?? 8080,
    httpsPort: numberFlag(flags, "httpsPort") ?? 8443,
    apiPort: numberFlag(flags, "apiPort") ?? defaultApiPort,
    ...(textFlag(flags, "images") !== undefined && { imagesFile: textFlag(flags, "images") }),
  };
}

function ownObjects(path: string | undefined): KubeObjectLike[] {
  return path === undefined ? [] : manifestFiles(path).flatMap(readManifest);
}

async function install(
  running: RunningStandalone,
  options: StandaloneOptions,
  withDemo: boolean,
  own: readonly KubeObjectLike[],
  progress: Progress,
): Promise<void> {
  const kube = new KubeClient(await readKubeconfig(running.kubeconfig));
  const root = packageRoot();
  const read = (...paths: readonly string[]) => paths.flatMap((path) => ownManifests(root, path));
  await progress.phase("definitions", () => applyAll(kube, read("crds/istio.yaml")));
  const shipped = new ShippedObjects(kube, "istio-d");
  let kept = 0;
  await progress.phase("control plane", async (say) => {
    const parts = read("namespaces.yaml", "istiod-rbac.yaml", "istiod.yaml", "webhooks.yaml");
    await applyAll(
      kube,
      parts.filter(({ kind }) => kind === "Namespace"),
    );
    const settings = parts.filter(({ kind }) => kind === "ConfigMap");
    kept += await shipped.apply(settings.map((object) => ({ object, needed: true })));
    await applyAll(
      kube,
      parts.filter(({ kind }) => kind !== "ConfigMap" && kind !== "Namespace"),
    );
    // While istiod starts.
    await applyAll(kube, read("crds/gateway-api.yaml"));
    await waitForDeployments(kube, "istio-d", { timeoutMs: startTimeoutMs, say });
    await waitUntil("the injection webhook", startTimeoutMs, () => missingAuthority(kube), say);
  });
  await progress.phase(withDemo ? "gateways and demo" : "gateways", async (say) => {
    const routes = withDemo
      ? read("demo/networking/bookinfo-gateway.yaml", "demo/networking/destination-rule-all.yaml")
      : [];
    kept += await shipped.apply([
      ...read("policy.yaml").map((object) => ({ object, needed: false })),
      ...routes.map((object) => ({ object, needed: true })),
    ]);
    const demo = withDemo ? read("demo/bookinfo.yaml") : [];
    await applyAll(kube, [...read("gateways.yaml"), ...demo, ...own]);
    await waitForDeployments(kube, "sm-gateways", { timeoutMs: startTimeoutMs, say });
    if (withDemo)
      await waitForDeployments(kube, "default", { names: demoDeployments, timeoutMs: startTimeoutMs, say });
  });
  if (withDemo)
    await progress.phase("first answer through the gateway", (say) =>
      // Routes that people changed may answer otherwise, and are none of our business.
      waitForAnswer(demoUrl(options), { timeoutMs: startTimeoutMs, anyStatus: kept > 0 }, say),
    );
  kube.close();
}

/** Pods that are made before istiod has signed for its webhook would be refused, and tried again only after a while. */
async function missingAuthority(kube: KubeClient): Promise<string | undefined> {
  const path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector";
  const { webhooks = [] } = await kube.get<{ webhooks?: { clientConfig?: { caBundle?: string } }[] }>(path);
  return webhooks.every(({ clientConfig }) => (clientConfig?.caBundle ?? "") !== "")
    ? undefined
    : "istiod's certificate in the webhook";
}

function demoUrl({ httpPort }: StandaloneOptions): string {
  return `http://127.0.0.1:${httpPort}/productpage`;
}

function announce(
  io: Io,
  options: StandaloneOptions,
  running: RunningStandalone,
  withDemo: boolean,
  tookMs: number,
): void {
  const lines = [
    "",
    `The mesh runs, after ${(tookMs / 1_000).toFixed(1)} s. Ctrl-C takes everything down.`,
    "",
    ...(withDemo
      ? [`  demo        ${pc.bold(demoUrl(options))}`]
      : [`  gateway     http://127.0.0.1:${options.httpPort}`]),
    `  kubeconfig  ${running.kubeconfig}`,
    "",
    "Things to try, in another terminal:",
    `  export KUBECONFIG=${running.kubeconfig}`,
    ...kubectlHint(io),
    ...(withDemo
      ? [
          "  kubectl apply -f deploy/demo/networking/virtual-service-reviews-test-v2.yaml   # then sign in as jason: black stars",
          "  kubectl apply -f deploy/demo/networking/virtual-service-reviews-50-v3.yaml     # reload: every other page has red stars",
        ]
      : [
          "  kubectl label namespace default istio-injection=enabled                         # its pods join the mesh",
        ]),
    "  bin/mizzen proxy-status                                                         # every proxy, and whether it is up to date",
    "",
  ];
  io.out(lines.join("\n"));
}

/** Where the kubectl is that the set-up brought, for those who have none. */
function kubectlHint({ env }: Io): readonly string[] {
  const holdsKubectl = (folder: string): boolean => existsSync(join(folder, "kubectl"));
  const brought = join(packageRoot(), ".cache/bin");
  if ((env["PATH"] ?? "").split(":").some(holdsKubectl) || !holdsKubectl(brought)) return [];
  return [`  export PATH="$PATH:${brought}"   # for kubectl`];
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined);
    signal.addEventListener("abort", () => resolve(undefined), { once: true });
  });
}

/** Rejects as soon as the signal aborts; what was begun ends with the cluster. */
async function interruptible(signal: AbortSignal, work: Promise<void>): Promise<void> {
  await Promise.race([work, aborted(signal).then(() => Promise.reject(new NotSoError("interrupted")))]);
}

/** Runs the same command in a process of its own, relays what it says until the mesh runs, and lets it go. */
async function runDetached({ flags, io }: Invocation): Promise<void> {
  const { clusterLog, kubeconfig } = layoutOf(textFlag(flags, "name") ?? "mizzen", standaloneHome(io.env));
  const log = join(dirname(clusterLog), "up.log");
  mkdirSync(dirname(log), { recursive: true, mode: 0o700 });
  const file = openSync(log, "w", 0o600);
  const args = process.argv.slice(1).filter((word) => word !== "--detach");
  const progress = new Progress({
    write: (text) => process.stderr.write(text),
    isTerminal: io.isTerminal,
    nowMs: () => performance.now(),
  });
  await progress.phase("the mesh, in the background", async () => {
    const child = spawn(process.execPath, args, { detached: true, stdio: ["ignore", file, file, "ipc"] });
    await new Promise<void>((ready, failed) => {
      child.once("message", () => ready());
      child.once("error", failed);
      child.once("exit", (code) =>
        failed(new NotSoError(reasonIn(log) ?? `it ended with code ${code ?? "none"}: ${lastLines(log)}`)),
      );
    });
    child.disconnect();
    child.unref();
  });
  io.out(
    `The mesh runs in the background; 'mizzen down' ends it.\n  kubeconfig  ${kubeconfig}\n  log         ${log}`,
  );
}

const lastLinesMax = 6;

/** What the background process said of its failure, as it would have said it in the foreground. */
function reasonIn(file: string): string | undefined {
  return /^error: (.+)/ms.exec(readFileSync(file, "utf8"))?.[1]?.trim();
}

function lastLines(file: string): string {
  return readFileSync(file, "utf8").trim().split("\n").slice(-lastLinesMax).join("\n");
}
