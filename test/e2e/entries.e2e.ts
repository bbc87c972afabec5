// Hosts beside the cluster's own: their names, their addresses, and who answers for them.

import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import type { KubeObject } from "#objects";
import { deployEchoes, echoIn, order, podIp, type EchoApp, type Result } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { command, eventually, type Mesh, patchConfig, root, startMesh } from "./mesh.ts";

const name = "entries-e2e";
const namespace = "default";
const ports = [
  { name: "http", servicePort: 9080, workloadPort: 8080, flag: "http" },
  { name: "tcp-raw", servicePort: 9000, workloadPort: 9001, flag: "tcp" },
] as const;
const networkLabel = "topology.istio.io/network";
const capturesDns = {
  "proxy.istio.io/config": 'proxyMetadata: { ISTIO_META_DNS_CAPTURE: "true", DNS_UNKNOWN_NAMES: refuse }',
};
const apps: readonly EchoApp[] = [
  { name: "caller", namespace, ports, annotations: capturesDns, labels: { [networkLabel]: "near" } },
  { name: "far", namespace, ports, labels: { [networkLabel]: "far" } },
  { name: "plain", namespace, ports },
  { name: "one", namespace, ports },
  { name: "two", namespace, ports },
];

let mesh: Mesh;
const addresses = new Map<string, string>();

before(async () => {
  mesh = await startMesh({ name, port: 18_590 });
  await mesh.kubectl(["label", "namespace", namespace, "istio-injection=enabled", "--overwrite"]);
  await deployEchoes(mesh, apps);
  for (const app of apps) addresses.set(app.name, await podIp(mesh, namespace, `app=${app.name}`));
});
after(async () => {
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

test("hosts without addresses get some, are found by name, and tell two TCP services of one port apart", async () => {
  await apply(entry("one"), entry("two"));
  for (const app of ["one", "two"]) {
    await eventually(`tcp://${app}.example.com reaches ${app}`, async () => {
      const result = await call("caller", { url: `tcp://${app}.example.com:9000`, message: "hello" });
      assert.match(result.body, new RegExp(`"service":"${app}"|${app}`), JSON.stringify(result));
      return true;
    });
  }
  const values = await mesh.kubectl([
    ...["get", "serviceentry", "-n", namespace, "-o"],
    "jsonpath={.items[*].status.addresses[*].value}",
  ]);
  assert.equal(new Set(values.split(" ").filter((value) => value.startsWith("240.240."))).size, 2, values);
});

test("a name that the mesh does not know is refused where the workload asked for it, and only there", async () => {
  const refused = await call("caller", { url: "http://unknown.example.org/" });
  assert.match(refused.error ?? "", /ENOTFOUND/);
  // The cluster's DNS refuses what lies outside of the cluster, and resolvers say so otherwise than "no such name".
  const service = await call("caller", { url: "http://two:9080/" });
  assert.equal(service.status, 200, JSON.stringify(service));
});

test("whoever applies an annotation or label without effect is told so by name", async () => {
  const metadata = {
    name: "warned",
    namespace,
    annotations: { "topology.istio.io/controlPlaneClusters": "a" },
  };
  const service = {
    apiVersion: "v1",
    kind: "Service",
    metadata,
    spec: { ports: [{ name: "http", port: 80 }] },
  };
  const said = await mesh.ranKubectl(["apply", "-f", "-"], stringify(service));
  assert.match(
    said.stderr,
    /Warning: .*topology\.istio\.io\/controlPlaneClusters has no effect yet/,
    said.stderr,
  );
  const template = {
    metadata: { labels: { app: "warned" }, annotations: { "sidecar.istio.io/proxyCpu": "1" } },
    spec: { containers: [{ name: "none", image: "none" }] },
  };
  const deployment = {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name: "warned", namespace },
    spec: { replicas: 0, selector: { matchLabels: { app: "warned" } }, template },
  };
  const also = await mesh.ranKubectl(["apply", "-f", "-"], stringify(deployment));
  assert.match(also.stderr, /Warning: .*sidecar\.istio\.io\/proxyCpu is not known/, also.stderr);
});

test("a machine joins by a WorkloadGroup, is called and calls with its identity, and leaves", async () => {
  const machine = await startMachine();
  const peer = "spiffe://cluster.local/ns/default/sa";
  try {
    await eventually("the machine is called by its Service's name", async () => {
      const result = await call("caller", { url: "http://web:9080/" });
      assert.equal(echoIn(result)?.service, "web", JSON.stringify(result));
      const certificate = echoIn(result)?.headers["x-forwarded-client-cert"] ?? "";
      assert.ok(
        certificate.includes(`By=${peer}/web`) && certificate.includes(`URI=${peer}/caller`),
        certificate,
      );
      return true;
    });
    await eventually("the machine calls a service of the cluster by its name", async () => {
      const [result] = await order(mesh, machineIp, { url: "http://one:9080/", timeoutMs: 3_000 });
      const certificate = echoIn(result)?.headers["x-forwarded-client-cert"] ?? "";
      assert.ok(certificate.includes(`URI=${peer}/web`), JSON.stringify(result));
      return true;
    });
    await machine.stopApp();
    await eventually("a machine whose application has ended gets no more calls", async () => {
      assert.equal((await condition("web")).status, "False");
      assert.equal((await call("caller", { url: "http://web:9080/" })).status, 503);
      return true;
    });
    machine.startApp();
    await eventually("it gets calls again once the application is back", async () => {
      assert.equal((await call("caller", { url: "http://web:9080/" })).status, 200);
      return true;
    });
    assert.equal(await machine.leave(), 0);
    await eventually("the entry of a machine that left is gone", async () => {
      const left = await mesh.kubectl(["get", "workloadentries", "-n", namespace, "-o", "name"]);
      assert.equal(left.trim(), "");
      return true;
    });
    const rules = await inMachine(["iptables-save"]);
    assert.doesNotMatch(rules.stdout, /ISTIO/, "the machine's network is as it was");
  } catch (error) {
    console.log(machine.said());
    throw error;
  } finally {
    await machine.remove();
  }
});

test("another network is reached by its gateway alone, with mutual TLS to the workload behind it", async () => {
  assert.equal(
    (await call("caller", { url: "http://far:9080/" })).status,
    200,
    "one network as long as none has gateways",
  );
  const gateway = await podIp(mesh, "sm-gateways", "istio=egressgateway");
  const networks = { networks: { far: { endpoints: [], gateways: [{ address: gateway, port: 15_443 }] } } };
  await patchConfig(mesh, "istio", { meshNetworks: stringify(networks) });
  await eventually("the far network is out of reach without a listener at its gateway", async () => {
    assert.equal((await call("caller", { url: "http://far:9080/" })).status, 503);
    return true;
  });
  assert.equal(
    (await call("caller", { url: "http://one:9080/" })).status,
    200,
    "workloads of no network stay in reach",
  );
  await apply(passthrough);
  await eventually("the far network is reached through its gateway", async () => {
    const result = await call("caller", { url: "http://far:9080/" });
    const certificate = echoIn(result)?.headers["x-forwarded-client-cert"] ?? "";
    assert.ok(
      certificate.includes("URI=spiffe://cluster.local/ns/default/sa/caller"),
      JSON.stringify(result),
    );
    return true;
  });
});

const passthrough: KubeObject = {
  apiVersion: "networking.istio.io/v1",
  kind: "Gateway",
  metadata: { name: "between-networks", namespace: "sm-gateways" },
  spec: {
    selector: { istio: "egressgateway" },
    servers: [
      {
        port: { number: 15_443, name: "tls", protocol: "TLS" },
        tls: { mode: "AUTO_PASSTHROUGH" },
        hosts: ["*.local"],
      },
    ],
  },
};

const machineIp = "192.0.2.10";
const machineNetns = `${name}-vm`;
/** A documentation address: routed by the node to the bridge that the Pods hang on, as a machine beside the cluster is. */
const machineNetwork = [
  `ip netns add ${machineNetns}`,
  `ip -n mizzen-${name} link add vm0 type veth peer name eth0 netns ${machineNetns}`,
  `ip -n mizzen-${name} link set vm0 master mizzen0 up`,
  `ip -n mizzen-${name} route add ${machineIp} dev mizzen0`,
  `ip -n ${machineNetns} link set lo up`,
  `ip -n ${machineNetns} address add ${machineIp}/32 dev eth0`,
  `ip -n ${machineNetns} link set eth0 up`,
  `ip -n ${machineNetns} route add 10.244.0.1 dev eth0 scope link`,
  `ip -n ${machineNetns} route add default via 10.244.0.1 dev eth0`,
].join(" && ");
const resolvers = "nameserver 10.96.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n";

function inMachine(words: readonly string[]) {
  return command("ip", ["netns", "exec", machineNetns, ...words]);
}

async function startMachine() {
  const folder = mkdtempSync(join(tmpdir(), `${name}-vm-`));
  const etc = `/etc/netns/${machineNetns}`;
  const group = ["vm", "group", "web", "--service-account", "web", "--labels", "app=web"];
  const manifest = (await mesh.mizzen(group)).stdout;
  await mesh.kubectl(["create", "serviceaccount", "web", "-n", namespace]);
  await mesh.kubectl(["apply", "-f", "-"], `${manifest}---\n${stringify(webService)}`);
  const probe = { periodSeconds: 1, failureThreshold: 1, tcpSocket: { port: 8080 } };
  const patch = JSON.stringify({ spec: { probe } });
  await mesh.kubectl(["patch", "workloadgroup", "web", "-n", namespace, "--type=merge", "-p", patch]);
  const configured = await mesh.mizzen(["vm", "configure", "web", "-o", folder]);
  assert.equal(configured.code, 0, configured.stderr);
  const made = await command("sh", ["-ec", machineNetwork]);
  assert.equal(made.code, 0, made.stderr);
  mkdirSync(etc, { recursive: true });
  writeFileSync(join(etc, "resolv.conf"), resolvers);
  let said = "";
  const spawnThere = (words: readonly string[]): ChildProcess =>
    saying(spawn("ip", ["netns", "exec", machineNetns, ...words], { cwd: root }), (text) => (said += text));
  const echo = ["echo", "--service", "web", "--version", "v1", "--forward", "8999", "--pod-ip", machineIp];
  const startApp = (): ChildProcess =>
    spawnThere([process.execPath, join(root, "dist/demo.mjs"), ...echo, "--http", "8080"]);
  let app = startApp();
  const words = ["vm", "run", folder, "--address", machineIp, "--exclude-inbound-ports", "22,8999"];
  const sidecar = spawnThere([join(root, "bin/mizzen"), ...words]);
  return {
    stopApp: () => ended(app),
    startApp: () => void (app = startApp()),
    leave: () => ended(sidecar),
    /** The end of what sidecar and application said, for whoever wonders why a test failed. */
    said: () => said.slice(-4_000),
    remove: async () => {
      await Promise.all([ended(sidecar), ended(app)]);
      await command("ip", ["netns", "delete", machineNetns]);
      rmSync(folder, { recursive: true, force: true });
      rmSync(etc, { recursive: true, force: true });
    },
  };
}

function saying(child: ChildProcess, hear: (text: string) => void): ChildProcess {
  for (const stream of [child.stdout, child.stderr])
    stream?.setEncoding("utf8").on("data", (text: string) => hear(text));
  return child;
}

/** Ends a process that this test started, and gives its exit code. */
async function ended(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  const exit = new Promise<number | null>((resolve) => void child.on("exit", (code) => resolve(code)));
  child.kill("SIGTERM");
  return exit;
}

const webService: KubeObject = {
  apiVersion: "v1",
  kind: "Service",
  metadata: { name: "web", namespace },
  spec: { selector: { app: "web" }, ports: [{ name: "http", port: 9080, targetPort: 8080 }] },
};

/** The condition of the one WorkloadEntry that a group has. */
async function condition(group: string): Promise<{ readonly status?: string }> {
  const text = await mesh.kubectl([
    "get",
    "workloadentries",
    "-n",
    namespace,
    "-l",
    `app=${group}`,
    "-o",
    "json",
  ]);
  const { items } = JSON.parse(text) as {
    items: { status?: { conditions?: { type: string; status: string }[] } }[];
  };
  return items[0]?.status?.conditions?.find(({ type }) => type === "Healthy") ?? {};
}

function entry(app: string): KubeObject {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "ServiceEntry",
    metadata: { name: app, namespace },
    spec: {
      hosts: [`${app}.example.com`],
      location: "MESH_INTERNAL",
      resolution: "STATIC",
      ports: [{ number: 9000, name: "tcp-raw", protocol: "TCP", targetPort: 9001 }],
      workloadSelector: { labels: { app } },
    },
  };
}

async function call(from: string, what: Parameters<typeof order>[2]): Promise<Result> {
  const [result] = await order(mesh, addresses.get(from) ?? "", { timeoutMs: 3_000, ...what });
  assert.ok(result !== undefined);
  return result;
}

async function apply(...objects: readonly KubeObject[]): Promise<void> {
  await mesh.kubectl(["apply", "-f", "-"], objects.map((object) => stringify(object)).join("---\n"));
}
