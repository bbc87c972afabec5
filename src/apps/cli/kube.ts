// A small client of the Kubernetes API: what the commands need, quick to load. A kubeconfig whose user signs in by a plug-in is read by the
// client library instead, which is loaded only then.

import { readFileSync } from "node:fs";
import { Agent, type AgentOptions, request, type RequestOptions } from "node:https";
import { dirname, resolve } from "node:path";
import { parse } from "yaml";
import { NotSoError } from "./command.ts";

export interface KubeObjectLike {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly generation?: number;
    readonly creationTimestamp?: string;
    readonly deletionTimestamp?: string;
  };
  readonly [field: string]: unknown;
}

export interface Answer {
  readonly status: number;
  readonly text: string;
}

interface Credentials {
  readonly server: string;
  readonly options: AgentOptions;
  readonly headers: Readonly<Record<string, string>>;
}

const timeoutMs = 15_000;

/** The API answered with something other than success. */
export class ApiError extends Error {
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export class KubeClient {
  readonly server: string;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #agent: Agent;
  readonly #resources = new Map<string, Promise<readonly Resource[]>>();

  constructor(credentials: Credentials) {
    this.server = credentials.server;
    this.#headers = credentials.headers;
    this.#agent = new Agent({ ...credentials.options, keepAlive: true, maxSockets: 16 });
  }

  /** Rejects with NotSoError when the server cannot be reached. */
  ask(
    method: string,
    path: string,
    body?: { readonly type: string; readonly text: string },
  ): Promise<Answer> {
    const url = new URL(path, this.server);
    const headers = {
      accept: "application/json",
      ...this.#headers,
      ...(body && { "content-type": body.type }),
    };
    return new Promise((done, failed) => {
      const outgoing = request(
        url,
        { method, headers, agent: this.#agent, timeout: timeoutMs },
        (response) => {
          let text = "";
          response.setEncoding("utf8");
          response.on("data", (part: string) => (text += part));
          response.on("end", () => done({ status: response.statusCode ?? 0, text }));
          response.on("error", failed);
        },
      );
      outgoing.on("timeout", () => outgoing.destroy(new Error(`no answer within ${timeoutMs / 1_000} s`)));
      outgoing.on("error", (cause) =>
        failed(
          new NotSoError(`the Kubernetes API at ${this.server} cannot be reached: ${cause.message}`, {
            cause,
          }),
        ),
      );
      outgoing.end(body?.text);
    });
  }

  /** Rejects with ApiError unless the answer is a success. */
  async get<T>(path: string): Promise<T> {
    return parseAnswer<T>(await this.ask("GET", path));
  }

  async list(path: string): Promise<readonly KubeObjectLike[]> {
    return (await this.get<{ items?: KubeObjectLike[] }>(path)).items ?? [];
  }

  /** Server-side apply, with our fields taken over from whoever set them. */
  async apply(object: KubeObjectLike): Promise<KubeObjectLike> {
    const path = `${await this.pathOf(object)}?fieldManager=mizzen&force=true`;
    return parseAnswer(
      await this.ask("PATCH", path, { type: "application/apply-patch+yaml", text: JSON.stringify(object) }),
    );
  }

  /** The path of an object in the API, by discovery. Rejects with NotSoError when the API does not serve its kind. */
  async pathOf(object: KubeObjectLike): Promise<string> {
    const { apiVersion, kind, metadata } = object;
    const base = apiVersion.includes("/") ? `/apis/${apiVersion}` : `/api/${apiVersion}`;
    const resource = (await this.#resourcesOf(base)).find(
      (candidate) => candidate.kind === kind && !candidate.name.includes("/"),
    );
    if (resource === undefined)
      throw new NotSoError(
        `the cluster does not know the kind ${kind} of ${apiVersion}; are its definitions installed?`,
      );
    const namespace = resource.namespaced ? `/namespaces/${metadata.namespace ?? "default"}` : "";
    return `${base}${namespace}/${resource.name}/${metadata.name}`;
  }

  async #resourcesOf(base: string): Promise<readonly Resource[]> {
    let known = this.#resources.get(base);
    if (known === undefined) {
      known = this.get<{ resources?: Resource[] }>(base).then(({ resources = [] }) => resources);
      this.#resources.set(base, known);
      // What is not there yet may come: a definition that was just applied.
      known.catch(() => this.#resources.delete(base));
    }
    try {
      return await known;
    } catch (cause) {
      if (cause instanceof ApiError && cause.status === 404) return [];
      throw cause;
    }
  }

  /** Forgets which kinds there are. */
  forgetKinds(): void {
    this.#resources.clear();
  }

  close(): void {
    this.#agent.destroy();
  }
}

interface Resource {
  readonly name: string;
  readonly kind: string;
  readonly namespaced: boolean;
}

function parseAnswer<T>({ status, text }: Answer): T {
  if (status >= 200 && status < 300) return JSON.parse(text) as T;
  let message = text.trim();
  try {
    message = (JSON.parse(text) as { message?: string }).message ?? message;
  } catch {
    // Not a Status object: the text itself says it.
  }
  throw new ApiError(status, message === "" ? `the Kubernetes API answered ${status}` : message);
}

interface KubeConfigFile {
  readonly "current-context"?: string;
  readonly contexts?: readonly {
    readonly name: string;
    readonly context: { readonly cluster: string; readonly user: string };
  }[];
  readonly clusters?: readonly {
    readonly name: string;
    readonly cluster: Readonly<Record<string, unknown>>;
  }[];
  readonly users?: readonly { readonly name: string; readonly user: Readonly<Record<string, unknown>> }[];
}

/** Throws NotSoError when the file, or the context in it, is not there. */
export async function readKubeconfig(file: string, context?: string): Promise<Credentials> {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new NotSoError(
      `there is no kubeconfig at ${file}; start a standalone cluster with 'mizzen up', or name one with --kubeconfig`,
      { cause },
    );
  }
  const config = (parse(text) ?? {}) as KubeConfigFile;
  const name = context ?? config["current-context"];
  const chosen = config.contexts?.find((candidate) => candidate.name === name)?.context;
  const cluster = config.clusters?.find((candidate) => candidate.name === chosen?.cluster)?.cluster;
  const user = config.users?.find((candidate) => candidate.name === chosen?.user)?.user ?? {};
  if (cluster === undefined) throw new NotSoError(`${file} has no context ${name ?? "(none chosen)"}`);
  if ("exec" in user || "auth-provider" in user) return readWithLibrary(file, name);
  const pem = (from: Readonly<Record<string, unknown>>, key: string): Buffer | undefined => {
    const data = from[`${key}-data`];
    if (typeof data === "string") return Buffer.from(data, "base64");
    const path = from[key];
    return typeof path === "string" ? readFileSync(resolve(dirname(file), path)) : undefined;
  };
  const token = user["token"];
  const options: AgentOptions = {
    ca: pem(cluster, "certificate-authority"),
    cert: pem(user, "client-certificate"),
    key: pem(user, "client-key"),
    rejectUnauthorized: cluster["insecure-skip-tls-verify"] !== true,
  };
  const headers: Record<string, string> =
    typeof token === "string" ? { authorization: `Bearer ${token}` } : {};
  return { server: String(cluster["server"]), options, headers };
}

async function readWithLibrary(file: string, context: string | undefined): Promise<Credentials> {
  const { KubeConfig } = await import("@kubernetes/client-node");
  const config = new KubeConfig();
  config.loadFromFile(file);
  if (context !== undefined) config.setCurrentContext(context);
  const options: RequestOptions = {};
  await config.applyToHTTPSOptions(options);
  const { headers, ...rest } = options;
  return {
    server: config.getCurrentCluster()?.server ?? "",
    options: rest as AgentOptions,
    headers: headers as Record<string, string>,
  };
}
