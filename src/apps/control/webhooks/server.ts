// The HTTPS server on 15017: POST /inject and /validate, GET /ready. It takes its certificate anew at each handshake, so a rotated
// one needs no restart.

import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { createSecureContext, type SecureContext } from "node:tls";
import { controlPlaneLimits, type ReachControlLimit } from "../limits.ts";
import { type Answers, answerInject, answerValidate } from "./answers.ts";
import { type AdmissionRequest, type AdmissionResponse, parseReview, renderReview } from "./review.ts";

export interface WebhookOptions extends Answers {
  /** 0 takes a free port. */
  readonly port: number;
  readonly host?: string;
  /** The certificate chain and key of the moment. */
  readonly certificate: () => { readonly certPem: string; readonly keyPem: string };
  readonly reached?: ReachControlLimit;
}

export interface WebhookServer {
  readonly port: number;
  /** To be called when the certificate changed; clients that send no server name get the new one only then. */
  certificateChanged(): void;
  close(): Promise<void>;
}

const bodyBytesMax = controlPlaneLimits.webhookBytes.value;

const paths: Readonly<Record<string, (request: AdmissionRequest, answers: Answers) => AdmissionResponse>> = {
  "/inject": answerInject,
  "/validate": answerValidate,
};

/** Resolves when it listens; rejects when the port is taken. */
export function startWebhooks(options: WebhookOptions): Promise<WebhookServer> {
  const context = cachedContext(options.certificate);
  const { certPem, keyPem } = options.certificate();
  const server = createServer(
    {
      cert: certPem,
      key: keyPem,
      minVersion: "TLSv1.2",
      SNICallback: (_name, done) => done(null, context()),
    },
    (incoming, response) => void respond(incoming, response, options),
  );
  // A client that does not speak TLS, or distrusts us, is its own problem; the API server says so to its user.
  server.on("tlsClientError", (error) =>
    options.log.debug({ error: error.message }, "webhook handshake failed"),
  );
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, options.host ?? "0.0.0.0", () => {
      resolve({
        port: (server.address() as AddressInfo).port,
        certificateChanged: () => {
          const next = options.certificate();
          server.setSecureContext({ cert: next.certPem, key: next.keyPem, minVersion: "TLSv1.2" });
        },
        close: () =>
          new Promise((closed) => {
            server.close(() => closed());
            server.closeIdleConnections();
          }),
      });
    });
  });
}

function cachedContext(certificate: WebhookOptions["certificate"]): () => SecureContext {
  let of = "";
  let context: SecureContext | undefined;
  return () => {
    const { certPem, keyPem } = certificate();
    if (context === undefined || of !== certPem) {
      context = createSecureContext({ cert: certPem, key: keyPem, minVersion: "TLSv1.2" });
      of = certPem;
    }
    return context;
  };
}

async function respond(
  incoming: IncomingMessage,
  response: ServerResponse,
  options: WebhookOptions,
): Promise<void> {
  const path = (incoming.url ?? "/").split("?")[0] ?? "/";
  // Istio's webhook takes variables after the path: /inject/cluster/x/net/y.
  const question = paths[path] ?? (path.startsWith("/inject/") ? answerInject : undefined);
  if (path === "/ready" || path === "/httpsReady") return send(response, 200, "text/plain", "ok\n");
  if (question === undefined)
    return send(response, 404, "text/plain", "there are /inject and /validate here\n");
  if (incoming.method !== "POST") return send(response, 405, "text/plain", "POST an AdmissionReview\n");
  try {
    const request = parseReview(await readBody(incoming));
    send(response, 200, "application/json", renderReview(question(request, options)));
  } catch (cause) {
    const text = cause instanceof Error ? cause.message : String(cause);
    if (cause instanceof BodyTooLarge) options.reached?.("webhookBytes");
    const isTheirs = cause instanceof SyntaxError;
    if (!isTheirs)
      options.log.error(
        { path, error: cause instanceof Error ? (cause.stack ?? text) : text },
        "webhook failed",
      );
    const status = cause instanceof BodyTooLarge ? 413 : isTheirs ? 400 : 500;
    send(response, status, "text/plain", `${text}\n`);
  }
}

class BodyTooLarge extends Error {}

async function readBody(incoming: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of incoming as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > bodyBytesMax) throw new BodyTooLarge(`an AdmissionReview has at most ${bodyBytesMax} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { "content-type": type, "content-length": Buffer.byteLength(body) }).end(body);
}
