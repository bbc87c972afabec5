// Calls that leave the mesh, as an operator bounds them: through the egress gateway, for those callers and hosts that a
// policy names, and nothing else. Who stands outside is a pod without a sidecar whose Services the mesh does not see.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { parseAllDocuments, stringify } from "yaml";
import { CertificateAuthority, createSelfSignedMaterial } from "#identity";
import type { KubeObject } from "#objects";
import {
  deployEchoes,
  echoIn,
  echoManifest,
  order,
  podIp,
  type EchoApp,
  type Order,
  type Result,
} from "./echoes.ts";
import { eventually, startMesh, type Mesh } from "./mesh.ts";

const gateways = "sm-gateways";
const gatewayHost = `istio-egressgateway.${gateways}.svc.cluster.local`;
/** Names that the cluster's DNS knows and the mesh does not. */
const partner = "partner.svc.cluster.local";
const capturesDns = {
  "proxy.istio.io/config": 'proxyMetadata: { ISTIO_META_DNS_CAPTURE: "true", DNS_UNKNOWN_NAMES: refuse }',
};
const callers: readonly EchoApp[] = ["one", "two"].map((name) => ({
  name,
  namespace: "shop",
  ports: [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }],
  annotations: capturesDns,
}));
const outside: EchoApp = {
  name: "world",
  namespace: "partner",
  naked: true,
  ports: [
    { name: "http", servicePort: 80, workloadPort: 8080, flag: "http" },
    { name: "https", servicePort: 443, workloadPort: 8443, flag: "https" },
  ],
};

let mesh: Mesh;
let worldIp = "";
const addresses = new Map<string, string>();

before(async () => {
  mesh = await startMesh({ name: "egress-e2e", port: 18_690 });
  for (const namespace of ["shop", "partner"]) await mesh.kubectl(["create", "namespace", namespace]);
  await mesh.kubectl(["label", "namespace", "shop", "istio-injection=enabled"]);
  await startWorld();
  await deployEchoes(mesh, callers);
  for (const { name } of callers) addresses.set(name, await podIp(mesh, "shop", `app=${name}`));
  worldIp = await podIp(mesh, "partner", "app=world");
});
after(() => mesh?.down());

/** The server outside: TLS with a certificate of a CA of its own, which the gateway is told of. */
async function startWorld(): Promise<void> {
  const clock = {
    nowMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    after: (): (() => void) => () => {},
  };
  const authority = await CertificateAuthority.load(await createSelfSignedMaterial(clock), { clock });
  const served = await authority.issueServing(["api.example.org", "other.example.org"]);
  await apply(
    secret("partner", "served", { "tls.crt": served.chain, "tls.key": served.key }),
    secret(gateways, "partner-ca", { "ca.crt": authority.rootPem }),
  );
  const objects = parseAllDocuments(echoManifest(outside)).map((document) => document.toJS() as KubeObject);
  const [account, service, deployment] = objects as [KubeObject, KubeObject, KubeObject];
  const hidden = ["world", "a", "b"].map((name) => ({
    ...service,
    metadata: { ...service.metadata, name, annotations: { "networking.istio.io/exportTo": "~" } },
  }));
  type PodSpec = { volumes?: unknown; containers: { args: string[]; volumeMounts?: unknown }[] };
  const { spec: pod } = (deployment.spec as { template: { spec: PodSpec } }).template;
  pod.volumes = [{ name: "served", secret: { secretName: "served" } }];
  const [container] = pod.containers;
  container?.args.push("--key-file", "/served/tls.key", "--cert-file", "/served/tls.crt");
  if (container !== undefined) container.volumeMounts = [{ name: "served", mountPath: "/served" }];
  await apply(account, ...hidden, deployment);
  await mesh.kubectl(["rollout", "status", "deployment/world", "-n", "partner", "--timeout=60s"]);
}

test("without a word about it nothing outside is reached", async () => {
  const blocked = await call("one", { url: `http://a.${partner}/` });
  assert.equal(blocked.status, 502, JSON.stringify(blocked));
  assert.equal((await call("one", { url: `https://a.${partner}/` })).status, 0);
  assert.notEqual((await call("one", { url: `tcp://${worldIp}:9000` })).error, undefined);
  assert.match((await call("one", { url: "http://api.example.org/" })).error ?? "", /ENOTFOUND/);
});

test("a blocked host stands in its caller's access log and in the metric, by workload and host", async () => {
  await eventually("the access log", async () => {
    const log = await logOf("one");
    assert.match(log, /"GET \/ HTTP\/1\.1" 502 .*"a\.partner\.svc\.cluster\.local".* block_all$/m);
    // Without a listener for its port nobody has read the server name.
    assert.match(log, / UH .* BlackHoleCluster .*:443 /);
    assert.match(log, new RegExp(` UH .* BlackHoleCluster .*${worldIp.replaceAll(".", "\\.")}:9000 `));
    return true;
  });
  await blockedInMetric(`a.${partner}`);
  await blockedInMetric(`${worldIp}:9000`);
  await blockedInMetric(/[\d.]+:443/);
});

/** Waits until the metric of the first caller's sidecar has one blocked call of a host. */
async function blockedInMetric(host: string | RegExp): Promise<void> {
  const pattern = typeof host === "string" ? host.replaceAll(".", "\\.") : host.source;
  const line = new RegExp(
    `^istio_egress_requests_total\\{.*source_workload="one",.*destination_host="${pattern}",outcome="blocked"\\} 1$`,
    "m",
  );
  await eventually(`a blocked call of ${pattern} in the metric`, async () => {
    const url = `http://${addresses.get("one")}:15020/stats/prometheus`;
    const scraped = await mesh.inNode(["curl", "-s", url]);
    assert.match(scraped.stdout, line);
    return true;
  });
}

test("the gateway lets a caller to the hosts that a policy names for it, and originates TLS", async () => {
  await apply(...httpThroughGateway());
  const reaches = async (caller: string, host: string, status: number) =>
    eventually(`${caller} gets ${status} from ${host}`, async () => {
      const result = await call(caller, { url: `http://${host}/path` });
      assert.equal(result.status, status, JSON.stringify(result));
      if (status !== 200) return true;
      const echo = echoIn(result);
      assert.deepEqual([echo?.host, echo?.port, echo?.sni], [host, 8443, host], "by TLS, with its name");
      return true;
    });
  await reaches("one", "api.example.org", 200);
  await reaches("two", "api.example.org", 403);
  await reaches("one", "other.example.org", 403);
  await reaches("two", "other.example.org", 200);
  // The certificate of the server is not for this name.
  await reaches("one", "impostor.example.org", 503);
  await eventually("the gateway's access log tells of both", async () => {
    const log = await gatewayLog();
    assert.match(
      log,
      /"GET \/path HTTP\/[12][.\d]*" 200 .*"api\.example\.org".* outbound\|443\|\|api\.example\.org /,
    );
    assert.match(log, /"GET \/path HTTP\/[12][.\d]*" 403 .*rbac_access_denied.*"api\.example\.org"/);
    return true;
  });
});

test("TLS of the caller passes by its server name, for a wildcard's hosts, as far as a policy lets it", async () => {
  await apply(...tlsThroughGateway());
  await eventually("the host whose server name the policy has", async () => {
    const result = await call("one", { url: `https://a.${partner}/` });
    const echo = echoIn(result);
    assert.deepEqual([echo?.service, echo?.sni], ["world", `a.${partner}`], JSON.stringify(result));
    await assertFromGateway(result);
    return true;
  });
  assert.equal((await call("one", { url: `https://b.${partner}/` })).status, 0, "another name is refused");
  await eventually("the refusal is in the gateway's access log", async () => {
    assert.match(await gatewayLog(), new RegExp(`rbac_access_denied.* b\\.${partner} -$`, "m"));
    return true;
  });
  // Now the port has a listener, which reads server names.
  assert.equal(
    (await call("one", { url: `https://a.${partner}/`, serverName: "evil.example.net" })).status,
    0,
  );
  await eventually("a blocked server name is in the access log", async () => {
    assert.match(await logOf("one"), / UH .* BlackHoleCluster .* evil\.example\.net -$/m);
    return true;
  });
  await blockedInMetric("evil.example.net");
  await eventually("HTTP to a host of the wildcard is looked up as it is named", async () => {
    const result = await call("two", { url: `http://b.${partner}/` });
    assert.equal(echoIn(result)?.host, `b.${partner}`, JSON.stringify(result));
    return true;
  });
});

test("TLS of the caller passes for the callers that a policy names, where it travels in TLS of the mesh to the gateway", async () => {
  const host = "inner.example.org";
  await apply(...tlsWithinMutual(host));
  await eventually("the caller that the policy names", async () => {
    const result = await call("one", { url: `https://${host}/` });
    const echo = echoIn(result);
    assert.deepEqual([echo?.service, echo?.sni], ["world", host], JSON.stringify(result));
    await assertFromGateway(result);
    return true;
  });
  assert.equal((await call("two", { url: `https://${host}/` })).status, 0, "another caller is refused");
  await eventually("the refusal is in the gateway's access log", async () => {
    assert.match(
      await gatewayLog(),
      new RegExp(`rbac_access_denied.* ${host.replaceAll(".", "\\.")} -$`, "m"),
    );
    return true;
  });
});

test("HTTP to a wildcard's hosts goes through the gateway, for the callers that a policy names", async () => {
  await apply(...wildcardThroughGateway());
  const url = `http://b.${partner}/`;
  await eventually("the caller that the policy names", async () => {
    const result = await call("one", { url });
    assert.equal(echoIn(result)?.host, `b.${partner}`, JSON.stringify(result));
    await assertFromGateway(result);
    return true;
  });
  assert.equal((await call("two", { url })).status, 403);
  // Not a host that DNS knows: the gateway says so.
  assert.equal((await call("one", { url, headers: { Host: `nobody.${partner}` } })).status, 503);
});

async function assertFromGateway(result: Result): Promise<void> {
  const gatewayIp = await podIp(mesh, gateways, "istio=egressgateway");
  assert.match(echoIn(result)?.remoteAddress ?? "", new RegExp(`${gatewayIp.replaceAll(".", "\\.")}$`));
}

test("names that a Sidecar does not import are no names for its workload", async () => {
  const egress = [{ hosts: [`${gateways}/${gatewayHost}`, `${gateways}/other.example.org`] }];
  const spec = { workloadSelector: { labels: { app: "two" } }, egress };
  await apply(object("Sidecar", "shop", "two", spec));
  await eventually("two is answered for its own host alone", async () => {
    assert.match((await call("two", { url: "http://api.example.org/" })).error ?? "", /ENOTFOUND/);
    return true;
  });
  assert.equal((await call("two", { url: "http://other.example.org/" })).status, 200);
  assert.equal((await call("one", { url: "http://api.example.org/" })).status, 200);
});

/** The hosts that callers name by HTTP, which the gateway calls by TLS. */
function httpThroughGateway(): KubeObject[] {
  const hosts = ["api.example.org", "other.example.org", "impostor.example.org"];
  const subset = (host: string) => host.split(".")[0] ?? "";
  const mutual = (host: string) => ({
    name: subset(host),
    trafficPolicy: {
      portLevelSettings: [{ port: { number: 443 }, tls: { mode: "ISTIO_MUTUAL", sni: host } }],
    },
  });
  const principal = (account: string) => [
    { source: { principals: [`cluster.local/ns/shop/sa/${account}`] } },
  ];
  const to = (...names: string[]) => [{ operation: { hosts: names } }];
  return [
    object("Gateway", gateways, "egress", {
      selector: { istio: "egressgateway" },
      servers: [
        { port: { number: 443, name: "https", protocol: "HTTPS" }, hosts, tls: { mode: "ISTIO_MUTUAL" } },
      ],
    }),
    object("DestinationRule", gateways, "egress", { host: gatewayHost, subsets: hosts.map(mutual) }),
    ...hosts.flatMap((host) => [
      object("ServiceEntry", gateways, subset(host), {
        hosts: [host],
        location: "MESH_EXTERNAL",
        resolution: "STATIC",
        ports: [
          { number: 80, name: "http", protocol: "HTTP" },
          { number: 443, name: "https", protocol: "HTTPS" },
        ],
        endpoints: [{ address: worldIp, ports: { http: 8080, https: 8443 } }],
      }),
      object("DestinationRule", gateways, subset(host), {
        host,
        trafficPolicy: {
          portLevelSettings: [
            // Without a server name of its own: then the certificate has to be for the request's host.
            { port: { number: 443 }, tls: { mode: "SIMPLE", credentialName: "partner-ca" } },
          ],
        },
      }),
      object("VirtualService", gateways, subset(host), {
        hosts: [host],
        gateways: ["mesh", "egress"],
        http: [
          {
            match: [{ gateways: ["mesh"], port: 80 }],
            route: [{ destination: { host: gatewayHost, subset: subset(host), port: { number: 443 } } }],
          },
          {
            match: [{ gateways: [`${gateways}/egress`], port: 443 }],
            route: [{ destination: { host, port: { number: 443 } } }],
          },
        ],
      }),
    ]),
    policy("callers", [
      { from: principal("one"), to: to("api.example.org", "impostor.example.org") },
      { from: principal("two"), to: to("other.example.org") },
    ]),
  ];
}

const wildcard = `*.${partner}`;
const wildcardTls = ["mesh", `${gateways}/passthrough`].map((gateway, at) => ({
  match: [{ gateways: [gateway], port: 443, sniHosts: [wildcard] }],
  route: [{ destination: { host: at === 0 ? gatewayHost : wildcard, port: { number: 443 } } }],
}));

/** A wildcard whose hosts callers reach by TLS of their own. */
function tlsThroughGateway(): KubeObject[] {
  return [
    object("ServiceEntry", gateways, "wildcard", {
      hosts: [wildcard],
      location: "MESH_EXTERNAL",
      resolution: "DYNAMIC_DNS",
      ports: [
        { number: 80, name: "http", protocol: "HTTP" },
        { number: 443, name: "tls", protocol: "TLS" },
      ],
    }),
    object("Gateway", gateways, "passthrough", {
      selector: { istio: "egressgateway" },
      servers: [
        {
          port: { number: 443, name: "tls", protocol: "TLS" },
          hosts: [wildcard],
          tls: { mode: "PASSTHROUGH" },
        },
      ],
    }),
    object("VirtualService", gateways, "wildcard", {
      hosts: [wildcard],
      gateways: ["mesh", "passthrough"],
      tls: wildcardTls,
    }),
    policy("server-names", [{ when: [{ key: "connection.sni", values: [`a.${partner}`] }] }]),
  ];
}

/** TLS of the caller for one host, within TLS of the mesh as far as the gateway, which so learns who calls. */
function tlsWithinMutual(host: string): KubeObject[] {
  const tls = { mode: "ISTIO_MUTUAL" };
  return [
    object("ServiceEntry", gateways, "within", {
      hosts: [host],
      location: "MESH_EXTERNAL",
      resolution: "STATIC",
      ports: [{ number: 443, name: "tls", protocol: "TLS", targetPort: 8443 }],
      endpoints: [{ address: worldIp }],
    }),
    object("Gateway", gateways, "within", {
      selector: { istio: "egressgateway" },
      servers: [{ port: { number: 443, name: "tls-within", protocol: "TLS" }, hosts: [host], tls }],
    }),
    object("DestinationRule", gateways, "within", {
      host: gatewayHost,
      subsets: [{ name: "within", trafficPolicy: { tls: { ...tls, sni: host } } }],
    }),
    object("VirtualService", gateways, "within", {
      hosts: [host],
      gateways: ["mesh", "within"],
      tls: [
        {
          match: [{ gateways: ["mesh"], port: 443, sniHosts: [host] }],
          route: [{ destination: { host: gatewayHost, subset: "within", port: { number: 443 } } }],
        },
      ],
      tcp: [
        {
          match: [{ gateways: [`${gateways}/within`], port: 443 }],
          route: [{ destination: { host, port: { number: 443 } } }],
        },
      ],
    }),
    policy("within", [
      {
        from: [{ source: { principals: ["cluster.local/ns/shop/sa/one"] } }],
        when: [{ key: "connection.sni", values: [host] }],
      },
    ]),
  ];
}

/** The wildcard's hosts by HTTP, in TLS of the mesh as far as the gateway, under a name that stands for all of them. */
function wildcardThroughGateway(): KubeObject[] {
  const tls = { mode: "ISTIO_MUTUAL" };
  const gateway = `${gateways}/wild`;
  return [
    object("Gateway", gateways, "wild", {
      selector: { istio: "egressgateway" },
      servers: [{ port: { number: 80, name: "https-wild", protocol: "HTTPS" }, hosts: [wildcard], tls }],
    }),
    object("DestinationRule", gateways, "wild", {
      host: gatewayHost,
      subsets: [{ name: "wild", trafficPolicy: { tls: { ...tls, sni: `any.${partner}` } } }],
    }),
    object("VirtualService", gateways, "wildcard", {
      hosts: [wildcard],
      gateways: ["mesh", "passthrough", "wild"],
      tls: wildcardTls,
      http: [
        {
          match: [{ gateways: ["mesh"], port: 80 }],
          route: [{ destination: { host: gatewayHost, subset: "wild", port: { number: 80 } } }],
        },
        {
          match: [{ gateways: [gateway], port: 80 }],
          route: [{ destination: { host: wildcard, port: { number: 80 } } }],
        },
      ],
    }),
    policy("wild", [
      {
        from: [{ source: { principals: ["cluster.local/ns/shop/sa/one"] } }],
        to: [{ operation: { hosts: [wildcard] } }],
      },
    ]),
  ];
}

function policy(name: string, rules: readonly object[]): KubeObject {
  const spec = { selector: { matchLabels: { istio: "egressgateway" } }, action: "ALLOW", rules };
  return { ...object("AuthorizationPolicy", gateways, name, spec), apiVersion: "security.istio.io/v1" };
}

function object(kind: string, namespace: string, name: string, spec: object): KubeObject {
  return { apiVersion: "networking.istio.io/v1", kind, metadata: { name, namespace }, spec };
}

function secret(namespace: string, name: string, stringData: Readonly<Record<string, string>>): KubeObject {
  return { apiVersion: "v1", kind: "Secret", metadata: { name, namespace }, stringData } as KubeObject;
}

async function apply(...objects: readonly KubeObject[]): Promise<void> {
  await mesh.kubectl(["apply", "-f", "-"], objects.map((one) => stringify(one)).join("---\n"));
}

async function call(caller: string, what: Order): Promise<Result> {
  return single(await order(mesh, addresses.get(caller) ?? "", { timeoutMs: 4_000, ...what }));
}

function single<T>([result]: readonly T[]): T {
  assert.ok(result);
  return result;
}

function logOf(caller: string): Promise<string> {
  return mesh.kubectl(["logs", "-n", "shop", "-l", `app=${caller}`, "-c", "istio-proxy", "--tail=-1"]);
}

function gatewayLog(): Promise<string> {
  return mesh.kubectl(["logs", "-n", gateways, "-l", "istio=egressgateway", "--tail=-1"]);
}
