// When parts of a mesh come and go or die, nothing is lost: roll-outs, drained pods, rotated certificates, and kill -9 of
// everything. One mesh without the demo serves all tests of this file, in order.

import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { deployEchoes, order, podIp, type EchoApp } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { startLoad } from "./load.ts";
import { curl, eventually, pause, startMesh, type Mesh } from "./mesh.ts";

const name = "failures-e2e";
const port = 18_310;
const home = mkdtempSync(join(tmpdir(), "mizzen-failures-"));
let mesh: Mesh;

const ports = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;
/** Certificates of the shortest kind, so that a test sees several of them. */
const certificateSeconds = 6;
const shortLived = {
  "proxy.istio.io/config": `{"proxyMetadata": {"SECRET_TTL": "${certificateSeconds}s"}}`,
};
const echoes: EchoApp[] = [
  { name: "front", namespace: "shop", ports },
  { name: "back", namespace: "shop", ports, replicas: 2, graceSeconds: 20 },
  { name: "brief", namespace: "shop", ports, annotations: shortLived },
];

const entrance = `apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.example.com"]}]
---
${["back", "brief"]
  .map(
    (host) => `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ${host}, namespace: shop}
spec:
  hosts: ["${host}.example.com"]
  gateways: [shop]
  http: [{route: [{destination: {host: ${host}, port: {number: 80}}}]}]
`,
  )
  .join("---\n")}---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
`;

before(async () => {
  mesh = await startMesh({ name, port, home });
  await mesh.kubectl(["create", "namespace", "shop"]);
  await mesh.kubectl(["label", "namespace", "shop", "istio-injection=enabled"]);
  await mesh.kubectl(["apply", "-f", "-"], entrance);
  await deployEchoes(mesh, echoes);
  for (const host of ["back", "brief"]) await answers(host);
});
after(async () => {
  // The last test has ended it, unless it failed.
  if (existsSync(join("/run/mizzen", name))) await mesh.down();
  rmSync(home, { recursive: true, force: true });
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

function answers(host: string): Promise<unknown> {
  return eventually(`${host} answers through the gateway`, async () =>
    (await curl([`${mesh.gatewayUrl}/`, "-H", `Host: ${host}.example.com`])).status === 200
      ? true
      : undefined,
  );
}

test("a rolling restart under 50 requests/s loses no request", async (t) => {
  const load = startLoad(`${mesh.gatewayUrl}/`, 50, { host: "back.example.com" });
  await pause(500);
  await mesh.kubectl(["rollout", "restart", "deployment/back", "-n", "shop"]);
  await mesh.kubectl(["rollout", "status", "deployment/back", "-n", "shop", "--timeout=60s"]);
  await eventually("the old pods are gone", async () => {
    const pods = await mesh.kubectl(["get", "pods", "-n", "shop", "-l", "app=back", "-o", "name"]);
    return pods.trim().split("\n").length === 2 ? true : undefined;
  });
  await pause(500);
  const report = await load.stop();
  t.diagnostic(`${report.sent} requests, ${report.failed} failed, p99 ${report.p99Ms.toFixed(1)} ms`);
  assert.equal(report.failed, 0, report.failures.join("; "));
});

test("a pod that is deleted finishes the request that it has open", async () => {
  const front = await podIp(mesh, "shop", "app=front");
  const open = order(mesh, front, { url: "http://back.shop/?delay=4000", timeoutMs: 20_000 });
  await pause(700);
  await mesh.kubectl(["delete", "pods", "-n", "shop", "-l", "app=back", "--wait=false"]);
  const [result] = await open;
  assert.equal(result?.status, 200, result?.error ?? result?.body ?? "");
  assert.ok((result?.durationMs ?? 0) >= 4_000);
  await mesh.kubectl(["rollout", "status", "deployment/back", "-n", "shop", "--timeout=60s"]);
});

test("certificates rotate under load, and no request fails", async (t) => {
  const brief = await podIp(mesh, "shop", "app=brief");
  const rotations = async (): Promise<number> => {
    const { stdout } = await mesh.inNode(["curl", "-s", `http://${brief}:15020/stats/prometheus`]);
    return Number(/^istio_agent_certificate_rotations_total (\d+)/m.exec(stdout)?.[1] ?? 0);
  };
  const before = await rotations();
  const load = startLoad(`${mesh.gatewayUrl}/`, 50, { host: "brief.example.com" });
  await eventually("three more certificates", async () =>
    (await rotations()) >= before + 3 ? true : undefined,
  );
  // Old connections have outlived the certificate that they began with.
  await pause(500);
  const report = await load.stop();
  t.diagnostic(`${report.sent} requests, ${report.failed} failed, p99 ${report.p99Ms.toFixed(1)} ms`);
  assert.equal(report.failed, 0, report.failures.join("; "));
});

test("kill -9 of everything: the next up has the objects and traffic, and nothing else is left", async () => {
  const killed = processesOf(name);
  assert.ok(killed.length > 10, `${killed.length} processes`);
  for (const pid of killed) kill(pid);
  // Whether it is the cleaning-up of the killed or of the next start is not to matter.
  mesh = await startMesh({ name, port, home });
  const stored = await mesh.kubectl(["get", "virtualservices", "-n", "shop", "-o", "name"]);
  assert.equal(stored.trim().split("\n").length, 2);
  for (const { name: app } of echoes)
    await mesh.kubectl(["rollout", "status", `deployment/${app}`, "-n", "shop", "--timeout=60s"]);
  await answers("back");
  assert.deepEqual(
    killed.filter((pid) => processesOf(name).includes(pid)),
    [],
    "none of the killed",
  );
  await mesh.down();
  assert.deepEqual(await leftovers(name), []);
  assert.equal(existsSync(join("/run/mizzen", name)), false);
  assert.deepEqual(controlGroups(), []);
});

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It went with another.
  }
}

/** Every process of the mesh: its launcher and cluster, by their command lines, and all in its control groups. */
function processesOf(mark: string): readonly number[] {
  const contained = controlGroups().flatMap((directory) =>
    readQuietly(join(directory, "cgroup.procs")).split("\n").filter(Boolean).map(Number),
  );
  const launched = readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      const words = readQuietly(`/proc/${pid}/cmdline`).split("\0");
      return words[words.indexOf("--name") + 1] === mark && words.some((word) => word.endsWith(".mjs"));
    })
    .map(Number);
  return [...new Set([...launched, ...contained])];
}

/** The mesh's control groups, wherever the machine mounts them. */
function controlGroups(): readonly string[] {
  const mounts = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .filter((line) => / cgroup2? /.test(line))
    .map((line) => line.split(" ")[1] ?? "");
  return mounts.flatMap((mount) => groupsBelow(mount, 3));
}

function groupsBelow(directory: string, depth: number): readonly string[] {
  const found: string[] = [];
  for (const entry of entriesOf(directory)) {
    const path = join(directory, entry);
    if (path.includes(`/${name}`) || path.includes(`-${name}`)) found.push(path, ...groupsBelow(path, depth));
    else if (depth > 0) found.push(...groupsBelow(path, depth - 1));
  }
  return found;
}

function entriesOf(directory: string): readonly string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch {
    return [];
  }
}

function readQuietly(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
