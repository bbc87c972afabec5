import assert from "node:assert/strict";
import { createServer, request, type Server } from "node:http";
import { createServer as createHttp2, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";
import { silentLog } from "#base";
import { parseConfig, type AgentConfig, type AppProbe } from "./config.ts";
import { frame } from "./grpc.ts";
import { askApplication, inPod } from "./probes.ts";
import { createStatusServer, type StatusOptions } from "./status.ts";

async function listen(server: {
  listen(port: number, host: string, done: () => void): unknown;
  address(): unknown;
}): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** Cut in the middle of a line and of a character, as a network does. */
async function* envoyPage(): AsyncGenerator<Buffer> {
  const page = Buffer.from('envoy_istio_requests_total{reporter="source",path="\u00fc"} 1\n');
  for (let at = 0; at < page.length; at += 7) yield page.subarray(at, at + 7);
}

function application(): Server {
  return createServer((question, answer) => {
    if (question.url === "/metrics") return void answer.end("app_up 1\n# EOF\n");
    const healthy = question.url === "/healthy" && question.headers["x-probe"] === "yes";
    answer.writeHead(healthy ? 200 : 503).end(question.socket.remoteAddress);
  });
}

interface Reply {
  readonly status: number;
  readonly body: Buffer;
  readonly encoding: string | undefined;
}

function ask(
  port: number,
  path: string,
  method = "GET",
  headers: Record<string, string> = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const question = request({ host: "127.0.0.1", port, path, method, headers, agent: false }, (answer) => {
      const parts: Buffer[] = [];
      answer.on("data", (part: Buffer) => parts.push(part));
      const encoding = answer.headers["content-encoding"];
      answer.on("end", () =>
        resolve({ status: answer.statusCode ?? 0, body: Buffer.concat(parts), encoding }),
      );
    });
    question.on("error", reject);
    question.end();
  });
}

test("probes by HTTP, TCP and gRPC say what the application says", async () => {
  const app = application();
  const port = await listen(app);
  const health = createHttp2();
  health.on("stream", (stream: ServerHttp2Stream) => {
    stream.respond({ "content-type": "application/grpc" }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(frame(Buffer.from([0x08, 1])));
  });
  const healthPort = await listen(health);
  const statusOf = async (probe: AppProbe): Promise<number> =>
    (await askApplication(probe, inPod("127.0.0.1"))).status;
  try {
    const httpHeaders = [{ name: "X-Probe", value: "yes" }];
    assert.equal(await statusOf({ httpGet: { path: "/healthy", port, httpHeaders } }), 200);
    assert.equal(await statusOf({ httpGet: { path: "/sick", port } }), 503);
    assert.equal(await statusOf({ tcpSocket: { port } }), 200);
    assert.equal(await statusOf({ tcpSocket: { port: 1 } }), 500);
    assert.equal(await statusOf({ grpc: { port: healthPort } }), 200);
    assert.equal(await statusOf({ grpc: { port } }), 500);
  } finally {
    app.close();
    health.close();
  }
});

function serverOf(
  config: AgentConfig,
  more: Pick<StatusOptions, "isDraining" | "onQuit"> = { isDraining: () => false, onQuit: () => {} },
): Server {
  return createStatusServer({
    config,
    log: silentLog,
    admin: {
      open: () => Promise.resolve(envoyPage()),
      readiness: () => Promise.resolve({ ready: true, reason: "" }),
    },
    principal: "spiffe://td/ns/default/sa/a",
    records: { render: () => "" },
    counts: () => ({
      caFailures: 0,
      rotations: 0,
      envoyRestarts: 0,
      recordsDropped: 0,
      residentBytes: 1,
      version: "1",
      certificateExpirySeconds: 1,
    }),
    ...more,
  });
}

test("the page of metrics is not compressed where ProxyConfig says so", async () => {
  const env = { POD_NAME: "a", POD_NAMESPACE: "default", PROXY_CONFIG: '{"statsCompression":false}' };
  const server = serverOf(parseConfig({ env, args: [], labels: {}, annotations: {}, envoyPath: "envoy" }));
  try {
    const port = await listen(server);
    const page = await ask(port, "/stats/prometheus", "GET", { "accept-encoding": "gzip" });
    assert.equal(page.encoding ?? "", "");
    assert.match(page.body.toString(), /istio_requests_total/);
  } finally {
    server.close();
  }
});

test("15020 answers readiness, known probes, metrics of all three, and ends only for loopback's POST", async () => {
  const app = application();
  const appPort = await listen(app);
  const env = {
    POD_NAME: "a",
    POD_NAMESPACE: "default",
    INSTANCE_IP: "127.0.0.1",
    ISTIO_KUBE_APP_PROBERS: JSON.stringify({ "/app-health/app/readyz": { tcpSocket: { port: appPort } } }),
    ISTIO_PROMETHEUS_ANNOTATIONS: JSON.stringify({ scrape: "true", port: String(appPort) }),
  };
  const config = parseConfig({ env, args: [], labels: {}, annotations: {}, envoyPath: "envoy" });
  let draining = false;
  let quits = 0;
  const server = serverOf(config, { isDraining: () => draining, onQuit: () => (quits += 1) });
  const port = await listen(server);
  try {
    assert.equal((await ask(port, "/healthz/ready")).status, 200);
    draining = true;
    assert.equal((await ask(port, "/healthz/ready")).status, 503);
    assert.equal((await ask(port, "/app-health/app/readyz")).status, 200);
    assert.equal((await ask(port, "/app-health/app/livez")).status, 404);
    const page = await ask(port, "/stats/prometheus", "GET", { "accept-encoding": "gzip" });
    assert.equal(page.encoding, "gzip");
    const text = gunzipSync(page.body).toString();
    for (const part of ["istio_build{", "\nistio_requests_total{reporter=", "\napp_up 1\n"])
      assert.ok(text.includes(part), part);
    assert.ok(!text.includes("# EOF"));
    assert.ok(text.includes('path="\u00fc"'));
    assert.equal((await ask(port, "/quitquitquit")).status, 405);
    assert.equal((await ask(port, "/quitquitquit", "POST")).status, 200);
    assert.equal(quits, 1);
  } finally {
    server.close();
    app.close();
  }
});
