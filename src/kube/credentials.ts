// How to reach an API server and by what to prove who we are: from a kubeconfig, or from what every Pod is given.

import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse } from "yaml";

/** Where the API server is and what to show it. Files are read again when they change on disk: tokens are renewed there. */
export interface KubeAccess {
  /** e.g. "https://10.96.0.1:443". */
  readonly server: string;
  /** PEM; without it the machine's own roots are trusted. */
  readonly ca?: string;
  readonly clientCertificate?: string;
  readonly clientKey?: string;
  readonly token?: string;
  readonly tokenFile?: string;
  /** The name that the server's certificate must bear, if not the one in `server`. */
  readonly tlsServerName?: string;
}

/** Where Kubernetes mounts a Pod's identity. */
export const serviceAccountDirectory = "/var/run/secrets/kubernetes.io/serviceaccount";

/** Access from within a Pod. Throws if the files are not there. */
export function accessInCluster(host: string, port: string, directory = serviceAccountDirectory): KubeAccess {
  const address = host.includes(":") ? `[${host}]` : host;
  return {
    server: `https://${address}:${port}`,
    ca: readFileSync(`${directory}/ca.crt`, "utf8"),
    tokenFile: `${directory}/token`,
  };
}

interface Kubeconfig {
  readonly "current-context"?: string;
  readonly clusters?: readonly Named<"cluster">[];
  readonly users?: readonly Named<"user">[];
  readonly contexts?: readonly Named<"context">[];
}
type Named<Field extends string> = { readonly name: string } & {
  readonly [F in Field]?: Readonly<Record<string, string>>;
};

/** Access from a kubeconfig file, by its current context or the given one. Throws saying what is missing. */
export function accessFromKubeconfig(path: string, context?: string): KubeAccess {
  const config = parse(readFileSync(path, "utf8")) as Kubeconfig;
  const contextName = context ?? config["current-context"];
  const chosen = config.contexts?.find(({ name }) => name === contextName)?.context;
  if (chosen === undefined) throw new Error(`${path} has no context ${contextName ?? "(none is current)"}`);
  const cluster = config.clusters?.find(({ name }) => name === chosen["cluster"])?.cluster;
  const user = config.users?.find(({ name }) => name === chosen["user"])?.user;
  const server = cluster?.["server"];
  if (server === undefined) throw new Error(`${path} has no server for the context ${contextName}`);
  if (user?.["exec"] !== undefined || user?.["auth-provider"] !== undefined)
    throw new Error(`${path} asks for a credential plugin; give a token or a client certificate instead`);
  const base = dirname(path);
  const tokenFile = user?.["tokenFile"];
  return {
    server,
    ca: pemOf(cluster, "certificate-authority", base),
    clientCertificate: pemOf(user, "client-certificate", base),
    clientKey: pemOf(user, "client-key", base),
    token: user?.["token"],
    tokenFile: tokenFile === undefined ? undefined : resolve(base, tokenFile),
    tlsServerName: cluster?.["tls-server-name"],
  };
}

/** A PEM from `<field>-data` (base64) or the file that `<field>` names. */
function pemOf(
  section: Readonly<Record<string, string>> | undefined,
  field: string,
  base: string,
): string | undefined {
  const data = section?.[`${field}-data`];
  if (data !== undefined) return Buffer.from(data, "base64").toString();
  const file = section?.[field];
  return file === undefined ? undefined : readFileSync(resolve(base, file), "utf8");
}
