// A connection to the API server that fails in every way that a test wants.

import http from "node:http";
import https from "node:https";
import type { AddressInfo } from "node:net";
import { stringify } from "yaml";
import type { KubeAccess } from "#kube";

/** What the connection does to each request. */
export type Fault =
  | { readonly kind: "none" }
  | { readonly kind: "slow"; readonly ms: number }
  | { readonly kind: "status"; readonly status: number; readonly watchesOnly?: boolean }
  | { readonly kind: "refused" };

/** Stands between the control plane and the API server. */
export class FaultyConnection {
  readonly #server: http.Server;
  readonly #access: KubeAccess;
  /** By the path of their collection. */
  readonly #watches = new Map<http.ServerResponse, string>();
  fault: Fault = { kind: "none" };
  /** Requests for this collection wait until they are let go. */
  heldBack: string | undefined;
  readonly #waiting: (() => void)[] = [];

  constructor(access: KubeAccess) {
    this.#access = access;
    this.#server = http.createServer((request, response) => this.#serve(request, response));
  }

  /** Listens, and gives a kubeconfig for it. */
  async listen(): Promise<string> {
    await new Promise<void>((listening) => this.#server.listen(0, "127.0.0.1", listening));
    return kubeconfigFor(`http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`);
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  letGo(): void {
    this.heldBack = undefined;
    for (const go of this.#waiting.splice(0)) go();
  }

  /** Breaks every watch off in the middle. */
  cutWatches(): void {
    for (const response of this.#watches.keys()) response.socket?.destroy();
    this.#watches.clear();
  }

  /** Says to all who watch a collection that its objects have changed, past the API server. */
  inject(path: string, objects: readonly object[]): void {
    const lines = objects.map((object) => `${JSON.stringify({ type: "MODIFIED", object })}\n`).join("");
    for (const [response, watched] of this.#watches) if (watched === path) response.write(lines);
  }

  #serve(request: http.IncomingMessage, response: http.ServerResponse): void {
    const { fault } = this;
    const isWatch = (request.url ?? "").includes("watch=true");
    if (this.heldBack !== undefined && new URL(request.url ?? "/", "http://x").pathname === this.heldBack)
      this.#waiting.push(() => this.#forward(request, response, isWatch));
    else if (fault.kind === "refused") request.socket.destroy();
    else if (fault.kind === "status" && (isWatch || fault.watchesOnly !== true))
      response
        .writeHead(fault.status)
        .end(JSON.stringify({ reason: "Scripted", message: "as the test wants" }));
    else if (fault.kind === "slow") setTimeout(() => this.#forward(request, response, isWatch), fault.ms);
    else this.#forward(request, response, isWatch);
  }

  #forward(request: http.IncomingMessage, response: http.ServerResponse, isWatch: boolean): void {
    const { server, ca, clientCertificate, clientKey } = this.#access;
    const options = { method: request.method, ca, cert: clientCertificate, key: clientKey };
    const headers = { accept: "application/json", "content-type": request.headers["content-type"] };
    const sent = https.request(
      new URL(request.url ?? "/", server),
      { ...options, headers: headers["content-type"] === undefined ? { accept: headers.accept } : headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 500, answer.headers);
        // A watch may be silent for long after its head.
        response.flushHeaders();
        answer.pipe(response);
        answer.on("error", () => response.destroy());
      },
    );
    sent.on("error", () => response.destroy());
    if (isWatch) this.#watches.set(response, new URL(request.url ?? "/", server).pathname);
    response.on("close", () => {
      this.#watches.delete(response);
      sent.destroy();
    });
    request.pipe(sent);
  }
}

function kubeconfigFor(server: string): string {
  return stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "test",
    clusters: [{ name: "test", cluster: { server } }],
    users: [{ name: "test", user: {} }],
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
  });
}
