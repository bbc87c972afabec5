// The node's pure parts: environment, runtime configuration, name files, status, quantities.

import assert from "node:assert/strict";
import { mkdtemp, readFile, readlink, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { ProgramImage } from "../images/image.ts";
import type { Container, DataObject, Pod, PodSpec } from "../types.ts";
import { expand, MissingReference, resolveEnv, type DataReader } from "./env.ts";
import { clusterNameFault, layoutOf, podNetns } from "./names.ts";
import { AddressPool, addressIn, planNetwork } from "./network.ts";
import { argsOf, capabilitiesOf, securityFault, userOf } from "./oci.ts";
import { parseQuantity } from "./quantity.ts";
import { renderResolvConf } from "./resolv.ts";
import { nextBackoffMs } from "./slot.ts";
import { computeStatus, mergeConditions, type SlotState } from "./status.ts";
import { tokenOwnership, writeKeyedVolume } from "./volumes.ts";

const image: ProgramImage = {
  kind: "program",
  entrypoint: ["serve"],
  args: ["--default"],
  env: { PATH: "/bin" },
  user: "1000",
  workingDir: "/",
  mounts: [],
};
const facts = {
  podIp: "10.244.0.5",
  hostIp: "10.244.0.1",
  nodeName: "n",
  nodeCpus: 2,
  nodeMemoryBytes: 2 ** 30,
};
const configMap: DataObject = {
  apiVersion: "v1",
  kind: "ConfigMap",
  metadata: { name: "c" },
  data: { a: "1", b: "2" },
};
const data: DataReader = {
  configMap: (_namespace, name) => (name === "c" ? configMap : undefined),
  secret: () => undefined,
};

function container(more: Partial<Container> = {}): Container {
  return { name: "main", image: "i", ...more };
}

function pod(spec: Partial<PodSpec> = {}, labels: Record<string, string> = {}): Pod {
  const metadata = { name: "p", namespace: "d", uid: "u", labels };
  return { apiVersion: "v1", kind: "Pod", metadata, spec: { containers: [container()], ...spec } };
}

test("a variable refers to earlier ones, $$ is a dollar, and an unknown name stays", () => {
  assert.equal(expand("$(A)-$$(A)-$(B)", { A: "1" }), "1-$(A)-$(B)");
  const env = [
    { name: "A", value: "1" },
    { name: "B", value: "$(A)2" },
  ];
  assert.equal(resolveEnv(pod(), container({ env }), {}, facts, data)["B"], "12");
});

test("the downward API gives names, labels, addresses and limits", () => {
  const one = container({
    resources: { limits: { memory: "64Mi" } },
    env: [
      { name: "L", valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
      { name: "IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
      { name: "CPU", valueFrom: { resourceFieldRef: { resource: "limits.cpu" } } },
      { name: "MEM", valueFrom: { resourceFieldRef: { resource: "limits.memory", divisor: "1Mi" } } },
    ],
  });
  const env = resolveEnv(pod({}, { app: "web" }), one, {}, facts, data);
  assert.deepEqual([env["L"], env["IP"], env["CPU"], env["MEM"]], ["web", "10.244.0.5", "2", "64"]);
});

test("a missing ConfigMap holds the container back unless it is optional", () => {
  const from = (optional: boolean) => container({ envFrom: [{ configMapRef: { name: "none", optional } }] });
  assert.throws(() => resolveEnv(pod(), from(false), {}, facts, data), MissingReference);
  assert.deepEqual(resolveEnv(pod(), from(true), {}, facts, data), {});
  const prefixed = container({ envFrom: [{ prefix: "X_", configMapRef: { name: "c" } }] });
  assert.deepEqual(resolveEnv(pod(), prefixed, {}, facts, data), { X_a: "1", X_b: "2" });
});

test("a Pod's command drops the image's arguments, its args alone keep the image's program", () => {
  assert.deepEqual(argsOf(container(), image), ["serve", "--default"]);
  assert.deepEqual(argsOf(container({ args: ["x"] }), image), ["serve", "x"]);
  assert.deepEqual(argsOf(container({ command: ["sh"] }), image), ["sh"]);
});

test("capabilities: the usual set, less what is dropped, plus what is added", () => {
  const context = { capabilities: { drop: ["ALL"], add: ["NET_ADMIN", "NET_RAW"] } };
  assert.deepEqual(capabilitiesOf(container({ securityContext: context })), ["CAP_NET_ADMIN", "CAP_NET_RAW"]);
  assert.ok(!capabilitiesOf(container()).includes("CAP_SYS_ADMIN"));
  assert.ok(!capabilitiesOf(container({ securityContext: { privileged: true } })).includes("CAP_SYS_ADMIN"));
});

test("the container's user wins over the Pod's, the Pod's over the image's", () => {
  const spec = pod({ securityContext: { runAsUser: 5, fsGroup: 7 } }).spec;
  assert.deepEqual(userOf(spec, container({ securityContext: { runAsUser: 6 } }), image), {
    uid: 6,
    gid: 0,
    additionalGids: [7],
  });
  assert.equal(userOf(spec, container(), image).uid, 5);
  assert.equal(userOf(pod().spec, container(), image).uid, 1000);
  const nonRoot = container({ securityContext: { runAsNonRoot: true, runAsUser: 0 } });
  assert.match(securityFault(pod().spec, nonRoot, image) ?? "", /runAsNonRoot/);
});

test("quantities in all their spellings", () => {
  assert.deepEqual(["100m", "1", "64Mi", "1e3", 2, "2G"].map(parseQuantity), [
    0.1,
    1,
    64 * 2 ** 20,
    1_000,
    2,
    2e9,
  ]);
  assert.equal(parseQuantity("64Xi"), undefined);
});

test("resolv.conf searches the namespace first, and dnsPolicy None takes dnsConfig alone", () => {
  const text = renderResolvConf(pod().spec, "shop", "10.96.0.10", "cluster.local");
  assert.match(
    text,
    /^nameserver 10\.96\.0\.10\nsearch shop\.svc\.cluster\.local svc\.cluster\.local cluster\.local\noptions ndots:5\n$/,
  );
  const own = pod({ dnsPolicy: "None", dnsConfig: { nameservers: ["10.1.1.1"] } }).spec;
  assert.equal(renderResolvConf(own, "shop", "10.96.0.10", "cluster.local"), "nameserver 10.1.1.1\n");
});

test("the back-off starts after the second failure, doubles to five minutes, and a long life resets it", () => {
  const series = [-1];
  for (let turn = 0; turn < 8; turn++) series.push(nextBackoffMs(series.at(-1) ?? 0, 1_000));
  assert.deepEqual(series.slice(1), [0, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
  assert.equal(nextBackoffMs(300_000, 600_000), 0);
});

function slot(more: Partial<SlotState>): SlotState {
  const waiting = { waiting: { reason: "PodInitializing" } };
  return {
    container: container(),
    role: "main",
    state: waiting,
    lastState: {},
    restartCount: 0,
    ready: false,
    started: false,
    ...more,
  };
}

test("a Pod is pending before its init containers are through, running after, ready with all its containers and gates", () => {
  const view = { hostIp: "h", startTime: "t", nowIso: "now", podIp: "10.244.0.5" };
  const init = slot({ role: "init", state: { running: { startedAt: "t" } } });
  assert.equal(computeStatus(pod(), { ...view, slots: [init, slot({})] }).phase, "Pending");
  const main = slot({ state: { running: { startedAt: "t" } }, ready: true, started: true });
  const ready = (of: Pod) =>
    computeStatus(of, { ...view, slots: [main] }).conditions?.find(({ type }) => type === "Ready")?.status;
  assert.equal(computeStatus(pod(), { ...view, slots: [main] }).phase, "Running");
  assert.equal(ready(pod()), "True");
  assert.equal(ready(pod({ readinessGates: [{ conditionType: "x" }] })), "False");
});

test("a condition's time changes with its status alone, and others' conditions stay", () => {
  const stored = [
    { type: "Ready", status: "True", lastTransitionTime: "before" },
    { type: "Other", status: "True" },
  ];
  const merged = mergeConditions(stored, [{ type: "Ready", status: "True", reason: "new" }], "now");
  assert.deepEqual(merged, [
    { type: "Ready", status: "True", reason: "new", lastTransitionTime: "before" },
    stored[1],
  ]);
});

test("a token is readable by the one user of a Pod, or by its group, or by all", () => {
  assert.deepEqual(tokenOwnership(pod({ securityContext: { runAsUser: 9 } }).spec), { mode: 0o600, uid: 9 });
  assert.equal(tokenOwnership(pod({ securityContext: { fsGroup: 9 } }).spec).mode, 0o640);
  assert.equal(tokenOwnership(pod().spec).mode, 0o644);
});

test("a volume's update swaps one link, removes what is gone, and does nothing when nothing changed", async (context) => {
  const directory = await mkdtemp(join(tmpdir(), "mizzen-volume-"));
  context.after(() => rm(directory, { recursive: true, force: true }));
  const file = (path: string, text: string) => ({ path, content: Buffer.from(text), mode: 0o644 });
  const skip = process.getuid?.() === 0 ? undefined : "files get an owner, which needs root";
  if (skip !== undefined) return context.diagnostic(skip);
  assert.equal(await writeKeyedVolume(directory, [file("a", "1"), file("b", "2")], {}), true);
  const first = await readlink(join(directory, "..data"));
  assert.equal(await writeKeyedVolume(directory, [file("a", "1"), file("b", "2")], {}), false);
  assert.equal(await writeKeyedVolume(directory, [file("a", "3")], {}), true);
  assert.notEqual(await readlink(join(directory, "..data")), first);
  assert.equal(await readFile(join(directory, "a"), "utf8"), "3");
  await assert.rejects(readFile(join(directory, "b")));
});

test("addresses are counted within their range, and one given back rests before it is used again", () => {
  assert.equal(addressIn("10.244.0.0/16", 256), "10.244.1.0");
  assert.equal(planNetwork("10.10.0.0/20").nodeIp, "10.10.0.1");
  assert.throws(() => addressIn("10.244.0.0", 1), /not an IPv4 range/);
  const pool = new AddressPool("10.244.0.0/29");
  const first = pool.take();
  pool.giveBack(first);
  assert.notEqual(pool.take(), first);
});

test("names derive from the cluster's name, and another cluster's never begin alike", () => {
  assert.match(clusterNameFault("Big_Name") ?? "", /lower-case/);
  const layout = layoutOf("a", { home: "/home" });
  assert.ok(podNetns(layout, "u").startsWith("mizzen-a."));
  assert.ok(!podNetns(layoutOf("a-b", { home: "/home" }), "u").startsWith(layout.podNetnsPrefix));
});
