// Calls a gateway over HTTP/3 with an Envoy as the client, which speaks nothing else to it. A program of its own, since it has to
// run inside the node's network: an Http3Calls on standard input, a list of Http3Answers on standard output.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Message } from "#envoy";
import { loopbackAddress, startEnvoy } from "../support/envoy-process.ts";
import { freePorts } from "../support/free-ports.ts";

export interface Http3Calls {
  readonly address: string;
  readonly port: number;
  /** Who has to have signed the servers' certificates. Envoy besides wants the server's name in them. */
  readonly root: string;
  /** Server names and Hosts, each called once, without a certificate of the client. */
  readonly hosts: readonly string[];
  /** So long a body is sent with each; a call without one is a GET. */
  readonly bodyBytes?: number;
}

export interface Http3Answer {
  /** 503 where there was no connection; the body says why. */
  readonly status: number;
  readonly body: string;
}

const timeoutMs = 10_000;

async function calls({ address, port, root, hosts, bodyBytes = 0 }: Http3Calls): Promise<Http3Answer[]> {
  const folder = mkdtempSync(join(tmpdir(), "mizzen-http3-"));
  const ca = join(folder, "ca.crt");
  writeFileSync(ca, root);
  const [adminPort = 0, listenerPort = 0] = await freePorts(2);
  const envoy = await startEnvoy(folder, "http3-client", adminPort, {
    listeners: [listener(listenerPort, hosts)],
    clusters: hosts.map((host) => cluster(host, address, port, ca)),
    secrets: [],
  });
  try {
    return await Promise.all(hosts.map((host) => call(listenerPort, host, bodyBytes)));
  } finally {
    envoy.kill("SIGKILL");
    rmSync(folder, { recursive: true });
  }
}

function listener(port: number, hosts: readonly string[]): Message {
  const type = "type.googleapis.com/envoy.extensions.filters";
  const manager = {
    "@type": `${type}.network.http_connection_manager.v3.HttpConnectionManager`,
    statPrefix: "calls",
    routeConfig: {
      virtualHosts: hosts.map((host) => ({
        name: host,
        domains: [host],
        routes: [{ match: { prefix: "/" }, route: { cluster: host } }],
      })),
    },
    httpFilters: [
      { name: "envoy.filters.http.router", typedConfig: { "@type": `${type}.http.router.v3.Router` } },
    ],
  };
  const filters = [{ name: "envoy.filters.network.http_connection_manager", typedConfig: manager }];
  return { name: "calls", address: loopbackAddress(port), filterChains: [{ filters }] };
}

function cluster(host: string, address: string, portValue: number, ca: string): Message {
  const protocols = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
  return {
    name: host,
    type: "STATIC",
    connectTimeout: { seconds: 5 },
    typedExtensionProtocolOptions: {
      [protocols]: {
        "@type": `type.googleapis.com/${protocols}`,
        explicitHttpConfig: { http3ProtocolOptions: {} },
      },
    },
    transportSocket: {
      name: "envoy.transport_sockets.quic",
      typedConfig: {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
        upstreamTlsContext: {
          sni: host,
          commonTlsContext: { validationContext: { trustedCa: { filename: ca } } },
        },
      },
    },
    loadAssignment: {
      clusterName: host,
      endpoints: [{ lbEndpoints: [{ endpoint: { address: { socketAddress: { address, portValue } } } }] }],
    },
  };
}

function call(port: number, host: string, bodyBytes: number): Promise<Http3Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Http3Answer>();
  const method = bodyBytes === 0 ? "GET" : "POST";
  const options = { host: "127.0.0.1", port, method, headers: { host }, timeout: timeoutMs };
  const sent = request(options, (response) => {
    let body = "";
    response.on("data", (chunk: Buffer) => (body += chunk.toString()));
    response.on("error", reject);
    response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
  });
  sent.on("timeout", () => sent.destroy(new Error("timed out")));
  sent.on("error", reject);
  sent.end(bodyBytes === 0 ? undefined : Buffer.alloc(bodyBytes, "x"));
  return promise;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) chunks.push(chunk);
  const answers = await calls(JSON.parse(Buffer.concat(chunks).toString()) as Http3Calls);
  process.stdout.write(JSON.stringify(answers), () => process.exit(0));
}
