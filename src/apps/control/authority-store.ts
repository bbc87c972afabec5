// Where the CA's key comes from: the operator's Secret `cacerts`, or a self-signed root of our own, made once and kept in
// `istio-ca-secret`. Of replicas that start together one creates it, the others take what it made.

import type { Clock, Logger } from "#base";
import { CertificateAuthority, createSelfSignedMaterial, type AuthorityMaterial } from "#identity";
import { KubeError, type KubeClient } from "#kube";

const operatorSecret = "cacerts";
const ownSecret = "istio-ca-secret";

/** The material's fields under the keys of Istio's Secrets. */
const keys = {
  caCert: "ca-cert.pem",
  caKey: "ca-key.pem",
  rootCert: "root-cert.pem",
  certChain: "cert-chain.pem",
} as const satisfies Record<keyof AuthorityMaterial, string>;

interface Secret {
  readonly metadata: { readonly resourceVersion?: string };
  readonly data?: Readonly<Record<string, string>>;
}

export interface StoredAuthority {
  readonly authority: CertificateAuthority;
  /** Changes when the Secret does. */
  readonly version: string;
}

export interface AuthorityStoreOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly trustDomain: string;
  readonly clock: Clock;
  readonly log: Logger;
}

/**
 * Loads the CA, making the root if there is none. Returns `before` if nothing changed.
 * Throws if the Secret holds what cannot sign, in words for its owner.
 */
export async function loadAuthority(
  options: AuthorityStoreOptions,
  before?: StoredAuthority,
): Promise<StoredAuthority> {
  const { client, namespace, clock } = options;
  for (const name of [operatorSecret, ownSecret]) {
    const secret = await readSecret(client, namespace, name);
    if (secret === undefined) continue;
    const version = `${name}/${secret.metadata.resourceVersion ?? ""}`;
    if (version === before?.version) return before;
    const authority = await CertificateAuthority.load(materialOf(secret, name), { clock });
    return { authority, version };
  }
  await createOwn(options);
  return loadAuthority(options, before);
}

async function createOwn({
  client,
  namespace,
  trustDomain,
  clock,
  log,
}: AuthorityStoreOptions): Promise<void> {
  const material = await createSelfSignedMaterial(clock, trustDomain);
  const data = Object.entries(keys).map(([field, key]) => [
    key,
    Buffer.from(material[field as keyof AuthorityMaterial]).toString("base64"),
  ]);
  const body = {
    apiVersion: "v1",
    kind: "Secret",
    type: "istio.io/ca-root",
    metadata: { name: ownSecret, namespace },
    data: Object.fromEntries(data) as Record<string, string>,
  };
  try {
    await client.request(`/api/v1/namespaces/${namespace}/secrets`, { method: "POST", body });
    log.info({ secret: `${namespace}/${ownSecret}` }, "made a new root for the mesh");
  } catch (error) {
    // Another replica was first: its root is the mesh's.
    if (!(error instanceof KubeError && error.status === 409)) throw error;
  }
}

async function readSecret(client: KubeClient, namespace: string, name: string): Promise<Secret | undefined> {
  try {
    return await client.get<Secret>(`/api/v1/namespaces/${namespace}/secrets/${name}`);
  } catch (error) {
    if (error instanceof KubeError && error.status === 404) return undefined;
    throw error;
  }
}

function materialOf({ data = {} }: Secret, name: string): AuthorityMaterial {
  const read = (key: string): string => Buffer.from(data[key] ?? "", "base64").toString();
  for (const key of [keys.caCert, keys.caKey])
    if (data[key] === undefined) throw new Error(`Secret ${name} has no ${key}`);
  const caCert = read(keys.caCert);
  const rootCert = read(keys.rootCert);
  return {
    caCert,
    caKey: read(keys.caKey),
    // A self-signed CA of Istio's has no root beside itself.
    rootCert: rootCert === "" ? caCert : rootCert,
    certChain: read(keys.certChain),
  };
}
