// Walls between namespaces and around keys, looked at from the wrong side: what somebody without a right to it tries, and what a
// client sees of it. One mesh; a gateway of a team, made by hand, beside the mesh's own.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import { TestAuthority } from "../support/test-authority.ts";
import { deployEchoes, echoIn, order, podIp, type EchoApp } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { eventually, startMesh, type Mesh } from "./mesh.ts";

const name = "walls-e2e";
const apiPort = 18_800;
const team = "edge";
const securePort = 8443;
const plainPort = 8080;

/** Whose service others try to get hold of; who tries; and somebody who only calls. */
const ports = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;
const apps: readonly EchoApp[] = [
  { name: "shop", namespace: "owner", ports },
  { name: "taker", namespace: "other", ports },
  { name: "caller", namespace: "default", ports },
];

let mesh: Mesh;
let authority: TestAuthority;
/** Of the team's gateway. */
let address: string;

before(async () => {
  authority = await TestAuthority.create("ours");
  mesh = await startMesh({ name, port: apiPort });
  await mesh.kubectl(["create", "namespace", team]);
  await apply(...teamGateway());
  await mesh.kubectl(["rollout", "status", "deployment/own-gateway", "-n", team, "--timeout=60s"]);
  address = await podIp(mesh, team, "app=own-gateway");
  for (const namespace of ["owner", "other"]) await mesh.kubectl(["create", "namespace", namespace]);
  for (const { namespace } of apps)
    await mesh.kubectl(["label", "namespace", namespace, "istio-injection=enabled", "--overwrite"]);
  await deployEchoes(mesh, apps);
});
after(async () => {
  await mesh?.down();
  assert.deepEqual(await leftovers(name), [], "nothing of ours is left on the machine");
});

async function apply(...objects: readonly object[]): Promise<void> {
  await mesh.kubectl(["apply", "-f", "-"], objects.map((object) => stringify(object)).join("---\n"));
}

async function secret(secretName: string, namespace: string): Promise<object> {
  const { certificate, key } = await authority.issue([`${secretName}.example.com`]);
  const stringData = { "tls.crt": certificate, "tls.key": key };
  return { apiVersion: "v1", kind: "Secret", metadata: { name: secretName, namespace }, stringData };
}

/** As somebody makes one who has not read that its service account has to be one that may read Secrets. */
function teamGateway(): object[] {
  const metadata = { name: "own-gateway", namespace: team };
  const labels = { app: "own-gateway" };
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata,
      spec: {
        selector: { matchLabels: labels },
        template: {
          metadata: {
            labels: { ...labels, "sidecar.istio.io/inject": "true" },
            annotations: { "inject.istio.io/templates": "gateway" },
          },
          spec: {
            serviceAccountName: metadata.name,
            terminationGracePeriodSeconds: 1,
            containers: [{ name: "istio-proxy", image: "auto" }],
          },
        },
      },
    },
  ];
}

function gateway(): object {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "Gateway",
    metadata: { name: "own", namespace: team },
    spec: {
      selector: { app: "own-gateway" },
      servers: [
        { port: { number: plainPort, name: "http", protocol: "HTTP" }, hosts: ["plain.example.com"] },
        {
          port: { number: securePort, name: "https", protocol: "HTTPS" },
          hosts: ["server.example.com"],
          tls: { mode: "SIMPLE", credentialName: "server" },
        },
      ],
    },
  };
}

function route(): object {
  return {
    apiVersion: "networking.istio.io/v1",
    kind: "VirtualService",
    metadata: { name: "own", namespace: team },
    spec: {
      hosts: ["plain.example.com", "server.example.com"],
      gateways: ["own"],
      http: [{ directResponse: { status: 200, body: { string: "of the team" } } }],
    },
  };
}

/** The status of an answer of the team's gateway; 0 where there was none. */
async function answered(scheme: "http" | "https"): Promise<number> {
  const [host, port] = scheme === "http" ? ["plain", plainPort] : ["server", securePort];
  const at = `${host}.example.com:${port}`;
  const ran = await mesh.inNode([
    ...["curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}"],
    ...["--resolve", `${at}:${address}`, `${scheme}://${at}/`],
  ]);
  return Number(ran.stdout);
}

async function statusOf(kind: string, object: string, namespace: string): Promise<string> {
  return mesh.kubectl(["get", kind, object, "-n", namespace, "-o", "jsonpath={.status}"]);
}

test("a gateway whose service account may not read Secrets gets no key: its TLS server alone is hurt, and the Gateway says why", async () => {
  await apply(await secret("server", team), gateway(), route());
  await eventually("the plain server answers", async () =>
    (await answered("http")) === 200 ? true : undefined,
  );
  await eventually("the Gateway says why", async () => {
    const status = await statusOf("gateways.networking.istio.io", "own", team);
    assert.match(status, /MZ0404/);
    assert.match(
      status,
      /servers\[1\]\.tls\.credentialName[^"]*may not list the Secrets[^"]*\(edge\/own-gateway\)/,
    );
    return true;
  });
  assert.equal(await answered("https"), 0);
  assert.equal(await answered("http"), 200);
});

test("once its account is allowed to, it is served, and the Gateway has nothing to say any more", async () => {
  const metadata = { name: "own-gateway", namespace: team };
  const apiVersion = "rbac.authorization.k8s.io/v1";
  await apply(
    {
      apiVersion,
      kind: "Role",
      metadata,
      rules: [{ apiGroups: [""], resources: ["secrets"], verbs: ["list"] }],
    },
    {
      ...{ apiVersion, kind: "RoleBinding", metadata },
      roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: metadata.name },
      subjects: [{ kind: "ServiceAccount", name: metadata.name, namespace: team }],
    },
  );
  // Asked again within a minute.
  await eventually(
    "it is served",
    async () => ((await answered("https")) === 200 ? true : undefined),
    75_000,
  );
  await eventually("the problem is gone", async () => {
    const status = await statusOf("gateways.networking.istio.io", "own", team);
    return status.includes("MZ0404") ? undefined : true;
  });
});

test("a control plane that starts anew takes no key away meanwhile", async () => {
  const seen: number[] = [];
  let isOver = false;
  const calling = (async () => {
    while (!isOver) seen.push(await answered("https"));
  })();
  await mesh.kubectl(["rollout", "restart", "deployment/istiod", "-n", "istio-d"]);
  await mesh.kubectl(["rollout", "status", "deployment/istiod", "-n", "istio-d", "--timeout=60s"]);
  await eventually("all proxies are with the new one", async () => {
    const { stdout } = await mesh.mizzen(["proxy-status"]);
    assert.match(stdout, /own-gateway[^\n]*SYNCED/);
    return true;
  });
  await eventually("more answers", async () => (seen.length > 20 ? true : undefined));
  isOver = true;
  await calling;
  assert.deepEqual([...new Set(seen)], [200]);
});

function ofOther(kind: string, objectName: string, spec: object): object {
  const apiVersion = kind === "EnvoyFilter" ? "networking.istio.io/v1alpha3" : "networking.istio.io/v1";
  return { apiVersion, kind, metadata: { name: objectName, namespace: "other" }, spec };
}

/** Who answers a call of a host from the workload of a namespace, and what that saw of its headers. */
async function answererOf(
  namespace: string,
  app: string,
  host: string,
): Promise<{ readonly service: string; readonly marked: boolean }> {
  const [result] = await order(mesh, await podIp(mesh, namespace, `app=${app}`), { url: `http://${host}/` });
  const echo = echoIn(result);
  assert.ok(echo, JSON.stringify(result));
  return { service: echo.service, marked: echo.headers["x-marked"] !== undefined };
}

const toTaker = [
  { route: [{ destination: { host: "taker.other.svc.cluster.local", port: { number: 80 } } }] },
];

/** Of the taker's Pod, by names and addresses that are others'. */
function claim(entryName: string, protocol: string, claimed: object): object {
  return ofOther("ServiceEntry", entryName, {
    hosts: [`${entryName}.example.com`],
    location: "MESH_INTERNAL",
    resolution: "STATIC",
    ports: [{ number: 80, name: "port", protocol, targetPort: 8080 }],
    workloadSelector: { labels: { app: "taker" } },
    ...claimed,
  });
}

test("an EnvoyFilter changes the proxies of its own namespace, and no others", async () => {
  await apply(
    ofOther("EnvoyFilter", "marking", {
      configPatches: [
        {
          applyTo: "VIRTUAL_HOST",
          match: { context: "SIDECAR_OUTBOUND" },
          patch: {
            operation: "MERGE",
            value: { request_headers_to_add: [{ header: { key: "x-marked", value: "marked" } }] },
          },
        },
      ],
    }),
  );
  await eventually("calls from its namespace are marked", async () => {
    assert.deepEqual(await answererOf("other", "taker", "shop.owner"), { service: "shop", marked: true });
    return true;
  });
  for (const [namespace, app] of [
    ["default", "caller"],
    ["owner", "shop"],
  ] as const)
    assert.deepEqual(await answererOf(namespace, app, "shop.owner"), { service: "shop", marked: false });
});

test("calls of a Service reach it by each of its names and its address, whatever another namespace writes about them", async () => {
  const shop = ["get", "service", "shop", "-n", "owner", "-o", "jsonpath={.spec.clusterIP}"];
  const clusterIp = await mesh.kubectl(shop);
  const host = "shop.owner.svc.cluster.local";
  await apply(
    ofOther("VirtualService", "names", {
      hosts: [host, "shop.owner", "shop.owner.svc", clusterIp],
      http: toTaker,
    }),
    claim("names", "HTTP", { hosts: [host, "shop.owner", "shop.owner.svc"] }),
    claim("address", "TCP", { addresses: [clusterIp] }),
    claim("range", "TCP", { addresses: ["0.0.0.0/1", "128.0.0.0/1"] }),
    claim("port", "MONGO", {}),
  );
  for (const kind of ["virtualservice", "serviceentry"])
    await eventually(`the ${kind} says whose the names are`, async () => {
      const status = await statusOf(kind, "names", "other");
      assert.match(status, /MZ0614[^"]*shop\.owner[^"]* belongs to namespace owner/);
      return true;
    });
  const waited = await mesh.mizzen(["wait", "--for=distribution", "serviceentry", "port.other"]);
  assert.equal(waited.code, 0, waited.stdout + waited.stderr);
  await eventually("the taker has its own calls", async () => {
    assert.equal((await answererOf("other", "taker", host)).service, "taker");
    return true;
  });
  for (const name of [host, "shop.owner", "shop.owner.svc", clusterIp]) {
    assert.equal((await answererOf("default", "caller", name)).service, "shop", `${name}, from elsewhere`);
    assert.equal(
      (await answererOf("owner", "shop", name)).service,
      "shop",
      `${name}, from its own namespace`,
    );
  }
  assert.equal((await answererOf("owner", "shop", "shop")).service, "shop");
});
