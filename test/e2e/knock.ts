// Knocks at istiod's port for proxies, as a workload or as an attacker would, and says what it was answered. A program of
// its own, since it has to run inside the node's network: a JSON list of Knocks on standard input, a list of Replies on
// standard output.

import { connect } from "node:http2";
import { pathToFileURL } from "node:url";
import protobuf from "protobufjs/minimal.js";
import { encodeMessage } from "#envoy";
import { adsPath } from "#xds";
import { createRequest } from "../../src/apps/agent/request.ts";

export interface Knock {
  /** A certificate for `csrFor`, or the configuration of the proxy `node`. */
  readonly ask:
    | { readonly kind: "certificate"; readonly csrFor: string }
    | { readonly kind: "configuration"; readonly node: string };
  readonly address: string;
  readonly root: string;
  readonly token?: string;
  readonly certificate?: { readonly chain: string; readonly key: string };
}

export interface Reply {
  /** The gRPC status; -1 without an answer. */
  readonly status: number;
  readonly message: string;
  /** Of an issued certificate. */
  readonly certificate?: { readonly chain: string; readonly key: string };
}

const certificatePath = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
const timeoutMs = 10_000;

async function knock(what: Knock): Promise<Reply> {
  if (what.ask.kind === "configuration") {
    const request = encodeMessage("envoy.service.discovery.v3.DeltaDiscoveryRequest", {
      node: { id: what.ask.node },
      typeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
    });
    const { status, message } = await call(adsPath, request, what);
    return { status, message };
  }
  const { csrPem, keyPem: key } = await createRequest(what.ask.csrFor);
  const body = protobuf.Writer.create().uint32(0x0a).string(csrPem).uint32(0x18).int64(3_600).finish();
  const { status, message, bytes } = await call(certificatePath, body, what);
  return status === 0
    ? { status, message, certificate: { chain: chainOf(bytes), key } }
    : { status, message };
}

interface Answer {
  readonly status: number;
  readonly message: string;
  readonly bytes: Buffer;
}

/** Sends one message and takes the first answer or the refusal. */
function call(
  path: string,
  message: Uint8Array,
  { address, root, token, certificate }: Knock,
): Promise<Answer> {
  const client = connect(`https://${address}:15012`, {
    ca: root,
    servername: "istiod.istio-d.svc",
    cert: certificate?.chain,
    key: certificate?.key,
  });
  const answered = new Promise<Answer>((resolve) => {
    const chunks: Buffer[] = [];
    const fail = (error: Error) => resolve({ status: -1, message: error.message, bytes: Buffer.alloc(0) });
    client.once("error", fail);
    const stream = client.request({
      ":method": "POST",
      ":path": path,
      "content-type": "application/grpc",
      te: "trailers",
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    });
    const done = (headers: Readonly<Record<string, unknown>>) =>
      resolve({
        status: Number(headers["grpc-status"] ?? -1),
        message: decodeURIComponent(String(headers["grpc-message"] ?? "")),
        bytes: Buffer.concat(chunks),
      });
    stream.setTimeout(timeoutMs, () => fail(new Error(`no answer within ${timeoutMs} ms`)));
    stream.on("response", (headers) => headers["grpc-status"] !== undefined && done(headers));
    stream.on("trailers", done);
    stream.on("error", fail);
    stream.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      // A stream stays open; its first message is the answer.
      if (path === adsPath) done({ "grpc-status": "0" });
    });
    const head = Buffer.alloc(5);
    head.writeUInt32BE(message.length, 1);
    stream.write(Buffer.concat([head, message]));
    if (path !== adsPath) stream.end();
  });
  return answered.finally(() => client.destroy());
}

/** IstioCertificateResponse: the chain, each a PEM. */
function chainOf(frame: Buffer): string {
  const reader = protobuf.Reader.create(frame.subarray(5));
  let chain = "";
  while (reader.pos < reader.len) if (reader.uint32() >>> 3 === 1) chain += reader.string();
  return chain;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) chunks.push(chunk);
  const replies: Reply[] = [];
  for (const one of JSON.parse(Buffer.concat(chunks).toString()) as Knock[]) replies.push(await knock(one));
  process.stdout.write(JSON.stringify(replies), () => process.exit(0));
}
