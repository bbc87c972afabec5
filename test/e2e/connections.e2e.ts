// How proxies connect to servers, as DestinationRules say it: by which TLS, at sidecars and at the egress gateway, and what they ask
// of the server's certificate; with which HTTP, behind which header, and for how long. The servers outside say what they saw.

import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { parse, stringify } from "yaml";
import type { KubeObject } from "#objects";
import { TestAuthority, type Pair } from "../support/test-authority.ts";
import { echoIn, type EchoApp, type Result } from "./echoes.ts";
import { assertMutualTls, destinationRule, Ground, namespace, networking, serviceEntry } from "./ground.ts";
import { command, configText, eventually, patchConfig } from "./mesh.ts";
import type { SeenTls } from "./tls-server.ts";

const ports = [{ name: "http", servicePort: 80, workloadPort: 8080, flag: "http" }] as const;
const mounts = {
  "sidecar.istio.io/userVolume": JSON.stringify({ tls: { secret: { secretName: "client-files" } } }),
  "sidecar.istio.io/userVolumeMount": JSON.stringify({ tls: { mountPath: "/etc/tls", readOnly: true } }),
};
const apps: readonly EchoApp[] = [
  { name: "caller", namespace, ports, annotations: mounts },
  { name: "peer", namespace, ports },
  {
    name: "stranger",
    namespace: "outside",
    naked: true,
    ports: [
      ...ports,
      { name: "http-proxied", servicePort: 81, workloadPort: 8081, flag: "http-behind-proxy" },
      { name: "tcp", servicePort: 9000, workloadPort: 9001, flag: "tcp" },
    ],
  },
];
const serverPort = 9443;
const gateways = "sm-gateways";
const gatewayHost = `istio-egressgateway.${gateways}.svc.cluster.local`;
/** The name on the server's certificate. */
const certified = "server.example.com";

let ground: Ground;
let folder = "";

before(async () => {
  const authority = await TestAuthority.create("ours");
  const server = await authority.issue([certified]);
  const client = await authority.issue(["client.example.com"]);
  folder = mkdtempSync(join(tmpdir(), "mizzen-connections-"));
  writeFileSync(join(folder, "server.crt"), server.certificate);
  writeFileSync(join(folder, "server.key"), server.key);
  writeFileSync(join(folder, "ca.crt"), authority.certificate);
  const ca = authority.certificate;
  ground = await Ground.start({
    name: "connections-e2e",
    port: 18_900,
    apps,
    otherNamespaces: ["outside"],
    objects: [
      secret("client-files", namespace, {
        "own.crt": client.certificate,
        "own.key": client.key,
        "ca.crt": ca,
      }),
      secret("client", gateways, { ...pairOf(client), "ca.crt": ca }),
      secret("ca-alone", gateways, { "ca.crt": ca }),
    ],
  });
});
after(async () => {
  rmSync(folder, { recursive: true, force: true });
  await ground?.down();
});

function pairOf({ certificate, key }: Pair): Record<string, string> {
  return { "tls.crt": certificate, "tls.key": key };
}

function secret(name: string, of: string, stringData: Readonly<Record<string, string>>): KubeObject {
  return { apiVersion: "v1", kind: "Secret", metadata: { name, namespace: of }, stringData } as KubeObject;
}

/** One host outside, what the rule for it says of TLS, and what comes of a call. */
interface Case {
  readonly host: string;
  readonly tls: object;
  readonly gets: SeenTls | "no connection";
}

const files = { clientCertificate: "/etc/tls/own.crt", privateKey: "/etc/tls/own.key" };
const caCertificates = "/etc/tls/ca.crt";
const seen = (serverName: string): SeenTls => ({ serverName, client: "", authorized: false });
const known = (serverName: string): SeenTls => ({
  serverName,
  client: "client.example.com",
  authorized: true,
});

const atSidecars: readonly Case[] = [
  { host: certified, tls: { mode: "SIMPLE", caCertificates }, gets: seen(certified) },
  { host: "wrong-name.example.com", tls: { mode: "SIMPLE", caCertificates }, gets: "no connection" },
  {
    host: "other-name.example.com",
    tls: { mode: "SIMPLE", caCertificates, subjectAltNames: [certified] },
    gets: seen("other-name.example.com"),
  },
  {
    host: "nobody.example.com",
    tls: { mode: "SIMPLE", caCertificates, sni: certified, subjectAltNames: ["nobody.example.com"] },
    gets: "no connection",
  },
  {
    host: "by-sni.example.com",
    tls: { mode: "SIMPLE", caCertificates, sni: certified },
    gets: seen(certified),
  },
  { host: "system.example.com", tls: { mode: "SIMPLE", sni: certified }, gets: "no connection" },
  {
    host: "unverified.example.com",
    tls: { mode: "SIMPLE", insecureSkipVerify: true },
    gets: seen("unverified.example.com"),
  },
  {
    host: "mutual.example.com",
    tls: { mode: "MUTUAL", ...files, caCertificates, subjectAltNames: [certified] },
    gets: known("mutual.example.com"),
  },
  {
    host: "mutual-unverified.example.com",
    tls: { mode: "MUTUAL", ...files, insecureSkipVerify: true },
    gets: known("mutual-unverified.example.com"),
  },
];

const atTheGateway: readonly Case[] = [
  { host: certified, tls: { mode: "SIMPLE", credentialName: "ca-alone" }, gets: seen(certified) },
  {
    host: "wrong-name.example.com",
    tls: { mode: "SIMPLE", credentialName: "ca-alone" },
    gets: "no connection",
  },
  {
    host: "mutual.example.com",
    tls: { mode: "MUTUAL", credentialName: "client", sni: certified, subjectAltNames: [certified] },
    gets: known(certified),
  },
  {
    host: "nobody.example.com",
    tls: { mode: "MUTUAL", credentialName: "client", subjectAltNames: ["nobody.example.com"] },
    gets: "no connection",
  },
  {
    host: "unverified.example.com",
    tls: { mode: "SIMPLE", insecureSkipVerify: true },
    gets: seen("unverified.example.com"),
  },
];

test("a sidecar originates TLS as the rule for the host says, and asks of the server's certificate what it says", () =>
  withServer(() =>
    ground.applied(
      atSidecars.flatMap(({ host, tls }, at) => [entry(host, at), destinationRule(host, { tls })]),
      async () => {
        for (const [at, one] of atSidecars.entries()) await callGets(one, at);
      },
    ),
  ));

test("the egress gateway does the same with Secrets, for callers that come by TLS of the mesh", () =>
  withServer(() =>
    ground.applied(
      [
        ...throughGateway(atTheGateway.map(({ host }) => host)),
        ...atTheGateway.flatMap(({ host, tls }, at) => [entry(host, at), destinationRule(host, { tls })]),
      ],
      async () => {
        for (const [at, one] of atTheGateway.entries()) await callGets(one, at);
      },
    ),
  ));

test("within the mesh a rule takes TLS away, and gives it back with the name of its own choice", async () => {
  const gets = (tls: object, check: (result: Result) => void) =>
    ground.applied([destinationRule("peer", { tls })], () => ground.answered({ url: "http://peer/" }, check));
  await gets({ mode: "DISABLE" }, ({ status }) => assert.equal(status, 503));
  await gets({ mode: "ISTIO_MUTUAL" }, assertMutualTls);
  await gets({ mode: "ISTIO_MUTUAL", sni: "any.example.com" }, assertMutualTls);
  const peer = `spiffe://cluster.local/ns/${namespace}/sa/peer`;
  await gets({ mode: "ISTIO_MUTUAL", subjectAltNames: [peer] }, assertMutualTls);
  await gets({ mode: "ISTIO_MUTUAL", subjectAltNames: [`${peer}-else`] }, ({ status }) =>
    assert.equal(status, 503),
  );
});

const host = "wire.example.com";
const address = "240.79.1.1";

/** A host outside with one port, which is a port of the stranger's. */
function wire(protocol: string, targetPort: number): KubeObject {
  return serviceEntry(host, {
    addresses: [address],
    resolution: "STATIC",
    ports: [{ name: "wire", protocol, number: 9700, targetPort }],
    endpoints: [{ address: ground.addressOf("stranger") }],
  });
}

test("a server behind the PROXY protocol gets its header, in the version that the rule says", () =>
  ground.applied([wire("HTTP", 8081)], async () => {
    for (const version of ["V1", "V2"] as const)
      await ground.applied([destinationRule(host, { proxyProtocol: { version } })], () =>
        ground.answered({ url: `http://${address}:9700/` }, (result) =>
          assert.equal(echoIn(result)?.proxyProtocol, version.slice(1), JSON.stringify(result)),
        ),
      );
  }));

test("servers get HTTP/1.1, or HTTP/2 where the rule or MeshConfig says so, or what the application spoke", async () => {
  const speaks = (http2: boolean, version: string) =>
    ground.answered({ url: `http://${address}:9700/`, http2 }, (result) =>
      assert.equal(echoIn(result)?.protocol, `HTTP/${version}`, JSON.stringify(result)),
    );
  const ruled = (http: object, work: () => Promise<void>) =>
    ground.applied([destinationRule(host, { connectionPool: { http } })], work);
  await ground.applied([wire("HTTP", 8080)], async () => {
    await speaks(false, "1.1");
    await speaks(true, "1.1");
    await ruled({ h2UpgradePolicy: "UPGRADE" }, () => speaks(false, "2.0"));
    await ruled({ useClientProtocol: true }, async () => {
      await speaks(true, "2.0");
      await speaks(false, "1.1");
    });
    const written = parse(await configText(ground.mesh, "istio", "mesh")) as object;
    await patchConfig(ground.mesh, "istio", { mesh: stringify({ ...written, h2UpgradePolicy: "UPGRADE" }) });
    try {
      await speaks(false, "2.0");
      await ruled({ h2UpgradePolicy: "DO_NOT_UPGRADE" }, () => speaks(false, "1.1"));
    } finally {
      await patchConfig(ground.mesh, "istio", { mesh: stringify(written) });
    }
  });
});

test("connections to servers end when they are idle, old or used up, and are asked for life, as the rule says", async () => {
  const program = join(import.meta.dirname, "faulty-server.ts");
  /** The numbers of the connections by which so many calls came. */
  const usedBy = async (count: number) => {
    const results = await ground.calls({ url: `http://${address}:9700/`, count });
    assert.ok(
      results.every(({ status }) => status === 200),
      JSON.stringify(results[0]),
    );
    return new Set(results.map(({ body }) => Number(body)));
  };
  const ruled = (connectionPool: object, work: () => Promise<unknown>) =>
    ground.applied([destinationRule(host, { connectionPool })], work);
  await ground.running({ app: "stranger", of: "outside", args: [program, "7001"] }, (lines) =>
    ground.applied([wire("HTTP2", 7001)], async () => {
      const first = await eventually("the server", () => usedBy(20));
      assert.ok(first.size <= 2, "a connection for each of the proxy's threads");
      await ruled({ http: { maxRequestsPerConnection: 2 } }, () =>
        eventually("two requests a connection", async () =>
          (await usedBy(12)).size >= 6 ? true : undefined,
        ),
      );
      await ruled({ http: { idleTimeout: "1s" } }, () =>
        eventually("an idle one ends", async () => {
          const [number] = await usedBy(1);
          await eventually("its end", async () => lines.includes(`close ${number}`) || undefined, 5_000);
          return true;
        }),
      );
      await ruled({ tcp: { maxConnectionDuration: "1s" } }, async () => {
        const before = Math.max(...(await usedBy(4)));
        await eventually("an old one ends, though it is in use", async () =>
          Math.min(...(await usedBy(4))) > before ? true : undefined,
        );
      });
      await ruled({ http: { http2KeepAlive: { interval: "1s", timeout: "5s" } } }, () =>
        eventually("a ping", async () => {
          const [number] = await usedBy(1);
          await eventually("for it", async () => lines.includes(`ping ${number}`) || undefined, 3_000);
          return true;
        }),
      );
    }),
  );
});

test("connections of applications end when they are idle or old, as the rule says, and the kernel asks servers for life", async () => {
  /** Says when the connection opens, and when it ends while it says something every so often, if ever. */
  const talker = (everyMs: number) => `
    const socket = require("node:net").connect(9700, "${address}");
    const talk = () => socket.write("hello\\n");
    socket.on("data", () => {}).once("data", () => console.log("open")).on("close", () => console.log("closed"));
    talk();
    if (${everyMs} > 0) setInterval(talk, ${everyMs});`;
  const ends = (tcp: object, everyMs: number) =>
    ground.applied([destinationRule(host, { connectionPool: { tcp } })], () =>
      // The first connection may be older than the rule.
      eventually(JSON.stringify(tcp), async () => {
        await ground.running({ app: "caller", args: ["-e", talker(everyMs)] }, (lines) =>
          eventually("its end", async () => lines.includes("closed") || undefined, 4_000),
        );
        return true;
      }),
    );
  await ground.applied([wire("TCP", 9001)], async () => {
    await ground.answered({ url: `tcp://${address}:9700` }, ({ body }) =>
      assert.match(body, /service=stranger/),
    );
    await ends({ idleTimeout: "1s" }, 0);
    await ends({ maxConnectionDuration: "1s" }, 100);
    const tcpKeepalive = { time: "77s", interval: "5s", probes: 3 };
    await ground.applied([destinationRule(host, { connectionPool: { tcp: { tcpKeepalive } } })], () =>
      ground.running({ app: "caller", args: ["-e", talker(0)] }, async () => {
        const netns = await ground.netnsOf("caller");
        const to = `${ground.addressOf("stranger")}:9001`;
        await eventually("a timer of the kernel's", async () => {
          const { stdout } = await command("nsenter", [netns, "--", "ss", "-tnoH", "dst", to]);
          assert.match(stdout, /timer:\(keepalive,1min1\d/, stdout);
          return true;
        });
      }),
    );
  });
});

async function callGets({ host: named, gets }: Case, at: number): Promise<void> {
  await ground.answered({ url: `http://${addressOf(at)}/`, headers: { Host: named } }, ({ status, body }) => {
    if (gets === "no connection") assert.equal(status, 503, named);
    else assert.deepEqual(status === 200 ? JSON.parse(body) : body, gets, named);
  });
}

function addressOf(at: number): string {
  return `240.79.0.${at + 1}`;
}

/** Port 80 of the host, which is the server's port for TLS. */
function entry(host: string, at: number): KubeObject {
  return serviceEntry(host, {
    addresses: [addressOf(at)],
    resolution: "STATIC",
    ports: [{ name: "http", protocol: "HTTP", number: 80, targetPort: serverPort }],
    endpoints: [{ address: ground.addressOf("stranger") }],
  });
}

function withServer(work: () => Promise<unknown>): Promise<void> {
  const program = join(import.meta.dirname, "tls-server.ts");
  const paths = ["server.crt", "server.key", "ca.crt"].map((file) => join(folder, file));
  return ground.running(
    { app: "stranger", of: "outside", args: [program, String(serverPort), ...paths] },
    work,
  );
}

/** Requests for the hosts go from sidecars to the egress gateway, and from there on. */
function throughGateway(hosts: readonly string[]): KubeObject[] {
  const label = (host: string) => host.split(".")[0] ?? "";
  const tls = { mode: "ISTIO_MUTUAL" };
  return [
    networking("Gateway", "egress", {
      selector: { istio: "egressgateway" },
      servers: [{ port: { number: 443, name: "https", protocol: "HTTPS" }, hosts, tls }],
    }),
    networking("DestinationRule", "egress", {
      host: gatewayHost,
      subsets: hosts.map((host) => ({ name: label(host), trafficPolicy: { tls: { ...tls, sni: host } } })),
    }),
    ...hosts.map((host) =>
      networking("VirtualService", label(host), {
        hosts: [host],
        gateways: ["mesh", "egress"],
        http: [
          {
            match: [{ gateways: ["mesh"] }],
            route: [{ destination: { host: gatewayHost, subset: label(host), port: { number: 443 } } }],
          },
          {
            match: [{ gateways: ["egress"] }],
            route: [{ destination: { host, port: { number: 80 } } }],
          },
        ],
      }),
    ),
  ];
}
