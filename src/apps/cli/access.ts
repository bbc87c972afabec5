// Which cluster a command talks to, and how it gets to loopback inside a pod (docs/decisions/0010).

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { get } from "node:http";
import { homedir } from "node:os";
import { join } from "node:path";
import { ports } from "#base";
import { clusterStatus, layoutOf, podNetns } from "#cluster";
import { type Invocation, NotSoError, textFlag } from "./command.ts";
import { KubeClient, type KubeObjectLike, readKubeconfig } from "./kube.ts";

export interface Access {
  readonly kube: KubeClient;
  readonly kubeconfig: string;
  readonly istioNamespace: string;
  /** GET of a port on the pod's loopback. Rejects with NotSoError when there is no answer. */
  askPod(pod: KubeObjectLike, port: number, path: string): Promise<string>;
}

/** By flag, else $KUBECONFIG, else the standalone cluster if one runs or no ordinary kubeconfig is there, else that. */
export async function openAccess({ flags, io }: Invocation): Promise<Access> {
  const name = textFlag(flags, "name") ?? "mizzen";
  const layout = layoutOf(name, standaloneHome(io.env));
  const kubeconfig = chooseKubeconfig(
    textFlag(flags, "kubeconfig"),
    io.env,
    layout.kubeconfig,
    layout.runDir,
  );
  const kube = new KubeClient(await readKubeconfig(kubeconfig, textFlag(flags, "context")));
  const istioNamespace = textFlag(flags, "istioNamespace") ?? "istio-d";
  const standalone = await clusterStatus(name, standaloneHome(io.env));
  const isStandalone = standalone.kind === "running" && sameServer(standalone.apiUrl, kube.server);
  const askPod: Access["askPod"] = (pod, port, path) =>
    isStandalone
      ? askInNamespace(podNetns(layout, pod.metadata.uid ?? ""), port, path)
      : askByPortForward(kubeconfig, textFlag(flags, "context"), pod, port, path);
  return { kube, kubeconfig, istioNamespace, askPod };
}

export function standaloneHome(env: Readonly<Record<string, string | undefined>>): { home?: string } {
  return env["MIZZEN_HOME"] === undefined ? {} : { home: env["MIZZEN_HOME"] };
}

function chooseKubeconfig(
  flag: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
  standalone: string,
  runDir: string,
): string {
  if (flag !== undefined) return flag;
  const named = env["KUBECONFIG"];
  if (named !== undefined && named !== "") return named.split(":")[0] ?? named;
  const ordinary = join(homedir(), ".kube/config");
  return existsSync(runDir) || !existsSync(ordinary) ? standalone : ordinary;
}

function sameServer(one: string, other: string): boolean {
  return URL.canParse(other) && new URL(one).host === new URL(other).host;
}

/** Runs inside the pod's network namespace; prints the body, or the reason on stderr with code 1. */
const asker = `const [port, path] = process.argv.slice(1);
fetch("http://127.0.0.1:" + port + path, { signal: AbortSignal.timeout(10000) })
  .then(async (answer) => { const text = await answer.text(); if (!answer.ok) throw new Error("HTTP " + answer.status + " " + text.slice(0, 300)); process.stdout.write(text); })
  .catch((error) => { process.stderr.write(String(error.cause ?? error.message ?? error)); process.exitCode = 1; });`;

function askInNamespace(netns: string, port: number, path: string): Promise<string> {
  if (process.getuid?.() !== 0) {
    throw new NotSoError(
      "reaching into a pod of the standalone cluster needs root; run the command with sudo",
    );
  }
  const file = join("/run/netns", netns);
  if (!existsSync(file))
    throw new NotSoError("the pod has no network namespace on this machine; is it running?");
  return new Promise((done, failed) => {
    const child = spawn(
      "nsenter",
      [`--net=${file}`, "--", process.execPath, "-e", asker, String(port), path],
      {
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    let text = "";
    let reason = "";
    child.stdout.setEncoding("utf8").on("data", (part: string) => (text += part));
    child.stderr.setEncoding("utf8").on("data", (part: string) => (reason += part));
    child.on("error", (cause) =>
      failed(new NotSoError(`nsenter cannot be run: ${cause.message}; install util-linux`, { cause })),
    );
    child.on("close", (code) => {
      if (code === 0) done(text);
      else failed(new NotSoError(`port ${port} in the pod does not answer: ${reason.trim()}`));
    });
  });
}

/** Opens a port of this machine's loopback for the one question, and tunnels it through the API to the pod. */
async function askByPortForward(
  kubeconfig: string,
  context: string | undefined,
  pod: KubeObjectLike,
  port: number,
  path: string,
): Promise<string> {
  const { KubeConfig, PortForward } = await import("@kubernetes/client-node");
  const config = new KubeConfig();
  config.loadFromFile(kubeconfig);
  if (context !== undefined) config.setCurrentContext(context);
  const forward = new PortForward(config);
  const { namespace = "default", name } = pod.metadata;
  const server = createServer((socket) => {
    forward
      .portForward(namespace, name, [port], socket, null, socket)
      .catch((cause: unknown) => socket.destroy(cause as Error));
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  try {
    return await getLocal((server.address() as AddressInfo).port, path);
  } catch (cause) {
    throw new NotSoError(
      `port ${port} of pod ${namespace}/${name} cannot be reached by port-forward: ${String(cause)}`,
      { cause },
    );
  } finally {
    server.close();
  }
}

function getLocal(port: number, path: string): Promise<string> {
  return new Promise((done, failed) => {
    const outgoing = get({ host: "127.0.0.1", port, path, agent: false, timeout: 15_000 }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => (text += part));
      response.on("end", () =>
        response.statusCode === 200 ? done(text) : failed(new Error(`HTTP ${response.statusCode}`)),
      );
    });
    outgoing.on("timeout", () => outgoing.destroy(new Error("no answer")));
    outgoing.on("error", failed);
  });
}

/** The same question to every replica of the control plane: each knows its own proxies. Rejects with NotSoError if none runs. */
export async function askControlPlanes(
  access: Access,
  path: string,
): Promise<{ readonly istiod: string; readonly answer: unknown }[]> {
  const pods = await access.kube.list(
    `/api/v1/namespaces/${access.istioNamespace}/pods?labelSelector=app%3Distiod`,
  );
  const running = pods.filter(
    (pod) => (pod["status"] as { phase?: string } | undefined)?.phase === "Running",
  );
  if (running.length === 0) throw new NotSoError(`no istiod runs in namespace ${access.istioNamespace}`);
  return Promise.all(
    running.map(async (pod) => ({
      istiod: pod.metadata.name,
      answer: JSON.parse(await access.askPod(pod, ports.monitoring, path)) as unknown,
    })),
  );
}

/** Pods as people name them: `pod`, `pod.namespace`, `namespace/pod`, `deployment/name[.namespace]`, or the start of a name. */
export async function findPod(
  access: Access,
  text: string,
  namespaceFlag: string | undefined,
): Promise<KubeObjectLike> {
  const { name, namespace, isDeployment } = parsePodName(text, namespaceFlag);
  const pods = await access.kube.list(`/api/v1/namespaces/${namespace}/pods`);
  const fits = (pod: KubeObjectLike) =>
    isDeployment
      ? new RegExp(`^${escapePattern(name)}-[a-z0-9]+-[a-z0-9]{5}$`).test(pod.metadata.name)
      : pod.metadata.name === name;
  const living = pods.filter((pod) => pod.metadata.deletionTimestamp === undefined);
  const found = living.find(fits) ?? living.find((pod) => pod.metadata.name.startsWith(`${name}-`));
  if (found !== undefined) return found;
  const names = living.map((pod) => pod.metadata.name).slice(0, 8);
  throw new NotSoError(
    `there is no pod ${name} in namespace ${namespace}${names.length > 0 ? `; there are ${names.join(", ")}` : ""}`,
  );
}

export function parsePodName(
  text: string,
  namespaceFlag: string | undefined,
): { name: string; namespace: string; isDeployment: boolean } {
  const isDeployment = /^(deployment|deploy|deployments?\.apps)\//.test(text);
  const rest = isDeployment ? text.slice(text.indexOf("/") + 1) : text;
  if (rest.includes("/")) {
    const [namespace = "", name = ""] = rest.split("/");
    return { name, namespace, isDeployment };
  }
  const [name = "", ...after] = rest.split(".");
  const namespace = after.join(".") || namespaceFlag || "default";
  return { name, namespace, isDeployment };
}

function escapePattern(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}
