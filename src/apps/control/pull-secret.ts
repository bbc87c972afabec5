// Credentials for registries, as a Secret of type kubernetes.io/dockerconfigjson holds them.

import type { Engine } from "#engine";
import { KubeError, type KubeClient } from "#kube";
import { tables } from "#model";
import type { ImageReference } from "#objects";
import type { RegistryCredentials } from "./registry.ts";

export interface PullSecret {
  readonly type?: string;
  /** In base64. */
  readonly data?: Readonly<Record<string, string>>;
}

interface Entry {
  readonly username?: unknown;
  readonly password?: unknown;
  readonly auth?: unknown;
}

const secretType = "kubernetes.io/dockerconfigjson";

/** Reads one Secret when it is needed: nobody watches those. Without an API server they are the operator's own files. */
export function pullSecretReader(
  client: KubeClient | undefined,
  engine: Engine,
): (namespace: string, name: string) => Promise<PullSecret | undefined> {
  return async (namespace, name) => {
    if (client === undefined)
      return engine.rows(tables.Secret).get(`${namespace}/${name}`) as PullSecret | undefined;
    const [place, secret] = [namespace, name].map(encodeURIComponent);
    try {
      return await client.get<PullSecret>(`/api/v1/namespaces/${place}/secrets/${secret}`);
    } catch (error) {
      if (error instanceof KubeError && error.status === 404) return undefined;
      throw new Error(`Secret ${namespace}/${name} cannot be read: ${String(error)}`, { cause: error });
    }
  };
}

/** Those of the entry that names the image most closely; undefined if none does. Throws, without telling what stands there. */
export function credentialsFor(
  secret: PullSecret,
  { registry, repository }: ImageReference,
): RegistryCredentials | undefined {
  const text = secret.data?.[".dockerconfigjson"];
  if (secret.type !== secretType || text === undefined)
    throw new Error(`the Secret is not of type ${secretType}`);
  const auths = authsOf(Buffer.from(text, "base64").toString());
  const named = `${registry}/${repository}`;
  const fitting = Object.entries(auths)
    .map(([key, entry]) => ({ place: placeOf(key), entry }))
    .filter(({ place }) => named === place || named.startsWith(`${place}/`))
    .toSorted((a, b) => b.place.length - a.place.length);
  return fitting.flatMap(({ entry }) => credentialsOf(entry) ?? [])[0];
}

/** `https://index.docker.io/v1/` is Docker's own registry; paths of other entries bound the repositories that they are for. */
function placeOf(key: string): string {
  const place = key.replace(/^https?:\/\//, "").replace(/\/(v[12]\/?)?$/, "");
  return place.replace(/^(index|registry-1)\.docker\.io/, "docker.io");
}

function authsOf(text: string): Readonly<Record<string, Entry | null>> {
  try {
    const { auths } = JSON.parse(text) as { readonly auths?: unknown };
    if (typeof auths === "object" && auths !== null) return auths as Readonly<Record<string, Entry | null>>;
  } catch {
    // Told below, without the parser's words: they quote what they stumbled over.
  }
  throw new Error("the Secret holds no Docker configuration");
}

function credentialsOf(entry: Entry | null): RegistryCredentials | undefined {
  const { username, password, auth } = entry ?? {};
  if (typeof username === "string" && typeof password === "string" && username !== "")
    return { user: username, password };
  const pair = typeof auth === "string" ? Buffer.from(auth, "base64").toString() : "";
  const colon = pair.indexOf(":");
  return colon <= 0 ? undefined : { user: pair.slice(0, colon), password: pair.slice(colon + 1) };
}
