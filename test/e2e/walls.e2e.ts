// Walls between namespaces and around keys, looked at from the wrong side: what somebody without a right to it tries, and what a
// client sees of it. One mesh; a gateway of a team, made by hand, beside the mesh's own.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { stringify } from "yaml";
import { TestAuthority } from "../support/test-authority.ts";
import { podIp } from "./echoes.ts";
import { leftovers } from "./leftovers.ts";
import { eventually, startMesh, type Mesh } from "./mesh.ts";

const name = "walls-e2e";
const apiPort = 18_800;
const team = "edge";
const securePort = 8443;
const plainPort = 8080;

let mesh: Mesh;
let authority: TestAuthority;
/** Of the team's gateway. */
let address: string;

before(async () => {
  authority = await TestAuthority.create("ours");
  mesh = await startMesh({ name, port: apiPort });
  await mesh.kubectl(["create", "namespace", team]);
  await apply(...teamGateway(), await secret("server", team), gateway(), route());
  await mesh.kubectl(["rollout", "status", "deployment/own-gateway", "-n", team, "--timeout=60s"]);
  address = await podIp(mesh, team, "app=own-gateway");
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
